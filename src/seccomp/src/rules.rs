//! From the profile to what becomes of each call on an architecture.

use crate::arch::is_64_bit;
use crate::table::{self, Call};
use crate::{Error, MOST_INSTRUCTIONS};
use rrt_oci::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use std::cmp::{Ordering, Reverse};

/// The actions of the specification that are implemented.
pub const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// The operators.
pub const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// The flags.
pub const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// What a program returns for a call, `SECCOMP_RET_*` with its data (seccomp(2)). As signed numbers, the stricter is the lower.
pub type Verdict = u32;

pub const KILL_PROCESS: Verdict = 0x8000_0000;
const KILL_THREAD: Verdict = 0;
const TRAP: Verdict = 0x0003_0000;
const ERRNO: Verdict = 0x0005_0000;
const NOTIFY: Verdict = 0x7fc0_0000;
const TRACE: Verdict = 0x7ff0_0000;
const LOG: Verdict = 0x7ffc_0000;
const ALLOW: Verdict = 0x7fff_0000;

const EPERM: u32 = 1;
/// The call does not exist: programs then try an older one.
pub const NO_SUCH_CALL: Verdict = ERRNO | 38;

/// A test of one argument. `value` has no bits outside `mask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which, from 0 to 5.
    pub argument: u8,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub value: u64,
    /// With MASKED_EQ, the bits that are compared.
    pub mask: u64,
}

/// Conditions that all have to hold, and what becomes of the call then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// In the order of their arguments.
    pub conditions: Vec<Condition>,
    /// The verdict.
    pub verdict: Verdict,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Always this.
    Always(Verdict),
    /// What the first test that holds says, or the default.
    Tests(Vec<Test>),
}

/// The calls of an architecture.
#[derive(Debug)]
pub struct ArchRules {
    /// Which.
    pub arch: Arch,
    /// For calls that have no rule.
    pub default: Verdict,
    /// The highest number that the profile names, if calls beyond it are to be answered with ENOSYS.
    pub newest: Option<u32>,
    /// By number.
    pub calls: Vec<(u32, Decision)>,
}

/// A profile, read and checked, on no architecture yet.
#[derive(Debug)]
pub struct Profile<'a> {
    default: Verdict,
    rules: Vec<Rule>,
    names: Vec<Named<'a>>,
    /// Whether there is a rule with SCMP_ACT_NOTIFY.
    pub notifies: bool,
    /// Names that nobody knows.
    pub unknown: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    /// Its place in `syscalls`.
    place: usize,
    verdict: Verdict,
    conditions: Vec<Condition>,
}

/// A name of the profile, and the rules it has there, as places in `rules`; none if they say what the default says.
#[derive(Debug)]
struct Named<'a> {
    name: &'a str,
    call: Call,
    rules: std::ops::Range<usize>,
}

