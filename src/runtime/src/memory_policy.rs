//! `linux.memoryPolicy`: on which NUMA nodes the kernel looks for memory first (set_mempolicy(2)). A thread's policy stays over fork
//! and execve, so init sets it for all that it will become, and `exec` for the process it brings.

use crate::error::{Doing, Result, config};
use crate::process::cpu_list;
use rrt_oci::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};
use rrt_sys::limits;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A policy as the kernel takes it; the state keeps it for `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicyPlan {
    /// The mode's name, `MPOL_BIND`.
    pub name: String,
    /// `MPOL_*`, with the `MPOL_F_*` bits in it.
    pub mode: u32,
    /// NUMA nodes by number.
    pub nodes: Vec<usize>,
}

/// The modes' names and numbers, as in set_mempolicy(2) and the kernel's uapi/linux/mempolicy.h.
const MODES: [(&str, u32, MemoryPolicyModeType); 7] = [
    ("MPOL_DEFAULT", 0, MemoryPolicyModeType::MpolDefault),
    ("MPOL_BIND", 2, MemoryPolicyModeType::MpolBind),
    ("MPOL_INTERLEAVE", 3, MemoryPolicyModeType::MpolInterleave),
    ("MPOL_WEIGHTED_INTERLEAVE", 6, MemoryPolicyModeType::MpolWeightedInterleave),
    ("MPOL_PREFERRED", 1, MemoryPolicyModeType::MpolPreferred),
    ("MPOL_PREFERRED_MANY", 5, MemoryPolicyModeType::MpolPreferredMany),
    ("MPOL_LOCAL", 4, MemoryPolicyModeType::MpolLocal),
];

const FLAGS: [(&str, u32, MemoryPolicyFlagType); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13, MemoryPolicyFlagType::MpolFNumaBalancing),
    ("MPOL_F_RELATIVE_NODES", 1 << 14, MemoryPolicyFlagType::MpolFRelativeNodes),
    ("MPOL_F_STATIC_NODES", 1 << 15, MemoryPolicyFlagType::MpolFStaticNodes),
];

/// The names of all modes, for `rrt features`.
pub fn modes() -> Vec<&'static str> {
    MODES.iter().map(|(name, ..)| *name).collect()
}

/// The names of all flags, for `rrt features`.
pub fn flags() -> Vec<&'static str> {
    FLAGS.iter().map(|(name, ..)| *name).collect()
}

impl MemoryPolicyPlan {
    /// Plans `linux.memoryPolicy`.
    ///
    /// # Errors
    /// Nodes that are no list, or that the mode must not have or lacks; two flags that exclude each other.
    pub fn new(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicyPlan> {
        use MemoryPolicyModeType::{MpolDefault, MpolLocal, MpolPreferred};
        let (name, number, _) = MODES
            .iter()
            .find(|(.., mode)| *mode == policy.mode())
            .ok_or_else(|| config("linux.memoryPolicy", "mode"))?;
        let text = policy.nodes().as_deref().unwrap_or_default();
        let nodes = cpu_list(text).filter(|n| n.iter().all(|n| *n < limits::MOST_NODES)).ok_or_else(|| {
            config(
                "linux.memoryPolicy.nodes",
                format!("invalid memory policy nodes {text:?}: give a list as \"0-3,7\""),
            )
        })?;
        match policy.mode() {
            MpolDefault | MpolLocal if !nodes.is_empty() => {
                let problem = format!("{name} mode requires 0 nodes but got {}; remove them", nodes.len());
                return Err(config("linux.memoryPolicy.nodes", problem));
            }
            MpolDefault | MpolLocal | MpolPreferred => {}
            _ if nodes.is_empty() => {
                return Err(config("linux.memoryPolicy.nodes", format!("missing: {name} needs at least one node")));
            }
            _ => {}
        }
        let given = |(_, bit, flag): &(&str, u32, MemoryPolicyFlagType)| {
            if policy.flags().iter().flatten().any(|f| f == flag) { *bit } else { 0 }
        };
        let bits = FLAGS.iter().map(given).fold(0, |all, bit| all | bit);
        if bits & (FLAGS[1].1 | FLAGS[2].1) == FLAGS[1].1 | FLAGS[2].1 {
            let problem = "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other; remove one";
            return Err(config("linux.memoryPolicy.flags", problem));
        }
        Ok(MemoryPolicyPlan { name: (*name).into(), mode: number | bits, nodes })
    }

    /// Child: sets it for this process. After its cgroup is joined, whose `cpuset.mems` says which nodes there are.
    pub fn apply(&self) -> Result<()> {
        limits::set_memory_policy(self.mode, &self.nodes).doing(|| {
            let hint = "nodes must have memory and be in the container's linux.resources.cpu.mems, and this kernel must have the mode \
                        with these flags";
            format!("linux.memoryPolicy: {self} ({hint})")
        })
    }
}

impl fmt::Display for MemoryPolicyPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (name, ..) in FLAGS.iter().filter(|(_, bit, _)| self.mode & bit != 0) {
            write!(f, "|{name}")?;
        }
        if self.nodes.is_empty() { Ok(()) } else { write!(f, " of nodes {:?}", self.nodes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<MemoryPolicyPlan> {
        MemoryPolicyPlan::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn modes_nodes_and_flags() {
        let p = plan(r#"{"mode":"MPOL_INTERLEAVE","nodes":"0-1,3","flags":["MPOL_F_STATIC_NODES"]}"#).unwrap();
        assert_eq!((p.mode, p.nodes.as_slice()), (3 | 1 << 15, &[0, 1, 3][..]));
        assert_eq!(p.to_string(), "MPOL_INTERLEAVE|MPOL_F_STATIC_NODES of nodes [0, 1, 3]");
        assert_eq!(plan(r#"{"mode":"MPOL_PREFERRED"}"#).unwrap().mode, 1);
        assert_eq!(plan(r#"{"mode":"MPOL_LOCAL","nodes":""}"#).unwrap().mode, 4);
    }

    #[test]
    fn every_name_of_the_specification_is_read() {
        for name in modes() {
            let p = plan(&format!(r#"{{"mode":"{name}","nodes":"{}"}}"#, if name.ends_with('T') { "" } else { "1" }));
            assert!(p.is_ok() || name == "MPOL_LOCAL", "{name}: {p:?}");
        }
        for name in flags() {
            let p = plan(&format!(r#"{{"mode":"MPOL_BIND","nodes":"0","flags":["{name}"]}}"#)).unwrap();
            assert_ne!(p.mode, 2, "{name}");
        }
    }

    #[test]
    fn bad_policies_are_named() {
        for (json, expected) in [
            (r#"{"mode":"MPOL_BIND"}"#, "linux.memoryPolicy.nodes: missing: MPOL_BIND"),
            (r#"{"mode":"MPOL_BIND","nodes":""}"#, "linux.memoryPolicy.nodes: missing"),
            (r#"{"mode":"MPOL_DEFAULT","nodes":"0"}"#, "MPOL_DEFAULT mode requires 0 nodes but got 1; remove them"),
            (r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#, "MPOL_LOCAL mode requires 0 nodes"),
            (r#"{"mode":"MPOL_BIND","nodes":"0-x"}"#, "linux.memoryPolicy.nodes: invalid memory policy nodes \"0-x\""),
            (
                r#"{"mode":"MPOL_BIND","nodes":"4000"}"#,
                "linux.memoryPolicy.nodes: invalid memory policy nodes \"4000\"",
            ),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}"#,
                "linux.memoryPolicy.flags",
            ),
        ] {
            let e = plan(json).unwrap_err().to_string();
            assert!(e.contains(expected), "{json}: {e}");
        }
    }
}
