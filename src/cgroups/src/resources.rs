//! `linux.resources` as values for files (runtime-spec, config-linux.md, "Control groups").
//!
//! A value of 0, and an empty string, mean "not set", as in runc; `pids.limit` is the exception and 0 is taken as 1.
//! What has no counterpart in a version is left out as in runc: on v2 swappiness, disableOOMKiller, leaf weights, the
//! realtime values and `network`; everywhere `memory.kernel`, `memory.kernelTCP` and `useHierarchy`, which kernels no
//! longer have or are always so.

use crate::setting::{Setting, Undo, Write};
use crate::{Error, Version, convert};
use rrt_oci::LinuxThrottleDevice;
use rrt_oci::{LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxRdma, LinuxResources};
use std::collections::HashMap;

/// A hierarchy that limits can be given to.
pub(crate) struct Target<'a> {
    pub(crate) version: Version,
    pub(crate) controllers: &'a [String],
}

/// When the values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Create,
    /// Only what is given is changed; the kernel checks it against the rest.
    Update,
}

/// Values, each with the index of the target it is for, in the order they are written.
pub(crate) type Settings = Vec<(usize, Setting)>;

/// Works out the values of `r` for `targets`.
///
/// # Errors
/// [`Error::Invalid`] for what no kernel takes, [`Error::NoController`] for a limit that no target can keep.
pub(crate) fn settings(r: &LinuxResources, targets: &[Target<'_>], stage: Stage) -> Result<Settings, Error> {
    let mut to = Collector { targets, found: Vec::new() };
    if let Some(pids) = r.pids() {
        to.add("pids", "pids", |_| Ok(vec![vec![pids_limit(pids.limit())]]))?;
    }
    if let Some(m) = r.memory() {
        to.add("memory", "memory", |v| memory(m, v, stage))?;
    }
    if let Some(b) = r.block_io() {
        to.add("blkio", "io", |v| block_io(b, v))?;
    }
    if let Some(c) = r.cpu() {
        to.add("cpu", "cpu", |v| cpu(c, v))?;
        to.add("cpuset", "cpuset", |_| Ok(cpuset(c)))?;
    }
    if let Some(limits) = r.hugepage_limits() {
        to.add("hugetlb", "hugetlb", |v| huge_pages(limits, v))?;
    }
    if let Some(rdma) = r.rdma() {
        to.add("rdma", "rdma", |_| Ok(rdma_limits(rdma)))?;
    }
    if let Some(network) = r.network() {
        to.add("net_cls", "", |v| Ok(if v == Version::V1 { class_id(network) } else { vec![] }))?;
        to.add("net_prio", "", |v| Ok(if v == Version::V1 { priorities(network) } else { vec![] }))?;
    }
    if let Some(files) = r.unified() {
        to.unified(files)?;
    }
    Ok(to.found)
}

struct Collector<'a> {
    targets: &'a [Target<'a>],
    found: Settings,
}

