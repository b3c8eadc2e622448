//! A containerd shim under test, without containerd: started as containerd starts it, called over ttrpc, its events caught.
//!
//! `SHIM` names another one, as an oracle: `SHIM=/usr/bin/containerd-shim-runc-v2`.

use crate::wire::{Client, Fields, Message, Status, read_frame, write_frame};
use crate::{Container, runtime, until};
use nix::sys::stat::Mode;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

/// The namespace of containerd in which all containers of the tests are.
pub const NAMESPACE: &str = "rt";

/// An event: its topic, and its message.
pub type Event = (String, Fields);

/// In containerd's place: takes events.
pub struct Events {
    list: Arc<Mutex<Vec<Event>>>,
    connections: Arc<Mutex<Vec<UnixStream>>>,
    /// The socket, for `TTRPC_ADDRESS`.
    pub path: PathBuf,
}

impl Events {
    /// Listens at a path.
    ///
    /// # Panics
    /// When that is not possible.
    #[must_use]
    pub fn listen(path: &Path) -> Self {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path).expect("a socket for events");
        let list = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let events = Self { list: list.clone(), connections: connections.clone(), path: path.to_owned() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, list) = (stream.expect("a connection"), list.clone());
                connections.lock().expect("the connections").push(stream.try_clone().expect("dup"));
                std::thread::spawn(move || {
                    while let Ok((id, _, payload)) = read_frame(&mut stream) {
                        let envelope = Fields::read(&payload).message(3).message(1);
                        assert_eq!(envelope.text(2), NAMESPACE, "the namespace of an event");
                        let event = (envelope.text(3), envelope.message(4).message(2));
                        list.lock().expect("the list").push(event);
                        if write_frame(&mut stream, id, 2, Message::new().bytes(2, &[]).encoded()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        events
    }

    /// Goes away, as a daemon that is killed: the socket is a dead one, and connections end.
    ///
    /// # Panics
    /// When a receiver has failed.
    pub fn hang_up(&self) {
        fs::remove_file(&self.path).expect("the socket");
        for stream in self.connections.lock().expect("the connections").drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// All so far.
    ///
    /// # Panics
    /// When a receiver has failed.
    #[must_use]
    pub fn all(&self) -> Vec<Event> {
        self.list.lock().expect("the list").clone()
    }

    /// The topics so far, short: `create`, `start`, `exit ID STATUS`, …
    #[must_use]
    pub fn short(&self) -> Vec<String> {
        let short = |(topic, event): &Event| {
            let topic = topic.trim_start_matches("/tasks/");
            match topic {
                "exit" => format!("exit {} {}", event.text(2), event.number(4)),
                "exec-added" | "exec-started" => format!("{topic} {}", event.text(2)),
                _ => topic.to_owned(),
            }
        };
        self.all().iter().map(short).collect()
    }

    /// Waits until exactly these have come (see [`Self::short`]).
    ///
    /// # Panics
    /// When others have.
    #[track_caller]
    pub fn expect(&self, wanted: &[&str]) {
        until(&format!("{} events of {wanted:?}; there are {:?}", wanted.len(), self.short()), || {
            self.short().len() >= wanted.len()
        });
        // One too many would come now.
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(self.short(), wanted);
    }
}

/// A shim that runs.
pub struct Shim {
    /// The connection to its task service.
    pub client: Client,
    /// What it has told.
    pub events: Events,
    /// Its socket.
    pub socket: String,
    /// Its pid.
    pub pid: u32,
    id: String,
    bundle: PathBuf,
}

/// The shim under test.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn shim_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("SHIM").map_or_else(build, |path| fs::canonicalize(path).expect("SHIM")))
}

/// Whether it is the project's own.
#[must_use]
pub fn is_our_shim() -> bool {
    shim_binary().file_name().is_some_and(|name| name == "containerd-shim-rrt-v2")
}

/// Built as the guest is, so that the tests never see an old one.
fn build() -> PathBuf {
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let target = crate::runtime::target_dir().join("guest");
    fs::create_dir_all(&target).expect("target directory of the shim");
    let lock = File::create(target.join("lock")).expect("lock file");
    lock.lock().expect("lock on the build");
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "rrt-shim", "--target", &triple, "--target-dir"]);
    let status = build.arg(&target).current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo");
    assert!(status.success(), "{build:?}: {status}");
    target.join(triple).join("debug/containerd-shim-rrt-v2")
}

/// Puts a container's state where the shim's runtime will have it.
pub fn place(container: &mut Container) {
    container.root = container.dir.join("state").join(NAMESPACE);
}

/// `containerd.runc.v1.Options` for the runtime under test, with the driver of `RT_FLAGS`.
#[must_use]
pub fn options(container: &Container) -> Message {
    let root = container.dir.join("state");
    let message = Message::new().text(6, &container.binary.to_string_lossy()).text(7, &root.to_string_lossy());
    if runtime().uses_systemd() { message.number(9, 1) } else { message }
}

const OPTIONS: &str = "containerd.runc.v1.Options";

impl Shim {
    /// Writes the container's config.json and starts a shim for it.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn start(container: &mut Container) -> Self {
        place(container);
        let message = options(container);
        Self::start_with(container, &message)
    }

