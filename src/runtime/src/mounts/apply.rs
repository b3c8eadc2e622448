//! Making the mounts, in the child: each is built detached, configured, and only then attached to a place held by an fd.

use super::options::{MS_I_VERSION, MountOptions, attr};
use super::{MountKind, MountPlan, Source, allowed_in_proc, cgroup, mount_point};
use crate::error::{Doing, Result, config};
use crate::handshake::{Channel, Turn};
use rrt_sys::mount::{self, SetAttr};
use rrt_sys::path::{self, Root};
use rrt_sys::{FileType, OFlags, errno};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// `PROC_SUPER_MAGIC`
const PROC_MAGIC: u64 = 0x9fa0;
/// `SYSFS_MAGIC`
const SYSFS_MAGIC: u64 = 0x6265_6572;
/// `DEVPTS_SUPER_MAGIC`
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Mounts that become read-only at the end, held by their fds.
#[derive(Debug, Default)]
pub struct ReadOnlyLater(Vec<(String, OwnedFd)>);

impl ReadOnlyLater {
    /// Makes them read-only.
    pub fn finish(&self) -> Result<()> {
        let attr = SetAttr { set: attr::RDONLY, ..SetAttr::default() };
        self.0.iter().try_for_each(|(property, fd)| {
            mount::set_attr(fd.as_fd(), attr, false).doing(|| format!("{property}.options: ro"))
        })
    }
}

/// Makes every mount of the plan below `root`; `sources` are the bind mounts' trees. `channel` is to the parent, who translates ids.
pub fn apply_all(
    root: &Root,
    mounts: &[MountPlan],
    sources: Vec<Option<Source>>,
    cgroups: &cgroup::CgroupMounts,
    channel: &Channel,
) -> Result<ReadOnlyLater> {
    let mut later = ReadOnlyLater::default();
    for (plan, source) in mounts.iter().zip(sources) {
        match (&plan.kind, source) {
            (MountKind::Bind { .. }, Some(source)) => bind(root, plan, source)?,
            (MountKind::Bind { recursive, .. }, None) if let Some(path) = &plan.in_root => {
                let source = plan.open_in_root(root, path, *recursive)?;
                if plan.idmap.is_some() {
                    channel.ask(Turn::MountIds, Some(source.tree.as_fd()))?;
                }
                bind(root, plan, source)?;
            }
            (MountKind::Bind { .. }, None) => return Err(config(&plan.property, "has no opened source")),
            (MountKind::FileSystem { fstype, source }, _) => {
                let new = file_system(root, plan, fstype, source.as_deref())?;
                if plan.read_only_later() {
                    later.0.push((plan.property.clone(), new));
                }
            }
            (MountKind::Cgroup, _) => cgroup::apply(root, plan, cgroups)?,
            (MountKind::Remount, _) => remount(root, plan)?,
        }
    }
    Ok(later)
}

fn bind(root: &Root, plan: &MountPlan, source: Source) -> Result<()> {
    if let Some(target) = source.link(plan)? {
        return plan.copy_link(root, &target);
    }
    let doing = || format!("{}: bind to {:?}", plan.property, plan.destination);
    let target = plan.bind_place(root, source.is_dir).doing(doing)?;
    check_place(plan, target.as_fd(), Some(source.tree.as_fd()))?;
    let problem = match source.is_dir {
        false if path::is_dir(&target).doing(doing)? => Some("is a directory, and the source is a file"),
        true if plan.options.links.destination && !path::is_dir(&target).doing(doing)? => {
            Some("is not a directory, and the source is one")
        }
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(config(format!("{}.destination", plan.property), format!("{:?} {problem}", plan.destination)));
    }
    set_attributes(source.tree.as_fd(), &plan.options).map_err(|e| plan.explain(doing(), e))?;
    mount::attach(source.tree.as_fd(), target.as_fd()).doing(doing)
}

