//! Every known escape, with a root file system made by an attacker. The names carry the numbers; the table of them is
//! in `src/runtime/SECURITY.md`.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use runtime_tests::{Container, Output, known, until};
use serde_json::{Value, json};

/// A directory of the host that the attacks aim at, beside the bundle's root, with one file that says so.
struct Outside {
    dir: PathBuf,
}

impl Outside {
    fn new(c: &Container) -> Self {
        let dir = c.dir.join("outside");
        fs::create_dir(&dir).expect("directory");
        fs::write(dir.join("file"), "host").expect("file");
        fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o604)).expect("chmod");
        Self { dir }
    }

    /// The same file reached by an absolute and by a relative link from the root file system's top.
    fn ways(&self, name: &str) -> [String; 2] {
        [format!("{}/{name}", self.dir.display()), format!("../outside/{name}")]
    }

    fn marker(&self) -> String {
        self.dir.join("file").to_str().expect("UTF-8").to_owned()
    }

    /// Fails if anything came, went or changed.
    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        let names: Vec<_> = fs::read_dir(&self.dir).expect("directory").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["file"], "{what}");
        let file = fs::symlink_metadata(self.dir.join("file")).expect("file");
        assert_eq!((file.mode() & 0o7777, file.rdev()), (0o604, 0), "{what}");
        // Of whoever runs the tests.
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        assert_eq!((file.uid(), file.gid()), own, "{what}");
        assert_eq!(fs::read(self.dir.join("file")).expect("file"), b"host", "{what}");
    }
}

/// Replaces a directory of the root file system by a link.
fn replace(c: &Container, path: &str, target: &str) {
    let path = c.path(path);
    if path.is_dir() {
        fs::remove_dir_all(&path).expect("remove the directory");
    }
    let _ = fs::remove_file(&path);
    symlink(target, &path).expect("link");
}

/// The mount points that a container without anything on /dev keeps.
fn without_dev(c: Container) -> Container {
    ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"].iter().fold(c, |c, d| c.without_mount(d))
}

#[test]
fn cve_2023_27561_proc_is_a_link() {
    for target in ["/tmp", "tmp", "/no/such", "../outside", "."] {
        let c = Container::new();
        let outside = Outside::new(&c);
        replace(&c, "/proc", target);
        c.run(&[]).fails(1, &["/proc"]);
        outside.assert_untouched(target);
    }
}

#[test]
fn cve_2023_28642_sys_is_a_link() {
    for target in ["/tmp", "../outside"] {
        let c = Container::new();
        let outside = Outside::new(&c);
        replace(&c, "/sys", target);
        c.run(&[]).fails(1, &["/sys"]);
        outside.assert_untouched(target);
    }
}

#[test]
fn cve_2019_16884_proc_is_a_volume() {
    // The label of a security module would be written to a file of the attacker's.
    let c = Container::new();
    fs::create_dir_all(c.dir.join("fake/self/attr")).expect("directory");
    fs::write(c.dir.join("fake/self/attr/exec"), "").expect("file");
    let c = c.without_mount("/proc").mount("/proc", "bind", "fake", &["rbind"]);
    c.run(&[]).fails(1, &["/proc"]);
    c.assert_gone();
}

#[test]
fn cve_2019_19921_proc_is_a_tmpfs() {
    let c = Container::new().without_mount("/proc").mount("/proc", "tmpfs", "tmpfs", &[]);
    c.run(&[]).fails(1, &["/proc"]);
}

#[test]
fn cve_2021_30465_destination_is_a_link_out_of_the_root() {
    for kind in ["tmpfs", "bind"] {
        for (n, name) in ["", "missing", "file/.."].into_iter().enumerate() {
            let c = Container::new().args(&["guest", "report"]);
            let outside = Outside::new(&c);
            fs::create_dir(c.dir.join("source")).expect("directory");
            let [absolute, relative] = outside.ways(name);
            symlink(&absolute, c.path("/abs")).expect("link");
            symlink(&relative, c.path("/rel")).expect("link");
            let options: &[&str] = if kind == "bind" { &["rbind"] } else { &[] };
            let c = ["/abs", "/rel", "/abs/below", "/rel/be/low"]
                .iter()
                .fold(c, |c, d| c.mount(d, kind, "source", options));
            let out = c.run(&[]);
            outside.assert_untouched(&format!("{kind} {n}: {out}"));
        }
    }
}

