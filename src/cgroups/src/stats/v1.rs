//! Statistics of cgroup v1, a controller at a time.

use super::parse::{File, number};
use super::{BlkIo, BlkIoEntry, CpuUsage, HugeTlb, MemoryEntry, Stats, huge_page_sizes};
use crate::Error;
use crate::dir::Dir;

/// Nanoseconds of a tick of `USER_HZ`, which is 100 on every architecture.
const TICK: u64 = 10_000_000;

/// Adds what a controller counts.
pub(super) fn add(stats: &mut Stats, controller: &str, dir: &Dir) -> Result<(), Error> {
    match controller {
        "cpu" => throttling(stats, dir),
        "cpuacct" => {
            stats.cpu.usage = cpu_usage(dir)?;
            Ok(())
        }
        "cpuset" => cpuset(stats, dir),
        "memory" => memory(stats, dir),
        "pids" => super::v2::pids(stats, dir),
        "blkio" => block_io(&mut stats.blkio, dir),
        "hugetlb" => hugetlb(stats, dir),
        _ => Ok(()),
    }
}

fn throttling(stats: &mut Stats, dir: &Dir) -> Result<(), Error> {
    let Some(file) = File::read(dir, "cpu.stat")? else { return Ok(()) };
    let table = file.table()?;
    let get = |key: &str| table.get(key).copied().unwrap_or(0);
    stats.cpu.throttling.periods = get("nr_periods");
    stats.cpu.throttling.throttled_periods = get("nr_throttled");
    stats.cpu.throttling.throttled_time = get("throttled_time");
    Ok(())
}

fn cpu_usage(dir: &Dir) -> Result<CpuUsage, Error> {
    let mut usage = CpuUsage { total: number(dir, "cpuacct.usage")?.unwrap_or(0), ..CpuUsage::default() };
    if let Some(file) = File::read(dir, "cpuacct.stat")? {
        let table = file.table()?;
        usage.user = table.get("user").copied().unwrap_or(0) * TICK;
        usage.kernel = table.get("system").copied().unwrap_or(0) * TICK;
    }
    if let Some(file) = File::read(dir, "cpuacct.usage_percpu")? {
        usage.percpu = file.numbers()?;
    }
    if let Some(file) = File::read(dir, "cpuacct.usage_all")? {
        // A heading, then a line a CPU: number, user, system.
        for line in file.text.lines().skip(1) {
            let mut words = line.split_whitespace().skip(1);
            if let (Some(user), Some(system)) = (words.next(), words.next()) {
                usage.percpu_user.push(file.parse(user)?);
                usage.percpu_kernel.push(file.parse(system)?);
            }
        }
    }
    Ok(usage)
}

fn cpuset(stats: &mut Stats, dir: &Dir) -> Result<(), Error> {
    let set = &mut stats.cpuset;
    if let Some(file) = File::read(dir, "cpuset.cpus")? {
        set.cpus = file.list()?;
    }
    if let Some(file) = File::read(dir, "cpuset.mems")? {
        set.mems = file.list()?;
    }
    for (name, value) in [
        ("cpuset.cpu_exclusive", &mut set.cpu_exclusive),
        ("cpuset.mem_hardwall", &mut set.mem_hardwall),
        ("cpuset.mem_exclusive", &mut set.mem_exclusive),
        ("cpuset.memory_migrate", &mut set.memory_migrate),
        ("cpuset.memory_spread_page", &mut set.memory_spread_page),
        ("cpuset.memory_spread_slab", &mut set.memory_spread_slab),
        ("cpuset.memory_pressure", &mut set.memory_pressure),
        ("cpuset.sched_load_balance", &mut set.sched_load_balance),
    ] {
        *value = number(dir, name)?.unwrap_or(0);
    }
    if let Some(file) = File::read(dir, "cpuset.sched_relax_domain_level")? {
        // The one number that may be negative and means it.
        set.sched_relax_domain_level = file.text.trim_end().parse().unwrap_or_default();
    }
    Ok(())
}

fn memory(stats: &mut Stats, dir: &Dir) -> Result<(), Error> {
    let memory = &mut stats.memory;
    if let Some(file) = File::read(dir, "memory.stat")? {
        memory.raw = file.table()?;
        memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    }
    memory.usage = memory_entry(dir, "memory")?;
    memory.swap = memory_entry(dir, "memory.memsw")?;
    memory.kernel = memory_entry(dir, "memory.kmem")?;
    memory.kernel_tcp = memory_entry(dir, "memory.kmem.tcp")?;
    Ok(())
}

/// One kind of memory; all zero when the kernel does not count it.
fn memory_entry(dir: &Dir, prefix: &str) -> Result<MemoryEntry, Error> {
    let get = |name: &str| number(dir, &format!("{prefix}.{name}"));
    let Some(usage) = get("usage_in_bytes")? else { return Ok(MemoryEntry::default()) };
    Ok(MemoryEntry {
        usage,
        max: get("max_usage_in_bytes")?.unwrap_or(0),
        failcnt: get("failcnt")?.unwrap_or(0),
        limit: get("limit_in_bytes")?.unwrap_or(0),
    })
}

