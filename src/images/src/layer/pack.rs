//! From a directory tree to an archive: a container's changes as a layer, or a whole tree.

use super::{Entry, Extent, Kind, Timestamp, Writer, Xattr};
use crate::diff::{ChangeKind, Found, compare, portable};
use crate::snapshots::{Delta, Error, View, Written};
use crate::tree::{Dir, kind};
use rustix::fs::{FileType, SeekFrom, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How archives are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct PackOptions {
    /// Nothing is younger than this (seconds since 1970; reproducible-builds.org, SOURCE_DATE_EPOCH).
    pub latest: Option<i64>,
}

/// What an archive has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Entries, whiteouts too.
    pub entries: u64,
    /// Bytes of regular files.
    pub size: u64,
}

/// Writes a container's changes as a layer (image-spec, layer.md): what is gone as whiteouts, each for itself and none opaque, as the
/// specification recommends, so that a layer is the same whichever driver it comes from.
pub(crate) fn pack_changes(delta: &Delta, out: impl Write, options: &PackOptions) -> Result<Packed, Error> {
    let mut pack = Pack::new(out, options);
    compare(delta, &mut |found: Found<'_>| match found.now {
        Some((dir, stat)) => {
            if found.name.as_bytes().starts_with(b".wh.") {
                let text = "a layer can't have a name that begins with .wh., which says that something is deleted";
                return Err(dir.failed("pack", found.name, io::Error::new(io::ErrorKind::InvalidInput, text)));
            }
            pack.file(dir, found.name, found.path, &stat)
        }
        None if found.kind == ChangeKind::Deleted => pack.whiteout(found.path),
        None => Ok(()),
    })?;
    pack.finish()
}

/// Writes all of a tree, as `export` does: what has changed since `nothing`.
pub(crate) fn pack_tree(nothing: View, tree: View, out: impl Write, options: &PackOptions) -> Result<Packed, Error> {
    let mut pack = Pack::new(out, options);
    let delta = Delta { below: nothing, written: Written::Whole(tree), init: false };
    compare(&delta, &mut |found: Found<'_>| match found.now {
        Some((dir, stat)) => pack.file(dir, found.name, found.path, &stat),
        None => Ok(()),
    })?;
    pack.finish()
}

struct Pack<W: Write> {
    writer: Writer<W>,
    options: PackOptions,
    /// The first name, here, of each file with several.
    links: HashMap<(u64, u64), PathBuf>,
    packed: Packed,
    buffer: Vec<u8>,
}

impl<W: Write> Pack<W> {
    fn new(out: W, options: &PackOptions) -> Pack<W> {
        let (writer, links, packed) = (Writer::new(out), HashMap::new(), Packed::default());
        Pack { writer, options: *options, links, packed, buffer: vec![0; 1 << 17] }
    }

    fn finish(self) -> Result<Packed, Error> {
        let failed = |e| Error::io("write", Path::new("the archive"), e);
        self.writer.finish().and_then(|mut out| out.flush()).map_err(failed)?;
        Ok(self.packed)
    }

    fn whiteout(&mut self, path: &Path) -> Result<(), Error> {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let marked = path.with_file_name(OsStr::from_bytes(&[b".wh.", name].concat()));
        let kind = Kind::File { size: 0, extents: None };
        self.entry(&Entry::new(marked.as_os_str().as_bytes(), kind, 0), path)
    }

    fn entry(&mut self, entry: &Entry, path: &Path) -> Result<(), Error> {
        self.packed.entries += 1;
        self.writer.entry(entry).map_err(|e| Error::io("write to the archive", path, e))
    }

