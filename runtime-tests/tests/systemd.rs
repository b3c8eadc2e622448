//! The systemd driver: what systemd says of the container's unit, and what is left of it.
//!
//! All tests of the other files run with this driver, too: `hack/vm tests --driver systemd`.

use std::process::Command;

use runtime_tests::{Container, cgroup_file, cgroup_v2, known, process_cgroup, runtime, skip, until};
use serde_json::json;

/// Ends the test where there is no systemd to talk to.
macro_rules! need_systemd {
    () => {
        if !std::path::Path::new("/run/systemd/system").is_dir() || !cgroup_v2() {
            skip!("needs a machine started by systemd with cgroup v2");
        }
    };
}

/// A container that systemd makes the cgroup of, and its unit.
fn scope(slice: &str) -> (Container, String) {
    let mut c = Container::new().idle();
    c.flags = vec!["--systemd-cgroup".into()];
    let unit = format!("rt-{}.scope", c.id);
    let path = format!("{slice}:rt:{}", c.id);
    (c.with("/linux/cgroupsPath", json!(path)), unit)
}

fn systemctl(args: &[&str]) -> String {
    let out = Command::new("systemctl").args(args).output().expect("systemctl");
    String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
}

/// A property as `systemctl show` has it.
fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit])
}

/// The unit is not even known any more.
fn assert_forgotten(unit: &str) {
    until(&format!("{unit} to be forgotten"), || property(unit, "LoadState") == "not-found");
}

#[test]
fn a_scope_with_every_limit() {
    need_systemd!();
    let (c, unit) = scope("");
    let c = c
        .with("/linux/resources/memory", json!({ "limit": 67_108_864, "swap": 100_663_296, "reservation": 33_554_432 }))
        .with("/linux/resources/cpu", json!({ "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0" }))
        .with("/linux/resources/pids", json!({ "limit": 50 }))
        .with("/linux/resources/unified", json!({ "memory.high": "60000000" }))
        .up();
    for (name, value) in [
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("MemoryAccounting", "yes"),
        ("IOAccounting", "yes"),
        ("TasksAccounting", "yes"),
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "33554432"),
        ("MemoryLow", "33554432"),
        ("MemoryHigh", "60000000"),
        ("CPUWeight", "59"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("AllowedCPUs", "0"),
        ("TasksMax", "50"),
        ("DevicePolicy", "strict"),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    assert!(property(&unit, "Description").contains(&c.id));
    assert!(property(&unit, "DeviceAllow").contains("/dev/char/1:3 rwm"), "{}", property(&unit, "DeviceAllow"));
    let pid = c.pid();
    assert_eq!(process_cgroup(pid, "").as_deref(), Some(format!("/system.slice/{unit}").as_str()));
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("memory.high", "59998208"),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "59"),
        ("pids.max", "50"),
        ("cpuset.cpus", "0"),
    ] {
        assert_eq!(cgroup_file(pid, "", file).as_deref(), Some(value), "{file}");
    }
    // exec joins it.
    let seen = c.exec(&[], &["cat", "/proc/self/cgroup"]).ok();
    assert_eq!(seen.stdout.trim(), format!("0::/system.slice/{unit}"));
    assert!(c.call("ps", &["--format", "json"], &[]).ok().stdout.contains(&pid.to_string()));
}

#[test]
fn annotations_are_properties() {
    need_systemd!();
    let (c, unit) = scope("");
    let c = c
        .with("/annotations", json!({}))
        .with("/annotations/org.systemd.property.TimeoutStopUSec", json!("uint64 123000000"))
        .with("/annotations/org.systemd.property.CollectMode", json!("'inactive-or-failed'"))
        .with("/annotations/org.systemd.property.RuntimeMaxSec", json!("3600"))
        .up();
    assert_eq!(property(&unit, "TimeoutStopUSec"), "2min 3s");
    assert_eq!(property(&unit, "CollectMode"), "inactive-or-failed");
    assert_eq!(property(&unit, "RuntimeMaxUSec"), "1h");
    c.delete(&["--force"]).ok();
    if !runtime().is_ours() {
        return;
    }
    for (name, value, why) in [
        ("CollectMode", "inactive", "is no GVariant"),
        ("Slice", "'x.slice'", "linux.cgroupsPath"),
        ("NoSuchThing", "'x'", "Cannot set property NoSuchThing"),
        ("A", "'x'", "no name of a property"),
    ] {
        let (c, unit) = scope("");
        let annotation = format!("org.systemd.property.{name}");
        let c = c.with("/annotations", json!({ annotation.as_str(): value }));
        let text = if name == "NoSuchThing" { "org.systemd.property.NAME" } else { annotation.as_str() };
        c.create(&[]).fails(1, &[text, why]);
        c.assert_gone();
        assert_forgotten(&unit);
    }
}

