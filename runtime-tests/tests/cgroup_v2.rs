//! What only a machine with cgroup v2 alone has, and that it takes effect. `hack/vm` is one.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use runtime_tests::{Container, Output, cgroup_dir, cgroup_file, cgroup_v2, known, run, runtime, skip, until};
use serde_json::{Value, json};

macro_rules! v2_only {
    () => {
        if !cgroup_v2() {
            skip!("needs a machine with cgroup v2 only (hack/vm)");
        }
    };
}

/// Runs a command of the runtime under strace, and returns what it says and the log.
fn traced(c: &Container, options: &[&str], command: &Command) -> (Output, String) {
    let mut outer = Command::new("strace");
    outer.current_dir(&c.dir).stdin(std::process::Stdio::null()).args(["-qqq", "-s", "200", "-o", "calls"]);
    outer.args(options).arg(command.get_program()).args(command.get_args());
    let out = run(&mut outer, &c.dir);
    (out, fs::read_to_string(c.dir.join("calls")).expect("the log of strace"))
}

#[test]
fn the_first_process_is_born_in_its_cgroup() {
    v2_only!();
    known!("runc", "*", "moves its processes into the cgroup");
    known!("crun", "*", "takes another way");
    if runtime().uses_systemd() {
        skip!("systemd makes a scope of processes that there are already");
    }
    let c = Container::new().args(&["cat", "/proc/self/cgroup"]).namespace("cgroup", "");
    c.write_config();
    let (out, log) = traced(&c, &["-f", "-e", "trace=clone3,openat,openat2"], &c.command("run", &[], &[]));
    // In the cgroup namespace that it made in there.
    assert_eq!(out.ok().stdout, "0::/\n");
    assert!(log.lines().any(|l| l.contains("clone3(") && l.contains("CLONE_INTO_CGROUP")), "{log}");
    // Writing there takes the kernel's global lock.
    let written = |l: &&str| l.contains("cgroup.procs") && l.contains("O_WRONLY");
    assert_eq!(log.lines().find(written), None);
}

#[test]
fn device_rules_hold_after_an_update() {
    v2_only!();
    let rules = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "w" },
    ]);
    let c = Container::new().caps(&["CAP_MKNOD"]).with("/linux/resources/devices", rules).idle().up();
    c.exec(&[], &["sh", "-c", "mkdir /n; mknod /n/kmsg c 1 11; mknod /n/mem c 1 1"]).ok();
    let asked = ["write", "/n/kmsg", "read", "/n/kmsg", "read", "/n/mem", "put", "/dev/null"];
    let expected = json!([0, "EPERM", "EPERM", 0]);
    assert_eq!(c.attempt(&asked), expected);
    c.call("update", &["--pids-limit", "50", "--memory", "128m"], &[]).ok();
    assert_eq!(cgroup_file(c.pid(), "", "pids.max"), Some("50".into()));
    assert_eq!(c.attempt(&asked), expected, "after update");
}

/// Fills memory beyond the limit in a child of the container's first process.
fn out_of_memory(group: &str) -> Container {
    let limits = json!({ "memory.max": "33554432", "memory.swap.max": "0", "memory.oom.group": group });
    let c = Container::new().sh("guest fill 80; echo survived > /after; sleep 3600");
    c.with("/linux/resources/unified", limits).up()
}

#[test]
fn out_of_memory_ends_the_whole_group_if_asked_to() {
    v2_only!();
    let c = out_of_memory("1");
    c.wait_status("stopped");
    assert!(!c.path("/after").exists());
    // And only then.
    let c = out_of_memory("0");
    until("the shell after its child's death", || c.path("/after").exists());
    assert_eq!(c.state()["status"], "running");
}

