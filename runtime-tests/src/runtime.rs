//! The runtime under test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary under test, and who it says it is.
pub struct Runtime {
    /// Absolute path of the binary.
    pub path: PathBuf,
    /// First word of `--version`: `rrt`, `runc`, `crun`.
    pub name: String,
    /// The numbers of `--version`.
    pub version: Vec<u32>,
    /// Global flags that every command on a container gets.
    pub flags: Vec<String>,
}

/// The runtime that `RUNTIME` names, or the `rrt` of this workspace.
///
/// # Panics
/// When there is no such binary, or it does not tell its version.
#[must_use]
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let path = match std::env::var_os("RUNTIME") {
            Some(name) => search(&name),
            None => std::env::var_os("RRT_BIN").map_or_else(|| newest_build("rrt"), PathBuf::from),
        };
        let out = Command::new(&path).arg("--version").output();
        let out = out.unwrap_or_else(|e| panic!("{} --version: {e}", path.display()));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let mut words = text.lines().next().unwrap_or_default().split(" version ");
        let name = words.next().unwrap_or_default().to_owned();
        let version = crate::skip::version(words.next().unwrap_or_default());
        assert!(!version.is_empty(), "{} --version printed {text:?}", path.display());
        let flags = std::env::var("RT_FLAGS").unwrap_or_default();
        Runtime { path, name, version, flags: flags.split_whitespace().map(str::to_owned).collect() }
    })
}

impl Runtime {
    /// Whether this is the project's own runtime, of which the tests expect more than of the others: errors of one
    /// line that name the property and the cure.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.name == "rrt"
    }

    /// Whether the tests run with the systemd driver, which has other places for cgroups.
    #[must_use]
    pub fn uses_systemd(&self) -> bool {
        self.flags.iter().any(|flag| flag == "--systemd-cgroup")
    }
}

fn search(name: &OsString) -> PathBuf {
    if Path::new(name).components().count() > 1 {
        return std::path::absolute(name).expect("the path that RUNTIME names");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("RUNTIME={} is not in PATH", name.display()))
}

/// The target directory this test was built in: a test binary lies in `TARGET/PROFILE/deps`.
pub(crate) fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("path of this test binary");
    exe.ancestors().nth(3).expect("a test binary lies three directories below the target directory").to_owned()
}

pub(crate) fn newest_build(name: &str) -> PathBuf {
    let musl = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let target = target_dir();
    let places = [
        target.join(&musl).join("release"),
        target.join(&musl).join("debug"),
        target.join("release"),
        target.join("debug"),
    ];
    let age = |p: &PathBuf| p.metadata().and_then(|m| m.modified()).ok();
    let builds = places.into_iter().map(|p| p.join(name)).filter(|p| p.is_file());
    builds.max_by_key(age).unwrap_or_else(|| {
        panic!(
            "no {name} below {}: cargo build -p {name}, or name one in RUNTIME, RRT_BIN or BERTH_BIN",
            target.display()
        )
    })
}
