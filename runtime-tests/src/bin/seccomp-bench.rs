//! What a system call costs under a filter: `hack/bench --seccomp`.
//!
//! `seccomp-bench ROUNDS DIRECTORY PROFILE NAME=RUNTIME...`: DIRECTORY has `config.json` (of `runc spec`) and `rootfs` with this
//! program as `/bin/spin`. Each round runs one container a runtime, and one without a filter, in turn; a figure is the median over
//! the rounds. Called as `spin` it makes the calls, and prints the nanoseconds that one took, for each of the three kinds.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use serde_json::{Value, json};

const CALLS: u32 = 300_000;

/// Allowed always, so that the kernel's cache answers; allowed by a test of its argument; denied.
const KINDS: [(&str, libc::c_long, i64); 3] = [
    ("allowed (getppid)", libc::SYS_getppid, 0),
    ("tested (personality)", libc::SYS_personality, 0xffff_ffff),
    ("denied (keyctl)", libc::SYS_keyctl, -1),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args[0].ends_with("spin") {
        let times: Vec<f64> = KINDS.iter().map(|(_, number, arg)| spin(*number, *arg)).collect();
        println!("{}", json!(times));
        return ExitCode::SUCCESS;
    }
    match bench(&args[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("seccomp-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn spin(number: libc::c_long, arg: i64) -> f64 {
    let begin = Instant::now();
    for _ in 0..CALLS {
        // SAFETY: calls that take a number and change nothing with it. syscall(2)
        unsafe { libc::syscall(number, arg) };
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn bench(args: &[String]) -> Result<(), String> {
    let [rounds, directory, profile, runtimes @ ..] = args else {
        return Err("usage: seccomp-bench ROUNDS DIRECTORY PROFILE NAME=RUNTIME...".into());
    };
    let rounds: usize = rounds.parse().map_err(|_| format!("{rounds:?} is not a number of rounds"))?;
    let directory = Path::new(directory);
    let profile: Value = read(Path::new(profile))?;
    let mut contenders =
        vec![("no filter", runtimes.first().and_then(|r| r.split_once('=')).map_or("", |(_, r)| r), None)];
    for runtime in runtimes {
        let (name, program) = runtime.split_once('=').ok_or_else(|| format!("{runtime:?} is not NAME=RUNTIME"))?;
        contenders.push((name, program, Some(&profile)));
    }
    let mut times = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        for place in 0..contenders.len() {
            // Another one begins each round.
            let which = (place + round) % contenders.len();
            let (name, program, profile) = contenders[which];
            times[which].push(run(directory, program, profile).map_err(|e| format!("{name}: {e}"))?);
        }
    }
    for (kind, (title, ..)) in KINDS.iter().enumerate() {
        let figures: Vec<String> = contenders
            .iter()
            .zip(&times)
            .map(|((name, ..), runs)| {
                let mut all: Vec<f64> = runs.iter().map(|run| run[kind]).collect();
                all.sort_by(f64::total_cmp);
                format!("{name} {:.0} ns", all[all.len() / 2])
            })
            .collect();
        println!("{title}: {}", figures.join(", "));
    }
    Ok(())
}

fn read(file: &Path) -> Result<Value, String> {
    let text = fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", file.display()))
}

fn run(directory: &Path, runtime: &str, profile: Option<&Value>) -> Result<Vec<f64>, String> {
    let mut config = read(&directory.join("config.json"))?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/spin"]);
    config["root"]["path"] = json!(directory.join("rootfs"));
    let linux = config["linux"].as_object_mut().ok_or("config.json has no linux")?;
    match profile {
        Some(profile) => drop(linux.insert("seccomp".into(), profile.clone())),
        None => drop(linux.remove("seccomp")),
    }
    let bundle = directory.join("seccomp");
    fs::create_dir_all(&bundle).map_err(|e| format!("{}: {e}", bundle.display()))?;
    fs::write(bundle.join("config.json"), config.to_string()).map_err(|e| format!("config.json: {e}"))?;
    let mut command = Command::new(runtime);
    command
        .arg("--root")
        .arg(directory.join("seccomp-state"))
        .arg("run")
        .arg("--bundle")
        .arg(&bundle)
        .arg("seccomp-bench");
    let out = command.output().map_err(|e| format!("{runtime}: {e}"))?;
    serde_json::from_slice(&out.stdout).map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&out.stderr)))
}