/// Returns the new mount.
fn file_system(root: &Root, plan: &MountPlan, fstype: &str, source: Option<&str>) -> Result<OwnedFd> {
    let doing = || format!("{}: mount {fstype} on {:?}", plan.property, plan.destination);
    let mut options = plan.fs_options();
    if fstype == "tmpfs"
        && !options.iter().any(|o| o.starts_with("mode="))
        && let Ok(there) = root.resolve(&plan.destination)
    {
        // As in runc: a tmpfs over the image's /tmp is as open as that was; one in a new place is the kernel's 1777.
        options.push(format!("mode={:o}", path::fstat(&there).doing(doing)?.st_mode & 0o7777));
    }
    let target = match fstype {
        // /proc and /sys decide what later writes to them mean, so an image must not be able to put them anywhere else:
        // their place is a directory, reached without any symlink (CVE-2023-27561, CVE-2019-19921).
        "proc" | "sysfs" => ordinary_directory(root, plan)?,
        _ => mount_point(root, &plan.destination, true).doing(doing)?,
    };
    check_place(plan, target.as_fd(), None)?;
    let mut mount_options = first_options(plan);
    // Given at birth; a new mount has nothing to be cleared, so that mostly no second call is needed for attributes.
    let attrs = mount::attr_from_bits(std::mem::take(&mut mount_options.set));
    mount_options.clear = 0;
    // mountinfo shows a source for each mount; tools expect the type there when config.json has none.
    let source = OsStr::new(source.unwrap_or(fstype));
    let new = match mount::new_fs(OsStr::new(fstype), Some(source), &options, attrs) {
        // An option value that fsconfig cannot carry: mount(2) on the fd's own name.
        Err(e) if e.is(errno::E2BIG) => {
            legacy(plan, fstype, source, &options, target.as_fd()).doing(doing)?;
            return finish_legacy(root, plan, target.as_fd());
        }
        new => new.map_err(|e| plan.explain(doing(), e))?,
    };
    set_attributes(new.as_fd(), &mount_options).doing(doing)?;
    if let Some(label) = &plan.options.root_label {
        crate::lsm::label_root(new.as_fd(), label)
            .doing(|| format!("linux.mountLabel: label {:?}", plan.destination))?;
    }
    if plan.options.tmpcopyup {
        copy_up(target.as_fd(), new.as_fd())
            .doing(|| format!("{}: tmpcopyup of {:?}", plan.property, plan.destination))?;
    }
    mount::attach(new.as_fd(), target.as_fd()).doing(doing)?;
    if matches!(fstype, "proc" | "sysfs") {
        check_attached(root, plan, new.as_fd())?;
    }
    if let Some(on) = plan.options.iversion {
        set_iversion(new.as_fd(), on).doing(doing)?;
    }
    Ok(new)
}

/// Makes a file system that is attached nowhere, for its options to be refused by the kernel now. Only of kinds of which each mount is an
/// instance of its own: the options of another would be those of the host's.
pub fn try_file_system(plan: &MountPlan, fstype: &str, source: Option<&str>) -> Result<()> {
    if !matches!(fstype, "tmpfs" | "devpts" | "proc") {
        return Ok(());
    }
    let source = OsStr::new(source.unwrap_or(fstype));
    match mount::new_fs(OsStr::new(fstype), Some(source), &plan.fs_options(), mount::attr_from_bits(0)) {
        Err(e) if e.is(errno::E2BIG) => Ok(()),
        new => {
            let doing = || format!("{}: mount {fstype} on {:?}", plan.property, plan.destination);
            new.map(drop).map_err(|e| plan.explain(doing(), e))
        }
    }
}

/// A bind mount over `/proc` has to bring a procfs.
pub fn refuse_over_proc(plan: &MountPlan, source: &Path) -> Result<()> {
    if plan.destination != Path::new("/proc") {
        return Ok(());
    }
    let doing = || format!("{}.source {source:?}", plan.property);
    let fd = path::open(source, OFlags::PATH).doing(doing)?;
    match path::fs_magic(&fd).doing(doing)? {
        PROC_MAGIC => Ok(()),
        _ => Err(plan.no_procfs()),
    }
}

/// The plan's options but for the `ro` that waits until everything is in place.
fn first_options(plan: &MountPlan) -> MountOptions {
    let mut options = plan.options.clone();
    if plan.read_only_later() {
        options.set &= !attr::RDONLY;
        options.rec_set &= !attr::RDONLY;
    }
    options
}

