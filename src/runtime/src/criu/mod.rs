//! criu, the program that saves and restores processes: started as our own worker, and talked to over its RPC.
//!
//! `criu swrk FD` answers requests on a packet socket (criu.org, "RPC"). While it works it notifies us of each stage and waits for
//! our answer; a refusal makes it take back what it did, which is the only clean way to stop it: killed in the middle of a dump it
//! leaves its code in the container's processes (they run on), so that comes last.

pub mod options;
pub mod rpc;
pub mod watch;

use crate::error::{Doing, Error, Result};
use crate::handshake::{Channel, Frame};
use crate::rebirth::report_and_exit;
use rpc::{Kind, Message, Response};
use rrt_sys::process::{self, Child, ExecArgs, SingleThreaded, clone3};
use rrt_sys::signal::{self, Signals};
use rrt_sys::socket;
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The oldest version that can do all that is asked of it: external pid namespaces came with 3.15. Debian 12's 3.17 has it, but
/// needs a kernel before 6.13.
const OLDEST: u32 = 31_500;
/// How long it may do nothing at all before it is taken for hanging.
const PATIENCE: Duration = Duration::from_secs(120);
/// The variable that sets another patience, in seconds.
const PATIENCE_VARIABLE: &str = "RRT_CRIU_TIMEOUT";
/// How long it has for an orderly end when it is to stop.
const GRACE: Duration = Duration::from_secs(10);
/// Where administrators put it, for a PATH without system directories.
const USUAL_PLACES: [&str; 2] = ["/usr/local/sbin", "/usr/sbin"];

/// Who deals with the stages criu reports.
pub trait Stages {
    /// A stage was reached. `pid` is init's where criu knows it, `fd` came with the message.
    ///
    /// # Errors
    /// Then criu is told to stop.
    fn reached(&mut self, stage: &str, pid: i32, fd: Option<OwnedFd>) -> Result<()>;
}

/// A criu at work.
pub struct Criu {
    child: Child,
    socket: OwnedFd,
    /// Its log.
    log: PathBuf,
    patience: Option<Duration>,
}

/// How criu is started.
pub struct Start<'a> {
    /// There is one thread.
    pub token: &'a SingleThreaded,
    /// Namespaces it gets of its own (`CLONE_NEW*`).
    pub namespaces: i32,
    /// fds it inherits, under the same numbers.
    pub inherited: &'a [i32],
    /// Keep it in our process group, as a job of the shell has to be.
    pub shell_job: bool,
    /// What the new process does before it becomes criu.
    pub prepare: &'a mut dyn FnMut() -> Result<()>,
    /// Where it will write its log.
    pub log: PathBuf,
    /// Whether it may wait for others for as long as they like (lazy migration, a page server).
    pub patient: bool,
}

/// Why criu was stopped.
#[derive(Debug)]
enum Stop {
    Signal(i32),
    Stage(Error),
    Hanging(Duration),
}

