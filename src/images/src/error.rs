//! Why an image could not be made, written or read.

use crate::{layer, names, snapshots};
use std::io;

/// Why an image could not be made of a container, saved, loaded, imported or exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A snapshot's tree.
    #[error(transparent)]
    Snapshot(#[from] snapshots::Error),
    /// A layer's archive.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// A layer that can't be unpacked.
    #[error("layer {layer}: {source}")]
    OfLayer {
        /// Its blob.
        layer: rrt_oci::image::Digest,
        /// What is wrong, at which entry.
        #[source]
        source: layer::Error,
    },
    /// A blob.
    #[error(transparent)]
    Content(#[from] rrt_content::Error),
    /// The names.
    #[error(transparent)]
    Names(#[from] names::Error),
    /// An instruction of `--change`.
    #[error("{text:?}: {why}")]
    Change {
        /// The instruction as it was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The archive of images is not one, or does not hold what it says.
    #[error("{entry}: {why}")]
    Archive {
        /// The file in the archive, or the archive.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// Reading or writing outside of the store.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Io { doing: doing.into(), source: source.into() }
    }

    pub(crate) fn archive(entry: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Archive { entry: entry.into(), why: why.into() }
    }
}
