//! A container's cgroup: where it is, by what the kernel says of its init, and its files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// Directories by controller: on v1, and on hybrid machines, whose controllers are v1's.
    V1(BTreeMap<String, PathBuf>),
    /// One directory.
    V2(PathBuf),
}

impl Cgroup {
    /// The cgroup of a process. `None` if it has gone, or if there are no cgroups.
    pub fn of(pid: i32) -> Option<Cgroup> {
        let table = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let unified = Path::new(ROOT).join("cgroup.controllers").exists();
        Cgroup::parse(&table, unified, mount_of)
    }

    fn parse(table: &str, unified: bool, mount_of: impl Fn(&str) -> Option<PathBuf>) -> Option<Cgroup> {
        let mut dirs = BTreeMap::new();
        for line in table.lines() {
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?.trim_start_matches('/'));
            if id == "0" && unified {
                return Some(Cgroup::V2(Path::new(ROOT).join(path)));
            }
            for controller in controllers.split(',').filter(|c| !c.is_empty() && !c.contains('=')) {
                if let Some(mount) = mount_of(controller) {
                    dirs.insert(controller.to_owned(), mount.join(path));
                }
            }
        }
        (!dirs.is_empty()).then_some(Cgroup::V1(dirs))
    }

    /// A v1 controller's directory.
    pub fn v1(&self, controller: &str) -> Option<&Path> {
        match self {
            Cgroup::V1(dirs) => dirs.get(controller).map(PathBuf::as_path),
            Cgroup::V2(_) => None,
        }
    }
}

/// Where a v1 hierarchy is mounted: under its controller's name, by a universal convention (it may be a link to a shared one).
fn mount_of(controller: &str) -> Option<PathBuf> {
    let dir = Path::new(ROOT).join(controller);
    dir.is_dir().then_some(dir)
}

/// The directories of an existing cgroup by its path, for whoever wants to be in it: one in each hierarchy that has it.
pub fn existing(path: &str) -> Vec<PathBuf> {
    let below = path.trim_start_matches('/');
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Some(root.join(below)).filter(|dir| dir.is_dir()).into_iter().collect();
    }
    let Ok(hierarchies) = std::fs::read_dir(root) else { return Vec::new() };
    hierarchies.filter_map(Result::ok).map(|entry| entry.path().join(below)).filter(|dir| dir.is_dir()).collect()
}

/// A file of a cgroup, if it is there.
pub fn read(dir: &Path, file: &str) -> Option<String> {
    let mut text = String::new();
    // Not read_to_string(path), which asks for the size first, and that is 0 here.
    File::open(dir.join(file)).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

/// A file with one number; `max` is all ones. A file that is not there counts as 0.
pub fn number(dir: &Path, file: &str) -> u64 {
    match read(dir, file).as_deref().map(str::trim) {
        Some("max") => u64::MAX,
        Some(text) => text.parse().unwrap_or(0),
        None => 0,
    }
}

/// A file of names and numbers, one pair a line.
pub fn table(dir: &Path, file: &str) -> BTreeMap<String, u64> {
    read(dir, file).map(|text| pairs(&text)).unwrap_or_default()
}

fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| line.split_once(' ').and_then(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)));
    text.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_the_kernels_table() {
        let v1 = "12:memory:/a/b\n3:cpu,cpuacct:/a/b\n1:name=systemd:/x\n0::/x\n";
        let found = Cgroup::parse(v1, false, |c| Some(Path::new("/cg").join(c))).expect("a cgroup");
        assert_eq!(found.v1("cpuacct"), Some(Path::new("/cg/cpuacct/a/b")));
        assert_eq!(found.v1("systemd"), None);
        let v2 = Cgroup::parse("0::/pod/c\n", true, |_| None);
        assert_eq!(v2, Some(Cgroup::V2("/sys/fs/cgroup/pod/c".into())));
        assert_eq!(Cgroup::parse("0::/x\n", false, |_| None), None, "a hybrid machine without controllers");
    }

    #[test]
    fn files_of_pairs() {
        let table = pairs("anon 4096\nfile 0\nbroken\nodd x\n");
        assert_eq!(table.into_iter().collect::<Vec<_>>(), [("anon".into(), 4096), ("file".into(), 0)]);
    }
}
