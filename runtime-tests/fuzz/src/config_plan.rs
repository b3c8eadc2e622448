//! config.json → plan, on machines with cgroup v1, v2 and both: whatever the document says, the answer is an error that says
//! where, or a plan that stays inside the container.

use crate::facts;
use rrt_oci::Spec;
use rrt_runtime::handshake::Turn;
use rrt_runtime::lsm::Modules;
use rrt_runtime::{CgroupManager, CreateOptions, HostFacts, Plan};
use std::path::{Component, Path};

const BUNDLE: &str = "/var/lib/engine/bundle";

/// How far a document came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is no config.json.
    NotParsed,
    /// It is one, and no machine can run it.
    Refused,
    /// It became a plan on one machine at least.
    Planned,
}

/// Plans a config.json on each of the machines.
///
/// # Panics
/// When planning does, or a plan breaks a promise; the document is then a bug report.
pub fn config_plan(document: &[u8], machines: &[HostFacts]) -> Outcome {
    let spec = match rrt_oci::spec_from_slice(document, &mut Vec::new()) {
        Ok(spec) => spec,
        Err(error) => {
            check_error(&error.to_string());
            return Outcome::NotParsed;
        }
    };
    let mut outcome = Outcome::Refused;
    for host in machines {
        match plan(&spec, host) {
            Ok(plan) => {
                outcome = Outcome::Planned;
                check(&plan);
            }
            Err(error) => check_error(&error),
        }
    }
    outcome
}

/// Plans a config.json twice: maps of JSON have no order, and have another one each time they are parsed, but `rrt plan` has to
/// print what the next `create` does.
///
/// # Panics
/// When the two differ.
pub fn config_plan_is_stable(document: &[u8], machine: &HostFacts) {
    let once = || {
        let spec = rrt_oci::spec_from_slice(document, &mut Vec::new()).ok()?;
        plan(&spec, machine).ok().map(|plan| printed(&plan))
    };
    assert_eq!(once(), once(), "two plans of one document");
}

/// A machine of each kind, and each in another situation.
pub fn machines() -> [HostFacts; 4] {
    let activated = HostFacts { listen_fds: Some((2, Some("a:b".into()))), ..facts::v1() };
    let lsm = Modules { apparmor: true, selinux: true, by_syscall: false };
    let nested = HostFacts {
        in_user_namespace: true,
        kcore: false,
        capabilities: 0x20_3fff,
        rootless: true,
        lsm,
        ..facts::v2()
    };
    let user = HostFacts { euid: 1000, egid: 100, capabilities: 0, rootless: true, ..facts::v2() };
    let notified = HostFacts { notify_socket: Some("/run/notify.sock".into()), ..facts::hybrid() };
    [activated, nested, user, notified]
}

fn plan(spec: &Spec, host: &HostFacts) -> Result<Plan, String> {
    let options = CreateOptions { id: "box".into(), bundle: BUNDLE.into(), ..CreateOptions::default() };
    Plan::new(spec, Path::new(BUNDLE), Path::new("/run/rrt/box"), &options, CgroupManager::Cgroupfs, host)
        .map_err(|e| e.to_string())
}

/// Both forms of `rrt plan`.
fn printed(plan: &Plan) -> (String, String) {
    (plan.to_string(), serde_json::to_string(plan).expect("a plan as JSON"))
}

/// An error says where it is, or that it is no JSON and at which line.
fn check_error(error: &str) {
    assert!(error.contains(": ") || error.contains(" at line "), "an error without a place: {error:?}");
}

fn check(plan: &Plan) {
    let (text, json) = printed(plan);
    assert!(!text.is_empty() && !json.is_empty());
    check_paths(plan);
    check_cgroups(plan);
    check_turns(plan);
    check_ids(plan);
    assert!(!plan.process.args.is_empty(), "nothing to execute");
    assert!(plan.process.cwd.is_absolute(), "process.cwd {:?}", plan.process.cwd);
    assert!(plan.root.path.is_absolute(), "root.path {:?}", plan.root.path);
    let caps = plan.process.capabilities;
    assert_eq!(caps.effective & !caps.permitted, 0, "effective beyond permitted: {caps:?}");
    assert_eq!(
        caps.ambient & !(caps.permitted & caps.inheritable),
        0,
        "ambient beyond permitted or inheritable: {caps:?}"
    );
}

