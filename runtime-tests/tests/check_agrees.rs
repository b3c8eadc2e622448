//! What `create` refuses, `check` has said before, with the same property: for mistakes of every kind.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use runtime_tests::{Container, cgroup_v2, known, skip};
use serde_json::{Value, json};

/// The default configuration is root's, and `check` has no flags for the cgroup driver here.
macro_rules! need_root {
    () => {
        known!("runc", "*", "has no check");
        if !rustix::process::geteuid().is_root() || !runtime_tests::runtime().flags.is_empty() {
            skip!("needs root and the default cgroup driver");
        }
    };
}

/// Both must refuse it and name `property`.
#[track_caller]
fn both_refuse(c: &Container, property: &str) {
    let create = c.create(&[]);
    assert_eq!(create.code, 1, "create, {property}: {create}");
    let escaped = property.replace('"', "\\\"");
    assert!(create.stderr.contains(&escaped), "create, {property}: {create}");
    c.assert_gone();
    let check = c.call_from_shell("exec \"$1\" check --json .", "check", &[], &[]);
    let findings = check.json()["findings"].as_array().cloned().unwrap_or_default();
    let named = |f: &Value| f["severity"] == "error" && f["problem"].as_str().is_some_and(|p| p.contains(property));
    assert!(check.code == 1 && findings.iter().any(named), "check, {property}: {check}");
}

/// A change of the default configuration, as JSON pointers and values, and the property that is then wrong.
type Mistake = (&'static [(&'static str, &'static str)], &'static str);

fn each(mistakes: &[Mistake]) {
    for (changes, property) in mistakes {
        let mut c = Container::new().idle();
        for (place, value) in *changes {
            c = c.with(place, serde_json::from_str(value).unwrap_or_else(|e| panic!("{value}: {e}")));
        }
        both_refuse(&c, property);
    }
}

