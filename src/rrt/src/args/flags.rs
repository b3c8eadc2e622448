//! Every command's flags as clap definitions: names, kinds of value and help, and nothing of what they do.
//!
//! Only the invoked command's definition is built, because clap's cost is per flag (models.md 3.9).

use super::golang::Place;
use super::values;
use clap::{Arg, ArgAction, Command, value_parser};
use std::ffi::OsString;

/// A command of the command line.
pub struct Entry {
    /// What is typed.
    pub name: &'static str,
    /// One line for the list of commands.
    pub about: &'static str,
    /// Where its flags may stand.
    pub place: Place,
    flags: fn() -> Vec<Arg>,
}

impl Entry {
    /// The command's clap definition; `program` is the name in its usage line.
    pub fn definition(&self, program: &str) -> Command {
        Command::new(self.name)
            .bin_name(format!("{program} {}", self.name))
            .about(self.about)
            .no_binary_name(true)
            .args_override_self(true)
            .args((self.flags)())
    }
}

const fn entry(name: &'static str, about: &'static str, flags: fn() -> Vec<Arg>) -> Entry {
    Entry { name, about, place: Place::Anywhere, flags }
}

const fn wrapper(name: &'static str, about: &'static str, flags: fn() -> Vec<Arg>) -> Entry {
    Entry { name, about, place: Place::BeforeWords, flags }
}

/// All commands, in the order of the help.
pub const ENTRIES: [Entry; 24] = [
    entry("create", "Create a container that waits for `start`", create),
    entry("start", "Start the process of a created container", only_id),
    entry("run", "Create a container, start it and wait for it", run),
    wrapper("exec", "Run a further process inside a container", exec),
    entry("kill", "Send a signal to a container's init process", kill),
    entry("delete", "Delete a stopped container and all it holds", delete),
    entry("wait", "Wait until a container has ended and print its exit status", only_id),
    entry("state", "Print the state of a container as JSON", only_id),
    entry("list", "List the containers under --root", list),
    wrapper("ps", "List the processes inside a container", ps),
    entry("events", "Print statistics and OOM events as lines of JSON", events),
    entry("pause", "Freeze all processes of a container", only_id),
    entry("resume", "Thaw all processes of a container", only_id),
    entry("update", "Change a container's resource limits", update),
    entry("mounts", "Add, replace, remove or list mounts of a running container", mounts),
    entry("spec", "Write a config.json to start from", spec),
    entry("features", "Print what this runtime supports as JSON", features),
    entry("info", "Print what of this machine matters to containers", Vec::new),
    entry("plan", "Print the steps that `create` would take, and take none", plan),
    entry("check", "List all that is wrong with a bundle, and make nothing", check),
    entry("checkpoint", "Save a running container with criu", checkpoint),
    entry("restore", "Restore a saved container with criu", restore),
    entry("completion", "Print the completion script of a shell", completion),
    entry("help", "Print this help, or a command's", help),
];

/// The command of that name, `h` being runc's short form of `help`.
pub fn find(name: &OsString) -> Option<&'static Entry> {
    let name = if name == "h" { "help" } else { name.to_str()? };
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// The definition of the flags before the command; with `commands`, also of the list of commands, for the help.
pub fn global(program: &str, commands: bool) -> Command {
    let command = Command::new("rrt")
        .bin_name(program)
        .about("Run containers as the Open Container Initiative specifies")
        .no_binary_name(true)
        .args_override_self(true)
        .disable_help_subcommand(true)
        .args([
            file("root", "DIR").help("Keep the containers' state here; a tmpfs [default: /run/rrt]"),
            file("log", "FILE")
                .help("Append the log to FILE rather than to stderr, or send it to journald:ID or syslog:ID"),
            word("log-format", "FORMAT").help("Write the log as text or json [default: text]"),
            word("log-level", "LEVEL").help("Log error, warning, info or debug messages and those above"),
            switch("debug").help("Log debug messages"),
            switch("systemd-cgroup").help("Let systemd make the cgroups; linux.cgroupsPath is slice:prefix:name"),
            word("cgroup-manager", "MANAGER").help("Make cgroups by cgroupfs, systemd or not at all: disabled"),
            word("rootless", "MODE")
                .value_parser(values::rootless)
                .help("Ignore missing permission on cgroups: true, false or auto [default: auto]"),
            // Removed from runc in 1.4, still sent by older clients.
            file("criu", "FILE").hide(true),
            switch("version").short('v').help("Print the version"),
        ]);
    if commands {
        command.subcommands(ENTRIES.iter().map(|entry| Command::new(entry.name).about(entry.about)))
    } else {
        command
    }
}

