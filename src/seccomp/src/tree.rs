//! From decisions to a program.
//!
//! ```text
//!   load arch
//!   is it A? no: jump over         one section an architecture, the machine's own first
//!     load number
//!     number >= K? yes: jump over  a binary tree over ranges of numbers with the same decision
//!       ...
//!       return VERDICT             or, at its leaves, tests of arguments
//!   is it B? ...
//!   return KILL_PROCESS
//! ```
//!
//! A call that is always allowed is decided without its arguments being looked at, so that the kernel (5.11) finds it out once, when
//! the filter is loaded, and does not run the program for it at all (`seccomp_cache_prepare`).
//!
//! Jumps are forward only. So the program is written from its end to its beginning: whatever a jump leads over is there already, and
//! its length known. An offset of more than 8 bits goes through an unconditional jump, which has 32.

use crate::Insn;
use crate::arch::{X32_BIT, argument_halves, audit, is_64_bit};
use crate::rules::{ArchRules, Condition, Decision, KILL_PROCESS, NO_SUCH_CALL, Test, Verdict};
use rrt_oci::{Arch, LinuxSeccompOperator as Operator};

// Operations of linux/bpf_common.h, with the operand in the instruction.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

// Places in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;

fn insn(code: u16, k: u32) -> Insn {
    Insn { code, jt: 0, jf: 0, k }
}

/// A range of numbers, up to the beginning of the next, and its decision.
#[derive(Clone, Copy)]
struct Range<'a> {
    from: u32,
    leaf: Leaf<'a>,
}

#[derive(Clone, Copy, PartialEq)]
enum Leaf<'a> {
    Verdict(Verdict),
    Tests { tests: &'a [Test], default: Verdict, arch: Arch },
}

/// The program for the architectures given, the most frequent one first.
pub fn program(filters: &[ArchRules]) -> Vec<Insn> {
    let mut code = Backward(Vec::with_capacity(1024));
    // libseccomp kills the thread, which leaves half a program.
    code.push(insn(RETURN, KILL_PROCESS));
    // x32 has the section of x86_64.
    for filter in filters.iter().rev().filter(|f| f.arch != Arch::ScmpArchX32) {
        let x32 = filters.iter().find(|f| f.arch == Arch::ScmpArchX32).filter(|_| filter.arch == Arch::ScmpArchX86_64);
        let end = code.0.len();
        code.tree(&ranges(filter, x32));
        code.push(insn(LOAD, NUMBER_AT));
        code.jump_unless_equal(audit(filter.arch), end);
    }
    code.push(insn(LOAD, ARCH_AT));
    code.0.reverse();
    code.0
}

/// All numbers from 0 to the end, in ranges of which no two neighbours are the same.
fn ranges<'a>(filter: &'a ArchRules, x32: Option<&'a ArchRules>) -> Vec<Range<'a>> {
    let mut ranges = Vec::with_capacity(filter.calls.len() * 2);
    add(&mut ranges, filter, 0);
    if filter.arch == Arch::ScmpArchX86_64 {
        match x32 {
            Some(x32) => add(&mut ranges, x32, X32_BIT),
            None => {
                push(&mut ranges, X32_BIT, Leaf::Verdict(KILL_PROCESS));
                // -1 is no call of x32's: a tracer skips a call by it (seccomp(2)).
                push(&mut ranges, u32::MAX, Leaf::Verdict(beyond(filter)));
            }
        }
    }
    ranges
}

/// What becomes of numbers beyond those that the profile names.
fn beyond(filter: &ArchRules) -> Verdict {
    filter.newest.map_or(filter.default, |_| NO_SUCH_CALL)
}

fn add<'a>(ranges: &mut Vec<Range<'a>>, filter: &'a ArchRules, from: u32) {
    let mut next = from;
    for (number, decision) in &filter.calls {
        if *number > next {
            push(ranges, next, Leaf::Verdict(filter.default));
        }
        let leaf = match decision {
            Decision::Always(verdict) => Leaf::Verdict(*verdict),
            Decision::Tests(tests) => Leaf::Tests { tests, default: filter.default, arch: filter.arch },
        };
        push(ranges, *number, leaf);
        next = number + 1;
    }
    // Rules for calls that the default decides anyway have names, too.
    if let Some(newest) = filter.newest.filter(|n| *n >= next) {
        push(ranges, next, Leaf::Verdict(filter.default));
        next = newest + 1;
    }
    push(ranges, next, Leaf::Verdict(beyond(filter)));
}

fn push<'a>(ranges: &mut Vec<Range<'a>>, from: u32, leaf: Leaf<'a>) {
    if ranges.last().is_none_or(|last| last.leaf != leaf) {
        ranges.push(Range { from, leaf });
    }
}

/// Code whose last instruction comes first.
struct Backward(Vec<Insn>);

impl Backward {
    fn push(&mut self, insn: Insn) {
        self.0.push(insn);
    }

    /// In front of what is there: goes on there if the accumulator is `k`, else where the code was `end` instructions long.
    fn jump_unless_equal(&mut self, k: u32, end: usize) {
        match u8::try_from(self.0.len() - end) {
            Ok(over) => self.push(Insn { code: IF_EQUAL, jt: 0, jf: over, k }),
            Err(_) => {
                self.push(insn(JUMP, (self.0.len() - end) as u32));
                self.push(Insn { code: IF_EQUAL, jt: 1, jf: 0, k });
            }
        }
    }

