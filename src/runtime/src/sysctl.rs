//! `linux.sysctl`: kernel settings of the container's namespaces.

use crate::error::{Doing, Result, config};
use crate::namespaces::{NamespacePlan, kind};
use rrt_sys::OFlags;
use rrt_sys::path::{self, Root};
use serde::Serialize;
use std::collections::HashMap;
use std::path::PathBuf;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SysctlPlan {
    /// As config.json spells it, `net.ipv4.ip_forward`.
    pub name: String,
    /// The file below `/proc/sys`.
    pub file: PathBuf,
    /// What is written.
    pub value: String,
    /// The namespace it belongs to (a `CLONE_NEW*` bit).
    #[serde(skip)]
    pub namespace: i32,
}

/// Settings of the IPC namespace outside `fs.mqueue.` (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Plans `linux.sysctl`, in the order of their names; refuses what is not the container's own.
pub fn plan(sysctl: Option<&HashMap<String, String>>, ns: &NamespacePlan, hostname: bool) -> Result<Vec<SysctlPlan>> {
    let mut plans = Vec::new();
    // By name, so that of two bad ones it is always the same that is told.
    let mut settings: Vec<_> = sysctl.into_iter().flatten().collect();
    settings.sort();
    for (name, value) in settings {
        let property = format!("linux.sysctl[{name:?}]");
        let dotted = normalise(name);
        if dotted.split('.').any(|part| part.is_empty()) || name.contains('\0') {
            return Err(config(property, "is not a sysctl name"));
        }
        let (needs, spelled) = namespace_of(&dotted).ok_or_else(|| {
            config(&property, "is not a setting of a namespace: it would change the host; set it on the host instead")
        })?;
        ns.require(needs, &property)?;
        if spelled == "kernel.hostname" && hostname {
            return Err(config(property, "is set by `hostname` already; remove one"));
        }
        let file = file(name);
        // `net/../kernel/core_pattern` would be the host's setting under a container's name.
        if !file.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            return Err(config(property, "is not a sysctl name"));
        }
        plans.push(SysctlPlan { name: name.clone(), file, value: value.clone(), namespace: needs });
    }
    Ok(plans)
}

/// sysctl(8) takes `net/ipv4/conf/eth0.1/x`, with slashes when an interface has a dot in its name.
fn normalise(name: &str) -> String {
    if separated_by_slash(name) { name.replace('.', "\u{1}").replace('/', ".") } else { name.to_string() }
}

fn separated_by_slash(name: &str) -> bool {
    name.find(['.', '/']).is_some_and(|i| name.as_bytes()[i] == b'/')
}

fn file(name: &str) -> PathBuf {
    if separated_by_slash(name) {
        PathBuf::from(name)
    } else {
        // A slash in a dotted name stands for a dot of the file's name.
        PathBuf::from(
            name.chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    c => c,
                })
                .collect::<String>(),
        )
    }
}

/// The namespace a setting belongs to; `None` for the host's own.
fn namespace_of(name: &str) -> Option<(i32, &str)> {
    let uts = ["kernel.domainname", "kernel.hostname"];
    let needs = match name {
        n if n.starts_with("net.") => kind::NETWORK,
        n if n.starts_with("fs.mqueue.") || IPC.contains(&n) => kind::IPC,
        n if uts.contains(&n) => kind::UTS,
        n if n.starts_with("user.") => kind::USER,
        _ => return None,
    };
    Some((needs, name))
}

/// Writes the settings through a procfs of our own that nothing in the container can cover (CVE-2025-52881).
pub fn apply(proc: &Root, plans: &[SysctlPlan]) -> Result<()> {
    for plan in plans {
        write(proc, plan).doing(|| format!("linux.sysctl[{:?}]: write {:?}", plan.name, plan.value))?;
    }
    Ok(())
}

fn write(proc: &Root, plan: &SysctlPlan) -> rrt_sys::Result<()> {
    let fd = proc.open_at(&PathBuf::from("sys").join(&plan.file), OFlags::WRONLY)?;
    path::write_once(&fd, plan.value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_plan(name: &str, ns: i32) -> Result<Vec<SysctlPlan>> {
        let ns = NamespacePlan { cloned: ns, ..NamespacePlan::default() };
        plan(Some(&HashMap::from([(name.to_string(), "1".to_string())])), &ns, false)
    }

    #[test]
    fn both_spellings_name_the_same_file() {
        for (name, file) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert_eq!(try_plan(name, kind::NETWORK).unwrap()[0].file, PathBuf::from(file), "{name}");
        }
    }

    #[test]
    fn the_hosts_settings_are_refused() {
        for (name, ns) in [
            ("kernel.panic", !0),
            ("vm.swappiness", !0),
            ("net.core.somaxconn", kind::IPC),
            ("kernel.shmmax", kind::NETWORK),
            ("kernel.hostname", kind::IPC),
            ("net..x", !0),
            ("net.../../kernel.panic", !0),
            ("net/../kernel/core_pattern", !0),
            ("net.//.kernel.core_pattern", !0),
            ("/net/ipv4/ip_forward", !0),
        ] {
            assert!(try_plan(name, ns).is_err(), "{name}");
        }
    }
}
