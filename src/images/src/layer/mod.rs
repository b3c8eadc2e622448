//! Layers: archives of a directory tree, or of what changed in one (image-spec, layer.md).
//!
//! [`unpack`] takes a layer's compressed bytes to a directory; [`apply`] does so with an archive that is not compressed, on the calling
//! thread alone; [`Reader`] only reads one.

mod compress;
mod compression;
mod data;
mod disk;
mod entry;
mod error;
mod header;
mod options;
mod pack;
mod path;
mod pax;
mod pipeline;
mod read;
mod unpack;
mod write;

pub(crate) use compress::Compressor;
pub use compress::Packing;
pub use compression::Compression;
pub use entry::{Entry, Extent, Kind, Timestamp, Xattr};
pub use error::{Error, Place};
pub use options::{IdRange, Options, Owners, Target, Whiteouts};
pub use pack::{PackOptions, Packed};
pub(crate) use pack::{pack_changes, pack_tree};
pub use pipeline::{Unpacked, unpack};
pub use read::{NAME_MAX, Reader};
pub use unpack::{Applied, apply};
pub use write::Writer;
