//! Every syscall the runtime makes, typed, and nothing else: the only crate of the runtime with `unsafe`.
//!
//! A function here is one call (or the retry of one), named after what it does, with its man page. Errors are
//! [`SysError`], which prints the failed call as strace would; what the call was for is said by the caller.

pub mod alloc;
pub mod bpf;
pub mod creds;
mod error;
pub mod image;
pub mod landlock;
pub mod limits;
pub mod lsm;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod netlink;
pub mod path;
pub mod probe;
pub mod process;
pub mod regex;
pub mod seal;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod start;
pub mod tty;

/// The errno values that callers decide on, as in errno(3).
pub mod errno {
    pub use libc::{
        E2BIG, EACCES, EAGAIN, EBUSY, ECONNREFUSED, ECONNRESET, EEXIST, EFAULT, EINVAL, ELOOP, ENODEV, ENOENT, ENOEXEC,
        ENOMEM, ENOSPC, ENOSYS, ENOTDIR, ENOTEMPTY, ENXIO, EOPNOTSUPP, EPERM, EPIPE, EROFS, ESRCH,
    };
}

pub use error::{Result, SysError};
pub use rustix::fs::{FileType, OFlags, Stat, major, makedev, minor};
