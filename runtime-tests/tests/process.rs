//! `process` of config.json: what the program finds when it begins.

use runtime_tests::{Container, known};
use serde_json::{Value, json};

#[test]
fn arguments_and_environment_are_passed_whole() {
    let c = Container::new()
        .args(&["guest", "report", "", "two words", "ü", "line\nbreak"])
        .with("/process/env", json!(["PATH=/bin", "EMPTY=", "EQ=a=b", "TEXT=ü\n"]));
    let report = c.report();
    assert_eq!(report["argv"], json!(["guest", "report", "", "two words", "ü", "line\nbreak"]));
    let env = report["env"].as_array().expect("env");
    for variable in ["PATH=/bin", "EMPTY=", "EQ=a=b", "TEXT=ü\n"] {
        assert!(env.contains(&json!(variable)), "{variable:?}: {env:?}");
    }
}

#[test]
fn nothing_of_the_callers_environment_comes_in() {
    let c = Container::new();
    c.write_config();
    let mut call = c.command("run", &[], &[]);
    call.env("SECRET_OF_THE_HOST", "1");
    let report = runtime_tests::run(&mut call, &c.dir).ok().json();
    let env = report["env"].as_array().expect("env");
    let foreign =
        env.iter().filter_map(Value::as_str).find(|e| !["PATH=", "RT_ID=", "HOME="].iter().any(|n| e.starts_with(n)));
    assert_eq!(foreign, None);
}

#[test]
fn the_program_is_looked_up_in_the_containers_path() {
    let c = Container::new().with("/process/env", json!(["PATH=/nowhere:/opt/tools"])).args(&["tool"]);
    std::fs::create_dir_all(c.path("/opt/tools")).expect("directory");
    std::os::unix::fs::symlink("/bin/busybox", c.path("/opt/tools/tool")).expect("link");
    // busybox says that it has no such applet: so it ran.
    assert!(c.run(&[]).stderr.contains("applet not found"));
}

#[test]
fn home_is_set_from_passwd() {
    let home = |uid: u32| {
        let c = Container::new().sh("echo $HOME").with("/process/user/uid", json!(uid));
        c.run(&[]).ok().stdout
    };
    assert_eq!(home(0), "/root\n");
    assert_eq!(home(1000), "/home/alice\n");
    assert_eq!(home(4242), "/\n");
}

