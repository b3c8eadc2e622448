//! cgroup v2.

use super::{device, page_sizes, rdma};
use crate::cgroup::{number, read as file, table};
use crate::proto::cgroup2::{
    CpuStat, HugeTlbStat, IoEntry, IoStat, MemoryEvents, MemoryStat, Metrics, PidsStat, PsiData, PsiStats, RdmaEntry,
    RdmaStat,
};
use std::collections::BTreeMap;
use std::path::Path;

/// All that the cgroup has files for.
pub fn read(dir: &Path) -> Metrics {
    Metrics {
        pids: Some(PidsStat { current: number(dir, "pids.current"), limit: number(dir, "pids.max") }),
        cpu: Some(cpu(dir)),
        memory: Some(MemoryStat {
            usage: number(dir, "memory.current"),
            usage_limit: number(dir, "memory.max"),
            max_usage: number(dir, "memory.peak"),
            swap_usage: number(dir, "memory.swap.current"),
            swap_limit: number(dir, "memory.swap.max"),
            swap_max_usage: number(dir, "memory.swap.peak"),
            psi: pressure(dir, "memory.pressure"),
            ..memory_stat(&table(dir, "memory.stat"))
        }),
        rdma: Some(RdmaStat { current: devices(dir, "rdma.current"), limit: devices(dir, "rdma.max") }),
        io: Some(IoStat {
            usage: file(dir, "io.stat").map(|text| io(&text)).unwrap_or_default(),
            psi: pressure(dir, "io.pressure"),
        }),
        hugetlb: page_sizes(dir).into_iter().map(|size| hugetlb(dir, size)).collect(),
        memory_events: events(dir),
    }
}

fn cpu(dir: &Path) -> CpuStat {
    let stat = table(dir, "cpu.stat");
    let of = |key: &str| stat.get(key).copied().unwrap_or(0);
    CpuStat {
        usage_usec: of("usage_usec"),
        user_usec: of("user_usec"),
        system_usec: of("system_usec"),
        nr_periods: of("nr_periods"),
        nr_throttled: of("nr_throttled"),
        throttled_usec: of("throttled_usec"),
        psi: pressure(dir, "cpu.pressure"),
        nr_bursts: of("nr_bursts"),
        burst_usec: of("burst_usec"),
    }
}

fn events(dir: &Path) -> Option<MemoryEvents> {
    let events = table(dir, "memory.events");
    let of = |key: &str| events.get(key).copied().unwrap_or(0);
    (!events.is_empty()).then(|| MemoryEvents {
        low: of("low"),
        high: of("high"),
        max: of("max"),
        oom: of("oom"),
        oom_kill: of("oom_kill"),
        oom_group_kill: of("oom_group_kill"),
    })
}

fn memory_stat(raw: &BTreeMap<String, u64>) -> MemoryStat {
    let of = |key: &str| raw.get(key).copied().unwrap_or(0);
    MemoryStat {
        anon: of("anon"),
        file: of("file"),
        kernel_stack: of("kernel_stack"),
        slab: of("slab"),
        sock: of("sock"),
        shmem: of("shmem"),
        file_mapped: of("file_mapped"),
        file_dirty: of("file_dirty"),
        file_writeback: of("file_writeback"),
        anon_thp: of("anon_thp"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        slab_reclaimable: of("slab_reclaimable"),
        slab_unreclaimable: of("slab_unreclaimable"),
        pgfault: of("pgfault"),
        pgmajfault: of("pgmajfault"),
        workingset_refault: of("workingset_refault"),
        workingset_activate: of("workingset_activate"),
        workingset_nodereclaim: of("workingset_nodereclaim"),
        pgrefill: of("pgrefill"),
        pgscan: of("pgscan"),
        pgsteal: of("pgsteal"),
        pgactivate: of("pgactivate"),
        pgdeactivate: of("pgdeactivate"),
        pglazyfree: of("pglazyfree"),
        pglazyfreed: of("pglazyfreed"),
        thp_fault_alloc: of("thp_fault_alloc"),
        thp_collapse_alloc: of("thp_collapse_alloc"),
        workingset_refault_anon: of("workingset_refault_anon"),
        workingset_refault_file: of("workingset_refault_file"),
        workingset_activate_anon: of("workingset_activate_anon"),
        workingset_activate_file: of("workingset_activate_file"),
        ..MemoryStat::default()
    }
}

/// `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …`
fn io(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = device(words.next()?)?;
        let values: BTreeMap<&str, u64> =
            words.filter_map(|word| word.split_once('=')).filter_map(|(k, v)| Some((k, v.parse().ok()?))).collect();
        let of = |key: &str| values.get(key).copied().unwrap_or(0);
        Some(IoEntry { major, minor, rbytes: of("rbytes"), wbytes: of("wbytes"), rios: of("rios"), wios: of("wios") })
    };
    text.lines().filter_map(entry).collect()
}

