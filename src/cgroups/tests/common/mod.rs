//! What the tests on real cgroups share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use rrt_cgroups::{
    Access, Cgroup, CgroupPlan, DeviceKind, DeviceRule, FreezerState, HostCgroups, Manager, Mode, OomNews, OomWatch,
    SavedCgroup, SubCgroups, Version, plan,
};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than any of this takes: a test that needs it has failed.
pub const LONG: Duration = Duration::from_secs(20);

/// A test's cgroups, removed with everything in them at its end.
pub struct Place {
    pub host: HostCgroups,
    pub path: PathBuf,
}

impl Place {
    /// `None`, and a line that says why, where the test cannot run.
    pub fn new(name: &str, needs: fn(&HostCgroups) -> bool, what: &str) -> Option<Place> {
        let root = fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
        let host = HostCgroups::read().unwrap();
        if !root || !needs(&host) {
            // Past libtest's capture, which shows it for failed tests only.
            let _ = std::io::stderr().write_all(format!("SKIP {name}: needs root and {what}\n").as_bytes());
            return None;
        }
        Some(Place { host, path: format!("/rrt-test-{}-{name}", std::process::id()).into() })
    }

    pub fn v1(name: &str) -> Option<Place> {
        Place::new(name, |h| h.mode != Mode::V2, "cgroup v1 controllers")
    }

    pub fn v2(name: &str) -> Option<Place> {
        Place::new(name, |h| h.mode == Mode::V2, "a machine with cgroup v2 only")
    }

    pub fn hybrid(name: &str) -> Option<Place> {
        Place::new(name, |h| h.mode == Mode::Hybrid, "a hybrid machine")
    }

    pub fn plan(&self, sub: &str, resources: &str) -> CgroupPlan {
        let resources = serde_json::from_str(resources).unwrap();
        let path = self.path.join(sub);
        plan(&self.host, Manager::Cgroupfs, Some(&path), "x", Some(&resources), &usual_devices()).unwrap()
    }

    pub fn create(&self, resources: &str) -> Cgroup {
        Cgroup::create(&self.plan("box", resources)).unwrap()
    }

    /// Every directory of the test that exists.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let below = self.path.strip_prefix("/").unwrap();
        self.host.hierarchies.iter().map(|h| h.mount.join(below)).filter(|d| d.exists()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for dir in self.dirs() {
            remove(&dir);
        }
    }
}

fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove(&entry.path());
        }
    }
    let end = Instant::now() + LONG;
    while fs::remove_dir(dir).is_err() && dir.exists() && Instant::now() < end {
        std::thread::yield_now();
    }
}

pub fn usual_devices() -> Vec<DeviceRule> {
    let deny = DeviceRule { allow: false, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL };
    let char = |major, minor| DeviceRule::allow(DeviceKind::Char, Some(major), Some(minor), Access::ALL);
    vec![deny, char(1, 3), char(1, 5), char(5, 0), DeviceRule::allow(DeviceKind::Block, None, None, Access::MKNOD)]
}

/// A shell that joins the cgroup as a container's init does, by writing `0` into each v1 hierarchy's `tasks`, and for
/// the unified one into `cgroup.procs`; then it runs `script`.
pub struct Shell(pub Child);

impl Shell {
    pub fn run(cgroup: &Cgroup, script: &str) -> Shell {
        let tasks = cgroup.v1_tasks(&SubCgroups::default()).unwrap();
        let unified = cgroup.paths().get("").map(|dir| dir.join("cgroup.procs"));
        let fds = tasks.iter().map(|fd| PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())));
        let join: String = fds.chain(unified).map(|f| format!("echo 0 > {} || exit 9; ", f.display())).collect();
        let child = Command::new("/bin/sh")
            .args(["-c", &format!("{join} echo; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut shell = Shell(child);
        // An empty line says that it is in.
        shell.next_line();
        shell
    }

    /// Waits until the script prints an empty line.
    pub fn next_line(&mut self) {
        self.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub fn wait(mut self) -> ExitStatus {
        drop(self.0.stdin.take());
        self.0.wait().unwrap()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn read(cgroup: &Cgroup, controller: &str, file: &str) -> String {
    let path = cgroup.paths()[controller].join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")).trim_end().to_owned()
}

/// The same container in the hierarchies of one version only, as on a machine that has no others.
pub fn only(cgroup: &Cgroup, version: Version) -> Cgroup {
    let mut saved = serde_json::to_value(cgroup.saved()).unwrap();
    let wanted = serde_json::to_value(version).unwrap();
    saved["groups"].as_array_mut().unwrap().retain(|g| g["version"] == wanted);
    Cgroup::open(serde_json::from_value::<SavedCgroup>(saved).unwrap())
}

/// The letter of a process's state in /proc/PID/stat.
fn process_state(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().trim_start().chars().next().unwrap()
}

pub fn freeze_and_thaw(cgroup: &Cgroup) {
    let shell = Shell::run(cgroup, "while :; do :; done");
    assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Thawed);
    cgroup.freeze(LONG).unwrap();
    assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Frozen);
    // The kernel counts a process as frozen a moment before it leaves the CPU; then it stays away. One that loops is
    // always runnable otherwise.
    let end = Instant::now() + LONG;
    let mut away = 0;
    while away < 100 {
        away = if process_state(shell.pid()) == 'R' { 0 } else { away + 1 };
        assert!(Instant::now() < end, "it still runs");
    }
    // Twice is once.
    cgroup.freeze(LONG).unwrap();
    cgroup.thaw().unwrap();
    assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Thawed);
    while process_state(shell.pid()) != 'R' {
        assert!(Instant::now() < end, "it runs no more");
        std::thread::yield_now();
    }
}

/// Processes in two cgroups below (on v2 only those without any below may hold some), all gone after one call, then the
/// cgroup too.
pub fn kill_everybody(place: &Place, version: Option<Version>, frozen: bool) {
    let whole = place.create("{}");
    let below = |name: &str, script: &str| {
        Shell::run(&Cgroup::create(&place.plan(&format!("box/{name}"), "{}")).unwrap(), script)
    };
    let shells = [below("one", "sleep 1000 & sleep 1000; :"), below("other", "read x; :")];
    let cgroup = version.map_or_else(|| Cgroup::open(whole.saved()), |v| only(&whole, v));
    if frozen {
        cgroup.freeze(LONG).unwrap();
    }
    cgroup.kill(libc::SIGKILL).unwrap();
    for shell in shells {
        assert_eq!(shell.wait().signal(), Some(libc::SIGKILL));
    }
    whole.delete(LONG).unwrap();
    assert!(whole.paths().values().all(|d| !d.exists()));
}

/// Waits until the watch has news that `wanted` likes.
pub fn wait_for(watch: &mut OomWatch, wanted: fn(OomNews) -> bool) {
    let end = Instant::now() + LONG;
    loop {
        let news = watch.read().unwrap();
        if wanted(news) {
            return;
        }
        assert!(Instant::now() < end, "{news:?}");
        let mut fds = [rustix::event::PollFd::new(&*watch, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap();
    }
}

/// Waits for a line, then takes 64 MiB.
pub const EAT_MEMORY: &str = "read x; exec dd if=/dev/zero of=/dev/null bs=64M count=1";
