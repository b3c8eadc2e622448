//! Changing the limits of a container that runs.

use crate::cgroup::NO_CGROUP;
use crate::dir::Dir;
use crate::error::Doing;
use crate::resources::{self, Stage, Target};
use crate::setting::{Setting, apply, apply_or_restore};
use crate::systemd::{SavedUnit, Systemd, properties, round_quotas};
use crate::{Cgroup, Error, FreezerState, Version};
use rrt_oci::{LinuxMemory, LinuxResources};
use std::time::Duration;

/// How long the freeze around a change of a unit on v1 may take.
const FREEZE: Duration = Duration::from_secs(2);

const UPDATE: &str = "update the container's limits";

impl Cgroup {
    /// Sets the limits that `r` gives and leaves all others, and the device rules, as they are.
    ///
    /// A value that the kernel checks against another works in every order (a memory limit raised above the old limit
    /// on memory and swap, or lowered below it). On cgroup v2, where one file holds two values, the one not given stays:
    /// quota and period; and the swap given is taken with the memory limit in force when none is given.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NoController`], [`Error::Limit`]; the values written before a failure are put back,
    /// where their files can be written as they are read. [`Error::Unavailable`] without cgroups.
    pub fn update(&self, r: &LinuxResources) -> Result<(), Error> {
        if self.is_disabled() {
            return Err(Error::Unavailable { what: "update the container's limits", reason: NO_CGROUP });
        }
        let resources = self.completed(r)?;
        let targets: Vec<Target<'_>> =
            self.groups.iter().map(|g| Target { version: g.version, controllers: &g.controllers }).collect();
        let mut settings = resources::settings(&resources, &targets, Stage::Update)?;
        if self.unit.is_some() {
            settings.iter_mut().for_each(|(i, s)| round_quotas(self.groups[*i].version, std::slice::from_mut(s)));
        }
        let mut dirs: Vec<Option<Dir>> = self.groups.iter().map(|_| None).collect();
        for (i, _) in &settings {
            if dirs[*i].is_none() {
                dirs[*i] = Some(Dir::open(&self.groups[*i].dir).doing(UPDATE)?);
            }
        }
        if let Some(memory) = r.memory() {
            self.check_usage(memory)?;
        }
        let indices: Vec<usize> = settings.iter().map(|(i, _)| *i).collect();
        let settings: Vec<(&Dir, &Setting)> =
            settings.iter().filter_map(|(i, setting)| Some((dirs[*i].as_ref()?, setting))).collect();
        let Some(unit) = &self.unit else { return apply_or_restore(&settings, || Ok(())) };
        let of = |version| {
            let groups = settings.iter().zip(&indices).filter(|(_, i)| self.groups[**i].version == version);
            groups.map(|((_, setting), _)| (*setting).clone()).collect::<Vec<Setting>>()
        };
        // The kernel first, which says what it does not take; then systemd, which would set its own values again some day.
        apply_or_restore(&settings, || {
            self.tell_systemd(unit, &[(Version::V1, of(Version::V1)), (Version::V2, of(Version::V2))])
        })?;
        // systemd has written them as it does.
        settings.iter().try_for_each(|(dir, setting)| apply(dir, setting, false))
    }

    /// Makes the new limits those of the unit.
    fn tell_systemd(&self, unit: &SavedUnit, settings: &[(Version, Vec<Setting>)]) -> Result<(), Error> {
        let mut systemd = Systemd::connect(unit.user)?;
        let version = systemd.facts()?.version;
        let changed: Vec<_> = settings.iter().flat_map(|(v, s)| properties(*v, s, version, false)).collect();
        if changed.is_empty() {
            return Ok(());
        }
        // On v1 systemd writes the device list anew with every change: for a moment no device is allowed.
        let freeze = self.v1("freezer").is_some() && self.freezer_state()? == FreezerState::Thawed;
        if freeze {
            self.freeze(FREEZE)?;
        }
        let done = systemd.set_properties(&unit.name, &changed);
        if freeze {
            self.thaw()?;
        }
        done
    }

