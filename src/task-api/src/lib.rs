//! containerd's messages: what its task service (v2 and v3), its events and its runtime options are on the wire.
//!
//! Names and field numbers are containerd's; they are what two programs have to agree on. Both versions of the task service have
//! the same messages. Only what our shim reads or writes is here; fields are named as containerd documents them.

#![forbid(unsafe_code)]
#![allow(missing_docs)]

pub mod cgroup1;
pub mod cgroup2;
mod client;
pub mod events;
pub mod frame;
pub mod task;
mod toml;

pub use client::{Client, Failure};
pub use prost::Message;

/// `google.protobuf.Any`: a message and the name of its type.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Any {
    /// A message with its type's full name; containerd writes no prefix before it.
    pub fn of(name: &str, message: &impl Message) -> Any {
        Any { type_url: name.to_owned(), value: message.encode_to_vec() }
    }

    /// The type's name without the prefix that some writers put before it.
    pub fn name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or_default()
    }
}

/// `google.protobuf.Timestamp`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `google.protobuf.Empty`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// `containerd.types.Mount`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mount {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(string, tag = "2")]
    pub source: String,
    #[prost(string, tag = "3")]
    pub target: String,
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

/// The name of [`Options`].
pub const OPTIONS: &str = "containerd.runc.v1.Options";

/// `containerd.runc.v1.Options`: how the runtime is to be called. `reserved` numbers are not read.
#[derive(Clone, PartialEq, Eq, Message, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Options {
    #[prost(bool, tag = "1")]
    pub no_pivot_root: bool,
    #[prost(bool, tag = "2")]
    pub no_new_keyring: bool,
    /// A cgroup for the shim itself.
    #[prost(string, tag = "3")]
    pub shim_cgroup: String,
    /// Owner of the pipes that are the container's streams.
    #[prost(uint32, tag = "4")]
    pub io_uid: u32,
    #[prost(uint32, tag = "5")]
    pub io_gid: u32,
    /// The runtime.
    #[prost(string, tag = "6")]
    pub binary_name: String,
    /// Its state directory; the namespace is added.
    #[prost(string, tag = "7")]
    pub root: String,
    #[prost(bool, tag = "9")]
    pub systemd_cgroup: bool,
    #[prost(string, tag = "10")]
    pub criu_image_path: String,
    #[prost(string, tag = "11")]
    pub criu_work_path: String,
}

impl Options {
    /// Whether it is of a type that [`Options::from_any`] reads.
    pub fn is_one(any: &Any) -> bool {
        any.name() == OPTIONS || any.name() == OLD_OPTIONS || any.name().ends_with(CRI_OPTIONS)
    }

    /// The options of a request; without any, the defaults. containerd 1.6's clients send the older type to a shim whose name they
    /// do not know. In those that are text a key may be unknown, and is told.
    ///
    /// # Errors
    /// One line: they are of another type, or unreadable.
    pub fn from_any(any: Option<&Any>, unknown: &dyn Fn(&str)) -> Result<Options, String> {
        let Some(any) = any.filter(|any| !any.value.is_empty()) else { return Ok(Options::default()) };
        let unreadable = |e| format!("runtime options: {e}");
        match any.name() {
            OPTIONS => Options::decode(&any.value[..]).map_err(unreadable),
            OLD_OPTIONS => OldOptions::decode(&any.value[..]).map(Options::from).map_err(unreadable),
            name if name.ends_with(CRI_OPTIONS) => {
                let cri = CriOptions::decode(&any.value[..]).map_err(unreadable)?;
                toml::options(&cri.config_path, &cri.config_body, unknown)
            }
            other => Err(format!("runtime options are of type {other:?}, not {OPTIONS}")),
        }
    }
}

/// What containerd's CRI plugin sends to a shim whose name it does not know: the table `options` of its configuration, as text
/// (1.7 and later), or the path of a file.
const CRI_OPTIONS: &str = "runtimeoptions.v1.Options";

/// `runtimeoptions.v1.Options`
#[derive(Clone, PartialEq, Eq, Message)]
struct CriOptions {
    #[prost(string, tag = "2")]
    config_path: String,
    #[prost(bytes = "vec", tag = "3")]
    config_body: Vec<u8>,
}

const OLD_OPTIONS: &str = "containerd.linux.runc.CreateOptions";

/// `containerd.linux.runc.CreateOptions`
#[derive(Clone, PartialEq, Eq, Message)]
struct OldOptions {
    #[prost(bool, tag = "1")]
    no_pivot_root: bool,
    #[prost(bool, tag = "8")]
    no_new_keyring: bool,
    #[prost(string, tag = "9")]
    shim_cgroup: String,
    #[prost(uint32, tag = "10")]
    io_uid: u32,
    #[prost(uint32, tag = "11")]
    io_gid: u32,
    #[prost(string, tag = "12")]
    criu_work_path: String,
    #[prost(string, tag = "13")]
    criu_image_path: String,
}

impl From<OldOptions> for Options {
    fn from(old: OldOptions) -> Options {
        Options {
            no_pivot_root: old.no_pivot_root,
            no_new_keyring: old.no_new_keyring,
            shim_cgroup: old.shim_cgroup,
            io_uid: old.io_uid,
            io_gid: old.io_gid,
            criu_work_path: old.criu_work_path,
            criu_image_path: old.criu_image_path,
            ..Options::default()
        }
    }
}

