//! The crate on a machine with cgroup v2 only, as root. Elsewhere every test here is skipped; `native.rs` covers what of
//! v2 a hybrid machine has.

mod common;

use common::*;
use rrt_cgroups::{Access, Cgroup, DeviceKind, DeviceRule, Error, Manager, OomNews, SubCgroups, plan};
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

fn value(cgroup: &Cgroup, file: &str) -> String {
    read(cgroup, "", file)
}

#[test]
fn limits_are_what_was_asked_for() {
    let Some(place) = Place::v2("v2-limits") else { return };
    let json = r#"{"memory":{"limit":67108864,"swap":134217728,"reservation":33554432},
        "cpu":{"shares":512,"quota":30000,"period":50000,"burst":10000,"cpus":"0","mems":"0"},"pids":{"limit":20},
        "unified":{"memory.high":"50331648","pids.max":"21"}}"#;
    let cgroup = Cgroup::create(&place.plan("deep/down/box", json)).unwrap();
    for (file, expected) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "50331648"),
        ("cpu.weight", "59"),
        ("cpu.max", "30000 50000"),
        ("cpu.max.burst", "10000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        // `unified` comes last.
        ("pids.max", "21"),
    ] {
        assert_eq!(value(&cgroup, file), expected, "{file}");
    }
    let dir = cgroup.paths()[""].clone();
    let above = fs::read_to_string(dir.join("../cgroup.subtree_control")).unwrap();
    assert!(above.contains("memory") && above.contains("cpu ") && above.contains("io"), "{above}");
    // The container itself hands nothing down: it has processes.
    assert_eq!(value(&cgroup, "cgroup.subtree_control"), "");
    cgroup.delete(LONG).unwrap();
    assert!(!dir.exists() && dir.parent().unwrap().exists());
}