impl Collector<'_> {
    /// Adds what `make` gives for the version of the target that has the controller (its names on v1 and v2).
    fn add(
        &mut self,
        v1: &str,
        v2: &str,
        make: impl FnOnce(Version) -> Result<Vec<Setting>, Error>,
    ) -> Result<(), Error> {
        let named = |version, name: &str| {
            self.targets.iter().position(|t| t.version == version && t.controllers.iter().any(|c| c == name))
        };
        let target = named(Version::V1, v1).or_else(|| named(Version::V2, v2));
        let version = match target {
            Some(i) => self.targets[i].version,
            // Not there: as the machine's other controllers, to find out whether it is needed at all.
            None if self.targets.iter().any(|t| t.version == Version::V1) => Version::V1,
            None => Version::V2,
        };
        let settings = make(version)?.into_iter().filter(|s| !s.is_empty());
        match target {
            Some(i) => self.found.extend(settings.map(|s| (i, s))),
            None => {
                // What a new cgroup has anyway needs no controller.
                if let Some(write) = settings.flatten().find(|w| !w.default && !w.optional) {
                    let controller = if version == Version::V1 { v1 } else { v2 };
                    return Err(Error::NoController {
                        property: write.property.into_owned(),
                        controller: controller.into(),
                    });
                }
            }
        }
        Ok(())
    }

    /// `unified`: files of the unified hierarchy, by name, after all others, so that they win.
    fn unified(&mut self, files: &HashMap<String, String>) -> Result<(), Error> {
        // In a fixed order: a map has none, and two runs should do the same.
        let mut files: Vec<_> = files.iter().collect();
        files.sort_unstable();
        for (name, value) in files {
            let property = format!("linux.resources.unified[{name:?}]");
            if name.contains(['/', '\0']) || name.starts_with('.') || !name.contains('.') {
                return Err(Error::invalid(
                    property,
                    "must be the name of a file, as \"memory.high\", without a slash",
                ));
            }
            // What these do is not a limit: they move, stop or kill processes, the host's among them (`cgroup.procs` takes any pid).
            if let "cgroup.procs" | "cgroup.threads" | "cgroup.kill" | "cgroup.freeze" | "cgroup.type" = name.as_str() {
                return Err(Error::invalid(property, "is no limit but the runtime's own means to run the container"));
            }
            let Some(i) = self.targets.iter().position(|t| t.version == Version::V2) else {
                return Err(Error::invalid(
                    "linux.resources.unified",
                    "invalid configuration: this machine has cgroup v1 only, where these files do not exist; use the \
                     properties beside it",
                ));
            };
            let controller = name.split('.').next().unwrap_or(name);
            let has = |t: &Target<'_>| t.controllers.iter().any(|c| c == controller);
            if !has(&self.targets[i]) && self.targets.iter().any(has) {
                let problem = "invalid configuration: this machine has the controller on cgroup v1, where this file does not exist; \
                               use the properties beside it";
                return Err(Error::invalid(property, problem));
            }
            if controller != "cgroup" && !has(&self.targets[i]) {
                return Err(Error::NoController { property, controller: format!("{controller} (cgroup v2)") });
            }
            // A line a write(2): io.max and its like take one device at a time. An empty value, as cpuset.cpus has it, is an empty line:
            // a write(2) of nothing reaches no file.
            for line in value.lines().chain(value.is_empty().then_some("\n")) {
                self.found.push((i, vec![Write::new(name.clone(), line, property.clone())]));
            }
        }
        Ok(())
    }
}

/// -1 as `max`, for the files of v2.
fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn pids_limit(limit: i64) -> Write {
    // systemd cannot express 0, so all runtimes take it as 1: the container's first process.
    let limit = if limit == 0 { 1 } else { limit };
    Write::new("pids.max", or_max(limit), "linux.resources.pids.limit").default_if(limit < 0)
}

fn memory(m: &LinuxMemory, version: Version, stage: Stage) -> Result<Vec<Setting>, Error> {
    const LIMIT: &str = "linux.resources.memory.limit";
    const SWAP: &str = "linux.resources.memory.swap";
    const RESERVATION: &str = "linux.resources.memory.reservation";
    let (limit, swap) = (m.limit().unwrap_or(0), m.swap().unwrap_or(0));
    let reservation = m.reservation().unwrap_or(0);
    for (property, value) in [(LIMIT, limit), (SWAP, swap), (RESERVATION, reservation)] {
        if value < -1 {
            return Err(Error::invalid(property, format!("{value} is no number of bytes (-1 means no limit)")));
        }
    }
    // Both versions need the pair to fit, and an update of one of the two is checked against the other by the kernel.
    let swap_alone = if limit != 0 || version == Version::V2 || stage == Stage::Create {
        convert::swap_only(swap, limit)?
    } else {
        None
    };
    let mut out = Vec::new();
    match version {
        Version::V1 => {
            let mut pair = Vec::new();
            if limit != 0 {
                pair.push(Write::new("memory.limit_in_bytes", limit, LIMIT).default_if(limit < 0));
            }
            // Lifting the memory limit lifts this one too, if the kernel counts swap at all.
            let lifted = limit == -1 && swap == 0;
            if swap != 0 || lifted {
                let value = if lifted { -1 } else { swap };
                let write = Write::new("memory.memsw.limit_in_bytes", value, if lifted { LIMIT } else { SWAP });
                pair.push(write.default_if(value < 0).optional_if(value < 0));
            }
            out.push(pair);
            if reservation != 0 {
                let write = Write::new("memory.soft_limit_in_bytes", reservation, RESERVATION);
                out.push(vec![write.default_if(reservation < 0)]);
            }
            out.push(memory_v1_only(m, stage)?);
        }
        Version::V2 => {
            if let Some(swap) = swap_alone {
                // Without swap there is nothing to forbid or to allow, so a missing file is right for these two.
                let write = Write::new("memory.swap.max", or_max(swap), SWAP);
                out.push(vec![write.default_if(swap < 0).optional_if(swap <= 0)]);
            }
            if limit != 0 {
                out.push(vec![Write::new("memory.max", or_max(limit), LIMIT).default_if(limit < 0)]);
            }
            if reservation != 0 {
                out.push(vec![Write::new("memory.low", or_max(reservation), RESERVATION)]);
            }
        }
    }
    Ok(out)
}

