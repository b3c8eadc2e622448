//! The layer's directory on disk: every name is resolved below it by the kernel, and what is made stands where nothing was.
//!
//! A parent directory is resolved with openat2(2) and RESOLVE_IN_ROOT: symbolic links of the layer are followed, since `lib -> usr/lib` and
//! then `lib/x` is a layer that people have and Docker (in a chroot) and containerd take, but the layer's directory is `/` for them, so that no
//! link and no `..` leads out. The last component is never followed: links, files and nodes are made exclusively, and what stood there before
//! is removed first. Nothing else works in the directory meanwhile.

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::rc::Rc;

/// Directories that are kept open.
const OPEN_MAX: usize = 64;

/// Levels of a directory that a layer replaces by something else.
pub(super) const DEPTH_MAX: usize = 200;

/// How implied parents are made (Docker's ImpliedDirectoryMode).
const IMPLIED: u32 = 0o755;

/// Bytes of memory for the names of implied directories; a layer that needs more of them is no image's.
const IMPLIED_MAX: usize = 16 << 20;

/// A call that failed, and what for.
#[derive(Debug)]
pub(super) struct Failure {
    pub doing: String,
    pub source: io::Error,
}

/// What a step on disk gives.
pub(super) type Step<T> = Result<T, Failure>;

/// For `map_err`: what was being done.
pub(super) fn doing<E: Into<io::Error>>(what: &str) -> impl FnOnce(E) -> Failure + '_ {
    move |error| Failure { doing: what.to_owned(), source: error.into() }
}

/// The layer's directory.
pub(super) struct Disk {
    root: Rc<OwnedFd>,
    implied_owner: Option<(u32, u32)>,
    /// Open directories by their clean path, and the one that was asked for last.
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    implied: Implied,
}

/// Directories that were made and that no entry has named, by their clean path.
#[derive(Default)]
struct Implied {
    paths: BTreeSet<Vec<u8>>,
    bytes: usize,
}

impl Implied {
    fn add(&mut self, path: &[u8]) -> Result<(), Errno> {
        self.bytes += path.len() + 64;
        if self.bytes > IMPLIED_MAX {
            return Err(Errno::NOMEM);
        }
        self.paths.insert(path.to_vec());
        Ok(())
    }
}

/// A name in an open directory.
pub(super) struct At<'a> {
    pub parent: Rc<OwnedFd>,
    pub name: &'a [u8],
}

impl Disk {
    /// `implied_owner` is whose directories are that are made since an entry is below them.
    pub fn new(root: BorrowedFd<'_>, implied_owner: Option<(u32, u32)>) -> Step<Disk> {
        // Opened anew, so that it can be read as a directory whatever it was opened with.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(root, c".", flags, Mode::empty()).map_err(doing("open the layer's directory"))?;
        Ok(Disk { root: Rc::new(root), implied_owner, open: HashMap::new(), last: None, implied: Implied::default() })
    }

    /// The directory that clean `directory` leads to. `fresh` hears of it when it was not open already.
    ///
    /// # Errors
    /// ENOENT when there is none.
    pub fn directory(&mut self, directory: &[u8]) -> Result<(Rc<OwnedFd>, bool), Errno> {
        if directory.is_empty() {
            return Ok((Rc::clone(&self.root), false));
        }
        if let Some((path, fd)) = &self.last
            && path == directory
        {
            return Ok((Rc::clone(fd), false));
        }
        let (fd, fresh) = match self.open.get(directory) {
            Some(fd) => (Rc::clone(fd), false),
            None => {
                let fd = Rc::new(self.resolve(directory)?);
                if self.open.len() >= OPEN_MAX {
                    self.open.clear();
                }
                self.open.insert(directory.to_vec(), Rc::clone(&fd));
                (fd, true)
            }
        };
        self.last = Some((directory.to_vec(), Rc::clone(&fd)));
        Ok((fd, fresh))
    }