    /// A tree over ranges, for a number that is in one of them.
    fn tree(&mut self, ranges: &[Range<'_>]) {
        match ranges {
            [] => {}
            [one] => self.leaf(one.leaf),
            // A single number in between: one question instead of two.
            [before, one, after] if before.leaf == after.leaf && after.from == one.from + 1 => {
                self.leaf(before.leaf);
                let end = self.0.len();
                self.leaf(one.leaf);
                self.jump_unless_equal(one.from, end);
            }
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                self.tree(high);
                let end = self.0.len();
                self.tree(low);
                let k = high[0].from;
                match u8::try_from(self.0.len() - end) {
                    Ok(over) => self.push(Insn { code: IF_AT_LEAST, jt: over, jf: 0, k }),
                    Err(_) => {
                        self.push(insn(JUMP, (self.0.len() - end) as u32));
                        self.push(Insn { code: IF_AT_LEAST, jt: 0, jf: 1, k });
                    }
                }
            }
        }
    }

    fn leaf(&mut self, leaf: Leaf<'_>) {
        match leaf {
            Leaf::Verdict(verdict) => self.push(insn(RETURN, verdict)),
            Leaf::Tests { tests, default, arch } => {
                self.push(insn(RETURN, default));
                for test in tests.iter().rev() {
                    let forward = test_code(test, arch);
                    self.0.extend(forward.into_iter().rev());
                }
            }
        }
    }
}

/// Jump offsets that are filled in once the length of the code is known: to the end of the condition, and of the test. A test has
/// at most 6 conditions of 5 instructions, so real offsets do not come near.
const HOLDS: u8 = 254;
const FAILS: u8 = 255;

/// The code of one test, forward. When it fails, what comes after it goes on.
fn test_code(test: &Test, arch: Arch) -> Vec<Insn> {
    let mut code = Vec::new();
    for condition in &test.conditions {
        let begin = code.len();
        condition_code(&mut code, condition, arch);
        fill(&mut code[begin..], HOLDS);
    }
    code.push(insn(RETURN, test.verdict));
    fill(&mut code, FAILS);
    code
}

/// Points every jump to `place` behind the end of `code`.
fn fill(code: &mut [Insn], place: u8) {
    let length = code.len();
    for (i, insn) in code.iter_mut().enumerate() {
        let offset = (length - 1 - i) as u8;
        let is_jump = [IF_EQUAL, IF_GREATER, IF_AT_LEAST].contains(&insn.code);
        if is_jump && insn.jt == place {
            insn.jt = offset;
        }
        if is_jump && insn.jf == place {
            insn.jf = offset;
        }
    }
}

/// Goes on behind its end if the condition holds, and to `FAILS` if not. BPF has 32 bits, so a 64-bit number is two halves.
fn condition_code(code: &mut Vec<Insn>, c: &Condition, arch: Arch) {
    let (low_at, high_at) = argument_halves(arch, c.argument);
    let (high, low) = ((c.value >> 32) as u32, c.value as u32);
    let question = |code, k, jt, jf| Insn { code, jt, jf, k };
    let masked = c.operator == Operator::ScmpCmpMaskedEq;
    let (high_mask, low_mask) = ((c.mask >> 32) as u32, c.mask as u32);
    if is_64_bit(arch) && high_mask != 0 {
        code.push(insn(LOAD, high_at));
        match c.operator {
            Operator::ScmpCmpEq => code.push(question(IF_EQUAL, high, 0, FAILS)),
            Operator::ScmpCmpNe => code.push(question(IF_EQUAL, high, 0, HOLDS)),
            Operator::ScmpCmpMaskedEq => {
                code.push(insn(AND, high_mask));
                code.push(question(IF_EQUAL, high, 0, FAILS));
            }
            Operator::ScmpCmpGt | Operator::ScmpCmpGe => {
                code.push(question(IF_GREATER, high, HOLDS, 0));
                code.push(question(IF_EQUAL, high, 0, FAILS));
            }
            Operator::ScmpCmpLt | Operator::ScmpCmpLe => {
                code.push(question(IF_GREATER, high, FAILS, 0));
                code.push(question(IF_EQUAL, high, 0, HOLDS));
            }
        }
    }
    if low_mask == 0 {
        return;
    }
    code.push(insn(LOAD, low_at));
    if masked {
        code.push(insn(AND, low_mask));
    }
    code.push(match c.operator {
        Operator::ScmpCmpEq | Operator::ScmpCmpMaskedEq => question(IF_EQUAL, low, 0, FAILS),
        Operator::ScmpCmpNe => question(IF_EQUAL, low, FAILS, 0),
        Operator::ScmpCmpGt => question(IF_GREATER, low, 0, FAILS),
        Operator::ScmpCmpGe => question(IF_AT_LEAST, low, 0, FAILS),
        Operator::ScmpCmpLt => question(IF_AT_LEAST, low, FAILS, 0),
        Operator::ScmpCmpLe => question(IF_GREATER, low, FAILS, 0),
    });
}
