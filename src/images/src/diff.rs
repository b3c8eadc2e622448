//! What a container has changed: its tree compared with the layers below it.
//!
//! An overlay's upper directory has only what was touched, so only that is looked at; with the other drivers both trees are walked. The
//! answer is the same: what Docker's `diff` says.

use crate::snapshots::{Delta, Error, INIT_PATHS, Snapshots, Written};
use crate::tree::{Dir, Tree, Xattr, kind};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How a path has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is another, or something in it has changed.
    Modified,
    /// It was not there.
    Added,
    /// It is gone.
    Deleted,
}

impl ChangeKind {
    /// As `docker diff` shows it.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Modified => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        }
    }
}

/// A path that has changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute, as the container sees it.
    pub path: PathBuf,
    /// How.
    pub kind: ChangeKind,
}

/// The changes of a container, by path. What the init layer has is none.
pub fn changes(snapshots: &Snapshots, id: &str) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    compare(&snapshots.written(id)?, &mut |found| {
        changes.push(Change { path: Path::new("/").join(found.path), kind: found.kind });
        Ok(())
    })?;
    // By the bytes of the whole path, as Docker has them: "a-b" comes before "a/b".
    changes.sort_unstable_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    Ok(changes)
}

/// A path that has changed, while it can be looked at.
pub(crate) struct Found<'a> {
    pub kind: ChangeKind,
    /// Relative to the root.
    pub path: &'a Path,
    pub name: &'a OsStr,
    /// What it is now, and the directory that it is in; `None` when it is gone.
    pub now: Option<(&'a Dir, Stat)>,
}

/// Calls `visit` for every change: directories before what is in them, names in the order of their bytes, so always in the same order.
pub(crate) fn compare(delta: &Delta, visit: &mut dyn FnMut(Found<'_>) -> Result<(), Error>) -> Result<(), Error> {
    let (new, upper) = match &delta.written {
        Written::Upper(view, whiteouts) => (&view.tree, whiteouts.opaque()),
        Written::Whole(view) => (&view.tree, None),
    };
    let mut walk = Walk { old: &delta.below.tree, new, upper, init: delta.init, levels: Vec::new(), visit };
    walk.enter(PathBuf::new(), None)?;
    walk.run()
}

/// A directory that the walk is in.
struct Level {
    path: PathBuf,
    /// Dropped while the walk is far below, so that a tree of any depth needs few descriptors.
    dirs: Option<(Dir, Option<Dir>)>,
    /// What is still to be looked at, last first, and whether the container has it. (fuse-overlayfs 1.10 does not list what was deleted
    /// with its directory, but finds it.)
    names: Vec<(OsString, bool)>,
    /// Its own state, to be told once something in it has changed; `None` when it was told, or is the root.
    untold: Option<Stat>,
}

struct Walk<'a> {
    old: &'a Tree,
    new: &'a Tree,
    /// The attribute of opaque directories, when `new` is an upper directory.
    upper: Option<&'static str>,
    /// The init layer's files are no change.
    init: bool,
    levels: Vec<Level>,
    visit: &'a mut dyn FnMut(Found<'_>) -> Result<(), Error>,
}

/// Levels whose directories stay open.
const OPEN: usize = 64;

