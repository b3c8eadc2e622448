//! The timing driver of `hack/bench`, which prepares what this takes.
//!
//! `bench ROUNDS DIRECTORY CGROUP NAME=PROGRAM[@PID]...`: DIRECTORY holds `config.json` (of `runc spec`) and `rootfs`
//! with `/bin/true` and `/bin/pause`; CGROUP is the name of the group above all containers. The contender called `floor`
//! speaks the language of floor.rs, all others that of runc. With `@PID` a contender runs in the mount namespace of that
//! process (newer crun refuses to run where it sees version 1 and 2 cgroups side by side).
//!
//! Each round runs all contenders once, in an order drawn anew, so that the machine's noise falls on all of them alike.
//! A time is from before the spawn to after the wait; a figure is the median over the rounds.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, String>;

/// As long as a machine rests between two containers in real life, and long enough for RCU to go to sleep.
const REST: Duration = Duration::from_millis(60);
/// Rounds that are run and not counted: the first one reads files from disk.
const WARM_UP: usize = 2;

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
    let [rounds, directory, cgroup, contenders @ ..] = arguments.as_slice() else {
        return Err("usage: bench ROUNDS DIRECTORY CGROUP NAME=PROGRAM[@PID]...".into());
    };
    let rounds = rounds.parse().map_err(|_| format!("{rounds:?} is not a number of rounds"))?;
    let machine = Machine { directory: directory.into(), cgroup: cgroup.clone(), hierarchies: hierarchies()? };
    machine.make_parent_groups()?;
    let contenders = contenders.iter().map(|text| Contender::new(text, &machine)).collect::<Result<_>>()?;
    let mut race = Race { contenders, rounds, home: open("/proc/self/ns/mnt")?, seed: 1, all_well: true };

    race.print_head();
    let run = race.row(Contender::run, Duration::ZERO);
    race.print_times("run, back to back", &run);
    let from_idle = race.row(Contender::run, REST);
    race.print_times("run, from idle", &from_idle);

    race.once(Contender::start_pause);
    let exec = race.row(Contender::exec, Duration::ZERO);
    race.print_times("exec, back to back", &exec);
    let from_idle = race.row(Contender::exec, REST);
    race.print_times("exec, from idle", &from_idle);
    race.once(Contender::delete);

    let lives = race.row(|contender| Ok((contender.start_pause()?, contender.delete()?)), Duration::ZERO);
    let part = |which: fn(&(Sample, Sample)) -> Duration| median_of(&lives, |life| which(life).as_secs_f64() * 1e3);
    race.print("create + start + delete -f", "ms", &part(|(start, delete)| start.time + delete.time));
    race.print("delete -f of a running one", "ms", &part(|(_, delete)| delete.time));
    race.print("peak memory of run", "MiB", &median_of(&run, |sample| sample.peak_kib as f64 / 1024.0));
    Ok(race.all_well)
}

/// Where things are.
struct Machine {
    directory: PathBuf,
    cgroup: String,
    hierarchies: Vec<String>,
}

impl Machine {
    /// The group above all containers, made once, so that no contender makes or removes it.
    fn make_parent_groups(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let group = Path::new(hierarchy).join(&self.cgroup);
            fs::create_dir_all(&group).map_err(|error| format!("mkdir {}: {error}", group.display()))?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                // A new cpuset of version 1 is empty, and nothing may join an empty one.
                if let (true, Ok(above)) = (hierarchy.ends_with("/cpuset"), fs::read(group.join("..").join(file))) {
                    fs::write(group.join(file), above).map_err(|error| format!("write {file}: {error}"))?;
                }
            }
        }
        Ok(())
    }

    /// The same bundle for everyone, but for the program and the cgroup.
    fn make_bundle(&self, bundle: &Path, program: &str, group: &str) -> Result<()> {
        let file = self.directory.join("config.json");
        let text = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut config: Value =
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        config["process"]["terminal"] = json!(false);
        // Older templates raise ambient capabilities that are not inheritable, which newer runc warns of at each start.
        if let Some(capabilities) = config["process"]["capabilities"].as_object_mut() {
            capabilities.retain(|set, _| ["bounding", "effective", "permitted"].contains(&set.as_str()));
        }
        config["process"]["args"] = json!([program]);
        config["root"]["path"] = json!(self.directory.join("rootfs"));
        config["linux"]["cgroupsPath"] = json!(format!("/{}/{group}", self.cgroup));
        // runc makes a cgroup namespace part of its template only on a pure version 2 machine.
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
            namespaces.push(json!({"type": "cgroup"}));
        }
        fs::create_dir_all(bundle).map_err(|error| format!("mkdir {}: {error}", bundle.display()))?;
        fs::write(bundle.join("config.json"), config.to_string()).map_err(|error| format!("config.json: {error}"))
    }
}

