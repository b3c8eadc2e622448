//! What goes wrong around the shim: containerd goes away, the shim is killed, the runtime fails, there is too much of everything.

use runtime_tests::shim::{Events, NAMESPACE, Shim, Streams, command, is_our_shim, options, reader};
use runtime_tests::wire::{Client, Fields, Message};
use runtime_tests::{Container, known, runtime, until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[test]
fn events_wait_for_a_containerd_that_is_away() {
    let mut c = Container::new().sh("exit 3");
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.events.expect(&["create"]);
    // containerd is killed.
    let path = shim.events.path.clone();
    shim.events.hang_up();
    shim.simple("Start");
    assert_eq!(shim.wait(""), 3);
    std::thread::sleep(std::time::Duration::from_millis(600));
    // And comes back.
    shim.events = Events::listen(&path);
    let exit = format!("exit {} 3", c.id);
    shim.events.expect(&["start", &exit]);
    let state = shim.simple("State");
    assert_eq!((state.number(4), state.number(9)), (3, 3), "the exit code is kept");
    if is_our_shim() {
        // A containerd that is started again takes a task without processes for one that never was.
        assert_eq!(shim.simple("Pids").messages(1).len(), 1);
    }
    shim.finish();
    shim.events.expect(&["start", &exit, "delete"]);
}

#[test]
fn a_caller_that_goes_away_stops_nothing() {
    if !is_our_shim() {
        return; // What was begun is given up half-way.
    }
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    let request = shim.create_request(&c, &Streams::default());
    let mut other = Client::connect(&shim.socket, "containerd.task.v2.Task");
    other.send("Create", &request);
    drop(other);
    let named = shim.named();
    until("the container", || shim.client.call("State", &named).is_ok());
    // A hundred who wait and go are forgotten.
    for _ in 0..100 {
        Client::connect(&shim.socket, "containerd.task.v2.Task").send("Wait", &named);
    }
    shim.simple("Start");
    shim.finish();
}

#[test]
fn delete_after_the_shim_was_killed_leaves_nothing() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    let lower = c.path("/").display().to_string();
    for dir in ["upper", "work"] {
        fs::create_dir(c.dir.join(dir)).expect("a directory");
    }
    let overlay = Message::new().text(1, "overlay").text(2, "overlay").text(4, &format!("lowerdir={lower}"));
    let overlay = overlay.text(4, &format!("upperdir={}", c.dir.join("upper").display()));
    let overlay = overlay.text(4, &format!("workdir={}", c.dir.join("work").display()));
    let request = shim.create_request(&c, &Streams::default()).message(3, &overlay);
    let pid = shim.client.call("Create", &request).expect("Create").number(1);
    shim.simple("Start");
    shim.exec(&c, "x", "sleep 3600", &Streams::default()).expect("Exec");
    let named = shim.exec_named("x");
    shim.client.call("Start", &named).expect("Start");
    shim.kill_shim();
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "the container outlives its shim");
    let output = command(&c, Path::new(""), "delete", b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = Fields::read(&output.stdout);
    assert_eq!((answer.number(1), answer.number(2)), (pid, 137));
    runtime_tests::assert_nothing_left(&c.id, &c.root);
    // Once more is no error: containerd may do it after its own restart.
    assert!(command(&c, Path::new(""), "delete", b"").status.success());
}

