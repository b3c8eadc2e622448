//! Running a command that may hang, and that may leave children which hold its output.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

/// How long one command of the runtime may take, and how long a test waits for something to become true.
/// It is there so that a runtime which hangs cannot hang the suite; no test asserts on time.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// What a command left.
pub struct Output {
    /// Exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// Standard output at the time the command ended.
    pub stdout: String,
    /// Standard error at the time the command ended.
    pub stderr: String,
    /// The file that is standard output: a detached container goes on writing there.
    pub stdout_file: PathBuf,
    command: String,
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A report is some kilobytes, and in the way of what went wrong.
        let stdout: String = self.stdout.chars().take(500).collect();
        write!(f, "{}\nexit code {}\nstdout: {stdout}\nstderr: {}", self.command, self.code, self.stderr)
    }
}

impl Output {
    /// The output of a command that must have succeeded.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "expected success: {self}");
        self
    }

    /// The output of a command that must have failed with `code` and said why. Of our own runtime: in one line that
    /// holds each of `needles`, for the wording is our promise and not another runtime's.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn fails(self, code: i32, needles: &[&str]) -> Self {
        assert_eq!(self.code, code, "expected failure with exit code {code}: {self}");
        let text = self.stderr.trim_end();
        assert!(!text.is_empty(), "a failure without a word: {self}");
        if crate::runtime().is_ours() {
            assert_eq!(text.lines().count(), 1, "an error is one line: {self}");
            for needle in needles {
                assert!(text.contains(needle), "the error does not name {needle:?}: {self}");
            }
        }
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("standard output is not JSON: {e}: {self}"))
    }

    /// Waits until the container behind this command has written `text` to its standard output, and returns all of it.
    ///
    /// # Panics
    /// When it has not within the deadline.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let mut seen = String::new();
        until(&format!("{text:?} on standard output of {self}"), || {
            seen = lossy(&self.stdout_file);
            seen.contains(text)
        });
        seen
    }
}

/// A command that runs beside the test, and is killed if the test ends before it does.
pub struct Background {
    child: Child,
    stdout_file: PathBuf,
    command: String,
}

impl Background {
    /// Starts `command` with its standard output in a file of `dir`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command, dir: &Path) -> Self {
        let stdout_file = output_file(dir, "background");
        command.stdout(append(&stdout_file));
        let mut started = Self::start_as_is(command);
        started.stdout_file = stdout_file;
        started
    }

    /// Starts `command` with the output it has been given.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start_as_is(command: &mut Command) -> Self {
        let text = format!("{command:?}");
        Self {
            child: command.spawn().unwrap_or_else(|e| panic!("{text}: {e}")),
            stdout_file: PathBuf::new(),
            command: text,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output until now.
    #[must_use]
    pub fn stdout(&self) -> String {
        lossy(&self.stdout_file)
    }

    /// Waits until `text` is in its standard output.
    ///
    /// # Panics
    /// When it does not come within the deadline.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        until(&format!("{text:?} on standard output of {}", self.command), || self.stdout().contains(text));
    }

    /// Exit code, or 128 + signal, once it has ended.
    ///
    /// # Panics
    /// When it does not end within the deadline.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        wait(&mut self.child).unwrap_or_else(|| panic!("killed after {DEADLINE:?}: {}", self.command))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls until `done`, at most for the deadline.
///
/// # Panics
/// When it does not come true; `what` says what was awaited.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs `command` to its end; its output goes through files in `dir`, because a detached container keeps a pipe open.
/// Standard input is empty unless set.
///
/// # Panics
/// When it cannot be started, or runs longer than the deadline (it is killed then).
#[track_caller]
pub fn run(command: &mut Command, dir: &Path) -> Output {
    let (stdout_file, stderr_file) = (output_file(dir, "stdout"), output_file(dir, "stderr"));
    let text = format!("{command:?}");
    command.stdout(append(&stdout_file)).stderr(append(&stderr_file));
    let mut child = spawn(command).unwrap_or_else(|e| panic!("{text}: {e}"));
    let code = wait(&mut child);
    let output = Output {
        code: code.unwrap_or(-1),
        stdout: lossy(&stdout_file),
        stderr: lossy(&stderr_file),
        stdout_file,
        command: text,
    };
    assert!(code.is_some(), "killed after {DEADLINE:?}: {output}");
    output
}

/// A program that a test has just copied is "busy" for as long as a child of another thread's, between fork and exec, has the copy open for
/// writing.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let busy = |r: &std::io::Result<Child>| matches!(r, Err(e) if e.kind() == ErrorKind::ExecutableFileBusy);
    let mut child = command.spawn();
    for _ in 0..100 {
        if !busy(&child) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        child = command.spawn();
    }
    child
}

fn output_file(dir: &Path, name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    dir.join(format!("{name}.{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

fn append(path: &Path) -> File {
    File::options().append(true).create_new(true).open(path).expect("output file")
}

/// Exit code of `child`, or 128 + signal; none when it had to be killed at the deadline.
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open of a child not yet waited for");
    let limit = DEADLINE.try_into().expect("a deadline fits a timespec");
    let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).expect("poll of a pidfd");
    if ready == 0 {
        child.kill().expect("kill of a child not yet waited for");
    }
    let status = child.wait().expect("wait for a child");
    (ready != 0).then(|| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// A command whose input is empty, for [`run`].
pub(crate) fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

fn lossy(path: &Path) -> String {
    std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}
