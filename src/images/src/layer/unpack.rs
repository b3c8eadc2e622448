//! Entries of an archive to files below a directory.

use super::data::{Data, sparse};
use super::disk::{self, At, Disk, Failure, Step, doing};
use super::entry::{Entry, Extent, Kind, Timestamp, Xattr};
use super::error::{Error, Place};
use super::options::{Options, Owners, Target, Whiteouts};
use super::path::{self, META, OPAQUE, WHITEOUT};
use super::read::Reader;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::BufRead;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

/// Bytes of memory for directories whose attributes are set later; a layer with more of them has some set more than once.
const LATER_MAX: usize = 32 << 20;

/// What was made of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of its files' content, holes included: what Docker calls the layer's size.
    pub bytes: u64,
    /// Directories that it does not have, made because something is in them (relative, parents first). On top of other layers they are to
    /// look like there.
    pub implied: Vec<PathBuf>,
    /// Devices that the kernel lets this user not make, left out ([`Options::skip_devices`]).
    pub skipped_devices: u64,
    /// Extended attributes that were left out: those that no layer may set, and those that the file system or the user can't.
    pub skipped_xattrs: u64,
}

/// Unpacks an archive without compression into `target`, and leaves the input after the archive's end.
///
/// # Errors
/// See [`Error`]. What was unpacked until then stays: the directory is worth nothing then.
pub fn apply<R: BufRead>(input: R, target: &Target<'_>, options: &Options) -> Result<(Applied, R), Error> {
    let mut reader = Reader::new(input);
    let mut unpacker = Unpacker::new(target, options).map_err(|failure| {
        let place = Place { entry: b"./".to_vec(), offset: 0 };
        Error::Write { place, doing: failure.doing, source: failure.source }
    })?;
    while let Some(entry) = reader.next_entry()? {
        unpacker.applied.entries += 1;
        if unpacker.applied.entries > options.max_entries {
            let problem = format!("the layer has more than {} entries", options.max_entries);
            return Err(Error::Limit { place: reader.place().clone(), problem });
        }
        unpacker.entry(entry, &mut reader)?;
        if unpacker.later.bytes > LATER_MAX {
            unpacker.finish()?;
            unpacker.later = Later { flushed: true, ..Later::default() };
            // What is opened from here on is looked at.
            unpacker.disk.forget();
        }
    }
    unpacker.finish()?;
    unpacker.applied.implied = unpacker.disk.implied();
    Ok((unpacker.applied, reader.into_inner()))
}

struct Unpacker<'a> {
    disk: Disk,
    data: Data,
    whiteouts: Whiteouts,
    options: &'a Options,
    /// Mode bits that the kernel takes from what is made.
    umask: u32,
    /// Who owns what is made.
    me: (u32, u32),
    later: Later,
    /// For [`Whiteouts::Apply`]: what this layer has made, by the hash of its path. Its keys are secret, so no archive can choose two paths
    /// that are one here.
    made: Option<(RandomState, HashSet<u64>)>,
    applied: Applied,
}

/// Directories whose attributes are set at the end, because what is made in them changes or needs these.
#[derive(Default)]
struct Later {
    directories: HashMap<Vec<u8>, Attributes>,
    bytes: usize,
    /// Some have been set already: from here on a directory that is opened may be one of those.
    flushed: bool,
}

struct Attributes {
    mtime: Timestamp,
    /// Of the entry, for messages.
    offset: u64,
    /// What needs the directory opened: its mode, unless it was made with it, and extended attributes.
    other: Option<Box<(Option<u32>, Vec<Xattr>)>>,
}

