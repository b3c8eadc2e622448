//! Statistics of a container, as runc prints them.
//!
//! The names, the nesting, and which zeros are left out are those of the `data` object of `runc events --stats`
//! (runc's types/events.go), which go-runc and others parse. What a version of cgroups does not have is zero.

mod parse;
mod v1;
mod v2;

use crate::cgroup::NO_CGROUP;
use crate::dir::Dir;
use crate::error::Doing;
use crate::{Cgroup, Error, Version};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

pub use parse::{Pressure, PressureData};

/// `data` of `events --stats`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// CPU time and throttling.
    pub cpu: Cpu,
    /// CPUs and memory nodes (v1).
    pub cpuset: CpuSet,
    /// Memory and swap.
    pub memory: Memory,
    /// Number of processes and threads.
    pub pids: Pids,
    /// Block I/O.
    pub blkio: BlkIo,
    /// Huge pages, by page size.
    pub hugetlb: BTreeMap<String, HugeTlb>,
    /// Intel RDT; filled by whoever manages it.
    pub intel_rdt: IntelRdt,
    /// runc fills this for networks it made itself, which it no longer does: always null.
    pub network_interfaces: Option<Vec<()>>,
}

/// Intel RDT statistics, gathered by whoever manages resctrl; what the machine does not have is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct IntelRdt {
    /// The cache that can be shared out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<CacheInfo>,
    /// The default class' line for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The container's class' line for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// The memory bandwidth that can be shared out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<BandwidthInfo>,
    /// The default class' line for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The container's class' line for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// All lines of the container's class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Memory traffic, by cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<MbmStats>>,
    /// Cache occupancy, by cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<CmtStats>>,
}

/// `info/L3` of resctrl.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheInfo {
    /// The whole cache as a mask, hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cbm_mask: String,
    /// How many bits a mask must have.
    #[serde(skip_serializing_if = "is_zero")]
    pub min_cbm_bits: u64,
    /// How many classes there can be.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_closids: u64,
}

/// `info/MB` of resctrl.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BandwidthInfo {
    /// The steps, in percent.
    #[serde(skip_serializing_if = "is_zero")]
    pub bandwidth_gran: u64,
    /// Whether the delay is linear.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay_linear: u64,
    /// The least, in percent.
    #[serde(skip_serializing_if = "is_zero")]
    pub min_bandwidth: u64,
    /// How many classes there can be.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_closids: u64,
}

/// Memory traffic through one cache, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MbmStats {
    /// All.
    pub mbm_total_bytes: u64,
    /// Of the near memory.
    pub mbm_local_bytes: u64,
}

/// What is in one cache, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CmtStats {
    /// Used now.
    pub llc_occupancy: u64,
}

/// CPU statistics.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// Time not given, because of the quota.
    pub throttling: Throttling,
    /// Pressure stall information (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// CPU time, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// All.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// All, by CPU (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel, by CPU (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// In user mode, by CPU (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
}

/// CPU bandwidth control.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods in which something ran.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Periods in which the quota was used up.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Time lost, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// The v1 cpuset controller's files, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuSet {
    /// CPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// Whether no sibling shares the CPUs.
    pub cpu_exclusive: u64,
    /// Memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// Whether kernel allocations keep to the nodes.
    pub mem_hardwall: u64,
    /// Whether no sibling shares the nodes.
    pub mem_exclusive: u64,
    /// Whether pages move when the nodes change.
    pub memory_migrate: u64,
    /// Whether the page cache is spread over the nodes.
    pub memory_spread_page: u64,
    /// Whether slab memory is spread over the nodes.
    pub memory_spread_slab: u64,
    /// Rate of page reclaims.
    pub memory_pressure: u64,
    /// Whether the scheduler balances load inside the set.
    pub sched_load_balance: u64,
    /// How far the scheduler looks for an idle CPU; -1 is the system's default.
    pub sched_relax_domain_level: i64,
}