fn memory_v1_only(m: &LinuxMemory, stage: Stage) -> Result<Setting, Error> {
    let mut out = Vec::new();
    match m.disable_oom_killer() {
        Some(false) if stage == Stage::Create => {}
        Some(off) => {
            let property = "linux.resources.memory.disableOOMKiller";
            out.push(Write::new("memory.oom_control", u8::from(off), property).undo(Undo::No));
        }
        None => {}
    }
    match m.swappiness() {
        // -1 in an unsigned field: older Docker's way to say "not set".
        None | Some(u64::MAX) => {}
        Some(n @ 0..=100) => out.push(Write::new("memory.swappiness", n, "linux.resources.memory.swappiness")),
        Some(n) => {
            return Err(Error::invalid(
                "linux.resources.memory.swappiness",
                format!("{n} is not in the valid range of 0 to 100"),
            ));
        }
    }
    Ok(out)
}

fn cpu(c: &LinuxCpu, version: Version) -> Result<Vec<Setting>, Error> {
    let mut out = vec![cpu_weight(c, version)?];
    let mut bandwidth = Vec::new();
    let (period, quota) = (c.period().unwrap_or(0), c.quota().unwrap_or(0));
    match version {
        Version::V1 => {
            if period != 0 {
                bandwidth.push(
                    Write::new("cpu.cfs_period_us", period, "linux.resources.cpu.period")
                        .default_if(period == DEFAULT_PERIOD),
                );
            }
            if quota != 0 {
                let value = quota.max(-1);
                bandwidth
                    .push(Write::new("cpu.cfs_quota_us", value, "linux.resources.cpu.quota").default_if(value < 0));
            }
        }
        Version::V2 if period != 0 || quota != 0 => {
            let quota_text = if quota > 0 { quota.to_string() } else { "max".into() };
            let period = if period == 0 { DEFAULT_PERIOD } else { period };
            let property = if quota != 0 { "linux.resources.cpu.quota" } else { "linux.resources.cpu.period" };
            let write = Write::new("cpu.max", format!("{quota_text} {period}"), property);
            bandwidth.push(write.default_if(quota <= 0 && period == DEFAULT_PERIOD));
        }
        Version::V2 => {}
    }
    if let Some(burst) = c.burst() {
        let file = if version == Version::V1 { "cpu.cfs_burst_us" } else { "cpu.max.burst" };
        // A kernel before 5.14 has no burst, which is what 0 asks for.
        let write = Write::new(file, burst, "linux.resources.cpu.burst");
        bandwidth.push(write.default_if(burst == 0).optional_if(burst == 0));
    }
    out.push(bandwidth);
    if version == Version::V1 {
        out.push(cpu_realtime(c));
    }
    Ok(out)
}

