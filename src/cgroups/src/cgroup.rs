//! A container's cgroup that exists, or did.

use crate::dir::Dir;
use crate::error::Doing;
use crate::plan::PlannedGroup;
use crate::systemd::{SavedUnit, Systemd};
use crate::{Error, HostCgroups, Version};
use rrt_sys::OFlags;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What has to be kept to find the cgroup again: a small part of the container's state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCgroup {
    pub(crate) groups: Vec<Group>,
    /// With the systemd driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<SavedUnit>,
}

/// The container's cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) version: Version,
    pub(crate) controllers: Vec<String>,
    /// Absolute.
    pub(crate) dir: PathBuf,
}

impl SavedCgroup {
    pub(crate) fn of<'a>(groups: impl Iterator<Item = &'a PlannedGroup>) -> SavedCgroup {
        let group = |g: &PlannedGroup| Group { version: g.version, controllers: g.controllers.clone(), dir: g.dir() };
        SavedCgroup { groups: groups.map(group).collect(), unit: None }
    }
}

/// A container's cgroup: one directory in each hierarchy of the machine, none with `--cgroup-manager=disabled`.
#[derive(Debug)]
pub struct Cgroup {
    pub(crate) groups: Vec<Group>,
    pub(crate) unit: Option<SavedUnit>,
    /// The directories that were made for it here, outer ones first.
    pub(crate) made: Vec<PathBuf>,
}

/// The state of a cgroup's freezer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerState {
    /// Its processes run. Also when it is not there, or frozen only because a cgroup above is.
    Thawed,
    /// Asked to freeze; some process runs still.
    Freezing,
    /// None of its processes runs.
    Frozen,
}

/// What clients of runc look for when the cgroup below is not there.
const ADDING: &str = "--cgroup: adding pid of the new process to a cgroup below the container's, which must be there";

/// Cgroups below the container's, as `exec --cgroup` names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubCgroups(BTreeMap<String, PathBuf>);

impl SubCgroups {
    /// Parses the arguments of `exec --cgroup`: one `PATH` for all hierarchies, or any number of
    /// `CONTROLLER[,CONTROLLER…]:PATH`, each controller once. A path is below the container's cgroup, with or without a
    /// slash in front; one with `..` in it is refused, whatever it would lead to.
    ///
    /// # Errors
    /// [`Error::Invalid`], with the flag's name.
    pub fn parse(args: &[String]) -> Result<SubCgroups, Error> {
        let invalid = |arg: &str, reason: &str| Error::invalid("--cgroup", format!("{arg:?} {reason}"));
        let mut paths = BTreeMap::new();
        for arg in args {
            let (controllers, path) = match arg.split_once(':') {
                Some(both) => both,
                None if args.len() == 1 => ("", arg.as_str()),
                None => return Err(invalid(arg, "needs a controller in front, as \"cpu:PATH\"")),
            };
            if Path::new(path).components().any(|c| c == std::path::Component::ParentDir) {
                return Err(invalid(arg, "is a bad sub cgroup path: it may not contain \"..\""));
            }
            let path = crate::path::clean(Path::new(path));
            for controller in controllers.split(',') {
                if controller.is_empty() && arg.contains(':') {
                    return Err(invalid(arg, "has an empty controller name"));
                }
                if paths.insert(controller.to_owned(), path.clone()).is_some() {
                    return Err(invalid(arg, "names a controller for the second time"));
                }
            }
        }
        Ok(SubCgroups(paths))
    }

    /// The directory of a hierarchy that these mean: the container's own where they say nothing about it.
    fn dir(&self, group: &Group) -> PathBuf {
        let named = group.controllers.iter().find_map(|c| self.0.get(c));
        match named.or_else(|| self.0.get("")) {
            Some(path) => group.dir.join(path),
            None => group.dir.clone(),
        }
    }
}

impl Cgroup {
    /// The cgroup a state file remembers. Nothing is looked at.
    ///
    /// As long as systemd has not made the container's unit there is none: what is at its place is somebody else's.
    pub fn open(saved: SavedCgroup) -> Cgroup {
        let waiting = saved.unit.as_ref().is_some_and(|unit| !unit.started);
        Cgroup { groups: if waiting { Vec::new() } else { saved.groups }, unit: saved.unit, made: Vec::new() }
    }

