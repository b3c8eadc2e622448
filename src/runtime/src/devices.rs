//! Device nodes and the links every program expects in `/dev`.

use crate::error::{Doing, Result, config};
use crate::mounts::{MountKind, MountPlan, Source, clean, open_source};
use rrt_oci::{Linux, LinuxDevice, LinuxDeviceType};
use rrt_sys::mount::Propagation;
use rrt_sys::path::{self, Root};
use rrt_sys::{FileType, OFlags, errno, major, makedev, minor};
use serde::Serialize;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A node to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DevicePlan {
    /// Where config.json names it, for errors.
    pub property: String,
    /// Its place in the container.
    pub path: PathBuf,
    /// `c`, `b` or `p`.
    pub kind: char,
    /// Device number.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What is done in `/dev`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DevPlan {
    /// Whether `/dev` is the container's own: not when config.json binds a host directory there.
    pub own: bool,
    /// Host nodes are bound instead of made: the kernel lets no user namespace make devices.
    pub bind: bool,
    /// The nodes.
    pub nodes: Vec<DevicePlan>,
    /// Links, `(name, target)`.
    pub links: Vec<(PathBuf, PathBuf)>,
}

/// The devices every Linux container has (runtime-spec config-linux.md, "Default Devices").
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links (runtime-spec runtime-linux.md, "Dev symbolic links"); /dev/core only where the host has kcore.
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

impl DevPlan {
    /// Plans `/dev`; `bind` when the container is in a user namespace, `kcore` when the host has `/proc/kcore`.
    pub fn new(linux: &Linux, mounts: &[MountPlan], bind: bool, kcore: bool) -> Result<DevPlan> {
        let host_dev = |m: &MountPlan| m.destination == Path::new("/dev") && matches!(m.kind, MountKind::Bind { .. });
        let own = !mounts.iter().any(host_dev);
        let mut nodes = Vec::new();
        for (i, device) in linux.devices().iter().flatten().enumerate() {
            nodes.push(DevicePlan::new(device, format!("linux.devices[{i}]"))?);
        }
        for (path, major, minor) in DEFAULT {
            // config.json's own entry for the same path, with its mode and owner, wins.
            if !nodes.iter().any(|n| n.path == Path::new(path)) {
                nodes.push(DevicePlan {
                    property: format!("default device {path}"),
                    path: path.into(),
                    kind: 'c',
                    major,
                    minor,
                    mode: 0o666,
                    uid: 0,
                    gid: 0,
                });
            }
        }
        if !own {
            return Ok(DevPlan::default());
        }
        let mut links: Vec<(PathBuf, PathBuf)> = LINKS.iter().map(|(n, t)| (n.into(), t.into())).collect();
        if kcore {
            links.push(("/dev/core".into(), "/proc/kcore".into()));
        }
        Ok(DevPlan { own, bind, nodes, links })
    }

    /// Opens the host's nodes that are to be bound (in a user namespace), in the order of `nodes`.
    pub fn open_sources(&self) -> Result<Vec<Source>> {
        if !self.bind {
            return Ok(Vec::new());
        }
        let open = |n: &DevicePlan| {
            open_source(&n.path, false, (Propagation::Private, false))
                .doing(|| format!("{}: open the host's {:?}", n.property, n.path))
        };
        self.nodes.iter().map(open).collect()
    }

    /// Makes the nodes and links below `root`.
    pub fn apply(&self, root: &Root, sources: &[Source]) -> Result<()> {
        let mut parents = Parents { root, last: None };
        for (i, node) in self.nodes.iter().enumerate() {
            match sources.get(i) {
                Some(source) => bind(root, node, source)?,
                None => node.make(&mut parents)?,
            }
        }
        for (name, target) in &self.links {
            link(&mut parents, name, target).doing(|| format!("make the link {name:?}"))?;
        }
        Ok(())
    }
}

/// Directories below the root, made where they are missing. The last is kept open: nearly all devices are in `/dev`.
struct Parents<'a> {
    root: &'a Root,
    last: Option<(PathBuf, OwnedFd)>,
}

impl Parents<'_> {
    /// The directory of `path`, and its name in there.
    fn of<'p>(&mut self, path: &'p Path) -> rrt_sys::Result<(BorrowedFd<'_>, &'p OsStr)> {
        let (parent, name) = path::split(path)?;
        let parent = match self.last.take() {
            Some(kept) if kept.0 == parent => kept,
            _ => (parent.into(), self.root.mkdir_all(parent, 0o755)?),
        };
        Ok((self.last.insert(parent).1.as_fd(), name))
    }
}

