//! Standard streams through the shim: nothing is lost, and nobody holds up anybody else.

use runtime_tests::shim::{Shim, Streams, is_our_shim, reader};
use runtime_tests::{Container, DEADLINE, until};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const RUNNING: u64 = 2;

fn writer(path: &str) -> File {
    File::options().write(true).open(path).expect("the fifo of standard input")
}

#[test]
fn standard_input_ends_with_close_io_and_not_with_a_client() {
    let mut c = Container::new().args(&["cat"]);
    let mut shim = Shim::start(&mut c);
    let streams = Streams::fifos(&c, "init", true);
    let (out, _err) = (reader(&streams.stdout), reader(&streams.stderr));
    shim.create(&c, &streams);
    shim.simple("Start");
    for text in ["one ", "two"] {
        writer(&streams.stdin).write_all(text.as_bytes()).expect("write");
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(shim.status(""), RUNNING, "the end of a client is not the end of the input");
    }
    let close = shim.named().number(3, 1);
    shim.client.call("CloseIO", &close).expect("CloseIO");
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    assert_eq!(out.join().expect("the reader"), b"one two");
}

#[test]
fn much_input_arrives_whole() {
    let mut c = Container::new().args(&["wc", "-c"]);
    let mut shim = Shim::start(&mut c);
    let streams = Streams::fifos(&c, "init", true);
    let (out, _err) = (reader(&streams.stdout), reader(&streams.stderr));
    shim.create(&c, &streams);
    shim.simple("Start");
    let mut input = writer(&streams.stdin);
    // Closed while data is on its way: it still arrives.
    let close = shim.named().number(3, 1);
    let text = vec![b'x'; 5 << 20];
    input.write_all(&text).expect("write");
    shim.client.call("CloseIO", &close).expect("CloseIO");
    drop(input);
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    assert_eq!(String::from_utf8_lossy(&out.join().expect("the reader")).trim(), (5 << 20).to_string());
}

#[test]
fn output_is_whole_when_the_process_ends_at_once() {
    let mut c = Container::new().sh("dd if=/dev/zero bs=65536 count=800; echo end");
    let mut shim = Shim::start(&mut c);
    let streams = Streams::fifos(&c, "init", false);
    let (out, _err) = (reader(&streams.stdout), reader(&streams.stderr));
    shim.create(&c, &streams);
    shim.simple("Start");
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    let out = out.join().expect("the reader");
    assert_eq!(out.len(), 65536 * 800 + 4);
    assert!(out.ends_with(b"end\n"));
}

#[test]
fn a_reader_that_comes_late_and_comes_back() {
    if !is_our_shim() {
        return; // Create waits 30 s for the reader, and fails.
    }
    let mut c = Container::new().sh("echo early; sleep 0.2; echo middle; sleep 0.5; echo late");
    let mut shim = Shim::start(&mut c);
    let streams = Streams::fifos(&c, "init", false);
    shim.create(&c, &streams);
    shim.simple("Start");
    // As when containerd is restarted: the first reader goes, the next one has what came meanwhile.
    let mut first = File::open(&streams.stdout).expect("the fifo");
    let mut text = [0; 6];
    first.read_exact(&mut text).expect("read");
    assert_eq!(&text, b"early\n");
    drop(first);
    std::thread::sleep(Duration::from_millis(400));
    let second = reader(&streams.stdout);
    assert_eq!(shim.wait(""), 0, "nobody was killed by SIGPIPE");
    shim.finish();
    assert_eq!(second.join().expect("the reader"), b"middle\nlate\n");
}

#[test]
fn a_stalled_reader_holds_up_its_own_stream_only() {
    if !is_our_shim() {
        return; // See above.
    }
    let mut c = Container::new().sh("yes & echo on stderr >&2; wait");
    let mut shim = Shim::start(&mut c);
    let streams = Streams::fifos(&c, "init", false);
    shim.create(&c, &streams);
    // Open, and never read.
    let _stalled = File::open(&streams.stdout).expect("the fifo");
    shim.simple("Start");
    let mut text = [0; 10];
    File::open(&streams.stderr).expect("the fifo").read_exact(&mut text).expect("read");
    assert_eq!(&text, b"on stderr\n");
    let exec = Streams::fifos(&c, "x", false);
    let (out, _err) = (reader(&exec.stdout), reader(&exec.stderr));
    shim.exec(&c, "x", "dd if=/dev/zero bs=65536 count=100", &exec).expect("Exec");
    let named = shim.exec_named("x");
    shim.client.call("Start", &named).expect("Start");
    assert_eq!(shim.wait("x"), 0);
    shim.client.call("Delete", &named).expect("Delete");
    assert_eq!(out.join().expect("the reader").len(), 6_553_600);
    shim.finish();
}

