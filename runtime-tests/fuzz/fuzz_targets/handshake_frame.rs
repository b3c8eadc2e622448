//! libFuzzer over [`rrt_fuzz::handshake_frame`].

#![no_main]

use libfuzzer_sys::fuzz_target;
use rrt_fuzz::handshake_frame::handshake_frame;

fuzz_target!(|packet: &[u8]| {
    handshake_frame(packet);
});
