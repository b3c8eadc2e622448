//! What is kept on disk about a container: one directory below the root directory, with one small document.
//!
//! ```text
//! ROOT/ID/state.json   the document: who the container is and what later commands need; config.json is not read again
//! ROOT/ID/seccomp.bpf  the compiled seccomp filter, if there is one, as seccomp(2) takes it
//! ROOT/ID/start.sock   the start gate, while the container waits for `start`
//! ROOT/ID/notify/      the sd_notify socket, if there is one
//! ```
//!
//! The directory is made before anything else of a container, and removed last, so that whenever the runtime is killed there is
//! a record of what has to be cleaned up. Its flock serialises the commands that change the container.

use crate::error::{Doing, Error, InFile, Result};
use crate::hooks::HooksPlan;
use crate::host_root::HostRoot;
use crate::intel_rdt::SavedIntelRdt;
use crate::memory_policy::MemoryPolicyPlan;
use crate::seccomp::SeccompPlan;
use rrt_cgroups::{Cgroup, DeviceRule, FreezerState, SavedCgroup};
use rrt_sys::path;
use rrt_sys::{OFlags, errno};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The name of the document.
const FILE: &str = "state.json";
/// It while it is written.
const STAGED: &str = ".state.json";
/// The name of the seccomp filter.
const FILTER: &str = "seccomp.bpf";
/// The name of the start gate.
pub const GATE: &str = "start.sock";

/// The document.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The container's id.
    pub id: String,
    /// The bundle, absolute. JSON has only text: bytes of a path that are none are replaced, here and wherever a path is printed.
    #[serde(serialize_with = "as_text")]
    pub bundle: PathBuf,
    /// The root file system, absolute.
    #[serde(serialize_with = "as_text")]
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// Who created it.
    pub owner: u32,
    /// `annotations` of config.json.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The init process; absent until it exists.
    pub init: Option<Init>,
    /// Whether init has reached the start gate.
    pub ready: bool,
    /// Which namespaces it has of its own or joined (`CLONE_NEW*` bits): what `exec` joins.
    pub namespaces: i32,
    /// Which of them were joined by path: `checkpoint` leaves those out.
    #[serde(default)]
    pub joined: i32,
    /// Whether the pid namespace is its own alone: then the end of init ends all its processes.
    pub own_pid_namespace: bool,
    /// `linux.personality`, which `exec` sets as well.
    pub personality: Option<u64>,
    /// `linux.memoryPolicy`, as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicyPlan>,
    /// `linux.mountLabel` as a mount option, for file systems that `mounts` adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_label: Option<String>,
    /// Its seccomp filter, under which `exec` is as well; the program is in a file of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<SeccompPlan>,
    /// The name of its session keyring, which `exec` joins; absent with `--no-new-keyring`.
    pub keyring: Option<String>,
    /// Its class of resctrl, which `exec` joins and `delete` removes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<SavedIntelRdt>,
    /// Without a mount namespace: where its mounts are, which `exec` enters and `delete` takes off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_root: Option<HostRoot>,
    /// Its cgroups.
    pub cgroup: SavedCgroup,
    /// The device rules of config.json, then those of `update --device`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_rules: Vec<DeviceRule>,
    /// Those of `update --device` alone, which `restore` puts after those of its config.json.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added_device_rules: Vec<DeviceRule>,
    /// Hooks still to be run.
    #[serde(default)]
    pub hooks: HooksPlan,
    /// Where bind mounts were put, as config.json has it: `checkpoint` leaves out what they show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<PathBuf>,
    /// What the standard streams were, `pipe:[INODE]` for a pipe; none with a terminal. For `checkpoint`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stdio: Vec<String>,
    /// `process` of config.json: what `exec` with flags begins from.
    pub process: Box<serde_json::value::RawValue>,
}

/// A path as text, for JSON.
pub fn as_text<S: serde::Serializer>(path: &Path, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_str(&path.display())
}

/// The init process, as it is recognised later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Init {
    /// Its pid in the runtime's pid namespace.
    pub pid: i32,
    /// Its start time in clock ticks since boot (proc_pid_stat(5) field 22): a pid is used again, this pair is not.
    pub start_time: u64,
}

/// The status of the runtime specification, and `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work, or was killed.
    Creating,
    /// Waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// Frozen.
    Paused,
    /// Init has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

