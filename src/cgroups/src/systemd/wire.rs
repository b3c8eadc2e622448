//! Messages of D-Bus as bytes: calls are written, everything else is read.
//!
//! What is read comes from outside. Every length is checked before it is used, nothing is allocated for a length that has
//! not arrived, and a message that is none is an error.

use super::value::{Value, alignment, pad};

/// The longest message that is read. systemd's are a few hundred bytes; the specification allows 128 MiB.
const MESSAGE_MAX: usize = 1 << 20;
/// The fixed part of a header, up to and including the length of its fields.
const FIXED: usize = 16;
/// How deep containers may be nested in a value that is skipped (the specification allows 64 in all).
const DEPTH_MAX: usize = 64;

/// Message types.
pub(crate) const CALL: u8 = 1;
pub(crate) const RETURN: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const SIGNAL: u8 = 4;

/// A method call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call<'a> {
    /// The bus name; none on a connection without a bus.
    pub(crate) destination: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    pub(crate) arguments: &'a [Value],
}

impl Call<'_> {
    /// The message's bytes.
    pub(crate) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Vec::new();
        self.arguments.iter().for_each(|v| v.write(&mut body));
        let signature: String = self.arguments.iter().map(Value::signature).collect();
        let field = |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let mut fields = vec![
            field(1, Value::Path(self.path.into())),
            field(2, Value::str(self.interface)),
            field(3, Value::str(self.member)),
        ];
        fields.extend(self.destination.map(|name| field(6, Value::str(name))));
        if !signature.is_empty() {
            fields.push(field(8, Value::Signature(signature)));
        }
        let endian = if cfg!(target_endian = "big") { b'B' } else { b'l' };
        // The last three: no flags (an answer is wanted), version 1 of the protocol.
        let mut out = vec![endian, CALL, 0, 1];
        Value::Uint32(body.len() as u32).write(&mut out);
        Value::Uint32(serial).write(&mut out);
        Value::Array("(yv)".into(), fields).write(&mut out);
        pad(&mut out, 8);
        out.extend(body);
        out
    }
}

/// A message that came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    /// The serial of the call it answers.
    pub(crate) reply_to: Option<u32>,
    pub(crate) interface: String,
    pub(crate) member: String,
    pub(crate) error: String,
    pub(crate) signature: String,
    body: Vec<u8>,
    big_endian: bool,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

type Result<T> = std::result::Result<T, Malformed>;

impl Message {
    /// The message that `bytes` begins with and its length; `None` when it has not all come yet.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>> {
        let Some(fixed) = bytes.get(..FIXED) else { return Ok(None) };
        let big_endian = match fixed[0] {
            b'l' => false,
            b'B' => true,
            _ => return Err(Malformed("no byte order")),
        };
        if fixed[3] != 1 {
            return Err(Malformed("another version of the protocol"));
        }
        let word = |at: usize| {
            let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
            (if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }) as usize
        };
        let (body_length, fields_length) = (word(4), word(12));
        if body_length > MESSAGE_MAX || fields_length > MESSAGE_MAX {
            return Err(Malformed("too long a message"));
        }
        let body_at = (FIXED + fields_length).next_multiple_of(8);
        let Some(whole) = bytes.get(..body_at + body_length) else { return Ok(None) };
        let mut message = Message { kind: fixed[1], big_endian, ..Message::default() };
        // The fields' alignment is counted from the message's beginning, and they begin at a multiple of 8.
        message.read_fields(&whole[..FIXED + fields_length])?;
        message.body = whole[body_at..].to_vec();
        Ok(Some((message, body_at + body_length)))
    }

    fn read_fields(&mut self, header: &[u8]) -> Result<()> {
        let mut at = Body { data: header, at: FIXED, big_endian: self.big_endian };
        while at.at < header.len() {
            at.align(8)?;
            let code = at.byte()?;
            let signature = at.signature()?;
            match (code, signature.as_str()) {
                (2, "s") => self.interface = at.string()?,
                (3, "s") => self.member = at.string()?,
                (4, "s") => self.error = at.string()?,
                (5, "u") => self.reply_to = Some(at.word()?),
                (8, "g") => self.signature = at.signature()?,
                // Others, and those the specification has yet to invent, do not concern us.
                _ => at.skip(&signature)?,
            }
        }
        Ok(())
    }

    /// The arguments, when they have the types of `signature`.
    pub(crate) fn arguments(&self, signature: &'static str) -> Result<Body<'_>> {
        if self.signature != signature {
            return Err(Malformed("an answer of another type"));
        }
        Ok(Body { data: &self.body, at: 0, big_endian: self.big_endian })
    }
}

