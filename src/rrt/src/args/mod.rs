//! From argv to what was asked for. Pure: no file, no environment, no clock; what the words mean on this machine is
//! decided in `commands`.
//!
//! One table has every flag ([`flags`]); by it a line is taken apart in one pass, in Go's spelling ([`golang`]), and each value is read where it is used
//! ([`line`], [`values`]).

mod completion;
mod flags;
mod golang;
mod help;
mod line;
mod table;
mod values;

pub use completion::Shell;
use line::Line;
use rrt_oci::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use rrt_runtime::{
    CgroupManager, CheckpointOptions, CreateOptions, CriuOptions, DeviceRule, ExecOptions, RdtUpdate, RestoreOptions,
    RunOptions,
};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;
pub use values::{Format, MountsAction};

/// The flags before the command.
#[derive(Debug)]
pub struct Globals {
    /// `--root`, as typed.
    pub root: Option<PathBuf>,
    /// `--log` and its companions.
    pub log: LogOptions,
    /// `--cgroup-manager`, or `--systemd-cgroup`.
    pub cgroup_manager: CgroupManager,
    /// `--rootless`; none is "auto".
    pub rootless: Option<bool>,
}

/// Where the log goes and how much of it.
#[derive(Debug, Default, Clone)]
pub struct LogOptions {
    /// None is stderr, unless there is a service.
    pub file: Option<PathBuf>,
    /// In place of a file.
    pub service: Option<LogService>,
    /// JSON lines in place of text.
    pub json: bool,
    /// None is the default of the place it goes to.
    pub level: Option<rrt_runtime::log::Level>,
}

/// A log service of the machine's, and what its lines are marked with; crun's `journald:ID` and `syslog:ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogService {
    /// systemd-journald, by its own protocol: `ID` is a field.
    Journald(String),
    /// Whatever listens at `/dev/log`: `ID` is the tag.
    Syslog(String),
}

/// What stands after the global flags.
#[derive(Debug)]
pub enum Request<'a> {
    /// `--help`, or nothing at all.
    Help,
    /// `--version`
    Version,
    /// A command's name and the rest of the line.
    Command(Vec<&'a OsStr>),
}

/// One container, or each whose name matches (`--regex`).
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A container id.
    Id(String),
    /// A POSIX extended regular expression, not yet compiled.
    Pattern(String),
}

/// Where `update` takes the new limits from.
#[derive(Debug)]
pub enum NewResources {
    /// A file of JSON.
    File(PathBuf),
    /// JSON on stdin.
    Stdin,
    /// The flags.
    Flags(Box<LinuxResources>),
}

/// A command with its options.
#[derive(Debug)]
pub enum Command {
    Create(CreateOptions),
    Start { id: String },
    Run(RunOptions),
    Exec(ExecOptions),
    Kill { target: Target, signal: i32, all: bool },
    Delete { target: Target, force: bool },
    State { id: String },
    List { format: Format, quiet: bool },
    Ps { id: String, format: Format, args: Vec<OsString> },
    Events { id: String, interval: Duration, once: bool },
    Wait { id: String },
    Check { options: CreateOptions, json: bool },
    Mounts { id: String, options: crate::commands::mounts::Options },
    Pause { id: String },
    Resume { id: String },
    Update { id: String, resources: NewResources, devices: Vec<DeviceRule>, rdt: RdtUpdate },
    Checkpoint(CheckpointOptions),
    Restore(RestoreOptions),
    Spec { file: PathBuf, rootless: bool },
    Features { probe: bool },
    Info,
    Completion { shell: Shell },
    Plan { options: CreateOptions, json: bool },
    Help(String),
    Version,
}

/// SIGTERM of signal(7), what `kill` sends unless told.
const SIGTERM: i32 = 15;
/// runc's interval of `events`.
const EVENTS_INTERVAL: Duration = Duration::from_secs(5);
/// The name `plan` gives the container where none is typed; it shows in cgroup paths.
const PLANNED_ID: &str = "ID";

/// Reads the global flags of `argv` (without the program's own name).
///
/// # Errors
/// One line that names the flag.
pub fn globals<'a>(argv: &[&'a OsStr]) -> Result<(Globals, Request<'a>), String> {
    let line = golang::take_apart(&flags::TABLE.global, argv)?;
    let globals = Globals {
        root: line.path("root"),
        log: log_options(&line)?,
        cgroup_manager: cgroup_manager(&line)?,
        rootless: line.one("rootless", values::rootless)?.flatten(),
    };
    let request = if line.has("version") {
        Request::Version
    } else if line.help || line.words.is_empty() {
        Request::Help
    } else {
        Request::Command(line.words)
    };
    Ok((globals, request))
}