    /// The resources, with what v2 needs beside a given value taken from what is in force.
    fn completed(&self, r: &LinuxResources) -> Result<LinuxResources, Error> {
        let mut r = r.clone();
        if self.unit.is_some()
            && let (Some(group), Some(cpu)) = (self.v1("cpu"), r.cpu_mut().as_mut())
            && cpu.quota().unwrap_or(0) != 0
            && cpu.period().unwrap_or(0) == 0
        {
            // systemd has to be told a share of time, for which the period is needed.
            let period = Dir::open(&group.dir).and_then(|d| d.read("cpu.cfs_period_us")).doing(UPDATE)?;
            cpu.set_period(period.trim_end().parse().ok());
        }
        let Some(group) = self.unified() else { return Ok(r) };
        let has = |controller: &str| group.controllers.iter().any(|c| c == controller);
        let unset = |value: Option<i64>| value.unwrap_or(0) == 0;
        if let Some(memory) = r.memory_mut().as_mut().filter(|m| has("memory") && unset(m.limit())) {
            // -1 and 0 need no memory limit beside them.
            if memory.swap().unwrap_or(0) > 0 {
                memory.set_limit(Some(number_or_max(&self.read_v2("memory.max")?)));
            }
        }
        if let Some(cpu) = r.cpu_mut().as_mut().filter(|_| has("cpu")) {
            let no_period = cpu.period().unwrap_or(0) == 0;
            if unset(cpu.quota()) != no_period {
                let now = self.read_v2("cpu.max")?;
                let (quota, period) = now.trim_end().split_once(' ').unwrap_or(("max", ""));
                if no_period {
                    cpu.set_period(period.parse().ok());
                } else {
                    cpu.set_quota(Some(number_or_max(quota)));
                }
            }
        }
        Ok(r)
    }

    fn read_v2(&self, file: &str) -> Result<String, Error> {
        let dir = &self.unified().ok_or(Error::NotMounted)?.dir;
        Dir::open(dir).and_then(|d| d.read(file)).doing(UPDATE)
    }

    /// `checkBeforeUpdate`: v2 takes a limit below the present use and then kills until it fits, so the limit is
    /// compared with the use first. (v1 refuses such a limit itself.)
    fn check_usage(&self, memory: &LinuxMemory) -> Result<(), Error> {
        if memory.check_before_update() != Some(true) || self.v1("memory").is_some() {
            return Ok(());
        }
        // As far as it can be known: without the file there is no limit to be wrong about either.
        let Some(usage) = self.read_v2("memory.current").ok().and_then(|t| t.trim_end().parse::<i64>().ok()) else {
            return Ok(());
        };
        for (property, limit) in
            [("linux.resources.memory.swap", memory.swap()), ("linux.resources.memory.limit", memory.limit())]
        {
            if limit.is_some_and(|l| l > 0 && l <= usage) {
                let limit = limit.unwrap_or(0);
                return Err(Error::Invalid {
                    property: property.into(),
                    reason: format!("rejecting limit {limit} <= usage {usage}, as checkBeforeUpdate asks"),
                });
            }
        }
        Ok(())
    }
}

/// A value of v2 as the specification's number: `max` is -1.
fn number_or_max(text: &str) -> i64 {
    text.trim_end().parse().unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Version;
    use crate::cgroup::Group;
    use crate::testing::FakeDir;

    fn v2(fake: &FakeDir) -> Cgroup {
        let controllers = ["cpu", "memory", "pids"].map(str::to_owned).to_vec();
        Cgroup {
            groups: vec![Group { version: Version::V2, controllers, dir: fake.path().into() }],
            unit: None,
            made: Vec::new(),
        }
    }

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_other_half_of_a_file_stays() {
        let fake = FakeDir::new("half", &[("cpu.max", "50000 100000\n")]);
        v2(&fake).update(&resources(r#"{"cpu":{"period":200000}}"#)).unwrap();
        assert_eq!(fake.content("cpu.max"), "50000 200000\n");
        v2(&fake).update(&resources(r#"{"cpu":{"quota":70000}}"#)).unwrap();
        assert_eq!(fake.content("cpu.max"), "70000 200000\n");
    }

    #[test]
    fn swap_alone_is_taken_with_the_limit_in_force() {
        let fake = FakeDir::new("swap", &[("memory.max", "1000\n"), ("memory.swap.max", "max")]);
        v2(&fake).update(&resources(r#"{"memory":{"swap":1500}}"#)).unwrap();
        assert_eq!(fake.content("memory.swap.max"), "500");
        let text = v2(&fake).update(&resources(r#"{"memory":{"swap":900}}"#)).unwrap_err().to_string();
        assert!(text.starts_with("linux.resources.memory.swap: "), "{text}");
    }

    #[test]
    fn a_limit_below_the_use_is_rejected_when_asked() {
        let fake = FakeDir::new("usage", &[("memory.current", "1000\n"), ("memory.max", "max\n")]);
        let update = |json: &str| v2(&fake).update(&resources(json)).map_err(|e| e.to_string());
        let text = update(r#"{"memory":{"limit":900,"checkBeforeUpdate":true}}"#).unwrap_err();
        assert!(text.contains("900 <= usage 1000"), "{text}");
        assert_eq!(fake.content("memory.max"), "max\n");
        update(r#"{"memory":{"limit":900}}"#).unwrap();
        assert_eq!(fake.content("memory.max"), "900\n");
    }
}
