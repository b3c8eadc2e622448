//! The fd-based mount API: mounts are built and configured detached, then attached to a place held by an fd.

use crate::error::{Named, Result, SysError, check};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

pub use rustix::mount::MountAttrFlags as Attr;

/// The longest value fsconfig(2) takes as a string, without its NUL (the kernel's strndup_user limit of 256).
const FSCONFIG_VALUE_MAX: usize = 255;

/// `STATX_MNT_ID_UNIQUE`, Linux 6.8.
const MNT_ID_UNIQUE: rustix::fs::StatxFlags = rustix::fs::StatxFlags::from_bits_retain(0x4000);

/// How a mount shares mount events (mount_namespaces(7)); the values are mount(2)'s `MS_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// `MS_PRIVATE`
    Private,
    /// `MS_SHARED`
    Shared,
    /// `MS_SLAVE`
    Slave,
    /// `MS_UNBINDABLE`
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct RawAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// What mount_setattr(2) changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// The new propagation type, if any.
    pub propagation: Option<Propagation>,
}

/// Changes the mount an fd holds, and with `recursive` every mount below it. Linux 5.12.
pub fn set_attr(fd: BorrowedFd<'_>, attr: SetAttr, recursive: bool) -> Result<()> {
    let raw = RawAttr {
        attr_set: attr.set,
        attr_clr: attr.clear,
        propagation: attr.propagation.map_or(0, Propagation::bits),
        userns_fd: 0,
    };
    raw_set_attr(fd, &raw, recursive, || format!("mount_setattr({}, {attr:?}, recursive={recursive})", fd.as_raw_fd()))
}

fn raw_set_attr(fd: BorrowedFd<'_>, raw: &RawAttr, recursive: bool, call: impl FnOnce() -> String) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated literal and `raw` outlives the call; the size is that of the struct. mount_setattr(2)
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(raw),
            size_of::<RawAttr>(),
        )
    };
    check(ret, call).map(drop)
}

/// Translates owners on the mount an fd holds, and with `recursive` on those below it, as the user namespace does. The mount must not be
/// attached anywhere, nor be translated already. `MOUNT_ATTR_IDMAP`, Linux 5.12.
///
/// # Errors
/// EINVAL when a file system among them cannot do it; EPERM when one is translated already, or is another user namespace's.
pub fn set_idmap(fd: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    /// `MOUNT_ATTR_IDMAP`
    const IDMAP: u64 = 0x10_0000;
    let raw = RawAttr { attr_set: IDMAP, userns_fd: user_namespace.as_raw_fd() as u64, ..RawAttr::default() };
    raw_set_attr(fd, &raw, recursive, || {
        format!("mount_setattr({}, MOUNT_ATTR_IDMAP, recursive={recursive})", fd.as_raw_fd())
    })
}

/// Clones the mount at `path` (from `dir`, or the mount that `dir` itself is when `path` is empty) as a detached tree.
pub fn open_tree_clone(dir: BorrowedFd<'_>, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(dir, path, flags).named(|| format!("open_tree({path:?}, OPEN_TREE_CLONE)"))
}

/// [`open_tree_clone`] of a host path.
pub fn clone_host_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    open_tree_clone(CWD, path, recursive)
}

/// [`clone_host_tree`] of a symlink itself, where the path ends in one.
pub fn clone_host_link(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(CWD, path, flags)
        .named(|| format!("open_tree({path:?}, OPEN_TREE_CLONE|AT_SYMLINK_NOFOLLOW)"))
}

