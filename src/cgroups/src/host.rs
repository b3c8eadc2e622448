//! What the machine offers: which hierarchies are mounted where, and where this process stands in them.

use crate::Error;
use crate::dir::fs_magic;
use crate::error::Doing;
use rrt_sys::OFlags;
use rrt_sys::mount::unescape;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Where every distribution mounts them.
const ROOT: &str = "/sys/fs/cgroup";

/// A file of /proc, far above its real length (a line a hierarchy, a line a mount).
const PROC_LIMIT: usize = 16 << 20;

/// Version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// One or a few controllers, a thread at a time (cgroups(7), "cgroups version 1").
    V1,
    /// The unified hierarchy.
    V2,
}

impl Version {
    /// The number of its file system's type, in statfs(2).
    fn magic(self) -> u64 {
        match self {
            Version::V1 => CGROUP_MAGIC,
            Version::V2 => CGROUP2_MAGIC,
        }
    }
}

/// How the machine's hierarchies are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Mode {
    /// v1 hierarchies only.
    V1,
    /// The unified hierarchy only.
    V2,
    /// v1 hierarchies, and a unified one beside them, which may hold controllers too.
    Hybrid,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hierarchy {
    /// v1 or v2.
    pub version: Version,
    /// Its controllers; a v1 hierarchy without any has its name here, as `name=systemd`.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The cgroup of this process, as a path inside the mount (it begins with `/`).
    pub own: PathBuf,
}

impl Hierarchy {
    /// Whether `controller` is one of its own.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// The machine's cgroup hierarchies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostCgroups {
    /// How they are set up.
    pub mode: Mode,
    /// In the order of /proc/self/cgroup, the unified one last.
    pub hierarchies: Vec<Hierarchy>,
}

impl HostCgroups {
    /// Reads them: /proc/self/cgroup says which there are and where we stand, statfs(2) of the usual places says where
    /// they are mounted. The mount table, which is long on a machine full of containers, is read only when a hierarchy
    /// is not in its usual place.
    ///
    /// # Errors
    /// [`Error::NotMounted`]; [`Error::Call`] when /proc cannot be read.
    pub fn read() -> Result<HostCgroups, Error> {
        let own = parse_own(&proc_file("/proc/self/cgroup")?)?;
        let mut mounts = None;
        if fs_magic(Path::new(ROOT)) == Some(CGROUP2_MAGIC) {
            let unified = own.iter().find(|o| o.controllers.is_empty());
            let hierarchies = unified.map(|o| locate(o, true, &mut mounts)).transpose()?.flatten();
            let hierarchies: Vec<Hierarchy> = hierarchies.into_iter().collect();
            return if hierarchies.is_empty() {
                Err(Error::NotMounted)
            } else {
                Ok(HostCgroups { mode: Mode::V2, hierarchies })
            };
        }
        let mut hierarchies = Vec::with_capacity(own.len());
        for one in &own {
            hierarchies.extend(locate(one, false, &mut mounts)?);
        }
        let v2 = hierarchies.iter().any(|h| h.version == Version::V2);
        let v1 = hierarchies.iter().any(|h| h.version == Version::V1);
        let mode = match (v1, v2) {
            (true, true) => Mode::Hybrid,
            (true, false) => Mode::V1,
            (false, true) => Mode::V2,
            (false, false) => return Err(Error::NotMounted),
        };
        Ok(HostCgroups { mode, hierarchies })
    }

    /// The unified hierarchy, if one is mounted.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.version == Version::V2)
    }
}

/// A line of /proc/self/cgroup.
struct Own {
    /// As the kernel names them; empty for the unified hierarchy.
    controllers: String,
    path: PathBuf,
}

fn proc_file(path: &str) -> Result<Vec<u8>, Error> {
    let doing = "read which cgroups this process is in";
    let file = rrt_sys::path::open(Path::new(path), OFlags::RDONLY).doing(doing)?;
    rrt_sys::path::read_limited(file, PROC_LIMIT).doing(doing)
}

/// Parses /proc/self/cgroup: `ID:controller,…:path` a line (cgroups(7)).
fn parse_own(text: &[u8]) -> Result<Vec<Own>, Error> {
    let lines = text.split(|&b| b == b'\n').filter(|l| !l.is_empty());
    lines
        .map(|line| {
            let mut fields = line.splitn(3, |&b| b == b':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                return Err(Error::Parse {
                    path: "/proc/self/cgroup".into(),
                    text: String::from_utf8_lossy(line).into_owned(),
                });
            };
            Ok(Own {
                controllers: String::from_utf8_lossy(controllers).into_owned(),
                path: PathBuf::from(OsStr::from_bytes(path)),
            })
        })
        .collect()
}

