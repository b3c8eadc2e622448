//! Questions to the kernel: does it have this call, this flag? Each is a real call that changes nothing, most of them because an
//! argument is one that cannot be: a kernel that knows the flag complains of the argument, one that does not of the flag.
//!
//! [`Ok`] is "yes"; what an error means is said at each function.

use crate::error::{Named, Result, check};
use crate::path;
use rustix::fs::OFlags;
use rustix::mount::FsOpenFlags;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// A descriptor that is never open: its number is above any limit on open files.
const NO_FD: i32 = 0x7fff_fff0;

/// Makes a system call of up to six numbers or pointers; a descriptor that it returns is the caller's to close.
///
/// The numbers of calls from Linux 5.0 on are the same on every architecture that the runtime is built for.
fn call(name: &str, number: libc::c_long, args: [u64; 6]) -> Result<i64> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the callers below hand over integers and pointers to values that outlive the call. syscall(2)
    let ret = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    check(ret, || name.into())
}

/// A descriptor number as an argument.
fn fd(number: i32) -> u64 {
    number as i64 as u64
}

/// A call's result that is a descriptor, taken over.
fn owned(result: Result<i64>) -> Result<OwnedFd> {
    // SAFETY: the kernel has just made this descriptor for us alone. open(2)
    result.map(|number| unsafe { OwnedFd::from_raw_fd(number as i32) })
}

/// Runs a probe whose error `known` shows that the kernel has what was asked for.
fn known_by(known: i32, result: Result<i64>) -> Result<()> {
    match result {
        Err(e) if e.is(known) => Ok(()),
        other => other.map(drop),
    }
}

/// openat2(2) with RESOLVE_IN_ROOT.
pub fn openat2() -> Result<()> {
    path::Root::open(Path::new("/"))?.resolve(Path::new("/")).map(drop)
}

/// fsopen(2) of a file system.
///
/// # Errors
/// ENODEV when the kernel does not have the file system.
pub fn file_system(name: &str) -> Result<OwnedFd> {
    rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).named(|| format!("fsopen({name:?})"))
}

/// The `subset=pid` of procfs.
///
/// # Errors
/// EINVAL without it.
pub fn proc_subset() -> Result<()> {
    let proc = file_system("proc")?;
    rustix::mount::fsconfig_set_string(&proc, "subset", "pid").named(|| "fsconfig(\"proc\", subset=pid)".into())
}

/// The `pidns` of procfs: a procfs of another pid namespace than the mounter's.
///
/// # Errors
/// EINVAL without it.
pub fn proc_pidns() -> Result<()> {
    let proc = file_system("proc")?;
    let own = path::open(Path::new("/proc/self/ns/pid"), OFlags::RDONLY)?;
    rustix::mount::fsconfig_set_fd(&proc, "pidns", own.as_fd()).named(|| "fsconfig(\"proc\", pidns)".into())
}

/// open_tree(2) with flags, of the root directory.
///
/// # Errors
/// EINVAL for a flag that the kernel does not know.
pub fn open_tree(flags: u32) -> Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC as u32;
    owned(call("open_tree(\"/\")", 428, [fd(libc::AT_FDCWD), c"/".as_ptr() as u64, flags.into(), 0, 0, 0]))
}

/// open_tree_attr(2) without any attribute.
pub fn open_tree_attr() -> Result<OwnedFd> {
    let attr = [0u64; 4];
    let args = [fd(libc::AT_FDCWD), c"/".as_ptr() as u64, libc::O_CLOEXEC as u64, attr.as_ptr() as u64, 32, 0];
    owned(call("open_tree_attr(\"/\")", 467, args))
}

/// mount_setattr(2) of a mount that is not there, with attributes to set.
///
/// # Errors
/// EINVAL for an attribute that the kernel does not know.
pub fn mount_attributes(set: u64) -> Result<()> {
    let attr = [set, 0, 0, NO_FD as u64];
    let args = [fd(NO_FD), c"x".as_ptr() as u64, 0, attr.as_ptr() as u64, 32, 0];
    known_by(libc::EBADF, call("mount_setattr()", 442, args))
}

/// move_mount(2) of a mount that is not there, with flags.
///
/// # Errors
/// EINVAL for a flag that the kernel does not know.
pub fn move_mount(flags: u32) -> Result<()> {
    let x = c"x".as_ptr() as u64;
    known_by(libc::EBADF, call("move_mount()", 429, [fd(NO_FD), x, fd(NO_FD), x, flags.into(), 0]))
}

