//! `kill`, `pause`, `resume`, `update`.

use crate::error::{Error, Result};
use crate::intel_rdt::SavedIntelRdt;
use crate::plan::with_default_devices;
use crate::state::{State, StateDir, Status};
use crate::{Runtime, processes};
use rrt_cgroups::{DeviceRule, with_device_rules};
use rrt_sys::errno;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long `pause` waits for the last process to stand still.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What `update` changes of `linux.intelRdt`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RdtUpdate {
    /// `--l3-cache-schema`
    pub l3_cache: Option<String>,
    /// `--mem-bw-schema`
    pub bandwidth: Option<String>,
}

impl RdtUpdate {
    /// The class to change; `None` when nothing is asked for.
    fn class_of<'a>(&self, state: &'a State) -> Result<Option<&'a SavedIntelRdt>> {
        let flag = match self {
            RdtUpdate { l3_cache: Some(_), .. } => "--l3-cache-schema",
            RdtUpdate { bandwidth: Some(_), .. } => "--mem-bw-schema",
            _ => return Ok(None),
        };
        let none = || {
            Error::Usage(format!(
                "{flag}: the container was created without linux.intelRdt, so it has no class to change"
            ))
        };
        state.intel_rdt.as_ref().ok_or_else(none).map(Some)
    }

    fn apply(&self, class: Option<&SavedIntelRdt>) -> Result<()> {
        class.map_or(Ok(()), |class| class.update(self.l3_cache.as_deref(), self.bandwidth.as_deref()))
    }
}

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
            state.cgroup().thaw_if_there()?;
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
    pub fn update(
        &self,
        id: &str,
        resources: &rrt_oci::LinuxResources,
        devices: &[DeviceRule],
        rdt: &RdtUpdate,
    ) -> Result<()> {
        let dir = StateDir::open(&self.root, id)?;
        let mut state = dir.require()?;
        if state.status(&dir) == Status::Stopped {
            return Err(Error::Status("container not running".into()));
        }
        // Asked before anything changes, and changed last.
        let class = rdt.class_of(&state)?.cloned();
        let cgroup = state.cgroup();
        if devices.is_empty() {
            cgroup.update(resources)?;
            return rdt.apply(class.as_ref());
        }
        let rules = with_device_rules(&state.device_rules, devices);
        let (old, new) = (with_default_devices(&state.device_rules), with_default_devices(&rules));
        cgroup.update_devices(&old, &new)?;
        if let Err(e) = cgroup.update(resources) {
            cgroup.update_devices(&new, &old)?;
            return Err(e.into());
        }
        state.device_rules = rules;
        state.added_device_rules = with_device_rules(&state.added_device_rules, devices);
        dir.write(&state)?;
        rdt.apply(class.as_ref())
    }
}
