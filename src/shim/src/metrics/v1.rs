//! cgroup v1, and hybrid machines.

use super::{device, page_sizes, rdma};
use crate::cgroup::{Cgroup, number, read as file, table};
use crate::proto::cgroup1::{
    BlkIoEntry, BlkIoStat, CpuStat, CpuUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat, Metrics,
    PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use std::collections::BTreeMap;
use std::path::Path;

/// USER_HZ, in which `cpuacct.stat` counts: 100 on every architecture there is.
const TICK: u64 = 1_000_000_000 / 100;

/// All controllers that the machine has.
pub fn read(cgroup: &Cgroup) -> Metrics {
    let dir = |controller: &str| cgroup.v1(controller).filter(|dir| dir.is_dir());
    Metrics {
        hugetlb: dir("hugetlb").map(hugetlb).unwrap_or_default(),
        pids: dir("pids").map(pids),
        cpu: cpu(dir("cpuacct"), dir("cpu")),
        memory: dir("memory").map(memory),
        blkio: dir("blkio").map(blkio),
        rdma: dir("rdma")
            .map(|dir| RdmaStat { current: devices(dir, "rdma.current"), limit: devices(dir, "rdma.max") }),
        network: Vec::new(),
        memory_oom_control: dir("memory").map(|dir| {
            let control = table(dir, "memory.oom_control");
            let of = |key: &str| control.get(key).copied().unwrap_or(0);
            MemoryOomControl {
                oom_kill_disable: of("oom_kill_disable"),
                under_oom: of("under_oom"),
                oom_kill: of("oom_kill"),
            }
        }),
    }
}

fn pids(dir: &Path) -> PidsStat {
    let limit = number(dir, "pids.max");
    PidsStat { current: number(dir, "pids.current"), limit: if limit == u64::MAX { 0 } else { limit } }
}

fn cpu(accounting: Option<&Path>, bandwidth: Option<&Path>) -> Option<CpuStat> {
    let usage = accounting.map(|dir| {
        let ticks = table(dir, "cpuacct.stat");
        let of = |key: &str| ticks.get(key).copied().unwrap_or(0) * TICK;
        let each = file(dir, "cpuacct.usage_percpu").unwrap_or_default();
        CpuUsage {
            total: number(dir, "cpuacct.usage"),
            kernel: of("system"),
            user: of("user"),
            per_cpu: each.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
        }
    });
    let throttling = bandwidth.map(|dir| {
        let stat = table(dir, "cpu.stat");
        let of = |key: &str| stat.get(key).copied().unwrap_or(0);
        Throttle {
            periods: of("nr_periods"),
            throttled_periods: of("nr_throttled"),
            throttled_time: of("throttled_time"),
        }
    });
    (usage.is_some() || throttling.is_some()).then_some(CpuStat { usage, throttling })
}

fn memory(dir: &Path) -> MemoryStat {
    let entry = |prefix: &str| {
        let of = |name: &str| number(dir, &format!("memory.{prefix}{name}"));
        Some(MemoryEntry {
            limit: of("limit_in_bytes"),
            usage: of("usage_in_bytes"),
            max: of("max_usage_in_bytes"),
            failcnt: of("failcnt"),
        })
    };
    MemoryStat {
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
        ..memory_stat(&table(dir, "memory.stat"))
    }
}

fn memory_stat(raw: &BTreeMap<String, u64>) -> MemoryStat {
    let of = |key: &str| raw.get(key).copied().unwrap_or(0);
    MemoryStat {
        cache: of("cache"),
        rss: of("rss"),
        rss_huge: of("rss_huge"),
        mapped_file: of("mapped_file"),
        dirty: of("dirty"),
        writeback: of("writeback"),
        pg_pg_in: of("pgpgin"),
        pg_pg_out: of("pgpgout"),
        pg_fault: of("pgfault"),
        pg_maj_fault: of("pgmajfault"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        hierarchical_memory_limit: of("hierarchical_memory_limit"),
        hierarchical_swap_limit: of("hierarchical_memsw_limit"),
        total_cache: of("total_cache"),
        total_rss: of("total_rss"),
        total_rss_huge: of("total_rss_huge"),
        total_mapped_file: of("total_mapped_file"),
        total_dirty: of("total_dirty"),
        total_writeback: of("total_writeback"),
        total_pg_pg_in: of("total_pgpgin"),
        total_pg_pg_out: of("total_pgpgout"),
        total_pg_fault: of("total_pgfault"),
        total_pg_maj_fault: of("total_pgmajfault"),
        total_inactive_anon: of("total_inactive_anon"),
        total_active_anon: of("total_active_anon"),
        total_inactive_file: of("total_inactive_file"),
        total_active_file: of("total_active_file"),
        total_unevictable: of("total_unevictable"),
        usage: None,
        swap: None,
        kernel: None,
        kernel_tcp: None,
    }
}

fn hugetlb(dir: &Path) -> Vec<HugetlbStat> {
    let stat = |size: String| {
        let of = |name: &str| number(dir, &format!("hugetlb.{size}.{name}"));
        HugetlbStat {
            usage: of("usage_in_bytes"),
            max: of("max_usage_in_bytes"),
            failcnt: of("failcnt"),
            pagesize: size.clone(),
        }
    };
    page_sizes(dir).into_iter().map(stat).collect()
}

/// BFQ's files, if it is the devices' scheduler, or the throttler's, which every kernel has.
fn blkio(dir: &Path) -> BlkIoStat {
    let entries = |name: &str| blkio_entries(&file(dir, &format!("blkio.{name}")).unwrap_or_default());
    let either = |names: [&str; 3]| names.iter().map(|name| entries(name)).find(|e| !e.is_empty()).unwrap_or_default();
    let scheduler = |name: &str| either([&format!("bfq.{name}_recursive"), &format!("{name}_recursive"), ""]);
    BlkIoStat {
        io_service_bytes_recursive: either([
            "bfq.io_service_bytes_recursive",
            "throttle.io_service_bytes_recursive",
            "throttle.io_service_bytes",
        ]),
        io_serviced_recursive: either([
            "bfq.io_serviced_recursive",
            "throttle.io_serviced_recursive",
            "throttle.io_serviced",
        ]),
        io_queued_recursive: scheduler("io_queued"),
        io_service_time_recursive: scheduler("io_service_time"),
        io_wait_time_recursive: scheduler("io_wait_time"),
        io_merged_recursive: scheduler("io_merged"),
        io_time_recursive: scheduler("time"),
        sectors_recursive: scheduler("sectors"),
    }
}

/// `MAJOR:MINOR [OP] N`; the last line of a file is the total, without a device.
fn blkio_entries(text: &str) -> Vec<BlkIoEntry> {
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (device_id, op, value) = match words[..] {
            [id, value] => (id, "", value),
            [id, op, value] => (id, op, value),
            _ => return None,
        };
        let (major, minor) = device(device_id)?;
        let value = value.parse().ok()?;
        Some(BlkIoEntry { op: op.into(), device: device_name(major, minor), major, minor, value })
    };
    text.lines().filter_map(entry).collect()
}

/// `/dev/NAME`, by sysfs.
fn device_name(major: u64, minor: u64) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok();
    let name = link.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    name.map(|name| format!("/dev/{name}")).unwrap_or_default()
}

