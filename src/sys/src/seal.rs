//! A file that nobody can write, made of one that somebody could.

use crate::error::{Named, Result};
use crate::mount::{Attr, new_fs};
use crate::path::{self, proc_fd, retry};
use rustix::fs::{AtFlags, CWD, MemfdFlags, OFlags, SealFlags, StatxAttributes, StatxFlags};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// `OVERLAYFS_SUPER_MAGIC`
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// All seals that make a memory file immutable.
fn all_seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

/// Whether the kernel itself keeps the file's content from ever changing (fs-verity).
///
/// Not the immutable attribute: a container with CAP_LINUX_IMMUTABLE could take it off.
pub fn is_immutable(file: &Path) -> Result<bool> {
    let st = rustix::fs::statx(CWD, file, AtFlags::empty(), StatxFlags::TYPE).named(|| format!("statx({file:?})"))?;
    Ok(st.stx_attributes.contains(StatxAttributes::VERITY))
}

/// Whether the file is root's and nobody else may write it: no bit for group or others (an access control list shows as group bits).
pub fn is_roots_alone(file: &Path) -> Result<bool> {
    let st = rustix::fs::stat(file).named(|| format!("stat({file:?})"))?;
    Ok((st.st_uid, st.st_gid) == (0, 0) && st.st_mode & 0o022 == 0)
}

/// Whether the file lies on a read-only overlay or is a sealed memory file, as [`overlay`] and [`memory_file`] make them.
pub fn is_sealed(file: &Path) -> Result<bool> {
    /// `ST_RDONLY` of statfs(2)
    const READ_ONLY: u64 = 1;
    let fd = path::open(file, OFlags::RDONLY)?;
    let fs = rustix::fs::fstatfs(&fd).named(|| format!("fstatfs({file:?})"))?;
    if fs.f_type as u64 == OVERLAY_MAGIC {
        return Ok(fs.f_flags as u64 & READ_ONLY != 0);
    }
    Ok(rustix::fs::fcntl_get_seals(&fd).is_ok_and(|seals| seals.contains(all_seals())))
}

/// The file, opened on a detached overlay that has two lower directories and no upper one: its super block is read-only for
/// good, and no mount option can change that. Nothing is copied. Needs CAP_SYS_ADMIN in the first user namespace.
pub fn overlay(file: &Path) -> Result<OwnedFd> {
    let dir = path::open_dir(file.parent().unwrap_or(Path::new("/")))?;
    let name = file.file_name().unwrap_or_default();
    // Overlay wants a second lower directory where there is no upper one; it has nothing in it.
    let none: [&str; 0] = [];
    let empty = new_fs(OsStr::new("tmpfs"), None, &none, Attr::MOUNT_ATTR_RDONLY)?;
    // By fd, so that no comma or colon in a path is taken for syntax.
    let mut lower = OsString::from("lowerdir=");
    lower.push(proc_fd(&dir));
    lower.push(":");
    lower.push(proc_fd(&empty));
    let attrs = Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOSUID;
    let sealed = new_fs(OsStr::new("overlay"), None, &[lower], attrs)?;
    path::openat(sealed.as_fd(), name, OFlags::RDONLY | OFlags::NOFOLLOW)
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