/// Values being read one after the other.
pub(crate) struct Body<'a> {
    data: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Body<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or(Malformed("too long a value"))?;
        let bytes = self.data.get(self.at..end).ok_or(Malformed("a value beyond the end"))?;
        self.at = end;
        Ok(bytes)
    }

    fn align(&mut self, to: usize) -> Result<()> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    /// `y`
    pub(crate) fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// `u`
    pub(crate) fn word(&mut self) -> Result<u32> {
        self.align(4)?;
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| Malformed("a number"))?;
        Ok(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// `s` and `o`
    pub(crate) fn string(&mut self) -> Result<String> {
        let length = self.word()? as usize;
        self.text(length)
    }

    /// `g`
    pub(crate) fn signature(&mut self) -> Result<String> {
        let length = self.byte()? as usize;
        self.text(length)
    }

    /// `v` with a string inside.
    pub(crate) fn variant_string(&mut self) -> Result<String> {
        match self.signature()?.as_str() {
            "s" | "o" => self.string(),
            _ => Err(Malformed("a property of another type")),
        }
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = self.take(length)?.to_vec();
        if self.byte()? != 0 {
            return Err(Malformed("a text without an end"));
        }
        String::from_utf8(text).map_err(|_| Malformed("a text that is not UTF-8"))
    }

    /// Passes over the values of a signature.
    fn skip(&mut self, signature: &str) -> Result<()> {
        let mut rest = signature;
        while !rest.is_empty() {
            let (one, after) = first_type(rest)?;
            self.skip_one(one, 0)?;
            rest = after;
        }
        Ok(())
    }

    fn skip_one(&mut self, one: &str, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Malformed("too deep a value"));
        }
        self.align(alignment(one))?;
        match one.as_bytes()[0] {
            b'y' => self.take(1).map(drop),
            b'n' | b'q' => self.take(2).map(drop),
            b'b' | b'i' | b'u' | b'h' => self.take(4).map(drop),
            b'x' | b't' | b'd' => self.take(8).map(drop),
            b's' | b'o' => self.string().map(drop),
            b'g' => self.signature().map(drop),
            b'a' => {
                let length = self.word()? as usize;
                self.align(alignment(&one[1..]))?;
                self.take(length).map(drop)
            }
            b'v' => {
                let inner = self.signature()?;
                match first_type(&inner)? {
                    (inner, "") => self.skip_one(inner, depth + 1),
                    _ => Err(Malformed("a variant of several values")),
                }
            }
            _ => {
                let mut rest = &one[1..one.len() - 1];
                while !rest.is_empty() {
                    let (field, after) = first_type(rest)?;
                    self.skip_one(field, depth + 1)?;
                    rest = after;
                }
                Ok(())
            }
        }
    }
}

/// The first complete type of a signature, and the rest.
pub(crate) fn first_type(signature: &str) -> Result<(&str, &str)> {
    let length = type_length(signature.as_bytes(), 0)?;
    Ok(signature.split_at(length))
}

