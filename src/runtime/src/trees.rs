//! The host's trees that a container is made of, opened as detached mounts before anything is attached.
//!
//! With CAP_SYS_ADMIN the parent opens them, in the host's mount namespace and with the runtime's rights. Without it (rootless) only a
//! process in the container's own user and mount namespace may clone a mount: then init does, before it changes its ids, so that it
//! reaches what the user reaches.

use crate::error::{Doing, Error, Result};
use crate::masked_paths;
use crate::mounts::{self, Source};
use crate::plan::Plan;
use rrt_sys::errno;
use std::os::fd::{AsRawFd, OwnedFd};

/// Detached mounts, each used once.
#[derive(Debug)]
pub struct Trees {
    /// The root file system.
    pub root: OwnedFd,
    /// The sources of bind mounts, in the order of the mounts.
    pub sources: Vec<Option<Source>>,
    /// The host's device nodes, when they have to be bound.
    pub devices: Vec<Source>,
    /// The host's null device, for masks.
    pub null: OwnedFd,
}

impl Trees {
    /// Opens them all.
    pub fn open(plan: &Plan) -> Result<Trees> {
        Ok(Trees {
            root: plan.root.open()?,
            sources: mounts::open_host_sources(&plan.mounts, plan.root.source_propagation())?,
            devices: plan.dev.open_sources()?,
            null: masked_paths::open_null().doing(|| "open the host's null device".into())?,
        })
    }

    /// As the parent: `None` where only init may clone mounts. That is without CAP_SYS_ADMIN, and for root of a user namespace that
    /// the runtime's mount namespace does not belong to (`unshare --user --map-root-user`).
    pub fn open_if_allowed(plan: &Plan) -> Result<Option<Trees>> {
        if plan.unprivileged {
            return Ok(None);
        }
        match Trees::open(plan) {
            Err(Error::System { source, .. }) if plan.in_user_namespace && source.is(errno::EPERM) => Ok(None),
            trees => trees.map(Some),
        }
    }

    /// Init of a new user and mount namespace, while it has the caller's ids: opens the root and the sources again, where it reaches
    /// them. Only here have the flags that the host gave a mount (ro, nosuid, nodev, noexec) become locked: what the parent has opened a
    /// container with CAP_SYS_ADMIN could remount without them. What cannot be opened here, and idmapped mounts, stay the parent's.
    pub fn lock(&mut self, plan: &Plan) {
        if let Ok(root) = plan.root.open() {
            self.root = root;
        }
        for (mount, source) in plan.mounts.iter().zip(&mut self.sources) {
            if mount.idmap.is_none()
                && mount.in_root.is_none()
                && let Ok(locked) = mount.open_source(plan.root.source_propagation())
            {
                *source = locked;
            }
        }
    }

    /// Their fds, which init keeps.
    pub fn fds(&self) -> impl Iterator<Item = i32> {
        let sources = self.sources.iter().flatten().chain(&self.devices).map(|s| s.tree.as_raw_fd());
        [self.root.as_raw_fd(), self.null.as_raw_fd()].into_iter().chain(sources)
    }
}
