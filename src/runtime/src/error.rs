//! What can go wrong, named by what the caller can do about it.

use rrt_sys::SysError;
use std::path::{Path, PathBuf};

/// A failed operation; its text is the one line a person sees, naming the property, file or flag, and the cure.
///
/// Several texts are contracts: containerd's shim, CRI-O and podman match `does not exist`, `container not running`,
/// `no such file or directory` and `executable file not found` (contract A.8).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// config.json, or the document given with `--process` or `--resources`, says something that cannot be done.
    #[error("{property}: {problem}")]
    Config {
        /// The property, as `linux.namespaces[2].path`.
        property: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// A document is not the JSON it should be; serde's text has line and column.
    #[error("{file}: {problem}", file = file.display())]
    Json {
        /// The document's path.
        file: PathBuf,
        /// What is wrong, with the property where there is one, line and column.
        problem: String,
    },
    /// A property of the specification that this version does not implement: an error, never silence.
    #[error("not supported yet: `{0}`; remove it or use another runtime for this container")]
    Unsupported(String),
    /// A flag or argument of the command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// No container has this id.
    #[error("container does not exist: no state for {0:?} (see `rrt list`)")]
    NotFound(String),
    /// The id is taken.
    #[error("container with given ID already exists: {0:?} (delete it first, or choose another id)")]
    Exists(String),
    /// The container's status does not allow the operation.
    #[error("{0}")]
    Status(String),
    /// A call of the operating system failed.
    #[error("{doing}: {source}")]
    System {
        /// What the call was for.
        doing: String,
        /// The call.
        source: SysError,
    },
    /// A file of the host or of the state directory could not be read or written.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// The failure.
        source: std::io::Error,
    },
    /// cgroups.
    #[error(transparent)]
    Cgroup(#[from] rrt_cgroups::Error),
    /// A process of ours inside the container reported this, or ended without a report.
    #[error("unable to start container process: {0}")]
    Init(String),
    /// A process of ours inside the container was killed before it executed the program.
    #[error("unable to start container process: {0}")]
    Killed(String),
    /// A hook failed.
    #[error("{0}")]
    Hook(String),
}

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Says what a call was for.
pub trait Doing<T> {
    /// Wraps the failure; the closure runs only then.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for rrt_sys::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::System { doing: what(), source })
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { doing: what(), source })
    }
}

/// A [`Error::Config`] in short.
pub fn config(property: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Config { property: property.into(), problem: problem.into() }
}

/// Says which document was being read or written.
pub trait InFile<T> {
    /// Wraps the failure with the document's path.
    fn in_file(self, file: &Path) -> Result<T>;
}

impl<T, E: std::fmt::Display> InFile<T> for std::result::Result<T, E> {
    fn in_file(self, file: &Path) -> Result<T> {
        self.map_err(|e| Error::Json { file: file.into(), problem: e.to_string() })
    }
}
