//! A connection to systemd over D-Bus: blocking, and never for longer than it is told.
//!
//! ```text
//!   we                                   the bus, or systemd itself
//!   NUL, AUTH EXTERNAL, DATA, BEGIN  ->
//!   Hello, calls                     ->                     all of it in one write, as sd-bus does
//!                                    <-  DATA, OK
//!                                    <-  answers and signals, in any order
//! ```
//!
//! The identity is left to the kernel (an empty `DATA`: the other side asks SO_PEERCRED), because in a user namespace we do
//! not know the uid by which the bus knows us. Every wait is a poll(2) with what is left of one deadline; whatever comes,
//! the wait ends with it.

use super::value::Value;
use super::wire::{Body, Call, ERROR, Malformed, Message, RETURN, SIGNAL};
use rrt_sys::{SysError, errno, socket};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What went wrong with a call to systemd.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// No bus could be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The connection ended.
    #[error("the connection to {0} broke")]
    Broken(String),
    /// No answer in time.
    #[error("no answer from {peer} within {after:?}: it hangs, or is too busy")]
    Timeout {
        /// The bus.
        peer: String,
        /// How long the wait was.
        after: Duration,
    },
    /// What came was no D-Bus.
    #[error("{peer} does not speak D-Bus: {what}")]
    Malformed {
        /// The bus.
        peer: String,
        /// What was wrong.
        what: String,
    },
    /// An answer, which says no.
    #[error("{text} ({name})")]
    Refused {
        /// The error's name, as `org.freedesktop.systemd1.UnitExists`.
        name: String,
        /// systemd's words.
        text: String,
    },
}

type Result<T> = std::result::Result<T, BusError>;

/// Where a bus may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) place: PathBuf,
    /// systemd's own socket, without a bus between: no names, no Hello.
    pub(crate) direct: bool,
}

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
const SYSTEM_PRIVATE: &str = "/run/systemd/private";

impl Address {
    /// The places of the system's manager, or of the user's, in the order they are tried. `env`: the environment.
    pub(crate) fn of_manager(user: bool, env: impl Fn(&str) -> Option<OsString>) -> Vec<Address> {
        let bus = |place: PathBuf| Address { place, direct: false };
        let direct = |place: PathBuf| Address { place, direct: true };
        let runtime_dir = env("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()).map(PathBuf::from);
        let listed = env(if user { "DBUS_SESSION_BUS_ADDRESS" } else { "DBUS_SYSTEM_BUS_ADDRESS" });
        let mut places: Vec<Address> =
            listed.iter().flat_map(|l| parse_addresses(&l.to_string_lossy())).map(bus).collect();
        match (user, runtime_dir) {
            (false, _) => {
                if places.is_empty() {
                    places.push(bus(SYSTEM_BUS.into()));
                }
                places.push(direct(SYSTEM_PRIVATE.into()));
            }
            (true, Some(dir)) => {
                if places.is_empty() {
                    places.push(bus(dir.join("bus")));
                }
                places.push(direct(dir.join("systemd/private")));
            }
            (true, None) => {}
        }
        places
    }
}

/// The unix sockets of a D-Bus address list (D-Bus specification, "Server Addresses"). An abstract one begins with `@`.
fn parse_addresses(list: &str) -> Vec<PathBuf> {
    let one = |address: &str| {
        let keys = address.strip_prefix("unix:")?.split(',');
        keys.filter_map(|pair| pair.split_once('=')).find_map(|(key, value)| match key {
            "path" => Some(PathBuf::from(OsString::from_vec(unescape(value)?))),
            "abstract" => Some(PathBuf::from(OsString::from_vec([b"@".as_slice(), &unescape(value)?].concat()))),
            _ => None,
        })
    };
    list.split(';').filter_map(one).collect()
}

/// `%2f` as its byte.
fn unescape(value: &str) -> Option<Vec<u8>> {
    let mut parts = value.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(out)
}

/// The longest line of the authentication.
const LINE_MAX: usize = 4096;
/// How many ended jobs of others are remembered while ours is waited for.
const JOBS_MAX: usize = 64;

const DBUS: &str = "org.freedesktop.DBus";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";

/// The end of a job of systemd's, as the signal JobRemoved tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct EndedJob {
    job: String,
    result: String,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Bus {
    fd: OwnedFd,
    peer: String,
    direct: bool,
    /// How long one call may take.
    pub(crate) limit: Duration,
    authenticated: bool,
    serial: u32,
    /// Bytes that have come and are no whole message yet.
    input: Vec<u8>,
    /// Answers to calls that nobody has waited for yet.
    answers: VecDeque<Message>,
    ended_jobs: VecDeque<EndedJob>,
}

impl Bus {
    /// Connects to the first place that takes the connection, and introduces itself without waiting for an answer.
    ///
    /// # Errors
    /// [`BusError::Unreachable`] with every place and its reason.
    pub(crate) fn connect(places: &[Address], limit: Duration) -> Result<Bus> {
        let mut reasons = Vec::new();
        for place in places {
            match Bus::connect_to(place, limit) {
                Ok(bus) => return Ok(bus),
                Err(e) => reasons.push(e.to_string()),
            }
        }
        match reasons.is_empty() {
            true => Err(BusError::Unreachable("no bus is known".into())),
            false => Err(BusError::Unreachable(reasons.join("; "))),
        }
    }

