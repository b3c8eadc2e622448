//! Where and how a layer is unpacked.

use std::os::fd::BorrowedFd;

/// Where a layer goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The layer's directory. Nobody else may work in it meanwhile. Empty, or with the layers below for [`Whiteouts::Apply`].
    pub directory: BorrowedFd<'a>,
    /// What becomes of whiteouts.
    pub whiteouts: Whiteouts,
}

/// What `.wh.NAME` and `.wh..wh..opq` become (image-spec, layer.md, "Whiteouts").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// Overlayfs's: a character device 0:0, and `trusted.overlay.opaque` on the directory. Needs CAP_SYS_ADMIN.
    Overlay,
    /// The same with `user.overlay.opaque`, for overlayfs with `userxattr`, and fuse-overlayfs.
    OverlayUser,
    /// The directory has the layers below: what is whited out is deleted from it. What the layer itself has there stays.
    Apply,
    /// Nothing: they are names like others.
    Keep,
}

impl Whiteouts {
    /// The attribute that makes a directory opaque.
    pub fn opaque(self) -> Option<&'static str> {
        match self {
            Whiteouts::Overlay => Some("trusted.overlay.opaque"),
            Whiteouts::OverlayUser => Some("user.overlay.opaque"),
            Whiteouts::Apply | Whiteouts::Keep => None,
        }
    }
}

/// Limits on a layer, and what is made of owners and devices.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose the files are.
    pub owners: Owners,
    /// Leave out devices when the kernel refuses to make them, as Docker and podman do for an ordinary user.
    pub skip_devices: bool,
    /// Bytes that the archive may have without compression.
    pub max_size: u64,
    /// Entries that it may have.
    pub max_entries: u64,
    /// How many times its compressed length it may have, looked at from 64 MiB on. Deflate reaches 1032; a file of zeros in zstd 30,000 and
    /// more, and is no attack: `None` sets no limit.
    pub max_ratio: Option<u64>,
    /// Also hash the compressed bytes ([`Unpacked::digest`](super::Unpacked)).
    pub digest_input: bool,
}

impl Default for Options {
    /// Owners as they are; 1 TiB; 16 million entries.
    fn default() -> Options {
        let (max_size, max_entries) = (1 << 40, 1 << 24);
        Options {
            owners: Owners::Keep,
            skip_devices: false,
            max_size,
            max_entries,
            max_ratio: None,
            digest_input: false,
        }
    }
}

/// Whose unpacked files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The archive's. One that can't be given is an error: a container must not find other owners than its image says.
    Keep,
    /// The archive's, through a mapping.
    Map {
        /// For owners.
        uids: Vec<IdRange>,
        /// For groups.
        gids: Vec<IdRange>,
    },
    /// Whoever unpacks, for a user without subordinate ids (podman's ignore_chown_errors). Set-user-id and set-group-id stay.
    Ignore,
}

/// A range of an id mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in the archive.
    pub container: u32,
    /// The first on disk.
    pub host: u32,
    /// How many.
    pub length: u32,
}

impl IdRange {
    pub(super) fn host(&self, id: u32) -> Option<u32> {
        let distance = id.checked_sub(self.container).filter(|distance| *distance < self.length)?;
        self.host.checked_add(distance)
    }
}
