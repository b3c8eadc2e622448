//! What of a container is not its own: bind mounts, masks and bound devices, cgroup mounts, joined namespaces. criu saves a name for
//! each instead of its content, and `restore` tells it what to put in that name's place.
//!
//! At `checkpoint` the container's own mount table decides, because only it has what became of config.json: symlinks resolved,
//! mounts below a recursive bind, masks that had something to hide. The names are runc's, so its images and ours can be exchanged;
//! where a name alone would not lead back to config.json, a document of ours beside the images does.

use crate::error::{Doing, InFile, Result, config};
use crate::log;
use crate::mounts::options::attr;
use crate::mounts::{MountKind, MountPlan};
use crate::namespaces::kind;
use crate::plan::Plan;
use crate::state::State;
use rrt_cgroups::DeviceRule;
use rrt_sys::mount::{self, SetAttr, unescape};
use rrt_sys::path::{self, Root};
use rrt_sys::{OFlags, errno};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Our document in the images' directory.
const FILE: &str = "rrt.json";
/// The device that files are masked with, and by which runc names such masks.
const NULL: &str = "/dev/null";

/// A mount that criu leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// Where it is mounted.
    pub place: PathBuf,
    /// Its name in the images: mostly that place.
    pub name: String,
    /// Its options, as the mount table has them.
    #[serde(default)]
    pub options: String,
    /// The place as config.json names it; absent when the name is a path of every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<PathBuf>,
    /// A mount below that place: its path from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    external: Vec<External>,
    /// Device rules that the container has beyond config.json.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    device_rules: Vec<DeviceRule>,
}

/// A line of a mount table (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Row {
    device: String,
    /// The part of the file system that is mounted.
    root: PathBuf,
    place: PathBuf,
    options: String,
    fstype: String,
}

fn rows(text: &[u8]) -> Vec<Row> {
    let row = |line: &[u8]| {
        let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        // Optional fields stand between the sixth field and a single hyphen.
        let hyphen = words.iter().skip(6).position(|w| *w == b"-")? + 6;
        let word = |i: usize| words.get(i).map(|w| String::from_utf8_lossy(w).into_owned());
        let (root, place) = (unescape(words[3]), unescape(words[4]));
        Some(Row { device: word(2)?, root, place, options: word(5)?, fstype: word(hyphen + 1)? })
    };
    text.split(|b| *b == b'\n').filter_map(row).collect()
}

fn mount_table(pid: &str) -> Result<Vec<Row>> {
    /// A line a mount, far above what any container has.
    const MOST: usize = 16 << 20;
    let file = PathBuf::from(format!("/proc/{pid}/mountinfo"));
    let doing = || format!("read {file:?}");
    let fd = path::open(&file, OFlags::RDONLY).doing(doing)?;
    path::read_limited(&fd, MOST).doing(doing).map(|text| rows(&text))
}

/// The external mounts of a running container.
pub fn of_container(state: &State, pid: i32) -> Result<Vec<External>> {
    let table = mount_table(&pid.to_string())?;
    let host = mount_table("self")?.into_iter().map(|r| r.device).collect();
    let doing = || "look at the container's mounts".to_string();
    let root = Root::open(Path::new(&format!("/proc/{pid}/root"))).doing(doing)?;
    let mut binds = Vec::new();
    for destination in &state.binds {
        match root.resolve(destination) {
            Ok(fd) => binds.push((fs::read_link(path::proc_fd(&fd)).doing(doing)?, destination.clone())),
            // Unmounted, and its place removed, by the container.
            Err(e) if e.is(errno::ENOENT) || e.is(errno::ENOTDIR) => {}
            Err(e) => return Err(e).doing(doing),
        }
    }
    Ok(choose(&table, &host, &binds, state.namespaces))
}