/// The kernel's period when none is set, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// The share of CPU time, and whether the cgroup is idle. An idle cgroup's weight cannot be written, so becoming idle
/// comes last; ceasing to be idle may too, because a refused weight is tried again after it.
fn cpu_weight(c: &LinuxCpu, version: Version) -> Result<Setting, Error> {
    const SHARES: &str = "linux.resources.cpu.shares";
    let mut out = Vec::new();
    let shares = c.shares().unwrap_or(0);
    match version {
        _ if shares == 0 => {}
        // The kernel would take another value without a word.
        Version::V1 if shares < 2 => {
            return Err(Error::invalid(SHARES, "the minimum allowed cpu-shares is 2"));
        }
        Version::V1 if shares > 262_144 => {
            return Err(Error::invalid(SHARES, "the maximum allowed cpu-shares is 262144"));
        }
        Version::V1 => out.push(Write::new("cpu.shares", shares, SHARES).default_if(shares == 1024)),
        Version::V2 => {
            let weight = convert::cpu_weight(shares);
            out.push(Write::new("cpu.weight", weight, SHARES).default_if(weight == 100));
        }
    }
    if let Some(idle) = c.idle() {
        if !(0..=1).contains(&idle) {
            return Err(Error::invalid("linux.resources.cpu.idle", format!("{idle} is neither 0 nor 1")));
        }
        let write = Write::new("cpu.idle", idle, "linux.resources.cpu.idle");
        out.push(write.default_if(idle == 0).optional_if(idle == 0));
    }
    Ok(out)
}

fn cpu_realtime(c: &LinuxCpu) -> Setting {
    let mut out = Vec::new();
    if let Some(period) = c.realtime_period().filter(|p| *p != 0) {
        out.push(Write::new("cpu.rt_period_us", period, "linux.resources.cpu.realtimePeriod"));
    }
    if let Some(runtime) = c.realtime_runtime().filter(|r| *r != 0) {
        out.push(Write::new("cpu.rt_runtime_us", runtime, "linux.resources.cpu.realtimeRuntime"));
    }
    out
}

fn cpuset(c: &LinuxCpu) -> Vec<Setting> {
    let file = |file: &'static str, value: &Option<String>, property: &'static str| {
        value.as_ref().filter(|v| !v.is_empty()).map(|v| vec![Write::new(file, v, property)])
    };
    let cpus = file("cpuset.cpus", c.cpus(), "linux.resources.cpu.cpus");
    let mems = file("cpuset.mems", c.mems(), "linux.resources.cpu.mems");
    cpus.into_iter().chain(mems).collect()
}

fn block_io(b: &LinuxBlockIo, version: Version) -> Result<Vec<Setting>, Error> {
    let mut out: Vec<Setting> = Vec::new();
    if let Some(weight) = b.weight().filter(|w| *w != 0) {
        const WEIGHT: &str = "linux.resources.blockIO.weight";
        let weight = checked_weight(weight, WEIGHT)?;
        out.push(vec![match version {
            // The first name went with the CFQ scheduler in Linux 5.0.
            Version::V1 => Write::new("blkio.weight", weight, WEIGHT).or("blkio.bfq.weight", weight),
            Version::V2 => {
                let undo = Undo::Line { key: "default".into(), none: "100".into() };
                Write::new("io.bfq.weight", weight, WEIGHT).or("io.weight", convert::io_weight(weight)).undo(undo)
            }
        }]);
    }
    if let (Some(weight), Version::V1) = (b.leaf_weight().filter(|w| *w != 0), version) {
        out.push(vec![Write::new("blkio.leaf_weight", weight, "linux.resources.blockIO.leafWeight")]);
    }
    for (i, device) in b.weight_device().iter().flatten().enumerate() {
        let key = format!("{}:{}", device.major(), device.minor());
        let undo = || Undo::Line { key: key.clone(), none: "default".into() };
        if let Some(weight) = device.weight().filter(|w| *w != 0) {
            let property = format!("linux.resources.blockIO.weightDevice[{i}].weight");
            let weight = checked_weight(weight, &property)?;
            let line = format!("{key} {weight}");
            out.push(vec![match version {
                Version::V1 => {
                    Write::new("blkio.weight_device", &line, property).or("blkio.bfq.weight_device", &line).undo(undo())
                }
                Version::V2 => Write::new("io.bfq.weight", line, property)
                    .or("io.weight", format!("{key} {}", convert::io_weight(weight)))
                    .undo(undo()),
            }]);
        }
        if let (Some(weight), Version::V1) = (device.leaf_weight().filter(|w| *w != 0), version) {
            let property = format!("linux.resources.blockIO.weightDevice[{i}].leafWeight");
            out.push(vec![Write::new("blkio.leaf_weight_device", format!("{key} {weight}"), property).undo(undo())]);
        }
    }
    out.extend(throttle(b, version));
    Ok(out)
}

