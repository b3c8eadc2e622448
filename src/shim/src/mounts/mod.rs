//! The root file system that a `Create` request describes: mounted by us before the runtime sees the bundle, and taken off again.
//!
//! Options are mount(8)'s, and three that are containerd's own: `loop` (with `direct-io`), `uidmap=` and `gidmap=`.

pub mod idmap;
mod loopback;

use crate::error::{Code, Error};
use crate::log;
use crate::proto::Mount;
use idmap::{Layers, Mapping};
use loopback::Loop;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
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
    /// The source is a file, for a loop device.
    looped: bool,
    /// Owners are to be mapped.
    mapping: Option<Mapping>,
    /// For the file system.
    data: Vec<String>,
}

/// Plain options: their flag, and whether they clear it.
const FLAGS: [(&str, MountFlags, bool); 22] = [
    ("async", MountFlags::SYNCHRONOUS, true),
    ("atime", MountFlags::NOATIME, true),
    ("bind", MountFlags::BIND, false),
    ("dev", MountFlags::NODEV, true),
    ("diratime", MountFlags::NODIRATIME, true),
    ("dirsync", MountFlags::DIRSYNC, false),
    ("exec", MountFlags::NOEXEC, true),
    ("mand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING, false),
    ("noatime", MountFlags::NOATIME, false),
    ("nodev", MountFlags::NODEV, false),
    ("nodiratime", MountFlags::NODIRATIME, false),
    ("noexec", MountFlags::NOEXEC, false),
    ("nomand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING, true),
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
    let mut parsed = Parsed {
        flags: MountFlags::empty(),
        propagation: MountPropagationFlags::empty(),
        looped: false,
        mapping: None,
        data: Vec::new(),
    };
    let (mut uids, mut gids) = (None, None);
    for option in options {
        if let Some((_, flag, clears)) = FLAGS.iter().find(|(name, ..)| name == option) {
            parsed.flags.set(*flag, !clears);
            continue;
        }
        match option.as_str() {
            "defaults" => {}
            "loop" => parsed.looped = true,
            "rbind" => parsed.flags |= MountFlags::BIND | MountFlags::REC,
            "shared" | "rshared" => parsed.propagation |= MountPropagationFlags::SHARED,
            "private" | "rprivate" => parsed.propagation |= MountPropagationFlags::PRIVATE,
            "slave" | "rslave" => parsed.propagation |= MountPropagationFlags::DOWNSTREAM,
            "unbindable" | "runbindable" => parsed.propagation |= MountPropagationFlags::UNBINDABLE,
            "remount" => return Err(unsupported(option)),
            // For containerd's mount manager, which takes them out before it calls a shim.
            other if other.starts_with("X-containerd.") => return Err(unsupported(option)),
            other => match (other.strip_prefix("uidmap="), other.strip_prefix("gidmap=")) {
                (Some(map), _) => uids = Some(map),
                (_, Some(map)) => gids = Some(map),
                _ => parsed.data.push(option.clone()),
            },
        }
        if option.starts_with('r') && !parsed.propagation.is_empty() {
            parsed.propagation |= MountPropagationFlags::REC;
        }
    }
    parsed.mapping = match (uids, gids) {
        (Some(uids), Some(gids)) => Some(Mapping::parse(uids, gids)?),
        (None, None) => None,
        _ => {
            let message = "rootfs mount options uidmap= and gidmap= belong together: give both";
            return Err(Error::new(Code::InvalidArgument, message));
        }
    };
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
        match resolve(entry, rootfs)? {
            None => mount_one(entry, rootfs, rootfs)?,
            Some(place) => mount_one(entry, &PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd())), rootfs)?,
        }
    }
    Ok(())
}

