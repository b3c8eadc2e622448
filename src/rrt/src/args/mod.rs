//! From argv to what was asked for. Pure: no file, no environment, no clock; what the words mean on this machine is
//! decided in `commands`.
//!
//! Go's spelling is rewritten first ([`golang`]), then clap checks and converts against one command's definition
//! ([`flags`], [`values`]).

mod completion;
mod flags;
mod golang;
mod table;
mod values;

use clap::ArgMatches;
pub use completion::Shell;
use golang::Place;
use rrt_oci::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use rrt_runtime::{
    CgroupManager, CheckpointOptions, CreateOptions, CriuOptions, DeviceRule, ExecOptions, RdtUpdate, RestoreOptions,
    RunOptions,
};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
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
pub enum Request {
    /// `--help`, or nothing at all.
    Help,
    /// `--version`
    Version,
    /// A command's name and the rest of the line.
    Command(Vec<OsString>),
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
    Spec { bundle: Option<PathBuf>, rootless: bool },
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
pub fn globals(program: &str, argv: &[OsString]) -> Result<(Globals, Request), String> {
    let definition = flags::global(program, false);
    let line = golang::take_apart(&definition, argv, Place::BeforeWords)?;
    let m = definition.try_get_matches_from(&line.flags).map_err(|e| one_line(&e))?;
    let request = if m.get_flag("version") {
        Request::Version
    } else if line.help || line.words.is_empty() {
        Request::Help
    } else {
        Request::Command(line.words)
    };
    let globals = Globals {
        root: path(&m, "root"),
        log: log_options(&m)?,
        cgroup_manager: cgroup_manager(&m)?,
        rootless: m.get_one::<Option<bool>>("rootless").copied().flatten(),
    };
    Ok((globals, request))
}

fn log_options(m: &ArgMatches) -> Result<LogOptions, String> {
    use rrt_runtime::log::Level;
    let json = match text(m, "log-format").as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(format!("invalid value {other:?} for flag -log-format: expected text or json")),
    };
    let level = match text(m, "log-level").as_deref() {
        _ if m.get_flag("debug") => Some(Level::Debug),
        None => None,
        Some("error") => Some(Level::Error),
        Some("warning" | "warn") => Some(Level::Warn),
        Some("info") => Some(Level::Info),
        Some("debug") => Some(Level::Debug),
        Some(other) => {
            return Err(format!("invalid value {other:?} for flag -log-level: expected error, warning, info or debug"));
        }
    };
    let service = log_service(m)?;
    let file = if service.is_some() { None } else { log_file(m) };
    Ok(LogOptions { file, service, json, level })
}

