//! What a container must not leave behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::host::{cgroup_mounts, host_mounts};

/// How long the kernel may take to empty a cgroup or to end a process after the runtime has returned.
const GRACE: Duration = Duration::from_secs(5);

/// Fails unless every cgroup, mount, state directory and process of container `id` is gone. `root` is the runtime's
/// `--root`.
///
/// # Panics
/// When something is left; it lists what.
#[track_caller]
pub fn assert_nothing_left(id: &str, root: &Path) {
    let left = leftovers(id, root);
    assert!(left.is_empty(), "left of container {id}:\n{}", left.join("\n"));
}

/// What is left of container `id` when the kernel has had its time.
#[must_use]
pub fn leftovers(id: &str, root: &Path) -> Vec<String> {
    let end = Instant::now() + GRACE;
    loop {
        let left = left(id, root);
        if left.is_empty() || Instant::now() > end {
            return left;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn left(id: &str, root: &Path) -> Vec<String> {
    let mut left = state(id, root);
    left.extend(host_mounts().iter().filter(|m| m.contains(id)).map(|m| format!("mount {m}")));
    left.extend(processes(id));
    left.extend(cgroups_named(id).iter().map(|dir| format!("cgroup {}", dir.display())));
    left
}

/// Every cgroup, in any hierarchy, whose name holds `id`.
#[must_use]
pub fn cgroups_named(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for mount in cgroup_mounts() {
        directories(&mount.path, id, &mut found);
    }
    found
}

fn state(id: &str, root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let ours = entries.filter(|e| e.file_name().to_string_lossy().contains(id));
    ours.map(|e| format!("state {}", e.path().display())).collect()
}

fn directories(dir: &Path, id: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(id) {
            found.push(entry.path());
        }
        directories(&entry.path(), id, found);
    }
}

/// Processes that are the runtime's for this container (the id is an argument), or in its cgroup, or carry the mark
/// that each container's environment holds. A zombie is its parent's business and counts as gone.
fn processes(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let dir = entry.path();
        if !entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) || is_zombie(&dir) {
            continue;
        }
        let ours = ["cmdline", "environ", "cgroup"]
            .iter()
            .any(|file| fs::read(dir.join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(id)));
        if ours {
            let cmdline = fs::read(dir.join("cmdline")).unwrap_or_default();
            found.push(format!("process {} {}", dir.display(), String::from_utf8_lossy(&cmdline).replace('\0', " ")));
        }
    }
    found
}

fn is_zombie(dir: &Path) -> bool {
    let stat = fs::read_to_string(dir.join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z') || rest.starts_with('X'))
}
