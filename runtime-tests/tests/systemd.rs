//! The systemd driver: what systemd says of the container's unit, and what is left of it; of the system's, or, run by a user, of
//! his own.
//!
//! All tests of the other files run with this driver, too: `hack/vm tests --driver systemd`; and these on cgroup v1: `hack/vm v1`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runtime_tests::{
    Container, cgroup_dir, cgroup_file, cgroup_v2, controller_is_v2, known, process_cgroup, runtime, skip, until,
};
use rustix::process::geteuid;
use serde_json::json;

/// Ends the test where there is no systemd to talk to.
macro_rules! need_systemd {
    () => {
        if !Path::new("/run/systemd/system").is_dir() {
            skip!("needs a machine started by systemd (hack/vm)");
        }
        if !is_root() && (!cgroup_v2() || std::env::var_os("XDG_RUNTIME_DIR").is_none()) {
            skip!("needs a user with a systemd of his own, and cgroup v2");
        }
    };
}

fn is_root() -> bool {
    geteuid().is_root()
}

/// A container that systemd makes the cgroup of, and its unit.
fn scope(slice: &str) -> (Container, String) {
    let mut c = Container::new().idle();
    c.flags = vec!["--systemd-cgroup".into()];
    let unit = format!("rt-{}.scope", c.id);
    let path = format!("{slice}:rt:{}", c.id);
    (c.with("/linux/cgroupsPath", json!(path)), unit)
}

/// A program that talks to root's service manager, or to the user's.
fn of_manager(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args((!is_root()).then_some("--user")).args(args);
    command
}

fn systemctl(args: &[&str]) -> String {
    let out = of_manager("systemctl", args).output().expect("systemctl");
    String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
}

/// A property as `systemctl show` has it.
fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit])
}

/// Runs a program in a scope of that name: somebody else's, for all the runtime knows.
fn others_scope(unit: &str) -> Child {
    let child = of_manager("systemd-run", &["--scope", "--unit", unit, "sleep", "60"]).spawn().expect("systemd-run");
    until("the unit to be there", || property(unit, "ActiveState") == "active");
    child
}

/// The manager's default slice, and where a cgroup below it is in each hierarchy: `/system.slice/UNIT`.
fn default_slice() -> &'static str {
    if is_root() { "system.slice" } else { "user.slice" }
}

fn place(path: &str) -> String {
    let of_manager =
        if is_root() { String::new() } else { systemctl(&["show", "--value", "--property", "ControlGroup"]) };
    of_manager + path
}

/// The process is in this cgroup in every hierarchy, those included that systemd does not manage (`cpuset` and `freezer` of v1).
#[track_caller]
fn assert_in(pid: u32, path: &str) {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    assert!(!text.is_empty());
    for line in text.lines() {
        // The unified hierarchy of a machine with v1 only is listed, and mounted nowhere.
        let unused = line.starts_with("0::") && cgroup_dir(pid, "").is_none();
        assert!(unused || line.splitn(3, ':').nth(2) == Some(path), "{line} in {text}, for {path}");
    }
}

/// The unit is not even known any more.
fn assert_forgotten(unit: &str) {
    until(&format!("{unit} to be forgotten"), || property(unit, "LoadState") == "not-found");
}

/// Limits of a controller.
struct Limits {
    controller: &'static str,
    /// In the unified hierarchy.
    v2: bool,
    /// As systemd tells them of the unit.
    properties: &'static [(&'static str, &'static str)],
    files: &'static [(&'static str, &'static str)],
}

const LIMITS: [Limits; 8] = [
    Limits {
        controller: "memory",
        v2: true,
        properties: &[("MemoryMax", "67108864"), ("MemorySwapMax", "33554432"), ("MemoryLow", "33554432")],
        files: &[("memory.max", "67108864"), ("memory.swap.max", "33554432")],
    },
    Limits {
        controller: "memory",
        v2: false,
        properties: &[("MemoryLimit", "67108864")],
        files: &[
            ("memory.limit_in_bytes", "67108864"),
            ("memory.memsw.limit_in_bytes", "100663296"),
            ("memory.soft_limit_in_bytes", "33554432"),
        ],
    },
    Limits {
        controller: "cpu",
        v2: true,
        properties: &[("CPUWeight", "59")],
        files: &[("cpu.max", "50000 100000"), ("cpu.weight", "59")],
    },
    Limits {
        controller: "cpu",
        v2: false,
        properties: &[("CPUShares", "512")],
        files: &[("cpu.shares", "512"), ("cpu.cfs_quota_us", "50000"), ("cpu.cfs_period_us", "100000")],
    },
    Limits { controller: "pids", v2: true, properties: &[("TasksMax", "50")], files: &[("pids.max", "50")] },
    Limits { controller: "pids", v2: false, properties: &[("TasksMax", "50")], files: &[("pids.max", "50")] },
    Limits { controller: "cpuset", v2: true, properties: &[("AllowedCPUs", "0")], files: &[("cpuset.cpus", "0")] },
    Limits { controller: "cpuset", v2: false, properties: &[("AllowedCPUs", "0")], files: &[("cpuset.cpus", "0")] },
];

