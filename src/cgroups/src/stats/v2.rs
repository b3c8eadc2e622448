//! Statistics of cgroup v2, put into the shape that v1 gave them.

use super::parse::{File, Pressure, number};
use super::{BlkIo, BlkIoEntry, HugeTlb, MemoryEntry, Stats, huge_page_sizes};
use crate::dir::Dir;
use crate::freeze::lookup;
use crate::{Error, cgroup};

/// Adds everything the unified hierarchy counts.
pub(super) fn add(stats: &mut Stats, dir: &Dir) -> Result<(), Error> {
    cpu(stats, dir)?;
    memory(stats, dir)?;
    pids(stats, dir)?;
    block_io(&mut stats.blkio, dir)?;
    add_hugetlb(stats, dir)
}

fn pressure(dir: &Dir, name: &str) -> Result<Option<Pressure>, Error> {
    File::read(dir, name)?.map(|f| f.pressure()).transpose()
}

fn cpu(stats: &mut Stats, dir: &Dir) -> Result<(), Error> {
    // Usage is there without the controller, too. Microseconds.
    if let Some(file) = File::read(dir, "cpu.stat")? {
        let table = file.table()?;
        let get = |key: &str| table.get(key).copied().unwrap_or(0);
        stats.cpu.usage.total = get("usage_usec") * 1000;
        stats.cpu.usage.user = get("user_usec") * 1000;
        stats.cpu.usage.kernel = get("system_usec") * 1000;
        stats.cpu.throttling.periods = get("nr_periods");
        stats.cpu.throttling.throttled_periods = get("nr_throttled");
        stats.cpu.throttling.throttled_time = get("throttled_usec") * 1000;
    }
    stats.cpu.psi = pressure(dir, "cpu.pressure")?;
    Ok(())
}

fn memory(stats: &mut Stats, dir: &Dir) -> Result<(), Error> {
    let memory = &mut stats.memory;
    if let Some(file) = File::read(dir, "memory.stat")? {
        memory.raw = file.table()?;
        memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    }
    memory.usage = memory_entry(dir, "memory")?;
    let swap = memory_entry(dir, "memory.swap")?;
    // v1 counts memory and swap together, so that is what clients expect here. The peaks of the two cannot be added.
    let limit = if swap.limit == u64::MAX { u64::MAX } else { swap.limit.saturating_add(memory.usage.limit) };
    memory.swap = MemoryEntry { limit, usage: swap.usage + memory.usage.usage, max: 0, failcnt: 0 };
    memory.psi = pressure(dir, "memory.pressure")?;
    Ok(())
}

/// Memory, or swap; all zero when the kernel does not count it.
fn memory_entry(dir: &Dir, prefix: &str) -> Result<MemoryEntry, Error> {
    let get = |name: &str| number(dir, &format!("{prefix}.{name}"));
    let Some(usage) = get("current")? else { return Ok(MemoryEntry::default()) };
    // Peaks: Linux 5.19, of swap 6.5.
    Ok(MemoryEntry { usage, limit: get("max")?.unwrap_or(0), max: get("peak")?.unwrap_or(0), failcnt: 0 })
}

/// The files of the pids controller have the same names on v1.
pub(super) fn pids(stats: &mut Stats, dir: &Dir) -> Result<(), Error> {
    match number(dir, "pids.current")? {
        Some(current) => {
            stats.pids.current = current;
            // No limit has always been printed as 0.
            stats.pids.limit = number(dir, "pids.max")?.filter(|n| *n != u64::MAX).unwrap_or(0);
        }
        None => stats.pids.current = cgroup::all_pids(dir)?.len() as u64,
    }
    Ok(())
}

/// io.stat: `MAJOR:MINOR rbytes=… wbytes=… rios=… wios=… …` a device.
fn block_io(blkio: &mut BlkIo, dir: &Dir) -> Result<(), Error> {
    if let Some(file) = File::read(dir, "io.stat")? {
        for line in file.text.lines() {
            let mut words = line.split_whitespace();
            let Some((major, minor)) = words.next().and_then(|w| w.split_once(':')) else { continue };
            let (major, minor) = (file.parse(major)?, file.parse(minor)?);
            for (key, value) in words.filter_map(|w| w.split_once('=')) {
                let (list, op) = match key {
                    "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                    "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                    "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                    "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                    _ => continue,
                };
                list.push(BlkIoEntry { major, minor, op: op.into(), value: file.parse(value)? });
            }
        }
    }
    blkio.psi = pressure(dir, "io.pressure")?;
    Ok(())
}

/// Huge pages, where the controller is handed down to the container.
pub(super) fn add_hugetlb(stats: &mut Stats, dir: &Dir) -> Result<(), Error> {
    for size in huge_page_sizes() {
        let usage = match number(dir, &format!("hugetlb.{size}.rsvd.current"))? {
            Some(usage) => Some(usage),
            // Before Linux 5.7.
            None => number(dir, &format!("hugetlb.{size}.current"))?,
        };
        // A controller that is not here is here for no size.
        let Some(usage) = usage else { return Ok(()) };
        let name = format!("hugetlb.{size}.events");
        let events = File::read(dir, &name)?;
        let failcnt = match events.as_ref().and_then(|f| Some((f, lookup(&f.text, "max")?))) {
            Some((file, word)) => file.parse(word)?,
            None => 0,
        };
        stats.hugetlb.insert(size, HugeTlb { usage, max: 0, failcnt });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeDir;

    #[test]
    fn all_of_a_v2_cgroup() {
        let pressure =
            "some avg10=2.00 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        let fake = FakeDir::new(
            "v2",
            &[
                (
                    "cpu.stat",
                    "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 1\nthrottled_usec 4\n",
                ),
                ("cpu.pressure", pressure),
                ("memory.stat", "anon 10\nfile 20\n"),
                ("memory.current", "100\n"),
                ("memory.max", "1000\n"),
                ("memory.peak", "200\n"),
                ("memory.swap.current", "50\n"),
                ("memory.swap.max", "500\n"),
                ("memory.pressure", pressure),
                ("pids.current", "3\n"),
                ("pids.max", "max\n"),
                ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
            ],
        );
        let mut stats = Stats::default();
        add(&mut stats, &fake.open()).unwrap();
        assert_eq!((stats.cpu.usage.total, stats.cpu.usage.user, stats.cpu.usage.kernel), (5000, 3000, 2000));
        assert_eq!(stats.cpu.throttling.throttled_time, 4000);
        assert_eq!(stats.cpu.psi.unwrap().some.total, 9);
        assert_eq!(stats.memory.cache, 20);
        assert_eq!(stats.memory.usage, MemoryEntry { limit: 1000, usage: 100, max: 200, failcnt: 0 });
        assert_eq!(stats.memory.swap, MemoryEntry { limit: 1500, usage: 150, max: 0, failcnt: 0 });
        assert_eq!((stats.pids.current, stats.pids.limit), (3, 0));
        let values: Vec<u64> = stats.blkio.io_serviced_recursive.iter().map(|e| e.value).collect();
        assert_eq!(values, [3, 4]);
        assert_eq!(stats.blkio.psi, None);
    }

    #[test]
    fn swap_without_limit_stays_without() {
        let files = [
            ("memory.current", "1\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "0\n"),
            ("memory.swap.max", "max\n"),
        ];
        let fake = FakeDir::new("v2swap", &files);
        let mut stats = Stats::default();
        memory(&mut stats, &fake.open()).unwrap();
        assert_eq!((stats.memory.usage.limit, stats.memory.swap.limit), (u64::MAX, u64::MAX));
    }
}