fn switch(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

fn word(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).value_parser(value_parser!(String))
}

/// A path: any bytes, and an empty one means "not given", as in runc.
fn file(name: &'static str, value: &'static str) -> Arg {
    word(name, value).value_parser(value_parser!(OsString))
}

fn list_of(name: &'static str, value: &'static str) -> Arg {
    word(name, value).action(ArgAction::Append)
}

fn id() -> Arg {
    Arg::new("id").value_name("container-id").required(true).value_parser(value_parser!(String))
}

fn only_id() -> Vec<Arg> {
    vec![id().help("Name of the container")]
}

fn preserve_fds() -> Arg {
    word("preserve-fds", "N")
        .value_parser(value_parser!(u32))
        .help("Pass N more file descriptors on, from 3 + $LISTEN_FDS")
}

fn sockets_and_pid_file() -> [Arg; 3] {
    [
        file("console-socket", "SOCKET").help("Send the terminal's master end to this unix socket"),
        file("pidfd-socket", "SOCKET").help("Send a pidfd of the process to this unix socket"),
        file("pid-file", "FILE").help("Write the process id to FILE"),
    ]
}

fn bundle() -> Arg {
    file("bundle", "DIR").short('b').help("Directory of config.json and the root file system [default: .]")
}

fn create() -> Vec<Arg> {
    let mut args = vec![
        id().help("Name to give the container"),
        bundle(),
        file("config", "FILE").short('f').help("Read FILE in place of the bundle's config.json"),
        switch("no-pivot").help("Do not pivot_root: for a root file system on the initial ramfs"),
        switch("no-new-keyring").help("Keep the caller's session keyring"),
        // crun accepts it here too; it means something for `run` alone.
        switch("no-subreaper").hide(true),
        preserve_fds(),
    ];
    args.extend(sockets_and_pid_file());
    args
}

fn run() -> Vec<Arg> {
    let mut args = create();
    args.retain(|arg| arg.get_id() != "no-subreaper");
    args.extend([
        switch("detach").short('d').help("Return once the container runs"),
        switch("keep").help("Do not delete the container when it ends"),
        switch("no-subreaper").help("Do not reap processes orphaned in the container"),
    ]);
    args
}

fn plan() -> Vec<Arg> {
    let mut args = create();
    args.push(switch("json").help("Print JSON"));
    args.into_iter().map(|arg| if arg.get_id() == "id" { arg.required(false) } else { arg }).collect()
}

fn exec() -> Vec<Arg> {
    let mut args = vec![
        id().help("Name of the container"),
        Arg::new("args").value_name("command").num_args(0..).help("The program and its arguments"),
        file("process", "FILE").short('p').help("Read the process from FILE, a JSON `process` object"),
        switch("detach").short('d').help("Return once the process runs"),
        switch("tty").short('t').help("Give the process a terminal"),
        word("cwd", "DIR").help("Working directory in the container"),
        list_of("env", "NAME=VALUE").short('e').help("Set an environment variable (repeatable)"),
        word("user", "UID[:GID]").short('u').value_parser(values::user).help("Run as this user and group"),
        list_of("additional-gids", "GID")
            .short('g')
            .value_parser(value_parser!(u32))
            .help("Add a supplementary group (repeatable)"),
        list_of("cap", "CAP").short('c').help("Add a capability (repeatable)"),
        switch("no-new-privs").help("Set no_new_privs"),
        word("process-label", "LABEL").help("SELinux label of the process"),
        word("apparmor", "PROFILE").help("AppArmor profile of the process"),
        preserve_fds(),
        list_of("cgroup", "[CONTROLLER:]PATH").help("Run in this sub-cgroup of the container (repeatable)"),
        switch("ignore-paused").help("Allow a paused container; the process starts when it is resumed"),
        switch("no-subreaper").hide(true),
    ];
    args.extend(sockets_and_pid_file());
    args
}

fn regex() -> Arg {
    switch("regex").short('r').help("Take the name as an extended regular expression; act on each container it matches")
}

