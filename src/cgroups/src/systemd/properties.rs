//! Limits as properties of a unit (systemd.resource-control(5)).
//!
//! They are derived from the values planned for the cgroup's files, so `unified` and the properties of config.json need no two
//! tables, and what wins in the files wins here. What is not listed, or has a form that is not known here, is left to the
//! files alone.

use super::unit::Property;
use super::value::Value;
use crate::Version;
use crate::setting::{Setting, Write};
use std::borrow::Cow;

/// The versions of systemd that first had a property. The others are older than any kernel this runtime works on.
const CPU_IDLE: u32 = 252;
const OOM_POLICY: u32 = 253;
const ZSWAP_MAX: u32 = 253;

/// systemd's word for "no limit".
const INFINITY: u64 = u64::MAX;

/// Microseconds in a second; and in one percent of it, systemd's unit for a share of CPU time.
const SECOND: u64 = 1_000_000;
const PERCENT: u64 = SECOND / 100;
/// The kernel's period when none is set, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// The properties for what will be written into the files of a hierarchy. `new`: the unit is being made, which is when a few
/// more can be set.
pub(crate) fn properties(version: Version, settings: &[Setting], systemd: u32, new: bool) -> Vec<Property> {
    let mut found = Found { properties: Vec::new(), quota: None, period: None, idle: false };
    for write in settings.iter().flatten() {
        match version {
            Version::V1 => v1(write, &mut found),
            Version::V2 => v2(write, systemd, new, &mut found),
        };
    }
    found.finish()
}

#[derive(Default)]
struct Found {
    properties: Vec<Property>,
    /// Microseconds a period; `None` is "not given", [`INFINITY`] is no limit.
    quota: Option<u64>,
    /// Microseconds.
    period: Option<u64>,
    /// `cpu.idle` is 1: systemd sets it by a weight of 0, in whose place no other can stand.
    idle: bool,
}

impl Found {
    fn set(&mut self, name: impl Into<Cow<'static, str>>, value: Value) {
        let name = name.into();
        match self.properties.iter_mut().find(|p| p.name == name) {
            Some(property) => property.value = value,
            None => self.properties.push(Property { name, value }),
        }
    }

    fn limit(&mut self, name: &'static str, text: &str) -> Option<()> {
        self.set(name, Value::Uint64(amount(text)?));
        Some(())
    }

    fn list(&mut self, name: &'static str, text: &str) -> Option<()> {
        self.set(name, bits(text)?);
        Some(())
    }

    /// One more device of a list like `IOReadBandwidthMax`; the last value for a device counts.
    fn device(&mut self, name: &'static str, number: &str, value: u64) {
        let entry = Value::Struct(vec![Value::Str(format!("/dev/block/{number}")), Value::Uint64(value)]);
        match self.properties.iter_mut().find(|p| p.name == name) {
            Some(Property { value: Value::Array(_, list), .. }) => list.push(entry),
            _ => self.properties.push(Property::new(name, Value::Array("(st)".into(), vec![entry]))),
        }
    }

    fn finish(mut self) -> Vec<Property> {
        if self.idle {
            self.set("CPUWeight", Value::Uint64(0));
        }
        if let Some(period) = self.period {
            self.set("CPUQuotaPeriodUSec", Value::Uint64(period));
        }
        if self.quota.is_some() || self.period.is_some() {
            let quota = self.quota.unwrap_or(INFINITY);
            let share = share_of_second(quota, self.period.unwrap_or(DEFAULT_PERIOD));
            self.set("CPUQuotaPerSecUSec", Value::Uint64(share));
        }
        self.properties
    }
}

/// The quota as microseconds of CPU time in a second, rounded up to a whole percent: systemd writes no fractions into its
/// unit files, and would set less the next time it reads them.
fn share_of_second(quota: u64, period: u64) -> u64 {
    if quota == INFINITY || period == 0 {
        return INFINITY;
    }
    let share = u128::from(quota) * u128::from(SECOND) / u128::from(period);
    u64::try_from(share).map_or(INFINITY, |share| share.div_ceil(PERCENT).saturating_mul(PERCENT))
}

/// The quota that systemd would set for `quota`; see [`share_of_second`]. As in runc the file gets the same value, so that
/// it does not change when systemd writes it the next time.
fn rounded_quota(quota: u64, period: u64) -> u64 {
    match share_of_second(quota, period) {
        INFINITY => quota,
        share => (u128::from(share) * u128::from(period) / u128::from(SECOND)) as u64,
    }
}