impl Init {
    /// Takes down who `pid` is.
    ///
    /// # Errors
    /// ESRCH when it is gone.
    pub fn of(pid: i32) -> Result<Init> {
        match Stat::read(pid) {
            Some(Stat { start_time, .. }) => Ok(Init { pid, start_time }),
            None => Err(Error::Init(format!("process {pid} ended during setup"))),
        }
    }

    /// Whether the process lives: a zombie does not.
    pub fn is_alive(&self) -> bool {
        self.stat().is_some_and(|stat| stat.is_alive())
    }

    /// Whether the process lives, or is a zombie.
    pub fn is_there(&self) -> bool {
        self.stat().is_some()
    }

    /// The wait status of the process while it is a zombie.
    pub fn zombie_status(&self) -> Option<i32> {
        self.stat().filter(|stat| stat.state == b'Z')?.wait_status
    }

    fn stat(&self) -> Option<Stat> {
        Stat::read(self.pid).filter(|stat| stat.start_time == self.start_time)
    }

    /// A pidfd of the process, checked to be the same one.
    ///
    /// # Errors
    /// `container not running` when it is gone: containerd and CRI-O match the text.
    pub fn pidfd(&self) -> Result<OwnedFd> {
        let gone = || Error::Status("container not running".into());
        let fd = rrt_sys::process::pidfd_open(self.pid).map_err(|_| gone())?;
        // Checked after opening: from here on the fd cannot become another process.
        if self.is_alive() { Ok(fd) } else { Err(gone()) }
    }
}

/// What we ask of proc_pid_stat(5). Read here, because procfs' `Process` asks for the kernel's release first and opens the directory, and its
/// `Stat` has all fifty fields: nearly every command asks, and `list` of every container.
#[derive(Debug)]
struct Stat {
    state: u8,
    flags: u64,
    start_time: u64,
    /// None for those who may not look into the process.
    wait_status: Option<i32>,
}

impl Stat {
    fn read(pid: i32) -> Option<Stat> {
        let file = path::open(Path::new(&format!("/proc/{pid}/stat")), OFlags::RDONLY).ok()?;
        Stat::parse(&path::read_limited(&file, 4096).ok()?)
    }

    fn parse(line: &[u8]) -> Option<Stat> {
        // The name, the second field, may contain anything; nothing after it has a parenthesis.
        let rest = &line[line.iter().rposition(|byte| *byte == b')')? + 1..];
        let mut fields = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
        Some(Stat {
            state: *fields.next()?.as_bytes().first()?,
            flags: fields.nth(9 - 3 - 1)?.parse().ok()?,
            start_time: fields.nth(22 - 9 - 1)?.parse().ok()?,
            wait_status: fields.nth(52 - 22 - 1).and_then(|field| field.parse().ok()),
        })
    }

    fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Whether the process has executed nothing since it was cloned.
    fn has_not_executed(&self) -> bool {
        /// include/linux/sched.h
        const PF_FORKNOEXEC: u64 = 0x40;
        self.flags & PF_FORKNOEXEC != 0
    }
}

/// A container's directory, locked against other commands that change it.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    dir: OwnedFd,
}

/// A document that only needs its name to be the container's state.
#[derive(Debug)]
#[must_use]
pub struct Staged<'a>(&'a StateDir);

impl Staged<'_> {
    /// Puts it in the place of the one before.
    pub fn publish(self) -> Result<()> {
        let dir = self.0;
        path::rename(dir.dir.as_fd(), STAGED, FILE).doing(|| format!("write {:?}", dir.path.join(FILE)))
    }
}

/// Where the state directory could be instead.
pub fn where_else() -> &'static str {
    match rrt_sys::creds::effective_ids() {
        (0, _) => "--root",
        _ => "give --root, or set XDG_RUNTIME_DIR to a directory of your own, usually /run/user/UID",
    }
}

/// Checks a container id: bytes of `[0-9A-Za-z_+.-]`, and no path.
pub fn validate_id(id: &str) -> Result<()> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"_+.-".contains(&b);
    if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.bytes().all(ok) {
        return Err(Error::Usage(format!(
            "invalid container ID format: {id:?} (letters, digits and \"_+.-\" only, not \".\" or \"..\")"
        )));
    }
    Ok(())
}

