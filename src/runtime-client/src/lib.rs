//! Running `rrt`, or any runtime with runc's command line, as a child: what containerd's go-runc is to runc.
//!
//! A [`Call`] is one command, ready to be started. Whoever starts it waits for it in his own way (a shim that reaps all its
//! children cannot leave that to `std`), and hands the status to [`Finish::result`], which finds the words for a failure: the last
//! error that this call has written to the log (contract A.8), or else what it printed.

#![deny(unsafe_code)]

mod log;

use rustix::fs::MemfdFlags;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// How to call the runtime for the containers of one namespace.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The program: a path, or a name that is looked for in PATH.
    pub program: PathBuf,
    /// Its state directory (`--root`).
    pub root: PathBuf,
    /// Its log (`--log`), in JSON.
    pub log: PathBuf,
    /// cgroups by systemd (`--systemd-cgroup`).
    pub systemd_cgroup: bool,
}

/// A program's standard streams. `None` is `/dev/null`.
#[derive(Debug, Default)]
pub struct Streams {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// Flags of `create`.
#[derive(Debug, Default, Clone)]
pub struct Create {
    /// Do not use `pivot_root(2)`.
    pub no_pivot: bool,
    /// Make no session keyring.
    pub no_new_keyring: bool,
}

/// Flags of `checkpoint`; names as in containerd's `CheckpointOptions`.
#[derive(Debug, Default, Clone)]
pub struct Checkpoint {
    /// Where the images go.
    pub image_path: PathBuf,
    /// Where criu works and logs.
    pub work_path: PathBuf,
    /// An earlier image that this one builds on.
    pub parent_path: Option<PathBuf>,
    /// Let the container go on.
    pub leave_running: bool,
    /// Save open TCP connections.
    pub open_tcp: bool,
    /// Allow unix sockets with a peer outside.
    pub external_unix_sockets: bool,
    /// Allow a terminal.
    pub terminal: bool,
    /// Save file locks.
    pub file_locks: bool,
    /// Namespaces that are left empty.
    pub empty_namespaces: Vec<String>,
}

/// Flags of `restore`.
#[derive(Debug, Default, Clone)]
pub struct Restore {
    /// Where the images are.
    pub image_path: PathBuf,
    /// Where criu works and logs.
    pub work_path: PathBuf,
    /// An earlier image that this one builds on.
    pub parent_path: Option<PathBuf>,
    /// Do not use `pivot_root(2)`.
    pub no_pivot: bool,
}

/// A call that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The runtime's own words, or what became of it.
    pub message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// The container, or the process, is not there any more: texts that every runtime has (contract A.8).
    pub fn is_gone(&self) -> bool {
        let text = self.message.to_ascii_lowercase();
        ["process already finished", "container not running", "no such process"].iter().any(|t| text.contains(t))
    }

    /// The runtime does not know the container.
    pub fn is_unknown_container(&self) -> bool {
        self.message.contains("does not exist")
    }
}

impl Runtime {
    /// The same runtime with another log, so that the errors of two calls at once are not mixed up.
    pub fn with_log(&self, log: PathBuf) -> Runtime {
        Runtime { log, ..self.clone() }
    }

    /// `create`: the container's init is made and waits for `start`. `console` is the path of a socket for the terminal's master.
    ///
    /// # Errors
    /// The output file cannot be made (memfd_create(2)); so for all calls.
    pub fn create(
        &self,
        id: &str,
        bundle: &Path,
        pid_file: &Path,
        flags: &Create,
        console: Option<&Path>,
        streams: Streams,
    ) -> io::Result<Call> {
        let mut call = self.call("create")?;
        call.flag("--bundle", bundle).flag("--pid-file", pid_file).optional("--console-socket", console);
        call.switch("--no-pivot", flags.no_pivot).switch("--no-new-keyring", flags.no_new_keyring).arg(id);
        call.streams(streams);
        Ok(call)
    }

    /// `restore --detach`: the container comes out of a checkpoint, running.
    ///
    /// # Errors
    /// See [`Runtime::create`].
    pub fn restore(
        &self,
        id: &str,
        bundle: &Path,
        pid_file: &Path,
        flags: &Restore,
        console: Option<&Path>,
        streams: Streams,
    ) -> io::Result<Call> {
        let mut call = self.call("restore")?;
        call.flag("--image-path", &flags.image_path).flag("--work-path", &flags.work_path);
        call.optional("--parent-path", flags.parent_path.as_deref());
        call.flag("--bundle", bundle).flag("--pid-file", pid_file).optional("--console-socket", console);
        call.switch("--no-pivot", flags.no_pivot).arg("--detach").arg("--no-subreaper").arg(id);
        call.streams(streams);
        Ok(call)
    }

