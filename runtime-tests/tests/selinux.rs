//! SELinux on a kernel that enforces it, with Debian's policy (`hack/vm selinux`): `process.selinuxLabel`, `linux.mountLabel`, the flags of
//! `exec`, keyrings, and where the labels are written to. `lsm.rs` has what can be tested without.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use runtime_tests::{Container, Output, known, run, runtime, skip, until, without_calls};
use serde_json::{Value, json};

/// A container's domain and its files, as engines choose them: the categories are those of one container.
const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const FILE: &str = "system_u:object_r:container_file_t:s0:c1,c2";
/// Another container's.
const OTHER_PROCESS: &str = "system_u:system_r:container_t:s0:c3,c4";
const OTHER_FILE: &str = "system_u:object_r:container_file_t:s0:c3,c4";
/// Without categories: of every container.
const SHARED_FILE: &str = "system_u:object_r:container_file_t:s0";

/// lsm_get_self_attr, lsm_set_self_attr, lsm_list_modules
const LSM_CALLS: (u32, u32) = (459, 461);
/// What a container reads about itself, and whether it may read what is its own and what is another's.
const LOOK: &str = "cat /proc/self/attr/current; echo; cat /own; cat /other || echo denied";

macro_rules! needs_selinux {
    () => {
        if let Err(why) = selinux() {
            assert!(std::env::var_os("RT_SELINUX").is_none(), "{why}");
            skip!("{why}");
        }
    };
}

fn selinux() -> Result<(), &'static str> {
    match fs::read_to_string("/sys/fs/selinux/enforce").as_deref().map(str::trim) {
        Ok("1") if fs::write("/sys/fs/selinux/context", PROCESS).is_ok() => Ok(()),
        Ok("1") => Err("this policy of SELinux has no container_t"),
        _ => Err("SELinux does not enforce anything here (hack/vm selinux)"),
    }
}

#[track_caller]
fn give_label(label: &str, path: &Path) {
    let status = Command::new("chcon").args(["-R", "-h", label]).arg(path).status();
    assert!(status.expect("chcon").success(), "chcon {label} {path:?}");
}

#[track_caller]
fn label_of(path: &Path) -> String {
    let out = Command::new("stat").args(["-c", "%C"]).arg(path).output().expect("stat");
    String::from_utf8_lossy(&out.stdout).trim().into()
}

/// The label of a process, read by the host.
fn process_label(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/attr/current")).expect("attribute");
    text.trim_end_matches(['\0', '\n', ' ']).into()
}

/// A container whose root and output may be used under every label, and who itself has none yet.
fn unlabelled() -> Container {
    let c = Container::new();
    for name in ["busybox", "guest"] {
        // They are links to files of the host, whose label must stay.
        let (place, copy) = (c.path("/bin").join(name), c.dir.join(name));
        fs::copy(&place, &copy).and_then(|_| fs::rename(&copy, &place)).expect("copy");
    }
    for name in ["own", "other"] {
        fs::write(c.path("/").join(name), format!("{name}\n")).expect("file");
    }
    give_label(SHARED_FILE, &c.dir);
    give_label(FILE, &c.path("/own"));
    give_label(OTHER_FILE, &c.path("/other"));
    c
}

fn labelled() -> Container {
    unlabelled().with("/process/selinuxLabel", json!(PROCESS)).with("/linux/mountLabel", json!(FILE))
}

/// Runs a command on this kernel, or as if it were one before 6.8, where labels go through procfs.
#[track_caller]
fn call(c: &Container, older: bool, command: &str, flags: &[&str], rest: &[&str]) -> Output {
    let mut command = c.command(command, flags, rest);
    if older {
        without_calls(&mut command, LSM_CALLS.0, LSM_CALLS.1);
    }
    run(&mut command, &c.dir)
}

/// What [`LOOK`] prints under a label; the NUL that ends an attribute is cut off.
#[track_caller]
fn assert_confined(out: Output, label: &str) {
    let out = out.ok();
    let lines: Vec<_> = out.stdout.lines().map(|l| l.trim_end_matches(['\0', ' '])).collect();
    match label {
        OTHER_PROCESS => assert_eq!(lines, [label, "other"], "{out}"),
        _ => assert_eq!(lines, [label, "own", "denied"], "{out}"),
    }
}

#[test]
fn the_program_is_confined() {
    needs_selinux!();
    for (older, no_new_privileges) in [(false, false), (false, true), (true, false), (true, true)] {
        for uid in [0, 1000] {
            let c = labelled()
                .sh(LOOK)
                .with("/process/noNewPrivileges", json!(no_new_privileges))
                .with("/process/user/uid", json!(uid));
            c.write_config();
            assert_confined(call(&c, older, "run", &[], &[]), PROCESS);
        }
    }
    // Without a label it has the caller's, which may read both.
    let c = unlabelled().sh(LOOK);
    let out = c.run(&[]).ok();
    assert!(out.stdout.ends_with("\nown\nother\n") && !out.stdout.contains("container_t"), "{out}");
}

