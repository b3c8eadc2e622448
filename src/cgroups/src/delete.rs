//! Removing the container's cgroup.

use crate::cgroup::{Group, all_pids};
use crate::dir::{Deadline, Dir, rmdir};
use crate::error::Doing;
use crate::freeze::wait_event;
use crate::systemd::Systemd;
use crate::{Cgroup, Error, Version};
use std::path::Path;
use std::time::Duration;

const DELETE: &str = "remove the container's cgroup";

/// The pauses between tries where the kernel has no event for "empty" (a machine with cgroup v1 only).
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LAST_PAUSE: Duration = Duration::from_millis(10);

impl Cgroup {
    /// Removes the cgroup and those below it, and waits up to `timeout` for processes that are about to end: they stay in
    /// the cgroup for a moment after the wait for them has returned. On cgroup v2, and on a hybrid machine, the kernel
    /// says when it is empty; on v1 alone the removal is tried again and again.
    ///
    /// As in runc the container's own cgroup goes even if it was there before the container, and cgroups above it stay
    /// even if the container was why they were made: other containers and engines may count on them.
    ///
    /// # Errors
    /// [`Error::Call`] (EBUSY: processes are left), [`Error::Timeout`]. What could be removed is removed.
    ///
    /// A unit is stopped before, and waited for: its processes were killed before this. When systemd cannot be asked, the
    /// cgroups are removed all the same, which ends a unit too, and the error is returned with nothing left.
    pub fn delete(&self, timeout: Duration) -> Result<(), Error> {
        let stopped = self.stop_unit();
        self.remove_all(timeout).and(stopped)
    }

    /// Removes the cgroup if it has neither a process nor a cgroup below it, nor is a unit of systemd's. False if something is left: then it is for
    /// [`Cgroup::delete`], which removes the rest.
    pub fn remove_if_unused(&self) -> bool {
        self.unit.is_none() && self.groups.iter().all(|group| rmdir(&group.dir).is_ok())
    }

    fn stop_unit(&self) -> Result<(), Error> {
        let Some(unit) = &self.unit else { return Ok(()) };
        let mut systemd = Systemd::connect(unit.user)?;
        if unit.started {
            return systemd.stop(&unit.name);
        }
        // Asked for or not, it may have failed, and such a unit keeps its name. And one whose init died while systemd moved it in
        // runs for ever, with nobody in it to end: it is told by that from a unit that is somebody else's.
        systemd.forget(&unit.name)?;
        match Dir::open(&unit.dir) {
            Ok(dir) if all_pids(&dir)?.is_empty() => systemd.stop(&unit.name),
            _ => Ok(()),
        }
    }

    fn remove_all(&self, timeout: Duration) -> Result<(), Error> {
        let deadline = Deadline::after(timeout);
        let (v1, v2): (Vec<&Group>, Vec<&Group>) = self.groups.iter().partition(|g| g.version == Version::V1);
        let mut first = None;
        // The unified one last: its events tell when the others are empty, too.
        for group in v1.iter().chain(&v2) {
            if let Err(e) = remove(&group.dir, v2.first().map(|g| g.dir.as_path()), deadline) {
                first.get_or_insert(e);
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Removes a cgroup and all below it. `events`: the cgroup of the unified hierarchy with the same processes.
fn remove(path: &Path, events: Option<&Path>, deadline: Deadline) -> Result<(), Error> {
    let mut pause = FIRST_PAUSE;
    loop {
        let busy = match rmdir(path) {
            // EBUSY: processes, or cgroups below. (Other file systems say the latter with ENOTEMPTY.)
            Err(e) if e.is(libc::EBUSY) || e.is(libc::ENOTEMPTY) => match remove_below(path) {
                Ok(()) => match rmdir(path) {
                    Ok(()) => return Ok(()),
                    Err(e) => e,
                },
                Err(e) => e,
            },
            done => return done.doing(DELETE),
        };
        if !busy.is(libc::EBUSY) || deadline.passed() {
            return Err(busy).doing(DELETE);
        }
        match events.and_then(|e| Dir::open(e).ok()) {
            Some(dir) if dir.read("cgroup.events").is_ok_and(|t| t.contains("populated 1")) => {
                wait_event(&dir, "populated 0", DELETE, deadline)?;
            }
            // Empty, the kernel says, but not yet to be removed: the last steps of an exit have no event.
            _ => {
                deadline.pause(pause).doing(DELETE)?;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

/// Removes the cgroups below one, inner ones first.
fn remove_below(path: &Path) -> rrt_sys::Result<()> {
    let dir = match Dir::open(path) {
        Err(e) if e.is(libc::ENOENT) => return Ok(()),
        done => done?,
    };
    for name in dir.children()? {
        let child = path.join(name);
        remove_below(&child)?;
        rmdir(&child)?;
    }
    Ok(())
}