    /// What to remember.
    pub fn saved(&self) -> SavedCgroup {
        SavedCgroup { groups: self.groups.clone(), unit: self.unit.clone() }
    }

    /// Whether systemd made it, and can be asked to move a process in ([`Cgroup::attach`]).
    pub fn has_unit(&self) -> bool {
        self.unit.is_some()
    }

    /// Whether there is none, because of `--cgroup-manager=disabled`.
    pub fn is_disabled(&self) -> bool {
        self.groups.is_empty()
    }

    pub(crate) fn unified(&self) -> Option<&Group> {
        self.groups.iter().find(|g| g.version == Version::V2)
    }

    pub(crate) fn v1(&self, controller: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.version == Version::V1 && g.controllers.iter().any(|c| c == controller))
    }

    /// The directory whose `cgroup.procs` stands for the container. With v1 controllers `devices`, as in runc: every
    /// container is in it, whatever limits it has.
    pub(crate) fn main(&self) -> Option<&Group> {
        self.v1("devices").or_else(|| self.unified()).or_else(|| self.groups.first())
    }

    /// The directory of the unified hierarchy, for `clone3(CLONE_INTO_CGROUP)`: the child is born in it, and nothing is
    /// migrated. `None` on a machine without one.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn unified_dir(&self) -> Result<Option<OwnedFd>, Error> {
        self.unified_sub_dir(&SubCgroups::default())
    }

    /// As [`Cgroup::unified_dir`], for a cgroup below.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn unified_sub_dir(&self, sub: &SubCgroups) -> Result<Option<OwnedFd>, Error> {
        let open = |g: &Group| Dir::open(&sub.dir(g)).map(Dir::into_fd);
        let doing = match *sub == SubCgroups::default() {
            true => "open the container's cgroup",
            false => ADDING,
        };
        self.unified().map(open).transpose().doing(doing)
    }

    /// The directory of the unified hierarchy that a process of the container is in, when it has moved into one below
    /// the container's. A container that runs an init system does that, and then `clone3` into its own cgroup fails with
    /// EBUSY: a cgroup that hands controllers down takes no process. runc then joins where the container's init is.
    ///
    /// `None` when the process is not below the container's cgroup.
    ///
    /// # Errors
    /// [`Error::Call`]; ENOENT when there is no such process.
    pub fn unified_dir_of(&self, pid: i32) -> Result<Option<OwnedFd>, Error> {
        let doing = "find the cgroup of the container's init";
        let Some(group) = self.unified() else { return Ok(None) };
        let file = rrt_sys::path::open(Path::new(&format!("/proc/{pid}/cgroup")), OFlags::RDONLY).doing(doing)?;
        let text = rrt_sys::path::read_limited(file, PROC_LIMIT).doing(doing)?;
        let line = text.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(b"0::"));
        let sub = line.and_then(|path| below(&group.dir, Path::new(OsStr::from_bytes(path))));
        sub.map(|sub| Dir::open(&group.dir.join(sub)).map(Dir::into_fd)).transpose().doing(doing)
    }

    /// The `tasks` file of each v1 hierarchy, open for writing: the child, while it has one thread, writes `0` into
    /// each and so moves itself.
    ///
    /// That way the kernel does not take its global lock on cgroups (`cgroup_threadgroup_rwsem`), for which the writer
    /// waits a whole RCU grace period, 10 to 15 ms on a resting machine. Writing a pid into `cgroup.procs` takes it.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn v1_tasks(&self, sub: &SubCgroups) -> Result<Vec<OwnedFd>, Error> {
        let known = |name: &String| name.is_empty() || self.groups.iter().any(|g| g.controllers.contains(name));
        if let Some(name) = sub.0.keys().find(|name| !known(name)) {
            return Err(Error::invalid(
                "--cgroup",
                format!("unknown controller {name:?}: the container's cgroups have none of that name"),
            ));
        }
        let v1 = self.groups.iter().filter(|g| g.version == Version::V1);
        let doing = match *sub == SubCgroups::default() {
            true => "open the container's cgroup for its process to join",
            false => ADDING,
        };
        v1.map(|g| rrt_sys::path::open(&sub.dir(g).join("tasks"), OFlags::WRONLY))
            .collect::<rrt_sys::Result<_>>()
            .doing(doing)
    }

    /// Moves a process into every hierarchy, with all its threads: for one that cannot do it itself.
    ///
    /// # Errors
    /// [`Error::Call`]; EBUSY on v2 when the cgroup hands controllers down to cgroups below it, in which case the
    /// process has to join one of those.
    pub fn join_by_pid(&self, pid: i32, sub: &SubCgroups) -> Result<(), Error> {
        for group in &self.groups {
            let dir = Dir::open(&sub.dir(group)).doing("join the container's cgroup")?;
            dir.write("cgroup.procs", &pid.to_string()).doing("join the container's cgroup")?;
        }
        Ok(())
    }

    /// Has systemd move a process into the container's unit: for a caller who may not write to the cgroup above both, as a user
    /// in a login session.
    ///
    /// # Errors
    /// [`Error::Systemd`]; [`Error::Unavailable`] without a unit.
    pub fn attach(&self, pid: i32, sub: &SubCgroups) -> Result<(), Error> {
        let unit = self.unit.as_ref().filter(|u| u.started);
        let unit = unit.ok_or(Error::Unavailable { what: "move the process", reason: "the container has no unit" })?;
        let below = sub.0.get("").map_or_else(|| "/".into(), |path| format!("/{}", path.display()));
        Systemd::connect(unit.user)?.attach(&unit.name, &below, pid.unsigned_abs())
    }

    /// Absolute directories by controller; the unified hierarchy has the empty name.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let mut paths = BTreeMap::new();
        for group in &self.groups {
            match group.version {
                Version::V1 => {
                    paths.extend(group.controllers.iter().map(|c| (c.clone(), group.dir.clone())));
                }
                Version::V2 => {
                    paths.insert(String::new(), group.dir.clone());
                }
            }
        }
        paths
    }

    /// The cgroups as `/proc/PID/cgroup` has them: the path from the hierarchy's root, by controller (the unified hierarchy has the empty
    /// name).
    pub fn paths_in(&self, host: &HostCgroups) -> Vec<(String, PathBuf)> {
        let mut paths = Vec::new();
        for (controller, dir) in self.paths() {
            let below = host.hierarchies.iter().filter_map(|h| dir.strip_prefix(&h.mount).ok());
            // The mount of one hierarchy may be below that of another.
            if let Some(path) = below.min_by_key(|p| p.as_os_str().len()) {
                paths.push((controller, Path::new("/").join(path)));
            }
        }
        paths
    }

    /// Every process in the cgroup and the cgroups below it, sorted, once each. Empty when the cgroup is gone.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without cgroups; [`Error::Call`], [`Error::Parse`].
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let group = self.main().ok_or(Error::Unavailable { what: "list the processes", reason: NO_CGROUP })?;
        match Dir::open(&group.dir) {
            Ok(dir) => all_pids(&dir),
            Err(e) if e.is(libc::ENOENT) => Ok(Vec::new()),
            Err(e) => Err(e).doing("list the processes of the container"),
        }
    }

    /// Gives the v2 cgroup to a user: the container's root, when it has a user namespace, a cgroup namespace and a
    /// writable cgroup mount. The directory and the files that the kernel lists as safe to delegate change their owner.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn delegate(&self, uid: u32) -> Result<(), Error> {
        let Some(group) = self.unified() else { return Ok(()) };
        let doing = "give the cgroup to the container's root user";
        let dir = Dir::open(&group.dir).doing(doing)?;
        let listed = rrt_sys::path::open(Path::new("/sys/kernel/cgroup/delegate"), OFlags::RDONLY)
            .and_then(|f| rrt_sys::path::read_limited(f, 4096));
        // Kernels before 4.15 have no list; these three were all there was.
        let listed = listed.unwrap_or_else(|_| b"cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n".to_vec());
        dir.chown(None, uid).doing(doing)?;
        for file in String::from_utf8_lossy(&listed).split_whitespace() {
            match dir.chown(Some(file), uid) {
                // The list names files of controllers that this cgroup may not have.
                Err(e) if e.is(libc::ENOENT) => {}
                done => done.doing(doing)?,
            }
        }
        Ok(())
    }
}