/// Whatever the shim was doing when it was killed, `delete` leaves nothing, and nothing comes afterwards.
#[test]
fn delete_after_the_shim_was_killed_at_any_time() {
    known!("runc", "*", "killed in the middle of create, it leaves cgroups that its delete does not know of");
    if !is_our_shim() {
        return; // It looks for the bundle elsewhere.
    }
    for delay in 0..24 {
        let mut c = Container::new().idle();
        let mut shim = Shim::start(&mut c);
        let create = shim.create_request(&c, &Streams::default());
        let named = shim.named();
        // On one connection each, so that one does not wait for the other in our own client.
        shim.client.send("Create", &create);
        if delay % 2 == 1 {
            until("the container", || {
                Client::connect(&shim.socket, "containerd.task.v2.Task").call("State", &named).is_ok()
            });
            shim.client.send("Start", &named);
        }
        std::thread::sleep(std::time::Duration::from_micros(delay * 400));
        shim.kill_shim();
        let output = command(&c, Path::new(""), "delete", b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // What was under way would have come to its end.
        std::thread::sleep(std::time::Duration::from_millis(30));
        runtime_tests::assert_nothing_left(&c.id, &c.root);
    }
}

/// A runtime that fails at the command that is written in a file.
fn failing(c: &mut Container) -> std::path::PathBuf {
    let (program, at) = (c.dir.join("wrapped"), c.dir.join("fail"));
    let script = format!(
        "#!/bin/sh\nfail=$(cat {at} 2>/dev/null)\nfor word; do\n\
         [ \"$log\" != next ] || log=$word\n[ \"$word\" != --log ] || log=next\n\
         [ \"$word\" != \"$fail\" ] || {{ echo '{{\"level\":\"error\",\"msg\":\"made to fail\",\"time\":\"2026-01-01T00:00:00Z\"}}' >>$log; exit 1; }}\n\
         done\nexec {runtime} \"$@\"\n",
        at = at.display(),
        runtime = runtime().path.display()
    );
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    c.binary = program;
    at
}

#[test]
fn each_call_of_the_runtime_may_fail_once() {
    let mut c = Container::new().idle();
    let at = failing(&mut c);
    let mut shim = Shim::start(&mut c);
    let create = shim.create_request(&c, &Streams::default());
    let named = shim.named();
    let exec = shim.exec_named("x");
    let resources = shim.named().any(2, "types.containerd.io/LinuxResources", b"{\"pids\":{\"limit\":99}}");
    let try_twice = |shim: &mut Shim, word: &str, method: &str, message: &Message| {
        fs::write(&at, word).expect("the word");
        let error = shim.client.call(method, message).expect_err("made to fail");
        assert_eq!(error.code, 2, "{method}: {}", error.message);
        // containerd's own says of an update only that it has failed.
        let says = error.message.contains("made to fail") || (method == "Update" && !is_our_shim());
        assert!(says, "{method}: {}", error.message);
        fs::write(&at, "").expect("no word");
        shim.client.call(method, message).unwrap_or_else(|e| panic!("{method} afterwards: {e:?}"))
    };
    try_twice(&mut shim, "create", "Create", &create);
    try_twice(&mut shim, "start", "Start", &named);
    try_twice(&mut shim, "pause", "Pause", &named);
    try_twice(&mut shim, "resume", "Resume", &named);
    try_twice(&mut shim, "update", "Update", &resources);
    fs::write(&at, "exec").expect("the word");
    shim.exec(&c, "x", "exit 0", &Streams::default()).expect("Exec");
    let error = shim.client.call("Start", &exec).expect_err("made to fail");
    assert!(error.message.contains("OCI runtime exec failed: made to fail"), "{}", error.message);
    shim.client.call("Delete", &exec).expect("Delete of an exec that never ran");
    fs::write(&at, "").expect("no word");
    shim.exec(&c, "x", "exit 5", &Streams::default()).expect("Exec under the same id");
    shim.client.call("Start", &exec).expect("Start");
    assert_eq!(shim.wait("x"), 5);
    let kill = shim.named().number(3, 9);
    try_twice(&mut shim, "kill", "Kill", &kill);
    shim.wait("");
    try_twice(&mut shim, "delete", "Delete", &named);
    let exit = format!("exit {} 137", c.id);
    let wanted = [
        "create",
        "start",
        "paused",
        "resumed",
        "exec-added x",
        "exec-added x",
        "exec-started x",
        "exit x 5",
        &exit,
        "delete",
    ];
    shim.events.expect(&wanted);
    shim.shutdown();
}

/// A runtime of which the call of that number goes wrong in some way; calls are counted in `calls`.
fn failing_at(c: &mut Container, number: u32, how: &str) {
    let program = c.dir.join("wrapped");
    let script = format!(
        "#!/bin/sh\nn=$(cat {calls} 2>/dev/null || echo 0); n=$((n + 1)); echo $n >{calls}\n\
         if [ $n = {number} ]; then {how}; fi\nexec {runtime} \"$@\"\n",
        calls = c.dir.join("calls").display(),
        runtime = runtime().path.display()
    );
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    c.binary = program;
}

/// A life in which one call of the runtime fails without a word, or is killed: it is repeated and all goes on; nothing is told twice.
#[test]
fn the_nth_call_of_the_runtime_fails() {
    if !is_our_shim() {
        return; // Its words for this are others, and an exec that could not be started is told to have ended.
    }
    let (mut number, mut seen) = (0, Vec::new());
    loop {
        number += 1;
        let how = if number % 2 == 0 { "kill -9 $$" } else { "exit 1" };
        let mut c = Container::new().idle();
        failing_at(&mut c, number, how);
        let mut shim = Shim::start(&mut c);
        let mut failed = Vec::new();
        let mut once_more = |shim: &mut Shim, method: &str, message: &Message| {
            if let Err(error) = shim.client.call(method, message) {
                let text = if how == "exit 1" { "exit status: 1" } else { "signal 9" };
                assert!(error.message.contains(text), "{method}: {}", error.message);
                failed.push(method.to_owned());
                assert_eq!(error.code, 2, "{method}");
                shim.client.call(method, message).unwrap_or_else(|e| panic!("{method} once more: {e:?}"));
            }
        };
        let (named, x) = (shim.named(), shim.exec_named("x"));
        let create = shim.create_request(&c, &Streams::default());
        once_more(&mut shim, "Create", &create);
        once_more(&mut shim, "Start", &named);
        once_more(&mut shim, "Pause", &named);
        once_more(&mut shim, "Resume", &named);
        let resources = named.clone().any(2, "types.containerd.io/LinuxResources", b"{\"pids\":{\"limit\":99}}");
        once_more(&mut shim, "Update", &resources);
        once_more(&mut shim, "Pids", &named);
        shim.exec(&c, "x", "exit 5", &Streams::default()).expect("Exec");
        if let Err(error) = shim.client.call("Start", &x) {
            assert_eq!(error.code, 2, "{}", error.message);
            failed.push("exec".to_owned());
            // An exec that could not be started is not started later.
            shim.client.call("Delete", &x).expect("Delete");
            shim.exec(&c, "x", "exit 5", &Streams::default()).expect("Exec");
            shim.client.call("Start", &x).expect("Start");
        }
        assert_eq!(shim.wait("x"), 5);
        let mut once_more = |shim: &mut Shim, method: &str, message: &Message| {
            if shim.client.call(method, message).is_err() {
                failed.push(method.to_owned());
                shim.client.call(method, message).unwrap_or_else(|e| panic!("{method} once more: {e:?}"));
            }
        };
        once_more(&mut shim, "Kill", &named.clone().number(3, 9));
        assert_eq!(shim.wait(""), 137);
        once_more(&mut shim, "Delete", &named);
        let exit = format!("exit {} 137", c.id);
        let mut wanted = vec!["create", "start", "paused", "resumed", "exec-added x"];
        wanted.extend(failed.iter().filter(|f| *f == "exec").map(|_| "exec-added x"));
        wanted.extend(["exec-started x", "exit x 5", &exit, "delete"]);
        shim.events.expect(&wanted);
        shim.shutdown();
        // The end of the test calls it, too.
        c.binary.clone_from(&runtime().path);
        if failed.is_empty() {
            break;
        }
        assert_eq!(failed.len(), 1, "{failed:?}");
        seen.extend(failed);
    }
    assert_eq!(seen, ["Create", "Start", "Pause", "Resume", "Update", "Pids", "exec", "Kill", "Delete"]);
}

#[test]
fn a_runtime_that_is_not_there() {
    let mut c = Container::new().idle();
    let binary = std::mem::replace(&mut c.binary, "/no/such/runtime".into());
    let mut shim = Shim::start(&mut c);
    let request = shim.create_request(&c, &Streams::default());
    let error = shim.client.call("Create", &request).expect_err("no runtime");
    assert!(error.message.contains("/no/such/runtime"), "{}", error.message);
    c.binary = binary;
    shim.shutdown();
}

#[test]
fn two_hundred_execs_at_once() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    let ids: Vec<String> = (0..200).map(|n| format!("x{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        shim.exec(&c, id, &format!("exit {}", n % 100), &Streams::default()).expect("Exec");
    }
    let starts: Vec<u32> =
        ids.iter().map(|id| shim.client.send("Start", &Message::new().text(1, &c.id).text(2, id))).collect();
    for start in starts {
        shim.client.answer(start).expect("Start");
    }
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(shim.wait(id), n as u64 % 100, "{id}");
    }
    let ended = |shim: &Shim| shim.events.short().iter().filter(|e| e.starts_with("exit x")).count();
    until("all ends", || ended(&shim) >= 200);
    assert_eq!(ended(&shim), 200, "each end is told once");
    for (topic, event) in shim.events.all() {
        if topic == "/tasks/exit" {
            let started = |(t, e): &(String, Fields)| t == "/tasks/exec-started" && e.text(2) == event.text(2);
            let at = |wanted: &dyn Fn(&(String, Fields)) -> bool| shim.events.all().iter().position(wanted);
            let ends = |(t, e): &(String, Fields)| t == "/tasks/exit" && e.text(2) == event.text(2);
            assert!(at(&started) < at(&ends), "the start of {} is told before its end", event.text(2));
        }
    }
    for id in &ids {
        let named = shim.exec_named(id);
        shim.client.call("Delete", &named).expect("Delete");
    }
    shim.finish();
}

