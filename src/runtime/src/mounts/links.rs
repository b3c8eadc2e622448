//! Symlinks at either end of a bind mount: crun's options `copy-symlink`, `src-nofollow` and `dest-nofollow`.
//!
//! Without them both paths are followed to their end, on the host and in the container.

use super::{MountKind, MountPlan, Source, mount_point};
use crate::error::{Doing, Result, config};
use rrt_sys::errno;
use rrt_sys::path::{self, Root};
use serde::Serialize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// One of the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkOption {
    /// `copy-symlink`
    Copy,
    /// `src-nofollow`
    Source,
    /// `dest-nofollow`
    Destination,
}

/// Which of the options a mount has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Links {
    /// `copy-symlink`: a source that is a symlink is made again at the destination; any other source is bound.
    pub copy: bool,
    /// `src-nofollow`: a source that is a symlink is bound itself.
    pub source: bool,
    /// `dest-nofollow`: a destination that is a symlink is covered itself. It has to exist.
    pub destination: bool,
}

impl Links {
    /// Takes one more option.
    pub fn add(&mut self, option: LinkOption) {
        *match option {
            LinkOption::Copy => &mut self.copy,
            LinkOption::Source => &mut self.source,
            LinkOption::Destination => &mut self.destination,
        } = true;
    }

    /// Whether it is among them.
    pub fn has(&self, option: LinkOption) -> bool {
        match option {
            LinkOption::Copy => self.copy,
            LinkOption::Source => self.source,
            LinkOption::Destination => self.destination,
        }
    }

    /// Whether there is none.
    pub fn is_default(&self) -> bool {
        *self == Links::default()
    }

    /// Whether a source that is a symlink is taken as it is.
    pub fn of_source(&self) -> bool {
        self.copy || self.source
    }

    /// Refuses what has no meaning.
    pub(super) fn check(&self, kind: &MountKind, property: &str) -> Result<()> {
        let wrong = |problem: &str| Err(config(format!("{property}.options"), problem));
        match kind {
            _ if self.is_default() => Ok(()),
            MountKind::Bind { .. } if self.copy && (self.source || self.destination) => wrong(
                "copy-symlink makes the symlink again, and with src-nofollow or dest-nofollow it is mounted; remove one",
            ),
            MountKind::Bind { .. } => Ok(()),
            _ => wrong("copy-symlink, src-nofollow and dest-nofollow are for bind mounts only"),
        }
    }
}

impl MountPlan {
    /// Opens the place of a bind mount, which is made when it is missing, but not with `dest-nofollow`.
    pub(super) fn bind_place(&self, root: &Root, directory: bool) -> rrt_sys::Result<OwnedFd> {
        match self.options.links.destination {
            true => root.resolve_link(&self.destination),
            false => mount_point(root, &self.destination, directory),
        }
    }

    /// `copy-symlink`: makes a symlink like the source at the destination; one that is there already may only be the same.
    pub fn copy_link(&self, root: &Root, target: &Path) -> Result<()> {
        let doing = || format!("{}: make a symlink at {:?}", self.property, self.destination);
        let (parent, name) = path::split(&self.destination).doing(doing)?;
        let dir = root.mkdir_all(parent, 0o755).doing(doing)?;
        match path::symlinkat(target, dir.as_fd(), name) {
            Err(e) if e.is(errno::EEXIST) => match path::readlinkat(dir.as_fd(), name) {
                Ok(there) if there == target => Ok(()),
                _ => {
                    let problem = format!("{:?} is there and is not a symlink to {target:?}", self.destination);
                    Err(config(format!("{}.destination", self.property), problem))
                }
            },
            made => made.doing(doing),
        }
    }
}

impl Source {
    /// What the symlink says that is made in place of the mount.
    pub fn link(&self, plan: &MountPlan) -> Result<Option<PathBuf>> {
        if !plan.options.links.copy {
            return Ok(None);
        }
        path::link_text(&self.tree).doing(|| format!("{}.source: read the symlink", plan.property))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::NamespacePlan;

    fn planned(kind: &str, options: &[&str]) -> Result<MountPlan> {
        let json = serde_json::json!({ "destination": "/d", "source": "/s", "type": kind, "options": options });
        MountPlan::new(&serde_json::from_value(json).unwrap(), 1, Path::new("/b"), &NamespacePlan::default())
    }

    #[test]
    fn the_options_are_for_binds_and_exclude_each_other() {
        let plan = planned("bind", &["rbind", "src-nofollow", "dest-nofollow"]).unwrap();
        assert!(plan.options.links.source && plan.options.links.destination && !plan.options.links.copy);
        assert_eq!(plan.options.to_string(), "dest-nofollow,src-nofollow");
        assert!(planned("bind", &["copy-symlink"]).unwrap().options.links.copy);
        for (kind, options, expected) in [
            ("bind", &["copy-symlink", "src-nofollow"], "remove one"),
            ("bind", &["dest-nofollow", "copy-symlink"], "remove one"),
            ("tmpfs", &["dest-nofollow", "ro"], "for bind mounts only"),
        ] {
            let e = planned(kind, options).unwrap_err().to_string();
            assert!(e.starts_with("mounts[1].options: ") && e.contains(expected), "{e}");
        }
    }
}
