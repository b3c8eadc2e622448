//! `json-file://PATH?…`: output is logged, and goes to whoever has attached at the moment.
//!
//! | key | |
//! |---|---|
//! | `max-size`, `max-file` | [`JsonFile`]'s limit in bytes, and number of files |
//! | `attach` | the path of a socket to make |
//! | `stdin` | `open`: the process has a standard input, whose source are those attached; `once`: it ends with the first of them |
//!
//! An empty PATH logs nothing. To the attached, output comes in frames as the Docker API has them (`attach`): a byte for the stream, three
//! zeros, the length (32 bits, big endian), the bytes. What they send is input, as it is; their end of writing ends it only with `once`. Their
//! connection ends when all output has ended. One that reads slowly slows the process down, as with a pipe.

use super::json_file::{JsonFile, Stream};
use super::logger::{decode, pairs};
use super::relay::{self, Fd};
use crate::error::Error;
use crate::log;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::task::spawn_local;

/// What a URI asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    log: PathBuf,
    limit: Option<u64>,
    files: u32,
    attach: PathBuf,
    /// The process has a standard input.
    pub stdin: bool,
    once: bool,
}

impl Settings {
    /// Reads what follows `json-file://`.
    ///
    /// # Errors
    /// A key or value that there is not.
    pub fn parse(uri: &str) -> Result<Settings, Error> {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let mut settings = Settings { log: decode(path).into(), files: 1, ..Settings::default() };
        for (key, value) in pairs(query) {
            let bad = || Error::unknown(format!("json-file: {key}={value} is not known"));
            match (key.as_str(), value.as_str()) {
                ("max-size", n) => settings.limit = Some(n.parse().map_err(|_| bad())?),
                ("max-file", n) => settings.files = n.parse().map_err(|_| bad())?,
                ("attach", path) => settings.attach = path.into(),
                ("stdin", "open") => settings.stdin = true,
                ("stdin", "once") => (settings.stdin, settings.once) = (true, true),
                _ => return Err(bad()),
            }
        }
        Ok(settings)
    }
}

/// Where the input of those attached goes.
pub enum Input {
    /// The process's pipe.
    Pipe(Fd),
    /// Its terminal.
    Terminal(Rc<super::Console>),
}

/// The output of one process.
pub struct Record {
    log: RefCell<Option<JsonFile>>,
    settings: Settings,
    clients: RefCell<Vec<Rc<Mutex<OwnedWriteHalf>>>>,
    input: RefCell<Option<Rc<Input>>>,
    open: Cell<usize>,
}

