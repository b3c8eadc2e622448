//! The timing driver of `hack/bench`, which prepares what this takes.
//!
//! `bench ROUNDS DIRECTORY CGROUP ROWS NAME=PROGRAM[@PID]...`: DIRECTORY holds `config.json` (of `runc spec`) and `rootfs`
//! with `/bin/true` and `/bin/pause`; CGROUP is the name of the group above all containers; ROWS are the names in [`ROWS`], with commas
//! between them. The contender called `floor`
//! speaks the language of floor.rs, all others that of runc. With `@PID` a contender runs in the mount namespace of that
//! process (newer crun refuses to run where it sees version 1 and 2 cgroups side by side).
//!
//! Each round runs all contenders once, in an order drawn anew, so that the machine's noise falls on all of them alike.
//! A time is from before the spawn to after the wait; a figure is the median over the rounds.

mod contender;
mod race;
mod rows;

use std::fs::{self, File};
use std::process::ExitCode;

use contender::{Contender, Machine};
use race::Race;

type Result<T> = std::result::Result<T, String>;

/// Prints rows.
type Print = fn(&mut Race);

/// The groups of rows and what prints them, in the order of the table.
const ROWS: [(&str, Print); 11] = [
    ("run", rows::run),
    ("exec", rows::exec),
    ("life", rows::life),
    ("force", rows::force),
    ("resident", rows::resident),
    ("limit", rows::limit),
    ("seccomp", rows::seccomp),
    ("mounts", rows::mounts),
    ("many", rows::many),
    ("parallel", rows::parallel),
    ("cold", rows::cold),
];

fn main() -> ExitCode {
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False if a contender failed.
fn bench() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rounds, directory, cgroup, rows, contenders @ ..] = arguments.as_slice() else {
        return Err("usage: bench ROUNDS DIRECTORY CGROUP ROWS NAME=PROGRAM[@PID]...".into());
    };
    let rounds = rounds.parse().map_err(|_| format!("{rounds:?} is not a number of rounds"))?;
    let machine = Machine { directory: directory.into(), cgroup: cgroup.clone(), hierarchies: hierarchies()? };
    machine.make_parent_groups()?;
    let contenders = contenders.iter().map(|text| Contender::new(text, &machine)).collect::<Result<_>>()?;
    let mut race = Race::new(contenders, rounds, open("/proc/self/ns/mnt")?);
    race.print_head();
    for name in rows.split(',') {
        let known = ROWS.iter().find(|(known, _)| *known == name);
        let (_, print) =
            known.ok_or_else(|| format!("{name:?} is no row; there are {:?}", ROWS.map(|(name, _)| name)))?;
        print(&mut race);
    }
    Ok(race.all_well)
}

/// Mount points of all cgroup file systems below /sys/fs/cgroup, proc_pid_mountinfo(5).
fn hierarchies() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(|error| format!("mountinfo: {error}"))?;
    let found = text.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        (after.starts_with("cgroup") && point.starts_with("/sys/fs/cgroup")).then(|| point.to_owned())
    });
    Ok(found.collect())
}

fn open(path: &str) -> Result<File> {
    File::open(path).map_err(|error| format!("{path}: {error}"))
}
