//! btrfs: a subvolume for each layer, a snapshot of the one below; a container is a snapshot of the highest. By the program `btrfs`:
//! the calls are ioctls with structures of their own, and there is one for each layer only.

use super::overlay::run;
use super::{Driver, Error, View, Whiteouts, Written, copy::Copy};
use crate::tree;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The driver: see above.
pub(super) struct Btrfs;

/// Linux: BTRFS_FIRST_FREE_OBJECTID, the inode of each subvolume's root.
const ROOT_INODE: u64 = 256;

fn subvolume(arguments: &[&str], paths: &[&Path]) -> Result<(), Error> {
    run(Command::new("btrfs").args(["--quiet", "subvolume"]).args(arguments).args(paths))
}

impl Driver for Btrfs {
    fn name(&self) -> &'static str {
        "btrfs"
    }

    fn whiteouts(&self) -> Whiteouts {
        Whiteouts::Apply
    }

    fn make_layer(&self, fs: &Path, below: Option<&Path>) -> Result<(), Error> {
        match below {
            Some(below) => subvolume(&["snapshot"], &[below, fs]),
            None => {
                subvolume(&["create"], &[fs])?;
                let mode = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(fs, mode).map_err(|e| Error::io("chmod", fs, e))
            }
        }
    }

    fn view(&self, layers: &[PathBuf], scratch: &Path) -> Result<View, Error> {
        Copy.view(layers, scratch)
    }

    fn make_container(&self, place: &Path, layers: &[PathBuf]) -> Result<(), Error> {
        self.make_layer(&self.own(place), layers.last().map(PathBuf::as_path))
    }

    fn mount(&self, place: &Path, _: &[PathBuf]) -> Result<PathBuf, Error> {
        Ok(self.own(place))
    }

    fn unmount(&self, _: &Path) -> Result<(), Error> {
        Ok(())
    }

    fn written(&self, place: &Path, _: &[PathBuf]) -> Result<Written, Error> {
        Ok(Written::Whole(View::open(&self.own(place))?))
    }

    fn own(&self, place: &Path) -> PathBuf {
        place.join("fs")
    }

    fn delete(&self, path: &Path) -> Result<(), Error> {
        let fs = path.join("fs");
        if std::fs::symlink_metadata(&fs).is_ok_and(|found| found.is_dir() && found.ino() == ROOT_INODE) {
            // One with subvolumes of the container's own in it is removed file by file; an empty one goes by rmdir(2) too (Linux 4.18).
            let _ = subvolume(&["delete"], &[&fs]);
        }
        tree::remove(path)
    }

    fn info(&self) -> Vec<(String, String)> {
        let version = Command::new("btrfs").arg("--version").output();
        let text = version.map(|o| String::from_utf8_lossy(&o.stdout).lines().next().unwrap_or_default().to_owned());
        vec![("Btrfs Version".to_owned(), text.unwrap_or_default())]
    }
}