fn type_length(signature: &[u8], depth: usize) -> Result<usize> {
    let bad = Malformed("no signature");
    if depth > DEPTH_MAX {
        return Err(bad);
    }
    match signature.first().ok_or(bad)? {
        b'a' => Ok(1 + type_length(&signature[1..], depth + 1)?),
        open @ (b'(' | b'{') => {
            let close = if *open == b'(' { b')' } else { b'}' };
            let (mut at, mut fields) = (1, 0);
            while *signature.get(at).ok_or(bad)? != close {
                at += type_length(&signature[at..], depth + 1)?;
                fields += 1;
            }
            if fields == 0 || (*open == b'{' && fields != 2) {
                return Err(bad);
            }
            Ok(at + 1)
        }
        letter if b"ybnqiuxtdsogvh".contains(letter) => Ok(1),
        _ => Err(bad),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::Random;

    /// A message as a peer would send it.
    pub(crate) fn peer_message(kind: u8, reply_to: Option<u32>, names: [&str; 3], body: &[Value]) -> Vec<u8> {
        let mut content = Vec::new();
        body.iter().for_each(|v| v.write(&mut content));
        let signature: String = body.iter().map(Value::signature).collect();
        let field = |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let mut fields = vec![field(7, Value::str(":1.0"))];
        fields.extend(reply_to.map(|serial| field(5, Value::Uint32(serial))));
        for (code, name) in [2, 3, 4].into_iter().zip(names) {
            if !name.is_empty() {
                fields.push(field(code, Value::str(name)));
            }
        }
        if !signature.is_empty() {
            fields.push(field(8, Value::Signature(signature)));
        }
        let mut out = vec![if cfg!(target_endian = "big") { b'B' } else { b'l' }, kind, 1, 1];
        Value::Uint32(content.len() as u32).write(&mut out);
        Value::Uint32(77).write(&mut out);
        Value::Array("(yv)".into(), fields).write(&mut out);
        pad(&mut out, 8);
        out.extend(content);
        out
    }

    fn sample() -> Vec<u8> {
        let body = [Value::Uint32(5), Value::Path("/job/5".into()), Value::str("x.scope"), Value::str("done")];
        peer_message(SIGNAL, None, ["org.example.Manager", "JobRemoved", ""], &body)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let call = Call {
            destination: Some("org.example"),
            path: "/a/b",
            interface: "org.example.I",
            member: "Do",
            arguments: &[Value::str("unit"), Value::Array("(sv)".into(), vec![])],
        };
        let bytes = call.encode(9);
        let (message, length) = Message::decode(&bytes).unwrap().unwrap();
        assert_eq!((message.kind, length), (CALL, bytes.len()));
        assert_eq!((message.interface.as_str(), message.member.as_str()), ("org.example.I", "Do"));
        assert_eq!(message.signature, "sa(sv)");
        assert_eq!(message.arguments("sa(sv)").unwrap().string().unwrap(), "unit");
        assert!(message.arguments("s").is_err());
    }

    #[test]
    fn a_message_in_pieces_is_waited_for() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..end]).unwrap(), None, "{end} of {}", bytes.len());
        }
        let (message, _) = Message::decode(&bytes).unwrap().unwrap();
        let mut body = message.arguments("uoss").unwrap();
        assert_eq!(body.word().unwrap(), 5);
        assert_eq!(body.string().unwrap(), "/job/5");
        assert_eq!(body.string().unwrap(), "x.scope");
        assert_eq!(body.string().unwrap(), "done");
        assert!(body.byte().is_err());
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        let mut long = sample();
        long[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(Message::decode(&long), Err(Malformed("too long a message")));
        for (at, value) in [(0, b'x'), (3, 2)] {
            let mut bad = sample();
            bad[at] = value;
            assert!(Message::decode(&bad).is_err());
        }
        let mut body = Body { data: &[255, 255, 255, 255, b'a', 0], at: 0, big_endian: false };
        assert_eq!(body.string(), Err(Malformed("a value beyond the end")));
        let mut body = Body { data: &[1, 0, 0, 0, b'a', 7], at: 0, big_endian: false };
        assert_eq!(body.string(), Err(Malformed("a text without an end")));
    }

    #[test]
    fn signatures_are_taken_apart() {
        assert_eq!(first_type("a{sv}as").unwrap(), ("a{sv}", "as"));
        assert_eq!(first_type("(st(y))u").unwrap(), ("(st(y))", "u"));
        for bad in ["", "a", "(", "()", "{s}", "{sss}", "(s", "z", &"a".repeat(200), &"(".repeat(255)] {
            assert!(first_type(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_header_fields_are_passed_over() {
        let mut out = sample();
        let extra = Value::Struct(vec![
            Value::Byte(200),
            Value::Variant(Box::new(Value::Variant(Box::new(Value::Struct(vec![
                Value::Uint64(1),
                Value::strings(&["a"]),
                Value::Bool(true),
            ]))))),
        ]);
        // Put it in front of the others: the first field begins at 16.
        let mut field = Vec::new();
        extra.write(&mut field);
        pad(&mut field, 8);
        let fields = u32::from_ne_bytes(out[12..16].try_into().unwrap()) + field.len() as u32;
        out.splice(16..16, field);
        out[12..16].copy_from_slice(&fields.to_ne_bytes());
        assert_eq!(Message::decode(&out).unwrap().unwrap().0.member, "JobRemoved");
    }

    /// Damaged messages: never a panic, and what is read has the length it says.
    #[test]
    fn damage_is_an_error_and_no_more() {
        let mut random = Random::new(7);
        let good = sample();
        let mut read = 0;
        for _ in 0..200_000 {
            let mut bytes = good.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = if random.below(2) == 0 { random.below(256) as u8 } else { bytes[at] ^ 1 };
            }
            if let Ok(Some((message, length))) = Message::decode(&bytes) {
                assert!(length <= bytes.len());
                read += 1;
                if let Ok(mut body) = message.arguments("uoss") {
                    let _ = body.word().and_then(|_| body.string()).and_then(|_| body.string());
                }
            }
        }
        assert!(read > 10_000, "{read}");
    }
}
