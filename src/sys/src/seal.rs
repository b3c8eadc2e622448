//! A file that nobody can write, made of one that somebody could.

use crate::error::{Named, Result};
use crate::mount::{Attr, SetAttr, clone_host_tree, set_attr};
use crate::path::{self, retry};
use rustix::fs::{AtFlags, MemfdFlags, OFlags, SealFlags, StatxAttributes, StatxFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// All seals that make a memory file immutable.
fn all_seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

/// Whether the kernel itself keeps the file's content from ever changing (fs-verity).
///
/// Not the immutable attribute: a container with CAP_LINUX_IMMUTABLE could take it off.
pub fn is_immutable(file: BorrowedFd<'_>) -> Result<bool> {
    let st = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE).named(|| "statx(EMPTY_PATH)".into())?;
    Ok(st.stx_attributes.contains(StatxAttributes::VERITY))
}

/// Whether the file is root's and nobody else may write it: no bit for group or others (an access control list shows as group bits).
pub fn is_roots_alone(file: &Path) -> Result<bool> {
    let st = rustix::fs::stat(file).named(|| format!("stat({file:?})"))?;
    Ok((st.st_uid, st.st_gid) == (0, 0) && st.st_mode & 0o022 == 0)
}

/// Whether this process runs from what [`detached`] or [`memory_file`] has made.
///
/// A mount that is attached nowhere shows its root as `/`, whatever it is, and no program that was found by a path is that.
pub fn runs_sealed() -> Result<bool> {
    /// `ST_RDONLY` of statfs(2)
    const READ_ONLY: u64 = 1;
    let own = Path::new("/proc/self/exe");
    let fs = rustix::fs::statfs(own).named(|| format!("statfs({own:?})"))?;
    let name = rustix::fs::readlink(own, Vec::new()).named(|| format!("readlink({own:?})"))?;
    if fs.f_flags as u64 & READ_ONLY != 0 && name.as_bytes() == b"/" {
        return Ok(true);
    }
    let fd = path::open(own, OFlags::RDONLY)?;
    Ok(rustix::fs::fcntl_get_seals(&fd).is_ok_and(|seals| seals.contains(all_seals())))
}

/// The file as the root of a read-only mount of its own, which is attached nowhere and falls out of its namespace when the fd is
/// closed. From then on nobody can make it writable, not with CAP_SYS_ADMIN either: mount_setattr(2), mount(2), open_tree(2) and
/// move_mount(2) refuse a mount that is in no namespace (EINVAL). Nothing is copied, and no file system is made.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over the mount namespace; EINVAL when the file is on a mount of another one.
pub fn detached(file: &Path) -> Result<OwnedFd> {
    let mount = clone_host_tree(file, false)?;
    set_attr(mount.as_fd(), SetAttr { set: Attr::MOUNT_ATTR_RDONLY.bits().into(), ..SetAttr::default() }, false)?;
    Ok(mount)
}

/// A copy of the file in memory, sealed against any change. memfd_create(2), fcntl(2) F_ADD_SEALS
pub fn memory_file(file: &Path) -> Result<OwnedFd> {
    let source = path::open(file, OFlags::RDONLY)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC says that it is meant to be executed (Linux 6.3); older kernels do not know the flag and allow it anyway.
    let copy = rustix::fs::memfd_create("rrt", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("rrt", flags))
        .named(|| "memfd_create".into())?;
    while retry(|| rustix::fs::sendfile(&copy, &source, None, 1 << 30)).named(|| format!("sendfile({file:?})"))? > 0 {}
    rustix::fs::fcntl_add_seals(&copy, all_seals()).named(|| "fcntl(F_ADD_SEALS)".into())?;
    Ok(copy)
}