    fn file(&mut self, dir: &Dir, name: &OsStr, path: &Path, stat: &Stat) -> Result<(), Error> {
        let mut bytes = path.as_os_str().as_bytes().to_vec();
        let mut opened = None;
        let node = |stat: &Stat| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let first = (stat.st_nlink > 1 && kind(stat) != FileType::Directory)
            .then(|| self.links.get(&(stat.st_dev, stat.st_ino)).cloned())
            .flatten();
        let what = match (first, kind(stat)) {
            (Some(first), _) => Kind::HardLink(first.into_os_string().as_bytes().to_vec()),
            (None, FileType::Directory) => {
                bytes.push(b'/');
                Kind::Directory
            }
            (None, FileType::RegularFile) => {
                let mut file = dir.open_file(name)?;
                let extents = extents(&mut file, stat).map_err(|e| dir.failed("read", name, e))?;
                opened = Some(file);
                Kind::File { size: stat.st_size as u64, extents }
            }
            (None, FileType::Symlink) => Kind::Symlink(dir.read_link(name)?.into_bytes()),
            (None, FileType::CharacterDevice) => Kind::CharDevice(node(stat).0, node(stat).1),
            (None, FileType::BlockDevice) => Kind::BlockDevice(node(stat).0, node(stat).1),
            (None, FileType::Fifo) => Kind::Fifo,
            // A socket is a process's, not a tree's: Docker leaves it out too.
            (None, _) => return Ok(()),
        };
        let linked = matches!(what, Kind::HardLink(_));
        let mut entry = Entry::new(bytes, what, stat.st_mode & 0o7777);
        (entry.uid, entry.gid) = (stat.st_uid, stat.st_gid);
        entry.mtime = Timestamp {
            seconds: self.options.latest.map_or(stat.st_mtime, |latest| latest.min(stat.st_mtime)),
            nanoseconds: 0,
        };
        if !linked {
            let xattrs = portable(dir.xattrs(name)?).into_iter();
            entry.xattrs = xattrs.map(|(name, value)| Xattr { name, value }).collect();
            if stat.st_nlink > 1 && kind(stat) != FileType::Directory {
                self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
            }
        }
        self.entry(&entry, path)?;
        match (opened, entry.kind) {
            (Some(mut file), Kind::File { size, extents }) => {
                self.packed.size += size;
                let extents = extents.unwrap_or_else(|| vec![Extent { offset: 0, length: size }]);
                self.data(&mut file, &extents, path)
            }
            _ => Ok(()),
        }
    }

    /// The data; of a file that was cut meanwhile, zeros, so that the archive stays one.
    fn data(&mut self, file: &mut File, extents: &[Extent], path: &Path) -> Result<(), Error> {
        for extent in extents.iter().filter(|extent| extent.length > 0) {
            file.seek(io::SeekFrom::Start(extent.offset)).map_err(|e| Error::io("read", path, e))?;
            let mut left = extent.length;
            while left > 0 {
                let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let mut n = file.read(&mut self.buffer[..most]).map_err(|e| Error::io("read", path, e))?;
                if n == 0 {
                    self.buffer[..most].fill(0);
                    n = most;
                }
                let failed = |e| Error::io("write to the archive", path, e);
                self.writer.write_all(&self.buffer[..n]).map_err(failed)?;
                left -= n as u64;
            }
        }
        Ok(())
    }
}

/// Files with less in holes are written whole, as every reader can read them.
const WORTH: u64 = 1 << 20;
/// What counts as a hole: as many zeros, at a multiple of it. Not what the file system has as one, so that a copy makes the same bytes.
const GRAIN: u64 = 1 << 16;

/// Where a file with large holes has data.
fn extents(file: &mut File, stat: &Stat) -> io::Result<Option<Vec<Extent>>> {
    let size = stat.st_size as u64;
    if size < WORTH || (stat.st_blocks as u64) * 512 + WORTH > size {
        return Ok(None);
    }
    let mut extents: Vec<Extent> = Vec::new();
    let mut buffer = vec![0u8; GRAIN as usize];
    let mut at = 0;
    while at < size {
        at = match rustix::fs::seek(&*file, SeekFrom::Data(at)) {
            Ok(start) => start.max(at) / GRAIN * GRAIN,
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let length = GRAIN.min(size - at);
        let grain = &mut buffer[..length as usize];
        file.seek(io::SeekFrom::Start(at))?;
        match file.read_exact(grain) {
            Ok(()) => {}
            // Cut meanwhile.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(e) => return Err(e),
        }
        if grain.iter().any(|b| *b != 0) {
            match extents.last_mut() {
                Some(last) if last.offset + last.length == at => last.length += length,
                _ => extents.push(Extent { offset: at, length }),
            }
        }
        at += GRAIN;
    }
    Ok(Some(extents))
}