/// A memory limit as property, and as file; nothing where no hierarchy has the controller.
fn memory_limit() -> Option<(&'static str, &'static str)> {
    let v2 = controller_is_v2("memory")?;
    Some(if v2 { ("MemoryMax", "memory.max") } else { ("MemoryLimit", "memory.limit_in_bytes") })
}

#[test]
fn a_scope_with_every_limit() {
    need_systemd!();
    let (mut c, unit) = scope("");
    c = c
        .with("/linux/resources/cpu", json!({ "shares": 512, "quota": 50_000, "period": 100_000 }))
        .with("/linux/resources/pids", json!({ "limit": 50 }));
    // Debian 13's kernel has these two for cgroup v2 only.
    if controller_is_v2("memory").is_some() {
        let memory = json!({ "limit": 67_108_864, "swap": 100_663_296, "reservation": 33_554_432 });
        c = c.with("/linux/resources/memory", memory);
    }
    if controller_is_v2("cpuset").is_some() {
        c = c.with("/linux/resources/cpu/cpus", json!("0"));
    }
    if cgroup_v2() {
        c = c.with("/linux/resources/unified", json!({ "memory.high": "60000000" }));
    }
    let c = c.up();
    for (name, value) in [
        ("ActiveState", "active"),
        ("Slice", default_slice()),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("MemoryAccounting", "yes"),
        ("CPUAccounting", "yes"),
        (if cgroup_v2() { "IOAccounting" } else { "BlockIOAccounting" }, "yes"),
        ("TasksAccounting", "yes"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("DevicePolicy", "strict"),
        ("MemoryHigh", if cgroup_v2() { "60000000" } else { "infinity" }),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    assert!(property(&unit, "Description").contains(&c.id));
    assert!(property(&unit, "DeviceAllow").contains("/dev/char/1:3 rwm"), "{}", property(&unit, "DeviceAllow"));
    let pid = c.pid();
    let path = place(&format!("/{}/{unit}", default_slice()));
    assert_in(pid, &path);
    let here = LIMITS.iter().filter(|l| controller_is_v2(l.controller) == Some(l.v2));
    for Limits { controller, properties, files, .. } in here {
        for (name, value) in *properties {
            assert_eq!(property(&unit, name), *value, "{name}");
        }
        for (file, value) in *files {
            assert_eq!(cgroup_file(pid, controller, file).as_deref(), Some(*value), "{file}");
        }
    }
    if cgroup_v2() {
        assert_eq!(cgroup_file(pid, "", "memory.high").as_deref(), Some("59998208"));
    }
    // exec joins it.
    let exec = c.spawn("exec", &[], &["sleep", "3600"]);
    let pids = || c.call("ps", &["--format", "json"], &[]).ok().json();
    until("the process of exec", || pids().as_array().is_some_and(|p| p.len() == 2));
    for one in pids().as_array().into_iter().flatten() {
        assert_in(one.as_u64().and_then(|p| p.try_into().ok()).expect("a pid"), &path);
    }
    drop(exec);
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
        ("CollectMode", "'often'", "Invalid CollectMode setting"),
        ("CollectMode", "uint32 5", "(of type "),
        ("A", "'x'", "no name of a property"),
    ] {
        let (c, unit) = scope("");
        let annotation = format!("org.systemd.property.{name}");
        let c = c.with("/annotations", json!({ annotation.as_str(): value }));
        c.create(&[]).fails(1, &[&annotation, why]);
        c.assert_gone();
        assert_forgotten(&unit);
    }
}

#[test]
fn nested_slices() {
    need_systemd!();
    let (c, unit) = scope("rtslice-a-b.slice");
    let c = c.up();
    assert_in(c.pid(), &place(&format!("/rtslice.slice/rtslice-a.slice/rtslice-a-b.slice/{unit}")));
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
    let path = process_cgroup(c.pid(), if cgroup_v2() { "" } else { "name=systemd" }).expect("a cgroup");
    let slice = place(&format!("/{}/", default_slice()));
    assert!(path.starts_with(&slice) && path.ends_with(&format!("-{}.scope", c.id)), "{path}");
    assert_in(c.pid(), &path);
}

/// A unit that has failed keeps its name until somebody resets it.
#[test]
fn a_failed_unit_of_the_same_name() {
    need_systemd!();
    let (c, unit) = scope("");
    let fail = ["--scope", "--unit", unit.as_str(), "--property", "RuntimeMaxSec=1", "sleep", "60"];
    let _ = of_manager("systemd-run", &fail).output().expect("systemd-run");
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
    let mut other = others_scope(&unit);
    let out = c.create(&[]);
    // systemd-run puts a user's scope into another slice, where only its name is in the way.
    out.fails(
        1,
        &[if is_root() { "container's cgroup is not empty" } else { "another container or service uses this unit" }],
    );
    c.delete(&["--force"]).ok();
    assert_eq!(property(&unit, "ActiveState"), "active");
    systemctl(&["stop", &unit]);
    other.wait().expect("its end");
    // The slice is another one and the name is the same.
    let (c, unit) = scope("rtslice.slice");
    let mut other = others_scope(&unit);
    c.create(&[]).fails(1, &["start the unit", "another container or service uses this unit"]);
    c.delete(&["--force"]).ok();
    assert_eq!(property(&unit, "ActiveState"), "active");
    systemctl(&["stop", &unit]);
    other.wait().expect("its end");
}

#[test]
fn update_and_daemon_reload() {
    need_systemd!();
    let (c, unit) = scope("");
    let rules = json!([{ "allow": false, "access": "rwm" }]);
    let c = c.with("/linux/resources/devices", rules).caps(&["CAP_MKNOD"]);
    let mut flags = vec!["--pids-limit", "33", "--cpu-period", "100000", "--cpu-quota", "40000"];
    let c = match memory_limit() {
        Some(_) => {
            flags.extend(["--memory", "100663296"]);
            c.with("/linux/resources/memory", json!({ "limit": 67_108_864 })).up()
        }
        None => c.up(),
    };
    let pid = c.pid();
    c.call("update", &flags, &[]).ok();
    let check = || {
        assert_eq!(property(&unit, "TasksMax"), "33");
        assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), "400ms");
        if let Some((name, file)) = memory_limit() {
            assert_eq!(property(&unit, name), "100663296");
            assert_eq!(cgroup_file(pid, "memory", file).as_deref(), Some("100663296"));
        }
        assert_eq!(cgroup_file(pid, "pids", "pids.max").as_deref(), Some("33"));
        let (file, quota) = if cgroup_v2() { ("cpu.max", "40000 100000") } else { ("cpu.cfs_quota_us", "40000") };
        assert_eq!(cgroup_file(pid, "cpu", file).as_deref(), Some(quota));
        assert_eq!(c.state()["status"], "running");
        c.exec(&[], &["sh", "-c", "echo x > /dev/null && : > /dev/zero"]).ok();
        if is_root() {
            // A user's container has no device rules.
            c.exec(&[], &["sh", "-c", "rm -f /tmp/kmsg; mknod /tmp/kmsg c 1 11; : < /tmp/kmsg"]).fails(1, &["kmsg"]);
        }
    };
    check();
    // systemd sets everything anew.
    systemctl(&["daemon-reload"]);
    check();
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
    let c = c.with("/linux/resources/cpu", json!({ "cpus": "4000" }));
    c.create(&[]).fails(1, &["linux.resources.cpu.cpus"]);
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
    assert_in(c.pid(), &place(&format!("/{slice}")));
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
    let mut c = c
        .sh("exec </dev/null >/dev/null 2>&1; while :; do sleep 0.1; done")
        .with("/linux/resources/pids", json!({ "limit": 60 }));
    if memory_limit().is_some() {
        c = c.with("/linux/resources/memory", json!({ "limit": 134_217_728 }));
    }
    let c = c.up();
    for mode in ["soft", "full", "ignore"] {
        let images = format!("img-{mode}");
        c.call("checkpoint", &["--image-path", &images, "--manage-cgroups-mode", mode], &[]).ok();
        c.assert_gone();
        assert_forgotten(&unit);
        c.call("restore", &["-d", "--image-path", &images, "--manage-cgroups-mode", mode], &[]).ok();
        let pid = c.pid();
        assert_in(pid, &format!("/system.slice/{unit}"));
        assert_eq!(property(&unit, "ActiveState"), "active", "{mode}");
        if let Some((limit, file)) = memory_limit() {
            assert_eq!(property(&unit, limit), "134217728", "{mode}");
            assert_eq!(cgroup_file(pid, "memory", file).as_deref(), Some("134217728"), "{mode}");
        }
        assert_eq!(cgroup_file(pid, "pids", "pids.max").as_deref(), Some("60"), "{mode}");
    }
    // A restore that fails leaves no unit.
    c.call("checkpoint", &["--image-path", "img"], &[]).ok();
    std::fs::remove_file(c.dir.join("img/pstree.img")).expect("an image");
    c.call("restore", &["-d", "--image-path", "img"], &[]).fails(1, &["restore"]);
    c.assert_gone();
    assert_forgotten(&unit);
    // Somebody else's unit of that name is left alone.
    let mut other = others_scope(&unit);
    let out = c.call("restore", &["-d", "--image-path", "img-soft"], &[]);
    out.fails(1, &["container's cgroup is not empty"]);
    assert_eq!(property(&unit, "ActiveState"), "active");
    systemctl(&["stop", &unit]);
    other.wait().expect("its end");
}