/// /proc/PID/cgroup is a line a hierarchy.
const PROC_LIMIT: usize = 1 << 20;

/// What `path`, as the kernel gives it (from the hierarchy's root), is below `dir`, as it is mounted. Where the mount
/// ends and the path in the hierarchy begins is not known here, so the longest tail of `dir` that fits is taken.
fn below<'a>(dir: &Path, path: &'a Path) -> Option<&'a Path> {
    let names: Vec<&OsStr> = dir.iter().skip(1).collect();
    let path = path.strip_prefix("/").ok()?;
    (0..names.len()).find_map(|start| path.strip_prefix(names[start..].iter().collect::<PathBuf>()).ok())
}

/// Why an operation on cgroups is not to be had.
pub(crate) const NO_CGROUP: &str =
    "the container has no cgroup (--cgroup-manager=disabled, or a user without a delegated cgroup)";

/// The processes of a cgroup and of all below it.
pub(crate) fn all_pids(dir: &Dir) -> Result<Vec<i32>, Error> {
    let mut pids = BTreeSet::new();
    collect_pids(dir, &mut pids)?;
    Ok(pids.into_iter().collect())
}

fn collect_pids(dir: &Dir, pids: &mut BTreeSet<i32>) -> Result<(), Error> {
    let doing = "list the processes of the container";
    let gone = |e: &rrt_sys::SysError| e.is(libc::ENOENT) || e.is(libc::ENODEV);
    let text = match dir.read("cgroup.procs") {
        // A threaded cgroup has no list of processes, only of threads.
        Err(e) if e.is(libc::EOPNOTSUPP) => dir.read("cgroup.threads"),
        done => done,
    };
    let text = match text {
        Err(e) if gone(&e) => return Ok(()),
        done => done.doing(doing)?,
    };
    for line in text.lines() {
        let pid =
            line.parse().map_err(|_| Error::Parse { path: dir.path().join("cgroup.procs"), text: line.into() })?;
        // 0: a process of a pid namespace that cannot be seen from here.
        if pid != 0 {
            pids.insert(pid);
        }
    }
    for name in dir.children().doing(doing)? {
        match dir.child(&name) {
            Ok(child) => collect_pids(&child, pids)?,
            Err(e) if gone(&e) => {}
            Err(e) => return Err(e).doing(doing),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(args: &[&str]) -> Result<SubCgroups, String> {
        SubCgroups::parse(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>()).map_err(|e| e.to_string())
    }

    fn group(controllers: &[&str]) -> Group {
        let controllers = controllers.iter().map(|c| (*c).to_owned()).collect();
        Group { version: Version::V1, controllers, dir: "/cg/box".into() }
    }

    #[test]
    fn a_process_is_found_below_its_container() {
        let find = |path: &str| below(Path::new("/sys/fs/cgroup/unified/a/box"), Path::new(path)).map(Path::to_owned);
        assert_eq!(find("/a/box/init.scope"), Some("init.scope".into()));
        assert_eq!(find("/a/box"), Some("".into()));
        assert_eq!(find("/a/boxes"), None);
        assert_eq!(find("/other/a/box/x"), None);
    }

    #[test]
    fn sub_cgroups_stay_below_the_container() {
        let all = args(&["/a/b"]).unwrap();
        assert_eq!(all.dir(&group(&["cpu"])), Path::new("/cg/box/a/b"));
        let some = args(&["cpu,cpuacct:x", "memory:/y"]).unwrap();
        assert_eq!(some.dir(&group(&["cpuacct", "cpu"])), Path::new("/cg/box/x"));
        assert_eq!(some.dir(&group(&["memory"])), Path::new("/cg/box/y"));
        assert_eq!(some.dir(&group(&["pids"])), Path::new("/cg/box"));
        assert_eq!(args(&[]).unwrap().dir(&group(&["pids"])), Path::new("/cg/box"));
        for (bad, why) in [
            (&["a/../../b"][..], "\"..\""),
            (&["cpu:/.."], "\"..\""),
            (&["a", "cpu:b"], "controller in front"),
            (&[":a"], "empty controller"),
            (&["cpu,:a"], "empty controller"),
            (&["cpu:a", "cpu:b"], "second time"),
        ] {
            let text = args(bad).unwrap_err();
            assert!(text.starts_with("--cgroup: ") && text.contains(why), "{text}");
        }
    }
}
