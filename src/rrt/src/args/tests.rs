use super::*;

fn words<'a>(line: &[&'a str]) -> Vec<&'a OsStr> {
    line.iter().map(|&word| OsStr::new(word)).collect()
}

fn globals_of(line: &[&str]) -> Globals {
    globals(&words(line)).unwrap().0
}

/// Reads a whole line, global flags and command.
fn read_line(line: &[&str]) -> Result<Command, String> {
    let (_, request) = globals(&words(line))?;
    command("rrt", &request)
}

fn ok(line: &[&str]) -> Command {
    read_line(line).unwrap()
}

fn err(line: &[&str]) -> String {
    read_line(line).map(|command| panic!("{command:?}")).unwrap_err()
}

#[test]
fn the_line_containerd_sends_to_create() {
    let line = [
        "--root",
        "/run/x",
        "--debug",
        "--log",
        "/b/log.json",
        "--log-format",
        "json",
        "--rootless=false",
        "create",
        "--bundle",
        "/b",
        "--pid-file",
        "/b/init.pid",
        "--console-socket",
        "/s",
        "--pidfd-socket",
        "/p",
        "--no-pivot",
        "--no-new-keyring",
        "--preserve-fds",
        "2",
        "c1",
    ];
    let globals = globals_of(&line);
    assert_eq!(globals.root.as_deref(), Some("/run/x".as_ref()));
    assert_eq!(globals.log.file.as_deref(), Some("/b/log.json".as_ref()));
    assert!(globals.log.json);
    assert_eq!(globals.log.level, Some(rrt_runtime::log::Level::Debug));
    assert_eq!(globals.rootless, Some(false));
    let Command::Create(o) = ok(&line) else { panic!() };
    assert_eq!((o.id.as_str(), o.bundle.to_str()), ("c1", Some("/b")));
    assert_eq!(o.pid_file.as_deref(), Some("/b/init.pid".as_ref()));
    assert_eq!(o.console_socket.as_deref(), Some("/s".as_ref()));
    assert_eq!(o.pidfd_socket.as_deref(), Some("/p".as_ref()));
    assert!(o.no_pivot && o.no_new_keyring);
    assert_eq!(o.preserve_fds, 2);
    assert_eq!(o.config, None);
}

#[test]
fn the_line_conmon_sends_to_exec() {
    let line = ["--log-format=json", "--log", "/l", "exec", "--pid-file", "/p", "--process", "/j", "--detach", "c"];
    let Command::Exec(o) = ok(&line) else { panic!() };
    assert_eq!((o.id.as_str(), o.detach), ("c", true));
    assert_eq!(o.process.as_deref(), Some("/j".as_ref()));
    assert_eq!(o.pid_file.as_deref(), Some("/p".as_ref()));
    assert!(o.args.is_empty());
}

#[test]
fn defaults_without_flags() {
    let globals = globals_of(&["state", "c"]);
    assert_eq!(globals.root, None);
    assert_eq!(globals.rootless, None);
    assert_eq!(globals.cgroup_manager, CgroupManager::Cgroupfs);
    assert!(globals.log.file.is_none() && !globals.log.json && globals.log.level.is_none());
    let Command::Run(o) = ok(&["run", "c"]) else { panic!() };
    assert_eq!(o.create.bundle.to_str(), Some("."));
    assert!(!o.detach && !o.keep && !o.no_subreaper);
}