/// A bus that takes connections and says nothing: each command ends, says so, and leaves nothing.
#[test]
fn a_bus_that_does_not_answer_is_not_waited_for() {
    need_systemd!();
    known!("runc", "*", "waits for ever");
    known!("crun", "*", "waits for ever");
    let (fresh, _) = scope("");
    fresh.write_config();
    let (c, unit) = scope("");
    let c = c.up();
    let socket = c.dir.join("bus");
    let silent = UnixListener::bind(&socket).expect("a socket");
    let variable = if is_root() { "DBUS_SYSTEM_BUS_ADDRESS" } else { "DBUS_SESSION_BUS_ADDRESS" };
    let timed = |c: &Container, command: &str, flags: &[&str], code: i32| {
        let begin = Instant::now();
        let mut call = c.command(command, flags, &[]);
        let out = call.env(variable, format!("unix:path={}", socket.display())).stdin(Stdio::null()).output();
        let out = out.expect("run the runtime");
        assert!(begin.elapsed() < Duration::from_secs(60), "{command} took {:?}", begin.elapsed());
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(text.contains("no answer from") && text.contains("within 30s"), "{command}: {text}");
        assert_eq!(out.status.code(), Some(code), "{command}: {text}");
    };
    std::thread::scope(|threads| {
        threads.spawn(|| {
            timed(&fresh, "create", &[], 1);
            fresh.assert_gone();
        });
        threads.spawn(|| {
            timed(&c, "update", &["--pids-limit", "40"], 1);
            // What the kernel had been told is taken back.
            assert_ne!(cgroup_file(c.pid(), "pids", "pids.max").as_deref(), Some("40"));
            timed(&c, "delete", &["--force"], 0);
            c.assert_gone();
        });
    });
    drop(silent);
    assert_forgotten(&unit);
}