    /// `exec --detach`: one more process; `process` is the file with its description.
    ///
    /// # Errors
    /// See [`Runtime::create`].
    pub fn exec(
        &self,
        id: &str,
        process: &Path,
        pid_file: &Path,
        console: Option<&Path>,
        streams: Streams,
    ) -> io::Result<Call> {
        let mut call = self.call("exec")?;
        call.flag("--process", process).flag("--pid-file", pid_file).optional("--console-socket", console);
        call.arg("--detach").arg(id);
        call.streams(streams);
        Ok(call)
    }

    /// `checkpoint`.
    ///
    /// # Errors
    /// See [`Runtime::create`].
    pub fn checkpoint(&self, id: &str, flags: &Checkpoint) -> io::Result<Call> {
        let mut call = self.call("checkpoint")?;
        call.flag("--image-path", &flags.image_path).flag("--work-path", &flags.work_path);
        call.optional("--parent-path", flags.parent_path.as_deref());
        call.switch("--leave-running", flags.leave_running).switch("--tcp-established", flags.open_tcp);
        call.switch("--ext-unix-sk", flags.external_unix_sockets).switch("--shell-job", flags.terminal);
        call.switch("--file-locks", flags.file_locks);
        for namespace in &flags.empty_namespaces {
            call.arg("--empty-ns").arg(namespace);
        }
        call.arg(id);
        Ok(call)
    }

    /// `kill`, with a signal's number.
    ///
    /// # Errors
    /// See [`Runtime::create`].
    pub fn kill(&self, id: &str, signal: u32, all: bool) -> io::Result<Call> {
        let mut call = self.call("kill")?;
        call.switch("--all", all).arg(id).arg(&signal.to_string());
        Ok(call)
    }

    /// `delete`.
    ///
    /// # Errors
    /// See [`Runtime::create`].
    pub fn delete(&self, id: &str, force: bool) -> io::Result<Call> {
        let mut call = self.call("delete")?;
        call.switch("--force", force).arg(id);
        Ok(call)
    }

    /// `update`, with `resources` as JSON on its standard input.
    ///
    /// # Errors
    /// See [`Runtime::create`].
    pub fn update(&self, id: &str, resources: &[u8]) -> io::Result<Call> {
        let mut call = self.call("update")?;
        let mut input = memory_file("resources")?;
        input.write_all(resources)?;
        input.rewind()?;
        call.command.stdin(input);
        call.arg("--resources").arg("-").arg(id);
        Ok(call)
    }

    /// A command that has the container's id and nothing else: `start`, `pause`, `resume`.
    ///
    /// # Errors
    /// See [`Runtime::create`].
    pub fn simple(&self, command: &'static str, id: &str) -> io::Result<Call> {
        let mut call = self.call(command)?;
        call.arg(id);
        Ok(call)
    }

    /// `ps --format json`; [`pids`] reads its output.
    ///
    /// # Errors
    /// See [`Runtime::create`].
    pub fn ps(&self, id: &str) -> io::Result<Call> {
        let mut call = self.call("ps")?;
        call.arg("--format").arg("json").arg(id);
        // What it warns of must not get into the document.
        call.command.stderr(Stdio::null());
        Ok(call)
    }

    /// `features`: what the runtime can do, as JSON.
    ///
    /// # Errors
    /// See [`Runtime::create`].
    pub fn features(&self) -> io::Result<Call> {
        let output = memory_file("output")?;
        let mut command = Command::new(&self.program);
        command.arg("features").stdin(Stdio::null()).stdout(output.try_clone()?).stderr(Stdio::null());
        Ok(Call { command, finish: Finish { name: "features", output, log: PathBuf::new(), log_from: 0 } })
    }

    fn call(&self, name: &'static str) -> io::Result<Call> {
        let output = memory_file("output")?;
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--log").arg(&self.log).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.arg(name).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        // Not ours to tell systemd that it is ready, and a signal to our group is not for it.
        command.env_remove("NOTIFY_SOCKET").process_group(0);
        let log_from = self.log.metadata().map_or(0, |m| m.len());
        Ok(Call { command, finish: Finish { name, output, log: self.log.clone(), log_from } })
    }
}

/// A command of the runtime that is ready to be started.
#[derive(Debug)]
pub struct Call {
    command: Command,
    finish: Finish,
}

impl Call {
    fn arg(&mut self, arg: &str) -> &mut Call {
        self.command.arg(arg);
        self
    }

    fn flag(&mut self, name: &str, value: &Path) -> &mut Call {
        self.command.arg(name).arg(value);
        self
    }

    fn optional(&mut self, name: &str, value: Option<&Path>) -> &mut Call {
        match value {
            Some(value) => self.flag(name, value),
            None => self,
        }
    }

    fn switch(&mut self, name: &str, on: bool) -> &mut Call {
        if on {
            self.command.arg(name);
        }
        self
    }

