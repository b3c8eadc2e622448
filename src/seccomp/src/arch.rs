//! The architectures of the specification: what seccomp_data says of them, and which of them one machine can have.

use rrt_oci::Arch;

/// `__AUDIT_ARCH_64BIT`, `__AUDIT_ARCH_LE` and `__AUDIT_ARCH_CONVENTION_MIPS64_N32` of linux/audit.h.
const BITS_64: u32 = 0x8000_0000;
const LITTLE_ENDIAN: u32 = 0x4000_0000;
const N32: u32 = 0x2000_0000;

/// `__X32_SYSCALL_BIT`: x32 has the `AUDIT_ARCH` of x86_64, and this bit in each number.
pub const X32_BIT: u32 = 0x4000_0000;

/// The value of `seccomp_data.arch` (`AUDIT_ARCH_*` of linux/audit.h). The specification's numbers are libseccomp's, which are
/// these ones, but for x32.
pub fn audit(arch: Arch) -> u32 {
    match arch {
        Arch::ScmpArchX32 => Arch::ScmpArchX86_64 as u32,
        other => other as u32,
    }
}

/// Whether system call arguments are compared in all of their 64 bits, or in the lower 32.
pub fn is_64_bit(arch: Arch) -> bool {
    arch as u32 & BITS_64 != 0 && arch as u32 & N32 == 0
}

/// Where the lower and the upper half of argument `index` are in `struct seccomp_data`, in bytes.
pub fn argument_halves(arch: Arch, index: u8) -> (u32, u32) {
    let at = 16 + 8 * u32::from(index);
    // x32's number does not say it, its machine does.
    if audit(arch) & LITTLE_ENDIAN != 0 { (at, at + 4) } else { (at + 4, at) }
}

/// The architecture of the kernel that this build is for.
pub const fn machine() -> Arch {
    match () {
        () if cfg!(target_arch = "x86_64") => Arch::ScmpArchX86_64,
        () if cfg!(target_arch = "x86") => Arch::ScmpArchX86,
        () if cfg!(target_arch = "aarch64") => Arch::ScmpArchAarch64,
        () if cfg!(target_arch = "arm") => Arch::ScmpArchArm,
        () if cfg!(target_arch = "riscv64") => Arch::ScmpArchRiscv64,
        () if cfg!(target_arch = "s390x") => Arch::ScmpArchS390x,
        () if cfg!(all(target_arch = "powerpc64", target_endian = "little")) => Arch::ScmpArchPpc64le,
        () if cfg!(target_arch = "powerpc64") => Arch::ScmpArchPpc64,
        () if cfg!(target_arch = "loongarch64") => Arch::ScmpArchLoongarch64,
        // Not supported; `compile` says so.
        () => Arch::ScmpArchNative,
    }
}

/// The architectures that processes of a machine can have and that there is a table for, its own first.
///
/// A 31-bit program on s390x and a 32-bit one on ppc64 find no table, and are killed by every filter.
fn possible(machine: Arch) -> &'static [Arch] {
    match machine {
        Arch::ScmpArchX86_64 => &[Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        Arch::ScmpArchX86 => &[Arch::ScmpArchX86],
        Arch::ScmpArchAarch64 => &[Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        Arch::ScmpArchArm => &[Arch::ScmpArchArm],
        Arch::ScmpArchRiscv64 => &[Arch::ScmpArchRiscv64],
        Arch::ScmpArchS390x => &[Arch::ScmpArchS390x],
        Arch::ScmpArchPpc64le => &[Arch::ScmpArchPpc64le],
        Arch::ScmpArchPpc64 => &[Arch::ScmpArchPpc64],
        Arch::ScmpArchLoongarch64 => &[Arch::ScmpArchLoongarch64],
        _ => &[],
    }
}

/// Splits a profile's architectures into those to compile, with the machine's own first whether it is named or not (as libseccomp
/// has it), and those that are left out.
pub fn split(wanted: &[Arch], machine: Arch) -> (Vec<Arch>, Vec<Arch>) {
    let named = |arch: &Arch| *arch == machine || wanted.contains(arch);
    let compiled: Vec<Arch> = possible(machine).iter().copied().filter(named).collect();
    let mut left_out: Vec<Arch> = Vec::new();
    for arch in wanted.iter().filter(|a| **a != Arch::ScmpArchNative && !compiled.contains(a)) {
        if !left_out.contains(arch) {
            left_out.push(*arch);
        }
    }
    (compiled, left_out)
}

/// The specification's name.
pub fn name(arch: Arch) -> String {
    // oci-spec's own text has an underscore before each number.
    ALL.iter().find(|(a, _)| *a == arch).map_or("SCMP_ARCH_NATIVE", |(_, name)| name).into()
}

/// All of them, by their names in the specification.
pub const ALL: [(Arch, &str); 23] = [
    (Arch::ScmpArchX86, "SCMP_ARCH_X86"),
    (Arch::ScmpArchX86_64, "SCMP_ARCH_X86_64"),
    (Arch::ScmpArchX32, "SCMP_ARCH_X32"),
    (Arch::ScmpArchArm, "SCMP_ARCH_ARM"),
    (Arch::ScmpArchAarch64, "SCMP_ARCH_AARCH64"),
    (Arch::ScmpArchMips, "SCMP_ARCH_MIPS"),
    (Arch::ScmpArchMips64, "SCMP_ARCH_MIPS64"),
    (Arch::ScmpArchMips64n32, "SCMP_ARCH_MIPS64N32"),
    (Arch::ScmpArchMipsel, "SCMP_ARCH_MIPSEL"),
    (Arch::ScmpArchMipsel64, "SCMP_ARCH_MIPSEL64"),
    (Arch::ScmpArchMipsel64n32, "SCMP_ARCH_MIPSEL64N32"),
    (Arch::ScmpArchPpc, "SCMP_ARCH_PPC"),
    (Arch::ScmpArchPpc64, "SCMP_ARCH_PPC64"),
    (Arch::ScmpArchPpc64le, "SCMP_ARCH_PPC64LE"),
    (Arch::ScmpArchRiscv64, "SCMP_ARCH_RISCV64"),
    (Arch::ScmpArchS390, "SCMP_ARCH_S390"),
    (Arch::ScmpArchS390x, "SCMP_ARCH_S390X"),
    (Arch::ScmpArchParisc, "SCMP_ARCH_PARISC"),
    (Arch::ScmpArchParisc64, "SCMP_ARCH_PARISC64"),
    (Arch::ScmpArchLoongarch64, "SCMP_ARCH_LOONGARCH64"),
    (Arch::ScmpArchM68k, "SCMP_ARCH_M68K"),
    (Arch::ScmpArchSh, "SCMP_ARCH_SH"),
    (Arch::ScmpArchSheb, "SCMP_ARCH_SHEB"),
];
