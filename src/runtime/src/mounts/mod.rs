//! `mounts` of config.json: what each entry becomes.
//!
//! The plan is here and pure. A bind mount's source is opened by the parent as a detached tree ([`open_sources`]); the rest is done
//! by the child in [`apply`], because proc, sysfs, mqueue, devpts, tmpfs and cgroup mounts belong to the namespaces of
//! the process that makes them.

pub mod apply;
pub mod cgroup;
pub mod idmap;
mod in_root;
pub mod links;
pub mod options;
pub mod running;
mod user_namespace;

use crate::error::{Error, Result, config};
use crate::namespaces::NamespacePlan;
use idmap::IdmapPlan;
use options::MountOptions;
use rrt_oci::Mount;
use rrt_sys::mount::Propagation;
use rrt_sys::path::Root;
use serde::Serialize;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// One mount, in the order of config.json.
#[derive(Debug, Clone, Serialize)]
pub struct MountPlan {
    /// `mounts[3]`, for errors.
    pub property: String,
    /// The place inside the container, absolute, without `..`.
    pub destination: PathBuf,
    /// What is put there.
    pub kind: MountKind,
    /// How.
    pub options: MountOptions,
    /// How the owners of its files are translated.
    pub idmap: Option<IdmapPlan>,
    /// For a bind: its source below the container's own root, from there; see [`MountPlan::place_below`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_root: Option<PathBuf>,
}

/// What a mount puts in its place.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MountKind {
    /// A directory or file of the host.
    Bind {
        /// Its path on the host.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A new instance of a file system.
    FileSystem {
        /// As in `/proc/filesystems`.
        fstype: String,
        /// What mountinfo will show as the source, or the device.
        source: Option<String>,
    },
    /// The container's cgroups, for whatever cgroup version the host has.
    Cgroup,
    /// A change of what is mounted there already.
    Remount,
}

/// File systems without a device: their `ro` is of the mount alone, because the super block is shared with others of the
/// same namespace (a read-only sysfs of one container must not make it read-only in the next of its pod).
const VIRTUAL: [&str; 8] = ["proc", "sysfs", "mqueue", "tmpfs", "devpts", "cgroup", "cgroup2", "bpf"];

impl MountPlan {
    /// Plans `mounts[i]` of a bundle.
    pub fn new(mount: &Mount, i: usize, bundle: &Path, namespaces: &NamespacePlan) -> Result<MountPlan> {
        let property = format!("mounts[{i}]");
        let mut options = MountOptions::parse(mount.options().as_deref().unwrap_or_default(), &property)?;
        let fstype = mount.typ().clone().unwrap_or_default();
        let source = mount.source().clone().filter(|s| !s.as_os_str().is_empty());
        let kind = match options.bind {
            _ if options.remount => MountKind::Remount,
            // runc takes the types "bind" and "rbind" for the options when the options are missing.
            None if !matches!(fstype.as_str(), "bind" | "rbind") => file_system(fstype, source, &property)?,
            bind => {
                let source = source.ok_or_else(|| config(format!("{property}.source"), "missing for a bind mount"))?;
                let recursive = bind.unwrap_or(false) || fstype == "rbind";
                options.reset_unnamed();
                MountKind::Bind { source: bundle.join(source), recursive }
            }
        };
        let destination = clean(mount.destination());
        if destination == Path::new("/") && !options.remount {
            return Err(config(format!("{property}.destination"), "the root itself; use root.path for it"));
        }
        if options.tmpcopyup && !matches!(&kind, MountKind::FileSystem { fstype, .. } if fstype == "tmpfs") {
            return Err(config(format!("{property}.options"), "tmpcopyup is for type tmpfs only"));
        }
        options.links.check(&kind, &property)?;
        let idmap = idmap::plan(mount, options.idmap.as_ref(), &kind, namespaces, &property)?;
        Ok(MountPlan { property, destination, kind, options, idmap, in_root: None })
    }

