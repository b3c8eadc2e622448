//! The container's cgroup worked out before anything is made: a value that `create` applies and `rrt plan` prints.

use crate::device::{self, DeviceRule, DevicesV1};
use crate::path::CgroupPath;
use crate::resources::{self, Stage, Target};
use crate::setting::{Setting, Write};
use crate::systemd::{SavedUnit, SystemdFacts, UnitPlan, round_quotas};
use crate::{Error, Hierarchy, HostCgroups, Mode, SavedCgroup, Version, bpf};
use rrt_oci::LinuxResources;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Who makes the cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Manager {
    /// This program, through the cgroup file system.
    Cgroupfs,
    /// Nobody (`--cgroup-manager=disabled`, an extra of crun): the container stays in the cgroups of whoever started
    /// it, and limits and device rules have no effect.
    Disabled,
}

/// The container's cgroup, hierarchy by hierarchy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CgroupPlan {
    /// The unit whose cgroup it is, with the systemd driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitPlan>,
    pub(crate) groups: Vec<PlannedGroup>,
    pub(crate) rights: Rights,
}

/// What follows from a hierarchy that we may not write to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) enum Rights {
    /// An error.
    #[default]
    Required,
    /// Rootless: the container gets no cgroup in it, if nothing was asked for that needs one. Device rules are not enforced: a
    /// user can make no device node, and opens those that are there by their modes.
    Optional,
    /// Rootless, but config.json names the cgroup, so it has to be made. Device rules as with `Optional`.
    Named,
}

/// The container's cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PlannedGroup {
    pub(crate) version: Version,
    pub(crate) controllers: Vec<String>,
    pub(crate) mount: PathBuf,
    /// Below `mount`, without leading slash.
    pub(crate) path: PathBuf,
    /// v2: controllers to hand down from the hierarchy's root to here.
    pub(crate) enable: Vec<String>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) devices: Option<Devices>,
}

/// The device rules as a hierarchy takes them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum Devices {
    /// Lines for `devices.allow` and `devices.deny`.
    V1(DevicesV1),
    /// A program.
    V2 {
        #[serde(rename = "instructions", serialize_with = "length")]
        program: Vec<rrt_sys::bpf::Insn>,
        /// Whether a kernel that cannot load the program would do no harm.
        required: bool,
    },
}

fn length<S: Serializer>(program: &[rrt_sys::bpf::Insn], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(program.len() as u64)
}

/// A file and what is written to it, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedWrite<'a> {
    /// The file, absolute.
    pub file: PathBuf,
    /// The value.
    pub value: &'a str,
    /// The property of config.json it comes from.
    pub property: &'a str,
    /// Left out when the cgroup is new, because the kernel starts with it.
    pub default: bool,
}

impl PlannedGroup {
    pub(crate) fn dir(&self) -> PathBuf {
        self.mount.join(&self.path)
    }

    pub(crate) fn is_cpuset_v1(&self) -> bool {
        self.version == Version::V1 && self.controllers.iter().any(|c| c == "cpuset")
    }
}

impl CgroupPlan {
    /// The plan of a rootless container, as in runc: where cgroups are not delegated to the user there are none, unless
    /// `linux.cgroupsPath` (then `named`) or a limit asks for one.
    pub fn rootless(self, named: bool) -> CgroupPlan {
        CgroupPlan { rights: if named { Rights::Named } else { Rights::Optional }, ..self }
    }

    /// Whether the container goes without a cgroup where none may be made.
    pub fn may_be_left_out(&self) -> bool {
        self.rights == Rights::Optional
    }

    /// Whether there is a hierarchy of version 1, whose cgroup a process has to join itself.
    pub fn has_v1(&self) -> bool {
        self.groups.iter().any(|group| group.version == Version::V1)
    }

