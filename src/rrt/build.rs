//! Puts the commit into `rrt --version`: `RRT_COMMIT` if set (a release from a tarball), else what `.git/HEAD` names.
//! No git program is needed, and none of it missing is an error.

use std::path::Path;

fn main() {
    leave_out_unwind_tables();
    println!("cargo::rerun-if-env-changed=RRT_COMMIT");
    let commit = std::env::var("RRT_COMMIT").ok().or_else(|| head(Path::new("../../.git")));
    println!("cargo::rustc-env=RRT_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

fn head(git: &Path) -> Option<String> {
    let head = read(&git.join("HEAD"))?;
    let Some(reference) = head.trim().strip_prefix("ref: ") else { return Some(head.trim().to_owned()) };
    if let Some(commit) = read(&git.join(reference)) {
        return Some(commit.trim().to_owned());
    }
    // `git gc` moves references into one file of "COMMIT NAME" lines.
    let packed = read(&git.join("packed-refs"))?;
    packed.lines().find_map(|line| line.strip_suffix(reference)?.strip_suffix(' ').map(str::to_owned))
}

/// Reads a file and asks to be run again when it changes. A file that is not there must not be named to cargo, which
/// would then build at every call.
fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    println!("cargo::rerun-if-changed={}", path.display());
    Some(text)
}

/// In the static binary that is shipped: nothing unwinds there (`panic = "abort"`), and they are a tenth of it.
fn leave_out_unwind_tables() {
    println!("cargo::rerun-if-changed=no-unwind-tables.ld");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    if is("CARGO_CFG_TARGET_ENV", "musl") && is("PROFILE", "release") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/no-unwind-tables.ld");
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{script}");
    }
}
