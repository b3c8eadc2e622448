//! The crate on this machine's own cgroups: root, and a machine with v1 controllers (a hybrid one for the tests that say
//! so). Each test works in cgroups of its own, below `/rrt-test-PID-NAME`, and removes them.

mod common;

use common::*;
use rrt_cgroups::{
    Access, Cgroup, DeviceKind, DeviceRule, Error, FreezerState, Hierarchy, HostCgroups, Manager, Mode, OomNews,
    SubCgroups, Version, plan, with_device_rules,
};
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

#[test]
fn limits_are_what_was_asked_for() {
    let Some(place) = Place::v1("limits") else { return };
    let cgroup = place.create(
        r#"{"memory":{"limit":67108864,"swap":134217728,"reservation":33554432,"swappiness":10,"disableOOMKiller":true},
            "cpu":{"shares":512,"quota":30000,"period":50000,"cpus":"0","mems":"0"},"pids":{"limit":20}}"#,
    );
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "134217728"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("memory", "memory.swappiness", "10"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "30000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "20"),
        ("devices", "devices.list", "c 1:3 rwm\nc 1:5 rwm\nc 5:0 rwm\nb *:* m"),
    ] {
        assert_eq!(read(&cgroup, controller, file), value, "{file}");
    }
    assert!(read(&cgroup, "memory", "memory.oom_control").starts_with("oom_kill_disable 1"));
    let dirs: Vec<PathBuf> = cgroup.paths().into_values().collect();
    cgroup.delete(LONG).unwrap();
    assert!(dirs.iter().all(|d| !d.exists()));
    // Those above are left, as runc leaves them.
    assert_eq!(place.dirs().len(), place.host.hierarchies.len());
}