    /// Refuses a place on procfs that the path alone tells; the others are found when they are resolved.
    pub fn refuse_proc(&self) -> Result<()> {
        let is_mount = matches!(self.kind, MountKind::Bind { .. } | MountKind::FileSystem { .. });
        let place = &self.destination;
        if !is_mount || !place.starts_with("/proc") || allowed_in_proc(place) {
            Ok(())
        } else if place != Path::new("/proc") {
            Err(self.inside_proc())
        } else if self.is_bind() || self.is_type("proc") {
            Ok(())
        } else {
            Err(self.no_procfs())
        }
    }

    fn inside_proc(&self) -> Error {
        let problem = format!("{:?} cannot be mounted because it is inside /proc", self.destination);
        config(format!("{}.destination", self.property), problem)
    }

    fn no_procfs(&self) -> Error {
        config(format!("{}.destination", self.property), "only a procfs may be mounted on /proc")
    }

    /// Whether it binds something of the host.
    pub fn is_bind(&self) -> bool {
        matches!(self.kind, MountKind::Bind { .. })
    }

    /// Whether the file system is named so.
    pub fn is_type(&self, name: &str) -> bool {
        matches!(&self.kind, MountKind::FileSystem { fstype, .. } if fstype == name)
    }

    /// Whether `ro` waits until everything is in place: nodes and mount points still have to be made on it.
    pub fn read_only_later(&self) -> bool {
        let ro = (self.options.set | self.options.rec_set) & options::attr::RDONLY != 0;
        ro && matches!(self.kind, MountKind::FileSystem { .. })
            && (self.is_type("tmpfs") || self.destination == Path::new("/dev"))
    }

    /// The options a new file system gets through fsconfig(2).
    pub fn fs_options(&self) -> Vec<String> {
        let mut all = self.options.super_block.clone();
        let virtual_fs =
            matches!(&self.kind, MountKind::FileSystem { fstype, .. } if VIRTUAL.contains(&fstype.as_str()));
        if self.options.set & options::attr::RDONLY != 0 && !virtual_fs {
            all.push("ro".into());
        }
        all.extend(self.options.data.iter().map(|o| crate::lsm::unquoted(o)));
        all
    }
}

fn file_system(fstype: String, source: Option<PathBuf>, property: &str) -> Result<MountKind> {
    match fstype.as_str() {
        "" => Err(config(format!("{property}.type"), "missing; give a file system type, or the option \"bind\"")),
        "cgroup" | "cgroup2" => Ok(MountKind::Cgroup),
        _ => Ok(MountKind::FileSystem { fstype, source: source.map(|s| s.to_string_lossy().into_owned()) }),
    }
}

/// A path of config.json inside the container: absolute (a relative one is taken from the root, deprecated but accepted by all
/// runtimes) and without `.`, `..` or double slashes, resolved as text below `/`.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// Files of `/proc` that a mount may cover: what lxcfs and the like emulate. Everything else in `/proc` decides about
/// security (CVE-2019-16884), so nothing may be mounted on or below it but procfs itself.
const PROC_ALLOWED: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Whether a mount may be made at `destination`, a clean path, when that place lies on a procfs.
pub fn allowed_in_proc(destination: &Path) -> bool {
    PROC_ALLOWED.iter().any(|p| destination == Path::new(p))
}

/// A bind mount's source as the parent holds it: a detached clone of the tree, and whether it is a directory.
#[derive(Debug)]
pub struct Source {
    /// The detached mount.
    pub tree: OwnedFd,
    /// Whether its root is a directory, so that a missing mount point is made alike.
    pub is_dir: bool,
}

/// Opens the source of every bind mount, in the host's mount namespace and with the runtime's rights: the child may be in a user
/// namespace that cannot reach it.
///
/// Propagation is what `/` has in the container (`rootfsPropagation`, slave by default), as it would be for a bind made
/// inside: without it a mount made in the container would appear on the host, where sources usually lie on shared mounts.
pub fn open_sources(mounts: &[MountPlan], propagation: (Propagation, bool)) -> Result<Vec<Option<Source>>> {
    mounts.iter().map(|m| m.open_source(propagation)).collect()
}

