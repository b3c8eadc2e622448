//! A caller of the task service that waits for each answer.

use crate::frame::{HEADER, Header, LONGEST, REQUEST, RESPONSE, frame};
use crate::{Request, Response, Status};
use prost::Message;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// The task service, by its name of version 2.
const TASK: &str = "containerd.task.v2.Task";

/// A connection to a shim; one call at a time.
pub struct Client {
    stream: UnixStream,
    next: u32,
}

/// What became of a call.
#[derive(Debug)]
pub enum Failure {
    /// Nobody answers: the shim is gone, or what it says is no ttrpc.
    Connection(io::Error),
    /// The shim's answer: a gRPC code and a line.
    Refused(Status),
}

impl Failure {
    /// gRPC's NOT_FOUND: no such container or exec.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Failure::Refused(status) if status.code == 5)
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connection(e) => write!(f, "the container's supervisor does not answer: {e}"),
            Failure::Refused(status) => f.write_str(&status.message),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Connection(e)
    }
}

impl Client {
    /// Connects to the address that `start` has printed (`unix:///path`).
    ///
    /// # Errors
    /// `connect(2)`
    pub fn connect(address: &str) -> io::Result<Client> {
        let stream = UnixStream::connect(address.trim_start_matches("unix://"))?;
        Ok(Client { stream, next: 1 })
    }

    /// Calls a method of the task service, and waits for as long as it takes.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn call<T: Message + Default>(&mut self, method: &str, message: &impl Message) -> Result<T, Failure> {
        let stream = self.next;
        self.next = self.next.wrapping_add(2);
        let payload = message.encode_to_vec();
        let request = Request { service: TASK.into(), method: method.into(), payload, timeout_nano: 0 };
        self.stream.write_all(&frame(stream, REQUEST, &request)?)?;
        loop {
            let mut head = [0; HEADER];
            self.stream.read_exact(&mut head)?;
            let header = Header::parse(head);
            if header.length > LONGEST {
                return Err(io::Error::other("an answer is longer than ttrpc allows").into());
            }
            let mut payload = vec![0; header.length];
            self.stream.read_exact(&mut payload)?;
            if header.stream == stream && header.kind == RESPONSE {
                let response = Response::decode(&payload[..]).map_err(io::Error::other)?;
                return match response.status.filter(|s| s.code != 0) {
                    Some(status) => Err(Failure::Refused(status)),
                    None => T::decode(&response.payload[..]).map_err(|e| io::Error::other(e).into()),
                };
            }
        }
    }
}
