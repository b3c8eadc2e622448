//! System calls by name: `syscalls.tsv` (made by `../tables.sh`), parsed by the compiler into the few kilobytes that are needed.
//!
//! Only the columns of architectures that processes of the target machine can have are compiled in, and in tests all.

use rrt_oci::Arch;

const TEXT: &[u8] = include_bytes!("syscalls.tsv");

/// How many names there are.
const COUNT: usize = {
    let (mut lines, mut i) = (0, 0);
    while i < TEXT.len() {
        lines += (TEXT[i] == b'\n') as usize;
        i += 1;
    }
    // Without the heading.
    lines - 1
};

/// A number for each name, or [`NONE`].
type Numbers = [u16; COUNT];

const NONE: u16 = u16::MAX;

/// Where ARM's private calls begin (`__ARM_NR_BASE`), and where in the table, whose numbers have 16 bits.
const ARM_PRIVATE: u32 = 0xf_0000;
const ARM_PRIVATE_HERE: u16 = 0xf000;

/// The place after the next end of line or tab, from `at` on.
const fn after(at: usize, end: u8) -> usize {
    let mut i = at;
    while TEXT[i] != end {
        i += 1;
    }
    i + 1
}

/// The numbers of one column; the names are column 0.
const fn column(which: usize) -> Numbers {
    let mut numbers = [NONE; COUNT];
    let (mut line, mut at) = (0, after(0, b'\n'));
    while line < COUNT {
        let mut field = 0;
        let mut cell = at;
        while field < which {
            cell = after(cell, b'\t');
            field += 1;
        }
        if TEXT[cell] != b'-' {
            let mut number = 0;
            while TEXT[cell].is_ascii_digit() {
                number = number * 10 + (TEXT[cell] - b'0') as u16;
                cell += 1;
            }
            numbers[line] = number;
        }
        at = after(at, b'\n');
        line += 1;
    }
    numbers
}

/// Where each name begins in [`NAMES`], and where the last one ends.
static STARTS: [u16; COUNT + 1] = starts();

const fn starts() -> [u16; COUNT + 1] {
    let mut starts = [0; COUNT + 1];
    let (mut line, mut at, mut sum) = (0, after(0, b'\n'), 0);
    while line < COUNT {
        sum += after(at, b'\t') - 1 - at;
        starts[line + 1] = sum as u16;
        at = after(at, b'\n');
        line += 1;
    }
    starts
}

/// The names, sorted, one after the other. A list of slices would be four times as much, and relocated at each start.
static NAMES: [u8; starts()[COUNT] as usize] = {
    let mut names = [0; starts()[COUNT] as usize];
    let (mut line, mut at, mut to) = (0, after(0, b'\n'), 0);
    while line < COUNT {
        let mut from = at;
        while TEXT[from] != b'\t' {
            names[to] = TEXT[from];
            to += 1;
            from += 1;
        }
        at = after(at, b'\n');
        line += 1;
    }
    names
};

/// A name that some architecture has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call(u16);

