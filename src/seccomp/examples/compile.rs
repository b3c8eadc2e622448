//! How long compiling takes, of a profile as large as the default one of Docker: `hack/bench --seccomp`.
//!
//! `compile` prints the median in microseconds; `compile --print` the profile.

use rrt_seccomp::{compile, machine};
use serde_json::{Value, json};
use std::time::Instant;

/// Calls that no default profile allows.
const DENIED: [&str; 34] = [
    "_sysctl",
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "quotactl",
    "reboot",
    "request_key",
    "setns",
    "swapon",
    "umount2",
    "userfaultfd",
];

fn profile() -> Value {
    let conditional = ["clone", "clone3", "personality", "socket", "ptrace"];
    let names: Vec<&str> = include_str!("../src/syscalls.tsv")
        .lines()
        .skip(1)
        .filter_map(|line| line.split('\t').next())
        .filter(|name| !DENIED.contains(name) && !conditional.contains(name))
        .filter(|name| !name.starts_with("s390") && !name.starts_with("riscv") && !name.starts_with("spu"))
        .collect();
    let when = |name: &str, op: &str, value: u64| {
        json!({"names": [name], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": value, "valueTwo": 0, "op": format!("SCMP_CMP_{op}")}]})
    };
    let mut rules = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["ptrace"], "action": "SCMP_ACT_ALLOW"}),
        when("socket", "NE", 40),
        when("clone", "MASKED_EQ", 0x7e02_0000),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
    ];
    rules.extend([0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff].map(|value| when("personality", "EQ", value)));
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules,
           "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]})
}

fn main() {
    let json = profile();
    if std::env::args().any(|a| a == "--print") {
        return println!("{json}");
    }
    let names: usize =
        json["syscalls"].as_array().into_iter().flatten().filter_map(|s| Some(s["names"].as_array()?.len())).sum();
    let profile = serde_json::from_value(json).expect("a profile");
    let mut times: Vec<f64> = (0..1000)
        .map(|_| {
            let begin = Instant::now();
            let filter = compile(&profile, machine(), false).expect("a good profile");
            let time = begin.elapsed().as_secs_f64() * 1e6;
            assert!(!filter.program.is_empty());
            time
        })
        .collect();
    let filter = compile(&profile, machine(), false).expect("a good profile");
    let first = times[0];
    times.sort_by(f64::total_cmp);
    println!(
        "a profile of {names} names on {} architectures: {} instructions, compiled in {:.0} us (median of 1000; the first {first:.0} us)",
        filter.architectures.len(),
        filter.program.len(),
        times[500]
    );
}