/// One runtime, and the words it is called with.
struct Contender {
    name: String,
    program: String,
    namespace: Option<File>,
    /// Its bundles, its state, and what the floor says of its container's pid.
    directory: PathBuf,
    rootfs: String,
    cgroup: String,
    hierarchies: Vec<String>,
}

struct Sample {
    time: Duration,
    peak_kib: i64,
}

impl Contender {
    fn new(text: &str, machine: &Machine) -> Result<Self> {
        let (name, program) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=PROGRAM"))?;
        let (program, namespace) = match program.split_once('@') {
            Some((program, pid)) => (program, Some(open(&format!("/proc/{pid}/ns/mnt"))?)),
            None => (program, None),
        };
        let directory = machine.directory.join(name);
        machine.make_bundle(&directory.join("true"), "/bin/true", name)?;
        machine.make_bundle(&directory.join("pause"), "/bin/pause", name)?;
        Ok(Self {
            name: name.into(),
            program: program.into(),
            namespace,
            rootfs: machine.directory.join("rootfs").display().to_string(),
            directory,
            cgroup: format!("{}/{name}", machine.cgroup),
            hierarchies: machine.hierarchies.clone(),
        })
    }

    fn run(&self) -> Result<Sample> {
        if self.is_floor() {
            return self.floor("run", &[&self.rootfs, &self.cgroup, "/bin/true"], &self.hierarchies);
        }
        self.runtime("run", &["--bundle", &self.bundle("true"), "bench-run"])
    }

    /// `create` and `start` of a container that stays.
    fn start_pause(&self) -> Result<Sample> {
        if self.is_floor() {
            return self.floor("start", &[&self.rootfs, &self.cgroup, "/bin/pause"], &self.hierarchies);
        }
        let create = self.runtime("create", &["--bundle", &self.bundle("pause"), "bench-pause"])?;
        let start = self.runtime("start", &["bench-pause"])?;
        Ok(Sample { time: create.time + start.time, peak_kib: create.peak_kib.max(start.peak_kib) })
    }

    fn exec(&self) -> Result<Sample> {
        if self.is_floor() {
            let groups: Vec<_> = self.hierarchies.iter().map(|path| format!("{path}/{}", self.cgroup)).collect();
            return self.floor("exec", &[&self.floor_pid()?, "/bin/true"], &groups);
        }
        self.runtime("exec", &["bench-pause", "/bin/true"])
    }

    fn delete(&self) -> Result<Sample> {
        if self.is_floor() {
            return self.floor("delete", &[&self.floor_pid()?, &self.cgroup], &self.hierarchies);
        }
        self.runtime("delete", &["--force", "bench-pause"])
    }

    fn is_floor(&self) -> bool {
        self.name == "floor"
    }

    fn bundle(&self, program: &str) -> String {
        self.directory.join(program).display().to_string()
    }

    fn floor_pid(&self) -> Result<String> {
        let file = self.directory.join("output");
        fs::read_to_string(&file).map(|pid| pid.trim().into()).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn runtime(&self, operation: &str, words: &[&str]) -> Result<Sample> {
        let state = self.directory.join("state");
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(state).arg(operation).args(words).stdout(Stdio::null());
        self.timed(command)
    }

    fn floor(&self, operation: &str, words: &[&str], paths: &[String]) -> Result<Sample> {
        let mut command = Command::new(&self.program);
        command.arg(operation).args(words).args(paths);
        if operation == "start" {
            let output = self.directory.join("output");
            command.stdout(File::create(&output).map_err(|error| format!("{}: {error}", output.display()))?);
        }
        self.timed(command)
    }

    /// Runs it to its end; anything but success is an error, told in its own words.
    fn timed(&self, mut command: Command) -> Result<Sample> {
        let words = self.directory.join("stderr");
        let stderr = File::create(&words).map_err(|error| format!("{}: {error}", words.display()))?;
        command.stdin(Stdio::null()).stderr(stderr);
        let begin = Instant::now();
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut status = 0;
        // SAFETY: rusage is made of numbers, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: wait4(2) writes the two it is given. std offers no wait that tells the usage, and is not asked to wait
        // for this child again.
        let pid = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) };
        let time = begin.elapsed();
        if pid < 0 || status != 0 {
            let words = fs::read(&words).unwrap_or_default();
            return Err(format!("{command:?}: wait status {status:#x}: {}", String::from_utf8_lossy(&words).trim()));
        }
        Ok(Sample { time, peak_kib: usage.ru_maxrss })
    }
}