/// Memory statistics.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap together.
    pub swap: MemoryEntry,
    /// Kernel memory (v1).
    pub kernel: MemoryEntry,
    /// TCP buffers (v1).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// memory.stat.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure stall information (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    /// Limit; none is about 2^63 on v1 and 2^64-1 on v2.
    pub limit: u64,
    /// Used now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most used so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was hit (v1).
    pub failcnt: u64,
}

/// Number of tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// Limit; 0 is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block I/O statistics, as far as the kernel's I/O schedulers count them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlkIo {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkIoEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkIoEntry>,
    /// Waiting operations.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkIoEntry>,
    /// Time at the device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkIoEntry>,
    /// Time in queues.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkIoEntry>,
    /// Merged operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkIoEntry>,
    /// Disk time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkIoEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkIoEntry>,
    /// Pressure stall information (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// A count for one device and kind of operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlkIoEntry {
    /// Major number.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// Minor number.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// Read, Write, Sync, Async, Discard, Total, or nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The count.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HugeTlb {
    /// Used now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most used so far (v1).
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Cgroup {
    /// Reads the statistics.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without cgroups; [`Error::Call`] (ENOENT: the cgroup is gone), [`Error::Parse`].
    pub fn stats(&self) -> Result<Stats, Error> {
        if self.is_disabled() {
            return Err(Error::Unavailable { what: "read the container's statistics", reason: NO_CGROUP });
        }
        let mut stats = Stats::default();
        for group in &self.groups {
            let dir = Dir::open(&group.dir).doing(READ)?;
            match group.version {
                Version::V1 => {
                    for controller in &group.controllers {
                        v1::add(&mut stats, controller, &dir)?;
                    }
                }
                Version::V2 if self.groups.len() == 1 => v2::add(&mut stats, &dir)?,
                // On a hybrid machine the other numbers come from v1; the unified hierarchy may still count pages.
                Version::V2 => v2::add_hugetlb(&mut stats, &dir)?,
            }
        }
        Ok(stats)
    }
}

const READ: &str = "read the container's statistics";

/// The page sizes of this machine as cgroup files name them: 2MB, 1GB.
pub(crate) fn huge_page_sizes() -> Vec<String> {
    let dir = Dir::open(Path::new("/sys/kernel/mm/hugepages"));
    let mut names = dir.and_then(|d| d.children()).unwrap_or_default();
    names.sort();
    names.iter().filter_map(|name| size_name(name.to_str()?)).collect()
}

/// `hugepages-2048kB` as `2MB`.
fn size_name(directory: &str) -> Option<String> {
    let kib: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    // As the kernel's mem_fmt() does.
    Some(match kib {
        k if k >= 1 << 20 => format!("{}GB", k >> 20),
        k if k >= 1 << 10 => format!("{}MB", k >> 10),
        k => format!("{k}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_as_in_file_names() {
        assert_eq!(size_name("hugepages-2048kB").as_deref(), Some("2MB"));
        assert_eq!(size_name("hugepages-1048576kB").as_deref(), Some("1GB"));
        assert_eq!(size_name("hugepages-64kB").as_deref(), Some("64KB"));
        assert_eq!(size_name("other"), None);
    }

    /// The bytes that runc prints for an empty container.
    #[test]
    fn zeros_are_left_out_where_runc_leaves_them_out() {
        let json = serde_json::to_string(&Stats::default()).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"cpu":{"usage":{"kernel":0,"user":0},"throttling":{}},"#,
                r#""cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"#,
                r#""memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"#,
                r#""sched_relax_domain_level":0},"memory":{"usage":{"limit":0,"failcnt":0},"#,
                r#""swap":{"limit":0,"failcnt":0},"kernel":{"limit":0,"failcnt":0},"#,
                r#""kernelTCP":{"limit":0,"failcnt":0}},"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"#,
                r#""network_interfaces":null}"#
            )
        );
    }
}