fn devices(dir: &Path, name: &str) -> Vec<RdmaEntry> {
    let text = file(dir, name).unwrap_or_default();
    let entry = |(device, hca_handles, hca_objects)| RdmaEntry { device, hca_handles, hca_objects };
    text.lines().filter_map(rdma).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices() {
        let entries = blkio_entries("259:0 Read 4096\n259:0 Write 0\n7:1 5\nTotal 4096\n");
        let short: Vec<_> = entries.iter().map(|e| (e.major, e.minor, e.op.as_str(), e.value)).collect();
        assert_eq!(short, [(259, 0, "Read", 4096), (259, 0, "Write", 0), (7, 1, "", 5)]);
    }

    #[test]
    fn files_of_a_cgroup() {
        let dir = std::env::temp_dir().join(format!("rrt-shim-v1-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        for (name, text) in [
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.stat", "cache 1\ntotal_pgfault 9\nhierarchical_memsw_limit 7\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("cpuacct.usage", "1000\n"),
            ("cpuacct.usage_percpu", "400 600 \n"),
            ("cpuacct.stat", "user 1\nsystem 2\n"),
            ("cpu.stat", "nr_periods 4\nnr_throttled 1\nthrottled_time 5\n"),
            ("hugetlb.2MB.usage_in_bytes", "2097152\n"),
        ] {
            std::fs::write(dir.join(name), text).expect("a file");
        }
        let names = ["pids", "memory", "cpu", "cpuacct", "hugetlb"];
        let metrics = read(&Cgroup::V1(names.iter().map(|name| ((*name).to_owned(), dir.clone())).collect()));
        assert_eq!(metrics.pids, Some(PidsStat { current: 3, limit: 0 }));
        let cpu = metrics.cpu.expect("cpu");
        let usage = CpuUsage { total: 1000, kernel: 20_000_000, user: 10_000_000, per_cpu: vec![400, 600] };
        assert_eq!(cpu.usage, Some(usage));
        assert_eq!(cpu.throttling, Some(Throttle { periods: 4, throttled_periods: 1, throttled_time: 5 }));
        let memory = metrics.memory.expect("memory");
        assert_eq!((memory.cache, memory.total_pg_fault, memory.hierarchical_swap_limit), (1, 9, 7));
        assert_eq!(memory.usage.map(|entry| entry.usage), Some(4096));
        assert_eq!(metrics.memory_oom_control.map(|control| control.oom_kill), Some(2));
        assert_eq!(metrics.hugetlb.first().map(|h| (h.pagesize.as_str(), h.usage)), Some(("2MB", 2_097_152)));
        std::fs::remove_dir_all(dir).expect("clean up");
    }
}
