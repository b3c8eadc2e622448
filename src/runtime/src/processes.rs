//! The processes of a container that has no cgroup (rootless without delegation, `--cgroup-manager=disabled`): found by their pid
//! namespace and by their parents.
//!
//! A cgroup answers this exactly. Here a process of a shared pid namespace that has lost its parent is not found any more.

use crate::error::{Doing, Error, Result};
use crate::state::State;
use rrt_sys::errno;
use rrt_sys::process::{pidfd_open, send_signal};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::AsFd;

/// A process as `/proc` shows it.
struct Entry {
    parent: i32,
    namespace: Option<OsString>,
}

/// The pids of the container's processes, sorted; those of its cgroup if it has one.
pub fn pids(state: &State) -> Result<Vec<i32>> {
    let cgroup = state.cgroup();
    if !cgroup.is_disabled() {
        return Ok(cgroup.pids()?);
    }
    match state.init.filter(|init| init.is_alive()) {
        Some(init) => Ok(belonging(&all()?, init.pid, state.own_pid_namespace)),
        None => Ok(Vec::new()),
    }
}

/// Signals every process of the container.
///
/// # Errors
/// [`Error::Status`] when it has none.
pub fn kill_all(state: &State, signal: i32) -> Result<()> {
    let cgroup = state.cgroup();
    if !cgroup.is_disabled() {
        return Ok(cgroup.kill(signal)?);
    }
    // The pidfds first, and then the list again: a pid that has become somebody else's in between is not in it.
    let held: Vec<_> = pids(state)?.into_iter().filter_map(|pid| Some((pid, pidfd_open(pid).ok()?))).collect();
    let still = pids(state)?;
    if still.is_empty() {
        return Err(Error::Status("container not running".into()));
    }
    for (_, fd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
        match send_signal(fd.as_fd(), signal) {
            Err(e) if e.is(errno::ESRCH) => {}
            done => done.doing(|| format!("send signal {signal}"))?,
        }
    }
    Ok(())
}

fn all() -> Result<BTreeMap<i32, Entry>> {
    let mut all = BTreeMap::new();
    for dir in std::fs::read_dir("/proc").doing(|| "list /proc".into())?.flatten() {
        let Some(pid) = dir.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        // One that ends meanwhile has no file any more; another user's namespace is not ours to see.
        let Ok(stat) = procfs::process::Process::new(pid).and_then(|p| p.stat()) else { continue };
        let namespace = std::fs::read_link(dir.path().join("ns/pid")).ok().map(Into::into);
        all.insert(pid, Entry { parent: stat.ppid, namespace });
    }
    Ok(all)
}

/// Init, what is in its pid namespace if that is the container's own, and all their descendants.
fn belonging(all: &BTreeMap<i32, Entry>, init: i32, own_namespace: bool) -> Vec<i32> {
    let namespace = all.get(&init).and_then(|e| e.namespace.as_ref()).filter(|_| own_namespace);
    let inside = |e: &Entry| namespace.is_some() && e.namespace.as_ref() == namespace;
    let mut found: BTreeSet<i32> =
        all.iter().filter(|(pid, e)| **pid == init || inside(e)).map(|(pid, _)| *pid).collect();
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|(pid, e)| !found.contains(pid) && found.contains(&e.parent))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found.into_iter().collect();
        }
        found.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(i32, i32, &str)]) -> BTreeMap<i32, Entry> {
        rows.iter().map(|&(pid, parent, ns)| (pid, Entry { parent, namespace: Some(ns.into()) })).collect()
    }

    #[test]
    fn a_container_is_its_namespace_and_its_descendants() {
        // 10 is init; 12 came by exec; 13 is in a nested namespace; 20 is another container, 30 the host's.
        let all = table(&[
            (1, 0, "h"),
            (10, 1, "c"),
            (11, 10, "c"),
            (12, 30, "c"),
            (13, 12, "n"),
            (20, 1, "d"),
            (30, 1, "h"),
        ]);
        assert_eq!(belonging(&all, 10, true), [10, 11, 12, 13]);
    }

    #[test]
    fn in_a_shared_namespace_only_the_parents_tell() {
        let all = table(&[(1, 0, "h"), (10, 1, "h"), (11, 10, "h"), (12, 11, "h"), (30, 1, "h")]);
        assert_eq!(belonging(&all, 10, false), [10, 11, 12]);
    }
}
