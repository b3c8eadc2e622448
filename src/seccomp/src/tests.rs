//! Programs against a plain evaluation of their profiles, and what is refused.

use crate::testing::interpreter::{Data, Insn, check, run};
use crate::testing::plain::{self, Profile};
use crate::{Filter, compile};
use rrt_oci::Arch;
use serde_json::{Value, json};

const MACHINES: [(Arch, &str); 8] = [
    (Arch::ScmpArchX86_64, "SCMP_ARCH_X86_64"),
    (Arch::ScmpArchX86, "SCMP_ARCH_X86"),
    (Arch::ScmpArchAarch64, "SCMP_ARCH_AARCH64"),
    (Arch::ScmpArchArm, "SCMP_ARCH_ARM"),
    (Arch::ScmpArchRiscv64, "SCMP_ARCH_RISCV64"),
    (Arch::ScmpArchS390x, "SCMP_ARCH_S390X"),
    (Arch::ScmpArchPpc64le, "SCMP_ARCH_PPC64LE"),
    (Arch::ScmpArchLoongarch64, "SCMP_ARCH_LOONGARCH64"),
];

fn filter_on(machine: Arch, profile: &Value) -> Result<Filter, String> {
    let profile = serde_json::from_value(profile.clone()).expect("a profile");
    compile(&profile, machine, false).map_err(|e| e.to_string())
}

fn filter(profile: Value) -> Result<Filter, String> {
    filter_on(Arch::ScmpArchX86_64, &profile)
}

fn code(filter: &Filter) -> Vec<Insn> {
    let code: Vec<Insn> = filter.program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    check(&code);
    code
}

/// The verdict on a call of x86_64.
fn verdict(profile: Value, name: &str, args: [u64; 6]) -> u32 {
    let number = plain::numbers("SCMP_ARCH_X86_64")[name];
    let data = Data { arch: plain::audit("SCMP_ARCH_X86_64"), number, args };
    run(&code(&filter(profile).expect("a good profile")), &data, false).verdict
}

/// xorshift64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

const VALUES: [u64; 14] = [
    0,
    1,
    2,
    3,
    7,
    40,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x2_0000_0000,
    0x7e02_0000,
    u64::MAX - 1,
    u64::MAX,
];

const NAMES: [&str; 16] = [
    "read",
    "write",
    "open",
    "openat",
    "socket",
    "socketcall",
    "ipc",
    "shmget",
    "clone",
    "clone3",
    "personality",
    "futex",
    "execve",
    "no_such_call",
    "set_tls",
    "statx",
];

fn random_profile(random: &mut Random) -> Value {
    let actions = ["KILL", "KILL_PROCESS", "TRAP", "ERRNO", "TRACE", "LOG", "ALLOW"].map(|a| format!("SCMP_ACT_{a}"));
    let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"].map(|o| format!("SCMP_CMP_{o}"));
    let all: Vec<&str> = MACHINES.iter().map(|(_, name)| *name).chain(["SCMP_ARCH_X32", "SCMP_ARCH_SH"]).collect();
    let mut rules = vec![json!({"names": ["execve"], "action": "SCMP_ACT_ALLOW"})];
    for _ in 0..random.below(12) {
        let names: Vec<&str> = (0..1 + random.below(3)).map(|_| *random.of(&NAMES)).collect();
        let action = random.of(&actions).as_str();
        let mut rule = json!({"names": names, "action": action});
        if matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") && random.below(3) == 0 {
            rule["errnoRet"] = json!(random.below(4095));
        }
        let args: Vec<Value> = (0..random.below(4))
            .map(|_| {
                json!({"index": random.below(6), "op": random.of(&operators),
                       "value": random.of(&VALUES), "valueTwo": random.of(&VALUES)})
            })
            .collect();
        if !args.is_empty() {
            rule["args"] = json!(args);
        }
        rules.push(rule);
    }
    let architectures: Vec<&str> = (0..random.below(6)).map(|_| *random.of(&all)).collect();
    json!({"defaultAction": random.of(&actions), "architectures": architectures, "syscalls": rules})
}

