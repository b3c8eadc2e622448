//! `linux.seccomp`: the filter of system calls.
//!
//! The parent compiles the profile (`rrt_seccomp`), and keeps the program beside the state for `exec`. It is loaded by the process that
//! becomes the program, as its last step but execve, whether the process has no_new_privs or not: so nothing of ours has to be
//! allowed by the profile, only `execve`. Without no_new_privs loading takes CAP_SYS_ADMIN. It stays permitted until then, not
//! effective, and execve takes it away, because it is in none of the sets that execve passes on.
//!
//! A profile with SCMP_ACT_NOTIFY makes a listener, an fd that somebody has to bring to the agent at `listenerPath`. The process
//! says its number to the parent and waits, by a `write` and a `read` under the filter; the parent fetches the fd
//! (pidfd_getfd), or has it brought where it may not ([`crate::courier`]), and sends it.

use crate::courier::{self, Courier};
use crate::error::{Doing, Error, Result, config};
use crate::handshake::Channel;
use crate::launch::ENDPOINT;
use crate::log;
use crate::process::CapabilitySets;
use crate::state::{State, Status};
use rrt_oci::LinuxSeccomp;
use rrt_sys::creds::{self, CapBits};
use rrt_sys::process::SingleThreaded;
use rrt_sys::{errno, socket};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// crun's annotation: an unknown name in the profile is an error.
pub const FAIL_UNKNOWN: &str = "run.oci.seccomp_fail_unknown_syscall";
/// crun's annotation: the agent's socket, where the profile names none.
pub const RECEIVER: &str = "run.oci.seccomp.receiver";

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompPlan {
    /// The program, as the kernel reads it. It is kept in a file of its own.
    #[serde(skip)]
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*` bits, without the one for a listener.
    pub flags: u32,
    /// Who answers SCMP_ACT_NOTIFY; absent when no rule has it.
    pub agent: Option<Agent>,
    /// Whether the parent may not fetch the listener, so that it has to be brought ([`crate::courier`]).
    #[serde(skip)]
    pub courier: bool,
    /// What `rrt plan` says of the profile.
    #[serde(skip_deserializing)]
    pub summary: String,
}

/// The one who answers the calls that the filter asks about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// `listenerPath`, a unix stream socket; `@name` is an abstract one.
    pub path: PathBuf,
    /// `listenerMetadata`
    pub metadata: String,
}

impl SeccompPlan {
    /// Plans `linux.seccomp`; what has no effect is told in `warnings`.
    ///
    /// # Errors
    /// [`Error::Config`]
    pub fn new(
        profile: &LinuxSeccomp,
        annotations: &BTreeMap<String, String>,
        warnings: &mut Vec<String>,
    ) -> Result<SeccompPlan> {
        let fail_unknown = annotations.get(FAIL_UNKNOWN).is_some_and(|v| v != "0");
        let filter = rrt_seccomp::compile(profile, rrt_seccomp::machine(), fail_unknown)
            .map_err(|e| config(e.property, e.problem))?;
        warnings.extend(filter.warnings.iter().cloned());
        for name in &filter.unknown {
            log::debug(format!("linux.seccomp: no system call {name:?} is known, and its rule left out"));
        }
        let receiver = annotations.get(RECEIVER).map(PathBuf::from);
        let path = profile.listener_path().clone().filter(|p| !p.as_os_str().is_empty()).or(receiver);
        if path.is_none() && profile.listener_metadata().as_ref().is_some_and(|m| !m.is_empty()) {
            warnings.push("linux.seccomp.listenerMetadata: has no effect without listenerPath".into());
        }
        let agent = match (filter.notifies, path) {
            (true, None) => {
                let problem = "missing; SCMP_ACT_NOTIFY needs the socket of an agent that answers";
                return Err(config("linux.seccomp.listenerPath", problem));
            }
            (true, Some(path)) if !path.is_absolute() && !path.as_os_str().as_encoded_bytes().starts_with(b"@") => {
                return Err(config("linux.seccomp.listenerPath", format!("{path:?} is not an absolute path")));
            }
            (true, Some(path)) => {
                Some(Agent { path, metadata: profile.listener_metadata().clone().unwrap_or_default() })
            }
            (false, path) => {
                if path.is_some() {
                    warnings.push("linux.seccomp.listenerPath: has no effect, no rule has SCMP_ACT_NOTIFY".into());
                }
                None
            }
        };
        Ok(SeccompPlan {
            program: filter.bytes(),
            flags: filter.flags,
            agent,
            courier: false,
            summary: summary(profile, &filter),
        })
    }

    /// Says at the log's debug level what will be loaded; the text is that of runc, whose own tests read it.
    pub fn tell(&self) {
        let listener = if self.agent.is_some() { rrt_sys::seccomp::NEW_LISTENER } else { 0 };
        log::debug(format!("seccomp filter flags: {}", self.flags | listener));
    }

    /// The capability that has to stay until the filter is loaded.
    pub fn needs(&self, no_new_privileges: bool) -> CapBits {
        if no_new_privileges { 0 } else { creds::capability("CAP_SYS_ADMIN").map_or(0, |n| 1 << n) }
    }

    /// Loads the filter in this process; `caps` are its sets, and `kept` what is permitted besides.
    fn load(&self, caps: &CapabilitySets, kept: CapBits, listener: bool) -> rrt_sys::Result<Option<i32>> {
        if kept != 0 {
            creds::set_capabilities(caps.effective | kept, caps.permitted | kept, caps.inheritable)?;
        }
        rrt_sys::seccomp::load(&self.program, self.flags, listener)
    }

    /// Loads the filter, and has the parent bring its listener to the agent. Only execve may follow.
    pub fn confine(
        &self,
        caps: &CapabilitySets,
        kept: CapBits,
        channel: &Channel,
        token: &SingleThreaded,
    ) -> Result<()> {
        if self.courier && self.agent.is_some() {
            courier::send_for(token, channel)?;
        }
        let loaded = self.load(caps, kept, self.agent.is_some()).map_err(refused)?;
        loaded.map_or(Ok(()), |number| channel.tell_listener(number))
    }

    /// Loads the filter in this process, which has no_new_privs and will do nothing more: whether the kernel takes it.
    pub fn try_load(&self) -> Result<()> {
        rrt_sys::seccomp::load(&self.program, self.flags, self.agent.is_some()).map(drop).map_err(refused)
    }

    /// Loads the filter for a startContainer hook, which runs in the program's place. It gets no listener: whoever answered for the
    /// hook would not be told which process asks. What the filter would ask about does not exist for it (ENOSYS).
    pub fn confine_hook(&self, caps: &CapabilitySets, kept: CapBits) -> rrt_sys::Result<()> {
        self.load(caps, kept, false).map(drop)
    }
}

fn refused(source: rrt_sys::SysError) -> Error {
    let hint = match source.errno() {
        errno::EACCES => " (without process.noNewPrivileges it needs CAP_SYS_ADMIN)",
        errno::EINVAL => {
            " (does this kernel know its flags and actions? if it comes from run.oci.seccomp_bpf_data: is it valid?)"
        }
        errno::EBUSY => " (a filter with a listener is there already; does the runtime itself run under one?)",
        _ => "",
    };
    Error::System { doing: format!("linux.seccomp: load the filter{hint}"), source }
}

impl fmt::Display for SeccompPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, flags {:#x}", self.summary, self.flags)?;
        match &self.agent {
            Some(agent) => write!(f, ", agent {}", agent.path.display()),
            None => Ok(()),
        }
    }
}

fn summary(profile: &LinuxSeccomp, filter: &rrt_seccomp::Filter) -> String {
    let names: usize = profile.syscalls().iter().flatten().map(|s| s.names().len()).sum();
    let arches: Vec<String> = filter.architectures.iter().map(|a| rrt_seccomp::arch_name(*a)).collect();
    let default = profile.default_action().as_text();
    let mut text = format!(
        "default {default}, rules for {names} names on {}, {} BPF instructions",
        arches.join(" "),
        filter.program.len()
    );
    if !filter.unknown.is_empty() {
        text.push_str(&format!(", unknown {}", filter.unknown.join(" ")));
    }
    text
}

/// Names of the specification for enum values.
trait AsText {
    fn as_text(&self) -> String;
}

impl AsText for rrt_oci::LinuxSeccompAction {
    fn as_text(&self) -> String {
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// Parent: brings the listener of a process (its pidfd, its pid) to the agent, with its ContainerProcessState (runtime-spec config-linux.md).
pub fn hand_over(
    state: &State,
    status: Status,
    (pidfd, pid): (BorrowedFd<'_>, i32),
    number: i32,
    courier: Option<Courier>,
) -> Result<()> {
    let Some(agent) = state.seccomp.as_ref().and_then(|s| s.agent.as_ref()) else {
        return Err(Error::Init("a seccomp listener that config.json does not ask for".into()));
    };
    let listener = match courier {
        Some(courier) => courier.fetch(number)?,
        None => rrt_sys::seccomp::fd_of(pidfd, number).doing(|| "linux.seccomp: fetch the listener".into())?,
    };
    let doing = || format!("linux.seccomp.listenerPath: failed to connect with seccomp agent at {:?}", agent.path);
    let socket = socket::connect_within(&agent.path, ENDPOINT).doing(doing)?;
    let document = process_state(state, status, pid, &agent.metadata);
    socket::send(socket.as_fd(), document.as_bytes(), &[listener.as_fd()])
        .doing(|| format!("linux.seccomp.listenerPath: send the listener to {:?}", agent.path))
}

fn process_state(state: &State, status: Status, pid: i32, metadata: &str) -> String {
    let container: Box<serde_json::value::RawValue> =
        serde_json::from_slice(state.for_hooks(status).as_bytes()).unwrap_or_default();
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ProcessState<'a> {
        oci_version: &'a str,
        fds: [&'a str; 1],
        pid: i32,
        #[serde(skip_serializing_if = "str::is_empty")]
        metadata: &'a str,
        state: &'a serde_json::value::RawValue,
    }
    let document = ProcessState { oci_version: rrt_oci::VERSION, fds: ["seccompFd"], pid, metadata, state: &container };
    serde_json::to_string(&document).unwrap_or_default()
}

/// Checks that the agent's socket is there, before anything is made. It is connected to when there is something to say.
pub fn check_agent(plan: &SeccompPlan) -> Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let Some(agent) = plan.agent.as_ref().filter(|a| a.path.is_absolute()) else { return Ok(()) };
    let at = "linux.seccomp.listenerPath";
    let found = std::fs::metadata(&agent.path)
        .doing(|| format!("{at}: failed to connect with seccomp agent at {:?}", agent.path))?;
    match found.file_type().is_socket() {
        true => Ok(()),
        false => Err(config(at, format!("failed to connect with seccomp agent: {:?} is not a socket", agent.path))),
    }
}

/// What fails with EPERM may be forbidden to the runtime itself, by the filter of a container that it runs in.
pub fn explain(error: Error) -> Error {
    let under_filter = || std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("\nSeccomp:\t2\n"));
    let hint = "the runtime itself is under a seccomp filter, which may forbid it; if it runs in a container, give that one \
                another profile (docker, podman: --security-opt seccomp=unconfined)";
    match error {
        Error::Init(text) if text.contains("(EPERM)") && under_filter() => Error::Init(format!("{text}; {hint}")),
        Error::System { doing, source } if source.is(errno::EPERM) && under_filter() => {
            Error::System { doing: format!("{doing} ({hint})"), source }
        }
        error => error,
    }
}

/// Reads the program that `create` has kept for `exec`.
///
/// # Errors
/// When it is not what was written.
pub fn read_program(file: &Path) -> Result<Vec<u8>> {
    let program = std::fs::read(file).doing(|| format!("read the container's seccomp filter {file:?}"))?;
    let most = rrt_seccomp::MOST_INSTRUCTIONS * rrt_sys::seccomp::INSTRUCTION;
    if program.is_empty() || program.len() % rrt_sys::seccomp::INSTRUCTION != 0 || program.len() > most {
        return Err(Error::Status(format!("{file:?} is damaged: {} bytes; create the container again", program.len())));
    }
    Ok(program)
}