impl<'a> Unpacker<'a> {
    fn new(target: &Target<'_>, options: &'a Options) -> Step<Unpacker<'a>> {
        let implied = owner(&options.owners, 0, 0)?;
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let disk = Disk::new(target.directory, implied.filter(|owner| *owner != me))?;
        let made = (target.whiteouts == Whiteouts::Apply).then(Default::default);
        let (umask, whiteouts, applied) = (umask(), target.whiteouts, Applied::default());
        Ok(Unpacker { disk, data: Data::new(), whiteouts, options, umask, me, later: Later::default(), made, applied })
    }

    fn entry<R: BufRead>(&mut self, entry: Entry, reader: &mut Reader<R>) -> Result<(), Error> {
        let place = |e: &Entry| Place { entry: e.name.clone(), offset: e.offset };
        let bad = |problem: String| Error::Archive { place: place(&entry), problem };
        let path = path::clean(&entry.name).map_err(bad)?;
        let failed = |f: Failure| Error::Write { place: place(&entry), doing: f.doing, source: f.source };
        if self.whiteouts != Whiteouts::Keep {
            match whiteout(&path).map_err(bad)? {
                Mark::None => {}
                Mark::Ignored => return Ok(()),
                Mark::Opaque(directory) => return self.opaque(directory).map_err(failed),
                Mark::Whiteout(directory, name) => return self.whiteout(directory, name).map_err(failed),
            }
        }
        if let Some((hash, made)) = &mut self.made {
            made.insert(hash.hash_one(&path));
        }
        if path.is_empty() {
            return match entry.kind {
                Kind::Directory => self.root(&entry).map_err(failed),
                _ => Err(bad("it is the layer's directory, but no directory".to_owned())),
            };
        }
        self.disk.named(&path, entry.kind == Kind::Directory);
        let (parent, name) = path::split(&path);
        let parent = self.parent(parent).map_err(failed)?;
        let at = At { parent, name };
        match &entry.kind {
            Kind::File { size, extents } => self.file(&entry, *size, extents.as_deref(), &path, &at, reader),
            Kind::Directory => self.directory(&entry, &path, &at).map_err(failed),
            Kind::Symlink(text) => {
                let make = || rustix::fs::symlinkat(text.as_slice(), &at.parent, at.name);
                self.make(&path, &at, "make the symbolic link", make).map_err(failed)?;
                self.node_attributes(&entry, &at).map_err(failed)
            }
            Kind::HardLink(to) => {
                let to = path::clean(to)
                    .map_err(|p| bad(format!("it is a hard link to {}: {p}", super::error::Printed(to))))?;
                self.hard_link(&to, &path, &at).map_err(failed)
            }
            Kind::Fifo => self.node(&entry, FileType::Fifo, 0, &path, &at).map_err(failed),
            Kind::CharDevice(major, minor) => {
                let device = device(*major, *minor).map_err(bad)?;
                self.node(&entry, FileType::CharacterDevice, device, &path, &at).map_err(failed)
            }
            Kind::BlockDevice(major, minor) => {
                let device = device(*major, *minor).map_err(bad)?;
                self.node(&entry, FileType::BlockDevice, device, &path, &at).map_err(failed)
            }
        }
    }

    /// The directory that an entry goes to, made if need be.
    fn parent(&mut self, directory: &[u8]) -> Step<std::rc::Rc<std::os::fd::OwnedFd>> {
        let (fd, fresh) = self.disk.made_directory(directory)?;
        if self.later.flushed && fresh && !self.later.directories.contains_key(directory) {
            let stat = rustix::fs::fstat(&fd).map_err(doing("look at its directory"))?;
            let mtime = Timestamp { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 };
            self.postpone(directory.to_vec(), Attributes { mtime, offset: 0, other: None });
        }
        Ok(fd)
    }

    fn postpone(&mut self, directory: Vec<u8>, attributes: Attributes) {
        let xattrs = attributes.other.iter().flat_map(|other| &other.1);
        self.later.bytes += directory.len() + 128 + xattrs.map(|x| x.name.len() + x.value.len() + 64).sum::<usize>();
        self.later.directories.insert(directory, attributes);
    }

    /// [`Disk::replacing`]: a directory that went takes what was to be set in it along.
    fn make<T>(&mut self, path: &[u8], at: &At<'_>, what: &str, make: impl Fn() -> Result<T, Errno>) -> Step<T> {
        let (made, replaced) = self.disk.replacing(at, what, make)?;
        if replaced {
            self.later.directories.retain(|directory, _| directory != path && !path::is_below(directory, path));
        }
        Ok(made)
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        size: u64,
        extents: Option<&[Extent]>,
        path: &[u8],
        at: &At<'_>,
        reader: &mut Reader<R>,
    ) -> Result<(), Error> {
        let failed = |f: Failure| {
            let place = Place { entry: entry.name.clone(), offset: entry.offset };
            Error::Write { place, doing: f.doing, source: f.source }
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let open = || rustix::fs::openat(&at.parent, at.name, flags, mode);
        let file = File::from(self.make(path, at, "make the file", open).map_err(failed)?);
        match extents {
            None => self.data.whole(&file, size, reader, failed)?,
            Some(extents) => sparse(&file, size, extents, reader, failed)?,
        }
        self.applied.bytes += size;
        self.file_attributes(entry, &file).map_err(failed)
    }

    fn file_attributes(&mut self, entry: &Entry, file: &File) -> Step<()> {
        let inherits = self.made.is_some();
        if let Some((uid, gid)) = owner(&self.options.owners, entry.uid, entry.gid)?
            && (inherits || (uid, gid) != self.me)
        {
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::fchown(file, owner.0, owner.1).map_err(|e| chown_failed(e, uid, gid))?;
        }
        if inherits {
            forget_acl(file.as_fd(), "system.posix_acl_access")?;
        }
        if inherits || entry.mode & (0o7000 | self.umask) != 0 {
            rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(doing("set the mode"))?;
        }
        self.xattrs(&entry.xattrs, |xattr| {
            rustix::fs::fsetxattr(file, xattr.name.as_slice(), &xattr.value, XattrFlags::empty())
        })?;
        rustix::fs::futimens(file, &times(entry.mtime)).map_err(doing("set the time"))
    }

    fn directory(&mut self, entry: &Entry, path: &[u8], at: &At<'_>) -> Step<()> {
        // Others may have to make something in it, whatever its mode is in the end.
        let made_with = entry.mode & 0o777 | 0o700;
        let make = || rustix::fs::mkdirat(&at.parent, at.name, Mode::from_raw_mode(made_with));
        let mut merged = false;
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = at.stat().map_err(doing("look at what is there already"))?;
                merged = disk::is_directory(&stat);
                if !merged {
                    self.make(path, at, "make the directory", make)?;
                    if disk::is_whiteout(&stat)
                        && let Some(name) = self.whiteouts.opaque()
                    {
                        set_opaque(at, name)?;
                    }
                }
            }
            Err(error) => return Err(doing("make the directory")(error)),
        }
        let inherits = merged || self.made.is_some();
        if let Some((uid, gid)) = owner(&self.options.owners, entry.uid, entry.gid)?
            && (inherits || (uid, gid) != self.me)
        {
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(&at.parent, at.name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| chown_failed(e, uid, gid))?;
        }
        if inherits && !merged {
            let fd = at.open_directory().map_err(doing("open the directory"))?;
            forget_acl(fd.as_fd(), "system.posix_acl_access")?;
            forget_acl(fd.as_fd(), "system.posix_acl_default")?;
        }
        let mode = (inherits || made_with & !self.umask != entry.mode).then_some(entry.mode);
        let other = (mode.is_some() || !entry.xattrs.is_empty()).then(|| Box::new((mode, entry.xattrs.clone())));
        self.postpone(path.to_vec(), Attributes { mtime: entry.mtime, offset: entry.offset, other });
        Ok(())
    }

    /// The layer's directory itself.
    fn root(&mut self, entry: &Entry) -> Step<()> {
        let (fd, _) = self.disk.directory(b"").map_err(doing("open the layer's directory"))?;
        if let Some((uid, gid)) = owner(&self.options.owners, entry.uid, entry.gid)? {
            rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|e| chown_failed(e, uid, gid))?;
        }
        let other = Some(Box::new((Some(entry.mode), entry.xattrs.clone())));
        self.postpone(Vec::new(), Attributes { mtime: entry.mtime, offset: entry.offset, other });
        Ok(())
    }

    /// Another name of a file. It has the file's attributes; those that the entry repeats are not looked at, as in GNU tar: through a link to
    /// a symbolic link they would reach anything.
    fn hard_link(&mut self, to: &[u8], path: &[u8], at: &At<'_>) -> Step<()> {
        let (parent, name) = path::split(to);
        let what = format!("make the hard link to {}", super::error::Printed(to));
        if name.is_empty() || to == path {
            return Err(doing(&what)(Errno::INVAL));
        }
        let (parent, _) = self.disk.directory(parent).map_err(doing(&what))?;
        let link = || rustix::fs::linkat(&parent, name, &at.parent, at.name, AtFlags::empty());
        self.make(path, at, &what, link)
    }

    fn node(&mut self, entry: &Entry, kind: FileType, device: u64, path: &[u8], at: &At<'_>) -> Step<()> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let make = || match rustix::fs::mknodat(&at.parent, at.name, kind, mode, device) {
            // The file system's answer and the user's are the same; a fifo everybody may make.
            Err(Errno::PERM) if self.options.skip_devices && kind != FileType::Fifo => Ok(false),
            other => other.map(|()| true),
        };
        let (made, replaced) = self.disk.replacing(at, "make the device or fifo", make)?;
        if replaced {
            self.later.directories.retain(|directory, _| directory != path && !path::is_below(directory, path));
        }
        if !made {
            self.applied.skipped_devices += 1;
            return Ok(());
        }
        self.node_attributes(entry, at)
    }

    /// Attributes of what can't be opened: links and nodes.
    fn node_attributes(&mut self, entry: &Entry, at: &At<'_>) -> Step<()> {
        let inherits = self.made.is_some();
        if let Some((uid, gid)) = owner(&self.options.owners, entry.uid, entry.gid)?
            && (inherits || (uid, gid) != self.me)
        {
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(&at.parent, at.name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| chown_failed(e, uid, gid))?;
        }
        let link = matches!(entry.kind, Kind::Symlink(_));
        if !link && (inherits || entry.mode & (0o7000 | self.umask) != 0) {
            // Follows no link, since a node was made here and nobody else works in the directory.
            rustix::fs::chmodat(&at.parent, at.name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(doing("set the mode"))?;
        }
        // The kernel has no call that takes a directory's descriptor here; this path leads through it and no further.
        let path = [format!("/proc/self/fd/{}/", at.parent.as_raw_fd()).as_bytes(), at.name].concat();
        self.xattrs(&entry.xattrs, |xattr| {
            rustix::fs::lsetxattr(path.as_slice(), xattr.name.as_slice(), &xattr.value, XattrFlags::empty())
        })?;
        let times = times(entry.mtime);
        rustix::fs::utimensat(&at.parent, at.name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(doing("set the time"))
    }

    /// Sets those a layer may set. What the file system has not, or the user may not, is left out, as in Docker.
    fn xattrs(&mut self, xattrs: &[Xattr], set: impl Fn(&Xattr) -> Result<(), Errno>) -> Step<()> {
        for xattr in xattrs {
            let result = if is_ours(&xattr.name) { Err(Errno::NOTSUP) } else { set(xattr) };
            match result {
                Ok(()) => {}
                Err(Errno::NOTSUP | Errno::PERM) => self.applied.skipped_xattrs += 1,
                Err(error) => {
                    let name = super::error::Printed(&xattr.name);
                    return Err(doing(&format!("set the extended attribute {name}"))(error));
                }
            }
        }
        Ok(())
    }

    /// Sets what was postponed.
    fn finish(&mut self) -> Result<(), Error> {
        let mut directories: Vec<_> = std::mem::take(&mut self.later.directories).into_iter().collect();
        // Neighbours after each other: their parent is open then.
        directories.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (path, attributes) in directories {
            let offset = attributes.offset;
            self.set_later(&path, attributes).map_err(|f| {
                let place = Place { entry: [&path, &b"/"[..]].concat(), offset };
                Error::Write { place, doing: f.doing, source: f.source }
            })?;
        }
        Ok(())
    }

    fn set_later(&mut self, path: &[u8], attributes: Attributes) -> Step<()> {
        let (parent, name) = path::split(path);
        let parent = match self.disk.directory(parent) {
            Ok((parent, _)) => parent,
            // Reached through a link that another entry has replaced.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(doing("open the directory's parent")(error)),
        };
        let at = At { parent, name: if path.is_empty() { b"." } else { name } };
        let times = times(attributes.mtime);
        let Some(other) = attributes.other else {
            return match rustix::fs::utimensat(&at.parent, at.name, &times, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => Ok(()),
                other => other.map_err(doing("set the time")),
            };
        };
        let (mode, xattrs) = *other;
        let fd = match at.open_directory() {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            other => other.map_err(doing("open the directory"))?,
        };
        if let Some(mode) = mode {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(doing("set the mode"))?;
        }
        self.xattrs(&xattrs, |xattr| {
            rustix::fs::fsetxattr(&fd, xattr.name.as_slice(), &xattr.value, XattrFlags::empty())
        })?;
        rustix::fs::futimens(&fd, &times).map_err(doing("set the time"))
    }

    /// Nothing of the directory is there from the layers below.
    fn opaque(&mut self, directory: &[u8]) -> Step<()> {
        if let Some(name) = self.whiteouts.opaque() {
            let parent = self.parent(directory)?;
            return set_opaque(&At { parent, name: b"." }, name);
        }
        match self.disk.directory(directory) {
            Ok((fd, _)) => {
                self.disk.forget();
                let at = At { parent: fd, name: b"." };
                let fd = at.open_directory().map_err(doing("open the directory"))?;
                self.purge(fd.as_fd(), directory, 0).map_err(doing("remove what the layers below have"))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(doing("open the directory")(error)),
        }
    }

    /// `name` is gone from the layers below; what this layer has there itself stays.
    fn whiteout(&mut self, directory: &[u8], name: &[u8]) -> Step<()> {
        let Some(opaque) = self.whiteouts.opaque() else { return self.delete(directory, name) };
        let parent = self.parent(directory)?;
        let at = At { parent, name };
        match rustix::fs::mknodat(&at.parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => {
                let stat = at.stat().map_err(doing("look at what is there already"))?;
                if disk::is_directory(&stat) { set_opaque(&at, opaque) } else { Ok(()) }
            }
            other => other.map_err(doing("make the whiteout")),
        }
    }

    fn delete(&mut self, directory: &[u8], name: &[u8]) -> Step<()> {
        let parent = match self.disk.directory(directory) {
            Ok((parent, _)) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err(doing("open the directory")(error)),
        };
        let path = if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() };
        let at = At { parent, name };
        if !self.is_made(&path) {
            return self.disk.remove(&at).map(|_| ());
        }
        match at.open_directory() {
            Ok(fd) => {
                self.disk.forget();
                self.purge(fd.as_fd(), &path, 0).map_err(doing("remove what the layers below have"))
            }
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(()),
            Err(error) => Err(doing("open the directory")(error)),
        }
    }

    fn is_made(&self, path: &[u8]) -> bool {
        self.made.as_ref().is_some_and(|(hash, made)| made.contains(&hash.hash_one(path)))
    }

    /// Removes what this layer has not made below a directory.
    fn purge(&self, directory: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<(), Errno> {
        if depth >= disk::DEPTH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        for name in disk::names(directory)? {
            let path = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            let made = self.is_made(&path);
            let at =
                At { parent: std::rc::Rc::new(directory.try_clone_to_owned().map_err(|_| Errno::MFILE)?), name: &name };
            match at.open_directory() {
                Ok(fd) if made => self.purge(fd.as_fd(), &path, depth + 1)?,
                Ok(_) => disk::remove_tree(directory, &name, depth)?,
                Err(Errno::NOTDIR | Errno::LOOP) if made => {}
                Err(_) => rustix::fs::unlinkat(directory, name.as_slice(), AtFlags::empty())?,
            }
        }
        Ok(())
    }
}

/// What a name says about the layers below.
enum Mark<'a> {
    None,
    Ignored,
    Opaque(&'a [u8]),
    Whiteout(&'a [u8], &'a [u8]),
}

fn whiteout(path: &[u8]) -> Result<Mark<'_>, String> {
    // Nearly every name.
    if !path.starts_with(WHITEOUT) && !path.windows(5).any(|w| w == b"/.wh.") {
        return Ok(Mark::None);
    }
    let (directory, name) = path::split(path);
    if name == OPAQUE && !directory.split(|&b| b == b'/').any(|c| c.starts_with(WHITEOUT)) {
        return Ok(Mark::Opaque(directory));
    }
    if path.split(|&b| b == b'/').any(|component| component.starts_with(META)) {
        return Ok(Mark::Ignored);
    }
    if directory.split(|&b| b == b'/').any(|component| component.starts_with(WHITEOUT)) {
        return Err("it is below a whiteout, a name with .wh. in front".to_owned());
    }
    match name.strip_prefix(WHITEOUT) {
        Some(b"" | b"." | b"..") => Err("it is a whiteout of nothing that can be in a directory".to_owned()),
        Some(gone) => Ok(Mark::Whiteout(directory, gone)),
        None => Ok(Mark::None),
    }
}

/// Names that mean something to who stores or mounts layers, or to the host: no image sets them.
fn is_ours(name: &[u8]) -> bool {
    name.starts_with(b"trusted.")
        || name.starts_with(b"user.overlay.")
        || name.starts_with(b"user.fuseoverlayfs.")
        || name.starts_with(b"user.containers.")
        || name == b"security.selinux"
}

fn set_opaque(at: &At<'_>, name: &str) -> Step<()> {
    let fd = at.open_directory().map_err(doing("open the directory"))?;
    rustix::fs::fsetxattr(&fd, name, b"y", XattrFlags::empty()).map_err(doing("make the directory opaque"))
}

/// What a default access control list of the parent gave.
fn forget_acl(fd: BorrowedFd<'_>, name: &str) -> Step<()> {
    match rustix::fs::fremovexattr(fd, name) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(error) => Err(doing("remove the directory's access control list")(error)),
    }
}