#[test]
fn thousands_of_orphans_are_reaped() {
    let mut c = Container::new();
    c.remove_namespace("pid");
    // Without a pid namespace of its own the container's orphans are the shim's.
    let mut c = c.sh("i=0; while [ $i -lt 2000 ]; do (true &); i=$((i+1)); done; exit 6");
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    assert_eq!(shim.wait(""), 6);
    until("no child of the shim", || children(shim.pid).is_empty());
    shim.finish();
}

/// Processes whose parent is `pid`.
fn children(pid: u32) -> Vec<String> {
    let stats = fs::read_dir("/proc").expect("/proc").flatten().map(|e| e.path().join("stat"));
    let lines = stats.filter_map(|path| fs::read_to_string(path).ok());
    let parent = |line: &str| line.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).map(str::to_owned);
    lines.filter(|line| parent(line) == Some(pid.to_string())).collect()
}

/// Without a pid namespace, what init has started outlives it: the shim ends it.
#[test]
fn processes_that_outlive_init_are_ended() {
    let mut c = Container::new();
    c.remove_namespace("pid");
    let mut c = c.sh("sleep 3600 & exit 2");
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    assert_eq!(shim.wait(""), 2);
    until("no process of the container", || children(shim.pid).is_empty());
    shim.finish();
}

