//! A containerd shim where there is cgroup v2 only, with cgroupfs and with systemd: statistics, OOM kills, and what is left. `hack/vm` is
//! such a machine.

use runtime_tests::shim::{Shim, Streams, command, is_our_shim};
use runtime_tests::wire::Fields;
use runtime_tests::{Container, cgroup_dir, cgroup_v2, runtime, skip, until};
use serde_json::json;
use std::fs;
use std::path::Path;

macro_rules! v2_only {
    () => {
        if !cgroup_v2() {
            skip!("needs a machine with cgroup v2 only (hack/vm)");
        }
    };
}

const METRICS: &str = "io.containerd.cgroups.v2.Metrics";
/// The keys of memory.stat that are fields of `MemoryStat`, and their numbers.
const MEMORY_STAT: [(&str, u32); 31] = [
    ("anon", 1),
    ("file", 2),
    ("kernel_stack", 3),
    ("slab", 4),
    ("sock", 5),
    ("shmem", 6),
    ("file_mapped", 7),
    ("file_dirty", 8),
    ("file_writeback", 9),
    ("anon_thp", 10),
    ("inactive_anon", 11),
    ("active_anon", 12),
    ("inactive_file", 13),
    ("active_file", 14),
    ("unevictable", 15),
    ("slab_reclaimable", 16),
    ("slab_unreclaimable", 17),
    ("pgfault", 18),
    ("pgmajfault", 19),
    ("workingset_refault", 20),
    ("workingset_activate", 21),
    ("workingset_nodereclaim", 22),
    ("pgrefill", 23),
    ("pgscan", 24),
    ("pgsteal", 25),
    ("pgactivate", 26),
    ("pgdeactivate", 27),
    ("pglazyfree", 28),
    ("pglazyfreed", 29),
    ("thp_fault_alloc", 30),
    ("thp_collapse_alloc", 31),
];
/// Files of one number.
const MEMORY_FILES: [(&str, u32); 6] = [
    ("memory.current", 32),
    ("memory.max", 33),
    ("memory.swap.current", 34),
    ("memory.swap.max", 35),
    ("memory.peak", 36),
    ("memory.swap.peak", 37),
];
const CPU: [(&str, u32); 8] = [
    ("usage_usec", 1),
    ("user_usec", 2),
    ("system_usec", 3),
    ("nr_periods", 4),
    ("nr_throttled", 5),
    ("throttled_usec", 6),
    ("nr_bursts", 8),
    ("burst_usec", 9),
];
const EVENTS: [(&str, u32); 6] =
    [("low", 1), ("high", 2), ("max", 3), ("oom", 4), ("oom_kill", 5), ("oom_group_kill", 6)];

fn number(dir: &Path, file: &str) -> u64 {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_else(|_| "0".into());
    text.trim().parse().unwrap_or(u64::MAX)
}

/// Which of these keys of a file differ from the fields of the message. A key that this kernel has not is 0.
fn compare(dir: &Path, file: &str, keys: &[(&str, u32)], message: &Fields) -> Vec<String> {
    let text = fs::read_to_string(dir.join(file)).expect("a file of the cgroup");
    let of = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0);
    let differ = |(key, field): &&(&str, u32)| of(key) != message.number(*field);
    let tell = |(key, field): &(&str, u32)| format!("{file} {key}: {}, told {}", of(key), message.number(*field));
    keys.iter().filter(differ).map(tell).collect()
}

/// The total of `some` and `full` in a file of pressure.
fn pressure(dir: &Path, file: &str, message: &Fields) -> Vec<String> {
    let text = fs::read_to_string(dir.join(file)).expect("a file of pressure");
    let total = |kind: &str| {
        let line = text.lines().find(|l| l.starts_with(kind)).expect("its line");
        line.rsplit_once("total=").and_then(|(_, n)| n.parse::<u64>().ok()).expect("a total")
    };
    let kinds = [("some", 1), ("full", 2)];
    let differ = |(kind, field): &&(&str, u32)| total(kind) != message.message(*field).number(4);
    kinds.iter().filter(differ).map(|(kind, _)| format!("{file} {kind}")).collect()
}

