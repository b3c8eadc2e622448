//! AppArmor and SELinux: `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel`, the flags of `exec`, and where the
//! labels are written to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use runtime_tests::{Container, Output, known, private_mounts, run, skip, without_calls};
use serde_json::{Value, json};

fn has_apparmor() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// lsm_get_self_attr, lsm_set_self_attr, lsm_list_modules
const LSM_CALLS: (u32, u32) = (459, 461);

/// Where a container reads what confines it.
const CURRENT: &str = "cat /proc/self/attr/current";

#[test]
fn without_apparmor_a_profile_is_refused() {
    if has_apparmor() {
        skip!("this kernel has AppArmor");
    }
    let c = Container::new().with("/process/apparmorProfile", json!("some-profile"));
    for command in ["create", "run"] {
        c.write_config();
        c.call(command, &[], &[]).fails(1, &["process.apparmorProfile", "apparmor not supported", "some-profile"]);
        c.assert_gone();
    }
    let c = Container::new().idle().up();
    c.exec(&["--apparmor", "some-profile"], &["true"]).fails(255, &["--apparmor", "some-profile"]);
    let mut document = c.config["process"].clone();
    document["args"] = json!(["true"]);
    document["apparmorProfile"] = json!("some-profile");
    fs::write(c.dir.join("process.json"), document.to_string()).expect("process.json");
    c.exec(&["--process", "process.json"], &[]).fails(255, &["process.apparmorProfile"]);
}

#[test]
fn without_selinux_labels_are_refused() {
    if has_selinux() {
        skip!("this kernel has SELinux");
    }
    const LABEL: &str = "system_u:system_r:container_t:s0:c1,c2";
    let c = Container::new().with("/process/selinuxLabel", json!(LABEL));
    c.run(&[]).fails(1, &["process.selinuxLabel", "selinux is disabled", LABEL]);
    c.assert_gone();
    let c = Container::new().idle().up();
    c.exec(&["--process-label", LABEL], &["true"]).fails(255, &["--process-label", LABEL]);
    let c = Container::new().with("/linux/mountLabel", json!(LABEL));
    c.run(&[]).fails(1, &["linux.mountLabel", "selinux is disabled", LABEL]);
}

#[test]
fn empty_labels_are_none() {
    let c = Container::new()
        .with("/process/apparmorProfile", json!(""))
        .with("/process/selinuxLabel", json!(""))
        .with("/linux/mountLabel", json!(""))
        .args(&["echo", "ran"]);
    assert_eq!(c.run(&[]).ok().stdout, "ran\n");
}

#[test]
fn unconfined_is_what_everything_is_without_apparmor() {
    known!("runc", "*", "it writes to an attribute that the kernel does not have");
    let c = Container::new().with("/process/apparmorProfile", json!("unconfined")).args(&["echo", "ran"]);
    assert_eq!(c.run(&[]).ok().stdout, "ran\n");
}

/// Where this kernel has no AppArmor it can be made to look so: the calls of Linux 6.8 are missing, and the host says it is on.
/// What the kernel then refuses is the write itself, to the very file it should go to.
struct Pretended {
    c: Container,
}

const PROFILE: &str = "no-such-profile";

/// Without no_new_privs, for which the runtime's own profile would be looked at first.
fn container() -> Container {
    Container::new().with("/process/noNewPrivileges", json!(false))
}

