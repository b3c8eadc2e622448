//! sd_notify(3) for a program in a container: a socket of its own, whose `READY=1` is passed on to the host's service manager.

use crate::error::{Doing, Result};
use crate::log;
use crate::state::StateDir;
use rrt_sys::socket;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// How long the service manager may take to answer `BARRIER=1` (sd_notify_barrier(3)), in milliseconds.
const BARRIER_MS: i32 = 30_000;

/// Makes the directory that is bound into the container; the socket appears in it at `start`.
pub fn make_directory(state_dir: &Path) -> Result<()> {
    let dir = state_dir.join("notify");
    fs::create_dir(&dir).doing(|| format!("make {dir:?} for the notify socket"))
}

/// The container's notify socket, listening.
#[derive(Debug)]
pub struct Proxy {
    socket: OwnedFd,
    host: PathBuf,
}

impl Proxy {
    /// Listens, if the container has a notify directory and this command was given a `NOTIFY_SOCKET`.
    pub fn open(dir: &StateDir) -> Result<Option<Proxy>> {
        let place = dir.path().join("notify");
        let Some(host) = env::var_os("NOTIFY_SOCKET").filter(|_| place.exists()) else { return Ok(None) };
        let path = place.join("notify.sock");
        let doing = || format!("NOTIFY_SOCKET: listen at {path:?}");
        let socket = socket::bind_datagram(&path).doing(doing)?;
        Ok(Some(Proxy { socket, host: PathBuf::from(host) }))
    }

    /// The fd to poll.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Waits until the program says `READY=1` or ends, and passes it on with the pid that the manager should watch. The program
    /// runs: that its service manager could not be told is a warning, no reason to say that it does not.
    pub fn wait(self, pidfd: BorrowedFd<'_>, pid: i32) {
        if let Err(e) = self.wait_for_ready(pidfd, pid) {
            log::warn(e.to_string());
        }
    }

    fn wait_for_ready(&self, pidfd: BorrowedFd<'_>, pid: i32) -> Result<()> {
        loop {
            let ready = socket::poll_readable(&[self.socket.as_fd(), pidfd], -1)
                .doing(|| "NOTIFY_SOCKET: wait for READY=1".into())?;
            if ready[0] && self.pass_on(pid)? {
                return Ok(());
            }
            if ready[1] {
                return Ok(());
            }
        }
    }

    /// Reads one message; true when it was `READY=1`, which is then passed on.
    pub fn pass_on(&self, pid: i32) -> Result<bool> {
        let mut buf = [0u8; 4096];
        let (n, _) = socket::receive(self.socket.as_fd(), &mut buf).doing(|| "NOTIFY_SOCKET: receive".into())?;
        let Some(ready) = buf[..n].split(|&b| b == b'\n').find(|line| line.starts_with(b"READY=")) else {
            return Ok(false);
        };
        let mut message = ready.to_vec();
        message.extend_from_slice(format!("\nMAINPID={pid}\n").as_bytes());
        let doing = || format!("NOTIFY_SOCKET: notify {:?}", self.host);
        socket::send_datagram(&self.host, &message, None).doing(doing)?;
        // The manager closes its copy when it has read all that was sent before.
        let (reader, writer) = socket::pipe().doing(doing)?;
        socket::send_datagram(&self.host, b"BARRIER=1", Some(writer.as_fd())).doing(doing)?;
        drop(writer);
        if !socket::poll_readable(&[reader.as_fd()], BARRIER_MS).doing(doing)?[0] {
            log::warn(format!("NOTIFY_SOCKET: no answer to BARRIER=1 within {} s", BARRIER_MS / 1000));
        }
        Ok(true)
    }
}
