//! `wait`: until a container has ended, and with what status, for one who is not its parent.
//!
//! A pidfd that was opened while init lived tells its status after it is reaped (Linux 6.15). Before it is reaped it is a zombie, whose
//! status stands in its `/proc` entry. So on an older kernel only one who reaps faster than we look keeps it from us.

use crate::Runtime;
use crate::error::{Doing, Error, Result};
use crate::state::{Init, StateDir};
use rrt_sys::process::{self, Exit};
use rrt_sys::socket;
use std::os::fd::{AsFd, OwnedFd};

impl Runtime {
    /// `wait`: returns when the container's init has ended; its exit code, or 128 and the signal that ended it.
    ///
    /// # Errors
    /// [`Error::Status`] when it ended, and was reaped, before we came, or when the kernel does not tell.
    pub fn wait(&self, id: &str) -> Result<i32> {
        // Without the lock, and nothing of the state is looked at afterwards: others may delete it meanwhile.
        let init = StateDir::open_unlocked(&self.root, id)?.require()?.init;
        let Some(init) = init else {
            return Err(Error::Status("cannot wait for a container that is being created".into()));
        };
        let gone = "container not running: it has ended, and its exit status was told to its parent alone";
        let pidfd = open(init).ok_or_else(|| Error::Status(gone.into()))?;
        socket::poll_readable(&[pidfd.as_fd()], -1).doing(|| format!("wait for {id:?} to end"))?;
        match status(init, &pidfd) {
            Some(exit) => Ok(exit.code()),
            None => Err(Error::Status(
                "the container has ended, but its exit status is gone with its reaping: before Linux 6.15 only its parent is told".into(),
            )),
        }
    }
}

/// A pidfd of init, also of one that is a zombie.
fn open(init: Init) -> Option<OwnedFd> {
    let pidfd = process::pidfd_open(init.pid).ok()?;
    init.is_there().then_some(pidfd)
}

fn status(init: Init, pidfd: &OwnedFd) -> Option<Exit> {
    match process::reaped_status(pidfd.as_fd()) {
        Ok(Some(exit)) => Some(exit),
        // A zombie; unless it was reaped since, and then the pidfd knows.
        _ => init.zombie_status().map(process::exit_of).or_else(|| process::reaped_status(pidfd.as_fd()).ok()?),
    }
}
