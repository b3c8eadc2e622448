//! The rows of the table.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::contender::{Contender, Sample};
use crate::race::{Race, median_of};

/// As long as a machine rests between two containers in real life, and long enough for RCU to go to sleep.
const REST: Duration = Duration::from_millis(60);
/// How many containers are alive in `many`.
const MANY: usize = 1000;

fn milliseconds(sample: &Sample) -> f64 {
    sample.time.as_secs_f64() * 1e3
}

/// The commonest thing of all.
pub fn run(race: &mut Race) {
    let run = race.row(Contender::run, Duration::ZERO);
    race.print_times("run, back to back", &run);
    let from_idle = race.row(Contender::run, REST);
    race.print_times("run, from idle", &from_idle);
    race.print("peak memory of run", "MiB", &median_of(&run, |sample| sample.peak_kib as f64 / 1024.0));
    race.print("page faults of run", "", &median_of(&run, |sample| sample.faults as f64));
}

/// A process more in a container, with flags and with a document.
pub fn exec(race: &mut Race) {
    race.once(Contender::start_pause);
    let exec = race.row(Contender::exec, Duration::ZERO);
    race.print_times("exec, back to back", &exec);
    let from_idle = race.row(Contender::exec, REST);
    race.print_times("exec, from idle", &from_idle);
    let with_process =
        |contender: &Contender| contender.runtime("exec", &["--process", &contender.process(), "bench-pause"]);
    let process = race.runtimes(race.rounds, with_process);
    race.print_times("exec --process", &process);
    race.print("peak memory of exec", "MiB", &median_of(&exec, |sample| sample.peak_kib as f64 / 1024.0));
    race.once(Contender::delete);
}

/// A container's life in three commands.
pub fn life(race: &mut Race) {
    let life = race.runtimes(race.rounds, |contender| {
        let pid_file = contender.bundle("pid");
        let create = contender
            .runtime("create", &["--bundle", &contender.bundle("true"), "--pid-file", &pid_file, "bench-life"])?;
        let start = contender.runtime("start", &["bench-life"])?;
        until_ended(&pid(&pid_file)?);
        Ok(create.and(start).and(contender.runtime("delete", &["bench-life"])?))
    });
    race.print_times("create + start + delete", &life);
}

/// A container that is killed.
pub fn force(race: &mut Race) {
    let lives = race.row(|contender| Ok((contender.start_pause()?, contender.delete()?)), Duration::ZERO);
    race.print(
        "create + start + delete -f",
        "ms",
        &median_of(&lives, |(start, delete)| milliseconds(&start.and(*delete))),
    );
    race.print("delete -f of a running one", "ms", &median_of(&lives, |(_, delete)| milliseconds(delete)));
}

/// What is left in memory between `create` and `start`.
pub fn resident(race: &mut Race) {
    let created = |contender: &Contender| -> Result<(f64, f64)> {
        let pid_file = contender.bundle("pid");
        contender
            .runtime("create", &["--bundle", &contender.bundle("pause"), "--pid-file", &pid_file, "bench-waits"])?;
        let (processes, pss) = (processes_of("bench-waits", &pid(&pid_file)?)?, pss_kib(&pid(&pid_file)?)?);
        contender.runtime("delete", &["--force", "bench-waits"])?;
        Ok((processes, pss))
    };
    let waiting = race.runtimes(3, created);
    race.print("processes after create", "", &median_of(&waiting, |(processes, _)| *processes));
    race.print("their memory (PSS)", "KiB", &median_of(&waiting, |(_, pss)| *pss));
}

/// The smallest `memory.limit` in which a container runs, three times of three.
pub fn limit(race: &mut Race) {
    const STEP: u64 = 32 * 1024;
    let smallest = race.found(|contender| {
        let runs = |steps: u64| {
            let limited = |config: &mut Value| config["linux"]["resources"]["memory"] = json!({"limit": steps * STEP});
            contender.make("limit", "/bin/true", limited)?;
            let run = || {
                let ran = contender.run_bundle("limit").is_ok();
                if !ran {
                    // It may have left something.
                    let _ = contender.runtime("delete", &["--force", "bench-run"]);
                }
                ran
            };
            Ok::<bool, String>((0..3).all(|_| run()))
        };
        let (mut fails, mut works) = (0, 1024);
        if !runs(works)? {
            return Err(format!("no container runs in {} KiB", works * STEP / 1024));
        }
        while works - fails > 1 {
            let middle = (fails + works) / 2;
            if runs(middle)? { works = middle } else { fails = middle }
        }
        Ok((works * STEP / 1024) as f64)
    });
    race.print("smallest memory limit", "KiB", &smallest);
}