impl StateDir {
    /// Takes the id: makes the directory, locked.
    ///
    /// # Errors
    /// [`Error::Exists`] when the id is taken.
    pub fn make(root: &Path, id: &str) -> Result<StateDir> {
        validate_id(id)?;
        let path = root.join(id);
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let made = builder.create(&path).or_else(|e| match e.kind() {
            // The root is made only when it is missing, which it is once per boot.
            std::io::ErrorKind::NotFound => {
                builder.recursive(true).create(root).and_then(|()| builder.recursive(false).create(&path))
            }
            _ => Err(e),
        });
        match made {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::Exists(id.into())),
            made => {
                made.doing(|| format!("make the state directory {path:?} ({})", where_else()))?;
                // Not opened, it would be a name that is taken by nothing.
                StateDir::open_path(path.clone()).and_then(StateDir::lock).inspect_err(|_| drop(fs::remove_dir(&path)))
            }
        }
    }

    /// Opens the directory of an existing container, locked.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub fn open(root: &Path, id: &str) -> Result<StateDir> {
        StateDir::open_unlocked(root, id)?.lock()
    }

    /// Opens the directory of an existing container to read it: nothing waits for a command that is at work.
    pub fn open_unlocked(root: &Path, id: &str) -> Result<StateDir> {
        validate_id(id)?;
        match StateDir::open_path(root.join(id)) {
            Err(Error::System { source, .. }) if source.is(errno::ENOENT) => Err(Error::NotFound(id.into())),
            opened => opened,
        }
    }

    fn open_path(path: PathBuf) -> Result<StateDir> {
        let dir = path::open(&path, OFlags::RDONLY | OFlags::DIRECTORY)
            .doing(|| format!("open the state directory {path:?} ({})", where_else()))?;
        Ok(StateDir { path, dir })
    }

    /// Lets other commands at the container while this one only watches it.
    pub fn unlock(&self) -> Result<()> {
        path::unlock(&self.dir).doing(|| format!("unlock {:?}", self.path))
    }

    /// Takes the lock again.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the container was deleted meanwhile.
    pub fn relock(self) -> Result<StateDir> {
        self.lock()
    }

    fn lock(self) -> Result<StateDir> {
        path::lock(&self.dir).doing(|| format!("lock {:?}", self.path))?;
        // Whoever had the lock may have deleted the container while we waited.
        if path::fstat(&self.dir).is_ok_and(|st| st.st_nlink == 0) {
            let id = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(Error::NotFound(id));
        }
        Ok(self)
    }

    /// Writes the document, whole or not at all.
    pub fn write(&self, state: &State) -> Result<()> {
        self.stage(state)?.publish()
    }

    /// Writes the document under another name, to be published later.
    pub fn stage(&self, state: &State) -> Result<Staged<'_>> {
        let json = serde_json::to_vec(state).in_file(&self.path.join(FILE))?;
        path::write_over(self.dir.as_fd(), STAGED, &json).doing(|| format!("write {:?}", self.path.join(STAGED)))?;
        Ok(Staged(self))
    }

    /// Writes the seccomp filter. Before init exists, so that nobody reads half of it.
    pub fn write_filter(&self, filter: Option<&SeccompPlan>) -> Result<()> {
        let Some(filter) = filter else { return Ok(()) };
        let file = self.path.join(FILTER);
        fs::write(&file, &filter.program).doing(|| format!("write {file:?}"))
    }

    /// Puts the program that was kept into a filter.
    pub fn read_filter(&self, filter: SeccompPlan) -> Result<SeccompPlan> {
        Ok(SeccompPlan { program: crate::seccomp::read_program(&self.path.join(FILTER))?, ..filter })
    }

    /// Reads the document; `None` when `create` was killed before it wrote it.
    pub fn read(&self) -> Result<Option<State>> {
        let file = self.path.join(FILE);
        match fs::read(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => {
                let bytes = read.doing(|| format!("read {file:?}"))?;
                serde_json::from_slice(&bytes).map(Some).in_file(&file)
            }
        }
    }

    /// Reads the document of a container that a command acts on.
    ///
    /// # Errors
    /// [`Error::Status`] when there is none yet.
    pub fn require(&self) -> Result<State> {
        self.read()?.ok_or_else(|| {
            Error::Status(format!(
                "container does not exist: {:?} is being created or deleted, or its create was killed (delete --force cleans up)",
                self.id()
            ))
        })
    }

    /// The container's id.
    pub fn id(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub fn fd(&self) -> impl AsFd + '_ {
        &self.dir
    }

    /// Removes the directory with all that is in it, and with it the container's name.
    pub fn remove(self) -> Result<()> {
        // Under the lock, which is held until the name is free: nobody can have made another directory there.
        let _ = fs::remove_file(self.path.join(FILE));
        match fs::remove_dir(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(&self.path),
            done => done,
        }
        .doing(|| format!("remove the state directory {:?}", self.path))
    }
}

