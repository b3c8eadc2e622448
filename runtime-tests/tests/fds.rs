//! Which descriptors reach the container, and which never do.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixDatagram;

use runtime_tests::{Container, Output, console_socket, known};
use serde_json::{Value, json};

/// Opens descriptors as a careless caller does, some of them far up, and none closed on exec.
const CARELESS: &str = "exec 3</etc/passwd 5</ 9<. 7</proc 8>/dev/null; exec \"$@\"";

fn numbers(report: &Value) -> Vec<String> {
    report["fds"].as_object().expect("fds").keys().cloned().collect()
}

#[track_caller]
fn only_stdio(out: Output) {
    let report = out.ok().json();
    assert_eq!(numbers(&report), ["0", "1", "2"], "{}", report["fds"]);
}

#[test]
fn run_passes_only_stdio() {
    let c = Container::new();
    c.write_config();
    only_stdio(c.call_from_shell(CARELESS, "run", &[], &[]));
}

#[test]
fn create_and_start_pass_only_stdio() {
    let c = Container::new();
    c.write_config();
    let create = c.call_from_shell(CARELESS, "create", &[], &[]).ok();
    c.call_from_shell(CARELESS, "start", &[], &[]).ok();
    let report: Value = serde_json::from_str(create.wait_for("\n").trim()).expect("the report");
    assert_eq!(numbers(&report), ["0", "1", "2"], "{}", report["fds"]);
}

#[test]
fn exec_passes_only_stdio() {
    let c = Container::new().idle().up();
    only_stdio(c.call_from_shell(CARELESS, "exec", &[], &["guest", "report"]));
}

#[test]
fn with_a_terminal_too() {
    let c = Container::new().idle().up();
    let socket = console_socket(&c.dir.join("s"));
    let flags = ["--tty", "--detach", "--console-socket", "s", "--pid-file", "pid"];
    c.call_from_shell(CARELESS, "exec", &flags, &["sleep", "3600"]).ok();
    let (_, _master) = socket.join().expect("console socket");
    let pid = fs::read_to_string(c.dir.join("pid")).expect("pid file");
    let open = || {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("fds");
        let mut names: Vec<_> = entries.flatten().map(|e| e.file_name()).collect();
        names.sort();
        names
    };
    // runc returns a moment before the program is executed, which is when its own close.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while open() != ["0", "1", "2"] && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(open(), ["0", "1", "2"]);
}

/// CVE-2024-21626 (runc), CVE-2016-9962: what waits for `start` inside the container holds no way to the host.
#[test]
fn cve_2024_21626_a_created_container_holds_nothing_of_the_host() {
    let c = Container::new().idle();
    c.write_config();
    c.call_from_shell(CARELESS, "create", &[], &[]).ok();
    let pid = c.pid();
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mountinfo");
    let of_the_container = |id: &str| mounts.lines().any(|l| l.split(' ').next() == Some(id));
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("fds").flatten() {
        let target = fs::read_link(entry.path()).expect("link");
        let target = target.to_string_lossy();
        let fd = entry.file_name();
        let stdio = ["0", "1", "2"].iter().any(|n| fd == *n);
        // The start gate and the handshake: none of them is a file or a directory that leads anywhere.
        let nowhere = ["socket:", "pipe:", "anon_inode:", "/memfd:"].iter().any(|p| target.starts_with(p));
        let gate = entry.path().metadata().is_ok_and(|m| m.file_type().is_fifo());
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.display())).expect("fdinfo");
        let mount = info.lines().find_map(|l| l.strip_prefix("mnt_id:")).unwrap_or_default().trim();
        assert!(stdio || nowhere || gate || of_the_container(mount), "{} is open on {target}", fd.display());
    }
}

#[test]
fn preserve_fds() {
    let c = Container::new();
    c.write_config();
    let open = "exec 3</etc/passwd 4</etc/group 5</etc/hostname; exec \"$@\"";
    let report = c.call_from_shell(open, "run", &["--preserve-fds", "2"], &[]).ok().json();
    assert_eq!(numbers(&report), ["0", "1", "2", "3", "4"]);
    assert!(report["fds"]["3"].as_str().is_some_and(|t| t.ends_with("passwd")), "{}", report["fds"]);
    assert!(report["fds"]["4"].as_str().is_some_and(|t| t.ends_with("group")), "{}", report["fds"]);
}

#[test]
fn preserve_fds_of_exec() {
    let c = Container::new().idle().up();
    let open = "exec 3</etc/passwd 4</etc/group; exec \"$@\"";
    let report = c.call_from_shell(open, "exec", &["--preserve-fds=1"], &["guest", "report"]).ok().json();
    assert_eq!(numbers(&report), ["0", "1", "2", "3"]);
}

#[test]
fn preserve_fds_that_are_not_open() {
    known!("runc", "*", "its own descriptors pass for the caller's");
    let c = Container::new();
    c.write_config();
    let closed = "exec 3>&- 4>&- 5>&-; exec \"$@\"";
    c.call_from_shell(closed, "run", &["--preserve-fds", "3"], &[]).fails(1, &["--preserve-fds", "3"]);
    c.assert_gone();
}

const LISTEN: &str =
    "exec 3</etc/passwd 4</etc/group; export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web; exec \"$@\"";

fn variables(report: &Value) -> Vec<&str> {
    let env = report["env"].as_array().expect("env");
    env.iter().filter_map(Value::as_str).filter(|e| e.starts_with("LISTEN_")).collect()
}

#[test]
fn socket_activation() {
    let c = Container::new();
    c.write_config();
    let report = c.call_from_shell(LISTEN, "run", &[], &[]).ok().json();
    assert_eq!(numbers(&report), ["0", "1", "2", "3"]);
    let found = variables(&report);
    assert!(found.contains(&"LISTEN_FDS=1") && found.contains(&"LISTEN_PID=1"), "{found:?}");
}

