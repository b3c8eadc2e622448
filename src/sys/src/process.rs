//! Processes: the one clone3, pidfds, waiting, and the last execve.

use crate::error::{Named, Result, SysError, check};
use crate::path::retry;
use nix::errno::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Proof that the process has one thread, which fork without exec, setns(CLONE_NEWUSER) and unshare(CLONE_NEWUSER) need
/// (models.md 3.1). Cannot be faked: it is made only by [`SingleThreaded::check`].
#[derive(Debug)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// Counts the threads as the links of `/proc/self/task`.
    ///
    /// # Errors
    /// EBUSY when there is more than one.
    pub fn check() -> Result<SingleThreaded> {
        let st = rustix::fs::stat("/proc/self/task").named(|| "stat(\"/proc/self/task\")".into())?;
        if st.st_nlink != 3 {
            return Err(SysError::new(format!("{} threads where one is needed", st.st_nlink - 2), libc::EBUSY));
        }
        Ok(SingleThreaded(()))
    }
}

/// A child process held by a pidfd: it can be waited for and killed without a race on its number.
#[derive(Debug)]
pub struct Child {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// `CLONE_CLEAR_SIGHAND`: a handler of the parent's is an address that means nothing in the child.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// The new process has the caller's parent.
pub const CLONE_PARENT: i32 = libc::CLONE_PARENT;
/// The new process shares the caller's table of fds until one of them executes a program.
pub const CLONE_FILES: i32 = libc::CLONE_FILES;
/// `CLONE_INTO_CGROUP`
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of clone3(2), version 2 (with `cgroup`).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// clone3(2) without shared memory, like fork: `child` runs in the new process and never returns.
///
/// `flags` are `CLONE_NEW*` bits, [`CLONE_PARENT`] for a child that is the caller's sibling, and [`CLONE_FILES`]. With `cgroup` (a cgroup v2 directory) the child is born in that cgroup, so that
/// nothing is migrated and no global lock is taken (contract G.6).
///
/// The child installs a panic hook first: with `panic=abort` on static musl, abort() in a raw clone's child would signal
/// the *parent*, because libc's cached thread id is the parent's (models.md 3.4).
pub fn clone3(
    _token: &SingleThreaded,
    flags: i32,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> Infallible,
) -> Result<Child> {
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: flags as u32 as u64 | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        // A sibling has the caller's own exit signal, and the kernel refuses to be told another.
        exit_signal: if flags & CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid struct of the size given, `pidfd` outlives the call; without CLONE_VM and with one thread
    // (the token) the child has its own copy of all memory, as after fork(2). clone3(2)
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    let pid = check(ret, || format!("clone3({flags:#x}, into_cgroup={})", cgroup.is_some()))?;
    if pid == 0 {
        std::panic::set_hook(Box::new(|info| {
            eprintln!("rrt: bug in the container's init: {info}");
            exit_now(101);
        }));
        child();
    }
    // SAFETY: the kernel stored a new fd for this process alone, close-on-exec. clone3(2) CLONE_PIDFD
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: pid as i32, pidfd })
}

/// `_exit(2)`: no destructor, no flush of inherited buffers (models.md 3.5).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes any value; it returns only when a seccomp filter forbids it, and _exit(3) would try for ever. exit_group(2)
    unsafe { libc::syscall(libc::SYS_exit_group, code) };
    // Not abort(3): it signals the thread id that libc has from our parent, which is the parent or, in another pid namespace, anybody.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: an instruction that faults and does not return: SIGILL ends even the first process of a pid namespace.
    unsafe {
        std::arch::asm!("ud2", options(noreturn, nomem, nostack))
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::process::abort()
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It called exit with this code.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
}

impl Exit {
    /// The shell's number for it: the code, or 128 + the signal.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(c) => c,
            Exit::Signal(s) => 128 + s,
        }
    }
}