#[test]
fn a_root_file_system_that_cannot_be_mounted() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    let bind =
        Message::new().text(1, "bind").text(2, &c.path("/").display().to_string()).text(4, "rbind").text(4, "ro");
    let wrong = Message::new().text(1, "nosuchfs").text(2, "x");
    let request = shim.create_request(&c, &Streams::default()).message(3, &bind).message(3, &wrong);
    let error = shim.client.call("Create", &request).expect_err("no such file system");
    assert!(error.message.contains("failed to mount rootfs component"), "{}", error.message);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    assert!(!mounts.contains(&c.id), "the first mount is taken off again");
    // And then it works.
    let request = shim.create_request(&c, &Streams::default()).message(3, &bind);
    shim.client.call("Create", &request).expect("Create");
    shim.finish();
}

/// An image of many layers: their paths are longer than the page of options that mount(2) reads.
#[test]
fn a_root_file_system_of_many_layers() {
    let mut c = Container::new().sh("cat /layer59 /layer0");
    let mut shim = Shim::start(&mut c);
    let layers = c.dir.join("a-directory-for-layers-with-a-name-that-is-as-long-as-those-of-a-snapshotter-are");
    let mut lower = vec![c.path("/").display().to_string()];
    for n in 0..60 {
        let layer = layers.join(n.to_string());
        fs::create_dir_all(&layer).expect("a layer");
        fs::write(layer.join(format!("layer{n}")), format!("{n}\n")).expect("a file of it");
        lower.push(layer.display().to_string());
    }
    // All below one directory, the root file system, too.
    fs::rename(c.path("/"), layers.join("rootfs")).expect("move the root file system");
    lower[0] = layers.join("rootfs").display().to_string();
    for dir in ["rootfs", "upper", "work"] {
        fs::create_dir(c.dir.join(dir)).expect("a directory");
    }
    let option = format!("lowerdir={}", lower.join(":"));
    assert!(option.len() > 4096);
    let overlay = Message::new().text(1, "overlay").text(2, "overlay").text(4, &option);
    let overlay = overlay.text(4, &format!("upperdir={}", c.dir.join("upper").display()));
    let overlay = overlay.text(4, &format!("workdir={}", c.dir.join("work").display()));
    let streams = Streams::fifos(&c, "init", false);
    let (out, _err) = (reader(&streams.stdout), reader(&streams.stderr));
    let request = shim.create_request(&c, &streams).message(3, &overlay);
    shim.client.call("Create", &request).expect("Create");
    shim.simple("Start");
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    assert_eq!(out.join().expect("the reader"), b"59\n0\n");
}

