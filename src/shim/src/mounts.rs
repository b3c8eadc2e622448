//! The root file system that a `Create` request describes: mounted by us before the runtime sees the bundle, and taken off again.

use crate::error::{Code, Error};
use crate::log;
use crate::proto::Mount;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// mount(2) reads one page of options.
const PAGE: usize = 4096;

/// One mount's options, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    flags: MountFlags,
    propagation: MountPropagationFlags,
    /// For the file system.
    data: Vec<String>,
}

/// Plain options: their flag, and whether they clear it.
const FLAGS: [(&str, MountFlags, bool); 20] = [
    ("async", MountFlags::SYNCHRONOUS, true),
    ("atime", MountFlags::NOATIME, true),
    ("bind", MountFlags::BIND, false),
    ("dev", MountFlags::NODEV, true),
    ("diratime", MountFlags::NODIRATIME, true),
    ("dirsync", MountFlags::DIRSYNC, false),
    ("exec", MountFlags::NOEXEC, true),
    ("noatime", MountFlags::NOATIME, false),
    ("nodev", MountFlags::NODEV, false),
    ("nodiratime", MountFlags::NODIRATIME, false),
    ("noexec", MountFlags::NOEXEC, false),
    ("norelatime", MountFlags::RELATIME, true),
    ("nostrictatime", MountFlags::STRICTATIME, true),
    ("nosuid", MountFlags::NOSUID, false),
    ("relatime", MountFlags::RELATIME, false),
    ("ro", MountFlags::RDONLY, false),
    ("rw", MountFlags::RDONLY, true),
    ("strictatime", MountFlags::STRICTATIME, false),
    ("suid", MountFlags::NOSUID, true),
    ("sync", MountFlags::SYNCHRONOUS, false),
];

fn parse(options: &[String]) -> Result<Parsed, Error> {
    let mut parsed =
        Parsed { flags: MountFlags::empty(), propagation: MountPropagationFlags::empty(), data: Vec::new() };
    for option in options {
        if let Some((_, flag, clears)) = FLAGS.iter().find(|(name, ..)| name == option) {
            parsed.flags.set(*flag, !clears);
            continue;
        }
        match option.as_str() {
            "defaults" => {}
            "rbind" => parsed.flags |= MountFlags::BIND | MountFlags::REC,
            "shared" | "rshared" => parsed.propagation |= MountPropagationFlags::SHARED,
            "private" | "rprivate" => parsed.propagation |= MountPropagationFlags::PRIVATE,
            "slave" | "rslave" => parsed.propagation |= MountPropagationFlags::DOWNSTREAM,
            "unbindable" | "runbindable" => parsed.propagation |= MountPropagationFlags::UNBINDABLE,
            "loop" | "remount" => return Err(unsupported(option)),
            other if other.starts_with("X-containerd.") => return Err(unsupported(option)),
            other if other.starts_with("uidmap=") || other.starts_with("gidmap=") => return Err(unsupported(option)),
            _ => parsed.data.push(option.clone()),
        }
        if option.starts_with('r') && !parsed.propagation.is_empty() {
            parsed.propagation |= MountPropagationFlags::REC;
        }
    }
    Ok(parsed)
}

fn unsupported(option: &str) -> Error {
    let message = format!("rootfs mount option {option:?} is not supported by this shim: use a snapshotter without it");
    Error::new(Code::Unimplemented, message)
}

/// Mounts one after the other on `rootfs` (or below it, by `target`). What has been mounted stays when one fails: [`unmount_all`].
///
/// # Errors
/// An option that is not supported, or `mount(2)`.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), Error> {
    for entry in mounts {
        let target = target(entry, rootfs)?;
        mount_one(entry, &target)?;
    }
    Ok(())
}

/// containerd's own targets are relative, and must not lead out of the bundle.
fn target(entry: &Mount, rootfs: &Path) -> Result<PathBuf, Error> {
    let below = Path::new(entry.target.trim_start_matches('/'));
    if below.components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
        return Err(Error::new(
            Code::InvalidArgument,
            format!("rootfs mount target {:?}: no . or .. in it", entry.target),
        ));
    }
    Ok(if below.as_os_str().is_empty() { rootfs.to_owned() } else { rootfs.join(below) })
}

