//! Plans of whole containers on imagined machines.

use super::*;
use crate::{Access, DeviceKind};

fn hierarchy(version: Version, controllers: &str, mount: &str, own: &str) -> Hierarchy {
    let controllers = controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
    Hierarchy { version, controllers, mount: mount.into(), own: own.into() }
}

fn hybrid() -> HostCgroups {
    HostCgroups {
        mode: Mode::Hybrid,
        hierarchies: vec![
            hierarchy(Version::V1, "memory", "/cg/memory", "/own"),
            hierarchy(Version::V1, "devices", "/cg/devices", "/"),
            hierarchy(Version::V1, "name=systemd", "/cg/systemd", "/"),
            hierarchy(Version::V2, "hugetlb", "/cg/unified", "/"),
        ],
    }
}

fn v2() -> HostCgroups {
    HostCgroups { mode: Mode::V2, hierarchies: vec![hierarchy(Version::V2, "cpu,memory,pids", "/cg", "/user/s")] }
}

fn rules() -> Vec<DeviceRule> {
    vec![
        DeviceRule { allow: false, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL },
        DeviceRule::allow(DeviceKind::Char, Some(1), Some(3), Access::ALL),
    ]
}

fn writes(plan: &CgroupPlan) -> Vec<String> {
    plan.writes().map(|w| format!("{} <- {} ({})", w.file.display(), w.value, w.property)).collect()
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_container_on_a_hybrid_machine() {
    let resources = resources(r#"{"memory":{"limit":1048576},"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#);
    let plan = plan(&hybrid(), Manager::Cgroupfs, None, "box", Some(&resources), &rules()).unwrap();
    let dirs: Vec<_> = plan.dirs().collect();
    let expected = ["/cg/memory/own/box", "/cg/devices/box", "/cg/systemd/box", "/cg/unified/box"];
    assert_eq!(dirs, expected.map(PathBuf::from));
    assert_eq!(
        writes(&plan),
        [
            "/cg/memory/own/box/memory.limit_in_bytes <- 1048576 (linux.resources.memory.limit)",
            "/cg/devices/box/devices.deny <- a (linux.resources.devices)",
            "/cg/devices/box/devices.allow <- c 1:3 rwm (linux.resources.devices)",
            "/cg/unified/box/hugetlb.2MB.max <- 0 (linux.resources.hugepageLimits[0].limit)",
            "/cg/unified/box/hugetlb.2MB.rsvd.max <- 0 (linux.resources.hugepageLimits[0].limit)",
        ]
    );
    assert_eq!(plan.device_program_len(), None);
    assert_eq!(plan.groups[3].enable, ["hugetlb"]);
    let saved = plan.saved();
    let again: SavedCgroup = serde_json::from_str(&serde_json::to_string(&saved).unwrap()).unwrap();
    assert_eq!(saved, again);
}

#[test]
fn the_unified_hierarchy_of_a_hybrid_machine_is_left_alone_without_need() {
    let plan = plan(&hybrid(), Manager::Cgroupfs, Some(Path::new("/a/box")), "box", None, &rules()).unwrap();
    assert_eq!(plan.groups[3].enable, Vec::<String>::new());
}

#[test]
fn a_container_on_a_v2_machine() {
    let resources = resources(r#"{"cpu":{"shares":512},"unified":{"memory.high":"5"}}"#);
    let plan = plan(&v2(), Manager::Cgroupfs, Some(Path::new("a/box")), "box", Some(&resources), &rules()).unwrap();
    assert_eq!(plan.dirs().collect::<Vec<_>>(), [PathBuf::from("/cg/user/a/box")]);
    assert_eq!(
        writes(&plan),
        [
            "/cg/user/a/box/cpu.weight <- 59 (linux.resources.cpu.shares)",
            "/cg/user/a/box/memory.high <- 5 (linux.resources.unified[\"memory.high\"])",
        ]
    );
    // Statistics are wanted of containers without limits, too.
    assert_eq!(plan.groups[0].enable, ["cpu", "memory", "pids"]);
    assert!(plan.device_program_len().unwrap() > 8);
}

#[test]
fn devices_where_the_controller_is_missing() {
    let mut host = hybrid();
    host.hierarchies.remove(1);
    let filtered = plan(&host, Manager::Cgroupfs, None, "box", None, &rules()).unwrap();
    assert!(filtered.device_program_len().is_some());
    host.hierarchies.truncate(2);
    let text = plan(&host, Manager::Cgroupfs, None, "box", None, &rules()).unwrap_err().to_string();
    assert!(text.starts_with("linux.resources.devices: this machine offers no `devices`"), "{text}");
}

#[test]
fn disabled_means_nothing_at_all() {
    let resources = resources(r#"{"memory":{"limit":5}}"#);
    let plan = plan(&v2(), Manager::Disabled, None, "box", Some(&resources), &rules()).unwrap();
    assert_eq!(plan.dirs().count() + plan.writes().count(), 0);
}

#[test]
fn a_plan_is_json() {
    let json = serde_json::to_value(plan(&hybrid(), Manager::Cgroupfs, None, "box", None, &rules()).unwrap()).unwrap();
    assert_eq!(json["groups"][1]["devices"]["V1"]["exceptions"][0], "c 1:3 rwm");
    let json = serde_json::to_value(plan(&v2(), Manager::Cgroupfs, None, "box", None, &rules()).unwrap()).unwrap();
    assert!(json["groups"][0]["devices"]["V2"]["instructions"].is_u64());
}

#[test]
fn systemd_leaves_the_unified_hierarchy_beside_v1_to_us() {
    let facts = crate::SystemdFacts { version: 257, user: false, control_group: "/".into() };
    let of = |host: &HostCgroups, json: &str| {
        let resources = resources(json);
        plan_unit(host, &facts, None, "box", Some(&resources), &rules(), &BTreeMap::new()).unwrap()
    };
    let limits = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#;
    assert_eq!(of(&hybrid(), limits).groups[3].enable, ["hugetlb"]);
    assert_eq!(of(&hybrid(), r#"{"memory":{"limit":1048576}}"#).groups[3].enable, [""; 0]);
    // On v2 alone `Delegate=yes` gives the scope all controllers.
    assert_eq!(of(&v2(), r#"{"memory":{"limit":1048576}}"#).groups[0].enable, [""; 0]);
}