    /// The same, with these runtime options.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn start_with(container: &mut Container, options: &Message) -> Self {
        place(container);
        container.write_config();
        let events = Events::listen(&container.dir.join("events.sock"));
        let address = Self::bootstrap(container, options, &events.path);
        Self::connect(container, &address, events)
    }

    /// Calls `start` and returns the address that it prints.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn bootstrap(container: &Container, options: &Message, events: &Path) -> String {
        let log = container.dir.join("log");
        if !log.exists() {
            nix::unistd::mkfifo(&log, Mode::S_IRWXU).expect("a fifo");
        }
        // containerd reads it, and a shim may wait for that; here somebody does until the test's process ends.
        std::mem::forget(File::options().read(true).write(true).open(&log).expect("the log"));
        let any = Message::any_of(OPTIONS, options.encoded());
        let output = command(container, events, "start", any.encoded());
        assert!(output.status.success(), "start: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("an address")
    }

    /// Connects to a shim that was started.
    #[track_caller]
    #[must_use]
    pub fn connect(container: &Container, address: &str, events: Events) -> Self {
        // The shim of containerd 2 answers in JSON, and serves version 3.
        let (address, version) = match serde_json::from_str::<serde_json::Value>(address) {
            Ok(answer) => (answer["address"].as_str().expect("an address").to_owned(), 3),
            Err(_) => (address.to_owned(), 2),
        };
        let socket = address.strip_prefix("unix://").expect("a unix socket's address").to_owned();
        let mut client = Client::connect(&socket, &format!("containerd.task.v{version}.Task"));
        let connected = client.call("Connect", &Message::new().text(1, &container.id)).expect("Connect");
        let pid = u32::try_from(connected.number(1)).expect("a pid");
        Self { client, events, socket, pid, id: container.id.clone(), bundle: container.dir.clone() }
    }

    /// A message that names the container.
    #[must_use]
    pub fn named(&self) -> Message {
        Message::new().text(1, &self.id)
    }

    /// A message that names an exec of it.
    #[must_use]
    pub fn exec_named(&self, exec: &str) -> Message {
        self.named().text(2, exec)
    }

    /// `CreateTaskRequest` with these streams.
    #[must_use]
    pub fn create_request(&self, container: &Container, streams: &Streams) -> Message {
        let message = self.named().text(2, &self.bundle.to_string_lossy());
        streams.put(message, 4).any(10, OPTIONS, options(container).encoded())
    }

    /// Creates the container; its pid.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn create(&mut self, container: &Container, streams: &Streams) -> u64 {
        let request = self.create_request(container, streams);
        self.client.call("Create", &request).expect("Create").number(1)
    }

    /// Calls a method that takes the container's name only, and must succeed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn simple(&mut self, method: &str) -> Fields {
        let message = self.named();
        self.client.call(method, &message).unwrap_or_else(|e| panic!("{method}: {e:?}"))
    }

    /// Describes an exec of a shell script.
    ///
    /// # Errors
    /// The shim's.
    #[track_caller]
    pub fn exec(&mut self, container: &Container, id: &str, script: &str, streams: &Streams) -> Result<Fields, Status> {
        let mut process = container.config["process"].clone();
        process["args"] = serde_json::json!(["sh", "-c", script]);
        let message = streams.put(self.exec_named(id), 3);
        let message = message.any(7, "types.containerd.io/Process", process.to_string().as_bytes());
        self.client.call("Exec", &message)
    }

    /// Status (1 created, 2 running, 3 stopped, 4 paused) of the container or an exec.
    ///
    /// # Panics
    /// When the shim does not tell.
    #[track_caller]
    pub fn status(&mut self, exec: &str) -> u64 {
        let message = self.exec_named(exec);
        self.client.call("State", &message).expect("State").number(4)
    }

    /// Sends a signal to init.
    ///
    /// # Errors
    /// The shim's.
    #[track_caller]
    pub fn kill(&mut self, exec: &str, signal: u64) -> Result<Fields, Status> {
        let message = self.exec_named(exec).number(3, signal);
        self.client.call("Kill", &message)
    }

    /// Waits for the end; the exit status.
    ///
    /// # Panics
    /// When the shim does not tell.
    #[track_caller]
    pub fn wait(&mut self, exec: &str) -> u64 {
        let message = self.exec_named(exec);
        self.client.call("Wait", &message).expect("Wait").number(1)
    }

    /// Kills, deletes, and lets the shim end.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn finish(&mut self) {
        if self.status("") != 3 {
            self.kill("", 9).expect("Kill");
            self.wait("");
        }
        self.simple("Delete");
        self.shutdown();
    }

    /// Lets the shim end.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn shutdown(&mut self) {
        let message = self.named();
        // It may be gone before it has answered.
        let _ = self.client.send("Shutdown", &message);
        let proc = format!("/proc/{}", self.pid);
        until("the end of the shim", || !Path::new(&proc).exists() || is_zombie(&proc));
        assert!(!Path::new(&self.socket).exists(), "the shim's socket is left");
    }

    /// Kills the shim itself.
    ///
    /// # Panics
    /// When that fails.
    pub fn kill_shim(&self) {
        let pid = Pid::from_raw(self.pid.cast_signed()).expect("a pid");
        kill_process(pid, Signal::KILL).expect("kill the shim");
        let proc = format!("/proc/{}", self.pid);
        until("the end of the shim", || !Path::new(&proc).exists() || is_zombie(&proc));
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let ours = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        if let Some(pid) = Pid::from_raw(self.pid.cast_signed())
            && String::from_utf8_lossy(&ours).contains(&self.id)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = fs::remove_file(&self.socket);
    }
}

