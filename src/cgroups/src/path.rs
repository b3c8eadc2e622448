//! Where a container's cgroup lies: the rules of `linux.cgroupsPath`.
//!
//! As runc with cgroupfs, tried on runc 1.1 and read in 1.5:
//! * absolute: below the root of each hierarchy;
//! * relative: below the cgroup of the runtime itself, in each hierarchy. On a machine with only cgroup v2 below the
//!   *parent* of that cgroup, because a cgroup with processes cannot give controllers to cgroups below it;
//! * missing or empty: as the relative path `ID`;
//! * with `..`: refused. runc cuts such a path off at the top and goes on; no engine sends one, and what it means to leave
//!   should not be guessed (contract D.3).

use crate::{Error, Hierarchy, Mode};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

const PROPERTY: &str = "linux.cgroupsPath";

/// The longest name of a cgroup (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// A checked cgroup path, not yet bound to a hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CgroupPath {
    absolute: bool,
    /// Without `.` and `..`, not empty, no leading slash.
    inner: PathBuf,
}

impl CgroupPath {
    pub(crate) fn parse(path: Option<&Path>, id: &str) -> Result<CgroupPath, Error> {
        let path = path.filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(id));
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(Error::invalid(PROPERTY, format!("{path:?} contains \"..\"; name the cgroup directly")));
        }
        let inner = clean(path);
        if inner.as_os_str().is_empty() {
            let whose = if path.is_absolute() { "the root of the hierarchy" } else { "the runtime's own cgroup" };
            return Err(Error::invalid(
                PROPERTY,
                format!("{path:?} names {whose}; give the container a cgroup of its own, as \"/containers/{id}\""),
            ));
        }
        for name in inner.iter() {
            if let Some(reason) = bad_name(name) {
                return Err(Error::invalid(PROPERTY, format!("{path:?} {reason}")));
            }
        }
        Ok(CgroupPath { absolute: path.is_absolute(), inner })
    }

    /// The path inside a hierarchy, without leading slash.
    pub(crate) fn within(&self, hierarchy: &Hierarchy, mode: Mode) -> PathBuf {
        if self.absolute {
            return self.inner.clone();
        }
        let mut base = clean(&hierarchy.own);
        if mode == Mode::V2 {
            base.pop();
        }
        base.join(&self.inner)
    }
}

/// Why a name cannot be a cgroup's.
fn bad_name(name: &OsStr) -> Option<&'static str> {
    let bytes = name.as_bytes();
    if bytes.len() > NAME_MAX {
        return Some("has a name of more than 255 bytes");
    }
    // The kernel refuses a newline, which would make /proc/PID/cgroup ambiguous.
    bytes.iter().any(|b| *b == b'\n' || *b == 0).then_some("has a newline or a NUL in it")
}

/// Resolves `.` and `..` without looking at the file system; `..` at the top stays at the top. No leading slash.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Version;

    fn within(path: Option<&str>, own: &str, mode: Mode) -> Result<String, String> {
        let hierarchy = Hierarchy { version: Version::V1, controllers: vec![], mount: "/m".into(), own: own.into() };
        CgroupPath::parse(path.map(Path::new), "box")
            .map(|p| p.within(&hierarchy, mode).to_str().unwrap().to_owned())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn absolute_relative_and_missing() {
        for (path, own, v1, v2) in [
            (Some("/a/b"), "/user/s", "a/b", "a/b"),
            (Some("a/b"), "/user/s", "user/s/a/b", "user/a/b"),
            (Some("a"), "/", "a", "a"),
            (Some(""), "/user/s", "user/s/box", "user/box"),
            (None, "/user/s", "user/s/box", "user/box"),
            (Some("//a//./b/"), "/", "a/b", "a/b"),
        ] {
            assert_eq!(within(path, own, Mode::Hybrid).as_deref(), Ok(v1), "{path:?}");
            assert_eq!(within(path, own, Mode::V1).as_deref(), Ok(v1), "{path:?}");
            assert_eq!(within(path, own, Mode::V2).as_deref(), Ok(v2), "{path:?}");
        }
    }

    #[test]
    fn dots_are_refused() {
        for path in ["/../../etc", "../../x", "/a/../b", ".."] {
            let text = within(Some(path), "/own/deep", Mode::V1).unwrap_err();
            assert!(text.starts_with("linux.cgroupsPath: ") && text.contains("\"..\""), "{text}");
        }
        // Our own cgroup lies outside of the cgroup namespace's root.
        assert_eq!(within(Some("x"), "/../../up", Mode::V1).as_deref(), Ok("up/x"));
    }

    #[test]
    fn the_root_and_the_runtimes_own_cgroup_are_not_for_containers() {
        for path in ["/", "//."] {
            let text = within(Some(path), "/own", Mode::V1).unwrap_err();
            assert!(text.starts_with("linux.cgroupsPath: ") && text.contains("root of the hierarchy"), "{text}");
        }
        assert!(within(Some("."), "/own", Mode::V1).unwrap_err().contains("own cgroup"));
    }

    #[test]
    fn names_the_kernel_refuses() {
        assert!(within(Some("/a\nb"), "/", Mode::V1).unwrap_err().contains("newline"));
        assert!(within(Some(&"x".repeat(256)), "/", Mode::V1).unwrap_err().contains("255"));
    }
}