/// Finds where a hierarchy is mounted; `None` when it is not. `at_root`: the unified one takes the whole of [`ROOT`].
fn locate(own: &Own, at_root: bool, mounts: &mut Option<Vec<Mount>>) -> Result<Option<Hierarchy>, Error> {
    let version = if own.controllers.is_empty() { Version::V2 } else { Version::V1 };
    let magic = version.magic();
    let mut mount = PathBuf::from(ROOT);
    if !at_root {
        mount.push(match version {
            Version::V1 => own.controllers.strip_prefix("name=").unwrap_or(&own.controllers),
            Version::V2 => "unified",
        });
    }
    // The check is made on our own cgroup below the place, not on the place: so it also says that the mount shows the
    // hierarchy's root. A plain directory, as podman leaves some, has another magic number.
    let below = own.path.strip_prefix("/").unwrap_or(&own.path);
    let (mount, path) = if fs_magic(&mount.join(below)) == Some(magic) {
        (mount, own.path.clone())
    } else {
        if mounts.is_none() {
            let mut table = parse_mountinfo(&proc_file("/proc/self/mountinfo")?);
            // One that another mount covers stays in the table: in a container that has bound the host's /sys below its own cgroups.
            table.retain(|m| fs_magic(&m.place) == Some(m.version.magic()));
            *mounts = Some(table);
        }
        match find_mount(mounts.as_deref().unwrap_or_default(), own, version) {
            Some(found) => found,
            None => return Ok(None),
        }
    };
    let controllers = match version {
        Version::V1 => own.controllers.split(',').map(str::to_owned).collect(),
        Version::V2 => {
            let file = proc_file(&mount.join("cgroup.controllers").to_string_lossy())?;
            String::from_utf8_lossy(&file).split_whitespace().map(str::to_owned).collect()
        }
    };
    Ok(Some(Hierarchy { version, controllers, mount, own: path }))
}

/// A cgroup mount, from /proc/self/mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The part of the hierarchy that is mounted.
    root: PathBuf,
    place: PathBuf,
    /// Super block options: the controllers are among them.
    options: String,
}

/// Parses the cgroup lines of /proc/self/mountinfo (proc_pid_mountinfo(5)).
fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    let lines = text.split(|&b| b == b'\n');
    lines
        .filter_map(|line| {
            let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
            // Optional fields stand between the sixth field and a single hyphen.
            let hyphen = words.iter().skip(6).position(|w| w == b"-")? + 6;
            let version = match *words.get(hyphen + 1)? {
                b"cgroup" => Version::V1,
                b"cgroup2" => Version::V2,
                _ => return None,
            };
            let options = String::from_utf8_lossy(words.get(hyphen + 3)?).into_owned();
            Some(Mount { version, root: unescape(words[3]), place: unescape(words[4]), options })
        })
        .collect()
}

/// The mount of a hierarchy that shows our own cgroup, and our path inside it. In a container without cgroup namespace
/// the mount shows only a part of the hierarchy, so our path in it is shorter than the kernel's.
fn find_mount(mounts: &[Mount], own: &Own, version: Version) -> Option<(PathBuf, PathBuf)> {
    let wanted = |m: &&Mount| {
        m.version == version
            && (version == Version::V2 || own.controllers.split(',').all(|c| m.options.split(',').any(|o| o == c)))
    };
    let inside = |m: &Mount| {
        let rest = own.path.strip_prefix(&m.root).ok()?;
        Some((m.place.clone(), Path::new("/").join(rest)))
    };
    let first = mounts.iter().filter(wanted).find_map(inside);
    // A mount that does not show our own cgroup still serves absolute paths.
    first.or_else(|| mounts.iter().find(wanted).map(|m| (m.place.clone(), PathBuf::from("/"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cgroups_of_a_hybrid_machine() {
        let own = parse_own(b"4:memory:/a/b:c\n2:cpu,cpuacct:/\n1:name=systemd:/x\n0::/user.slice\n").unwrap();
        let seen: Vec<_> = own.iter().map(|o| (o.controllers.as_str(), o.path.to_str().unwrap())).collect();
        assert_eq!(seen, [("memory", "/a/b:c"), ("cpu,cpuacct", "/"), ("name=systemd", "/x"), ("", "/user.slice")]);
        assert!(parse_own(b"4:memory\n").is_err());
    }

    const MOUNTINFO: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 /docker/1 /sys/fs/cgroup/cpu\\040x rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:30 / /other/memory rw,relatime - cgroup cgroup rw,memory\n\
        34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_mount_table_gives_place_and_root() {
        let mounts = parse_mountinfo(MOUNTINFO);
        assert_eq!(mounts.len(), 3);
        let own = |controllers: &str, path: &str| Own { controllers: controllers.into(), path: path.into() };
        let find = |o: &Own, v| find_mount(&mounts, o, v).map(|(m, p)| format!("{} {}", m.display(), p.display()));
        let cpu = own("cpu,cpuacct", "/docker/1/sub");
        assert_eq!(find(&cpu, Version::V1).unwrap(), "/sys/fs/cgroup/cpu x /sub");
        assert_eq!(find(&own("cpu,cpuacct", "/docker/12"), Version::V1).unwrap(), "/sys/fs/cgroup/cpu x /");
        assert_eq!(find(&own("memory", "/m"), Version::V1).unwrap(), "/other/memory /m");
        assert_eq!(find(&own("", "/"), Version::V2).unwrap(), "/sys/fs/cgroup/unified /");
        assert_eq!(find(&own("pids", "/"), Version::V1), None);
    }

    #[test]
    fn this_machine_has_cgroups() {
        let host = HostCgroups::read().unwrap();
        for hierarchy in &host.hierarchies {
            let own = hierarchy.mount.join(hierarchy.own.strip_prefix("/").unwrap());
            assert!(own.join("cgroup.procs").exists(), "{own:?}");
        }
        assert_eq!(host.mode == Mode::V1, host.unified().is_none());
    }
}