fn log_options(line: &Line<'_>) -> Result<LogOptions, String> {
    use rrt_runtime::log::Level;
    let json = match line.text("log-format")?.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(format!("invalid value {other:?} for flag -log-format: expected text or json")),
    };
    let level = match line.text("log-level")?.as_deref() {
        _ if line.has("debug") => Some(Level::Debug),
        None => None,
        Some("error") => Some(Level::Error),
        Some("warning" | "warn") => Some(Level::Warn),
        Some("info") => Some(Level::Info),
        Some("debug") => Some(Level::Debug),
        Some(other) => {
            return Err(format!("invalid value {other:?} for flag -log-level: expected error, warning, info or debug"));
        }
    };
    let service = log_service(line)?;
    let file = if service.is_some() { None } else { log_file(line) };
    Ok(LogOptions { file, service, json, level })
}

fn log_service(line: &Line<'_>) -> Result<Option<LogService>, String> {
    let Some(value) = line.path("log") else { return Ok(None) };
    let value = value.to_str().unwrap_or_default();
    let (make, id): (fn(String) -> LogService, _) = match value.split_once(':') {
        Some(("journald", id)) => (LogService::Journald, id),
        Some(("syslog", id)) => (LogService::Syslog, id),
        _ => return Ok(None),
    };
    // It stands in a line of text, and must not end it or begin another.
    if id.contains(char::is_control) {
        return Err(format!("invalid value {value:?} for flag -log: the id has a control character; remove it"));
    }
    Ok(Some(make(if id.is_empty() { "rrt" } else { id }.into())))
}

/// crun's `--log` takes `file:PATH` too.
fn log_file(line: &Line<'_>) -> Option<PathBuf> {
    let file = line.path("log")?;
    let name = file.to_str().unwrap_or_default();
    match name.strip_prefix("file:") {
        Some(path) => Some(path.into()),
        None => (name != "/dev/stderr").then_some(file),
    }
}

fn cgroup_manager(line: &Line<'_>) -> Result<CgroupManager, String> {
    match line.text("cgroup-manager")?.as_deref() {
        _ if line.has("systemd-cgroup") => Ok(CgroupManager::Systemd),
        None | Some("cgroupfs") => Ok(CgroupManager::Cgroupfs),
        Some("systemd") => Ok(CgroupManager::Systemd),
        Some("disabled") => Ok(CgroupManager::Disabled),
        Some(other) => {
            Err(format!("invalid value {other:?} for flag -cgroup-manager: expected cgroupfs, systemd or disabled"))
        }
    }
}

/// Reads the command of `request`.
///
/// # Errors
/// One line that names the command and the flag.
pub fn command(program: &str, request: &Request<'_>) -> Result<Command, String> {
    let words = match request {
        Request::Help => return Ok(overview(program)),
        Request::Version => return Ok(Command::Version),
        Request::Command(words) => words,
    };
    let (name, argv) = words.split_first().expect("a request has a command");
    let Some(entry) = flags::find(name) else {
        return Err(format!("unknown command {:?}: see {program} --help", name.display().to_string()));
    };
    let named = |text: String| format!("{}: {text} (see {program} {} --help)", entry.name, entry.name);
    let line = golang::take_apart(entry, argv).map_err(named)?;
    if line.help {
        return Ok(Command::Help(help::of_command(program, entry)));
    }
    if entry.name == "help" {
        line.check_words().map_err(named)?;
        return help_for(program, &line);
    }
    // A value that is wrong is told before a word that is missing.
    let command = read(entry.name, &line).map_err(named)?;
    line.check_words().map_err(named)?;
    Ok(command)
}