/// Chooses among the mounts of a container; `host` are the devices that the host has mounted, `binds` where the bind mounts of
/// config.json are, `namespaces` those that the container does not share with the host.
fn choose(table: &[Row], host: &BTreeSet<String>, binds: &[(PathBuf, PathBuf)], namespaces: i32) -> Vec<External> {
    let shares = |kind: i32| namespaces & kind == 0;
    let choose_one = |(i, row): (usize, &Row)| {
        let whole = row.root == Path::new("/");
        let external = |name: &Path, destination| External {
            place: row.place.clone(),
            name: name.to_string_lossy().into_owned(),
            options: row.options.clone(),
            destination,
            below: None,
        };
        let bind = binds.iter().find(|(place, _)| *place == row.place);
        // What criu finds a second time it binds from the first.
        let covered = || {
            table.iter().enumerate().any(|(j, r)| {
                i != j && r.device == row.device && row.root.starts_with(&r.root) && (j < i || r.root != row.root)
            })
        };
        match row.fstype.as_str() {
            _ if bind.is_some() => bind.map(|(_, destination)| external(&row.place, Some(destination.clone()))),
            // With a cgroup namespace they are mounts of its own, which begin at its root.
            "cgroup" | "cgroup2" if shares(kind::CGROUP) && !whole => {
                Some(external(&row.place, Some(row.place.clone())))
            }
            "cgroup" | "cgroup2" => None,
            // The host's device, over a masked file or where none could be made.
            "devtmpfs" if !whole => Some(external(&Path::new("/dev").join(row.root.strip_prefix("/").ok()?), None)),
            // These are the namespace's, and of a shared namespace they are the host's as well.
            "sysfs" if whole && shares(kind::NETWORK) => None,
            "mqueue" if whole && shares(kind::IPC) => None,
            _ if host.contains(&row.device) && !covered() => {
                let (place, destination) = longest(binds, &row.place)?;
                let below = Some(row.place.strip_prefix(place).ok()?.to_path_buf());
                Some(External { below, ..external(&row.place, Some(destination.clone())) })
            }
            _ => None,
        }
    };
    let all = table.iter().enumerate().filter(|(_, row)| row.place != Path::new("/"));
    all.filter_map(choose_one).collect()
}

/// The entry whose place is above `path`, or is it; the nearest one.
fn longest<'a>(entries: &'a [(PathBuf, PathBuf)], path: &Path) -> Option<&'a (PathBuf, PathBuf)> {
    entries.iter().filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.as_os_str().len())
}

/// Writes the document; `device_rules` are those of `update --device`.
pub fn write(images: &Path, external: Vec<External>, device_rules: &[DeviceRule]) -> Result<()> {
    let file = images.join(FILE);
    let document = Document { external, device_rules: device_rules.to_vec() };
    let json = serde_json::to_vec(&document).in_file(&file)?;
    fs::write(&file, json).doing(|| format!("write {file:?}"))
}

/// Reads the document; `None` for images of another runtime.
fn read(images: &Path) -> Result<Option<Document>> {
    let file = images.join(FILE);
    match fs::read(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => serde_json::from_slice(&read.doing(|| format!("read {file:?}"))?).map(Some).in_file(&file),
    }
}

/// The device rules that `update --device` had added when the container was saved.
pub fn device_rules(images: &Path) -> Result<Vec<DeviceRule>> {
    Ok(read(images)?.map(|document| document.device_rules).unwrap_or_default())
}

/// External mounts of a restored container whose options are not as saved: what to change. criu takes a second mount of one file or
/// directory for a copy of the first, with the same options, but binds it from the host, where it has none.
pub fn wrong_options(images: &Path, pid: i32) -> Result<Vec<(PathBuf, SetAttr)>> {
    let Some(document) = read(images)? else { return Ok(Vec::new()) };
    let table = mount_table(&pid.to_string())?;
    let wrong = |e: &External| {
        // The last one is on top.
        let row = table.iter().rfind(|row| row.place == e.place)?;
        let (is, was) = (flags(&row.options), flags(&e.options));
        let attr = SetAttr { set: was & !is, clear: is & !was, propagation: None };
        (is != was).then(|| (e.place.clone(), attr))
    };
    Ok(document.external.iter().filter_map(wrong).collect())
}

/// What restricts a mount, as mount_setattr(2) has it.
fn flags(options: &str) -> u64 {
    let flag = |option| match option {
        "ro" => attr::RDONLY,
        "nosuid" => attr::NOSUID,
        "nodev" => attr::NODEV,
        "noexec" => attr::NOEXEC,
        "nosymfollow" => attr::NOSYMFOLLOW,
        _ => 0,
    };
    options.split(',').map(flag).fold(0, |all, flag| all | flag)
}

/// What criu puts in the place of each name.
#[derive(Default)]
pub struct Sources {
    /// A name, and a path for criu to bind.
    pub named: Vec<(String, PathBuf)>,
    /// What is to be mounted there first.
    pub below: Vec<Below>,
}

/// Something below the source of a bind mount. Others may write to that volume, and have put a symlink there since the container was
/// saved: so criu, which binds by path, gets what an fd holds, mounted in a place of our own.
#[derive(Debug, PartialEq, Eq)]
pub struct Below {
    /// The source, a path of the host.
    source: PathBuf,
    /// The way from there.
    rest: PathBuf,
    /// Where it is for criu.
    place: PathBuf,
}

