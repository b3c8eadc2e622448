//! `linux.seccomp`: what a container's programs may ask of the kernel.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use runtime_tests::{Container, known, receive, run};
use serde_json::{Value, json};

const NATIVE: &str = if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };

/// A profile that allows what it does not name.
fn denying(rules: &[Value]) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": [NATIVE], "syscalls": rules })
}

fn rule(names: &[&str], action: &str) -> Value {
    json!({ "names": names, "action": action })
}

/// A profile that denies what it does not name, for programs that make few calls.
fn allowing(default: &str, names: &[&str]) -> Value {
    json!({ "defaultAction": default, "architectures": [NATIVE], "syscalls": [rule(names, "SCMP_ACT_ALLOW")] })
}

/// What `guest call` and busybox need besides the calls under test, and runc for itself.
const NEEDED: [&str; 73] = [
    "execve",
    "exit_group",
    "exit",
    "read",
    "write",
    "writev",
    "open",
    "openat",
    "close",
    "fstat",
    "newfstatat",
    "stat",
    "lseek",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "brk",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "ioctl",
    "poll",
    "ppoll",
    "futex",
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "prlimit64",
    "getrandom",
    "rseq",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getpid",
    "getppid",
    "gettid",
    "tkill",
    "fcntl",
    "dup2",
    "madvise",
    "sched_getaffinity",
    "fstatfs",
    "statfs",
    "getdents64",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "nanosleep",
    "clone",
    "sched_yield",
    "tgkill",
    "prctl",
    "capget",
    "capset",
    "setuid",
    "setgid",
    "setgroups",
    "setresuid",
    "setresgid",
    "chdir",
    "fchdir",
    "getcwd",
    "faccessat",
    "faccessat2",
    "readlinkat",
    "umask",
    "pipe2",
    "eventfd2",
    "pread64",
    "waitid",
];

fn with(profile: Value) -> Container {
    Container::new().with("/linux/seccomp", profile)
}

/// The results of the guest's system calls under a profile, each `NR:ARG...`.
fn calls(profile: Value, calls: &[String]) -> Value {
    let args: Vec<&str> = calls.iter().map(String::as_str).collect();
    with(profile).args(&[&["guest", "call"], &args[..]].concat()).report()
}

fn call(number: libc::c_long, args: &[u64]) -> String {
    args.iter().fold(number.to_string(), |text, arg| format!("{text}:{}", *arg as i64))
}