/// Whether a path has only names in it, after the slash of an absolute one.
fn only_names(path: &Path) -> bool {
    path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)))
}

fn check_paths(plan: &Plan) {
    let inside = plan.mounts.iter().map(|m| m.destination.as_path());
    let inside = inside.chain(plan.dev.nodes.iter().map(|n| n.path.as_path()));
    let inside = inside.chain(plan.dev.links.iter().map(|(name, _)| name.as_path()));
    let inside = inside.chain(plan.masked_paths.iter().chain(&plan.readonly_paths).map(|p| p.as_path()));
    for path in inside {
        assert!(path.is_absolute() && only_names(path), "not a clean path inside the container: {path:?}");
    }
    for sysctl in &plan.sysctl {
        assert!(sysctl.file.is_relative() && only_names(&sysctl.file), "leaves its part of /proc/sys: {sysctl:?}");
    }
    for joined in &plan.namespaces.joined {
        assert!(joined.path.is_absolute(), "{joined:?}");
    }
}

/// Every cgroup is a real part of one hierarchy, and every file one of its own.
fn check_cgroups(plan: &Plan) {
    let dirs: Vec<_> = plan.cgroup.dirs().collect();
    for dir in &dirs {
        let name = dir.strip_prefix("/sys/fs/cgroup").unwrap_or_else(|_| panic!("{dir:?} is outside of the mounts"));
        assert!(only_names(name), "{dir:?}");
    }
    assert!(!dirs.iter().any(|d| dirs.iter().filter(|e| d.starts_with(e)).count() > 1), "one inside another: {dirs:?}");
    for write in plan.cgroup.writes() {
        let dir = write.file.parent().filter(|d| dirs.iter().any(|own| own == d));
        assert!(dir.is_some() && write.file.file_name().is_some(), "a file of another cgroup: {write:?}");
    }
    for v1 in &plan.cgroup_mounts.v1 {
        assert!(dirs.contains(&v1.directory), "shows a cgroup that is not its own: {v1:?}");
    }
}

fn check_turns(plan: &Plan) {
    let turns = &plan.turns;
    assert_eq!(turns.last(), Some(&Turn::Ready), "{turns:?}");
    let twice = turns.iter().enumerate().any(|(i, turn)| turns[..i].contains(turn));
    assert!(!twice, "a turn comes twice: {turns:?}");
}

/// In a new user namespace every id of the process is one that the maps have.
fn check_ids(plan: &Plan) {
    let (process, ns) = (&plan.process, &plan.namespaces);
    assert!(mapped(&ns.uid_map, process.uid), "uid {} in {:?}", process.uid, ns.uid_map);
    for gid in process.groups.iter().chain([&process.gid]) {
        assert!(mapped(&ns.gid_map, *gid), "gid {gid} in {:?}", ns.gid_map);
    }
    assert!(mapped(&ns.uid_map, ns.setup_uid) && mapped(&ns.gid_map, ns.setup_gid), "set up as an unmapped id: {ns:?}");
    assert_eq!(ns.uid_map.is_empty(), ns.gid_map.is_empty(), "one map only: {ns:?}");
}

/// Read here on its own, from user_namespaces(7), not with the runtime's function: `INSIDE OUTSIDE LENGTH` a line.
fn mapped(map: &str, id: u32) -> bool {
    let covers = |line: &str| {
        let fields: Vec<u64> = line.split(' ').map(|f| f.parse().expect("a number in an id map")).collect();
        let [inside, _outside, length] = fields[..] else { panic!("an id map with the line {line:?}") };
        (inside..inside + length).contains(&u64::from(id))
    };
    map.is_empty() || map.lines().any(covers)
}