#[test]
fn user_and_groups() {
    let c = Container::new()
        .with("/process/user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6, 70_000], "umask": 0o27 }));
    let report = c.report();
    assert_eq!(report["uids"], json!([1000, 1000, 1000, 1000]));
    assert_eq!(report["gids"], json!([1001, 1001, 1001, 1001]));
    assert_eq!(report["groups"], json!([5, 6, 70_000]));
    assert_eq!(report["umask"], 0o27);
}

#[test]
fn groups_of_the_caller_stay_if_asked() {
    known!("runc", "*", "an annotation of crun's");
    let with = |value: &str| Container::new().with("/annotations", json!({ "run.oci.keep_original_groups": value }));
    let groups = |c: &Container, command, rest: &[&str]| {
        c.write_config();
        let out = c.call_from_shell("exec setpriv --groups 4321,5432 -- \"$@\"", command, &[], rest).ok();
        out.json()["groups"].clone()
    };
    assert_eq!(groups(&with("1"), "run", &[]), json!([4321, 5432]));
    assert_eq!(groups(&with("0"), "run", &[]), json!([]));
    let c = with("1").with("/process/user", json!({ "uid": 1000, "gid": 1000, "additionalGids": [7] }));
    assert_eq!(groups(&c, "run", &[]), json!([4321, 5432]));
    assert!(c.run(&[]).ok().stderr.contains("process.user.additionalGids: [7] are left out"));
    // Each exec has those of whoever calls it.
    let c = c.idle().up();
    assert_eq!(groups(&c, "exec", &["guest", "report"]), json!([4321, 5432]));
    let c = with("0").idle().up();
    assert_eq!(groups(&c, "exec", &["guest", "report"]), json!([]));
}

#[test]
fn no_groups_of_the_caller_stay() {
    assert_eq!(Container::new().report()["groups"], json!([]));
}

#[test]
fn umask_is_022_by_default() {
    assert_eq!(Container::new().report()["umask"], 0o22);
}

#[test]
fn stdio_belongs_to_the_user() {
    // /dev/stdout reopened: what logging to it does in many images.
    let c = Container::new().sh("echo through > /dev/stdout").with("/process/user/uid", json!(1000));
    c.write_config();
    assert_eq!(c.call_from_shell("\"$@\" | cat", "run", &[], &[]).ok().stdout, "through\n");
}

#[test]
fn cwd_is_made_when_missing() {
    let report = Container::new().with("/process/cwd", json!("/not/yet/there")).report();
    assert_eq!(report["cwd"], "/not/yet/there");
}

#[test]
fn cwd_through_a_link_of_the_image() {
    let c = Container::new().with("/process/cwd", json!("/link"));
    std::os::unix::fs::symlink("/tmp", c.path("/link")).expect("link");
    assert_eq!(c.report()["cwd"], "/tmp");
}

#[test]
fn cwd_that_only_the_user_may_enter() {
    let c = Container::new().with("/process/user/uid", json!(1000)).with("/process/cwd", json!("/private"));
    std::fs::create_dir(c.path("/private")).expect("directory");
    std::os::unix::fs::chown(c.path("/private"), Some(1000), None).expect("chown");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(c.path("/private"), std::fs::Permissions::from_mode(0o700)).expect("chmod");
    assert_eq!(c.report()["cwd"], "/private");
}

#[test]
fn cwd_that_root_may_enter_and_the_user_may_not() {
    // The same without being the owner: CAP_DAC_OVERRIDE is given up before the program, not before chdir.
    let c = Container::new().with("/process/user/uid", json!(1000)).with("/process/cwd", json!("/root"));
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(c.path("/root"), std::fs::Permissions::from_mode(0o700)).expect("chmod");
    let out = c.args(&["true"]).run(&[]);
    assert!(out.code == 0 || out.stderr.contains("/root"), "enters or names the directory: {out}");
}

#[test]
fn rlimits() {
    let limits = json!([
        { "type": "RLIMIT_CORE", "soft": 1, "hard": 2 }, { "type": "RLIMIT_CPU", "soft": 100, "hard": 200 },
        { "type": "RLIMIT_DATA", "soft": 1u64 << 33, "hard": 1u64 << 34 }, { "type": "RLIMIT_FSIZE", "soft": 1 << 20, "hard": 1 << 21 },
        { "type": "RLIMIT_LOCKS", "soft": 11, "hard": 12 }, { "type": "RLIMIT_MEMLOCK", "soft": 4096, "hard": 8192 },
        { "type": "RLIMIT_MSGQUEUE", "soft": 1024, "hard": 2048 }, { "type": "RLIMIT_NICE", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_NOFILE", "soft": 50, "hard": 60 }, { "type": "RLIMIT_NPROC", "soft": 1000, "hard": 1001 },
        { "type": "RLIMIT_RSS", "soft": 1 << 30, "hard": 1 << 30 }, { "type": "RLIMIT_RTPRIO", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_RTTIME", "soft": 1000, "hard": 2000 }, { "type": "RLIMIT_SIGPENDING", "soft": 20, "hard": 30 },
        { "type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 1 << 23 }, { "type": "RLIMIT_AS", "soft": 1u64 << 35, "hard": u64::MAX },
    ]);
    let c = Container::new().with("/process/rlimits", limits.clone());
    let report = c.report();
    for limit in limits.as_array().expect("list") {
        let name = limit["type"].as_str().expect("type");
        // u64::MAX is RLIM_INFINITY, which the report shows as null.
        let unlimited = |v: &Value| if v.as_u64() == Some(u64::MAX) { Value::Null } else { v.clone() };
        assert_eq!(report["rlimits"][name], json!([unlimited(&limit["soft"]), unlimited(&limit["hard"])]), "{name}");
    }
}

#[test]
fn an_unknown_rlimit_is_refused() {
    let c = Container::new().with("/process/rlimits", json!([{ "type": "RLIMIT_NOPE", "soft": 1, "hard": 1 }]));
    c.run(&[]).fails(1, &["process.rlimits", "RLIMIT_NOPE"]);
}

#[test]
fn an_rlimit_given_twice_is_refused() {
    let twice =
        json!([{ "type": "RLIMIT_CORE", "soft": 1, "hard": 1 }, { "type": "RLIMIT_CORE", "soft": 2, "hard": 2 }]);
    Container::new().with("/process/rlimits", twice).run(&[]).fails(1, &["process.rlimits", "RLIMIT_CORE"]);
}

#[test]
fn an_rlimit_that_may_not_be_raised_is_named() {
    if has_capability(24) {
        runtime_tests::skip!("with CAP_SYS_RESOURCE every limit can be raised");
    }
    let limits = json!([{ "type": "RLIMIT_SIGPENDING", "soft": u64::MAX, "hard": u64::MAX }]);
    Container::new()
        .with("/process/rlimits", limits)
        .run(&[])
        .fails(1, &["process.rlimits", "RLIMIT_SIGPENDING", "CAP_SYS_RESOURCE"]);
}

/// Whether this process has a capability, by its number.
fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:")).expect("CapEff");
    u64::from_str_radix(line.trim(), 16).expect("a hexadecimal mask") & (1 << number) != 0
}

#[test]
fn capability_sets() {
    let c = Container::new()
        .with(
            "/process/capabilities",
            json!({
                "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID"],
                "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
                "effective": ["CAP_CHOWN"],
                "inheritable": ["CAP_KILL"],
                "ambient": [],
            }),
        )
        .with("/process/user/uid", json!(0));
    let report = c.report();
    assert_eq!(report["caps"]["bounding"], json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"]));
    assert_eq!(report["caps"]["inheritable"], json!(["CAP_KILL"]));
    // execve as root with no_new_privs gives no more than was permitted; without file capabilities, root's permitted set
    // is inheritable | bounding, but no_new_privs does not let it grow.
    let permitted = report["caps"]["permitted"].as_array().expect("permitted");
    assert!(
        permitted.iter().all(|c| ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"].contains(&c.as_str().unwrap_or("?"))),
        "{report}"
    );
}

#[test]
fn no_capabilities() {
    let c = Container::new().with("/process/capabilities", json!({})).with("/process/noNewPrivileges", json!(false));
    let report = c.report();
    for set in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
        assert_eq!(report["caps"][set], json!([]), "{set}");
    }
}

#[test]
fn ambient_capabilities_survive_a_change_of_user() {
    let sets = ["bounding", "permitted", "effective", "inheritable", "ambient"];
    let mut c = Container::new().with("/process/user/uid", json!(1000));
    for set in sets {
        c = c.with(&format!("/process/capabilities/{set}"), json!(["CAP_NET_BIND_SERVICE"]));
    }
    let report = c.report();
    for set in sets {
        assert_eq!(report["caps"][set], json!(["CAP_NET_BIND_SERVICE"]), "{set}");
    }
}

#[test]
fn a_user_without_ambient_has_none() {
    let report = Container::new().with("/process/user/uid", json!(1000)).report();
    assert_eq!(report["caps"]["permitted"], json!([]));
    assert_eq!(report["caps"]["effective"], json!([]));
    assert_ne!(report["caps"]["bounding"], json!([]));
}

#[test]
fn cve_2022_29162_inheritable_is_empty_unless_asked_for() {
    assert_eq!(Container::new().report()["caps"]["inheritable"], json!([]));
}

#[test]
fn an_unknown_capability_is_a_warning() {
    let c = Container::new().caps(&["CAP_KILL", "CAP_NO_SUCH"]);
    let out = c.run(&[]).ok();
    assert!(out.stderr.contains("CAP_NO_SUCH"), "{out}");
    assert_eq!(out.json()["caps"]["bounding"], json!(["CAP_KILL"]));
}

#[test]
fn a_capability_the_caller_lacks_is_a_warning() {
    known!("runc", "1.2", "a capability that cannot be granted is an error before runtime-spec 1.3");
    if has_capability(24) {
        runtime_tests::skip!("the caller has CAP_SYS_RESOURCE");
    }
    let out = Container::new().caps(&["CAP_KILL", "CAP_SYS_RESOURCE"]).run(&[]).ok();
    assert!(out.stderr.contains("CAP_SYS_RESOURCE"), "{out}");
    assert_eq!(out.json()["caps"]["effective"], json!(["CAP_KILL"]));
}

#[test]
fn no_new_privileges() {
    assert_eq!(Container::new().report()["no_new_privs"], true);
    assert_eq!(Container::new().with("/process/noNewPrivileges", json!(false)).report()["no_new_privs"], false);
}

#[test]
fn oom_score_adj() {
    assert_eq!(Container::new().with("/process/oomScoreAdj", json!(321)).report()["oom_score_adj"], 321);
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").expect("oom_score_adj");
    assert_eq!(Container::new().report()["oom_score_adj"].to_string(), own.trim());
}

#[test]
fn oom_score_adj_that_may_not_be_lowered_is_named() {
    if has_capability(24) {
        runtime_tests::skip!("with CAP_SYS_RESOURCE it can be lowered");
    }
    Container::new()
        .with("/process/oomScoreAdj", json!(-500))
        .run(&[])
        .fails(1, &["process.oomScoreAdj", "CAP_SYS_RESOURCE"]);
}

#[test]
fn scheduler() {
    known!("runc", "1.2", "process.scheduler is runtime-spec 1.1");
    let batch = Container::new().with("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 })).report();
    assert_eq!(batch["scheduler"]["policy"], 3);
    assert_eq!(batch["scheduler"]["nice"], 5);
    let idle = Container::new().with("/process/scheduler", json!({ "policy": "SCHED_IDLE" })).report();
    assert_eq!(idle["scheduler"]["policy"], 5);
    let flags = json!({ "policy": "SCHED_OTHER", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    assert_eq!(Container::new().with("/process/scheduler", flags).report()["scheduler"]["flags"], 1);
}

#[test]
fn scheduler_in_real_time() {
    known!("runc", "1.2", "process.scheduler is runtime-spec 1.1");
    // A cgroup v1 with CONFIG_RT_GROUP_SCHED has no real-time budget of its own until told.
    let mut c = Container::new().with("/process/scheduler", json!({ "policy": "SCHED_FIFO", "priority": 7 }));
    if !runtime_tests::cgroup_v2() {
        c = c.with("/linux/resources/cpu", json!({ "realtimeRuntime": 10_000, "realtimePeriod": 1_000_000 }));
    }
    let report = c.report();
    assert_eq!(report["scheduler"]["policy"], 1);
    assert_eq!(report["scheduler"]["priority"], 7);
}

#[test]
fn scheduler_that_is_unknown() {
    known!("runc", "1.2", "process.scheduler is runtime-spec 1.1");
    let c = Container::new().with("/process/scheduler", json!({ "policy": "SCHED_NOPE" }));
    c.run(&[]).fails(1, &["scheduler", "SCHED_NOPE"]);
}

#[test]
fn io_priority() {
    known!("runc", "1.2", "process.ioPriority is runtime-spec 1.1");
    let with = |class: &str, level: u32| {
        let c = Container::new().with("/process/ioPriority", json!({ "class": class, "priority": level }));
        c.report()["ioprio"].clone()
    };
    assert_eq!(with("IOPRIO_CLASS_BE", 3), json!([2, 3]));
    assert_eq!(with("IOPRIO_CLASS_RT", 1), json!([1, 1]));
    assert_eq!(with("IOPRIO_CLASS_IDLE", 0)[0], 3);
}

#[test]
fn personality() {
    known!("runc", "1.2", "linux.personality came with runc 1.2");
    let c = Container::new().with("/linux/personality", json!({ "domain": "LINUX32" }));
    let report = c.report();
    assert_eq!(report["personality"], 8);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(report["machine"], "i686");
    }
    assert_eq!(Container::new().with("/linux/personality", json!({ "domain": "LINUX" })).report()["personality"], 0);
}

#[test]
fn signals_are_as_a_new_program_expects() {
    let report = Container::new().report();
    assert_eq!(report["sig_blocked"], json!([]));
    // SIGPIPE is the guest's own doing: its language ignores it before main. What the caller ignores stays so, as under nohup.
    let status = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let callers = status.lines().find_map(|l| l.strip_prefix("SigIgn:")).expect("SigIgn");
    let callers = u64::from_str_radix(callers.trim(), 16).expect("hexadecimal");
    let expected = |s: u64| s == 13 || s >= 32 || callers >> (s - 1) & 1 == 1;
    let ignored = report["sig_ignored"].as_array().expect("list");
    assert!(ignored.iter().all(|s| s.as_u64().is_some_and(expected)), "{ignored:?}");
}

#[test]
fn session_keyring_is_new_and_named() {
    let c = Container::new();
    let keyring = c.report()["session_keyring"].clone();
    assert!(keyring.as_str().is_some_and(|k| k.ends_with(&format!(";_ses.{}", c.id))), "{keyring}");
}

#[test]
fn no_new_keyring() {
    let c = Container::new();
    let out = c.run(&["--no-new-keyring"]).ok().json();
    assert!(!out["session_keyring"].as_str().is_some_and(|k| k.contains(&c.id)), "{}", out["session_keyring"]);
}

#[test]
fn the_program_leads_its_session() {
    let report = Container::new().report();
    assert_eq!([&report["pid"], &report["sid"], &report["pgid"]], [1, 1, 1]);
}