/// Rounds the quotas in values for the files of a hierarchy.
pub(crate) fn round_quotas(version: Version, settings: &mut [Setting]) {
    let period_of_v1 = settings.iter().flatten().find(|w| w.file == "cpu.cfs_period_us");
    let period_of_v1 = period_of_v1.and_then(|w| w.value.parse().ok()).unwrap_or(DEFAULT_PERIOD);
    for write in settings.iter_mut().flatten() {
        let (quota, period) = match (version, write.file.as_ref()) {
            (Version::V1, "cpu.cfs_quota_us") => (write.value.as_str(), period_of_v1),
            (Version::V2, "cpu.max") => match write.value.trim().split_once(' ') {
                Some((quota, period)) => (quota, period.trim().parse().unwrap_or(0)),
                None => (write.value.trim(), DEFAULT_PERIOD),
            },
            _ => continue,
        };
        let Ok(given) = quota.parse::<u64>() else { continue };
        let rounded = rounded_quota(given, period);
        if rounded != given {
            write.value = match version {
                Version::V1 => rounded.to_string(),
                Version::V2 => format!("{rounded} {period}"),
            };
        }
    }
}

/// A number of bytes or tasks as the kernel reads it: `max`, -1, and suffixes.
fn amount(text: &str) -> Option<u64> {
    let text = text.trim();
    if text == "max" || text == "-1" {
        return Some(INFINITY);
    }
    let digits = text.trim_end_matches(|c: char| "kKmMgGtT".contains(c));
    let shift = match &text.as_bytes()[digits.len()..] {
        [] => 0,
        [b'k' | b'K'] => 10,
        [b'm' | b'M'] => 20,
        [b'g' | b'G'] => 30,
        [b't' | b'T'] => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A list of processors or nodes (`0-3,5`) as bits, the first in the lowest bit of the first byte.
fn bits(list: &str) -> Option<Value> {
    /// Far more than a kernel can have.
    const MOST: usize = 1 << 16;
    let mut bytes = Vec::new();
    for range in list.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0u8);
        (first..=last).for_each(|n| bytes[n / 8] |= 1 << (n % 8));
    }
    (!bytes.is_empty()).then(|| Value::bytes(&bytes))
}

fn v2(write: &Write, systemd: u32, new: bool, to: &mut Found) -> Option<()> {
    let value = write.value.trim();
    match write.file.as_ref() {
        "memory.min" => to.limit("MemoryMin", value),
        "memory.low" => to.limit("MemoryLow", value),
        "memory.high" => to.limit("MemoryHigh", value),
        "memory.max" => to.limit("MemoryMax", value),
        "memory.swap.max" => to.limit("MemorySwapMax", value),
        "memory.zswap.max" if systemd >= ZSWAP_MAX => to.limit("MemoryZSwapMax", value),
        // systemd knows it by its purpose, and only when the unit is made.
        "memory.oom.group" if systemd >= OOM_POLICY && new => {
            let policy = match value {
                "0" => "continue",
                "1" => "kill",
                _ => return None,
            };
            to.set("OOMPolicy", Value::str(policy));
            Some(())
        }
        // systemd takes no 0; the file is 1 then, too.
        "pids.max" => {
            let limit = amount(value)?.max(1);
            to.set("TasksMax", Value::Uint64(limit));
            Some(())
        }
        "cpu.weight" => to.limit("CPUWeight", value),
        "cpu.idle" => {
            to.idle = value == "1" && systemd >= CPU_IDLE;
            Some(())
        }
        "cpu.max" => {
            let mut words = value.split_whitespace();
            to.quota = Some(amount(words.next()?)?);
            if let Some(period) = words.next() {
                to.period = Some(period.parse().ok()?);
            }
            Some(())
        }
        "cpuset.cpus" => to.list("AllowedCPUs", value),
        "cpuset.mems" => to.list("AllowedMemoryNodes", value),
        "io.max" => io_max(value, to),
        "io.weight" => io_weight(value, to),
        // systemd writes bfq's weight itself, from the general one.
        "io.bfq.weight" => io_weight(&write.otherwise.as_ref()?.1, to),
        _ => None,
    }
}

/// `8:0 rbps=1 wiops=max`
fn io_max(line: &str, to: &mut Found) -> Option<()> {
    let (device, limits) = line.split_once(' ')?;
    for limit in limits.split_whitespace() {
        let (key, value) = limit.split_once('=')?;
        let name = match key {
            "rbps" => "IOReadBandwidthMax",
            "wbps" => "IOWriteBandwidthMax",
            "riops" => "IOReadIOPSMax",
            "wiops" => "IOWriteIOPSMax",
            _ => return None,
        };
        to.device(name, device, amount(value)?);
    }
    Some(())
}

/// `500`, `default 500`, `8:0 500`
fn io_weight(line: &str, to: &mut Found) -> Option<()> {
    match line.split_once(' ') {
        None => to.limit("IOWeight", line),
        Some(("default", weight)) => to.limit("IOWeight", weight),
        Some((device, weight)) => {
            to.device("IODeviceWeight", device, weight.trim().parse().ok()?);
            Some(())
        }
    }
}

