//! What the clients send, call by call in their order and spelling, and of the answers just what they read (contract A.8).
//!
//! The other files test what a flag does; here one misplaced flag or one line too many breaks the client.

use std::fs;
use std::process::{Command, Stdio};

use runtime_tests::{Background, Container, Output, cgroup_dir, console_socket, known, run, runtime, until};
use serde_json::{Value, json};

/// A client's way to call: its global flags, and the files it always uses.
struct Client {
    c: Container,
    globals: Vec<String>,
}

impl Client {
    fn new(c: Container, globals: &[&str]) -> Self {
        c.write_config();
        let root = c.root.to_str().expect("UTF-8").to_owned();
        let globals = ["--root", &root].iter().chain(globals).map(|s| (*s).to_owned()).collect();
        Self { c, globals }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&runtime().path);
        command.args(&self.globals).args(args).current_dir("/").stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
        command
    }

    #[track_caller]
    fn call(&self, args: &[&str]) -> Output {
        run(&mut self.command(args), &self.c.dir)
    }

    /// The call with a document on its standard input.
    #[track_caller]
    fn feed(&self, args: &[&str], document: &Value) -> Output {
        let file = self.file("stdin");
        fs::write(&file, document.to_string()).expect("a document");
        run(self.command(args).stdin(fs::File::open(&file).expect("the document")), &self.c.dir)
    }

    /// The absolute path of a file beside the bundle's.
    fn file(&self, name: &str) -> String {
        self.c.dir.join(name).to_str().expect("UTF-8").to_owned()
    }

    fn bundle(&self) -> &str {
        self.c.dir.to_str().expect("UTF-8")
    }

    /// `process.json` of an exec: only what the clients always fill in.
    fn process(&self, args: &[&str], terminal: bool) -> String {
        let process = json!({
            "terminal": terminal, "user": { "uid": 0, "gid": 0 }, "args": args, "env": ["PATH=/bin"], "cwd": "/",
            "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
        });
        let file = self.file("process.json");
        fs::write(&file, process.to_string()).expect("process.json");
        file
    }

    /// The pid of a pid file as C's `atoi` and Go's `Atoi` read it: digits and nothing else.
    fn pid(&self, name: &str) -> u32 {
        let text = fs::read_to_string(self.file(name)).expect("pid file");
        text.parse().unwrap_or_else(|e| panic!("{name}: {text:?}: {e}"))
    }
}

/// The message of the last line with level `error`, as go-runc finds it: lines that are no such object are passed over, and a
/// time that does not parse loses the line.
fn last_error(log: &str) -> String {
    let lines = fs::read_to_string(log).unwrap_or_default();
    let error = |line: &str| {
        let entry: Value = serde_json::from_str(line).ok()?;
        let time = entry["time"].as_str()?;
        let digits: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        let is_time = digits.starts_with("0000-00-00T00:00:00") && (time.ends_with('Z') || time.contains(['+', '-']));
        (entry["level"] == "error" && is_time).then(|| entry["msg"].as_str().unwrap_or_default().to_owned())
    };
    lines.lines().rev().find_map(error).unwrap_or_default()
}