    /// The directories, one a hierarchy, absolute. Missing ones above them are made too.
    pub fn dirs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.groups.iter().map(PlannedGroup::dir)
    }

    /// Every file that is written, in order, but those that bring a process in.
    pub fn writes(&self) -> impl Iterator<Item = PlannedWrite<'_>> {
        self.groups.iter().flat_map(|group| {
            let dir = group.dir();
            let devices = dir.clone();
            let of_setting = move |w: &'_ Write| (dir.join(w.file.as_ref()), w.default);
            let settings = group.settings.iter().flatten().map(move |w| {
                let (file, default) = of_setting(w);
                PlannedWrite { file, value: &w.value, property: &w.property, default }
            });
            settings.chain(device_lines(group).map(move |(file, value)| PlannedWrite {
                file: devices.join(file),
                value,
                property: DEVICES,
                default: false,
            }))
        })
    }

    /// The length of the device filter, in instructions, where devices are filtered by a program.
    pub fn device_program_len(&self) -> Option<usize> {
        self.groups.iter().find_map(|g| match &g.devices {
            Some(Devices::V2 { program, .. }) => Some(program.len()),
            _ => None,
        })
    }

    /// What `create` will make, as [`crate::Cgroup::saved`] gives it afterwards: for a state file that is written first,
    /// so that a runtime killed half-way leaves nothing unknown.
    pub fn saved(&self) -> SavedCgroup {
        SavedCgroup { unit: self.saved_unit(), ..SavedCgroup::of(self.groups.iter()) }
    }

    pub(crate) fn saved_unit(&self) -> Option<SavedUnit> {
        self.unit.as_ref().map(|unit| unit.saved(self.tracked().map(PlannedGroup::dir).unwrap_or_default()))
    }

    /// The cgroup by which systemd tracks the unit's processes.
    pub(crate) fn tracked(&self) -> Option<&PlannedGroup> {
        let named = self.groups.iter().find(|g| g.controllers.iter().any(|c| c == "name=systemd"));
        named.or_else(|| self.groups.iter().find(|g| g.version == Version::V2))
    }

    /// The directories by controller, as [`crate::Cgroup::paths`] of the finished cgroup.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        crate::Cgroup::open(SavedCgroup::of(self.groups.iter())).paths()
    }
}

const DEVICES: &str = "linux.resources.devices";

