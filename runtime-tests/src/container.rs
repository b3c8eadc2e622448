//! One container of a test: its bundle, the commands on it, and its end.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::command::{Background, Output, quiet, run, until};
use crate::leaks::assert_nothing_left;
use crate::{host, rootfs, runtime};

/// A bundle in a directory of its own, and the container made of it.
///
/// Dropping it deletes the container with force, and fails the test if anything of it is left.
pub struct Container {
    /// Unique on this machine.
    pub id: String,
    /// The bundle: `config.json`, `rootfs`, and whatever the test puts beside them.
    pub dir: PathBuf,
    /// The runtime's `--root`. Containers that must know of each other can share one.
    pub root: PathBuf,
    /// What is written to `config.json` by the next `create` or `run`. Starts as `runtime spec` has it, without a
    /// terminal, with a writable root, and with `guest report` as its program.
    pub config: Value,
    /// Global flags of every command.
    pub flags: Vec<String>,
    /// The runtime; the one under test unless a test needs a copy of it.
    pub binary: PathBuf,
    /// The user and group that call the runtime, when it is not whoever runs the test.
    pub caller: Option<(u32, u32)>,
    mounted: Vec<PathBuf>,
}

impl Default for Container {
    fn default() -> Self {
        Self::new()
    }
}

impl Container {
    /// A new bundle; nothing of it runs yet.
    ///
    /// # Panics
    /// When the bundle cannot be written.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Of fixed width, so that no id is the beginning of another: the leak check looks for the text.
        let id = format!("rt-{}-{:04}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&id);
        fs::create_dir(&dir).expect("directory of the bundle");
        rootfs::populate(&dir.join("rootfs")).expect("root file system of the bundle");
        let mut config: Value = serde_json::from_str(include_str!("default.json")).expect("default.json");
        if let Some(env) = config["process"]["env"].as_array_mut() {
            env.push(json!(format!("RT_ID={id}")));
        }
        let c = Self {
            root: dir.join("state"),
            binary: runtime().path.clone(),
            caller: None,
            flags: runtime().flags.clone(),
            mounted: Vec::new(),
            id,
            dir,
            config,
        };
        // A user's is rootless, with all the ids that he can give it.
        if rustix::process::geteuid().is_root() { c } else { c.rootless(0).with_lent_ids() }
    }