#[test]
fn containerd_a_task_from_create_to_delete() {
    let c = Container::new().sh("trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done");
    let log = c.dir.join("log.json").to_str().expect("UTF-8").to_owned();
    let shim = Client::new(c, &["--log", &log, "--log-format", "json"]);
    let id = shim.c.id.clone();

    let pid_file = shim.file("init.pid");
    let out = shim.call(&["create", "--bundle", shim.bundle(), "--pid-file", &pid_file, &id]).ok();
    let pid = shim.pid("init.pid");
    assert_eq!(shim.c.state()["pid"], pid);
    shim.call(&["start", &id]).ok();
    out.wait_for("up");

    let process = shim.process(&["sleep", "3600"], false);
    shim.call(&["exec", "--process", &process, "--detach", "--pid-file", &shim.file("exec.pid"), &id]).ok();
    let execed = shim.pid("exec.pid");
    let pids: Vec<u32> = serde_json::from_value(shim.call(&["ps", "--format", "json", &id]).ok().json()).expect("pids");
    assert!(pids.contains(&pid) && pids.contains(&execed), "{pids:?}");
    let table = shim.call(&["ps", "--format", "table", &id, "-o", "pid,comm"]).ok().stdout;
    assert!(table.lines().any(|l| l.contains("sleep")), "{table}");

    let stats = shim.call(&["events", "--stats", &id]).ok().json();
    assert_eq!([&stats["type"], &stats["id"]], ["stats", id.as_str()]);
    assert!(stats["data"]["pids"]["current"].as_u64() >= Some(2), "{stats}");
    shim.feed(&["update", "--resources=-", &id], &json!({ "pids": { "limit": 77 } })).ok();
    assert_eq!(shim.call(&["events", "--stats", &id]).ok().json()["data"]["pids"]["limit"], 77);

    shim.call(&["pause", &id]).ok();
    assert_eq!(shim.call(&["state", &id]).ok().json()["status"], "paused");
    shim.call(&["resume", &id]).ok();
    // Of an exec that cannot be, the shim passes on what the log says.
    let missing = shim.process(&["/no/such/program"], false);
    let out = shim.call(&["exec", "--process", &missing, "--detach", "--pid-file", &shim.file("none.pid"), &id]);
    assert_ne!(out.code, 0);
    assert!(last_error(&log).contains("no such file or directory"), "{:?}", last_error(&log));

    shim.call(&["kill", &id, "15"]).ok();
    shim.c.wait_status("stopped");
    // Three texts mean to the shim that it is gone already (containerd's `checkKillError`); anything else is an error to the user.
    assert_eq!(shim.call(&["kill", &id, "9"]).code, 1);
    let text = last_error(&log).to_lowercase();
    let gone = ["os: process already finished", "container not running", "no such process"];
    assert!(gone.iter().any(|g| text.contains(g)), "{text:?}");
    shim.call(&["kill", "--all", &id, "9"]);
    shim.call(&["delete", &id]).ok();
    assert_eq!(shim.call(&["delete", &id]).code, 1);
    assert!(last_error(&log).contains("does not exist"), "{:?}", last_error(&log));
    shim.call(&["delete", "--force", &id]).ok();
}

#[test]
fn containerd_a_terminal_and_a_program_that_is_missing() {
    let c = Container::new().with("/process/terminal", json!(true)).sh("tty; stty size; sleep 3600");
    let log = c.dir.join("log.json").to_str().expect("UTF-8").to_owned();
    let shim = Client::new(c, &["--log", &log, "--log-format", "json"]);
    let id = shim.c.id.clone();
    let pid_file = shim.file("init.pid");
    let socket = console_socket(&shim.c.dir.join("pty.sock"));
    let call = ["create", "--bundle", shim.bundle(), "--pid-file", &pid_file, "--console-socket"];
    shim.call(&[&call[..], &[&shim.file("pty.sock"), &id]].concat()).ok();
    // go-runc takes one descriptor and a name of less than 4096 bytes, and nothing else.
    let (name, fds) = socket.join().expect("console socket");
    assert!((1..4096).contains(&name.len()) && fds.len() == 1, "{name:?}, {} descriptors", fds.len());
    shim.call(&["delete", "--force", &id]).ok();

    let mut c = Container::new().args(&["no-such-program"]);
    c.root.clone_from(&shim.c.root);
    let missing = Client::new(c, &["--log", &log, "--log-format", "json"]);
    let out = missing.call(&["create", "--bundle", missing.bundle(), "--pid-file", &pid_file, &missing.c.id]);
    assert_eq!(out.code, 1);
    let text = last_error(&log);
    assert!(text.contains("executable file not found in"), "{text:?}");
}

#[test]
fn containerd_reads_version_and_features() {
    let c = Container::new();
    let shim = Client::new(c, &[]);
    // go-runc: the first line is cut at its prefix, the others are known by theirs.
    let version = shim.call(&["--version"]).ok().stdout;
    let lines: Vec<&str> = version.lines().collect();
    assert!(lines[0].split_once(" version ").is_some_and(|(_, v)| v.starts_with(|c: char| c.is_ascii_digit())));
    assert!(lines.iter().any(|l| l.strip_prefix("spec: ").is_some_and(|v| v.starts_with("1."))), "{version}");

    known!("runc", "1.2", "features has no list of recursive options and no mountExtensions");
    let features = shim.call(&["features"]).ok().json();
    let options = features["mountOptions"].as_array().expect("mountOptions");
    assert!(options.iter().any(|o| o == "rro"), "Kubernetes' recursive read-only mounts hang on it");
    for field in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[field].as_str().is_some_and(|v| v.starts_with("1.")), "{field}");
    }
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
}

