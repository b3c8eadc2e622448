//! `linux.cgroupsPath` and `linux.resources`, update, pause, events and ps: by what the cgroup's files say.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use runtime_tests::{
    Container, cgroup_dir, cgroup_file, cgroup_v2, cgroups_named, known, process_cgroup, runtime, skip, until,
};
use serde_json::{Value, json};

/// A limit: where in `linux.resources`, its value, and the file that shows it: (controller, file, content) of v1,
/// (file, content) of v2.
struct Limit {
    property: &'static str,
    value: Value,
    v1: Option<(&'static str, &'static str, &'static str)>,
    v2: Option<(&'static str, &'static str)>,
}

fn limit(
    property: &'static str,
    value: impl Into<Value>,
    v1: impl Into<Option<(&'static str, &'static str, &'static str)>>,
    v2: impl Into<Option<(&'static str, &'static str)>>,
) -> Limit {
    Limit { property, value: value.into(), v1: v1.into(), v2: v2.into() }
}

/// Sets the limits in one container and reads each back. A file this kernel lacks is passed over, but not all of them.
#[track_caller]
fn check(limits: &[Limit]) {
    let c = limits
        .iter()
        .fold(Container::new().idle(), |c, l| c.with(&format!("/linux/resources/{}", l.property), l.value.clone()));
    let c = c.up();
    assert_limits(&c, limits);
}

#[track_caller]
fn assert_limits(c: &Container, limits: &[Limit]) {
    let pid = c.pid();
    let mut seen = 0;
    for l in limits {
        let (controller, file, expected) = match (cgroup_v2(), l.v1, l.v2) {
            (true, _, Some((file, content))) => ("", file, content),
            (false, Some(v1), _) => v1,
            _ => continue,
        };
        let Some(found) = cgroup_file(pid, controller, file) else { continue };
        assert_eq!(found, expected, "{} in {file}", l.property);
        seen += 1;
    }
    assert_ne!(seen, 0, "none of the files exists on this kernel");
}

#[test]
fn memory_limit_reservation_and_swap() {
    check(&[
        limit("memory/limit", 67_108_864, ("memory", "memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")),
        limit(
            "memory/reservation",
            33_554_432,
            ("memory", "memory.soft_limit_in_bytes", "33554432"),
            ("memory.low", "33554432"),
        ),
        limit(
            "memory/swap",
            134_217_728,
            ("memory", "memory.memsw.limit_in_bytes", "134217728"),
            ("memory.swap.max", "67108864"),
        ),
    ]);
}

#[test]
fn memory_without_a_limit() {
    check(&[limit(
        "memory/limit",
        -1,
        ("memory", "memory.limit_in_bytes", "9223372036854771712"),
        ("memory.max", "max"),
    )]);
}

#[test]
fn memory_of_v1_only() {
    check(&[
        limit("memory/swappiness", 10, ("memory", "memory.swappiness", "10"), None),
        limit(
            "memory/disableOOMKiller",
            true,
            ("memory", "memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0"),
            None,
        ),
        limit("pids/limit", 9, ("pids", "pids.max", "9"), ("pids.max", "9")),
    ]);
}

#[test]
fn swap_below_the_limit_is_refused() {
    let c = Container::new().with("/linux/resources/memory", json!({ "limit": 67_108_864, "swap": 1_048_576 }));
    c.create(&[]).fails(1, &["linux.resources.memory", "swap"]);
    c.assert_gone();
}

#[test]
fn memory_for_half_a_mebibyte() {
    known!("runc", "*", "needs some mebibytes itself");
    let c = Container::new().args(&["true"]).with("/linux/resources/memory", json!({ "limit": 524_288 }));
    c.run(&[]).ok();
}

#[test]
fn memory_too_small_to_begin_is_named() {
    let c = Container::new().args(&["true"]).with("/linux/resources/memory", json!({ "limit": 4096 }));
    c.create(&[]).fails(1, &["linux.resources.memory"]);
    c.assert_gone();
}

#[test]
fn cpu_shares_quota_and_period() {
    check(&[
        limit("cpu/shares", 512, ("cpu", "cpu.shares", "512"), None),
        limit("cpu/quota", 50_000, ("cpu", "cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 200000")),
        limit("cpu/period", 200_000, ("cpu", "cpu.cfs_period_us", "200000"), None),
    ]);
}

#[test]
fn cpu_shares_become_a_weight() {
    known!("runc", "1.3.2", "shares became a weight by a line, not by the curve that keeps 1024 at 100");
    check(&[limit("cpu/shares", 1024, ("cpu", "cpu.shares", "1024"), ("cpu.weight", "100"))]);
}

#[test]
fn cpu_burst() {
    known!("runc", "1.2", "cpu.burst is runtime-spec 1.1");
    check(&[
        limit("cpu/quota", 50_000, ("cpu", "cpu.cfs_quota_us", "50000"), None),
        limit("cpu/burst", 20_000, ("cpu", "cpu.cfs_burst_us", "20000"), ("cpu.max.burst", "20000")),
    ]);
}

#[test]
fn cpu_idle() {
    known!("runc", "1.2", "cpu.idle came with runtime-spec 1.1");
    check(&[limit("cpu/idle", 1, ("cpu", "cpu.idle", "1"), ("cpu.idle", "1"))]);
}

#[test]
fn cpu_in_real_time() {
    if cgroup_v2() {
        skip!("cgroup v2 has no real-time limits");
    }
    check(&[
        limit("cpu/realtimeRuntime", 5000, ("cpu", "cpu.rt_runtime_us", "5000"), None),
        limit("cpu/realtimePeriod", 500_000, ("cpu", "cpu.rt_period_us", "500000"), None),
    ]);
}

#[test]
fn cpuset() {
    check(&[
        limit("cpu/cpus", "0", ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0")),
        limit("cpu/mems", "0", ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0")),
    ]);
    let report = Container::new().with("/linux/resources/cpu", json!({ "cpus": "0" })).report();
    assert_eq!(report["affinity"], "0");
}

#[test]
fn a_cpuset_the_machine_has_not() {
    let c = Container::new().with("/linux/resources/cpu", json!({ "cpus": "4000" }));
    c.create(&[]).fails(1, &["linux.resources.cpu.cpus", "4000"]);
    c.assert_gone();
}

#[test]
fn pids() {
    check(&[limit("pids/limit", 50, ("pids", "pids.max", "50"), ("pids.max", "50"))]);
    check(&[limit("pids/limit", -1, ("pids", "pids.max", "max"), ("pids.max", "max"))]);
}

#[test]
fn the_limit_of_pids_is_felt() {
    let c = Container::new().with("/linux/resources/pids", json!({ "limit": 5 }));
    let c = c.sh("for i in 1 2 3 4 5 6 7 8; do sleep 60 & done; wait");
    let out = c.run(&[]);
    assert!(out.stderr.contains("fork"), "{out}");
}

/// The numbers of some disk of this machine.
fn disk() -> Option<(u64, u64)> {
    let disks = fs::read_dir("/sys/block").ok()?.flatten();
    let dev = disks.filter_map(|d| fs::read_to_string(d.path().join("dev")).ok()).next()?;
    let (major, minor) = dev.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn block_throttles() {
    let Some((major, minor)) = disk() else { skip!("no block device") };
    let kinds = [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
    ];
    let mut c = Container::new().idle();
    for (n, (property, ..)) in (1..).zip(kinds) {
        let entry = json!([{ "major": major, "minor": minor, "rate": n * 4096 }]);
        c = c.with(&format!("/linux/resources/blockIO/{property}"), entry);
    }
    let c = c.up();
    for (n, (_, v1, v2)) in (1..).zip(kinds) {
        let found = if cgroup_v2() { cgroup_file(c.pid(), "", "io.max") } else { cgroup_file(c.pid(), "blkio", v1) };
        let expected = if cgroup_v2() { format!("{v2}={}", n * 4096) } else { format!("{major}:{minor} {}", n * 4096) };
        assert!(found.as_ref().is_some_and(|f| f.contains(&expected)), "{expected}: {found:?}");
    }
}

#[test]
fn block_weight() {
    let files = ["blkio.weight", "blkio.bfq.weight"];
    let probe = Container::new().idle().up();
    let Some(file) = files.iter().find(|f| cgroup_file(probe.pid(), "blkio", f).is_some()) else {
        skip!("this kernel has no weights for block devices");
    };
    let c = Container::new().idle().with("/linux/resources/blockIO", json!({ "weight": 200 })).up();
    assert_eq!(cgroup_file(c.pid(), "blkio", file).map(|f| f.replace("default ", "")), Some("200".into()));
}

#[test]
fn huge_pages() {
    let probe = Container::new().idle().up();
    let file = "hugetlb.2MB.max";
    if cgroup_file(probe.pid(), "hugetlb", "hugetlb.2MB.limit_in_bytes").is_none()
        && cgroup_file(probe.pid(), "", file).is_none()
    {
        skip!("this kernel gives the container's cgroup no hugetlb files");
    }
    known!("runc", "*", "the v2 half of a hybrid machine is not used for limits");
    let limits = json!([{ "pageSize": "2MB", "limit": 4_194_304 }]);
    let c = Container::new().idle().with("/linux/resources/hugepageLimits", limits).up();
    let v1 = cgroup_file(c.pid(), "hugetlb", "hugetlb.2MB.limit_in_bytes");
    assert_eq!(v1.or_else(|| cgroup_file(c.pid(), "", file)), Some("4194304".into()));
}

#[test]
fn unified() {
    if !cgroup_v2() {
        skip!("unified is for cgroup v2");
    }
    let c = Container::new().idle().with("/linux/resources/unified", json!({ "pids.max": "33" })).up();
    assert_eq!(cgroup_file(c.pid(), "", "pids.max"), Some("33".into()));
}

/// A cgroup that holds those of the test's containers, by name. Make it before them: it is removed after them.
struct Parent(String);

impl Parent {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self(format!("rrt-tests-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for dir in cgroups_named(&self.0).iter().rev() {
            let _ = fs::remove_dir(dir);
        }
    }
}

fn paths_of(c: &Container) -> Vec<(&'static str, String)> {
    let controllers: &[&str] =
        if cgroup_v2() { &[""] } else { &["memory", "pids", "cpu", "devices", "freezer", "blkio", "cpuset"] };
    controllers.iter().map(|k| (*k, process_cgroup(c.pid(), k).expect("a cgroup"))).collect()
}

#[test]
fn an_absolute_path_starts_at_the_hierarchys_root() {
    if runtime().uses_systemd() {
        skip!("paths of the systemd driver have another form (tests/systemd.rs)");
    }
    let parent = Parent::new();
    let c = Container::new().idle();
    let path = format!("/{}/{}", parent.0, c.id);
    let c = c.with("/linux/cgroupsPath", json!(path)).up();
    for (controller, found) in paths_of(&c) {
        assert_eq!(found, path, "{controller}");
    }
}

#[test]
fn a_relative_path_starts_at_a_place_of_the_runtimes_choice() {
    if runtime().uses_systemd() {
        skip!("paths of the systemd driver have another form (tests/systemd.rs)");
    }
    let parent = Parent::new();
    let c = Container::new().idle();
    let path = format!("{}/{}", parent.0, c.id);
    let c = c.with("/linux/cgroupsPath", json!(path)).up();
    for (controller, found) in paths_of(&c) {
        assert!(found.ends_with(&format!("/{path}")), "{controller}: {found}");
    }
}

#[test]
fn without_a_path_the_id_is_its_name() {
    if runtime().uses_systemd() {
        skip!("paths of the systemd driver have another form (tests/systemd.rs)");
    }
    let c = Container::new().idle().up();
    for (controller, found) in paths_of(&c) {
        assert!(found.ends_with(&format!("/{}", c.id)), "{controller}: {found}");
    }
}

#[test]
fn a_hostile_path_stays_in_the_hierarchy() {
    if runtime().uses_systemd() {
        skip!("paths of the systemd driver have another form (tests/systemd.rs)");
    }
    let c = Container::new().idle();
    // Strange enough a place, so that whatever takes the path literally is seen.
    let outside = format!("/{}-escaped", c.id);
    for path in [format!("../../../../../..{outside}"), format!("/../../../../..{outside}")] {
        let c = Container::new().args(&["true"]).with("/linux/cgroupsPath", json!(path));
        let out = c.run(&[]);
        assert!(!Path::new(&outside).exists(), "{path} made a directory outside: {out}");
        if runtime().is_ours() {
            out.fails(1, &["linux.cgroupsPath", ".."]);
        }
    }
}

#[test]
fn parents_are_made_and_only_the_containers_own_is_removed() {
    if runtime().uses_systemd() {
        skip!("paths of the systemd driver have another form (tests/systemd.rs)");
    }
    let parent = Parent::new();
    let c = Container::new().idle();
    let path = json!(format!("/{}/{}", parent.0, c.id));
    let c = c.with("/linux/cgroupsPath", path).up();
    c.delete(&["--force"]).ok();
    c.assert_gone();
    assert!(!cgroups_named(&parent.0).is_empty(), "the parent may be another's");
}

#[test]
fn a_cgroup_in_use_by_another_container() {
    if runtime().uses_systemd() {
        skip!("paths of the systemd driver have another form (tests/systemd.rs)");
    }
    let parent = Parent::new();
    let first = Container::new().idle();
    let path = json!(format!("/{}/{}", parent.0, first.id));
    let first = first.with("/linux/cgroupsPath", path.clone()).up();
    let second = Container::new().idle().with("/linux/cgroupsPath", path);
    let out = second.create(&[]);
    // A warning or a refusal; what must not happen is that the end of one takes the other along.
    if out.code == 0 {
        second.kill("KILL").ok();
        second.wait_status("stopped");
    }
    assert_eq!(first.state()["status"], "running", "{out}");
}

#[test]
fn update_by_flags() {
    let c = Container::new().idle().with("/linux/resources/memory", json!({ "limit": 67_108_864 })).up();
    let flags = [
        "--memory",
        "128m",
        "--memory-reservation",
        "64m",
        "--cpu-share",
        "300",
        "--cpu-quota",
        "40000",
        "--cpu-period",
        "80000",
        "--pids-limit",
        "77",
        "--cpuset-cpus",
        "0",
        "--cpuset-mems",
        "0",
        "--memory-swap",
        "256m",
    ];
    c.call("update", &flags, &[]).ok();
    assert_limits(
        &c,
        &[
            limit("memory", 0, ("memory", "memory.limit_in_bytes", "134217728"), ("memory.max", "134217728")),
            limit(
                "memory-swap",
                0,
                ("memory", "memory.memsw.limit_in_bytes", "268435456"),
                ("memory.swap.max", "134217728"),
            ),
            limit(
                "memory-reservation",
                0,
                ("memory", "memory.soft_limit_in_bytes", "67108864"),
                ("memory.low", "67108864"),
            ),
            limit("cpu-share", 0, ("cpu", "cpu.shares", "300"), None),
            limit("cpu-quota", 0, ("cpu", "cpu.cfs_quota_us", "40000"), ("cpu.max", "40000 80000")),
            limit("cpu-period", 0, ("cpu", "cpu.cfs_period_us", "80000"), None),
            limit("pids-limit", 0, ("pids", "pids.max", "77"), ("pids.max", "77")),
            limit("cpuset-cpus", 0, ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0")),
            limit("cpuset-mems", 0, ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0")),
        ],
    );
    // And all that is a limit away again.
    let flags = [
        "--memory",
        "-1",
        "--memory-swap",
        "-1",
        "--memory-reservation",
        "-1",
        "--cpu-quota",
        "-1",
        "--pids-limit",
        "-1",
    ];
    c.call("update", &flags, &[]).ok();
    let none = "9223372036854771712";
    assert_limits(
        &c,
        &[
            limit("memory", 0, ("memory", "memory.limit_in_bytes", none), ("memory.max", "max")),
            limit("memory-swap", 0, ("memory", "memory.memsw.limit_in_bytes", none), ("memory.swap.max", "max")),
            limit("memory-reservation", 0, ("memory", "memory.soft_limit_in_bytes", none), ("memory.low", "max")),
            limit("cpu-quota", 0, ("cpu", "cpu.cfs_quota_us", "-1"), ("cpu.max", "max 80000")),
            limit("pids-limit", 0, ("pids", "pids.max", "max"), ("pids.max", "max")),
            limit("cpu-share", 0, ("cpu", "cpu.shares", "300"), None),
        ],
    );
}

#[test]
fn update_of_the_block_weight() {
    let c = Container::new().idle().up();
    let files = [("blkio", "blkio.weight"), ("blkio", "blkio.bfq.weight"), ("", "io.bfq.weight"), ("", "io.weight")];
    let there = |(controller, file): &&(&str, &str)| cgroup_file(c.pid(), controller, file).is_some();
    let Some((controller, file)) = files.iter().find(there) else {
        skip!("this kernel has no weights for block devices");
    };
    c.call("update", &["--blkio-weight", "400"], &[]).ok();
    let value =
        cgroup_file(c.pid(), controller, file).map(|f| f.lines().next().unwrap_or_default().replace("default ", ""));
    // io.weight counts from 1 to 10000.
    let expected = if *file == "io.weight" { "3940" } else { "400" };
    assert_eq!(value.as_deref(), Some(expected), "{file}");
    known!("runc", "*", "takes a weight that no kernel has, and sets none");
    c.call("update", &["--blkio-weight", "9"], &[]).fails(1, &["linux.resources.blockIO.weight", "10 to 1000"]);
}

#[test]
fn update_in_real_time() {
    if cgroup_v2() {
        skip!("cgroup v2 has no real-time limits");
    }
    let c = Container::new().idle().up();
    c.call("update", &["--cpu-rt-runtime", "5000", "--cpu-rt-period", "400000"], &[]).ok();
    let files = [
        limit("cpu-rt-runtime", 0, ("cpu", "cpu.rt_runtime_us", "5000"), None),
        limit("cpu-rt-period", 0, ("cpu", "cpu.rt_period_us", "400000"), None),
    ];
    assert_limits(&c, &files);
    // A period that the runtime in force does not fit is the kernel's to refuse, and changes nothing.
    c.call("update", &["--cpu-rt-period", "4000"], &[]).fails(1, &["linux.resources.cpu.realtimePeriod"]);
    assert_limits(&c, &files);
}

#[test]
fn update_of_memory_and_swap_in_any_order() {
    let resources = json!({ "limit": 67_108_864, "swap": 134_217_728 });
    let c = Container::new().idle().with("/linux/resources/memory", resources).up();
    let both = |memory: &'static str, total: &'static str, alone: &'static str| {
        [
            limit("memory", 0, ("memory", "memory.limit_in_bytes", memory), ("memory.max", memory)),
            limit("swap", 0, ("memory", "memory.memsw.limit_in_bytes", total), ("memory.swap.max", alone)),
        ]
    };
    // Both above what was, then both below it: v1 checks each against the other.
    c.call("update", &["--memory", "256m", "--memory-swap", "512m"], &[]).ok();
    assert_limits(&c, &both("268435456", "536870912", "268435456"));
    c.call("update", &["--memory-swap", "48m", "--memory", "32m"], &[]).ok();
    assert_limits(&c, &both("33554432", "50331648", "16777216"));
    c.call("update", &["--memory", "64m", "--memory-swap", "32m"], &[]).fails(1, &["linux.resources.memory.swap"]);
    assert_limits(&c, &both("33554432", "50331648", "16777216"));
    // Without a limit on memory the swap's goes, too.
    c.call("update", &["--memory", "-1"], &[]).ok();
    assert_limits(
        &c,
        &[limit("memory", 0, ("memory", "memory.limit_in_bytes", "9223372036854771712"), ("memory.max", "max"))],
    );
}

#[test]
fn update_of_burst_and_idle() {
    known!("runc", "1.2", "--cpu-burst and --cpu-idle came with 1.2");
    let c = Container::new().idle().with("/linux/resources/cpu", json!({ "quota": 30_000, "period": 90_000 })).up();
    c.call("update", &["--cpu-burst", "10000"], &[]).ok();
    assert_limits(&c, &[limit("burst", 0, ("cpu", "cpu.cfs_burst_us", "10000"), ("cpu.max.burst", "10000"))]);
    let c = Container::new().idle().up();
    c.call("update", &["--cpu-idle", "1"], &[]).ok();
    assert_limits(&c, &[limit("idle", 0, ("cpu", "cpu.idle", "1"), ("cpu.idle", "1"))]);
}

#[test]
fn update_accepts_what_no_longer_exists() {
    let c = Container::new().idle().up();
    c.call("update", &["--kernel-memory", "50M", "--kernel-memory-tcp=50M", "--pids-limit", "30"], &[]).ok();
    assert_limits(&c, &[limit("pids", 0, ("pids", "pids.max", "30"), ("pids.max", "30"))]);
}

#[test]
fn update_leaves_the_rest_alone() {
    let c = Container::new().idle().with("/linux/resources", json!({
        "devices": [{ "allow": false, "access": "rwm" }], "pids": { "limit": 40 }, "cpu": { "quota": 27_000, "period": 90_000 },
    }));
    let c = c.up();
    c.call("update", &["--memory", "128m"], &[]).ok();
    assert_limits(
        &c,
        &[
            limit("pids", 0, ("pids", "pids.max", "40"), ("pids.max", "40")),
            limit("quota", 0, ("cpu", "cpu.cfs_quota_us", "27000"), ("cpu.max", "27000 90000")),
            limit("period", 0, ("cpu", "cpu.cfs_period_us", "90000"), None),
        ],
    );
    assert_eq!(c.attempt(&["put", "/dev/null"]), json!([0]));
}

#[test]
fn update_by_json() {
    let c = Container::new().idle().up();
    let resources = json!({ "memory": { "limit": 100_663_296 }, "pids": { "limit": 60 }, "cpu": { "quota": 20_000, "period": 50_000 } });
    let expected = [
        limit("memory", 0, ("memory", "memory.limit_in_bytes", "100663296"), ("memory.max", "100663296")),
        limit("pids", 0, ("pids", "pids.max", "60"), ("pids.max", "60")),
        limit("quota", 0, ("cpu", "cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 50000")),
    ];
    fs::write(c.dir.join("resources.json"), resources.to_string()).expect("resources.json");
    c.call("update", &["--resources", "resources.json"], &[]).ok();
    assert_limits(&c, &expected);
    c.call("update", &["--pids-limit", "61"], &[]).ok();
    // What containerd and CRI-O do.
    let mut command = c.command("update", &["--resources=-"], &[]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("spawn the runtime");
    child.stdin.take().expect("a pipe").write_all(resources.to_string().as_bytes()).expect("write");
    assert!(child.wait().expect("wait").success());
    assert_limits(&c, &expected);
}

#[test]
fn update_refuses_what_is_broken() {
    let c = Container::new().idle().up();
    fs::write(c.dir.join("r.json"), "{").expect("r.json");
    c.call("update", &["--resources", "r.json"], &[]).fails(1, &["r.json", "line 1"]);
    c.call("update", &["--memory", "lots"], &[]).fails(1, &["--memory", "lots"]);
    c.call("update", &["--pids-limit", "x"], &[]).fails(1, &["pids-limit"]);
}

#[test]
fn update_of_an_unknown_container() {
    Container::new().call("update", &["--pids-limit", "7"], &[]).fails(1, &["does not exist"]);
}

#[test]
fn update_below_the_memory_in_use() {
    let c = Container::new().args(&["guest", "fill", "40"]);
    let create = c.create(&[]).ok();
    c.start().ok();
    create.wait_for("filled");
    fs::write(c.dir.join("r.json"), json!({ "memory": { "limit": 1_048_576, "checkBeforeUpdate": true } }).to_string())
        .expect("r.json");
    known!("runc", "1.2", "checkBeforeUpdate is runtime-spec 1.1");
    c.call("update", &["-r", "r.json"], &[]).fails(1, &["memory"]);
    assert_eq!(c.state()["status"], "running");
}

#[test]
fn pause_and_resume() {
    let c = Container::new().sh("i=0; while :; do i=$((i+1)); echo $i > /count; done").up();
    until("the first number", || c.path("/count").exists());
    c.call("pause", &[], &[]).ok();
    assert_eq!(c.state()["status"], "paused");
    let before = fs::read(c.path("/count")).expect("count");
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(fs::read(c.path("/count")).expect("count"), before, "it runs on");
    c.call("pause", &[], &[]).fails(1, &["paused"]);
    c.call("resume", &[], &[]).ok();
    assert_eq!(c.state()["status"], "running");
    until("the next number", || fs::read(c.path("/count")).is_ok_and(|n| n != before && !n.is_empty()));
    c.call("resume", &[], &[]).fails(1, &["paused"]);
}

#[test]
fn kill_of_a_paused_container_takes_effect_on_resume() {
    let c = Container::new().idle().up();
    c.call("pause", &[], &[]).ok();
    c.kill("KILL").ok();
    if c.state()["status"] == "paused" {
        c.call("resume", &[], &[]).ok();
    }
    c.wait_status("stopped");
}

#[test]
fn statistics() {
    let c = Container::new().idle().with("/linux/resources/memory", json!({ "limit": 67_108_864 }));
    let c = c.with("/linux/resources/pids", json!({ "limit": 40 })).up();
    let out = c.call("events", &["--stats"], &[]).ok();
    assert_eq!(out.stdout.trim_end().lines().count(), 1, "one object a line: {out}");
    let stats = out.json();
    assert_eq!(stats["type"], "stats");
    assert_eq!(stats["id"], c.id.as_str());
    let data = &stats["data"];
    for path in [
        "/cpu/usage/total",
        "/cpu/usage/kernel",
        "/cpu/usage/user",
        "/cpu/throttling",
        "/memory/usage/limit",
        "/memory/usage/usage",
        "/memory/usage/max",
        "/memory/usage/failcnt",
        "/memory/swap",
        "/memory/raw",
        "/pids/current",
        "/pids/limit",
        "/blkio",
        "/hugetlb",
    ] {
        // Empty values are left out by runc; max and failcnt are 0 on cgroup v2.
        let optional = cgroup_v2() && (path.ends_with("max") || path.ends_with("failcnt"))
            || ["/hugetlb", "/memory/usage/failcnt"].contains(&path);
        assert!(optional || data.pointer(path).is_some(), "{path} is missing: {data}");
    }
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert!(data["pids"]["current"].as_u64() >= Some(1), "{data}");
    assert_eq!(data["pids"]["limit"], 40);
    assert!(data["cpu"]["usage"]["total"].as_u64() > Some(0), "{data}");
    assert!(data["memory"]["usage"]["usage"].as_u64() > Some(0), "{data}");
    if !cgroup_v2() {
        assert!(data["cpu"]["usage"]["percpu"].as_array().is_some_and(|p| !p.is_empty()), "{data}");
    }
}

#[test]
fn statistics_at_an_interval() {
    let c = Container::new().idle().up();
    let mut events = c.spawn("events", &["--interval=100ms"], &[]);
    until("three events", || events.stdout().lines().count() >= 3);
    for line in events.stdout().lines().take(3) {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(event["type"], "stats");
    }
    c.delete(&["--force"]).ok();
    // It ends with its container; with which code is not said.
    events.wait();
}

#[test]
fn running_out_of_memory_is_an_event() {
    let c = Container::new()
        .idle()
        .with("/linux/resources/memory", json!({ "limit": 20_971_520, "swap": 20_971_520 }))
        .up();
    let events = c.spawn("events", &["--interval=1s"], &[]);
    events.wait_for("stats");
    assert_eq!(c.exec(&[], &["guest", "fill", "60"]).code, 128 + 9);
    events.wait_for(r#""type":"oom""#);
    let text = events.stdout();
    let line = text.lines().find(|l| l.contains(r#""type":"oom""#)).expect("the event");
    let event: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(event["id"], c.id.as_str());
}

#[test]
fn events_of_a_stopped_container() {
    let c = Container::new().args(&["true"]).up();
    c.wait_status("stopped");
    c.call("events", &["--stats"], &[]).fails(1, &["not running"]);
}

#[test]
fn ps_lists_host_pids() {
    let c = Container::new().sh("sleep 3600 & wait").up();
    let pids = || c.call("ps", &["--format", "json"], &[]).ok().json();
    until("two processes", || pids().as_array().is_some_and(|p| p.len() == 2));
    assert_eq!(pids()[0], c.pid());
    let table = c.call("ps", &[], &[]).ok().stdout;
    let mut lines = table.lines();
    assert!(lines.next().is_some_and(|head| head.contains("PID") && head.contains("CMD")), "{table}");
    assert_eq!(lines.count(), 2, "{table}");
    let table = c.call("ps", &[], &["-o", "pid,comm"]).ok().stdout;
    assert!(table.contains("sleep") && !table.contains("CMD "), "{table}");
}

#[test]
fn ps_shows_sub_cgroups() {
    if cgroup_v2() {
        skip!("on cgroup v2 the container's cgroup cannot hold processes beside a sub-cgroup");
    }
    let c = Container::new().idle().up();
    let sub = cgroup_dir(c.pid(), "devices").expect("cgroup").join("sub");
    fs::create_dir(&sub).expect("sub-cgroup");
    c.exec(&["--detach", "--cgroup", "devices:sub"], &["sleep", "3600"]).ok();
    assert_eq!(c.call("ps", &["--format", "json"], &[]).ok().json().as_array().map(Vec::len), Some(2));
    // And delete removes what the container made in its cgroup.
    c.delete(&["--force"]).ok();
    c.assert_gone();
}
