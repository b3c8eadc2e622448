//! The parent's side of a launch, the same for `create`, `run` and `exec`: it answers the child's turns and tells the world.

use crate::error::{Doing, Error, Result};
use crate::facts::is_rootless;
use crate::handshake::{Channel, Frame, Turn};
use crate::process::ProcessPlan;
use crate::program::set_limits;
use crate::{console, log};
use rrt_sys::process::{self, Child, Exit};
use rrt_sys::{FileType, OFlags, errno, path, socket};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// crun's annotation for what `--pidfd-socket` does: the path of a unix stream socket that gets init's pidfd, at `create`.
pub const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";

/// How long somebody else's socket may take to accept a connection, and what is sent to it: whoever stopped listening to his queue would
/// otherwise hold a container's creation for ever.
pub const ENDPOINT: Duration = Duration::from_secs(10);

/// Where the ends of a new process go.
#[derive(Debug, Default)]
pub struct Endpoints {
    console: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
    receiver: Option<OwnedFd>,
    pid_file: Option<PathBuf>,
}

impl Endpoints {
    /// Checks the flags against the process, and connects the sockets before anything else is done: a caller that does not
    /// listen should learn it while there is nothing to clean up.
    pub fn open(
        plan: &ProcessPlan,
        detach: bool,
        console_socket: Option<&Path>,
        pidfd_socket: Option<&Path>,
        pid_file: Option<&Path>,
    ) -> Result<Endpoints> {
        let usage = |text: &str| Err(Error::Usage(text.into()));
        match (plan.terminal, detach, console_socket) {
            (true, true, None) => {
                return usage(
                    "cannot allocate tty if rrt will detach without setting console socket (--console-socket)",
                );
            }
            (false, _, Some(_)) | (_, false, Some(_)) => {
                return usage("cannot use console socket if rrt will not detach or allocate tty (process.terminal)");
            }
            _ => {}
        }
        let connect = |path: Option<&Path>, flag: &str| {
            path.map(|p| socket::connect_within(p, ENDPOINT).doing(|| format!("{flag} {p:?}"))).transpose()
        };
        Ok(Endpoints {
            console: connect(console_socket, "--console-socket")?,
            pidfd: connect(pidfd_socket, "--pidfd-socket")?,
            receiver: None,
            pid_file: pid_file.map(Path::to_path_buf),
        })
    }

    /// Connects to the socket of [`PIDFD_RECEIVER`], which gets the pidfd of a container's init.
    pub fn with_receiver(self, annotations: &BTreeMap<String, String>) -> Result<Endpoints> {
        let Some(path) = annotations.get(PIDFD_RECEIVER) else { return Ok(self) };
        let receiver = socket::connect_within(Path::new(path), ENDPOINT)
            .doing(|| format!("{} {path:?}", crate::annotations::property(PIDFD_RECEIVER)))?;
        Ok(Endpoints { receiver: Some(receiver), ..self })
    }

    /// Sends the terminal's master to the console socket; without one it is returned, for the caller to keep.
    pub fn hand_out_terminal(&self, master: OwnedFd) -> Result<Option<OwnedFd>> {
        match &self.console {
            Some(socket) => console::send_master(socket.as_fd(), master.as_fd()).map(|()| None),
            None => Ok(Some(master)),
        }
    }

    /// Hands out the process' pidfd and pid, before the command returns; `kind` is the pidfd's label (`standard`, `setns`).
    pub fn announce(&self, child: &Child, kind: &str) -> Result<()> {
        for (to, name) in [(&self.pidfd, "--pidfd-socket"), (&self.receiver, PIDFD_RECEIVER)] {
            let Some(to) = to else { continue };
            socket::send(to.as_fd(), kind.as_bytes(), &[child.pidfd.as_fd()]).doing(|| format!("{name}: send"))?;
        }
        match &self.pid_file {
            Some(path) => write_pid_file(path, child.pid).doing(|| format!("--pid-file {path:?}")),
            None => Ok(()),
        }
    }
}

