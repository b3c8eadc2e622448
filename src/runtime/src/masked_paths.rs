//! `linux.maskedPaths` and `linux.readonlyPaths`.

use crate::error::{Doing, Result};
use rrt_sys::mount::{self, SetAttr};
use rrt_sys::path::{self, Root};
use rrt_sys::{FileType, SysError, errno, major, minor};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What masks are made of: a device that is certainly `/dev/null`, and one empty read-only directory for all of them.
#[derive(Debug)]
pub struct Masks {
    null: Cover,
    empty: Option<Cover>,
    label: Option<String>,
}

/// A mount that is put over any number of places.
#[derive(Debug)]
struct Cover {
    mount: OwnedFd,
    attached: bool,
}

impl Cover {
    fn put_over(&mut self, target: BorrowedFd<'_>) -> rrt_sys::Result<()> {
        if self.attached {
            let copy = mount::open_tree_clone(self.mount.as_fd(), Path::new(""), false)?;
            return mount::attach(copy.as_fd(), target);
        }
        // The first time itself, because a detached mount of another mount namespace's making cannot be cloned; attached it can.
        self.attached = true;
        mount::attach(self.mount.as_fd(), target)
    }
}

/// Takes the *host's* `/dev/null`, opened by the parent and checked to be it: the container's may be a symlink to a file
/// that would then be bound, writable, over the masked one (CVE-2025-31133).
///
/// # Errors
/// ENODEV when the host's is not character device 1:3.
pub fn open_null() -> rrt_sys::Result<OwnedFd> {
    let null = mount::clone_host_tree(Path::new("/dev/null"), false)?;
    // Writing to the device still works; changing the host's node (its mode, its owner) does not.
    let attr = SetAttr { set: mount::Attr::MOUNT_ATTR_RDONLY.bits().into(), ..SetAttr::default() };
    mount::set_attr(null.as_fd(), attr, false)?;
    let st = path::fstat(&null)?;
    let is_null = FileType::from_raw_mode(st.st_mode) == FileType::CharacterDevice
        && (major(st.st_rdev), minor(st.st_rdev)) == (1, 3);
    if is_null { Ok(null) } else { Err(SysError::new("open(\"/dev/null\"): not character device 1:3", errno::ENODEV)) }
}

impl Masks {
    /// With the host's null device from [`open_null`], and `linux.mountLabel` as a mount option.
    pub fn new(null: OwnedFd, label: Option<&str>) -> Masks {
        Masks { null: Cover { mount: null, attached: false }, empty: None, label: label.map(str::to_owned) }
    }

    /// Hides every path that exists: a file behind the null device, a directory behind an empty one.
    pub fn hide(&mut self, root: &Root, paths: &[PathBuf]) -> Result<()> {
        for (i, name) in paths.iter().enumerate() {
            self.hide_one(root, name).doing(|| format!("linux.maskedPaths[{i}]: mask {name:?}"))?;
        }
        Ok(())
    }

    fn hide_one(&mut self, root: &Root, name: &Path) -> rrt_sys::Result<()> {
        let Some(target) = existing(root, name)? else { return Ok(()) };
        let cover = match path::is_dir(&target)? {
            true => match &mut self.empty {
                Some(empty) => empty,
                none => none.insert(Cover { mount: empty_directory(self.label.as_deref())?, attached: false }),
            },
            false => &mut self.null,
        };
        cover.put_over(target.as_fd())
    }
}

/// A read-only tmpfs, as small as it can be.
fn empty_directory(label: Option<&str>) -> rrt_sys::Result<OwnedFd> {
    let attrs = mount::Attr::MOUNT_ATTR_RDONLY
        | mount::Attr::MOUNT_ATTR_NOSUID
        | mount::Attr::MOUNT_ATTR_NODEV
        | mount::Attr::MOUNT_ATTR_NOEXEC;
    // The root directory is the one inode; a block is the least that a limit can say (0 means no limit).
    let options: Vec<&str> = ["nr_blocks=1", "nr_inodes=1", "mode=755"].into_iter().chain(label).collect();
    mount::new_fs(OsStr::new("tmpfs"), Some(OsStr::new("tmpfs")), &options, attrs)
}

/// Makes every path that exists read-only, with what is mounted below it.
pub fn make_read_only(root: &Root, paths: &[PathBuf]) -> Result<()> {
    for (i, name) in paths.iter().enumerate() {
        read_only(root, name).doing(|| format!("linux.readonlyPaths[{i}]: make {name:?} read-only"))?;
    }
    Ok(())
}

fn read_only(root: &Root, name: &Path) -> rrt_sys::Result<()> {
    let Some(target) = existing(root, name)? else { return Ok(()) };
    // The clone is made from the very fd it is attached to, so a path swapped in between changes nothing.
    let tree = mount::open_tree_clone(target.as_fd(), Path::new(""), true)?;
    let attr = SetAttr { set: mount::Attr::MOUNT_ATTR_RDONLY.bits().into(), ..SetAttr::default() };
    mount::set_attr(tree.as_fd(), attr, true)?;
    mount::attach(tree.as_fd(), target.as_fd())
}

/// The place of a path, or `None` when there is nothing to protect.
fn existing(root: &Root, name: &Path) -> rrt_sys::Result<Option<OwnedFd>> {
    match root.resolve(name) {
        Err(e) if e.is(errno::ENOENT) || e.is(errno::ENOTDIR) => Ok(None),
        found => found.map(Some),
    }
}