impl Pretended {
    /// In a mount namespace of the test's own.
    fn new(c: Container) -> Self {
        mount(Some("tmpfs"), "/sys/module", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("tmpfs");
        let dir = Path::new("/sys/module/apparmor/parameters");
        fs::create_dir_all(dir).expect("directory");
        fs::write(dir.join("enabled"), "Y\n").expect("file");
        Self { c }
    }

    /// Runs the command under strace; its output, and the lines that open, write, or mount a procfs.
    fn call(&self, command: &Command) -> (Output, String) {
        let mut outer = Command::new("strace");
        outer.current_dir(&self.c.dir).stdin(Stdio::null()).env_remove("LD_LIBRARY_PATH");
        outer.args(["-f", "-y", "-qqq", "-o", "calls", "-s", "200", "-e", "trace=openat2,write,fsopen"]);
        outer.arg(command.get_program()).args(command.get_args());
        without_calls(&mut outer, LSM_CALLS.0, LSM_CALLS.1);
        let out = run(&mut outer, &self.c.dir);
        (out, fs::read_to_string(self.c.dir.join("calls")).expect("log of strace"))
    }

    /// The label went to the attribute of that very thread, on a procfs, and nowhere else.
    #[track_caller]
    fn assert_written_to_the_kernel(&self, command: &Command, code: i32) {
        let (out, calls) = self.call(command);
        // exec has it from its flag.
        out.fails(code, &[if code == 255 { "--apparmor" } else { "process.apparmorProfile" }, PROFILE]);
        let opened = calls
            .lines()
            .find(|l| l.contains("\"thread-self/attr/") && l.contains("O_WRONLY") && !l.contains("ENOENT"));
        let opened = opened.unwrap_or_else(|| panic!("no attribute was opened:\n{calls}"));
        for flag in ["RESOLVE_NO_XDEV", "RESOLVE_NO_MAGICLINKS", "RESOLVE_BENEATH"] {
            assert!(opened.contains(flag), "{opened}");
        }
        let written: Vec<_> = calls.lines().filter(|l| l.contains(&format!(", \"exec {PROFILE}\""))).collect();
        assert!(matches!(written[..], [one] if one.contains("/attr/exec>") && one.contains("EINVAL")), "{calls}");
    }
}

impl Drop for Pretended {
    fn drop(&mut self) {
        let _ = nix::mount::umount2("/sys/module", nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Files that stand where the attributes are in a true procfs.
fn fake_proc(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for place in ["self", "thread-self", "1", "2", "1/task/1"] {
        for attribute in ["attr", "attr/apparmor"] {
            fs::create_dir_all(dir.join(place).join(attribute)).expect("directory");
            files.push(dir.join(place).join(attribute).join("exec"));
        }
    }
    files.iter().for_each(|file| fs::write(file, "").expect("file"));
    files
}

#[track_caller]
fn assert_empty(files: &[PathBuf]) {
    files.iter().for_each(|file| assert_eq!(fs::read_to_string(file).expect("file"), "", "{}", file.display()));
}

/// Whether AppArmor can be pretended here; the reason if not.
fn cannot_pretend() -> Option<&'static str> {
    if has_apparmor() || has_selinux() {
        Some("this kernel has a module for labels")
    } else if Command::new("strace").arg("-V").output().is_err() {
        Some("strace is not installed")
    } else {
        None
    }
}

#[test]
fn cve_2019_16884_the_label_is_not_written_below_an_image_s_proc() {
    known!("runc", "*", "the wording is rrt's own, and its Go runtime makes the calls from other threads");
    if let Some(why) = cannot_pretend() {
        skip!("{why}");
    }
    private_mounts();
    let c = container().with("/process/apparmorProfile", json!(PROFILE));
    // The image has a whole /proc, and nothing is mounted there; then the usual one.
    let files = fake_proc(&c.path("/proc"));
    let mut host = Pretended::new(c.without_mount("/proc"));
    host.c.write_config();
    host.assert_written_to_the_kernel(&host.c.command("run", &[], &[]), 1);
    assert_empty(&files);
    let proc = json!({ "destination": "/proc", "type": "proc", "source": "proc" });
    host.c.config["mounts"].as_array_mut().expect("list").insert(0, proc);
    host.c.write_config();
    for command in ["create", "run"] {
        host.assert_written_to_the_kernel(&host.c.command(command, &[], &[]), 1);
        host.c.assert_gone();
    }
    assert_empty(&files);
}

#[test]
fn cve_2025_52881_exec_into_a_container_that_covered_its_proc() {
    known!("runc", "*", "the wording is rrt's own, and its Go runtime makes the calls from other threads");
    if let Some(why) = cannot_pretend() {
        skip!("{why}");
    }
    private_mounts();
    let covers = "mkdir -p /fake/self/attr /fake/thread-self/attr; : >/fake/self/attr/exec; : >/fake/thread-self/attr/exec; \
                  mount -o bind /fake /proc; touch /covered; exec sleep 3600";
    let c = container().sh(covers).caps(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]).up();
    runtime_tests::until("the fake /proc", || c.path("/covered").exists());
    let attack = Pretended::new(c);
    let command = attack.c.command("exec", &["--apparmor", PROFILE], &["true"]);
    attack.assert_written_to_the_kernel(&command, 255);
    assert_empty(&[attack.c.path("/fake/self/attr/exec"), attack.c.path("/fake/thread-self/attr/exec")]);
}

/// A user namespace that shares the host's pid namespace is given no procfs of that.
#[test]
fn cve_2025_52881_exec_where_no_procfs_can_be_mounted() {
    known!("runc", "*", "the wording is rrt's own, and its Go runtime makes the calls from other threads");
    if let Some(why) = cannot_pretend() {
        skip!("{why}");
    }
    private_mounts();
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let mut c =
        container().namespace("user", "").with("/linux/uidMappings", ids.clone()).with("/linux/gidMappings", ids);
    c.remove_namespace("pid");
    fs::set_permissions(&c.dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let fake = c.path("/fake");
    for dir in ["", "thread-self", "thread-self/attr"] {
        fs::create_dir(fake.join(dir)).expect("directory");
        std::os::unix::fs::chown(fake.join(dir), Some(100_000), Some(100_000)).expect("chown");
    }
    for path in ["/", "/proc"] {
        std::os::unix::fs::chown(c.path(path), Some(100_000), Some(100_000)).expect("chown");
    }
    let covers = ": >/fake/thread-self/attr/exec; touch /ready; until [ -e /go ]; do sleep 0.01; done; \
                  mount -o bind /fake /proc; touch /covered; exec sleep 3600";
    let c = c.without_mount("/proc").mount("/proc", "bind", "/proc", &["rbind"]).sh(covers);
    let host = Pretended::new(c.caps(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]).up());
    runtime_tests::until("the program", || host.c.path("/ready").exists());
    // What is on /proc is the host's: as good as one of our own.
    let exec = host.c.command("exec", &["--apparmor", PROFILE], &["true"]);
    host.assert_written_to_the_kernel(&exec, 255);
    // It is something else: nothing is written.
    fs::write(host.c.path("/go"), "").expect("file");
    runtime_tests::until("the fake /proc", || host.c.path("/covered").exists());
    let (out, calls) = host.call(&exec);
    out.fails(255, &["/proc", "not a procfs"]);
    assert!(!calls.contains(&format!(", \"exec {PROFILE}\"")), "{calls}");
    assert_empty(&[host.c.path("/fake/thread-self/attr/exec")]);
}

/// A profile of AppArmor that a test has loaded; it goes with it.
struct Profile {
    name: String,
    text: String,
}

impl Profile {
    /// Allows all but writing below `/denied`, or nothing of the sort with other `rules`.
    fn load(name: &str, rules: &str) -> Self {
        let name = format!("rrt-test-{name}-{}", std::process::id());
        let all = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, change_profile,";
        let text = format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{ {all} {rules} }}\n");
        let profile = Self { name, text };
        assert!(profile.parser("--replace"), "apparmor_parser");
        profile
    }

