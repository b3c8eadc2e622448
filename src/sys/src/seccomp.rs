//! seccomp(2): the filter of system calls.

use crate::error::{Named, Result, SysError, check};
use std::os::fd::{BorrowedFd, OwnedFd};

const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`
pub const NEW_LISTENER: u32 = 1 << 3;

/// How many bytes an instruction has (`struct sock_filter` of linux/filter.h).
pub const INSTRUCTION: usize = 8;

/// Loads a filter, `struct sock_filter` after `struct sock_filter`, for this process and all it will execute.
///
/// With `listener` it returns the number of the fd on which the calls come that the filter asks about: close-on-exec, and a number
/// only, because a destructor would make a system call that the filter may forbid.
///
/// # Errors
/// EACCES without no_new_privs and without CAP_SYS_ADMIN; EINVAL for a program or flag that this kernel does not know; EBUSY when
/// another filter of this process has a listener.
pub fn load(program: &[u8], flags: u32, listener: bool) -> Result<Option<i32>> {
    let call = || format!("seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {} instructions)", program.len() / INSTRUCTION);
    let length = u16::try_from(program.len() / INSTRUCTION).map_err(|_| SysError::new(call(), libc::EINVAL))?;
    let prog = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    let all = flags | if listener { NEW_LISTENER } else { 0 };
    // SAFETY: `prog` names as many whole instructions as `program` has, and the kernel copies them byte by byte, so that their
    // alignment does not matter; it writes nothing. seccomp(2)
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, all, &raw const prog) };
    let ret = check(ret, call)?;
    Ok(listener.then_some(ret as i32))
}

/// A duplicate of an fd of another process. pidfd_getfd(2)
///
/// # Errors
/// EPERM when we may not ptrace(2) it; EBADF when it has no such fd.
pub fn fd_of(pidfd: BorrowedFd<'_>, number: i32) -> Result<OwnedFd> {
    rustix::process::pidfd_getfd(pidfd, number, rustix::process::PidfdGetfdFlags::empty())
        .named(|| format!("pidfd_getfd({number})"))
}
