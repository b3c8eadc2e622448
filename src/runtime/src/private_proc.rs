//! A procfs that only the runtime has: what is written through it goes to the kernel, whatever a container has mounted over its
//! `/proc` or linked there (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).

use crate::error::{Doing, Error, Result};
use rrt_sys::path::{self, Root};
use rrt_sys::{OFlags, SysError, errno, mount};
use std::os::fd::OwnedFd;
use std::path::Path;

/// `PROC_SUPER_MAGIC`
const PROC_MAGIC: u64 = 0x9fa0;
/// The inode number of a procfs' root directory, the same in each (`PROC_ROOT_INO`).
const PROC_ROOT_INODE: u64 = 1;

/// A new procfs of the current pid namespace, detached, with everything in it: for sysctls.
pub fn whole() -> Result<Root> {
    let none: [&str; 0] = [];
    mounted(&none).doing(|| "open a private procfs for linux.sysctl".into())
}

/// A procfs with the processes' directories at least: for the calling thread's own attributes.
///
/// A new one with nothing else in it (`subset=pid`, Linux 5.8), so that a process which got hold of it would have nothing of the
/// machine's. The kernel allows none to a user namespace whose `/proc` is partly covered, and none of a pid namespace that
/// belongs to another user namespace. Then it is the `/proc` that is there: proven to be the root of a procfs, and used with
/// [`Root::open_on_mount`], to which what covers a part of it is an error, not a way.
pub fn processes() -> Result<Root> {
    match mounted(&["subset=pid"]) {
        Err(e) if e.is(errno::EPERM) => there(Path::new("/proc")),
        new => new.doing(|| "open a private procfs".into()),
    }
}

fn mounted(options: &[&str]) -> rrt_sys::Result<Root> {
    let attrs = mount::Attr::MOUNT_ATTR_NOSUID | mount::Attr::MOUNT_ATTR_NODEV | mount::Attr::MOUNT_ATTR_NOEXEC;
    mount::new_fs("proc".as_ref(), None, options, attrs).map(Root::from_fd)
}

/// Opens `path` if a procfs is mounted right there.
fn there(path: &Path) -> Result<Root> {
    let dir =
        path::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW).doing(|| format!("open {path:?}"))?;
    let genuine = is_procfs(&dir).doing(|| format!("look at {path:?}"))?
        && path::fstat(&dir).is_ok_and(|st| st.st_ino == PROC_ROOT_INODE);
    match genuine {
        true => Ok(Root::from_fd(dir)),
        false => Err(Error::Init(format!("{path:?} is not a procfs; nothing is written to it"))),
    }
}

/// Opens a file of a procfs, on that very mount, and checks that it is the kernel's.
pub fn open(proc: &Root, file: &Path, flags: OFlags) -> rrt_sys::Result<OwnedFd> {
    let fd = proc.open_on_mount(file, flags)?;
    match is_procfs(&fd)? {
        true => Ok(fd),
        false => Err(SysError::new(format!("open({file:?}): not on a procfs"), errno::EINVAL)),
    }
}

fn is_procfs(fd: &OwnedFd) -> rrt_sys::Result<bool> {
    path::fs_magic(fd).map(|magic| magic == PROC_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_root_of_a_procfs_is_taken() {
        there(Path::new("/proc")).unwrap();
        for fake in ["/proc/self", "/proc/1", "/sys", "/tmp"] {
            assert!(there(Path::new(fake)).is_err(), "{fake}");
        }
        let dir = std::env::temp_dir().join(format!("rrt-fake-proc-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("thread-self/attr")).unwrap();
        std::fs::write(dir.join("thread-self/attr/exec"), "").unwrap();
        std::os::unix::fs::symlink("/proc", dir.join("link")).unwrap();
        assert!(there(&dir).is_err());
        assert!(there(&dir.join("link")).is_err(), "a link to the real one is none");
        // Were it taken all the same, its file would not be.
        let fake = Root::open(&dir).unwrap();
        assert!(open(&fake, Path::new("thread-self/attr/exec"), OFlags::WRONLY).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_part_that_is_another_mount_is_no_part() {
        let host = Root::open(Path::new("/")).unwrap();
        assert!(open(&host, Path::new("proc/version"), OFlags::RDONLY).unwrap_err().is(18), "EXDEV");
        let proc = there(Path::new("/proc")).unwrap();
        open(&proc, Path::new("thread-self/attr/current"), OFlags::RDONLY).unwrap();
        assert!(open(&proc, Path::new("self/root/etc/passwd"), OFlags::RDONLY).unwrap_err().is(errno::ELOOP));
    }
}
