//! `-info` and `-v`: what this shim and its runtime are.

use crate::container::PROGRAM;
use crate::error::Error;
use crate::log;
use crate::proto::{Any, OPTIONS, Options, RuntimeInfo, RuntimeVersion};
use prost::Message;
use rrt_runtime_client::Runtime;
use std::io::Read;

/// The type name under which containerd reads the runtime's `features`.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Answers `-info`: reads the runtime options, asks the runtime for its features.
///
/// # Errors
/// Standard input is no `Any`.
pub fn info() -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|e| Error::system("read standard input", e))?;
    let any = Any::decode(&bytes[..]).map_err(|e| Error::system("failed to read runtime options", e))?;
    let given = !any.type_url.is_empty();
    let options = Options::from_any(Some(&any), &log::unknown_option).map_err(Error::unknown)?;
    let program = if options.binary_name.is_empty() { PROGRAM } else { &options.binary_name };
    let none = std::path::PathBuf::new();
    let runtime = Runtime { program: program.into(), root: none.clone(), log: none, systemd_cgroup: false };
    let features = runtime.features().map_err(|e| Error::system("memfd_create", e))?.run();
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), revision: String::new() };
    let info = RuntimeInfo {
        name: "io.containerd.rrt.v2".into(),
        version: Some(version),
        options: given.then(|| Any::of(OPTIONS, &options)),
        // A runtime that cannot say it can still be used.
        features: features.ok().map(|value| Any { type_url: FEATURES.into(), value }),
    };
    Ok(info.encode_to_vec())
}

/// What `-v` prints.
pub fn version() -> String {
    format!("containerd-shim-rrt-v2:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"))
}
