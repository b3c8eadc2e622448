//! Terminals: the console socket, and a foreground run on one of our own.

use std::fs::File;
use std::io::Write as _;

use runtime_tests::{Background, Container, Pty, console_socket, known, read_until, until};
use serde_json::json;

fn terminal(script: &str) -> Container {
    Container::new().sh(script).with("/process/terminal", json!(true))
}

/// Creates the container and returns the master of its terminal.
fn created(c: &Container) -> File {
    let socket = console_socket(&c.dir.join("s"));
    c.create(&["--console-socket", "s"]).ok();
    let (text, mut fds) = socket.join().expect("console socket");
    // go-runc and conmon read at most this, and expect exactly one descriptor.
    assert!((1..4096).contains(&text.len()), "{text:?}");
    assert_eq!(fds.len(), 1);
    fds.remove(0).into()
}

/// A foreground command on a terminal of the test's.
fn on_a_terminal(c: &Container, pty: &Pty, command: &str, flags: &[&str], rest: &[&str]) -> Background {
    let mut command = c.command(command, flags, rest);
    command.stdin(pty.slave()).stdout(pty.slave()).stderr(pty.slave());
    Background::start_as_is(&mut command)
}

#[test]
fn console_socket_protocol() {
    let c = terminal("tty; ls -l /dev/console; sleep 3600");
    let mut master = created(&c);
    c.start().ok();
    let seen = read_until(&mut master, "/dev/console");
    assert!(seen.contains("/dev/pts/0"), "{seen:?}");
}

#[test]
fn output_and_input() {
    let c = terminal("echo ask; read line; echo got $line; exit 3");
    let mut master = created(&c);
    c.start().ok();
    read_until(&mut master, "ask");
    master.write_all(b"this\n").expect("write to the terminal");
    read_until(&mut master, "got this");
    c.wait_status("stopped");
}

#[test]
fn the_three_streams_and_the_console_are_the_terminal() {
    let c = Container::new().with("/process/terminal", json!(true));
    let mut master = created(&c);
    c.start().ok();
    let report = read_until(&mut master, "\r\n");
    let report: serde_json::Value = serde_json::from_str(report.trim()).expect("the report");
    for fd in ["0", "1", "2"] {
        assert_eq!(report["fds"][fd], "/dev/pts/0");
    }
    assert_eq!(report["fds"].as_object().map(|f| f.len()), Some(3), "{}", report["fds"]);
    let console = report["mounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .any(|m| m["target"] == "/dev/console" && m["type"] == "devpts");
    assert!(console, "{report}");
}

#[test]
fn it_is_the_controlling_terminal() {
    let c = terminal("echo on the tty > /dev/tty; sleep 3600");
    let mut master = created(&c);
    c.start().ok();
    read_until(&mut master, "on the tty");
    // So ^C reaches the program; the first process of a pid namespace has to ask for it.
    let c = terminal("trap 'echo interrupted; exit' INT; echo ready; while :; do sleep 0.05; done");
    let mut master = created(&c);
    c.start().ok();
    read_until(&mut master, "ready");
    master.write_all(b"\x03").expect("write to the terminal");
    read_until(&mut master, "interrupted");
}

#[test]
fn console_size() {
    let c = terminal("stty size; sleep 3600").with("/process/consoleSize", json!({ "height": 31, "width": 97 }));
    let mut master = created(&c);
    c.start().ok();
    read_until(&mut master, "31 97");
}

#[test]
fn the_terminal_belongs_to_the_user() {
    let c = terminal("echo through > /dev/stdout; guest try node /dev/pts/0; sleep 3600")
        .with("/process/user/uid", json!(1000));
    let mut master = created(&c);
    c.start().ok();
    let seen = read_until(&mut master, "\"uid\"");
    assert!(seen.contains("through") && seen.contains("\"uid\":1000"), "{seen:?}");
}

#[test]
fn in_a_user_namespace() {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let c = terminal("tty; sleep 3600").namespace("user", "");
    let c = c.with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    let mut master = created(&c);
    c.start().ok();
    read_until(&mut master, "/dev/pts/0");
}

#[test]
fn foreground_run() {
    let c = terminal("tty; read line; echo got $line; exit 5");
    c.write_config();
    let mut pty = Pty::new(41, 83);
    let mut run = on_a_terminal(&c, &pty, "run", &[], &[]);
    let _ = pty.read_until("/dev/pts/0");
    pty.master.write_all(b"typed\r").expect("write to the terminal");
    let _ = pty.read_until("got typed");
    assert_eq!(run.wait(), 5);
}

#[test]
fn foreground_run_has_the_size_of_the_callers_terminal() {
    known!("runc", "1.2", "the first size is set after the program began, and can be lost");
    let c = terminal("stty size; sleep 3600");
    c.write_config();
    let mut pty = Pty::new(41, 83);
    let _run = on_a_terminal(&c, &pty, "run", &[], &[]);
    let _ = pty.read_until("41 83");
}

#[test]
fn resize() {
    let c = terminal("trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done");
    c.write_config();
    let mut pty = Pty::new(24, 80);
    let run = on_a_terminal(&c, &pty, "run", &[], &[]);
    let _ = pty.read_until("ready");
    pty.resize(50, 132);
    let status =
        std::process::Command::new("kill").args(["-s", "WINCH", &run.id().to_string()]).status().expect("kill");
    assert!(status.success());
    let _ = pty.read_until("50 132");
}

#[test]
fn the_callers_terminal_is_as_before_afterwards() {
    let c = terminal("stty raw -echo; exit 0");
    c.write_config();
    let pty = Pty::new(24, 80);
    let settings = || rustix::termios::tcgetattr(pty.slave()).expect("tcgetattr");
    let before = settings();
    assert_eq!(on_a_terminal(&c, &pty, "run", &[], &[]).wait(), 0);
    let after = settings();
    assert_eq!(
        (before.input_modes, before.output_modes, before.local_modes),
        (after.input_modes, after.output_modes, after.local_modes)
    );
}

#[test]
fn create_without_a_socket_is_refused() {
    let c = terminal("true");
    let out = c.create(&[]);
    assert!(out.stderr.contains("console socket"), "{out}");
    out.fails(1, &["--console-socket"]);
    c.assert_gone();
}

#[test]
fn detached_run_without_a_socket_is_refused() {
    let c = terminal("true");
    c.run(&["--detach"]).fails(1, &["--console-socket"]);
    c.assert_gone();
}

#[test]
fn a_socket_without_a_terminal_is_refused() {
    let c = Container::new().idle();
    let _socket = std::os::unix::net::UnixListener::bind(c.dir.join("s")).expect("socket");
    c.create(&["--console-socket", "s"]).fails(1, &["console socket", "process.terminal"]);
    c.assert_gone();
}

#[test]
fn a_socket_that_nobody_listens_on() {
    let c = terminal("true");
    c.create(&["--console-socket", "missing"]).fails(1, &["--console-socket", "missing"]);
    c.assert_gone();
}

#[test]
fn the_container_lives_on_when_the_master_closes() {
    let c = terminal("trap 'touch /hung-up' HUP; echo ready; while :; do sleep 0.05; done");
    let mut master = created(&c);
    c.start().ok();
    read_until(&mut master, "ready");
    drop(master);
    until("the hang-up in the container", || c.path("/hung-up").exists());
    assert_eq!(c.state()["status"], "running");
}
