//! The container's terminal.

use crate::error::{Doing, Result};
use rrt_sys::path::Root;
use rrt_sys::{OFlags, mount, process, socket, tty};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A new pty of the container's own devpts: its master, and its slave opened through the master.
#[derive(Debug)]
pub struct Pty {
    /// For the one who watches the container.
    pub master: OwnedFd,
    slave: OwnedFd,
}

impl Pty {
    /// Opens a pty in the devpts that is mounted at `/dev/pts` below `root`.
    ///
    /// Every step is by fd and checked, so that an image with something else at these names gains nothing (CVE-2025-52565).
    pub fn open(root: &Root, size: Option<(u16, u16)>) -> Result<Pty> {
        let doing = || "process.terminal: open a pty in the container (is a devpts mounted on /dev/pts?)".to_string();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = root.open_at(Path::new("/dev/pts/ptmx"), flags).doing(doing)?;
        tty::check_ptmx(master.as_fd()).doing(doing)?;
        let slave = tty::open_peer(master.as_fd()).doing(doing)?;
        if let Some((rows, columns)) = size {
            tty::set_size(&slave, rows, columns).doing(|| "process.consoleSize".into())?;
        }
        Ok(Pty { master, slave })
    }

    /// Puts the slave at `/dev/console` below `root`, fd to fd.
    pub fn bind_console(&self, root: &Root) -> Result<()> {
        let doing = || "process.terminal: bind the terminal to /dev/console".to_string();
        let dir = root.mkdir_all(Path::new("/dev"), 0o755).doing(doing)?;
        // /dev may be a symlink in the image, which stays below the root; /dev/console must not be one (CVE-2026-88264).
        let place = Root::from_fd(dir).touch_nofollow("console".as_ref(), 0o620).doing(doing)?;
        let tree = mount::open_tree_clone(self.slave.as_fd(), Path::new(""), false).doing(doing)?;
        mount::attach(tree.as_fd(), place.as_fd()).doing(doing)
    }

    /// Makes the slave the standard streams and the controlling terminal of this process, a session leader.
    pub fn take(&self) -> Result<()> {
        let doing = || "process.terminal: make the pty the controlling terminal".to_string();
        for stream in 0..3 {
            process::dup_onto_stdio(self.slave.as_fd(), stream).doing(doing)?;
        }
        tty::make_controlling(self.slave.as_fd()).doing(doing)
    }
}

/// Sends the master to a console socket: one message, one fd, the pty's name as its text (contract A.9).
pub fn send_master(socket: BorrowedFd<'_>, master: BorrowedFd<'_>) -> Result<()> {
    let doing = || "--console-socket: send the terminal".to_string();
    let name = tty::pty_name(master).doing(doing)?;
    socket::send(socket, name.as_bytes(), &[master]).doing(doing)
}
