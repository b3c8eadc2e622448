//! A process's standard streams: from what a request names (fifos, files, a logging program) to what the process gets (pipes or a
//! terminal), and the relays between.
//!
//! Each stream is relayed by a task of its own, so a reader that stalls holds up its own stream only. Pipes are moved by splice(2).
//! The process has pipes and never the client's fifo, so that a checkpoint can save them and nothing of the host is in its hands.

mod console;
mod files;
mod json_file;
mod logger;
mod record;
mod relay;

pub use console::{Console, ConsoleSocket};
pub use logger::Logger;

use crate::error::{Code, Error};
use crate::log;
use crate::reaper::Reaper;
use files::Output;
use json_file::Stream;
use record::{Input, Record, Settings};
use relay::{Fd, Sink};
use rrt_runtime_client::Streams;
use rustix::fs::{Gid, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};

/// How long `Delete` waits for output that is still on its way, as containerd's shim does.
const DRAIN: Duration = Duration::from_secs(10);

/// The streams that a request names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    /// A fifo, or nothing.
    pub stdin: String,
    /// A fifo, a file, `file://PATH`, `binary://PROGRAM?ARGS` or `json-file://PATH?KEYS`; or nothing.
    pub stdout: String,
    /// As `stdout`; not looked at if there is a terminal, or if `stdout` says where both go.
    pub stderr: String,
    /// The three are one terminal.
    pub terminal: bool,
}

/// Where output goes, by the form of `stdout`.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// Each stream has a path of its own.
    Paths,
    /// Both into one file, which is made if need be.
    File(String),
    /// Both to a program. The flag: it has to say that it is ready.
    Binary(&'a str, bool),
    /// Both into a log and to whoever is attached.
    Record(Settings),
}

impl Spec {
    fn kind(&self) -> Result<Kind<'_>, Error> {
        let Some((scheme, rest)) = self.stdout.split_once("://") else { return Ok(Kind::Paths) };
        match scheme {
            "fifo" => Ok(Kind::Paths),
            "file" => Ok(Kind::File(logger::decode(rest))),
            "binary" => Ok(Kind::Binary(rest, false)),
            "binary-v2" => Ok(Kind::Binary(rest, true)),
            "json-file" => Settings::parse(rest).map(Kind::Record),
            _ => Err(Error::unknown(format!("unknown STDIO scheme {scheme}: it is fifo, file, binary or json-file"))),
        }
    }

    /// The path of `stdout` or `stderr` when each has its own.
    fn path(text: &str) -> &str {
        text.strip_prefix("fifo://").unwrap_or(text)
    }
}

/// Who is asking, for logging programs, and who is to own the pipes.
#[derive(Debug, Clone, Default)]
pub struct Owner {
    /// The container's id, or the exec's.
    pub id: String,
    /// The namespace of both.
    pub namespace: String,
    /// `IoUid`
    pub uid: u32,
    /// `IoGid`
    pub gid: u32,
}

/// How many relays of output have not come to their end.
#[derive(Default)]
struct Flow {
    open: Cell<usize>,
    ended: Notify,
}

/// The streams of a process that exists.
#[derive(Default)]
pub struct Io {
    flow: Rc<Flow>,
    relays: RefCell<Vec<AbortHandle>>,
    /// Our own writer of the client's fifo, which keeps standard input from ending when the client goes away.
    stdin: RefCell<Option<OwnedFd>>,
    logger: RefCell<Option<Logger>>,
    record: RefCell<Option<Rc<Record>>>,
    console: RefCell<Option<Rc<Console>>>,
}

/// Pipes that have been made for a process, and where they lead.
pub struct Pipes {
    stdin: Option<(String, OwnedFd)>,
    outputs: Vec<(Output, OwnedFd)>,
    logger: Option<Logger>,
    /// Reading ends of both outputs, and the writing end of the input.
    record: Option<(Rc<Record>, [OwnedFd; 2], Option<OwnedFd>)>,
}

