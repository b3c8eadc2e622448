//! Classic BPF as the kernel runs it for seccomp: the checks of `bpf_check_classic` and `seccomp_check_filter`, then the program.

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    /// `AUDIT_ARCH_*`
    pub arch: u32,
    /// The number.
    pub number: u32,
    /// The arguments.
    pub args: [u64; 6],
}

/// An instruction: code, jt, jf, k.
pub type Insn = (u16, u8, u8, u32);

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// What it returned.
    pub verdict: u32,
    /// How many instructions it took.
    pub steps: usize,
    /// Whether it looked at more than number and architecture: then the kernel has to run it each time.
    pub looked_at_arguments: bool,
}

/// Runs a program.
///
/// # Panics
/// When the kernel would refuse it.
pub fn run(program: &[Insn], data: &Data, big_endian: bool) -> Ran {
    let memory = bytes(data, big_endian);
    let (mut a, mut at, mut steps) = (0u32, 0, 0);
    let mut looked_at_arguments = false;
    loop {
        let (code, jt, jf, k) = program[at];
        steps += 1;
        at += 1;
        let mut jump = |yes: bool| at += usize::from(if yes { jt } else { jf });
        match code {
            0x20 => {
                let word: [u8; 4] = memory[k as usize..k as usize + 4].try_into().expect("four bytes");
                a = if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
                looked_at_arguments |= k >= 8;
            }
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x06 => return Ran { verdict: k, steps, looked_at_arguments },
            other => panic!("instruction {other:#x} at {}", at - 1),
        }
    }
}

/// What the kernel checks when a program is loaded.
///
/// # Panics
/// When it would refuse it.
pub fn check(program: &[Insn]) {
    assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    for (i, (code, jt, jf, k)) in program.iter().enumerate() {
        let left = program.len() - i - 1;
        match code {
            0x20 => assert!(k % 4 == 0 && *k < 64, "load from {k} at {i}"),
            0x05 => assert!((*k as usize) < left, "jump by {k} at {i}"),
            0x15 | 0x25 | 0x35 => assert!(usize::from(*jt.max(jf)) < left, "jump by {jt} or {jf} at {i}"),
            0x06 | 0x54 => {}
            other => panic!("instruction {other:#x} at {i}"),
        }
    }
    assert_eq!(program.last().expect("not empty").0, 0x06, "the last instruction does not return");
}

fn bytes(data: &Data, big_endian: bool) -> [u8; 64] {
    let mut memory = [0; 64];
    let mut put = |at: usize, value: u64, length: usize| {
        let bytes = value.to_le_bytes();
        for (i, byte) in bytes[..length].iter().enumerate() {
            memory[if big_endian { at + length - 1 - i } else { at + i }] = *byte;
        }
    };
    put(0, data.number.into(), 4);
    put(4, data.arch.into(), 4);
    for (i, arg) in data.args.iter().enumerate() {
        put(16 + 8 * i, *arg, 8);
    }
    memory
}
