//! How containerd starts a shim and asks about it, and the containers of one pod in one shim.

use runtime_tests::shim::{Events, NAMESPACE, Shim, Streams, command, options, place, shim_binary};
use runtime_tests::wire::{Fields, Message};
use runtime_tests::{Container, cgroup_v2, until};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

fn in_pod(pod: &str) -> Container {
    Container::new().idle().with("/annotations", json!({ "io.kubernetes.cri.sandbox-id": pod }))
}

#[test]
fn containers_of_a_pod_share_a_shim() {
    let mut sandbox = in_pod("");
    let pod = sandbox.id.clone();
    sandbox.config["annotations"]["io.kubernetes.cri.sandbox-id"] = json!(pod);
    let mut shim = Shim::start(&mut sandbox);
    shim.create(&sandbox, &Streams::default());
    shim.simple("Start");

    // containerd's address is part of the name, and that is the sandbox's directory in these tests.
    let mut member = in_pod(&pod);
    place(&mut member);
    member.write_config();
    let input = Message::any_of("containerd.runc.v1.Options", options(&member).encoded());
    let output = Command::new(shim_binary())
        .args(["-namespace", NAMESPACE, "-id", &member.id, "-address"])
        .arg(sandbox.dir.join("containerd.sock"))
        .arg("start")
        .current_dir(&member.dir)
        .env("TTRPC_ADDRESS", &shim.events.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            child.stdin.take().expect("its input").write_all(input.encoded())?;
            child.wait_with_output()
        })
        .expect("start");
    let address = String::from_utf8(output.stdout).expect("an address");
    assert_eq!(address, format!("unix://{}", shim.socket));
    assert_eq!(fs::read_to_string(member.dir.join("address")).expect("for containerd 1.6"), address);

    let request = Message::new().text(1, &member.id).text(2, &member.dir.to_string_lossy());
    let request = request.any(10, "containerd.runc.v1.Options", options(&member).encoded());
    let named = Message::new().text(1, &member.id);
    shim.client.call("Create", &request).expect("Create");
    shim.client.call("Start", &named).expect("Start");
    let connected = shim.client.call("Connect", &named).expect("Connect");
    assert_eq!(connected.number(1), u64::from(shim.pid));
    // Not the last one: nothing happens.
    shim.simple("Shutdown");
    shim.client.call("Kill", &named.clone().number(3, 9)).expect("Kill");
    assert_eq!(shim.client.call("Wait", &named).expect("Wait").number(1), 137);
    shim.client.call("Delete", &named).expect("Delete");
    assert_eq!(shim.status(""), 2, "the sandbox goes on");
    shim.finish();
}

#[test]
fn bootstrap_as_containerd_2_3_does_it() {
    let mut c = Container::new().idle();
    place(&mut c);
    c.write_config();
    if !runtime_tests::shim::is_our_shim() {
        return;
    }
    let events = Events::listen(&c.dir.join("events.sock"));
    let extension = Message::new().any(1, "containerd.runc.v1.Options", options(&c).encoded());
    let sockets = c.dir.join("sockets");
    let params = Message::new().text(1, &c.id).text(2, NAMESPACE).text(4, "2.3.0").message(8, &extension);
    let params = params.text(9, &sockets.to_string_lossy());
    let output = command(&c, &events.path, "start", params.encoded());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result = Fields::read(&output.stdout);
    assert_eq!((result.number(1), result.text(3)), (3, "ttrpc".to_owned()));
    assert!(result.text(2).starts_with(&format!("unix://{}/", sockets.display())), "{}", result.text(2));
    let mut shim = Shim::connect(&c, &result.text(2), events);
    shim.shutdown();
}

#[test]
fn the_oom_killer_takes_the_shim_before_containerd() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    let score = |pid: &str| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("a score");
        text.trim().parse().expect("a number")
    };
    assert_eq!(score(&shim.pid.to_string()), score("self") + 1);
    shim.shutdown();
}

#[test]
fn a_cgroup_of_its_own() {
    let mut c = Container::new().idle();
    let name = format!("{}-shim", c.id);
    let root = if cgroup_v2() { "/sys/fs/cgroup".to_owned() } else { "/sys/fs/cgroup/pids".to_owned() };
    let dir = format!("{root}/{name}");
    fs::create_dir(&dir).expect("a cgroup");
    place(&mut c);
    let options = options(&c).text(3, &format!("/{name}"));
    let mut shim = Shim::start_with(&mut c, &options);
    let procs = fs::read_to_string(format!("{dir}/cgroup.procs")).expect("its processes");
    assert_eq!(procs.trim(), shim.pid.to_string());
    shim.shutdown();
    until("the cgroup is empty", || fs::remove_dir(&dir).is_ok());

    let missing = runtime_tests::shim::options(&c).text(3, "/no/such/cgroup");
    let any = Message::any_of("containerd.runc.v1.Options", missing.encoded());
    let output = command(&c, &c.dir.join("events.sock"), "start", any.encoded());
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("/no/such/cgroup"), "{text}");
}

#[test]
fn out_of_memory_is_told_before_the_end() {
    let mut c = Container::new()
        .sh("dd if=/dev/zero of=/dev/null bs=256M count=1")
        .with("/linux/resources/memory/limit", json!(16 << 20));
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.simple("Start");
    let status = shim.wait("");
    assert!(status == 137 || status == 1, "{status}");
    until("the end", || shim.events.short().iter().any(|e| e.starts_with("exit")));
    let events = shim.events.short();
    assert_eq!(events.iter().filter(|e| *e == "oom").count(), 1, "{events:?}");
    let at = |what: &str| events.iter().position(|e| e.starts_with(what));
    assert!(at("oom") < at("exit"), "{events:?}");
    shim.finish();
}

#[test]
fn info_and_version() {
    let run = |words: &[&str], input: &[u8]| {
        let mut child =
            Command::new(shim_binary()).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("shim");
        child.stdin.take().expect("its input").write_all(input).expect("write");
        let output = child.wait_with_output().expect("its output");
        assert!(output.status.success(), "{words:?}");
        output.stdout
    };
    assert!(String::from_utf8_lossy(&run(&["-v"], b"")).contains("Version:"));
    if !runtime_tests::shim::is_our_shim() {
        return;
    }
    let options = Message::new().text(6, &runtime_tests::runtime().path.to_string_lossy());
    let info =
        Fields::read(&run(&["-info"], Message::any_of("containerd.runc.v1.Options", options.encoded()).encoded()));
    assert_eq!(info.text(1), "io.containerd.rrt.v2");
    assert!(!info.message(2).text(1).is_empty());
    if runtime_tests::runtime().is_ours() {
        let features = info.message(4);
        assert!(features.text(1).ends_with("/features/Features"), "{}", features.text(1));
        let json: serde_json::Value = serde_json::from_slice(features.bytes(2)).expect("JSON");
        assert!(json["ociVersionMax"].is_string());
    }
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    let fails = |words: &[&str]| {
        let output = Command::new(shim_binary()).args(words).stdin(Stdio::null()).output().expect("shim");
        assert!(!output.status.success(), "{words:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(fails(&["-id", "x", "start"]).contains("namespace"));
    assert!(fails(&["-nonsense"]).contains("nonsense"));
}
