//! The file system of the bundle is full: what fails says so, and all else goes on.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use runtime_tests::shim::{Events, Shim, Streams, command, is_our_shim, options};
use runtime_tests::wire::Fields;
use runtime_tests::{Container, assert_nothing_left, known};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A container whose bundle is on a file system of its own, of 512 KiB; its root file system is not.
struct Small {
    c: Container,
    home: PathBuf,
}

impl Small {
    fn new() -> Self {
        let mut c = Container::new().idle();
        let home = c.dir.clone();
        c.config["root"]["path"] = c.path("/").to_string_lossy().into();
        c.dir = home.join("bundle");
        fs::create_dir(&c.dir).expect("a directory");
        mount(Some("tmpfs"), &c.dir, Some("tmpfs"), MsFlags::empty(), Some("size=512k,mode=755")).expect("a tmpfs");
        Self { c, home }
    }

    /// Not a byte is left, unless somebody gives some back.
    fn fill(&self) {
        let mut file = File::create(self.c.dir.join("fill")).expect("a file");
        for block in [4096, 1] {
            while file.write_all(&vec![b'x'; block]).is_ok() {}
        }
        assert!(fs::write(self.c.dir.join("probe"), "x").is_err(), "there is room");
    }

    fn take_off(&mut self) {
        let _ = umount2(&self.c.dir, MntFlags::MNT_DETACH);
        self.c.dir.clone_from(&self.home);
    }

    fn free(&self) {
        fs::remove_file(self.c.dir.join("fill")).expect("the file");
        let _ = fs::remove_file(self.c.dir.join("probe"));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if self.c.dir != self.home {
            self.take_off();
        }
    }
}

/// containerd's own shim has no words for a runtime that cannot log.
fn full(message: &str) -> bool {
    !is_our_shim() || message.to_lowercase().contains("no space left on device")
}

#[test]
fn start_leaves_no_daemon() {
    if !is_our_shim() {
        return; // It leaves a file, for which it cannot be repeated.
    }
    let mut small = Small::new();
    let c = &mut small.c;
    c.write_config();
    let events = c.dir.join("events.sock");
    let any = runtime_tests::wire::Message::any_of("containerd.runc.v1.Options", options(c).encoded());
    small.fill();
    let output = command(&small.c, &events, "start", any.encoded());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && full(&text), "{text}");
    let left = shims_of(&small.c.id);
    assert!(left.is_empty(), "{left:?}");
    small.free();
    let output = command(&small.c, &events, "start", any.encoded());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events = Events::listen(&events);
    Shim::connect(&small.c, &String::from_utf8_lossy(&output.stdout), events).shutdown();
}

/// Command lines of processes that have this id as a word.
fn shims_of(id: &str) -> Vec<String> {
    let lines = fs::read_dir("/proc").expect("/proc").flatten().map(|e| e.path().join("cmdline"));
    let lines = lines.filter_map(|path| fs::read(path).ok()).map(|line| String::from_utf8_lossy(&line).into_owned());
    lines.filter(|line| line.contains("containerd-shim") && line.split('\0').any(|word| word == id)).collect()
}

#[test]
fn create_says_so_and_can_be_repeated() {
    let mut small = Small::new();
    let mut shim = Shim::start(&mut small.c);
    let request = shim.create_request(&small.c, &Streams::default());
    small.fill();
    let error = shim.client.call("Create", &request).expect_err("a full disk");
    assert!(error.code == 2 && full(&error.message), "{error:?}");
    small.free();
    shim.client.call("Create", &request).expect("Create");
    shim.simple("Start");
    shim.finish();
    let exit = format!("exit {} 137", small.c.id);
    shim.events.expect(&["create", "start", &exit, "delete"]);
}

