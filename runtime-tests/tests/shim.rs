//! The containerd shim by itself: its task service over ttrpc, and the events that it sends.

use runtime_tests::shim::{Shim, Streams, reader};
use runtime_tests::wire::Message;
use runtime_tests::{Container, until};

const RUNNING: u64 = 2;
const STOPPED: u64 = 3;
const PAUSED: u64 = 4;

#[test]
fn a_container_from_create_to_delete() {
    let mut c = Container::new().sh("echo out; echo err >&2; exit 7");
    let mut shim = Shim::start(&mut c);
    let streams = Streams::fifos(&c, "init", false);
    let (out, err) = (reader(&streams.stdout), reader(&streams.stderr));
    let pid = shim.create(&c, &streams);
    assert!(pid > 0);
    let state = shim.simple("State");
    assert_eq!((state.number(3), state.number(4), state.text(6)), (pid, 1, streams.stdout.clone()));
    assert_eq!(shim.simple("Start").number(1), pid);
    assert_eq!(shim.wait(""), 7);
    assert_eq!(shim.status(""), STOPPED);
    let deleted = shim.simple("Delete");
    assert_eq!((deleted.number(1), deleted.number(2)), (pid, 7));
    assert!(deleted.message(3).number(1) > 1_700_000_000, "when it ended");
    assert_eq!(out.join().expect("the reader"), b"out\n");
    assert_eq!(err.join().expect("the reader"), b"err\n");
    shim.events.expect(&["create", "start", &format!("exit {} 7", c.id), "delete"]);
    shim.shutdown();
}

#[test]
fn both_versions_of_the_service() {
    let mut c = Container::new().idle();
    let shim = Shim::start(&mut c);
    for version in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        let mut client = runtime_tests::wire::Client::connect(&shim.socket, version);
        match client.call("Connect", &shim.named()) {
            // Those of containerd 1 and 2 have one each.
            Err(unknown) if unknown.code == 12 && !runtime_tests::shim::is_our_shim() => {}
            answer => assert_eq!(answer.expect("Connect").number(1), u64::from(shim.pid)),
        }
    }
    for (service, method) in [("containerd.task.v1.Task", "State"), ("containerd.task.v2.Task", "Dance")] {
        let mut client = runtime_tests::wire::Client::connect(&shim.socket, service);
        assert_eq!(client.call(method, &shim.named()).expect_err("unknown").code, 12, "Unimplemented");
    }
}

#[test]
fn an_exec_and_its_events() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    let streams = Streams::fifos(&c, "x", false);
    let (out, _err) = (reader(&streams.stdout), reader(&streams.stderr));
    shim.exec(&c, "x", "echo hello; exit 3", &streams).expect("Exec");
    let named = shim.exec_named("x");
    let pid = shim.client.call("Start", &named).expect("Start").number(1);
    assert!(pid > 0);
    assert_eq!(shim.wait("x"), 3);
    assert_eq!(shim.client.call("Delete", &named).expect("Delete").number(2), 3);
    assert_eq!(out.join().expect("the reader"), b"hello\n");
    shim.finish();
    let exit = format!("exit {} 137", c.id);
    shim.events.expect(&["create", "start", "exec-added x", "exec-started x", "exit x 3", &exit, "delete"]);
}

#[test]
fn execs_end_before_init_does() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    for id in ["a", "b", "c"] {
        shim.exec(&c, id, "sleep 1000", &Streams::default()).expect("Exec");
        let named = shim.exec_named(id);
        shim.client.call("Start", &named).expect("Start");
    }
    shim.kill("", 9).expect("Kill");
    assert_eq!(shim.wait(""), 137);
    until("all ends", || shim.events.short().iter().filter(|e| e.starts_with("exit")).count() == 4);
    let exits: Vec<_> = shim.events.short().into_iter().filter(|e| e.starts_with("exit")).collect();
    assert_eq!(exits[3], format!("exit {} 137", c.id), "{exits:?}");
    shim.finish();
}

#[test]
fn pause_and_resume() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    shim.simple("Pause");
    assert_eq!(shim.status(""), PAUSED);
    shim.simple("Resume");
    assert_eq!(shim.status(""), RUNNING);
    // Killed while it is frozen, it ends.
    shim.simple("Pause");
    shim.kill("", 9).expect("Kill");
    assert_eq!(shim.wait(""), 137);
    shim.finish();
}

#[test]
fn pids_name_their_execs() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    let init = shim.create(&c, &Streams::default());
    shim.simple("Start");
    shim.exec(&c, "x", "sleep 1000", &Streams::default()).expect("Exec");
    let named = shim.exec_named("x");
    let exec = shim.client.call("Start", &named).expect("Start").number(1);
    let mut seen: Vec<_> =
        shim.simple("Pids").messages(1).iter().map(|p| (p.number(1), p.message(2).message(2).text(1))).collect();
    seen.sort();
    let mut wanted = vec![(init, String::new()), (exec, "x".to_owned())];
    wanted.sort();
    assert_eq!(seen, wanted);
    shim.finish();
}