impl Below {
    /// Mounts it, in criu's mount namespace.
    ///
    /// # Errors
    /// A symlink on the way; there was none when the container was saved.
    pub fn mount(&self) -> Result<()> {
        let Below { source, rest, place } = self;
        let doing = || format!("mount {rest:?} of the volume {source:?}, without following symlinks, for criu");
        let root = Root::open(source).doing(doing)?;
        let fd = root.resolve_plain(rest).doing(doing)?;
        let tree = mount::open_tree_clone(fd.as_fd(), Path::new(""), true).doing(doing)?;
        match path::is_dir(&fd).doing(doing)? {
            true => fs::create_dir(place).doing(doing)?,
            false => fs::write(place, "").doing(doing)?,
        }
        let place = path::open(place, OFlags::PATH).doing(doing)?;
        mount::attach(tree.as_fd(), place.as_fd()).doing(doing)
    }
}

/// Finds what belongs to each name. `places` are where sources that are no plain part of the host are mounted for criu, a place or none
/// for each mount of the plan; `dir` is for more of them.
pub fn sources(images: &Path, plan: &Plan, places: &[Option<PathBuf>], dir: &Path) -> Result<Sources> {
    let known = known_sources(plan, places);
    let mut found = Sources::default();
    found.named = match read(images)? {
        Some(document) => {
            let saved =
                |m: &MountPlan| document.external.iter().any(|e| e.destination.as_ref() == Some(&m.destination));
            for mount in plan.mounts.iter().filter(|m| m.is_bind() && !saved(m)) {
                log::warn(format!(
                    "{}: the container was saved without it, and is restored without it",
                    mount.property
                ));
            }
            let mut source = |e| source_of(e, &known, dir, &mut found.below);
            document.external.iter().map(&mut source).collect::<Result<Vec<_>>>()?
        }
        // The names are the places in the root file system, as it is.
        None => {
            let root = Root::open(&plan.root.path).doing(|| format!("root.path {:?}", plan.root.path))?;
            known.iter().map(|(place, source)| (place_in(&root, place), source.clone())).collect()
        }
    };
    if !found.named.iter().any(|(name, _)| name == NULL) {
        found.named.push((NULL.into(), NULL.into()));
    }
    Ok(found)
}

fn source_of(
    external: &External,
    known: &[(PathBuf, PathBuf)],
    dir: &Path,
    below: &mut Vec<Below>,
) -> Result<(String, PathBuf)> {
    let name = external.name.clone();
    let Some(destination) = &external.destination else { return Ok((name.clone(), name.into())) };
    match known.iter().find(|(place, _)| place == destination) {
        Some((_, source)) => {
            let Some(rest) = &external.below else { return Ok((name, source.clone())) };
            let place = dir.join(format!("below-{}", below.len()));
            below.push(Below { source: source.clone(), rest: rest.clone(), place: place.clone() });
            Ok((name, place))
        }
        None => {
            let problem =
                format!("the container was saved with a bind mount on {destination:?}; add one, with its source");
            Err(config("mounts", problem))
        }
    }
}

/// Places that config.json binds something to, and what: its bind mounts, and v1 cgroups without a cgroup namespace.
fn known_sources(plan: &Plan, places: &[Option<PathBuf>]) -> Vec<(PathBuf, PathBuf)> {
    let mut known = Vec::new();
    for (mount, place) in plan.mounts.iter().zip(places) {
        match &mount.kind {
            MountKind::Bind { source, .. } => {
                known.push((mount.destination.clone(), place.as_ref().unwrap_or(source).clone()));
            }
            MountKind::Cgroup if !plan.cgroup_mounts.namespace => {
                let v1 =
                    plan.cgroup_mounts.v1.iter().map(|v1| (mount.destination.join(&v1.name), v1.directory.clone()));
                let unified = plan.cgroup_mounts.unified.iter().map(|dir| (mount.destination.clone(), dir.clone()));
                known.extend(v1.chain(unified));
            }
            _ => {}
        }
    }
    known
}