fn is_zombie(proc: &str) -> bool {
    let stat = fs::read_to_string(format!("{proc}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('Z') || rest.starts_with('X'))
}

/// Calls the shim as containerd does, with `input` on its standard input.
///
/// # Panics
/// When it cannot be executed.
#[track_caller]
pub fn command(container: &Container, events: &Path, action: &str, input: &[u8]) -> Output {
    let address = container.dir.join("containerd.sock");
    let mut command = Command::new(shim_binary());
    command.args(["-namespace", NAMESPACE, "-publish-binary", "/bin/false", "-id", &container.id]);
    command.arg("-address").arg(&address);
    if action == "delete" {
        command.arg("-bundle").arg(&container.dir);
    }
    command.arg(action).current_dir(&container.dir).env("TTRPC_ADDRESS", events);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("shim");
    child.stdin.take().expect("its input").write_all(input).expect("write its input");
    child.wait_with_output().expect("its output")
}

/// The streams of a request.
#[derive(Default, Clone)]
pub struct Streams {
    /// Paths or URIs.
    pub stdin: String,
    /// See `stdin`.
    pub stdout: String,
    /// See `stdin`.
    pub stderr: String,
    /// One terminal.
    pub terminal: bool,
}

impl Streams {
    /// Fifos for output (and input, if asked for) in the container's directory.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn fifos(container: &Container, name: &str, stdin: bool) -> Self {
        let fifo = |stream: &str| {
            let path = container.dir.join(format!("{name}-{stream}"));
            nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a fifo");
            path.to_string_lossy().into_owned()
        };
        let input = if stdin { fifo("stdin") } else { String::new() };
        Self { stdin: input, stdout: fifo("stdout"), stderr: fifo("stderr"), terminal: false }
    }

    /// The fields from `first` on: terminal, stdin, stdout, stderr.
    fn put(&self, message: Message, first: u32) -> Message {
        let message = message.number(first, self.terminal.into()).text(first + 1, &self.stdin);
        message.text(first + 2, &self.stdout).text(first + 3, &self.stderr)
    }
}

/// Reads a fifo to its end, beside the test; it is opened before this returns.
///
/// # Panics
/// When it cannot be opened.
#[must_use]
pub fn reader(path: &str) -> std::thread::JoinHandle<Vec<u8>> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).expect("a fifo");
    let path = path.to_owned();
    std::thread::spawn(move || {
        // Non-blocking first, so as not to wait for a writer; then again, which it has by then or soon.
        let mut file = File::open(path).expect("a fifo");
        drop(fd);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("read a fifo");
        bytes
    })
}
