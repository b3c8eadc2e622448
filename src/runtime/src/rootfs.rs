//! The root file system: brought into the child's mount namespace, made its root, made read-only.

use crate::error::{Doing, Error, Result, config};
use rrt_sys::mount::{self, Propagation, SetAttr};
use rrt_sys::path::{self, Root};
use serde::Serialize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The root of a container.
#[derive(Debug, Clone, Serialize)]
pub struct RootPlan {
    /// Its directory on the host, absolute.
    pub path: PathBuf,
    /// `root.readonly`
    pub readonly: bool,
    /// `linux.rootfsPropagation`, what `/` gets at the end; absent: slave, as it was made.
    #[serde(serialize_with = "propagation_text")]
    pub propagation: Option<(Propagation, bool)>,
    /// How it becomes `/`.
    pub entry: Entry,
}

/// How the root file system becomes `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// pivot_root(2): nothing of the host's file system stays in the namespace.
    PivotRoot,
    /// `--no-pivot`: moved onto `/`, for a root on an initramfs, where pivot_root does not work.
    Move,
    /// Without a mount namespace: chroot(2), for every other way would change the host's `/`. See [`crate::host_root`].
    Chroot,
}

fn propagation_text<S: serde::Serializer>(
    p: &Option<(Propagation, bool)>,
    s: S,
) -> std::result::Result<S::Ok, S::Error> {
    p.map(propagation_name).serialize(s)
}

/// As mount(8) has it, `rslave`.
fn propagation_name((propagation, recursive): (Propagation, bool)) -> String {
    format!("{}{propagation:?}", if recursive { "r" } else { "" }).to_lowercase()
}

impl std::fmt::Display for RootPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.entry {
            Entry::PivotRoot => "pivot_root, then detach the old root",
            Entry::Move => "chroot into the root moved onto /",
            Entry::Chroot => "chroot into the root, which the host sees",
        })?;
        match self.propagation {
            Some(p) => write!(f, ", then make / {}", propagation_name(p)),
            None => Ok(()),
        }
    }
}

impl RootPlan {
    /// Plans `root` and `linux.rootfsPropagation`.
    pub fn new(
        root: Option<&rrt_oci::Root>,
        propagation: Option<&str>,
        bundle: &Path,
        entry: Entry,
    ) -> Result<RootPlan> {
        let root = root.filter(|r| !r.path().as_os_str().is_empty());
        let root = root.ok_or_else(|| config("root.path", "missing; name the root file system's directory"))?;
        let propagation = match propagation.unwrap_or_default() {
            "" => None,
            name => Some(parse_propagation(name).ok_or_else(|| {
                let known = "shared, slave, private or unbindable, with or without a leading \"r\"";
                config("linux.rootfsPropagation", format!("{name:?} is not one of {known}"))
            })?),
        };
        Ok(RootPlan { path: bundle.join(root.path()), readonly: root.readonly().unwrap_or(false), propagation, entry })
    }

    /// What the sources of bind mounts share with the host while they are attached: what `/` shares.
    pub fn source_propagation(&self) -> (Propagation, bool) {
        self.propagation.unwrap_or((Propagation::Slave, true))
    }

    /// Opens the directory as a detached tree that gets the host's mount events but sends none.
    pub fn open(&self) -> Result<OwnedFd> {
        let doing = || format!("root.path {:?}", self.path);
        let dir = path::open_dir(&self.path).doing(doing)?;
        let tree = mount::open_tree_clone(dir.as_fd(), Path::new(""), true).doing(doing)?;
        // A root that is the host's peer would show every mount of the container on the host. So it only listens, or not even
        // that; what config.json wants beyond it is added after pivot_root.
        let now = match self.propagation {
            // What the host mounts below `root.path` comes after it, not to it.
            _ if self.entry == Entry::Chroot => Propagation::Private,
            Some((Propagation::Private | Propagation::Unbindable, _)) => Propagation::Private,
            _ => Propagation::Slave,
        };
        mount::set_attr(tree.as_fd(), SetAttr { propagation: Some(now), ..SetAttr::default() }, true).doing(doing)?;
        Ok(tree)
    }

    /// Child: opens where the tree will hang, in its own mount namespace. It does not matter where, only that it hangs somewhere:
    /// the tree's fd is used from there on, not the path.
    pub fn open_place(&self) -> Result<OwnedFd> {
        let place = match self.entry {
            Entry::PivotRoot | Entry::Chroot => &*self.path,
            Entry::Move => Path::new("/"),
        };
        path::open_dir(place).doing(|| format!("open {place:?} to attach the root file system there"))
    }

