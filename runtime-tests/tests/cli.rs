//! The command line: what people type and what clients parse.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use runtime_tests::{Container, Output, known, run, runtime};
use serde_json::Value;

const COMMANDS: [&str; 15] = [
    "create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "pause", "resume", "update", "events",
    "spec", "features",
];

/// The runtime with exactly these arguments.
#[track_caller]
fn call(c: &Container, args: &[&str]) -> Output {
    run(Command::new(&runtime().path).args(args).current_dir(&c.dir), &c.dir)
}

/// The same with the container's `--root` before them.
#[track_caller]
fn rooted(c: &Container, args: &[&str]) -> Output {
    let root = c.root.to_str().expect("UTF-8");
    call(c, &[&["--root", root], args].concat())
}

#[test]
fn version() {
    let c = Container::new();
    for flag in ["--version", "-v", "-version"] {
        let out = call(&c, &[flag]).ok();
        let first = out.stdout.lines().next().unwrap_or_default();
        assert!(first.starts_with(&format!("{} version ", runtime().name)), "{out}");
        assert!(out.stdout.lines().any(|l| l.starts_with("spec: 1.")), "{out}");
        assert!(out.stdout.lines().any(|l| l.starts_with("commit: ")), "{out}");
        assert_eq!(out.stderr, "");
    }
}

#[test]
fn called_as_runc_it_says_so() {
    let c = Container::new();
    let link = c.dir.join("runc");
    std::os::unix::fs::symlink(&runtime().path, &link).expect("link");
    let out = run(Command::new(&link).arg("--version"), &c.dir).ok();
    assert!(out.stdout.starts_with("runc version "), "go-runc splits at this: {out}");
}

#[test]
fn help() {
    let c = Container::new();
    for args in [&["--help"][..], &["-h"], &["help"]] {
        let out = call(&c, args).ok();
        for command in COMMANDS {
            assert!(out.stdout.contains(command), "{command}: {out}");
        }
    }
    for command in COMMANDS {
        let out = call(&c, &[command, "--help"]).ok();
        assert!(out.stdout.to_lowercase().contains("usage"), "{out}");
        assert_eq!(out.stderr, "", "{command}");
    }
}

#[test]
fn help_names_the_flags() {
    let c = Container::new();
    let out = call(&c, &["exec", "--help"]).ok();
    for flag in [
        "console-socket",
        "pid-file",
        "process",
        "detach",
        "tty",
        "user",
        "env",
        "cwd",
        "cap",
        "no-new-privs",
        "additional-gids",
        "preserve-fds",
        "cgroup",
        "ignore-paused",
        "apparmor",
        "process-label",
    ] {
        assert!(out.stdout.contains(flag), "{flag}: {out}");
    }
    let out = call(&c, &["run", "--help"]).ok();
    for flag in [
        "bundle",
        "console-socket",
        "detach",
        "keep",
        "no-new-keyring",
        "no-pivot",
        "no-subreaper",
        "pid-file",
        "preserve-fds",
    ] {
        assert!(out.stdout.contains(flag), "{flag}: {out}");
    }
}

#[test]
fn unknown_command_and_flag() {
    let c = Container::new();
    let out = call(&c, &["create", "--no-such-flag", "x"]);
    assert_ne!(out.code, 0);
    assert!(format!("{}{}", out.stdout, out.stderr).contains("no-such-flag"), "{out}");
    known!("runc", "1.2", "an unknown command prints the help and succeeds");
    let out = call(&c, &["no-such-command"]);
    assert_ne!(out.code, 0);
    assert!(out.stderr.contains("no-such-command"), "{out}");
}

#[test]
fn too_few_and_too_many_arguments() {
    let c = Container::new();
    for command in ["create", "start", "state", "kill", "delete", "run", "ps", "pause", "resume", "update", "events"] {
        assert_ne!(rooted(&c, &[command]).code, 0, "{command} without an id");
    }
    for command in ["create", "start", "state", "delete", "run", "pause", "resume"] {
        assert_ne!(rooted(&c, &[command, &c.id, "extra"]).code, 0, "{command} with one too many");
    }
}