/// What a profile as large as Docker's adds: `profile.json` beside the bundles.
pub fn seccomp(race: &mut Race) {
    difference(race, "a seccomp profile more", 1, "ms", 1.0, |contender, config| {
        let file = Path::new(&contender.bundle("..")).join("profile.json");
        let text = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        config["linux"]["seccomp"] = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        Ok(())
    });
}

/// What a bind mount costs among ten and among a hundred more.
pub fn mounts(race: &mut Race) {
    for count in [10, 100] {
        difference(race, &format!("one of {count} mounts more"), count, "µs", 1e3, |contender, config| {
            let source = Path::new(&contender.bundle("..")).join("rootfs/bin");
            for number in 0..count {
                let destination = format!("/mnt/{number}");
                let place = Path::new(&contender.bundle("..")).join(format!("rootfs{destination}"));
                fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
                let mount = json!({"destination": destination, "source": source, "options": ["bind", "ro", "nosuid"]});
                config["mounts"].as_array_mut().ok_or("config.json without mounts")?.push(mount);
            }
            Ok(())
        });
    }
}

/// `run` of a changed bundle less `run` of the plain one, per `count`.
fn difference(
    race: &mut Race,
    what: &str,
    count: usize,
    unit: &str,
    scale: f64,
    change: impl Fn(&Contender, &mut Value) -> Result<()>,
) {
    let both = race.found(|contender| {
        let mut changed = Ok(());
        contender.make("changed", "/bin/true", |config| changed = change(contender, config))?;
        changed.map(|()| 0.0)
    });
    // Each of the two comes first as often as the other: whoever comes after another contender's container waits for its end.
    let turns = Cell::new(0);
    let in_turns = |contender: &Contender| {
        turns.set(turns.get() + 1);
        if turns.get() % 2 == 0 {
            let plain = contender.run()?;
            return Ok((plain, contender.run_bundle("changed")?));
        }
        let changed = contender.run_bundle("changed")?;
        Ok((contender.run()?, changed))
    };
    let pairs = race.runtimes(race.rounds, in_turns);
    let plain = median_of(&pairs, |(plain, _)| milliseconds(plain));
    let changed = median_of(&pairs, |(_, changed)| milliseconds(changed));
    let share = |index: usize| {
        both[index]
            .and(changed[index].zip(plain[index]))
            .map(|(changed, plain)| (changed - plain) * scale / count as f64)
    };
    race.print(what, unit, &(0..both.len()).map(share).collect::<Vec<_>>());
}

/// With a thousand containers alive: the next one, and the questions.
pub fn many(race: &mut Race) {
    let few = race.runtimes(race.rounds.min(20), one_more);
    let mut later: Vec<Vec<[f64; 3]>> = Vec::new();
    let mut sizes = Vec::new();
    for index in 0..race.contenders.len() {
        let mut samples = Vec::new();
        let size = if race.contenders[index].is_floor() {
            Ok(None)
        } else {
            race.act(index, &|contender: &Contender| crowd(contender, race.rounds.min(20))).map(|(crowded, size)| {
                samples = crowded;
                Some(size)
            })
        };
        sizes.push(size.unwrap_or_else(|error| {
            race.failed(index, &error);
            None
        }));
        later.push(samples);
    }
    for (which, name) in ["create of the next of 1000", "list of 1000", "state among 1000"].iter().enumerate() {
        race.print(name, "ms", &median_of(&later, |times| times[which]));
        race.print("  … of the first", "ms", &median_of(&few, |times| times[which]));
    }
    race.print("state on disk, each", "KiB", &sizes);
}

/// `create`, `list` and `state` of one more container, which is taken away again.
fn one_more(contender: &Contender) -> Result<[f64; 3]> {
    let create = contender.runtime("create", &["--bundle", &contender.bundle("pause"), "bench-next"])?;
    let list = contender.runtime("list", &[])?;
    let state = contender.runtime("state", &["bench-next"])?;
    contender.runtime("delete", &["--force", "bench-next"])?;
    Ok([create, list, state].map(|sample| milliseconds(&sample)))
}

