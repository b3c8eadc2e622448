//! The OCI documents: `oci-spec`'s types re-exported, plus what they lack. No I/O.

#![forbid(unsafe_code)]

pub use oci_spec::runtime::*;

/// The version of the runtime specification that is implemented, as `state`, `features` and `--version` tell it.
pub const VERSION: &str = "1.3.0";

#[cfg(feature = "image")]
pub mod image;
mod json;
mod lenient;

pub use json::{indented, member};
pub use lenient::{process_from_slice, spec_from_slice};