#[test]
fn podman_by_conmon() {
    let c = Container::new().sh("echo up; sleep 3600");
    let log = c.dir.join("oci-log").to_str().expect("UTF-8").to_owned();
    let conmon = Client::new(c, &["--log-format=json", "--log", &log]);
    let id = conmon.c.id.clone();

    // conmon and podman talk over pipes whose numbers are in these variables: no descriptor of theirs may get into the container.
    let mut create = Command::new("sh");
    create.args(["-c", "exec 3</dev/null 4</dev/null; export _OCI_SYNCPIPE=3 _OCI_STARTPIPE=4; exec \"$@\"", "sh"]);
    create.arg(&runtime().path).args(&conmon.globals);
    create
        .args(["create", "--bundle", conmon.bundle(), "--pid-file", &conmon.file("pidfile"), &id])
        .stdin(Stdio::null());
    let out = run(&mut create, &conmon.c.dir).ok();
    let pid = conmon.pid("pidfile");
    let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten().collect();
    let leaked =
        |n: &str| open.iter().any(|e| e.file_name() == n && fs::read_link(e.path()).is_ok_and(|l| l == *"/dev/null"));
    assert!(!leaked("3") && !leaked("4"), "conmon's pipes are in the container: {open:?}");
    conmon.call(&["start", &id]).ok();
    out.wait_for("up");

    let process = conmon.process(&["sleep", "3600"], true);
    let socket = console_socket(&conmon.c.dir.join("s"));
    let flags = ["--process", &process, "--detach", "--console-socket", &conmon.file("s")];
    conmon.call(&[&["exec", "--pid-file", &conmon.file("exec-pid")], &flags[..], &[&id]].concat()).ok();
    assert_eq!(socket.join().expect("console socket").1.len(), 1);
    conmon.pid("exec-pid");

    let resources = conmon.file("resources.json");
    fs::write(&resources, json!({ "pids": { "limit": 66 } }).to_string()).expect("resources");
    conmon.call(&["update", &format!("--resources={resources}"), &id]).ok();
    conmon.call(&["pause", &id]).ok();
    conmon.call(&["resume", &id]).ok();
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "", "podman takes any line for an error");

    // conmon knows a failed exec by its missing pid file or its status; podman reads the whole log as one object.
    let missing = conmon.process(&["/no/such/program"], false);
    let out = conmon.call(&["exec", "--pid-file", &conmon.file("no-pid"), "--process", &missing, "--detach", &id]);
    assert!(out.code != 0 && !conmon.c.dir.join("no-pid").exists(), "{out}");
    let whole: Value = serde_json::from_str(&fs::read_to_string(&log).expect("oci-log")).expect("one object");
    assert_eq!(whole["level"], "error");
    // podman's regular expression for exit code 127.
    let text = whole["msg"].as_str().expect("msg").to_lowercase();
    let not_found = ["executable file not found in", "no such file or directory", "open executable"];
    assert!(not_found.iter().any(|n| text.contains(n)), "{text:?}");

    conmon.call(&["kill", "--all", &id, "9"]).ok();
    conmon.c.wait_status("stopped");
    conmon.call(&["delete", "--force", &id]).ok();
}