impl<'a> Profile<'a> {
    /// Reads a profile.
    pub fn read(profile: &'a LinuxSeccomp) -> Result<Profile<'a>, Error> {
        let at = "linux.seccomp.defaultAction";
        if profile.default_action() == Action::ScmpActNotify {
            // Our own calls between loading the filter and execve would wait for an agent that we have not told yet.
            return Err(Error::new(at, "SCMP_ACT_NOTIFY cannot be used as default action"));
        }
        let default = verdict(profile.default_action(), profile.default_errno_ret(), "linux.seccomp.defaultErrnoRet")?;
        let mut read = Profile { default, rules: Vec::new(), names: Vec::new(), notifies: false, unknown: Vec::new() };
        for (place, entry) in profile.syscalls().iter().flatten().enumerate() {
            read.add(place, entry)?;
        }
        Ok(read)
    }

    fn add(&mut self, place: usize, entry: &'a LinuxSyscall) -> Result<(), Error> {
        let at = format!("linux.seccomp.syscalls[{place}]");
        let verdict = verdict(entry.action(), entry.errno_ret(), &format!("{at}.errnoRet"))?;
        if entry.names().is_empty() {
            return Err(Error::new(
                format!("{at}.names"),
                "is empty; it must name the system calls that the rule is for",
            ));
        }
        if entry.action() == Action::ScmpActNotify {
            if entry.names().iter().any(|n| n == "write") {
                let problem =
                    "SCMP_ACT_NOTIFY cannot be used for the write syscall: by it the runtime hands over the listener";
                return Err(Error::new(format!("{at}.names"), problem));
            }
            self.notifies = true;
        }
        let first = self.rules.len();
        let mut conditions = conditions(entry.args().as_deref().unwrap_or_default(), &at)?;
        // As in runc: two conditions on one argument are meant as alternatives, and then all of the rule's are.
        let alternatives = conditions.windows(2).any(|pair| pair[0].argument == pair[1].argument);
        // No bits are compared: it always holds.
        let nothing = |c: &Condition| c.mask == 0;
        if alternatives && conditions.iter().any(nothing) {
            conditions.clear();
        }
        conditions.retain(|c| !nothing(c));
        if verdict == self.default {
            // Says nothing; but the names are known to the profile.
        } else if alternatives && !conditions.is_empty() {
            self.rules.extend(conditions.into_iter().map(|c| Rule { place, verdict, conditions: vec![c] }));
        } else {
            self.rules.push(Rule { place, verdict, conditions });
        }
        for name in entry.names() {
            match table::find(name) {
                Some(call) => self.names.push(Named { name, call, rules: first..self.rules.len() }),
                None if self.unknown.contains(name) => {}
                None => self.unknown.push(name.clone()),
            }
        }
        Ok(())
    }

    /// What becomes of each call on one architecture; rules that have no effect there are told in `warnings`.
    ///
    /// # Errors
    /// Two rules with the same conditions and different actions.
    pub fn settle(&self, arch: Arch, warnings: &mut Vec<String>) -> Result<ArchRules, Error> {
        let mut given: Vec<(u32, &str, &Rule)> = Vec::with_capacity(self.names.len());
        let mut newest = None;
        for named in &self.names {
            let Some(number) = table::number(named.call, arch) else { continue };
            newest = newest.max(Some(number));
            given.extend(self.rules[named.rules.clone()].iter().map(|rule| (number, named.name, rule)));
        }
        // Stable: rules for one number stay in the profile's order.
        given.sort_by_key(|(number, ..)| *number);
        let mut calls = Vec::with_capacity(given.len());
        for group in given.chunk_by(|a, b| a.0 == b.0) {
            calls.push((group[0].0, decide(group, arch, warnings)?));
        }
        self.add_multiplexed(arch, &mut calls);
        if arch == Arch::ScmpArchS390x && self.denies_by_default() {
            // The kernel shows a number that it does not know as 0, where nothing else is any more.
            calls.retain(|(number, _)| *number != 0);
            calls.insert(0, (0, Decision::Always(NO_SUCH_CALL)));
        }
        Ok(ArchRules { arch, default: self.default, newest: newest.filter(|_| self.denies_by_default()), calls })
    }

    /// Whether an unknown call is denied, and ENOSYS is the better answer. A tracer is taken to know what it does.
    fn denies_by_default(&self) -> bool {
        self.default != ALLOW && self.default != LOG && self.default & 0xffff_0000 != TRACE
    }

    /// Adds rules for the calls that can also be made through another one; see the crate's text.
    fn add_multiplexed(&self, arch: Arch, calls: &mut Vec<(u32, Decision)>) {
        let ways = table::multiplexed(arch);
        let mut through: Vec<(&str, u32, &Rule)> = Vec::new();
        for named in self.names.iter().filter(|_| !ways.is_empty()) {
            if let Some((_, multiplexer, sub)) = ways.iter().find(|(call, ..)| *call == named.call) {
                through.extend(self.rules[named.rules.clone()].iter().map(|rule| (*multiplexer, *sub, rule)));
            }
        }
        through.sort_by_key(|(multiplexer, sub, _)| (*multiplexer, *sub));
        for group in through.chunk_by(|a, b| a.0 == b.0) {
            let Some(number) = table::find(group[0].0).and_then(|call| table::number(call, arch)) else { continue };
            let place = match calls.binary_search_by_key(&number, |(n, _)| *n) {
                Ok(place) if matches!(calls[place].1, Decision::Always(_)) => continue,
                Ok(place) => place,
                Err(place) => {
                    calls.insert(place, (number, Decision::Tests(Vec::new())));
                    place
                }
            };
            let Decision::Tests(tests) = &mut calls[place].1 else { continue };
            for sub in group.chunk_by(|a, b| a.1 == b.1) {
                let always = sub.iter().find(|(.., rule)| rule.conditions.is_empty()).map(|(.., rule)| rule.verdict);
                let strictest = || sub.iter().map(|(.., rule)| rule.verdict).min_by_key(|v| *v as i32);
                let stricter = |v: &Verdict| (*v as i32) < self.default as i32;
                let Some(verdict) = always.or_else(|| strictest().filter(stricter)) else { continue };
                let value = u64::from(sub[0].1);
                let conditions =
                    vec![Condition { argument: 0, operator: Operator::ScmpCmpEq, value, mask: u64::from(u32::MAX) }];
                if !tests.iter().any(|t| t.conditions == conditions) {
                    tests.push(Test { conditions, verdict });
                }
            }
            if tests.is_empty() {
                calls.remove(place);
            }
        }
    }
}

impl ArchRules {
    /// What always becomes of the call `name`; `None` when that depends on its arguments, or it does not exist here.
    pub fn always(&self, name: &str) -> Option<Verdict> {
        let number = table::find(name).and_then(|call| table::number(call, self.arch))?;
        match self.calls.binary_search_by_key(&number, |(n, _)| *n) {
            Ok(place) => match &self.calls[place].1 {
                Decision::Always(verdict) => Some(*verdict),
                Decision::Tests(_) => None,
            },
            Err(_) => Some(self.default),
        }
    }
}

/// Whether a verdict lets the call happen, with nobody's help.
pub fn lets_happen(verdict: Verdict) -> bool {
    verdict == ALLOW || verdict == LOG
}

/// Whether a verdict keeps the call from happening, whoever may help.
pub fn denies(verdict: Verdict) -> bool {
    (verdict as i32) < NOTIFY as i32
}

/// Settles the rules for one number.
fn decide(group: &[(u32, &str, &Rule)], arch: Arch, warnings: &mut Vec<String>) -> Result<Decision, Error> {
    let name = group[0].1;
    let never = |warnings: &mut Vec<String>, rule: &Rule, by: &Rule| {
        if rule.verdict != by.verdict {
            warnings.push(format!(
                "linux.seccomp.syscalls[{}]: its rule for {name:?} never applies: that of syscalls[{}] decides",
                rule.place, by.place
            ));
        }
    };
    if let [(.., rule)] = group
        && rule.conditions.is_empty()
    {
        return Ok(Decision::Always(rule.verdict));
    }
    let mut tests: Vec<(Vec<Condition>, &Rule)> =
        group.iter().map(|(.., rule)| (on(arch, &rule.conditions), *rule)).collect();
    if let Some(place) = tests.iter().position(|(conditions, _)| conditions.is_empty()) {
        let by = tests[place].1;
        tests.iter().for_each(|(_, rule)| never(warnings, rule, by));
        return Ok(Decision::Always(by.verdict));
    }
    if tests.len() > MOST_INSTRUCTIONS {
        let problem = format!("{name:?} has {} rules; a filter cannot hold that many", tests.len());
        return Err(Error::new("linux.seccomp.syscalls", problem));
    }
    tests.sort_by(|(a, _), (b, _)| precedence(a, b));
    let mut kept: Vec<(Vec<Condition>, &Rule)> = Vec::with_capacity(tests.len());
    for (conditions, rule) in tests {
        match kept.iter().find(|(shorter, _)| conditions.starts_with(shorter)) {
            Some((same, by)) if *same == conditions && by.verdict != rule.verdict => {
                let (first, second) = (by.place.min(rule.place), by.place.max(rule.place));
                let problem = format!(
                    "the rule for {name:?} has the conditions of syscalls[{first}] and another action; remove one of them"
                );
                return Err(Error::new(format!("linux.seccomp.syscalls[{second}]"), problem));
            }
            Some((_, by)) => never(warnings, rule, by),
            None => kept.push((conditions, rule)),
        }
    }
    let test = |(conditions, rule): (Vec<Condition>, &Rule)| Test { conditions, verdict: rule.verdict };
    Ok(Decision::Tests(kept.into_iter().map(test).collect()))
}

/// Which of two lists of conditions is tried first: that whose first difference is on the later argument, else the one with the
/// more exact operator, else the narrower one. It is libseccomp's order, so that overlapping rules come out as there; a list that
/// begins another one comes before it, and the other is never reached.
fn precedence(a: &[Condition], b: &[Condition]) -> Ordering {
    let exactness = |c: &Condition| match c.operator {
        Operator::ScmpCmpEq | Operator::ScmpCmpNe | Operator::ScmpCmpMaskedEq => 0,
        Operator::ScmpCmpLt | Operator::ScmpCmpLe => 1,
        Operator::ScmpCmpGt | Operator::ScmpCmpGe => 2,
    };
    let narrowness = |c: &Condition| match c.operator {
        Operator::ScmpCmpLt | Operator::ScmpCmpLe => c.value,
        _ => u64::MAX - c.value,
    };
    let key = |c: &Condition| (Reverse(c.argument), exactness(c), narrowness(c));
    let differ = a.iter().zip(b).map(|(a, b)| key(a).cmp(&key(b))).find(|order| order.is_ne());
    differ.unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// Conditions as they are on an architecture: of 32-bit arguments only the lower half is compared, whatever the profile's number
/// has above it (-1 is the usual one), and a mask of nothing is no condition.
fn on(arch: Arch, conditions: &[Condition]) -> Vec<Condition> {
    let all = if is_64_bit(arch) { u64::MAX } else { u64::from(u32::MAX) };
    let fit = |c: &Condition| Condition { value: c.value & all, mask: c.mask & all, ..*c };
    conditions.iter().map(fit).filter(|c| c.mask != 0).collect()
}

fn verdict(action: Action, data: Option<u32>, at: &str) -> Result<Verdict, Error> {
    /// `MAX_ERRNO`: what is above, the kernel makes this.
    const MOST_ERRNO: u32 = 4095;
    // Given to another action it is an error (config-linux.md, "Seccomp"): who wrote it expects something that does not happen.
    if let (Some(number), false) = (data, matches!(action, Action::ScmpActErrno | Action::ScmpActTrace)) {
        let problem =
            format!("{number} is given, and the action is neither SCMP_ACT_ERRNO nor SCMP_ACT_TRACE; remove it");
        return Err(Error::new(at, problem));
    }
    let data = |most: u32| match data.unwrap_or(EPERM) {
        fits if fits <= most => Ok(fits),
        other => Err(Error::new(at, format!("{other} is above {most}"))),
    };
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => KILL_THREAD,
        Action::ScmpActKillProcess => KILL_PROCESS,
        Action::ScmpActTrap => TRAP,
        Action::ScmpActErrno => ERRNO | data(MOST_ERRNO)?,
        Action::ScmpActTrace => TRACE | data(0xffff)?,
        Action::ScmpActNotify => NOTIFY,
        Action::ScmpActLog => LOG,
        Action::ScmpActAllow => ALLOW,
    })
}