fn kill() -> Vec<Arg> {
    vec![
        id().help("Name of the container"),
        Arg::new("signal").value_name("signal").value_parser(values::signal).help("Name or number [default: TERM]"),
        switch("all").short('a').help("Signal all processes, also of a stopped container"),
        regex(),
    ]
}

fn delete() -> Vec<Arg> {
    vec![
        id().help("Name of the container"),
        switch("force").short('f').help("Kill it first if it runs; succeed if there is none"),
        regex(),
    ]
}

fn output_format() -> Arg {
    word("format", "FORMAT").short('f').value_parser(values::format).help("Print a table or json [default: table]")
}

fn list() -> Vec<Arg> {
    vec![output_format(), switch("quiet").short('q').help("Print only the names")]
}

fn ps() -> Vec<Arg> {
    vec![
        id().help("Name of the container"),
        Arg::new("args")
            .value_name("ps-option")
            .num_args(0..)
            .value_parser(value_parser!(OsString))
            .help("Options of ps(1) [default: -ef]"),
        output_format(),
    ]
}

fn events() -> Vec<Arg> {
    vec![
        id().help("Name of the container"),
        word("interval", "DURATION")
            .value_parser(values::duration)
            .help("Time between statistics, like 500ms or 1m [default: 5s]"),
        switch("stats").help("Print the statistics once"),
    ]
}

fn features() -> Vec<Arg> {
    vec![switch("probe").help("Print instead which interfaces of the running kernel were found, each by trying it")]
}

fn completion() -> Vec<Arg> {
    vec![
        Arg::new("name").value_name("shell").value_parser(values::shell).help("bash, zsh or fish"),
        word("shell", "SHELL").short('s').value_parser(values::shell).help("The same, as youki takes it"),
    ]
}

fn check() -> Vec<Arg> {
    vec![
        Arg::new("bundle")
            .value_name("bundle")
            .value_parser(value_parser!(OsString))
            .help("Directory of config.json and the root file system [default: .]"),
        file("config", "FILE").short('f').help("Read FILE in place of the bundle's config.json"),
        switch("json").help("Print JSON"),
    ]
}

fn mounts() -> Vec<Arg> {
    vec![
        Arg::new("action")
            .value_name("action")
            .required(true)
            .value_parser(values::mounts_action)
            .help("add, replace, remove or list"),
        id().help("Name of the container"),
        Arg::new("file")
            .value_name("file")
            .value_parser(value_parser!(OsString))
            .help("A JSON list of mounts as in config.json, - being stdin; for remove only `destination` counts"),
        list_of("mount", "MOUNT")
            .help("Mount this: type=bind,source=DIR,destination=DIR,OPTION... (repeatable, in place of the file)"),
        list_of("destination", "DIR").help("What to remove (repeatable, in place of the file)"),
        output_format(),
    ]
}

fn spec() -> Vec<Arg> {
    vec![bundle().help("Directory to write to [default: .]"), switch("rootless").help("For a container of this user")]
}

fn help() -> Vec<Arg> {
    vec![Arg::new("command").value_parser(value_parser!(OsString)).help("The command to explain")]
}

fn update() -> Vec<Arg> {
    let size = |name: &'static str| word(name, "BYTES").value_parser(values::size);
    let count = |name: &'static str| word(name, "N").value_parser(value_parser!(u64));
    let signed = |name: &'static str| word(name, "N").value_parser(value_parser!(i64));
    vec![
        id().help("Name of the container"),
        file("resources", "FILE")
            .short('r')
            .help("Read a JSON `linux.resources` object from FILE, - being stdin; other flags are then ignored"),
        word("blkio-weight", "N").value_parser(value_parser!(u16)).help("Block I/O weight, 10 to 1000"),
        count("cpu-period").help("CPU period in microseconds"),
        signed("cpu-quota").help("CPU time in microseconds per period, -1 for no limit"),
        count("cpu-burst").help("Unused CPU time in microseconds that may be used later"),
        count("cpu-share").help("CPU weight against other containers, 2 to 262144"),
        count("cpu-rt-period").help("Real-time CPU period in microseconds (cgroup v1)"),
        signed("cpu-rt-runtime").help("Real-time CPU time in microseconds per period (cgroup v1)"),
        signed("cpu-idle").help("1 runs the container only when the CPU is idle (SCHED_IDLE), 0 normally"),
        word("cpuset-cpus", "LIST").help("CPUs to use, like 0-3,8"),
        word("cpuset-mems", "LIST").help("Memory nodes to use"),
        size("memory").help("Memory limit, like 512m, -1 for none"),
        size("memory-reservation").help("Memory to leave alone under pressure"),
        size("memory-swap").help("Limit of memory and swap together, -1 for none"),
        signed("pids-limit").help("Limit of processes and threads, -1 for none"),
        list_of("device", "RULE")
            .value_parser(values::device_rule)
            .help("Add a device rule: \"c 10:200 rwm\", or \"deny c 10:200 w\" (repeatable; also beside --resources)"),
        word("l3-cache-schema", "SCHEMA").help("Intel RDT cache allocation, as L3:0=ff"),
        word("mem-bw-schema", "SCHEMA").help("Intel RDT memory bandwidth, as MB:0=50"),
        // Obsolete since Linux 5.4; runc hides and ignores them too.
        word("kernel-memory", "BYTES").hide(true),
        word("kernel-memory-tcp", "BYTES").hide(true),
    ]
}

