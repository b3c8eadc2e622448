//! Overlay mounts. With the mount API of Linux 5.2 (`fsopen`) each lower directory is an option of its own (`lowerdir+`, Linux 6.7), so
//! that the 500 layers that overlay allows fit. Before that, all of them stand in one page of options, as `/proc/self/fd/N`.

use super::Error;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Linux: OVL_MAX_STACK.
pub(super) const MAX_LAYERS: usize = 500;
/// Linux: an option's value in `fsconfig(2)` has at most 256 bytes, and `mount(2)` takes a page of options.
const MAX_VALUE: usize = 255;
const PAGE: usize = 4096;

/// What is stacked.
pub(super) struct Overlay<'a> {
    /// Highest first. At least one; a read-only mount needs two.
    pub lower: &'a [PathBuf],
    /// The upper and the work directory; without them the mount is read-only.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// The overlay's own attributes are `user.overlay.*` (Linux 5.11): what an ordinary user's mount has.
    pub userxattr: bool,
}

/// Where the kernel keeps to itself that a directory has moved, or that a file's data is still below, a layer is no longer complete in its
/// directory. So both are off, as Docker has them with "Native Overlay Diff"; and `index` is, because an upper directory is mounted
/// again after a copy of the store, or on another boot. With userxattr the kernel has these off.
const OFF: [&str; 3] = ["index", "metacopy", "redirect_dir"];

impl Overlay<'_> {
    /// Mounts it, visible nowhere: the mount goes with its last descriptor.
    pub fn detached(&self, scratch: &Path) -> Result<OwnedFd, Error> {
        self.check()?;
        if let Some(mount) = self.by_fsopen()? {
            return Ok(mount);
        }
        // The old call needs a place. What a kill leaves there, the sweep unmounts.
        let failed = |doing, e: std::io::Error| Error::io(doing, scratch, e);
        std::fs::create_dir_all(scratch).map_err(|e| failed("create", e))?;
        self.by_mount(scratch)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(scratch, flags, Mode::empty()).map_err(|e| failed("open", e.into()));
        unmount(scratch)?;
        let _ = std::fs::remove_dir(scratch);
        fd
    }

    /// Mounts it at `target`.
    pub fn at(&self, target: &Path) -> Result<(), Error> {
        self.check()?;
        match self.by_fsopen()? {
            Some(mount) => move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .map_err(|e| self.failed(e, "move_mount", "")),
            None => self.by_mount(target),
        }
    }

    fn check(&self) -> Result<(), Error> {
        match self.lower.len() {
            0..=MAX_LAYERS => Ok(()),
            n => Err(Error::TooManyLayers { layers: n, most: MAX_LAYERS }),
        }
    }

    /// `None` where this kernel lacks the calls or `lowerdir+`.
    fn by_fsopen(&self) -> Result<Option<OwnedFd>, Error> {
        let context = match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(context) => context,
            Err(Errno::NOSYS | Errno::PERM) => return Ok(None),
            Err(e) => return Err(self.failed(e, "fsopen", "")),
        };
        let mut open = Vec::new();
        for (at, lower) in self.lower.iter().enumerate() {
            let value = short(lower, MAX_VALUE, &mut open)?;
            match fsconfig_set_string(&context, "lowerdir+", &value) {
                Ok(()) => {}
                Err(Errno::INVAL) if at == 0 => return Ok(None),
                Err(e) => return Err(self.failed(e, "fsconfig", &said(&context))),
            }
        }
        let mut options = vec![("source", PathBuf::from("overlay"))];
        if let Some((upper, work)) = self.upper {
            options.push(("upperdir", short(upper, MAX_VALUE, &mut open)?));
            options.push(("workdir", short(work, MAX_VALUE, &mut open)?));
        }
        if !self.userxattr {
            options.extend(OFF.map(|key| (key, PathBuf::from("off"))));
        }
        for (key, value) in &options {
            fsconfig_set_string(&context, *key, value).map_err(|e| self.failed(e, "fsconfig", &said(&context)))?;
        }
        if self.userxattr {
            fsconfig_set_flag(&context, "userxattr").map_err(|e| self.failed(e, "fsconfig", &said(&context)))?;
        }
        fsconfig_create(&context).map_err(|e| self.failed(e, "fsconfig", &said(&context)))?;
        let attributes = match self.upper {
            Some(_) => MountAttrFlags::empty(),
            None => MountAttrFlags::MOUNT_ATTR_RDONLY,
        };
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
        Ok(Some(mount.map_err(|e| self.failed(e, "fsmount", &said(&context)))?))
    }

    pub(super) fn by_mount(&self, target: &Path) -> Result<(), Error> {
        let mut open = Vec::new();
        let mut options = String::from("lowerdir=");
        for (at, lower) in self.lower.iter().enumerate() {
            let separator = if at == 0 { "" } else { ":" };
            options.push_str(&format!("{separator}{}", by_descriptor(lower, &mut open)?.display()));
        }
        if let Some((upper, work)) = self.upper {
            let upper = by_descriptor(upper, &mut open)?;
            options.push_str(&format!(
                ",upperdir={},workdir={}",
                upper.display(),
                by_descriptor(work, &mut open)?.display()
            ));
        }
        match self.userxattr {
            true => options.push_str(",userxattr"),
            // An old kernel without metacopy may still lack the option.
            false => {
                OFF.iter().filter(|key| has_parameter(key)).for_each(|key| options.push_str(&format!(",{key}=off")))
            }
        }
        if options.len() >= PAGE {
            return Err(Error::TooManyLayers {
                layers: self.lower.len(),
                most: PAGE / "/proc/self/fd/123:".len() - 10,
            });
        }
        let flags = if self.upper.is_some() { MountFlags::empty() } else { MountFlags::RDONLY };
        let options =
            std::ffi::CString::new(options).map_err(|e| Error::io("mount at", target, std::io::Error::from(e)))?;
        rustix::mount::mount("overlay", target, "overlay", flags, options.as_c_str())
            .map_err(|e| self.failed(e, "mount", ""))
    }

    fn failed(&self, e: Errno, call: &str, kernel: &str) -> Error {
        let hint = match e {
            Errno::PERM => {
                ": an ordinary user can mount an overlay in a user and mount namespace of his own only (Linux 5.11)"
            }
            Errno::NODEV => ": this kernel has no overlay; `modprobe overlay`, or choose another driver",
            _ => "",
        };
        let kernel = if kernel.is_empty() { String::new() } else { format!(" ({kernel})") };
        Error::Mount {
            what: format!("{call} of an overlay of {} layers{kernel}{hint}", self.lower.len()),
            source: e.into(),
        }
    }
}