/// A task that was never started is deleted, as when a client changes its mind.
#[test]
fn a_container_that_was_never_started() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    let pid = shim.create(&c, &Streams::default());
    shim.kill("", 9).expect("Kill");
    assert_eq!(shim.wait(""), 137);
    shim.simple("Delete");
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let exit = format!("exit {} 137", c.id);
    shim.events.expect(&["create", &exit, "delete"]);
    shim.create(&c, &Streams::default());
    shim.simple("Delete");
    let named = shim.named();
    assert_eq!(shim.client.call("State", &named).expect_err("deleted").code, 5);
    shim.shutdown();
}

/// Everything in the options reaches the runtime, as flags.
#[test]
fn options_become_flags() {
    let mut c = Container::new().idle();
    let words = c.dir.join("words");
    let program = c.dir.join("wrapped");
    fs::write(
        &program,
        format!("#!/bin/sh\necho \"$*\" >>{}\nexec {} \"$@\"\n", words.display(), runtime().path.display()),
    )
    .expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    c.binary = program;
    let mut shim = Shim::start(&mut c);
    let options = options(&c).number(1, 1).number(2, 1);
    let request =
        shim.named().text(2, &c.dir.to_string_lossy()).any(10, "containerd.runc.v1.Options", options.encoded());
    shim.client.call("Create", &request).expect("Create");
    let words = fs::read_to_string(words).expect("the words");
    let root = c.dir.join("state").join(NAMESPACE);
    for word in ["create", "--no-pivot", "--no-new-keyring", "--log-format json", &format!("--root {}", root.display())]
    {
        assert!(words.lines().next().is_some_and(|line| line.contains(word)), "{word} is not in {words}");
    }
    shim.finish();
    // Of another type they are refused, not guessed at.
    let mut shim = Shim::start(&mut c);
    let request = shim.named().text(2, &c.dir.to_string_lossy()).any(10, "windows.Options", b"x");
    if is_our_shim() {
        assert_eq!(shim.client.call("Create", &request).expect_err("wrong options").code, 2);
        // Nothing is written to where the shim happens to be.
        let request = shim.named().any(10, "containerd.runc.v1.Options", b"");
        assert_eq!(shim.client.call("Create", &request).expect_err("no bundle").code, 3);
        assert!(!Path::new("/options.json").exists());
    }
    shim.shutdown();
}