impl Record {
    /// Opens the log, and listens.
    ///
    /// # Errors
    /// The log can't be opened, the socket not made.
    pub fn open(settings: Settings) -> Result<Rc<Record>, Error> {
        let failed =
            |what: &str, path: &Path, e: io::Error| Error::system(format_args!("{what} {}", path.display()), e);
        let log = match settings.log.as_os_str().is_empty() {
            true => None,
            false => {
                let log = JsonFile::open(&settings.log, settings.limit, settings.files);
                Some(log.map_err(|e| failed("open the log", &settings.log, e))?)
            }
        };
        let listener = match settings.attach.as_os_str().is_empty() {
            true => None,
            false => Some(bind(&settings.attach).map_err(|e| failed("make the socket", &settings.attach, e))?),
        };
        let record = Rc::new(Record {
            log: RefCell::new(log),
            settings,
            clients: RefCell::default(),
            input: RefCell::default(),
            open: Cell::new(0),
        });
        if let Some(listener) = listener {
            let record = Rc::downgrade(&record);
            spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let Some(record) = record.upgrade() else { return };
                    record.attached(stream);
                }
            });
        }
        Ok(record)
    }

    /// Who attaches from now on writes there.
    pub fn set_input(&self, input: Input) {
        *self.input.borrow_mut() = Some(Rc::new(input));
    }

    /// The process's input ends.
    pub fn close_input(&self) {
        self.input.borrow_mut().take();
    }

    fn attached(self: &Rc<Self>, stream: UnixStream) {
        let (reader, writer) = stream.into_split();
        self.clients.borrow_mut().push(Rc::new(Mutex::new(writer)));
        if self.settings.stdin {
            let record = self.clone();
            spawn_local(async move {
                if let Err(e) = record.relay_input(reader).await {
                    log::debug(format_args!("input: {e}"));
                }
                if record.settings.once {
                    record.close_input();
                }
            });
        }
    }

    async fn relay_input(&self, mut reader: OwnedReadHalf) -> io::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            let n = reader.read(&mut buffer).await?;
            let input = self.input.borrow().clone();
            match (n, input.as_deref()) {
                (0, _) | (_, None) => return Ok(()),
                (n, Some(Input::Pipe(to))) => to.write_all(&buffer[..n]).await?,
                (n, Some(Input::Terminal(console))) => console.write_all(&buffer[..n]).await?,
            }
        }
    }

    /// Relays a pipe until its end.
    pub async fn relay(self: Rc<Self>, from: Fd, stream: Stream) -> io::Result<()> {
        let open = self.opened(stream);
        loop {
            from.readable().await?;
            // Copied only if somebody is attached: nothing is kept while waiting.
            let (end, copy) =
                relay::read_some(&from, |data| (data.is_empty(), self.logged(stream, data)))?.unwrap_or((false, None));
            self.send(copy).await;
            if end {
                drop(open);
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Counts a stream; when the last has ended, so have the connections.
    pub fn opened(self: &Rc<Self>, stream: Stream) -> Open {
        self.open.set(self.open.get() + 1);
        Open(self.clone(), stream)
    }

    /// Logs, and makes a frame if somebody wants one.
    fn logged(&self, stream: Stream, data: &[u8]) -> Option<Vec<u8>> {
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.write(stream, data);
        }
        if data.is_empty() || self.clients.borrow().is_empty() {
            return None;
        }
        let mut frame = Vec::with_capacity(8 + data.len());
        frame.extend_from_slice(&[stream as u8, 0, 0, 0]);
        frame.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend_from_slice(data);
        Some(frame)
    }

    async fn send(&self, frame: Option<Vec<u8>>) {
        let Some(frame) = frame else { return };
        let clients = self.clients.borrow().clone();
        for client in clients {
            // One frame at a time, of whichever stream.
            let written = client.lock().await.write_all(&frame).await;
            if written.is_err() {
                self.clients.borrow_mut().retain(|other| !Rc::ptr_eq(other, &client));
            }
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.settings.attach.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.settings.attach);
        }
    }
}

/// A stream that has not ended.
pub struct Open(Rc<Record>, Stream);

impl Open {
    /// Takes some of it.
    pub async fn take(&self, data: &[u8]) {
        let copy = self.0.logged(self.1, data);
        self.0.send(copy).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(log) = &mut *self.0.log.borrow_mut() {
            log.end(self.1);
        }
        self.0.open.set(self.0.open.get() - 1);
        if self.0.open.get() == 0 {
            // What has been written is delivered before the end.
            self.0.clients.borrow_mut().clear();
            self.0.close_input();
        }
    }
}

/// A socket for root alone, in place of what a dead shim has left. A directory's descriptor makes any path short enough.
fn bind(path: &Path) -> io::Result<UnixListener> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = std::fs::File::open(dir)?;
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), name.to_string_lossy()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let settings = Settings::parse("/a%20b?max-size=10&max-file=3&attach=/s&stdin=once").unwrap();
        let expected =
            Settings { log: "/a b".into(), limit: Some(10), files: 3, attach: "/s".into(), stdin: true, once: true };
        assert_eq!(settings, expected);
        assert_eq!(Settings::parse("").unwrap(), Settings { files: 1, ..Settings::default() });
        for bad in ["/l?max-size=x", "/l?wat=1", "/l?stdin=no"] {
            assert!(Settings::parse(bad).is_err(), "{bad}");
        }
    }
}
