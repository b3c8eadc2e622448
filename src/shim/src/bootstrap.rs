//! `start`: makes the socket, starts the daemon on it, and tells containerd where it is; or tells where the shim of the same pod is.
//!
//! | containerd | gives on standard input | is answered |
//! |---|---|---|
//! | 1.6 to 2.2 | the runtime options (`Any`), or nothing | the address, as a line (task service v2) |
//! | 2.3 and later | `BootstrapParams` | `BootstrapResult` (task service v3) |
//!
//! 1.7 accepts no version above 2, and 2.0 to 2.2 cannot be told from it, so they speak v2, which they all do.

use crate::args::Args;
use crate::cgroup;
use crate::error::Error;
use crate::log;
use crate::proto::{Any, BootstrapParams, BootstrapResult, Options};
use prost::Message;
use rrt_runtime_client::Bundle;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use rustix::thread::{CoreSchedulingScope, create_core_scheduling_cookie};
use sha2::{Digest, Sha256};
use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where sockets are, if containerd says nothing else; the directory of its own shims.
const SOCKETS: &str = "/run/containerd/s";
/// Annotations that name the group of containers that share a shim; the first that is there counts.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// What containerd has written to us.
#[derive(Debug, PartialEq, Eq)]
struct Input {
    options: Options,
    socket_dir: PathBuf,
    /// It is 2.3 or later.
    modern: bool,
}

impl Input {
    /// Both forms are protocol buffers; the newer one repeats the command line.
    fn parse(bytes: &[u8], args: &Args) -> Result<Input, Error> {
        let default = || PathBuf::from(SOCKETS);
        let options = |any: Option<&Any>| Options::from_any(any, &log::unknown_option).map_err(Error::unknown);
        if let Ok(params) = BootstrapParams::decode(bytes)
            && !bytes.is_empty()
            && params.instance_id == args.id
            && params.namespace == args.namespace
        {
            let any = params.extensions.into_iter().filter_map(|e| e.value).find(Options::is_one);
            let options = options(any.as_ref())?;
            let socket_dir = params.socket_dir.filter(|dir| !dir.is_empty()).map_or_else(default, PathBuf::from);
            return Ok(Input { options, socket_dir, modern: true });
        }
        let any = Some(bytes).filter(|b| !b.is_empty()).map(Any::decode).transpose();
        let any = any.map_err(|e| Error::system("standard input", e))?;
        Ok(Input { options: options(any.as_ref())?, socket_dir: default(), modern: false })
    }
}

/// See the module. What is printed is what containerd reads.
///
/// # Errors
/// No socket can be made, or no daemon started.
pub fn start(args: &Args) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    std::io::stdin().take(10 << 20).read_to_end(&mut bytes).map_err(|e| Error::system("read standard input", e))?;
    let input = Input::parse(&bytes, args)?;
    let config = Bundle::read(Path::new(".")).map_err(|e| Error::unknown(e.message))?;
    let group = GROUPS.iter().find_map(|name| config.annotations.get(*name)).unwrap_or(&args.id);
    let path = socket_path(&input.socket_dir, &args.address, &args.namespace, group);
    let address = format!("unix://{}", path.display());
    // containerd 1.6 reads it after its own restart. First of all: a disk may be full, and nothing has been started yet.
    write_atomically(Path::new("address"), address.as_bytes()).map_err(|e| Error::system("write address", e))?;
    if let Some(socket) = Socket::make(&path)? {
        let mut child = daemon(args, &path, socket)?;
        if let Err(error) = settle(&child, &input.options) {
            let _ = child.kill();
            let _ = child.wait();
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
    }
    if input.modern {
        return Ok(BootstrapResult { version: 3, address, protocol: "ttrpc".into() }.encode_to_vec());
    }
    Ok(address.into_bytes())
}