/// [`open_sources`] without those below the container's root, which init opens at their turn.
pub fn open_host_sources(mounts: &[MountPlan], propagation: (Propagation, bool)) -> Result<Vec<Option<Source>>> {
    mounts.iter().map(|m| if m.in_root.is_some() { Ok(None) } else { m.open_source(propagation) }).collect()
}

impl MountPlan {
    /// One of [`open_sources`].
    pub fn open_source(&self, propagation: (Propagation, bool)) -> Result<Option<Source>> {
        let MountKind::Bind { source, recursive } = &self.kind else { return Ok(None) };
        let tree = match self.options.links.of_source() {
            true => rrt_sys::mount::clone_host_link(source, *recursive),
            false => rrt_sys::mount::clone_host_tree(source, *recursive),
        };
        tree.and_then(|tree| take_source(tree, *recursive, propagation))
            .map_err(|e| self.explain(format!("{}.source {source:?}", self.property), e))
            .map(Some)
    }
}

/// Opens one host path as a detached mount with the given propagation.
pub fn open_source(path: &Path, recursive: bool, propagation: (Propagation, bool)) -> rrt_sys::Result<Source> {
    take_source(rrt_sys::mount::clone_host_tree(path, recursive)?, recursive, propagation)
}

fn take_source(tree: OwnedFd, recursive: bool, propagation: (Propagation, bool)) -> rrt_sys::Result<Source> {
    use std::os::fd::AsFd;
    let attr = rrt_sys::mount::SetAttr { propagation: Some(propagation.0), ..Default::default() };
    rrt_sys::mount::set_attr(tree.as_fd(), attr, recursive)?;
    Ok(Source { is_dir: rrt_sys::path::is_dir(&tree)?, tree })
}

/// Opens a place for a mount below the root, making a directory or an empty file when it is missing.
pub fn mount_point(root: &Root, destination: &Path, directory: bool) -> rrt_sys::Result<OwnedFd> {
    if directory { root.mkdir_all(destination, 0o755) } else { root.touch(destination, 0o644) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<MountPlan> {
        MountPlan::new(&serde_json::from_str(json).unwrap(), 2, Path::new("/b"), &NamespacePlan::default())
    }

    #[test]
    fn paths_are_cleaned_as_text_below_the_root() {
        for (given, clean_path) in
            [("/a/../../b/./c//d", "/b/c/d"), ("rel/x", "/rel/x"), ("/", "/"), ("../..", "/"), ("/a/..", "/")]
        {
            assert_eq!(clean(Path::new(given)), Path::new(clean_path), "{given}");
        }
    }

    #[test]
    fn a_relative_source_is_below_the_bundle() {
        let m = plan(r#"{"destination":"/x","source":"data","options":["rbind"]}"#).unwrap();
        assert!(matches!(m.kind, MountKind::Bind { source, recursive: true } if source == Path::new("/b/data")));
    }

    #[test]
    fn bad_mounts_are_named() {
        for (json, expected) in [
            (r#"{"destination":"/x","options":["bind"]}"#, "mounts[2].source: missing"),
            (r#"{"destination":"/x","source":"y"}"#, "mounts[2].type: missing"),
            (r#"{"destination":"/..","type":"tmpfs"}"#, "mounts[2].destination"),
            (r#"{"destination":"/x","type":"proc","options":["tmpcopyup"]}"#, "tmpcopyup is for"),
        ] {
            let e = plan(json).unwrap_err().to_string();
            assert!(e.contains(expected), "{json}: {e}");
        }
    }

    #[test]
    fn read_only_reaches_a_device_but_not_a_shared_super_block() {
        let ext4 = plan(r#"{"destination":"/x","type":"ext4","source":"/dev/vda","options":["ro"]}"#).unwrap();
        assert_eq!(ext4.fs_options(), ["ro"]);
        assert!(plan(r#"{"destination":"/sys","type":"sysfs","options":["ro"]}"#).unwrap().fs_options().is_empty());
    }
}
