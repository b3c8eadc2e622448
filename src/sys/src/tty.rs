//! Terminals.

use crate::error::{Named, Result, SysError};
use crate::path::{fs_magic, fstat};
use rustix::fs::{major, minor};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes, Termios, Winsize};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `DEVPTS_SUPER_MAGIC`
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Checks that an fd opened as `/dev/pts/ptmx` is the multiplexer of a devpts: on a devpts, inode 2, device 5:2.
///
/// The container's root may have anything at that name (CVE-2025-52565).
pub fn check_ptmx(fd: BorrowedFd<'_>) -> Result<()> {
    let st = fstat(fd)?;
    let rdev = (major(st.st_rdev), minor(st.st_rdev));
    if fs_magic(fd)? != DEVPTS_MAGIC || st.st_ino != 2 || rdev != (5, 2) {
        return Err(SysError::new("open(\"/dev/pts/ptmx\"): not the multiplexer of a devpts", libc::ENOTTY));
    }
    Ok(())
}

/// Unlocks the pty whose master is `master` and opens its other end through the master itself, not by a name in the container.
/// ioctl_tty(2) TIOCGPTPEER
pub fn open_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::pty::unlockpt(master).named(|| "ioctl(TIOCSPTLCK, 0)".into())?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = rustix::pty::ioctl_tiocgptpeer(master, flags).named(|| "ioctl(TIOCGPTPEER)".into())?;
    // Unix98 pty slaves are majors 136 to 143.
    if fs_magic(&peer)? != DEVPTS_MAGIC || !(136..=143).contains(&major(fstat(&peer)?.st_rdev)) {
        return Err(SysError::new("ioctl(TIOCGPTPEER): not a pty of a devpts", libc::ENOTTY));
    }
    Ok(peer)
}

/// The pty's name, `/dev/pts/N`.
pub fn pty_name(master: BorrowedFd<'_>) -> Result<String> {
    let name = rustix::pty::ptsname(master, Vec::new()).named(|| "ioctl(TIOCGPTN)".into())?;
    Ok(name.to_string_lossy().into_owned())
}

/// Whether the fd is a terminal. isatty(3)
pub fn is_terminal(fd: impl AsFd) -> bool {
    rustix::termios::isatty(fd)
}

/// The terminal's size, `(rows, columns)`.
pub fn size(fd: impl AsFd) -> Result<(u16, u16)> {
    rustix::termios::tcgetwinsize(fd).map(|w| (w.ws_row, w.ws_col)).named(|| "ioctl(TIOCGWINSZ)".into())
}

/// Sets the terminal's size.
pub fn set_size(fd: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(fd, size).named(|| format!("ioctl(TIOCSWINSZ, {rows}x{columns})"))
}

/// Makes the terminal the controlling one of this session; `setsid` comes first.
pub fn make_controlling(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::process::ioctl_tiocsctty(fd).named(|| format!("ioctl({}, TIOCSCTTY)", fd.as_raw_fd()))
}

/// The settings of a terminal, to be restored by [`restore`].
pub type Settings = Termios;

/// Puts the terminal into raw mode (cfmakeraw(3)) and returns what it was.
pub fn make_raw(fd: impl AsFd) -> Result<Settings> {
    let old = rustix::termios::tcgetattr(&fd).named(|| "tcgetattr".into())?;
    let mut raw = old.clone();
    raw.make_raw();
    // But output stays processed: the program's terminal sends plain newlines (see [`clear_onlcr`]).
    raw.output_modes.insert(OutputModes::OPOST);
    rustix::termios::tcsetattr(&fd, OptionalActions::Now, &raw).named(|| "tcsetattr(raw)".into())?;
    Ok(old)
}

/// Gives the terminal back its settings.
pub fn restore(fd: impl AsFd, old: &Settings) -> Result<()> {
    rustix::termios::tcsetattr(fd, OptionalActions::Now, old).named(|| "tcsetattr".into())
}

/// Clears `ONLCR` of a new pty, so that the client's terminal, not the container's, turns newlines into CR LF.
pub fn clear_onlcr(fd: impl AsFd) -> Result<()> {
    let mut t = rustix::termios::tcgetattr(&fd).named(|| "tcgetattr".into())?;
    t.output_modes.remove(OutputModes::ONLCR);
    rustix::termios::tcsetattr(&fd, OptionalActions::Now, &t).named(|| "tcsetattr(-onlcr)".into())
}
