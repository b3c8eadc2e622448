//! `berth` under test: a root of its own for each test, an image made on the spot, and Debian's `docker-registry`.

use crate::command::{Background, until};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The `berth` under test: `BERTH_BIN`, or the newest one in the target directory.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn berth_bin() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| match std::env::var_os("BERTH_BIN") {
        Some(path) => std::path::absolute(path).expect("the path that BERTH_BIN names"),
        None => crate::runtime::newest_build("berth"),
    })
}

/// A root, a configuration and a place for files, which all go with the value.
pub struct Berth {
    /// For files of the test.
    pub dir: PathBuf,
    /// `--root`.
    pub root: PathBuf,
}

/// What a command left.
pub struct Done {
    /// Exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    command: String,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nexit code {}\nstdout: {}\nstderr: {}", self.command, self.code, self.stdout, self.stderr)
    }
}

impl Done {
    /// Its standard output; it must have succeeded.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    #[allow(clippy::must_use_candidate, reason = "most callers only want it to succeed")]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "expected success: {self}");
        self.stdout
    }

    /// It must have failed with 1 and said why in one line with each of `needles`.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn fails(self, needles: &[&str]) {
        assert_eq!(self.code, 1, "expected failure: {self}");
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "an error is one line: {self}");
        for needle in needles {
            assert!(self.stderr.contains(needle), "the error does not say {needle:?}: {self}");
        }
    }
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// An empty directory of this process alone.
///
/// # Panics
/// When it can't be made.
#[must_use]
pub fn empty_directory(name: &str) -> PathBuf {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("{name}-{}-{count}", std::process::id()));
    fs::create_dir(&dir).expect("a directory of the test's own");
    dir
}

impl Default for Berth {
    fn default() -> Self {
        Self::new()
    }
}

impl Berth {
    /// With nothing in it.
    ///
    /// # Panics
    /// When there is no place for it.
    #[must_use]
    pub fn new() -> Self {
        let dir = empty_directory("berth-test");
        Self { root: dir.join("root"), dir }
    }

    /// The command, with nothing on its standard input.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(berth_bin());
        command.args(args).env("BERTH_ROOT", &self.root).env("DOCKER_CONFIG", self.dir.join("docker"));
        command.env("HOME", &self.dir).env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME").stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it can't be run.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Done {
        run(&mut self.command(args))
    }

    /// Runs it with this on its standard input.
    ///
    /// # Panics
    /// When it can't be run.
    #[track_caller]
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Done {
        let file = self.dir.join("input");
        fs::write(&file, input).expect("the input");
        run(self.command(args).stdin(fs::File::open(file).expect("the input")))
    }

    /// An archive with busybox and some links to it.
    ///
    /// # Panics
    /// When there is no busybox or no tar.
    #[must_use]
    pub fn busybox(&self) -> PathBuf {
        let (root, archive) = (self.dir.join("busybox"), self.dir.join("busybox.tar"));
        fs::create_dir_all(root.join("bin")).expect("a directory");
        fs::create_dir_all(root.join("etc")).expect("a directory");
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static");
        for name in ["sh", "ls", "cat"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("a link");
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("a file");
        let tar = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").status();
        assert!(tar.expect("tar").success());
        archive
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it can't be run.
#[track_caller]
pub fn run(command: &mut Command) -> Done {
    use std::os::unix::process::ExitStatusExt;
    let text = format!("{command:?}");
    let output = command.output().unwrap_or_else(|e| panic!("{text}: {e}"));
    let status = output.status;
    Done {
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        command: text,
    }
}

/// Debian's `docker-registry` on a loopback port of its own, gone with the value.
pub struct Registry {
    /// `127.0.0.1:PORT`
    pub address: String,
    dir: PathBuf,
    _process: Background,
}

impl Registry {
    /// Starts it; `None` when it is not installed. `extra` is added to its configuration, in which `DIR` is its directory.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn start(extra: &str) -> Option<Self> {
        let program = ["/usr/bin/docker-registry", "/usr/local/bin/docker-registry"]
            .into_iter()
            .find(|p| Path::new(p).exists())?;
        let dir = empty_directory("berth-registry");
        // Free a moment ago; another process that takes it meanwhile shows as no answer.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let address = format!("127.0.0.1:{port}");
        let storage =
            format!("storage:\n  filesystem: {{ rootdirectory: {} }}\n  delete: {{ enabled: true }}\n", dir.display());
        let config = format!("version: 0.1\nlog: {{ level: error }}\n{storage}http: {{ addr: \"{address}\" }}\n");
        let path = dir.join("config.yml");
        fs::write(&path, config + &extra.replace("DIR", &dir.display().to_string())).expect("its configuration");
        let log = fs::File::create(dir.join("log")).expect("its log");
        let mut command = Command::new(program);
        command.arg("serve").arg(&path).stdout(log.try_clone().expect("its log")).stderr(log);
        let process = Background::start_as_is(&mut command);
        until("docker-registry answers", || TcpStream::connect(&address).is_ok());
        Some(Self { address, dir, _process: process })
    }

    /// Where it keeps things.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A server that answers every request with this, for as long as the process lives. Its address.
///
/// # Panics
/// When there is no port.
#[must_use]
pub fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 8192];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}
