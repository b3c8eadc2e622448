//! `delete`: everything of a container goes, whatever state it was left in.

use crate::error::{Doing, Error, Result};
use crate::hooks;
use crate::state::{State, StateDir, Status, is_frozen};
use crate::{Runtime, log, processes};
use rrt_cgroups::Cgroup;
use rrt_sys::errno;
use rrt_sys::process::{self, SingleThreaded};
use rrt_sys::socket;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// How long a killed process may take to be gone: only one that hangs in the kernel takes longer than a moment.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Runtime {
    /// `delete`: of a stopped or created container; with `force` of any, and then a missing one is no error.
    ///
    /// # Errors
    /// [`Error::Status`] when it runs and `force` is not given.
    pub fn delete(&self, id: &str, force: bool) -> Result<()> {
        if force {
            interrupt(&self.root, id);
        }
        let dir = match StateDir::open(&self.root, id) {
            Err(Error::NotFound(_)) if force => return Ok(()),
            dir => dir?,
        };
        let Some(state) = dir.read()? else {
            // `create` was killed before it wrote down anything, and so before it made anything else.
            return dir.remove();
        };
        match state.status(&dir) {
            status @ (Status::Running | Status::Paused) if !force => {
                let hint = "kill it first, or use --force";
                Err(Error::Status(format!("cannot delete container {id} that is not stopped: {status} ({hint})")))
            }
            _ => delete(dir, &state),
        }
    }
}

/// Kills init without waiting for the lock: a `create` or `start` that hangs, in a hook without a timeout or on a dead network file
/// system, holds it, and lets go when init is gone. Whatever cannot be read here the lock's next holder will see.
fn interrupt(root: &Path, id: &str) {
    let state = StateDir::open_unlocked(root, id).and_then(|dir| dir.read());
    if let Ok(Some(state)) = state
        && let Some(init) = state.init
        && let Ok(pidfd) = init.pidfd()
    {
        kill_those_without_cgroup(&state);
        let _ = process::send_signal(pidfd.as_fd(), 9);
    }
}

/// Processes of a shared pid namespace that no cgroup holds are found by their parents, so before init is gone.
fn kill_those_without_cgroup(state: &State) {
    if state.cgroup().is_disabled() && !state.own_pid_namespace {
        // What cannot be signalled has ended, or is not ours.
        let _ = processes::kill_all(state, 9);
    }
}

/// Ends what is left of the container, then removes its cgroups, runs its poststop hooks, and last removes its record.
pub fn delete(dir: StateDir, state: &State) -> Result<()> {
    let cgroup = state.cgroup();
    if let Some(Ok(pidfd)) = state.init.map(|i| i.pidfd()) {
        kill_those_without_cgroup(state);
        match process::send_signal(pidfd.as_fd(), 9) {
            // It was killed before the lock was waited for, and its parent has reaped it since the pidfd was opened.
            Err(e) if e.is(errno::ESRCH) => {}
            sent => sent.doing(|| "kill init".into())?,
        }
        // Nothing waits by sleeping: the pidfd becomes readable at the moment init is dead.
        if is_frozen(&cgroup) {
            cgroup.thaw_if_there()?;
        }
        let ms = KILL_TIMEOUT.as_millis() as i32;
        if !socket::poll_readable(&[pidfd.as_fd()], ms).doing(|| "wait for init to end".into())?[0] {
            return Err(Error::Status(
                "init does not end on SIGKILL; it hangs in the kernel (see its /proc/PID/stack)".into(),
            ));
        }
    }
    match state.init {
        // In a pid namespace of its own all others have died with init; otherwise they are found by their cgroup.
        Some(_) => remove_cgroup(&cgroup)?,
        // `create` was killed, and its init ends with it. Nobody is killed here: if it was killed before it made the cgroup,
        // what is in there is another's.
        None if cgroup.has_unit() => {}
        None => cgroup.delete(KILL_TIMEOUT)?,
    }
    if let Some(root) = &state.host_root {
        root.unmount()?;
    }
    if let Some(rdt) = &state.intel_rdt {
        rdt.remove()?;
    }
    run_poststop(state);
    log::debug(format!("delete {:?}: nothing is left", state.id));
    dir.remove()
}

/// Kills what is left in the container's cgroups and removes them.
pub fn remove_cgroup(cgroup: &Cgroup) -> Result<()> {
    if cgroup.remove_if_unused() {
        return Ok(());
    }
    if !cgroup.is_disabled() && !cgroup.pids()?.is_empty() {
        cgroup.kill(9)?;
    }
    match cgroup.delete(KILL_TIMEOUT) {
        // Its processes are dead and its cgroups removed, and a unit without them ends by itself.
        Err(e @ (rrt_cgroups::Error::Systemd { .. } | rrt_cgroups::Error::NoSystemd)) => {
            log::warn(format!("the container is gone, but systemd did not say so of its unit: {e}"));
            Ok(())
        }
        done => Ok(done?),
    }
}

/// Runs poststop hooks; one that fails is a warning, and the next is run (runtime-spec runtime.md, "Lifecycle").
pub fn run_poststop(state: &State) {
    for hook in &state.hooks.poststop {
        let done = SingleThreaded::check().doing(|| "check that the runtime has one thread".into()).and_then(|token| {
            let document = state.for_hooks(Status::Stopped);
            let output = state.hooks.output.open()?;
            hooks::run(&token, std::slice::from_ref(hook), &document, &state.bundle, &output, None)
        });
        if let Err(e) = done {
            log::warn(e.to_string());
        }
    }
}
