//! What a profile says of one call, read from its JSON and decided rule by rule, with no thought for speed.

use super::interpreter::Data;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// An architecture: its name, `AUDIT_ARCH_*`, the table's column, whether its arguments have 64 bits.
struct Arch(&'static str, u32, &'static str, bool);

const ARCHES: [Arch; 10] = [
    Arch("SCMP_ARCH_X86_64", 0xc000_003e, "x86_64", true),
    Arch("SCMP_ARCH_X32", 0xc000_003e, "x32", false),
    Arch("SCMP_ARCH_X86", 0x4000_0003, "x86", false),
    Arch("SCMP_ARCH_AARCH64", 0xc000_00b7, "aarch64", true),
    Arch("SCMP_ARCH_ARM", 0x4000_0028, "arm", false),
    Arch("SCMP_ARCH_RISCV64", 0xc000_00f3, "riscv64", true),
    Arch("SCMP_ARCH_S390X", 0x8000_0016, "s390x", true),
    Arch("SCMP_ARCH_PPC64LE", 0xc000_0015, "ppc64", true),
    Arch("SCMP_ARCH_PPC64", 0x8000_0015, "ppc64", true),
    Arch("SCMP_ARCH_LOONGARCH64", 0xc000_0102, "loongarch64", true),
];

/// Machines with more than one architecture.
const COMPATIBLE: [(&str, &str); 3] = [
    ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
    ("SCMP_ARCH_X86_64", "SCMP_ARCH_X32"),
    ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
];

/// A call's number by its name.
type Numbers = BTreeMap<&'static str, u32>;

/// The numbers of an architecture, as they are in `seccomp_data`.
pub fn numbers(arch: &str) -> &'static Numbers {
    static TABLES: OnceLock<BTreeMap<&'static str, Numbers>> = OnceLock::new();
    &TABLES.get_or_init(|| ARCHES.iter().map(|a| (a.0, read_numbers(a.0))).collect())[arch]
}

fn read_numbers(arch: &str) -> Numbers {
    let column = ARCHES.iter().find(|a| a.0 == arch).expect("a known architecture").2;
    let text = include_str!("../syscalls.tsv");
    let (heading, lines) = text.split_once('\n').expect("a heading");
    let place = heading.split('\t').position(|c| c == column).expect("a column");
    let number = |line: &'static str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let n: u32 = cells[place].parse().ok()?;
        let n = match column {
            "x32" => n + 0x4000_0000,
            "arm" if n >= 0xf000 => n + 0xe_1000,
            _ => n,
        };
        Some((cells[0], n))
    };
    lines.lines().filter_map(number).collect()
}

/// `AUDIT_ARCH_*` of an architecture.
pub fn audit(arch: &str) -> u32 {
    ARCHES.iter().find(|a| a.0 == arch).expect("a known architecture").1
}

/// One way in which a rule can hold: conditions that all have to.
struct Way<'a> {
    conditions: Vec<&'a Value>,
    verdict: u32,
}

/// A profile on a machine.
pub struct Profile<'a> {
    json: &'a Value,
    machine: &'a str,
    default: u32,
}

