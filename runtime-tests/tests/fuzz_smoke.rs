//! The fuzz targets for a few seconds, with a stable compiler and without libFuzzer.
//!
//! `FUZZ_CASES` (20000) and `FUZZ_SEED` (1) change how many inputs are made and which. A failure prints its input; the
//! same seed makes it again on any machine.

#[path = "../../src/images/tests/archive/mod.rs"]
mod archive;
#[path = "../fuzz/src/config_plan.rs"]
mod config_plan;
#[path = "../../src/runtime/tests/common/facts.rs"]
mod facts;
#[path = "../fuzz/src/handshake_frame.rs"]
mod handshake_frame;
#[path = "../fuzz/src/layer_unpack.rs"]
mod layer_unpack;
#[path = "../fuzz/src/mutate.rs"]
mod mutate;
#[path = "../fuzz/src/seccomp_profile.rs"]
mod seccomp_profile;
#[path = "../fuzz/src/template.rs"]
mod template;
#[path = "../../src/seccomp/src/testing/mod.rs"]
mod testing;

use config_plan::{Outcome, config_plan, config_plan_is_stable, machines};
use handshake_frame::handshake_frame;
use mutate::{Random, damage, mutate};
use rrt_runtime::handshake::FRAME_MAX;
use rrt_runtime::spec_template::{For, config_json};
use seccomp_profile::seccomp_profile;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs one case; when it fails, prints its input.
fn run<T>(case: u64, seed: u64, input: &[u8], target: impl FnOnce(&[u8]) -> T) -> T {
    catch_unwind(AssertUnwindSafe(|| target(input))).unwrap_or_else(|panic| {
        eprintln!("case {case} of FUZZ_SEED={seed}:\n{}", String::from_utf8_lossy(input));
        resume_unwind(panic)
    })
}

/// The documents the others are made of: those of `rrt spec`, of the plan's snapshots and of the fuzz targets.
fn seeds() -> Vec<Value> {
    let mut seeds = documents("../src/runtime/tests/plan");
    seeds.extend(documents("fuzz/seeds"));
    let spec = [(For::Root, true), (For::Root, false), (For::User { uid: 1000, gid: 1000 }, true)];
    let spec = spec.into_iter().map(|(whose, cgroup)| config_json(whose, cgroup));
    seeds.extend(spec.map(|text| serde_json::from_slice::<Value>(&text).expect("rrt spec writes JSON")));
    seeds
}

/// The JSON documents in a directory.
fn documents(directory: &str) -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<_> = directory.read_dir().expect("the seeds").map(|e| e.expect("a seed").path()).collect();
    // A directory has no order, and a case has to be the same everywhere.
    files.sort();
    let files = files.iter().filter(|f| f.extension().is_some_and(|e| e == "json"));
    files.map(|f| serde_json::from_slice(&std::fs::read(f).expect("a seed")).expect("a seed is JSON")).collect()
}

#[test]
fn config_to_plan() {
    let (cases, seed) = (setting("FUZZ_CASES", 20_000), setting("FUZZ_SEED", 1));
    let (seeds, machines) = (seeds(), machines());
    for document in &seeds {
        let text = serde_json::to_vec(document).expect("JSON");
        let outcome = run(0, seed, &text, |text| config_plan(text, &machines));
        assert_eq!(outcome, Outcome::Planned, "a seed that no machine can run teaches nothing: {document}");
    }
    let mut random = Random::new(seed);
    let mut planned = 0;
    for case in 1..=cases {
        let mut document = seeds[random.below(seeds.len())].clone();
        mutate(&mut document, &seeds, &mut random);
        let mut text = serde_json::to_vec(&document).expect("JSON");
        if random.below(10) == 0 {
            damage(&mut text, &mut random);
        }
        // One machine a case: thrice as many documents in the same time find more.
        let machine = &machines[random.below(machines.len())];
        let outcome = run(case, seed, &text, |text| config_plan(text, std::slice::from_ref(machine)));
        planned += u64::from(outcome == Outcome::Planned);
        if case % 8 == 0 {
            run(case, seed, &text, |text| config_plan_is_stable(text, machine));
        }
    }
    // Otherwise the changes are too wild, and only the parser is tested.
    assert!(planned > cases / 4, "{planned} of {cases} documents became a plan");
}

#[test]
fn handshake_frames() {
    let (cases, seed) = (setting("FUZZ_CASES", 20_000), setting("FUZZ_SEED", 1));
    let mut random = Random::new(seed);
    let mut frames = 0;
    for case in 1..=cases {
        // Mostly short packets with a known kind; now and then one that fills the buffer.
        let length = if random.below(200) == 0 { FRAME_MAX - random.below(4) } else { random.below(8) };
        let mut packet: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        if let Some(kind) = packet.first_mut() {
            *kind %= 8;
        }
        if let [1, turn, ..] = &mut packet[..] {
            *turn %= 15;
        }
        frames += u64::from(run(case, seed, &packet, handshake_frame));
    }
    // Most kinds have no body, so a packet longer than a byte is mostly none.
    assert!(frames > cases / 8, "{frames} of {cases} packets were frames");
}

#[test]
fn seccomp_profiles() {
    let (cases, seed) = (setting("FUZZ_CASES", 20_000) / 4, setting("FUZZ_SEED", 1));
    let seeds = documents("fuzz/profiles");
    let mut random = Random::new(seed);
    let mut compiled = 0;
    for case in 1..=cases {
        let mut profile = seeds[random.below(seeds.len())].clone();
        mutate(&mut profile, &seeds, &mut random);
        let text = serde_json::to_vec(&profile).expect("JSON");
        compiled += u64::from(run(case, seed, &text, |text| seccomp_profile(text, 16, &mut random)));
    }
    assert!(compiled > cases / 4, "{compiled} of {cases} documents were profiles");
}

#[test]
fn templates() {
    let (cases, seed) = (setting("FUZZ_CASES", 20_000), setting("FUZZ_SEED", 1));
    let mut random = Random::new(seed);
    let mut parsed = 0;
    for case in 1..=cases {
        let mut text = template::make(|n| random.below(n)).into_bytes();
        if random.below(20) == 0 {
            damage(&mut text, &mut random);
        }
        parsed += u64::from(run(case, seed, &text, template::template));
    }
    assert!(parsed > cases / 10, "{parsed} of {cases} texts were templates");
}

#[test]
fn layers() {
    let (cases, seed) = (setting("FUZZ_CASES", 20_000) / 4, setting("FUZZ_SEED", 1));
    let mut random = Random::new(seed);
    let place = layer_unpack::Place::new();
    let mut taken = 0;
    for case in 1..=cases {
        let mut archive = layer_unpack::make(|n| random.below(n), &place);
        // Bytes that are changed are mostly a header's; half of the time it is right all the same.
        if random.below(4) == 0 {
            for _ in 0..1 + random.below(4) {
                let at = random.below(archive.len());
                archive[at] = [0, b' ', b'7', b'x', b'L', b'/', 0x80, 0xff][random.below(8)];
            }
            if random.below(2) == 0 {
                layer_unpack::right_checksums(&mut archive);
            }
            archive.truncate(archive.len() - random.below(3) * random.below(600));
        }
        let how = random.below(4);
        taken += u64::from(run(case, seed, &archive, |archive| layer_unpack::layer_unpack(archive, how, &place)));
    }
    assert!(taken > cases / 20, "{taken} of {cases} layers were unpacked");
}
