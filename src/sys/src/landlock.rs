//! Landlock: a process takes access away from itself and from all its descendants. landlock(7)

use crate::error::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `struct landlock_ruleset_attr`, as of ABI 6. An older kernel takes it as long as the fields it does not know are 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handled {
    /// `LANDLOCK_ACCESS_FS_*`: denied but where a rule allows it.
    pub fs: u64,
    /// `LANDLOCK_ACCESS_NET_*` (ABI 4).
    pub net: u64,
    /// `LANDLOCK_SCOPE_*` (ABI 6): denied altogether.
    pub scoped: u64,
}

/// Which rights the kernel knows, as one growing number.
///
/// # Errors
/// ENOSYS when it was built without Landlock, EOPNOTSUPP when it is switched off (`lsm=` on the kernel's command line).
pub fn abi() -> Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    let none = std::ptr::null::<Handled>();
    // SAFETY: with this flag the struct has to be NULL and its size 0. landlock_create_ruleset(2)
    let ret = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, LANDLOCK_CREATE_RULESET_VERSION) };
    check(ret, || "landlock_create_ruleset(VERSION)".into()).map(|abi| abi as u32)
}

/// A new set of rules, empty: everything handled is denied.
pub fn create_ruleset(handled: Handled) -> Result<OwnedFd> {
    let (attr, size) = (&raw const handled, size_of::<Handled>());
    // SAFETY: the struct is of the size given and outlives the call. landlock_create_ruleset(2)
    let ret = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attr, size, 0) };
    let fd = check(ret, || format!("landlock_create_ruleset({handled:x?})"))?;
    // SAFETY: the call made this fd (close-on-exec) for us just now. landlock_create_ruleset(2)
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Allows `access` to a file, or to a directory and all that is below it; `place` may be `O_PATH`.
///
/// # Errors
/// EINVAL for a right that is not handled, or is one of directories and `place` is none.
pub fn allow_path(ruleset: BorrowedFd<'_>, place: BorrowedFd<'_>, access: u64) -> Result<()> {
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: i32,
    }
    const LANDLOCK_RULE_PATH_BENEATH: i32 = 1;
    let rule = PathBeneath { allowed_access: access, parent_fd: place.as_raw_fd() };
    // SAFETY: the struct is that of the rule's type and outlives the call. landlock_add_rule(2)
    let ret = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), LANDLOCK_RULE_PATH_BENEATH, &raw const rule, 0)
    };
    check(ret, || format!("landlock_add_rule(PATH_BENEATH, {access:#x})")).map(drop)
}

/// Allows `access` to a TCP port; 0 stands for the ports the kernel chooses.
pub fn allow_port(ruleset: BorrowedFd<'_>, port: u16, access: u64) -> Result<()> {
    #[repr(C)]
    struct NetPort {
        allowed_access: u64,
        port: u64,
    }
    const LANDLOCK_RULE_NET_PORT: i32 = 2;
    let rule = NetPort { allowed_access: access, port: port.into() };
    // SAFETY: the struct is that of the rule's type and outlives the call. landlock_add_rule(2)
    let ret = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), LANDLOCK_RULE_NET_PORT, &raw const rule, 0)
    };
    check(ret, || format!("landlock_add_rule(NET_PORT, {port}, {access:#x})")).map(drop)
}

/// Puts this thread, and all that it will make, under the rules, for ever.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN in its user namespace and without no_new_privs.
pub fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: integers only. landlock_restrict_self(2)
    let ret = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    check(ret, || "landlock_restrict_self".into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structs_are_the_kernels() {
        assert_eq!(size_of::<Handled>(), 24);
        // Where the kernel has Landlock at all, it has said so with a number from 1 on.
        assert!(abi().map_or_else(|e| e.is(libc::ENOSYS) || e.is(libc::EOPNOTSUPP), |abi| abi >= 1));
    }
}