fn has_parameter(key: &str) -> bool {
    Path::new("/sys/module/overlay/parameters").join(key).exists()
}

/// The path if it is short enough, or one by a descriptor.
fn short(path: &Path, most: usize, open: &mut Vec<OwnedFd>) -> Result<PathBuf, Error> {
    match path.as_os_str().len() {
        n if n <= most => Ok(path.to_owned()),
        _ => by_descriptor(path, open),
    }
}

fn by_descriptor(path: &Path, open: &mut Vec<OwnedFd>) -> Result<PathBuf, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io("open", path, e))?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open.push(fd);
    Ok(PathBuf::from(name))
}

/// What the kernel says about a mount that failed: lines `e overlay: …`.
fn said(context: &OwnedFd) -> String {
    let Ok(fd) = context.try_clone() else { return String::new() };
    let mut file = std::fs::File::from(fd);
    let mut lines = Vec::new();
    let mut buffer = [0u8; 1024];
    while let Ok(n) = file.read(&mut buffer) {
        if n == 0 || lines.len() == 8 {
            break;
        }
        let line = String::from_utf8_lossy(&buffer[..n]).trim().to_owned();
        lines.push(line.strip_prefix("e ").map(str::to_owned).unwrap_or(line));
    }
    lines.join("; ")
}

/// Takes the mount at `target` away, busy or not; nothing mounted there is no error.
pub(super) fn unmount(target: &Path) -> Result<(), Error> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(e) => Err(Error::io("unmount", target, e)),
    }
}

/// Is something mounted at `target`? (Its mount is not that of its parent.)
pub(super) fn is_mounted(target: &Path) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
    let statx = rustix::fs::statx(CWD, target, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    statx.is_ok_and(|s| s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernels before 6.7 have one page for all the layers: 200 fit, whatever the length of their paths, and one too many says so.
    #[test]
    fn an_old_kernels_page_of_options_takes_many_layers() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: needs root");
        }
        let temp = std::env::temp_dir().join(format!("rrt-mount-{}", std::process::id()));
        let target = temp.join("target");
        std::fs::create_dir_all(&target).unwrap();
        let mut lower = Vec::new();
        for n in 0..200 {
            let directory = temp.join(format!("a-long-name-with:a-colon,and-a-comma-{n}"));
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join(n.to_string()), "").unwrap();
            lower.push(directory);
        }
        let userxattr = super::super::probe::in_user_namespace();
        let mounted = Overlay { lower: &lower, upper: None, userxattr }.by_mount(&target);
        let found = std::fs::read_dir(&target).unwrap().count();
        unmount(&target).unwrap();
        let too_many = [&*lower, &*lower].concat();
        let refused = Overlay { lower: &too_many, upper: None, userxattr }.by_mount(&target);
        std::fs::remove_dir_all(&temp).unwrap();
        mounted.unwrap();
        assert_eq!(found, 200);
        assert!(matches!(refused, Err(Error::TooManyLayers { layers: 400, .. })));
    }
}
