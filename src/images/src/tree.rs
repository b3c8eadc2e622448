//! Directory trees that a container or an image has made, by descriptor. A path in one is resolved below its root and through no
//! symbolic link, so nothing in it can lead outside; and each directory is opened by its path from the root, so a tree of any
//! depth takes one descriptor and no stack.

use crate::snapshots::Error;
use rustix::fs::{Access, AtFlags, Dir as Stream, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// An extended attribute: its name and value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// A directory and all below it.
pub(crate) struct Tree {
    root: OwnedFd,
}

/// One directory of a tree.
pub(crate) struct Dir {
    fd: OwnedFd,
    /// From the tree's root; empty for the root itself.
    pub path: PathBuf,
}

impl Tree {
    pub fn open(path: &Path) -> Result<Tree, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io("open", path, e))?;
        Ok(Tree { root })
    }

    pub fn new(root: OwnedFd) -> Tree {
        Tree { root }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.root)
    }

    /// The directory at `path`, which must be one. ENOTDIR, ELOOP and ENOENT say that it is none.
    pub fn dir(&self, path: &Path) -> Result<Dir, Error> {
        self.try_dir(path).map_err(|e| Error::io("open the directory", path, e))
    }

    /// [`Tree::dir`] with the call's own error.
    pub fn try_dir(&self, path: &Path) -> Result<Dir, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match path.as_os_str().is_empty() {
            true => rustix::fs::openat(&self.root, ".", flags, Mode::empty())?,
            false => rustix::fs::openat2(&self.root, path, flags, Mode::empty(), INSIDE)?,
        };
        Ok(Dir { fd, path: path.to_owned() })
    }
}

/// How every path in a tree is resolved.
pub(crate) const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