    /// Sets `process.args`.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.config["process"]["args"] = json!(args);
        self
    }

    /// Sets `process.args` to a shell script.
    #[must_use]
    pub fn sh(self, script: &str) -> Self {
        self.args(&["sh", "-c", script])
    }

    /// Sets `process.args` to a program that does nothing until it is killed.
    #[must_use]
    pub fn idle(self) -> Self {
        self.args(&["sleep", "3600"])
    }

    /// Changes the configuration: `.with("/process/user/umask", json!(0o27))`. The path is a JSON pointer (RFC 6901);
    /// a missing object on the way is made, and `-` appends to a list.
    ///
    /// # Panics
    /// When the path leads through a value that is not an object or a list.
    #[must_use]
    pub fn with(mut self, path: &str, value: Value) -> Self {
        let mut at = &mut self.config;
        for key in path.trim_start_matches('/').split('/') {
            at = match at {
                Value::Array(list) => {
                    let index = if key == "-" { list.len() } else { key.parse().expect("index of a list") };
                    list.resize(list.len().max(index + 1), Value::Null);
                    &mut list[index]
                }
                other => &mut other[key],
            };
        }
        *at = value;
        self
    }

    /// Adds a mount.
    #[must_use]
    pub fn mount(self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
        self.with("/mounts/-", mount)
    }

    /// Adds a namespace; with an empty path a new one.
    #[must_use]
    pub fn namespace(self, kind: &str, path: &str) -> Self {
        let namespace = if path.is_empty() { json!({ "type": kind }) } else { json!({ "type": kind, "path": path }) };
        let mut container = self;
        container.remove_namespace(kind);
        container.with("/linux/namespaces/-", namespace)
    }

    /// Removes a namespace of the default configuration, so that the container stays in the runtime's.
    pub fn remove_namespace(&mut self, kind: &str) {
        if let Some(list) = self.config["linux"]["namespaces"].as_array_mut() {
            list.retain(|n| n["type"] != kind);
        }
    }

    /// Removes the mount of the default configuration at `destination`.
    #[must_use]
    pub fn without_mount(mut self, destination: &str) -> Self {
        if let Some(list) = self.config["mounts"].as_array_mut() {
            list.retain(|m| m["destination"] != destination);
        }
        self
    }

    /// Grants the capabilities in the bounding, permitted and effective sets.
    #[must_use]
    pub fn caps(mut self, names: &[&str]) -> Self {
        for set in ["bounding", "permitted", "effective"] {
            self.config["process"]["capabilities"][set] = json!(names);
        }
        self
    }

    /// A container of an ordinary user: of the one who runs the test, or of `user` if that is root. The configuration gets what
    /// `runtime spec --rootless` would give it: a user namespace with the user's id as 0, and no owner that is not mapped.
    #[must_use]
    pub fn rootless(mut self, user: u32) -> Self {
        let (own, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (uid, gid) = if own == 0 { (user, user) } else { (own, group) };
        self.caller = (own == 0).then_some((uid, gid));
        for mount in self.config["mounts"].as_array_mut().into_iter().flatten() {
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|o| o != "gid=5");
            }
        }
        let one = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
        self.namespace("user", "").with("/linux/uidMappings", one(uid)).with("/linux/gidMappings", one(gid))
    }

    /// Maps the ids that `RT_LENT` (`START:SIZE`) lends to the user, from 1 on.
    ///
    /// # Panics
    /// When the variable is something else.
    fn with_lent_ids(self) -> Self {
        let Ok(range) = std::env::var("RT_LENT") else { return self };
        let (start, size) = range.split_once(':').expect("RT_LENT is START:SIZE");
        let [start, size] = [start, size].map(|n| n.parse::<u32>().expect("RT_LENT is two numbers"));
        let lent = json!({ "containerID": 1, "hostID": start, "size": size });
        self.with("/linux/uidMappings/-", lent.clone()).with("/linux/gidMappings/-", lent)
    }

    /// The uid that calls the runtime.
    #[must_use]
    pub fn caller_uid(&self) -> u32 {
        self.caller.map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid)
    }

    /// Uses the state directory of `other`.
    #[must_use]
    pub fn beside(mut self, other: &Self) -> Self {
        self.root.clone_from(&other.root);
        self
    }

    /// A path in the root file system, as the host sees it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.join("rootfs").join(inside.trim_start_matches('/'))
    }

    /// Makes a directory in the bundle's and mounts a tmpfs on it for a mount to take as its source, with the flags
    /// given on the mount, not on the file system. Call [`crate::private_mounts`] before. It ends with the container.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn host_tmpfs(&mut self, name: &str, flags: MsFlags) -> PathBuf {
        let (dir, none) = (self.dir.join(name), None::<&str>);
        fs::create_dir_all(&dir).expect("directory for a tmpfs");
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs on the host");
        mount(none, &dir, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none).expect("flags of a tmpfs");
        self.mounted.push(dir.clone());
        dir
    }

    /// Writes `config.json`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_config(&self) {
        fs::write(self.dir.join("config.json"), self.config.to_string()).expect("config.json");
        if let Some((uid, gid)) = self.caller {
            give(&self.dir, uid, gid).expect("give the bundle to its user");
        }
    }

    /// `RUNTIME --root DIR COMMAND FLAGS... ID REST...`, not yet run, in the bundle's directory.
    #[must_use]
    pub fn command(&self, command: &str, flags: &[&str], rest: &[&str]) -> Command {
        let mut call = quiet(&self.binary);
        call.current_dir(&self.dir)
            .arg("--root")
            .arg(&self.root)
            .args(&self.flags)
            .arg(command)
            .args(flags)
            .arg(&self.id)
            .args(rest);
        if let Some((uid, gid)) = self.caller {
            // With no other group: the standard library drops them when it changes the user.
            call.uid(uid).gid(gid);
        }
        call
    }

    /// Runs [`Self::command`] to its end.
    #[track_caller]
    pub fn call(&self, command: &str, flags: &[&str], rest: &[&str]) -> Output {
        run(&mut self.command(command, flags, rest), &self.dir)
    }

    /// Starts [`Self::command`] and leaves it running.
    #[track_caller]
    pub fn spawn(&self, command: &str, flags: &[&str], rest: &[&str]) -> Background {
        Background::start(&mut self.command(command, flags, rest), &self.dir)
    }

    /// Runs a shell script whose `"$@"` is [`Self::command`]: for what only the caller of the runtime can set up.
    #[track_caller]
    pub fn call_from_shell(&self, script: &str, command: &str, flags: &[&str], rest: &[&str]) -> Output {
        let inner = self.command(command, flags, rest);
        let mut shell = quiet(Path::new("sh"));
        shell.current_dir(&self.dir).args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        run(&mut shell, &self.dir)
    }

    /// Writes the configuration and calls `create`.
    #[track_caller]
    pub fn create(&self, flags: &[&str]) -> Output {
        self.write_config();
        self.call("create", flags, &[])
    }

    /// Writes the configuration and calls `run`.
    #[track_caller]
    pub fn run(&self, flags: &[&str]) -> Output {
        self.write_config();
        self.call("run", flags, &[])
    }

    /// `start`.
    #[track_caller]
    pub fn start(&self) -> Output {
        self.call("start", &[], &[])
    }

    /// `exec` of a program.
    #[track_caller]
    pub fn exec(&self, flags: &[&str], args: &[&str]) -> Output {
        self.call("exec", flags, args)
    }

    /// `kill` with a signal.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> Output {
        self.call("kill", &[], &[signal])
    }

    /// `delete`.
    #[track_caller]
    pub fn delete(&self, flags: &[&str]) -> Output {
        self.call("delete", flags, &[])
    }

    /// Brings the container up with `create` and `start`, both of which must succeed.
    #[must_use]
    #[track_caller]
    pub fn up(self) -> Self {
        self.create(&[]).ok();
        self.start().ok();
        self
    }

    /// Runs the container, which must succeed, and parses what it printed: with the default program, its report.
    #[track_caller]
    pub fn report(&self) -> Value {
        self.run(&[]).ok().json()
    }

    /// Runs `guest report` in the running container by `exec` with the flags given.
    #[track_caller]
    pub fn exec_report(&self, flags: &[&str]) -> Value {
        self.exec(flags, &["guest", "report"]).ok().json()
    }

    /// Performs `guest try` with pairs of operation and path in the running container: 0 or the errno's name for each.
    #[track_caller]
    pub fn attempt(&self, pairs: &[&str]) -> Value {
        self.exec(&[], &[&["guest", "try"], pairs].concat()).ok().json()
    }

    /// The `state` document.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.call("state", &[], &[]).ok().json()
    }

    /// Host pid of the container's first process, as `state` tells it.
    ///
    /// # Panics
    /// When `state` tells none.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let state = self.state();
        state["pid"].as_u64().and_then(|p| p.try_into().ok()).unwrap_or_else(|| panic!("no pid in {state}"))
    }

    /// Waits for a status: `wait_status("stopped")`.
    #[track_caller]
    pub fn wait_status(&self, status: &str) {
        until(&format!("status {status} of {}", self.id), || self.state()["status"] == status);
    }

    /// Fails unless nothing of the container is left, without deleting it first.
    #[track_caller]
    pub fn assert_gone(&self) {
        assert_nothing_left(&self.id, &self.root);
    }
}

/// Gives a tree to a user; files with several links stay what they are, for they are the host's.
fn give(path: &Path, uid: u32, gid: u32) -> std::io::Result<()> {
    let meta = path.symlink_metadata()?;
    if meta.is_dir() || meta.nlink() == 1 {
        match lchown(path, Some(uid), Some(gid)) {
            // A mount that a test has made.
            Err(e) if e.kind() == std::io::ErrorKind::ReadOnlyFilesystem => return Ok(()),
            done => done?,
        }
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}

impl Drop for Container {
    fn drop(&mut self) {
        // A container never created is unknown, which `--force` forgives.
        let out = self.delete(&["--force"]);
        for dir in self.mounted.iter().rev() {
            let _ = umount2(dir, MntFlags::MNT_DETACH);
        }
        let mounted = host::host_mounts().iter().any(|m| m.contains(&self.id));
        if !std::thread::panicking() {
            assert_eq!(out.code, 0, "delete --force: {out}");
            self.assert_gone();
        }
        // What a leaked mount shows must not be removed.
        if !mounted {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