/// mount(2) on the fd's own name, with what restricts the mount from its first moment.
fn legacy(
    plan: &MountPlan,
    fstype: &str,
    source: &OsStr,
    options: &[String],
    target: BorrowedFd<'_>,
) -> rrt_sys::Result<()> {
    let first = first_options(plan);
    let set = first.set | first.rec_set;
    let mut flags = 0;
    for (bit, ms) in [(attr::RDONLY, 1), (attr::NOSUID, 2), (attr::NODEV, 4), (attr::NOEXEC, 8)] {
        flags |= if set & bit != 0 { ms } else { 0 };
    }
    let data = options.iter().map(|o| crate::lsm::quoted(o)).collect::<Vec<_>>().join(",");
    mount::mount_legacy(source, &path::proc_fd(target), OsStr::new(fstype), flags, OsStr::new(&data))
}

/// Finds the mount that mount(2) has made, which returns no fd, and gives it the rest of its attributes.
fn finish_legacy(root: &Root, plan: &MountPlan, covered: BorrowedFd<'_>) -> Result<OwnedFd> {
    let doing = || format!("{}: set the attributes of {:?}", plan.property, plan.destination);
    let new = root.resolve(&plan.destination).doing(doing)?;
    if mount::mount_id(new.as_fd()).doing(doing)? == mount::mount_id(covered).doing(doing)? {
        let problem = format!("{:?} was changed while it was being mounted; refused", plan.destination);
        return Err(config(format!("{}.destination", plan.property), problem));
    }
    if plan.options.tmpcopyup || plan.options.iversion.is_some() {
        let problem = "tmpcopyup and iversion do not go with an option value of more than 255 bytes";
        return Err(config(format!("{}.options", plan.property), problem));
    }
    set_attributes(new.as_fd(), &first_options(plan)).doing(doing)?;
    Ok(new)
}

/// `iversion` is a flag of the super block that only mount(2) can change.
fn set_iversion(new: BorrowedFd<'_>, on: bool) -> rrt_sys::Result<()> {
    /// `MS_REMOUNT`
    const MS_REMOUNT: u64 = 32;
    let flags = MS_REMOUNT | if on { MS_I_VERSION } else { 0 };
    mount::mount_legacy(OsStr::new(""), &path::proc_fd(new), OsStr::new(""), flags, OsStr::new(""))
}

/// Sets the mount's own attributes, then the recursive ones, then the propagation types in order.
pub fn set_attributes(fd: BorrowedFd<'_>, o: &MountOptions) -> rrt_sys::Result<()> {
    let own = SetAttr { set: o.set, clear: o.clear, propagation: None };
    let whole = SetAttr { clear: o.clear | o.clear_unnamed, ..own };
    // All but this one can be locked by a user namespace above ours (mount_namespaces(7)): then what was not named stays.
    let unlocked = SetAttr { clear: o.clear | o.clear_unnamed & attr::NOSYMFOLLOW, ..own };
    let all = SetAttr { set: o.rec_set, clear: o.rec_clear, propagation: None };
    if whole != SetAttr::default() {
        match mount::set_attr(fd, whole, false) {
            Err(e) if e.is(errno::EPERM) && whole != unlocked => mount::set_attr(fd, unlocked, false)?,
            done => done?,
        }
    }
    if all != SetAttr::default() {
        mount::set_attr(fd, all, true)?;
    }
    for &(propagation, recursive) in &o.propagation {
        mount::set_attr(fd, SetAttr { propagation: Some(propagation), ..SetAttr::default() }, recursive)?;
    }
    Ok(())
}

fn remount(root: &Root, plan: &MountPlan) -> Result<()> {
    let doing = || format!("{}: remount {:?}", plan.property, plan.destination);
    let target = root.resolve(&plan.destination).doing(doing)?;
    set_attributes(target.as_fd(), &plan.options).map_err(|e| plan.explain(doing(), e))?;
    let options = plan.fs_options();
    if options.is_empty() || plan.options.bind.is_some() {
        Ok(())
    } else {
        mount::reconfigure(target.as_fd(), &options).doing(doing)
    }
}