impl Dir {
    pub fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }

    /// The names in it, sorted by their bytes.
    pub fn names(&self) -> Result<Vec<OsString>, Error> {
        let failed = |e: Errno| Error::io("read the directory", &self.path, e);
        let mut names = Vec::new();
        for entry in Stream::read_from(&self.fd).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_owned();
            if !matches!(name.as_bytes(), b"." | b"..") {
                names.push(OsString::from_vec(name.into_bytes()));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What is at `name`, itself and not what it points to; `None` when nothing is.
    pub fn stat(&self, name: &OsStr) -> Result<Option<Stat>, Error> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.failed("stat", name, e)),
        }
    }

    /// Opens a regular file to read.
    pub fn open_file(&self, name: &OsStr) -> Result<File, Error> {
        // NONBLOCK: it may have become a pipe since it was looked at.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| self.failed("open", name, e))?;
        Ok(File::from(fd))
    }

    pub fn read_link(&self, name: &OsStr) -> Result<CString, Error> {
        rustix::fs::readlinkat(&self.fd, name, Vec::new()).map_err(|e| self.failed("read the link", name, e))
    }

    /// All extended attributes of `name`, sorted. None where the file system has none.
    pub fn xattrs(&self, name: &OsStr) -> Result<Vec<Xattr>, Error> {
        let path = self.proc_path(name);
        let mut xattrs = Vec::new();
        for key in xattr_names(&path).map_err(|e| self.failed("list the extended attributes of", name, e))? {
            // One that went since, or that this kernel does not show us, is none.
            match xattr(&path, &key) {
                Ok(Some(value)) => xattrs.push((key, value)),
                Ok(None) => {}
                Err(e) => return Err(self.failed("read the extended attributes of", name, e)),
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }

    /// The calls on extended attributes have no form with a directory's descriptor (before Linux 6.13).
    pub fn proc_path(&self, name: &OsStr) -> PathBuf {
        Path::new(&format!("/proc/self/fd/{}", self.fd.as_raw_fd())).join(name)
    }

    /// An error at `name`, with its path in the tree.
    pub fn failed(&self, doing: &'static str, name: &OsStr, e: impl Into<io::Error>) -> Error {
        Error::io(doing, &self.path.join(name), e)
    }
}

/// What a file is, by its mode.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn xattr_names(path: &Path) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut list = Vec::with_capacity(512);
    loop {
        match rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut list)) {
            Ok(_) => break,
            Err(Errno::RANGE) => {
                list.clear();
                list.reserve(rustix::fs::llistxattr(path, &mut [0u8; 0][..])?.max(1024) * 2);
            }
            Err(Errno::OPNOTSUPP) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(list.split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The value of one extended attribute of the file at `path` itself.
pub(crate) fn xattr(path: &Path, key: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(256);
    loop {
        match rustix::fs::lgetxattr(path, key, rustix::buffer::spare_capacity(&mut value)) {
            Ok(_) => return Ok(Some(value)),
            Err(Errno::RANGE) => {
                value.clear();
                // Linux: XATTR_SIZE_MAX.
                value.reserve(65536);
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

/// Blocks (of 512 bytes) and inodes that a tree takes; a file with several names counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files of every kind.
    pub inodes: u64,
}

/// Walks the tree at `path`.
pub(crate) fn usage(path: &Path) -> Result<Usage, Error> {
    let tree = Tree::open(path)?;
    let mut seen = std::collections::HashSet::new();
    let mut usage = Usage::default();
    let mut waiting = vec![PathBuf::new()];
    while let Some(at) = waiting.pop() {
        let dir = match tree.try_dir(&at) {
            Ok(dir) => dir,
            // A container may be at work in it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(e) => return Err(Error::io("open the directory", &at, e)),
        };
        for name in dir.names()? {
            let Some(stat) = dir.stat(&name)? else { continue };
            let directory = kind(&stat) == FileType::Directory;
            if !directory && stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            usage.bytes += stat.st_blocks as u64 * 512;
            usage.inodes += 1;
            if directory {
                waiting.push(at.join(&name));
            }
        }
    }
    Ok(usage)
}

/// Removes the tree at `path`, whatever its depth: a path longer than `PATH_MAX` can be made, step by step, and must be able to go.
/// What is too deep for the descriptors there are is moved beside the tree first, as `.deep-…`: the parent is a directory that is swept.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let mut waiting = vec![path.to_owned()];
    let mut moved = 0u32;
    while let Some(path) = waiting.pop() {
        match std::fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io("stat", &path, e)),
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
                continue;
            }
        }
        let beside = || {
            moved += 1;
            let deep = path.with_file_name(format!(".deep-{}-{moved}", std::process::id()));
            waiting.push(deep.clone());
            deep
        };
        remove_directory(&path, beside).map_err(|e| Error::io("remove", &path, e))?;
    }
    Ok(())
}

/// How many directories are open at once while removing.
const OPEN: usize = 128;

fn remove_directory(path: &Path, mut beside: impl FnMut() -> PathBuf) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let enter = |at: BorrowedFd<'_>, name: &OsStr| -> rustix::io::Result<(OwnedFd, Vec<OsString>)> {
        // Rootless, a directory without permissions keeps its owner out too.
        if let Err(Errno::ACCESS) =
            rustix::fs::accessat(at, name, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty())
        {
            let _ = rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::empty());
        }
        let fd = rustix::fs::openat(at, name, flags, Mode::empty())?;
        let directories = clear(&fd)?;
        Ok((fd, directories))
    };
    let (top, directories) = enter(rustix::fs::CWD, path.as_os_str())?;
    let mut stack = vec![(top, OsString::new(), directories)];
    loop {
        let depth = stack.len();
        let Some((fd, _, directories)) = stack.last_mut() else { return Ok(()) };
        match directories.pop() {
            Some(name) if depth >= OPEN => rustix::fs::renameat(&*fd, &name, rustix::fs::CWD, beside())?,
            Some(name) => {
                let (child, directories) = enter(std::os::fd::AsFd::as_fd(fd), &name)?;
                stack.push((child, name, directories));
            }
            None => {
                let name = stack.pop().map(|(_, name, _)| name).unwrap_or_default();
                match stack.last() {
                    Some((parent, ..)) => rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR)?,
                    None => rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::REMOVEDIR)?,
                }
            }
        }
    }
}

/// Unlinks all in a directory but the directories, which it returns.
fn clear(fd: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut directories = Vec::new();
    for entry in Stream::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let mut directory = entry.file_type() == FileType::Directory;
        if entry.file_type() == FileType::Unknown {
            directory = kind(&rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?) == FileType::Directory;
        }
        match directory {
            true => directories.push(OsString::from_vec(name.to_bytes().to_vec())),
            false => rustix::fs::unlinkat(fd, name, AtFlags::empty())?,
        }
    }
    Ok(directories)
}
