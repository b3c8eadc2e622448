//! Paths below a directory that somebody else controls.
//!
//! Every name inside a container's root is the attacker's: a component may be a symlink out of the root, and may change
//! between two calls. So there is one handle to the root, each lookup is one `openat2(RESOLVE_IN_ROOT)` that the kernel
//! does atomically against that handle, and what comes back is an fd; no path is ever used twice
//! (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579).

use crate::error::{Named, Result, SysError};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// How often a lookup is repeated when the tree is being renamed under it (openat2 then says EAGAIN). A hostile
/// container may rename for ever; after this many tries it loses its mount, not our time.
const RACE_RETRIES: u32 = 256;

/// How many symlinks a path may go through, as in the kernel (path_resolution(7)).
const SYMLINKS: u32 = 40;

/// A directory below which all lookups stay: absolute symlinks and `..` are taken relative to it.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens `path`, which the caller trusts, as a root.
    ///
    /// # Errors
    /// ENOENT or ENOTDIR when `path` is no directory.
    pub fn open(path: &Path) -> Result<Root> {
        open_dir(path).map(Root)
    }

    /// Takes a directory fd (`O_PATH` will do) as a root.
    pub fn from_fd(fd: OwnedFd) -> Root {
        Root(fd)
    }

    /// Opens what `path` names below the root, following symlinks inside it only, never a magic link.
    ///
    /// # Errors
    /// As openat2(2); ELOOP for a magic link or too many symlinks.
    pub fn open_at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        self.lookup(path, flags, Mode::empty())
    }

    /// Opens `path` as `O_PATH`: a pinned place that later calls use by fd.
    pub fn resolve(&self, path: &Path) -> Result<OwnedFd> {
        self.open_at(path, OFlags::PATH)
    }

    /// Opens `path`, as [`Root::open_at`], but only on the very mount that the root is: never what is mounted over a part of it,
    /// nor through a symlink that leads out of it.
    ///
    /// # Errors
    /// EXDEV when the way leads to another mount or out of the root.
    pub fn open_on_mount(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        retry(|| rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
            .named(|| format!("openat2({path:?}, {}, RESOLVE_BENEATH|RESOLVE_NO_XDEV)", flag_names(flags)))
    }

    /// Opens a path that has no symlink in it, as `O_PATH`; mounts on the way are entered.
    ///
    /// # Errors
    /// ELOOP where a component is a symlink, EXDEV where `..` leads out of the root.
    pub fn resolve_plain(&self, path: &Path) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        retry(|| rustix::fs::openat2(&self.0, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve))
            .named(|| format!("openat2({path:?}, O_PATH, RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS)"))
    }

    /// Opens `path` as `O_PATH`, and if it ends in a symlink, that; symlinks on the way are followed inside the root.
    pub fn resolve_link(&self, path: &Path) -> Result<OwnedFd> {
        self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    fn lookup(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // RESOLVE_IN_ROOT takes "/" as the root itself, but an empty path is ENOENT.
        let name = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.0, name, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) if tries < RACE_RETRIES => tries += 1,
                r => return r.named(|| format!("openat2({path:?}, {}, RESOLVE_IN_ROOT)", flag_names(flags))),
            }
        }
    }

    /// Makes the directory `path` and its missing parents below the root, and returns it as `O_PATH`.
    ///
    /// The existing part is resolved by the kernel; each missing component is then made and opened by fd without
    /// following symlinks, so that nothing is ever made outside the root (CVE-2024-45310). A symlink whose target is missing
    /// (`/var/run -> /run` without a `/run`) is read, and its target made, below the root like any other path.
    ///
    /// # Errors
    /// ENOTDIR when a component is a file, ELOOP after 40 symlinks, EINVAL when a missing part contains `..`.
    pub fn mkdir_all(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let mut path = path.to_path_buf();
        for _ in 0..SYMLINKS {
            match self.open_at(&path, OFlags::PATH | OFlags::DIRECTORY) {
                Err(e) if e.is(libc::ENOENT) => {}
                done => return done,
            }
            let (mut dir, prefix, missing) = self.existing_part(&path)?;
            // `existing_part` finds at least one missing name, or the whole would have been found above.
            if let Some(target) = missing.first().and_then(|name| readlinkat(dir.as_fd(), name).ok()) {
                let rest: PathBuf = missing[1..].iter().collect();
                path = prefix.join(target).join(rest);
                continue;
            }
            for name in missing {
                dir = mkdir_at(dir.as_fd(), name, mode)?;
            }
            return Ok(dir);
        }
        Err(SysError::new(format!("mkdir_all({path:?})"), libc::ELOOP))
    }

    /// The deepest directory on the way to `path` that exists, its path, and the names below it.
    fn existing_part<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a Path, Vec<&'a OsStr>)> {
        let mut prefix = path;
        let mut missing: Vec<&OsStr> = Vec::new();
        loop {
            let Some(name) = prefix.file_name() else {
                // Only `..` has no file name here; what it would mean under a missing directory is unclear.
                return Err(SysError::new(format!("mkdir_all({path:?})"), libc::EINVAL));
            };
            missing.push(name);
            prefix = prefix.parent().unwrap_or(Path::new("/"));
            match self.open_at(prefix, OFlags::PATH | OFlags::DIRECTORY) {
                Err(e) if e.is(libc::ENOENT) => {}
                found => {
                    missing.reverse();
                    return Ok((found?, prefix, missing));
                }
            }
        }
    }

    /// Opens `path`, making it (and its parents) as an empty regular file when it is missing; `O_PATH`. Symlinks whose target is
    /// missing are taken as in [`Root::mkdir_all`]: `/etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf`.
    ///
    /// # Errors
    /// As [`Root::mkdir_all`]; ELOOP or EEXIST when something else raced into the place.
    pub fn touch(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let mut path = path.to_path_buf();
        for _ in 0..SYMLINKS {
            match self.resolve(&path) {
                Err(e) if e.is(libc::ENOENT) => {}
                done => return done,
            }
            let (parent, name) = split(&path)?;
            let dir = self.mkdir_all(parent, 0o755)?;
            match readlinkat(dir.as_fd(), name) {
                Ok(target) => path = parent.join(target),
                Err(_) => return Root(dir).touch_nofollow(name, mode),
            }
        }
        Err(SysError::new(format!("touch({path:?})"), libc::ELOOP))
    }

    /// Opens the file `name` in this directory, making it when it is missing; never through a symlink. `O_PATH`.
    ///
    /// # Errors
    /// ELOOP when it is a symlink.
    pub fn touch_nofollow(&self, name: &OsStr, mode: u32) -> Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        match rustix::fs::openat(&self.0, name, flags, Mode::from_bits_truncate(mode)) {
            Err(rustix::io::Errno::EXIST) => {}
            r => drop(r.named(|| format!("openat({name:?}, O_CREAT|O_EXCL)"))?),
        }
        nofollow(openat(self.0.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW)?, Path::new(name))
    }

    /// The root itself.
    pub fn as_dir(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Gives the fd away.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// Parent and last component of a path inside the root.
///
/// # Errors
/// EINVAL when the path has no last component (`/`, or ending in `..`).
pub fn split(path: &Path) -> Result<(&Path, &OsStr)> {
    match path.components().next_back() {
        Some(Component::Normal(name)) => Ok((path.parent().unwrap_or(Path::new("")), name)),
        _ => Err(SysError::new(format!("split({path:?})"), libc::EINVAL)),
    }
}

/// `O_PATH|O_NOFOLLOW` opens a symlink itself instead of failing; here that is a failure.
fn nofollow(fd: OwnedFd, path: &Path) -> Result<OwnedFd> {
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Symlink {
        return Err(SysError::new(format!("open({path:?}, O_PATH|O_NOFOLLOW)"), libc::ELOOP));
    }
    Ok(fd)
}

/// Makes the directory `name` in `dir` unless it is there, and opens it as `O_PATH`; never through a symlink.
///
/// # Errors
/// ENOTDIR when the name is taken by something else, ELOOP or ENOTDIR when by a symlink.
pub fn mkdir_at(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(dir, name, Mode::from_bits_truncate(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e).named(|| format!("mkdirat({name:?}, {mode:#o})")),
    }
    openat(dir, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)
}

/// openat(2) of one trusted or `O_NOFOLLOW` name; `O_CLOEXEC` always.
pub fn openat(dir: BorrowedFd<'_>, name: impl AsRef<OsStr>, flags: OFlags) -> Result<OwnedFd> {
    let name = name.as_ref();
    retry(|| rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty()))
        .named(|| format!("openat({name:?}, {})", flag_names(flags)))
}

