//! How a command ends.

use std::fmt;
use std::io;

/// Not with success: the exit code, and the line that says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Docker's codes: 1 for a failed command, 125 for a wrong flag or a failure of `berth` itself, 130 after Ctrl-C.
    pub code: u8,
    /// For standard error; empty: nothing to say.
    pub message: String,
}

/// What a shell reports of a program that a closed pipe ended.
const CLOSED_PIPE: u8 = 128 + 13;

impl Exit {
    /// The command failed.
    pub fn failed(message: impl Into<String>) -> Exit {
        Exit { code: 1, message: message.into() }
    }

    /// The command failed, and it was this library that said why.
    pub fn error(error: &dyn fmt::Display) -> Exit {
        Exit::failed(format!("Error: {error}"))
    }

    /// Nothing more to say.
    pub fn silent(code: u8) -> Exit {
        Exit { code, message: String::new() }
    }

    /// Writing to `what` failed. Nobody reads any more (`berth images | head -1`): no word of it.
    pub fn write(what: &str, error: &io::Error) -> Exit {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::silent(CLOSED_PIPE),
            _ => Exit::failed(format!("Error: can't write {what}: {error}")),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
