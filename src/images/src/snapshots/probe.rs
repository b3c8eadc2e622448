//! Which driver works here. Each is tried, not guessed from versions.

use super::home::{make_directory, scratch};
use super::mount::Overlay;
use super::{Driver, Error, btrfs::Btrfs, copy::Copy, overlay};
use crate::tree;
use rustix::fs::{CWD, FileType, Mode};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Their names, in the order in which they are tried.
const NAMES: [&str; 4] = ["overlay2", "fuse-overlayfs", "btrfs", "copy"];

/// What `statfs(2)` calls the file systems that people put a store on.
const MAGIC: [(u64, &str); 10] = [
    (0xef53, "extfs"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x794c_7630, "overlayfs"),
    (0x6969, "nfs"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
    (0x6573_5546, "fuse"),
];

/// The driver of the root whose `snapshots` is `top`: `choice`, the one it was begun with, or the first that works.
pub(super) fn choose(top: &Path, choice: Option<&str>) -> Result<Arc<dyn Driver>, Error> {
    let stored = fs::read_to_string(top.join("driver")).ok().map(|name| name.trim().to_owned());
    if let Some(name) = choice {
        let driver = try_driver(top, canonical(name))?;
        if stored.is_none() {
            store(top, driver.name())?;
        }
        return Ok(driver);
    }
    if let Some(name) = &stored {
        return known(top, name);
    }
    let mut reasons = Vec::new();
    for name in NAMES {
        // A copy needs as much again for each layer; btrfs alone is worth it without overlay.
        match try_driver(top, name) {
            Ok(driver) => {
                store(top, name)?;
                return Ok(driver);
            }
            Err(e) => reasons.push(e.to_string()),
        }
    }
    Err(Error::Driver { name: NAMES.join(", "), why: reasons.join("; ") })
}

/// Docker's, podman's and our own names for the same.
fn canonical(name: &str) -> &str {
    match name {
        "overlay" | "overlayfs" => "overlay2",
        "vfs" | "native" => "copy",
        other => other,
    }
}

fn store(top: &Path, name: &str) -> Result<(), Error> {
    // Several threads may open a new root at once: each writes a file of its own.
    let new = scratch(&top.join(name));
    let path = top.join("driver");
    let tmp = top.join(name).join("tmp");
    make_directory(&tmp)?;
    fs::write(&new, format!("{name}\n")).map_err(|e| Error::io("write", &new, e))?;
    fs::rename(&new, &path).map_err(|e| Error::io("rename to", &path, e))
}

/// A driver that worked before: not tried again, each command would pay for it.
fn known(top: &Path, name: &str) -> Result<Arc<dyn Driver>, Error> {
    let home = top.join(name);
    Ok(match name {
        "overlay2" => Arc::new(overlay::Kernel { home, user: in_user_namespace() }),
        "fuse-overlayfs" => Arc::new(overlay::Fuse { home }),
        "btrfs" => Arc::new(Btrfs),
        "copy" => Arc::new(Copy),
        _ => {
            let why = format!("there is no such driver; there are {}", NAMES.join(", "));
            return Err(Error::Driver { name: name.to_owned(), why });
        }
    })
}

fn try_driver(top: &Path, name: &str) -> Result<Arc<dyn Driver>, Error> {
    let driver = known(top, name)?;
    let failed = |why: String| Error::Driver { name: name.to_owned(), why };
    let home = top.join(name);
    let is_new = !home.exists();
    make_directory(&home)?;
    make_directory(&home.join("tmp"))?;
    let tried = match name {
        "overlay2" => try_overlay(&home),
        "fuse-overlayfs" => try_fuse(&home),
        "btrfs" => try_btrfs(&home),
        _ => Ok(()),
    };
    if tried.is_err() && is_new {
        let _ = tree::remove(&home);
    }
    tried.map(|()| driver).map_err(|e| failed(e.to_string()))
}

/// Mounts one, and looks whether a deletion becomes a whiteout, which needs the upper directory's file system to have what overlay
/// needs (d_type, extended attributes, RENAME_WHITEOUT).
fn try_overlay(home: &Path) -> Result<(), Error> {
    let user = in_user_namespace();
    let place = scratch(home);
    let result = (|| {
        make_directory(&place)?;
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.join(name));
        for directory in [&lower, &lower.join("d"), &upper, &work] {
            make_directory(directory)?;
        }
        if !has_d_type(&lower)? {
            return Err(no_feature(home, "without d_type (XFS: made with ftype=0)"));
        }
        let overlay = Overlay { lower: std::slice::from_ref(&lower), upper: Some((&upper, &work)), userxattr: user };
        let mount = overlay.detached(&place.join("mount"))?;
        rustix::fs::unlinkat(&mount, "d", rustix::fs::AtFlags::REMOVEDIR)
            .map_err(|e| Error::io("remove in an overlay", &upper, e))?;
        rustix::fs::mkdirat(&mount, "d", Mode::RWXU).map_err(|e| Error::io("create in an overlay", &upper, e))?;
        let key = if user { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
        match tree::xattr(&upper.join("d"), key.as_bytes()) {
            Ok(Some(value)) if value == b"y" => {}
            _ => return Err(no_feature(home, "that can't keep overlay's extended attributes")),
        }
        // Unpacking makes whiteouts by mknod.
        let path = upper.join("w");
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|e| Error::io("make a whiteout", &path, e))
    })();
    let _ = super::mount::unmount(&place.join("mount"));
    let _ = tree::remove(&place);
    result
}

fn no_feature(home: &Path, what: &str) -> Error {
    let text = format!("a file system ({}) {what}", backing(home));
    Error::io("put layers on", home, io::Error::other(text))
}

fn has_d_type(directory: &Path) -> Result<bool, Error> {
    let failed = |e| Error::io("read the directory", directory, e);
    let fd = super::home::open_directory(directory)?;
    for entry in rustix::fs::Dir::read_from(&fd).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_bytes() == b"d" {
            return Ok(entry.file_type() == FileType::Directory);
        }
    }
    Ok(true)
}

fn try_fuse(home: &Path) -> Result<(), Error> {
    let driver = overlay::Fuse { home: home.to_owned() };
    let place = scratch(home);
    let result = (|| {
        make_directory(&place)?;
        let lower = place.join("lower");
        make_directory(&lower)?;
        driver.make_container(&place, std::slice::from_ref(&lower))?;
        driver.mount(&place, std::slice::from_ref(&lower))?;
        driver.unmount(&place)
    })();
    let _ = driver.unmount(&place);
    let _ = tree::remove(&place);
    result
}

fn try_btrfs(home: &Path) -> Result<(), Error> {
    if backing(home) != "btrfs" {
        return Err(no_feature(home, "that is not btrfs"));
    }
    let version = Command::new("btrfs").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match version {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Error::Program { program: "btrfs".to_owned(), said: "not found: install btrfs-progs".to_owned() }),
    }
}

/// The file system below `path`, as Docker's `info` calls it.
pub(super) fn backing(path: &Path) -> String {
    let Ok(found) = rustix::fs::statfs(path) else { return "unknown".to_owned() };
    let magic = found.f_type as u64 & 0xffff_ffff;
    MAGIC
        .iter()
        .find(|(known, _)| *known == magic)
        .map_or_else(|| format!("0x{magic:x}"), |(_, name)| (*name).to_owned())
}

/// Is this a user namespace other than the machine's? There the `trusted.` attributes are out of reach.
pub(super) fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    !whole || !rustix::process::geteuid().is_root()
}
