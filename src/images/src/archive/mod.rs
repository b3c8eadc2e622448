//! Images and trees as files: `export`.

mod export;

pub use export::{export, export_image};