#[test]
fn programs_say_what_their_profiles_say() {
    let mut random = Random(0x5ecc_0a9f_1234_5678);
    let (mut compared, mut refused) = (0, 0);
    for round in 0..1500 {
        let (machine, name) = *random.of(&MACHINES);
        let profile = random_profile(&mut random);
        let filter = match filter_on(machine, &profile) {
            Ok(filter) => filter,
            Err(e) => {
                let contradiction = e.contains("and another action") || e.contains("denies `execve`");
                assert!(contradiction, "{e}: {profile}");
                refused += 1;
                continue;
            }
        };
        let code = code(&filter);
        let plain = Profile::new(&profile, name);
        let big_endian = machine == Arch::ScmpArchS390x;
        for arch in [name, "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_RISCV64"] {
            let numbers = plain::numbers(arch);
            for _ in 0..12 {
                let number = match numbers.get(random.of(&NAMES)) {
                    Some(n) if random.below(4) != 0 => *n,
                    _ => *random.of(&[0, 400, 471, 472, 5000, 0x3fff_ffff, 0x4000_0000, 0x4000_0208, u32::MAX]),
                };
                let args = std::array::from_fn(|_| *random.of(&VALUES));
                let data = Data { arch: plain::audit(arch), number, args };
                let (ran, expected) = (run(&code, &data, big_endian), plain.decide(&data));
                assert_eq!(ran.verdict, expected, "round {round}, {name}: {data:x?}\n{profile}\n{:#?}", filter.program);
                compared += 1;
            }
        }
    }
    assert!(compared > 30_000 && refused < 700, "{compared} compared, {refused} refused");
}

/// A profile as engines have them: some hundred allowed calls, few with conditions.
fn big() -> Value {
    let dangerous =
        ["mount", "bpf", "kexec_load", "keyctl", "ptrace", "unshare", "socket", "personality", "clone", "clone3"];
    let names =
        plain::numbers("SCMP_ARCH_X86_64").keys().copied().filter(|n| !dangerous.contains(n)).collect::<Vec<_>>();
    let equals = |value: u64| json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
    let mut rules = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}),
        json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
    ];
    rules.extend(
        [0u64, 8, 0x20000, 0x20008, 0xffff_ffff]
            .map(|v| json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": equals(v)})),
    );
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules,
           "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]})
}

#[test]
fn every_number_of_a_big_profile_is_decided_right_and_soon() {
    let profile = big();
    let filter = filter(profile.clone()).unwrap();
    let code = code(&filter);
    assert!(code.len() < 600, "{} instructions", code.len());
    let plain = Profile::new(&profile, "SCMP_ARCH_X86_64");
    for arch in ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"] {
        for number in (0..600).chain(0x4000_0000..0x4000_0258) {
            let data = Data { arch: plain::audit(arch), number, args: [40, 0, 0, 0, 0, 0] };
            let ran = run(&code, &data, false);
            assert_eq!(ran.verdict, plain.decide(&data), "{data:x?}");
            assert!(ran.steps <= if ran.looked_at_arguments { 60 } else { 14 }, "{} steps for {data:x?}", ran.steps);
            // The kernel's cache of calls that are always allowed depends on it.
            let conditional = ["socket", "clone", "personality"].map(|n| plain::numbers("SCMP_ARCH_X86_64")[n]);
            if arch == "SCMP_ARCH_X86_64" && number < 600 && !conditional.contains(&number) {
                assert!(!ran.looked_at_arguments, "{data:x?}");
            }
        }
    }
}

#[test]
fn an_architecture_that_is_not_listed_is_killed() {
    let program = code(&filter(json!({"defaultAction": "SCMP_ACT_ALLOW"})).unwrap());
    let verdict = |arch: &str, number| {
        let data = Data { arch: plain::audit(arch), number, args: [0; 6] };
        run(&program, &data, false).verdict
    };
    assert_eq!(verdict("SCMP_ARCH_X86_64", 0), 0x7fff_0000);
    assert_eq!(verdict("SCMP_ARCH_X86", 3), 0x8000_0000);
    assert_eq!(verdict("SCMP_ARCH_X32", 0x4000_0000), 0x8000_0000);
    assert_eq!(verdict("SCMP_ARCH_AARCH64", 63), 0x8000_0000);
    assert_eq!(verdict("SCMP_ARCH_X86_64", u32::MAX), 0x7fff_0000, "how a tracer skips a call");
}