    fn parser(&self, action: &str) -> bool {
        use std::io::Write as _;
        let mut child = Command::new("apparmor_parser")
            .args(["--quiet", "--skip-cache", action])
            .stdin(Stdio::piped())
            .spawn()
            .expect("apparmor_parser");
        child.stdin.take().expect("pipe").write_all(self.text.as_bytes()).expect("write");
        child.wait().expect("wait").success()
    }

    /// What a process under it reads in its attribute.
    fn enforced(&self) -> String {
        format!("{} (enforce)\n", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

const DENY: &str = "deny /denied w,";

/// Runs a command on this kernel, or as if it were one before 6.8, where labels go through procfs.
fn call(c: &Container, older: bool, command: &str, flags: &[&str], rest: &[&str]) -> Output {
    let mut command = c.command(command, flags, rest);
    if older {
        without_calls(&mut command, LSM_CALLS.0, LSM_CALLS.1);
    }
    run(&mut command, &c.dir)
}

macro_rules! needs_apparmor {
    () => {
        if !has_apparmor() {
            skip!("this kernel has no AppArmor");
        }
        if Command::new("apparmor_parser").arg("--version").output().is_err() {
            skip!("apparmor_parser is not installed");
        }
    };
}

#[test]
fn apparmor_confines_the_program() {
    needs_apparmor!();
    let profile = Profile::load("run", DENY);
    let script = format!("{CURRENT}; touch /allowed && echo allowed; touch /denied || echo denied");
    for (older, no_new_privileges) in [(false, false), (false, true), (true, false), (true, true)] {
        for uid in [0, 1000] {
            let c = Container::new()
                .sh(&script)
                .with("/process/apparmorProfile", json!(profile.name))
                .with("/process/noNewPrivileges", json!(no_new_privileges))
                .with("/process/user/uid", json!(uid));
            fs::set_permissions(c.path("/"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
            c.write_config();
            let out = call(&c, older, "run", &[], &[]).ok();
            let expected = format!("{}allowed\ndenied\n", profile.enforced());
            assert_eq!(out.stdout, expected, "{older} {no_new_privileges} {uid}: {out}");
            assert!(!c.path("/denied").exists());
        }
    }
    let c = Container::new().sh(CURRENT).with("/process/apparmorProfile", json!("unconfined"));
    assert_eq!(c.run(&[]).ok().stdout, "unconfined\n");
}

#[test]
fn apparmor_of_exec_is_the_containers_unless_told() {
    needs_apparmor!();
    let (own, other) = (Profile::load("own", DENY), Profile::load("other", ""));
    let c = Container::new().idle().with("/process/apparmorProfile", json!(own.name)).up();
    for older in [false, true] {
        let current = |flags: &[&str]| call(&c, older, "exec", flags, &["sh", "-c", CURRENT]).ok().stdout;
        assert_eq!(current(&[]), own.enforced());
        assert_eq!(current(&["--apparmor", &other.name]), other.enforced());
        assert_eq!(current(&["--apparmor", "unconfined"]), "unconfined\n");
    }
    // A document without a profile has the container's, one with a profile its own.
    let mut document = c.config["process"].clone();
    document["args"] = json!(["sh", "-c", CURRENT]);
    for (profile, expected) in
        [(Value::Null, own.enforced()), (json!(""), own.enforced()), (json!(other.name), other.enforced())]
    {
        document["apparmorProfile"] = profile;
        if document["apparmorProfile"].is_null() {
            document.as_object_mut().expect("object").remove("apparmorProfile");
        }
        fs::write(c.dir.join("process.json"), document.to_string()).expect("process.json");
        assert_eq!(c.call("exec", &["--process", "process.json"], &[]).ok().stdout, expected, "{document}");
    }
}

#[test]
fn apparmor_profiles_that_are_not_loaded_are_named() {
    needs_apparmor!();
    let c = Container::new().with("/process/apparmorProfile", json!("no-such-profile"));
    let needles =
        ["process.apparmorProfile", "no-such-profile", "is not loaded", "`/proc/thread-self/attr/apparmor/exec`"];
    for (command, older) in [("create", false), ("run", false), ("run", true)] {
        c.write_config();
        let out = call(&c, older, command, &[], &[]).fails(1, &needles);
        if runtime_tests::runtime().is_ours() {
            // podman would take that for a missing program.
            assert!(!out.stderr.contains("No such file"), "{out}");
        }
        c.assert_gone();
    }
    let c = Container::new().idle().up();
    let needles = [&["--apparmor"], &needles[1..]].concat();
    c.exec(&["--apparmor", "no-such-profile"], &["true"]).fails(255, &needles);
}

#[test]
fn apparmor_in_a_user_namespace() {
    needs_apparmor!();
    let profile = Profile::load("user", DENY);
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let c = Container::new()
        .idle()
        .namespace("user", "")
        .with("/linux/uidMappings", ids.clone())
        .with("/linux/gidMappings", ids)
        .with("/process/apparmorProfile", json!(profile.name));
    fs::set_permissions(&c.dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    c.write_config();
    for older in [false, true] {
        call(&c, older, "run", &["--detach"], &[]).ok();
        let first = fs::read_to_string(format!("/proc/{}/attr/current", c.pid())).expect("attribute");
        assert_eq!(first, profile.enforced());
        assert_eq!(call(&c, older, "exec", &[], &["sh", "-c", CURRENT]).ok().stdout, profile.enforced());
        c.delete(&["--force"]).ok();
    }
}

#[test]
fn apparmor_confines_hooks_of_the_container() {
    needs_apparmor!();
    let profile = Profile::load("hook", DENY);
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "cat /proc/self/attr/current >/hook"] }]);
    let c = Container::new()
        .args(&["true"])
        .with("/process/apparmorProfile", json!(profile.name))
        .with("/hooks/startContainer", hook);
    c.run(&[]).ok();
    assert_eq!(fs::read_to_string(c.path("/hook")).expect("hook"), profile.enforced());
}

#[test]
fn apparmor_stacks_under_a_confined_runtime() {
    known!("runc", "*", "with no_new_privs it asks for a change of profile, which a confined process may not make");
    needs_apparmor!();
    let (outer, inner) = (Profile::load("outer", ""), Profile::load("inner", DENY));
    let enter = format!("echo 'exec {}' >/proc/self/attr/apparmor/exec; exec \"$@\"", outer.name);
    for (no_new_privileges, expected) in
        [(false, inner.enforced()), (true, format!("{}//&{} (enforce)\n", inner.name, outer.name))]
    {
        let c = Container::new()
            .sh(&format!("{CURRENT}; touch /denied || echo denied"))
            .with("/process/apparmorProfile", json!(inner.name))
            .with("/process/noNewPrivileges", json!(no_new_privileges));
        c.write_config();
        let out = c.call_from_shell(&enter, "run", &[], &[]).ok();
        assert_eq!(out.stdout, format!("{expected}denied\n"), "{out}");
    }
}

#[test]
fn cve_2019_16884_apparmor_holds_whatever_the_image_has_for_proc() {
    needs_apparmor!();
    let profile = Profile::load("image", DENY);
    let c = Container::new().sh("touch /denied || echo denied").with("/process/apparmorProfile", json!(profile.name));
    let files = fake_proc(&c.path("/proc"));
    let c = c.without_mount("/proc");
    let out = c.run(&[]);
    // Made with the profile, or not at all.
    assert!(!c.path("/denied").exists(), "{out}");
    assert!(out.code != 0 || out.stdout == "denied\n", "{out}");
    if runtime_tests::runtime().is_ours() {
        assert_eq!(out.stdout, "denied\n", "{out}");
    }
    assert_empty(&files);
}

#[test]
fn cve_2025_52881_apparmor_holds_whatever_the_container_mounts_on_proc() {
    needs_apparmor!();
    let profile = Profile::load("covered", DENY);
    let covers = "mkdir -p /fake/self/attr/apparmor /fake/thread-self/attr/apparmor; \
                  for p in self thread-self; do : >/fake/$p/attr/exec; : >/fake/$p/attr/apparmor/exec; done; \
                  mount -o bind /fake /proc; touch /covered; exec sleep 3600";
    let c = Container::new()
        .sh(covers)
        .caps(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"])
        .with("/process/apparmorProfile", json!(profile.name))
        .up();
    runtime_tests::until("the fake /proc", || c.path("/covered").exists());
    for older in [false, true] {
        let out = call(&c, older, "exec", &[], &["sh", "-c", "touch /denied || echo denied"]);
        assert!(!c.path("/denied").exists(), "{out}");
        if runtime_tests::runtime().is_ours() {
            assert_eq!(out.ok().stdout, "denied\n");
        }
    }
    assert_empty(&["self", "thread-self"].map(|p| c.path("/fake").join(p).join("attr/apparmor/exec")));
}
