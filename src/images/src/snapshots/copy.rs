//! The driver for file systems that nothing else works on: each layer is a copy of the one below with its changes, each container a copy
//! of the highest layer. Blocks are shared where the file system can (`FICLONE`: XFS, btrfs, bcachefs), and holes stay holes.

use super::home::make_directory;
use super::{Driver, Error, View, Whiteouts, Written};
use crate::tree::{self, Dir, INSIDE, Tree, kind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The driver: see above.
pub(super) struct Copy;

impl Driver for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn whiteouts(&self) -> Whiteouts {
        Whiteouts::Apply
    }

    fn make_layer(&self, fs: &Path, below: Option<&Path>) -> Result<(), Error> {
        make_directory(fs)?;
        std::fs::set_permissions(fs, std::fs::Permissions::from_mode(0o755)).map_err(|e| Error::io("chmod", fs, e))?;
        match below {
            Some(below) => copy(&Tree::open(below)?, &Tree::open(fs)?),
            None => Ok(()),
        }
    }

    fn view(&self, layers: &[PathBuf], scratch: &Path) -> Result<View, Error> {
        match layers.last() {
            Some(last) => View::open(last),
            None => {
                make_directory(scratch)?;
                let view = View::open(scratch)?;
                // It is empty and stays so: the descriptor is enough.
                std::fs::remove_dir(scratch).map_err(|e| Error::io("remove", scratch, e))?;
                Ok(view)
            }
        }
    }

    fn make_container(&self, place: &Path, layers: &[PathBuf]) -> Result<(), Error> {
        self.make_layer(&self.own(place), layers.last().map(PathBuf::as_path))
    }

    fn mount(&self, place: &Path, _: &[PathBuf]) -> Result<PathBuf, Error> {
        Ok(self.own(place))
    }

    fn unmount(&self, _: &Path) -> Result<(), Error> {
        Ok(())
    }

    fn written(&self, place: &Path, _: &[PathBuf]) -> Result<Written, Error> {
        Ok(Written::Whole(View::open(&self.own(place))?))
    }

    fn own(&self, place: &Path) -> PathBuf {
        place.join("fs")
    }

    fn delete(&self, path: &Path) -> Result<(), Error> {
        tree::remove(path)
    }

    fn info(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Copies all that is in `from` into `to`, an empty directory, with owners, modes, times, extended attributes and hard links.
pub(super) fn copy(from: &Tree, to: &Tree) -> Result<(), Error> {
    let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut waiting = vec![PathBuf::new()];
    let mut times = Vec::new();
    let root = from.dir(Path::new(""))?;
    let stat = rustix::fs::fstat(root.fd()).map_err(|e| Error::io("stat", Path::new("/"), e))?;
    let target = to.dir(Path::new(""))?;
    attributes((&root, OsStr::new(".")), &stat, (&target, OsStr::new(".")))?;
    times.push((PathBuf::new(), stat));
    while let Some(path) = waiting.pop() {
        let (source, target) = (from.dir(&path)?, to.dir(&path)?);
        for name in source.names()? {
            let Some(stat) = source.stat(&name)? else { continue };
            let inner = path.join(&name);
            if kind(&stat) == FileType::Directory {
                rustix::fs::mkdirat(target.fd(), &name, Mode::RWXU).map_err(|e| target.failed("create", &name, e))?;
                attributes((&source, &name), &stat, (&target, &name))?;
                waiting.push(inner.clone());
                times.push((inner, stat));
                continue;
            }
            if stat.st_nlink > 1 {
                if let Some(first) = links.get(&(stat.st_dev, stat.st_ino)) {
                    link(to, first, &target, &name)?;
                    continue;
                }
                links.insert((stat.st_dev, stat.st_ino), inner);
            }
            one(&source, &name, &stat, &target)?;
            attributes((&source, &name), &stat, (&target, &name))?;
            set_times(target.fd(), &name, &stat).map_err(|e| target.failed("set the times of", &name, e))?;
        }
    }
    // What was made in them has changed their times.
    for (path, stat) in times.iter().rev() {
        let dir = to.dir(path)?;
        set_times(dir.fd(), OsStr::new("."), stat).map_err(|e| Error::io("set the times of", path, e))?;
    }
    Ok(())
}

fn link(to: &Tree, first: &Path, target: &Dir, name: &OsStr) -> Result<(), Error> {
    let parent = to.dir(first.parent().unwrap_or(Path::new("")))?;
    rustix::fs::linkat(parent.fd(), first.file_name().unwrap_or_default(), target.fd(), name, AtFlags::empty())
        .map_err(|e| target.failed("link", name, e))
}

/// Makes one file that is no directory.
fn one(source: &Dir, name: &OsStr, stat: &Stat, target: &Dir) -> Result<(), Error> {
    let failed = |e: Errno| target.failed("create", name, e);
    match kind(stat) {
        FileType::RegularFile => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = rustix::fs::openat(target.fd(), name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
            let from = source.open_file(name)?;
            contents(&from, &to, stat.st_size as u64).map_err(|e| target.failed("write", name, e))
        }
        FileType::Symlink => rustix::fs::symlinkat(source.read_link(name)?, target.fd(), name).map_err(failed),
        other => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::mknodat(target.fd(), name, other, mode, stat.st_rdev).map_err(failed)
        }
    }
}

/// A clone, or else a copy without the holes.
pub(super) fn contents(from: &File, to: &OwnedFd, size: u64) -> Result<(), Errno> {
    if size > 0 && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole to the end.
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?.min(size);
        if end <= start {
            break;
        }
        range(from, to, start, end)?;
        at = end;
    }
    rustix::fs::ftruncate(to, size)
}