/// `containerd.runc.v1.CheckpointOptions`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CheckpointOptions {
    #[prost(bool, tag = "1")]
    pub exit: bool,
    #[prost(bool, tag = "2")]
    pub open_tcp: bool,
    #[prost(bool, tag = "3")]
    pub external_unix_sockets: bool,
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    #[prost(bool, tag = "5")]
    pub file_locks: bool,
    #[prost(string, repeated, tag = "6")]
    pub empty_namespaces: Vec<String>,
    #[prost(string, tag = "9")]
    pub work_path: String,
    #[prost(string, tag = "10")]
    pub parent_path: String,
}

impl CheckpointOptions {
    /// The options of a request. The older type has its working directory under another number.
    ///
    /// # Errors
    /// One line: unreadable.
    pub fn from_any(any: Option<&Any>) -> Result<CheckpointOptions, String> {
        let Some(any) = any else { return Ok(CheckpointOptions::default()) };
        let mut options = CheckpointOptions::decode(&any.value[..]).map_err(|e| format!("checkpoint options: {e}"))?;
        if any.name() == "containerd.linux.runc.CheckpointOptions" {
            let old = OldWorkPath::decode(&any.value[..]).map_err(|e| format!("checkpoint options: {e}"))?;
            options.work_path = old.work_path;
        }
        Ok(options)
    }
}

/// The one field of `containerd.linux.runc.CheckpointOptions` that moved.
#[derive(Clone, PartialEq, Eq, Message)]
struct OldWorkPath {
    #[prost(string, tag = "8")]
    work_path: String,
}

/// The name of [`ProcessDetails`].
pub const PROCESS_DETAILS: &str = "containerd.runc.v1.ProcessDetails";

/// `containerd.runc.v1.ProcessDetails`: which exec a pid is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ProcessDetails {
    #[prost(string, tag = "1")]
    pub exec_id: String,
}

/// `containerd.runtime.bootstrap.v1.BootstrapParams`: what containerd 2.3 and later write to `start`.
#[derive(Clone, PartialEq, Message)]
pub struct BootstrapParams {
    #[prost(string, tag = "1")]
    pub instance_id: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "6")]
    pub containerd_grpc_address: String,
    #[prost(message, repeated, tag = "8")]
    pub extensions: Vec<Extension>,
    /// Where the socket goes.
    #[prost(string, optional, tag = "9")]
    pub socket_dir: Option<String>,
}

/// `containerd.runtime.bootstrap.v1.Extension`
#[derive(Clone, PartialEq, Message)]
pub struct Extension {
    #[prost(message, optional, tag = "1")]
    pub value: Option<Any>,
}

/// `containerd.runtime.bootstrap.v1.BootstrapResult`: how the shim is reached.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BootstrapResult {
    #[prost(int32, tag = "1")]
    pub version: i32,
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(string, tag = "3")]
    pub protocol: String,
}

/// `containerd.types.RuntimeInfo`: the answer to `-info`.
#[derive(Clone, PartialEq, Message)]
pub struct RuntimeInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub version: Option<RuntimeVersion>,
    #[prost(message, optional, tag = "3")]
    pub options: Option<Any>,
    #[prost(message, optional, tag = "4")]
    pub features: Option<Any>,
}

/// `containerd.types.RuntimeVersion`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RuntimeVersion {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub revision: String,
}

/// ttrpc's request frame.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
}

/// ttrpc's response frame.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_both_types() {
        assert_eq!(Options::from_any(None, &|_| {}), Ok(Options::default()));
        let new = Options { binary_name: "/x".into(), systemd_cgroup: true, ..Options::default() };
        assert_eq!(Options::from_any(Some(&Any::of(OPTIONS, &new)), &|_| {}), Ok(new.clone()));
        let prefixed = Any::of(&format!("types.containerd.io/{OPTIONS}"), &new);
        assert_eq!(Options::from_any(Some(&prefixed), &|_| {}), Ok(new));
        let old = OldOptions { io_uid: 7, no_new_keyring: true, ..OldOptions::default() };
        let read = Options::from_any(Some(&Any::of(OLD_OPTIONS, &old)), &|_| {}).expect("the old type");
        assert_eq!((read.io_uid, read.no_new_keyring), (7, true));
        let config_body = b"BinaryName = \"/x\"\n".to_vec();
        let cri = Any::of("runtimeoptions.v1.Options", &CriOptions { config_path: String::new(), config_body });
        assert_eq!(Options::from_any(Some(&cri), &|_| {}).map(|o| o.binary_name), Ok("/x".into()));
        assert!(Options::from_any(Some(&Any::of("other", &old)), &|_| {}).is_err_and(|e| e.contains("other")));
    }

    #[test]
    fn a_checkpoints_work_path_by_type() {
        let old = Any::of("containerd.linux.runc.CheckpointOptions", &OldWorkPath { work_path: "/w".into() });
        assert_eq!(CheckpointOptions::from_any(Some(&old)).map(|o| o.work_path), Ok("/w".into()));
        let new = CheckpointOptions { work_path: "/w".into(), exit: true, ..CheckpointOptions::default() };
        assert_eq!(CheckpointOptions::from_any(Some(&Any::of("containerd.runc.v1.CheckpointOptions", &new))), Ok(new));
    }
}