impl State {
    /// The status at this moment.
    pub fn status(&self, dir: &StateDir) -> Status {
        let Some(init) = self.init else { return Status::Creating };
        let Some(stat) = init.stat().filter(Stat::is_alive) else { return Status::Stopped };
        if !self.ready {
            return Status::Creating;
        }
        // First: `resume` has to find it, and it cannot be started.
        if is_frozen(&self.cgroup()) {
            return Status::Paused;
        }
        // The kernel knows whether init has executed its program, whatever became of the commands. That of a `run` has no gate to be started at,
        // and what criu has restored has none any more.
        match stat.has_not_executed() && dir.path.join(GATE).exists() {
            true => Status::Created,
            false => Status::Running,
        }
    }

    /// The handle on its cgroups.
    pub fn cgroup(&self) -> Cgroup {
        Cgroup::open(self.cgroup.clone())
    }

    /// The document that hooks read (runtime-spec runtime.md, "State").
    pub fn for_hooks(&self, status: Status) -> String {
        self.for_hooks_of(status, self.init.map(|i| i.pid).filter(|_| status != Status::Stopped))
    }

    /// The same for hooks of the container's namespaces, by init: with its pid as it is there (runtime-spec runtime.md, "State").
    pub fn for_hooks_inside(&self, status: Status) -> String {
        self.for_hooks_of(status, std::process::id().try_into().ok())
    }

    fn for_hooks_of(&self, status: Status, pid: Option<i32>) -> String {
        let mut doc = serde_json::json!({
            "ociVersion": rrt_oci::VERSION, "id": self.id, "status": status, "bundle": self.bundle.to_string_lossy(),
        });
        if let Some(pid) = pid {
            doc["pid"] = pid.into();
        }
        if !self.annotations.is_empty() {
            doc["annotations"] = serde_json::json!(self.annotations);
        }
        doc.to_string()
    }
}

/// Whether the container's processes stand still, or are about to. A cgroup that cannot be read holds nobody back.
pub fn is_frozen(cgroup: &Cgroup) -> bool {
    cgroup.freezer_state().is_ok_and(|state| state != FreezerState::Thawed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_paths_are_refused() {
        for id in ["", ".", "..", "a/b", "../x", "a b", "ü", "a\0"] {
            assert!(validate_id(id).is_err(), "{id:?}");
        }
        for id in ["a", "A-1_2.3+4", ".hidden", "...", &"x".repeat(64)] {
            assert!(validate_id(id).is_ok(), "{id:?}");
        }
    }

    #[test]
    fn a_name_is_taken_once() {
        let root = std::env::temp_dir().join(format!("rrt-state-{}", std::process::id()));
        let dir = StateDir::make(&root, "x").unwrap();
        assert!(matches!(StateDir::make(&root, "x"), Err(Error::Exists(_))));
        assert!(dir.read().unwrap().is_none() && matches!(dir.require(), Err(Error::Status(_))));
        dir.remove().unwrap();
        assert!(matches!(StateDir::open(&root, "x"), Err(Error::NotFound(_))));
        fs::remove_dir(&root).unwrap();
    }

    #[test]
    fn the_name_of_a_process_cannot_pass_for_what_follows_it() {
        let line = |name: &str| {
            format!("7 ({name}) S 1 7 7 0 -1 4194368 {} 99 {} 512", "0 ".repeat(12).trim(), "0 ".repeat(29).trim())
        };
        for name in ["init", "a) Z 1 2 3 (b", ") R", ""] {
            let stat = Stat::parse(line(name).as_bytes()).unwrap();
            assert_eq!((stat.state, stat.start_time, stat.wait_status), (b'S', 99, Some(512)), "{name:?}");
            assert!(stat.is_alive() && stat.has_not_executed());
        }
        assert!(Stat::parse(b"7 (init) S 1").is_none() && Stat::parse(b"").is_none());
        assert!(!Stat::read(std::process::id() as i32).unwrap().has_not_executed());
    }

    #[test]
    fn init_is_this_process_only_with_its_start_time() {
        let me = Init::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        assert!(!Init { start_time: me.start_time + 1, ..me }.is_alive());
    }
}