#[test]
fn flags_are_spelt_as_in_go() {
    let c = Container::new().args(&["echo", "spelt"]);
    c.write_config();
    let bundle = c.dir.to_str().expect("UTF-8");
    let root = c.root.to_str().expect("UTF-8");
    for flags in [
        vec![format!("--bundle={bundle}")],
        vec![format!("-bundle={bundle}")],
        vec!["-bundle".into(), bundle.into()],
        vec!["-b".into(), bundle.into()],
        vec![format!("-b={bundle}")],
        vec![format!("--b={bundle}")],
        vec!["--no-pivot=false".into()],
        vec!["-no-new-keyring".into()],
        vec!["--keep=false".into(), "-detach=false".into()],
        vec!["--no-subreaper".into(), "-preserve-fds=0".into()],
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let out = call(&c, &[&["-root", root, "run"], &flags[..], &[&c.id]].concat());
        assert_eq!((out.code, out.stdout.as_str()), (0, "spelt\n"), "{out}");
    }
}

#[test]
fn a_bundle_path_that_is_not_text() {
    known!("runc", "*", "its init gets the path by JSON, which has no such characters");
    use std::os::unix::ffi::OsStrExt as _;
    let c = Container::new().args(&["echo", "found"]);
    c.write_config();
    let strange = c.dir.join(std::ffi::OsStr::from_bytes(b"b\xff\xfe"));
    fs::create_dir(&strange).expect("directory");
    fs::rename(c.dir.join("config.json"), strange.join("config.json")).expect("rename");
    fs::rename(c.dir.join("rootfs"), strange.join("rootfs")).expect("rename");
    let mut call = c.command("run", &[], &[]);
    call.current_dir(&strange);
    assert_eq!(run(&mut call, &c.dir).ok().stdout, "found\n");
    call = Command::new(&runtime().path);
    call.arg("--root").arg(&c.root).arg("run").arg("--bundle").arg(&strange).arg(&c.id);
    assert_eq!(run(&mut call, &c.dir).ok().stdout, "found\n");
}

#[test]
fn global_flags() {
    let c = Container::new().args(&["echo", "global"]);
    c.write_config();
    for flags in [
        &["--rootless=auto"][..],
        &["--rootless", "false"],
        &["--systemd-cgroup=false"],
        &["--log-format", "text"],
        &["--log-format=json"],
        &["--log", "log"],
    ] {
        let out = rooted(&c, &[flags, &["run", &c.id]].concat());
        assert_eq!((out.code, out.stdout.as_str()), (0, "global\n"), "{out}");
    }
    rooted(&c, &["--log-format", "xml", "run", &c.id]).fails(1, &["log-format", "xml"]);
}

#[test]
fn obsolete_criu_flag_is_accepted() {
    let c = Container::new();
    fs::create_dir_all(&c.root).expect("--root");
    assert_eq!(rooted(&c, &["--criu", "/usr/sbin/criu", "list", "-q"]).ok().stdout, "");
}

#[test]
fn what_follows_the_program_is_its_own() {
    let c = Container::new().idle().up();
    let out = c.exec(&[], &["echo", "--tty", "-d", "--", "--help"]).ok();
    assert_eq!(out.stdout, "--tty -d -- --help\n");
}

/// Each line of the log as JSON.
fn log(c: &Container) -> Vec<Value> {
    let text = fs::read_to_string(c.dir.join("log")).expect("log");
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l:?}"))).collect()
}

#[test]
fn json_log_is_one_line_an_error() {
    let c = Container::new();
    let flags = ["--log", "log", "--log-format", "json", "state", "no-such-container"];
    let out = rooted(&c, &flags);
    assert_eq!(out.code, 1);
    assert!(!out.stderr.is_empty(), "a fatal error is told to people too: {out}");
    // podman reads the whole file as one object.
    let lines = log(&c);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["level"], "error");
    assert!(lines[0]["msg"].as_str().is_some_and(|m| m.contains("does not exist")), "{lines:?}");
    // RFC 3339: go-runc loses the whole error if it cannot parse this.
    let time = lines[0]["time"].as_str().expect("time");
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(
        shape.starts_with("0000-00-00T00:00:00")
            && (shape.ends_with('Z') || shape.contains('+') || shape.ends_with("00:00")),
        "{time}"
    );
    rooted(&c, &flags);
    assert_eq!(log(&c).len(), 2, "the log is appended to");
}

