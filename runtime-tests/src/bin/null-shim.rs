//! A containerd shim that runs nothing: `true` has ended with status 0 the moment it is started. What `ctr run` takes with it is
//! the share of containerd, of ctr and of two programs' start, which no shim can lower. For `hack/bench-shim`, which gives it
//! the name containerd looks for, `containerd-shim-null-v2`. One thread for a connection; no mount, no event, no log.

use runtime_tests::wire::{Fields, Message, read_frame, write_frame};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;

/// `Status`
const CREATED: u64 = 1;
const STOPPED: u64 = 3;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| args.iter().skip_while(|a| *a != flag).nth(1).cloned().unwrap_or_default();
    match args.last().map(String::as_str) {
        Some("start") => start(&after("-id")),
        Some("delete") => print(end().encoded()),
        _ => serve(),
    }
}

fn print(bytes: &[u8]) {
    std::io::stdout().write_all(bytes).expect("write the answer");
}

/// A socket, a daemon on it, and its address.
#[expect(clippy::zombie_processes, reason = "the daemon outlives us, as a shim does")]
fn start(id: &str) {
    std::io::stdin().read_to_end(&mut Vec::new()).expect("the options, which it has no use for");
    let path = format!("/run/null-shim-{id}-{}", std::process::id());
    let socket = UnixListener::bind(&path).expect("a socket");
    let program = std::env::current_exe().expect("itself");
    let mut daemon = Command::new(program);
    daemon.process_group(0).env("NULL_SOCKET", &path).stdin(OwnedFd::from(socket));
    daemon.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a daemon");
    print(format!("unix://{path}").as_bytes());
}

/// Until the shutdown.
fn serve() {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("the socket");
    let (shutdown, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in UnixListener::from(socket).incoming() {
            let (stream, shutdown) = (stream.expect("a connection"), shutdown.clone());
            std::thread::spawn(move || connection(stream, &shutdown));
        }
    });
    end.recv().expect("a connection");
    let _ = std::fs::remove_file(std::env::var("NULL_SOCKET").unwrap_or_default());
}

/// Answers in the order of the requests, but for those who wait before the start.
fn connection(mut stream: UnixStream, shutdown: &Sender<()>) {
    let (mut waiting, mut status) = (Vec::new(), CREATED);
    while let Ok((number, _, payload)) = read_frame(&mut stream) {
        let request = Fields::read(&payload);
        let (method, pid) = (request.text(2), u64::from(std::process::id()));
        let answer = match method.as_str() {
            "Create" => Message::new().number(1, pid),
            "Start" => {
                status = STOPPED;
                Message::new().number(1, pid)
            }
            "Wait" if status == CREATED => {
                waiting.push(number);
                continue;
            }
            "Wait" => Message::new().message(2, &now()),
            "State" => Message::new().text(1, "null").number(3, pid).number(4, status),
            "Delete" => end(),
            "Connect" => Message::new().number(1, pid).number(2, pid),
            _ => Message::new(),
        };
        let mut send = |number, answer: &Message| {
            // A caller that has gone needs none.
            let _ = write_frame(&mut stream, number, 2, Message::new().bytes(2, answer.encoded()).encoded());
        };
        send(number, &answer);
        if status == STOPPED {
            waiting.drain(..).for_each(|number| send(number, &Message::new().message(2, &now())));
        }
        if method == "Shutdown" {
            let _ = shutdown.send(());
        }
    }
}

/// `DeleteResponse`
fn end() -> Message {
    Message::new().number(1, u64::from(std::process::id())).message(3, &now())
}

/// `google.protobuf.Timestamp`
fn now() -> Message {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Message::new().number(1, now.as_secs()).number(2, now.subsec_nanos().into())
}