impl Criu {
    /// Starts criu and checks its version.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is none or it is too old.
    pub fn start(start: Start<'_>) -> Result<Criu> {
        let path = find()?;
        let doing = || format!("start {path:?}");
        let (channel, childs_end) = Channel::pair()?;
        let c = |text: &[u8]| CString::new(text).map_err(|_| Error::Usage("a variable with a NUL byte".into()));
        let variable = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            c(&name.into_vec())
        };
        let envp: Vec<CString> = std::env::vars_os().map(variable).collect::<Result<_>>()?;
        let program = c(path.as_os_str().as_bytes())?;
        let child = clone3(start.token, start.namespaces, None, || {
            let becoming = (|| {
                signal::reset().doing(doing)?;
                // Ctrl-C is for us, who stop it in an orderly way.
                if !start.shell_job {
                    process::setpgid().doing(doing)?;
                }
                (start.prepare)()?;
                // Made here, because criu looks for the fds it is told of in the process that made its socket.
                let (ours, its) = socket::packet_pair().doing(doing)?;
                let argv = vec![c(b"criu")?, c(b"swrk")?, c(its.as_raw_fd().to_string().as_bytes())?];
                let args = ExecArgs::new(argv, envp);
                childs_end.send(&Frame::Executing, Some(ours.as_fd()))?;
                let mut keep = start.inherited.to_vec();
                keep.extend([its.as_raw_fd(), childs_end.as_fd().as_raw_fd()]);
                process::close_all_but(&keep).doing(doing)?;
                for fd in start.inherited.iter().filter_map(|fd| process::inherited_fd(*fd)).chain([its.as_fd()]) {
                    process::keep_on_exec(fd).doing(doing)?;
                }
                Err(Error::System { doing: doing(), source: args.exec(&program) })
            })();
            match becoming {
                Ok(()) => process::exit_now(0),
                Err(e) => report_and_exit(&childs_end, e),
            }
        })
        .doing(doing)?;
        // With it goes our copy of the child's end: from here on its end of file is the child's execve, or its end.
        drop(childs_end);
        let begun = begin(&channel).and_then(|socket| {
            let mut criu = Criu { child, socket, log: start.log, patience: patience(start.patient) };
            criu.check_version().map(|()| criu)
        });
        if begun.is_err() {
            watch::kill_all();
            watch::reap_all();
        }
        begun
    }

    /// Does something with criu's process, before it is asked for anything; where that fails criu is ended.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn adopt(self, work: impl FnOnce(i32) -> Result<()>) -> Result<Criu> {
        let worked = work(self.child.pid);
        if worked.is_err() {
            watch::kill_all();
            watch::reap_all();
        }
        worked.map(|()| self)
    }

    fn check_version(&mut self) -> Result<()> {
        let version = self.ask(&rpc::question(Kind::Version, None))?.version.unwrap_or(0);
        if version < OLDEST {
            return Err(Error::Usage(format!(
                "criu {}.{}.{} is too old: 3.15 or newer is needed",
                version / 10_000,
                version / 100 % 100,
                version % 100
            )));
        }
        crate::log::debug(format!("criu: version {version}"));
        Ok(())
    }

    /// Whether criu, with this kernel, can track changed memory and move memory lazily.
    pub fn features(&mut self) -> Result<(bool, bool)> {
        let mut wanted = Message::default();
        wanted.flag(1, true).flag(2, true);
        Ok(self.ask(&rpc::question(Kind::FeatureCheck, Some(&wanted)))?.features)
    }

    /// A question about criu itself, which it answers at once.
    fn ask(&mut self, question: &Message) -> Result<Response> {
        self.say(question)?;
        let limit = self.patience.unwrap_or(PATIENCE).as_millis() as i32;
        if !socket::poll_readable(&[self.socket.as_fd()], limit).doing(|| "wait for criu".into())?[0] {
            return Err(Error::Status("criu does not answer".into()));
        }
        match self.receive()? {
            Some((response, _)) => Ok(response),
            None => Err(Error::Status(format!("criu ended without an answer ({})", self.ending()))),
        }
    }

    /// Has a request done, and attends to its stages. The result is criu's last word, and the signal that asked us to stop when it
    /// came too late for criu.
    ///
    /// # Errors
    /// criu's failure, with the last errors of its log; that of a stage; that it was stopped.
    pub fn run(
        mut self,
        request: &Message,
        signals: &Signals,
        stages: &mut dyn Stages,
    ) -> Result<(Response, Option<i32>)> {
        self.say(request)?;
        let mut stop = None;
        let outcome = self.attend(signals, stages, &mut stop);
        // Whatever it still waits for, it is not from us.
        let Criu { child, socket, log, .. } = self;
        drop(socket);
        match outcome {
            Ok(Some(response)) if response.success => {
                let _ = child.wait();
                match stop {
                    Some(Stop::Stage(e)) => Err(e),
                    Some(Stop::Signal(signal)) => Ok((response, Some(signal))),
                    _ => Ok((response, None)),
                }
            }
            Ok(response) => {
                if response.is_some() {
                    let _ = child.wait();
                } else {
                    watch::kill_all();
                    watch::reap_all();
                }
                Err(match stop {
                    Some(Stop::Stage(e)) => e,
                    Some(Stop::Signal(signal)) => Error::Status(format!("interrupted by signal {signal}")),
                    Some(Stop::Hanging(d)) => Error::Status(format!(
                        "criu hangs: it has done nothing for {} s{}",
                        d.as_secs(),
                        log_errors(&log)
                    )),
                    None => Error::Status(describe(response.as_ref(), &log)),
                })
            }
            Err(e) => {
                watch::kill_all();
                watch::reap_all();
                Err(e)
            }
        }
    }

    /// Until criu's last word; `None` when there is none, because it died or does not listen.
    fn attend(
        &mut self,
        signals: &Signals,
        stages: &mut dyn Stages,
        stop: &mut Option<Stop>,
    ) -> Result<Option<Response>> {
        let mut deadline: Option<Instant> = None;
        let (mut work, mut since) = (0, Instant::now());
        loop {
            let ready = socket::poll_readable(&[self.socket.as_fd(), signals.as_fd()], 1000)
                .doing(|| "wait for criu".into())?;
            if ready[1] {
                while let Some(signal) = signals.next() {
                    if stop.is_none() && signal::asks_to_end(signal) {
                        *stop = Some(Stop::Signal(signal));
                        deadline = Some(Instant::now() + GRACE);
                    }
                }
            }
            if ready[0] {
                let Some((response, fd)) = self.receive()? else { return Ok(None) };
                let Some((stage, pid)) = response.notify.filter(|_| response.kind == Kind::Notify as u64) else {
                    return Ok(Some(Response { notify: None, ..response }));
                };
                crate::log::debug(format!("criu: {stage}"));
                if stop.is_none()
                    && let Err(e) = stages.reached(&stage, pid, fd)
                {
                    *stop = Some(Stop::Stage(e));
                    deadline = Some(Instant::now() + GRACE);
                }
                let answer = rpc::notified(stop.is_none());
                self.say(&answer)?;
                since = Instant::now();
            }
            if deadline.is_some_and(|d| Instant::now() > d) {
                return Ok(None);
            }
            let Some(patience) = self.patience else { continue };
            let now = watch::work_done();
            if now != work {
                (work, since) = (now, Instant::now());
            } else if since.elapsed() > patience {
                *stop = Some(Stop::Hanging(patience));
                return Ok(None);
            }
        }
    }

    /// Sends a message. That criu is gone is found by whoever waits for the answer.
    fn say(&self, message: &Message) -> Result<()> {
        match socket::send(self.socket.as_fd(), message.bytes(), &[]) {
            Err(e) if e.is(rrt_sys::errno::EPIPE) => Ok(()),
            sent => sent.doing(|| "talk to criu".into()),
        }
    }

    /// The next message; `None` when criu is gone.
    fn receive(&self) -> Result<Option<(Response, Option<OwnedFd>)>> {
        /// criu's own buffer is 1 KiB, and grows for requests only.
        const MOST: usize = 64 * 1024;
        let mut buf = vec![0; MOST];
        let (n, fd) = match socket::receive(self.socket.as_fd(), &mut buf) {
            Err(e) if e.is(rrt_sys::errno::ECONNRESET) => return Ok(None),
            received => received.doing(|| "listen to criu".into())?,
        };
        match Response::decode(&buf[..n]) {
            _ if n == 0 => Ok(None),
            Some(response) => Ok(Some((response, fd))),
            None => Err(Error::Status(format!("criu sent {n} bytes that are no message"))),
        }
    }

    fn ending(&self) -> String {
        match self.child.wait() {
            Ok(process::Exit::Code(code)) => format!("exit status {code}"),
            Ok(process::Exit::Signal(signal)) => format!("killed by signal {signal}"),
            Err(e) => e.to_string(),
        }
    }
}