#[test]
fn json_log_stays_valid_whatever_is_in_the_message() {
    let c = Container::new().args(&["no\"such\\program\n\u{1}ü"]);
    c.write_config();
    let out = rooted(&c, &["--log", "log", "--log-format", "json", "run", &c.id]);
    assert_eq!(out.code, 1);
    assert_eq!(log(&c).iter().filter(|l| l["level"] == "error").count(), 1);
}

#[test]
fn json_log_of_a_success_is_empty() {
    let c = Container::new().args(&["true"]);
    c.write_config();
    rooted(&c, &["--log", "log", "--log-format", "json", "run", &c.id]).ok();
    assert_eq!(fs::read_to_string(c.dir.join("log")).unwrap_or_default(), "");
}

#[test]
fn text_log() {
    let c = Container::new();
    rooted(&c, &["--log", "log", "state", "no-such-container"]);
    let text = fs::read_to_string(c.dir.join("log")).expect("log");
    assert!(text.contains("level=error") && text.contains("does not exist"), "{text:?}");
}

#[test]
fn a_log_that_cannot_be_opened() {
    let c = Container::new();
    rooted(&c, &["--log", "/no/such/dir/log", "list"]).fails(1, &["--log", "/no/such/dir/log"]);
}

#[test]
fn a_log_service() {
    known!("runc", "*", "--log is a file");
    let c = Container::new();
    let listener = UnixDatagram::bind(c.dir.join("service")).expect("socket");
    listener.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    // The service's socket is there for this call alone.
    for (value, socket) in [("journald:box", "/run/systemd/journal/socket"), ("syslog:box", "/dev/log")] {
        let mount = if value.starts_with("j") { "/run" } else { "/dev" };
        let script = format!(
            "exe=$1; shift; exec unshare -m sh -ec 'mount -t tmpfs none {mount}; mkdir -p $(dirname {socket}); touch {socket}; \
             mount --bind service {socket}; exe=$0; exec \"$exe\" --log {value} \"$@\"' \"$exe\" \"$@\""
        );
        let out = c.call_from_shell(&script, "state", &[], &[]).fails(1, &["does not exist"]);
        let mut buffer = [0; 4096];
        let n = listener.recv(&mut buffer).unwrap_or_else(|e| panic!("{value}: {e}: {out}"));
        let text = String::from_utf8_lossy(&buffer[..n]);
        let begin = if value.starts_with("j") { "PRIORITY=3\nSYSLOG_IDENTIFIER=rrt\nID=box\n" } else { "<11>box: " };
        assert!(text.starts_with(begin) && text.contains(&c.id) && text.contains("does not exist"), "{text:?}");
    }
    // Without a service it is an error, as with a file that cannot be opened.
    let script = "exe=$1; shift; exec unshare -m sh -ec 'mount -t tmpfs none /dev; exec \"$0\" --log syslog:x \"$@\"' \"$exe\" \"$@\"";
    c.call_from_shell(script, "state", &[], &[]).fails(1, &["--log syslog:x", "/dev/log"]);
}

#[test]
fn debug_goes_to_the_log() {
    let c = Container::new().args(&["true"]);
    c.write_config();
    rooted(&c, &["--debug", "--log", "log", "--log-format", "json", "run", &c.id]).ok();
    let lines = log(&c);
    assert!(lines.iter().any(|l| l["level"] == "debug"), "{lines:?}");
}