/// There is room for what the shim writes and not for what the runtime does, and so on, some bytes at a time: whatever fails, nothing
/// of it is left.
#[test]
fn create_with_room_for_some_of_it() {
    known!("runc", "*", "its error does not say why: `unable to store init state: %!w(<nil>)`");
    let mut small = Small::new();
    let mut shim = Shim::start(&mut small.c);
    let request = shim.create_request(&small.c, &Streams::default());
    small.fill();
    let (mut failed, mut length) = (0, fs::metadata(small.c.dir.join("fill")).expect("the file").len());
    loop {
        let created = shim.client.call("Create", &request);
        match created {
            Ok(_) => break,
            Err(error) => assert!(full(&error.message), "{error:?}"),
        }
        failed += 1;
        length = length.checked_sub(4096).expect("more room than it takes");
        File::options().write(true).open(small.c.dir.join("fill")).and_then(|f| f.set_len(length)).expect("some room");
    }
    println!("failed {failed} times");
    assert!(failed >= 2, "{failed}");
    shim.finish();
}

#[test]
fn a_running_container_is_not_disturbed() {
    let mut small = Small::new();
    let mut shim = Shim::start(&mut small.c);
    shim.create(&small.c, &Streams::default());
    shim.simple("Start");
    small.fill();
    shim.exec(&small.c, "x", "exit 0", &Streams::default()).expect("Exec");
    let x = shim.exec_named("x");
    let error = shim.client.call("Start", &x).expect_err("a full disk");
    assert!(error.code == 2 && full(&error.message), "{error:?}");
    shim.client.call("Delete", &x).expect("Delete of the exec");
    assert_eq!(shim.status(""), 2, "it runs");
    // None of these needs room.
    for method in ["Pause", "Resume", "Pids", "Stats", "State"] {
        shim.simple(method);
    }
    small.free();
    shim.exec(&small.c, "x", "exit 4", &Streams::default()).expect("Exec");
    shim.client.call("Start", &x).expect("Start");
    assert_eq!(shim.wait("x"), 4);
    shim.client.call("Delete", &x).expect("Delete of the exec");
    small.fill();
    shim.finish();
    let exit = format!("exit {} 137", small.c.id);
    let wanted = [
        "create",
        "start",
        "exec-added x",
        "paused",
        "resumed",
        "exec-added x",
        "exec-started x",
        "exit x 4",
        &exit,
        "delete",
    ];
    shim.events.expect(&wanted);
}

/// What does not fit into a `file://` log is lost, and the container does not notice.
#[test]
fn a_log_on_the_full_disk() {
    if !is_our_shim() {
        return; // The container waits for ever, or ends by SIGPIPE.
    }
    let mut small = Small::new();
    small.c.config["process"]["args"] = serde_json::json!([
        "sh",
        "-c",
        "i=0; while [ $i -lt 20000 ]; do echo a line of output $i; i=$((i+1)); done; exit 5"
    ]);
    let log = small.c.dir.join("output");
    let mut shim = Shim::start(&mut small.c);
    let streams = Streams { stdout: format!("file://{}", log.display()), ..Streams::default() };
    shim.create(&small.c, &streams);
    shim.simple("Start");
    assert_eq!(shim.wait(""), 5);
    shim.finish();
    let written = fs::read_to_string(&log).expect("the log");
    assert!(written.starts_with("a line of output 0\na line of output 1\n"), "{}", written.len());
    assert!(written.len() > 100_000 && written.len() < 500_000, "{}", written.len());
}

/// The shim is killed on a full disk, and `delete` leaves nothing.
#[test]
fn delete_after_the_shim_was_killed() {
    if !is_our_shim() {
        return; // It looks for the bundle elsewhere.
    }
    let mut small = Small::new();
    let mut shim = Shim::start(&mut small.c);
    let pid = shim.create(&small.c, &Streams::default());
    shim.simple("Start");
    small.fill();
    shim.kill_shim();
    let output = command(&small.c, Path::new(""), "delete", b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = Fields::read(&output.stdout);
    assert_eq!((answer.number(1), answer.number(2)), (pid, 137));
    small.take_off();
    assert_nothing_left(&small.c.id, &small.c.root);
}