impl<'a> Profile<'a> {
    /// A profile, which has been found good, on a machine.
    pub fn new(json: &'a Value, machine: &'a str) -> Profile<'a> {
        let default = verdict(&json["defaultAction"], &json["defaultErrnoRet"]);
        Profile { json, machine, default }
    }

    /// What becomes of a call.
    pub fn decide(&self, data: &Data) -> u32 {
        const KILL: u32 = 0x8000_0000;
        let x32_bit = data.number & 0x4000_0000 != 0 && data.arch == audit("SCMP_ARCH_X86_64");
        let wanted = |name: &str| {
            let listed = self.json["architectures"].as_array().is_some_and(|l| l.iter().any(|a| a == name));
            name == self.machine || (listed && COMPATIBLE.contains(&(self.machine, name)))
        };
        let mut here = ARCHES.iter().filter(|a| a.1 == data.arch && (a.0 == "SCMP_ARCH_X32") == x32_bit && wanted(a.0));
        let arch = match here.next() {
            Some(arch) => arch,
            None if x32_bit && data.number == u32::MAX && wanted("SCMP_ARCH_X86_64") => &ARCHES[0],
            None => return KILL,
        };
        let numbers = numbers(arch.0);
        let denies = ![0x7fff_0000, 0x7ffc_0000].contains(&self.default) && self.default >> 16 != 0x7ff0;
        if arch.0 == "SCMP_ARCH_S390X" && data.number == 0 && denies {
            return 0x0005_0026;
        }
        let name = numbers.iter().find(|(_, n)| **n == data.number).map(|(name, _)| *name);
        if let Some(name) = name {
            let ways = self.ways(name, arch.3);
            if let Some(way) = ways.iter().find(|w| w.conditions.is_empty()) {
                return way.verdict;
            }
            let holding = ways.iter().filter(|w| w.conditions.iter().all(|c| holds(c, data, arch.3)));
            if let Some(way) = holding.min_by_key(|w| w.conditions.iter().map(|c| rank(c, arch.3)).collect::<Vec<_>>())
            {
                return way.verdict;
            }
            if let Some(verdict) = self.through(name, arch, data) {
                return verdict;
            }
        }
        let named = self.syscalls().flat_map(|s| s["names"].as_array().into_iter().flatten());
        let newest = named.filter_map(|n| numbers.get(n.as_str()?)).max();
        match newest {
            Some(newest) if denies && data.number > *newest => 0x0005_0026,
            _ => self.default,
        }
    }

    fn syscalls(&self) -> impl Iterator<Item = &'a Value> {
        self.json["syscalls"].as_array().into_iter().flatten()
    }

    /// All ways in which rules for a name can hold.
    fn ways(&self, name: &str, bits_64: bool) -> Vec<Way<'a>> {
        let mut ways = Vec::new();
        for rule in self.syscalls().filter(|s| s["names"].as_array().is_some_and(|l| l.iter().any(|n| n == name))) {
            let verdict = verdict(&rule["action"], &rule["errnoRet"]);
            if verdict == self.default {
                continue;
            }
            let mut args: Vec<&Value> = rule["args"].as_array().into_iter().flatten().collect();
            args.sort_by_key(|a| a["index"].as_u64());
            let indices: Vec<_> = args.iter().map(|a| a["index"].as_u64()).collect();
            let alternatives = (1..indices.len()).any(|i| indices[i] == indices[i - 1]);
            let compares = |a: &&&Value| a["op"] != "SCMP_CMP_MASKED_EQ" || cut(value(a, "value"), bits_64) != 0;
            if alternatives {
                ways.extend(
                    args.into_iter()
                        .map(|a| Way { conditions: Some(a).iter().filter(compares).copied().collect(), verdict }),
                );
            } else {
                ways.push(Way { conditions: args.iter().filter(compares).copied().collect(), verdict });
            }
        }
        ways
    }

    /// What rules for socket calls say of `socketcall`, those for System V IPC of `ipc`.
    fn through(&self, multiplexer: &str, arch: &Arch, data: &Data) -> Option<u32> {
        const SOCKETS: &str = "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom \
                               shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg";
        const IPC: &str = "semop semget semctl semtimedop - - - - - - msgsnd msgrcv msgget msgctl - - - - - - shmat shmdt shmget \
                           shmctl";
        let names = match multiplexer {
            "socketcall" => SOCKETS,
            "ipc" => IPC,
            _ => return None,
        };
        if !["x86", "s390x", "ppc64"].contains(&arch.2) {
            return None;
        }
        let sub = data.args[0] & 0xffff_ffff;
        let name = names.split_whitespace().nth(usize::try_from(sub).ok()?.checked_sub(1)?)?;
        // Of the profile's own conditions: a mask that is nothing on this architecture is still one.
        let ways = self.ways(name, true);
        let always = ways.iter().find(|w| w.conditions.is_empty()).map(|w| w.verdict);
        let severity = |v: u32| v as i32;
        let strictest = ways.iter().map(|w| w.verdict).min_by_key(|v| severity(*v));
        always.or_else(|| strictest.filter(|v| severity(*v) < severity(self.default)))
    }
}

fn cut(value: u64, bits_64: bool) -> u64 {
    if bits_64 { value } else { value & 0xffff_ffff }
}

fn value(condition: &Value, key: &str) -> u64 {
    condition[key].as_u64().unwrap_or(0)
}

fn holds(condition: &Value, data: &Data, bits_64: bool) -> bool {
    let arg = cut(data.args[condition["index"].as_u64().expect("an index") as usize], bits_64);
    let v = cut(value(condition, "value"), bits_64);
    match condition["op"].as_str().expect("an operator") {
        "SCMP_CMP_NE" => arg != v,
        "SCMP_CMP_LT" => arg < v,
        "SCMP_CMP_LE" => arg <= v,
        "SCMP_CMP_EQ" => arg == v,
        "SCMP_CMP_GE" => arg >= v,
        "SCMP_CMP_GT" => arg > v,
        "SCMP_CMP_MASKED_EQ" => arg & v == value(condition, "valueTwo") & v,
        other => panic!("operator {other}"),
    }
}

/// Lower is tried first.
fn rank(condition: &Value, bits_64: bool) -> (u64, u8, u64) {
    let v = cut(value(condition, "value"), bits_64);
    let (class, order) = match condition["op"].as_str().expect("an operator") {
        "SCMP_CMP_LT" | "SCMP_CMP_LE" => (1, v),
        "SCMP_CMP_GT" | "SCMP_CMP_GE" => (2, u64::MAX - v),
        "SCMP_CMP_MASKED_EQ" => (0, u64::MAX - (v & value(condition, "valueTwo"))),
        _ => (0, u64::MAX - v),
    };
    (5 - condition["index"].as_u64().expect("an index"), class, order)
}

fn verdict(action: &Value, errno: &Value) -> u32 {
    let data = errno.as_u64().unwrap_or(1) as u32;
    match action.as_str().expect("an action") {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 + data,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 + data,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        other => panic!("action {other}"),
    }
}