/// The child's last words before it is criu: our end of the socket, then nothing more.
fn begin(channel: &Channel) -> Result<OwnedFd> {
    let failed = |text| Err(Error::Status(text));
    let socket = match channel.receive()? {
        Some((Frame::Executing, Some(socket))) => socket,
        Some((Frame::Failed(text), _)) => return failed(text),
        other => return failed(format!("criu's process ended before it was criu ({:?})", other.map(|o| o.0))),
    };
    match channel.receive()? {
        None => Ok(socket),
        Some((Frame::Failed(text), _)) => failed(text),
        Some((other, _)) => failed(format!("{other:?} where criu was due")),
    }
}

fn patience(patient: bool) -> Option<Duration> {
    let given = std::env::var(PATIENCE_VARIABLE).ok().and_then(|s| s.parse().ok()).map(Duration::from_secs);
    (!patient).then_some(given.unwrap_or(PATIENCE))
}

/// The program: in PATH, or where administrators put it.
fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(USUAL_PLACES.map(PathBuf::from));
    let is_program = |file: &PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        file.is_absolute() && file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    places.map(|dir| dir.join("criu")).find(is_program).ok_or_else(|| {
        Error::Usage(format!(
            "criu: executable file not found in $PATH ({}); checkpoint and restore need it: install the package criu",
            path.display()
        ))
    })
}