#[test]
fn architectures_of_other_machines_are_left_out() {
    let names: Vec<&str> = crate::arch::ALL.iter().map(|(_, name)| *name).collect();
    let filter = filter(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": names})).unwrap();
    assert_eq!(filter.architectures, [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]);
    assert_eq!(filter.left_out.len(), 20);
    let all: Vec<String> = crate::arch::ALL.iter().map(|(arch, _)| crate::arch_name(*arch)).collect();
    assert_eq!(all, names, "both ways");
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let profile = |default: &str| {
        let rules = json!([{"names": ["openat2", "execve"], "action": "SCMP_ACT_ALLOW"},
                           {"names": ["faccessat2"], "action": default}]);
        json!({"defaultAction": default, "syscalls": rules})
    };
    // faccessat2 is 439: named, if only to say what the default says.
    for (name, expected) in [("openat2", 0x7fff_0000), ("clone3", 0x0005_0001), ("faccessat2", 0x0005_0001)] {
        assert_eq!(verdict(profile("SCMP_ACT_ERRNO"), name, [0; 6]), expected, "{name}");
    }
    for default in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_TRAP"] {
        assert_eq!(verdict(profile(default), "landlock_restrict_self", [0; 6]), 0x0005_0026, "{default}");
    }
    for (default, value) in [("LOG", 0x7ffc_0000), ("TRACE", 0x7ff0_0001), ("ALLOW", 0x7fff_0000)] {
        let default = format!("SCMP_ACT_{default}");
        assert_eq!(verdict(profile(&default), "landlock_restrict_self", [0; 6]), value, "{default}");
    }
}

#[test]
fn rules_for_one_call_come_together_as_in_libseccomp() {
    let rule =
        |action: &str, args: Value| json!({"names": ["socket"], "action": format!("SCMP_ACT_{action}"), "args": args});
    let is = |index: u64, value: u64| json!({"index": index, "op": "SCMP_CMP_EQ", "value": value});
    let profile = |rules: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    // A rule without conditions, wherever it stands.
    let rules = json!([rule("ERRNO", json!([is(0, 1)])), rule("LOG", json!([])), rule("TRAP", json!([]))]);
    assert_eq!(verdict(profile(rules.clone()), "socket", [1, 0, 0, 0, 0, 0]), 0x7ffc_0000);
    let warnings = filter(profile(rules)).unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("syscalls[0]") && warnings[0].contains("that of syscalls[1] decides"), "{warnings:?}");
    // All conditions of a rule; one of several rules.
    let rules = json!([rule("ERRNO", json!([is(0, 1), is(1, 2)])), rule("TRAP", json!([is(0, 3)]))]);
    assert_eq!(verdict(profile(rules.clone()), "socket", [1, 2, 0, 0, 0, 0]), 0x0005_0001);
    assert_eq!(verdict(profile(rules.clone()), "socket", [1, 0, 0, 0, 0, 0]), 0x7fff_0000);
    assert_eq!(verdict(profile(rules), "socket", [3, 0, 0, 0, 0, 0]), 0x0003_0000);
    // Two conditions on one argument: alternatives.
    let rules = json!([rule("ERRNO", json!([is(0, 1), is(0, 2)]))]);
    assert_eq!(verdict(profile(rules.clone()), "socket", [1, 0, 0, 0, 0, 0]), 0x0005_0001);
    assert_eq!(verdict(profile(rules), "socket", [2, 0, 0, 0, 0, 0]), 0x0005_0001);
    // A contradiction.
    let rules = json!([rule("ERRNO", json!([is(0, 1)])), rule("LOG", json!([is(0, 1)]))]);
    let error = filter(profile(rules)).unwrap_err();
    assert!(
        error.starts_with("linux.seccomp.syscalls[1]: ") && error.contains("syscalls[0] and another action"),
        "{error}"
    );
}

#[test]
fn a_rule_that_begins_another_one_decides() {
    let is = |index: u64, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let rule = |action: &str, args: Value| json!({"names": ["read"], "action": action, "args": args});
    let (longer, shorter) =
        (rule("SCMP_ACT_TRAP", json!([is(0, 1), is(1, 2)])), rule("SCMP_ACT_KILL_PROCESS", json!([is(0, 1)])));
    for rules in [[&longer, &shorter], [&shorter, &longer]] {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
        assert_eq!(filter(profile.clone()).unwrap().warnings.len(), 1);
        assert_eq!(verdict(profile, "read", [1, 2, 0, 0, 0, 0]), 0x8000_0000);
    }
}

#[test]
fn a_tracer_gets_any_16_bits() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
                         "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535}]});
    assert_eq!(verdict(profile, "read", [0; 6]), 0x7ff0_ffff);
}