/// The place of a mount that is to be below `rootfs`. Its path may lead through what an image has put there before: a symlink in it is
/// one inside of `rootfs`, as for the container, and leads to nothing of the host's. openat2(2), RESOLVE_IN_ROOT
fn resolve(entry: &Mount, rootfs: &Path) -> Result<Option<OwnedFd>, Error> {
    let failed = |e: Errno| Error::system(format_args!("rootfs mount target {:?}", entry.target), e);
    let below = Path::new(entry.target.trim_start_matches('/'));
    if below.components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
        return Err(Error::new(
            Code::InvalidArgument,
            format!("rootfs mount target {:?}: no . or .. in it", entry.target),
        ));
    }
    if below.as_os_str().is_empty() {
        return Ok(None);
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(rootfs, flags | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
    openat2(root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
        .map(Some)
        .map_err(failed)
}

fn mount_one(entry: &Mount, target: &Path, rootfs: &Path) -> Result<(), Error> {
    let failed = |e: Errno| {
        let Mount { r#type, source, options, .. } = entry;
        let at = rootfs.join(entry.target.trim_start_matches('/'));
        Error::system(format_args!("mount {type} {source:?} on {} ({})", at.display(), options.join(",")), e)
    };
    if entry.r#type.starts_with("fuse.") || entry.r#type.starts_with("fuse3.") {
        let message = format!(
            "rootfs mount type {:?} is not supported by this shim: use a snapshotter without FUSE",
            entry.r#type
        );
        return Err(Error::new(Code::Unimplemented, message));
    }
    let mut parsed = parse(&entry.options)?;
    let namespace = parsed.mapping.as_ref().map(Mapping::namespace).transpose()?;
    let overlay = entry.r#type == "overlay";
    let mut dir = None;
    let mut layers = None;
    match &namespace {
        Some(namespace) if overlay => {
            // An overlay takes owners as its layers have them, so it is those that are mapped.
            let (common, place) = (idmapped_dir(&mut parsed.data)?, layers_place(rootfs));
            layers = Some(Layers::attach(&common, &place, namespace).map_err(failed)?);
            dir = Some(place);
        }
        _ => {
            // Many layers: names from their common directory are shorter.
            let length: usize = parsed.data.iter().map(|text| text.len() + 1).sum();
            if overlay && length >= PAGE - 512 {
                dir = shorten(&mut parsed.data).map(PathBuf::from);
            }
        }
    }
    let device = parsed.set_up_loop(&entry.source)?;
    let source = device.as_ref().map_or(Path::new(&entry.source), |device| &device.path);
    let data = CString::new(parsed.data.join(",")).map_err(|_| failed(Errno::INVAL))?;
    if data.as_bytes().len() >= PAGE {
        return Err(failed(Errno::NAMETOOLONG));
    }
    let call = || mount(source, target, entry.r#type.as_str(), parsed.flags, Some(data.as_c_str()));
    match &dir {
        // One thread, no await: nobody sees the other directory.
        Some(dir) => in_dir(dir, call).map_err(failed)?,
        None => call().map_err(failed)?,
    }
    drop((layers, device));
    if parsed.flags.contains(MountFlags::BIND | MountFlags::RDONLY) {
        // A bind mount takes over its source's flags first.
        mount_remount(target, parsed.flags, "").map_err(failed)?;
    }
    if let Some(namespace) = namespace.filter(|_| !overlay) {
        idmap::remap(target, &namespace).map_err(failed)?;
    }
    if !parsed.propagation.is_empty() {
        mount_change(target, parsed.propagation).map_err(failed)?;
    }
    Ok(())
}

impl Parsed {
    /// What `loop` asks for; `direct-io` is about the device, not for the file system.
    fn set_up_loop(&mut self, file: &str) -> Result<Option<Loop>, Error> {
        if !self.looped {
            return Ok(None);
        }
        let before = self.data.len();
        self.data.retain(|option| option != "direct-io");
        let direct = self.data.len() < before;
        Loop::set_up(Path::new(file), self.flags.contains(MountFlags::RDONLY), direct).map(Some)
    }
}

/// Where the layers of an idmapped overlay are while it is being mounted: beside `rootfs`, in the bundle.
pub fn layers_place(rootfs: &Path) -> PathBuf {
    rootfs.with_file_name("idmapped")
}

/// The directory that has all layers, which are named from there afterwards.
fn idmapped_dir(data: &mut [String]) -> Result<PathBuf, Error> {
    let wrong = || {
        let message =
            "rootfs mount options uidmap= and gidmap= of an overlay need a lowerdir= whose directories are all in one";
        Error::new(Code::InvalidArgument, message)
    };
    shorten(data).map(PathBuf::from).ok_or_else(wrong)
}

/// Calls with another working directory.
fn in_dir(dir: &Path, call: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let back = openat(CWD, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
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
    if common == 0 {
        return None;
    }
    let dir = first[..common].to_owned();
    // A name may end in a slash, so that nothing is left of it.
    let below = |dir: &&'_ str| Some(dir[common + 1..].to_owned()).filter(|name| !name.is_empty());
    let relative: Vec<String> = dirs.iter().map(|dir| below(dir).unwrap_or_else(|| ".".to_owned())).collect();
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
        for option in ["remount", "X-containerd.mkfs", "uidmap=0:1:1", "gidmap=0:1:1"] {
            let named = option.trim_end_matches("=0:1:1");
            assert!(parse(&options(&[option])).is_err_and(|e| e.message.contains(named)), "{option}");
        }
        let parsed = parse(&options(&["loop", "direct-io", "uidmap=0:1:1", "gidmap=0:2:1"])).expect("supported");
        assert!(parsed.looped && parsed.mapping.is_some());
    }

    #[test]
    fn many_layers_get_short_names() {
        let mut data = options(&["upperdir=/x", "lowerdir=/s/1/fs:/s/12/fs:/s/2/fs"]);
        assert_eq!(shorten(&mut data).as_deref(), Some("/s"));
        assert_eq!(data[1], "lowerdir=1/fs:12/fs:2/fs");
        assert_eq!(shorten(&mut options(&["lowerdir=/a/fs:/b/fs"])), None, "only the root in common");
        assert_eq!(shorten(&mut options(&["lowerdir=/fs"])), None, "only the root");
        let mut one = options(&["lowerdir=/s/1/fs"]);
        assert_eq!((shorten(&mut one).as_deref(), one[0].as_str()), (Some("/s/1"), "lowerdir=fs"));
        let mut slash = options(&["lowerdir=/s/1/"]);
        assert_eq!((shorten(&mut slash).as_deref(), slash[0].as_str()), (Some("/s/1"), "lowerdir=."));
    }

    #[test]
    fn targets_stay_inside() {
        let root = std::env::temp_dir().join(format!("rrt-shim-target-{}", std::process::id()));
        std::fs::create_dir_all(root.join("etc/data")).expect("directories");
        std::os::unix::fs::symlink("/etc", root.join("link")).expect("a symlink");
        let at = |text: &str| resolve(&Mount { target: text.into(), ..Mount::default() }, &root);
        let path = |text: &str| {
            let fd = at(text).expect("a place").expect("below");
            std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("its name")
        };
        assert!(at("").expect("the root").is_none());
        assert_eq!(path("/etc/data"), root.join("etc/data"));
        assert_eq!(path("link/data"), root.join("etc/data"), "not the host's");
        assert!(at("../x").is_err_and(|e| e.code == Code::InvalidArgument));
        assert!(at("none").is_err_and(|e| e.message.contains("none")));
        std::fs::remove_dir_all(root).expect("clean up");
    }

    #[test]
    fn names_with_spaces() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new(r"/a b\c"));
    }
}
