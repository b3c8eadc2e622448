//! The options that `checkpoint` and `restore` share: directories, and what criu is to do with what reaches out of the container.

use super::rpc::{Message, opt};
use crate::error::{Doing, Error, Result};
use rrt_sys::mount::{Attr, attach, detach, new_fs};
use rrt_sys::{OFlags, errno, path};
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Flags of both commands (contract A.7).
#[derive(Debug, Clone, Default)]
pub struct CriuOptions {
    /// Where the images are; `checkpoint` in the working directory when absent, as in runc.
    pub image_path: Option<PathBuf>,
    /// Where logs and statistics go; the images' directory when absent.
    pub work_path: Option<PathBuf>,
    /// Open TCP connections are kept.
    pub tcp_established: bool,
    /// Open TCP connections are closed.
    pub tcp_close: bool,
    /// Unix sockets may lead out of the container.
    pub ext_unix_sk: bool,
    /// The terminal may be the caller's.
    pub shell_job: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// Memory moves when it is first used.
    pub lazy_pages: bool,
    /// Pages that a later image has are punched out of the earlier one.
    pub auto_dedup: bool,
    /// What is done about cgroups.
    pub manage_cgroups: ManageCgroups,
    /// How the network is kept still.
    pub network_lock: Option<NetworkLock>,
}

/// `--manage-cgroups-mode` (`criu_cg_mode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ManageCgroups {
    /// Nothing.
    Ignore = 0,
    /// Restore properties of cgroups that criu makes.
    Soft = 3,
    /// Restore properties always.
    Full = 4,
    /// All has to be made; an error when it is there.
    Strict = 5,
    /// criu's own: soft.
    #[default]
    Default = 6,
}

impl ManageCgroups {
    /// By name.
    pub fn named(name: &str) -> Option<ManageCgroups> {
        Some(match name {
            "soft" => ManageCgroups::Soft,
            "full" => ManageCgroups::Full,
            "strict" => ManageCgroups::Strict,
            "ignore" => ManageCgroups::Ignore,
            _ => return None,
        })
    }
}

/// `--network-lock` (`criu_network_lock_method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLock {
    /// By iptables-restore(8), which has to be installed.
    Iptables = 1,
    /// By nftables.
    Nftables = 2,
    /// Not at all.
    Skip = 3,
}

impl NetworkLock {
    /// By name.
    pub fn named(name: &str) -> Option<NetworkLock> {
        Some(match name {
            "iptables" => NetworkLock::Iptables,
            "nftables" => NetworkLock::Nftables,
            "skip" => NetworkLock::Skip,
            _ => return None,
        })
    }
}

/// The directories, which criu inherits.
pub struct Directories {
    /// The images' path.
    pub images: PathBuf,
    images_fd: OwnedFd,
    work: PathBuf,
    work_fd: OwnedFd,
}

/// What `checkpoint` names its directory when it is told none, as runc does.
const DEFAULT_IMAGES: &str = "checkpoint";
/// criu reads it by default; its own RPC clients have one of their own each.
const CONFIG_FILES: [&str; 2] = ["/etc/criu/rrt.conf", "/etc/criu/runc.conf"];
/// The annotation that names another.
pub const CONFIG_ANNOTATION: &str = "org.criu.config";

impl Directories {
    /// Opens them; `make` makes those that are missing.
    pub fn open(options: &CriuOptions, make: bool) -> Result<Directories> {
        let images = options.image_path.clone().unwrap_or_else(|| DEFAULT_IMAGES.into());
        let images = std::path::absolute(&images).doing(|| format!("--image-path {images:?}"))?;
        let images_fd = open(&images, make, "--image-path")?;
        let work = options.work_path.as_ref().unwrap_or(&images);
        let work = std::path::absolute(work).doing(|| format!("--work-path {work:?}"))?;
        // Nothing is in it before criu writes its log there, so `restore` makes it too.
        let work_fd = open(&work, true, "--work-path")?;
        Ok(Directories { images, images_fd, work, work_fd })
    }

