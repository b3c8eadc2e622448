//! The client's ends of streams: fifos and files.

use super::{Kind, Spec};
use crate::error::Error;
use crate::stdio::relay::{Fd, Sink};
use rustix::fs::{FileType, Mode, OFlags, fstat, open, stat};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Where a stream of output goes.
pub enum Output {
    /// A fifo of the client, or a pipe.
    Pipe(OwnedFd),
    /// A file, to whose end is written.
    File(File),
}

impl Output {
    /// What `stdout` or `stderr` of a request means; `None` for nothing.
    pub fn of(spec: &Spec, path: &str) -> Result<Option<Output>, Error> {
        if let Kind::File(file) = spec.kind()? {
            return create(&file).map(Some);
        }
        let path = Spec::path(path);
        if path.is_empty() { Ok(None) } else { open_output(path).map(Some) }
    }

    /// For relays that read by themselves.
    pub fn sink(self) -> Result<Sink, Error> {
        Ok(match self {
            Output::Pipe(fd) => Sink::Pipe(Fd::new(fd)?),
            Output::File(file) => Sink::File(file),
        })
    }
}

/// Opens a fifo from both sides: the open waits for nobody, and a reader that goes away (containerd restarts) breaks nothing. It is
/// opened once: a reader that saw a writer come and go would take that for the end.
fn open_output(path: &str) -> Result<Output, Error> {
    let failed = |e| Error::system(format_args!("open the output {path:?}"), e);
    let is_fifo = |mode| FileType::from_raw_mode(mode) == FileType::Fifo;
    let fifo = is_fifo(stat(path).map_err(failed)?.st_mode);
    let access = if fifo { OFlags::RDWR } else { OFlags::WRONLY | OFlags::APPEND };
    let fd = open(path, access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    if is_fifo(fstat(&fd).map_err(failed)?.st_mode) != fifo {
        return Err(Error::unknown(format!("open the output {path:?}: it has changed meanwhile")));
    }
    Ok(if fifo { Output::Pipe(fd) } else { Output::File(File::from(fd)) })
}

/// `file://PATH`
fn create(path: &str) -> Result<Output, Error> {
    let failed = |e: std::io::Error| Error::system(format_args!("open the output file {path:?}"), e);
    if let Some(dir) = Path::new(path).parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let file = File::options().append(true).create(true).open(path).map_err(failed)?;
    Ok(Output::File(file))
}

/// The fifo of standard input: our end to read, and a writer that keeps it open until `CloseIO`.
pub fn open_stdin(path: &str) -> Result<(OwnedFd, OwnedFd), Error> {
    let failed = |e| Error::system(format_args!("open the input {path:?}"), e);
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let reader = open(path, OFlags::RDONLY | flags, Mode::empty()).map_err(failed)?;
    let writer = open(path, OFlags::WRONLY | flags, Mode::empty()).map_err(failed)?;
    Ok((reader, writer))
}
