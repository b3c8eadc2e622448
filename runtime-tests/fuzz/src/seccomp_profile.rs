//! A seccomp profile → BPF → interpreter: whatever it returns is what a plain reading of the profile says.

use crate::mutate::Random;
use crate::testing::interpreter::{Data, Insn, check, run};
use crate::testing::plain::{Profile, audit, numbers};
use rrt_oci::Arch;
use serde_json::Value;

const MACHINE: (Arch, &str) = (Arch::ScmpArchX86_64, "SCMP_ARCH_X86_64");

/// Compiles a profile, and compares what it says of `calls` calls. Returns whether it was one.
///
/// # Panics
/// When the program and the profile differ, or the kernel would refuse the program.
pub fn seccomp_profile(document: &[u8], calls: usize, random: &mut Random) -> bool {
    let Ok(profile) = serde_json::from_slice(document) else { return false };
    let Ok(filter) = rrt_seccomp::compile(&profile, MACHINE.0, false) else { return false };
    let code: Vec<Insn> = filter.program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    check(&code);
    let json: Value = serde_json::to_value(&profile).expect("a profile as JSON");
    let plain = Profile::new(&json, MACHINE.1);
    let (names, mut values) = (names(&json), values(&json));
    values.extend([0, 1, u64::from(u32::MAX), u64::MAX]);
    for _ in 0..calls {
        let arch = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"][random.below(4)];
        let named = names.get(random.below(names.len())).and_then(|name| numbers(arch).get(name.as_str()));
        let number = match named {
            Some(number) if random.below(8) != 0 => number.wrapping_add(random.below(8) as u32 / 7),
            _ => [0, 102, 117, 335, 471, 472, 0x3fff_ffff, 0x4000_0000, u32::MAX][random.below(9)],
        };
        let near = |random: &mut Random| {
            values[random.below(values.len())].wrapping_add([0, 0, 0, 1, u64::MAX, 1 << 32][random.below(6)])
        };
        let data = Data { arch: audit(arch), number, args: std::array::from_fn(|_| near(random)) };
        assert_eq!(run(&code, &data, false).verdict, plain.decide(&data), "{data:x?}");
    }
    true
}

fn names(profile: &Value) -> Vec<String> {
    let lists = profile["syscalls"].as_array().into_iter().flatten().filter_map(|s| s["names"].as_array());
    lists.flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn values(profile: &Value) -> Vec<u64> {
    let args = profile["syscalls"].as_array().into_iter().flatten().filter_map(|s| s["args"].as_array());
    args.flatten().flat_map(|a| [a["value"].as_u64(), a["valueTwo"].as_u64()]).flatten().collect()
}