#[test]
fn cve_2021_30465_a_parent_is_a_link_out_of_the_root() {
    let c = Container::new();
    let outside = Outside::new(&c);
    let [absolute, _] = outside.ways("");
    fs::create_dir(c.path("/a")).expect("directory");
    symlink("../b", c.path("/a/up")).expect("link");
    symlink(absolute.trim_end_matches('/'), c.path("/b")).expect("link");
    fs::write(c.dir.join("source"), "").expect("file");
    let c = c.mount("/a/up/deep/file", "bind", "source", &["bind"]).mount("/a/../../b/x", "tmpfs", "tmpfs", &[]);
    let out = c.run(&[]);
    outside.assert_untouched(&out.to_string());
}

#[test]
fn a_link_inside_the_root_is_followed_inside_it() {
    // What images do with /var/run.
    let c = Container::new();
    fs::create_dir(c.path("/run")).expect("directory");
    symlink("/run", c.path("/varrun")).expect("link");
    let report = c.mount("/varrun/x", "tmpfs", "tmpfs", &[]).report();
    assert!(report["mounts"].as_array().is_some_and(|m| m.iter().any(|m| m["target"] == "/run/x")), "{report}");
}

/// Swaps a directory of the root file system for a link to `outside` and back until told to stop.
fn swap(dir: &Path, target: &Path, stop: &AtomicBool) {
    let (aside, link) = (dir.with_extension("aside"), dir.with_extension("link"));
    symlink(target, &link).expect("link");
    while !stop.load(Ordering::Relaxed) {
        let _ = fs::rename(dir, &aside).and_then(|()| fs::rename(&link, dir));
        let _ = fs::rename(dir, &link).and_then(|()| fs::rename(&aside, dir));
    }
}

/// CVE-2021-30465 mounts outside, CVE-2024-45310 makes empty files and directories outside.
fn raced(destinations: &[(&str, &str)]) {
    let c = Container::new().args(&["true"]);
    let outside = Outside::new(&c);
    fs::create_dir(c.path("/race")).expect("directory");
    fs::create_dir(c.dir.join("source")).expect("directory");
    fs::write(c.dir.join("source/file"), "").expect("file");
    let c = destinations.iter().fold(c, |c, (destination, source)| c.mount(destination, "bind", source, &["rbind"]));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&c.path("/race"), &outside.dir, &stop));
        for _ in 0..40 {
            // It may fail, as what it works on vanishes; it must not work on anything else.
            let _ = c.run(&[]);
            let names = fs::read_dir(&outside.dir).expect("directory").count();
            if names != 1 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    outside.assert_untouched("a mount point was made outside");
}

#[test]
fn cve_2024_45310_a_racing_swap_of_a_parent() {
    known!("runc", "1.1.14", "CVE-2024-45310");
    raced(&[("/race/a/b/c", "source"), ("/race/d/file", "source/file")]);
}

#[test]
fn cve_2021_30465_a_racing_swap_of_the_destination() {
    known!("runc", "1.1.14", "CVE-2024-45310");
    raced(&[("/race", "source"), ("/race/x", "source")]);
}

#[test]
fn cve_2026_41579_dev_is_a_link() {
    known!("runc", "1.3.6", "CVE-2026-41579");
    dev_is_a_link();
}

#[test]
fn cve_2026_47766_dev_is_a_link_and_a_device_is_asked_for() {
    known!("runc", "1.3.6", "CVE-2026-41579");
    for target in ["../outside", "/no/such"] {
        let device = json!([{ "path": "/dev/evil", "type": "c", "major": 1, "minor": 3 }]);
        let c = without_dev(Container::new()).with("/linux/devices", device);
        let outside = Outside::new(&c);
        replace(&c, "/dev", target);
        let out = c.run(&[]);
        outside.assert_untouched(&out.to_string());
    }
}

fn dev_is_a_link() {
    for way in 0..2 {
        let c = without_dev(Container::new());
        let outside = Outside::new(&c);
        replace(&c, "/dev", outside.ways("")[way].trim_end_matches('/'));
        let out = c.run(&[]);
        outside.assert_untouched(&out.to_string());
    }
}