/// listmount(2) of one mount at most.
pub fn listmount() -> Result<()> {
    /// `LSMT_ROOT`
    const ROOT: u64 = u64::MAX;
    let (request, mut id) = ([24u64, ROOT, 0], 0u64);
    call("listmount()", 458, [request.as_ptr() as u64, &raw mut id as u64, 1, 0, 0, 0]).map(drop)
}

/// Whether statx(2) tells a mount id that is never used again; `false` where it tells none or another.
pub fn unique_mount_ids() -> Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxFlags};
    /// `STATX_MNT_ID_UNIQUE`
    const UNIQUE: u32 = 0x4000;
    let told = rustix::fs::statx(CWD, "/", AtFlags::empty(), StatxFlags::from_bits_retain(UNIQUE));
    told.map(|s| s.stx_mask & UNIQUE != 0).named(|| "statx(\"/\", STATX_MNT_ID_UNIQUE)".into())
}

/// clone3(2) into a cgroup that is not there, so that no process is made, with flags.
///
/// # Errors
/// EINVAL for a flag that the kernel does not know.
pub fn clone_into_cgroup() -> Result<()> {
    /// `CLONE_INTO_CGROUP`
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args = [0u64; 11];
    (args[0], args[4], args[10]) = (INTO_CGROUP, libc::SIGCHLD as u64, NO_FD as u64);
    known_by(libc::EBADF, call("clone3(CLONE_INTO_CGROUP)", 435, [args.as_ptr() as u64, 88, 0, 0, 0, 0]))
}

/// A pidfd of this process.
pub fn own_pidfd() -> Result<OwnedFd> {
    rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .named(|| "pidfd_open(self)".into())
}

/// setns(2) by pidfd into the process' own uts namespace, where it is already.
///
/// # Errors
/// EINVAL where setns takes only namespace files.
pub fn setns_by_pidfd() -> Result<()> {
    call(
        "setns(pidfd, CLONE_NEWUTS)",
        libc::SYS_setns,
        [fd(own_pidfd()?.as_raw_fd()), libc::CLONE_NEWUTS as u64, 0, 0, 0, 0],
    )
    .map(drop)
}

/// pidfd_getfd(2) of a descriptor that is not there.
pub fn pidfd_getfd() -> Result<()> {
    known_by(libc::EBADF, call("pidfd_getfd()", 438, [fd(own_pidfd()?.as_raw_fd()), fd(NO_FD), 0, 0, 0, 0]))
}

/// Signal 0 to the process itself by the number that stands for it in place of a pidfd (`PIDFD_SELF`).
///
/// # Errors
/// EBADF without it.
pub fn pidfd_self() -> Result<()> {
    /// `PIDFD_SELF_THREAD`
    const SELF: i32 = -10000;
    call("pidfd_send_signal(PIDFD_SELF, 0)", 424, [fd(SELF), 0, 0, 0, 0, 0]).map(drop)
}

/// `PIDFD_GET_INFO`: the bits of what it told.
///
/// # Errors
/// ENOTTY or EINVAL without it.
pub fn pidfd_info() -> Result<u64> {
    /// `_IOWR(0xff, 11, struct pidfd_info)`, whose first version has 64 bytes.
    const GET_INFO: u64 = 0xc040_ff0b;
    let (pidfd, mut info) = (own_pidfd()?, [0u64; 8]);
    info[0] = u64::MAX;
    let args = [fd(pidfd.as_raw_fd()), GET_INFO, info.as_mut_ptr() as u64, 0, 0, 0];
    call("ioctl(pidfd, PIDFD_GET_INFO)", libc::SYS_ioctl, args).map(|_| info[0])
}

/// `PIDFD_GET_UTS_NAMESPACE`
///
/// # Errors
/// As [`pidfd_info`].
pub fn pidfd_namespace() -> Result<OwnedFd> {
    /// `_IO(0xff, 10)`
    const GET_UTS: u64 = 0xff0a;
    let pidfd = own_pidfd()?;
    owned(call("ioctl(pidfd, PIDFD_GET_UTS_NAMESPACE)", libc::SYS_ioctl, [fd(pidfd.as_raw_fd()), GET_UTS, 0, 0, 0, 0]))
}