#[test]
fn nested_slices() {
    need_systemd!();
    let (c, unit) = scope("rtslice-a-b.slice");
    let c = c.up();
    let path = format!("/rtslice.slice/rtslice-a.slice/rtslice-a-b.slice/{unit}");
    assert_eq!(process_cgroup(c.pid(), ""), Some(path));
    c.delete(&["--force"]).ok();
    assert_forgotten(&unit);
    systemctl(&["stop", "rtslice.slice"]);
    for (path, why) in [
        ("/a/b", "slice:prefix:name"),
        ("a.slice:b", "slice:prefix:name"),
        ("a--b.slice:p:n", "invalid slice name"),
        ("a:p:n", "invalid slice name"),
    ] {
        let (c, _) = scope("");
        let out = c.with("/linux/cgroupsPath", json!(path)).create(&[]);
        out.fails(1, &[why]);
    }
    // Without a path the unit has the id's name.
    let (mut c, _) = scope("");
    if let Some(linux) = c.config["linux"].as_object_mut() {
        linux.remove("cgroupsPath");
    }
    let c = c.up();
    let path = process_cgroup(c.pid(), "").expect("a cgroup");
    assert!(path.starts_with("/system.slice/") && path.ends_with(&format!("-{}.scope", c.id)), "{path}");
}

/// A unit that has failed keeps its name until somebody resets it.
#[test]
fn a_failed_unit_of_the_same_name() {
    need_systemd!();
    let (c, unit) = scope("");
    let fail = ["--scope", "--unit", unit.as_str(), "--property", "RuntimeMaxSec=1", "sleep", "60"];
    let _ = Command::new("systemd-run").args(fail).output().expect("systemd-run");
    until("the unit to fail", || property(&unit, "ActiveState") == "failed");
    let c = c.up();
    assert_eq!(property(&unit, "ActiveState"), "active");
    c.delete(&["--force"]).ok();
    assert_forgotten(&unit);

    // One that fails while it is the container's is forgotten with the container.
    let (c, unit) = scope("");
    let limits = json!({ "org.systemd.property.RuntimeMaxSec": "1", "org.systemd.property.TimeoutStopSec": "1" });
    let c = c.with("/annotations", limits);
    // Not started: on a slow machine its second may be over by then.
    c.create(&[]).ok();
    c.wait_status("stopped");
    c.delete(&[]).ok();
    assert_forgotten(&unit);
}

/// A unit of that name which is somebody else's: an error, and it is left alone.
#[test]
fn a_unit_in_use() {
    need_systemd!();
    known!("runc", "*", "says so in other words");
    let (c, unit) = scope("");
    let mut other = Command::new("systemd-run")
        .args(["--scope", "--unit", unit.as_str(), "sleep", "60"])
        .spawn()
        .expect("systemd-run");
    until("the unit to be there", || property(&unit, "ActiveState") == "active");
    let out = c.create(&[]);
    out.fails(1, &["container's cgroup is not empty"]);
    c.delete(&["--force"]).ok();
    assert_eq!(property(&unit, "ActiveState"), "active");
    systemctl(&["stop", &unit]);
    other.wait().expect("its end");
}

#[test]
fn update_and_daemon_reload() {
    need_systemd!();
    let (c, unit) = scope("");
    let c = c.with("/linux/resources/memory", json!({ "limit": 67_108_864 })).up();
    let pid = c.pid();
    let flags = ["--memory", "100663296", "--pids-limit", "33", "--cpu-period", "100000", "--cpu-quota", "40000"];
    c.call("update", &flags, &[]).ok();
    let check = || {
        assert_eq!(property(&unit, "MemoryMax"), "100663296");
        assert_eq!(property(&unit, "TasksMax"), "33");
        assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), "400ms");
        assert_eq!(cgroup_file(pid, "", "memory.max").as_deref(), Some("100663296"));
        assert_eq!(cgroup_file(pid, "", "pids.max").as_deref(), Some("33"));
        assert_eq!(cgroup_file(pid, "", "cpu.max").as_deref(), Some("40000 100000"));
    };
    check();
    // systemd sets everything anew.
    systemctl(&["daemon-reload"]);
    check();
    c.exec(&[], &["sh", "-c", "echo x > /dev/null && : > /dev/zero"]).ok();
    // A value the kernel refuses changes nothing at systemd either.
    c.call("update", &["--cpuset-cpus", "4000"], &[]).fails(1, &["cpu"]);
    check();
    assert_eq!(property(&unit, "AllowedCPUs"), "");
}