#[test]
fn cve_2026_88264_dev_console_is_a_link() {
    for name in ["file", "made"] {
        for way in 0..2 {
            let c = without_dev(Container::new()).sh("true").with("/process/terminal", json!(true));
            let outside = Outside::new(&c);
            // One directory deeper than the ways begin.
            let target = outside.ways(name)[way].replace("../", "../../");
            symlink(&target, c.path("/dev/console")).expect("link");
            let pty = runtime_tests::Pty::new(24, 80);
            c.write_config();
            let mut command = c.command("run", &[], &[]);
            command.stdin(pty.slave()).stdout(pty.slave()).stderr(pty.slave());
            runtime_tests::Background::start_as_is(&mut command).wait();
            outside.assert_untouched(&target);
        }
    }
}

#[test]
fn cve_2026_88265_dev_null_is_not_the_null_device() {
    for name in ["file", "made"] {
        for way in 0..2 {
            let c = without_dev(Container::new()).with("/process/user/uid", json!(1000));
            let outside = Outside::new(&c);
            symlink(outside.ways(name)[way].replace("../", "../../"), c.path("/dev/null")).expect("link");
            let out = c.run(&[]);
            outside.assert_untouched(&out.to_string());
        }
    }
}

#[test]
fn cve_2025_31133_a_mask_is_the_null_device_or_nothing() {
    known!("runc", "1.2.8", "CVE-2025-31133");
    type Forge = fn(&Path);
    let forge: [(&str, Forge); 3] = [
        ("link", |p| symlink("/proc/sys/kernel/core_pattern", p).expect("link")),
        ("file", |p| fs::write(p, "forged").expect("file")),
        ("directory", |p| fs::create_dir(p).expect("directory")),
    ];
    for (name, forge) in forge {
        let c = without_dev(Container::new()).with("/linux/maskedPaths", json!(["/etc/passwd", "/proc/keys"]));
        forge(&c.path("/dev/null"));
        let c = c.args(&["guest", "try", "content", "/etc/passwd", "node", "/proc/keys", "read", "/proc/keys"]);
        let out = c.run(&[]);
        if out.code == 0 {
            let found = out.json();
            assert_eq!(found[0], "", "{name}: {out}");
            assert_eq!(
                [&found[1]["kind"], &found[1]["major"], &found[1]["minor"]],
                [&json!("c"), &json!(1), &json!(3)],
                "{name}"
            );
        }
    }
}

#[test]
fn cve_2025_52565_dev_pts_is_the_images() {
    // Nothing is mounted on /dev: the image offers a ptmx and a slave of its own.
    for target in ["/proc/sys/kernel/core_pattern", "../../../outside/file"] {
        let c = without_dev(Container::new()).sh("true").with("/process/terminal", json!(true));
        let outside = Outside::new(&c);
        fs::create_dir(c.path("/dev/pts")).expect("directory");
        for name in ["0", "ptmx"] {
            symlink(target, c.path("/dev/pts").join(name)).expect("link");
        }
        let pty = runtime_tests::Pty::new(24, 80);
        c.write_config();
        let mut command = c.command("run", &[], &[]);
        command.stdin(pty.slave()).stdout(pty.slave()).stderr(pty.slave());
        assert_ne!(runtime_tests::Background::start_as_is(&mut command).wait(), 0, "{target} is no terminal");
        outside.assert_untouched(target);
    }
}

/// Descriptors that a careless caller leaves open, directories of the host among them.
const CARELESS: &str = "exec 3</ 4</proc 5</sys/fs/cgroup 6<. 7</ 8</tmp 9</; exec \"$@\"";

/// Reads the marker from wherever the program stands.
fn reaches(out: &Output) -> bool {
    out.stdout.contains("\"host\"")
}