/// Reads `args`, sorted by argument.
fn conditions(args: &[LinuxSeccompArg], at: &str) -> Result<Vec<Condition>, Error> {
    let mut conditions = Vec::with_capacity(args.len());
    for (i, arg) in args.iter().enumerate() {
        if arg.index() > 5 {
            let problem = format!("{} is no argument: a system call has those from 0 to 5", arg.index());
            return Err(Error::new(format!("{at}.args[{i}].index"), problem));
        }
        let (value, mask) = match arg.op() {
            Operator::ScmpCmpMaskedEq => (arg.value_two().unwrap_or(0) & arg.value(), arg.value()),
            _ => (arg.value(), u64::MAX),
        };
        conditions.push(Condition { argument: arg.index() as u8, operator: arg.op(), value, mask });
    }
    conditions.sort_by_key(|c| c.argument);
    Ok(conditions)
}

/// The flags for seccomp(2).
pub fn flags(flags: Option<&[Flag]>, notifies: bool) -> Result<u32, Error> {
    const LOG: u32 = 1 << 1;
    const SPEC_ALLOW: u32 = 1 << 2;
    const WAIT_KILLABLE_RECV: u32 = 1 << 5;
    // Without a list, as runc: the mitigation that this turns off costs far more than it brings, and Linux 5.16 dropped it.
    let Some(flags) = flags else { return Ok(SPEC_ALLOW) };
    let mut bits = 0;
    for (i, flag) in flags.iter().enumerate() {
        bits |= match flag {
            // Nothing to do: the process that loads the filter has one thread.
            Flag::SeccompFilterFlagTsync => 0,
            Flag::SeccompFilterFlagLog => LOG,
            Flag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv if notifies => WAIT_KILLABLE_RECV,
            Flag::SeccompFilterFlagWaitKillableRecv => {
                let problem = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is about waiting for an agent, and no rule has \
                               SCMP_ACT_NOTIFY; remove it, or add one";
                return Err(Error::new(format!("linux.seccomp.flags[{i}]"), problem));
            }
        };
    }
    Ok(bits)
}