    /// The runtime has the container's streams as its own; so it has none to complain on, but the log.
    fn streams(&mut self, streams: Streams) {
        let stdio = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
        self.command.stdin(stdio(streams.stdin)).stdout(stdio(streams.stdout)).stderr(stdio(streams.stderr));
    }

    /// Starts it, to end with us: what has been begun by a caller that is killed must not come to be when that has been cleaned up
    /// already. Our copies of the streams it was given are closed.
    ///
    /// # Errors
    /// The program cannot be executed; the text names it.
    pub fn spawn(mut self) -> Result<(Child, Finish), Failure> {
        end_with_us(&mut self.command);
        self.start()
    }

    fn start(mut self) -> Result<(Child, Finish), Failure> {
        let child = self.command.spawn().map_err(|e| {
            let program = self.command.get_program().to_string_lossy().into_owned();
            Failure { message: format!("cannot execute the runtime {program:?}: {e}") }
        })?;
        Ok((child, self.finish))
    }

    /// Starts it and waits. Not for a process that reaps all its children.
    ///
    /// # Errors
    /// See [`Finish::result`].
    pub fn run(self) -> Result<Vec<u8>, Failure> {
        let (mut child, finish) = self.start()?;
        let status = child.wait().map_err(|e| Failure { message: format!("waitpid: {e}") })?;
        finish.result(status)
    }
}

/// `PR_SET_PDEATHSIG`, in the child. prctl(2)
#[expect(unsafe_code, reason = "std and posix_spawn(3) have no safe way to it")]
fn end_with_us(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let parent = rustix::process::getpid();
    let ask = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // It may have died before that.
        match rustix::process::getppid() == Some(parent) {
            true => Ok(()),
            false => Err(io::Error::from(rustix::io::Errno::SRCH)),
        }
    };
    // SAFETY: between fork and exec it makes two system calls, and touches neither memory that is shared nor a lock.
    unsafe { command.pre_exec(ask) };
}

/// What is needed when a call has ended.
#[derive(Debug)]
pub struct Finish {
    name: &'static str,
    output: File,
    log: PathBuf,
    log_from: u64,
}

impl Finish {
    /// What the command printed, if it has succeeded.
    ///
    /// # Errors
    /// The error that the runtime has logged, or what it printed, or its status.
    pub fn result(mut self, status: ExitStatus) -> Result<Vec<u8>, Failure> {
        let mut output = Vec::new();
        // A description shared with the child: its offset is where the child stopped.
        let _ = self.output.rewind().and_then(|()| self.output.read_to_end(&mut output));
        if status.success() {
            return Ok(output);
        }
        let logged = log::last_error(&self.log, self.log_from);
        let printed = || Some(String::from_utf8_lossy(&output).trim().to_owned()).filter(|text| !text.is_empty());
        let message = logged.or_else(printed).unwrap_or_else(|| match status.signal() {
            Some(signal) => format!("{} was killed by signal {signal}", self.name),
            None => format!("{} failed with {status} and no word{}", self.name, log::why_silent(&self.log)),
        });
        Err(Failure { message })
    }
}

/// Reads a pid file.
///
/// # Errors
/// It cannot be read, or holds no pid.
pub fn read_pid(path: &Path) -> Result<i32, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Failure { message: format!("read {}: {e}", path.display()) })?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| Failure { message: format!("{} holds no pid: {text:?}", path.display()) })
}

/// The pids that `ps --format json` printed.
///
/// # Errors
/// It is no list of numbers. runc prints `null` for none.
pub fn pids(output: &[u8]) -> Result<Vec<u32>, Failure> {
    let pids: Result<Option<Vec<u32>>, _> = serde_json::from_slice(output);
    pids.map(Option::unwrap_or_default)
        .map_err(|e| Failure { message: format!("the runtime's list of processes: {e}") })
}

/// What a caller needs of a bundle's config.json.
#[derive(Debug, Default, Deserialize)]
pub struct Bundle {
    /// `annotations`
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
    /// `linux`
    #[serde(default)]
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    r#type: String,
    #[serde(default)]
    path: String,
}

impl Bundle {
    /// Reads `config.json` of the bundle.
    ///
    /// # Errors
    /// It cannot be read, or is not what is expected.
    pub fn read(dir: &Path) -> Result<Bundle, Failure> {
        let path = dir.join("config.json");
        let failed = |e: &dyn std::fmt::Display| Failure { message: format!("{}: {e}", path.display()) };
        let text = std::fs::read(&path).map_err(|e| failed(&e))?;
        serde_json::from_slice(&text).map_err(|e| failed(&e))
    }

    /// Whether the end of init is the end of all processes, by the kernel.
    pub fn has_own_pid_namespace(&self) -> bool {
        self.linux.namespaces.iter().any(|n| n.r#type == "pid" && n.path.is_empty())
    }
}

/// A file without a name; nothing of it ever reaches a disk.
fn memory_file(name: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?))
}

#[cfg(test)]
mod tests;
