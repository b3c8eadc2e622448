//! Descriptors that the one thread waits for.

use crate::error::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A non-blocking descriptor that tells when it is ready.
pub struct Fd(AsyncFd<OwnedFd>);

impl Fd {
    /// Registers a descriptor that has been made non-blocking.
    ///
    /// # Errors
    /// `epoll_ctl(2)`
    #[expect(unsafe_code, reason = "AsyncFd takes anything that looks like a descriptor; ours is an owned one")]
    pub fn new(fd: OwnedFd) -> Result<Fd, Error> {
        // SAFETY: an OwnedFd that is never handed out: open, and the same, until it is dropped together with the registration.
        let registered = unsafe { AsyncFd::register(fd) };
        registered.map(Fd).map_err(|e| Error::system("epoll_ctl", io::Error::from(e)))
    }

    /// The descriptor itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }

    /// Whether it is ready now, by poll(2). Its end counts as ready.
    pub fn is_ready(&self, flags: PollFlags) -> bool {
        let mut fds = [PollFd::new(self.0.get_ref(), flags)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0)
    }

    /// Waits until it is ready. What tokio has been told by epoll may be old, so the kernel is asked.
    async fn ready(&self, interest: Interest, flags: PollFlags) -> io::Result<()> {
        loop {
            let mut guard = self.0.ready(interest).await?;
            if self.is_ready(flags) {
                return Ok(());
            }
            guard.clear_ready();
        }
    }

    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    /// The event loop is gone.
    pub async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE, PollFlags::IN).await
    }

    /// Waits until there is room, or nobody who would read.
    ///
    /// # Errors
    /// The event loop is gone.
    pub async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE, PollFlags::OUT).await
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// `write(2)`
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            match rustix::io::write(self.fd(), data) {
                Ok(n) => data = &data[n..],
                Err(Errno::AGAIN) => self.writable().await?,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
