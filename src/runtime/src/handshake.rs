//! The talk between the parent (`rrt create`, `run`, `exec`) and the child it cloned.
//!
//! One `SOCK_SEQPACKET` pair. The child asks, the parent answers; which questions come, and in which order, is a list of
//! [`Turn`]s computed from the plan before the clone, so both sides hold the same list and neither guesses.
//!
//! ```text
//!   child (init)                                     parent
//!   ------------                                     ------
//!   Cgroup       I do nothing yet: put me where   -> systemd makes the unit and moves PID in; its limits
//!                I belong
//!   Born         here is the process that goes on   -> this one is the child from now on; the first is reaped
//!                in my place (a pidfd; `rebirth`)
//!   MapIds       new user namespace: write my maps -> /proc/PID/uid_map, gid_map, setgroups
//!   JoinCgroups  I have made my namespaces      -> the v1 cgroups, made in the meantime: their `tasks` files (fds)
//!   TimeOffsets  new time namespace: my clocks     -> /proc/PID/timens_offsets
//!   NetDevices   I have my network namespace    -> network devices of the host moved into it
//!   HostMounts   no mount namespace: may I mount   -> nothing but the answer: it is written down who I am
//!   MountIds     here is a source of mine (an fd)  -> its owners are translated; once for each of these
//!   Hooks        mounts are made, root not pivoted -> prestart, createRuntime hooks
//!   Console      here is the pty's master (an fd)  -> to the console socket, or kept for a foreground run
//!   Limits       about to become the user          -> prlimit(PID, …), when the child may not do it itself
//!   Ready        all is set up, the program exists -> state `created`, pid file, pidfd socket
//!      <- Go     after each, but for Ready in `run`, where Start is the answer
//!   then the start gate (`create`) or this same socket (`run`, `exec`):
//!      <- Start
//!   Executing    the next call is execve, or with a seccomp filter its loading and then execve; then
//!   Courier      the filter's listener will be brought by this process, if you may not fetch it
//!   Listener n   the filter is loaded, and its listener is my fd n  -> fetched and sent to the agent
//!      <- Go
//!   end of file: execve has closed the socket, the program runs. Without `Executing` before it: the child was killed
//!   Failed {stage, text}  at any time, instead of a turn or after Start; the child then ends
//! ```
//!
//! A frame is one packet: a kind byte, then for `Turn` the turn's byte, for `Failed` and `Start` UTF-8 text. A child whose
//! parent is gone reads end of file and ends; a parent whose child is gone reads end of file and reaps it.

use crate::courier::Courier;
use crate::error::{Doing, Error, Result};
use rrt_sys::{path, socket};
use serde::Serialize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// A question of the child's; see the picture above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[repr(u8)]
pub enum Turn {
    /// Have systemd make my cgroup, and put me in.
    Cgroup = 1,
    /// My sibling goes on in my place.
    Born,
    /// Write the id maps of my user namespace.
    MapIds,
    /// Give me the `tasks` files of my v1 cgroups.
    JoinCgroups,
    /// Write the offsets of my time namespace.
    TimeOffsets,
    /// Move network devices into my network namespace.
    NetDevices,
    /// May I mount on the host?
    HostMounts,
    /// Translate the owners on my mount.
    MountIds,
    /// Run the hooks of the runtime namespace.
    Hooks,
    /// Take my pty's master.
    Console,
    /// Set my resource limits.
    Limits,
    /// I am ready to execute the program.
    Ready,
}

impl Turn {
    const ALL: [Turn; 12] = [
        Turn::Cgroup,
        Turn::Born,
        Turn::MapIds,
        Turn::JoinCgroups,
        Turn::TimeOffsets,
        Turn::NetDevices,
        Turn::HostMounts,
        Turn::MountIds,
        Turn::Hooks,
        Turn::Console,
        Turn::Limits,
        Turn::Ready,
    ];

    fn from_byte(b: u8) -> Option<Turn> {
        Turn::ALL.into_iter().find(|t| *t as u8 == b)
    }
}

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The child asks.
    Turn(Turn),
    /// The parent has done what was asked.
    Go,
    /// Execute the program.
    Start,
    /// The child failed: the text says where and why.
    Failed(String),
    /// The child's next call is execve.
    Executing,
    /// The child's seccomp filter has a listener, its fd of this number.
    Listener(i32),
    /// The child has made a process that will bring the listener: a socket to it and its pidfd come along ([`crate::courier`]).
    Courier,
}

