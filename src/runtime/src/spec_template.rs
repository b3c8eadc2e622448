//! The `config.json` that `rrt spec` writes: a starting point that runs `sh` from `rootfs/`, with the values runc's has.
//!
//! The structs are here rather than oci-spec's for their key order: people read and edit this file, and its `process`
//! comes first, as in the specification's examples.

use serde::Serialize;

/// For whom the document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// A container started by root.
    Root,
    /// A container of an ordinary user: a user namespace in which this host uid and gid are 0, no network namespace, no
    /// resources.
    User {
        /// Effective uid of the user on the host.
        uid: u32,
        /// Effective gid of the user on the host.
        gid: u32,
    },
}

/// The document, indented with tabs as runc's. `cgroup_namespace` adds that namespace, which belongs where only cgroup v2
/// is mounted: a v1 tree shows the host's paths in `/proc/self/mountinfo` all the same.
pub fn config_json(whose: For, cgroup_namespace: bool) -> Vec<u8> {
    let mut out =
        rrt_oci::indented(&config(whose, cgroup_namespace), "\t").expect("strings and numbers written to memory");
    out.push(b'\n');
    out
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    oci_version: &'static str,
    process: Process,
    root: Root,
    hostname: &'static str,
    mounts: Vec<Mount>,
    linux: Linux,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    terminal: bool,
    user: User,
    args: [&'static str; 1],
    env: [&'static str; 2],
    cwd: &'static str,
    capabilities: Capabilities,
    rlimits: [Rlimit; 1],
    no_new_privileges: bool,
}

#[derive(Serialize)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Serialize)]
struct Capabilities {
    bounding: [&'static str; 3],
    effective: [&'static str; 3],
    permitted: [&'static str; 3],
}

#[derive(Serialize)]
struct Rlimit {
    r#type: &'static str,
    hard: u64,
    soft: u64,
}

#[derive(Serialize)]
struct Root {
    path: &'static str,
    readonly: bool,
}

#[derive(Serialize)]
struct Mount {
    destination: &'static str,
    r#type: &'static str,
    source: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid_mappings: Option<[IdMapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid_mappings: Option<[IdMapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources>,
    namespaces: Vec<Namespace>,
    masked_paths: [&'static str; 10],
    readonly_paths: [&'static str; 5],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IdMapping {
    #[serde(rename = "containerID")]
    container_id: u32,
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}

#[derive(Serialize)]
struct Resources {
    devices: [DeviceRule; 1],
}

#[derive(Serialize)]
struct DeviceRule {
    allow: bool,
    access: &'static str,
}

#[derive(Serialize)]
struct Namespace {
    r#type: &'static str,
}

fn config(whose: For, cgroup_namespace: bool) -> Config {
    Config {
        oci_version: rrt_oci::VERSION,
        process: process(),
        // Read-only, so that a first container does not change the files it was made from.
        root: Root { path: "rootfs", readonly: true },
        hostname: "rrt",
        mounts: mounts(whose),
        linux: linux(whose, cgroup_namespace),
    }
}

fn process() -> Process {
    // Enough for a shell and a small server; anything more is the editor's decision.
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    Process {
        terminal: true,
        user: User { uid: 0, gid: 0 },
        args: ["sh"],
        env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        cwd: "/",
        capabilities: Capabilities { bounding: capabilities, effective: capabilities, permitted: capabilities },
        rlimits: [Rlimit { r#type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
        no_new_privileges: true,
    }
}

fn mounts(whose: For) -> Vec<Mount> {
    let mount = |destination, r#type, source, options: &[&'static str]| Mount {
        destination,
        r#type,
        source,
        options: options.to_vec(),
    };
    let (pts, sys) = match whose {
        For::Root => (
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"][..],
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ),
        For::User { .. } => (
            // Group 5 (tty) has no mapping in a namespace with one gid.
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"][..],
            // sysfs belongs to the network namespace, which is the host's here: a new one may not be mounted.
            mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
        ),
    };
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", pts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn linux(whose: For, cgroup_namespace: bool) -> Linux {
    let mapping = |host_id| [IdMapping { container_id: 0, host_id, size: 1 }];
    let (uid_mappings, gid_mappings) = match whose {
        For::Root => (None, None),
        For::User { uid, gid } => (Some(mapping(uid)), Some(mapping(gid))),
    };
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if cgroup_namespace {
        namespaces.push("cgroup");
    }
    if uid_mappings.is_some() {
        namespaces.retain(|name| *name != "network");
        namespaces.push("user");
    }
    Linux {
        // An ordinary user may not write resource limits without a delegated cgroup.
        resources: (whose == For::Root).then_some(Resources { devices: [DeviceRule { allow: false, access: "rwm" }] }),
        uid_mappings,
        gid_mappings,
        namespaces: namespaces.into_iter().map(|r#type| Namespace { r#type }).collect(),
        masked_paths: [
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/sys/firmware",
            "/proc/scsi",
        ],
        readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rrt_oci::{LinuxNamespaceType, Spec};

    fn parse(whose: For, cgroup_namespace: bool) -> Spec {
        serde_json::from_slice(&config_json(whose, cgroup_namespace)).unwrap()
    }

    fn namespaces(spec: &Spec) -> Vec<LinuxNamespaceType> {
        spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap().iter().map(|n| n.typ()).collect()
    }

    #[test]
    fn the_document_is_a_spec_that_oci_spec_reads() {
        let spec = parse(For::Root, true);
        assert_eq!(spec.version(), "1.3.0");
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 7);
        assert!(namespaces(&spec).contains(&LinuxNamespaceType::Cgroup));
        assert!(!namespaces(&spec).contains(&LinuxNamespaceType::User));
    }

    #[test]
    fn keys_stand_in_the_order_people_know_from_runc() {
        let text = String::from_utf8(config_json(For::Root, false)).unwrap();
        assert!(text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n\t\"process\": {\n\t\t\"terminal\": true,"));
        let at = |key: &str| text.find(key).unwrap();
        assert!(at("\"process\"") < at("\"root\""));
        assert!(at("\"hostname\"") < at("\"mounts\""));
        assert!(at("\"namespaces\"") < at("\"maskedPaths\""));
        assert!(!text.contains("\"cgroup\"\n\t\t\t}"), "no cgroup namespace unless asked for");
    }

    #[test]
    fn a_rootless_document_maps_the_user_and_drops_what_needs_root() {
        let spec = parse(For::User { uid: 1000, gid: 100 }, false);
        let linux = spec.linux().as_ref().unwrap();
        assert!(!namespaces(&spec).contains(&LinuxNamespaceType::Network));
        assert!(namespaces(&spec).contains(&LinuxNamespaceType::User));
        assert_eq!(linux.uid_mappings().as_ref().unwrap()[0].host_id(), 1000);
        assert_eq!(linux.gid_mappings().as_ref().unwrap()[0].host_id(), 100);
        assert!(linux.resources().is_none());
        for mount in spec.mounts().as_ref().unwrap() {
            let options = mount.options().clone().unwrap_or_default();
            assert!(!options.iter().any(|o| o.starts_with("gid=")), "{:?}", mount.destination());
        }
    }
}
