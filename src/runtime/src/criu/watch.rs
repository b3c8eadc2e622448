//! Looking after criu: whether it still does something, and its end with everything it has started.

use rrt_sys::process;
use std::fs;

/// What all processes below this one have done so far: CPU time and bytes moved. It grows as long as any of them is at work.
pub fn work_done() -> u64 {
    descendants().into_iter().filter_map(work_of).sum()
}

fn work_of(pid: i32) -> Option<u64> {
    let process = procfs::process::Process::new(pid).ok()?;
    let stat = process.stat().ok()?;
    // Of a process of another user namespace it may be kept from us; its CPU time is enough then.
    let moved = process.io().map_or(0, |io| io.rchar + io.wchar);
    Some(1 + stat.utime + stat.stime + moved)
}

/// SIGKILL to every process below this one, until there is none that is not dead: criu, the programs it runs, and the processes it
/// was about to bring back, which are our own children (`rst_sibling`).
pub fn kill_all() {
    /// One that forks while it is being killed is found the next time.
    const ROUNDS: u32 = 100;
    for _ in 0..ROUNDS {
        let living: Vec<i32> = descendants().into_iter().filter(|pid| !is_dead(*pid)).collect();
        if living.is_empty() {
            return;
        }
        for pid in living {
            if let Ok(pidfd) = process::pidfd_open(pid) {
                let _ = process::send_signal(std::os::fd::AsFd::as_fd(&pidfd), 9);
                // Its end, so that the next round does not find it dying.
                let _ = rrt_sys::socket::poll_readable(&[std::os::fd::AsFd::as_fd(&pidfd)], 100);
            }
        }
    }
}

/// Reaps every child that has ended.
pub fn reap_all() {
    while process::reap_any().is_some() {}
}

fn is_dead(pid: i32) -> bool {
    let state = procfs::process::Process::new(pid).and_then(|p| p.stat()).map(|s| s.state);
    state.map_or(true, |s| matches!(s, 'Z' | 'X' | 'x'))
}

/// Every process below this one, parents before children.
fn descendants() -> Vec<i32> {
    let mut found = children_of("self");
    let mut next = 0;
    while next < found.len() {
        found.extend(children_of(&found[next].to_string()));
        next += 1;
    }
    found
}

/// `/proc/PID/task/TID/children`, which is there wherever criu can work (proc_pid_task_tid_children(5)).
fn children_of(pid: &str) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    lists.flat_map(|l| l.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<i32>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_is_found_and_its_work_counts() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(descendants().contains(&(child.id() as i32)));
        assert!(work_of(child.id() as i32).unwrap() > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!descendants().contains(&(child.id() as i32)));
    }
}