/// The longest packet either side sends. A longer text is cut.
pub const FRAME_MAX: usize = 64 * 1024;

impl Frame {
    /// The report of a failure; the parent says again what it was about to do.
    pub fn failed(error: Error) -> Frame {
        Frame::Failed(match error {
            Error::Init(text) => text,
            other => other.to_string(),
        })
    }

    /// The packet's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body): (u8, &[u8]) = match self {
            Frame::Turn(t) => return vec![1, *t as u8],
            Frame::Listener(number) => return Frame::listener(*number).to_vec(),
            Frame::Go => (2, b""),
            Frame::Executing => (5, b""),
            Frame::Courier => (7, b""),
            Frame::Start => (3, b""),
            Frame::Failed(text) => (4, text.as_bytes()),
        };
        let mut bytes = Vec::with_capacity(1 + body.len());
        bytes.push(kind);
        bytes.extend_from_slice(&body[..body.len().min(FRAME_MAX - 1)]);
        bytes
    }

    /// The frame in a packet; `None` when it is not one. Never panics, whatever the bytes: the child is not trusted to be
    /// well once it has entered the container.
    pub fn decode(bytes: &[u8]) -> Option<Frame> {
        let (kind, body) = bytes.split_first()?;
        let text = || String::from_utf8_lossy(body).into_owned();
        match (kind, body) {
            (1, [turn]) => Turn::from_byte(*turn).map(Frame::Turn),
            (2, []) => Some(Frame::Go),
            (3, []) => Some(Frame::Start),
            (4, _) => Some(Frame::Failed(text())),
            (5, []) => Some(Frame::Executing),
            (7, []) => Some(Frame::Courier),
            (6, _) => body.try_into().ok().map(|number| Frame::Listener(i32::from_ne_bytes(number))),
            _ => None,
        }
    }

    /// The packet of [`Frame::Listener`], without an allocation: under a seccomp filter there may be no memory to be had.
    fn listener(number: i32) -> [u8; 5] {
        let [a, b, c, d] = number.to_ne_bytes();
        [6, a, b, c, d]
    }
}

