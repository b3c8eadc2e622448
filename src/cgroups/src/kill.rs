//! Signalling every process of the container.

use crate::cgroup::{NO_CGROUP, all_pids};
use crate::dir::Dir;
use crate::error::Doing;
use crate::{Cgroup, Error};
use rrt_sys::process::{pidfd_open, send_signal};
use std::collections::HashSet;
use std::time::Duration;

const KILL: &str = "signal the processes of the container";

/// How long the freeze before signalling may take. It is only a help: without it, more rounds are needed.
const FREEZE: Duration = Duration::from_millis(500);

/// How many rounds a crowd that forks faster than it is signalled gets. A process with a pending SIGKILL forks no more,
/// so each round leaves fewer that can.
const ROUNDS: usize = 100;

impl Cgroup {
    /// Sends `signal` to every process in the cgroup and below it, and does not wait for their end.
    ///
    /// SIGKILL is one write to `cgroup.kill` where the kernel has it (Linux 5.14, on hybrid machines too), which no
    /// fork escapes. Otherwise the cgroup is frozen, its processes are signalled one by one, and it is thawed: a signal
    /// to a frozen process is delivered when it is thawed. A cgroup that was frozen before stays so, but for SIGKILL.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without cgroups; [`Error::Call`], when a process could not be signalled.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        let group = self.main().ok_or(Error::Unavailable { what: "signal all processes", reason: NO_CGROUP })?;
        if signal == libc::SIGKILL && self.kill_unified()? {
            // On a hybrid machine the v1 freezer holds a frozen process back even from this.
            return if self.v1("freezer").is_some() { self.thaw_if_there() } else { Ok(()) };
        }
        let dir = match Dir::open(&group.dir) {
            Err(e) if e.is(libc::ENOENT) => return Ok(()),
            done => done.doing(KILL)?,
        };
        let was_frozen = self.freezer_state()? != crate::FreezerState::Thawed;
        // A container that cannot be frozen is signalled all the same.
        let frozen = was_frozen || self.freeze(FREEZE).is_ok();
        let signalled = signal_all(&dir, signal, frozen);
        if frozen && (!was_frozen || signal == libc::SIGKILL) {
            self.thaw_if_there()?;
        }
        signalled
    }

    /// `cgroup.kill`; false when there is no such file, or no unified hierarchy.
    fn kill_unified(&self) -> Result<bool, Error> {
        let Some(group) = self.unified() else { return Ok(false) };
        match Dir::open(&group.dir).and_then(|dir| dir.write("cgroup.kill", "1")) {
            Ok(()) => Ok(true),
            // EOPNOTSUPP: a threaded cgroup.
            Err(e) if e.is(libc::ENOENT) || e.is(libc::EOPNOTSUPP) => Ok(false),
            Err(e) => Err(e).doing(KILL),
        }
    }

    /// As [`Cgroup::thaw`], after SIGKILL: where a frozen process dies of that at once (v2), systemd may already have removed the
    /// cgroup.
    ///
    /// # Errors
    /// As [`Cgroup::thaw`].
    pub fn thaw_if_there(&self) -> Result<(), Error> {
        match self.thaw() {
            Err(e) if e.errno() == Some(libc::ENOENT) || e.errno() == Some(libc::ENODEV) => Ok(()),
            done => done,
        }
    }
}

/// Signals each process once, in rounds until one finds nobody new. In a frozen cgroup the first round is all.
fn signal_all(dir: &Dir, signal: i32, frozen: bool) -> Result<(), Error> {
    let mut done = HashSet::new();
    for _ in 0..ROUNDS {
        let new: Vec<i32> = all_pids(dir)?.into_iter().filter(|pid| !done.contains(pid)).collect();
        if new.is_empty() {
            break;
        }
        signal_each(dir, &new, signal)?;
        done.extend(new);
        // Only SIGKILL has to reach those who are born meanwhile.
        if frozen || signal != libc::SIGKILL {
            break;
        }
    }
    Ok(())
}

/// Signals processes by pidfd: taken first, and used only if the pid is still the container's afterwards, so that no
/// process that got the number of a dead one is hit.
fn signal_each(dir: &Dir, pids: &[i32], signal: i32) -> Result<(), Error> {
    let gone = |e: &rrt_sys::SysError| e.is(libc::ESRCH);
    let mut held = Vec::with_capacity(pids.len());
    for &pid in pids {
        match pidfd_open(pid) {
            Ok(fd) => held.push((pid, fd)),
            // EINVAL and ENOENT: the list came from cgroup.threads and this is no process of its own.
            Err(e) if gone(&e) || e.is(libc::EINVAL) || e.is(libc::ENOENT) => {}
            Err(e) => return Err(e).doing(KILL),
        }
    }
    let still: HashSet<i32> = all_pids(dir)?.into_iter().collect();
    for (_, fd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
        match send_signal(std::os::fd::AsFd::as_fd(fd), signal) {
            Err(e) if gone(&e) => {}
            done => done.doing(KILL)?,
        }
    }
    Ok(())
}