#[test]
fn a_failed_create_leaves_nothing() {
    let Some(place) = Place::v2("v2-failed") else { return };
    for (json, start) in [
        (r#"{"cpu":{"cpus":"0-4095"}}"#, "linux.resources.cpu.cpus: write \"0-4095\" to "),
        (r#"{"cpu":{"quota":1}}"#, "linux.resources.cpu.quota: write \"1 100000\" to "),
        (r#"{"blockIO":{"throttleReadBpsDevice":[{"major":4095,"minor":9,"rate":1}]}}"#, "linux.resources.blockIO.thr"),
        (r#"{"unified":{"memory.nonsense":"1"}}"#, "linux.resources.unified[\"memory.nonsense\"]: open("),
    ] {
        let error = Cgroup::create(&place.plan("a/b/box", json)).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Limit { .. }) && text.starts_with(start), "{text}");
        assert_eq!(place.dirs(), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_parent_with_processes_is_named() {
    let Some(place) = Place::v2("v2-internal") else { return };
    let above = place.dirs();
    assert!(above.is_empty());
    let dir = place.host.unified().unwrap().mount.join(place.path.strip_prefix("/").unwrap());
    fs::create_dir(&dir).unwrap();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
    let limited = Cgroup::create(&place.plan("box", r#"{"memory":{"limit":67108864}}"#));
    let free = Cgroup::create(&place.plan("free", "{}"));
    child.kill().unwrap();
    child.wait().unwrap();
    let text = limited.unwrap_err().to_string();
    assert!(text.starts_with("linux.resources.memory.limit: open(") && text.contains("processes of its own"), "{text}");
    // Without limits there is nothing to hand down.
    free.unwrap();
}

#[test]
fn a_threaded_parent_is_refused() {
    let Some(place) = Place::v2("v2-threaded") else { return };
    let root = place.host.unified().unwrap().mount.join(place.path.strip_prefix("/").unwrap());
    fs::create_dir_all(root.join("threads")).unwrap();
    fs::write(root.join("threads/cgroup.type"), "threaded").unwrap();
    let text = Cgroup::create(&place.plan("threads/box", "{}")).unwrap_err().to_string();
    assert!(text.starts_with("linux.cgroupsPath: ") && text.contains("threaded"), "{text}");
    assert!(!root.join("threads/box").exists());
}

#[test]
fn a_relative_path_is_below_the_parent_of_our_own() {
    let Some(mut place) = Place::v2("v2-relative") else { return };
    let name = place.path.strip_prefix("/").unwrap().to_owned();
    place.host.hierarchies[0].own = place.path.join("us");
    let plan = plan(&place.host, Manager::Cgroupfs, Some("box".as_ref()), "x", None, &usual_devices()).unwrap();
    let cgroup = Cgroup::create(&plan).unwrap();
    assert_eq!(cgroup.paths()[""], place.host.hierarchies[0].mount.join(name).join("box"));
    cgroup.delete(LONG).unwrap();
}

#[test]
fn a_process_is_in_and_counted() {
    let Some(place) = Place::v2("v2-join") else { return };
    let cgroup = place.create("{}");
    let shell = Shell::run(&cgroup, "read x");
    assert_eq!(cgroup.pids().unwrap(), [shell.pid()]);
    assert!(cgroup.unified_dir().unwrap().is_some());
    assert!(cgroup.v1_tasks(&SubCgroups::default()).unwrap().is_empty());
    let error = Cgroup::create(&place.plan("box", "{}")).unwrap_err();
    assert!(matches!(error, Error::InUse { count: 1, .. }), "{error}");
    cgroup.delete(Duration::ZERO).unwrap_err();
}

#[test]
fn a_container_that_hands_controllers_down_is_joined_where_its_init_is() {
    let Some(place) = Place::v2("v2-below") else { return };
    let cgroup = place.create("{}");
    let shell = Shell::run(&cgroup, "read x");
    let fd_path = |fd: std::os::fd::OwnedFd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    let own = cgroup.paths()[""].clone();
    assert_eq!(fd_path(cgroup.unified_dir_of(shell.pid()).unwrap().unwrap()), own);
    fs::create_dir(own.join("init.scope")).unwrap();
    fs::write(own.join("init.scope/cgroup.procs"), shell.pid().to_string()).unwrap();
    fs::write(own.join("cgroup.subtree_control"), "+memory").unwrap();
    assert_eq!(fd_path(cgroup.unified_dir_of(shell.pid()).unwrap().unwrap()), own.join("init.scope"));
    let error = cgroup.join_by_pid(std::process::id() as i32, &SubCgroups::default()).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EBUSY));
    assert!(cgroup.unified_dir_of(std::process::id() as i32).unwrap().is_none());
}

#[test]
fn freezing() {
    let Some(place) = Place::v2("v2-freeze") else { return };
    freeze_and_thaw(&place.create("{}"));
}

#[test]
fn killing() {
    let Some(place) = Place::v2("v2-kill") else { return };
    kill_everybody(&place, None, false);
    kill_everybody(&place, None, true);
}

#[test]
fn other_signals_reach_everybody() {
    let Some(place) = Place::v2("v2-signal") else { return };
    let cgroup = place.create("{}");
    let mut shell = Shell::run(&cgroup, "trap 'exit 3' TERM; echo; while :; do :; done");
    shell.next_line();
    cgroup.kill(libc::SIGTERM).unwrap();
    assert_eq!(shell.wait().code(), Some(3));
}

#[test]
fn limits_move_both_ways_and_back_after_a_failure() {
    let Some(place) = Place::v2("v2-update") else { return };
    let cgroup = place.create(r#"{"memory":{"limit":67108864,"swap":67108864},"pids":{"limit":9}}"#);
    let update = |json: &str| cgroup.update(&serde_json::from_str(json).unwrap());
    assert_eq!(value(&cgroup, "memory.swap.max"), "0");
    for (limit, swap) in [(268_435_456u64, 268_435_456), (16_777_216, 33_554_432), (33_554_432, 67_108_864)] {
        update(&format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#)).unwrap();
        assert_eq!(value(&cgroup, "memory.max"), limit.to_string());
        assert_eq!(value(&cgroup, "memory.swap.max"), (swap - limit).to_string());
    }
    update(r#"{"memory":{"swap":100663296},"cpu":{"quota":20000}}"#).unwrap();
    assert_eq!(value(&cgroup, "memory.swap.max"), "67108864");
    update(r#"{"cpu":{"period":50000}}"#).unwrap();
    assert_eq!(value(&cgroup, "cpu.max"), "20000 50000");
    update(r#"{"cpu":{"idle":1}}"#).unwrap();
    update(r#"{"cpu":{"idle":0,"shares":512}}"#).unwrap();
    assert_eq!(value(&cgroup, "cpu.weight"), "59");

    let text = update(r#"{"pids":{"limit":5},"memory":{"limit":16777216},"cpu":{"cpus":"0-4095"}}"#).unwrap_err();
    let text = text.to_string();
    assert!(text.starts_with("linux.resources.cpu.cpus: "), "{text}");
    assert_eq!((value(&cgroup, "pids.max"), value(&cgroup, "memory.max")), ("9".into(), "33554432".into()));
}

#[test]
fn statistics_of_something_that_runs() {
    let Some(place) = Place::v2("v2-stats") else { return };
    let cgroup = place.create(r#"{"memory":{"limit":67108864},"pids":{"limit":50}}"#);
    let mut shell = Shell::run(&cgroup, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo; read x");
    shell.next_line();
    let stats = cgroup.stats().unwrap();
    assert!(stats.cpu.usage.total > 0 && stats.cpu.usage.user > 0);
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 50));
    assert_eq!(stats.memory.usage.limit, 67_108_864);
    assert!(stats.memory.usage.usage > 0 && stats.memory.raw.contains_key("anon"));
    assert_eq!(stats.memory.psi.is_some(), cgroup.paths()[""].join("memory.pressure").exists());
}

#[test]
fn running_out_of_memory_is_news() {
    let Some(place) = Place::v2("v2-oom") else { return };
    let cgroup = place.create(r#"{"memory":{"limit":8388608,"swap":8388608}}"#);
    let mut watch = cgroup.oom_watch().unwrap();
    assert_eq!(watch.read().unwrap(), OomNews::Gone, "nobody is in it yet");
    let mut shell = Shell::run(&cgroup, EAT_MEMORY);
    assert_eq!(watch.read().unwrap(), OomNews::Events(0));
    shell.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(shell.wait().signal(), Some(libc::SIGKILL));
    wait_for(&mut watch, |news| matches!(news, OomNews::Events(1..)));
    wait_for(&mut watch, |news| news == OomNews::Gone);
    cgroup.delete(LONG).unwrap();
}

#[test]
fn the_device_program_filters() {
    let Some(place) = Place::v2("v2-bpf") else { return };
    let cgroup = place.create("{}");
    let script = "true < /dev/null || exit 1; true < /dev/zero || exit 2; true < /dev/urandom && exit 3; exit 0";
    assert_eq!(Shell::run(&cgroup, script).wait().code(), Some(0));
    let path = place.path.join("box");
    let random = [DeviceRule::allow(DeviceKind::Char, Some(1), Some(9), Access::READ)];
    let second = plan(&place.host, Manager::Cgroupfs, Some(&path), "x", None, &random).unwrap();
    let cgroup = Cgroup::create(&second).unwrap();
    let script = "true < /dev/urandom || exit 1; true < /dev/null && exit 2; true > /dev/urandom && exit 3; exit 0";
    assert_eq!(Shell::run(&cgroup, script).wait().code(), Some(0));
}

#[test]
fn a_delegated_cgroup_has_another_owner() {
    let Some(place) = Place::v2("v2-delegate") else { return };
    let cgroup = place.create("{}");
    cgroup.delegate(12345).unwrap();
    let owner = |file: &str| fs::metadata(cgroup.paths()[""].join(file)).unwrap().uid();
    assert_eq!((owner("."), owner("cgroup.procs"), owner("cgroup.subtree_control")), (12345, 12345, 12345));
    assert_eq!((owner("memory.max"), owner("cgroup.freeze")), (0, 0));
}