/// Most fields of containerd's type are what the kernel's file says: all but those of io.stat and rdma, and memory.stat's `workingset_*_anon` and
/// `workingset_*_file`. The container is frozen, so it is the same when asked twice.
#[test]
fn statistics_are_those_of_the_kernel() {
    v2_only!();
    let mut c = Container::new()
        .sh("head -c 3000000 /dev/zero >/tmp/file; : >/tmp/done; i=0; while :; do i=$((i+1)); done")
        .mount("/tmp", "tmpfs", "tmpfs", &[])
        .with("/linux/resources/memory", json!({ "limit": 64 << 20, "swap": 96 << 20 }))
        .with("/linux/resources/cpu", json!({ "quota": 10000, "period": 100_000 }))
        .with("/linux/resources/pids", json!({ "limit": 42 }));
    let mut shim = Shim::start(&mut c);
    let pid = u32::try_from(shim.create(&c, &Streams::default())).expect("a pid");
    shim.simple("Start");
    let dir = cgroup_dir(pid, "").expect("its cgroup");
    let throttled = || {
        fs::read_to_string(dir.join("cpu.stat"))
            .is_ok_and(|t| t.contains("nr_throttled") && !t.contains("nr_throttled 0\n"))
    };
    until("it has used its share", || throttled() && c_has(pid, "/tmp/done"));
    shim.simple("Pause");
    let mut differences = Vec::new();
    until("the statistics to be the files'", || {
        let stats = shim.simple("Stats").message(1);
        assert_eq!(stats.text(1), METRICS);
        let metrics = stats.message(2);
        let (cpu, memory) = (metrics.message(2), metrics.message(4));
        differences = compare(&dir, "memory.stat", &MEMORY_STAT, &memory);
        differences.extend(compare(&dir, "cpu.stat", &CPU, &cpu));
        differences.extend(compare(&dir, "memory.events", &EVENTS, &metrics.message(8)));
        differences.extend(
            MEMORY_FILES.iter().filter(|(f, n)| number(&dir, f) != memory.number(*n)).map(|f| format!("{f:?}")),
        );
        differences.extend(pressure(&dir, "cpu.pressure", &cpu.message(7)));
        differences.extend(pressure(&dir, "memory.pressure", &memory.message(38)));
        differences.extend(pressure(&dir, "io.pressure", &metrics.message(6).message(2)));
        differences.is_empty()
    });
    let metrics = shim.simple("Stats").message(1).message(2);
    assert_eq!((metrics.message(1).number(1), metrics.message(1).number(2)), (1, 42), "pids");
    let memory = metrics.message(4);
    assert_eq!((memory.number(33), memory.number(35)), (64 << 20, 32 << 20), "limits");
    assert!(
        memory.number(6) >= 3_000_000 && memory.number(36) >= memory.number(32),
        "what is in the tmpfs, and the most"
    );
    assert!(metrics.message(2).number(5) > 0, "throttled");
    for huge in metrics.messages(7) {
        let size = huge.text(3);
        assert_eq!(huge.number(2), number(&dir, &format!("hugetlb.{size}.max")), "{size}");
    }
    shim.simple("Resume");
    shim.finish();
}

fn c_has(pid: u32, path: &str) -> bool {
    Path::new(&format!("/proc/{pid}/root{path}")).exists()
}

/// The kill of an exec is told, once for each, and the container goes on.
#[test]
fn each_oom_kill_is_told() {
    v2_only!();
    let mut c = Container::new().idle().with("/linux/resources/memory", json!({ "limit": 16 << 20, "swap": 16 << 20 }));
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    for n in 1..=3 {
        let id = format!("x{n}");
        shim.exec(&c, &id, "dd if=/dev/zero of=/dev/null bs=64M count=1; true", &Streams::default()).expect("Exec");
        let named = shim.exec_named(&id);
        shim.client.call("Start", &named).expect("Start");
        shim.wait(&id);
        until("the news", || shim.events.short().iter().filter(|e| *e == "oom").count() >= n);
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(shim.events.short().iter().filter(|e| *e == "oom").count(), 3, "{:?}", shim.events.short());
    assert_eq!(shim.status(""), 2, "the container runs");
    shim.finish();
}

/// `memory.oom.group`: all are killed at once, and that is told before the end. How often depends on the kernel, which counts one by one.
#[test]
fn a_whole_group_that_is_killed_is_told_before_the_end() {
    v2_only!();
    if !is_our_shim() {
        skip!("containerd's shim may tell after the end");
    }
    let mut c = Container::new()
        .sh("sleep 1000 & sleep 1000 & dd if=/dev/zero of=/dev/null bs=64M count=1; wait")
        .with("/linux/resources/memory", json!({ "limit": 16 << 20, "swap": 16 << 20 }))
        .with("/linux/resources/unified", json!({ "memory.oom.group": "1" }));
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    assert_eq!(shim.wait(""), 137);
    until("the end", || shim.events.short().iter().any(|e| e.starts_with("exit")));
    let mut told = shim.events.short();
    told.dedup();
    assert_eq!(told, ["create", "start", "oom", &format!("exit {} 137", c.id)]);
    shim.finish();
}

/// Nothing of the container is left, a systemd unit no more than a cgroup, when `delete` finishes what a killed shim has begun.
#[test]
fn a_killed_shim_leaves_no_cgroup_and_no_unit() {
    v2_only!();
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    let pid = u32::try_from(shim.create(&c, &Streams::default())).expect("a pid");
    shim.simple("Start");
    let dir = cgroup_dir(pid, "").expect("its cgroup");
    let unit = dir.file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(unit.ends_with(".scope"), runtime().uses_systemd(), "{unit}");
    shim.kill_shim();
    let output = command(&c, &c.dir.join("events.sock"), "delete", b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Fields::read(&output.stdout).number(2), 137);
    until("its cgroup is gone", || !dir.exists());
    if runtime().uses_systemd() {
        let show = ["show", "--value", "--property", "LoadState", &unit];
        until("its unit is forgotten", || {
            let state = std::process::Command::new("systemctl").args(show).output().expect("systemctl");
            state.stdout == b"not-found\n"
        });
    }
}
