//! libFuzzer over [`rrt_fuzz::seccomp_profile`], with changes that keep the document JSON.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rrt_fuzz::mutate::{Random, mutate};
use rrt_fuzz::seccomp_profile::seccomp_profile;

fuzz_target!(|document: &[u8]| {
    seccomp_profile(document, 32, &mut Random::new(document.len() as u64));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if let Ok(mut document) = serde_json::from_slice(&data[..size]) {
        mutate(&mut document, &[], &mut Random::new(seed.into()));
        let text = serde_json::to_vec(&document).unwrap_or_default();
        if text.len() <= max_size {
            data[..text.len()].copy_from_slice(&text);
            return text.len();
        }
    }
    fuzzer_mutate(data, size, max_size)
});
