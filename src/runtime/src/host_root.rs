//! A container without a mount namespace: it shares the runtime's, so its mounts are mounts of the host.
//!
//! All of them hang below one, a copy of the root file system on top of `root.path`, which is nobody's peer. The state knows it by its
//! ids before it is attached, so `delete` finds it whenever the runtime was killed, and takes it off with all that is on it. No mount of
//! the host is changed. What keeps the container in there is chroot(2), so only one without CAP_SYS_CHROOT is kept in.

use crate::error::{Doing, Error, Result, config};
use crate::log;
use crate::namespaces::{NamespacePlan, kind};
use crate::state::{State, StateDir};
use rrt_oci::Linux;
use rrt_sys::mount::{self, Propagation, SetAttr};
use rrt_sys::path::{self, Root};
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
        Ok(place_of(self.mount.id, &mountinfo()?))
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
    ///
    /// Who may rename a directory above it could lead us to another mount of the host's between two steps, so no symlink is followed, and
    /// what is taken off is ours by its identity, or was mounted on ours by what mountinfo says of it.
    pub fn unmount(&self) -> Result<()> {
        /// More than anybody piles up on one directory.
        const MOST: usize = 100;
        for _ in 0..MOST {
            let table = mountinfo()?;
            let Some(place) = place_of(self.mount.id, &table) else { return Ok(()) };
            let doing = || {
                format!(
                    "unmount the container's root {place:?} (if something is mounted on a directory above it, unmount that first)"
                )
            };
            let below = place.strip_prefix("/").unwrap_or(&place);
            let top = Root::open(Path::new("/")).and_then(|root| root.resolve_plain(below)).doing(doing)?;
            let mount = Identity::of(top.as_fd()).doing(doing)?;
            if mount != self.mount {
                // A mount that only has our number is somebody else's.
                if mount.id == self.mount.id {
                    return Ok(());
                }
                if place != self.place || !is_on(mount.id, self.mount.id, &table) {
                    log::warn(format!(
                        "the container's root stays mounted on {place:?}: what is there now is not the container's"
                    ));
                    return Ok(());
                }
            }
            // What the container has mounted there may be a peer of the host's: that must not go as well.
            let alone = SetAttr { propagation: Some(Propagation::Private), ..SetAttr::default() };
            mount::set_attr(top.as_fd(), alone, true).doing(doing)?;
            mount::detach(&path::proc_fd(&top)).doing(doing)?;
        }
        Err(Error::Status(format!("{:?} is mounted over again and again", self.place)))
    }

    /// Refuses a second container at the same place: each would be the other's to take off.
    ///
    /// # Errors
    /// [`Error::Config`] with the other's name.
    pub fn require_alone(&self, states: &Path) -> Result<()> {
        let entries = std::fs::read_dir(states).doing(|| format!("read {states:?}"))?;
        for id in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let state = StateDir::open_unlocked(states, &id).and_then(|dir| dir.read());
            let Ok(Some(State { host_root: Some(other), .. })) = state else { continue };
            if other.place == self.place && place_of(other.mount.id, &mountinfo()?).is_some() {
                let problem = format!(
                    "container {id:?} has its mounts there, and neither has a mount namespace; delete that one, or add {{\"type\": \
                     \"mount\"}} to linux.namespaces"
                );
                return Err(config("root.path", problem));
            }
        }
        Ok(())
    }
}

fn mountinfo() -> Result<Vec<u8>> {
    std::fs::read("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo".into())
}

/// The number, the parent's number and the mount point of each mount, from the text of a mountinfo. proc_pid_mountinfo(5)
fn mounts(table: &[u8]) -> impl Iterator<Item = (u64, u64, &[u8])> {
    table.split(|b| *b == b'\n').filter_map(|line| {
        let mut fields = line.split(|b| *b == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        Some((id, parent, fields.nth(2)?))
    })
}

/// Whether a mount is on another, or on one that is.
fn is_on(mount: u64, other: u64, table: &[u8]) -> bool {
    let parent = |id: &u64| mounts(table).find(|(m, ..)| m == id).map(|(_, parent, _)| parent).filter(|p| p != id);
    // A chain is no longer than the table.
    std::iter::successors(Some(mount), parent).take(mounts(table).count()).any(|id| id == other)
}

/// The mount point of a mount.
fn place_of(id: u64, table: &[u8]) -> Option<PathBuf> {
    mounts(table).find(|(m, ..)| *m == id).map(|(.., place)| mount::unescape(place))
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

    #[test]
    fn a_mount_is_on_those_below_it() {
        let table = b"21 1 0:5 / / rw\n30 21 0:6 / /a rw\n31 30 0:7 / /a rw\n32 31 0:8 / /a rw\n40 21 0:9 / /b rw\n1 1 0:1 / / rw\n";
        assert!(is_on(32, 30, table) && is_on(31, 30, table) && is_on(32, 21, table));
        assert!(!is_on(40, 30, table) && !is_on(30, 31, table) && !is_on(99, 30, table));
    }
}