    fn resolve(&self, directory: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.root, directory, flags, Mode::empty(), inside) {
                // Something was renamed anywhere on the machine while `..` was resolved (openat2(2)).
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Like [`Disk::directory`], but makes what is missing of it.
    pub fn made_directory(&mut self, directory: &[u8]) -> Step<(Rc<OwnedFd>, bool)> {
        match self.directory(directory) {
            Ok(found) => return Ok(found),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(in_directory(directory, error)),
        }
        // A name may have thousands of components: the last directory that is there is searched for by halves.
        let ends = directory.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let ends: Vec<usize> = ends.chain([directory.len()]).collect();
        let there = ends.partition_point(|end| self.resolve(&directory[..*end]).is_ok());
        let begin = if there == 0 { 0 } else { ends[there - 1] };
        let (mut parent, _) = self.directory(&directory[..begin]).map_err(|error| in_directory(directory, error))?;
        let mut from = if there == 0 { 0 } else { begin + 1 };
        for end in &ends[there..] {
            let made = self.imply(parent.as_fd(), &directory[from..*end]);
            let made = made.and_then(|made| self.implied.add(&directory[..*end]).map(|()| made));
            parent = Rc::new(made.map_err(|error| in_directory(&directory[..*end], error))?);
            from = end + 1;
        }
        self.directory(directory).map_err(|error| in_directory(directory, error))
    }

    /// An entry names this path: a directory there is not implied any more, and in what is none there are no others.
    pub fn named(&mut self, path: &[u8], directory: bool) {
        if self.implied.paths.remove(path) && !directory {
            let below = [path, b"/"].concat();
            self.implied.paths.retain(|implied| !implied.starts_with(&below));
        }
    }

    /// The directories that no entry has named, each after those it is in.
    pub fn implied(self) -> Vec<PathBuf> {
        self.implied.paths.into_iter().map(|path| PathBuf::from(OsString::from_vec(path))).collect()
    }

    /// Makes a parent that no entry has named.
    fn imply(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
        // A link to nothing and a file are there, and are no directory: EEXIST.
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(IMPLIED))?;
        let made = open_below(parent, name)?;
        // Whatever the umask, set-group-id and access control lists of the parent made of it.
        if let Some((uid, gid)) = self.implied_owner {
            rustix::fs::fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        rustix::fs::fchmod(&made, Mode::from_raw_mode(IMPLIED))?;
        Ok(made)
    }

    /// Forgets open directories: a name may lead elsewhere now.
    pub fn forget(&mut self) {
        self.open.clear();
        self.last = None;
    }

    /// Makes something where nothing may be yet; else what is there is removed first. Says whether that was a directory.
    pub fn replacing<T>(&mut self, at: &At<'_>, what: &str, make: impl Fn() -> Result<T, Errno>) -> Step<(T, bool)> {
        match make() {
            Err(Errno::EXIST) => {
                let directory = self.remove(at)?;
                Ok((make().map_err(doing(what))?, directory))
            }
            other => Ok((other.map_err(doing(what))?, false)),
        }
    }

    /// Removes what is at a name, with all below it; nothing there is fine. Says whether it was a directory.
    pub fn remove(&mut self, at: &At<'_>) -> Step<bool> {
        self.forget();
        let failed = doing("remove what is there already");
        match rustix::fs::unlinkat(&at.parent, at.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(false),
            Err(Errno::ISDIR | Errno::PERM) => {
                remove_tree(at.parent.as_fd(), at.name, 0).map_err(failed)?;
                Ok(true)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

impl At<'_> {
    /// What is there, itself.
    pub fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Opens a directory that is there.
    pub fn open_directory(&self) -> Result<OwnedFd, Errno> {
        open_below(self.parent.as_fd(), self.name)
    }
}

/// Is it a whiteout of overlayfs, a character device 0:0?
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn in_directory(directory: &[u8], error: Errno) -> Failure {
    let shown = super::error::Printed(directory);
    let why = match error {
        Errno::NOTDIR | Errno::EXIST => "what it is below is no directory: ",
        Errno::LOOP => "it is below symbolic links that lead nowhere: ",
        _ => "",
    };
    Failure { doing: format!("{why}open the directory {shown}"), source: error.into() }
}

fn open_below(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// The names in a directory, without `.` and `..`.
pub(super) fn names(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.to_vec()),
        }
    }
    Ok(names)
}

/// Removes a directory with all in it. It is the layer's own, so nobody changes it meanwhile; still no link is followed.
pub(super) fn remove_tree(parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<(), Errno> {
    if depth >= DEPTH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let directory = open_below(parent, name)?;
    for child in names(directory.as_fd())? {
        match rustix::fs::unlinkat(&directory, child.as_slice(), AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => remove_tree(directory.as_fd(), &child, depth + 1)?,
            other => other?,
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}