/// Under another name first, then renamed: a reader sees all of it or nothing (contract A.9). No newline.
fn write_pid_file(path: &Path, pid: i32) -> std::io::Result<()> {
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    let create = || fs::File::options().write(true).create_new(true).open(&temporary);
    let mut file = create().or_else(|e| match e.kind() {
        // Left by a runtime that was killed between the two steps, or a symlink that somebody put there: never written through.
        std::io::ErrorKind::AlreadyExists => fs::remove_file(&temporary).and_then(|()| create()),
        _ => Err(e),
    })?;
    file.write_all(pid.to_string().as_bytes())?;
    fs::rename(&temporary, path)
}

/// What the turns need from the one who launches.
pub trait Attend {
    /// Does what can be done before the turn comes, while the child is on its way to it; the fds to go with the answer.
    fn prepare(&mut self, _turn: Turn) -> Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    /// Whether the child waits for an answer to the turn by itself.
    fn is_answered(&self, _turn: Turn) -> bool {
        true
    }

    /// Does what the turn asks.
    fn attend(&mut self, turn: Turn, child: &Child) -> Result<()>;

    /// Translates the owners on a mount of the child's.
    fn map_ids(&mut self, _tree: OwnedFd) -> Result<()> {
        Err(Error::Init("a mount to be translated where none is planned".into()))
    }
}

/// Answers the child's turns until it is ready, and returns the terminal's master if the caller keeps it.
///
/// Turns that every launch has are answered here; the others by `with`.
pub fn attend(
    turns: &[Turn],
    child: &mut Child,
    channel: &Channel,
    plan: &ProcessPlan,
    endpoints: &Endpoints,
    with: &mut dyn Attend,
) -> Result<Option<OwnedFd>> {
    let mut kept = None;
    for expected in turns {
        let mut first = None;
        let gifts = with.prepare(*expected)?;
        let fd = match channel.receive() {
            Ok(Some((Frame::Turn(turn), fd))) if turn == *expected => fd,
            Ok(Some((Frame::Failed(text), _))) => return Err(Error::Init(text)),
            Ok(Some((other, _))) => return Err(Error::Init(format!("{other:?} where {expected:?} was due"))),
            Ok(None) => return Err(died(child)),
            Err(e) => return Err(unless_gone(e, child)),
        };
        match (expected, fd) {
            (Turn::Console, Some(master)) => kept = endpoints.hand_out_terminal(master)?,
            (Turn::Console, None) => return Err(Error::Init("the child's terminal came without an fd".into())),
            (Turn::Born, Some(pidfd)) => {
                let born = process::from_pidfd(pidfd).doing(|| "take over the container's init".into())?;
                first = Some(std::mem::replace(child, born));
                with.attend(Turn::Born, child)?;
            }
            (Turn::Born, None) => return Err(Error::Init("the container's init came without a pidfd".into())),
            (Turn::MountIds, Some(tree)) => with.map_ids(tree)?,
            (Turn::Limits, _) => set_limits(child.pid, plan)?,
            (turn, _) => with.attend(*turn, child)?,
        }
        // The answer to Ready is what lets the child go on without us, so the rest of the work is done by then.
        if with.is_answered(*expected) {
            let gifts: Vec<_> = gifts.iter().map(AsFd::as_fd).collect();
            channel.send_fds(&Frame::Go, &gifts).map_err(|e| unless_gone(e, child))?;
        }
        if let Some(first) = first {
            first.wait().doing(|| "reap init's predecessor".into())?;
        }
    }
    Ok(kept)
}

/// The socket's error, or how the child ended if that is what the error says: it may die between its question and our answer.
fn unless_gone(e: Error, child: &Child) -> Error {
    use rrt_sys::errno::{ECONNRESET, EPIPE};
    match &e {
        Error::System { source, .. } if source.is(ECONNRESET) || source.is(EPIPE) => died(child),
        _ => e,
    }
}

/// The child ended without a word.
pub fn died(child: &Child) -> Error {
    let how = match child.wait() {
        Ok(Exit::Signal(9)) => {
            return Error::Killed("the child was killed (SIGKILL) before the program was executed".into());
        }
        Ok(Exit::Signal(signal)) => format!("was killed by signal {signal}"),
        Ok(Exit::Code(code)) => format!("exited with {code}"),
        Err(e) => e.to_string(),
    };
    Error::Init(format!("the child {how} before the program was executed"))
}

