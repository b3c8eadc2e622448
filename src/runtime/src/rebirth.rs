//! One clone more, where the process that joins namespaces may not be the one that runs in them.
//!
//! * `create` in a joined user namespace: the container's new namespaces have to belong to that user namespace, so they are
//!   made by a process that is in it already.
//! * `exec`: a process is seen by the container from the moment it is born in its pid namespace. Until it has the
//!   container's root and none of the host's fds, a container with CAP_SYS_PTRACE could reach the host through its `/proc` entry
//!   (CVE-2016-9962). So a process outside joins everything and closes everything, and its child is born clean.

use crate::error::{Doing, Error, Result};
use crate::handshake::{Channel, Frame, Turn};
use rrt_sys::process::{self, CLONE_PARENT, Child, SingleThreaded, clone3};
use rrt_sys::socket;
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Makes a sibling in `namespaces` that goes on with `sequence`, tells the parent, and ends this process.
///
/// # Errors
/// When the sibling could not be made or the parent did not take it.
pub fn hand_over(
    token: &SingleThreaded,
    channel: &Channel,
    namespaces: i32,
    sequence: impl FnOnce() -> Result<Infallible>,
) -> Result<Infallible> {
    let (wait, left) = socket::pipe().doing(|| "make a pipe to the next process".into())?;
    let born = clone3(token, namespaces | CLONE_PARENT, None, || {
        // The socket is ours when our predecessor has left it: its end of the pipe closes with it.
        let waited = process::wait_until_left(wait.as_fd(), left.as_fd()).doing(|| "wait for our turn".into());
        let Err(error) = waited.and_then(|()| sequence());
        report_and_exit(channel, error)
    })
    .doing(|| format!("make the process in new namespaces ({})", crate::namespaces::describe(namespaces)))?;
    channel.ask(Turn::Born, Some(born.pidfd.as_fd()))?;
    process::exit_now(0)
}

/// A process that does nothing but be there, for others to look at its namespaces; it ends with this value.
pub struct IdleChild {
    /// The process.
    pub child: Child,
    /// It waits until these are closed.
    _pipe: (OwnedFd, OwnedFd),
}

impl Drop for IdleChild {
    fn drop(&mut self) {
        self.child.kill_and_reap();
    }
}

/// Makes one in new namespaces (`CLONE_NEW*` bits). `open`: its files in `/proc` stay the caller's, who has to write them and is not root.
pub fn idle_child(token: &SingleThreaded, namespaces: i32, open: bool) -> rrt_sys::Result<IdleChild> {
    // A new user namespace belongs to our uid: a root without any capability, as in a container with the host's pid namespace,
    // could ptrace the child, which has our fds and root's files.
    process::set_dumpable(open)?;
    let (wait, left) = socket::pipe()?;
    let child = clone3(token, namespaces, None, || {
        // With us, or when we are done, it ends.
        let _ = process::set_parent_death_signal(9);
        let _ = process::close_all_but(&[wait.as_raw_fd(), left.as_raw_fd()]);
        let _ = process::wait_until_left(wait.as_fd(), left.as_fd());
        process::exit_now(0)
    })?;
    Ok(IdleChild { child, _pipe: (wait, left) })
}

/// Does something in a child of this process, which then ends: for what could not be undone in the process itself.
///
/// # Errors
/// What the child reports.
pub fn in_child(token: &SingleThreaded, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (channel, childs_end) = Channel::pair()?;
    let child = clone3(token, 0, None, || match work() {
        Ok(()) => process::exit_now(0),
        Err(e) => report_and_exit(&childs_end, e),
    })
    .doing(|| "make a helper process".into())?;
    drop(childs_end);
    let said = channel.receive();
    let exit = child.wait().doing(|| "wait for the helper process".into())?;
    match (said?, exit) {
        (Some((Frame::Failed(text), _)), _) => Err(Error::Status(text)),
        (_, process::Exit::Code(0)) => Ok(()),
        _ => Err(Error::Status(format!("a helper process failed ({exit:?})"))),
    }
}

/// The end of every child that could not become its program.
pub fn report_and_exit(channel: &Channel, error: crate::Error) -> ! {
    channel.report(error);
    process::exit_now(1)
}