    fn connect_to(place: &Address, limit: Duration) -> Result<Bus> {
        let fd = socket::connect_within(&place.place, limit).map_err(|e| BusError::Unreachable(e.to_string()))?;
        Bus::over(fd, place.place.display().to_string(), place.direct, limit)
    }

    /// A connection over a socket that is connected.
    pub(crate) fn over(fd: OwnedFd, peer: String, direct: bool, limit: Duration) -> Result<Bus> {
        let mut bus = Bus {
            fd,
            peer,
            direct,
            limit,
            authenticated: false,
            serial: 0,
            input: Vec::new(),
            answers: VecDeque::new(),
            ended_jobs: VecDeque::new(),
        };
        let mut bytes = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".to_vec();
        if !direct {
            let hello = Call { path: "/org/freedesktop/DBus", ..bus.of_dbus("Hello", &[]) };
            bus.serial += 1;
            bytes.extend(hello.encode(bus.serial));
        }
        let deadline = bus.deadline();
        bus.write(&bytes, deadline)?;
        Ok(bus)
    }

    fn of_dbus<'a>(&self, member: &'a str, arguments: &'a [Value]) -> Call<'a> {
        Call { destination: Some(DBUS), path: "/org/freedesktop/DBus", interface: DBUS, member, arguments }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.limit
    }

    /// Asks the bus for the signals that tell of ended jobs. systemd's own socket sends them unasked.
    pub(crate) fn watch_jobs(&mut self) -> Result<Option<u32>> {
        if self.direct {
            return Ok(None);
        }
        let rule = Value::str(format!(
            "type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}',member='JobRemoved'"
        ));
        let arguments = [rule];
        let call = self.of_dbus("AddMatch", &arguments);
        self.send(&call).map(Some)
    }

    /// Sends a call to systemd's manager object and does not wait for its answer.
    pub(crate) fn send_to_manager(&mut self, member: &str, arguments: &[Value]) -> Result<u32> {
        self.send_to(MANAGER, member, arguments)
    }

    /// Asks for a property of the manager, and does not wait for it.
    pub(crate) fn send_get(&mut self, property: &str) -> Result<u32> {
        let arguments = [Value::str(MANAGER), Value::str(property)];
        self.send_to("org.freedesktop.DBus.Properties", "Get", &arguments)
    }

    fn send_to(&mut self, interface: &str, member: &str, arguments: &[Value]) -> Result<u32> {
        let destination = (!self.direct).then_some(SYSTEMD);
        self.send(&Call { destination, path: MANAGER_PATH, interface, member, arguments })
    }

    fn send(&mut self, call: &Call<'_>) -> Result<u32> {
        self.serial += 1;
        let bytes = call.encode(self.serial);
        self.write(&bytes, self.deadline())?;
        Ok(self.serial)
    }

    /// The answer to a call that was sent.
    ///
    /// # Errors
    /// [`BusError::Refused`] when it is a refusal; all others when it did not come.
    pub(crate) fn answer(&mut self, serial: u32) -> Result<Message> {
        let deadline = self.deadline();
        loop {
            if let Some(at) = self.answers.iter().position(|m| m.reply_to == Some(serial)) {
                let answer = self.answers.remove(at).unwrap_or_default();
                return match answer.kind {
                    RETURN => Ok(answer),
                    _ => Err(refusal(&answer)),
                };
            }
            if !self.receive(deadline)? {
                return Err(BusError::Timeout { peer: self.peer.clone(), after: self.limit });
            }
        }
    }

    /// Waits until a job has ended, until `there` (which is asked about once a second: a signal may be lost when systemd
    /// executes itself again), or until the limit; returns the job's result. `None`: it is there, whatever became of the job.
    pub(crate) fn job(&mut self, job: &str, there: impl Fn() -> bool) -> Result<Option<String>> {
        const LOOK: Duration = Duration::from_secs(1);
        let deadline = self.deadline();
        loop {
            if let Some(ended) = self.ended_jobs.iter().find(|e| e.job == job) {
                return Ok(Some(ended.result.clone()));
            }
            if !self.receive(deadline.min(Instant::now() + LOOK))? {
                if there() {
                    return Ok(None);
                }
                if Instant::now() >= deadline {
                    return Err(BusError::Timeout { peer: self.peer.clone(), after: self.limit });
                }
            }
        }
    }

