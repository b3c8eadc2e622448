//! Limits that this machine will refuse, found by looking: for `rrt check`, which makes no cgroup.
//!
//! Only what is certain: a file that the cgroup above does not have, CPUs that are not there, ranges that the kernel's source has as constants.

use crate::create::{NOT_DELEGATED, needed_for};
use crate::plan::{PlannedGroup, Rights};
use crate::setting::Write;
use crate::{CgroupPlan, Error, Version};
use std::path::{Path, PathBuf};

impl CgroupPlan {
    /// The limits that the kernel will refuse, with the property of each.
    pub fn refused(&self) -> Vec<Error> {
        self.groups.iter().flat_map(|group| refused(group, self.rights)).collect()
    }
}

impl CgroupPlan {
    /// Whether the container's cgroup has time for real-time policies; `None` where a cgroup needs none (v2, or a kernel without
    /// `CONFIG_RT_GROUP_SCHED`).
    pub fn has_realtime(&self) -> Option<bool> {
        const FILE: &str = "cpu.rt_runtime_us";
        let group = self.groups.iter().find(|g| g.version == Version::V1 && g.mount.join(FILE).exists())?;
        Some(group.settings.iter().flatten().any(|w| w.file == FILE))
    }
}

fn refused(group: &PlannedGroup, rights: Rights) -> Vec<Error> {
    let dir = group.dir();
    let Some(above) = dir.ancestors().skip(1).find(|d| d.is_dir()).map(Path::to_path_buf) else { return Vec::new() };
    if rights != Rights::Required
        && !dir.is_dir()
        && !rrt_sys::path::is_writable(&above)
        && let Some(property) = needed_for(group, rights)
    {
        return vec![Error::invalid(property, format!("{above:?} cannot be written to: {NOT_DELEGATED}"))];
    }
    let writes = group.settings.iter().flatten();
    writes
        .filter_map(|write| {
            let reason = missing_pages(write)
                .or_else(|| missing_file(group, &above, write))
                .or_else(|| missing_cpus(group, &above, write))
                .or_else(|| bad_bandwidth(group, write))
                .or_else(|| missing_device(write))?;
            Some(Error::invalid(write.property.clone(), reason))
        })
        .collect()
}

/// What is missing in the cgroup above is missing below. The top has fewer files than the rest, so there only those count that it has too.
fn missing_file(group: &PlannedGroup, above: &Path, write: &Write) -> Option<String> {
    let at_top = above == group.mount;
    let everywhere = ["cpu.", "cpuset.", "memory.", "hugetlb."].iter().any(|c| write.file.starts_with(c));
    if write.optional || write.default || at_top && (group.version == Version::V2 || !everywhere) {
        return None;
    }
    let names = std::iter::once(write.file.as_ref()).chain(write.otherwise.iter().map(|(file, _)| *file));
    let there = names.into_iter().any(|file| above.join(file).exists());
    (!there).then(|| format!("this kernel has no {:?} for it (see {above:?})", write.file))
}

/// Sizes of huge pages that this machine does not have: `hugetlb.SIZE.max`, where SIZE is as "2MB".
fn missing_pages(write: &Write) -> Option<String> {
    let size = write.file.strip_prefix("hugetlb.")?.split('.').next()?;
    let (number, unit) = size.split_at(size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len()));
    let shift = ["KB", "MB", "GB"].iter().position(|u| *u == unit).unwrap_or(0) * 10;
    let kilobytes = number.parse::<u64>().unwrap_or(0) << shift;
    let there = Path::new("/sys/kernel/mm/hugepages").join(format!("hugepages-{kilobytes}kB")).exists();
    (!write.optional && !there)
        .then(|| format!("this machine has no huge pages of {size} (see /sys/kernel/mm/hugepages)"))
}

/// v1 has a cgroup take only what the one above has, v2 everything that the machine could have.
fn missing_cpus(group: &PlannedGroup, above: &Path, write: &Write) -> Option<String> {
    let possible = match write.file.as_ref() {
        "cpuset.cpus" => "/sys/devices/system/cpu/possible",
        "cpuset.mems" => "/sys/devices/system/node/possible",
        _ => return None,
    };
    let Some(wanted) = list(&write.value) else {
        return Some(format!("{:?} is not a list of numbers as \"0-3,7\"", write.value));
    };
    let source = match group.version {
        // An empty one will be filled from the next above.
        Version::V1 => above.ancestors().map(|d| d.join(write.file.as_ref())).find(|f| !is_empty(f))?,
        Version::V2 => PathBuf::from(possible),
    };
    let has = list(std::fs::read_to_string(&source).ok()?.trim())?;
    let lacks = wanted.iter().find(|n| !has.contains(n))?;
    Some(format!("{:?}: there is no {lacks}; {source:?} has {}", write.value, ranges(&has)))
}

fn is_empty(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.trim().is_empty())
}

