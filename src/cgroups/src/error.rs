//! The one error type of this crate.

use crate::BusError;
use rrt_sys::SysError;
use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

/// What went wrong, grouped by what a caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value in config.json (or of `update`) that no kernel would take.
    #[error("{property}: {reason}")]
    Invalid {
        /// The property's full name, as `linux.resources.memory.swap`.
        property: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A limit was asked for, and the machine has no controller that could keep it.
    #[error(
        "{property}: this machine offers no `{controller}` cgroup controller; remove the limit, or enable the \
         controller in the kernel (see /proc/cgroups) and mount it"
    )]
    NoController {
        /// The property that asks for it.
        property: String,
        /// The controller's name.
        controller: String,
    },
    /// The kernel refused a limit.
    #[error("{property}: {source}{hint}")]
    Limit {
        /// The property the value comes from.
        property: String,
        /// The failed call, with value and file.
        source: SysError,
        /// What may be the cause, beginning with `: `, or empty.
        hint: String,
    },
    /// A call on the cgroup file system failed.
    #[error("{doing}: {source}{hint}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// The failed call, with its path.
        source: SysError,
        /// What may be the cause, beginning with `: `, or empty.
        hint: String,
    },
    /// No cgroup file system is mounted.
    #[error(
        "no cgroup file system is mounted at /sys/fs/cgroup or anywhere else: mount cgroup2, or use --cgroup-manager=disabled"
    )]
    NotMounted,
    /// `--systemd-cgroup` on a machine that was started by something else.
    #[error(
        "systemd not running on this host, cannot use systemd cgroups manager: /run/systemd/system is missing; leave out --systemd-cgroup"
    )]
    NoSystemd,
    /// systemd did not do what it was asked for.
    #[error("{doing}: {source}{hint}")]
    Systemd {
        /// What was being done.
        doing: String,
        /// What came of the call.
        source: BusError,
        /// What may be the cause, beginning with `: `, or empty.
        hint: Cow<'static, str>,
    },
    /// The cgroup was there before, and something runs in it.
    #[error("container's cgroup is not empty: {count} process(es) found in {}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// How many processes it holds.
        count: usize,
    },
    /// The cgroup was there before, frozen: whatever joins it would never run.
    #[error("container's cgroup unexpectedly frozen: {}; thaw or remove it", path.display())]
    Frozen {
        /// The directory.
        path: PathBuf,
    },
    /// A wait that ended without its event.
    #[error("{doing}: `{event}` did not come within {after:?} in {}", path.display())]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// What was waited for, as the file says it.
        event: &'static str,
        /// The file.
        path: PathBuf,
        /// How long the wait was.
        after: Duration,
    },
    /// A file of the kernel with a content this program does not know.
    #[error("cannot understand {text:?} in {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line or word.
        text: String,
    },
    /// The operation needs a cgroup and the container has none that could do it.
    #[error("cannot {what}: {reason}")]
    Unavailable {
        /// The operation.
        what: &'static str,
        /// Why not.
        reason: &'static str,
    },
}

impl Error {
    /// The errno of the failed call, if a call failed.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Limit { source, .. } | Error::Call { source, .. } => Some(source.errno()),
            _ => None,
        }
    }

    pub(crate) fn invalid(property: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Invalid { property: property.into(), reason: reason.into() }
    }
}

/// Says what a failed call was for.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for rrt_sys::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| {
            let hint = match source.errno() {
                libc::EROFS => {
                    ": the cgroup tree is not writable here; inside of a container that one has to mount it without \"ro\", or \
                     `--cgroup-manager disabled` does without limits"
                }
                libc::EACCES | libc::EPERM => {
                    ": the cgroup tree is not writable here; as another user than root it has to be delegated"
                }
                libc::ENOSPC => ": the limit on cgroups above (cgroup.max.descendants, cgroup.max.depth) is reached",
                _ => "",
            };
            Error::Call { doing, source, hint: hint.into() }
        })
    }
}