/// One name for one group of one namespace of one containerd. A socket's path must be short, so it is a hash.
fn socket_path(dir: &Path, containerd: &str, namespace: &str, group: &str) -> PathBuf {
    let digest = Sha256::digest(format!("{containerd}/{namespace}/{group}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    dir.join(hex)
}

struct Socket;

impl Socket {
    /// A listening socket at the path; `None` if a shim listens there already. What a dead one has left is removed.
    fn make(path: &Path) -> Result<Option<OwnedFd>, Error> {
        let failed = |e: std::io::Error| Error::system(format_args!("create new shim socket {}", path.display()), e);
        let dir = path.parent().unwrap_or(Path::new("/"));
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(dir).map_err(failed)?;
        // Two containers of a pod may come at once: between bind and listen a socket looks dead.
        let lock = open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let lock = lock.map_err(|e| failed(e.into()))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        if path.exists() {
            if Socket::answers(path).map_err(failed)? {
                return Ok(None);
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
        Socket::listen(path).map(Some).map_err(failed)
    }

    fn answers(path: &Path) -> std::io::Result<bool> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok(connect(&socket, &SocketAddrUnix::new(path)?).is_ok())
    }

    fn listen(path: &Path) -> std::io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listen(&socket, 128)?;
        Ok(socket)
    }
}

/// Starts ourselves without an action. The socket is its standard input, the log its standard error.
fn daemon(args: &Args, path: &Path, socket: OwnedFd) -> Result<Child, Error> {
    let failed = |e: std::io::Error| Error::system("start the shim", e);
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        create_core_scheduling_cookie(rustix::process::getpid(), CoreSchedulingScope::ProcessGroup)
            .map_err(|e| Error::system("enable sched core support: prctl(PR_SCHED_CORE_CREATE)", e))?;
    }
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["-namespace", &args.namespace, "-id", &args.id, "-address", &args.address]);
    command.arg("-socket").arg(path).args(["-publish-binary", &args.publish_binary]);
    if args.debug {
        command.arg("-debug");
    }
    let spawned = command.process_group(0).stdin(socket).stdout(Stdio::null()).stderr(log_fifo()).spawn();
    spawned.inspect_err(|_| drop(std::fs::remove_file(path))).map_err(failed)
}

/// The fifo `log` of the bundle, open from both sides and non-blocking: see [`crate::log`].
fn log_fifo() -> Stdio {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    open("log", flags, Mode::empty()).map_or_else(|_| Stdio::null(), Stdio::from)
}

/// Puts the daemon where it belongs, and makes it a better victim of the OOM killer than containerd, by one.
fn settle(child: &Child, options: &Options) -> Result<(), Error> {
    let pid = child.id();
    if !options.shim_cgroup.is_empty() {
        let dirs = cgroup::existing(&options.shim_cgroup);
        if dirs.is_empty() {
            return Err(Error::unknown(format!("failed to load cgroup {}: no such cgroup", options.shim_cgroup)));
        }
        for dir in dirs {
            let procs = dir.join("cgroup.procs");
            std::fs::write(&procs, pid.to_string())
                .map_err(|e| Error::system(format_args!("failed to join cgroup {}", procs.display()), e))?;
        }
    }
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    let score = std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj")).unwrap_or_default();
    let score: i32 = score.trim().parse().unwrap_or(0);
    let own = format!("/proc/{pid}/oom_score_adj");
    std::fs::write(&own, (score + 1).min(1000).to_string())
        .map_err(|e| Error::system(format_args!("failed to adjust OOM score for shim: {own}"), e))
}

/// Whoever reads the file finds all of it or nothing.
fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let written = File::create(&temporary).and_then(|mut file| file.write_all(bytes));
    written.and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Extension, OPTIONS};

    fn args() -> Args {
        Args { id: "c".into(), namespace: "n".into(), ..Args::default() }
    }

    #[test]
    fn what_old_and_new_containerds_write() {
        let options = Options { binary_name: "x".into(), ..Options::default() };
        let any = Any::of(OPTIONS, &options);
        let old = Input::parse(&any.encode_to_vec(), &args()).expect("options");
        assert_eq!(old, Input { options: options.clone(), socket_dir: SOCKETS.into(), modern: false });
        let none = Input::parse(b"", &args()).expect("nothing");
        assert_eq!(none, Input { options: Options::default(), socket_dir: SOCKETS.into(), modern: false });
        let params = BootstrapParams {
            instance_id: "c".into(),
            namespace: "n".into(),
            extensions: vec![Extension { value: Some(any) }],
            socket_dir: Some("/s".into()),
            ..BootstrapParams::default()
        };
        let new = Input::parse(&params.encode_to_vec(), &args()).expect("params");
        assert_eq!(new, Input { options, socket_dir: "/s".into(), modern: true });
    }

    #[test]
    fn sockets_have_short_names_of_their_own() {
        let path = |group| socket_path(Path::new(SOCKETS), "/run/containerd/containerd.sock", "k8s.io", group);
        // The limit of sun_path is 108 with its end.
        assert!(path("a").as_os_str().len() < 107);
        assert_ne!(path("a"), path("b"));
        // printf '%s' /run/containerd/containerd.sock/k8s.io/a | sha256sum
        assert!(path("a").ends_with("0b3c2065c4ad3e641dd16f5e2616734bf417fa5579f1c3b8f774f802cfa45e4b"));
    }

    #[test]
    fn a_socket_is_made_once_and_again_after_its_shim_died() {
        let dir = std::env::temp_dir().join(format!("rrt-shim-socket-{}", std::process::id()));
        let path = dir.join("s");
        let first = Socket::make(&path).expect("a socket");
        assert!(first.is_some());
        assert!(Socket::make(&path).expect("the same").is_none());
        drop(first);
        assert!(Socket::make(&path).expect("a new one").is_some());
        std::fs::remove_dir_all(dir).expect("clean up");
    }
}