/// A user who calls from outside of what his service manager has, as from a login session: that one has the container's cgroup made, and
/// moves processes in, which the user may not.
#[test]
fn a_user_from_outside_his_managers_cgroup() {
    need_systemd!();
    let managers = || fs::read_dir("/run/user").into_iter().flatten().flatten();
    let user = managers().find(|dir| dir.path().join("systemd/private").exists()).and_then(|dir| dir.metadata().ok());
    let user = user.map(|m| m.uid()).filter(|uid| *uid != 0 && is_root() && cgroup_v2());
    let Some(user) = user else { skip!("needs root, cgroup v2, and a user whose systemd runs") };
    known!("runc", "*", "has no right to move the process of exec");
    let (c, unit) = scope("");
    let c = c
        .rootless(user)
        .with("/linux/resources", json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 40 } }));
    c.write_config();
    let script = format!(
        "exec setpriv --reuid {user} --regid {user} --clear-groups env XDG_RUNTIME_DIR=/run/user/{user} \"$@\""
    );
    let call = |command: &str, flags: &[&str], rest: &[&str]| c.call_from_shell(&script, command, flags, rest);
    call("create", &[], &[]).ok();
    call("start", &[], &[]).ok();
    let manager = format!("/user.slice/user-{user}.slice/user@{user}.service");
    assert_in(c.pid(), &format!("{manager}/user.slice/{unit}"));
    assert_eq!(cgroup_file(c.pid(), "", "memory.max").as_deref(), Some("67108864"));
    assert_eq!(cgroup_file(c.pid(), "", "pids.max").as_deref(), Some("40"));
    let seen = call("exec", &[], &["cat", "/proc/self/cgroup"]).ok();
    assert!(seen.stdout.trim_end().ends_with(&unit), "{seen}");
    call("update", &["--pids-limit", "50"], &[]).ok();
    assert_eq!(cgroup_file(c.pid(), "", "pids.max").as_deref(), Some("50"));
    call("pause", &[], &[]).ok();
    assert_eq!(c.state()["status"], "paused");
    call("delete", &["--force"], &[]).ok();
    c.assert_gone();
    let left = format!("{manager}/user.slice/{unit}");
    assert!(!Path::new("/sys/fs/cgroup").join(left.trim_start_matches('/')).exists());
}