#[test]
fn exec_has_the_containers_unless_told() {
    needs_selinux!();
    let c = labelled().idle().up();
    assert_eq!(process_label(c.pid()), PROCESS);
    for older in [false, true] {
        let look = |flags: &[&str]| call(&c, older, "exec", flags, &["sh", "-c", LOOK]);
        assert_confined(look(&[]), PROCESS);
        assert_confined(look(&["--process-label", OTHER_PROCESS]), OTHER_PROCESS);
    }
    // A document without a label has the container's, one with a label its own.
    let mut document = c.config["process"].clone();
    document["args"] = json!(["sh", "-c", LOOK]);
    for (label, expected) in [(Value::Null, PROCESS), (json!(""), PROCESS), (json!(OTHER_PROCESS), OTHER_PROCESS)] {
        document["selinuxLabel"] = label;
        if document["selinuxLabel"].is_null() {
            document.as_object_mut().expect("object").remove("selinuxLabel");
        }
        fs::write(c.dir.join("process.json"), document.to_string()).expect("process.json");
        assert_confined(c.call("exec", &["--process", "process.json"], &[]), expected);
    }
}

#[test]
fn the_session_keyring_is_the_containers() {
    needs_selinux!();
    // The policy lets a container see its own keys, and not those that have the runtime's label.
    let c = labelled().sh("cat /proc/keys; exec sleep 3600").with("/linux/maskedPaths", json!([]));
    c.write_config();
    for older in [false, true] {
        let out = call(&c, older, "run", &["--detach"], &[]).ok();
        assert!(out.wait_for("_ses.").contains(&c.id), "{out}");
        let out = call(&c, older, "exec", &[], &["cat", "/proc/keys"]).ok();
        assert!(out.stdout.contains(&format!("_ses.{}", c.id)), "{out}");
        c.delete(&["--force"]).ok();
    }
    let out =
        labelled().args(&["cat", "/proc/keys"]).with("/linux/maskedPaths", json!([])).run(&["--no-new-keyring"]).ok();
    assert!(!out.stdout.contains("_ses."), "{out}");
}

/// The line of a container's mount table for a place.
fn mounted(c: &Container, place: &str) -> String {
    let table = fs::read_to_string(format!("/proc/{}/mounts", c.pid())).expect("mounts");
    let line = table.lines().rfind(|l| l.split(' ').nth(1) == Some(place));
    line.unwrap_or_else(|| panic!("nothing on {place}:\n{table}")).into()
}

#[test]
fn new_file_systems_have_the_label() {
    needs_selinux!();
    let c = labelled().idle();
    let data = c.dir.join("data");
    fs::create_dir(&data).expect("directory");
    let own_label = label_of(&data);
    let c = c
        .mount("/run", "tmpfs", "tmpfs", &["nosuid"])
        .mount("/data", "bind", data.to_str().expect("path"), &["rbind"])
        .with("/linux/maskedPaths", json!(["/sys/firmware", "/sys/kernel", "/proc/keys"]))
        .up();
    let root = Path::new("/proc").join(c.pid().to_string()).join("root");
    for place in ["/dev", "/dev/pts", "/dev/shm", "/run", "/sys/kernel"] {
        let line = mounted(&c, place);
        assert!(line.contains(&format!("context=\"{FILE}\"")), "{line}");
        assert_eq!(label_of(&root.join(&place[1..])), FILE, "{place}");
    }
    assert_eq!(label_of(&root.join("dev/null")), FILE);
    // It takes no option, but has labels.
    assert_eq!(label_of(&root.join("dev/mqueue")), FILE);
    // These have the policy's labels, and what is bound keeps its own.
    for place in ["/proc", "/sys", "/dev/mqueue", "/data"] {
        assert!(!mounted(&c, place).contains("context="), "{place}");
    }
    assert_eq!(label_of(&root.join("data")), own_label);
    assert!(label_of(&root.join("proc")).contains(":proc_t:"));
    // The container may use what is its own.
    let script = "touch /run/file /dev/shm/file /dev/mqueue/queue && echo done >/dev/null && echo done";
    assert_eq!(c.exec(&[], &["sh", "-c", script]).ok().stdout, "done\n");
}

#[test]
fn mounts_that_are_added_have_the_label() {
    needs_selinux!();
    known!("runc", "*", "has no command mounts");
    let c = labelled().idle().up();
    let document = json!([{ "destination": "/late", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] }]);
    fs::write(c.dir.join("mounts.json"), document.to_string()).expect("mounts.json");
    let mut add = c.command("mounts", &["add"], &["mounts.json"]);
    run(&mut add, &c.dir).ok();
    assert!(mounted(&c, "/late").contains(&format!("context=\"{FILE}\"")));
    c.exec(&[], &["touch", "/late/file"]).ok();
}

