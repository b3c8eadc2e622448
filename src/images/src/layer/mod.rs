//! Layers: archives of a directory tree, or of what changed in one (image-spec, layer.md).

mod compress;
mod entry;
mod error;
mod header;
mod pack;
mod pax;
mod read;
mod write;

pub(crate) use compress::Compressor;
pub use compress::Packing;
pub use entry::{Entry, Extent, Kind, Timestamp, Xattr};
pub use error::{Error, Place};
pub use pack::{PackOptions, Packed};
pub(crate) use pack::{pack_changes, pack_tree};
pub use read::{NAME_MAX, Reader};
pub use write::Writer;