impl Child {
    /// Waits until the child ends, and reaps it.
    pub fn wait(&self) -> Result<Exit> {
        use std::os::fd::AsFd;
        let id = WaitId::PidFd(self.pidfd.as_fd());
        let status = retry(|| rustix::process::waitid(id.clone(), WaitIdOptions::EXITED))
            .named(|| format!("waitid(P_PIDFD, {})", self.pid))?;
        Ok(status.map_or(Exit::Code(0), |s| match (s.exit_status(), s.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(0)),
        }))
    }

    /// Sends it SIGKILL and reaps it; a child that has ended already is no error.
    pub fn kill_and_reap(&self) {
        use std::os::fd::AsFd;
        // Both can only fail because it is gone, which is what is wanted.
        let _ = send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = self.wait();
    }
}

/// The process a received pidfd stands for, as its child's parent knows it. proc_pid_fdinfo(5)
///
/// # Errors
/// ESRCH when it is gone or the fd is no pidfd.
pub fn from_pidfd(pidfd: OwnedFd) -> Result<Child> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(&path).named(|| format!("read({path:?})"))?;
    let pid = text.lines().find_map(|l| l.strip_prefix("Pid:")).and_then(|n| n.trim().parse().ok());
    match pid {
        Some(pid) if pid > 0 => Ok(Child { pid, pidfd }),
        _ => Err(SysError::new(format!("{path:?}: no pid"), libc::ESRCH)),
    }
}

/// Opens a pidfd of any process. pidfd_open(2)
///
/// # Errors
/// ESRCH when there is none.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    let call = || format!("pidfd_open({pid})");
    let id = Pid::from_raw(pid).ok_or_else(|| SysError::new(call(), libc::ESRCH))?;
    rustix::process::pidfd_open(id, PidfdFlags::empty()).named(call)
}

/// The wait status of a process that has ended and been reaped, from a pidfd that was opened while it lived; `None` while it is a
/// zombie or lives. `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`, Linux 6.15
///
/// # Errors
/// EINVAL, ENOTTY or ESRCH on older kernels.
pub fn reaped_status(pidfd: BorrowedFd<'_>) -> Result<Option<Exit>> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    /// `struct pidfd_info` of linux/pidfd.h, its first version.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroupid: u64,
        pids_and_ids: [u32; 11],
        exit_code: i32,
    }
    /// `_IOWR(0xFF, 11, struct pidfd_info)`
    const PIDFD_GET_INFO: u32 = 3 << 30 | (size_of::<Info>() as u32) << 16 | 0xff << 8 | 11;
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // SAFETY: the kernel reads and writes a struct of the size in the request's number, which outlives the call. ioctl(2)
    let ret = unsafe { libc::syscall(libc::SYS_ioctl, pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    check(ret, || format!("ioctl({}, PIDFD_GET_INFO)", pidfd.as_raw_fd()))?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then(|| exit_of(info.exit_code)))
}

/// A wait status, as wait(2) has it, taken apart.
pub fn exit_of(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code((status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}

/// Sends a signal through a pidfd; `0` only asks whether the process is there. pidfd_send_signal(2)
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: the siginfo may be NULL, no memory is handed over. pidfd_send_signal(2)
    let ret =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0) };
    check(ret, || format!("pidfd_send_signal({}, {signal})", pidfd.as_raw_fd())).map(drop)
}

/// Sends a signal to a pid that may be outside any pidfd's reach (all processes of a v1 cgroup).
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::try_from(signal).ok())
        .named(|| format!("kill({pid}, {signal})"))
}

/// Reaps any child that has ended, without waiting; `None` when none has.
pub fn reap_any() -> Option<(i32, Exit)> {
    match rustix::process::waitpid(None, rustix::process::WaitOptions::NOHANG) {
        Ok(Some((pid, s))) => {
            let exit = s.exit_status().map_or(Exit::Signal(s.terminating_signal().unwrap_or(0)), Exit::Code);
            Some((pid.as_raw_nonzero().get(), exit))
        }
        _ => None,
    }
}

/// The arguments of an execve(2), with their pointer arrays built beforehand: after the seccomp filter is loaded nothing may
/// allocate (models.md 3.3).
pub struct ExecArgs {
    argv: Vec<CString>,
    envp: Vec<CString>,
    argv_ptrs: Vec<*const libc::c_char>,
    envp_ptrs: Vec<*const libc::c_char>,
}