fn log_service(m: &ArgMatches) -> Result<Option<LogService>, String> {
    let Some(value) = path(m, "log") else { return Ok(None) };
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
fn log_file(m: &ArgMatches) -> Option<PathBuf> {
    let file = path(m, "log")?;
    let name = file.to_str().unwrap_or_default();
    match name.strip_prefix("file:") {
        Some(path) => Some(path.into()),
        None => (name != "/dev/stderr").then_some(file),
    }
}

fn cgroup_manager(m: &ArgMatches) -> Result<CgroupManager, String> {
    match text(m, "cgroup-manager").as_deref() {
        _ if m.get_flag("systemd-cgroup") => Ok(CgroupManager::Systemd),
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
pub fn command(program: &str, request: &Request) -> Result<Command, String> {
    let words = match request {
        Request::Help => return global_help(program),
        Request::Version => return Ok(Command::Version),
        Request::Command(words) => words,
    };
    let (name, argv) = words.split_first().expect("a request has a command");
    let Some(entry) = flags::find(name) else {
        return Err(format!("unknown command {:?}: see {program} --help", name.display().to_string()));
    };
    let definition = entry.definition(program);
    let named = |text: String| format!("{}: {text} (see {program} {} --help)", entry.name, entry.name);
    let line = golang::take_apart(&definition, argv, entry.place).map_err(named)?;
    if line.help {
        return Ok(Command::Help(help_text(definition)));
    }
    let argv = line.flags.into_iter().chain([OsString::from("--")]).chain(line.words);
    let m = definition.try_get_matches_from(argv).map_err(|e| named(one_line(&e)))?;
    if entry.name == "help" {
        return help(program, &m);
    }
    read(entry.name, &m).map_err(named)
}

fn read(name: &str, m: &ArgMatches) -> Result<Command, String> {
    Ok(match name {
        "create" => Command::Create(create(m)),
        "run" => Command::Run(RunOptions {
            create: create(m),
            detach: m.get_flag("detach"),
            keep: m.get_flag("keep"),
            no_subreaper: m.get_flag("no-subreaper"),
        }),
        "exec" => Command::Exec(exec(m)),
        "start" => Command::Start { id: id(m) },
        "state" => Command::State { id: id(m) },
        "mounts" => Command::Mounts {
            id: id(m),
            options: crate::commands::mounts::Options {
                action: m.get_one("action").copied().unwrap_or(MountsAction::List),
                file: path(m, "file"),
                mounts: many(m, "mount"),
                destinations: many(m, "destination"),
                format: format_of(m),
            },
        },
        "check" => Command::Check {
            options: CreateOptions {
                id: PLANNED_ID.into(),
                bundle: path(m, "bundle").unwrap_or_else(|| ".".into()),
                config: path(m, "config"),
                ..CreateOptions::default()
            },
            json: m.get_flag("json"),
        },
        "wait" => Command::Wait { id: id(m) },
        "pause" => Command::Pause { id: id(m) },
        "resume" => Command::Resume { id: id(m) },
        "kill" => Command::Kill {
            target: target(m),
            signal: m.get_one("signal").copied().unwrap_or(SIGTERM),
            all: m.get_flag("all"),
        },
        "delete" => Command::Delete { target: target(m), force: m.get_flag("force") },
        "list" => Command::List { format: format_of(m), quiet: m.get_flag("quiet") },
        "ps" => Command::Ps { id: id(m), format: format_of(m), args: many(m, "args") },
        "events" => Command::Events {
            id: id(m),
            interval: m.get_one("interval").copied().unwrap_or(EVENTS_INTERVAL),
            once: m.get_flag("stats"),
        },
        "update" => Command::Update {
            id: id(m),
            resources: new_resources(m),
            devices: many(m, "device"),
            rdt: RdtUpdate { l3_cache: text(m, "l3-cache-schema"), bandwidth: text(m, "mem-bw-schema") },
        },
        "checkpoint" => Command::Checkpoint(checkpoint(m)),
        "restore" => Command::Restore(RestoreOptions {
            create: restored(m),
            criu: criu(m),
            detach: m.get_flag("detach"),
            no_subreaper: m.get_flag("no-subreaper"),
            lsm_profile: text(m, "lsm-profile"),
            lsm_mount_context: text(m, "lsm-mount-context"),
        }),
        "spec" => Command::Spec { bundle: path(m, "bundle"), rootless: m.get_flag("rootless") },
        "features" => Command::Features { probe: m.get_flag("probe") },
        "info" => Command::Info,
        "completion" => match m.get_one("shell").or_else(|| m.get_one("name")) {
            Some(shell) => Command::Completion { shell: *shell },
            None => return Err("name a shell: bash, zsh or fish".into()),
        },
        "plan" => {
            let id = text(m, "id").unwrap_or_else(|| PLANNED_ID.into());
            Command::Plan { options: CreateOptions { id, ..create(m) }, json: m.get_flag("json") }
        }
        unsupported => return Err(format!("not supported yet: {unsupported}")),
    })
}

fn create(m: &ArgMatches) -> CreateOptions {
    CreateOptions {
        id: text(m, "id").unwrap_or_default(),
        bundle: path(m, "bundle").unwrap_or_else(|| ".".into()),
        config: path(m, "config"),
        console_socket: path(m, "console-socket"),
        pidfd_socket: path(m, "pidfd-socket"),
        pid_file: path(m, "pid-file"),
        no_pivot: m.get_flag("no-pivot"),
        no_new_keyring: m.get_flag("no-new-keyring"),
        preserve_fds: m.get_one("preserve-fds").copied().unwrap_or(0),
    }
}

fn restored(m: &ArgMatches) -> CreateOptions {
    CreateOptions {
        id: id(m),
        bundle: path(m, "bundle").unwrap_or_else(|| ".".into()),
        console_socket: path(m, "console-socket"),
        pidfd_socket: path(m, "pidfd-socket"),
        pid_file: path(m, "pid-file"),
        ..CreateOptions::default()
    }
}

fn checkpoint(m: &ArgMatches) -> CheckpointOptions {
    CheckpointOptions {
        id: id(m),
        criu: criu(m),
        parent_path: path(m, "parent-path"),
        leave_running: m.get_flag("leave-running"),
        pre_dump: m.get_flag("pre-dump"),
        link_remap: m.get_flag("link-remap"),
        tcp_skip_in_flight: m.get_flag("tcp-skip-in-flight"),
        status_fd: m.get_one("status-fd").copied().filter(|fd| *fd >= 0),
        page_server: m.get_one("page-server").cloned(),
    }
}

fn criu(m: &ArgMatches) -> CriuOptions {
    CriuOptions {
        image_path: path(m, "image-path"),
        work_path: path(m, "work-path"),
        tcp_established: m.get_flag("tcp-established"),
        tcp_close: m.get_flag("tcp-close"),
        ext_unix_sk: m.get_flag("ext-unix-sk"),
        shell_job: m.get_flag("shell-job"),
        file_locks: m.get_flag("file-locks"),
        lazy_pages: m.get_flag("lazy-pages"),
        auto_dedup: m.get_flag("auto-dedup"),
        manage_cgroups: m.get_one("manage-cgroups-mode").copied().unwrap_or_default(),
        network_lock: m.get_one("network-lock").copied().flatten(),
    }
}

fn exec(m: &ArgMatches) -> ExecOptions {
    let mut args: Vec<String> = many(m, "args");
    // `exec ID -- ls`: no program is called "--", people write it to be safe.
    if args.first().is_some_and(|first| first == "--") {
        args.remove(0);
    }
    ExecOptions {
        id: id(m),
        process: path(m, "process"),
        console_socket: path(m, "console-socket"),
        pidfd_socket: path(m, "pidfd-socket"),
        pid_file: path(m, "pid-file"),
        detach: m.get_flag("detach"),
        tty: m.get_flag("tty").then_some(true),
        cwd: text(m, "cwd"),
        env: many(m, "env"),
        user: m.get_one("user").copied(),
        additional_gids: many(m, "additional-gids"),
        caps: many(m, "cap"),
        no_new_privs: m.get_flag("no-new-privs"),
        process_label: text(m, "process-label"),
        apparmor: text(m, "apparmor"),
        preserve_fds: m.get_one("preserve-fds").copied().unwrap_or(0),
        cgroup: many(m, "cgroup"),
        ignore_paused: m.get_flag("ignore-paused"),
        no_subreaper: m.get_flag("no-subreaper"),
        args,
    }
}

fn new_resources(m: &ArgMatches) -> NewResources {
    match path(m, "resources") {
        Some(file) if file.as_os_str() == "-" => NewResources::Stdin,
        Some(file) => NewResources::File(file),
        None => NewResources::Flags(Box::new(resources(m))),
    }
}

/// The flags of `update` as `linux.resources`. An object stands there only if one of its flags was given.
fn resources(m: &ArgMatches) -> LinuxResources {
    let unsigned = |name: &str| m.get_one::<u64>(name).copied();
    let signed = |name: &str| m.get_one::<i64>(name).copied();
    let mut memory = LinuxMemory::default();
    memory.set_limit(signed("memory")).set_reservation(signed("memory-reservation")).set_swap(signed("memory-swap"));
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(unsigned("cpu-share"))
        .set_quota(signed("cpu-quota"))
        .set_period(unsigned("cpu-period"))
        .set_burst(unsigned("cpu-burst"))
        .set_idle(signed("cpu-idle"))
        .set_realtime_runtime(signed("cpu-rt-runtime"))
        .set_realtime_period(unsigned("cpu-rt-period"))
        .set_cpus(text(m, "cpuset-cpus"))
        .set_mems(text(m, "cpuset-mems"));
    // As in runc, 0 is not a weight but "leave it".
    let weight = m.get_one::<u16>("blkio-weight").copied().filter(|&weight| weight != 0);
    let mut resources = LinuxResources::default();
    resources
        .set_memory((memory != LinuxMemory::default()).then_some(memory))
        .set_cpu((cpu != LinuxCpu::default()).then_some(cpu))
        .set_pids(signed("pids-limit").map(|limit| {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            pids
        }))
        .set_block_io(weight.map(|weight| {
            let mut block_io = LinuxBlockIo::default();
            block_io.set_weight(Some(weight));
            block_io
        }));
    resources
}

fn id(m: &ArgMatches) -> String {
    text(m, "id").unwrap_or_default()
}

fn target(m: &ArgMatches) -> Target {
    if m.get_flag("regex") { Target::Pattern(id(m)) } else { Target::Id(id(m)) }
}

fn format_of(m: &ArgMatches) -> Format {
    m.get_one("format").copied().unwrap_or(Format::Table)
}

/// An empty word is one not given: clients pass `--flag ""` for "none".
fn text(m: &ArgMatches, name: &str) -> Option<String> {
    m.get_one::<String>(name).filter(|word| !word.is_empty()).cloned()
}

fn path(m: &ArgMatches, name: &str) -> Option<PathBuf> {
    m.get_one::<OsString>(name).filter(|word| !word.is_empty()).map(PathBuf::from)
}

fn many<T: Clone + Send + Sync + 'static>(m: &ArgMatches, name: &str) -> Vec<T> {
    m.get_many::<T>(name).map(|values| values.cloned().collect()).unwrap_or_default()
}

fn help(program: &str, m: &ArgMatches) -> Result<Command, String> {
    let Some(name) = m.get_one::<OsString>("command") else { return global_help(program) };
    match flags::find(name) {
        Some(entry) => Ok(Command::Help(help_text(entry.definition(program)))),
        None => Err(format!("help: unknown command {:?}: see {program} --help", name.display().to_string())),
    }
}

fn global_help(program: &str) -> Result<Command, String> {
    Ok(Command::Help(help_text(flags::global(program, true))))
}

fn help_text(mut definition: clap::Command) -> String {
    definition.render_help().to_string()
}

/// clap's error without its paragraphs of usage and tips: a log is read line by line, and clients show the last one.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.strip_prefix("error: ").unwrap_or(first).split_whitespace().collect();
    words.join(" ")
}

/// The name the program goes by, for help and version: `runc` if it was called so, since clients of runc read its
/// `--version` for that word (contract A.12).
pub fn program_name(argv0: Option<&OsString>) -> &'static str {
    let called = argv0.map(PathBuf::from).unwrap_or_default();
    if called.file_name() == Some(OsStr::new("runc")) { "runc" } else { "rrt" }
}

#[cfg(test)]
mod tests;