    /// Opens them again, under the same numbers: in another mount namespace an fd of the old one cannot be mounted on, as criu does.
    pub fn reopen(&mut self) -> Result<()> {
        for (path, fd) in [(&self.work, &mut self.work_fd), (&self.images, &mut self.images_fd)] {
            let again = path::open_dir(path).doing(|| format!("open {path:?} for criu"))?;
            rrt_sys::process::dup_onto(again.as_fd(), fd).doing(|| format!("open {path:?} for criu"))?;
        }
        Ok(())
    }

    /// Lets everybody who has the fd read the images' directory, and nobody else: a process that criu restores in a user namespace
    /// opens images as that namespace's root, and they are in a directory of the host's root, as they should be. So it gets the
    /// directory's files below another root, on an overlay. The images of earlier `--pre-dump`s, to which a symlink leads, are another
    /// mount in the link's place. For criu's own mount namespace.
    ///
    /// # Errors
    /// More than 256 generations, which may be a circle.
    pub fn make_searchable(&mut self) -> Result<()> {
        const GENERATIONS: usize = 256;
        let doing = || format!("--image-path {:?}: let the user namespace's root read it", self.images);
        let mut images = path::open_dir(&self.images).doing(doing)?;
        let mut place = path::open_dir(&self.images).doing(doing)?;
        for generation in 0..GENERATIONS {
            let parent = match path::openat(images.as_fd(), PARENT, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(e) if e.is(errno::ENOENT) => None,
                opened => Some(opened.doing(doing)?),
            };
            let merged = searchable(&images, parent.is_some()).doing(doing)?;
            attach(merged.as_fd(), place.as_fd()).doing(doing)?;
            if generation == 0 {
                rrt_sys::process::dup_onto(merged.as_fd(), &mut self.images_fd).doing(doing)?;
            }
            let Some(parent) = parent else { return Ok(()) };
            images = parent;
            place = path::openat(merged.as_fd(), PARENT, OFlags::PATH | OFlags::DIRECTORY).doing(doing)?;
        }
        Err(Error::Usage(format!("--image-path {:?}: more than {GENERATIONS} directories of images", self.images)))
    }

    /// Their numbers.
    pub fn fds(&self) -> impl Iterator<Item = i32> {
        [&self.work_fd, &self.images_fd].into_iter().map(AsRawFd::as_raw_fd)
    }

    /// The log of that name.
    pub fn log(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// What both requests say.
    pub fn request(&self, options: &CriuOptions, log: &str, config_file: Option<&str>) -> Message {
        /// Everything but debugging.
        const LOG_LEVEL: i64 = 4;
        let mut m = Message::default();
        m.number(opt::IMAGES_DIR_FD, self.images_fd.as_raw_fd().into());
        m.number(opt::WORK_DIR_FD, self.work_fd.as_raw_fd().into());
        m.number(opt::LOG_LEVEL, LOG_LEVEL).text(opt::LOG_FILE, log).maybe(opt::CONFIG_FILE, config_file);
        m.flag(opt::NOTIFY_SCRIPTS, true).flag(opt::ORPHAN_PTS_MASTER, true);
        m.flag(opt::TCP_ESTABLISHED, options.tcp_established).flag(opt::TCP_CLOSE, options.tcp_close);
        m.flag(opt::EXT_UNIX_SK, options.ext_unix_sk).flag(opt::SHELL_JOB, options.shell_job);
        m.flag(opt::FILE_LOCKS, options.file_locks).flag(opt::LAZY_PAGES, options.lazy_pages);
        m.flag(opt::AUTO_DEDUP, options.auto_dedup);
        m.number(opt::MANAGE_CGROUPS_MODE, options.manage_cgroups as i64);
        if let Some(lock) = options.network_lock {
            m.number(opt::NETWORK_LOCK, lock as i64);
        }
        m
    }
}

/// criu's name of the link to the earlier images.
const PARENT: &str = "parent";

/// The images in a directory below a root that everybody may read, with a place for the earlier ones.
fn searchable(images: &OwnedFd, parent: bool) -> rrt_sys::Result<OwnedFd> {
    let top = new_fs(OsStr::new("tmpfs"), None, &["mode=755"], Attr::empty())?;
    if parent {
        path::mkdir_at(top.as_fd(), OsStr::new(PARENT), 0o755)?;
    }
    // Before Linux 6.15 what lies below an overlay has to be mounted somewhere: it is, until the overlay has it.
    attach(top.as_fd(), images.as_fd())?;
    let mut lower = OsString::from("lowerdir=");
    lower.push(path::proc_fd(&top));
    lower.push(":");
    lower.push(path::proc_fd(images));
    let merged = new_fs(OsStr::new("overlay"), None, &[lower], Attr::MOUNT_ATTR_RDONLY);
    detach(&path::proc_fd(&top))?;
    merged
}

fn open(dir: &Path, make: bool, flag: &str) -> Result<OwnedFd> {
    if make {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).doing(|| format!("{flag}: make {dir:?}"))?;
    }
    path::open(dir, OFlags::RDONLY | OFlags::DIRECTORY).doing(|| format!("{flag} {dir:?}"))
}