/// Opens a path of the host that the caller trusts; `O_CLOEXEC` always.
pub fn open(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    retry(|| rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()))
        .named(|| format!("open({path:?}, {})", flag_names(flags)))
}

/// Open flags as open(2) spells them.
fn flag_names(flags: OFlags) -> String {
    let names: Vec<String> = flags.iter_names().map(|(name, _)| format!("O_{name}")).collect();
    if names.is_empty() { "O_RDONLY".into() } else { names.join("|") }
}

/// Opens a directory of the host as `O_PATH`.
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::PATH | OFlags::DIRECTORY)
}

/// fstat(2).
pub fn fstat(fd: impl AsFd) -> Result<Stat> {
    rustix::fs::fstat(&fd).named(|| format!("fstat({})", fd.as_fd().as_raw_fd()))
}

/// Whether the fd is a directory.
pub fn is_dir(fd: impl AsFd) -> Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

/// Whether the mount an fd lies on, or its file system, is read-only, as in statvfs(3).
pub fn is_read_only(fd: impl AsFd) -> Result<bool> {
    let s = rustix::fs::fstatvfs(&fd).named(|| format!("fstatvfs({})", fd.as_fd().as_raw_fd()))?;
    Ok(s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Whether the effective user may write to a file, or make entries in a directory: faccessat(2) with AT_EACCESS.
pub fn is_writable(path: &Path) -> bool {
    let (access, flags) = (rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::EACCESS);
    rustix::fs::accessat(rustix::fs::CWD, path, access, flags).is_ok()
}

/// The magic number of the file system an fd lies on, as in statfs(2).
pub fn fs_magic(fd: impl AsFd) -> Result<u64> {
    let s = rustix::fs::fstatfs(&fd).named(|| format!("fstatfs({})", fd.as_fd().as_raw_fd()))?;
    Ok(s.f_type as u64)
}

/// The `/proc/self/fd/N` name of an fd, for the few calls that take no fd. Only for calls made in the host's mount
/// namespace or before pivot_root, where `/proc` is the host's.
pub fn proc_fd(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Makes a device, fifo or socket node in `dir`; `rdev` as from [`rustix::fs::makedev`].
pub fn mknodat(dir: BorrowedFd<'_>, name: &OsStr, kind: FileType, mode: u32, rdev: u64) -> Result<()> {
    rustix::fs::mknodat(dir, name, kind, Mode::from_bits_truncate(mode), rdev)
        .named(|| format!("mknodat({name:?}, {kind:?}, {mode:#o}, {rdev:#x})"))
}

/// symlinkat(2).
pub fn symlinkat(target: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    rustix::fs::symlinkat(target, dir, name).named(|| format!("symlinkat({target:?}, {name:?})"))
}

/// The target of a symlink held by `O_PATH|O_NOFOLLOW`.
pub fn readlinkat(dir: BorrowedFd<'_>, name: &OsStr) -> Result<PathBuf> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new()).named(|| format!("readlinkat({name:?})"))?;
    Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
}

/// What a symlink that an fd holds (`O_PATH`) says; `None` when it is none. readlinkat(2) with an empty path
pub fn link_text(fd: impl AsFd) -> Result<Option<PathBuf>> {
    match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
        FileType::Symlink => readlinkat(fd.as_fd(), OsStr::new("")).map(Some),
        _ => Ok(None),
    }
}

/// The names in a directory opened for reading.
pub fn list(dir: impl AsFd) -> Result<Vec<OsString>> {
    let entries = rustix::fs::Dir::read_from(&dir).named(|| "getdents64".into())?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.named(|| "getdents64".into())?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Copies a regular file between directories, with mode and owner; `st` is what the source was found to be.
///
/// # Errors
/// ELOOP when the name was swapped for a symlink meanwhile, EEXIST when it is taken in `to`.
pub fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr, st: &Stat) -> Result<()> {
    // O_NONBLOCK: should it have become a fifo, this must not wait for a writer.
    let source = openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target =
        rustix::fs::openat(to, name, flags, Mode::empty()).named(|| format!("openat({name:?}, O_CREAT|O_EXCL)"))?;
    rustix::fs::fchown(&target, Some(rustix::fs::Uid::from_raw(st.st_uid)), Some(rustix::fs::Gid::from_raw(st.st_gid)))
        .named(|| format!("fchown({name:?})"))?;
    rustix::fs::fchmod(&target, Mode::from_bits_truncate(st.st_mode & 0o7777)).named(|| format!("fchmod({name:?})"))?;
    let mut buf = vec![0u8; 64 * 1024];
    loop {
        let n = retry(|| rustix::io::read(&source, &mut buf)).named(|| format!("read({name:?})"))?;
        if n == 0 {
            return Ok(());
        }
        write_once(&target, &buf[..n])?;
    }
}

/// lchown(2) by directory and name: the owner of a symlink itself.
pub fn chown_link(dir: BorrowedFd<'_>, name: &OsStr, uid: u32, gid: u32) -> Result<()> {
    let (u, g) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(dir, name, Some(u), Some(g), AtFlags::SYMLINK_NOFOLLOW)
        .named(|| format!("fchownat({name:?}, {uid}, {gid}, AT_SYMLINK_NOFOLLOW)"))
}

/// Sets an extended attribute of an open file or directory (not of an `O_PATH` fd). fsetxattr(2)
pub fn set_xattr(fd: impl AsFd, name: &str, value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(&fd, name, value, rustix::fs::XattrFlags::empty())
        .named(|| format!("fsetxattr({}, {name:?}, {:?})", fd.as_fd().as_raw_fd(), String::from_utf8_lossy(value)))
}

/// Waits for the exclusive flock(2) of an open directory or file; it ends with the fd.
pub fn lock(fd: impl AsFd) -> Result<()> {
    retry(|| rustix::fs::flock(&fd, rustix::fs::FlockOperation::LockExclusive)).named(|| "flock(LOCK_EX)".into())
}

/// Gives a [`lock`] back.
pub fn unlock(fd: impl AsFd) -> Result<()> {
    retry(|| rustix::fs::flock(&fd, rustix::fs::FlockOperation::Unlock)).named(|| "flock(LOCK_UN)".into())
}

/// unlinkat(2) of a file.
pub fn unlinkat(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).named(|| format!("unlinkat({name:?})"))
}

/// Changes the mode of what an `O_PATH` fd holds (fchmodat2 on Linux 6.6 and later, its `/proc` name before).
pub fn chmod(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    // fchmod(2) does not take O_PATH; the magic link does, and it cannot be raced: it is the fd.
    let bits = Mode::from_bits_truncate(mode);
    match rustix::fs::chmodat(fd, "", bits, AtFlags::EMPTY_PATH) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
            rustix::fs::chmodat(CWD, proc_fd(fd), bits, AtFlags::empty())
        }
        r => r,
    }
    .named(|| format!("fchmodat2({}, {mode:#o})", fd.as_raw_fd()))
}