impl Pipes {
    /// Makes what the process is to have as its streams; without a terminal.
    ///
    /// # Errors
    /// A path cannot be opened, a logging program does not start, or `pipe2(2)`.
    pub async fn open(spec: &Spec, owner: &Owner, reaper: &Rc<Reaper>) -> Result<(Pipes, Streams), Error> {
        let mut pipes = Pipes { stdin: None, outputs: Vec::new(), logger: None, record: None };
        let mut streams = Streams::default();
        match spec.kind()? {
            Kind::Binary(uri, must_be_ready) => {
                let (logger, stdout, stderr) = Logger::start(uri, must_be_ready, owner, reaper).await?;
                pipes.logger = Some(logger);
                (streams.stdout, streams.stderr) = (Some(stdout), Some(stderr));
                return Ok((pipes, streams));
            }
            Kind::Record(settings) => {
                pipes.record(settings, &mut streams, owner)?;
                return Ok((pipes, streams));
            }
            Kind::Paths | Kind::File(_) => {}
        }
        // The process's ends are blocking, as it expects; ours are not.
        if !spec.stdin.is_empty() {
            let (reader, writer) = pipe(owner)?;
            relay::nonblocking(&writer)?;
            (streams.stdin, pipes.stdin) = (Some(reader), Some((spec.stdin.clone(), writer)));
        }
        if let Some(output) = Output::of(spec, &spec.stdout)? {
            streams.stdout = Some(pipes.output(output, owner)?);
        }
        if let Some(output) = Output::of(spec, &spec.stderr)? {
            streams.stderr = Some(pipes.output(output, owner)?);
        }
        Ok((pipes, streams))
    }

    fn output(&mut self, output: Output, owner: &Owner) -> Result<OwnedFd, Error> {
        let (reader, writer) = pipe(owner)?;
        relay::nonblocking(&reader)?;
        self.outputs.push((output, reader));
        Ok(writer)
    }

    fn record(&mut self, settings: Settings, streams: &mut Streams, owner: &Owner) -> Result<(), Error> {
        let ((out, stdout), (err, stderr)) = (pipe(owner)?, pipe(owner)?);
        relay::nonblocking(&out)?;
        relay::nonblocking(&err)?;
        let mut input = None;
        if settings.stdin {
            let (reader, writer) = pipe(owner)?;
            relay::nonblocking(&writer)?;
            (streams.stdin, input) = (Some(reader), Some(writer));
        }
        self.record = Some((Record::open(settings)?, [out, err], input));
        (streams.stdout, streams.stderr) = (Some(stdout), Some(stderr));
        Ok(())
    }

    /// Starts the relays. The process's own ends must have been closed, or its output never ends.
    ///
    /// # Errors
    /// The fifo of standard input cannot be opened.
    pub fn connect(self, io: &Io) -> Result<(), Error> {
        *io.logger.borrow_mut() = self.logger;
        if let Some((record, [out, err], input)) = self.record {
            if let Some(input) = input {
                record.set_input(Input::Pipe(Fd::new(input)?));
            }
            io.spawn_output(record.clone().relay(Fd::new(out)?, Stream::Stdout));
            io.spawn_output(record.clone().relay(Fd::new(err)?, Stream::Stderr));
            *io.record.borrow_mut() = Some(record);
        }
        for (output, reader) in self.outputs {
            io.relay_output(Fd::new(reader)?, output)?;
        }
        if let Some((path, writer)) = self.stdin {
            let (reader, keep) = files::open_stdin(&path)?;
            *io.stdin.borrow_mut() = Some(keep);
            let (from, to) = (Fd::new(reader)?, Fd::new(writer)?);
            io.spawn(async move { relay::splice(&from, &to).await });
        }
        Ok(())
    }
}

fn pipe(owner: &Owner) -> Result<(OwnedFd, OwnedFd), Error> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::system("pipe2", e))?;
    if owner.uid != 0 || owner.gid != 0 {
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        // Both ends are one inode.
        rustix::fs::fchown(&reader, uid, gid).map_err(|e| Error::system("fchown of a pipe (IoUid, IoGid)", e))?;
    }
    Ok((reader, writer))
}

