//! `kill`, `pause`, `resume`, `update`.

use crate::error::{Error, Result};
use crate::state::{StateDir, Status};
use crate::{Runtime, processes};
use rrt_sys::errno;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long `pause` waits for the last process to stand still.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(10);

impl Runtime {
    /// `kill`: sends a signal to init, or with `all` to every process of the container.
    ///
    /// # Errors
    /// `container not running`, which containerd and CRI-O match.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        // Without the lock: a `start` that waits for a hook must not keep a kill from coming through.
        let dir = StateDir::open_unlocked(&self.root, id)?;
        let state = dir.require()?;
        if all {
            // Processes may outlive init in a pid namespace that is shared.
            return processes::kill_all(&state, signal);
        }
        // In a pid namespace shared with others its processes outlive init.
        if signal == 9 && !state.own_pid_namespace && !processes::pids(&state)?.is_empty() {
            return processes::kill_all(&state, signal);
        }
        let not_running = || Error::Status("container not running".into());
        let init = state.init.ok_or_else(not_running)?;
        let pidfd = init.pidfd()?;
        rrt_sys::process::send_signal(pidfd.as_fd(), signal).map_err(|source| match source.is(errno::ESRCH) {
            true => not_running(),
            false => Error::System { doing: format!("send signal {signal}"), source },
        })?;
        // A frozen process takes no signal, and SIGKILL is meant to end it (contract A.9).
        if signal == 9 && state.status(&dir) == Status::Paused {
            state.cgroup().thaw()?;
        }
        Ok(())
    }

    /// `pause`: freezes every process and returns when all stand still.
    pub fn pause(&self, id: &str) -> Result<()> {
        let dir = StateDir::open(&self.root, id)?;
        let state = dir.require()?;
        match state.status(&dir) {
            Status::Running | Status::Created => Ok(state.cgroup().freeze(PAUSE_TIMEOUT)?),
            status => Err(Error::Status(format!("container not running or created: {status}"))),
        }
    }

    /// `resume`
    pub fn resume(&self, id: &str) -> Result<()> {
        let dir = StateDir::open(&self.root, id)?;
        let state = dir.require()?;
        match state.status(&dir) {
            Status::Paused => Ok(state.cgroup().thaw()?),
            status => Err(Error::Status(format!("container not paused: {status}"))),
        }
    }

    /// `update`: new limits for a living container; device rules are not touched, as in runc.
    pub fn update(&self, id: &str, resources: &rrt_oci::LinuxResources) -> Result<()> {
        let dir = StateDir::open(&self.root, id)?;
        let state = dir.require()?;
        match state.status(&dir) {
            Status::Stopped => Err(Error::Status("container not running".into())),
            _ => Ok(state.cgroup().update(resources)?),
        }
    }
}