/// Changes the owner of what an `O_PATH` fd holds.
pub fn chown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    let (u, g) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(fd, "", Some(u), Some(g), AtFlags::EMPTY_PATH)
        .named(|| format!("fchownat({}, {uid}, {gid})", fd.as_raw_fd()))
}

/// fchown(2) of an open file.
pub fn fchown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    let (u, g) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::fchown(fd, Some(u), Some(g)).named(|| format!("fchown({}, {uid}, {gid})", fd.as_raw_fd()))
}

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut f: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match f() {
            Err(rustix::io::Errno::INTR) => {}
            r => return r,
        }
    }
}

/// Writes all of `data` in one write(2), as `/proc` and cgroup files need it.
///
/// # Errors
/// EIO when the kernel took only a part.
pub fn write_once(fd: impl AsFd, data: &[u8]) -> Result<()> {
    let n = retry(|| rustix::io::write(&fd, data)).named(|| format!("write({:?})", String::from_utf8_lossy(data)))?;
    if n != data.len() {
        return Err(SysError::new(format!("write({:?}) = {n}", String::from_utf8_lossy(data)), libc::EIO));
    }
    Ok(())
}

/// Writes file `name` in a directory that the caller trusts, over what is there.
pub fn write_over(dir: BorrowedFd<'_>, name: &str, data: &[u8]) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = retry(|| rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)))
        .named(|| format!("openat({name:?}, O_CREAT|O_TRUNC)"))?;
    let mut rest = data;
    while !rest.is_empty() {
        rest = &rest[write_some(&file, rest)?..];
    }
    Ok(())
}