#[test]
fn socket_activation_and_preserved_descriptors() {
    let c = Container::new();
    c.write_config();
    let report = c.call_from_shell(LISTEN, "run", &["--preserve-fds", "1"], &[]).ok().json();
    assert_eq!(numbers(&report), ["0", "1", "2", "3", "4"]);
    assert!(report["fds"]["3"].as_str().is_some_and(|t| t.ends_with("passwd")), "{}", report["fds"]);
    assert!(report["fds"]["4"].as_str().is_some_and(|t| t.ends_with("group")), "{}", report["fds"]);
}

#[test]
fn socket_activation_names_are_passed() {
    known!("runc", "1.2", "LISTEN_FDNAMES is dropped");
    let c = Container::new();
    c.write_config();
    assert!(variables(&c.call_from_shell(LISTEN, "run", &[], &[]).ok().json()).contains(&"LISTEN_FDNAMES=web"));
}

#[test]
fn socket_activation_for_another_process() {
    let c = Container::new();
    c.write_config();
    let other = "exec 3</etc/passwd; export LISTEN_FDS=1 LISTEN_PID=1; exec \"$@\"";
    let report = c.call_from_shell(other, "run", &[], &[]).ok().json();
    assert_eq!(numbers(&report), ["0", "1", "2"]);
    assert_eq!(variables(&report), [""; 0]);
}

#[test]
fn notify_socket() {
    let c = Container::new().args(&["guest", "notify"]);
    c.write_config();
    let path = c.dir.join("host.sock");
    let host = UnixDatagram::bind(&path).expect("notify socket");
    host.set_read_timeout(Some(runtime_tests::DEADLINE)).expect("timeout");
    let mut command = c.command("run", &["--detach"], &[]);
    command.env("NOTIFY_SOCKET", &path);
    let dir = c.dir.clone();
    let run = std::thread::spawn(move || runtime_tests::run(&mut command, &dir));
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !(seen.contains("READY=1") && seen.contains("MAINPID=")) {
        let n = host.recv(&mut buffer).expect("a message for the service manager");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        seen.push('\n');
    }
    // Its BARRIER=1 is answered by closing the descriptor that comes with it, which recv without room for it does.
    host.set_read_timeout(Some(std::time::Duration::from_millis(10))).expect("timeout");
    while !run.is_finished() {
        let _ = host.recv(&mut buffer);
    }
    run.join().expect("run").ok();
    assert!(seen.contains(&format!("MAINPID={}", c.pid())), "{seen}");
    let environ = fs::read_to_string(format!("/proc/{}/environ", c.pid())).expect("environ");
    assert!(environ.contains("NOTIFY_SOCKET=/run/notify/notify.sock"), "{environ:?}");
}

#[test]
fn pidfd_socket() {
    known!("runc", "1.2", "--pidfd-socket came with 1.2");
    let c = Container::new().idle();
    let socket = console_socket(&c.dir.join("p"));
    c.create(&["--pidfd-socket", "p"]).ok();
    let (_, fds) = socket.join().expect("pidfd socket");
    assert_eq!(fds.len(), 1);
    assert_eq!(pid_of(&fds[0]), Some(c.pid()));
    c.start().ok();

    let socket = console_socket(&c.dir.join("q"));
    c.exec(&["--pidfd-socket", "q", "--detach", "--pid-file", "pid"], &["sleep", "3600"]).ok();
    let (_, fds) = socket.join().expect("pidfd socket");
    let pid = fs::read_to_string(c.dir.join("pid")).expect("pid file");
    assert_eq!(pid_of(&fds[0]), pid.parse().ok());
}

#[test]
fn pidfd_receiver() {
    known!("runc", "*", "an annotation of crun's");
    let c = Container::new().idle();
    let path = c.dir.join("p");
    let c = c.with("/annotations", json!({ "run.oci.pidfd_receiver": path }));
    c.create(&[]).fails(1, &["annotations[", "run.oci.pidfd_receiver", "ENOENT"]);
    c.assert_gone();
    let socket = console_socket(&path);
    c.create(&[]).ok();
    let (_, fds) = socket.join().expect("the receiver");
    assert_eq!(fds.len(), 1);
    assert_eq!(pid_of(&fds[0]), Some(c.pid()));
    // It is init's alone: an exec does not look for the receiver, which is gone by now.
    c.start().ok();
    c.exec(&[], &["true"]).ok();
}

/// The process a pidfd is of, as this pid namespace numbers it (fdinfo of pidfd_open(2)).
fn pid_of(pidfd: &std::os::fd::OwnedFd) -> Option<u32> {
    use std::os::fd::AsRawFd as _;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    text.lines().find_map(|l| l.strip_prefix("Pid:"))?.trim().parse().ok()
}

#[test]
fn closed_stdio_is_survived() {
    let c = Container::new().args(&["true"]);
    c.write_config();
    let out = c.call_from_shell("exec <&- >&- 2>&-; exec \"$@\"", "run", &[], &[]);
    assert!(out.code == 0 || out.code == 1, "{out}");
    c.assert_gone();
    // Whatever took the free numbers, none of it may be the host's.
    let c = Container::new().sh("ls -l /proc/self/fd > /fds");
    c.write_config();
    c.call_from_shell("exec <&-; exec \"$@\"", "run", &[], &[]);
    let text = fs::read_to_string(c.path("/fds")).unwrap_or_default();
    assert!(!text.contains("state") && !text.contains("cgroup"), "{text}");
    assert_eq!(json!(text.matches("rootfs").count()), 0, "{text}");
}
