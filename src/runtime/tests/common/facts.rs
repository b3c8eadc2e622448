//! Machines made up for tests of the plan: on any machine the same. The fuzz targets plan on them too.

use rrt_cgroups::{Hierarchy, HostCgroups, Mode, Version};
use rrt_runtime::HostFacts;

/// Every capability of Linux 5.9 and later, `CAP_CHOWN` to `CAP_CHECKPOINT_RESTORE`.
const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

/// The v1 hierarchies of Debian 12 booted with `systemd.unified_cgroup_hierarchy=0`.
const V1: [&str; 11] = [
    "cpu,cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls,net_prio",
    "rdma",
    "name=systemd",
];

/// What the unified hierarchy has when it has everything.
const V2: [&str; 7] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"];

/// A machine with cgroup v1 only.
pub fn v1() -> HostFacts {
    facts(Mode::V1, V1.map(v1_hierarchy).to_vec())
}

/// A machine with cgroup v2 only.
pub fn v2() -> HostFacts {
    facts(Mode::V2, vec![unified("/sys/fs/cgroup", &V2)])
}

/// A machine with all v1 hierarchies but hugetlb, which the unified one beside them has.
pub fn hybrid() -> HostFacts {
    let mut hierarchies: Vec<_> = V1.into_iter().filter(|c| *c != "hugetlb").map(v1_hierarchy).collect();
    hierarchies.push(unified("/sys/fs/cgroup/unified", &["hugetlb"]));
    facts(Mode::Hybrid, hierarchies)
}

fn facts(mode: Mode, hierarchies: Vec<Hierarchy>) -> HostFacts {
    HostFacts {
        cgroups: HostCgroups { mode, hierarchies },
        euid: 0,
        egid: 0,
        rootless: false,
        systemd: None,
        capabilities: ALL_CAPABILITIES,
        in_user_namespace: false,
        own_maps: Default::default(),
        kcore: true,
        listen_fds: None,
        lsm: Default::default(),
        notify_socket: None,
    }
}

fn v1_hierarchy(controllers: &str) -> Hierarchy {
    Hierarchy {
        version: Version::V1,
        controllers: controllers.split(',').map(str::to_owned).collect(),
        mount: format!("/sys/fs/cgroup/{}", controllers.trim_start_matches("name=")).into(),
        own: "/system.slice/engine.service".into(),
    }
}

fn unified(mount: &str, controllers: &[&str]) -> Hierarchy {
    Hierarchy {
        version: Version::V2,
        controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
        mount: mount.into(),
        own: "/system.slice/engine.service".into(),
    }
}