    /// Child: attaches the tree to its place, so that it is a mount that pivot_root accepts.
    pub fn attach(&self, tree: OwnedFd, place: OwnedFd) -> Result<Root> {
        let doing = || format!("attach the root file system at {:?}", self.path);
        if self.entry == Entry::Chroot {
            // Below a shared mount it has become shared, and what is mounted in it would be in every other namespace, to stay there.
            mount::attach(tree.as_fd(), place.as_fd()).doing(doing)?;
            let alone = SetAttr { propagation: Some(Propagation::Private), ..SetAttr::default() };
            mount::set_attr(tree.as_fd(), alone, true).doing(doing)?;
            return Ok(Root::from_fd(tree));
        }
        // What is mounted in this namespace from now on must not appear on the host.
        mount::set_propagation(Path::new("/"), Propagation::Private, true).doing(doing)?;
        mount::attach(tree.as_fd(), place.as_fd()).doing(doing)?;
        Ok(Root::from_fd(tree))
    }

    /// Child: makes it `/`.
    pub fn enter(&self, root: &Root) -> Result<()> {
        let doing = || "make the root file system the container's /".to_string();
        if self.entry == Entry::Move {
            hide_host_procfs().doing(doing)?;
        }
        mount::fchdir(root.as_dir()).doing(doing)?;
        match self.entry {
            Entry::PivotRoot => mount::pivot_root_here().doing(doing)?,
            Entry::Move | Entry::Chroot => {
                mount::chroot_here().doing(doing)?;
                rrt_sys::process::chdir(Path::new("/")).doing(doing)?;
            }
        }
        match self.propagation {
            Some((p, recursive)) => {
                mount::set_propagation(Path::new("/"), p, recursive).doing(|| "linux.rootfsPropagation".into())
            }
            None => Ok(()),
        }
    }

    /// Child, last of all mounts: `root.readonly`.
    pub fn finish(&self, root: &Root) -> Result<()> {
        if !self.readonly {
            return Ok(());
        }
        let attr = SetAttr { set: mount::Attr::MOUNT_ATTR_RDONLY.bits().into(), ..SetAttr::default() };
        mount::set_attr(root.as_dir(), attr, false).doing(|| "root.readonly".into())
    }
}

/// With `--no-pivot` the host's mounts stay below the new root. Its procfs and sysfs are detached, so that the kernel, which
/// lets a user namespace mount a procfs only where one is fully visible, does not take the host's for the container's.
fn hide_host_procfs() -> rrt_sys::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let hidden = |line: &&str| matches!(line.split(' ').nth(2), Some("proc" | "sysfs"));
    let places: Vec<&str> = mounts.lines().filter(hidden).filter_map(|l| l.split(' ').nth(1)).collect();
    for place in places.into_iter().rev() {
        match mount::detach(Path::new(place)) {
            // Covered by the new root already, or below one that is gone.
            Err(e) if e.is(rrt_sys::errno::EINVAL) || e.is(rrt_sys::errno::ENOENT) => {}
            done => done?,
        }
    }
    Ok(())
}

fn parse_propagation(name: &str) -> Option<(Propagation, bool)> {
    let (kind, recursive) = match name.strip_prefix('r') {
        Some(kind) => (kind, true),
        None => (name, false),
    };
    let propagation = match kind {
        "shared" => Propagation::Shared,
        "slave" => Propagation::Slave,
        "private" => Propagation::Private,
        "unbindable" => Propagation::Unbindable,
        _ => return None,
    };
    Some((propagation, recursive))
}

/// Makes the working directory when it is missing, as runc does, below the root and by fd.
pub fn make_cwd(root: &Root, cwd: &Path) -> Result<()> {
    if cwd == Path::new("/") {
        return Ok(());
    }
    root.mkdir_all(&crate::mounts::clean(cwd), 0o755)
        .map(drop)
        .map_err(|source| Error::System { doing: format!("process.cwd: make {cwd:?}"), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_is_parsed_with_its_recursion() {
        assert_eq!(parse_propagation("rslave"), Some((Propagation::Slave, true)));
        assert_eq!(parse_propagation("shared"), Some((Propagation::Shared, false)));
        assert_eq!(parse_propagation("rshard"), None);
    }
}