/// A list in the kernel's format (cpuset(7)).
fn list(text: &str) -> Option<Vec<u32>> {
    /// More than any machine has.
    const MOST: u32 = 8192;
    let mut all = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

fn ranges(numbers: &[u32]) -> String {
    match (numbers.first(), numbers.last()) {
        (Some(first), Some(last)) if numbers.len() > 1 => format!("{first} to {last}"),
        (Some(one), _) => one.to_string(),
        _ => "none".into(),
    }
}

/// `min_cfs_quota_period` and `max_cfs_quota_period` of the kernel's scheduler, in microseconds.
const PERIOD: std::ops::RangeInclusive<i64> = 1_000..=1_000_000;

fn bad_bandwidth(group: &PlannedGroup, write: &Write) -> Option<String> {
    let number = |text: &str| text.parse::<i64>().ok();
    let (quota, period) = match write.file.as_ref() {
        "cpu.cfs_period_us" => (None, number(&write.value)),
        "cpu.cfs_quota_us" => (number(&write.value), None),
        "cpu.max" => write.value.split_once(' ').map(|(quota, period)| (number(quota), number(period)))?,
        "cpu.rt_runtime_us" => return bad_realtime(group, write),
        _ => return None,
    };
    if let Some(period) = period.filter(|p| !PERIOD.contains(p)) {
        return Some(format!("a period of {period} µs; the kernel takes {} to {}", PERIOD.start(), PERIOD.end()));
    }
    let quota = quota.filter(|q| (0..*PERIOD.start()).contains(q))?;
    Some(format!("a quota of {quota} µs; the kernel takes {} and more", PERIOD.start()))
}

fn bad_realtime(group: &PlannedGroup, write: &Write) -> Option<String> {
    let runtime = write.value.parse::<i64>().ok()?;
    let period = group.settings.iter().flatten().find(|w| w.file == "cpu.rt_period_us");
    let period = period.map_or(Some(1_000_000), |w| w.value.parse::<i64>().ok())?;
    (runtime > period).then(|| format!("{runtime} µs of every {period} µs"))
}

/// The files that have a line a device.
fn missing_device(write: &Write) -> Option<String> {
    let by_device = write.file.starts_with("blkio.throttle.")
        || write.file.ends_with("weight_device")
        || write.file == "io.max"
        || matches!(write.file.as_ref(), "io.bfq.weight" if write.value.contains(':'));
    let device = write.value.split_whitespace().next().filter(|_| by_device)?;
    (!Path::new("/sys/dev/block").join(device).exists()).then(|| format!("there is no block device {device}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::Setting;

    fn group(version: Version, mount: &Path, setting: Setting) -> CgroupPlan {
        let group = PlannedGroup {
            version,
            controllers: Vec::new(),
            mount: mount.into(),
            path: "above/own".into(),
            enable: Vec::new(),
            settings: vec![setting],
            devices: None,
        };
        CgroupPlan { unit: None, groups: vec![group], rights: Rights::Required }
    }

    #[test]
    fn what_the_kernel_will_refuse_is_named() {
        let top = std::env::temp_dir().join(format!("rrt-cgroups-check-{}", std::process::id()));
        std::fs::create_dir_all(top.join("above")).unwrap();
        for (file, text) in [
            ("cpuset.cpus", "0-1\n"),
            ("above/cpuset.cpus", "\n"),
            ("above/cpu.cfs_period_us", ""),
            ("above/cpu.max", ""),
        ] {
            std::fs::write(top.join(file), text).unwrap();
        }
        let say = |version, file: &'static str, value: &str| {
            let refused = group(version, &top, vec![Write::new(file, value, "the.property")]).refused();
            refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        use Version::{V1, V2};
        for (version, file, value, expected) in [
            (V1, "cpuset.cpus", "0,1", ""),
            (V1, "cpuset.cpus", "0-4", "there is no 2; "),
            (V1, "cpuset.cpus", "x", "the.property: \"x\" is not a list"),
            (V1, "cpu.cfs_period_us", "100000", ""),
            (V1, "cpu.cfs_period_us", "999", "a period of 999 µs"),
            (V2, "cpu.max", "max 1000001", "a period of 1000001 µs"),
            (V2, "cpu.max", "500 100000", "a quota of 500 µs"),
            (V2, "cpu.max", "max 100000", ""),
            (V1, "hugetlb.3MB.limit_in_bytes", "1", "no huge pages of 3MB"),
            (V1, "blkio.throttle.read_bps_device", "4095:7 1", "blkio.throttle.read_bps_device"),
        ] {
            let said = say(version, file, value);
            assert!(said.is_empty() == expected.is_empty() && said.contains(expected), "{file} {value}: {said}");
        }
        std::fs::write(top.join("above/io.max"), "").unwrap();
        assert!(say(V2, "io.max", "4095:7 rbps=1").contains("there is no block device 4095:7"));
        std::fs::remove_dir_all(&top).unwrap();
    }
}