/// A new file system of type `fstype`, as a detached mount.
///
/// `source` is what mountinfo shows; `options` are `key` or `key=value`, as in mount(8)'s data string. An error carries what the
/// file system wrote to the context's log.
///
/// # Errors
/// E2BIG when an option's value is longer than fsconfig(2) takes (255 bytes): the caller falls back to [`mount_legacy`].
pub fn new_fs(fstype: &OsStr, source: Option<&OsStr>, options: &[impl AsRef<OsStr>], attr: Attr) -> Result<OwnedFd> {
    let ctx = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).named(|| format!("fsopen({fstype:?})"))?;
    if let Some(source) = source {
        rustix::mount::fsconfig_set_string(&ctx, "source", source)
            .named(|| format!("fsconfig({fstype:?}, source={source:?})"))?;
    }
    configure(&ctx, fstype, options)?;
    rustix::mount::fsconfig_create(&ctx)
        .named(|| logged(&ctx, format!("fsconfig({fstype:?}, FSCONFIG_CMD_CREATE)")))?;
    rustix::mount::fsmount(&ctx, FsMountFlags::FSMOUNT_CLOEXEC, attr)
        .named(|| logged(&ctx, format!("fsmount({fstype:?}, {attr:?})")))
}

fn configure(ctx: &OwnedFd, fstype: &OsStr, options: &[impl AsRef<OsStr>]) -> Result<()> {
    for option in options.iter().map(AsRef::as_ref) {
        let bytes = option.as_bytes();
        let call = || logged(ctx, format!("fsconfig({fstype:?}, {option:?})"));
        match bytes.iter().position(|&b| b == b'=') {
            Some(i) if bytes.len() - i - 1 > FSCONFIG_VALUE_MAX => return Err(SysError::new(call(), libc::E2BIG)),
            Some(i) => {
                let (key, value) = (OsStr::from_bytes(&bytes[..i]), OsStr::from_bytes(&bytes[i + 1..]));
                rustix::mount::fsconfig_set_string(ctx, key, value).named(call)?;
            }
            None => rustix::mount::fsconfig_set_flag(ctx, option).named(call)?,
        }
    }
    Ok(())
}

/// Changes the super block of the mount an fd holds (`remount` of a file system).
pub fn reconfigure(fd: BorrowedFd<'_>, options: &[impl AsRef<OsStr>]) -> Result<()> {
    let ctx = rustix::mount::fspick(fd, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)
        .named(|| format!("fspick({})", fd.as_raw_fd()))?;
    configure(&ctx, OsStr::new("fspick"), options)?;
    rustix::mount::fsconfig_reconfigure(&ctx).named(|| logged(&ctx, "fsconfig(FSCONFIG_CMD_RECONFIGURE)".into()))
}

/// Adds the messages the file system left in its context, such as `e overlay: lowerdir is missing`.
fn logged(ctx: &OwnedFd, call: String) -> String {
    let mut text = call;
    let mut line = [0u8; 512];
    while let Ok(n) = rustix::io::read(ctx, &mut line) {
        if n == 0 {
            break;
        }
        text.push_str(&format!(" [{}]", String::from_utf8_lossy(&line[..n]).trim()));
    }
    text
}

/// Attaches a detached mount on the place that `target` (an `O_PATH` fd) holds.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
        .named(|| format!("move_mount({}, {})", mount.as_raw_fd(), target.as_raw_fd()))
}

/// Puts a detached mount beneath the one whose root `top` is: it is seen once that one is taken off. Linux 6.5
///
/// # Errors
/// EINVAL on older kernels, for the root of the namespace, and where the parent mount passes mounts on to others.
pub fn attach_beneath(mount: BorrowedFd<'_>, top: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
        | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH
        | MoveMountFlags::MOVE_MOUNT_BENEATH;
    rustix::mount::move_mount(mount, "", top, "", flags)
        .named(|| format!("move_mount({}, {}, MOVE_MOUNT_BENEATH)", mount.as_raw_fd(), top.as_raw_fd()))
}

/// Whether an fd is the root of a mount, and not something below it. statx(2) `STATX_ATTR_MOUNT_ROOT`, Linux 5.8
pub fn is_mount_root(fd: BorrowedFd<'_>) -> Result<bool> {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .map(|s| s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        .named(|| format!("statx({})", fd.as_raw_fd()))
}