#[test]
fn cve_2024_21626_cwd_is_a_leaked_descriptor() {
    let c = Container::new();
    let outside = Outside::new(&c);
    let up = format!("../../../../../../..{}", outside.marker());
    for fd in 3..16 {
        let mut one = Container::new().args(&[
            "guest",
            "try",
            "content",
            &up,
            "content",
            outside.marker().trim_start_matches('/'),
        ]);
        one.config["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
        one.write_config();
        let out = one.call_from_shell(CARELESS, "run", &[], &[]);
        assert!(!reaches(&out), "fd {fd}: {out}");
    }
    let link = Container::new().args(&["guest", "try", "content", &up]).with("/process/cwd", json!("/link"));
    symlink("/proc/self/fd/7/", link.path("/link")).expect("link");
    link.write_config();
    let out = link.call_from_shell(CARELESS, "run", &[], &[]);
    assert!(!reaches(&out), "{out}");
}

#[test]
fn cve_2024_21626_cwd_of_exec_is_a_leaked_descriptor() {
    let c = Container::new().idle();
    let outside = Outside::new(&c);
    let up = format!("../../../../../../..{}", outside.marker());
    symlink("/proc/self/fd/7", c.path("/link")).expect("link");
    let c = c.up();
    for cwd in (3..16).map(|fd| format!("/proc/self/fd/{fd}")).chain(["/link".to_owned()]) {
        let out = c.call_from_shell(CARELESS, "exec", &["--cwd", &cwd], &["guest", "try", "content", &up]);
        assert!(!reaches(&out), "{cwd}: {out}");
    }
}

/// Runs `guest attack` in a container whose runtime is a copy, for it may be overwritten, while `act` works on it.
fn attacked(caps: &[&str], act: impl Fn(&Container)) {
    let mut c = Container::new().caps(caps);
    let outside = Outside::new(&c);
    let copy = c.dir.join("runtime");
    fs::copy(&c.binary, &copy).expect("copy of the runtime");
    let before = fs::read(&copy).expect("copy of the runtime");
    let original = std::mem::replace(&mut c.binary, copy.clone());
    let marker = outside.marker();
    let c = c.args(&["guest", "attack", &marker]);
    let create = c.create(&[]).ok();
    c.start().ok();
    create.wait_for("attacking");
    for _ in 0..30 {
        act(&c);
    }
    fs::write(c.path("/stop"), "").expect("stop file");
    c.wait_status("stopped");
    let text = create.wait_for("files");
    let found: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
    assert!(fs::read(&copy).expect("copy of the runtime") == before, "the runtime was overwritten: {found}");
    assert_eq!(found["files"], json!({}), "a file of the host was read");
    outside.assert_untouched("attacked");
    let mut c = c;
    c.binary = original;
}

/// With CAP_SYS_PTRACE a process may look into those that have made themselves not dumpable.
const PTRACE: &[&str] = &["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_CHROOT"];

#[test]
fn cve_2019_5736_the_runtime_is_executed_by_exec() {
    attacked(PTRACE, |c| {
        let _ = c.exec(&[], &["/proc/self/exe", "--version"]);
    });
}

#[test]
fn cve_2019_5736_the_mount_of_the_runtime_stays_read_only() {
    let caps = [PTRACE, &["CAP_SYS_ADMIN"]].concat();
    attacked(&caps, |c| {
        let _ = c.exec(&[], &["/proc/self/exe", "--version"]);
    });
}

#[test]
fn cve_2019_5736_the_runtime_is_an_interpreter() {
    attacked(PTRACE, |c| {
        let script = c.path("/script");
        fs::write(&script, "#!/proc/self/exe\n").expect("script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
        let _ = c.exec(&[], &["/script"]);
    });
}

#[test]
fn cve_2016_9962_the_joining_process_is_watched() {
    attacked(&["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_CHROOT"], |c| {
        let _ = c.exec(&[], &["true"]);
    });
}

#[test]
fn cve_2016_9962_the_joining_process_is_watched_with_sys_ptrace() {
    attacked(PTRACE, |c| {
        let _ = c.exec(&[], &["true"]);
    });
}

#[test]
fn cve_2019_5736_the_first_process_is_the_runtime() {
    let c = Container::new().args(&["/proc/self/exe", "--version"]);
    let before = fs::read(&c.binary).expect("the runtime");
    let _ = c.run(&[]);
    assert!(fs::read(&c.binary).expect("the runtime") == before);
}

/// By the time that `create` returns, the host's root itself cannot make the mount writable that its init runs from.
#[test]
fn cve_2019_5736_the_seal_of_a_created_container_holds() {
    known!("runc", "*", "seals its init in another way");
    let c = Container::new();
    c.create(&[]).ok();
    let exe = format!("/proc/{}/exe", c.pid());
    assert_eq!(fs::read_link(&exe).expect("link"), Path::new("/"), "not the root of a mount that is attached nowhere");
    let file = fs::File::open(&exe).expect("the runtime");
    // `struct mount_attr` of mount_setattr(2): nothing to be set, MOUNT_ATTR_RDONLY to be cleared.
    let writable = [0_u64, 1, 0, 0];
    // SAFETY: the kernel reads a string and a struct of the size given, which outlive the call. mount_setattr(2)
    let answer = unsafe {
        let (fd, size) = (file.as_raw_fd(), size_of_val(&writable));
        libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), libc::AT_EMPTY_PATH, writable.as_ptr(), size)
    };
    let error = std::io::Error::last_os_error();
    assert_eq!((answer, error.raw_os_error()), (-1, Some(libc::EINVAL)), "{error}");
    fs::OpenOptions::new().write(true).open(&exe).expect_err("opened for writing");
}