    /// Receives and sorts what comes next; false when nothing has until the deadline.
    fn receive(&mut self, deadline: Instant) -> Result<bool> {
        loop {
            if !self.authenticated {
                self.authenticated = self.read_authentication()?;
            }
            if self.authenticated
                && let Some((message, length)) = Message::decode(&self.input).map_err(|e| self.malformed(e))?
            {
                self.input.drain(..length);
                self.sort(message)?;
                return Ok(true);
            }
            if !self.read(deadline)? {
                return Ok(false);
            }
        }
    }

    /// The lines of the authentication: whether it has succeeded.
    fn read_authentication(&mut self) -> Result<bool> {
        while let Some(end) = self.input.windows(2).position(|w| w == b"\r\n") {
            let line: Vec<u8> = self.input.drain(..end + 2).collect();
            match &line[..end] {
                b"DATA" => {}
                line if line.starts_with(b"OK ") => return Ok(true),
                line if line.starts_with(b"REJECTED") => {
                    let peer = &self.peer;
                    return Err(BusError::Unreachable(format!("{peer} does not accept this user")));
                }
                line => {
                    let text: String = String::from_utf8_lossy(line).chars().take(80).collect();
                    return Err(self.malformed(format!("{text:?} where the authentication should end")));
                }
            }
        }
        match self.input.len() {
            0..=LINE_MAX => Ok(false),
            _ => Err(self.malformed("an endless line")),
        }
    }

    fn sort(&mut self, message: Message) -> Result<()> {
        match message.kind {
            RETURN | ERROR => {
                // Nobody waits for the answer to Hello; if it is a refusal, so are all that follow.
                if self.answers.len() > JOBS_MAX {
                    self.answers.pop_front();
                }
                self.answers.push_back(message);
            }
            SIGNAL if message.interface == MANAGER && message.member == "JobRemoved" => {
                let read = || {
                    let mut body = message.arguments("uoss")?;
                    body.word()?;
                    let job = body.string()?;
                    body.string()?;
                    Ok(EndedJob { job, result: body.string()? })
                };
                let ended = read().map_err(|e: Malformed| self.malformed(e))?;
                if self.ended_jobs.len() >= JOBS_MAX {
                    self.ended_jobs.pop_front();
                }
                self.ended_jobs.push_back(ended);
            }
            _ => {}
        }
        Ok(())
    }

    fn malformed(&self, what: impl Into<Reason>) -> BusError {
        BusError::Malformed { peer: self.peer.clone(), what: what.into().0 }
    }

    /// Reads an answer's arguments.
    pub(crate) fn read_answer<T>(
        &self,
        answer: &Message,
        signature: &'static str,
        read: impl FnOnce(&mut Body<'_>) -> std::result::Result<T, Malformed>,
    ) -> Result<T> {
        answer.arguments(signature).and_then(|mut body| read(&mut body)).map_err(|e| self.malformed(e))
    }

    /// More bytes; false when none have come until the deadline.
    fn read(&mut self, deadline: Instant) -> Result<bool> {
        if !self.wait(deadline, false)? {
            return Ok(false);
        }
        let mut buffer = [0; 4096];
        let (length, _) = socket::receive(self.fd.as_fd(), &mut buffer).map_err(|e| self.broken(&e))?;
        if length == 0 {
            return Err(BusError::Broken(self.peer.clone()));
        }
        self.input.extend_from_slice(&buffer[..length]);
        Ok(true)
    }

    fn write(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<()> {
        while !bytes.is_empty() {
            match socket::send_some(self.fd.as_fd(), bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.is(errno::EAGAIN) => {
                    if !self.wait(deadline, true)? {
                        return Err(BusError::Timeout { peer: self.peer.clone(), after: self.limit });
                    }
                }
                Err(e) => return Err(self.broken(&e)),
            }
        }
        Ok(())
    }

    /// Waits until the socket can be read from, or written to; false when the deadline came first.
    fn wait(&self, deadline: Instant, writing: bool) -> Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up: a wait of no time at all would be a busy loop.
        let ms = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        let fd = [self.fd.as_fd()];
        let ready = if writing { socket::poll(&[], &fd, ms) } else { socket::poll(&fd, &[], ms) };
        Ok(ready.map_err(|e| self.broken(&e))?[0])
    }

    fn broken(&self, error: &SysError) -> BusError {
        BusError::Broken(format!("{}: {error}", self.peer))
    }
}

fn refusal(answer: &Message) -> BusError {
    let text = answer.arguments("s").and_then(|mut body| body.string()).unwrap_or_default();
    BusError::Refused { name: answer.error.clone(), text }
}

/// What was wrong with what came.
struct Reason(String);

impl From<Malformed> for Reason {
    fn from(m: Malformed) -> Reason {
        Reason(m.0.into())
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Reason {
        Reason(text)
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Reason {
        Reason(text.into())
    }
}