/// mount(2) onto a `/proc/self/fd/N` target: only for what the fd-based API cannot say (long option values, `iversion`).
pub fn mount_legacy(source: &OsStr, target: &Path, fstype: &OsStr, flags: u64, data: &OsStr) -> Result<()> {
    let c = |s: &OsStr| CString::new(s.as_bytes()).map_err(|_| SysError::new(format!("mount({s:?})"), libc::EINVAL));
    let data = c(data)?;
    let flags = MountFlags::from_bits_retain(flags as u32);
    rustix::mount::mount(source, target, fstype, flags, Some(data.as_c_str()))
        .named(|| format!("mount({source:?}, {target:?}, {fstype:?}, {flags:?}, {data:?})"))
}

/// Changes the propagation of the mount at a host path; `recursive` for all below it.
pub fn set_propagation(path: &Path, propagation: Propagation, recursive: bool) -> Result<()> {
    let mut flags = MountPropagationFlags::from_bits_retain(propagation.bits() as u32);
    if recursive {
        flags |= MountPropagationFlags::REC;
    }
    rustix::mount::mount_change(path, flags).named(|| format!("mount({path:?}, {flags:?})"))
}

/// Makes the current directory the root of the mount namespace and detaches the old root, which nothing can reach then.
///
/// Both arguments of pivot_root(2) are `.`: the old root is stacked on the new one, so no directory has to be made for it.
pub fn pivot_root_here() -> Result<()> {
    rustix::process::pivot_root(".", ".").named(|| "pivot_root(\".\", \".\")".into())?;
    // The old root is now what "." is. It must have been made private before, or the detaching would reach the host's mounts.
    detach(Path::new("."))?;
    rustix::process::chdir("/").named(|| "chdir(\"/\")".into())
}

/// `umount2(path, MNT_DETACH)`.
pub fn detach(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::DETACH).named(|| format!("umount2({path:?}, MNT_DETACH)"))
}

/// chroot(2) to the current directory.
pub fn chroot_here() -> Result<()> {
    rustix::process::chroot(".").named(|| "chroot(\".\")".into())
}

/// fchdir(2).
pub fn fchdir(dir: impl AsFd) -> Result<()> {
    rustix::process::fchdir(&dir).named(|| format!("fchdir({})", dir.as_fd().as_raw_fd()))
}

/// The id of the mount that an fd stands on: unique for ever from Linux 6.8, among live mounts before. statx(2)
pub fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    use rustix::fs::{AtFlags, StatxFlags};
    // Older kernels ignore the second bit, and the first answers.
    let mask = StatxFlags::MNT_ID | MNT_ID_UNIQUE;
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, mask)
        .map(|s| s.stx_mnt_id)
        .named(|| format!("statx({}, STATX_MNT_ID)", fd.as_raw_fd()))
}

/// Both ids of the mount that an fd stands on: as in mountinfo, which is given again when the mount is gone, and the unique one, which is
/// not until the machine is booted; 0 before Linux 6.8. statx(2)
pub fn mount_ids(fd: BorrowedFd<'_>) -> Result<(u64, u64)> {
    use rustix::fs::{AtFlags, StatxFlags};
    let ask = |mask: StatxFlags| {
        rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, mask).named(|| format!("statx({}, {mask:?})", fd.as_raw_fd()))
    };
    let (plain, unique) = (ask(StatxFlags::MNT_ID)?, ask(MNT_ID_UNIQUE)?);
    let has_unique = unique.stx_mask & MNT_ID_UNIQUE.bits() != 0;
    Ok((plain.stx_mnt_id, if has_unique { unique.stx_mnt_id } else { 0 }))
}

/// `MountAttrFlags` from raw bits.
pub fn attr_from_bits(bits: u64) -> Attr {
    MountAttrFlags::from_bits_retain(bits as u32)
}

/// Undoes the octal escapes (`\040` for a space) of the mount table. proc_pid_mountinfo(5)
pub fn unescape(word: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|d| byte == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match octal {
            Some(d) => {
                out.push(d.iter().fold(0u8, |n, b| n.wrapping_mul(8).wrapping_add(b - b'0')));
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}