/// The place of a proc or sysfs mount: a directory reached without symlinks.
fn ordinary_directory(root: &Root, plan: &MountPlan) -> Result<OwnedFd> {
    let mut dir = root.open_at(Path::new("/"), OFlags::PATH | OFlags::DIRECTORY).doing(|| plan.property.clone())?;
    for name in plan.destination.components().skip(1) {
        dir = path::mkdir_at(dir.as_fd(), name.as_os_str(), 0o755).map_err(|e| {
            let problem = if e.is(errno::EACCES) {
                format!(
                    "{:?} cannot be made or reached in the root file system by the container's root ({e}); make it beforehand, or give \
                     the root file system to the user whom linux.uidMappings maps",
                    plan.destination
                )
            } else {
                format!(
                    "{:?} must be mounted on ordinary directory of the root file system, not on a symlink or file ({e})",
                    plan.destination
                )
            };
            config(format!("{}.destination", plan.property), problem)
        })?;
    }
    Ok(dir)
}

/// Checks that the path leads to the mount just made: somebody who shares the root file system may have renamed a directory
/// meanwhile, and the container would take something else for its procfs (CVE-2019-19921).
fn check_attached(root: &Root, plan: &MountPlan, new: BorrowedFd<'_>) -> Result<()> {
    let doing = || format!("{}: look at {:?} again", plan.property, plan.destination);
    let found = root.resolve(&plan.destination).doing(doing)?;
    if mount::mount_id(found.as_fd()).doing(doing)? == mount::mount_id(new).doing(doing)? {
        return Ok(());
    }
    let problem = format!("{:?} was changed while it was being mounted; refused", plan.destination);
    Err(config(format!("{}.destination", plan.property), problem))
}

/// Refuses a place inside procfs, unless it is one that lxcfs may cover; asked of the place's fd, so that no symlink
/// in the image can hide where it is (CVE-2019-16884).
pub fn check_place(plan: &MountPlan, target: BorrowedFd<'_>, source: Option<BorrowedFd<'_>>) -> Result<()> {
    let property = || format!("{}.destination", plan.property);
    let is_proc = |fd| path::fs_magic(fd).doing(property).map(|m| m == PROC_MAGIC);
    if plan.destination == Path::new("/proc") {
        if plan.is_type("proc") || source.map(is_proc).transpose()?.unwrap_or(false) {
            return Ok(());
        }
        return Err(plan.no_procfs());
    }
    // As in crun: where it may not follow a symlink, it may not cover one of the kernel's either.
    if plan.options.links.destination && matches!(path::fs_magic(target).doing(property)?, SYSFS_MAGIC | DEVPTS_MAGIC) {
        return Err(config(property(), format!("{:?} belongs to the kernel and cannot be covered", plan.destination)));
    }
    if plan.destination.starts_with("/proc") || is_proc(target)? {
        if allowed_in_proc(&plan.destination) {
            return Ok(());
        }
        return Err(plan.inside_proc());
    }
    Ok(())
}

/// Copies what `from` has at this moment into the new file system, owners and modes included.
///
/// It runs in the child, in the container's namespaces: what the image can make it read is the image's own. Symlinks are copied as
/// symlinks, devices and sockets are left out, and depth is bounded by open directories.
fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rrt_sys::Result<()> {
    let dir = path::openat(from, ".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let to = path::openat(to, ".", OFlags::PATH | OFlags::DIRECTORY)?;
    let st = path::fstat(&dir)?;
    path::chown(to.as_fd(), st.st_uid, st.st_gid)?;
    path::chmod(to.as_fd(), st.st_mode & 0o7777)?;
    for name in path::list(&dir)? {
        copy_entry(dir.as_fd(), to.as_fd(), &name)?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr) -> rrt_sys::Result<()> {
    let pinned = path::openat(from, name, OFlags::PATH | OFlags::NOFOLLOW)?;
    let st = path::fstat(&pinned)?;
    match FileType::from_raw_mode(st.st_mode) {
        FileType::Directory => {
            let made = path::mkdir_at(to, name, 0o755)?;
            copy_up(pinned.as_fd(), made.as_fd())
        }
        FileType::Symlink => {
            path::symlinkat(&path::readlinkat(from, name)?, to, name)?;
            path::chown_link(to, name, st.st_uid, st.st_gid)
        }
        FileType::RegularFile => path::copy_file(from, to, name, &st),
        _ => Ok(()),
    }
}