/// One end of the handshake.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends of a new pair: the parent's, the child's.
    pub fn pair() -> Result<(Channel, Channel)> {
        let (a, b) = socket::packet_pair().doing(|| "make the handshake socket".into())?;
        Ok((Channel(a), Channel(b)))
    }

    /// Another handle on the same end.
    pub fn try_clone(&self) -> Result<Channel> {
        self.0.try_clone().map(Channel).doing(|| "duplicate the handshake socket".into())
    }

    /// A connection through the start gate.
    pub fn from_fd(fd: OwnedFd) -> Channel {
        Channel(fd)
    }

    /// Sends a frame, and with it an fd if there is one.
    pub fn send(&self, frame: &Frame, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.send_fds(frame, fd.as_slice())
    }

    /// Sends a frame with these fds.
    pub fn send_fds(&self, frame: &Frame, fds: &[BorrowedFd<'_>]) -> Result<()> {
        socket::send(self.0.as_fd(), &frame.encode(), fds).doing(|| "talk over the handshake socket".into())
    }

    /// The next frame, and the fd that came with it; `None` when the other side is gone.
    pub fn receive(&self) -> Result<Option<(Frame, Option<OwnedFd>)>> {
        Ok(self.receive_fds()?.map(|(frame, mut fds)| (frame, fds.pop())))
    }

    /// As [`Channel::receive`], with all fds that came.
    pub fn receive_fds(&self) -> Result<Option<(Frame, Vec<OwnedFd>)>> {
        // In the program's zeroed memory, of which only the pages that a packet reaches exist; most packets are two bytes.
        static BUFFER: Mutex<[u8; FRAME_MAX]> = Mutex::new([0; FRAME_MAX]);
        let mut buf = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
        let (n, fds) =
            socket::receive_fds(self.0.as_fd(), &mut *buf).doing(|| "listen on the handshake socket".into())?;
        if n == 0 {
            return Ok(None);
        }
        match Frame::decode(&buf[..n]) {
            Some(frame) => Ok(Some((frame, fds))),
            None => Err(Error::Init(format!("a packet of {n} bytes that is no handshake frame"))),
        }
    }

    /// Child: asks `turn` and waits for the answer; the fds that came with it.
    ///
    /// # Errors
    /// When the parent is gone: there is nobody left to be a container for.
    pub fn ask(&self, turn: Turn, fd: Option<BorrowedFd<'_>>) -> Result<Vec<OwnedFd>> {
        self.send(&Frame::Turn(turn), fd)?;
        match self.receive_fds()? {
            Some((Frame::Go, fds)) => Ok(fds),
            other => Err(Error::Init(format!("the runtime answered {turn:?} with {:?}", other.map(|o| o.0)))),
        }
    }

    /// Child, under its seccomp filter: tells the number of the filter's listener, and waits until the parent has it. Two calls,
    /// read(2) and write(2), and no more: the profile may not forbid these (`rrt_seccomp::compile` sees to it).
    pub fn tell_listener(&self, number: i32) -> Result<()> {
        let doing = || "hand over the seccomp listener".to_string();
        path::write_once(&self.0, &Frame::listener(number)).doing(doing)?;
        let mut answer = [0; 2];
        match path::read_some(self.0.as_fd(), &mut answer).doing(doing)? {
            1 if answer[0] == 2 => Ok(()),
            _ => Err(Error::Init("the runtime has not taken the seccomp listener".into())),
        }
    }

    /// Child: reports a failure, by write(2) if a seccomp filter forbids the usual call.
    pub fn report(&self, error: Error) {
        let frame = Frame::failed(error);
        // If nobody is there, nobody is left to be told.
        if self.send(&frame, None).is_err() {
            let _ = path::write_once(&self.0, &frame.encode());
        }
    }

    /// Parent: waits for the child to execute its program: `Executing`, then end of file. `listener` takes the number of the child's
    /// seccomp listener, and the courier if there is one, before the child can go on.
    ///
    /// # Errors
    /// What the child reports, or that it ended before.
    pub fn await_exec(&self, listener: &mut dyn FnMut(i32, Option<Courier>) -> Result<()>) -> Result<()> {
        let mut courier = None;
        let done = self.await_end(listener, &mut courier);
        if let Some(courier) = courier {
            courier.dismiss();
        }
        done
    }

    fn await_end(
        &self,
        listener: &mut dyn FnMut(i32, Option<Courier>) -> Result<()>,
        courier: &mut Option<Courier>,
    ) -> Result<()> {
        let mut executing = false;
        loop {
            match self.receive_fds() {
                Ok(Some((Frame::Executing, _))) => executing = true,
                Ok(Some((Frame::Courier, fds))) if executing => *courier = Some(Courier::new(fds)?),
                Ok(Some((Frame::Listener(number), _))) if executing => {
                    listener(number, courier.take())?;
                    self.send(&Frame::Go, None)?;
                }
                Ok(Some((Frame::Failed(text), _))) => return Err(Error::Init(text)),
                Ok(Some((other, _))) => return Err(Error::Init(format!("{other:?} instead of the program"))),
                Ok(None) if executing => return Ok(()),
                Ok(None) => return Err(killed_before_exec()),
                // Killed with our packet unread.
                Err(Error::System { source, .. }) if source.is(rrt_sys::errno::ECONNRESET) => {
                    return Err(killed_before_exec());
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The fd to poll.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn killed_before_exec() -> Error {
    Error::Killed("the container's init was killed before it executed the program".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_survives_the_wire() {
        let turns = Turn::ALL.map(Frame::Turn);
        for frame in turns.into_iter().chain([
            Frame::Go,
            Frame::Executing,
            Frame::Listener(7),
            Frame::Courier,
            Frame::Start,
            Frame::Failed("x: é".into()),
        ]) {
            assert_eq!(Frame::decode(&frame.encode()), Some(frame));
        }
    }

    #[test]
    fn rubbish_is_no_frame() {
        for bytes in [&b""[..], &[0], &[1], &[1, 0], &[1, 99], &[1, 1, 1], &[2, 0], &[6, 1, 2, 3], &[9, 9]] {
            assert_eq!(Frame::decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_long_failure_is_cut_to_a_packet() {
        assert_eq!(Frame::Failed("x".repeat(FRAME_MAX * 2)).encode().len(), FRAME_MAX);
    }
}
