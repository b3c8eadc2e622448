//! Any packet → `Frame::decode`: the child is not trusted once it has entered the container, so no bytes may stop the parent.

use rrt_runtime::handshake::{FRAME_MAX, Frame};

/// Decodes a packet and sends back what it says. Returns whether it was a frame.
///
/// # Panics
/// When a frame does not survive the wire.
pub fn handshake_frame(packet: &[u8]) -> bool {
    let Some(frame) = Frame::decode(packet) else { return false };
    let wire = frame.encode();
    assert!(wire.len() <= FRAME_MAX, "a packet of {} bytes, which the other side's buffer cuts", wire.len());
    let again = Frame::decode(&wire).expect("an encoded frame is a frame");
    match (&frame, &again) {
        // Bytes that are no UTF-8 grow when they are decoded, and a text too long for a packet is cut, even inside a character.
        (Frame::Failed(text), Frame::Failed(cut)) if text.len() >= FRAME_MAX => {
            assert!(
                text.starts_with(cut.trim_end_matches('\u{fffd}')),
                "a cut text is not the beginning of the whole one"
            );
        }
        _ => assert_eq!(frame, again),
    }
    true
}