#[test]
fn podman_a_program_that_may_not_be_executed() {
    let c = Container::new().args(&["/etc/passwd"]);
    fs::create_dir_all(c.path("/etc")).expect("etc");
    fs::write(c.path("/etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("passwd");
    let log = c.dir.join("oci-log").to_str().expect("UTF-8").to_owned();
    let conmon = Client::new(c, &["--log-format=json", "--log", &log]);
    let id = &conmon.c.id;
    let out = conmon.call(&["create", "--bundle", conmon.bundle(), "--pid-file", &conmon.file("pidfile"), id]);
    assert_eq!(out.code, 1);
    // podman's regular expression for exit code 126.
    let whole: Value = serde_json::from_str(&fs::read_to_string(&log).expect("oci-log")).expect("one object");
    let text = whole["msg"].as_str().expect("msg").to_lowercase();
    assert!(text.contains("permission denied") || text.contains("operation not permitted"), "{text:?}");
}

#[test]
fn crio() {
    let c = Container::new().sh("trap 'echo hup' HUP; echo up; while :; do sleep 0.01; done");
    let crio = Client::new(c, &[]);
    let id = crio.c.id.clone();
    let out = crio.call(&["create", "--bundle", crio.bundle(), "--pid-file", &crio.file("pidfile"), &id]).ok();
    crio.call(&["start", &id]).ok();
    out.wait_for("up");

    let state = crio.call(&["state", &id]).ok().json();
    for field in ["ociVersion", "id", "status", "pid", "bundle", "created"] {
        assert!(!state[field].is_null(), "{field} is missing: {state}");
    }
    // Read with standard output and standard error in one.
    let features = crio.call(&["features"]).ok();
    assert_eq!(features.stderr, "", "one line there breaks CRI-O's parser");
    features.json();

    crio.call(&["kill", &id, "SIGHUP"]).ok();
    out.wait_for("hup");
    crio.feed(&["update", "--resources", "-", &id], &json!({ "pids": { "limit": 88 } })).ok();
    let process = crio.process(&["sh", "-c", "echo probed; exit 7"], false);
    let probe = crio.call(&["exec", "--process", &process, &id]);
    assert_eq!((probe.code, probe.stdout.as_str(), probe.stderr.as_str()), (7, "probed\n", ""));

    crio.call(&["kill", "-a", &id, "9"]).ok();
    crio.c.wait_status("stopped");
    let out = crio.call(&["kill", &id, "KILL"]);
    let gone = ["no such process", "container not running", "invalid process"];
    assert!(out.code == 1 && gone.iter().any(|g| out.stderr.contains(g)), "{out}");
    crio.call(&["delete", "--force", &id]).ok();
}

#[test]
fn buildkit() {
    let c = Container::new().sh("echo step; while [ ! -e /done ]; do sleep 0.01; done; exit 9");
    let log = c.dir.join("log.json").to_str().expect("UTF-8").to_owned();
    let build = Client::new(c, &["--log", &log, "--log-format", "json"]);
    let id = build.c.id.clone();
    let mut step =
        Background::start(&mut build.command(&["run", "--bundle", build.bundle(), "--keep", &id]), &build.c.dir);
    step.wait_for("step");
    let cgroup = cgroup_dir(build.c.pid(), "pids").expect("its cgroup");

    let process = build.process(&["sh", "-c", "echo $$; exit 4"], false);
    let out = build.call(&["exec", "--process", &process, "--pid-file", &build.file("exec.pid"), &id]);
    assert_eq!(out.code, 4, "{out}");
    build.pid("exec.pid");

    fs::write(build.c.path("/done"), "").expect("the end of the step");
    assert_eq!(step.wait(), 9);
    // It reads what the step has used from there.
    assert!(cgroup.exists(), "{} is gone before delete", cgroup.display());
    build.call(&["delete", &id]).ok();
    assert!(!cgroup.exists());
}

#[test]
fn buildkit_cancels_a_step() {
    let c = Container::new().sh("trap '' TERM; echo step; while :; do sleep 0.01; done");
    let build = Client::new(c, &[]);
    let id = build.c.id.clone();
    let mut step = Background::start(&mut build.command(&["run", "--bundle", build.bundle(), &id]), &build.c.dir);
    step.wait_for("step");
    build.call(&["kill", &id, "9"]).ok();
    assert_eq!(step.wait(), 128 + 9);
    until("the end of the container", || build.call(&["state", &id]).code == 1);
}

#[test]
fn docker_info() {
    let c = Container::new();
    let docker = Client::new(c, &[]);
    // moby cuts the first line at "version" and looks for "commit:"; youki's own spelling shows as ": ...".
    let version = docker.call(&["--version"]).ok().stdout;
    let first = version.lines().next().expect("a line");
    let number = first.split_once("version").expect("version").1.trim();
    assert!(number.starts_with(|c: char| c.is_ascii_digit()), "{first:?}");
    assert!(version.lines().any(|l| l.starts_with("commit:")), "{version}");
}
