//! Protocol buffers and ttrpc, written down once more: what the tests send to a shim and expect of it must not come from the code
//! under test.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// A message: fields by number, in the order in which they were added.
#[derive(Default, Clone, Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number or a truth value.
    #[must_use]
    pub fn number(mut self, field: u32, value: u64) -> Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, field: u32, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds a message.
    #[must_use]
    pub fn message(self, field: u32, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    /// Adds a `google.protobuf.Any`.
    #[must_use]
    pub fn any(self, field: u32, name: &str, value: &[u8]) -> Self {
        self.message(field, &Message::any_of(name, value))
    }

    /// A `google.protobuf.Any`.
    #[must_use]
    pub fn any_of(name: &str, value: &[u8]) -> Self {
        Message::new().text(1, name).bytes(2, value)
    }

    /// These bytes, whatever they are.
    #[must_use]
    pub fn raw(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// As it is sent.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A message that was received.
#[derive(Default, Clone, Debug)]
pub struct Fields(BTreeMap<u32, Vec<Value>>);

#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Fields {
    /// Reads a message.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn read(mut bytes: &[u8]) -> Self {
        let mut fields = Self::default();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)),
                1 => Value::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().expect("eight bytes"))),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)).expect("a length");
                    Value::Bytes(take(&mut bytes, length).to_vec())
                }
                other => panic!("wire type {other}"),
            };
            fields.0.entry(u32::try_from(key >> 3).expect("a field number")).or_default().push(value);
        }
        fields
    }

    /// A number; 0 if it is not there.
    #[must_use]
    pub fn number(&self, field: u32) -> u64 {
        match self.0.get(&field).and_then(|values| values.last()) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        }
    }

    /// Bytes; none if they are not there.
    #[must_use]
    pub fn bytes(&self, field: u32) -> &[u8] {
        match self.0.get(&field).and_then(|values| values.last()) {
            Some(Value::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    /// A text; empty if it is not there.
    #[must_use]
    pub fn text(&self, field: u32) -> String {
        String::from_utf8_lossy(self.bytes(field)).into_owned()
    }

    /// A message; empty if it is not there.
    #[must_use]
    pub fn message(&self, field: u32) -> Fields {
        Fields::read(self.bytes(field))
    }

    /// All messages of a repeated field.
    #[must_use]
    pub fn messages(&self, field: u32) -> Vec<Fields> {
        let values = self.0.get(&field).into_iter().flatten();
        values.filter_map(|v| if let Value::Bytes(b) = v { Some(Fields::read(b)) } else { None }).collect()
    }

    /// Whether the field is there.
    #[must_use]
    pub fn has(&self, field: u32) -> bool {
        self.0.contains_key(&field)
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(length);
    *bytes = tail;
    head
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// Reads a frame: stream, type, payload.
///
/// # Errors
/// The connection ends.
pub fn read_frame(from: &mut UnixStream) -> io::Result<(u32, u8, Vec<u8>)> {
    let mut head = [0; 10];
    from.read_exact(&mut head)?;
    let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let mut payload = vec![0; number(0) as usize];
    from.read_exact(&mut payload)?;
    Ok((number(4), head[8], payload))
}

/// Writes a frame.
///
/// # Errors
/// The connection ends.
pub fn write_frame(to: &mut UnixStream, stream: u32, kind: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
    frame.extend(stream.to_be_bytes());
    frame.extend([kind, 0]);
    frame.extend(payload);
    to.write_all(&frame)
}

/// A gRPC status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// 5 is NotFound, and so on.
    pub code: u64,
    /// A line.
    pub message: String,
}

/// A connection to a ttrpc server. Calls are made one after the other, unless one is only sent.
pub struct Client {
    stream: UnixStream,
    next: u32,
    service: String,
    /// Answers that came before they were asked for.
    early: BTreeMap<u32, Vec<u8>>,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    #[must_use]
    pub fn connect(path: &str, service: &str) -> Self {
        let stream = UnixStream::connect(path).unwrap_or_else(|e| panic!("connect to {path}: {e}"));
        stream.set_read_timeout(Some(crate::DEADLINE * 4)).expect("a time limit");
        Self { stream, next: 1, service: service.into(), early: BTreeMap::new() }
    }

    /// Sends a request; its answer is waited for by [`Self::answer`].
    ///
    /// # Panics
    /// When the connection has ended.
    #[track_caller]
    pub fn send(&mut self, method: &str, message: &Message) -> u32 {
        let request = Message::new().text(1, &self.service).text(2, method).message(3, message);
        let stream = self.next;
        self.next += 2;
        write_frame(&mut self.stream, stream, 1, request.encoded()).expect("send a request");
        stream
    }

    /// Waits for the answer to a request.
    ///
    /// # Errors
    /// The status that the server answered with.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn answer(&mut self, wanted: u32) -> Result<Fields, Status> {
        while !self.early.contains_key(&wanted) {
            let (stream, kind, payload) = read_frame(&mut self.stream).expect("an answer");
            assert_eq!(kind, 2, "a frame that is no response");
            self.early.insert(stream, payload);
        }
        let response = Fields::read(&self.early.remove(&wanted).expect("just found"));
        let status = response.message(1);
        match status.number(1) {
            0 => Ok(response.message(2)),
            code => Err(Status { code, message: status.text(2) }),
        }
    }

    /// Calls and waits.
    ///
    /// # Errors
    /// The status that the server answered with.
    #[track_caller]
    pub fn call(&mut self, method: &str, message: &Message) -> Result<Fields, Status> {
        let stream = self.send(method, message);
        self.answer(stream)
    }
}