#[test]
fn the_process() {
    need_root!();
    each(&[
        (&[("/process/args", "[]")], "process.args"),
        (&[("/process/args", r#"[""]"#)], "process.args[0]"),
        (&[("/process/args", r#"["a","b\u0000"]"#)], "process.args[1]"),
        (&[("/process/args", r#"["no-such-program"]"#)], "process.args[0]"),
        (&[("/process/args", r#"["/no/such/program"]"#)], "process.args[0]"),
        (&[("/process/args", r#"["/etc/passwd"]"#)], "process.args[0]"),
        (&[("/process/cwd", r#""tmp""#)], "process.cwd"),
        (&[("/process/cwd", r#""/etc/passwd""#)], "process.cwd"),
        (&[("/process/env/-", r#""NOVALUE""#)], "process.env["),
        (&[("/process/env/-", r#""A=\u0000""#)], "process.env["),
        (&[("/process/user/uid", "-1")], "process.user.uid"),
        (&[("/process/rlimits", r#"[{"type":"RLIMIT_NOPE","soft":1,"hard":1}]"#)], "process.rlimits[0]"),
        (&[("/process/rlimits", r#"[{"type":"RLIMIT_CPU","soft":2,"hard":1}]"#)], "process.rlimits[0]"),
        (&[("/process/oomScoreAdj", "1001")], "process.oomScoreAdj"),
        (&[("/process/scheduler", r#"{"policy":"SCHED_NOPE"}"#)], "process.scheduler"),
        (&[("/process/scheduler", r#"{"policy":"SCHED_OTHER","nice":20}"#)], "process.scheduler.nice"),
        (&[("/process/scheduler", r#"{"policy":"SCHED_FIFO","priority":100}"#)], "process.scheduler"),
        (&[("/process/ioPriority", r#"{"class":"IOPRIO_CLASS_BE","priority":8}"#)], "process.ioPriority"),
        (&[("/process/execCPUAffinity", r#"{"final":"3-1"}"#)], "process.execCPUAffinity.final"),
        (&[("/process/apparmorProfile", "\"a\\nb\"")], "process.apparmorProfile"),
        (&[("/process/selinuxLabel", "\" a\"")], "process.selinuxLabel"),
        (
            &[("/process/capabilities/effective", r#"["CAP_SYS_TIME"]"#), ("/process/capabilities/permitted", "[]")],
            "process.capabilities",
        ),
    ]);
}

#[test]
fn the_whole_document() {
    need_root!();
    each(&[
        (&[("/ociVersion", r#""99.0.0""#)], "ociVersion"),
        (&[("/root/path", r#""no-such-root""#)], "root.path"),
        (&[("/root/path", r#""config.json""#)], "root.path"),
        (&[("/root/readonly", r#""yes""#)], "root.readonly"),
        (&[("/hostname", r#""12345678901234567890123456789012345678901234567890123456789012345""#)], "hostname"),
        (&[("/annotations", r#"{"run.rrt.nothing":"1"}"#)], "run.rrt.nothing"),
        (&[("/annotations", r#"{"run.rrt.core-sched":"maybe"}"#)], "run.rrt.core-sched"),
        (&[("/annotations", r#"{"run.rrt.landlock":"{"}"#)], "run.rrt.landlock"),
        (
            &[("/annotations", r#"{"run.rrt.landlock":"{\"paths\":[{\"path\":\"/none\",\"allow\":[\"read\"]}]}"}"#)],
            "run.rrt.landlock",
        ),
        (&[("/annotations", r#"{"run.oci.pidfd_receiver":"/no/such/socket"}"#)], "run.oci.pidfd_receiver"),
        (&[("/annotations", r#"{"run.oci.hooks.stdout":"o"}"#)], "run.oci.hooks.stdout"),
        (&[("/annotations", r#"{"run.oci.hooks.stderr":"/no/such/dir/file"}"#)], "run.oci.hooks.stderr"),
        (&[("/annotations", r#"{"run.oci.seccomp_bpf_data":"?"}"#)], "run.oci.seccomp_bpf_data"),
        (&[("/hooks", r#"{"createRuntime":[{"path":"true"}]}"#)], "hooks.createRuntime[0].path"),
        (&[("/hooks", r#"{"createRuntime":[{"path":"/no/such/hook"}]}"#)], "hooks.createRuntime[0]"),
        (&[("/hooks", r#"{"createContainer":[{"path":"/etc/passwd"}]}"#)], "hooks.createContainer[0]"),
        (&[("/hooks", r#"{"poststop":[{"path":"/bin/true","timeout":0}]}"#)], "hooks.poststop[0].timeout"),
        (&[("/hooks", r#"{"poststop":[{"path":"/bin/true","args":["\u0000"]}]}"#)], "hooks.poststop[0]"),
    ]);
}

#[test]
fn mounts_and_devices() {
    need_root!();
    each(&[
        (&[("/mounts/-", r#"{"destination":"/"}"#)], "mounts[7]"),
        (&[("/mounts/-", r#"{"destination":"/x","options":["bind"]}"#)], "mounts[7].source"),
        (&[("/mounts/-", r#"{"destination":"/x","source":"y"}"#)], "mounts[7].type"),
        (&[("/mounts/-", r#"{"destination":"/x","type":"nosuchfs"}"#)], "mounts[7]"),
        (&[("/mounts/-", r#"{"destination":"/x","type":"tmpfs","options":["no-such"]}"#)], "mounts[7]"),
        (&[("/mounts/-", r#"{"destination":"/x","source":"/etc","options":["bind","no-such"]}"#)], "mounts[7].options"),
        (&[("/mounts/-", r#"{"destination":"/x","type":"proc","options":["tmpcopyup"]}"#)], "mounts[7].options"),
        (&[("/mounts/-", r#"{"destination":"/x","source":"/no/such","options":["rbind"]}"#)], "mounts[7].source"),
        (&[("/mounts/-", r#"{"destination":"/x","source":"rootfs/none","options":["bind"]}"#)], "mounts[7].source"),
        (
            &[("/mounts/-", r#"{"destination":"/etc","source":"/etc/passwd","options":["bind"]}"#)],
            "mounts[7].destination",
        ),
        (&[("/mounts/-", r#"{"destination":"/etc/passwd","type":"tmpfs"}"#)], "mounts[7]"),
        (&[("/mounts/-", r#"{"destination":"/etc/passwd/x","type":"tmpfs"}"#)], "mounts[7]"),
        (&[("/mounts/-", r#"{"destination":"/none","options":["remount","ro"]}"#)], "mounts[7]"),
        (&[("/mounts/-", r#"{"destination":"/proc/sys","type":"tmpfs"}"#)], "mounts[7].destination"),
        (&[("/mounts/0", r#"{"destination":"/proc","type":"tmpfs"}"#)], "mounts[0].destination"),
        (&[("/mounts/0", r#"{"destination":"/proc","source":"/etc","options":["bind"]}"#)], "mounts[0].destination"),
        (&[("/mounts/-", r#"{"destination":"/x","source":"/etc","options":["bind","idmap"]}"#)], "mounts[7]"),
        (
            &[(
                "/mounts/-",
                r#"{"destination":"/x","source":"/proc","options":["bind"],
                    "uidMappings":[{"containerID":0,"hostID":1,"size":9}],"gidMappings":[{"containerID":0,"hostID":1,"size":9}]}"#,
            )],
            "mounts[7]",
        ),
        (&[("/linux/devices", r#"[{"path":"/dev/x","type":"a","major":1,"minor":1}]"#)], "linux.devices[0].type"),
        (&[("/linux/devices", r#"[{"path":"x","type":"c","major":1,"minor":1}]"#)], "linux.devices[0].path"),
        (&[("/linux/devices", r#"[{"path":"/dev/x","type":"c","major":-1,"minor":1}]"#)], "linux.devices[0].major"),
        (&[("/linux/devices", r#"[{"path":"/etc/passwd","type":"c","major":1,"minor":3}]"#)], "linux.devices[0]"),
    ]);
}

#[test]
fn namespaces_and_settings() {
    need_root!();
    each(&[
        (&[("/linux/namespaces/-", r#"{"type":"pid"}"#)], "linux.namespaces["),
        (&[("/linux/namespaces/-", r#"{"type":"space"}"#)], "linux.namespaces["),
        (&[("/linux/namespaces", r#"[{"type":"mount"}]"#)], "hostname"),
        (&[("/linux/namespaces/-", r#"{"type":"time","path":"time"}"#)], "linux.namespaces["),
        (&[("/linux/namespaces/-", r#"{"type":"cgroup","path":"/no/such"}"#)], "linux.namespaces["),
        (&[("/linux/namespaces/-", r#"{"type":"cgroup","path":"/etc/passwd"}"#)], "linux.namespaces["),
        (&[("/linux/namespaces/-", r#"{"type":"cgroup","path":"/proc/self/ns/uts"}"#)], "linux.namespaces["),
        (&[("/linux/namespaces/-", r#"{"type":"user"}"#)], "linux.uidMappings"),
        (&[("/linux/uidMappings", r#"[{"containerID":0,"hostID":1,"size":1}]"#)], "linux.uidMappings"),
        (
            &[
                ("/linux/namespaces/-", r#"{"type":"user"}"#),
                (
                    "/linux/uidMappings",
                    r#"[{"containerID":0,"hostID":1,"size":9},{"containerID":5,"hostID":50,"size":9}]"#,
                ),
                ("/linux/gidMappings", r#"[{"containerID":0,"hostID":1,"size":9}]"#),
            ],
            "linux.uidMappings",
        ),
        (&[("/linux/timeOffsets", r#"{"monotonic":{"secs":1}}"#)], "linux.timeOffsets"),
        (
            &[
                ("/linux/namespaces/-", r#"{"type":"time"}"#),
                ("/linux/timeOffsets", r#"{"monotonic":{"nanosecs":4000000000}}"#),
            ],
            "linux.timeOffsets",
        ),
        (
            &[
                ("/linux/namespaces/-", r#"{"type":"time"}"#),
                ("/linux/timeOffsets", r#"{"boottime":{"secs":-999999999}}"#),
            ],
            "linux.timeOffsets",
        ),
        (&[("/linux/sysctl", r#"{"kernel.panic":"1"}"#)], "linux.sysctl"),
        (&[("/linux/rootfsPropagation", r#""sideways""#)], "linux.rootfsPropagation"),
        (&[("/linux/personality", r#"{"domain":"BSD"}"#)], "linux.personality"),
        (&[("/linux/memoryPolicy", r#"{"mode":"MPOL_BIND"}"#)], "linux.memoryPolicy"),
        (&[("/linux/memoryPolicy", r#"{"mode":"MPOL_BIND","nodes":"1000"}"#)], "linux.memoryPolicy"),
        (&[("/linux/netDevices", r#"{"none7":{}}"#)], r#"linux.netDevices["none7"]"#),
        (&[("/linux/netDevices", r#"{"lo":{}}"#)], r#"linux.netDevices["lo"]"#),
        (&[("/linux/netDevices", r#"{"lo":{"name":"a/b"}}"#)], r#"linux.netDevices["lo"].name"#),
        (&[("/linux/intelRdt", r#"{"closID":"../x"}"#)], "linux.intelRdt"),
        (&[("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_NOPE"}"#)], "linux.seccomp.defaultAction"),
        (&[("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#)], "linux.seccomp.defaultAction"),
        (&[("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#)], "linux.seccomp"),
        (&[("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["NO_SUCH"]}"#)], "linux.seccomp.flags[0]"),
        (
            &[(
                "/linux/seccomp",
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            )],
            "linux.seccomp.listenerPath",
        ),
        (
            &[(
                "/linux/seccomp",
                r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/no/such",
                    "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            )],
            "linux.seccomp.listenerPath",
        ),
    ]);
}

#[test]
fn limits() {
    need_root!();
    let common: [Mistake; 12] = [
        (&[("/linux/resources/memory", r#"{"limit":-2}"#)], "linux.resources.memory.limit"),
        (&[("/linux/resources/memory", r#"{"limit":67108864,"swap":1048576}"#)], "linux.resources.memory.swap"),
        (&[("/linux/resources/cpu", r#"{"cpus":"4000"}"#)], "linux.resources.cpu.cpus"),
        (&[("/linux/resources/cpu", r#"{"cpus":"x"}"#)], "linux.resources.cpu.cpus"),
        (&[("/linux/resources/cpu", r#"{"period":10}"#)], "linux.resources.cpu.period"),
        (&[("/linux/resources/cpu", r#"{"quota":10}"#)], "linux.resources.cpu.quota"),
        (&[("/linux/resources/cpu", r#"{"idle":2}"#)], "linux.resources.cpu.idle"),
        (&[("/linux/resources/blockIO", r#"{"weight":5}"#)], "linux.resources.blockIO.weight"),
        (
            &[("/linux/resources/blockIO", r#"{"throttleReadBpsDevice":[{"major":4095,"minor":7,"rate":1}]}"#)],
            "linux.resources.blockIO.throttleReadBpsDevice[0]",
        ),
        (
            &[("/linux/resources/hugepageLimits", r#"[{"pageSize":"3MB","limit":1}]"#)],
            "linux.resources.hugepageLimits[0]",
        ),
        (&[("/linux/resources/devices/-", r#"{"allow":true,"type":"x"}"#)], "linux.resources.devices["),
        (&[("/linux/resources/devices/-", r#"{"allow":true,"access":"rwz"}"#)], "linux.resources.devices["),
    ];
    each(&common);
    if !cgroup_v2() {
        each(&[
            (&[("/linux/resources/unified", r#"{"memory.min":"1"}"#)], "linux.resources.unified"),
            (&[("/linux/resources/cpu", r#"{"shares":1}"#)], "linux.resources.cpu.shares"),
            (&[("/linux/resources/memory", r#"{"swappiness":101}"#)], "linux.resources.memory.swappiness"),
            (&[("/linux/resources/network", r#"{"classID":1}"#)], "linux.resources.network"),
        ]);
    }
    let real_time = || {
        Container::new().args(&["true"]).with("/process/scheduler", json!({ "policy": "SCHED_FIFO", "priority": 9 }))
    };
    if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        both_refuse(&real_time(), "process.scheduler");
        let c = real_time().with("/linux/resources/cpu", json!({ "realtimeRuntime": 5000 }));
        c.run(&[]).ok();
        assert_eq!(c.call_from_shell("exec \"$1\" check .", "check", &[], &[]).code, 0);
    }
    both_refuse(&Container::new().idle().with("/linux/cgroupsPath", json!("../x")), "linux.cgroupsPath");
}

#[test]
fn what_root_lacks_here() {
    need_root!();
    let limits = fs::read_to_string("/proc/self/status").expect("status");
    let caps = limits.lines().find_map(|l| l.strip_prefix("CapEff:")).expect("CapEff").trim();
    if u64::from_str_radix(caps, 16).expect("a mask") & 1 << 24 != 0 {
        skip!("needs a root without CAP_SYS_RESOURCE");
    }
    let raised = json!([{ "type": "RLIMIT_SIGPENDING", "soft": 1, "hard": 9_999_999 }]);
    both_refuse(&Container::new().idle().with("/process/rlimits", raised), "process.rlimits[0]");
    both_refuse(&Container::new().idle().with("/process/oomScoreAdj", json!(-999)), "process.oomScoreAdj");
}

#[test]
fn what_the_image_has() {
    need_root!();
    let c = Container::new().idle().mount("/link", "proc", "proc", &[]);
    symlink("/etc", c.path("link")).expect("link");
    both_refuse(&c, "mounts[7].destination");

    let c = Container::new().idle().mount("/x", "bind", "rootfs/link", &["bind"]);
    symlink("/etc", c.path("link")).expect("link");
    both_refuse(&c, "mounts[7].source");

    let mut c = Container::new().idle().without_mount("/dev");
    c.config["mounts"]
        .as_array_mut()
        .expect("mounts")
        .retain(|m| !m["destination"].as_str().unwrap_or("").starts_with("/dev"));
    fs::create_dir_all(c.path("dev")).expect("dev");
    fs::write(c.path("dev/null"), "").expect("file");
    both_refuse(&c, "/dev/null");

    runtime_tests::private_mounts();
    let mut c = Container::new().mount("/no/such/point", "tmpfs", "tmpfs", &[]).with("/root/path", json!("readonly"));
    c.host_tmpfs("readonly", nix::mount::MsFlags::MS_RDONLY);
    c.create(&[]).fails(1, &["mounts[", "ead-only"]);
    let check = c.call_from_shell("exec \"$1\" check .", "check", &[], &[]);
    assert!(check.code == 1 && check.stdout.contains("mounts[7].destination"), "{check}");
}

/// `create` has no reason to load it, and `start` fails.
#[test]
fn a_filter_that_the_kernel_does_not_take() {
    need_root!();
    let c = Container::new().with("/annotations", json!({ "run.oci.seccomp_bpf_data": "IAAAAAAAAAA=" }));
    c.run(&[]).fails(1, &["linux.seccomp: load the filter"]);
    let check = c.call_from_shell("exec \"$1\" check .", "check", &[], &[]);
    assert!(check.code == 1 && check.stdout.contains("linux.seccomp: load the filter"), "{check}");
}

/// `create` finds the program, but only `start` learns that the kernel cannot execute it.
#[test]
fn programs_that_the_kernel_cannot_execute() {
    need_root!();
    for (content, why) in [("#!/no/such/interpreter\n", "interpreter"), ("\0\0\0not a program", "exec format error")] {
        let c = Container::new().args(&["/tool"]);
        fs::write(c.path("/tool"), content).expect("file");
        fs::set_permissions(c.path("/tool"), fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_eq!(c.run(&[]).code, 1);
        let check = c.call_from_shell("exec \"$1\" check .", "check", &[], &[]);
        assert!(check.code == 1 && check.stdout.contains("process.args[0]") && check.stdout.contains(why), "{check}");
    }
    // The host's, without the host's dynamic linker.
    let c = Container::new().args(&["/linked"]);
    fs::copy("/bin/ls", c.path("/linked")).expect("copy");
    c.write_config();
    let check = c.call_from_shell("exec \"$1\" check .", "check", &[], &[]);
    assert!(check.code == 1 && check.stdout.contains("its interpreter"), "{check}");
}
