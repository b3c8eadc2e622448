//! An OCI seccomp profile (runtime-spec config-linux.md, "Seccomp") as a BPF program for seccomp(2). Pure: no syscall, no file.
//!
//! [`compile`] goes in three steps, a module each: `rules` reads the profile and settles for each architecture what becomes of
//! each system call, with the meaning that libseccomp and runc give to a profile; `tree` turns that into a program; `table` knows
//! the numbers of the names.
//!
//! What a profile means beyond the words of the specification:
//!
//! * **Several rules for one call.** A rule without `args` decides, whatever others say; of several the first. Rules with `args`
//!   are tried from the most specific on (`rules::precedence`); all conditions of a rule have to hold, but if two of them are on the
//!   same argument, each stands for itself. If none matches, `defaultAction` decides.
//! * **A rule whose action is `defaultAction`** says nothing, and does not take part.
//! * **Names.** A name that nobody knows is left out; so is one that an architecture does not have, there.
//! * **Newer calls.** If `defaultAction` denies, a call with a number above all that the profile names is answered with ENOSYS, so
//!   that a program can fall back to an older one: the profile's author has not decided against what did not exist.
//! * **Architectures.** The machine's own is always in. One that is not in the profile kills the process. One that no process on
//!   this machine can have, or that this build has no table for, is left out of the program.
//! * **Multiplexers.** On x86, ppc64 and s390x the calls of sockets and System V IPC can also be made through `socketcall` and
//!   `ipc`. Rules for `socket` hold for both ways, unless the profile has an unconditional rule for `socketcall`. A condition on
//!   `socket`'s arguments cannot be checked there, since they are in memory: a rule that denies more than `defaultAction` does then
//!   holds for all of it, one that allows more for none.

#![forbid(unsafe_code)]

mod arch;
mod rules;
mod table;
mod tree;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use arch::{machine, name as arch_name};
pub use rules::{ACTIONS, FLAGS, OPERATORS};

use rrt_oci::{Arch, LinuxSeccomp};

/// The names of the architectures that a profile may have.
pub fn architectures() -> Vec<&'static str> {
    arch::ALL.iter().map(|(_, name)| *name).collect()
}

/// One instruction, `struct sock_filter` of linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u16,
    /// How many instructions a jump skips when its condition holds.
    pub jt: u8,
    /// And when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The longest program that the kernel takes, in instructions (`BPF_MAXINSNS`).
pub const MOST_INSTRUCTIONS: usize = 4096;

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub program: Vec<Insn>,
    /// `SECCOMP_FILTER_FLAG_*` bits for seccomp(2), without the one for a listener.
    pub flags: u32,
    /// Whether a rule's action is SCMP_ACT_NOTIFY: the program is loaded with a listener.
    pub notifies: bool,
    /// The architectures in it, the machine's own first.
    pub architectures: Vec<Arch>,
    /// Those of the profile that were left out, because no process of this machine can have them.
    pub left_out: Vec<Arch>,
    /// Names in the profile that no architecture has, as far as this build knows.
    pub unknown: Vec<String>,
    /// What the profile says and does not come to pass.
    pub warnings: Vec<String>,
}

impl Filter {
    /// The program as the kernel reads it: 8 bytes an instruction, in the machine's byte order.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.program.len() * 8);
        for insn in &self.program {
            bytes.extend_from_slice(&insn.code.to_ne_bytes());
            bytes.extend_from_slice(&[insn.jt, insn.jf]);
            bytes.extend_from_slice(&insn.k.to_ne_bytes());
        }
        bytes
    }
}

/// A profile that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{property}: {problem}")]
pub struct Error {
    /// The property, as `linux.seccomp.syscalls[2].args[0].index`.
    pub property: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

impl Error {
    fn new(property: impl Into<String>, problem: impl Into<String>) -> Error {
        Error { property: property.into(), problem: problem.into() }
    }
}

/// Compiles a profile for a machine whose kernel is of architecture `machine` (see [`machine()`]).
///
/// `fail_unknown`: a name that this build does not know is an error, instead of being left out (crun's annotation
/// `run.oci.seccomp_fail_unknown_syscall`).
///
/// # Errors
/// [`Error`], with the property's name.
pub fn compile(profile: &LinuxSeccomp, machine: Arch, fail_unknown: bool) -> Result<Filter, Error> {
    let rules = rules::Profile::read(profile)?;
    let flags = rules::flags(profile.flags().as_deref(), rules.notifies)?;
    if let (true, Some(name)) = (fail_unknown, rules.unknown.first()) {
        let problem =
            format!("{name:?} is no system call that this build knows (run.oci.seccomp_fail_unknown_syscall)");
        return Err(Error::new("linux.seccomp.syscalls", problem));
    }
    let (architectures, left_out) = arch::split(profile.architectures().as_deref().unwrap_or_default(), machine);
    let mut warnings = Vec::new();
    let mut filters = Vec::with_capacity(architectures.len());
    for arch in &architectures {
        // A contradiction is the same one on each of them, and told once.
        let ignored = &mut Vec::new();
        let warnings = if *arch == machine { &mut warnings } else { ignored };
        filters.push(rules.settle(*arch, warnings)?);
    }
    let Some(own) = filters.first() else {
        let problem = format!("not supported: this build has no table of system calls for {}", std::env::consts::ARCH);
        return Err(Error::new("linux.seccomp", problem));
    };
    if own.always("execve").is_some_and(rules::denies) {
        return Err(Error::new("linux.seccomp", "denies `execve`, so no program could be started with it; allow it"));
    }
    if rules.notifies && own.always("read").is_some_and(rules::denies) {
        let problem =
            "SCMP_ACT_NOTIFY needs `read` to be allowed: by it the process waits until the listener is handed over";
        return Err(Error::new("linux.seccomp", problem));
    }
    if rules.notifies && !own.always("write").is_some_and(rules::lets_happen) {
        let problem = "SCMP_ACT_NOTIFY needs `write` to be allowed: by it the runtime hands over the listener";
        return Err(Error::new("linux.seccomp", problem));
    }
    let program = tree::program(&filters);
    if program.len() > MOST_INSTRUCTIONS {
        let problem = format!(
            "comes to {} BPF instructions, and the kernel takes {MOST_INSTRUCTIONS}; use fewer rules with `args`, or fewer \
             architectures",
            program.len()
        );
        return Err(Error::new("linux.seccomp", problem));
    }
    Ok(Filter { program, flags, notifies: rules.notifies, architectures, left_out, unknown: rules.unknown, warnings })
}