impl Io {
    /// Connects the terminal of a process with the client's fifos.
    ///
    /// # Errors
    /// A path cannot be opened, or a logging program does not start.
    pub async fn connect_console(
        &self,
        console: Console,
        spec: &Spec,
        owner: &Owner,
        reaper: &Rc<Reaper>,
    ) -> Result<(), Error> {
        let console = Rc::new(console);
        let sink = match spec.kind()? {
            Kind::Binary(uri, must_be_ready) => {
                let (logger, stdout, _) = Logger::start(uri, must_be_ready, owner, reaper).await?;
                *self.logger.borrow_mut() = Some(logger);
                relay::nonblocking(&stdout)?;
                Some(Output::Pipe(stdout).sink()?)
            }
            Kind::Record(settings) => {
                let record = Record::open(settings)?;
                record.set_input(Input::Terminal(console.clone()));
                let open = record.opened(Stream::Stdout);
                *self.record.borrow_mut() = Some(record);
                Some(Sink::Record(open))
            }
            Kind::Paths | Kind::File(_) => Output::of(spec, &spec.stdout)?.map(Output::sink).transpose()?,
        };
        if let Some(mut sink) = sink {
            let console = console.clone();
            self.spawn_output(async move { console.read_into(&mut sink).await });
        }
        if !spec.stdin.is_empty() {
            let (reader, keep) = files::open_stdin(&spec.stdin)?;
            *self.stdin.borrow_mut() = Some(keep);
            let (from, console) = (Fd::new(reader)?, console.clone());
            self.spawn(async move { console.write_from(&from).await });
        }
        *self.console.borrow_mut() = Some(console);
        Ok(())
    }

    fn relay_output(&self, from: Fd, output: Output) -> Result<(), Error> {
        match output {
            Output::Pipe(to) => {
                let to = Fd::new(to)?;
                self.spawn_output(async move { relay::splice(&from, &to).await });
            }
            Output::File(to) => self.spawn_output(async move { relay::into_file(&from, &to).await }),
        }
        Ok(())
    }

    fn spawn_output(&self, relay: impl Future<Output = std::io::Result<()>> + 'static) {
        let flow = self.flow.clone();
        flow.open.set(flow.open.get() + 1);
        self.spawn(async move {
            let result = relay.await;
            flow.open.set(flow.open.get() - 1);
            flow.ended.notify_waiters();
            result
        });
    }

    fn spawn(&self, relay: impl Future<Output = std::io::Result<()>> + 'static) {
        let task = spawn_local(async move {
            if let Err(e) = relay.await {
                log::debug(format_args!("relay: {e}"));
            }
        });
        self.relays.borrow_mut().push(task.abort_handle());
    }

    /// Ends standard input once the client's writers are gone, too.
    pub fn close_stdin(&self) {
        self.stdin.borrow_mut().take();
        if let Some(record) = &*self.record.borrow() {
            record.close_input();
        }
    }

    /// Sets the terminal's size; without a terminal there is none to set.
    ///
    /// # Errors
    /// `ioctl(TIOCSWINSZ)`
    pub fn resize(&self, width: u32, height: u32) -> Result<(), Error> {
        let small =
            |n: u32| u16::try_from(n).map_err(|_| Error::new(Code::InvalidArgument, "a terminal is not so large"));
        match &*self.console.borrow() {
            Some(console) => console.resize(small(width)?, small(height)?),
            None => Ok(()),
        }
    }

    /// Waits until all output has gone to where it belongs, then takes everything down.
    pub async fn close(&self) {
        let drained = async {
            while self.flow.open.get() > 0 {
                self.flow.ended.notified().await;
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            log::warn("output has not been read to its end: somebody holds it open, or nobody reads");
        }
        for relay in self.relays.take() {
            relay.abort();
        }
        self.close_stdin();
        self.console.take();
        self.record.take();
        let logger = self.logger.take();
        if let Some(logger) = logger {
            logger.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_output() {
        let kind = |stdout: &str| {
            let spec = Spec { stdout: stdout.into(), ..Spec::default() };
            spec.kind().map(|kind| format!("{kind:?}")).map_err(|e| e.message)
        };
        assert_eq!(kind("/run/fifo").as_deref(), Ok("Paths"));
        assert_eq!(kind("").as_deref(), Ok("Paths"));
        assert_eq!(kind("fifo:///run/x").as_deref(), Ok("Paths"));
        assert_eq!(kind("file:///a%20b").as_deref(), Ok("File(\"/a b\")"));
        assert_eq!(kind("binary:///bin/log?k=v").as_deref(), Ok("Binary(\"/bin/log?k=v\", false)"));
        assert_eq!(kind("binary-v2:///l").as_deref(), Ok("Binary(\"/l\", true)"));
        assert!(kind("http://x").is_err_and(|m| m.contains("unknown STDIO scheme http")));
    }
}