fn read(name: &str, line: &Line<'_>) -> Result<Command, String> {
    Ok(match name {
        "create" => Command::Create(create(line)?),
        "run" => Command::Run(RunOptions {
            create: create(line)?,
            detach: line.has("detach"),
            keep: line.has("keep"),
            no_subreaper: line.has("no-subreaper"),
        }),
        "exec" => Command::Exec(exec(line)?),
        "start" => Command::Start { id: id(line)? },
        "state" => Command::State { id: id(line)? },
        "mounts" => Command::Mounts { id: id(line)?, options: mounts(line)? },
        "check" => Command::Check { options: checked(line), json: line.has("json") },
        "wait" => Command::Wait { id: id(line)? },
        "pause" => Command::Pause { id: id(line)? },
        "resume" => Command::Resume { id: id(line)? },
        "kill" => Command::Kill {
            target: target(line)?,
            signal: line.one("signal", values::signal)?.unwrap_or(SIGTERM),
            all: line.has("all"),
        },
        "delete" => Command::Delete { target: target(line)?, force: line.has("force") },
        "list" => Command::List { format: format_of(line)?, quiet: line.has("quiet") },
        "ps" => Command::Ps { id: id(line)?, format: format_of(line)?, args: line.rest("ps-option") },
        "events" => Command::Events {
            id: id(line)?,
            interval: line.one("interval", values::duration)?.unwrap_or(EVENTS_INTERVAL),
            once: line.has("stats"),
        },
        "update" => Command::Update {
            id: id(line)?,
            resources: new_resources(line)?,
            devices: line.all("device", values::device_rule)?,
            rdt: RdtUpdate { l3_cache: line.text("l3-cache-schema")?, bandwidth: line.text("mem-bw-schema")? },
        },
        "checkpoint" => Command::Checkpoint(checkpoint(line)?),
        "restore" => Command::Restore(restore(line)?),
        "spec" => {
            let name = line.path("file").unwrap_or_else(|| "config.json".into());
            let file = line.path("bundle").unwrap_or_default().join(name);
            Command::Spec { file, rootless: line.has("rootless") }
        }
        "features" => Command::Features { probe: line.has("probe") },
        "info" => Command::Info,
        "completion" => match line.one("shell", values::shell)? {
            Some(shell) => Command::Completion { shell },
            None => return Err("name a shell: bash, zsh or fish".into()),
        },
        "plan" => {
            let id = line.text("container-id")?.unwrap_or_else(|| PLANNED_ID.into());
            Command::Plan { options: CreateOptions { id, ..create(line)? }, json: line.has("json") }
        }
        unsupported => return Err(format!("not supported yet: {unsupported}")),
    })
}

fn create(line: &Line<'_>) -> Result<CreateOptions, String> {
    Ok(CreateOptions {
        id: id(line)?,
        bundle: line.path("bundle").unwrap_or_else(|| ".".into()),
        config: line.path("config"),
        console_socket: line.path("console-socket"),
        pidfd_socket: line.path("pidfd-socket"),
        pid_file: line.path("pid-file"),
        no_pivot: line.has("no-pivot"),
        no_new_keyring: line.has("no-new-keyring"),
        preserve_fds: line.one("preserve-fds", values::u32)?.unwrap_or(0),
    })
}

fn checked(line: &Line<'_>) -> CreateOptions {
    CreateOptions {
        id: PLANNED_ID.into(),
        bundle: line.path("bundle").unwrap_or_else(|| ".".into()),
        config: line.path("config"),
        ..CreateOptions::default()
    }
}

fn mounts(line: &Line<'_>) -> Result<crate::commands::mounts::Options, String> {
    Ok(crate::commands::mounts::Options {
        action: line.one("action", values::mounts_action)?.unwrap_or(MountsAction::List),
        file: line.path("file"),
        mounts: line.all("mount", values::text)?,
        destinations: line.all("destination", values::text)?,
        format: format_of(line)?,
    })
}

fn restore(line: &Line<'_>) -> Result<RestoreOptions, String> {
    Ok(RestoreOptions {
        create: restored(line)?,
        criu: criu(line)?,
        detach: line.has("detach"),
        no_subreaper: line.has("no-subreaper"),
        lsm_profile: line.text("lsm-profile")?,
        lsm_mount_context: line.text("lsm-mount-context")?,
    })
}

fn restored(line: &Line<'_>) -> Result<CreateOptions, String> {
    Ok(CreateOptions {
        id: id(line)?,
        bundle: line.path("bundle").unwrap_or_else(|| ".".into()),
        console_socket: line.path("console-socket"),
        pidfd_socket: line.path("pidfd-socket"),
        pid_file: line.path("pid-file"),
        ..CreateOptions::default()
    })
}

fn checkpoint(line: &Line<'_>) -> Result<CheckpointOptions, String> {
    Ok(CheckpointOptions {
        id: id(line)?,
        criu: criu(line)?,
        parent_path: line.path("parent-path"),
        leave_running: line.has("leave-running"),
        pre_dump: line.has("pre-dump"),
        link_remap: line.has("link-remap"),
        tcp_skip_in_flight: line.has("tcp-skip-in-flight"),
        status_fd: line.one("status-fd", values::status_fd)?.filter(|fd| *fd >= 0),
        page_server: line.one("page-server", values::page_server)?,
    })
}

fn criu(line: &Line<'_>) -> Result<CriuOptions, String> {
    // Refused if it is not the one namespace that is always left empty, and then no more to know.
    line.all("empty-ns", values::empty_namespace)?;
    Ok(CriuOptions {
        image_path: line.path("image-path"),
        work_path: line.path("work-path"),
        tcp_established: line.has("tcp-established"),
        tcp_close: line.has("tcp-close"),
        ext_unix_sk: line.has("ext-unix-sk"),
        shell_job: line.has("shell-job"),
        file_locks: line.has("file-locks"),
        lazy_pages: line.has("lazy-pages"),
        auto_dedup: line.has("auto-dedup"),
        manage_cgroups: line.one("manage-cgroups-mode", values::manage_cgroups)?.unwrap_or_default(),
        network_lock: line.one("network-lock", values::network_lock)?.flatten(),
    })
}

