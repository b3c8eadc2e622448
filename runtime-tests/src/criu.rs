//! Containers that are saved and restored by criu: one that counts, so that it can be seen to go on where it was.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{Container, Output, until};

/// Ends the test as skipped where there is no criu.
#[macro_export]
macro_rules! need_criu {
    () => {
        if $crate::criu::program().is_none() {
            $crate::skip!("needs criu in PATH (hack/test installs it)");
        }
    };
}

/// Counts in a variable of the shell's, and tells the number as the target of a symlink: a file open for writing just when the
/// container is saved would have to be there, of the same size, each time it is restored. The symlink is renamed into place: there is a
/// count at any moment.
pub const COUNT: &str =
    "i=0; while :; do i=$((i+1)); ln -sn $i /tmp/next; mv -f /tmp/next /tmp/count; sleep 0.02; done";

/// criu, if there is one in PATH.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("criu")).find(|file| file.is_file())
}

/// Whether criu finds a feature of its own and of the kernel (`criu check --feature`).
#[must_use]
pub fn has_feature(name: &str) -> bool {
    let mut check = Command::new("criu");
    check.args(["check", "--feature", name]).output().is_ok_and(|out| out.status.success())
}

/// A container that counts, whose streams criu can save: not files of the host.
#[must_use]
pub fn counter() -> Container {
    Container::new().sh(&format!("exec </dev/null >/dev/null 2>&1; {COUNT}"))
}

/// Another bundle of the same configuration.
#[must_use]
pub fn like(c: &Container) -> Container {
    let mut other = Container::new();
    other.config.clone_from(&c.config);
    other
}

/// The container in a user namespace.
///
/// # Panics
/// When its `/tmp` cannot be opened to all.
#[must_use]
pub fn in_a_user_namespace(c: Container) -> Container {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let c = c.namespace("user", "").with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    fs::set_permissions(c.path("tmp"), fs::Permissions::from_mode(0o777)).expect("chmod");
    c
}

/// How far it has counted.
///
/// # Panics
/// When it does not.
pub fn count(c: &Container) -> u32 {
    let mut target = PathBuf::new();
    until("a count", || fs::read_link(c.path("tmp/count")).map(|n| target = n).is_ok());
    target.to_str().and_then(|n| n.parse().ok()).expect("the count")
}

/// Waits until it has counted beyond `n`, in a symlink of its own making.
///
/// # Panics
/// When it does not, or when it is so far beyond that it cannot have gone on from there.
#[track_caller]
pub fn goes_on(c: &Container, n: u32) {
    let _ = fs::remove_file(c.path("tmp/count"));
    let mut now = 0;
    until("the count to go on", || {
        now = count(c);
        now > n
    });
    assert!(now < n + 2000, "{now} after {n}");
}

/// Saves it with these flags, and tells how far it had counted.
#[track_caller]
pub fn saved(c: &Container, flags: &[&str]) -> u32 {
    count(c);
    c.call("checkpoint", flags, &[]).ok();
    count(c)
}

/// Restores it with these flags.
#[track_caller]
pub fn restored(c: &Container, flags: &[&str]) -> Output {
    c.write_config();
    c.call("restore", flags, &[])
}

/// Sends SIGINT to a command that runs.
///
/// # Panics
/// When it does not run.
pub fn interrupt(id: u32) {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::INT).expect("a running command");
}
