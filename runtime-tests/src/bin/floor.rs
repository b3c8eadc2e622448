//! The kernel floor: what a container costs in the kernel alone. `hack/bench` quotes every figure as a ratio to it.
//!
//! `floor run ROOTFS CGROUP PROGRAM HIERARCHY...` does by straight system calls what a runtime has to do for the bundle
//! of `runc spec`: cgroup directories with the device list, six namespaces, the default mounts and devices, masked and
//! read-only paths, `pivot_root`, capabilities, `execve`; it waits and removes the cgroups. There is no configuration,
//! no state, no check, and no handshake around it. HIERARCHY is a mounted cgroup directory of version 1 or 2.
//!
//! `floor exec PID PROGRAM HIERARCHY-WITH-CGROUP...` joins a container; `floor delete PID CGROUP HIERARCHY...` kills one
//! and removes its cgroups; `floor start …`, the arguments of `run`, prints the pid and does not wait. Copied to the
//! names `true` and `pause`, the same program is what runs inside.
//!
//! Of a version 2 machine one thing is missing here: the device filter, which is a BPF program there.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::ptr;

const NAMESPACES: libc::c_int =
    libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNS;

/// What every runtime allows when `linux.resources.devices` begins with "deny all" (runtime-spec, "Default Devices").
const DEVICE_LIST: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/tty", 5, 0),
];

const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
    (c"pts/ptmx", c"/dev/ptmx"),
];

const MASKED: [&CStr; 10] = [
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/timer_list",
    c"/proc/timer_stats",
    c"/proc/sched_debug",
    c"/proc/scsi",
    c"/sys/firmware",
];

const READ_ONLY: [&CStr; 5] = [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];

/// CAP_KILL, CAP_NET_BIND_SERVICE and CAP_AUDIT_WRITE: the three of `runc spec`.
const CAPABILITIES: u64 = 1 << 5 | 1 << 10 | 1 << 29;

const USAGE: &str = "usage: floor run|start ROOTFS CGROUP PROGRAM HIERARCHY... | exec PID PROGRAM DIRECTORY... | \
                     delete PID CGROUP HIERARCHY...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let name = words.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let done = match (name, words.get(1..).unwrap_or_default()) {
        ("true", _) => Ok(0),
        ("pause", _) => pause(),
        (_, ["run", rootfs, cgroup, program, hierarchies @ ..]) => run(rootfs, cgroup, program, hierarchies, true),
        (_, ["start", rootfs, cgroup, program, hierarchies @ ..]) => run(rootfs, cgroup, program, hierarchies, false),
        (_, ["exec", pid, program, directories @ ..]) => exec(pid, program, directories),
        (_, ["delete", pid, cgroup, hierarchies @ ..]) => delete(pid, cgroup, hierarchies),
        _ => Err(io::Error::other(USAGE).into()),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("floor: {}: {}", error.call, error.source);
            ExitCode::FAILURE
        }
    }
}

fn run(rootfs: &str, cgroup: &str, program: &str, hierarchies: &[&str], wait: bool) -> Result<u8> {
    let rootfs = cstring(rootfs)?;
    let program = cstring(program)?;
    let groups = Cgroups::make(cgroup, hierarchies)?;
    // CLONE_VFORK, for `start`: back only when the program runs.
    let pid = clone(if wait { NAMESPACES } else { NAMESPACES | libc::CLONE_VFORK }, groups.v2.as_ref())?;
    if pid == 0 {
        let result = groups.join().and_then(|()| contain(&rootfs, hierarchies)).and_then(|()| become_program(&program));
        leave(result)
    }
    if !wait {
        println!("{pid}");
        return Ok(0);
    }
    let status = wait_for(pid)?;
    groups.remove()?;
    Ok(status)
}

fn exec(pid: &str, program: &str, directories: &[&str]) -> Result<u8> {
    let program = cstring(program)?;
    let container = open_pid(number(pid)?)?;
    let groups = Cgroups::open(directories.iter().map(PathBuf::from))?;
    // SAFETY: setns(2) takes a pidfd and flags and touches no memory.
    check("setns", unsafe { libc::setns(container.as_raw_fd(), NAMESPACES | libc::CLONE_NEWCGROUP) })?;
    let pid = clone(0, groups.v2.as_ref())?;
    if pid == 0 {
        leave(groups.join().and_then(|()| become_program(&program)))
    }
    wait_for(pid)
}

