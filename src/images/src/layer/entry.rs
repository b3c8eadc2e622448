//! One entry of a layer archive: what reading finds and writing writes.

/// A file, directory, link or node as an archive describes it, whatever the format's dialect said it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as the archive has it, not cleaned: `./usr/bin/`, `/etc/passwd`. No byte of it is 0.
    pub name: Vec<u8>,
    /// What it is, with what only that kind has.
    pub kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky: 0o7777 at most.
    pub mode: u32,
    /// The owner. Never `u32::MAX`, which chown(2) takes for "leave it".
    pub uid: u32,
    /// The group. Never `u32::MAX`.
    pub gid: u32,
    /// When its content last changed.
    pub mtime: Timestamp,
    /// Extended attributes, each name once. Access control lists and file capabilities are among them.
    pub xattrs: Vec<Xattr>,
    /// Where its first header is, in bytes of the archive without compression.
    pub offset: u64,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its length in bytes, holes included.
        size: u64,
        /// For a sparse file where its data is, in order and not overlapping; everything else are holes. `None`: data from 0 to `size`.
        extents: Option<Vec<Extent>>,
    },
    /// Another name of the file that an earlier entry has: its name as the archive has it.
    HardLink(Vec<u8>),
    /// A symbolic link with its text, whatever that is.
    Symlink(Vec<u8>),
    /// A directory.
    Directory,
    /// A character device: its major and minor number.
    CharDevice(u32, u32),
    /// A block device: its major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A part of a sparse file that has data, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// The whole name: `security.capability`. No byte of it is 0.
    pub name: Vec<u8>,
    /// Any bytes.
    pub value: Vec<u8>,
}

/// A point in time: seconds since 1970 and nanoseconds (below 1,000,000,000) after that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds; before 1970 negative.
    pub seconds: i64,
    /// Nanoseconds that come on top, also before 1970.
    pub nanoseconds: u32,
}

impl Entry {
    /// An entry with nothing special: owner root, time 0.
    pub fn new(name: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Entry {
        let (name, mtime) = (name.into(), Timestamp::default());
        Entry { name, kind, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new(), offset: 0 }
    }
}