fn crowd(contender: &Contender, rounds: usize) -> Result<(Vec<[f64; 3]>, f64)> {
    let id = |number: usize| format!("bench-crowd-{number}");
    let create = |number: usize| {
        contender.make("crowd", "/bin/pause", |config| {
            let group = config["linux"]["cgroupsPath"].as_str().unwrap_or_default().to_owned();
            config["linux"]["cgroupsPath"] = json!(format!("{group}-{number}"));
        })?;
        contender.runtime("create", &["--bundle", &contender.bundle("crowd"), &id(number)])
    };
    let made = (0..MANY).try_for_each(|number| create(number).map(drop));
    let samples = made.and_then(|()| (0..rounds).map(|_| one_more(contender)).collect::<Result<Vec<_>>>());
    let size = size_of(&contender.state());
    // After a failure some are not there.
    let deleted = (0..MANY).try_for_each(|number| contender.runtime("delete", &["--force", &id(number)]).map(drop));
    if samples.is_ok() {
        deleted?;
    }
    Ok((samples?, size as f64 / 1024.0 / MANY as f64))
}

/// Containers a second, two and eight at a time.
pub fn parallel(race: &mut Race) {
    for width in [2, 8] {
        let rates = race.rounds_of(
            3,
            false,
            |contender| {
                for lane in 0..width {
                    contender.make(&format!("lane-{lane}"), "/bin/true", |config| {
                        let group = config["linux"]["cgroupsPath"].as_str().unwrap_or_default().to_owned();
                        config["linux"]["cgroupsPath"] = json!(format!("{group}-{lane}"));
                    })?;
                }
                containers_per_second(contender, width, 100)
            },
            Duration::ZERO,
        );
        race.print(&format!("containers/s, {width} at a time"), "", &median_of(&rates, |rate| *rate));
    }
}

fn containers_per_second(contender: &Contender, width: usize, count: usize) -> Result<f64> {
    let start = |lane: usize| {
        let mut command = contender.run_command(&format!("lane-{lane}"), &format!("bench-lane-{lane}"));
        command.spawn().map(Some).map_err(|error| format!("{command:?}: {error}"))
    };
    let begin = Instant::now();
    let mut lanes = (0..width).map(start).collect::<Result<Vec<_>>>()?;
    let mut waiting = count - width;
    while lanes.iter().any(Option::is_some) {
        for (lane, running) in lanes.iter_mut().enumerate() {
            // A blocking wait for one lane would leave the others idle.
            let Some(child) = running else { continue };
            let Some(status) = child.try_wait().map_err(|error| error.to_string())? else { continue };
            if !status.success() {
                return Err(format!("a container among {width} at a time: {status}"));
            }
            *running = if waiting > 0 { start(lane)? } else { None };
            waiting = waiting.saturating_sub(1);
        }
        // Little beside a container.
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

/// Nothing in the page cache: the first container after a boot.
pub fn cold(race: &mut Race) {
    let cold = race.rounds_of(
        race.rounds.min(20),
        false,
        |contender| {
            nix::unistd::sync();
            fs::write("/proc/sys/vm/drop_caches", "3").map_err(|error| format!("drop_caches: {error}"))?;
            contender.run()
        },
        Duration::ZERO,
    );
    race.print_times("run, nothing cached", &cold);
}

fn pid(file: &str) -> Result<String> {
    fs::read_to_string(file).map(|text| text.trim().to_owned()).map_err(|error| format!("{file}: {error}"))
}

/// Until the process has ended, two seconds at most; whoever is to reap it may be slow.
fn until_ended(pid: &str) {
    let end = Instant::now() + Duration::from_secs(2);
    let stat = Path::new("/proc").join(pid).join("stat");
    let lives = || fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z "));
    while lives() && Instant::now() < end {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// How many processes a container has: its init and any whose command line names it.
fn processes_of(id: &str, init: &str) -> Result<f64> {
    let all = fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten();
    let own = std::process::id().to_string();
    let of_it = all.filter(|process| {
        let name = process.file_name();
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        name != *own && (name == *init || String::from_utf8_lossy(&line).contains(id))
    });
    Ok(of_it.count() as f64)
}

fn pss_kib(pid: &str) -> Result<f64> {
    let file = Path::new("/proc").join(pid).join("smaps_rollup");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).ok_or(format!("{}: no Pss", file.display()))
}

/// What a tree takes on disk, in bytes.
fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let size = |entry: fs::DirEntry| {
        let Ok(meta) = entry.metadata() else { return 0 };
        meta.blocks() * 512 + if meta.is_dir() { size_of(&entry.path()) } else { 0 }
    };
    entries.flatten().map(size).sum()
}