/// criu's configuration file for this container: what it says comes before every flag. An empty annotation means none.
pub fn config_file(annotation: Option<&str>) -> Option<String> {
    match annotation {
        Some("") => None,
        Some(file) => {
            if !Path::new(file).exists() {
                crate::log::warn(format!(
                    "annotations[{CONFIG_ANNOTATION:?}]: {file:?} does not exist; criu runs without it"
                ));
            }
            Some(file.into())
        }
        None => CONFIG_FILES.into_iter().find(|f| Path::new(f).exists()).map(str::to_owned),
    }
}

/// Checks `--parent-path`: the images of an earlier `--pre-dump`, named from where the new ones will be.
pub fn check_parent(images: &Path, parent: &Path) -> Result<()> {
    if parent.is_absolute() {
        return Err(Error::Usage(format!("--parent-path {parent:?} must be relative: it is taken from --image-path")));
    }
    let place = images.join(parent);
    let metadata = place.metadata().doing(|| format!("invalid --parent-path {parent:?}: {place:?}"))?;
    match metadata.is_dir() {
        true => Ok(()),
        false => Err(Error::Usage(format!("invalid --parent-path {parent:?}: {place:?} is not a directory"))),
    }
}

/// Checks `--status-fd`: passed by the caller, and writable.
pub fn status_fd(number: i32) -> Result<File> {
    let bad = |why: String| Error::Usage(format!("invalid --status-fd argument {number}: {why}"));
    let fd = rrt_sys::process::inherited_fd(number).filter(|_| number > 2);
    let fd = fd.ok_or_else(|| bad("not an open file descriptor above 2".into()))?;
    let own = fd.try_clone_to_owned().map_err(|e| bad(e.to_string()))?;
    let mode = path::access_mode(&own).map_err(|e| bad(e.to_string()))?;
    match mode.intersects(OFlags::WRONLY | OFlags::RDWR) {
        true => Ok(File::from(own)),
        false => Err(bad(io::Error::other("not writable").to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_relative_and_a_directory() {
        let dir = std::env::temp_dir().join(format!("rrt-criu-parent-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("one")).unwrap();
        std::fs::create_dir_all(dir.join("two")).unwrap();
        std::fs::write(dir.join("file"), "").unwrap();
        let check = |parent: &str| check_parent(&dir.join("two"), Path::new(parent)).map_err(|e| e.to_string());
        assert_eq!(check("../one"), Ok(()));
        assert!(check("/one").unwrap_err().contains("must be relative"));
        assert!(check("../none").unwrap_err().contains("--parent-path"));
        assert!(check("../file").unwrap_err().contains("is not a directory"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn modes_have_names() {
        assert_eq!(ManageCgroups::named("strict"), Some(ManageCgroups::Strict));
        assert_eq!(NetworkLock::named("nftables"), Some(NetworkLock::Nftables));
        assert!(ManageCgroups::named("").is_none() && NetworkLock::named("x").is_none());
    }

    #[test]
    fn images_have_to_be_there() {
        let options = CriuOptions { image_path: Some("/nonexistent/images".into()), ..CriuOptions::default() };
        let e = Directories::open(&options, false).err().unwrap().to_string();
        assert!(e.contains("--image-path") && e.contains("/nonexistent/images"), "{e}");
    }
}
