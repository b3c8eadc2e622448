//! A cgroup directory held by fd, and the few calls made on it. The only place of this crate that calls the kernel's
//! file system interface.

use rrt_sys::path::openat;
use rrt_sys::{OFlags, SysError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Dir as ReadDir, FileType, Gid, Mode, SeekFrom, Uid};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// No cgroup file is longer than this but `cgroup.procs` of a crowd (7 bytes a pid: 600,000 of them).
const FILE_LIMIT: usize = 4 << 20;

/// An open cgroup directory. Files in it are reached from its fd, so a path is walked once.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    pub(crate) fn open(path: &Path) -> rrt_sys::Result<Dir> {
        let fd = rrt_sys::path::open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Dir { fd, path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(crate) fn open_file(&self, name: &str, flags: OFlags) -> rrt_sys::Result<OwnedFd> {
        openat(self.fd.as_fd(), name, flags).map_err(|e| self.at(e, &format!("open({:?})", self.path.join(name))))
    }

    /// Writes `value` in one write(2), as all cgroup files want it.
    pub(crate) fn write(&self, name: &str, value: &str) -> rrt_sys::Result<()> {
        self.write_all(name, [value])
    }

    /// Writes each value with its own write(2) into one opening of the file.
    pub(crate) fn write_all<'a>(&self, name: &str, values: impl IntoIterator<Item = &'a str>) -> rrt_sys::Result<()> {
        let file = self.open_file(name, OFlags::WRONLY)?;
        for value in values {
            rrt_sys::path::write_once(&file, value.as_bytes())
                .map_err(|e| self.at(e, &format!("write {value:?} to {:?}", self.path.join(name))))?;
        }
        Ok(())
    }

    /// Reads a file whole.
    pub(crate) fn read(&self, name: &str) -> rrt_sys::Result<String> {
        let file = self.open_file(name, OFlags::RDONLY)?;
        self.read_fd(&file, name)
    }

    /// Reads an open file of this directory from where it stands.
    pub(crate) fn read_fd(&self, file: &OwnedFd, name: &str) -> rrt_sys::Result<String> {
        let data = rrt_sys::path::read_limited(file, FILE_LIMIT)
            .map_err(|e| self.at(e, &format!("read({:?})", self.path.join(name))))?;
        String::from_utf8(data).map_err(|_| SysError::new(format!("read({:?})", self.path.join(name)), libc::EILSEQ))
    }

    /// Reads an open file of this directory again from its beginning.
    pub(crate) fn reread(&self, file: &OwnedFd, name: &str) -> rrt_sys::Result<String> {
        rustix::fs::seek(file, SeekFrom::Start(0))
            .map_err(|e| SysError::new(format!("lseek({:?})", self.path.join(name)), e.raw_os_error()))?;
        self.read_fd(file, name)
    }

    /// As [`Dir::read`], with `None` for a file that this kernel or this cgroup does not have.
    pub(crate) fn read_if_there(&self, name: &str) -> rrt_sys::Result<Option<String>> {
        match self.read(name) {
            Ok(text) => Ok(Some(text)),
            // ENODEV: the directory was removed while open.
            Err(e) if e.is(libc::ENOENT) || e.is(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens a sub-directory by name.
    pub(crate) fn child(&self, name: &OsStr) -> rrt_sys::Result<Dir> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = openat(self.fd.as_fd(), name, flags).map_err(|e| self.at(e, &format!("open({path:?})")))?;
        Ok(Dir { fd, path })
    }

    /// The names of the sub-directories.
    pub(crate) fn children(&self) -> rrt_sys::Result<Vec<OsString>> {
        let call = || format!("getdents64({:?})", self.path);
        // A directory's link count is two and one for each sub-directory: the common cgroup without any needs no
        // listing of its forty files. (File systems that do not count say 1, and are listed.)
        if rrt_sys::path::fstat(&self.fd)?.st_nlink == 2 {
            return Ok(Vec::new());
        }
        let entries = ReadDir::read_from(&self.fd).map_err(|e| SysError::new(call(), e.raw_os_error()))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| SysError::new(call(), e.raw_os_error()))?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        Ok(names)
    }

    /// Changes the owner of a file in it, or of itself (`None`); the group stays.
    pub(crate) fn chown(&self, name: Option<&str>, uid: u32) -> rrt_sys::Result<()> {
        let flags = if name.is_some() { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::EMPTY_PATH };
        let name = name.unwrap_or("");
        rustix::fs::chownat(&self.fd, name, Some(Uid::from_raw(uid)), None::<Gid>, flags)
            .map_err(|e| SysError::new(format!("fchownat({:?}, {uid})", self.path.join(name)), e.raw_os_error()))
    }

    /// The same error with the whole path in the call's text.
    fn at(&self, error: SysError, call: &str) -> SysError {
        SysError::new(call, error.errno())
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// mkdir(2), 0755: whether the directory is new.
pub(crate) fn mkdir(path: &Path) -> rrt_sys::Result<bool> {
    match rustix::fs::mkdirat(CWD, path, Mode::from_bits_truncate(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(SysError::new(format!("mkdir({path:?})"), e.raw_os_error())),
    }
}

/// rmdir(2); a directory that is gone is fine.
pub(crate) fn rmdir(path: &Path) -> rrt_sys::Result<()> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(SysError::new(format!("rmdir({path:?})"), e.raw_os_error())),
    }
}

/// The magic number of the file system at `path`, `None` when there is nothing.
pub(crate) fn fs_magic(path: &Path) -> Option<u64> {
    rustix::fs::statfs(path).ok().map(|s| s.f_type as u64)
}

/// A moment to wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    end: Instant,
    /// The whole wait, for messages.
    pub(crate) length: Duration,
}

impl Deadline {
    pub(crate) fn after(length: Duration) -> Deadline {
        Deadline { end: Instant::now() + length, length }
    }

    fn left(self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    pub(crate) fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// Waits for a change of a kernfs file that was read before (`POLLPRI`), or until the deadline.
    pub(crate) fn wait_changed(self, file: &OwnedFd) -> rrt_sys::Result<()> {
        wait(&mut [PollFd::new(file, PollFlags::PRI)], self.left())
    }

    /// Gives others time where the kernel has no event to wait for: at most `pause`, never past the deadline.
    pub(crate) fn pause(self, pause: Duration) -> rrt_sys::Result<()> {
        wait(&mut [], pause.min(self.left()))
    }
}

fn wait(fds: &mut [PollFd<'_>], timeout: Duration) -> rrt_sys::Result<()> {
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match poll(fds, Some(&timeout)) {
        // An interrupted wait is a short one: the caller looks again.
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(SysError::new("poll", e.raw_os_error())),
    }
}