#[test]
fn a_socket_rule_holds_through_socketcall() {
    let x86 = |profile: &Value, number, args: [u64; 6]| {
        let data = Data { arch: plain::audit("SCMP_ARCH_X86"), number, args };
        run(&code(&filter(profile.clone()).unwrap()), &data, false).verdict
    };
    let socket = json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 3, "op": "SCMP_CMP_EQ"}]});
    let mut profile =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [socket.clone()]});
    assert_eq!(x86(&profile, 359, [2, 3, 0, 0, 0, 0]), 0x0005_0001);
    assert_eq!(x86(&profile, 359, [2, 1, 0, 0, 0, 0]), 0x7fff_0000);
    assert_eq!(
        x86(&profile, 102, [1, 0x1000, 0, 0, 0, 0]),
        0x0005_0001,
        "its type is in memory, so none is let through"
    );
    assert_eq!(x86(&profile, 102, [2, 0x1000, 0, 0, 0, 0]), 0x7fff_0000, "bind");
    profile["syscalls"] = json!([socket, {"names": ["socketcall"], "action": "SCMP_ACT_LOG"}]);
    assert_eq!(x86(&profile, 102, [1, 0x1000, 0, 0, 0, 0]), 0x7ffc_0000, "the profile speaks of it itself");
}

#[test]
fn what_cannot_be_had_is_named() {
    let one = |rule: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let args = |args: Value| one(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": args}));
    let many: Vec<Value> = (0..3000)
        .map(|i| json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": i, "op": "SCMP_CMP_EQ"}]}))
        .collect();
    for (profile, expected) in [
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default",
        ),
        (json!({"defaultAction": "SCMP_ACT_ERRNO"}), "linux.seccomp: denies `execve`"),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}),
            "linux.seccomp.defaultErrnoRet: 4096 is above 4095",
        ),
        (one(json!({"names": ["read"], "action": "SCMP_ACT_TRACE", "errnoRet": 65536})), "syscalls[0].errnoRet: 65536"),
        (one(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1})), "syscalls[0].errnoRet: 1 is given"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 38}),
            "linux.seccomp.defaultErrnoRet: 38 is given, and the action is neither",
        ),
        (one(json!({"names": [], "action": "SCMP_ACT_KILL"})), "syscalls[0].names: is empty"),
        (args(json!([{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}])), "syscalls[0].args[0].index: 6 is no argument"),
        (
            one(json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"})),
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ALLOW"},
                   {"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}),
            "linux.seccomp: SCMP_ACT_NOTIFY needs `write` to be allowed",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            "linux.seccomp.flags[0]: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": many}), "BPF instructions, and the kernel takes 4096"),
    ] {
        let error = filter(profile).unwrap_err();
        assert!(error.contains(expected), "{error}: {expected}");
    }
    let profile = serde_json::from_value(one(json!({"names": ["raed"], "action": "SCMP_ACT_KILL"}))).unwrap();
    assert_eq!(compile(&profile, Arch::ScmpArchX86_64, false).unwrap().unknown, ["raed"]);
    let error = compile(&profile, Arch::ScmpArchX86_64, true).unwrap_err().to_string();
    assert!(error.contains("\"raed\" is no system call"), "{error}");
    let error = compile(&profile, Arch::ScmpArchMips, false).unwrap_err().to_string();
    assert!(error.contains("no table of system calls"), "{error}");
}

#[test]
fn long_jumps_reach() {
    // More than 255 instructions on each side of the tree.
    let names: Vec<&str> = plain::numbers("SCMP_ARCH_X86_64").keys().copied().filter(|n| *n != "execve").collect();
    let rules: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": i + 1,
                   "args": [{"index": 2, "value": i, "op": "SCMP_CMP_GT"}]})
        })
        .collect();
    let profile = json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": rules});
    let code = code(&filter(profile.clone()).unwrap());
    let plain = Profile::new(&profile, "SCMP_ARCH_X86_64");
    for arch in ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"] {
        for number in 0..500 {
            let data = Data { arch: plain::audit(arch), number, args: [0, 0, u64::from(number) / 2 + 120, 0, 0, 0] };
            assert_eq!(run(&code, &data, false).verdict, plain.decide(&data), "{data:x?}");
        }
    }
}

#[test]
fn flags_are_those_of_seccomp_2() {
    let flags = |flags: Value| filter(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags})).unwrap().flags;
    assert_eq!(filter(json!({"defaultAction": "SCMP_ACT_ALLOW"})).unwrap().flags, 4, "as runc");
    assert_eq!(flags(json!([])), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"])), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])), 6);
    let notify = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let filter = filter(notify).unwrap();
    assert_eq!((filter.flags, filter.notifies), (0x20, true));
}
