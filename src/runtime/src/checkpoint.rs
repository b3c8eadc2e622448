//! `checkpoint`: a running container saved to files, by criu.
//!
//! Either it is saved whole and ends (unless it is left running), or it runs on as if nothing had been.

use crate::annotations::property;
use crate::criu::options::{self, CONFIG_ANNOTATION, CriuOptions, Directories};
use crate::criu::rpc::{self, Kind, Message, opt};
use crate::criu::{Criu, Stages, Start};
use crate::error::{Doing, Error, InFile, Result};
use crate::facts::in_user_namespace;
use crate::namespaces::kind;
use crate::state::{State, StateDir, Status, is_frozen};
use crate::{Runtime, core_sched, delete, external, landlock, log};
use rrt_sys::process::{self, SingleThreaded};
use rrt_sys::signal::Signals;
use rrt_sys::{OFlags, path};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `checkpoint`
#[derive(Debug, Clone, Default)]
pub struct CheckpointOptions {
    /// The container's name.
    pub id: String,
    /// What `restore` has too.
    pub criu: CriuOptions,
    /// The images of an earlier `--pre-dump`, relative to the new ones.
    pub parent_path: Option<PathBuf>,
    /// Let the container run on.
    pub leave_running: bool,
    /// Save memory only, and let the container run on.
    pub pre_dump: bool,
    /// Link unlinked files that are open back into their directories.
    pub link_remap: bool,
    /// Leave out connections that are being opened.
    pub tcp_skip_in_flight: bool,
    /// A NUL byte is written here when the memory can be fetched (`--lazy-pages`).
    pub status_fd: Option<i32>,
    /// Memory goes to this server, or is fetched from us on this port.
    pub page_server: Option<(String, u16)>,
}

/// criu's log.
const LOG: &str = "dump.log";
/// Where the container's standard streams led; runc's name and form.
pub const DESCRIPTORS: &str = "descriptors.json";
/// In `external` at `checkpoint` and in `inherit_fd` at `restore`; runc's and crun's names.
pub const EXTERNAL_NAMESPACES: [(i32, &str, &str); 2] =
    [(kind::NETWORK, "net", "extRootNetNS"), (kind::PID, "pid", "extRootPidNS")];

impl Runtime {
    /// `checkpoint`: saves a container. Unless it is left running it ends, and is deleted, as with runc.
    ///
    /// # Errors
    /// Whatever it is, the container runs on.
    pub fn checkpoint(&self, options: &CheckpointOptions) -> Result<()> {
        let dir = StateDir::open(&self.root, &options.id)?;
        let state = dir.require()?;
        require_root()?;
        if state.host_root.is_some() {
            let problem = "it has no mount namespace, and criu would take the host's for its own";
            return Err(Error::Status(format!("container {:?} cannot be checkpointed: {problem}", options.id)));
        }
        let status = state.status(&dir);
        if !matches!(status, Status::Running | Status::Paused) {
            let hint = "only a running or paused one can be saved";
            return Err(Error::Status(format!("container cannot be checkpointed in {status} state ({hint})")));
        }
        // From here on a signal is dealt with between criu's stages; before it nothing has been done to the container.
        let signals = Signals::block_all().doing(|| "watch for signals".into())?;
        let directories = Directories::open(&options.criu, true)?;
        if let Some(parent) = &options.parent_path {
            options::check_parent(&directories.images, parent)?;
        }
        let status_fd = options.status_fd.map(options::status_fd).transpose()?;
        if let Some(warning) = will_be_lost(&state).filter(|_| !options.pre_dump) {
            log::warn(warning);
        }
        let done = save(&state, options, &directories, &signals, status_fd);
        if let Err(e) = done {
            take_back(&state, status);
            return Err(Error::Status(format!("checkpoint of {:?}: {e}; the container is as it was", options.id)));
        }
        if options.leave_running || options.pre_dump {
            return Ok(());
        }
        delete::delete(dir, &state)
    }
}

/// What criu does not save, by which the container is confined or tuned now: `restore` refuses it (`restore::refuse_lost`), so that
/// nobody believes it to be there, and who saves a container should not learn that only then.
fn will_be_lost(state: &State) -> Option<String> {
    let annotation = |name: &str| state.annotations.get(name);
    let lost = [
        (annotation(landlock::ANNOTATION).is_some(), property(landlock::ANNOTATION)),
        (annotation(core_sched::ANNOTATION).is_some_and(|v| v == "true"), property(core_sched::ANNOTATION)),
        (state.intel_rdt.is_some(), "linux.intelRdt".into()),
        (state.memory_policy.is_some(), "linux.memoryPolicy".into()),
    ];
    let names: Vec<_> = lost.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
    let hint =
        "criu does not save it; restore refuses a config.json that has it, and the processes come back only without";
    (!names.is_empty()).then(|| format!("checkpoint of {:?}: {}: {hint}", state.id, names.join(", ")))
}

/// criu has to be the host's root: what a process has mapped (`/proc/PID/map_files`) the kernel opens for nobody but who has
/// CAP_CHECKPOINT_RESTORE in the first user namespace (proc(5)).
pub fn require_root() -> Result<()> {
    let who = match rrt_sys::creds::effective_ids().0 {
        0 if !in_user_namespace()? => return Ok(()),
        0 => "root of a user namespace".to_owned(),
        uid => format!("uid {uid}"),
    };
    Err(Error::Usage(format!(
        "checkpoint and restore are not for {who}: criu needs CAP_CHECKPOINT_RESTORE and CAP_SYS_ADMIN on the host; call them as the \
         host's root"
    )))
}

