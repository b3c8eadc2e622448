//! Joining and making namespaces. clone3 makes most of them; here are the ones that have to come later.

use crate::error::{Named, Result};
use crate::process::SingleThreaded;
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// setns(2) into the namespace that a `/proc/PID/ns/*` fd holds; `kind` (a `CLONE_NEW*` bit) must be its type.
///
/// # Errors
/// EINVAL when the fd is a namespace of another kind.
pub fn join(_token: &SingleThreaded, ns: BorrowedFd<'_>, kind: i32) -> Result<()> {
    use crate::error::check;
    // SAFETY: integers only. The token proves the single thread that user and time namespaces require. setns(2)
    let ret = unsafe { libc::syscall(libc::SYS_setns, ns.as_raw_fd(), kind) };
    check(ret, || format!("setns({}, {kind:#x})", ns.as_raw_fd())).map(drop)
}

/// The kind of the namespace that an fd holds, as a `CLONE_NEW*` bit (ioctl_ns(2), NS_GET_NSTYPE).
///
/// # Errors
/// ENOTTY for an fd of something else.
pub fn kind_of(ns: impl AsFd) -> Result<i32> {
    use crate::error::check;
    /// `NS_GET_NSTYPE`
    const NSTYPE: libc::c_ulong = 0xb703;
    let ns = ns.as_fd().as_raw_fd();
    // SAFETY: integers only. ioctl_ns(2)
    let ret = unsafe { libc::syscall(libc::SYS_ioctl, ns, NSTYPE) };
    check(ret, || format!("ioctl({ns}, NS_GET_NSTYPE)")).map(|kind| kind as i32)
}

/// setns(2) with a pidfd: joins all the namespaces in `kinds` (`CLONE_NEW*` bits) of that process at once, or none.
pub fn join_process(_token: &SingleThreaded, pidfd: BorrowedFd<'_>, kinds: i32) -> Result<()> {
    rustix::thread::move_into_thread_name_spaces(pidfd, ThreadNameSpaceType::from_bits_retain(kinds as u32))
        .named(|| format!("setns(pidfd {}, {kinds:#x})", pidfd.as_raw_fd()))
}

/// unshare(2) of the namespaces in `kinds` (`CLONE_NEW*` bits).
pub fn unshare(_token: &SingleThreaded, kinds: i32) -> Result<()> {
    // SAFETY: only CLONE_NEW* bits are passed, never CLONE_FILES, so no fd of another owner changes. unshare(2)
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::from_bits_retain(kinds as u32)) }
        .named(|| format!("unshare({kinds:#x})"))
}

/// sethostname(2)
pub fn set_hostname(name: &[u8]) -> Result<()> {
    rustix::system::sethostname(name).named(|| format!("sethostname({:?})", String::from_utf8_lossy(name)))
}

/// setdomainname(2)
pub fn set_domainname(name: &[u8]) -> Result<()> {
    rustix::system::setdomainname(name).named(|| format!("setdomainname({:?})", String::from_utf8_lossy(name)))
}
