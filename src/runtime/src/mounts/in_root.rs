//! Bind mounts whose source lies below the container's own root: what they show depends on the entries of `mounts` before them.

use super::{MountKind, MountPlan, Source, clean};
use crate::error::{Doing, Result, config};
use rrt_sys::mount::{self, Propagation, SetAttr};
use rrt_sys::path::{self, Root};
use rrt_sys::{OFlags, errno};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

impl MountPlan {
    /// Recognises paths that are written as the host's but mean the container: a destination or a source below `root.path`.
    ///
    /// Such a destination is taken from the root, as in runc. Such a source is opened by init when its turn comes, so that it shows
    /// the mounts before it. It is compared as text: a source with `..`, which could lead out again, stays the host's, and so do all
    /// of them when the root is the host's `/`. The ids of an idmapped one the parent translates then (turn `MountIds`), because only he may.
    pub fn place_below(&mut self, root: &Path) {
        let below = |path: &Path| -> Option<PathBuf> {
            let rest = path.strip_prefix(root).ok()?;
            let leaves = rest.components().any(|c| c == Component::ParentDir);
            (!leaves && clean(root) != Path::new("/")).then(|| rest.components().collect())
        };
        if let Some(inside) = below(&self.destination).filter(|p| !p.as_os_str().is_empty()) {
            self.destination = Path::new("/").join(inside);
        }
        if let MountKind::Bind { source, .. } = &self.kind {
            self.in_root = below(source);
        }
    }

    /// What is at `path` below the root now.
    ///
    /// No symlink is followed: it would be the image's. Resolved on the host, as in runc, it could lead to any file there; resolved
    /// in the root it could lead to `/proc`, of which the container would get a second view that nothing masks.
    pub fn find_in_root(&self, root: &Root, path: &Path) -> Result<OwnedFd> {
        let property = format!("{}.source", self.property);
        let plain = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let found = match path::split(path) {
            // Only the last one may be a symlink, which is taken as it is.
            Ok((parent, name)) if self.options.links.of_source() => {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                root.resolve_plain(parent)
                    .and_then(|dir| path::openat(dir.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW))
            }
            _ => root.resolve_plain(plain),
        };
        found.map_err(|e| match e.is(errno::ELOOP) {
            true => {
                config(&property, format!("{path:?} below root.path goes through a symlink; name the place itself"))
            }
            false => self.explain(format!("{property} {path:?} below root.path"), e),
        })
    }

    /// Init: clones it.
    pub(super) fn open_in_root(&self, root: &Root, path: &Path, recursive: bool) -> Result<Source> {
        let doing = || format!("{}.source {path:?} below root.path", self.property);
        let found = self.find_in_root(root, path)?;
        let tree =
            mount::open_tree_clone(found.as_fd(), Path::new(""), recursive).map_err(|e| self.explain(doing(), e))?;
        // As every other source: it sends no mounts to the host, even where an earlier entry is the host's peer.
        let attr = SetAttr { propagation: Some(Propagation::Slave), ..SetAttr::default() };
        mount::set_attr(tree.as_fd(), attr, recursive).doing(doing)?;
        Ok(Source { is_dir: path::is_dir(&tree).doing(doing)?, tree })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::NamespacePlan;

    fn placed(source: &str, destination: &str, root: &str) -> (Option<PathBuf>, PathBuf) {
        let json = serde_json::json!({ "destination": destination, "source": source, "options": ["rbind"] });
        let mount = serde_json::from_value(json).unwrap();
        let mut plan = MountPlan::new(&mount, 0, Path::new("/b"), &NamespacePlan::default()).unwrap();
        plan.place_below(Path::new(root));
        (plan.in_root, plan.destination)
    }

    #[test]
    fn only_what_is_surely_below_the_root_is_taken_from_it() {
        for (source, expected) in [
            ("/b/rootfs/mnt/x", Some("mnt/x")),
            ("rootfs//mnt/./x", Some("mnt/x")),
            ("rootfs", Some("")),
            ("/b/rootfs/../secret", None),
            ("/b/rootfs/a/../../../etc", None),
            ("/b/rootfs2/x", None),
            ("/etc", None),
        ] {
            assert_eq!(placed(source, "/d", "/b/rootfs").0.as_deref(), expected.map(Path::new), "{source}");
        }
        assert_eq!(placed("/var/run/x", "/d/e", "/"), (None, "/d/e".into()));
    }

    #[test]
    fn a_destination_below_the_root_is_inside() {
        assert_eq!(placed("/etc", "/b/rootfs/final", "/b/rootfs").1, Path::new("/final"));
        assert_eq!(placed("/etc", "/b/rootfs/../x", "/b/rootfs").1, Path::new("/b/x"));
        assert_eq!(placed("/etc", "/b/rootfs2", "/b/rootfs").1, Path::new("/b/rootfs2"));
    }
}