/// Checks that the fds to be inherited are there and are the caller's: a number that the caller left free may by now be a
/// directory of the host that we have opened, which no container may ever get (CVE-2024-21626).
pub fn require_inherited(count: u32) -> Result<()> {
    /// More than a process can have open by far; numbers beyond it would not fit the arithmetic that follows.
    const MOST: u32 = 1 << 20;
    if count > MOST {
        return Err(Error::Usage(format!("--preserve-fds {count}: more than {MOST}")));
    }
    let missing = (3..).take(count as usize).find(|fd| !process::is_passed(*fd));
    match missing {
        Some(fd) => Err(Error::Usage(format!("--preserve-fds {count}: fd {fd} is not open; pass fewer, or open it"))),
        None => Ok(()),
    }
}

/// Writes a file of a child of ours in the host's `/proc`, in one write(2) as id maps need it.
pub fn write_proc(pid: i32, file: &str, text: &str) -> rrt_sys::Result<()> {
    let fd = path::open(Path::new(&format!("/proc/{pid}/{file}")), OFlags::WRONLY)?;
    path::write_once(&fd, text.as_bytes())
}

/// What our standard streams are, and so the container's: `pipe:[INODE]` as `/proc/PID/fd` has it for pipes, nothing for the rest.
pub fn standard_streams() -> Vec<String> {
    let name = |st: rrt_sys::Stat| match FileType::from_raw_mode(st.st_mode) {
        FileType::Fifo => format!("pipe:[{}]", st.st_ino),
        _ => String::new(),
    };
    let stream = |fd| process::inherited_fd(fd).and_then(|fd| path::fstat(fd).ok()).map(name).unwrap_or_default();
    (0..3).map(stream).collect()
}

/// Sets the child's `oomScoreAdj`. Rootless, one that may not be lowered stays what it is.
pub fn set_oom_score(plan: &ProcessPlan, child: &Child, rootless: Option<bool>) -> Result<()> {
    let Some(score) = plan.oom_score_adj else { return Ok(()) };
    match write_proc(child.pid, "oom_score_adj", &score.to_string()) {
        Err(e) if e.is(errno::EACCES) && is_rootless(rootless)? => {
            warn_of_score(score, &e);
            Ok(())
        }
        done => done.doing(|| format!("process.oomScoreAdj: {score} (lowering it needs CAP_SYS_RESOURCE)")),
    }
}

fn warn_of_score(score: i32, e: &rrt_sys::SysError) {
    log::warn(format!("process.oomScoreAdj: {score} is left out: lowering it needs CAP_SYS_RESOURCE ({e})"));
}

/// The `oomScoreAdj` of a child whose `/proc` files are closed to us, the user: it inherits ours, which is changed while it is
/// cloned. What may not be lowered stays what it is, with a warning.
#[derive(Debug)]
pub struct OwnScore(Option<(OwnedFd, Vec<u8>)>);

impl OwnScore {
    /// Sets our own, when `unprivileged`; to be called while our own files are open to us.
    pub fn lend(plan: &ProcessPlan, unprivileged: bool) -> Result<OwnScore> {
        let Some(score) = plan.oom_score_adj.filter(|_| unprivileged) else { return Ok(OwnScore(None)) };
        let doing = || format!("process.oomScoreAdj: {score}");
        let file = path::open(Path::new("/proc/self/oom_score_adj"), OFlags::RDWR).doing(doing)?;
        let own = path::read_limited(&file, 16).doing(doing)?;
        match path::write_once(&file, score.to_string().as_bytes()) {
            Ok(()) => Ok(OwnScore(Some((file, own)))),
            Err(e) if e.is(errno::EACCES) => {
                warn_of_score(score, &e);
                Ok(OwnScore(None))
            }
            Err(e) => Err(e).doing(doing),
        }
    }

    /// Puts ours back.
    pub fn take_back(self) {
        if let Some((file, own)) = self.0 {
            // We end soon; a score that stays raised does no harm.
            let _ = path::write_once(&file, &own);
        }
    }
}
