//! The container's view of its cgroups: a mount of type `cgroup` (or `cgroup2`).
//!
//! On cgroup v2 it is the one hierarchy. On v1 and hybrid it is a tmpfs with a directory for each hierarchy, as tools
//! expect below `/sys/fs/cgroup`. In a cgroup namespace each hierarchy is mounted anew and begins at the container's own
//! cgroup; without one the container's directory is bound, so that it looks the same.
//!
//! A container may have no cgroup of its own (rootless without delegation, `--cgroup-manager=disabled`). Then what begins at its cgroup
//! is the runtime's, with whatever else its user runs: read-only in a cgroup namespace, and without one nothing (CVE-2023-25809).

use super::options::attr;
use super::{MountPlan, apply, mount_point};
use crate::error::{Doing, Result};
use rrt_sys::errno;
use rrt_sys::mount::{self, Propagation, SetAttr};
use rrt_sys::path::{self, Root};
use serde::Serialize;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What there is to mount, from the host's cgroup layout and the container's paths in it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CgroupMounts {
    /// Whether the container has a cgroup namespace of its own.
    pub namespace: bool,
    /// Whose the directories below are.
    pub whose: Whose,
    /// There is no mount namespace, where the host's mounts would be private before they are copied.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub on_host: bool,
    /// cgroup v2 alone: the directory on the host that is to be the container's.
    pub unified: Option<PathBuf>,
    /// The v1 hierarchies.
    pub v1: Vec<V1Mount>,
    /// `linux.mountLabel` as a mount option of the tmpfs that has the v1 hierarchies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Whose the directories are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// The container's.
    #[default]
    Own,
    /// The container's if they are there: rootless, some may not have been made.
    OwnIfMade,
    /// The runtime's: the container has none.
    Runtime,
}

/// One v1 hierarchy.
#[derive(Debug, Clone, Serialize)]
pub struct V1Mount {
    /// Its directory's name, `cpu,cpuacct`.
    pub name: String,
    /// What mount options choose it: `cpu`, `cpuacct`, or `none`, `name=systemd`.
    pub options: Vec<String>,
    /// The container's directory in it, on the host.
    pub directory: PathBuf,
}

/// Mounts the cgroups at the plan's destination.
pub fn apply(root: &Root, plan: &MountPlan, cgroups: &CgroupMounts) -> Result<()> {
    let doing = || format!("{}: mount cgroups on {:?}", plan.property, plan.destination);
    let target = mount_point(root, &plan.destination, true).doing(doing)?;
    apply::check_place(plan, target.as_fd(), None)?;
    match &cgroups.unified {
        Some(directory) => unified(plan, cgroups, directory, target.as_fd()).doing(doing),
        None => v1_tree(plan, cgroups, target.as_fd()).doing(doing),
    }
}

fn unified(plan: &MountPlan, cgroups: &CgroupMounts, directory: &Path, target: BorrowedFd<'_>) -> rrt_sys::Result<()> {
    let attrs = mount::attr_from_bits(plan.options.set);
    let new = match mount::new_fs(OsStr::new("cgroup2"), Some(OsStr::new("cgroup")), &plan.options.data, attrs) {
        // In a user namespace without a cgroup namespace the kernel refuses the whole hierarchy; the container's own part of it is
        // all that it may see anyway.
        Err(e) if e.is(errno::EPERM) || e.is(errno::EBUSY) => cgroups.own(directory)?.map_or_else(nothing, Ok)?,
        new => new?,
    };
    set_attributes(new.as_fd(), plan, cgroups.shows_the_runtimes(directory))?;
    mount::attach(new.as_fd(), target)
}

fn v1_tree(plan: &MountPlan, cgroups: &CgroupMounts, target: BorrowedFd<'_>) -> rrt_sys::Result<()> {
    let attrs = mount::attr_from_bits(plan.options.set & !attr::RDONLY);
    let options: Vec<&str> = ["mode=755"].into_iter().chain(cgroups.label.as_deref()).collect();
    let tmpfs = mount::new_fs(OsStr::new("tmpfs"), Some(OsStr::new("tmpfs")), &options, attrs)?;
    mount::attach(tmpfs.as_fd(), target)?;
    for hierarchy in &cgroups.v1 {
        let name = OsStr::new(&hierarchy.name);
        let place = path::mkdir_at(tmpfs.as_fd(), name, 0o755)?;
        let new = if cgroups.namespace {
            mount::new_fs(OsStr::new("cgroup"), Some(OsStr::new("cgroup")), &hierarchy.options, attrs)?
        } else {
            let Some(own) = cgroups.own(&hierarchy.directory)? else { continue };
            own
        };
        set_attributes(new.as_fd(), plan, cgroups.shows_the_runtimes(&hierarchy.directory))?;
        mount::attach(new.as_fd(), place.as_fd())?;
        // Tools look for /sys/fs/cgroup/cpu where the kernel has cpu and cpuacct in one hierarchy.
        for alias in hierarchy.name.split(',').filter(|a| *a != hierarchy.name) {
            path::symlinkat(Path::new(name), tmpfs.as_fd(), OsStr::new(alias))?;
        }
    }
    // Read-only only now that the directories are made.
    let attr = SetAttr { set: plan.options.set, clear: plan.options.clear, propagation: None };
    mount::set_attr(tmpfs.as_fd(), attr, false)
}

/// The mount's options; `foreign`: it shows the runtime's cgroup, which is nothing for a container to change.
fn set_attributes(new: BorrowedFd<'_>, plan: &MountPlan, foreign: bool) -> rrt_sys::Result<()> {
    apply::set_attributes(new, &plan.options)?;
    match foreign {
        true => mount::set_attr(new, SetAttr { set: attr::RDONLY, ..SetAttr::default() }, false),
        false => Ok(()),
    }
}

impl CgroupMounts {
    /// The container's directory as a detached mount; none if it has none.
    fn own(&self, directory: &Path) -> rrt_sys::Result<Option<OwnedFd>> {
        if self.whose == Whose::Runtime {
            return Ok(None);
        }
        match mount::clone_host_tree(directory, false) {
            Err(e) if e.is(errno::ENOENT) && self.whose == Whose::OwnIfMade => Ok(None),
            Ok(own) if self.on_host => {
                let alone = SetAttr { propagation: Some(Propagation::Private), ..SetAttr::default() };
                mount::set_attr(own.as_fd(), alone, false)?;
                Ok(Some(own))
            }
            own => own.map(Some),
        }
    }

    /// Whether a mount made in the cgroup namespace begins at the runtime's cgroup.
    fn shows_the_runtimes(&self, directory: &Path) -> bool {
        match self.whose {
            _ if !self.namespace => false,
            Whose::Own => false,
            Whose::OwnIfMade => path::open_dir(directory).is_err(),
            Whose::Runtime => true,
        }
    }
}

/// What is shown instead of somebody else's cgroup.
fn nothing() -> rrt_sys::Result<OwnedFd> {
    let options: [&str; 0] = [];
    mount::new_fs(OsStr::new("tmpfs"), Some(OsStr::new("tmpfs")), &options, mount::Attr::MOUNT_ATTR_RDONLY)
}
