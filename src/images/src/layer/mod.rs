//! Layers: archives of a directory tree, or of what changed in one (image-spec, layer.md).

mod entry;
mod error;
mod header;
mod pax;
mod read;

pub use entry::{Entry, Extent, Kind, Timestamp, Xattr};
pub use error::{Error, Place};
pub use read::{NAME_MAX, Reader};