impl DevicePlan {
    fn new(device: &LinuxDevice, property: String) -> Result<DevicePlan> {
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => 'c',
            LinuxDeviceType::B => 'b',
            LinuxDeviceType::P => 'p',
            LinuxDeviceType::A => {
                return Err(config(property + ".type", "\"a\" is no device; use \"c\", \"b\", \"u\" or \"p\""));
            }
        };
        let number = |n: i64, what: &str| {
            u32::try_from(n).map_err(|_| config(format!("{property}.{what}"), format!("{n} is not a device number")))
        };
        let path = clean(device.path());
        if !device.path().is_absolute() || path.file_name().is_none() {
            return Err(config(property + ".path", format!("{:?} is not an absolute path of a file", device.path())));
        }
        Ok(DevicePlan {
            path,
            kind,
            major: number(device.major(), "major")?,
            minor: number(device.minor(), "minor")?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            property,
        })
    }

    fn file_type(&self) -> FileType {
        match self.kind {
            'b' => FileType::BlockDevice,
            'p' => FileType::Fifo,
            _ => FileType::CharacterDevice,
        }
    }

    /// Makes the node by its directory's fd (CVE-2026-41579: `/dev` may be a symlink in the image; it stays below the root).
    fn make(&self, parents: &mut Parents<'_>) -> Result<()> {
        let doing = || format!("{}: make {:?}", self.property, self.path);
        let (dir, name) = parents.of(&self.path).doing(doing)?;
        let rdev = makedev(self.major, self.minor);
        let made = path::mknodat(dir, name, self.file_type(), self.mode, rdev);
        match made {
            Err(e) if e.is(errno::EEXIST) => return self.check_existing(dir, name),
            made => made.doing(doing)?,
        }
        if (self.uid, self.gid) != (0, 0) {
            let node = path::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW).doing(doing)?;
            path::chown(node.as_fd(), self.uid, self.gid).doing(doing)?;
        }
        Ok(())
    }

    /// Whether the node could be made below `root` as it is.
    pub fn look(&self, root: &Root) -> Result<()> {
        let Ok((parent, name)) = path::split(&self.path) else { return Ok(()) };
        let Ok(dir) = root.open_at(parent, OFlags::PATH | OFlags::DIRECTORY) else { return Ok(()) };
        match path::openat(dir.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(e) if e.is(errno::ENOENT) => Ok(()),
            _ => self.check_existing(dir.as_fd(), name),
        }
    }

    /// What the image has at this place must be the device itself: a file or symlink there would later be taken for it
    /// (CVE-2025-31133).
    fn check_existing(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let doing = || format!("{}: look at {:?}", self.property, self.path);
        let node = path::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW).doing(doing)?;
        let st = path::fstat(&node).doing(doing)?;
        let same_number = self.kind == 'p' || (major(st.st_rdev), minor(st.st_rdev)) == (self.major, self.minor);
        if FileType::from_raw_mode(st.st_mode) == self.file_type() && same_number {
            return Ok(());
        }
        let problem =
            format!("the root file system has something else at {:?}; remove it, or mount a tmpfs on /dev", self.path);
        Err(config(&self.property, problem))
    }
}

fn bind(root: &Root, node: &DevicePlan, source: &Source) -> Result<()> {
    let doing = || format!("{}: bind the host's {:?}", node.property, node.path);
    let target = root.touch(&node.path, 0o644).doing(doing)?;
    rrt_sys::mount::attach(source.tree.as_fd(), target.as_fd()).doing(doing)
}

/// Makes a link unless the name is taken: an image may bring its own `/dev/fd`, which harms only itself. `/dev/ptmx` is replaced,
/// because a device node there would be the host's multiplexer, not the container's.
fn link(parents: &mut Parents<'_>, name: &Path, target: &Path) -> rrt_sys::Result<()> {
    let (dir, file) = parents.of(name)?;
    match path::symlinkat(target, dir, file) {
        Err(e) if e.is(errno::EEXIST) && file == "ptmx" => {
            path::unlinkat(dir, file)?;
            path::symlinkat(target, dir, file)
        }
        Err(e) if e.is(errno::EEXIST) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(devices: &str) -> Result<DevPlan> {
        let linux: Linux = serde_json::from_str(&format!(r#"{{"devices":{devices}}}"#)).unwrap();
        DevPlan::new(&linux, &[], false, true)
    }

    #[test]
    fn a_given_device_replaces_the_default_of_its_path() {
        let p = plan(r#"[{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":384,"uid":7}]"#).unwrap();
        let null: Vec<_> = p.nodes.iter().filter(|n| n.path == Path::new("/dev/null")).collect();
        assert_eq!((null.len(), null[0].mode, null[0].uid), (1, 0o600, 7));
        assert_eq!(p.nodes.len(), DEFAULT.len());
        assert!(p.links.iter().any(|(n, _)| n == Path::new("/dev/core")));
    }

    #[test]
    fn a_path_cannot_leave_the_root() {
        assert_eq!(plan(r#"[{"path":"/dev/../../x","type":"p"}]"#).unwrap().nodes[0].path, Path::new("/x"));
    }

    #[test]
    fn bad_devices_are_named() {
        for (json, expected) in [
            (r#"[{"path":"/dev/x","type":"a","major":1,"minor":1}]"#, "linux.devices[0].type"),
            (r#"[{"path":"x","type":"c","major":1,"minor":1}]"#, "linux.devices[0].path"),
            (r#"[{"path":"/dev/x","type":"c","major":-1,"minor":1}]"#, "linux.devices[0].major: -1"),
        ] {
            let e = plan(json).unwrap_err().to_string();
            assert!(e.contains(expected), "{json}: {e}");
        }
    }
}
