//! What a container was asked to be: everything that `create` decides and `inspect` tells, apart from what happens to it later.

use crate::mounts::Mount;
use crate::ports::Published;
use rrt_oci::image::{ContainerConfig, Digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A container as it was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without a slash before it.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// The image's id.
    pub image: Digest,
    /// The image as the user wrote it.
    pub image_name: String,
    /// The image's configuration with what the flags changed: see [`crate::merge`].
    pub config: ContainerConfig,
    /// The process, beyond what an image can say.
    pub process: Process,
    /// The rest.
    pub host: Host,
}

/// The process and its streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Has a terminal.
    pub terminal: bool,
    /// Its standard input is kept open.
    pub open_stdin: bool,
    /// The host's name inside; empty: the short id.
    pub hostname: String,
    /// NIS domain.
    pub domainname: String,
    /// `--group-add`.
    pub groups: Vec<String>,
    /// `--init`.
    pub init: bool,
}

/// Which namespace of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// One of its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of the container with this id.
    Container(String),
    /// IPC: one of its own that other containers may join.
    Shareable,
    /// IPC: one of its own without `/dev/shm`. Network: one with nothing but `lo`.
    None,
}

/// What a container may and has, on this host. Sizes in bytes, times in microseconds unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Host {
    pub mounts: Vec<Mount>,
    pub published: Vec<Published>,
    pub publish_all: bool,
    pub network: Namespace,
    pub pid: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    /// `None`: private on cgroup v2, the host's on v1, as Docker has it.
    pub cgroup: Option<Namespace>,
    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security: Security,
    pub read_only: bool,
    /// `None`: 64 MiB.
    pub shm_size: Option<u64>,
    pub sysctls: BTreeMap<String, String>,
    pub ulimits: Vec<Ulimit>,
    pub devices: Vec<Device>,
    pub device_rules: Vec<String>,
    pub cgroup_parent: String,
    pub oom_score_adj: Option<i64>,
    pub resources: Resources,
    /// Lines of `/etc/hosts`: name, address.
    pub extra_hosts: Vec<(String, String)>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
}

/// `--security-opt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `seccomp=`: a profile's text; `Some("unconfined")` is none, `None` the default one.
    pub seccomp: Option<String>,
    /// `apparmor=`: a profile's name.
    pub apparmor: Option<String>,
    /// `label=`: the whole SELinux label of the process.
    pub label: Option<String>,
    /// `systempaths=unconfined`.
    pub system_paths_unconfined: bool,
}

/// `--ulimit NAME=SOFT[:HARD]`; `u64::MAX` is unlimited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Ulimit {
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// `--device HOST[:CONTAINER][:PERMISSIONS]`, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// In the container.
    pub path: String,
    /// `c` or `b`.
    pub kind: char,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permissions of the node.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of `rwm`.
    pub access: String,
}

/// Limits; `None` is the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Resources {
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    /// Memory and swap together; -1 is unlimited.
    pub memory_swap: Option<i64>,
    pub memory_swappiness: Option<u64>,
    pub oom_kill_disable: bool,
    /// Billionths of a processor.
    pub nano_cpus: Option<u64>,
    pub cpu_shares: Option<u64>,
    pub cpu_quota: Option<i64>,
    pub cpu_period: Option<u64>,
    pub cpu_realtime_runtime: Option<i64>,
    pub cpu_realtime_period: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub blkio_weight: Option<u16>,
    pub pids_limit: Option<i64>,
}

/// `--ulimit`.
///
/// # Errors
/// A name that setrlimit(2) doesn't know, a soft limit above the hard one, no number.
pub fn ulimit(text: &str) -> Result<Ulimit, crate::Error> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let invalid = |why: &str| crate::Error::invalid("--ulimit", text, why);
    let (name, values) = text.split_once('=').ok_or_else(|| invalid("expected NAME=SOFT[:HARD]"))?;
    if !NAMES.contains(&name) {
        return Err(invalid(&format!("unknown limit {name:?}: one of {}", NAMES.join(", "))));
    }
    let number = |t: &str| match t {
        "-1" | "unlimited" => Ok(u64::MAX),
        t => t.parse::<u64>().map_err(|_| invalid("a limit is a number or -1")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let limit = Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? };
    match limit.soft <= limit.hard {
        true => Ok(limit),
        false => Err(invalid("ulimit soft limit must be less than or equal to hard limit")),
    }
}

#[cfg(test)]
mod tests {
    use super::ulimit;

    #[test]
    fn ulimits() {
        let of = |text| ulimit(text).map(|l| (l.soft, l.hard)).map_err(|e| e.to_string());
        assert_eq!(of("nofile=1024:2048"), Ok((1024, 2048)));
        assert_eq!(of("core=0"), Ok((0, 0)));
        assert_eq!(of("memlock=-1:-1"), Ok((u64::MAX, u64::MAX)));
        assert!(of("nofile=5:4").unwrap_err().contains("less than or equal"));
        assert!(of("wat=1").unwrap_err().contains("unknown limit"));
        assert!(of("nofile").unwrap_err().contains("NAME=SOFT"));
        assert!(of("nofile=x").unwrap_err().contains("a number"));
    }
}