impl ExecArgs {
    /// Builds the arrays.
    pub fn new(argv: Vec<CString>, envp: Vec<CString>) -> ExecArgs {
        // A CString's bytes live on the heap, so moving the vectors into the struct leaves the pointers valid.
        let ptrs = |v: &[CString]| v.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        ExecArgs { argv_ptrs: ptrs(&argv), envp_ptrs: ptrs(&envp), argv, envp }
    }

    /// The arguments, `argv[0]` first.
    pub fn argv(&self) -> &[CString] {
        &self.argv
    }

    /// The environment, as `NAME=value`.
    pub fn envp(&self) -> &[CString] {
        &self.envp
    }

    /// execve(2); returns only on failure.
    pub fn exec(&self, path: &CStr) -> SysError {
        // SAFETY: `path` is NUL-terminated; both arrays end in NULL and point into strings that `self` keeps. execve(2)
        unsafe { libc::execve(path.as_ptr(), self.argv_ptrs.as_ptr(), self.envp_ptrs.as_ptr()) };
        SysError::new(format!("execve({path:?})"), Errno::last_raw())
    }

    /// Asks the kernel whether `path` could be executed, without doing it (`AT_EXECVE_CHECK`, Linux 6.14; before that
    /// faccessat(2) with the effective ids and a look at the file's type).
    pub fn check(&self, path: &CStr) -> Result<()> {
        /// `AT_EXECVE_CHECK`
        const AT_EXECVE_CHECK: i32 = 0x10000;
        let ret = self.execveat(libc::AT_FDCWD, path, AT_EXECVE_CHECK);
        match check(ret, || format!("execve({path:?})")) {
            Err(e) if e.is(libc::EINVAL) => {}
            r => return r.map(drop),
        }
        use rustix::fs::{Access, AtFlags, CWD, FileType};
        let st = rustix::fs::stat(path).named(|| format!("stat({path:?})"))?;
        if FileType::from_raw_mode(st.st_mode) != FileType::RegularFile {
            return Err(SysError::new(format!("execve({path:?})"), libc::EACCES));
        }
        rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).named(|| format!("execve({path:?})"))
    }

    fn execveat(&self, dir: i32, path: &CStr, flags: i32) -> libc::c_long {
        let (argv, envp) = (self.argv_ptrs.as_ptr(), self.envp_ptrs.as_ptr());
        // SAFETY: `path` is NUL-terminated; both arrays end in NULL and point into strings that `self` keeps. execveat(2)
        unsafe { libc::syscall(libc::SYS_execveat, dir, path.as_ptr(), argv, envp, flags) }
    }
}

/// `prctl(PR_SET_DUMPABLE)`: while false, no process without CAP_SYS_PTRACE in our user namespace can open our `/proc` files, attach
/// to us, or take our memory (CVE-2016-9962).
pub fn set_dumpable(yes: bool) -> Result<()> {
    prctl::set_dumpable(yes).named(|| format!("prctl(PR_SET_DUMPABLE, {yes})"))
}

/// Have the kernel send `signal` (0: none) when the parent thread ends. `prctl(PR_SET_PDEATHSIG)`
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl::set_death_signal(signal as isize).named(|| format!("prctl(PR_SET_PDEATHSIG, {signal})"))
}

/// `prctl(PR_SET_NO_NEW_PRIVS, 1)`
pub fn set_no_new_privileges() -> Result<()> {
    prctl::set_no_new_privileges(true).named(|| "prctl(PR_SET_NO_NEW_PRIVS)".into())
}

/// Orphans below us become our children. `prctl(PR_SET_CHILD_SUBREAPER)`
pub fn set_child_subreaper() -> Result<()> {
    prctl::set_child_subreaper(true).named(|| "prctl(PR_SET_CHILD_SUBREAPER)".into())
}

/// Marks every fd from `first` on close-on-exec. close_range(2), Linux 5.11
///
/// Marking, not closing: an `OwnedFd` may still hold one of them (models.md 3.7).
pub fn cloexec_from(first: u32) -> Result<()> {
    // SAFETY: integers only; no fd is closed, so no owner loses its number. close_range(2)
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(ret, || format!("close_range({first}, ~0, CLOEXEC)")).map(drop)
}

