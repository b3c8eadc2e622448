//! What can fail, by what the caller can do about it.

use rrt_oci::image::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk or the user's quota is full.
    #[error("no space left on device: {}", path.display())]
    NoSpace {
        /// What was written.
        path: PathBuf,
    },
    /// The root belongs to somebody else.
    #[error("permission denied: can't {doing} {}: run as its owner, or name another root with --root", path.display())]
    Permission {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
    },
    /// Any other failure of a system call.
    #[error("can't {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No such blob.
    #[error("the blob {0} is not in the store")]
    Missing(Digest),
    /// A document that is larger than any good one.
    #[error("the blob {digest} has {size} bytes, more than the {limit} that are read of such a document")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// Bytes.
        size: u64,
        /// Bytes.
        limit: u64,
    },
    /// The content that came is not what was asked for. What was written of it is gone: the next ingest starts anew.
    #[error("wrong content: it has the digest {found}, not {expected}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More or less came than was announced. What is short is kept, to go on with.
    #[error("wrong size of {name}: {found} bytes, not {expected}")]
    Size {
        /// The digest, or the file while there is none.
        name: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// The disk gave back something else than was written: `berth system check` finds all such.
    #[error("the blob {} is damaged: its content has the digest {found}", path.display())]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// What it is now.
        found: Digest,
    },
}

impl Error {
    /// What a failed call on a file under the root means.
    pub fn io(doing: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace { path },
            io::ErrorKind::PermissionDenied => Error::Permission { doing, path },
            _ => Error::Io { doing, path, source },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match &error {
            Error::NoSpace { .. } => io::ErrorKind::StorageFull,
            Error::Permission { .. } => io::ErrorKind::PermissionDenied,
            Error::Io { source, .. } => source.kind(),
            Error::Missing(_) => io::ErrorKind::NotFound,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// Says what was done to which file when it failed.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::io(doing, path, source))
    }
}
