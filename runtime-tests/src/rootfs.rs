//! The root file system of the containers: a static busybox and the guest program.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const APPLETS: [&str; 35] = [
    "cat", "chmod", "chown", "cp", "dd", "echo", "env", "false", "head", "hostname", "id", "ip", "kill", "ln", "ls",
    "mkdir", "mknod", "mount", "mv", "ps", "readlink", "rm", "sh", "sleep", "stat", "stty", "test", "touch", "true",
    "tty", "ulimit", "umount", "wc", "which", "yes",
];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";

/// Fills the directory `root`, which must not exist.
pub(crate) fn populate(root: &Path) -> io::Result<()> {
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    place(&busybox(), &root.join("bin/busybox"))?;
    place(guest(), &root.join("bin/guest"))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), "root:x:0:\nalice:x:1000:\n")
}

/// A hard link, for it costs nothing; a copy where the link would cross file systems.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

fn busybox() -> PathBuf {
    let path = std::env::var_os("RT_BUSYBOX").map_or("/bin/busybox".into(), PathBuf::from);
    assert!(path.is_file(), "{} is missing: install a static busybox, or name one in RT_BUSYBOX", path.display());
    path.canonicalize().expect("path of busybox")
}

/// The guest program, built once for all test binaries: it must be static, and these tests need not be.
/// `RT_GUEST` names a ready one for machines without cargo.
fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| std::env::var_os("RT_GUEST").map_or_else(build_guest, PathBuf::from))
}

fn build_guest() -> PathBuf {
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    // A target directory of its own, or the build would wait for the cargo that runs these tests.
    let target = crate::runtime::target_dir().join("guest");
    let guest = target.join(&triple).join("debug/guest");
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(&target).expect("target directory of the guest");
    let lock = fs::File::create(target.join("lock")).expect("lock file of the guest");
    lock.lock().expect("lock on the guest");
    if !newer(&guest, &[package.join("src/bin/guest.rs"), package.join("Cargo.toml")]) {
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "runtime-tests", "--bin", "guest", "--target", &triple]);
        build.arg("--target-dir").arg(&target).current_dir(package);
        let status = build.status().expect("cargo");
        assert!(status.success(), "{build:?}: {status}; is the musl target installed (rustup target add {triple})?");
        // Cargo leaves the file alone when nothing it depends on has changed.
        fs::File::options()
            .append(true)
            .open(&guest)
            .and_then(|f| f.set_modified(std::time::SystemTime::now()))
            .expect("touch the guest");
    }
    guest
}

fn newer(file: &Path, sources: &[PathBuf]) -> bool {
    let age = |p: &Path| p.metadata().and_then(|m| m.modified()).ok();
    sources.iter().all(|s| age(file) > age(s))
}