fn exec(line: &Line<'_>) -> Result<ExecOptions, String> {
    let mut args = line.all("command", values::text)?;
    // `exec ID -- ls`: no program is called "--", people write it to be safe.
    if args.first().is_some_and(|first| first == "--") {
        args.remove(0);
    }
    Ok(ExecOptions {
        id: id(line)?,
        process: line.path("process"),
        console_socket: line.path("console-socket"),
        pidfd_socket: line.path("pidfd-socket"),
        pid_file: line.path("pid-file"),
        detach: line.has("detach"),
        tty: line.has("tty").then_some(true),
        cwd: line.text("cwd")?,
        env: line.all("env", values::text)?,
        user: line.one("user", values::user)?,
        additional_gids: line.all("additional-gids", values::u32)?,
        caps: line.all("cap", values::text)?,
        no_new_privs: line.has("no-new-privs"),
        process_label: line.text("process-label")?,
        apparmor: line.text("apparmor")?,
        preserve_fds: line.one("preserve-fds", values::u32)?.unwrap_or(0),
        cgroup: line.all("cgroup", values::text)?,
        ignore_paused: line.has("ignore-paused"),
        no_subreaper: line.has("no-subreaper"),
        args,
    })
}

fn new_resources(line: &Line<'_>) -> Result<NewResources, String> {
    let flags = resources(line)?;
    Ok(match line.path("resources") {
        Some(file) if file.as_os_str() == "-" => NewResources::Stdin,
        Some(file) => NewResources::File(file),
        None => NewResources::Flags(Box::new(flags)),
    })
}

/// The flags of `update` as `linux.resources`. An object stands there only if one of its flags was given.
fn resources(line: &Line<'_>) -> Result<LinuxResources, String> {
    let unsigned = |name: &str| line.one(name, values::u64);
    let signed = |name: &str| line.one(name, values::i64);
    let size = |name: &str| line.one(name, values::size);
    let mut memory = LinuxMemory::default();
    memory.set_limit(size("memory")?).set_reservation(size("memory-reservation")?).set_swap(size("memory-swap")?);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(unsigned("cpu-share")?)
        .set_quota(signed("cpu-quota")?)
        .set_period(unsigned("cpu-period")?)
        .set_burst(unsigned("cpu-burst")?)
        .set_idle(signed("cpu-idle")?)
        .set_realtime_runtime(signed("cpu-rt-runtime")?)
        .set_realtime_period(unsigned("cpu-rt-period")?)
        .set_cpus(line.text("cpuset-cpus")?)
        .set_mems(line.text("cpuset-mems")?);
    // As in runc, 0 is not a weight but "leave it".
    let weight = line.one("blkio-weight", values::u16)?.filter(|&weight| weight != 0);
    let mut resources = LinuxResources::default();
    resources
        .set_memory((memory != LinuxMemory::default()).then_some(memory))
        .set_cpu((cpu != LinuxCpu::default()).then_some(cpu))
        .set_pids(signed("pids-limit")?.map(|limit| {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            pids
        }))
        .set_block_io(weight.map(|weight| {
            let mut block_io = LinuxBlockIo::default();
            block_io.set_weight(Some(weight));
            block_io
        }));
    Ok(resources)
}

fn id(line: &Line<'_>) -> Result<String, String> {
    Ok(line.text("container-id")?.unwrap_or_default())
}

fn target(line: &Line<'_>) -> Result<Target, String> {
    let id = id(line)?;
    Ok(if line.has("regex") { Target::Pattern(id) } else { Target::Id(id) })
}

fn format_of(line: &Line<'_>) -> Result<Format, String> {
    Ok(line.one("format", values::format)?.unwrap_or(Format::Table))
}

fn help_for(program: &str, line: &Line<'_>) -> Result<Command, String> {
    match line.rest("command").first().map(|name| flags::find(name).ok_or(name)) {
        None => Ok(overview(program)),
        Some(Ok(entry)) => Ok(Command::Help(help::of_command(program, entry))),
        Some(Err(name)) => Err(format!("help: unknown command {:?}: see {program} --help", name.display().to_string())),
    }
}

fn overview(program: &str) -> Command {
    Command::Help(help::overview(program, &flags::TABLE))
}

/// The name the program goes by, for help and version: `runc` if it was called so, since clients of runc read its
/// `--version` for that word (contract A.12).
pub fn program_name(argv0: Option<&OsStr>) -> &'static str {
    let called = argv0.map(Path::new).and_then(Path::file_name);
    if called == Some(OsStr::new("runc")) { "runc" } else { "rrt" }
}

#[cfg(test)]
mod tests;