fn checked_weight(weight: u16, property: &str) -> Result<u16, Error> {
    if (10..=1000).contains(&weight) {
        return Ok(weight);
    }
    Err(Error::invalid(property, format!("{weight} is not in the range of 10 to 1000")))
}

fn throttle(b: &LinuxBlockIo, version: Version) -> Vec<Setting> {
    type Kind<'a> = (&'a Option<Vec<LinuxThrottleDevice>>, &'static str, &'static str, &'static str);
    let kinds: [Kind<'_>; 4] = [
        (b.throttle_read_bps_device(), "throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
        (b.throttle_write_bps_device(), "throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
        (b.throttle_read_iops_device(), "throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
        (b.throttle_write_iops_device(), "throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
    ];
    let mut out = Vec::new();
    for (devices, name, v1_file, v2_key) in kinds {
        for (i, device) in devices.iter().flatten().enumerate() {
            let property = format!("linux.resources.blockIO.{name}[{i}]");
            let key = format!("{}:{}", device.major(), device.minor());
            let rate = device.rate();
            out.push(vec![match version {
                Version::V1 => {
                    Write::new(v1_file, format!("{key} {rate}"), property).undo(Undo::Line { key, none: "0".into() })
                }
                Version::V2 => {
                    // 0 takes a limit away on v1; on v2 the word for it is "max".
                    let rate = if rate == 0 { "max".into() } else { rate.to_string() };
                    let undo = Undo::Line { key: key.clone(), none: format!("{v2_key}=max").into() };
                    Write::new("io.max", format!("{key} {v2_key}={rate}"), property).undo(undo)
                }
            }]);
        }
    }
    out
}

fn huge_pages(limits: &[LinuxHugepageLimit], version: Version) -> Result<Vec<Setting>, Error> {
    let mut out = Vec::new();
    for (i, limit) in limits.iter().enumerate() {
        let size = limit.page_size();
        // It becomes a part of a file name.
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Error::invalid(
                format!("linux.resources.hugepageLimits[{i}].pageSize"),
                format!("{size:?} is no page size, as \"2MB\" or \"1GB\""),
            ));
        }
        let property = format!("linux.resources.hugepageLimits[{i}].limit");
        let (suffix, value) = match version {
            Version::V1 => ("limit_in_bytes", limit.limit().to_string()),
            Version::V2 => ("max", or_max(limit.limit())),
        };
        out.push(vec![
            Write::new(format!("hugetlb.{size}.{suffix}"), &value, property.clone()),
            // Reservations are counted since Linux 5.7.
            Write::new(format!("hugetlb.{size}.rsvd.{suffix}"), &value, property).optional_if(true),
        ]);
    }
    Ok(out)
}

fn rdma_limits(rdma: &HashMap<String, LinuxRdma>) -> Vec<Setting> {
    let mut devices: Vec<_> = rdma.iter().collect();
    devices.sort_unstable_by_key(|(name, _)| *name);
    let limit = |(name, limit): (&String, &LinuxRdma)| {
        let mut line = name.clone();
        for (key, value) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            if let Some(value) = value {
                line += &format!(" {key}={value}");
            }
        }
        let undo = Undo::Line { key: name.clone(), none: "hca_handle=max hca_object=max".into() };
        vec![Write::new("rdma.max", line, format!("linux.resources.rdma[{name:?}]")).undo(undo)]
    };
    devices.into_iter().map(limit).collect()
}

fn class_id(network: &LinuxNetwork) -> Vec<Setting> {
    let id = network.class_id().filter(|id| *id != 0);
    id.map(|id| vec![Write::new("net_cls.classid", id, "linux.resources.network.classID")]).into_iter().collect()
}

fn priorities(network: &LinuxNetwork) -> Vec<Setting> {
    let priorities = network.priorities().iter().flatten().enumerate();
    priorities
        .map(|(i, p)| {
            let undo = Undo::Line { key: p.name().clone(), none: "0".into() };
            let property = format!("linux.resources.network.priorities[{i}]");
            vec![Write::new("net_prio.ifpriomap", format!("{} {}", p.name(), p.priority()), property).undo(undo)]
        })
        .collect()
}

#[cfg(test)]
#[path = "resources_tests.rs"]
mod tests;