#[test]
fn an_action_errno_has_the_number_asked_for() {
    let rules = [
        rule(&["getppid"], "SCMP_ACT_ERRNO"),
        json!({ "names": ["getpgrp", "getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSPC }),
    ];
    let asked = [call(libc::SYS_getppid, &[]), call(libc::SYS_getsid, &[0]), call(libc::SYS_getpid, &[])];
    assert_eq!(calls(denying(&rules), &asked), json!(["EPERM", "ENOSPC", 1]));
}

#[test]
fn the_default_errno_is_the_profiles() {
    known!("runc", "1.1", "defaultErrnoRet is runtime-spec 1.0.3");
    let mut profile = allowing("SCMP_ACT_ERRNO", &NEEDED);
    profile["defaultErrnoRet"] = json!(libc::EXDEV);
    assert_eq!(calls(profile, &[call(libc::SYS_getsid, &[0])]), json!(["EXDEV"]));
}

#[test]
fn a_call_newer_than_the_profile_does_not_exist() {
    // The newest one that it names is faccessat2, 439; 462 is mseal.
    let profile = allowing("SCMP_ACT_ERRNO", &NEEDED);
    let asked = [call(462, &[]), call(100_000, &[]), call(libc::SYS_getsid, &[0])];
    assert_eq!(calls(profile, &asked), json!(["ENOSYS", "ENOSYS", "EPERM"]));
}

#[test]
fn killing_actions_end_the_process_with_sigsys() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let out = with(denying(&[rule(&["getsid"], action)]))
            .args(&["guest", "call", &call(libc::SYS_getsid, &[0])])
            .run(&[]);
        assert_eq!(out.code, 128 + libc::SIGSYS, "{action}: {out}");
    }
}

#[test]
fn a_trap_can_be_caught() {
    // The shell's own kill, so that the signal is its.
    let c = with(denying(&[rule(&["kill"], "SCMP_ACT_TRAP")])).sh("trap 'echo caught' SYS; kill -0 1; echo on");
    let out = c.run(&[]).ok();
    assert!(out.stdout.contains("caught") && out.stdout.contains("on"), "{out}");
}

#[test]
fn logged_calls_happen_and_traced_ones_need_a_tracer() {
    let rules = [rule(&["getppid"], "SCMP_ACT_LOG"), rule(&["getsid"], "SCMP_ACT_TRACE")];
    let asked = [call(libc::SYS_getppid, &[]), call(libc::SYS_getsid, &[0])];
    // getppid is 0: the parent is in no pid namespace of the container's.
    assert_eq!(calls(denying(&rules), &asked), json!([0, "ENOSYS"]));
}

#[test]
fn conditions_are_on_64_bits_and_all_have_to_hold() {
    let argument = |index: u64, op: &str, value: u64, two: u64| json!({ "index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": two });
    const BIG: u64 = 1 << 32;
    // Every operator on dup(fd)'s argument, which is answered with its own errno: -1 is never open, so EBADF is what is not filtered.
    // The operator, its two values, arguments for which it holds, and others.
    type Case = (&'static str, u64, u64, &'static [u64], &'static [u64]);
    let cases: [Case; 7] = [
        ("EQ", BIG + 7, 0, &[BIG + 7], &[7, BIG, 2 * BIG + 7]),
        ("NE", BIG + 7, 0, &[7 + 2 * BIG, BIG + 8], &[BIG + 7]),
        ("LT", BIG + 7, 0, &[BIG + 6, u64::MAX >> 40 << 8], &[BIG + 7, 2 * BIG]),
        ("LE", BIG + 7, 0, &[BIG + 7, 900], &[BIG + 8, 2 * BIG]),
        ("GE", BIG + 7, 0, &[BIG + 7, 2 * BIG], &[BIG + 6, 900]),
        ("GT", BIG + 7, 0, &[BIG + 8, 2 * BIG], &[BIG + 7, 900]),
        ("MASKED_EQ", BIG + 8, 8, &[8 + 900 * 16, 2 * BIG + 8 + 4096], &[BIG + 8, 4096 * 16]),
    ];
    for (op, value, two, holds, fails) in cases {
        let mut rule = json!({ "names": ["dup"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSPC });
        rule["args"] = json!([argument(0, op, value, two)]);
        let asked: Vec<String> = holds.iter().chain(fails).map(|arg| call(libc::SYS_dup, &[*arg])).collect();
        let result = calls(denying(&[rule]), &asked);
        let (matched, free) = result.as_array().expect("a list").split_at(holds.len());
        assert!(matched.iter().all(|r| r == "ENOSPC"), "{op} {holds:?}: {result}");
        assert!(free.iter().all(|r| r != "ENOSPC"), "{op} {fails:?}: {result}");
    }
    let mut both = json!({ "names": ["dup3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSPC });
    both["args"] = json!([argument(0, "EQ", 900, 0), argument(2, "EQ", 1, 0)]);
    let asked = [[900, 901, 1], [900, 901, 0], [901, 902, 1]].map(|args| call(libc::SYS_dup3, &args));
    let result = calls(denying(&[both]), &asked);
    assert_eq!(result[0], "ENOSPC");
    assert!(result[1] != "ENOSPC" && result[2] != "ENOSPC", "{result}");
}

#[test]
fn several_rules_for_one_call_are_alternatives() {
    let personality = |value: u64, errno: i32| {
        json!({ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
                "args": [{ "index": 0, "op": "SCMP_CMP_EQ", "value": value }] })
    };
    let rules = [personality(8, libc::ENOSPC), personality(0x20008, libc::EXDEV)];
    let asked = [8, 0x20008, 0xffff_ffff].map(|value| call(libc::SYS_personality, &[value]));
    assert_eq!(calls(denying(&rules), &asked), json!(["ENOSPC", "EXDEV", 0]));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_32_bit_call_is_filtered_when_x86_is_listed_and_kills_when_it_is_not() {
    let mut profile = denying(&[rule(&["getppid"], "SCMP_ACT_ERRNO")]);
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    // 64 is getppid for a 32-bit program, 20 getpid.
    let both = ["i386:64".into(), "i386:20".into(), call(libc::SYS_getppid, &[])];
    let free = Container::new().args(&["guest", "call", "i386:20"]).run(&[]);
    if free.code != 0 {
        runtime_tests::skip!("this kernel runs no 32-bit programs");
    }
    assert_eq!(calls(profile, &both), json!(["EPERM", 1, "EPERM"]));
    let out = with(denying(&[])).args(&["guest", "call", "i386:20"]).run(&[]);
    assert_eq!(out.code, 128 + libc::SIGSYS, "{out}");
    // The x32 way in.
    let out = with(denying(&[])).args(&["guest", "call", &(0x4000_0000 + libc::SYS_getpid).to_string()]).run(&[]);
    assert_eq!(out.code, 128 + libc::SIGSYS, "{out}");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_socket_rule_cannot_be_gone_around_by_socketcall() {
    let mut profile = denying(&[rule(&["bind"], "SCMP_ACT_ERRNO")]);
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    // bind is 361 by itself, and number 2 of socketcall, which is 102; with null pointers both fail otherwise.
    let asked = ["i386:361:-1".into(), "i386:102:2".into(), "i386:102:4".into(), call(libc::SYS_bind, &[0])];
    let result = calls(profile, &asked);
    assert_eq!(result, json!(["EPERM", "EPERM", "EFAULT", "EPERM"]));
}

#[test]
fn exec_is_under_the_containers_filter() {
    let c = with(denying(&[json!({ "names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSPC })]))
        .idle()
        .up();
    let asked = call(libc::SYS_getsid, &[0]);
    assert_eq!(c.exec(&[], &["guest", "call", &asked]).ok().json(), json!(["ENOSPC"]));
    assert_eq!(c.exec_report(&[])["seccomp"], 2);
    // By a document of its own, as engines do, and without no_new_privs as another user.
    let document = json!({ "args": ["guest", "call", asked], "cwd": "/", "user": { "uid": 1000, "gid": 1000 },
                           "env": ["PATH=/bin"], "noNewPrivileges": false });
    let file = c.dir.join("process.json");
    fs::write(&file, document.to_string()).expect("process document");
    let out = c.exec(&["--process", file.to_str().expect("text")], &[]).ok();
    assert_eq!(out.json(), json!(["ENOSPC"]));
}

#[test]
fn a_filter_needs_no_no_new_privs_and_leaves_no_capability() {
    for (uid, caps) in [(0, &["CAP_KILL"][..]), (1000, &[]), (0, &["CAP_SYS_ADMIN", "CAP_KILL"])] {
        let c = with(denying(&[rule(&["getsid"], "SCMP_ACT_ERRNO")]))
            .with("/process/noNewPrivileges", json!(false))
            .with("/process/user", json!({ "uid": uid, "gid": uid }))
            .caps(caps);
        let report = c.report();
        assert_eq!((&report["seccomp"], &report["no_new_privs"]), (&json!(2), &json!(false)), "{uid}");
        let expected: Vec<&str> = if uid == 0 { caps.to_vec() } else { Vec::new() };
        for set in ["permitted", "effective"] {
            let mut given: Vec<&str> =
                report["caps"][set].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            given.sort_unstable_by_key(|name| std::cmp::Reverse(*name));
            assert_eq!(given, expected, "{set} of {uid}");
        }
    }
}

#[test]
fn ambient_capabilities_survive_beside_a_filter() {
    let mut c = with(denying(&[rule(&["getsid"], "SCMP_ACT_ERRNO")]))
        .with("/process/noNewPrivileges", json!(false))
        .with("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .caps(&["CAP_KILL"]);
    for set in ["inheritable", "ambient"] {
        c.config["process"]["capabilities"][set] = json!(["CAP_KILL"]);
    }
    let report = c.report();
    for set in ["permitted", "effective", "ambient"] {
        assert_eq!(report["caps"][set], json!(["CAP_KILL"]), "{set}");
    }
}

#[test]
fn the_runtime_asks_nothing_of_a_strict_profile() {
    known!("runc", "*", "makes some thirty calls of its own under the filter");
    // As little as the program can do with: no call of ours is in it, and KILL_PROCESS would tell.
    let few = [
        "execve",
        "exit_group",
        "write",
        "writev",
        "arch_prctl",
        "set_tid_address",
        "brk",
        "prctl",
        "mmap",
        "mprotect",
        "getuid",
        "ioctl",
        "readlink",
        "readlinkat",
        "newfstatat",
        "fstat",
        "getrandom",
        "prlimit64",
        "rseq",
        "set_robust_list",
        "uname",
    ];
    let strict = allowing("SCMP_ACT_KILL_PROCESS", &few);
    for nnp in [true, false] {
        let c = with(strict.clone()).with("/process/noNewPrivileges", json!(nnp)).args(&["echo", "alive"]);
        assert_eq!(c.run(&[]).ok().stdout, "alive\n", "no_new_privs {nnp}");
    }
    // The same by create, start, and exec.
    let names = [&few[..], &["nanosleep", "clock_nanosleep"]].concat();
    let c = with(allowing("SCMP_ACT_KILL_PROCESS", &names)).with("/process/noNewPrivileges", json!(false)).idle().up();
    assert_eq!(c.exec(&[], &["echo", "alive"]).ok().stdout, "alive\n");
}

#[test]
fn start_container_hooks_are_under_the_filter() {
    for nnp in [true, false] {
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "mkdir /tmp/made"], "env": ["PATH=/bin"] });
        let c = with(denying(&[rule(&["mkdir", "mkdirat"], "SCMP_ACT_KILL")]))
            .with("/process/noNewPrivileges", json!(nnp))
            .with("/hooks/startContainer", json!([hook]))
            .args(&["true"]);
        let out = c.run(&[]);
        assert!(out.code != 0 && !c.path("/tmp/made").exists(), "no_new_privs {nnp}: {out}");
        assert!(out.stderr.contains("hook"), "{out}");
    }
    // And without a rule against it the same hook works, on the same way.
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "mkdir /tmp/made"], "env": ["PATH=/bin"] });
    let c = with(denying(&[rule(&["getsid"], "SCMP_ACT_KILL")]))
        .with("/hooks/startContainer", json!([hook]))
        .args(&["true"]);
    c.run(&[]).ok();
    assert!(c.path("/tmp/made").is_dir());
}

#[test]
fn unknown_names_and_architectures_of_other_machines_are_left_out() {
    let mut profile = denying(&[rule(&["no_such_call", "getppid"], "SCMP_ACT_ERRNO")]);
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X86"]);
    assert_eq!(calls(profile, &[call(libc::SYS_getppid, &[])]), json!(["EPERM"]));
}

#[test]
fn a_program_can_add_a_filter_of_its_own() {
    // Docker in Docker: rrt under a filter, as root without no_new_privs.
    let c = with(denying(&[rule(&["getsid"], "SCMP_ACT_ERRNO")])).args(&["guest", "report"]);
    assert_eq!(c.report()["seccomp"], 2);
}

/// An agent: answers every notification with ENOSPC until its listener's other side is gone. Returns the document, and how many
/// it answered.
fn agent(path: &Path) -> JoinHandle<(Value, usize)> {
    let socket = UnixListener::bind(path).expect("agent's socket");
    socket.set_nonblocking(true).expect("agent's socket");
    std::thread::spawn(move || {
        let end = Instant::now() + Duration::from_secs(30);
        let peer = loop {
            match socket.accept() {
                Ok((peer, _)) => break peer,
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Err(e) => panic!("nobody came to the agent: {e}"),
            }
        };
        peer.set_nonblocking(false).expect("agent's connection");
        let (text, mut fds) = receive(&peer);
        assert_eq!(fds.len(), 1, "one listener");
        (serde_json::from_str(&text).expect("a ContainerProcessState"), answer(&fds.remove(0)))
    })
}

/// Answers until nobody is under the filter any more (seccomp_unotify(2)).
fn answer(listener: &OwnedFd) -> usize {
    let mut answered = 0;
    loop {
        let mut poll = [nix::libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: one pollfd, and it lives. poll(2)
        let ready = unsafe { libc::poll(poll.as_mut_ptr(), 1, 30_000) };
        assert!(ready > 0, "the filter's last process neither calls nor ends");
        if poll[0].revents & libc::POLLIN == 0 {
            return answered;
        }
        // SAFETY: all of its fields are numbers, and the kernel wants it to be zeros. seccomp_unotify(2)
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the struct of this request, and it lives. seccomp_unotify(2)
        let got = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
        if got != 0 {
            continue;
        }
        let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error: -libc::ENOSPC, flags: 0 };
        // SAFETY: as above.
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
        answered += 1;
    }
}

/// A container whose `mkdir` an agent answers, and the agent's socket.
fn notifying() -> (Container, PathBuf) {
    let c = Container::new();
    let socket = c.dir.join("agent.sock");
    let mut profile = denying(&[rule(&["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY")]);
    profile["listenerPath"] = json!(socket);
    profile["listenerMetadata"] = json!("some \"data\"");
    (c.with("/linux/seccomp", profile).with("/annotations", json!({ "a": "b" })), socket)
}

#[test]
fn an_agent_answers_and_is_told_who_asks() {
    for nnp in [true, false] {
        let (c, socket) = notifying();
        let agent = agent(&socket);
        let c = c
            .with("/process/noNewPrivileges", json!(nnp))
            .args(&["guest", "try", "mkdir", "/tmp/x", "mkdir", "/tmp/y"]);
        assert_eq!(c.report(), json!(["ENOSPC", "ENOSPC"]), "no_new_privs {nnp}");
        let (state, answered) = agent.join().expect("the agent");
        assert_eq!(answered, 2);
        assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("some \"data\"")));
        assert_eq!((&state["state"]["id"], &state["state"]["annotations"]["a"]), (&json!(c.id), &json!("b")));
        assert_eq!(state["pid"], state["state"]["pid"], "{state}");
        assert!(state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), "{state}");
        let status = state["state"]["status"].as_str().expect("a status");
        assert!(["creating", "created"].contains(&status), "{state}");
    }
}

#[test]
fn an_agent_answers_for_create_and_start_and_for_exec() {
    let (c, socket) = notifying();
    let for_init = agent(&socket);
    let c = c.idle().up();
    let pid = c.pid();
    fs::remove_file(&socket).expect("the agent's socket");
    let for_exec = agent(&socket);
    assert_eq!(c.exec(&[], &["guest", "try", "mkdir", "/tmp/x"]).ok().json(), json!(["ENOSPC"]));
    let (state, answered) = for_exec.join().expect("the agent");
    assert_eq!(answered, 1);
    assert_eq!((&state["state"]["pid"], &state["state"]["status"]), (&json!(pid), &json!("running")), "{state}");
    assert!(state["pid"] != state["state"]["pid"], "{state}");
    c.kill("KILL").ok();
    assert_eq!(for_init.join().expect("the agent").1, 0);
}

#[test]
fn a_program_does_not_run_without_its_agent() {
    let (c, socket) = notifying();
    let out = c.run(&[]);
    assert!(out.code != 0 && out.stderr.contains("failed to connect with seccomp agent"), "{out}");
    // A socket that nobody listens on.
    drop(UnixListener::bind(&socket).expect("a socket"));
    let c = c.args(&["touch", "/tmp/ran"]);
    let out = c.run(&[]);
    assert!(out.code != 0 && out.stderr.contains("failed to connect with seccomp agent"), "{out}");
    assert!(!c.path("/tmp/ran").exists());
}

/// An agent that has stopped to look at its queue.
#[test]
fn an_agent_that_does_not_answer_is_not_waited_for_long() {
    known!("runc", "*", "waits for ever");
    let (c, socket) = notifying();
    let listener = UnixListener::bind(&socket).expect("agent's socket");
    // SAFETY: listen(2) takes integers only; a second call changes the length of the queue.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    // What fits into the queue: it is one more than was said.
    let _waiting = std::os::unix::net::UnixStream::connect(&socket).expect("the queue's only place");
    let begin = Instant::now();
    let out = c.args(&["touch", "/tmp/ran"]).run(&[]);
    assert!(out.code != 0 && out.stderr.contains("failed to connect with seccomp agent"), "{out}");
    assert!(out.stderr.contains("10s"), "{out}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn calls_of_the_setup_may_be_asked_about() {
    // execve itself, and read, by which the runtime waits: an agent that lets them happen.
    let (mut c, socket) = notifying();
    c.config["linux"]["seccomp"]["syscalls"][0]["names"] = json!(["execve", "read", "openat", "close", "fcntl"]);
    let listener = UnixListener::bind(&socket).expect("agent's socket");
    let agent = std::thread::spawn(move || {
        let (peer, _) = listener.accept().expect("a connection");
        let (_, fds) = receive(&peer);
        // A receive also fails when a thread of a multi-threaded runtime has ended before it was taken up (ENOENT): a few may.
        let mut failures = 0;
        while failures < 1000 {
            // SAFETY: zeros are what the kernel wants. seccomp_unotify(2)
            let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: the struct of this request, and it lives. seccomp_unotify(2)
            if unsafe { libc::ioctl(fds[0].as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } != 0 {
                failures += 1;
                continue;
            }
            let goes_on = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
            let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: goes_on };
            // SAFETY: as above.
            unsafe { libc::ioctl(fds[0].as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
        }
    });
    c.args(&["true"]).run(&[]).ok();
    drop(agent);
}

#[test]
fn flags_are_loaded() {
    known!("runc", "1.2", "knows no flags");
    for flags in [
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC"]),
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
    ] {
        let mut profile = denying(&[rule(&["getsid"], "SCMP_ACT_ERRNO")]);
        profile["flags"] = flags;
        assert_eq!(calls(profile, &[call(libc::SYS_getsid, &[0])]), json!(["EPERM"]));
    }
    known!("runc", "1.5", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV");
    let (c, socket) = notifying();
    let agent = agent(&socket);
    let mut c = c
        .with("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]))
        .args(&["guest", "try", "mkdir", "/x"]);
    c.flags.push("--debug".into());
    let out = c.run(&[]).ok();
    assert_eq!(out.json(), json!(["ENOSPC"]));
    // With that of the listener, as runc has it.
    assert!(out.stderr.contains("seccomp filter flags: 40"), "{out}");
    agent.join().expect("the agent");
}

#[test]
fn what_a_profile_cannot_say_is_named() {
    known!("runc", "*", "has other words");
    let args = |args: Value| {
        let mut rule = rule(&["read"], "SCMP_ACT_ERRNO");
        rule["args"] = args;
        denying(&[rule])
    };
    let add = |key: &str, value: Value| {
        let mut profile = denying(&[]);
        profile[key] = value;
        profile
    };
    for (profile, expected) in [
        (json!({ "syscalls": [rule(&["read"], "SCMP_ACT_KILL")] }), "linux.seccomp"),
        (json!({ "defaultAction": "SCMP_ACT_NOPE" }), "linux.seccomp.defaultAction: unknown variant `SCMP_ACT_NOPE`"),
        (json!({ "defaultAction": "SCMP_ACT_NOTIFY" }), "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used"),
        (denying(&[rule(&["read"], "KILL")]), "linux.seccomp.syscalls[0].action: unknown variant `KILL`"),
        (denying(&[rule(&["write"], "SCMP_ACT_NOTIFY")]), "SCMP_ACT_NOTIFY cannot be used for the write syscall"),
        (denying(&[rule(&["read"], "SCMP_ACT_NOTIFY")]), "linux.seccomp.listenerPath: missing"),
        (denying(&[rule(&[], "SCMP_ACT_KILL")]), "linux.seccomp.syscalls[0].names: is empty"),
        (
            add("architectures", json!(["SCMP_ARCH_Z80"])),
            "linux.seccomp.architectures[0]: unknown variant `SCMP_ARCH_Z80`",
        ),
        (add("flags", json!(["SECCOMP_FILTER_FLAG_X"])), "linux.seccomp.flags[0]: unknown variant"),
        (add("flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), "linux.seccomp.flags[0]"),
        (args(json!([{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }])), "linux.seccomp.syscalls[0].args[0].index: 6"),
        (
            args(json!([{ "index": 0, "value": 0, "op": "SCMP_CMP_IS" }])),
            "linux.seccomp.syscalls[0].args[0].op: unknown variant",
        ),
        (args(json!([{ "index": 0, "value": -1, "op": "SCMP_CMP_EQ" }])), "linux.seccomp.syscalls[0].args[0].value"),
        (json!({ "defaultAction": "SCMP_ACT_ERRNO" }), "linux.seccomp: denies `execve`"),
        (json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000 }), "linux.seccomp.defaultErrnoRet: 5000"),
    ] {
        let out = with(profile.clone()).run(&[]);
        assert!(out.code != 0 && out.stderr.contains(expected), "{profile}: {expected}: {out}");
    }
}

#[test]
fn annotations_of_crun_are_honoured() {
    known!("runc", "*", "has no such annotations");
    let profile = denying(&[rule(&["no_such_call"], "SCMP_ACT_ERRNO")]);
    let c = with(profile).with("/annotations", json!({ "run.oci.seccomp_fail_unknown_syscall": "1" }));
    let out = c.run(&[]);
    assert!(out.code != 0 && out.stderr.contains("no_such_call") && out.stderr.contains("is no system call"), "{out}");
    let (mut c, socket) = notifying();
    c.config["linux"]["seccomp"].as_object_mut().expect("a profile").remove("listenerPath");
    let agent = agent(&socket);
    let c = c
        .with("/annotations", json!({ "run.oci.seccomp.receiver": socket }))
        .args(&["guest", "try", "mkdir", "/tmp/x"]);
    assert_eq!(c.report(), json!(["ENOSPC"]));
    agent.join().expect("the agent");
}

#[test]
fn a_damaged_filter_of_a_container_is_refused() {
    known!("runc", "*", "compiles again");
    let c = with(denying(&[rule(&["getsid"], "SCMP_ACT_ERRNO")])).idle().up();
    let file = c.root.join(&c.id).join("seccomp.bpf");
    let program = fs::read(&file).expect("the kept filter");
    fs::write(&file, &program[..program.len() - 3]).expect("the kept filter");
    let out = c.exec(&[], &["true"]);
    assert!(out.code != 0 && out.stderr.contains("is damaged"), "{out}");
    fs::remove_file(&file).expect("the kept filter");
    let out = c.exec(&[], &["true"]);
    assert!(out.code != 0 && out.stderr.contains("seccomp.bpf"), "a container's exec without its filter: {out}");
}

/// `run.oci.seccomp_bpf_data` with a program that answers one system call with an errno.
fn raw(call: i64, errno: u32) -> String {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Load the number; unless it is the one, skip a step; errno; allow (seccomp(2), linux/filter.h).
    let number = u32::try_from(call).expect("a number");
    let program: [(u16, u8, u8, u32); 4] =
        [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x0005_0000 | errno), (0x06, 0, 0, 0x7fff_0000)];
    let mut bytes = Vec::new();
    for (code, jt, jf, k) in program {
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&[jt, jf]);
        bytes.extend_from_slice(&k.to_ne_bytes());
    }
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().chain([&0, &0]).take(3).fold(0u32, |all, byte| all << 8 | u32::from(*byte));
        for n in 0..4 {
            let symbol = SYMBOLS[(bits >> (18 - 6 * n) & 63) as usize];
            text.push(if n > group.len() { '=' } else { char::from(symbol) });
        }
    }
    text
}

#[test]
fn a_raw_program_stands_in_for_the_profile() {
    known!("runc", "*", "crun's annotation");
    let annotated = |program: String| {
        with(denying(&[rule(&["getppid"], "SCMP_ACT_ERRNO")]))
            .with("/annotations", json!({ "run.oci.seccomp_bpf_data": program }))
    };
    let both = [call(libc::SYS_getpid, &[]), call(libc::SYS_getppid, &[])];
    let program = raw(libc::SYS_getpid, libc::ENOSPC.unsigned_abs());
    // The profile would refuse getppid; the program refuses getpid.
    let c = annotated(program.clone()).args(&["guest", "call", &both[0], &both[1]]);
    assert_eq!(c.report(), json!(["ENOSPC", 0]));
    let c = annotated(program).idle().up();
    assert_eq!(c.exec(&[], &["guest", "call", &both[0]]).ok().json(), json!(["ENOSPC"]));
    assert_eq!(c.exec_report(&[])["seccomp"], 2);
    // What is none is named: by the plan, or by the kernel, which finds that the last instruction returns nothing.
    annotated("?".into()).run(&[]).fails(1, &["run.oci.seccomp_bpf_data", "base64"]);
    annotated("AAAA".into()).run(&[]).fails(1, &["run.oci.seccomp_bpf_data", "3 bytes"]);
    annotated("IAAAAAAAAAA=".into()).run(&[]).fails(1, &["run.oci.seccomp_bpf_data", "seccomp(", "Invalid argument"]);
}

#[test]
fn plan_shows_the_filter() {
    known!("runc", "*", "has no plan");
    let c = with(denying(&[rule(&["getsid", "nope"], "SCMP_ACT_ERRNO")]));
    c.write_config();
    let out = run(&mut c.command("plan", &[], &[]), &c.dir).ok();
    for expected in ["seccomp, loaded last: default SCMP_ACT_ALLOW", "rules for 2 names", NATIVE, "unknown nope"] {
        assert!(out.stdout.contains(expected), "{expected}: {out}");
    }
}

/// A user may not take an fd out of a process that other processes of its container see: the listener is brought by a process of
/// the container's, whatever the filter forbids or asks about.
#[test]
fn an_agent_answers_for_a_user() {
    const USER: u32 = 54_321;
    let notifying = |names: &[&str]| {
        let c = Container::new().rootless(USER);
        let socket = c.dir.join("agent.sock");
        let mut profile = denying(&[rule(names, "SCMP_ACT_NOTIFY"), rule(&["clone3", "socketpair"], "SCMP_ACT_ERRNO")]);
        profile["listenerPath"] = json!(socket);
        (c.with("/linux/seccomp", profile), socket)
    };
    let listen = |socket: &Path| {
        let agent = agent(socket);
        fs::set_permissions(socket, fs::Permissions::from_mode(0o777)).expect("the agent's socket");
        agent
    };
    let (c, socket) = notifying(&["mkdir", "mkdirat", "sendmsg"]);
    let for_init = listen(&socket);
    let c = c.idle().up();
    fs::remove_file(&socket).expect("the agent's socket");
    known!("runc", "*", "pidfd_getfd is refused to a user");
    for flags in [&[][..], &["--no-new-privs"]] {
        let for_exec = listen(&socket);
        // The program has no other children, and no fd of ours.
        let script = "mkdir /tmp/x; cat /proc/$$/task/$$/children; echo; ls /proc/$$/fd; :";
        let out = c.exec(flags, &["sh", "-c", script]).ok();
        assert!(out.stderr.contains("No space left"), "{out}");
        let (children, fds) = out.stdout.split_once('\n').unwrap_or(("", &out.stdout));
        assert_eq!((children.split_whitespace().count(), fds), (1, "0\n1\n2\n"), "{out}");
        let (state, answered) = for_exec.join().expect("the agent");
        assert_eq!((answered, &state["state"]["status"]), (1, &json!("running")), "{state}");
        fs::remove_file(&socket).expect("the agent's socket");
    }
    // Without an agent the program does not run, and nothing is left of the attempt.
    drop(UnixListener::bind(&socket).expect("a socket"));
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).expect("a socket");
    let out = c.exec(&[], &["touch", "/tmp/ran"]);
    assert!(out.code != 0 && out.stderr.contains("failed to connect with seccomp agent"), "{out}");
    assert!(!c.path("/tmp/ran").exists());
    let processes = c.call("ps", &["--format", "json"], &[]).ok().json();
    assert_eq!(processes.as_array().map(Vec::len), Some(1), "{processes}");
    c.kill("KILL").ok();
    assert_eq!(for_init.join().expect("the agent").1, 0);

    // And for an init that others see, as it has no pid namespace of its own: in `run`, and in `start`, which is not its parent.
    let seen = || {
        let (mut c, socket) = notifying(&["mkdir", "mkdirat"]);
        c.remove_namespace("pid");
        let agent = listen(&socket);
        (c.without_mount("/proc").mount("/proc", "bind", "/proc", &["rbind"]), agent)
    };
    let (c, agent) = seen();
    assert_eq!(c.args(&["guest", "try", "mkdir", "/tmp/x"]).report(), json!(["ENOSPC"]));
    agent.join().expect("the agent");
    let (c, agent) = seen();
    let c = c.idle().up();
    c.kill("KILL").ok();
    assert_eq!(agent.join().expect("the agent").1, 0);
}