/// A file of pressure; `None` where the kernel keeps none, or it is turned off (the read fails).
fn pressure(dir: &Path, name: &str) -> Option<PsiStats> {
    let text = file(dir, name)?;
    let line = |kind: &str| text.lines().find_map(|line| line.strip_prefix(kind)).map(psi);
    Some(PsiStats { some: line("some "), full: line("full ") })
}

/// `avg10=0.00 avg60=0.00 avg300=0.00 total=0`
fn psi(line: &str) -> PsiData {
    let text = |key: &str| line.split_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('=')).unwrap_or("");
    let average = |key: &str| text(key).parse().unwrap_or(0.0);
    PsiData {
        avg10: average("avg10"),
        avg60: average("avg60"),
        avg300: average("avg300"),
        total: text("total").parse().unwrap_or(0),
    }
}

fn hugetlb(dir: &Path, size: String) -> HugeTlbStat {
    let of = |name: &str| format!("hugetlb.{size}.{name}");
    HugeTlbStat {
        current: number(dir, &of("current")),
        max: number(dir, &of("max")),
        failcnt: table(dir, &of("events")).get("max").copied().unwrap_or(0),
        pagesize: size,
    }
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
    fn lines() {
        let found = io("259:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nbroken\n");
        assert_eq!(found, [IoEntry { major: 259, minor: 0, rbytes: 1, wbytes: 2, rios: 3, wios: 4 }]);
        let data = psi("avg10=0.50 avg60=1.25 avg300=0.00 total=77");
        assert_eq!(data, PsiData { avg10: 0.5, avg60: 1.25, avg300: 0.0, total: 77 });
    }

    #[test]
    fn files_of_a_cgroup() {
        let dir = std::env::temp_dir().join(format!("rrt-shim-v2-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        for (name, text) in [
            ("pids.max", "max\n"),
            ("memory.current", "4096\n"),
            ("memory.stat", "anon 1\nworkingset_refault_file 5\n"),
            ("memory.events", "low 0\noom_kill 2\n"),
            ("memory.pressure", "some avg10=1.00 avg60=0.00 avg300=0.00 total=9\n"),
            ("cpu.stat", "usage_usec 10\nuser_usec 4\nsystem_usec 6\nnr_bursts 1\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.max", "max\n"),
            ("hugetlb.2MB.events", "max 3\n"),
        ] {
            std::fs::write(dir.join(name), text).expect("a file");
        }
        let metrics = read(&dir);
        assert_eq!(metrics.pids, Some(PidsStat { current: 0, limit: u64::MAX }));
        let memory = metrics.memory.expect("memory");
        assert_eq!((memory.anon, memory.workingset_refault_file, memory.usage), (1, 5, 4096));
        assert_eq!(memory.psi.and_then(|psi| psi.some).map(|some| some.total), Some(9));
        assert_eq!(metrics.cpu.map(|cpu| (cpu.usage_usec, cpu.nr_bursts)), Some((10, 1)));
        assert_eq!(metrics.memory_events.map(|events| events.oom_kill), Some(2));
        let huge = HugeTlbStat { current: 0, max: u64::MAX, pagesize: "2MB".into(), failcnt: 3 };
        assert_eq!(metrics.hugetlb, [huge]);
        std::fs::remove_dir_all(dir).expect("clean up");
    }
}
