//! ttrpc's frames: ten bytes of head, then a message.

use prost::Message;
use std::io;

/// Bytes of a head: length, stream and type (and flags).
pub const HEADER: usize = 10;
/// The protocol's limit for what follows.
pub const LONGEST: usize = 4 << 20;
/// A type of frame.
pub const REQUEST: u8 = 1;
/// A type of frame.
pub const RESPONSE: u8 = 2;

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Header {
    pub length: usize,
    pub stream: u32,
    pub kind: u8,
    pub flags: u8,
}

impl Header {
    /// Reads a head.
    pub fn parse(bytes: [u8; HEADER]) -> Header {
        let [a, b, c, d, e, f, g, h, kind, flags] = bytes;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        Header { length, stream: u32::from_be_bytes([e, f, g, h]), kind, flags }
    }
}

/// A whole frame with a message in it.
///
/// # Errors
/// The message is longer than the protocol allows.
pub fn frame(stream: u32, kind: u8, message: &impl Message) -> io::Result<Vec<u8>> {
    let length = message.encoded_len();
    if length > LONGEST {
        return Err(io::Error::other(format!("a message of {length} bytes is longer than ttrpc allows")));
    }
    let mut bytes = Vec::with_capacity(HEADER + length);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind, 0]);
    message.encode(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    #[test]
    fn a_frame_is_what_its_header_says() {
        let bytes = frame(7, RESPONSE, &Status { code: 5, message: "x".into() }).expect("a frame");
        assert_eq!(bytes, [0, 0, 0, 5, 0, 0, 0, 7, 2, 0, 8, 5, 18, 1, b'x']);
        let head = bytes[..HEADER].try_into().expect("ten bytes");
        assert_eq!(Header::parse(head), Header { length: 5, stream: 7, kind: RESPONSE, flags: 0 });
    }

    #[test]
    fn too_long_to_be_sent() {
        assert!(frame(1, REQUEST, &Status { code: 0, message: "x".repeat(LONGEST) }).is_err());
    }
}