fn delete(pid: &str, cgroup: &str, hierarchies: &[&str]) -> Result<u8> {
    let container = open_pid(number(pid)?)?;
    let none: *const libc::siginfo_t = ptr::null();
    // SAFETY: pidfd_send_signal(2) with a null siginfo reads nothing.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, container.as_raw_fd(), libc::SIGKILL, none, 0) };
    check("pidfd_send_signal", sent)?;
    let mut poll = libc::pollfd { fd: container.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: poll(2) with one entry, which lives through the call.
    check("poll", unsafe { libc::poll(&mut poll, 1, -1) })?;
    Cgroups::open(hierarchies.iter().map(|hierarchy| Path::new(hierarchy).join(cgroup)))?.remove()?;
    Ok(0)
}

/// The container's cgroup in each hierarchy.
struct Cgroups {
    directories: Vec<PathBuf>,
    /// `tasks` of each version 1 directory, open: `exec` joins from inside, where their paths lead nowhere.
    v1: Vec<fs::File>,
    v2: Option<OwnedFd>,
}

impl Cgroups {
    fn make(name: &str, hierarchies: &[&str]) -> Result<Self> {
        for hierarchy in hierarchies {
            let parent = Path::new(hierarchy).join(name);
            fs::create_dir(&parent)?;
            match Path::new(hierarchy).file_name().and_then(|file| file.to_str()) {
                // A new cpuset is empty, and nothing may join an empty one.
                Some("cpuset") => {
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        let above = fs::read(parent.join("..").join(file))?;
                        write(&parent.join(file), &above)?;
                    }
                }
                Some("devices") => {
                    write(&parent.join("devices.deny"), b"a")?;
                    for rule in DEVICE_LIST {
                        write(&parent.join("devices.allow"), rule.as_bytes())?;
                    }
                }
                _ => {}
            }
        }
        Self::open(hierarchies.iter().map(|hierarchy| Path::new(hierarchy).join(name)))
    }

    fn open(directories: impl Iterator<Item = PathBuf>) -> Result<Self> {
        let mut groups = Self { directories: Vec::new(), v1: Vec::new(), v2: None };
        for directory in directories {
            match fs::OpenOptions::new().write(true).open(directory.join("tasks")) {
                Ok(tasks) => groups.v1.push(tasks),
                // Only version 1 has `tasks`.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    groups.v2 = Some(fs::File::open(&directory)?.into());
                }
                Err(error) => return Err(error.into()),
            }
            groups.directories.push(directory);
        }
        Ok(groups)
    }

    /// Moves the calling process. "0" into `tasks` is the one way that does not take the kernel's lock over all
    /// threads, which waits for an RCU grace period: 10 ms and more on a resting machine. Version 2 is joined by clone3.
    fn join(&self) -> Result<()> {
        self.v1.iter().try_for_each(|mut tasks| Ok(tasks.write_all(b"0")?))
    }

    fn remove(&self) -> Result<()> {
        self.directories.iter().try_for_each(|group| Ok(fs::remove_dir(group)?))
    }
}

/// Everything between joining the cgroups and the program, in the child.
fn contain(rootfs: &CStr, hierarchies: &[&str]) -> Result<()> {
    // SAFETY: unshare(2) takes only flags.
    check("unshare", unsafe { libc::unshare(libc::CLONE_NEWCGROUP) })?;
    mount(None, c"/", None, libc::MS_SLAVE | libc::MS_REC, None)?;
    mount(Some(rootfs), rootfs, None, libc::MS_BIND | libc::MS_REC, None)?;
    pivot(rootfs)?;
    mounts(hierarchies)?;
    devices()?;
    for path in MASKED {
        mask(path)?;
    }
    for path in READ_ONLY {
        if optional(mount(Some(path), path, None, libc::MS_BIND | libc::MS_REC, None))? {
            read_only(path, libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)?;
        }
    }
    read_only(c"/", 0)?;
    // SAFETY: sethostname(2) reads the four bytes it is given.
    check("sethostname", unsafe { libc::sethostname(c"runc".as_ptr(), 4) })?;
    Ok(())
}