fn save(
    state: &State,
    options: &CheckpointOptions,
    directories: &Directories,
    signals: &Signals,
    status_fd: Option<File>,
) -> Result<()> {
    let Some(init) = state.init else { return Err(Error::Status("container not running".into())) };
    // Held until criu is done: the number stays init's.
    let _pidfd = init.pidfd()?;
    let request = request(state, init.pid, options, directories)?;
    let token = SingleThreaded::check().doing(|| "check that the runtime has one thread".into())?;
    let criu = Criu::start(Start {
        token: &token,
        namespaces: 0,
        inherited: &directories.fds().collect::<Vec<_>>(),
        shell_job: false,
        prepare: &mut || no_standard_streams(),
        log: directories.log(LOG),
        patient: options.criu.lazy_pages || options.page_server.is_some(),
    })?;
    require_features(criu, options)?
        .run(&request, signals, &mut Saving { status_fd })
        .map(|_| log::debug(format!("checkpoint {:?}: saved in {:?}", state.id, directories.images)))
}

/// criu writes a log; what it prints besides would go to whoever reads our output.
fn no_standard_streams() -> Result<()> {
    let doing = || "close criu's standard streams".to_string();
    let null = path::open(Path::new("/dev/null"), OFlags::RDWR).doing(doing)?;
    (0..3).try_for_each(|stream| process::dup_onto_stdio(null.as_fd(), stream).doing(doing))
}

fn require_features(mut criu: Criu, options: &CheckpointOptions) -> Result<Criu> {
    if !options.pre_dump && !options.criu.lazy_pages {
        return Ok(criu);
    }
    let (tracks_memory, lazy) = criu.features()?;
    let lacks = |flag: &str, what: &str| Err(Error::Usage(format!("{flag}: criu or this kernel {what}")));
    if options.pre_dump && !tracks_memory {
        return lacks("--pre-dump", "cannot track changed memory (CONFIG_MEM_SOFT_DIRTY)");
    }
    if options.criu.lazy_pages && !lazy {
        return lacks("--lazy-pages", "cannot move memory lazily (CONFIG_USERFAULTFD)");
    }
    Ok(criu)
}

fn request(state: &State, pid: i32, options: &CheckpointOptions, directories: &Directories) -> Result<Message> {
    let config_file = options::config_file(state.annotations.get(CONFIG_ANNOTATION).map(String::as_str));
    let mut m = directories.request(&options.criu, LOG, config_file.as_deref());
    m.number(opt::PID, pid.into()).text(opt::ROOT, state.rootfs.as_os_str().as_encoded_bytes());
    m.flag(opt::LEAVE_RUNNING, options.leave_running).flag(opt::LINK_REMAP, options.link_remap);
    m.flag(opt::TCP_SKIP_IN_FLIGHT, options.tcp_skip_in_flight);
    // The network's links and addresses come from hooks and engines, at `restore` as at `create`.
    m.number(opt::EMPTY_NS, kind::NETWORK.into());
    // Joined namespaces outlive the container, and it comes back into them.
    for (kind, name, key) in EXTERNAL_NAMESPACES.iter().filter(|(kind, ..)| state.joined & kind != 0) {
        let file = PathBuf::from(format!("/proc/{pid}/ns/{name}"));
        let doing = || format!("look at the container's {} namespace", crate::namespaces::name(*kind));
        let inode = path::open(&file, OFlags::PATH).and_then(path::fstat).doing(doing)?.st_ino;
        m.text(opt::EXTERNAL, format!("{name}[{inode}]:{key}"));
    }
    if let Some(dir) = state.cgroup().freezer_dir() {
        m.text(opt::FREEZE_CGROUP, dir.as_os_str().as_encoded_bytes());
    }
    if let Some((address, port)) = &options.page_server {
        m.inner(opt::PAGE_SERVER, |m| m.text(1, address).number(2, (*port).into()));
    }
    if let Some(parent) = &options.parent_path {
        m.text(opt::PARENT_IMG, parent.as_os_str().as_encoded_bytes());
    }
    m.flag(opt::TRACK_MEM, options.pre_dump || options.parent_path.is_some());
    if options.pre_dump {
        return Ok(rpc::request(Kind::PreDump, &m));
    }
    let mounts = external::of_container(state, pid)?;
    for external in &mounts {
        let place = external.place.as_os_str().as_encoded_bytes();
        m.inner(opt::EXT_MNT, |m| m.text(1, place).text(2, &external.name));
    }
    external::write(&directories.images, mounts, &state.added_device_rules)?;
    let file = directories.images.join(DESCRIPTORS);
    let json = serde_json::to_vec(&state.stdio).in_file(&file)?;
    fs::write(&file, json).doing(|| format!("write {file:?}"))?;
    Ok(rpc::request(Kind::Dump, &m))
}

/// A criu that had to be killed leaves the cgroup frozen.
fn take_back(state: &State, status: Status) {
    let cgroup = state.cgroup();
    if status == Status::Running
        && is_frozen(&cgroup)
        && let Err(e) = cgroup.thaw()
    {
        log::warn(format!("after a failed checkpoint: {e}"));
    }
}

struct Saving {
    status_fd: Option<File>,
}

impl Stages for Saving {
    fn reached(&mut self, stage: &str, _pid: i32, _fd: Option<OwnedFd>) -> Result<()> {
        if stage == "status-ready"
            && let Some(mut fd) = self.status_fd.take()
        {
            fd.write_all(&[0]).doing(|| "--status-fd: write".into())?;
        }
        Ok(())
    }
}