#[test]
fn nothing_is_left() {
    need_systemd!();
    // A program that ends by itself, one that is killed, one that never starts.
    let (c, unit) = scope("");
    c.with("/process/args", json!(["true"])).run(&[]).ok();
    assert_forgotten(&unit);
    let (c, unit) = scope("");
    let c = c.up();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.delete(&[]).ok();
    c.assert_gone();
    assert_forgotten(&unit);
    let (c, unit) = scope("");
    let c = c.with("/process/args", json!(["/no/such/program"]));
    c.create(&[]).fails(1, &["/no/such/program"]);
    c.assert_gone();
    assert_forgotten(&unit);
    // A limit that the kernel refuses, which systemd does not tell of.
    let (c, unit) = scope("");
    let c = c.with("/linux/resources/unified", json!({ "cpuset.cpus": "4000" }));
    c.create(&[]).fails(1, &["cpuset.cpus"]);
    c.assert_gone();
    assert_forgotten(&unit);
}

#[test]
fn device_rules_hold() {
    need_systemd!();
    let (c, _) = scope("");
    let rules = json!([{ "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }]);
    let c = c.with("/linux/resources/devices", rules).caps(&["CAP_MKNOD", "CAP_SYSLOG"]).up();
    let script = "mknod /tmp/k c 1 11; mknod /tmp/m c 1 1; (: < /tmp/k) && echo read; (: > /tmp/k) || echo not-written; \
                  (: < /tmp/m) || echo not-opened; echo > /dev/null && echo null";
    let out = c.exec(&[], &["sh", "-c", script]).ok();
    assert_eq!(
        out.stdout.split_whitespace().collect::<Vec<_>>(),
        ["read", "not-written", "not-opened", "null"],
        "{out}"
    );
}

#[test]
fn a_slice_of_its_own() {
    need_systemd!();
    known!("runc", "*", "has systemd put a process into a slice, which takes none");
    let (c, _) = scope("");
    let slice = format!("rtslice{}.slice", c.id.replace('-', "_"));
    let c = c.with("/linux/cgroupsPath", json!(format!("::{slice}"))).up();
    assert_eq!(process_cgroup(c.pid(), ""), Some(format!("/{slice}")));
    assert_eq!(property(&slice, "ActiveState"), "active");
    c.delete(&["--force"]).ok();
    assert!(property(&slice, "ActiveState") == "inactive");
}

/// criu's child lands in a unit made anew, in each mode of criu's, and the unit is that of a container like any.
#[test]
fn a_restored_container_has_its_unit() {
    need_systemd!();
    if Command::new("criu").arg("--version").output().is_err() {
        skip!("needs criu in PATH (hack/test installs it)");
    }
    let (c, unit) = scope("");
    let c = c
        .sh("exec </dev/null >/dev/null 2>&1; while :; do sleep 0.1; done")
        .with("/linux/resources/memory", json!({ "limit": 134_217_728 }))
        .with("/linux/resources/pids", json!({ "limit": 60 }))
        .up();
    for mode in ["soft", "full", "ignore"] {
        let images = format!("img-{mode}");
        c.call("checkpoint", &["--image-path", &images, "--manage-cgroups-mode", mode], &[]).ok();
        c.assert_gone();
        assert_forgotten(&unit);
        c.call("restore", &["-d", "--image-path", &images, "--manage-cgroups-mode", mode], &[]).ok();
        let pid = c.pid();
        assert_eq!(process_cgroup(pid, "").as_deref(), Some(format!("/system.slice/{unit}").as_str()), "{mode}");
        assert_eq!(property(&unit, "ActiveState"), "active", "{mode}");
        assert_eq!(property(&unit, "MemoryMax"), "134217728", "{mode}");
        assert_eq!(cgroup_file(pid, "", "memory.max").as_deref(), Some("134217728"), "{mode}");
        assert_eq!(cgroup_file(pid, "", "pids.max").as_deref(), Some("60"), "{mode}");
        let seen = c.exec(&[], &["cat", "/proc/self/cgroup"]).ok();
        assert_eq!(seen.stdout.trim(), format!("0::/system.slice/{unit}"), "{mode}");
    }
    // A restore that fails leaves no unit.
    c.call("checkpoint", &["--image-path", "img"], &[]).ok();
    std::fs::remove_file(c.dir.join("img/pstree.img")).expect("an image");
    c.call("restore", &["-d", "--image-path", "img"], &[]).fails(1, &["restore"]);
    c.assert_gone();
    assert_forgotten(&unit);
    // Somebody else's unit of that name is left alone.
    let mut other = Command::new("systemd-run")
        .args(["--scope", "--unit", unit.as_str(), "sleep", "60"])
        .spawn()
        .expect("systemd-run");
    until("the unit to be there", || property(&unit, "ActiveState") == "active");
    let out = c.call("restore", &["-d", "--image-path", "img-soft"], &[]);
    out.fails(1, &["container's cgroup is not empty"]);
    assert_eq!(property(&unit, "ActiveState"), "active");
    systemctl(&["stop", &unit]);
    other.wait().expect("its end");
}
