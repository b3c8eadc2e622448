//! exec: a second process in a running container, by flags and by `--process`.

use std::fs;

use runtime_tests::{
    Background, Container, Pty, cgroup_file, cgroup_v2, console_socket, known, process_cgroup, read_until, skip, until,
};
use serde_json::{Value, json};

fn process_file(c: &Container, process: &Value) -> String {
    let path = c.dir.join("process.json");
    fs::write(&path, process.to_string()).expect("process.json");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn runs_in_the_container() {
    let c = Container::new().idle().up();
    let report = c.exec_report(&[]);
    assert_eq!(report["hostname"], "box");
    for kind in ["pid", "net", "ipc", "uts", "mnt"] {
        let own = fs::read_link(format!("/proc/{}/ns/{kind}", c.pid())).expect("namespace of the container");
        assert_eq!(report["namespaces"][kind], own.to_str().expect("ASCII"));
    }
    assert_eq!(report["no_new_privs"], true);
    assert_eq!(report["rlimits"]["RLIMIT_NOFILE"], json!([1024, 1024]));
    assert_eq!(report["caps"]["effective"], json!(["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_AUDIT_WRITE"]));
    assert_eq!(report["argv"], json!(["guest", "report"]));
}

#[test]
fn joins_the_cgroups_of_the_container() {
    let c = Container::new().idle().up();
    c.exec(&["--detach", "--pid-file", "pid"], &["sleep", "3600"]).ok();
    let pid = fs::read_to_string(c.dir.join("pid")).expect("pid file").parse().expect("a pid");
    let controllers: &[&str] = if cgroup_v2() { &[""] } else { &["memory", "cpu", "pids", "devices", "freezer", ""] };
    for controller in controllers {
        assert_eq!(process_cgroup(pid, controller), process_cgroup(c.pid(), controller), "{controller}");
    }
}

#[test]
fn passes_the_exit_code_on() {
    let c = Container::new().idle().up();
    for code in [0, 1, 42, 254] {
        assert_eq!(c.exec(&[], &["sh", "-c", &format!("exit {code}")]).code, code);
    }
    assert_eq!(c.exec(&[], &["sh", "-c", "kill -KILL $$"]).code, 128 + 9);
}

#[test]
fn failure_is_255() {
    let c = Container::new();
    c.exec(&[], &["true"]).fails(255, &["does not exist"]);
    let c = c.idle().up();
    c.exec(&[], &["no-such-program"]).fails(255, &["no-such-program", "executable file not found in"]);
    c.exec(&[], &["/etc/passwd"]).fails(255, &["/etc/passwd", "ermission denied"]);
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.exec(&[], &["true"]).fails(255, &["stopped"]);
}

#[test]
fn in_a_created_container() {
    let c = Container::new().idle();
    c.create(&[]).ok();
    assert_eq!(c.exec(&[], &["echo", "here"]).ok().stdout, "here\n");
    assert_eq!(c.state()["status"], "created");
}

#[test]
fn cwd_env_and_user() {
    let c = Container::new().idle().up();
    let flags = ["--cwd", "/tmp", "--env", "A=1", "--env", "B=two words", "--user", "1000:1001", "-g", "7", "-g", "8"];
    let report = c.exec_report(&flags);
    assert_eq!(report["cwd"], "/tmp");
    let env = report["env"].as_array().expect("env");
    assert!(env.contains(&json!("A=1")) && env.contains(&json!("B=two words")), "{env:?}");
    assert!(
        env.iter().any(|e| e.as_str().is_some_and(|e| e.starts_with("RT_ID="))),
        "config.json's come first: {env:?}"
    );
    assert_eq!(report["uids"], json!([1000, 1000, 1000, 1000]));
    assert_eq!(report["gids"], json!([1001, 1001, 1001, 1001]));
    assert_eq!(report["groups"], json!([7, 8]));
}

#[test]
fn an_env_flag_replaces_the_variable_of_the_configuration() {
    let c = Container::new().idle().with("/process/env/-", json!("A=config")).up();
    let report = c.exec_report(&["--env", "A=flag"]);
    let env = report["env"].as_array().expect("env");
    let values: Vec<_> = env.iter().filter(|e| e.as_str().is_some_and(|e| e.starts_with("A="))).collect();
    assert_eq!(values, ["A=flag"]);
}

#[test]
fn home_comes_from_the_passwd_of_the_container() {
    let c = Container::new().idle().up();
    let home = |flags: &[&str]| c.exec(flags, &["sh", "-c", "echo $HOME"]).ok().stdout;
    assert_eq!(home(&[]), "/root\n");
    assert_eq!(home(&["--user", "1000"]), "/home/alice\n");
    assert_eq!(home(&["--user", "4242"]), "/\n");
    assert_eq!(home(&["--env", "HOME=/mine"]), "/mine\n");
}

#[test]
fn user_without_a_group() {
    let c = Container::new().idle().up();
    let report = c.exec_report(&["--user", "1000"]);
    assert_eq!(report["uids"][0], 1000);
    assert_eq!(report["gids"][0], 0);
}

#[test]
fn cve_2026_30892_user_is_parsed_strictly() {
    let c = Container::new().idle().up();
    assert_eq!(c.exec_report(&["-u", "1"])["uids"], json!([1, 1, 1, 1]));
    for user in ["1x", "x", "-1", "1:", "1:x", ":1", "0x10", " 1"] {
        refuses_user(&c, user);
    }
}

#[test]
fn cve_2026_30892_user_above_32_bits() {
    known!("runc", "1.2", "the number is cut to 32 bits: 4294967296 becomes root");
    let c = Container::new().idle().up();
    for user in ["4294967295", "4294967296", "1:4294967296", "18446744073709551617"] {
        refuses_user(&c, user);
    }
}

#[track_caller]
fn refuses_user(c: &Container, user: &str) {
    let out = c.exec(&["--user", user], &["id", "-u"]);
    assert_ne!(out.code, 0, "--user {user:?}: {out}");
    assert_eq!(out.stdout, "", "--user {user:?}: {out}");
}

#[test]
fn capabilities_by_flag() {
    let c = Container::new().idle().caps(&["CAP_KILL", "CAP_CHOWN"]).up();
    let report = c.exec_report(&["-c", "CAP_NET_RAW", "-c", "CAP_SYS_TIME"]);
    for set in ["bounding", "permitted", "effective"] {
        let all = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_TIME"];
        assert_eq!(report["caps"][set], json!(all), "{set}");
    }
}

#[test]
fn an_unknown_capability_is_a_warning() {
    // runtime-spec 1.3, config.md: what cannot be granted is warned of and left out.
    let c = Container::new().idle().up();
    let out = c.exec(&["--cap", "CAP_NO_SUCH"], &["true"]).ok();
    assert!(out.stderr.contains("CAP_NO_SUCH"), "{out}");
}

#[test]
fn cve_2022_29162_no_inheritable_capabilities() {
    let c = Container::new().caps(&["CAP_KILL"]).idle().up();
    assert_eq!(c.exec_report(&[])["caps"]["inheritable"], json!([]));
    assert_eq!(c.exec_report(&["--cap", "CAP_NET_RAW"])["caps"]["inheritable"], json!([]));
    assert_eq!(c.exec_report(&["--user", "1000"])["caps"]["inheritable"], json!([]));
}

#[test]
fn no_new_privs_by_flag() {
    let c = Container::new().idle().with("/process/noNewPrivileges", json!(false)).up();
    assert_eq!(c.exec_report(&[])["no_new_privs"], false);
    assert_eq!(c.exec_report(&["--no-new-privs"])["no_new_privs"], true);
}

#[test]
fn process_document() {
    let c = Container::new().idle().up();
    let process = json!({
        "args": ["guest", "report"], "cwd": "/etc", "env": ["PATH=/bin", "ONLY=this"],
        "user": { "uid": 1000, "gid": 1000, "additionalGids": [5] },
        "rlimits": [{ "type": "RLIMIT_CORE", "soft": 3, "hard": 5 }],
        "capabilities": { "bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"],
            "ambient": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"] },
        "oomScoreAdj": 500,
    });
    let report = c.exec(&["--process", &process_file(&c, &process)], &[]).ok().json();
    assert_eq!(report["cwd"], "/etc");
    assert_eq!(report["env"].as_array().map(|e| e[..2].to_vec()), Some(vec![json!("PATH=/bin"), json!("ONLY=this")]));
    assert_eq!(report["uids"][0], 1000);
    assert_eq!(report["groups"], json!([5]));
    assert_eq!(report["rlimits"]["RLIMIT_CORE"], json!([3, 5]));
    assert_eq!(report["caps"]["ambient"], json!(["CAP_CHOWN"]));
    assert_eq!(report["caps"]["effective"], json!(["CAP_CHOWN"]));
    assert_eq!(report["no_new_privs"], false);
}

#[test]
fn process_document_sets_oom_score_adj() {
    known!("runc", "1.2", "exec takes oomScoreAdj from config.json only");
    let c = Container::new().idle().up();
    let process = json!({ "args": ["guest", "report"], "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 500 });
    assert_eq!(c.exec(&["-p", &process_file(&c, &process)], &[]).ok().json()["oom_score_adj"], 500);
}

/// The document says what it says; what it leaves out is the container's, as in runc.
#[test]
fn process_document_without_confinement_gets_the_containers() {
    let c = Container::new().idle().caps(&["CAP_KILL", "CAP_CHOWN"]).with("/process/oomScoreAdj", json!(321)).up();
    let process =
        json!({ "args": ["guest", "report"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    let report = c.exec(&["--process", &process_file(&c, &process)], &[]).ok().json();
    assert_eq!(report["oom_score_adj"], 321);
    for set in ["bounding", "permitted", "effective"] {
        assert_eq!(report["caps"][set], json!(["CAP_CHOWN", "CAP_KILL"]), "{set}");
    }
}

#[test]
fn process_document_sets_umask() {
    known!("runc", "1.2", "exec takes umask from config.json only");
    let c = Container::new().idle().up();
    let user = json!({ "uid": 0, "gid": 0, "umask": 0o77 });
    let process = json!({ "args": ["guest", "report"], "cwd": "/", "env": ["PATH=/bin"], "user": user });
    assert_eq!(c.exec(&["-p", &process_file(&c, &process)], &[]).ok().json()["umask"], 0o77);
}

#[test]
fn process_document_chooses_the_processors() {
    known!("runc", "1.3", "process.execCPUAffinity is runtime-spec 1.2.1");
    if std::thread::available_parallelism().is_ok_and(|n| n.get() < 2) {
        skip!("needs two processors");
    }
    let process = |affinity: Option<Value>| {
        let mut process =
            json!({ "args": ["guest", "report"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
        if let Some(affinity) = affinity {
            process["execCPUAffinity"] = affinity;
        }
        process
    };
    let c = Container::new().idle().with("/process/execCPUAffinity", json!({ "initial": "1", "final": "0" })).up();
    // Not for the container's first process.
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
    assert!(!status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    let affinity = |process: Value| c.exec(&["-p", &process_file(&c, &process)], &[]).ok().json()["affinity"].clone();
    assert_eq!(affinity(process(Some(json!({ "initial": "0", "final": "1" })))), "1");
    // What the document leaves out is the container's, and so for a command line.
    assert_eq!(affinity(process(None)), "0");
    assert_eq!(c.exec(&[], &["guest", "report"]).ok().json()["affinity"], "0");
    // The first is kept where there is no second.
    assert_eq!(affinity(process(Some(json!({ "initial": "1" })))), "1");
    let far = process_file(&c, &process(Some(json!({ "final": "4000" }))));
    c.exec(&["-p", &far], &[]).fails(255, &["process.execCPUAffinity.final"]);
}

#[test]
fn process_document_has_a_scheduler_and_an_io_priority() {
    known!("runc", "1.2", "process.scheduler and ioPriority are runtime-spec 1.1");
    let scheduler = json!({ "policy": "SCHED_BATCH", "nice": 4 });
    let priority = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    let c = Container::new().idle().with("/process/scheduler", scheduler).with("/process/ioPriority", priority).up();
    let mut process =
        json!({ "args": ["guest", "report"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    let report = |process: &Value| c.exec(&["-p", &process_file(&c, process)], &[]).ok().json();
    let seen = report(&process);
    assert_eq!((&seen["scheduler"]["policy"], &seen["scheduler"]["nice"]), (&json!(3), &json!(4)), "the container's");
    assert_eq!(seen["ioprio"], json!([2, 6]), "the container's");
    process["scheduler"] = json!({ "policy": "SCHED_IDLE" });
    process["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
    let seen = report(&process);
    assert_eq!(seen["scheduler"]["policy"], 5, "the document's");
    assert_eq!(seen["ioprio"][0], 3, "the document's");
    process["scheduler"] = json!({ "policy": "SCHED_OTHER", "priority": 3 });
    c.exec(&["-p", &process_file(&c, &process)], &[]).fails(255, &["process.scheduler.priority"]);
}

#[test]
fn process_document_that_is_broken() {
    let c = Container::new().idle().up();
    let path = c.dir.join("broken.json");
    fs::write(&path, "{\n  \"args\": [,]\n}").expect("broken.json");
    let out = c.exec(&["--process", "broken.json"], &[]);
    out.fails(255, &["broken.json", "line 2"]);
    c.exec(&["--process", "missing.json"], &[]).fails(255, &["missing.json"]);
    let empty = process_file(&c, &json!({ "args": [], "cwd": "/" }));
    c.exec(&["--process", &empty], &[]).fails(255, &["args"]);
}

#[test]
fn detached_with_pid_file() {
    let c = Container::new().idle().up();
    let out = c.exec(&["--detach", "--pid-file", "pid"], &["sh", "-c", "echo up; sleep 3600"]).ok();
    out.wait_for("up");
    let pid = fs::read_to_string(c.dir.join("pid")).expect("pid file");
    let pids = c.call("ps", &["--format", "json"], &[]).ok().json();
    assert_eq!(pids, json!([c.pid(), pid.parse::<u32>().expect("no newline")]));
}

#[test]
fn pid_file_without_detach() {
    let c = Container::new().idle().up();
    c.exec(&["--pid-file", "pid"], &["true"]).ok();
    let pid = fs::read_to_string(c.dir.join("pid")).expect("BuildKit reads it");
    assert!(pid.parse::<u32>().is_ok(), "{pid:?}");
}

#[test]
fn tty_detached_through_a_console_socket() {
    let c = Container::new().idle().up();
    let socket = console_socket(&c.dir.join("s"));
    c.exec(&["--tty", "--detach", "--console-socket", "s"], &["sh", "-c", "tty; sleep 3600"]).ok();
    let (text, mut fds) = socket.join().expect("console socket");
    assert!((1..4096).contains(&text.len()), "{text:?}");
    assert_eq!(fds.len(), 1);
    let mut master = fds.remove(0).into();
    assert!(read_until(&mut master, "\n").contains("/dev/pts/"));
}

#[test]
fn tty_in_the_foreground() {
    let c = Container::new().idle().up();
    let mut pty = Pty::new(33, 77);
    let mut command = c.command("exec", &["-t"], &["sh", "-c", "tty; exit 9"]);
    command.stdin(pty.slave()).stdout(pty.slave()).stderr(pty.slave());
    let mut exec = Background::start_as_is(&mut command);
    let _ = pty.read_until("/dev/pts/");
    assert_eq!(exec.wait(), 9);
}

#[test]
fn tty_has_the_size_of_the_callers() {
    known!("runc", "1.2", "the first size is set after the program began, and can be lost");
    let c = Container::new().idle().up();
    let mut pty = Pty::new(33, 77);
    let mut command = c.command("exec", &["-t"], &["stty", "size"]);
    command.stdin(pty.slave()).stdout(pty.slave()).stderr(pty.slave());
    let _exec = Background::start_as_is(&mut command);
    let _ = pty.read_until("33 77");
}

#[test]
fn stdin_reaches_the_process() {
    let c = Container::new().idle().up();
    let script = "printf 'one\\ntwo\\n' | \"$@\"";
    assert_eq!(c.call_from_shell(script, "exec", &[], &["wc", "-l"]).ok().stdout.trim(), "2");
}

#[test]
fn paused_container_is_refused_unless_ignored() {
    let c = Container::new().idle().up();
    c.call("pause", &[], &[]).ok();
    c.exec(&[], &["true"]).fails(255, &["paused", "--ignore-paused"]);
    let pid = c.pid();
    // The new process joins a frozen cgroup, so it comes no further than that until somebody resumes.
    let mut exec = c.spawn("exec", &["--ignore-paused"], &["sh", "-c", "exit 6"]);
    until("a process in the paused container", || {
        cgroup_file(pid, "freezer", "cgroup.procs").is_some_and(|p| p.lines().count() > 1)
    });
    c.call("resume", &[], &[]).ok();
    assert_eq!(exec.wait(), 6);
}

#[test]
fn into_a_sub_cgroup() {
    if cgroup_v2() {
        skip!("on cgroup v2 a sub-cgroup beside processes needs the container to be threaded");
    }
    let c = Container::new().idle().up();
    let own = runtime_tests::cgroup_dir(c.pid(), "pids").expect("pids cgroup");
    fs::create_dir(own.join("sub")).expect("sub-cgroup");
    let report = c.exec_report(&["--cgroup", "pids:sub"]);
    let line =
        report["cgroup"].as_array().expect("list").iter().find(|l| l.as_str().is_some_and(|l| l.contains(":pids:")));
    assert!(line.and_then(Value::as_str).is_some_and(|l| l.ends_with("/sub")), "{report}");
    fs::remove_dir(own.join("sub")).expect("remove the sub-cgroup");
}

#[test]
fn sub_cgroup_cannot_leave_the_container() {
    let c = Container::new().idle().up();
    for path in ["../..", "memory:../..", "/../..", "sub/../../.."] {
        let out = c.exec(&["--cgroup", path], &["true"]);
        assert_eq!(out.code, 255, "--cgroup {path}: {out}");
    }
    c.exec(&["--cgroup", "missing"], &["true"]).fails(255, &["missing"]);
}

#[test]
fn a_relative_cwd_is_refused() {
    let c = Container::new().idle().up();
    c.exec(&["--cwd", "tmp"], &["true"]).fails(255, &["cwd", "absolute"]);
}

#[test]
fn orphans_of_an_exec_are_reaped_by_the_container() {
    let c = Container::new().sh("while :; do sleep 0.05; done").up();
    c.exec(&[], &["sh", "-c", "(sleep 0.1 &)"]).ok();
    until("only the first process and its sleep", || {
        c.call("ps", &["--format", "json"], &[]).ok().json().as_array().is_some_and(|p| p.len() <= 2)
    });
}
