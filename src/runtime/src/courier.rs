//! Brings the listener of a seccomp filter out of a process into which the runtime may not look.
//!
//! The process says the number of its listener, and the runtime fetches the fd by pidfd_getfd(2). For a user that fails where other
//! processes of the container see the process, because it is closed to all that have not CAP_SYS_PTRACE on the host (it is not dumpable,
//! CVE-2016-9962). The process itself cannot send the fd: it would have to by a system call that its filter may forbid, or about which
//! it asks the very agent that has no listener yet.
//!
//! So just before the filter is loaded it makes a sibling, the courier, that shares its table of fds (`CLONE_FILES`) but not the filter.
//! The courier waits for the number, sends the fd that has it, and ends before the program runs. Like the process it has nothing of the
//! host on it, and it is as closed to the container. Its parent is that of the process: the runtime, or in `start` who adopted the container.

use crate::error::{Doing, Error, Result};
use crate::handshake::{Channel, Frame};
use rrt_sys::process::{self, CLONE_FILES, CLONE_PARENT, Child, SingleThreaded, clone3};
use rrt_sys::{errno, socket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The parent's side of a courier.
#[derive(Debug)]
pub struct Courier {
    socket: OwnedFd,
    process: Child,
}

/// Child, before its filter: makes the courier and tells the parent.
///
/// # Errors
/// When no process can be made: the container's limits count it.
pub fn send_for(token: &SingleThreaded, channel: &Channel) -> Result<()> {
    let (parents, own) = socket::packet_pair().doing(|| "make the courier's socket".into())?;
    // By our end it learns that nothing will come any more: as it has all our fds, the parent does not see us end while it is there.
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    let sender = process::pidfd_open(pid).doing(|| "open a handle on the process itself".into())?;
    let courier = clone3(token, CLONE_FILES | CLONE_PARENT, None, || {
        let done = deliver(own.as_fd(), sender.as_fd());
        process::exit_now(i32::from(done.is_err()))
    })
    .doing(|| {
        "linux.seccomp: make a process that brings the listener to the agent (limits on processes count it)".into()
    })?;
    // What we close is closed for the courier, too, so what is its own stays open until execve.
    std::mem::forget((own, sender));
    channel.send_fds(&Frame::Courier, &[parents.as_fd(), courier.pidfd.as_fd()])
}

/// The courier: takes a number, sends the fd.
fn deliver(own: BorrowedFd<'_>, sender: BorrowedFd<'_>) -> rrt_sys::Result<()> {
    let mut number = [0; 4];
    // Nothing to read: the process has ended, and an end of file: the parent has.
    if !socket::poll_readable(&[own, sender], -1)?[0] || socket::receive(own, &mut number)?.0 != number.len() {
        return Ok(());
    }
    match process::inherited_fd(i32::from_ne_bytes(number)) {
        Some(listener) => socket::send(own, b"\0", &[listener]),
        None => Ok(()),
    }
}

impl Courier {
    /// What came with [`Frame::Courier`].
    pub fn new(fds: Vec<OwnedFd>) -> Result<Courier> {
        let [socket, pidfd]: [OwnedFd; 2] =
            fds.try_into().map_err(|_| Error::Init("a courier came without its two fds".into()))?;
        let process = process::from_pidfd(pidfd).doing(|| "take over the courier".into())?;
        Ok(Courier { socket, process })
    }

    /// The fd of this number. The courier has ended then.
    pub fn fetch(self, number: i32) -> Result<OwnedFd> {
        let doing = || "linux.seccomp: have the listener brought".to_string();
        let brought = self.bring(number);
        // Whoever its parent is, its pidfd tells of its end.
        socket::poll_readable(&[self.process.pidfd.as_fd()], -1).doing(doing)?;
        let _ = self.process.wait();
        let killed = || Error::Init("the process that brings the seccomp listener was killed".into());
        match brought {
            Err(e) if e.is(errno::EPIPE) || e.is(errno::ECONNRESET) => Err(killed()),
            brought => brought.doing(doing)?.ok_or_else(killed),
        }
    }

    fn bring(&self, number: i32) -> rrt_sys::Result<Option<OwnedFd>> {
        socket::send(self.socket.as_fd(), &number.to_ne_bytes(), &[])?;
        // Its end of the socket is the process' as well, so only its own end tells of a courier that was killed.
        match socket::poll_readable(&[self.socket.as_fd(), self.process.pidfd.as_fd()], -1)?[0] {
            true => Ok(socket::receive(self.socket.as_fd(), &mut [0; 1])?.1),
            false => Ok(None),
        }
    }

    /// Has it end, when there is nothing to be brought.
    pub fn dismiss(self) {
        self.process.kill_and_reap();
    }
}
