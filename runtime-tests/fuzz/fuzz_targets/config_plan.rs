//! libFuzzer over [`rrt_fuzz::config_plan`], with changes that keep the document JSON.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rrt_fuzz::config_plan::{config_plan, config_plan_is_stable, machines};
use rrt_fuzz::mutate::{Random, mutate};

fuzz_target!(|document: &[u8]| {
    let machines = machines();
    config_plan(document, &machines);
    config_plan_is_stable(document, &machines[1]);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random::new(seed.into());
    // Now and then bytes, for the parser's own sake.
    if random.below(16) != 0
        && let Ok(mut document) = serde_json::from_slice(&data[..size])
    {
        mutate(&mut document, &[], &mut random);
        let text = serde_json::to_vec(&document).unwrap_or_default();
        if text.len() <= max_size {
            data[..text.len()].copy_from_slice(&text);
            return text.len();
        }
    }
    fuzzer_mutate(data, size, max_size)
});