impl Walk<'_> {
    fn run(&mut self) -> Result<(), Error> {
        while let Some(level) = self.levels.last_mut() {
            let Some((name, is_there)) = level.names.pop() else {
                self.levels.pop();
                continue;
            };
            if level.dirs.is_none() {
                let path = level.path.clone();
                let Some(dirs) = self.open(&path)? else {
                    self.levels.pop();
                    continue;
                };
                self.levels.last_mut().map(|level| level.dirs = Some(dirs)).unwrap_or_default();
            }
            self.one(&name, is_there)?;
        }
        Ok(())
    }

    /// The directory `path` of both trees. `None` when a container that runs has removed it meanwhile.
    fn open(&self, path: &Path) -> Result<Option<(Dir, Option<Dir>)>, Error> {
        let failed = |e| Error::io("open the directory", path, e);
        let new = match self.new.try_dir(path) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        match self.old.try_dir(path) {
            Ok(dir) => Ok(Some((new, Some(dir)))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Some((new, None))),
            Err(e) => Err(failed(e)),
        }
    }

    fn enter(&mut self, path: PathBuf, untold: Option<Stat>) -> Result<(), Error> {
        let Some((new, old)) = self.open(&path)? else { return Ok(()) };
        let mut names: Vec<(OsString, bool)> = new.names()?.into_iter().map(|name| (name, true)).collect();
        if let Some(old) = old.as_ref().filter(|_| self.upper.is_none_or(|key| is_opaque(&new, key))) {
            names.extend(old.names()?.into_iter().map(|name| (name, false)));
            names.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            names.dedup_by(|next, kept| next.0 == kept.0);
        }
        names.reverse();
        if let Some(level) = self.levels.len().checked_sub(OPEN) {
            self.levels[level].dirs = None;
        }
        self.levels.push(Level { path, dirs: Some((new, old)), names, untold });
        Ok(())
    }

    fn one(&mut self, name: &OsStr, is_there: bool) -> Result<(), Error> {
        let Some(Level { path, dirs: Some((new, old)), .. }) = self.levels.last() else { return Ok(()) };
        let path = path.join(name);
        let was = match old {
            Some(old) => old.stat(name)?,
            None => None,
        };
        let is = if is_there { new.stat(name)? } else { None };
        if self.upper.is_some() {
            check_upper(new, name, is.as_ref())?;
        }
        let is = is.filter(|stat| self.upper.is_none() || !is_whiteout(stat));
        let change = match (&was, &is) {
            (None, None) => return Ok(()),
            (None, Some(_)) => Some(ChangeKind::Added),
            (Some(_), None) => Some(ChangeKind::Deleted),
            (Some(was), Some(is)) => {
                let old = old.as_ref().unwrap_or(new);
                (!same((old, was), (new, is), name, self.upper.is_some())?).then_some(ChangeKind::Modified)
            }
        };
        // With the drivers that have no init layer, its parents are the container's; what is in them tells.
        let change = change.filter(|kind| !(*kind == ChangeKind::Added && self.init && is_init_parent(&path)));
        if self.init && is_init_path(&path) {
            return match is.filter(|is| kind(is) == FileType::Directory) {
                Some(_) => self.enter(path, None),
                None => Ok(()),
            };
        }
        if let Some(kind) = change {
            self.tell_parents()?;
            self.tell(kind, &path, name, is)?;
        }
        match is {
            Some(is) if kind(&is) == FileType::Directory => self.enter(path, change.is_none().then_some(is)),
            _ => Ok(()),
        }
    }

    /// A directory in which something changed has changed itself.
    fn tell_parents(&mut self) -> Result<(), Error> {
        for n in 1..self.levels.len() {
            let Some(stat) = self.levels[n].untold.take() else { continue };
            let path = self.levels[n].path.clone();
            let name = path.file_name().unwrap_or_default();
            let above = &self.levels[n - 1];
            let opened = match &above.dirs {
                Some(_) => None,
                None => self.open(&above.path)?,
            };
            let Some((dir, _)) = above.dirs.as_ref().or(opened.as_ref()) else { continue };
            let now = Some((dir, stat));
            (self.visit)(Found { kind: ChangeKind::Modified, path: &path, name, now })?;
        }
        Ok(())
    }

    fn tell(&mut self, kind: ChangeKind, path: &Path, name: &OsStr, is: Option<Stat>) -> Result<(), Error> {
        let Some(Level { dirs: Some((new, _)), .. }) = self.levels.last() else { return Ok(()) };
        (self.visit)(Found { kind, path, name, now: is.map(|is| (new, is)) })
    }
}

fn is_init_path(path: &Path) -> bool {
    INIT_PATHS.iter().any(|(known, _)| path == Path::new(known))
}

fn is_init_parent(path: &Path) -> bool {
    INIT_PATHS.iter().any(|(known, _)| Path::new(known).parent() == Some(path))
}

fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(dir: &Dir, key: &str) -> bool {
    let value = crate::tree::xattr(&dir.proc_path(OsStr::new(".")), key.as_bytes());
    value.is_ok_and(|value| value.as_deref() == Some(b"y"))
}

/// An upper directory is complete without the layers below: we mount it so. One that something else has mounted may not be.
fn check_upper(dir: &Dir, name: &OsStr, stat: Option<&Stat>) -> Result<(), Error> {
    let key: &[u8] = match stat.map(kind) {
        Some(FileType::Directory) => b"overlay.redirect",
        // A file whose data is still below has its size and no blocks.
        Some(FileType::RegularFile) if stat.is_some_and(|s| s.st_blocks == 0 && s.st_size > 0) => b"overlay.metacopy",
        _ => return Ok(()),
    };
    for prefix in [&b"trusted."[..], b"user."] {
        if let Ok(Some(_)) = crate::tree::xattr(&dir.proc_path(name), &[prefix, key].concat()) {
            let text = "it was mounted with redirect_dir or metacopy, by another program: its data is elsewhere";
            return Err(dir.failed("compare", name, std::io::Error::other(text)));
        }
    }
    Ok(())
}

/// Is a file what it was? With `exact` (it was touched) a regular file that seems so is read as well.
fn same(old: (&Dir, &Stat), new: (&Dir, &Stat), name: &OsStr, exact: bool) -> Result<bool, Error> {
    let ((old, was), (new, is)) = (old, new);
    let attributes = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid);
    if attributes(was) != attributes(is) {
        return Ok(false);
    }
    let time = |s: &Stat| (s.st_mtime, s.st_mtime_nsec);
    // A directory's time says that something in it has changed, which is said there.
    if kind(is) != FileType::Directory && time(was) != time(is) {
        return Ok(false);
    }
    let equal = match kind(is) {
        FileType::Directory => true,
        FileType::RegularFile => was.st_size == is.st_size,
        FileType::Symlink => return Ok(old.read_link(name)? == new.read_link(name)?),
        FileType::CharacterDevice | FileType::BlockDevice => was.st_rdev == is.st_rdev,
        _ => true,
    };
    if !equal || portable(old.xattrs(name)?) != portable(new.xattrs(name)?) {
        return Ok(false);
    }
    match exact && kind(is) == FileType::RegularFile {
        true => same_content(old, new, name),
        false => Ok(true),
    }
}

fn same_content(old: &Dir, new: &Dir, name: &OsStr) -> Result<bool, Error> {
    let (mut a, mut b) = (old.open_file(name)?, new.open_file(name)?);
    let (mut one, mut two) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let failed = |e| new.failed("read", name, e);
    loop {
        let n = a.read(&mut one).map_err(failed)?;
        if n == 0 {
            return Ok(b.read(&mut two).map_err(failed)? == 0);
        }
        if b.read_exact(&mut two[..n]).is_err() || one[..n] != two[..n] {
            return Ok(false);
        }
    }
}

/// The extended attributes that belong to a file wherever it is: those that users set, capabilities and access control lists; not a
/// machine's labels, nor an overlay's own.
pub(crate) fn portable(xattrs: Vec<Xattr>) -> Vec<Xattr> {
    const OWN: [&[u8]; 3] = [b"user.overlay.", b"user.fuseoverlayfs.", b"user.containers."];
    let keep = |name: &[u8]| match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        name => name.starts_with(b"user.") && !OWN.iter().any(|own| name.starts_with(own)),
    };
    xattrs.into_iter().filter(|(name, _)| keep(name)).map(|(name, value)| (name, plain_capability(value))).collect()
}

/// A capability that holds in one user namespace (version 3, with the namespace's root behind it) as one that holds wherever the
/// file goes (version 2), as Docker has it in layers.
fn plain_capability(mut value: Vec<u8>) -> Vec<u8> {
    const VERSION_3: u8 = 3;
    if value.len() == 24 && value[3] == VERSION_3 && value[1] == 0 && value[2] == 0 {
        value.truncate(20);
        value[3] = 2;
    }
    value
}
