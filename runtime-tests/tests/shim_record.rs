//! The shim without a daemon above it: logs that it writes itself, clients that attach by a socket, events for a program.

use runtime_tests::shim::{Events, NAMESPACE, Shim, Streams, is_our_shim, place, shim_binary};
use runtime_tests::{Container, until};
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

/// The texts in a log, by stream.
fn logged(path: &str, stream: &str) -> String {
    let text = fs::read_to_string(path).expect("the log");
    let entries = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an entry"));
    entries.filter(|e| e["stream"] == stream).map(|e| e["log"].as_str().expect("a text").to_owned()).collect()
}

fn recorded(c: &Container, more: &str) -> (Streams, String, String) {
    let path = |name: &str| c.dir.join(name).to_string_lossy().into_owned();
    let (log, socket) = (path("c-json.log"), path("attach"));
    let streams = Streams { stdout: format!("json-file://{log}?attach={socket}{more}"), ..Streams::default() };
    (streams, log, socket)
}

/// Frames until the end, as one text a stream.
fn frames(mut from: impl Read) -> (String, String) {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("read frames");
    let mut texts = (Vec::new(), Vec::new());
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (head, body) = rest.split_at(8);
        let length = u32::from_be_bytes(head[4..8].try_into().expect("four bytes")) as usize;
        let into = if head[0] == 1 { &mut texts.0 } else { &mut texts.1 };
        into.extend_from_slice(&body[..length]);
        assert!(matches!(head[0], 1 | 2) && head[1..4] == [0; 3], "{head:?}");
        rest = &body[length..];
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("a text");
    (text(texts.0), text(texts.1))
}

#[test]
fn output_is_logged_and_sent_to_the_attached() {
    if !is_our_shim() {
        return; // Only ours has the scheme.
    }
    let mut c = Container::new().sh("read word; echo got $word; echo err >&2; cat; printf rest");
    let mut shim = Shim::start(&mut c);
    let (streams, log, socket) = recorded(&c, "&stdin=once");
    shim.create(&c, &streams);
    let mut one = UnixStream::connect(&socket).expect("attach");
    let two = UnixStream::connect(&socket).expect("attach, too");
    shim.simple("Start");
    one.write_all(b"hello\nmore\n").expect("write");
    one.shutdown(Shutdown::Write).expect("end the input");
    let expected = ("got hello\nmore\nrest".to_owned(), "err\n".to_owned());
    assert_eq!(frames(one), expected);
    assert_eq!(frames(two), expected);
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    assert_eq!((logged(&log, "stdout"), logged(&log, "stderr")), expected);
    assert!(!fs::exists(&socket).expect("look"), "the socket goes with the container");
}

#[test]
fn without_anyone_attached_all_is_logged() {
    if !is_our_shim() {
        return;
    }
    let mut c = Container::new().sh("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done");
    let mut shim = Shim::start(&mut c);
    let (streams, log, _) = recorded(&c, "&max-size=40000&max-file=2");
    shim.create(&c, &streams);
    shim.simple("Start");
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    let last = logged(&log, "stdout");
    assert!(last.ends_with("line 2999\n"), "{last}");
    let all = logged(&format!("{log}.1"), "stdout") + &last;
    let numbers: Vec<u32> = all.lines().map(|l| l[5..].parse().expect("a number")).collect();
    assert!(numbers.windows(2).all(|w| w[0] + 1 == w[1]), "in order, none lost between the two files");
    assert!(!fs::exists(format!("{log}.2")).expect("look"));
}

#[test]
fn a_client_that_leaves_does_no_harm() {
    if !is_our_shim() {
        return;
    }
    let mut c = Container::new().sh("echo one; read line; echo two $line");
    let mut shim = Shim::start(&mut c);
    let (streams, log, socket) = recorded(&c, "&stdin=open");
    shim.create(&c, &streams);
    drop(UnixStream::connect(&socket).expect("attach"));
    shim.simple("Start");
    until("the first line is logged", || logged(&log, "stdout") == "one\n");
    let mut late = UnixStream::connect(&socket).expect("attach late");
    late.write_all(b"x\n").expect("write");
    assert_eq!(frames(late).0, "two x\n", "from then on, not from the beginning");
    assert_eq!(shim.wait(""), 0);
    shim.finish();
}

#[test]
fn a_terminal_is_attached_to() {
    if !is_our_shim() {
        return;
    }
    let mut c = Container::new().sh("stty -echo; echo ready; read word; echo got $word; test -t 0 && echo terminal");
    c.config["process"]["terminal"] = true.into();
    let mut shim = Shim::start(&mut c);
    let (mut streams, log, socket) = recorded(&c, "&stdin=open");
    streams.terminal = true;
    shim.create(&c, &streams);
    let mut client = UnixStream::connect(&socket).expect("attach");
    shim.simple("Start");
    until("it is ready", || logged(&log, "stdout").contains("ready"));
    client.write_all(b"typed\r").expect("write");
    assert!(frames(client).0.replace('\r', "").ends_with("got typed\nterminal\n"));
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    assert!(logged(&log, "stdout").contains("got typed\r\n"));
}

#[test]
fn events_are_told_to_a_program() {
    if !is_our_shim() {
        return; // containerd's tells its own socket alone.
    }
    let mut c = Container::new().sh("exit 7");
    place(&mut c);
    c.write_config();
    let program = c.dir.join("publish");
    let told = c.dir.join("told");
    // Fails once: an event is told again.
    let script = format!(
        "#!/bin/sh\n[ -e {t}.failed ] || {{ touch {t}.failed; exit 1; }}\necho \"$@\" $(wc -c) >>{t}\n",
        t = told.display()
    );
    fs::write(&program, script).expect("write the program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut start = Command::new(shim_binary());
    start
        .args(["-namespace", NAMESPACE, "-id", &c.id, "-address", "/run/nobody.sock", "-publish-binary"])
        .arg(&program);
    start.arg("start").current_dir(&c.dir).env_remove("TTRPC_ADDRESS").stdin(Stdio::null());
    let address = String::from_utf8(start.output().expect("the shim").stdout).expect("an address");
    let mut shim = Shim::connect(&c, &address, Events::listen(&c.dir.join("unused")));
    let (streams, ..) = recorded(&c, "");
    shim.create(&c, &streams);
    shim.simple("Start");
    assert_eq!(shim.wait(""), 7);
    shim.finish();
    let lines = || fs::read_to_string(&told).unwrap_or_default();
    until(&format!("all is told: {}", lines()), || lines().contains("/tasks/delete"));
    let topics: Vec<String> = lines().lines().map(|l| l.split(' ').take(7).collect::<Vec<_>>().join(" ")).collect();
    let line = |topic: &str| format!("--address /run/nobody.sock publish --topic {topic} --namespace {NAMESPACE}");
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"].map(line));
    assert!(lines().lines().all(|l| l.rsplit(' ').next().expect("a size").parse::<u32>().expect("a size") > 20));
}
