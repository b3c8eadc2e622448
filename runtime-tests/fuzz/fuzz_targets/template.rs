//! libFuzzer over [`rrt_fuzz::template`].

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    // `{{range 1000000000}}` is slow, and meant to be.
    let slow = text.windows(3).any(|w| w.iter().all(|b| b.is_ascii_hexdigit() || *b == b'_'));
    if !slow {
        rrt_fuzz::template::template(text);
    }
});