#[test]
fn list() {
    let first = Container::new().idle().up();
    let second = Container::new().idle().beside(&first);
    second.create(&[]).ok();
    let table = rooted(&first, &["list"]).ok().stdout;
    let mut lines = table.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(head, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(row[..4], [&first.id, &first.pid().to_string(), "running", first.dir.to_str().expect("UTF-8")]);
    assert_eq!(row[5], "root");
    let mut ids = [first.id.as_str(), &second.id];
    ids.sort_unstable();
    assert_eq!(rooted(&first, &["list", "-q"]).ok().stdout.lines().collect::<Vec<_>>(), ids);
    let json = rooted(&first, &["list", "--format", "json"]).ok().json();
    let found: Vec<_> =
        json.as_array().expect("array").iter().map(|c| (c["id"].as_str(), c["status"].as_str())).collect();
    let expected = [(Some(first.id.as_str()), Some("running")), (Some(second.id.as_str()), Some("created"))];
    assert_eq!(found, expected);
    for field in ["ociVersion", "pid", "bundle", "rootfs", "created", "owner"] {
        assert!(!json[0][field].is_null(), "{field}: {json}");
    }
}

#[test]
fn list_of_nothing() {
    let c = Container::new();
    fs::create_dir_all(&c.root).expect("--root");
    assert_eq!(rooted(&c, &["list", "--format", "json"]).ok().stdout.trim(), "null");
    assert_eq!(rooted(&c, &["list", "--quiet"]).ok().stdout, "");
    assert_eq!(rooted(&c, &["list"]).ok().stdout.lines().count(), 1);
    rooted(&c, &["list", "--format", "xml"]).fails(1, &["--format", "xml"]);
}

#[test]
fn list_of_a_root_that_is_not_there() {
    known!("runc", "1.2", "it is an empty list");
    let c = Container::new();
    let missing = c.dir.join("no-such-root");
    call(&c, &["--root", missing.to_str().expect("UTF-8"), "list"]).fails(1, &["no-such-root"]);
    assert!(!missing.exists());
    // The default one may be missing: no container has been made yet.
    let mut command = Command::new(&runtime().path);
    command.arg("list").env("XDG_RUNTIME_DIR", &c.dir).env_remove("ROOT");
    run(&mut command, &c.dir).ok();
}

#[test]
fn info_tells_of_this_machine() {
    known!("runc", "*", "has no info");
    let c = Container::new();
    let out = call(&c, &["info"]).ok();
    let value = |name: &str| {
        let line = out.stdout.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("{name}: {out}"))[name.len()..].trim().to_owned()
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    assert_eq!(value("Kernel-Release"), kernel.trim());
    assert!(["v1", "v2", "hybrid"].contains(&value("Cgroup setup").as_str()), "{out}");
    assert!(value("Total Memory").ends_with(" MiB"), "{out}");
    let namespaces = value("Namespaces");
    assert!(["mount", "pid", "user"].iter().all(|name| namespaces.split(' ').any(|n| n == *name)), "{out}");
    assert!(value("Capabilities").contains("CAP_CHOWN"), "{out}");
    // What an ordinary user may do is less, and is still told.
    let mut command = Command::new(&runtime().path);
    std::os::unix::process::CommandExt::uid(command.arg("info").stdin(Stdio::null()), 65534);
    let out = run(&mut command, &c.dir).ok();
    assert!(out.stdout.lines().any(|l| l.starts_with("Capabilities") && l.ends_with(" none")), "{out}");
    call(&c, &["info", "word"]).fails(1, &["info", "word"]);
}

#[test]
fn completion_of_each_shell() {
    known!("runc", "*", "has no such command");
    let c = Container::new();
    let bash = call(&c, &["completion", "bash"]).ok().stdout;
    // Completed by bash itself: a command, and a flag of it.
    for (line, expected) in [("rrt resum", "resume"), ("rrt exec --proces", "--process\n--process-label")] {
        let words = line.replace(' ', "' '");
        let last = line.split(' ').count() - 1;
        let script =
            format!("{bash}\nCOMP_WORDS=('{words}'); COMP_CWORD={last}; _rrt; printf '%s\\n' \"${{COMPREPLY[@]}}\"");
        let out = run(Command::new("bash").args(["--norc", "-c", &script]), &c.dir).ok();
        assert_eq!(out.stdout.trim(), expected, "{line}");
    }
    assert_eq!(call(&c, &["completion", "--shell", "bash"]).ok().stdout, bash);
    assert!(call(&c, &["completion", "-s", "zsh"]).ok().stdout.starts_with("#compdef rrt\n"));
    assert!(call(&c, &["completion", "fish"]).ok().stdout.contains("complete -c rrt"));
    call(&c, &["completion"]).fails(1, &["completion", "bash, zsh or fish"]);
    call(&c, &["completion", "tcsh"]).fails(1, &["completion", "tcsh", "bash, zsh or fish"]);
}

#[test]
fn list_shows_stopped_ones() {
    let c = Container::new().args(&["true"]).up();
    c.wait_status("stopped");
    let json = rooted(&c, &["list", "-f", "json"]).ok().json();
    assert_eq!([&json[0]["status"], &json[0]["pid"]], [&Value::from("stopped"), &Value::from(0)]);
}

#[test]
fn spec_writes_a_configuration_that_runs() {
    let mut c = Container::new();
    rooted(&c, &["spec"]).ok();
    let path = c.dir.join("config.json");
    let written: Value = serde_json::from_slice(&fs::read(&path).expect("config.json")).expect("JSON");
    assert_eq!(written["process"]["args"], serde_json::json!(["sh"]));
    assert_eq!(written["process"]["terminal"], true);
    assert_eq!(written["root"], serde_json::json!({ "path": "rootfs", "readonly": true }));
    assert_eq!(written["mounts"].as_array().map(Vec::len), Some(7));
    rooted(&c, &["spec"]).fails(1, &["config.json", "exist"]);
    c.config = written;
    let c = c.args(&["echo", "as written"]).with("/process/terminal", false.into());
    assert_eq!(c.run(&[]).ok().stdout, "as written\n");
}

#[test]
fn spec_into_a_bundle() {
    let c = Container::new();
    let bundle = c.dir.join("other");
    fs::create_dir(&bundle).expect("directory");
    rooted(&c, &["spec", "--bundle", bundle.to_str().expect("UTF-8")]).ok();
    assert!(bundle.join("config.json").is_file());
    rooted(&c, &["spec", "--bundle", "/no/such/bundle"]).fails(1, &["/no/such/bundle"]);
}

#[test]
fn spec_for_rootless() {
    let c = Container::new();
    rooted(&c, &["spec", "--rootless"]).ok();
    let written: Value =
        serde_json::from_slice(&fs::read(c.dir.join("config.json")).expect("config.json")).expect("JSON");
    let namespaces = written["linux"]["namespaces"].as_array().expect("namespaces");
    assert!(namespaces.iter().any(|n| n["type"] == "user"), "{namespaces:?}");
    assert_eq!(written["linux"]["uidMappings"][0]["size"], 1);
}

#[test]
fn features() {
    let c = Container::new();
    let out = call(&c, &["features"]).ok();
    assert_eq!(out.stderr, "", "CRI-O reads both streams as one document");
    let features = out.json();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(features["hooks"].as_array().map(Vec::len), Some(6));
    let namespaces = features["linux"]["namespaces"].as_array().expect("namespaces");
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        assert!(namespaces.iter().any(|n| n == kind), "{kind}");
    }
    let options = features["mountOptions"].as_array().expect("mountOptions");
    for option in ["ro", "rro", "rbind", "rshared", "nodev", "tmpcopyup"] {
        assert!(options.iter().any(|o| o == option), "{option}: {options:?}");
    }
    assert_eq!(features["linux"]["cgroup"]["v1"], true);
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert!(features["linux"]["capabilities"].as_array().is_some_and(|c| c.iter().any(|c| c == "CAP_SYS_ADMIN")));
}