/// Gives a file in a directory another name, over what has that name. renameat(2)
pub fn rename(dir: BorrowedFd<'_>, from: &str, to: &str) -> Result<()> {
    rustix::fs::renameat(dir, from, dir, to).named(|| format!("renameat({from:?}, {to:?})"))
}

/// One write(2); how much it took.
pub fn write_some(fd: impl AsFd, data: &[u8]) -> Result<usize> {
    retry(|| rustix::io::write(&fd, data)).named(|| "write".into())
}

/// Makes reads and writes of an open file description return at once (EAGAIN) where they would wait. fcntl(2) O_NONBLOCK
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd).named(|| "fcntl(F_GETFL)".into())?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).named(|| "fcntl(F_SETFL, O_NONBLOCK)".into())
}

/// How an fd was opened: `O_RDONLY`, `O_WRONLY` or `O_RDWR`. fcntl(2)
pub fn access_mode(fd: impl AsFd) -> Result<OFlags> {
    let flags = rustix::fs::fcntl_getfl(&fd).named(|| "fcntl(F_GETFL)".into())?;
    Ok(flags & (OFlags::WRONLY | OFlags::RDWR))
}

/// One read(2); 0 at the end of file.
pub fn read_some(fd: impl AsFd, buf: &mut [u8]) -> Result<usize> {
    retry(|| rustix::io::read(&fd, &mut *buf)).named(|| "read".into())
}