/// Looks a name up.
pub fn find(name: &str) -> Option<Call> {
    let (mut low, mut high) = (0, COUNT);
    while low < high {
        let middle = (low + high) / 2;
        let there = &NAMES[usize::from(STARTS[middle])..usize::from(STARTS[middle + 1])];
        match there.cmp(name.as_bytes()) {
            std::cmp::Ordering::Equal => return Some(Call(middle as u16)),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

/// Its number on an architecture, as it is in `seccomp_data.nr`; `None` when it does not have the call, or this build not the table.
pub fn number(call: Call, arch: Arch) -> Option<u32> {
    match numbers(arch)?[usize::from(call.0)] {
        NONE => None,
        private if private >= ARM_PRIVATE_HERE => Some(ARM_PRIVATE + u32::from(private - ARM_PRIVATE_HERE)),
        number if arch == Arch::ScmpArchX32 => Some(crate::arch::X32_BIT | u32::from(number)),
        number => Some(u32::from(number)),
    }
}

/// `column` of the text, as data of its own.
macro_rules! table {
    ($column:literal) => {{
        static NUMBERS: Numbers = column($column);
        Some(&NUMBERS)
    }};
}

fn numbers(arch: Arch) -> Option<&'static Numbers> {
    match arch {
        #[cfg(any(test, target_arch = "x86_64"))]
        Arch::ScmpArchX86_64 => table!(1),
        #[cfg(any(test, target_arch = "x86_64", target_arch = "x86"))]
        Arch::ScmpArchX86 => table!(2),
        #[cfg(any(test, target_arch = "x86_64"))]
        Arch::ScmpArchX32 => table!(3),
        #[cfg(any(test, target_arch = "aarch64"))]
        Arch::ScmpArchAarch64 => table!(4),
        #[cfg(any(test, target_arch = "aarch64", target_arch = "arm"))]
        Arch::ScmpArchArm => table!(5),
        #[cfg(any(test, target_arch = "riscv64"))]
        Arch::ScmpArchRiscv64 => table!(6),
        #[cfg(any(test, target_arch = "s390x"))]
        Arch::ScmpArchS390x => table!(7),
        #[cfg(any(test, target_arch = "powerpc64"))]
        Arch::ScmpArchPpc64 | Arch::ScmpArchPpc64le => table!(8),
        #[cfg(any(test, target_arch = "loongarch64"))]
        Arch::ScmpArchLoongarch64 => table!(9),
        _ => None,
    }
}

/// The calls that can be made through another one as well: its name, and their number there (linux/net.h, linux/ipc.h).
pub fn multiplexed(arch: Arch) -> Vec<(Call, &'static str, u32)> {
    const SOCKETCALL: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u32); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if !matches!(arch, Arch::ScmpArchX86 | Arch::ScmpArchS390x | Arch::ScmpArchPpc64 | Arch::ScmpArchPpc64le) {
        return Vec::new();
    }
    let sockets = SOCKETCALL.iter().zip(1..).map(|(name, number)| (*name, "socketcall", number));
    let all = sockets.chain(IPC.iter().map(|(name, number)| (*name, "ipc", *number)));
    all.filter_map(|(name, through, number)| Some((find(name)?, through, number))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_with_the_numbers_of_the_text() {
        let text = std::str::from_utf8(TEXT).unwrap();
        let heading: Vec<&str> = text.lines().next().unwrap().split('\t').skip(1).collect();
        let columns = heading.iter().map(|name| match *name {
            "ppc64" => Arch::ScmpArchPpc64le,
            name => {
                crate::arch::ALL.iter().find(|(_, n)| *n == format!("SCMP_ARCH_{}", name.to_uppercase())).unwrap().0
            }
        });
        let columns: Vec<Arch> = columns.collect();
        for line in text.lines().skip(1) {
            let (name, numbers) = line.split_once('\t').unwrap();
            let call = find(name).unwrap_or_else(|| panic!("{name}"));
            for (arch, cell) in columns.iter().zip(numbers.split('\t')) {
                let expected = cell.parse::<u32>().ok().map(|n| match arch {
                    Arch::ScmpArchX32 => n + 0x4000_0000,
                    Arch::ScmpArchArm if n >= 0xf000 => n - 0xf000 + 0xf_0000,
                    _ => n,
                });
                assert_eq!(number(call, *arch), expected, "{name} {arch:?}");
            }
        }
        for name in ["", "zzz", "a", "reads", "READ", "rea"] {
            assert_eq!(find(name), None, "{name:?}");
        }
    }

    #[test]
    fn numbers_are_those_of_this_machines_libc() {
        // Known from elsewhere than the table: syscall(2) numbers of the x86 family and of the generic ABI.
        let n = |name, arch| number(find(name).unwrap(), arch);
        assert_eq!(n("execve", Arch::ScmpArchX86_64), Some(59));
        assert_eq!(n("execve", Arch::ScmpArchX86), Some(11));
        assert_eq!(n("execve", Arch::ScmpArchX32), Some(0x4000_0208));
        assert_eq!(n("execve", Arch::ScmpArchAarch64), Some(221));
        assert_eq!(n("set_tls", Arch::ScmpArchArm), Some(0xf_0005));
        assert_eq!(n("open", Arch::ScmpArchAarch64), None);
        assert_eq!(n("openat2", Arch::ScmpArchS390x), Some(437));
    }
}