/// Flags of contract table A.7 that both `checkpoint` and `restore` have.
fn criu() -> Vec<Arg> {
    vec![
        id().help("Name of the container"),
        file("image-path", "DIR").help("Directory of the image files [default: ./checkpoint]"),
        file("work-path", "DIR").help("Directory of criu's log and statistics [default: that of the images]"),
        switch("tcp-established").help("Keep open TCP connections"),
        switch("tcp-close").help("Close open TCP connections"),
        switch("ext-unix-sk").help("Keep unix sockets to the outside"),
        switch("shell-job").help("Keep a terminal from the outside"),
        switch("file-locks").help("Keep file locks"),
        switch("lazy-pages").help("Move memory when it is first used"),
        switch("auto-dedup").help("Drop pages of earlier images that later ones have"),
        word("manage-cgroups-mode", "MODE")
            .value_parser(values::manage_cgroups)
            .help("Cgroups below the container's: soft, full, strict or ignore [default: soft]"),
        list_of("empty-ns", "NAMESPACE")
            .value_parser(values::empty_namespace)
            .help("Create a namespace, do not restore what is in it: network, which is always so"),
        word("network-lock", "METHOD")
            .value_parser(values::network_lock)
            .help("Hold connections by iptables, nftables or not at all: skip"),
    ]
}

fn checkpoint() -> Vec<Arg> {
    let mut args = criu();
    args.extend([
        file("parent-path", "DIR").help("Images of an earlier --pre-dump, relative to --image-path"),
        switch("leave-running").help("Let the container run on"),
        switch("pre-dump").help("Save memory only and let the container run on"),
        switch("link-remap").help("Save unlinked files that are still open"),
        switch("tcp-skip-in-flight").help("Skip TCP connections that are being opened"),
        word("status-fd", "FD")
            .value_parser(values::status_fd)
            .allow_hyphen_values(true)
            .help("Write a NUL byte to this descriptor when --lazy-pages can be served"),
        word("page-server", "ADDRESS:PORT").value_parser(values::page_server).help("Send pages to this server"),
    ]);
    args
}

fn restore() -> Vec<Arg> {
    let mut args = criu();
    args.extend([
        bundle(),
        switch("detach").short('d').help("Return once the container runs"),
        switch("no-subreaper").help("Do not reap processes orphaned in the container"),
        switch("no-pivot").help("Without effect: criu enters the root file system"),
        word("lsm-profile", "TYPE:NAME").help("LSM profile of the restored processes"),
        word("lsm-mount-context", "CONTEXT").help("LSM context of the restored mounts"),
    ]);
    args.extend(sockets_and_pid_file());
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_one_that_clap_accepts() {
        for entry in &ENTRIES {
            entry.definition("rrt").debug_assert();
        }
        global("rrt", true).debug_assert();
    }

    #[test]
    fn every_flag_has_a_long_name_and_every_visible_one_a_help() {
        for entry in &ENTRIES {
            for arg in (entry.flags)() {
                let what = format!("{} {}", entry.name, arg.get_id());
                assert!(arg.is_positional() || arg.get_long().is_some(), "{what}");
                assert!(arg.is_hide_set() || arg.get_help().is_some(), "{what}");
            }
        }
    }
}