/// Reads a file whole, but at most `limit` bytes.
///
/// # Errors
/// EFBIG when there is more than `limit`: a container's file must not fill the runtime's memory.
pub fn read_limited(fd: impl AsFd, limit: usize) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    let mut buf = [0u8; 4096];
    loop {
        let n = retry(|| rustix::io::read(&fd, &mut buf)).named(|| "read".into())?;
        if n == 0 {
            return Ok(data);
        }
        if data.len() + n > limit {
            return Err(SysError::new(format!("read: more than {limit} bytes"), libc::EFBIG));
        }
        data.extend_from_slice(&buf[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn temp(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("rrt-path-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("root")).unwrap();
        dir
    }

    #[test]
    fn an_absolute_symlink_stays_in_the_root() {
        let dir = temp("abs");
        std::os::unix::fs::symlink("/out", dir.join("root/link")).unwrap();
        let root = Root::open(&dir.join("root")).unwrap();
        root.mkdir_all(Path::new("/out"), 0o755).unwrap();
        root.mkdir_all(Path::new("/link/made"), 0o755).unwrap();
        assert!(dir.join("root/out/made").is_dir());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn dotdot_cannot_leave_the_root() {
        let dir = temp("dotdot");
        fs::write(dir.join("secret"), "x").unwrap();
        let root = Root::open(&dir.join("root")).unwrap();
        assert!(root.resolve(Path::new("../secret")).unwrap_err().is(libc::ENOENT));
        root.touch(Path::new("/../../made"), 0o644).unwrap();
        assert!(dir.join("root/made").is_file() && !dir.join("made").exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_dangling_symlink_is_made_inside_the_root() {
        let dir = temp("dangling");
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, dir.join("root").join(name)).unwrap();
        let out = dir.join("outside");
        link(out.to_str().unwrap(), "abs");
        link("../../../up", "rel");
        link("loop", "loop");
        fs::create_dir(dir.join("root/etc")).unwrap();
        link("../run/x/stub", "etc/resolv.conf");
        let root = Root::open(&dir.join("root")).unwrap();
        root.mkdir_all(Path::new("/abs/x"), 0o755).unwrap();
        root.mkdir_all(Path::new("/rel/x"), 0o755).unwrap();
        root.touch(Path::new("/etc/resolv.conf"), 0o644).unwrap();
        assert!(!out.exists() && !dir.join("up").exists());
        let inside = dir.join("root").join(out.strip_prefix("/").unwrap());
        assert!(inside.join("x").is_dir() && dir.join("root/up/x").is_dir() && dir.join("root/run/x/stub").is_file());
        assert!(root.mkdir_all(Path::new("/loop/x"), 0o755).unwrap_err().is(libc::ELOOP));
        assert!(root.touch_nofollow(OsStr::new("abs"), 0o644).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_magic_link_is_refused() {
        let root = Root::open(Path::new("/")).unwrap();
        assert!(root.resolve(Path::new("/proc/self/root")).unwrap_err().is(libc::ELOOP));
    }

    #[test]
    fn on_one_mount_there_is_no_way_out() {
        let dir = temp("mount");
        fs::write(dir.join("root/file"), "x").unwrap();
        fs::write(dir.join("secret"), "x").unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, dir.join("root").join(name)).unwrap();
        link("file", "inside");
        link("../secret", "up");
        link("/etc/passwd", "absolute");
        let root = Root::open(&dir.join("root")).unwrap();
        root.open_on_mount(Path::new("inside"), OFlags::RDONLY).unwrap();
        for way in ["up", "absolute", "../secret"] {
            assert!(root.open_on_mount(Path::new(way), OFlags::RDONLY).unwrap_err().is(libc::EXDEV), "{way}");
        }
        let host = Root::open(Path::new("/")).unwrap();
        assert!(host.open_on_mount(Path::new("proc/version"), OFlags::RDONLY).unwrap_err().is(libc::EXDEV));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn read_limited_refuses_more() {
        let fd = open(Path::new("/dev/zero"), OFlags::RDONLY).unwrap();
        assert!(read_limited(&fd, 10_000).unwrap_err().is(libc::EFBIG));
    }
}
