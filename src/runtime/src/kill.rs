//! `kill`, `pause`, `resume`, `update`.

use crate::error::{Error, Result};
use crate::plan::with_default_devices;
use crate::state::{StateDir, Status};
use crate::{Runtime, processes};
use rrt_cgroups::{DeviceRule, with_device_rules};
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

    /// `update`: new limits for a living container, and more device rules after those it has. `devices` of `resources` is not looked
    /// at, as in runc: containerd sends there what it sent at `create`.
    pub fn update(&self, id: &str, resources: &rrt_oci::LinuxResources, devices: &[DeviceRule]) -> Result<()> {
        let dir = StateDir::open(&self.root, id)?;
        let mut state = dir.require()?;
        if state.status(&dir) == Status::Stopped {
            return Err(Error::Status("container not running".into()));
        }
        let cgroup = state.cgroup();
        if devices.is_empty() {
            return Ok(cgroup.update(resources)?);
        }
        let rules = with_device_rules(&state.device_rules, devices);
        let (old, new) = (with_default_devices(&state.device_rules), with_default_devices(&rules));
        cgroup.update_devices(&old, &new)?;
        if let Err(e) = cgroup.update(resources) {
            cgroup.update_devices(&new, &old)?;
            return Err(e.into());
        }
        state.device_rules = rules;
        dir.write(&state)
    }
}