#[test]
fn global_flags() {
    assert_eq!(globals_of(&["--systemd-cgroup", "list"]).cgroup_manager, CgroupManager::Systemd);
    assert_eq!(globals_of(&["--systemd-cgroup=false", "list"]).cgroup_manager, CgroupManager::Cgroupfs);
    assert_eq!(globals_of(&["--cgroup-manager", "disabled", "list"]).cgroup_manager, CgroupManager::Disabled);
    assert_eq!(globals_of(&["--rootless", "auto", "list"]).rootless, None);
    assert_eq!(globals_of(&["--rootless=true", "list"]).rootless, Some(true));
    assert_eq!(globals_of(&["--log", "file:/l", "list"]).log.file.as_deref(), Some("/l".as_ref()));
    assert_eq!(globals_of(&["--log", "/dev/stderr", "list"]).log.file, None);
    let service = |value| globals_of(&["--log", value, "list"]).log.service;
    assert_eq!(service("journald:box"), Some(LogService::Journald("box".into())));
    assert_eq!(service("syslog:"), Some(LogService::Syslog("rrt".into())));
    assert_eq!(service("file:journald:x"), None);
    assert_eq!(globals_of(&["--log=", "list"]).log.file, None);
    assert_eq!(globals_of(&["-criu", "/usr/bin/criu", "list"]).root, None);
    for bad in [["--log-format", "xml"], ["--rootless", "no"], ["--cgroup-manager", "x"], ["--log", "syslog:x\ty"]] {
        let text = err(&[bad[0], bad[1], "list"]);
        assert!(text.contains(&bad[0][1..]) && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn what_follows_the_container_belongs_to_the_process() {
    let args = |line: &[&str]| match ok(line) {
        Command::Exec(o) => (o.tty, o.args.join(" ")),
        other => panic!("{other:?}"),
    };
    assert_eq!(args(&["exec", "c", "ls", "-la"]), (None, "ls -la".into()));
    assert_eq!(args(&["exec", "-t", "c", "sh", "-c", "echo --tty"]), (Some(true), "sh -c echo --tty".into()));
    assert_eq!(args(&["exec", "--", "c", "ls", "-t"]), (None, "ls -t".into()));
    assert_eq!(args(&["exec", "c", "--", "ls", "--", "x"]), (None, "ls -- x".into()));
    assert_eq!(args(&["exec", "-t=false", "c", "ls", "--help"]), (None, "ls --help".into()));
}

#[test]
fn the_flags_of_exec() {
    let line = [
        "exec",
        "-e",
        "A=b",
        "--env",
        "C=d,e",
        "--cwd",
        "/w",
        "-u",
        "1:2",
        "-g",
        "5",
        "--additional-gids=6",
        "--cap",
        "CAP_KILL",
        "-c=CAP_CHOWN",
        "--no-new-privs",
        "--process-label",
        "l",
        "--apparmor",
        "p",
        "--preserve-fds",
        "3",
        "--cgroup",
        "cpu,cpuacct:/x",
        "--ignore-paused",
        "c",
        "ls",
    ];
    let Command::Exec(o) = ok(&line) else { panic!() };
    assert_eq!(o.env, ["A=b", "C=d,e"]);
    assert_eq!(o.cwd.as_deref(), Some("/w"));
    assert_eq!(o.user, Some((1, Some(2))));
    assert_eq!(o.additional_gids, [5, 6]);
    assert_eq!(o.caps, ["CAP_KILL", "CAP_CHOWN"]);
    assert!(o.no_new_privs && o.ignore_paused && !o.detach);
    assert_eq!((o.process_label.as_deref(), o.apparmor.as_deref()), (Some("l"), Some("p")));
    assert_eq!(o.preserve_fds, 3);
    assert_eq!(o.cgroup, ["cpu,cpuacct:/x"]);
}

#[test]
fn kill_and_delete() {
    let kill = |line: &[&str]| match ok(line) {
        Command::Kill { target: Target::Id(id), signal, all } => (id, signal, all),
        other => panic!("{other:?}"),
    };
    assert_eq!(kill(&["kill", "c"]), ("c".into(), 15, false));
    assert_eq!(kill(&["kill", "--all", "c", "9"]), ("c".into(), 9, true));
    assert_eq!(kill(&["kill", "-a", "c", "SIGHUP"]), ("c".into(), 1, true));
    assert_eq!(kill(&["kill", "c", "hup", "--all"]), ("c".into(), 1, true));
    assert!(err(&["kill", "c", "NOPE"]).starts_with("kill: "));
    assert!(matches!(ok(&["delete", "c", "--force"]), Command::Delete { target: Target::Id(_), force: true }));
    let Command::Delete { target, force: false } = ok(&["delete", "-r", "^web-"]) else { panic!() };
    assert_eq!(target, Target::Pattern("^web-".into()));
}

#[test]
fn list_ps_and_events() {
    assert!(matches!(ok(&["list"]), Command::List { format: Format::Table, quiet: false }));
    assert!(matches!(ok(&["list", "--format=json", "-q"]), Command::List { format: Format::Json, quiet: true }));
    assert!(err(&["list", "-f", "yaml"]).contains("table or json"));
    let Command::Ps { id, format: Format::Json, args } = ok(&["ps", "--format", "json", "c"]) else { panic!() };
    assert_eq!((id.as_str(), args.len()), ("c", 0));
    let Command::Ps { args, .. } = ok(&["ps", "--format", "table", "c", "-o", "pid,cmd"]) else { panic!() };
    assert_eq!(args, words(&["-o", "pid,cmd"]));
    let Command::Events { interval, once, .. } = ok(&["events", "--interval=1m30s", "c"]) else { panic!() };
    assert_eq!((interval.as_secs(), once), (90, false));
    let Command::Events { interval, once, .. } = ok(&["events", "--stats", "c"]) else { panic!() };
    assert_eq!((interval.as_secs(), once), (5, true));
    assert!(err(&["events", "--interval", "5", "c"]).contains("5s"));
}

#[test]
fn update_by_flags() {
    let line = [
        "update",
        "--memory",
        "512m",
        "--memory-swap=-1",
        "--cpu-quota",
        "-1",
        "--cpu-share",
        "512",
        "--cpuset-cpus",
        "0-1",
        "--pids-limit",
        "-1",
        "--blkio-weight",
        "100",
        "--cpu-idle",
        "1",
        "--kernel-memory",
        "1m",
        "c",
    ];
    let Command::Update { resources: NewResources::Flags(r), .. } = ok(&line) else { panic!() };
    let memory = r.memory().unwrap();
    assert_eq!((memory.limit(), memory.swap(), memory.reservation()), (Some(512 << 20), Some(-1), None));
    let cpu = r.cpu().as_ref().unwrap();
    assert_eq!((cpu.quota(), cpu.shares(), cpu.idle(), cpu.period()), (Some(-1), Some(512), Some(1), None));
    assert_eq!((cpu.cpus().as_deref(), cpu.mems().as_deref()), (Some("0-1"), None));
    assert_eq!(r.pids().unwrap().limit(), -1);
    assert_eq!(r.block_io().as_ref().unwrap().weight(), Some(100));
}

#[test]
fn update_names_only_what_was_given() {
    let Command::Update { resources: NewResources::Flags(r), .. } = ok(&["update", "--memory=1g", "c"]) else {
        panic!()
    };
    assert!(r.cpu().is_none() && r.pids().is_none() && r.block_io().is_none() && r.devices().is_none());
    assert!(matches!(ok(&["update", "--resources=-", "c"]), Command::Update { resources: NewResources::Stdin, .. }));
    assert!(matches!(ok(&["update", "-r", "f", "c"]), Command::Update { resources: NewResources::File(_), .. }));
    assert!(err(&["update", "--memory", "lots", "c"]).contains("--memory"));
    let Command::Update { rdt, .. } = ok(&["update", "--l3-cache-schema", "L3:0=f", "--mem-bw-schema=", "c"]) else {
        panic!()
    };
    assert_eq!((rdt.l3_cache.as_deref(), rdt.bandwidth), (Some("L3:0=f"), None));
}

#[test]
fn spec_features_and_plan() {
    for (argv, expected, for_user) in [
        (&["spec"][..], "config.json", false),
        (&["spec", "-b", "/b", "--rootless"], "/b/config.json", true),
        (&["spec", "-f", "x.json", "--bundle", "/b"], "/b/x.json", false),
        (&["spec", "--file", "/x.json", "--bundle", "/b"], "/x.json", false),
    ] {
        let Command::Spec { file, rootless } = ok(argv) else { panic!("{argv:?}") };
        assert_eq!((file.to_str(), rootless), (Some(expected), for_user), "{argv:?}");
    }
    assert!(matches!(ok(&["features"]), Command::Features { probe: false }));
    assert!(matches!(ok(&["features", "-probe"]), Command::Features { probe: true }));
    let Command::Plan { options, json: true } = ok(&["plan", "--bundle", "/b", "--json"]) else { panic!() };
    assert_eq!(options.id, "ID");
    let Command::Plan { options, json: false } = ok(&["plan", "c"]) else { panic!() };
    assert_eq!(options.id, "c");
}

#[test]
fn help_and_version() {
    assert!(matches!(ok(&["--version"]), Command::Version));
    assert!(matches!(ok(&["-v"]), Command::Version));
    for line in [&[][..], &["--help"], &["-h"], &["help"], &["h"]] {
        let Command::Help(text) = ok(line) else { panic!("{line:?}") };
        assert!(text.contains("create") && text.contains("--root"), "{text}");
    }
    for line in [&["create", "--help"][..], &["help", "create"], &["create", "x", "-h"]] {
        let Command::Help(text) = ok(line) else { panic!("{line:?}") };
        assert!(text.contains("--console-socket") && text.contains("rrt create"), "{text}");
    }
    assert!(!matches!(ok(&["exec", "c", "ls", "--help"]), Command::Help(_)));
}

#[test]
fn what_podman_asks_to_learn_about_checkpoints() {
    assert!(matches!(ok(&["checkpoint", "--help"]), Command::Help(_)));
    assert!(err(&["restore", "--lsm-mount-context"]).contains("flag needs an argument: -lsm-mount-context"));
    let go_runc = ["restore", "--image-path", "/i", "-no-subreaper", "--bundle", "/b", "--pid-file", "/p", "c"];
    let Command::Restore(o) = ok(&go_runc) else { panic!() };
    assert!(
        o.no_subreaper
            && !o.detach
            && o.criu.image_path == Some("/i".into())
            && o.create.bundle == std::path::Path::new("/b")
    );
    let Command::Checkpoint(o) = ok(&["checkpoint", "--leave-running", "--file-locks", "--status-fd", "-1", "c"])
    else {
        panic!()
    };
    assert!(o.leave_running && o.criu.file_locks && o.status_fd.is_none());
    let Command::Checkpoint(o) = ok(&["checkpoint", "--page-server", "[::1]:77", "--manage-cgroups-mode=full", "c"])
    else {
        panic!()
    };
    assert_eq!(o.page_server, Some(("::1".into(), 77)));
    assert_eq!(o.criu.manage_cgroups, rrt_runtime::ManageCgroups::Full);
    for bad in ["77", ":77", "host:", "host:0", "::1:77", "[::1:77"] {
        assert!(err(&["checkpoint", "--page-server", bad, "c"]).contains("ADDRESS:PORT"), "{bad}");
    }
}

#[test]
fn errors_are_one_line_that_names_command_and_flag() {
    for (line, parts) in [
        (
            &["create", "--bogus", "c"][..],
            &["create: ", "flag provided but not defined: -bogus", "rrt create --help"][..],
        ),
        (&["create"], &["create: ", "container-id"]),
        (&["create", "a", "b"], &["create: ", "'b'"]),
        (&["start", "--bundle", "/b", "c"], &["start: ", "-bundle"]),
        (&["create", "--preserve-fds", "x", "c"], &["create: ", "preserve-fds", "'x'"]),
        (&["exec", "-u", "root", "c", "ls"], &["exec: ", "--user", "UID:GID"]),
        (&["run", "--detach=maybe", "c"], &["run: ", "-detach", "maybe"]),
        (&["--bogus", "list"], &["flag provided but not defined: -bogus"]),
        (&["bogus"], &["unknown command \"bogus\""]),
        (&["help", "bogus"], &["unknown command \"bogus\""]),
    ] {
        let text = err(line);
        assert!(!text.contains('\n'), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn words_and_values_are_refused_in_these_words() {
    for (line, text) in [
        (&["create"][..], "the following required arguments were not provided: <container-id>"),
        (&["kill", "--"], "the following required arguments were not provided: <container-id>"),
        (&["mounts"], "the following required arguments were not provided: <action> <container-id>"),
        (&["mounts", "list"], "the following required arguments were not provided: <container-id>"),
        (&["state", "a", "b\n  c", "d"], "unexpected argument 'b c' found"),
        (&["info", "--", "-x"], "unexpected argument '-x' found"),
        (&["help", "a", "b"], "unexpected argument 'b' found"),
        (
            &["kill", "c", ""],
            "invalid value '' for '[signal]': expected a number from 0 to 64 or a name like TERM or RTMIN+3",
        ),
        (&["mounts", "x"], "invalid value 'x' for '<action>': expected add, replace, remove or list"),
        (&["list", "-f", "x"], "invalid value 'x' for '--format <FORMAT>': expected table or json"),
        (&["list", "-f", "x", "-f", "json"], "invalid value 'x' for '--format <FORMAT>': expected table or json"),
        (&["exec", "-g", "x", "c"], "invalid value 'x' for '--additional-gids <GID>': invalid digit found in string"),
        (
            &["run", "--preserve-fds", "-1", "c"],
            "invalid value '-1' for '--preserve-fds <N>': -1 is not in 0..=4294967295",
        ),
        (
            &["update", "--blkio-weight=65536", "c"],
            "invalid value '65536' for '--blkio-weight <N>': 65536 is not in 0..=65535",
        ),
        (
            &["update", "-r", "f", "--cpu-period=", "c"],
            "invalid value '' for '--cpu-period <N>': cannot parse integer from empty string",
        ),
        (
            &["checkpoint", "--empty-ns=ipc", "c"],
            "invalid value 'ipc' for '--empty-ns <NAMESPACE>': namespace \"ipc\" is not supported: expected network",
        ),
    ] {
        assert_eq!(err(line), format!("{}: {text} (see rrt {} --help)", line[0], line[0]));
    }
    assert_eq!(err(&["--rootless=", "list"]), "invalid value '' for '--rootless <MODE>': expected true, false or auto");
}

#[test]
fn the_last_value_counts_and_an_empty_one_is_none() {
    let Command::Run(o) = ok(&["run", "-b", "/a", "c", "--bundle=/b", "--pid-file", "/p", "--pid-file="]) else {
        panic!()
    };
    assert_eq!((o.create.bundle.to_str(), o.create.pid_file), (Some("/b"), None));
    let Command::Exec(o) = ok(&["exec", "--cwd", "/a", "--cwd", "", "-e", "", "-e", "A=", "c"]) else { panic!() };
    assert_eq!((o.cwd, o.env), (None, vec![String::new(), "A=".into()]));
    let Command::Completion { shell } = ok(&["completion", "-s", "zsh", "bash"]) else { panic!() };
    assert_eq!(shell, Shell::Zsh);
}

/// The table and the functions that read by it name the same flags.
#[test]
fn every_flag_that_is_shown_does_something() {
    const VALUES: [&str; 14] = [
        "/x", "json", "1", "512m", "1m", "full", "skip", "zsh", "host:1", "1:2", "c 1:3 r", "systemd", "true", "debug",
    ];
    // The one namespace is always left empty; criu enters the root file system.
    const WITHOUT_EFFECT: [(&str, &str); 3] =
        [("checkpoint", "empty-ns"), ("restore", "empty-ns"), ("restore", "no-pivot")];
    let global = [&flags::TABLE.global].into_iter().map(|entry| (entry, vec!["list"]));
    let commands = flags::TABLE.commands.iter().map(|entry| {
        let required = entry.words.iter().filter(|word| word.required || word.name == "shell");
        let word = |word: &table::Word| match word.name {
            "action" => "add",
            "shell" => "bash",
            _ => "c",
        };
        (entry, required.map(word).collect())
    });
    for (entry, words) in global.chain(commands) {
        let read = |flag: &[&str]| {
            let name = (!entry.name.is_empty()).then_some(entry.name);
            let line: Vec<&str> = name.into_iter().chain(flag.iter().copied()).chain(words.iter().copied()).collect();
            let (globals, request) = globals(&self::words(&line))?;
            command("rrt", &request).map(|command| format!("{globals:?} {command:?}"))
        };
        let without = read(&[]).unwrap();
        for flag in entry.shown() {
            let name = format!("--{}", flag.long);
            let does = match flag.value() {
                None => read(&[&name]).unwrap() != without,
                Some(_) => VALUES.iter().any(|value| read(&[&name, value]).is_ok_and(|with| with != without)),
            };
            assert_eq!(does, !WITHOUT_EFFECT.contains(&(entry.name, flag.long)), "{} {name}", entry.name);
        }
    }
}

#[test]
fn the_program_answers_to_runc() {
    assert_eq!(program_name(Some("/usr/sbin/runc".as_ref())), "runc");
    assert_eq!(program_name(Some("/usr/sbin/rrt".as_ref())), "rrt");
    assert_eq!(program_name(Some("other".as_ref())), "rrt");
    assert_eq!(program_name(None), "rrt");
}

#[test]
fn a_path_need_not_be_utf8_and_text_must_be() {
    use std::os::unix::ffi::OsStrExt;
    let bytes = OsStr::from_bytes(b"/b\xff");
    let read = |line: &[&OsStr]| command("rrt", &Request::Command(line.to_vec()));
    let [create, exec, ps] = ["create", "exec", "ps"].map(OsStr::new);
    let [bundle, cwd, id] = ["--bundle", "--cwd", "c"].map(OsStr::new);
    let Ok(Command::Create(o)) = read(&[create, bundle, bytes, id]) else { panic!() };
    assert_eq!(o.bundle.as_os_str(), bytes);
    let Ok(Command::Ps { args, .. }) = read(&[ps, id, bytes]) else { panic!() };
    assert_eq!(args, [bytes]);
    let why = "invalid value '/b\u{fffd}' for '--cwd <DIR>': expected UTF-8";
    assert_eq!(read(&[exec, cwd, bytes, id]).unwrap_err(), format!("exec: {why} (see rrt exec --help)"));
    assert!(read(&[exec, id, bytes]).unwrap_err().contains("for '[command]...': expected UTF-8"));
    assert!(read(&[create, bytes]).unwrap_err().contains("for '<container-id>': expected UTF-8"));
}
