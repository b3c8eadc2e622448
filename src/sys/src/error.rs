//! One error type for every syscall: the call as strace would print it, and the errno.

use nix::errno::Errno;
use std::fmt;

/// A failed syscall, printed as `openat2("etc/passwd", O_PATH): No such file or directory (ENOENT)`.
///
/// The text before the colon is built only on failure. What the call was *for* is said one layer up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysError {
    call: Box<str>,
    errno: Errno,
}

impl SysError {
    /// Names the call that returned `errno` (a raw errno value, positive).
    pub fn new(call: impl Into<Box<str>>, errno: i32) -> Self {
        SysError { call: call.into(), errno: Errno::from_raw(errno) }
    }

    /// The raw errno value, as in errno(3).
    pub fn errno(&self) -> i32 {
        self.errno as i32
    }

    /// The call as strace would print it.
    pub fn call(&self) -> &str {
        &self.call
    }

    /// Whether the errno is `other` (a `libc::E*` constant).
    pub fn is(&self, other: i32) -> bool {
        self.errno() == other
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({:?})", self.call, self.errno.desc(), self.errno)
    }
}

impl std::error::Error for SysError {}

/// The result of a syscall.
pub type Result<T> = std::result::Result<T, SysError>;

/// Errors of the crates under this one, as a raw errno.
pub(crate) trait IntoErrno {
    fn into_errno(self) -> i32;
}

impl IntoErrno for rustix::io::Errno {
    fn into_errno(self) -> i32 {
        self.raw_os_error()
    }
}

impl IntoErrno for Errno {
    fn into_errno(self) -> i32 {
        self as i32
    }
}

/// prctl-rs returns the errno itself.
impl IntoErrno for i32 {
    fn into_errno(self) -> i32 {
        self
    }
}

impl IntoErrno for std::io::Error {
    fn into_errno(self) -> i32 {
        self.raw_os_error().unwrap_or(libc::EIO)
    }
}

/// Adds the call's text to a lower crate's result; the closure runs only on failure.
pub(crate) trait Named<T> {
    fn named(self, call: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: IntoErrno> Named<T> for std::result::Result<T, E> {
    fn named(self, call: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| SysError::new(call(), e.into_errno()))
    }
}

/// Turns the return value of a raw syscall (-1 and errno on failure) into a result.
pub(crate) fn check(ret: libc::c_long, call: impl FnOnce() -> String) -> Result<libc::c_long> {
    if ret == -1 {
        // Taken at once: any later call may change it (models.md 3.14).
        let errno = Errno::last_raw();
        return Err(SysError::new(call(), errno));
    }
    Ok(ret)
}
