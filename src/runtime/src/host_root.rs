//! A container without a mount namespace: it shares the runtime's, so its mounts are mounts of the host.
//!
//! All of them hang below one, a copy of the root file system on top of `root.path`, which is nobody's peer. The state knows it by its
//! ids before it is attached, so `delete` finds it whenever the runtime was killed, and takes it off with all that is on it. No mount of
//! the host is changed. What keeps the container in there is chroot(2), so only one without CAP_SYS_CHROOT is kept in.

use crate::error::{Doing, Error, Result, config};
use crate::namespaces::{NamespacePlan, kind};
use rrt_oci::Linux;
use rrt_sys::mount::{self, Propagation, SetAttr};
use rrt_sys::path;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What is logged of such a container.
pub const WARNING: &str = "linux.namespaces: no mount namespace: the container's mounts are made on the host, below root.path, and a \
                           process with CAP_SYS_CHROOT can leave it";

/// Refuses what needs a mount namespace of the container's own.
pub fn check(linux: &Linux, namespaces: &NamespacePlan) -> Result<()> {
    if namespaces.has(kind::USER) {
        let problem = "a user namespace without a mount namespace may mount nothing; add {\"type\": \"mount\"}";
        return Err(config("linux.namespaces", problem));
    }
    let lists = [("linux.maskedPaths", linux.masked_paths()), ("linux.readonlyPaths", linux.readonly_paths())];
    match lists.iter().find(|(_, list)| list.as_ref().is_some_and(|l| !l.is_empty())) {
        // The first half is what runc says.
        Some((property, _)) => Err(config(
            *property,
            "unable to restrict sys entries without a private MNT namespace; empty the list, or add {\"type\": \"mount\"} to \
             linux.namespaces",
        )),
        None => Ok(()),
    }
}

/// The mount that holds all others of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRoot {
    /// Where it is put, without symlinks.
    #[serde(serialize_with = "crate::state::as_text")]
    place: PathBuf,
    mount: Identity,
}

/// Which mount it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    /// As in mountinfo; another mount may get it later.
    id: u64,
    /// No other mount gets it; 0 before Linux 6.8.
    unique: u64,
    /// The directory that it shows, which tells it from others where ids are not unique.
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(fd: BorrowedFd<'_>) -> rrt_sys::Result<Identity> {
        let (st, (id, unique)) = (path::fstat(fd)?, mount::mount_ids(fd)?);
        Ok(Identity { id, unique, device: st.st_dev, inode: st.st_ino })
    }
}

impl HostRoot {
    /// Of the tree from `RootPlan::open`, before it is attached at `at`.
    ///
    /// # Errors
    /// [`Error::Config`] when it is the host's own root, over which nothing may be mounted.
    pub fn new(tree: BorrowedFd<'_>, at: &Path) -> Result<HostRoot> {
        let doing = || format!("root.path {at:?}: look at its mount");
        let mount = Identity::of(tree).doing(doing)?;
        let host = path::open_dir(Path::new("/")).and_then(|fd| path::fstat(&fd)).doing(doing)?;
        if (mount.device, mount.inode) == (host.st_dev, host.st_ino) {
            let problem = "is the host's /, over which a container without a mount namespace would mount; add {\"type\": \"mount\"} \
                           to linux.namespaces";
            return Err(config("root.path", problem));
        }
        Ok(HostRoot { place: std::fs::canonicalize(at).doing(doing)?, mount })
    }

    /// Where it is now, if it is attached: a directory above it may have been renamed.
    fn find(&self) -> Result<Option<PathBuf>> {
        let table = std::fs::read("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo".into())?;
        Ok(place_of(self.mount.id, &table))
    }

    /// Opens it, for a process that is to enter the container.
    ///
    /// # Errors
    /// [`Error::Status`] when it is gone or covered.
    pub fn open(&self) -> Result<OwnedFd> {
        let found = match self.find()? {
            Some(place) => Some(path::open_dir(&place).doing(|| format!("open the container's root {place:?}"))?),
            None => None,
        };
        let is_it = |fd: &OwnedFd| Identity::of(fd.as_fd()).is_ok_and(|mount| mount == self.mount);
        found.filter(is_it).ok_or_else(|| {
            Error::Status("the container's root is not mounted any more, or something is mounted over it".into())
        })
    }

    /// Enters it: root and working directory.
    pub fn enter(root: BorrowedFd<'_>) -> Result<()> {
        let doing = || "enter the container's root".to_string();
        mount::fchdir(root).doing(doing)?;
        mount::chroot_here().doing(doing)
    }

    /// Takes it off, with everything that is mounted in it and over it. It is no error if it is not there.
    pub fn unmount(&self) -> Result<()> {
        /// More than anybody piles up on one directory.
        const MOST: usize = 100;
        for _ in 0..MOST {
            let Some(place) = self.find()? else { return Ok(()) };
            let doing = || format!("unmount the container's root {place:?}");
            let top = path::open_dir(&place).doing(doing)?;
            let mount = Identity::of(top.as_fd()).doing(doing)?;
            // Either it is ours, or it covers ours, on which it was mounted. A mount that only has our number is somebody else's.
            if mount != self.mount && (mount.id == self.mount.id || place != self.place) {
                return Ok(());
            }
            // What the container has mounted there may be a peer of the host's: that must not go as well.
            let alone = SetAttr { propagation: Some(Propagation::Private), ..SetAttr::default() };
            mount::set_attr(top.as_fd(), alone, true).doing(doing)?;
            mount::detach(&path::proc_fd(&top)).doing(doing)?;
        }
        Err(Error::Status(format!("{:?} is mounted over again and again", self.place)))
    }
}

/// The mount point of a mount, from the text of a mountinfo.
fn place_of(id: u64, table: &[u8]) -> Option<PathBuf> {
    table.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.split(|b| *b == b' ');
        let number = std::str::from_utf8(fields.next()?).ok()?;
        (number.parse() == Ok(id)).then(|| fields.nth(3).map(mount::unescape))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(linux: &str) -> Result<()> {
        let linux = serde_json::from_str(linux).unwrap();
        check(&linux, &NamespacePlan::new(&linux).unwrap())
    }

    #[test]
    fn what_needs_a_mount_namespace_is_named() {
        assert!(checked(r#"{"namespaces":[{"type":"pid"}],"maskedPaths":[]}"#).is_ok());
        for (json, expected) in [
            (
                r#"{"maskedPaths":["/proc/kcore"]}"#,
                "linux.maskedPaths: unable to restrict sys entries without a private MNT",
            ),
            (r#"{"readonlyPaths":["/proc/sys"]}"#, "linux.readonlyPaths: unable to restrict"),
            (r#"{"namespaces":[{"type":"user","path":"/u"}]}"#, "linux.namespaces: a user namespace without"),
        ] {
            let e = checked(json).unwrap_err().to_string();
            assert!(e.contains(expected), "{json}: {e}");
        }
    }

    #[test]
    fn a_mount_is_found_by_its_number() {
        let table = b"21 1 0:5 / / rw - ext4 /dev/vda rw\n221 21 0:5 /b /run/a\\040b/rootfs rw - ext4 /dev/vda rw\n";
        assert_eq!(place_of(221, table), Some("/run/a b/rootfs".into()));
        assert_eq!(place_of(2, table), None);
    }
}