fn mount_one(entry: &Mount, target: &Path) -> Result<(), Error> {
    let failed = |e: Errno| {
        let Mount { r#type, source, options, .. } = entry;
        Error::system(format_args!("mount {type} {source:?} on {} ({})", target.display(), options.join(",")), e)
    };
    let mut parsed = parse(&entry.options)?;
    // Many layers: names from their common directory are shorter.
    let length: usize = parsed.data.iter().map(|text| text.len() + 1).sum();
    let common = if entry.r#type == "overlay" && length >= PAGE - 512 { shorten(&mut parsed.data) } else { None };
    let data = CString::new(parsed.data.join(",")).map_err(|_| failed(Errno::INVAL))?;
    if data.as_bytes().len() >= PAGE {
        return Err(failed(Errno::NAMETOOLONG));
    }
    let call = || mount(entry.source.as_str(), target, entry.r#type.as_str(), parsed.flags, Some(data.as_c_str()));
    match common {
        // One thread, no await: nobody sees the other directory.
        Some(dir) => in_dir(Path::new(&dir), call).map_err(failed)?,
        None => call().map_err(failed)?,
    }
    if !parsed.propagation.is_empty() {
        mount_change(target, parsed.propagation).map_err(failed)?;
    }
    if parsed.flags.contains(MountFlags::BIND | MountFlags::RDONLY) {
        // A bind mount takes over its source's flags first.
        mount_remount(target, parsed.flags, "").map_err(failed)?;
    }
    Ok(())
}

/// Calls with another working directory.
fn in_dir(dir: &Path, call: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let back = rustix::fs::openat(CWD, ".", flags, rustix::fs::Mode::empty())?;
    rustix::process::chdir(dir)?;
    let result = call();
    rustix::process::fchdir(back)?;
    result
}

/// Makes the directories of `lowerdir` relative to the one they have in common, and returns that.
fn shorten(data: &mut [String]) -> Option<String> {
    let entry = data.iter_mut().find(|text| text.starts_with("lowerdir="))?;
    let dirs: Vec<&str> = entry.trim_start_matches("lowerdir=").split(':').collect();
    let (first, rest) = dirs.split_first()?;
    let mut common = first.len();
    for dir in rest {
        common = first.bytes().zip(dir.bytes()).take(common).take_while(|(a, b)| a == b).count();
    }
    let common = first.get(..common)?.rfind('/')?;
    if common == 0 || rest.is_empty() {
        return None;
    }
    let dir = first[..common].to_owned();
    let relative: Vec<&str> = dirs.iter().map(|dir| &dir[common + 1..]).collect();
    *entry = format!("lowerdir={}", relative.join(":"));
    Some(dir)
}

/// Takes everything off that is mounted on `rootfs` or below it.
///
/// # Errors
/// Something is in use, still after a while. A mount that somebody else has taken off is none.
pub async fn unmount_all(rootfs: &Path) -> Result<(), Error> {
    for point in mount_points(rootfs) {
        let mut tries = 0;
        loop {
            match unmount(&point, UnmountFlags::NOFOLLOW) {
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => break,
                // The last process may have gone a moment ago, and the kernel is not ready with it.
                Err(Errno::BUSY) if tries < 50 => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(e) => return Err(Error::system(format_args!("unmount {}", point.display()), e)),
            }
            tries += 1;
        }
    }
    Ok(())
}

/// Mount points at and below a path, the last mounted first.
fn mount_points(below: &Path) -> Vec<PathBuf> {
    let Ok(table) = std::fs::read("/proc/self/mountinfo") else {
        log::warn("cannot read /proc/self/mountinfo");
        return vec![below.to_owned()];
    };
    // The path may be a symlink's; the table has real ones.
    let below = std::fs::canonicalize(below).unwrap_or_else(|_| below.to_owned());
    let points = table.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(unescape);
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(&below)).collect();
    points.reverse();
    points
}

/// `\040` is a space. proc(5)
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match octal.filter(|_| byte == b'\\') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &[&str]) -> Vec<String> {
        text.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn flags_propagation_and_data() {
        let parsed = parse(&options(&["ro", "nosuid", "suid", "rbind", "rslave", "lowerdir=/a", "index=off"]));
        let parsed = parsed.expect("supported");
        assert_eq!(parsed.flags, MountFlags::RDONLY | MountFlags::BIND | MountFlags::REC);
        assert_eq!(parsed.propagation, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC);
        assert_eq!(parsed.data, ["lowerdir=/a", "index=off"]);
        for option in ["loop", "uidmap=0:1:1", "X-containerd.mkfs"] {
            assert!(parse(&options(&[option])).is_err_and(|e| e.message.contains(option)), "{option}");
        }
    }

    #[test]
    fn many_layers_get_short_names() {
        let mut data = options(&["upperdir=/x", "lowerdir=/s/1/fs:/s/12/fs:/s/2/fs"]);
        assert_eq!(shorten(&mut data).as_deref(), Some("/s"));
        assert_eq!(data[1], "lowerdir=1/fs:12/fs:2/fs");
        assert_eq!(shorten(&mut options(&["lowerdir=/a/fs:/b/fs"])), None, "only the root in common");
        assert_eq!(shorten(&mut options(&["lowerdir=/a/fs"])), None);
    }

    #[test]
    fn targets_stay_inside() {
        let at = |text: &str| target(&Mount { target: text.into(), ..Mount::default() }, Path::new("/b/rootfs"));
        assert_eq!(at(""), Ok("/b/rootfs".into()));
        assert_eq!(at("/data"), Ok("/b/rootfs/data".into()));
        assert!(at("../x").is_err());
    }

    #[test]
    fn names_with_spaces() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new(r"/a b\c"));
    }
}
