//! Bytes from one descriptor to another, without blocking the one thread.

use super::record::Open;
use crate::error::Error;
use crate::log;
pub use crate::ready::Fd;
use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// A pipe's own size.
const AT_ONCE: usize = 64 << 10;
/// A stream that has moved so many bytes is a busy one …
const BUSY: usize = 4 << 20;
/// … and gets larger pipes, so that the processes at their ends have to be woken less often. What is in them counts against the
/// container's memory limit, so they are not as large as they could be.
const LARGE: usize = 256 << 10;
/// After so many turns others have theirs.
const TURNS: u32 = 16;

thread_local! {
    /// For data that passes through: no relay keeps anything in it while it waits.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Makes reads and writes of this descriptor's description return at once.
pub fn nonblocking(fd: &OwnedFd) -> Result<(), Error> {
    let set = fcntl_getfl(fd).and_then(|flags| fcntl_setfl(fd, flags | OFlags::NONBLOCK));
    set.map_err(|e| Error::system("fcntl(O_NONBLOCK)", e))
}

/// Moves everything from one pipe to another, without copying it. splice(2)
pub async fn splice(from: &Fd, to: &Fd) -> io::Result<()> {
    let (mut turns, mut moved) = (0, 0_usize);
    loop {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match rustix::pipe::splice(from.fd(), None, to.fd(), None, LARGE, flags) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                turns += 1;
                if moved < BUSY {
                    moved += n;
                    if moved >= BUSY {
                        enlarge(from);
                        enlarge(to);
                    }
                }
            }
            Err(Errno::INTR) => {}
            // Either is the reason.
            Err(Errno::AGAIN) if from.is_ready(PollFlags::IN) => to.writable().await?,
            Err(Errno::AGAIN) => from.readable().await?,
            Err(e) => return Err(e.into()),
        }
        if turns == TURNS {
            turns = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Only ever larger: the client may have made its fifo what it is. There is a limit for all pipes of a user, pipe(7); then it stays.
fn enlarge(pipe: &Fd) {
    if fcntl_getpipe_size(pipe.fd()).is_ok_and(|size| size < LARGE) {
        let _ = fcntl_setpipe_size(pipe.fd(), LARGE);
    }
}

/// Reads once, without waiting; `take` has the data, which are empty at the end. `None`: there was nothing yet.
pub fn read_some<T>(from: &Fd, take: impl FnOnce(&[u8]) -> T) -> io::Result<Option<T>> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(AT_ONCE, 0);
        match rustix::io::read(from.fd(), &mut buffer[..]) {
            Ok(n) => Ok(Some(take(&buffer[..n]))),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    })
}

/// Appends everything to a file. A full disk costs the container its output, but does not stop it.
pub async fn into_file(from: &Fd, mut to: &File) -> io::Result<()> {
    let mut lost = false;
    loop {
        from.readable().await?;
        let end = read_some(from, |data| {
            if let Err(e) = to.write_all(data)
                && !std::mem::replace(&mut lost, true)
            {
                log::warn(format_args!("output is lost: {e}"));
            }
            data.is_empty()
        })?;
        if end == Some(true) {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

/// Where a relay that has read something writes it to.
pub enum Sink {
    /// May be full.
    Pipe(Fd),
    /// Never is.
    File(File),
    /// Logged, and sent to the attached.
    Record(Open),
}

impl Sink {
    /// Writes all of it.
    pub async fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Sink::Pipe(to) => to.write_all(data).await,
            Sink::File(to) => to.write_all(data),
            Sink::Record(to) => {
                to.take(data).await;
                Ok(())
            }
        }
    }
}
