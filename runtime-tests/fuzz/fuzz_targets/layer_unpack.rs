//! libFuzzer over [`rrt_fuzz::layer_unpack`]: the first byte says how, the others are the archive, whose checksums are made right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rrt_fuzz::layer_unpack::{Place, layer_unpack, right_checksums};
use std::sync::LazyLock;

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

fuzz_target!(|input: &[u8]| {
    if let [how, archive @ ..] = input {
        let mut archive = archive.to_vec();
        right_checksums(&mut archive);
        layer_unpack(&archive, usize::from(*how), &PLACE);
    }
});