fn range(from: &File, to: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let most = usize::try_from(end - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), most) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return plain(from, to, read_at, end),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn plain(from: &File, to: &OwnedFd, mut at: u64, end: u64) -> Result<(), Errno> {
    let mut buffer = vec![0u8; 1 << 17];
    while at < end {
        let most = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let n = rustix::io::pread(from, &mut buffer[..most], at)?;
        if n == 0 {
            break;
        }
        let mut done = 0;
        while done < n {
            done += rustix::io::pwrite(to, &buffer[done..n], at + done as u64)?;
        }
        at += n as u64;
    }
    Ok(())
}

/// Owner, mode and extended attributes, in the order in which one does not undo the other.
fn attributes((source, from): (&Dir, &OsStr), stat: &Stat, (target, name): (&Dir, &OsStr)) -> Result<(), Error> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(target.fd(), name, Some(uid), Some(gid), flags).map_err(|e| target.failed("chown", name, e))?;
    if kind(stat) != FileType::Symlink {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmodat(target.fd(), name, mode, AtFlags::empty()).map_err(|e| target.failed("chmod", name, e))?;
    }
    let path = target.proc_path(name);
    for (key, value) in source.xattrs(from)? {
        match rustix::fs::lsetxattr(&path, key.as_slice(), &value, rustix::fs::XattrFlags::empty()) {
            Ok(()) => {}
            // A label is the machine's affair, and what an ordinary user may not set he has not set.
            Err(Errno::PERM | Errno::OPNOTSUPP) if key.starts_with(b"security.") || key.starts_with(b"trusted.") => {}
            Err(e) => return Err(target.failed("set the extended attributes of", name, e)),
        }
    }
    Ok(())
}

fn set_times(at: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> Result<(), Errno> {
    let time = |sec, nsec: u64| Timespec { tv_sec: sec, tv_nsec: nsec as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::utimensat(at, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives the directory `path` in `fs` the owner, mode, time and attributes that it has in `below`, if it is a directory in both.
pub(super) fn take_after(below: &Tree, fs: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let Some(name) = path.file_name() else { return Ok(()) };
    let source = match below.try_dir(parent) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(e) => return Err(Error::io("open", parent, e)),
    };
    let Some(stat) = source.stat(name)?.filter(|stat| kind(stat) == FileType::Directory) else { return Ok(()) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = match rustix::fs::openat2(fs, path, flags, Mode::empty(), INSIDE) {
        Ok(own) => Tree::new(own).dir(Path::new(""))?,
        // The layer has something else there by now.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let own = OsStr::new(".");
    attributes((&source, name), &stat, (&target, own))?;
    set_times(target.fd(), own, &stat).map_err(|e| Error::io("set the times of", path, e))
}
