//! The few messages of criu's RPC, as protocol buffers have them on the wire.
//!
//! A message is a row of fields: a number with the kind of what follows, then a varint, or a length and that many bytes. What criu
//! knows and we do not need is skipped. Field numbers are those of criu's `images/rpc.proto`; they never change.

/// What a request asks for, and what a response answers (`criu_req_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Kind {
    /// Save processes.
    Dump = 1,
    /// Bring processes back.
    Restore = 2,
    /// Save memory only.
    PreDump = 4,
    /// criu: something is about to happen or has happened; it waits for the answer.
    Notify = 6,
    /// Whether criu and the kernel can do something.
    FeatureCheck = 9,
    /// criu's version.
    Version = 10,
}

/// Fields of `criu_opts`.
pub mod opt {
    pub const IMAGES_DIR_FD: u32 = 1;
    pub const PID: u32 = 2;
    pub const LEAVE_RUNNING: u32 = 3;
    pub const EXT_UNIX_SK: u32 = 4;
    pub const TCP_ESTABLISHED: u32 = 5;
    pub const EVASIVE_DEVICES: u32 = 6;
    pub const SHELL_JOB: u32 = 7;
    pub const FILE_LOCKS: u32 = 8;
    pub const LOG_LEVEL: u32 = 9;
    pub const LOG_FILE: u32 = 10;
    pub const PAGE_SERVER: u32 = 11;
    pub const NOTIFY_SCRIPTS: u32 = 12;
    pub const ROOT: u32 = 13;
    pub const PARENT_IMG: u32 = 14;
    pub const TRACK_MEM: u32 = 15;
    pub const AUTO_DEDUP: u32 = 16;
    pub const WORK_DIR_FD: u32 = 17;
    pub const LINK_REMAP: u32 = 18;
    pub const EXT_MNT: u32 = 23;
    pub const CG_ROOT: u32 = 25;
    pub const RST_SIBLING: u32 = 26;
    pub const INHERIT_FD: u32 = 27;
    pub const MANAGE_CGROUPS_MODE: u32 = 34;
    pub const EXTERNAL: u32 = 37;
    pub const EMPTY_NS: u32 = 38;
    pub const JOIN_NS: u32 = 39;
    pub const FREEZE_CGROUP: u32 = 44;
    pub const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub const LAZY_PAGES: u32 = 48;
    pub const ORPHAN_PTS_MASTER: u32 = 50;
    pub const CONFIG_FILE: u32 = 51;
    pub const TCP_CLOSE: u32 = 52;
    pub const LSM_PROFILE: u32 = 53;
    pub const LSM_MOUNT_CONTEXT: u32 = 63;
    pub const NETWORK_LOCK: u32 = 64;
    pub const MNTNS_COMPAT_MODE: u32 = 65;
}

/// A message being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// A number; a negative one as its two's complement, as `int32` has it.
    pub fn number(&mut self, field: u32, value: i64) -> &mut Message {
        self.varint(u64::from(field) << 3);
        self.varint(value as u64);
        self
    }

    /// A yes; a no is what absence means.
    pub fn flag(&mut self, field: u32, value: bool) -> &mut Message {
        if value { self.number(field, 1) } else { self }
    }

    /// Text, which in criu's messages is mostly a path: any bytes.
    pub fn text(&mut self, field: u32, value: impl AsRef<[u8]>) -> &mut Message {
        let value = value.as_ref();
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Text that may be missing.
    pub fn maybe(&mut self, field: u32, value: Option<impl AsRef<[u8]>>) -> &mut Message {
        match value {
            Some(value) => self.text(field, value),
            None => self,
        }
    }

    /// A message in the message.
    pub fn inner(&mut self, field: u32, build: impl FnOnce(&mut Message) -> &mut Message) -> &mut Message {
        let mut inner = Message::default();
        build(&mut inner);
        self.text(field, inner.0)
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// `criu_req` with its options.
pub fn request(kind: Kind, options: &Message) -> Message {
    let mut message = Message::default();
    message.number(1, kind as i64).text(2, options.bytes());
    message
}

/// A question about criu itself, after which it waits for the next request; with `features`, `criu_features` to ask about.
pub fn question(kind: Kind, features: Option<&Message>) -> Message {
    let mut message = Message::default();
    message.number(1, kind as i64).flag(4, true).maybe(5, features.map(Message::bytes));
    message
}

/// The answer to a notification; with `false` criu stops, and takes back what it has done.
pub fn notified(success: bool) -> Message {
    let mut message = Message::default();
    message.number(1, Kind::Notify as i64).number(3, success.into());
    message
}

/// `criu_resp`
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// What it answers, as a number.
    pub kind: u64,
    /// Whether it was done.
    pub success: bool,
    /// The restored init's pid.
    pub pid: Option<i32>,
    /// Of a notification: what has happened, and to which process.
    pub notify: Option<(String, i32)>,
    /// Why not, as errno(3) has it.
    pub errno: Option<i32>,
    /// Why not, from newer versions.
    pub message: Option<String>,
    /// `major * 10000 + minor * 100 + sublevel`, as criu counts.
    pub version: Option<u32>,
    /// Whether the kernel tracks which memory was written, and whether memory can be moved lazily.
    pub features: (bool, bool),
}

impl Response {
    /// Reads a message; `None` when it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Response> {
        let mut r = Response::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Number(n)) => r.kind = n,
                (2, Value::Number(n)) => r.success = n != 0,
                (4, Value::Bytes(b)) => r.pid = Some(number(b, 1)? as i32),
                (5, Value::Bytes(b)) => {
                    let script = text(b, 1)?.unwrap_or_default();
                    r.notify = Some((script, number(b, 2)? as i32));
                }
                (7, Value::Number(n)) => r.errno = Some(n as i32),
                (8, Value::Bytes(b)) => r.features = (number(b, 1)? != 0, number(b, 2)? != 0),
                (9, Value::Bytes(b)) => r.message = Some(String::from_utf8_lossy(b).into_owned()),
                (10, Value::Bytes(b)) => {
                    let part = |field| number(b, field).map(|n| n as u32);
                    r.version = Some(part(1)? * 10_000 + part(2)? * 100 + part(4)?);
                }
                _ => {}
            }
        }
        Some(r)
    }
}

