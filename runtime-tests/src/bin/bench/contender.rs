//! Those who take part: their bundles, and the words they are called with.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Result, open};

/// Where things are.
#[derive(Clone)]
pub struct Machine {
    /// With `config.json` and `rootfs`.
    pub directory: PathBuf,
    /// The group above all containers.
    pub cgroup: String,
    /// Mounted cgroup directories.
    pub hierarchies: Vec<String>,
}

impl Machine {
    /// The group above all containers, made once, so that no contender makes or removes it.
    pub fn make_parent_groups(&self) -> Result<()> {
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

    /// The same bundle for everyone, but for the program, the cgroup, and what `edit` changes.
    fn make_bundle(&self, bundle: &Path, program: &str, group: &str, edit: impl FnOnce(&mut Value)) -> Result<()> {
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
        edit(&mut config);
        fs::create_dir_all(bundle).map_err(|error| format!("mkdir {}: {error}", bundle.display()))?;
        fs::write(bundle.join("config.json"), config.to_string()).map_err(|error| format!("config.json: {error}"))
    }
}

/// One runtime, and the words it is called with.
pub struct Contender {
    /// What the table calls it.
    pub name: String,
    program: String,
    /// The mount namespace it runs in, when that is another.
    pub namespace: Option<File>,
    /// Its bundles, its state, and what the floor says of its container's pid.
    directory: PathBuf,
    machine: Machine,
    cgroup: String,
}

/// What a command took.
#[derive(Default, Clone, Copy)]
pub struct Sample {
    /// From before the spawn to after the wait.
    pub time: Duration,
    /// The largest resident set of a process of it.
    pub peak_kib: i64,
    /// Page faults of all its processes, without those of the disk.
    pub faults: i64,
}

impl Contender {
    pub fn new(text: &str, machine: &Machine) -> Result<Self> {
        let (name, program) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=PROGRAM"))?;
        let (program, namespace) = match program.split_once('@') {
            Some((program, pid)) => (program, Some(open(&format!("/proc/{pid}/ns/mnt"))?)),
            None => (program, None),
        };
        let directory = machine.directory.join(name);
        let cgroup = format!("{}/{name}", machine.cgroup);
        let contender =
            Self { name: name.into(), program: program.into(), namespace, directory, machine: machine.clone(), cgroup };
        contender.make("true", "/bin/true", |_| ())?;
        contender.make("pause", "/bin/pause", |_| ())?;
        let process = json!({"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]});
        fs::write(contender.process(), process.to_string()).map_err(|error| format!("process.json: {error}"))?;
        Ok(contender)
    }

    /// One bundle more, called `name`.
    pub fn make(&self, name: &str, program: &str, edit: impl FnOnce(&mut Value)) -> Result<()> {
        self.machine.make_bundle(&self.directory.join(name), program, &self.name, edit)
    }

    /// The document for `exec --process`.
    pub fn process(&self) -> String {
        self.directory.join("process.json").display().to_string()
    }

    /// `/bin/true` in a container of its own.
    pub fn run(&self) -> Result<Sample> {
        self.run_bundle("true")
    }

    /// `run` of the bundle that [`Contender::make`] has made under that name. The floor knows only one.
    pub fn run_bundle(&self, bundle: &str) -> Result<Sample> {
        self.timed(self.run_command(bundle, "bench-run"))
    }

    /// The command that runs a bundle as container `id`, in a cgroup of that name when it is not the usual one.
    pub fn run_command(&self, bundle: &str, id: &str) -> Command {
        if !self.is_floor() {
            return self.runtime_command("run", &["--bundle", &self.bundle(bundle), id]);
        }
        let group = if bundle == "true" { self.cgroup.clone() } else { format!("{}/{bundle}", self.machine.cgroup) };
        let rootfs = self.machine.directory.join("rootfs").display().to_string();
        let mut command = Command::new(&self.program);
        command.args(["run", &rootfs, &group, "/bin/true"]).args(&self.machine.hierarchies).stdout(Stdio::null());
        command
    }

    /// `create` and `start` of a container that stays.
    pub fn start_pause(&self) -> Result<Sample> {
        if self.is_floor() {
            let rootfs = self.machine.directory.join("rootfs").display().to_string();
            return self.floor("start", &[&rootfs, &self.cgroup, "/bin/pause"], &self.machine.hierarchies);
        }
        let create = self.runtime("create", &["--bundle", &self.bundle("pause"), "bench-pause"])?;
        let start = self.runtime("start", &["bench-pause"])?;
        Ok(create.and(start))
    }

    pub fn exec(&self) -> Result<Sample> {
        if self.is_floor() {
            let groups: Vec<_> =
                self.machine.hierarchies.iter().map(|path| format!("{path}/{}", self.cgroup)).collect();
            return self.floor("exec", &[&self.floor_pid()?, "/bin/true"], &groups);
        }
        self.runtime("exec", &["bench-pause", "/bin/true"])
    }

    pub fn delete(&self) -> Result<Sample> {
        if self.is_floor() {
            return self.floor("delete", &[&self.floor_pid()?, &self.cgroup], &self.machine.hierarchies);
        }
        self.runtime("delete", &["--force", "bench-pause"])
    }

    /// Whether it is the kernel alone.
    pub fn is_floor(&self) -> bool {
        self.name == "floor"
    }

    /// The bundle of that name.
    pub fn bundle(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// The directory of its state.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    fn floor_pid(&self) -> Result<String> {
        let file = self.directory.join("output");
        fs::read_to_string(&file).map(|pid| pid.trim().into()).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// A command of the runtime, timed.
    pub fn runtime(&self, operation: &str, words: &[&str]) -> Result<Sample> {
        self.timed(self.runtime_command(operation, words))
    }

    fn runtime_command(&self, operation: &str, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.state()).arg(operation).args(words).stdout(Stdio::null());
        command
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
        let (status, usage) = wait(&child)?;
        let time = begin.elapsed();
        if status != 0 {
            let words = fs::read(&words).unwrap_or_default();
            return Err(format!("{command:?}: wait status {status:#x}: {}", String::from_utf8_lossy(&words).trim()));
        }
        Ok(Sample { time, peak_kib: usage.ru_maxrss, faults: usage.ru_minflt })
    }
}

impl Sample {
    /// Both, one after the other.
    pub fn and(self, next: Sample) -> Sample {
        Sample {
            time: self.time + next.time,
            peak_kib: self.peak_kib.max(next.peak_kib),
            faults: self.faults + next.faults,
        }
    }
}

fn wait(child: &Child) -> Result<(i32, libc::rusage)> {
    let mut status = 0;
    // SAFETY: rusage is made of numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: wait4(2) writes the two it is given. std offers no wait that tells the usage, and is not asked to wait
    // for this child again.
    let pid = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) };
    if pid < 0 { Err(std::io::Error::last_os_error().to_string()) } else { Ok((status, usage)) }
}