/// The device lines of a v1 group: first the default, which empties the list of exceptions, then the exceptions.
pub(crate) fn device_lines(group: &PlannedGroup) -> impl Iterator<Item = (&'static str, &str)> {
    let form = match &group.devices {
        Some(Devices::V1(form)) => Some(form),
        _ => None,
    };
    form.into_iter().flat_map(|form| {
        let (default, exception) =
            if form.allow_by_default { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
        std::iter::once((default, "a")).chain(form.exceptions.iter().map(move |line| (exception, line.as_str())))
    })
}

/// Works out the container's cgroup. Pure: everything about the machine is in `host`.
///
/// `device_rules` are the rules in force, in order: those of config.json and the runtime's own (`resources.devices` is
/// not read here).
///
/// # Errors
/// [`Error::Invalid`] and [`Error::NoController`], both with the property's name.
pub fn plan(
    host: &HostCgroups,
    manager: Manager,
    cgroups_path: Option<&Path>,
    id: &str,
    resources: Option<&LinuxResources>,
    device_rules: &[DeviceRule],
) -> Result<CgroupPlan, Error> {
    if manager == Manager::Disabled {
        return Ok(CgroupPlan { unit: None, groups: Vec::new(), rights: Rights::Required });
    }
    let path = CgroupPath::parse(cgroups_path, id)?;
    let mut groups = plan_groups(host, resources, |hierarchy| path.within(hierarchy, host.mode))?;
    for (group, hierarchy) in groups.iter_mut().zip(&host.hierarchies) {
        group.enable = enabled(host.mode, hierarchy, &group.settings);
    }
    // Nothing is mounted, and nothing needs it: for a rootless container that is no reason to fail.
    if !groups.is_empty() {
        plan_devices(&mut groups, device_rules)?;
    }
    Ok(CgroupPlan { unit: None, groups, rights: Rights::Required })
}

/// Works out the container's cgroup as that of a unit of systemd's; `facts` are about its manager, `annotations` those of
/// config.json. Pure, too.
///
/// # Errors
/// [`Error::Invalid`] and [`Error::NoController`], both with the property's name.
pub fn plan_unit(
    host: &HostCgroups,
    facts: &SystemdFacts,
    cgroups_path: Option<&Path>,
    id: &str,
    resources: Option<&LinuxResources>,
    device_rules: &[DeviceRule],
    annotations: &BTreeMap<String, String>,
) -> Result<CgroupPlan, Error> {
    let legacy = host.mode != Mode::V2;
    if facts.user && legacy {
        return Err(Error::invalid(
            "--systemd-cgroup",
            "cannot use rootless systemd cgroups manager on cgroup v1; use cgroup v2, or leave the flag out",
        ));
    }
    let path =
        cgroups_path.map(|p| p.to_str().ok_or_else(|| Error::invalid("linux.cgroupsPath", "is not valid UTF-8")));
    let mut unit = UnitPlan::new(facts, path.transpose()?, id, legacy)?;
    let mut groups = plan_groups(host, resources, |_| unit.path.clone())?;
    plan_devices(&mut groups, device_rules)?;
    unit.add_devices(device_rules, legacy);
    for (group, hierarchy) in groups.iter_mut().zip(&host.hierarchies) {
        // Beside v1 systemd hands no controllers of the unified hierarchy down, but a kernel may have some nowhere else: Debian
        // 13's has `memory` and `cpuset` for v2 only.
        if legacy {
            group.enable = enabled(host.mode, hierarchy, &group.settings);
        }
        round_quotas(group.version, &mut group.settings);
        // systemd has its own defaults (of tasks, for one), so those of a new cgroup are written too, where they can be.
        for write in group.settings.iter_mut().flatten().filter(|w| w.default) {
            (write.default, write.optional) = (false, true);
        }
        unit.add_limits(group.version, &group.settings, facts.version);
    }
    unit.add_annotations(annotations)?;
    Ok(CgroupPlan { unit: Some(unit), groups, rights: Rights::Required })
}

/// The container's cgroup in each hierarchy with its limits, without its devices.
fn plan_groups(
    host: &HostCgroups,
    resources: Option<&LinuxResources>,
    path: impl Fn(&Hierarchy) -> PathBuf,
) -> Result<Vec<PlannedGroup>, Error> {
    let mut groups = Vec::with_capacity(host.hierarchies.len());
    for hierarchy in &host.hierarchies {
        groups.push(PlannedGroup {
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
            mount: hierarchy.mount.clone(),
            path: storable(path(hierarchy))?,
            enable: Vec::new(),
            settings: Vec::new(),
            devices: None,
        });
    }
    if let Some(resources) = resources {
        let targets: Vec<Target<'_>> =
            host.hierarchies.iter().map(|h| Target { version: h.version, controllers: &h.controllers }).collect();
        for (i, setting) in resources::settings(resources, &targets, Stage::Create)? {
            groups[i].settings.push(setting);
        }
    }
    Ok(groups)
}

/// The state file is JSON, so a path has to be text. (config.json can hold no other; the runtime's own cgroup could.)
fn storable(path: PathBuf) -> Result<PathBuf, Error> {
    match path.to_str() {
        Some(_) => Ok(path),
        None => Err(Error::invalid(
            "linux.cgroupsPath",
            format!("{path:?} is not valid UTF-8, because the runtime's own cgroup is not; use an absolute path"),
        )),
    }
}

/// Which controllers are handed down to the container. On v2 all, as every runtime does: engines read the statistics
/// of a container without limits too. On a hybrid machine only what is needed: who set it up has given the unified
/// hierarchy its few controllers for a purpose of their own.
fn enabled(mode: Mode, hierarchy: &Hierarchy, settings: &[Setting]) -> Vec<String> {
    match (hierarchy.version, mode) {
        (Version::V1, _) => Vec::new(),
        (Version::V2, Mode::V2) => hierarchy.controllers.clone(),
        (Version::V2, _) => {
            let needed = |c: &&String| {
                let mut files = settings.iter().flatten().map(|w| w.file.as_ref());
                files.any(|f| f.strip_prefix(c.as_str()).is_some_and(|rest| rest.starts_with('.')))
            };
            hierarchy.controllers.iter().filter(needed).cloned().collect()
        }
    }
}

fn plan_devices(groups: &mut [PlannedGroup], rules: &[DeviceRule]) -> Result<(), Error> {
    let v1 = groups.iter_mut().find(|g| g.version == Version::V1 && g.controllers.iter().any(|c| c == "devices"));
    if let Some(group) = v1 {
        group.devices = Some(Devices::V1(device::fold_v1(rules)?));
        return Ok(());
    }
    // The unified hierarchy filters by program whatever controllers it has, on a hybrid machine too.
    let Some(group) = groups.iter_mut().find(|g| g.version == Version::V2) else {
        return Err(Error::NoController { property: DEVICES.into(), controller: "devices".into() });
    };
    let (allow_by_default, rest) = device::relevant(rules);
    let required = !allow_by_default || rest.iter().any(|r| !r.allow);
    group.devices = Some(Devices::V2 { program: bpf::compile(rules), required });
    Ok(())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