/// One row of `features --probe`; nothing but JSON is printed.
#[track_caller]
fn probed(out: Output, name: &str) -> Value {
    let out = out.ok();
    assert_eq!(out.stderr, "");
    let document = out.json();
    let rows = document["interfaces"].as_array().expect("interfaces").clone();
    rows.into_iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no row {name}: {document}"))
}

#[test]
fn features_probe_tries_what_the_kernel_has() {
    known!("runc", "*", "it has no --probe");
    let c = Container::new();
    let probe = |older: bool| {
        let mut command = Command::new(&c.binary);
        command.args(["features", "--probe"]).stdin(Stdio::null());
        if older {
            // From open_tree to lsm_list_modules.
            runtime_tests::without_calls(&mut command, 428, 470);
        }
        runtime_tests::run(&mut command, &c.dir)
    };
    let pidfd = "pidfd_open";
    assert_eq!(probed(probe(false), pidfd)["found"], true);
    for name in [pidfd, "mount_setattr", "fchmodat2", "lsm_list_modules", "clone3: CLONE_INTO_CGROUP"] {
        let row = probed(probe(true), name);
        assert_eq!(row["found"], false, "{row}");
        assert!(row["since"].is_string() && row["purpose"].is_string(), "{row}");
    }
    // An ordinary user may not try everything, and is not told that it is missing.
    let copy = c.dir.join("rrt");
    fs::copy(&c.binary, &copy).expect("copy of the runtime, where everybody can reach it");
    let mut command = Command::new(&copy);
    std::os::unix::process::CommandExt::uid(command.args(["features", "--probe"]).stdin(Stdio::null()), 65534);
    let row = probed(runtime_tests::run(&mut command, &c.dir), "fsopen, fsmount");
    assert!(row["found"].is_null() && row["detail"].as_str().is_some_and(|d| d.contains("EPERM")), "{row}");
    // The document of the specification asks the kernel nothing.
    let mut command = Command::new(&c.binary);
    command.arg("features").stdin(Stdio::null());
    runtime_tests::without_calls(&mut command, 428, 470);
    let plain = runtime_tests::run(&mut command, &c.dir).ok();
    assert_eq!(plain.stdout, call(&c, &["features"]).ok().stdout);
    assert!(plain.json()["interfaces"].is_null());
}

