//! The device filter of cgroup v2: a rule list compiled to a BPF program of type `CGROUP_DEVICE`.
//!
//! The kernel runs it on every open(2) and mknod(2) of a device node below the cgroup, with a pointer to
//! `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }` (the access in the upper half of the first
//! word, the kind in the lower one), and denies the use when it returns 0.
//!
//! The program walks the rules from the last to the first, with the accesses nobody has decided about yet in one
//! register: a matching "deny" that shares one of them ends in 0, a matching "allow" takes its accesses out, and when
//! none is left the end is 1. So the last rule that matches decides, for each access on its own.

use crate::device::{DeviceKind, DeviceRule, relevant};
use rrt_sys::bpf::Insn;

const R0: u8 = 0;
const R1: u8 = 1;
const KIND: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Operations: class | source | operation (linux/bpf_common.h, linux/bpf.h). 32-bit forms throughout: JMP32 is in every
// kernel since 5.1, and a 64-bit comparison would extend the sign of a major above 2^31.
const LDX_W: u8 = 0x61;
const MOV_IMM: u8 = 0xb4;
const AND_IMM: u8 = 0x54;
const RSH_IMM: u8 = 0x74;
const JNE_IMM: u8 = 0x56;
const JSET_IMM: u8 = 0x46;
const JA: u8 = 0x05;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`
const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;

/// Compiles a rule list. What no rule decides is denied, unless the list begins with a rule that allows everything.
pub(crate) fn compile(rules: &[DeviceRule]) -> Vec<Insn> {
    let (allow_by_default, rules) = relevant(rules);
    let mut program = vec![
        Insn::new(LDX_W, KIND, R1, 0, 0),
        Insn::new(LDX_W, WANTED, R1, 0, 0),
        Insn::new(AND_IMM, KIND, 0, 0, 0xffff),
        Insn::new(RSH_IMM, WANTED, 0, 0, 16),
        Insn::new(LDX_W, MAJOR, R1, 4, 0),
        Insn::new(LDX_W, MINOR, R1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        push_rule(&mut program, rule);
    }
    push_verdict(&mut program, allow_by_default);
    program
}

fn push_rule(program: &mut Vec<Insn>, rule: &DeviceRule) {
    let kind = match rule.kind {
        DeviceKind::All => None,
        DeviceKind::Char => Some(DEV_CHAR),
        DeviceKind::Block => Some(DEV_BLOCK),
    };
    let tests = [(KIND, kind), (MAJOR, rule.major.map(u32::cast_signed)), (MINOR, rule.minor.map(u32::cast_signed))];
    let access = i32::from(rule.access.bits());
    let body: Vec<Insn> = if rule.allow {
        vec![
            Insn::new(AND_IMM, WANTED, 0, 0, !access),
            Insn::new(JNE_IMM, WANTED, 0, 2, 0),
            Insn::new(MOV_IMM, R0, 0, 0, 1),
            Insn::new(EXIT, 0, 0, 0, 0),
        ]
    } else {
        vec![
            Insn::new(JSET_IMM, WANTED, 0, 1, access),
            Insn::new(JA, 0, 0, 2, 0),
            Insn::new(MOV_IMM, R0, 0, 0, 0),
            Insn::new(EXIT, 0, 0, 0, 0),
        ]
    };
    let tests: Vec<(u8, i32)> = tests.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
    for (i, (register, value)) in tests.iter().enumerate() {
        // To the next rule: over the tests that follow, and the body.
        let skip = (tests.len() - 1 - i + body.len()) as i16;
        program.push(Insn::new(JNE_IMM, *register, 0, skip, *value));
    }
    program.extend(body);
}

fn push_verdict(program: &mut Vec<Insn>, allow: bool) {
    program.push(Insn::new(MOV_IMM, R0, 0, 0, i32::from(allow)));
    program.push(Insn::new(EXIT, 0, 0, 0, 0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Access;
    use crate::device::allowed;
    use crate::testing::{Random, random_rules};

    /// Runs a program on one use of a device; panics at what the kernel's verifier would refuse.
    fn run(program: &[Insn], kind: DeviceKind, major: u32, minor: u32, access: u8) -> bool {
        let kind = if kind == DeviceKind::Block { DEV_BLOCK } else { DEV_CHAR };
        let context = [kind as u32 | u32::from(access) << 16, major, minor];
        let mut registers = [None::<u32>; 11];
        let mut pc = 0usize;
        loop {
            let insn = program[pc];
            let (dst, src) = insn.dst_src();
            let dst = dst as usize;
            let value = |r: Option<u32>| r.expect("a register read before it was written");
            let immediate = insn.immediate as u32;
            pc += 1;
            let mut jump = |yes: bool| {
                if yes {
                    assert!(insn.offset >= 0, "a loop");
                    pc += insn.offset as usize;
                }
            };
            match insn.code {
                LDX_W => {
                    assert_eq!(src, R1, "only the context is readable");
                    registers[dst] = Some(context[usize::try_from(insn.offset).unwrap() / 4]);
                }
                MOV_IMM => registers[dst] = Some(immediate),
                AND_IMM => registers[dst] = Some(value(registers[dst]) & immediate),
                RSH_IMM => registers[dst] = Some(value(registers[dst]) >> immediate),
                JNE_IMM => jump(value(registers[dst]) != immediate),
                JSET_IMM => jump(value(registers[dst]) & immediate != 0),
                JA => jump(true),
                EXIT => return value(registers[0]) != 0,
                other => panic!("unknown operation {other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_means_what_the_list_means() {
        let mut random = Random::new(7);
        let mut seen = [0, 0];
        for _ in 0..3000 {
            let rules = random_rules(&mut random);
            let program = compile(&rules);
            for _ in 0..30 {
                let (kind, major, minor, access) = random.device();
                let expected = allowed(&rules, kind, major, minor, access);
                assert_eq!(
                    run(&program, kind, major, minor, access),
                    expected,
                    "{rules:?} {kind:?} {major}:{minor} {access}"
                );
                seen[usize::from(expected)] += 1;
            }
        }
        assert!(seen[0] > 1000 && seen[1] > 1000, "{seen:?}");
    }

    #[test]
    fn every_access_is_decided_by_the_last_rule_about_it() {
        let null = |allow, access| DeviceRule { allow, kind: DeviceKind::Char, major: Some(1), minor: Some(3), access };
        let rules = [null(true, Access::READ), null(true, Access::WRITE), null(false, Access::MKNOD)];
        let program = compile(&rules);
        // r and w come from two rules, an O_RDWR open needs both.
        assert!(run(&program, DeviceKind::Char, 1, 3, Access::READ.bits() | Access::WRITE.bits()));
        assert!(!run(&program, DeviceKind::Char, 1, 3, Access::ALL.bits()));
        assert!(!run(&program, DeviceKind::Block, 1, 3, Access::READ.bits()));
    }

    #[test]
    fn no_rule_denies_all() {
        let program = compile(&[]);
        assert!(!run(&program, DeviceKind::Char, 1, 3, Access::READ.bits()));
        assert_eq!(program.len(), 8);
    }
}