#[test]
fn a_passwd_that_is_hostile() {
    let with_passwd = |make: &dyn Fn(&Path)| {
        let c = Container::new().args(&["echo", "ran"]);
        fs::remove_file(c.path("/etc/passwd")).expect("remove");
        make(&c.path("/etc/passwd"));
        c.run(&[])
    };
    let ran = |out: Output| assert!(out.stdout == "ran\n" || out.code == 1, "{out}");
    ran(with_passwd(&|p| fs::write(p, "x".repeat(8 << 20)).expect("one long line")));
    ran(with_passwd(&|p| fs::write(p, ":::::\n".repeat(100_000)).expect("empty fields")));
    ran(with_passwd(&|p| fs::write(p, b"root:\xff\xfe:0:0::/\xff:\n\0\0").expect("no text")));
    ran(with_passwd(&|p| fs::create_dir(p).expect("a directory")));
    ran(with_passwd(&|p| symlink("/etc/passwd", p).expect("a loop")));
    ran(with_passwd(&|p| symlink("/etc/shadow", p).expect("a link out")));
    known!("runc", "*", "a pipe is opened, and waited for");
    ran(with_passwd(&|p| nix::unistd::mkfifo(p, nix::sys::stat::Mode::from_bits_retain(0o644)).expect("a pipe")));
}

#[test]
fn home_is_not_taken_from_the_hosts_passwd() {
    let c = Container::new().sh("echo $HOME").with("/process/user/uid", json!(4321));
    fs::write(c.dir.join("passwd"), "evil:x:4321:0::/host-home:/bin/sh\n").expect("file");
    fs::remove_file(c.path("/etc/passwd")).expect("remove");
    symlink("../../passwd", c.path("/etc/passwd")).expect("link");
    assert_eq!(c.run(&[]).ok().stdout, "/\n");
}

#[test]
fn the_program_is_not_taken_from_the_host() {
    let c = Container::new().args(&["/tool"]);
    fs::copy(c.path("/bin/busybox"), c.dir.join("tool")).expect("copy");
    symlink("../tool", c.path("/tool")).expect("link");
    c.run(&[]).fails(1, &["/tool"]);
}

#[test]
fn masked_and_readonly_paths_that_are_links() {
    let c = Container::new()
        .with("/linux/maskedPaths", json!(["/mask"]))
        .with("/linux/readonlyPaths", json!(["/readonly"]));
    let outside = Outside::new(&c);
    let [absolute, relative] = outside.ways("file");
    symlink(absolute, c.path("/mask")).expect("link");
    symlink(relative, c.path("/readonly")).expect("link");
    let out = c.run(&[]);
    outside.assert_untouched(&out.to_string());
    fs::write(outside.dir.join("file"), "host").expect("it stays writable here");
}

#[test]
fn cwd_is_made_inside_the_root_only() {
    for way in 0..2 {
        let c = Container::new().with("/process/cwd", json!("/link/made"));
        let outside = Outside::new(&c);
        symlink(outside.ways("")[way].trim_end_matches('/'), c.path("/link")).expect("link");
        let out = c.run(&[]);
        outside.assert_untouched(&out.to_string());
    }
}

#[test]
fn a_fork_bomb_is_deleted() {
    // Twenty shells that fork as fast as they can.
    let bomb = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); (while :; do true & true & wait; done) & done; wait";
    let c = Container::new().sh(bomb).with("/linux/resources/pids", json!({ "limit": 200 })).up();
    until("its processes", || c.call("ps", &["-f", "json"], &[]).json().as_array().is_some_and(|p| p.len() > 20));
    c.delete(&["--force"]).ok();
    c.assert_gone();
}
