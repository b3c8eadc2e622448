//! What the fuzz targets do with an input. Each function panics when a promise of the runtime does not hold.

#![forbid(unsafe_code)]

#[path = "../../../src/images/tests/archive/mod.rs"]
pub mod archive;
pub mod config_plan;
#[path = "../../../src/runtime/tests/common/facts.rs"]
pub mod facts;
pub mod handshake_frame;
pub mod layer_unpack;
pub mod mutate;
pub mod seccomp_profile;
pub mod template;
#[path = "../../../src/seccomp/src/testing/mod.rs"]
pub mod testing;
