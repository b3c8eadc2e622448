//! What an RPC answers when it fails: a gRPC status code and a line.

use rrt_runtime_client::Failure;

/// gRPC's status codes, as far as a shim answers with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// Anything else: what containerd's own shim answers to most that fails, so its clients expect it.
    Unknown = 2,
    /// The request itself is wrong.
    InvalidArgument = 3,
    /// The caller's time limit has come.
    DeadlineExceeded = 4,
    /// No such container or process, or it has ended.
    NotFound = 5,
    /// The id is taken.
    AlreadyExists = 6,
    /// The request is larger than the protocol allows.
    ResourceExhausted = 8,
    /// Not in this state.
    FailedPrecondition = 9,
    /// No such service or method.
    Unimplemented = 12,
    /// What was sent cannot be read.
    Internal = 13,
}

/// A failed RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What kind.
    pub code: Code,
    /// One line.
    pub message: String,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Error {
    /// An error with a code.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into() }
    }

    /// An error without a better code.
    pub fn unknown(message: impl Into<String>) -> Error {
        Error::new(Code::Unknown, message)
    }

    /// A failure of the system: what was being done, and the errno.
    pub fn system(doing: impl std::fmt::Display, error: impl std::fmt::Display) -> Error {
        Error::unknown(format!("{doing}: {error}"))
    }

    /// A call of the runtime that has failed; `doing` is in runc's words, which clients show.
    pub fn runtime(doing: &str, failure: &Failure) -> Error {
        Error::unknown(format!("{doing}: {failure}"))
    }
}