/// Closes every fd but 0, 1, 2 and those in `keep`. close_range(2), Linux 5.9
///
/// For a cloned child that never returns: what it closes are its own copies of the parent's fds, which no destructor of the
/// child's will ever close again. It must not inherit the parent's lock, nor the parent's end of their own socket.
pub fn close_all_but(keep: &[i32]) -> Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|&fd| u32::try_from(fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for next in keep.into_iter().chain([u32::MAX]) {
        let last = if next == u32::MAX { u32::MAX } else { next.wrapping_sub(1) };
        if next > first {
            // SAFETY: see above: nothing in this process owns these numbers any more. close_range(2)
            let ret = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
            check(ret, || format!("close_range({first}, {last})"))?;
        }
        first = first.max(next.saturating_add(1));
    }
    Ok(())
}

/// In a cloned child that never returns: waits until every other process has closed the writing end of a pipe.
///
/// The child's own copy of `writer` is closed first; nothing in the child will ever drop its owner.
pub fn wait_until_left(reader: BorrowedFd<'_>, writer: BorrowedFd<'_>) -> Result<()> {
    let number = writer.as_raw_fd();
    // SAFETY: the child's copy only, see above. close_range(2)
    let ret = unsafe { libc::syscall(libc::SYS_close_range, number, number, 0) };
    check(ret, || format!("close_range({number}, {number})"))?;
    while crate::path::read_some(reader, &mut [0u8; 1])? > 0 {}
    Ok(())
}

/// Clears close-on-exec of a single fd.
pub fn keep_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).named(|| format!("fcntl({}, F_SETFD, 0)", fd.as_raw_fd()))
}

/// A borrowed fd from its number, when that number is open in this process; `None` when it is not.
///
/// For fds that the caller of the runtime passed by number (the standard streams, `--preserve-fds`, `LISTEN_FDS`): they are never
/// closed here.
pub fn inherited_fd(fd: i32) -> Option<BorrowedFd<'static>> {
    fd_flags(fd).map(|_| {
        // SAFETY: the number is open (just asked) and nothing in this one-threaded process owns or closes it.
        unsafe { BorrowedFd::borrow_raw(fd) }
    })
}

/// Whether `fd` is open and came to us over execve, and so is our caller's: every fd of our own is close-on-exec.
pub fn is_passed(fd: i32) -> bool {
    fd_flags(fd).is_some_and(|flags| flags & libc::FD_CLOEXEC == 0)
}

fn fd_flags(fd: i32) -> Option<i32> {
    // SAFETY: F_GETFD reads a flag of the number given, whatever it is. fcntl(2)
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    (flags != -1).then_some(flags)
}

/// dup2(2) onto a standard stream (0, 1 or 2), which stays open across execve.
pub fn dup_onto_stdio(fd: BorrowedFd<'_>, stream: i32) -> Result<()> {
    let call = || format!("dup2({}, {stream})", fd.as_raw_fd());
    match stream {
        0 => rustix::stdio::dup2_stdin(fd),
        1 => rustix::stdio::dup2_stdout(fd),
        2 => rustix::stdio::dup2_stderr(fd),
        _ => Err(rustix::io::Errno::BADF),
    }
    .named(call)
}

/// Has `target` stand for what `fd` does, under its old number. dup3(2)
pub fn dup_onto(fd: BorrowedFd<'_>, target: &mut OwnedFd) -> Result<()> {
    rustix::io::dup3(fd, target, rustix::io::DupFlags::CLOEXEC).named(|| format!("dup3({})", fd.as_raw_fd()))
}

/// setsid(2)
pub fn setsid() -> Result<()> {
    rustix::process::setsid().map(drop).named(|| "setsid()".into())
}

/// Leaves the caller's process group for one of its own. setpgid(2)
pub fn setpgid() -> Result<()> {
    rustix::process::setpgid(None, None).named(|| "setpgid(0, 0)".into())
}

/// chdir(2)
pub fn chdir(path: &Path) -> Result<()> {
    rustix::process::chdir(path).named(|| format!("chdir({path:?})"))
}

/// getcwd(2); a directory outside the root is reported with `(unreachable)` in front by the kernel.
pub fn getcwd() -> Result<CString> {
    rustix::process::getcwd(Vec::new()).named(|| "getcwd()".into())
}

/// umask(2): sets it and returns the old one.
pub fn umask(mask: u32) -> u32 {
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(mask)).bits()
}