/// Those of the table in runtime-spec, config.md, and `rnodev`, which the table forgets; without `idmap` and `ridmap`.
const MOUNT_OPTIONS: &str = "\
    async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime \
    noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev \
    rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid \
    rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared \
    silent slave strictatime suid symfollow sync tmpcopyup unbindable";

#[test]
fn features_names_every_mount_option() {
    let c = Container::new();
    let features = call(&c, &["features"]).ok().json();
    let options = features["mountOptions"].as_array().expect("mountOptions");
    for option in MOUNT_OPTIONS.split_whitespace() {
        assert!(options.iter().any(|o| o == option), "{option}: {options:?}");
    }
    known!("runc", "*", "it does not advertise them, though it has them");
    for option in ["idmap", "ridmap"] {
        assert!(options.iter().any(|o| o == option), "{option}: {options:?}");
    }
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
}

#[test]
fn state_of_an_unknown_container() {
    let c = Container::new();
    for command in ["state", "start", "pause", "resume", "ps", "kill", "delete"] {
        let out = c.call(command, &[], if command == "kill" { &["KILL"] } else { &[] });
        assert_eq!(out.code, 1, "{command}: {out}");
        assert!(out.stderr.contains("does not exist"), "containerd looks for this text: {command}: {out}");
    }
}

#[test]
fn the_default_state_directory() {
    if runtime().is_ours() {
        let mut c = Container::new().idle();
        let root = std::mem::replace(&mut c.root, "/run/rrt".into());
        c.write_config();
        call(&c, &["create", &c.id]).ok();
        assert!(fs::exists(format!("/run/rrt/{}", c.id)).is_ok_and(|yes| yes));
        c.delete(&["--force"]).ok();
        c.assert_gone();
        c.root = root;
    } else {
        runtime_tests::skip!("each runtime has its own");
    }
}

#[test]
fn delete_by_regular_expression() {
    known!("runc", "*", "delete --regex is crun's");
    let one = Container::new().idle().up();
    let two = Container::new().idle().beside(&one).up();
    let other = Container::new().idle().beside(&one).up();
    let (a, b) = (&one.id[one.id.len() - 4..], &two.id[two.id.len() - 4..]);
    rooted(&one, &["delete", "--force", "--regex", &format!("^rt-.*-({a}|{b})$")]).ok();
    one.assert_gone();
    two.assert_gone();
    assert_eq!(other.state()["status"], "running");
}

#[test]
fn plan_prints_what_create_would_do() {
    known!("runc", "*", "plan is rrt's");
    let c = Container::new().with("/linux/resources/memory", serde_json::json!({ "limit": 67_108_864 }));
    c.write_config();
    let bundle = c.dir.to_str().expect("UTF-8");
    let text = rooted(&c, &["plan", "--bundle", bundle]).ok().stdout;
    for word in ["pid", "network", "/proc", "devpts", "67108864", "guest"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let json = rooted(&c, &["plan", "--bundle", bundle, "--json"]).ok().json();
    assert!(json.is_object(), "{json}");
    c.assert_gone();
}