fn v1(write: &Write, to: &mut Found) -> Option<()> {
    let value = write.value.trim();
    let throttle = |to: &mut Found, name| {
        let (device, rate) = value.split_once(' ')?;
        let rate = rate.parse().ok()?;
        // 0 takes the limit away.
        to.device(name, device, if rate == 0 { INFINITY } else { rate });
        Some(())
    };
    match write.file.as_ref() {
        "memory.limit_in_bytes" => to.limit("MemoryLimit", value),
        "pids.max" => {
            to.set("TasksMax", Value::Uint64(amount(value)?.max(1)));
            Some(())
        }
        "cpu.shares" => to.limit("CPUShares", value),
        "cpu.cfs_period_us" => {
            to.period = Some(value.parse().ok()?);
            Some(())
        }
        "cpu.cfs_quota_us" => {
            to.quota = Some(amount(value)?);
            Some(())
        }
        "cpuset.cpus" => to.list("AllowedCPUs", value),
        "cpuset.mems" => to.list("AllowedMemoryNodes", value),
        "blkio.weight" => to.limit("BlockIOWeight", value),
        "blkio.weight_device" => {
            let (device, weight) = value.split_once(' ')?;
            to.device("BlockIODeviceWeight", device, weight.parse().ok()?);
            Some(())
        }
        "blkio.throttle.read_bps_device" => throttle(to, "BlockIOReadBandwidth"),
        "blkio.throttle.write_bps_device" => throttle(to, "BlockIOWriteBandwidth"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{self, Stage, Target};

    const CONTROLLERS: [&str; 10] =
        ["cpu", "cpuset", "memory", "pids", "blkio", "io", "hugetlb", "rdma", "net_cls", "net_prio"];

    fn of(version: Version, json: &str, systemd: u32, new: bool) -> Vec<String> {
        let controllers: Vec<String> = CONTROLLERS.map(str::to_owned).to_vec();
        let targets = [Target { version, controllers: &controllers }];
        let resources = serde_json::from_str(json).unwrap();
        let stage = if new { Stage::Create } else { Stage::Update };
        let settings = resources::settings(&resources, &targets, stage).unwrap();
        let settings: Vec<Setting> = settings.into_iter().map(|(_, s)| s).collect();
        properties(version, &settings, systemd, new).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_limits_of_config_json_on_v2() {
        let json = r#"{"memory":{"limit":100,"swap":150,"reservation":50,"swappiness":60},
            "cpu":{"shares":2048,"quota":50000,"period":200000,"burst":1000,"cpus":"0-2,9","mems":"0"},
            "pids":{"limit":7},"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#;
        assert_eq!(
            of(Version::V2, json, 252, true),
            [
                "TasksMax = uint64 7",
                "MemorySwapMax = uint64 50",
                "MemoryMax = uint64 100",
                "MemoryLow = uint64 50",
                "CPUWeight = uint64 174",
                "AllowedCPUs = [byte 0x07, byte 0x02]",
                "AllowedMemoryNodes = [byte 0x01]",
                "CPUQuotaPeriodUSec = uint64 200000",
                "CPUQuotaPerSecUSec = uint64 250000",
            ]
        );
        let none = format!("uint64 {}", u64::MAX);
        assert_eq!(
            of(Version::V2, r#"{"pids":{"limit":-1},"memory":{"limit":-1},"cpu":{"quota":-1}}"#, 252, false),
            [
                format!("TasksMax = {none}"),
                format!("MemorySwapMax = {none}"),
                format!("MemoryMax = {none}"),
                "CPUQuotaPeriodUSec = uint64 100000".into(),
                format!("CPUQuotaPerSecUSec = {none}"),
            ]
        );
    }

    #[test]
    fn disks_on_v2() {
        let json = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":16,"rate":2}],
            "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#;
        assert_eq!(
            of(Version::V2, json, 252, true),
            [
                "IOWeight = uint64 4950",
                "IODeviceWeight = [('/dev/block/8:0', uint64 1)]",
                "IOReadBandwidthMax = [('/dev/block/8:0', uint64 1), ('/dev/block/8:16', uint64 2)]",
                "IOWriteIOPSMax = [('/dev/block/8:16', uint64 18446744073709551615)]",
            ]
        );
    }

    #[test]
    fn unified_files_win_and_are_read_as_the_kernel_does() {
        let json = r#"{"memory":{"limit":100},"cpu":{"shares":1024},"unified":{"memory.max":"2M","memory.high":"max",
            "memory.min":"5","cpu.max":"max","cpu.weight":"42","pids.max":"0","io.max":"8:0 rbps=7 wbps=max",
            "io.weight":"default 5","cpuset.cpus":"1","memory.zswap.max":"1","hugetlb.2MB.max":"1","memory.oom.group":"1"}}"#;
        let old = of(Version::V2, json, 252, true);
        let none = u64::MAX;
        assert_eq!(
            old,
            [
                "MemoryMax = uint64 2097152".to_owned(),
                "CPUWeight = uint64 42".into(),
                "AllowedCPUs = [byte 0x02]".into(),
                "IOReadBandwidthMax = [('/dev/block/8:0', uint64 7)]".into(),
                format!("IOWriteBandwidthMax = [('/dev/block/8:0', uint64 {none})]"),
                "IOWeight = uint64 5".into(),
                format!("MemoryHigh = uint64 {none}"),
                "MemoryMin = uint64 5".into(),
                "TasksMax = uint64 1".into(),
                format!("CPUQuotaPerSecUSec = uint64 {none}"),
            ]
        );
        let new = of(Version::V2, json, 257, true);
        assert!(
            new.contains(&"OOMPolicy = 'kill'".to_owned()) && new.contains(&"MemoryZSwapMax = uint64 1".to_owned())
        );
        assert!(!of(Version::V2, json, 257, false).iter().any(|p| p.starts_with("OOMPolicy")));
        // What is no number to us the kernel may still understand.
        assert!(of(Version::V2, r#"{"unified":{"memory.high":"0x10"}}"#, 257, true).is_empty());
    }

    #[test]
    fn an_idle_cgroup_has_a_weight_of_zero() {
        let json = r#"{"cpu":{"shares":2048,"idle":1}}"#;
        assert_eq!(of(Version::V2, json, 252, true), ["CPUWeight = uint64 0"]);
        assert_eq!(of(Version::V2, json, 251, true), ["CPUWeight = uint64 174"]);
        assert_eq!(of(Version::V2, r#"{"cpu":{"idle":0}}"#, 252, true), [""; 0]);
    }

    #[test]
    fn the_limits_of_config_json_on_v1() {
        let json = r#"{"memory":{"limit":100,"swap":150},"cpu":{"shares":2048,"quota":50001,"cpus":"0"},
            "pids":{"limit":-1},"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":1}]}}"#;
        assert_eq!(
            of(Version::V1, json, 252, true),
            [
                "TasksMax = uint64 18446744073709551615",
                "MemoryLimit = uint64 100",
                "BlockIOWeight = uint64 500",
                "BlockIODeviceWeight = [('/dev/block/8:0', uint64 10)]",
                "BlockIOReadBandwidth = [('/dev/block/8:0', uint64 1)]",
                "CPUShares = uint64 2048",
                "AllowedCPUs = [byte 0x01]",
                "CPUQuotaPerSecUSec = uint64 510000",
            ]
        );
    }

    #[test]
    fn a_share_of_cpu_time_is_whole_percents() {
        assert_eq!(share_of_second(50_000, 100_000), 500_000);
        assert_eq!(share_of_second(50_001, 100_000), 510_000);
        assert_eq!(rounded_quota(500_000, 900_000), 504_000);
        assert_eq!(rounded_quota(50_000, 100_000), 50_000);
        assert_eq!(rounded_quota(u64::MAX, 100_000), u64::MAX);
        assert_eq!(rounded_quota(5, 0), 5);
    }

    #[test]
    fn the_files_get_the_rounded_quota() {
        let mut settings: Vec<Setting> = vec![vec![
            Write::new("cpu.max", "500000 900000", "p"),
            Write::new("cpu.max", "max 100000", "p"),
            Write::new("cpu.max", "50001", "p"),
            Write::new("cpu.weight", "50001", "p"),
        ]];
        round_quotas(Version::V2, &mut settings);
        let values = |settings: &[Setting]| settings[0].iter().map(|w| w.value.clone()).collect::<Vec<_>>();
        assert_eq!(values(&settings), ["504000 900000", "max 100000", "51000 100000", "50001"]);
        let mut settings: Vec<Setting> =
            vec![vec![Write::new("cpu.cfs_quota_us", "500000", "p"), Write::new("cpu.cfs_period_us", "900000", "p")]];
        round_quotas(Version::V1, &mut settings);
        assert_eq!(values(&settings), ["504000", "900000"]);
        let mut settings: Vec<Setting> = vec![vec![Write::new("cpu.cfs_quota_us", "-1", "p")]];
        round_quotas(Version::V1, &mut settings);
        assert_eq!(values(&settings), ["-1"]);
    }

    #[test]
    fn lists_that_are_none_are_left_to_the_kernel() {
        for list in ["", ",", "a", "3-1", "0-99999999999", "0-70000", "-1"] {
            assert_eq!(bits(list), None, "{list}");
        }
        assert_eq!(bits(" 8, 0"), Some(Value::bytes(&[1, 1])));
    }
}