fn pivot(rootfs: &CStr) -> Result<()> {
    // SAFETY: chdir(2) reads one string.
    check("chdir", unsafe { libc::chdir(rootfs.as_ptr()) })?;
    // SAFETY: pivot_root(2) reads two strings; "." twice stacks the old root over the new one.
    check("pivot_root", unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: umount2(2) reads one string.
    check("umount2", unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) })?;
    // SAFETY: chdir(2) reads one string.
    check("chdir", unsafe { libc::chdir(c"/".as_ptr()) })?;
    Ok(())
}

/// A new file system of a kind; its source is called like its kind.
fn new(kind: &CStr, target: &CStr, flags: libc::c_ulong, data: Option<&CStr>) -> Result<()> {
    mount(Some(kind), target, Some(kind), flags, data)
}

fn mounts(hierarchies: &[&str]) -> Result<()> {
    let safe = libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV;
    new(c"proc", c"/proc", 0, None)?;
    new(c"tmpfs", c"/dev", libc::MS_NOSUID | libc::MS_STRICTATIME, Some(c"mode=755,size=65536k"))?;
    for directory in [c"/dev/pts", c"/dev/shm", c"/dev/mqueue"] {
        make_directory(directory)?;
    }
    let pts = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    new(c"devpts", c"/dev/pts", libc::MS_NOSUID | libc::MS_NOEXEC, Some(pts))?;
    new(c"tmpfs", c"/dev/shm", safe, Some(c"mode=1777,size=65536k"))?;
    new(c"mqueue", c"/dev/mqueue", safe, None)?;
    new(c"sysfs", c"/sys", safe | libc::MS_RDONLY, None)?;
    if let [_] = hierarchies {
        return new(c"cgroup2", c"/sys/fs/cgroup", safe | libc::MS_RDONLY, None);
    }
    new(c"tmpfs", c"/sys/fs/cgroup", safe, Some(c"mode=755"))?;
    for hierarchy in hierarchies {
        let name = Path::new(hierarchy).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let target = cstring(&format!("/sys/fs/cgroup/{name}"))?;
        let data = cstring(if name == "systemd" { "none,name=systemd" } else { name })?;
        make_directory(&target)?;
        match name {
            "unified" => new(c"cgroup2", &target, safe | libc::MS_RDONLY, None)?,
            _ => new(c"cgroup", &target, safe | libc::MS_RDONLY, Some(&data))?,
        }
    }
    read_only(c"/sys/fs/cgroup", safe)
}

fn devices() -> Result<()> {
    for (path, major, minor) in DEVICES {
        let device = libc::makedev(major, minor);
        // SAFETY: mknod(2) reads one string.
        check("mknod", unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, device) })?;
    }
    for (target, link) in LINKS {
        // SAFETY: symlink(2) reads two strings.
        check("symlink", unsafe { libc::symlink(target.as_ptr(), link.as_ptr()) })?;
    }
    Ok(())
}

/// A file gets `/dev/null` over it, a directory an empty read-only tmpfs; what does not exist needs nothing.
fn mask(path: &CStr) -> Result<()> {
    match mount(Some(c"/dev/null"), path, None, libc::MS_BIND, None) {
        Err(error) if error.source.raw_os_error() == Some(libc::ENOTDIR) => {
            mount(Some(c"tmpfs"), path, Some(c"tmpfs"), libc::MS_RDONLY, None)
        }
        other => optional(other).map(drop),
    }
}

fn read_only(path: &CStr, flags: libc::c_ulong) -> Result<()> {
    mount(None, path, None, libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | flags, None)
}

/// Limits, capabilities and the program itself; returns only on failure.
fn become_program(program: &CStr) -> Result<()> {
    let files = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
    // SAFETY: setrlimit(2) reads one struct.
    check("setrlimit", unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &files) })?;
    // SAFETY: setsid(2) takes nothing.
    check("setsid", unsafe { libc::setsid() })?;
    drop_capabilities()?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    let arguments = [program.as_ptr(), ptr::null()];
    let environment = [c"PATH=/bin".as_ptr(), ptr::null()];
    // SAFETY: execve(2) reads a string and two arrays of strings, each ended by a null pointer.
    check("execve", unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) })?;
    Ok(())
}