/// Debian's policy does not let criu work, so SELinux is permissive here; and Debian's criu knows nothing of SELinux.
#[test]
fn a_restored_container_is_confined_as_it_was_or_does_not_run() {
    if fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|text| text.trim() == "0") {
        known!("runc", "*", "restores it without its label");
        let script = "exec </dev/null >/dev/null 2>&1; i=0; while :; do i=$((i+1)); echo $i >/new; mv /new /count; sleep 0.05; done";
        let c = labelled().sh(script).up();
        let count = || fs::read_to_string(c.path("/count")).unwrap_or_default();
        until("the loop", || !count().is_empty());
        assert_eq!(process_label(c.pid()), PROCESS);
        c.call("checkpoint", &["--image-path", "img"], &[]).ok();
        c.assert_gone();
        let before = count();
        let out = c.call("restore", &["--detach", "--image-path", "img"], &[]);
        if out.code == 0 {
            assert_eq!(process_label(c.pid()), PROCESS);
            until("the loop to go on", || count() != before);
        } else {
            out.fails(1, &["process.selinuxLabel", "criu", "own label", PROCESS]);
            c.assert_gone();
            assert_eq!(count(), before, "it ran without its label");
        }
    } else {
        assert!(std::env::var_os("RT_SELINUX").is_none_or(|v| v != "permissive"), "SELinux is not permissive");
        skip!("needs a kernel with SELinux, permissive");
    }
}

#[test]
fn the_kind_of_context_can_be_chosen() {
    needs_selinux!();
    known!("runc", "*", "crun's annotation");
    for kind in ["fscontext", "rootcontext"] {
        let c = labelled()
            .with("/annotations", json!({ "run.oci.mount_context_type": kind }))
            .mount("/run", "tmpfs", "tmpfs", &[])
            .idle()
            .up();
        let line = mounted(&c, "/run");
        assert!(line.contains(&format!(",{kind}=\"{FILE}\"")), "{line}");
    }
    // It is for file systems that keep labels on a disk.
    let c = labelled().with("/annotations", json!({ "run.oci.mount_context_type": "defcontext" }));
    c.run(&[]).fails(1, &["mounts[", "linux.mountLabel", "this kind of context"]);
}

#[test]
fn a_context_among_the_mounts_options() {
    needs_selinux!();
    // As engines write it: with quotation marks, for the label has a comma.
    let option = format!("context=\"{OTHER_FILE}\"");
    let c = unlabelled().mount("/run", "tmpfs", "tmpfs", &["nosuid", &option, "size=64k"]).idle().up();
    let line = mounted(&c, "/run");
    assert!(line.contains(&option) && line.contains("size=64k"), "{line}");
}

#[test]
fn labels_that_the_policy_does_not_know_are_named() {
    needs_selinux!();
    known!("runc", "*", "the wording is rrt's own");
    const UNKNOWN: &str = "system_u:system_r:no_such_t:s0";
    let needles = ["process.selinuxLabel", UNKNOWN, "not a context of the loaded policy"];
    let c = labelled().with("/process/selinuxLabel", json!(UNKNOWN));
    c.write_config();
    for (command, older) in [("create", false), ("run", false), ("run", true)] {
        for flags in [&[][..], &["--no-new-keyring"][..]] {
            call(&c, older, command, flags, &[]).fails(1, &needles);
            c.assert_gone();
        }
    }
    let c = labelled().idle().up();
    c.exec(&["--process-label", UNKNOWN], &["true"]).fails(255, &needles);

    let c = labelled().with("/linux/mountLabel", json!(UNKNOWN));
    c.run(&[]).fails(1, &["linux.mountLabel", UNKNOWN, "not a context of the loaded policy"]);
    c.assert_gone();
}

#[test]
fn a_label_that_the_policy_does_not_grant_is_named() {
    needs_selinux!();
    known!("runc", "*", "the wording is rrt's own");
    // A domain of the policy that the caller may not enter.
    const FORBIDDEN: &str = "system_u:system_r:sshd_t:s0";
    for no_new_privileges in [false, true] {
        let c = labelled()
            .args(&["true"])
            .with("/process/selinuxLabel", json!(FORBIDDEN))
            .with("/process/noNewPrivileges", json!(no_new_privileges));
        c.run(&["--no-new-keyring"]).fails(1, &["process.selinuxLabel", FORBIDDEN, "permi", "policy"]);
        c.assert_gone();
    }
}

