//! Images over registries and storage: the lower half of `berth` (DESIGN.md beside this crate).

#![forbid(unsafe_code)]

pub mod archive;
pub mod change;
pub mod commit;
pub mod diff;
mod error;
pub mod garbage;
pub mod layer;
pub mod names;
pub mod progress;
pub mod pull;
pub mod push;
pub mod repositories;
pub mod snapshots;
pub mod time;
mod tree;
pub mod unpacking;

pub use error::Error;
