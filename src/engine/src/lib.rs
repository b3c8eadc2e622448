//! Containers of berth: what Docker's flags mean.

#![forbid(unsafe_code)]

pub mod capabilities;
pub mod container;
pub mod mounts;
pub mod names;
pub mod ports;
pub mod seccomp;
pub mod spec;
pub mod users;

/// What can be wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag's value.
    #[error("invalid value {value:?} for {flag}: {why}")]
    Value {
        /// The flag, with its hyphens.
        flag: &'static str,
        /// What was given.
        value: String,
        /// The rule, and what to write instead.
        why: String,
    },
    /// A container's, volume's or network's name.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name(String),
    /// A user that the image's passwd file doesn't have.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    /// A group that the image's group file doesn't have.
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
    /// Neither the image nor the flags say what to run.
    #[error("no command specified: neither the image nor the command line has one")]
    NoCommand,
}

impl Error {
    fn invalid(flag: &'static str, value: &str, why: &str) -> Error {
        Error::Value { flag, value: value.to_owned(), why: why.to_owned() }
    }
}

/// Adds a member that is there.
fn put(object: &mut serde_json::Value, name: &str, value: Option<impl Into<serde_json::Value>>) {
    if let Some(value) = value {
        object[name] = value.into();
    }
}
