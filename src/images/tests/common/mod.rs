//! What the tests of containers' trees share.
#![allow(dead_code, reason = "each test uses a part")]

use rrt_images::snapshots::{Preparation, Snapshots};
use rrt_oci::image::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes with the value.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new(name: &str) -> Temp {
        // Tests of one process run at once, and two may choose one name.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("rrt-images-{name}-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Temp(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Can this process make mounts?
pub fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root, or a user namespace");
    }
    root
}

/// Is this program there? Says why a test is skipped.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: no {program} here");
    }
    found
}

/// A file system of its own, on a loop device.
pub struct Disk {
    pub mounted: PathBuf,
    _temp: Temp,
}

impl Disk {
    pub fn new(name: &str, make: &[&str], megabytes: u64) -> Option<Disk> {
        let temp = Temp::new(name);
        let (image, mounted) = (temp.0.join("image"), temp.0.join("mounted"));
        fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        fs::create_dir(&mounted).unwrap();
        let quiet = |c: &mut Command| c.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
        if !quiet(Command::new(make[0]).args(&make[1..]).arg(&image)) {
            eprintln!("skipped: {} does not run here", make[0]);
            return None;
        }
        if !quiet(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted)) {
            eprintln!("skipped: no loop mount of {name} here");
            return None;
        }
        Some(Disk { mounted, _temp: temp })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}

pub fn digest(n: usize) -> Digest {
    format!("sha256:{n:064x}").parse().unwrap()
}

/// Commits a layer that `fill` makes, given its directory.
pub fn layer(snapshots: &Snapshots, layers: &[Digest], fill: impl FnOnce(&Path)) {
    let Preparation::Unpack(prepared) = snapshots.prepare(layers).unwrap() else { panic!("there already") };
    fill(&prepared.path());
    snapshots.commit(prepared, &[]).unwrap();
}

/// Runs a shell's lines in a directory.
pub fn shell(directory: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