/// Whether pidfds are files of a file system of their own, so that their inode numbers are never used again.
pub fn pidfs() -> Result<bool> {
    /// `PID_FS_MAGIC`
    const PIDFS: u64 = 0x5049_4446;
    path::fs_magic(own_pidfd()?).map(|magic| magic == PIDFS)
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC, of a descriptor that is not there.
pub fn close_range_cloexec() -> Result<()> {
    call("close_range(CLOEXEC)", 436, [fd(NO_FD), fd(NO_FD), libc::CLOSE_RANGE_CLOEXEC.into(), 0, 0, 0]).map(drop)
}

/// memfd_create(2) with MFD_EXEC.
///
/// # Errors
/// EINVAL without it.
pub fn memfd_exec() -> Result<OwnedFd> {
    /// `MFD_CLOEXEC|MFD_EXEC`
    const FLAGS: u64 = 0x11;
    owned(call("memfd_create(MFD_EXEC)", libc::SYS_memfd_create, [c"probe".as_ptr() as u64, FLAGS, 0, 0, 0, 0]))
}

/// execveat(2) with AT_EXECVE_CHECK of the root directory, which cannot be executed.
///
/// # Errors
/// EINVAL without it.
pub fn execve_check() -> Result<()> {
    /// `AT_EXECVE_CHECK`
    const CHECK: u64 = 0x10000;
    let nothing = [0u64];
    let (path, none) = (c"/".as_ptr() as u64, nothing.as_ptr() as u64);
    known_by(
        libc::EACCES,
        call("execveat(AT_EXECVE_CHECK)", libc::SYS_execveat, [fd(libc::AT_FDCWD), path, none, none, CHECK, 0]),
    )
}

/// fchmodat2(2) of a descriptor that is not there.
pub fn fchmodat2() -> Result<()> {
    let args = [fd(NO_FD), c"".as_ptr() as u64, 0, libc::AT_EMPTY_PATH as u64, 0, 0];
    known_by(libc::EBADF, call("fchmodat2()", 452, args))
}

/// prctl(2) `PR_SCHED_CORE`, which reads the process' own cookie.
///
/// # Errors
/// EINVAL without it; ENODEV where a processor has one thread.
pub fn core_scheduling() -> Result<()> {
    /// `PR_SCHED_CORE`, `PR_SCHED_CORE_GET`
    const GET: (u64, u64) = (62, 0);
    let mut cookie = 0u64;
    call("prctl(PR_SCHED_CORE_GET)", libc::SYS_prctl, [GET.0, GET.1, 0, 0, &raw mut cookie as u64, 0]).map(drop)
}

/// seccomp(2) with a flag, and no filter.
///
/// # Errors
/// EINVAL for a flag that the kernel does not know.
pub fn seccomp_flag(flag: u32) -> Result<()> {
    /// `SECCOMP_SET_MODE_FILTER`
    const FILTER: u64 = 1;
    known_by(libc::EFAULT, call("seccomp()", libc::SYS_seccomp, [FILTER, flag.into(), 0, 0, 0, 0]))
}

/// Whether seccomp(2) knows an action (`SECCOMP_GET_ACTION_AVAIL`).
///
/// # Errors
/// EOPNOTSUPP if not.
pub fn seccomp_action(action: u32) -> Result<()> {
    /// `SECCOMP_GET_ACTION_AVAIL`
    const AVAILABLE: u64 = 2;
    call("seccomp(GET_ACTION_AVAIL)", libc::SYS_seccomp, [AVAILABLE, 0, &raw const action as u64, 0, 0, 0]).map(drop)
}

/// lsm_set_self_attr(2) for no module.
pub fn lsm_set_self_attr() -> Result<()> {
    let context = [0u64, 0, 32, 0];
    known_by(libc::EOPNOTSUPP, call("lsm_set_self_attr()", 460, [101, context.as_ptr() as u64, 32, 0, 0, 0]))
}

/// Release and machine of uname(2).
pub fn kernel() -> (String, String) {
    let name = rustix::system::uname();
    (name.release().to_string_lossy().into_owned(), name.machine().to_string_lossy().into_owned())
}

/// Whether a file can be opened for reading.
pub fn readable(file: &Path) -> Result<()> {
    path::open(file, OFlags::RDONLY).map(drop)
}