fn drop_capabilities() -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Half {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    for capability in 0..64 {
        if CAPABILITIES >> capability & 1 == 0 && prctl(libc::PR_CAPBSET_DROP, capability, 0).is_err() {
            // EINVAL: beyond the kernel's last one.
            break;
        }
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let half = |bits: u64| Half { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
    let halves = [half(CAPABILITIES), half(CAPABILITIES >> 32)];
    // SAFETY: capset(2), version 3, reads one header and two data structs, laid out as in linux/capability.h.
    check("capset", unsafe { libc::syscall(libc::SYS_capset, &header, halves.as_ptr()) })?;
    Ok(())
}

/// clone3(2) without a new stack: a fork. The child is born in the version 2 cgroup, so nothing has to be moved.
fn clone(flags: libc::c_int, cgroup: Option<&OwnedFd>) -> Result<libc::pid_t> {
    /// include/uapi/linux/sched.h; the libc crate lacks it.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    // SAFETY: every field of clone_args is a number, and 0 means "not used" for each.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags as u64 | into;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    // SAFETY: this process has one thread, so its copy is whole; the kernel reads the struct of the given size.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &arguments, size_of::<libc::clone_args>()) };
    Ok(check("clone3", pid)? as libc::pid_t)
}

fn open_pid(pid: libc::pid_t) -> Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two numbers.
    let fd = check("pidfd_open", unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn wait_for(pid: libc::pid_t) -> Result<u8> {
    let mut status = 0;
    // SAFETY: waitpid(2) writes one number.
    check("waitpid", unsafe { libc::waitpid(pid, &mut status, 0) })?;
    Ok(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) as u8 } else { 128 + libc::WTERMSIG(status) as u8 })
}

/// The end of a child whose program did not start. No destructor of the parent's may run here.
fn leave(result: Result<()>) -> ! {
    if let Err(error) = result {
        // Nobody is left to tell if this write fails too.
        drop(writeln!(io::stderr(), "floor: {}: {}", error.call, error.source));
    }
    // SAFETY: _exit(2) does not return and runs nothing.
    unsafe { libc::_exit(127) }
}

fn pause() -> Result<u8> {
    // SAFETY: pause(2) takes nothing.
    unsafe { libc::pause() };
    Ok(0)
}

fn prctl(option: libc::c_int, second: libc::c_ulong, third: libc::c_ulong) -> Result<()> {
    // SAFETY: the options used here take numbers only.
    check("prctl", unsafe { libc::prctl(option, second, third, 0, 0) }).map(drop)
}

fn make_directory(path: &CStr) -> Result<()> {
    // SAFETY: mkdir(2) reads one string.
    check("mkdir", unsafe { libc::mkdir(path.as_ptr(), 0o755) }).map(drop)
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: mount(2) reads up to four strings, and takes null for those that are absent.
    let done = unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(data).cast()) };
    check("mount", done).map(drop)
}

/// True if it was done, false if the path does not exist.
fn optional(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.source.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// One write, to a file that exists: what a cgroup file takes.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(fs::OpenOptions::new().write(true).open(path)?.write_all(bytes)?)
}

/// What a system call answered, or its name and errno.
fn check(call: &'static str, answer: impl Into<i64>) -> Result<i64> {
    let number = answer.into();
    if number < 0 { Err(Failed { call, source: io::Error::last_os_error() }) } else { Ok(number) }
}

struct Failed {
    call: &'static str,
    source: io::Error,
}

type Result<T> = std::result::Result<T, Failed>;

impl From<io::Error> for Failed {
    fn from(source: io::Error) -> Self {
        Self { call: "file", source }
    }
}

fn number(text: &str) -> Result<libc::pid_t> {
    text.parse().map_err(|_| io::Error::other(format!("{text:?} is not a process id")).into())
}

fn cstring(text: &str) -> Result<CString> {
    CString::new(text).map_err(|error| io::Error::other(error).into())
}