/// Why a request failed, in one line.
fn describe(response: Option<&Response>, log: &Path) -> String {
    let why = match response {
        None => "criu ended without an answer".to_owned(),
        Some(Response { errno: Some(errno), .. }) if *errno != 0 => {
            format!("criu failed: {}", std::io::Error::from_raw_os_error(*errno))
        }
        Some(_) => "criu failed".to_owned(),
    };
    let more = log_errors(log);
    match response.and_then(|r| r.message.as_deref()).filter(|_| more.is_empty()) {
        Some(message) => format!("{why}: {}", message.trim()),
        None => why + &more,
    }
}

/// The last errors of a log, and where it is. The last lines only repeat that it failed, the first one may be harmless; what led to
/// the end stands just before it.
fn log_errors(log: &Path) -> String {
    /// More makes the line longer, not clearer.
    const KEPT: usize = 3;
    let Ok(text) = std::fs::read(log) else { return String::new() };
    let text = String::from_utf8_lossy(&text);
    let errors: Vec<&str> = text.lines().filter_map(log_error).collect();
    let last = &errors[errors.len().saturating_sub(KEPT)..];
    match last.is_empty() {
        true => format!(" (log: {})", log.display()),
        false => format!(": {} (log: {})", last.join("; "), log.display()),
    }
}

/// `(00.075197) Error (criu/files-reg.c:1790): Can't lookup mount=24 for fd=0 path=/dev/null` without its beginning.
fn log_error(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Error (")?;
    let (_, text) = rest.split_once("): ")?;
    // criu raises its own limit on files where it may, and says so where it may not.
    let harmless = text.ends_with("FAILED.") || text.starts_with("rlimit: Can't setup RLIMIT_NOFILE");
    (!harmless).then(|| text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "(00.039154) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
        (00.040000) Warn  (criu/x.c:1): not this\n\
        (00.075197) Error (criu/files-reg.c:1790): Can't lookup mount=24 for fd=0 path=/dev/null\n\
        (00.075208) Error (criu/cr-dump.c:1545): Dump files (pid: 15656) failed with -1\n\
        (00.202697) Error (criu/cr-dump.c:1975): Dumping FAILED.\n";

    #[test]
    fn the_log_says_what_led_to_the_end() {
        let errors: Vec<_> = LOG.lines().filter_map(log_error).collect();
        let expected = ["Can't lookup mount=24 for fd=0 path=/dev/null", "Dump files (pid: 15656) failed with -1"];
        assert_eq!(errors, expected);
    }

    #[test]
    fn a_failure_names_errno_and_log() {
        let response = Response { errno: Some(22), message: Some("unused\n".into()), ..Response::default() };
        let log = std::env::temp_dir().join(format!("rrt-criu-log-{}", std::process::id()));
        std::fs::write(&log, LOG).unwrap();
        let text = describe(Some(&response), &log);
        std::fs::remove_file(&log).unwrap();
        assert!(text.starts_with("criu failed: Invalid argument (os error 22): Can't lookup"), "{text}");
        assert!(text.ends_with(&format!("(log: {})", log.display())), "{text}");
        let text = describe(Some(&response), Path::new("/nonexistent/log"));
        assert!(text.ends_with(": unused"), "{text}");
        assert_eq!(describe(None, Path::new("/nonexistent/log")), "criu ended without an answer");
    }
}