/// Which of a kernel's sets of files has the numbers depends on its I/O schedulers: BFQ's with debugging, BFQ's, CFQ's
/// (until Linux 5.0), or those of throttling, which any kernel has.
fn block_io(blkio: &mut BlkIo, dir: &Dir) -> Result<(), Error> {
    for prefix in ["blkio.bfq.", "blkio."] {
        // Of a scheduler that is in use the recursive bytes are not empty.
        let bytes = entries(dir, &format!("{prefix}io_service_bytes_recursive"))?;
        if bytes.as_ref().is_none_or(Vec::is_empty) {
            continue;
        }
        let get = |name: &str| entries(dir, &format!("{prefix}{name}_recursive")).map(Option::unwrap_or_default);
        blkio.io_service_bytes_recursive = bytes.unwrap_or_default();
        blkio.io_serviced_recursive = get("io_serviced")?;
        blkio.io_queued_recursive = get("io_queued")?;
        blkio.io_service_time_recursive = get("io_service_time")?;
        blkio.io_wait_time_recursive = get("io_wait_time")?;
        blkio.io_merged_recursive = get("io_merged")?;
        blkio.io_time_recursive = get("time")?;
        blkio.sectors_recursive = get("sectors")?;
        return Ok(());
    }
    for suffix in ["_recursive", ""] {
        if let Some(bytes) = entries(dir, &format!("blkio.throttle.io_service_bytes{suffix}"))? {
            let serviced = entries(dir, &format!("blkio.throttle.io_serviced{suffix}"))?;
            blkio.io_service_bytes_recursive = bytes;
            blkio.io_serviced_recursive = serviced.unwrap_or_default();
            return Ok(());
        }
    }
    Ok(())
}

/// Lines of `MAJOR:MINOR [OPERATION] VALUE`, and a `Total` line, which is left out.
fn entries(dir: &Dir, name: &str) -> Result<Option<Vec<BlkIoEntry>>, Error> {
    let Some(file) = File::read(dir, name)? else { return Ok(None) };
    let mut out = Vec::new();
    for line in file.text.lines() {
        let words: Vec<&str> = line.split([' ', ':']).filter(|w| !w.is_empty()).collect();
        let (major, minor, op, value) = match words[..] {
            [major, minor, op, value] => (major, minor, op, value),
            [major, minor, value] => (major, minor, "", value),
            _ => continue,
        };
        let (major, minor, value) = (file.parse(major)?, file.parse(minor)?, file.parse(value)?);
        out.push(BlkIoEntry { major, minor, op: op.into(), value });
    }
    Ok(Some(out))
}

fn hugetlb(stats: &mut Stats, dir: &Dir) -> Result<(), Error> {
    for size in huge_page_sizes() {
        let get = |name: &str| match number(dir, &format!("hugetlb.{size}.rsvd.{name}"))? {
            Some(value) => Ok(Some(value)),
            // Before Linux 5.7.
            None => number(dir, &format!("hugetlb.{size}.{name}")),
        };
        if let Some(usage) = get("usage_in_bytes")? {
            let max = get("max_usage_in_bytes")?.unwrap_or(0);
            let failcnt = get("failcnt")?.unwrap_or(0);
            stats.hugetlb.insert(size, HugeTlb { usage, max, failcnt });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeDir;

    #[test]
    fn cpu_time_by_cpu_and_mode() {
        let fake = FakeDir::new(
            "cpuacct",
            &[
                ("cpuacct.usage", "3000\n"),
                ("cpuacct.stat", "user 2\nsystem 1\n"),
                ("cpuacct.usage_percpu", "1000 2000 \n"),
                ("cpuacct.usage_all", "cpu user system\n0 10 20\n1 30 40\n"),
            ],
        );
        let usage = cpu_usage(&fake.open()).unwrap();
        assert_eq!((usage.total, usage.user, usage.kernel), (3000, 20_000_000, 10_000_000));
        assert_eq!(
            (usage.percpu, usage.percpu_user, usage.percpu_kernel),
            (vec![1000, 2000], vec![10, 30], vec![20, 40])
        );
    }

    #[test]
    fn block_io_of_the_scheduler_in_use() {
        let throttle = [("blkio.throttle.io_service_bytes", "8:0 Read 5\n8:0 Total 5\nTotal 5\n")];
        let fake = FakeDir::new("blkio", &throttle);
        let mut blkio = BlkIo::default();
        block_io(&mut blkio, &fake.open()).unwrap();
        let entry = |op: &str| BlkIoEntry { major: 8, minor: 0, op: op.into(), value: 5 };
        assert_eq!(blkio.io_service_bytes_recursive, [entry("Read"), entry("Total")]);

        let bfq = [
            throttle[0],
            ("blkio.bfq.io_service_bytes_recursive", "8:0 Write 7\nTotal 7\n"),
            ("blkio.bfq.sectors_recursive", "8:16 3\n"),
        ];
        let fake = FakeDir::new("blkio", &bfq);
        block_io(&mut blkio, &fake.open()).unwrap();
        assert_eq!(blkio.io_service_bytes_recursive[0].op, "Write");
        assert_eq!((blkio.sectors_recursive[0].minor, blkio.sectors_recursive[0].value), (16, 3));
    }
}