#[test]
fn a_terminal() {
    let mut c = Container::new().sh("read size; stty size; tty; read x; echo \"got $x\"; exit 4");
    c.config["process"]["terminal"] = true.into();
    let mut shim = Shim::start(&mut c);
    let mut streams = Streams { terminal: true, ..Streams::fifos(&c, "init", true) };
    streams.stderr = String::new();
    let out = reader(&streams.stdout);
    shim.create(&c, &streams);
    shim.simple("Start");
    let resize = shim.named().number(3, 101).number(4, 37);
    shim.client.call("ResizePty", &resize).expect("ResizePty");
    let mut input = writer(&streams.stdin);
    input.write_all(b"now\n").expect("write");
    input.write_all(b"hello\n").expect("write");
    assert_eq!(shim.wait(""), 4);
    assert_eq!(shim.simple("State").number(8), 1, "terminal");
    shim.finish();
    let out = String::from_utf8_lossy(&out.join().expect("the reader")).into_owned();
    for text in ["37 101", "/dev/", "got hello"] {
        assert!(out.contains(text), "{text:?} is not in {out:?}");
    }
}

#[test]
fn a_terminal_of_an_exec() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    let mut streams = Streams { terminal: true, ..Streams::fifos(&c, "x", false) };
    streams.stderr = String::new();
    let out = reader(&streams.stdout);
    shim.exec(&c, "x", "test -t 0 && test -t 1 && test -t 2 && echo on a terminal", &streams).expect("Exec");
    let named = shim.exec_named("x");
    shim.client.call("Start", &named).expect("Start");
    assert_eq!(shim.wait("x"), 0);
    shim.client.call("Delete", &named).expect("Delete");
    assert!(String::from_utf8_lossy(&out.join().expect("the reader")).contains("on a terminal"));
    shim.finish();
}

#[test]
fn a_file() {
    let mut c = Container::new().sh("echo out; echo err >&2");
    let mut shim = Shim::start(&mut c);
    let path = c.dir.join("logs/of it/c.log");
    let uri = format!("file://{}", path.display().to_string().replace(' ', "%20"));
    shim.create(&c, &Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() });
    shim.simple("Start");
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    let mut lines: Vec<_> = fs::read_to_string(path).expect("the log").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
}

#[test]
fn a_full_disk_does_not_stop_the_container() {
    if !is_our_shim() {
        return; // It stops for ever.
    }
    runtime_tests::private_mounts();
    let mut c = Container::new().sh("dd if=/dev/zero bs=65536 count=100; echo done >/tmp/done");
    let full = c.host_tmpfs("full", nix::mount::MsFlags::empty());
    nix::mount::mount(None::<&str>, &full, None::<&str>, nix::mount::MsFlags::MS_REMOUNT, Some("size=16k"))
        .expect("size");
    let mut shim = Shim::start(&mut c);
    let uri = format!("file://{}/log", full.display());
    shim.create(&c, &Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() });
    shim.simple("Start");
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    assert!(c.path("/tmp/done").exists());
}

#[test]
fn a_logging_program() {
    if !is_our_shim() {
        return; // The program is ended before it has read; and its arguments have no order.
    }
    let mut c = Container::new().sh("echo out; echo err >&2");
    let mut shim = Shim::start(&mut c);
    let dir = c.dir.display().to_string();
    // It is slow, and still has everything.
    let script = format!(
        "#!/bin/sh\nexec 5>&-\necho \"$CONTAINER_ID $CONTAINER_NAMESPACE $*\" >{dir}/who\n\
         cat <&4 >{dir}/err &\nsleep 0.3\ncat <&3 >{dir}/out\nwait\necho end >>{dir}/who\n"
    );
    let program = c.dir.join("logger");
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    let uri = format!("binary://{}?id=a%20b&flag=", program.display());
    shim.create(&c, &Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() });
    shim.simple("Start");
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    let read = |name: &str| fs::read_to_string(c.dir.join(name)).expect("what the logger wrote");
    assert_eq!((read("out"), read("err")), ("out\n".into(), "err\n".into()));
    assert_eq!(read("who"), format!("{} rt id a b flag \nend\n", c.id));
}

#[test]
fn a_logging_program_that_does_not_start() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    for (uri, text) in [
        ("binary:///no/such/logger", "/no/such/logger"),
        ("http://example.org", "unknown STDIO scheme http"),
        ("binary-v2:///bin/false", "not said that it is ready"),
    ] {
        if uri.starts_with("binary-v2") && !is_our_shim() {
            continue;
        }
        let request = shim.create_request(&c, &Streams { stdout: uri.into(), ..Streams::default() });
        let error = shim.client.call("Create", &request).expect_err("no streams");
        assert_eq!(error.code, 2);
        assert!(error.message.contains(text), "{}", error.message);
    }
    shim.shutdown();
}

/// A program that was left in the background holds the streams open; its parent's end is told all the same.
#[test]
fn a_background_process_does_not_hide_the_end() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    let streams = Streams::fifos(&c, "x", false);
    let (out, _err) = (reader(&streams.stdout), reader(&streams.stderr));
    shim.exec(&c, "x", "sleep 3600 & echo started", &streams).expect("Exec");
    let named = shim.exec_named("x");
    shim.client.call("Start", &named).expect("Start");
    assert_eq!(shim.wait("x"), 0);
    let begin = std::time::Instant::now();
    shim.client.call("Delete", &named).expect("Delete");
    assert!(begin.elapsed() < DEADLINE, "Delete gives up on the output");
    until("the reader's end", || out.is_finished());
    assert_eq!(out.join().expect("the reader"), b"started\n");
    shim.finish();
}