/// A place inside the root file system with its symlinks resolved, as far as it is there.
fn place_in(root: &Root, place: &Path) -> String {
    let resolved = root.resolve(place).ok().and_then(|fd| {
        let top = fs::read_link(path::proc_fd(root.as_dir())).ok()?;
        let full = fs::read_link(path::proc_fd(&fd)).ok()?;
        Some(Path::new("/").join(full.strip_prefix(top).ok()?))
    });
    resolved.unwrap_or_else(|| place.into()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
42 47 254:0 /b/rootfs / rw,relatime - ext4 /dev/vda rw
46 69 0:6 /null /proc/keys ro,relatime - devtmpfs devtmpfs rw
69 42 0:45 / /proc rw,relatime - proc proc rw
70 42 0:46 / /dev rw,nosuid - tmpfs tmpfs rw
74 42 0:49 / /sys ro master:7 - sysfs sysfs rw
75 74 0:50 / /sys/fs/cgroup ro - tmpfs tmpfs rw
76 75 0:37 /c1 /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
48 69 0:45 /bus /proc/bus ro,relatime - proc proc rw
80 42 254:0 /srv/my\\040data /run/data rw master:1 - ext4 /dev/vda rw
81 80 254:1 / /run/data/sub rw - ext4 /dev/vdb rw
82 42 254:0 /b/rootfs/etc /mnt rw - ext4 /dev/vda rw
83 70 0:45 / /dev/mqueue rw - mqueue mqueue rw
";

    fn chosen(namespaces: i32) -> Vec<(String, String, Option<String>)> {
        let host = ["254:0", "254:1", "0:6", "0:37", "0:49"].map(String::from).into_iter().collect();
        let binds = [(PathBuf::from("/run/data"), PathBuf::from("/var/run/data"))];
        let text = |p: PathBuf| p.to_string_lossy().into_owned();
        let all = choose(&rows(TABLE.as_bytes()), &host, &binds, namespaces);
        all.into_iter()
            .map(|e| {
                let below = e.below.map(|b| format!(" {}", b.display())).unwrap_or_default();
                (text(e.place), e.name, e.destination.map(|d| text(d) + &below))
            })
            .collect()
    }

    #[test]
    fn what_is_the_hosts_is_external() {
        let found = chosen(kind::NETWORK | kind::IPC);
        let names: Vec<_> = found.iter().map(|(place, name, to)| (&**place, &**name, to.as_deref())).collect();
        assert_eq!(
            names,
            [
                ("/proc/keys", "/dev/null", None),
                // The container has a network namespace of its own, and the host's sysfs all the same.
                // It is below no bind, so criu has to say what it thinks of it.
                ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids", Some("/sys/fs/cgroup/pids")),
                ("/run/data", "/run/data", Some("/var/run/data")),
                ("/run/data/sub", "/run/data/sub", Some("/var/run/data sub")),
            ]
        );
    }

    #[test]
    fn a_cgroup_namespace_has_its_own_mounts() {
        assert!(!chosen(kind::CGROUP).iter().any(|(place, ..)| place.contains("cgroup")));
    }

    #[test]
    fn restricting_options_are_compared() {
        assert_eq!(flags("ro,nosuid,relatime"), attr::RDONLY | attr::NOSUID);
        assert_eq!(flags("rw,nodev,noexec,nosymfollow"), attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW);
    }

    #[test]
    fn the_mount_table_is_read() {
        let table = rows(TABLE.as_bytes());
        assert_eq!(table.len(), 12);
        let data = table.iter().find(|r| r.place == Path::new("/run/data")).unwrap();
        assert_eq!((data.root.as_path(), &*data.fstype, &*data.device), (Path::new("/srv/my data"), "ext4", "254:0"));
    }

    #[test]
    fn a_name_leads_back_to_config_json() {
        let known = [("/var/run/data", "/srv/x"), ("/var", "/srv/var"), ("/etc/file", "/srv/file")];
        let known = known.map(|(a, b)| (PathBuf::from(a), PathBuf::from(b)));
        let source = |name: &str, destination: Option<&str>, below: Option<&str>| {
            let (destination, below) = (destination.map(PathBuf::from), below.map(PathBuf::from));
            let e = External { place: name.into(), name: name.into(), options: "rw".into(), destination, below };
            let mut found = Vec::new();
            let source = source_of(&e, &known, Path::new("/d"), &mut found).map_err(|e| e.to_string())?;
            let below = found.pop().map(|b| format!(" = {} {}", b.source.display(), b.rest.display()));
            Ok::<_, String>(source.1.display().to_string() + &below.unwrap_or_default())
        };
        assert_eq!(source("/run/data", Some("/var/run/data"), None).unwrap(), "/srv/x");
        assert_eq!(source("/run/data/sub", Some("/var/run/data"), Some("sub")).unwrap(), "/d/below-0 = /srv/x sub");
        assert_eq!(source("/etc/file", Some("/etc/file"), None).unwrap(), "/srv/file");
        assert_eq!(source("/dev/null", None, None).unwrap(), "/dev/null");
        let gone = source("/var/run/x", Some("/var/run/x"), None).unwrap_err();
        assert!(gone.starts_with("mounts: the container was saved with"), "{gone}");
    }
}
