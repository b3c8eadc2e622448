//! The init layer: what every container has between its image and its own changes, so that the runtime can mount over it: the files
//! that the engine writes for each container, and the directories of the kernel's file systems. It is made for a container, not
//! for its image: no diff shows it and no commit takes it along.

use super::Error;
use crate::tree::kind;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What is at a path of the init layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A directory; one that the image has stays.
    Directory,
    /// An empty file, whatever the image has there.
    File,
    /// A symbolic link.
    Link(&'static str),
}

/// The init layer of Docker's containers. Relative to the root, parents first.
pub const PATHS: [(&str, What); 10] = [
    (".dockerenv", What::File),
    ("dev/console", What::File),
    ("dev/pts", What::Directory),
    ("dev/shm", What::Directory),
    ("etc/hostname", What::File),
    ("etc/hosts", What::File),
    ("etc/mtab", What::Link("/proc/mounts")),
    ("etc/resolv.conf", What::File),
    ("proc", What::Directory),
    ("sys", What::Directory),
];

/// Writes it into the root `root`. A symbolic link of the image, in the middle of a path or at its end, is replaced and never followed.
pub(super) fn write(root: BorrowedFd<'_>) -> Result<(), Error> {
    for (path, what) in PATHS {
        one(root, path, what).map_err(|e| Error::io("make the init layer's", Path::new(path), e))?;
    }
    Ok(())
}

fn one(root: BorrowedFd<'_>, path: &str, what: What) -> rustix::io::Result<()> {
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut at = enter(root, OsStr::new("."))?;
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        at = directory(at.as_fd(), OsStr::new(part))?;
    }
    let name = OsStr::new(name);
    match what {
        What::Directory => directory(at.as_fd(), name).map(drop),
        What::File => {
            remove(at.as_fd(), name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(&at, name, flags, Mode::empty()) {
                Ok(file) => file,
                // A directory that is not empty: the image wants it so, and the runtime will say that it can't mount there.
                Err(Errno::EXIST | Errno::ISDIR) => return Ok(()),
                Err(e) => return Err(e),
            };
            // Docker's mode. Not at open(2): the umask.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o755))
        }
        What::Link(target) => match stat(at.as_fd(), name)? {
            Some(_) => Ok(()),
            None => rustix::fs::symlinkat(target, &at, name),
        },
    }
}

/// Opens a directory, and makes it where none is.
fn directory(at: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    if stat(at, name)?.is_some_and(|stat| kind(&stat) != FileType::Directory) {
        remove(at, name)?;
    }
    let made = match rustix::fs::mkdirat(at, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(e) => return Err(e),
    };
    let fd = enter(at, name)?;
    if made {
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
    }
    Ok(fd)
}

fn enter(at: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn stat(at: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<rustix::fs::Stat>> {
    match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Takes a file or an empty directory away.
fn remove(at: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => match rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) => Ok(()),
            other => other,
        },
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