#[test]
fn limits_are_changed_and_statistics_read() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    let resources = br#"{"pids":{"limit":42}}"#;
    let update = shim.named().any(2, "types.containerd.io/LinuxResources", resources);
    shim.client.call("Update", &update).expect("Update");
    let stats = shim.simple("Stats").message(1);
    let metrics = stats.message(2);
    let v2 = stats.text(1) == "io.containerd.cgroups.v2.Metrics";
    assert!(v2 || stats.text(1) == "io.containerd.cgroups.v1.Metrics", "{}", stats.text(1));
    let pids = metrics.message(if v2 { 1 } else { 2 });
    assert_eq!((pids.number(1), pids.number(2)), (1, 42));
    let memory = metrics.message(4);
    let usage = if v2 { memory.number(32) } else { memory.message(33).number(2) };
    assert!(usage > 0, "a process uses memory");
    shim.finish();
}

#[test]
fn a_missing_program_leaves_nothing() {
    let mut c = Container::new().args(&["/no/such"]);
    let mut shim = Shim::start(&mut c);
    let request = shim.create_request(&c, &Streams::default());
    let error = match shim.client.call("Create", &request) {
        Ok(_) => {
            let named = shim.named();
            let error = shim.client.call("Start", &named).expect_err("nothing to start");
            shim.simple("Delete");
            error
        }
        Err(error) => error,
    };
    assert_eq!(error.code, 2, "{}", error.message);
    assert!(error.message.contains("OCI runtime") && error.message.contains("no such file"), "{}", error.message);
    shim.shutdown();
}

/// The codes are those of containerd's own shim; run with SHIM=/usr/bin/containerd-shim-runc-v2 to see them there.
#[test]
fn bad_requests_get_the_codes_of_containerds_shim() {
    const UNKNOWN: u64 = 2;
    const NOT_FOUND: u64 = 5;
    const EXISTS: u64 = 6;
    const PRECONDITION: u64 = 9;
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    let code = |shim: &mut Shim, method: &str, message: &Message| match shim.client.call(method, message) {
        Ok(_) => 0,
        Err(status) => status.code,
    };
    let nobody = Message::new().text(1, "nobody");
    for method in ["State", "Start", "Delete", "Pids", "Pause", "Resume", "Kill", "CloseIO", "Update", "Wait", "Stats"]
    {
        assert_eq!(code(&mut shim, method, &nobody), NOT_FOUND, "{method} of an unknown container");
    }
    assert_eq!(code(&mut shim, "Connect", &nobody), 0, "Connect tells of the shim");
    shim.create(&c, &Streams::default());
    let (init, exec) = (shim.named(), shim.exec_named("x"));
    for method in ["Pause", "Resume"] {
        assert_eq!(code(&mut shim, method, &init), UNKNOWN, "{method} of a created container");
    }
    shim.simple("Start");
    assert_eq!(code(&mut shim, "Start", &init), UNKNOWN, "start twice");
    assert_eq!(code(&mut shim, "Delete", &init), UNKNOWN, "delete of the running");
    assert_eq!(code(&mut shim, "Resume", &init), UNKNOWN, "resume of the running");
    for method in ["State", "Start", "Delete", "Kill", "Wait"] {
        assert_eq!(code(&mut shim, method, &exec), NOT_FOUND, "{method} of an unknown exec");
    }
    shim.exec(&c, "x", "exit 0", &Streams::default()).expect("Exec");
    let twice = shim.exec(&c, "x", "exit 0", &Streams::default()).expect_err("exec twice");
    assert_eq!(twice.code, EXISTS);
    assert_eq!(code(&mut shim, "Kill", &exec), PRECONDITION, "kill of an exec that is not started");
    shim.client.call("Start", &exec).expect("Start");
    shim.wait("x");
    assert_eq!(code(&mut shim, "Kill", &exec.clone().number(3, 9)), NOT_FOUND, "kill of the dead exec");
    assert_eq!(code(&mut shim, "Start", &exec), UNKNOWN, "start of the dead exec");
    shim.kill("", 9).expect("Kill");
    shim.wait("");
    assert_eq!(shim.kill("", 9).expect_err("kill of the dead").code, NOT_FOUND);
    assert_eq!(code(&mut shim, "Pause", &init), UNKNOWN, "pause of the dead");
    let late = shim.exec(&c, "y", "exit 0", &Streams::default()).expect_err("exec in the dead");
    assert_eq!(late.code, UNKNOWN);
    shim.finish();
}
