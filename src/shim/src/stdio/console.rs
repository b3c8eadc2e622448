//! The terminal of a process: its master, and the socket on which the runtime hands it over (contract A.9).

use super::relay::{Fd, Sink};
use crate::error::Error;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixListener;

/// How much of a terminal's output is read at once. It has to be kept while the reader does not take it.
const AT_ONCE: usize = 2048;
/// The runtime sends the master before it ends, so only a runtime that does not send one makes us wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// A socket in the bundle that waits for a terminal's master.
pub struct ConsoleSocket {
    listener: UnixListener,
    file: PathBuf,
    path: PathBuf,
    /// A bundle's path may be too long for a socket's address, this directory's descriptor is not.
    _dir: File,
}

impl ConsoleSocket {
    /// Makes it in `bundle`, for the process `id`.
    ///
    /// # Errors
    /// `bind(2)`
    pub fn bind(bundle: &Path, id: &str) -> Result<ConsoleSocket, Error> {
        let failed = |e: io::Error| Error::system("failed to create OCI runtime console socket", e);
        let dir = File::open(bundle).map_err(failed)?;
        let name = format!("{}.pty", id.get(..40).unwrap_or(id));
        let file = bundle.join(&name);
        let path = PathBuf::from(format!("/proc/{}/fd/{}/{name}", std::process::id(), dir.as_raw_fd()));
        let _ = std::fs::remove_file(&file);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        Ok(ConsoleSocket { listener, file, path, _dir: dir })
    }

    /// For `--console-socket`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the master.
    ///
    /// # Errors
    /// Nothing comes, or something else.
    pub async fn receive(self) -> Result<Console, Error> {
        let doing = "failed to retrieve console master";
        let failed = |e: io::Error| Error::system(doing, e);
        let none = |why: &str| Error::unknown(format!("{doing}: {why}"));
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        let (stream, _) = accepted.map_err(|_| none("the runtime has sent none"))?.map_err(failed)?;
        tokio::time::timeout(PATIENCE, stream.readable()).await.map_err(|_| none("nothing came"))?.map_err(failed)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 4096];
        recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .map_err(|e| failed(e.into()))?;
        let mut masters = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let master = masters.next().ok_or_else(|| none("the message has no descriptor"))?;
        Console::new(master)
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The master of a terminal.
pub struct Console(Fd);

impl Console {
    fn new(master: OwnedFd) -> Result<Console, Error> {
        super::relay::nonblocking(&master)?;
        Ok(Console(Fd::new(master)?))
    }

    /// Sets the size. ioctl_tty(2)
    ///
    /// # Errors
    /// TIOCSWINSZ
    pub fn resize(&self, width: u16, height: u16) -> Result<(), Error> {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.0.fd(), size).map_err(|e| Error::system("ioctl(TIOCSWINSZ)", e))
    }

    /// Relays output until the last process has closed the terminal.
    pub async fn read_into(&self, sink: &mut Sink) -> io::Result<()> {
        let mut buffer = [0; AT_ONCE];
        loop {
            match rustix::io::read(self.0.fd(), &mut buffer) {
                // EIO: nobody has the other end open any more.
                Ok(0) | Err(Errno::IO) => return Ok(()),
                Ok(n) => sink.write_all(&buffer[..n]).await?,
                Err(Errno::AGAIN) => self.0.readable().await?,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Writes all of it as if it were typed.
    ///
    /// # Errors
    /// `write(2)`
    pub async fn write_all(&self, data: &[u8]) -> io::Result<()> {
        self.0.write_all(data).await
    }

    /// Relays input until the client ends it.
    pub async fn write_from(&self, from: &Fd) -> io::Result<()> {
        let mut buffer = [0; AT_ONCE];
        loop {
            match rustix::io::read(from.fd(), &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => self.0.write_all(&buffer[..n]).await?,
                Err(Errno::AGAIN) => from.readable().await?,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}