/// The owner on disk; `None` leaves the one it was made with.
fn owner(owners: &Owners, uid: u32, gid: u32) -> Step<Option<(u32, u32)>> {
    match owners {
        Owners::Keep => Ok(Some((uid, gid))),
        Owners::Ignore => Ok(None),
        Owners::Map { uids, gids } => {
            let map = |what: &str, ranges: &[super::options::IdRange], id: u32| {
                let range = ranges.iter().find_map(|r| r.host(id));
                let unmapped = || format!("its {what} {id} is not in the id mapping");
                range.ok_or_else(|| Failure { doing: unmapped(), source: Errno::INVAL.into() })
            };
            Ok(Some((map("owner", uids, uid)?, map("group", gids, gid)?)))
        }
    }
}

fn chown_failed(error: Errno, uid: u32, gid: u32) -> Failure {
    let why = match error {
        Errno::INVAL => " (not an id of this user namespace: /etc/subuid and /etc/subgid give it more)",
        _ => "",
    };
    Failure { doing: format!("chown to {uid}:{gid}{why}"), source: error.into() }
}

fn device(major: u32, minor: u32) -> Result<u64, String> {
    match major < 1 << 12 && minor < 1 << 20 {
        true => Ok(rustix::fs::makedev(major, minor)),
        false => Err(format!("there is no device {major}:{minor}")),
    }
}

fn times(mtime: Timestamp) -> Timestamps {
    let mtime = mtime.bounded();
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

impl Timestamp {
    /// What file systems can have: a time before 1970 or after the year 2262 is the beginning of 1970, as in Docker.
    fn bounded(self) -> Timestamp {
        const LAST: i64 = i64::MAX / 1_000_000_000;
        if (0..LAST).contains(&self.seconds) { self } else { Timestamp::default() }
    }
}

/// The process's umask, which can't be asked for without being changed but here. When it can't be read: all of it.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}