#[test]
fn a_cpuset_comes_from_above_when_none_is_given() {
    let Some(place) = Place::v1("cpuset") else { return };
    let cgroup = Cgroup::create(&place.plan("deep/down/box", "{}")).unwrap();
    let root = fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.cpus").unwrap();
    assert_eq!(read(&cgroup, "cpuset", "cpuset.cpus"), root.trim_end());
    assert_ne!(read(&cgroup, "cpuset", "cpuset.mems"), "");
    let one = Cgroup::create(&place.plan("deep/down/one", r#"{"cpu":{"cpus":"0"}}"#)).unwrap();
    assert_eq!(read(&one, "cpuset", "cpuset.cpus"), "0");
    assert_ne!(read(&one, "cpuset", "cpuset.mems"), "");
}

#[test]
fn a_failed_create_leaves_nothing() {
    let Some(place) = Place::v1("failed") else { return };
    for (json, property) in [
        (r#"{"cpu":{"cpus":"0-4095"}}"#, "linux.resources.cpu.cpus: write \"0-4095\" to "),
        (r#"{"cpu":{"quota":1}}"#, "linux.resources.cpu.quota: write \"1\" to "),
        (r#"{"blockIO":{"throttleReadBpsDevice":[{"major":4095,"minor":9,"rate":1}]}}"#, "linux.resources.blockIO.thr"),
    ] {
        let error = Cgroup::create(&place.plan("a/b/box", json)).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Limit { .. }) && text.starts_with(property), "{text}");
        assert_eq!(place.dirs(), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_failed_create_leaves_what_was_there() {
    let Some(place) = Place::v1("kept") else { return };
    let first = Cgroup::create(&place.plan("shared/one", "{}")).unwrap();
    Cgroup::create(&place.plan("shared/two", r#"{"cpu":{"quota":1}}"#)).unwrap_err();
    assert!(first.paths().values().all(|d| d.exists()));
    assert!(first.paths().values().all(|d| !d.with_file_name("two").exists()));
}

#[test]
fn a_cgroup_with_processes_is_not_taken() {
    let Some(place) = Place::v1("taken") else { return };
    let cgroup = place.create("{}");
    let shell = Shell::run(&cgroup, "read x");
    let error = Cgroup::create(&place.plan("box", "{}")).unwrap_err();
    assert!(matches!(error, Error::InUse { count: 1, .. }), "{error}");
    assert!(shell.wait().code().is_some());
    // An empty one is, and its old values do not stay where the new ones are the kernel's own.
    cgroup.update(&serde_json::from_str(r#"{"pids":{"limit":5}}"#).unwrap()).unwrap();
    let again = Cgroup::create(&place.plan("box", r#"{"pids":{"limit":-1}}"#)).unwrap();
    assert_eq!(read(&again, "pids", "pids.max"), "max");
    again.freeze(LONG).unwrap();
    let error = Cgroup::create(&place.plan("box", "{}")).unwrap_err();
    assert!(matches!(error, Error::Frozen { .. }), "{error}");
}

#[test]
fn a_process_joins_every_hierarchy_by_itself() {
    let Some(place) = Place::v1("join") else { return };
    let cgroup = place.create("{}");
    let shell = Shell::run(&cgroup, "read x");
    let inside = place.path.join("box");
    let own = fs::read_to_string(format!("/proc/{}/cgroup", shell.pid())).unwrap();
    let unified = place.host.unified().is_some();
    for line in own.lines().filter(|l| unified || !l.starts_with("0::")) {
        assert!(line.ends_with(inside.to_str().unwrap()), "{line}");
    }
    assert_eq!(cgroup.pids().unwrap(), [shell.pid()]);
    assert_eq!(cgroup.unified_dir().unwrap().is_some(), unified);
}

#[test]
fn joining_by_pid_and_below() {
    let Some(place) = Place::v1("bypid") else { return };
    let cgroup = place.create("{}");
    for dir in cgroup.paths().values() {
        fs::create_dir(dir.join("sub")).unwrap();
    }
    let sub_set = cgroup.paths()["cpuset"].join("sub");
    for file in ["cpuset.cpus", "cpuset.mems"] {
        fs::write(sub_set.join(file), read(&cgroup, "cpuset", file)).unwrap();
    }
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = child.id() as i32;
    cgroup.join_by_pid(pid, &SubCgroups::parse(&["sub".into()]).unwrap()).unwrap();
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(own.lines().any(|l| l.contains("memory:") && l.ends_with("/box/sub")), "{own}");
    // Those below are the container's, too, and go with it.
    assert_eq!(cgroup.pids().unwrap(), [pid]);
    cgroup.kill(libc::SIGKILL).unwrap();
    child.wait().unwrap();
    cgroup.delete(LONG).unwrap();
    assert!(cgroup.paths().values().all(|d| !d.exists()));
    assert_eq!(cgroup.pids().unwrap(), Vec::<i32>::new());
}

#[test]
fn freezing_through_the_v1_freezer() {
    let Some(place) = Place::v1("freeze1") else { return };
    freeze_and_thaw(&only(&place.create("{}"), Version::V1));
}

#[test]
fn freezing_through_the_unified_hierarchy() {
    let Some(place) = Place::hybrid("freeze2") else { return };
    freeze_and_thaw(&only(&place.create("{}"), Version::V2));
}

#[test]
fn killing_by_pidfd_on_v1() {
    let Some(place) = Place::v1("kill1") else { return };
    kill_everybody(&place, Some(Version::V1), false);
    kill_everybody(&place, Some(Version::V1), true);
}

#[test]
fn killing_by_cgroup_kill() {
    let Some(place) = Place::hybrid("kill2") else { return };
    kill_everybody(&place, Some(Version::V2), false);
    kill_everybody(&place, Some(Version::V2), true);
}

#[test]
fn killing_a_frozen_container_of_a_hybrid_machine() {
    let Some(place) = Place::hybrid("kill3") else { return };
    kill_everybody(&place, None, true);
}

#[test]
fn other_signals_reach_everybody_and_leave_a_pause() {
    let Some(place) = Place::v1("signal") else { return };
    let cgroup = place.create("{}");
    let mut shell = Shell::run(&cgroup, "trap 'exit 3' TERM; echo; while :; do :; done");
    shell.next_line();
    cgroup.freeze(LONG).unwrap();
    cgroup.kill(libc::SIGTERM).unwrap();
    assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Frozen);
    cgroup.thaw().unwrap();
    assert_eq!(shell.wait().code(), Some(3));
}

#[test]
fn an_occupied_cgroup_is_not_removed() {
    let Some(place) = Place::v1("busy") else { return };
    let cgroup = place.create("{}");
    let shell = Shell::run(&cgroup, "read x");
    cgroup.delete(Duration::ZERO).unwrap_err();
    assert!(cgroup.paths().values().all(|d| d.exists()));
    drop(shell);
    cgroup.delete(LONG).unwrap();
    // Once more is nothing to do.
    cgroup.delete(LONG).unwrap();
}

#[test]
fn memory_limits_move_both_ways() {
    let Some(place) = Place::v1("update") else { return };
    let cgroup = place.create(r#"{"memory":{"limit":67108864,"swap":67108864}}"#);
    let update = |json: &str| cgroup.update(&serde_json::from_str(json).unwrap());
    for (limit, swap) in [(268_435_456, 268_435_456), (16_777_216, 33_554_432), (33_554_432, 67_108_864)] {
        update(&format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#)).unwrap();
        assert_eq!(read(&cgroup, "memory", "memory.limit_in_bytes"), limit.to_string());
        assert_eq!(read(&cgroup, "memory", "memory.memsw.limit_in_bytes"), swap.to_string());
    }
    update(r#"{"memory":{"limit":-1}}"#).unwrap();
    assert!(read(&cgroup, "memory", "memory.memsw.limit_in_bytes").len() > 15);
    update(r#"{"cpu":{"quota":20000,"period":40000}}"#).unwrap();
    update(r#"{"cpu":{"quota":90000,"period":100000}}"#).unwrap();
    assert_eq!(read(&cgroup, "cpu", "cpu.cfs_quota_us"), "90000");
}

#[test]
fn a_limit_below_the_use_says_how_much_is_used() {
    let Some(place) = Place::v1("inuse") else { return };
    let cgroup = place.create(r#"{"memory":{"limit":134217728,"swap":134217728}}"#);
    let mut shell = Shell::run(&cgroup, "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo; read y");
    shell.next_line();
    let text =
        cgroup.update(&serde_json::from_str(r#"{"memory":{"limit":4194304}}"#).unwrap()).unwrap_err().to_string();
    assert!(text.starts_with("linux.resources.memory.limit: write \"4194304\" to "), "{text}");
    assert!(text.contains("(EBUSY)") && text.contains("current usage: "), "{text}");
}

#[test]
fn a_failed_update_changes_nothing() {
    let Some(place) = Place::v1("undo") else { return };
    let cgroup = place.create(r#"{"memory":{"limit":67108864},"pids":{"limit":9},"cpu":{"shares":300}}"#);
    let json = r#"{"pids":{"limit":5},"memory":{"limit":33554432},"cpu":{"shares":500,"cpus":"0-4095"}}"#;
    let text = cgroup.update(&serde_json::from_str(json).unwrap()).unwrap_err().to_string();
    assert!(text.starts_with("linux.resources.cpu.cpus: "), "{text}");
    assert_eq!(read(&cgroup, "pids", "pids.max"), "9");
    assert_eq!(read(&cgroup, "memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(read(&cgroup, "cpu", "cpu.shares"), "300");
}

#[test]
fn statistics_of_something_that_runs() {
    let Some(place) = Place::v1("stats") else { return };
    let cgroup = place.create(r#"{"memory":{"limit":67108864},"pids":{"limit":50}}"#);
    let mut shell = Shell::run(&cgroup, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo; read x");
    shell.next_line();
    let stats = cgroup.stats().unwrap();
    assert!(stats.cpu.usage.total > 0);
    assert_eq!(stats.cpu.usage.percpu.len(), stats.cpu.usage.percpu_user.len());
    assert_eq!(stats.cpu.usage.percpu.iter().sum::<u64>(), stats.cpu.usage.total);
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 50));
    assert_eq!(stats.memory.usage.limit, 67_108_864);
    assert!(stats.memory.usage.usage > 0 && stats.memory.usage.max >= stats.memory.usage.usage);
    assert!(stats.memory.raw.contains_key("total_rss"));
    assert!(!stats.cpuset.cpus.is_empty() && stats.cpuset.sched_relax_domain_level == -1);
    let gone = place.path.join("gone");
    let gone = plan(&place.host, Manager::Cgroupfs, Some(&gone), "x", None, &[]).unwrap().saved();
    assert_eq!(Cgroup::open(gone).stats().unwrap_err().errno(), Some(libc::ENOENT));
}

#[test]
fn running_out_of_memory_is_news() {
    let Some(place) = Place::v1("oom") else { return };
    let cgroup = place.create(r#"{"memory":{"limit":8388608,"swap":8388608}}"#);
    let mut watch = cgroup.oom_watch().unwrap();
    assert_eq!(watch.read().unwrap(), OomNews::Events(0));
    let mut shell = Shell::run(&cgroup, EAT_MEMORY);
    shell.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(shell.wait().signal(), Some(libc::SIGKILL));
    wait_for(&mut watch, |news| matches!(news, OomNews::Events(1..)));
    cgroup.delete(LONG).unwrap();
    wait_for(&mut watch, |news| news == OomNews::Gone);
}

/// A machine with nothing but this one's unified hierarchy, with `controllers` of it.
fn unified_only(host: &HostCgroups, controllers: &[&str]) -> HostCgroups {
    let unified = host.unified().unwrap();
    let controllers = controllers.iter().map(|c| (*c).to_owned()).collect();
    HostCgroups { mode: Mode::V2, hierarchies: vec![Hierarchy { controllers, ..unified.clone() }] }
}

#[test]
fn the_device_program_filters() {
    let Some(mut place) = Place::hybrid("bpf") else { return };
    place.host = unified_only(&place.host, &[]);
    let cgroup = place.create("{}");
    let rules_hold = |cgroup: &Cgroup| {
        let script = "true < /dev/null || exit 1; true < /dev/zero || exit 2; true < /dev/urandom && exit 3; exit 0";
        Shell::run(cgroup, script).wait().code()
    };
    assert_eq!(rules_hold(&cgroup), Some(0));
    // A second container in the same cgroup gets its own rules in the place of the first one's.
    let path = place.path.join("box");
    let random = [DeviceRule::allow(DeviceKind::Char, Some(1), Some(9), Access::READ)];
    let second = plan(&place.host, Manager::Cgroupfs, Some(&path), "x", None, &random).unwrap();
    let cgroup = Cgroup::create(&second).unwrap();
    let script = "true < /dev/urandom || exit 1; true < /dev/null && exit 2; true > /dev/urandom && exit 3; exit 0";
    assert_eq!(Shell::run(&cgroup, script).wait().code(), Some(0));
}

#[test]
fn device_rules_change_in_one_step_for_a_program() {
    let Some(mut place) = Place::hybrid("bpf-update") else { return };
    place.host = unified_only(&place.host, &[]);
    let cgroup = place.create("{}");
    let old = usual_devices();
    let opens = |device: &str| Shell::run(&cgroup, &format!("true < /dev/{device}")).wait().success();
    assert!(opens("null") && !opens("urandom"));
    let now =
        with_device_rules(&old, &[DeviceRule::parse("c 1:9 r").unwrap(), DeviceRule::parse("deny c 1:5 rwm").unwrap()]);
    cgroup.update_devices(&old, &now).unwrap();
    assert!(opens("null") && opens("urandom") && !opens("zero"));
    // Beside another's program only ours is replaced.
    let dir = cgroup.unified_dir().unwrap().unwrap();
    let all = [rrt_sys::bpf::Insn::new(0xb7, 0, 0, 0, 1), rrt_sys::bpf::Insn::new(0x95, 0, 0, 0, 0)];
    let other = rrt_sys::bpf::load_device_filter(&all).unwrap();
    rrt_sys::bpf::attach_device_filter(dir.as_fd(), other.as_fd(), None).unwrap();
    let again = with_device_rules(&now, &[DeviceRule::parse("deny c 1:9 r").unwrap()]);
    cgroup.update_devices(&now, &again).unwrap();
    assert!(opens("null") && !opens("urandom") && !opens("zero"));
    assert_eq!(rrt_sys::bpf::device_filters(dir.as_fd()).unwrap().len(), 2);
}

#[test]
fn huge_pages_are_limited_through_the_unified_hierarchy() {
    let Some(place) =
        Place::new("huge", |h| h.mode == Mode::Hybrid && h.unified().unwrap().has("hugetlb"), "hugetlb in it")
    else {
        return;
    };
    let control = place.host.unified().unwrap().mount.join("cgroup.subtree_control");
    let before = fs::read_to_string(&control).unwrap();
    let cgroup = place.create(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#);
    assert_eq!(read(&cgroup, "", "hugetlb.2MB.max"), "4194304");
    assert_eq!(read(&cgroup, "", "hugetlb.2MB.rsvd.max"), "4194304");
    assert_eq!(cgroup.stats().unwrap().hugetlb["2MB"].usage, 0);
    let error =
        Cgroup::create(&place.plan("other", r#"{"hugepageLimits":[{"pageSize":"3MB","limit":0}]}"#)).unwrap_err();
    assert!(error.to_string().contains("page sizes here: "), "{error}");
    cgroup.delete(LONG).unwrap();
    drop(place);
    if !before.contains("hugetlb") {
        fs::write(&control, "-hugetlb").unwrap();
    }
}

#[test]
fn controllers_that_cannot_be_handed_down_are_named() {
    let Some(mut place) = Place::hybrid("handdown") else { return };
    place.host = unified_only(&place.host, &["memory"]);
    let error = Cgroup::create(&place.plan("a/box", r#"{"memory":{"limit":1048576}}"#)).unwrap_err().to_string();
    assert!(error.starts_with("linux.resources.memory.limit: open(") && error.contains("\"+memory\""), "{error}");
    assert_eq!(place.dirs(), Vec::<PathBuf>::new());
}