#[test]
fn a_throttled_disk_is_slow() {
    v2_only!();
    let Ok(numbers) = fs::read_to_string("/sys/block/vdb/dev") else { skip!("needs an empty disk /dev/vdb") };
    let (major, minor) = numbers.trim().split_once(':').expect("MAJOR:MINOR");
    let (major, minor): (u64, u64) = (major.parse().expect("a number"), minor.parse().expect("a number"));
    let c = Container::new()
        .idle()
        .with("/linux/devices", json!([{ "path": "/dev/disk", "type": "b", "major": major, "minor": minor }]))
        .with(
            "/linux/resources/devices/-",
            json!({ "allow": true, "type": "b", "major": major, "minor": minor, "access": "rw" }),
        );
    let rate = json!([{ "major": major, "minor": minor, "rate": 1_048_576 }]);
    let c = c.with("/linux/resources/blockIO", json!({ "throttleReadBpsDevice": rate })).up();
    assert_eq!(
        cgroup_file(c.pid(), "", "io.max"),
        Some(format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=max"))
    );
    let begin = Instant::now();
    c.exec(&[], &["dd", "if=/dev/disk", "of=/dev/null", "bs=64k", "count=64", "iflag=direct"]).ok();
    assert!(begin.elapsed() >= Duration::from_secs(3), "4 MiB at 1 MiB/s took {:?}", begin.elapsed());
    let stats = c.call("events", &["--stats"], &[]).ok().json();
    let bytes = stats["data"]["blkio"]["ioServiceBytesRecursive"].as_array().into_iter().flatten();
    let read: u64 = bytes
        .filter(|e| e["op"] == "Read" && e["major"] == major && e["minor"].as_u64().unwrap_or(0) == minor)
        .filter_map(|e| e["value"].as_u64())
        .sum();
    assert!(read >= 4 << 20, "{stats}");
}

#[test]
fn statistics_have_the_pressure() {
    v2_only!();
    known!("runc", "1.2", "PSI came with 1.2");
    // Two that want the processor, of which the quota gives them a tenth.
    let c = Container::new().sh("while :; do :; done & while :; do :; done");
    let c = c.with("/linux/resources/cpu", json!({ "quota": 10_000, "period": 100_000 })).up();
    let data = || c.call("events", &["--stats"], &[]).ok().json()["data"].clone();
    until("pressure on the processor", || data()["cpu"]["psi"]["some"]["total"].as_u64() > Some(0));
    let data = data();
    for part in ["cpu", "memory", "blkio"] {
        for kind in ["some", "full"] {
            for value in ["avg10", "avg60", "avg300", "total"] {
                assert!(data[part]["psi"][kind][value].is_number(), "{part}.psi.{kind}.{value}: {data}");
            }
        }
    }
}

#[test]
fn a_forking_container_is_killed_at_once() {
    v2_only!();
    known!("runc", "1.2", "reads the list of processes and signals each");
    let c = Container::new().sh("while :; do sleep 5 & sleep 0.01; done").up();
    let (out, log) = traced(&c, &["-e", "trace=openat,openat2"], &c.command("kill", &["--all"], &["KILL"]));
    out.ok();
    assert!(log.contains("cgroup.kill"), "{log}");
    c.wait_status("stopped");
}

#[test]
fn paused_means_frozen() {
    v2_only!();
    let c = Container::new().sh("while :; do sleep 5 & sleep 0.01; done").up();
    let frozen = || cgroup_file(c.pid(), "", "cgroup.events").unwrap_or_default();
    c.call("pause", &[], &[]).ok();
    // `pause` has waited: the kernel says when the last process stands still.
    assert!(frozen().contains("frozen 1"), "{}", frozen());
    c.call("resume", &[], &[]).ok();
    assert!(frozen().contains("frozen 0"), "{}", frozen());
}

#[test]
fn unified_properties() {
    v2_only!();
    let files = [("memory.high", "50331648"), ("cpu.weight", "321"), ("pids.max", "44"), ("memory.oom.group", "1")];
    let map: serde_json::Map<String, Value> = files.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    let c = Container::new().idle().with("/linux/resources/unified", Value::Object(map)).up();
    for (file, value) in files {
        assert_eq!(cgroup_file(c.pid(), "", file).as_deref(), Some(value), "{file}");
    }
}

#[test]
fn a_wrong_unified_property_is_named() {
    v2_only!();
    for (file, value) in [("memory.nonsense", "1"), ("pids.max", "many"), ("../cgroup.procs", "1")] {
        let c = Container::new().with("/linux/resources/unified", json!({ file: value }));
        let out = c.create(&[]);
        assert_ne!(out.code, 0, "{file}");
        if runtime().is_ours() {
            out.fails(1, &["linux.resources.unified", file]);
        }
        c.assert_gone();
    }
}

#[test]
fn exec_into_a_sub_cgroup() {
    v2_only!();
    let c = Container::new().idle().up();
    let missing = c.exec(&["--cgroup", "sub"], &["true"]);
    assert_ne!(missing.code, 0, "{missing}");
    if runtime().is_ours() {
        missing.fails(255, &["--cgroup", "/sub", "ENOENT"]);
    }
    let dir = cgroup_dir(c.pid(), "").expect("cgroup");
    fs::create_dir(dir.join("sub")).expect("sub-cgroup");
    let found = c.exec(&["--cgroup", "sub"], &["cat", "/proc/self/cgroup"]).ok().stdout;
    assert!(found.trim_end().ends_with("/sub"), "{found}");
    // And delete reaches it there.
    c.exec(&["--detach", "--cgroup", "sub"], &["sleep", "3600"]).ok();
    c.delete(&["--force"]).ok();
    c.assert_gone();
}
