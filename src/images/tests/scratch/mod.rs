//! A directory for a test, with a layer's directory in it, and something outside that no layer may touch.

use rrt_images::layer::{Error, Options, Target, Unpacked, Whiteouts, unpack};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Debug)]
pub struct Scratch(PathBuf);

/// A file system that is unmounted at its end.
pub struct Mounted(PathBuf);

#[allow(dead_code, reason = "each file that has this module uses a part of it")]
impl Scratch {
    pub fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("berth-layer-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("layer")).unwrap();
        fs::create_dir(path.join("outside")).unwrap();
        fs::write(path.join("outside/file"), "outside").unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn layer(&self) -> PathBuf {
        self.0.join("layer")
    }

    pub fn unpack(&self, archive: &[u8], whiteouts: Whiteouts, options: &Options) -> Result<Unpacked, Error> {
        let directory = File::open(self.layer()).unwrap();
        unpack(archive, &Target { directory: directory.as_fd(), whiteouts }, options)
    }

    /// The error's text, for each way whiteouts are dealt with.
    pub fn refused(&self, archive: super::archive::Archive) -> String {
        let archive = archive.end();
        let error = self.unpack(&archive, Whiteouts::Overlay, &Options::default()).unwrap_err().to_string();
        self.unpack(&archive, Whiteouts::Apply, &Options::default()).unwrap_err();
        error
    }

    /// The names in a directory of the layer, sorted.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.layer().join(directory)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn xattr(&self, name: &str, xattr: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 1000];
        let length = rustix::fs::lgetxattr(self.layer().join(name), xattr, value.as_mut_slice()).ok()?;
        value.truncate(length);
        Some(value)
    }

    /// All that is outside the layer, with its attributes.
    pub fn outside(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut directories = vec![self.0.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                if path == self.layer() {
                    continue;
                }
                let (mode, owner, links) = (metadata.mode(), (metadata.uid(), metadata.gid()), metadata.nlink());
                let data = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                let time = (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
                found.push(format!("{path:?} {mode:o} {owner:?} {links} {time:?} {data:?}"));
                if metadata.is_dir() {
                    directories.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// A tmpfs with these options; `None`, with a reason, where none can be mounted.
    pub fn small_disk(&self, options: &str) -> Option<Mounted> {
        let path = self.0.join("disk");
        fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no tmpfs can be mounted");
            return None;
        }
        Some(Mounted(path))
    }

    /// Runs the test of this name again, in a process of its own, through `command`; says whether this is that process.
    pub fn again(&self, test: &str, command: &[&str]) -> bool {
        const MARK: &str = "BERTH_LAYER_AGAIN";
        if std::env::var_os(MARK).is_some() {
            return true;
        }
        let mut program = Command::new(command[0]);
        let output =
            program.args(&command[1..]).arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
        let output = output.env(MARK, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if text.contains("unshare failed") {
            eprintln!("skipped: no user namespace: {text}");
            return false;
        }
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        false
    }

    pub fn in_user_namespace(&self, test: &str) -> bool {
        self.again(test, &["unshare", "--user", "--map-root-user"])
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[allow(dead_code, reason = "each file that has this module uses a part of it")]
impl Mounted {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