#[test]
fn in_a_user_namespace() {
    needs_selinux!();
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let c = labelled()
        .sh("touch /run/file && echo made >/run/file; cat /run/file; exec sleep 3600")
        .namespace("user", "")
        .with("/linux/uidMappings", ids.clone())
        .with("/linux/gidMappings", ids)
        .mount("/run", "tmpfs", "tmpfs", &[]);
    fs::set_permissions(&c.dir, fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::create_dir(c.path("/run")).expect("directory");
    c.write_config();
    for older in [false, true] {
        call(&c, older, "run", &["--detach"], &[]).ok().wait_for("made\n");
        assert_eq!(process_label(c.pid()), PROCESS);
        assert!(mounted(&c, "/run").contains(&format!("context=\"{FILE}\"")));
        assert_confined(call(&c, older, "exec", &[], &["sh", "-c", LOOK]), PROCESS);
        c.delete(&["--force"]).ok();
    }
}

#[test]
fn hooks_of_the_container_are_confined() {
    needs_selinux!();
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "cat /proc/self/attr/current /other >/hook 2>&1"] }]);
    let c = labelled().args(&["true"]).with("/hooks/startContainer", hook);
    c.run(&[]);
    let seen = fs::read_to_string(c.path("/hook")).expect("hook");
    assert!(seen.starts_with(PROCESS) && seen.contains("Permission denied"), "{seen}");
}

#[test]
fn a_terminal_belongs_to_the_container() {
    needs_selinux!();
    let c = labelled().sh("test -t 0 && echo yes >/own; echo text >/dev/console; exec sleep 3600");
    let c = c.with("/process/terminal", json!(true));
    let socket = c.dir.join("console");
    let terminal = runtime_tests::console_socket(&socket);
    c.create(&["--console-socket", "console"]).ok();
    let (_, mut fds) = terminal.join().expect("terminal");
    c.start().ok();
    let mut master = fs::File::from(fds.pop().expect("master"));
    runtime_tests::read_until(&mut master, "text");
    assert_eq!(fs::read_to_string(c.path("/own")).expect("file"), "yes\n");
}

/// Files that stand where the attributes are in a true procfs, and symlinks to a file that shows whether it was written to.
fn fake_proc(dir: &Path, target: &str) {
    for place in ["1", "2", "1/task/1"] {
        fs::create_dir_all(dir.join(place).join("attr")).expect("directory");
        for attribute in ["exec", "keycreate", "current"] {
            symlink(target, dir.join(place).join("attr").join(attribute)).expect("symlink");
        }
    }
    symlink("1", dir.join("self")).expect("symlink");
    symlink("1/task/1", dir.join("thread-self")).expect("symlink");
}

#[test]
fn cve_2019_16884_the_label_holds_whatever_the_image_has_for_proc() {
    needs_selinux!();
    known!("runc", "1.2", "it writes below the image's /proc, and finds that out");
    let c = labelled().sh("cat /own; cat /other || echo denied; exec sleep 3600");
    fake_proc(&c.path("/proc"), "/target");
    fs::write(c.path("/target"), "").expect("file");
    give_label(SHARED_FILE, &c.path("/proc"));
    give_label(SHARED_FILE, &c.path("/target"));
    let c = c.without_mount("/proc").with("/linux/maskedPaths", json!([])).with("/linux/readonlyPaths", json!([]));
    c.write_config();
    for older in [false, true] {
        let out = call(&c, older, "run", &["--detach"], &[]);
        if runtime().is_ours() || out.code == 0 {
            out.ok().wait_for("denied\n");
            assert_eq!(process_label(c.pid()), PROCESS);
        }
        c.delete(&["--force"]).ok();
        assert_eq!(fs::read_to_string(c.path("/target")).expect("file"), "");
    }
}

#[test]
fn cve_2025_52881_the_label_holds_whatever_the_container_has_for_proc() {
    needs_selinux!();
    known!("runc", "1.2", "it writes where the symlinks lead");
    // Its first process has no label, so that the policy does not keep it from the attack.
    let script = "mount -o bind /fake /proc && touch /covered; exec sleep 3600";
    let c = unlabelled().sh(script).caps(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    fs::create_dir(c.path("/fake")).expect("directory");
    fake_proc(&c.path("/fake"), "/target");
    fs::write(c.path("/target"), "").expect("file");
    let c = c.up();
    until("the fake /proc", || c.path("/covered").exists());
    let script = "cat /own; cat /other || echo denied; sleep 3600";
    for older in [false, true] {
        let flags = ["--process-label", PROCESS, "--detach", "--pid-file", "pid"];
        let out = call(&c, older, "exec", &flags, &["sh", "-c", script]);
        if runtime().is_ours() || out.code == 0 {
            out.ok().wait_for("denied\n");
            let pid = fs::read_to_string(c.dir.join("pid")).expect("pid file").parse().expect("pid");
            assert_eq!(process_label(pid), PROCESS);
        }
        assert_eq!(fs::read_to_string(c.path("/target")).expect("file"), "");
    }
}