struct Race {
    contenders: Vec<Contender>,
    rounds: usize,
    /// This process's own mount namespace, to come back to.
    home: File,
    seed: u64,
    all_well: bool,
}

impl Race {
    /// All rounds of one row: for each contender, its samples; none for one that failed.
    fn row<T>(&mut self, operation: impl Fn(&Contender) -> Result<T>, rest: Duration) -> Vec<Vec<T>> {
        let mut samples: Vec<Vec<T>> = self.contenders.iter().map(|_| Vec::new()).collect();
        let mut failed = vec![false; self.contenders.len()];
        for round in 0..WARM_UP + self.rounds {
            for index in self.order() {
                if failed[index] {
                    continue;
                }
                std::thread::sleep(rest);
                match self.act(index, &operation) {
                    Ok(sample) if round >= WARM_UP => samples[index].push(sample),
                    Ok(_) => {}
                    Err(error) => {
                        eprintln!("bench: {}: {error}", self.contenders[index].name);
                        self.all_well = false;
                        failed[index] = true;
                        samples[index].clear();
                    }
                }
            }
        }
        samples
    }

    fn once(&mut self, operation: fn(&Contender) -> Result<Sample>) {
        for index in 0..self.contenders.len() {
            if let Err(error) = self.act(index, &operation) {
                eprintln!("bench: {}: {error}", self.contenders[index].name);
                self.all_well = false;
            }
        }
    }

    fn act<T>(&self, index: usize, operation: &impl Fn(&Contender) -> Result<T>) -> Result<T> {
        let contender = &self.contenders[index];
        let Some(namespace) = &contender.namespace else { return operation(contender) };
        setns(namespace, CloneFlags::CLONE_NEWNS).map_err(|error| format!("setns: {error}"))?;
        let result = operation(contender);
        setns(&self.home, CloneFlags::CLONE_NEWNS).map_err(|error| format!("setns back: {error}"))?;
        result
    }

    /// A shuffle: after whom a contender runs must not be the same in each round, for the end of a network namespace
    /// goes on in the background.
    fn order(&mut self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.contenders.len()).collect();
        for last in (1..order.len()).rev() {
            // Knuth's linear congruential generator (MMIX); its high bits are the good ones.
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(last, (self.seed >> 33) as usize % (last + 1));
        }
        order
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.contenders.iter().position(|contender| contender.name == name)
    }

    /// The others that rrt is to be compared with, if it takes part.
    fn rivals(&self) -> impl Iterator<Item = usize> {
        let rrt = self.index("rrt");
        (0..self.contenders.len()).filter(move |&index| rrt.is_some_and(|rrt| rrt != index))
    }

    fn print_head(&self) {
        print!("{:<28}", format!("median of {}", self.rounds));
        self.contenders.iter().for_each(|contender| print!("{:>12}", contender.name));
        self.rivals().for_each(|index| print!("{:>12}", format!("rrt/{}", self.contenders[index].name)));
        println!();
    }

    fn print_times(&self, what: &str, row: &[Vec<Sample>]) {
        self.print(what, "ms", &median_of(row, |sample| sample.time.as_secs_f64() * 1e3));
    }

    fn print(&self, what: &str, unit: &str, medians: &[Option<f64>]) {
        print!("{what:<28}");
        for median in medians {
            print!("{:>12}", median.map_or("-".into(), |value| format!("{value:.2} {unit}")));
        }
        for rival in self.rivals() {
            let own = self.index("rrt").and_then(|rrt| medians[rrt]);
            let ratio = own.zip(medians[rival]).map_or("-".into(), |(own, other)| format!("{:.2}", own / other));
            print!("{ratio:>12}");
        }
        println!();
    }
}

fn median_of<T>(row: &[Vec<T>], value: impl Fn(&T) -> f64) -> Vec<Option<f64>> {
    row.iter()
        .map(|samples| {
            let mut values: Vec<f64> = samples.iter().map(&value).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        })
        .collect()
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