/// A field's value: numbers, and everything that has a length. criu's messages have no other kinds.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order; `None` where the bytes are none, and then nothing more.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).ok()?)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// A number of an inner message, 0 when it is missing.
fn number(bytes: &[u8], field: u64) -> Option<u64> {
    let mut found = 0;
    for one in Fields(bytes) {
        if let (n, Value::Number(value)) = one?
            && n == field
        {
            found = value;
        }
    }
    Some(found)
}

/// Text of an inner message.
fn text(bytes: &[u8], field: u64) -> Option<Option<String>> {
    let mut found = None;
    for one in Fields(bytes) {
        if let (n, Value::Bytes(value)) = one?
            && n == field
        {
            found = Some(String::from_utf8_lossy(value).into_owned());
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_protoc_writes_it() {
        let mut options = Message::default();
        options.number(opt::IMAGES_DIR_FD, 5).number(opt::PID, 300).flag(opt::SHELL_JOB, false);
        options.text(opt::LOG_FILE, "dump.log").inner(opt::EXT_MNT, |m| m.text(1, "/a").text(2, "/b"));
        options.number(opt::MANAGE_CGROUPS_MODE, 6);
        let bytes = request(Kind::Dump, &options);
        // protoc --encode=criu_req, of `type: DUMP opts { images_dir_fd: 5 pid: 300 log_file: "dump.log" ext_mnt { … } … }`.
        let expected =
            b"\x08\x01\x12\x1d\x08\x05\x10\xac\x02\x52\x08dump.log\xba\x01\x08\x0a\x02/a\x12\x02/b\x90\x02\x06";
        assert_eq!(bytes.bytes(), expected);
    }

    #[test]
    fn a_negative_number_is_ten_bytes() {
        let mut m = Message::default();
        m.number(1, -1);
        assert_eq!(m.bytes(), b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        assert_eq!(number(m.bytes(), 1), Some(u64::MAX));
    }

    #[test]
    fn responses_are_read() {
        // protoc --encode=criu_resp, of `type: NOTIFY success: true notify { script: "post-restore" pid: 4711 }`.
        let r = Response::decode(b"\x08\x06\x10\x01\x2a\x11\x0a\x0cpost-restore\x10\xe7\x24").unwrap();
        assert_eq!((r.kind, r.success, r.notify), (Kind::Notify as u64, true, Some(("post-restore".into(), 4711))));

        let mut m = Message::default();
        m.number(1, 10).flag(2, true).inner(10, |m| m.number(1, 4).number(2, 2).number(4, 1).text(6, "x"));
        assert_eq!(Response::decode(m.bytes()).unwrap().version, Some(40_201));

        let mut m = Message::default();
        m.number(1, 1).number(2, 0).number(7, 52).text(9, "why").number(99, 1);
        let r = Response::decode(m.bytes()).unwrap();
        assert_eq!((r.success, r.errno, r.message.as_deref()), (false, Some(52), Some("why")));
    }

    #[test]
    fn rubbish_is_no_response() {
        for bytes in
            [&b"\x08"[..], b"\x2a\x05ab", b"\x0b", &[0x80; 11], b"\x52\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
        {
            assert_eq!(Response::decode(bytes), None, "{bytes:?}");
        }
        assert_eq!(Response::decode(b""), Some(Response::default()));
    }
}
