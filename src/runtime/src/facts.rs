//! What the plan needs to know of the machine and of the runtime's own process, read once.

use crate::error::{Doing, Result};
use crate::lsm::Modules;
use rrt_cgroups::{HostCgroups, Systemd, SystemdFacts};
use rrt_sys::creds::CapBits;
use rrt_sys::{OFlags, path};
use std::path::{Path, PathBuf};

/// Facts of this machine and of this call.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// The cgroup hierarchies.
    pub cgroups: HostCgroups,
    /// The service manager, when it makes the container's cgroup.
    pub systemd: Option<SystemdFacts>,
    /// The effective uid.
    pub euid: u32,
    /// The effective gid.
    pub egid: u32,
    /// Whether cgroups that cannot be made are done without: `--rootless`; by default for a user, and in a user namespace.
    pub rootless: bool,
    /// Capabilities that can be given.
    pub capabilities: CapBits,
    /// Whether the runtime itself is in a user namespace: no device can be made there.
    pub in_user_namespace: bool,
    /// The maps of that user namespace, one range a line; empty on the host, where every id is mapped.
    pub own_maps: OwnMaps,
    /// Whether `/proc/kcore` exists.
    pub kcore: bool,
    /// How many fds systemd passed (sd_listen_fds(3)), and their names.
    pub listen_fds: Option<(u32, Option<String>)>,
    /// The security modules; all off unless config.json asks for a label.
    pub lsm: Modules,
    /// Where the service manager wants to be notified (sd_notify(3)).
    pub notify_socket: Option<PathBuf>,
}

/// The texts of `/proc/self/uid_map` and `gid_map`, as config.json's mappings are written: `START HOST SIZE` a line.
#[derive(Debug, Clone, Default)]
pub struct OwnMaps {
    /// `uid_map`
    pub uids: String,
    /// `gid_map`
    pub gids: String,
}

impl OwnMaps {
    fn read() -> Result<OwnMaps> {
        let read = |file: &str| -> Result<String> {
            let text = std::fs::read_to_string(file).doing(|| format!("read {file}"))?;
            let line = |l: &str| l.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
            Ok(text.lines().map(line).collect())
        };
        Ok(OwnMaps { uids: read("/proc/self/uid_map")?, gids: read("/proc/self/gid_map")? })
    }
}

impl HostFacts {
    /// Reads them, those of the security modules if `labels` are asked for; `rootless` is the flag.
    pub fn read(rootless: Option<bool>, labels: bool) -> Result<HostFacts> {
        let in_user_namespace = in_user_namespace()?;
        let (euid, egid) = rrt_sys::creds::effective_ids();
        Ok(HostFacts {
            // Whether a container can do without is the plan's to say.
            cgroups: match HostCgroups::read() {
                Err(rrt_cgroups::Error::NotMounted) => {
                    HostCgroups { mode: rrt_cgroups::Mode::V2, hierarchies: Vec::new() }
                }
                read => read?,
            },
            systemd: None,
            euid,
            egid,
            rootless: rootless.unwrap_or(euid != 0 || in_user_namespace),
            capabilities: rrt_sys::creds::permitted_set().doing(|| "read the runtime's own capabilities".into())?,
            in_user_namespace,
            own_maps: if in_user_namespace { OwnMaps::read()? } else { OwnMaps::default() },
            kcore: Path::new("/proc/kcore").exists(),
            listen_fds: listen_fds(),
            lsm: Modules::read(labels),
            notify_socket: std::env::var_os("NOTIFY_SOCKET").filter(|s| !s.is_empty()).map(PathBuf::from),
        })
    }
}

impl HostFacts {
    /// Whether the runtime may make device nodes: not in a user namespace, and not in a container without CAP_MKNOD.
    pub fn makes_devices(&self) -> bool {
        const MKNOD: CapBits = 1 << 27;
        !self.in_user_namespace && self.capabilities & MKNOD != 0
    }
}

/// Whether these capabilities let nothing be done outside of a user namespace made by ourselves (no CAP_SYS_ADMIN).
pub fn is_unprivileged(capabilities: CapBits) -> bool {
    const SYS_ADMIN: CapBits = 1 << 21;
    capabilities & SYS_ADMIN == 0
}

/// As [`HostFacts::rootless`], for commands that need no other fact.
pub fn is_rootless(rootless: Option<bool>) -> Result<bool> {
    match rootless {
        Some(given) => Ok(given),
        None => Ok(rrt_sys::creds::effective_ids().0 != 0 || in_user_namespace()?),
    }
}

/// user_namespaces(7): the initial namespace maps all ids to themselves, in one line.
pub fn in_user_namespace() -> Result<bool> {
    let doing = || "read /proc/self/uid_map".to_string();
    let file = path::open(Path::new("/proc/self/uid_map"), OFlags::RDONLY).doing(doing)?;
    let map = path::read_limited(file, 1 << 16).doing(doing)?;
    let fields = map.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    Ok(!fields.eq([&b"0"[..], b"0", b"4294967295"]))
}

/// The connection to the service manager that makes the container's cgroup.
///
/// It is the user's own for whoever is not root (`--rootless` decides, if given), and for root of a user namespace, to whom the
/// files of the host's systemd are nobody's; unless a systemd runs in that namespace.
pub fn connect_systemd(rootless: Option<bool>, euid: u32) -> Result<Systemd> {
    use std::os::unix::fs::MetadataExt;
    let own = || std::fs::metadata("/run/systemd/system").is_ok_and(|m| m.uid() != 0);
    Ok(Systemd::connect(rootless.unwrap_or_else(|| euid != 0 || own()))?)
}

/// Only fds that were passed to this very process: `LISTEN_PID` may name a process further up (contract A.9).
fn listen_fds() -> Option<(u32, Option<String>)> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let count = number("LISTEN_FDS").filter(|n| *n > 0)?;
    (number("LISTEN_PID")? == std::process::id()).then(|| (count, std::env::var("LISTEN_FDNAMES").ok()))
}
