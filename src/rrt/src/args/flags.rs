//! The table of the command line: every command, its flags, its words and their help, and nothing of what they do.

use super::table::{Entry, Flag, Kind, Place, Table, Word};
use std::ffi::OsStr;

/// The table.
pub static TABLE: Table = Table { global: GLOBAL, commands: &COMMANDS };

/// The command of that name, `h` being runc's short form of `help`.
pub fn find(name: &OsStr) -> Option<&'static Entry> {
    let name = if name == "h" { OsStr::new("help") } else { name };
    TABLE.commands.iter().find(|entry| name == entry.name)
}

const GLOBAL: Entry = Entry {
    name: "",
    about: "Run containers as the Open Container Initiative specifies",
    place: Place::BeforeWords,
    flags: &[&[
        value("root", "DIR", "Keep the containers' state here; a tmpfs [default: /run/rrt]"),
        value("log", "FILE", "Append the log to FILE rather than to stderr, or send it to journald:ID or syslog:ID"),
        value("log-format", "FORMAT", "Write the log as text or json [default: text]"),
        value("log-level", "LEVEL", "Log error, warning, info or debug messages and those above"),
        switch("debug", "Log debug messages"),
        switch("systemd-cgroup", "Let systemd make the cgroups; linux.cgroupsPath is slice:prefix:name"),
        value("cgroup-manager", "MANAGER", "Make cgroups by cgroupfs, systemd or not at all: disabled"),
        value("rootless", "MODE", "Ignore missing permission on cgroups: true, false or auto [default: auto]"),
        // Removed from runc in 1.4, still sent by older clients.
        value("criu", "FILE", HIDDEN),
        switch("version", "Print the version").short('v'),
    ]],
    words: &[],
};

/// In the order of the help.
const COMMANDS: [Entry; 24] = [
    entry("create", "Create a container that waits for `start`", &[CREATE, PROCESS, UNUSED_SUBREAPER], &[NEW_ID]),
    entry("start", "Start the process of a created container", &[], &[ID]),
    entry("run", "Create a container, start it and wait for it", &[CREATE, PROCESS, RUN], &[NEW_ID]),
    wrapper("exec", "Run a further process inside a container", &[EXEC, PROCESS], &[ID, many(PROGRAM)]),
    entry("kill", "Send a signal to a container's init process", &[KILL], &[ID, SIGNAL]),
    entry("delete", "Delete a stopped container and all it holds", &[DELETE], &[ID]),
    entry("wait", "Wait until a container has ended and print its exit status", &[], &[ID]),
    entry("state", "Print the state of a container as JSON", &[], &[ID]),
    entry("list", "List the containers under --root", &[&[OUTPUT_FORMAT, QUIET]], &[]),
    wrapper("ps", "List the processes inside a container", &[&[OUTPUT_FORMAT]], &[ID, many(PS_OPTION)]),
    entry("events", "Print statistics and OOM events as lines of JSON", &[EVENTS], &[ID]),
    entry("pause", "Freeze all processes of a container", &[], &[ID]),
    entry("resume", "Thaw all processes of a container", &[], &[ID]),
    entry("update", "Change a container's resource limits", &[UPDATE], &[ID]),
    entry(
        "mounts",
        "Add, replace, remove or list mounts of a running container",
        &[MOUNTS],
        &[ACTION, ID, MOUNTS_FILE],
    ),
    entry("spec", "Write a config.json to start from", &[SPEC], &[]),
    entry("features", "Print what this runtime supports as JSON", &[FEATURES], &[]),
    entry("info", "Print what of this machine matters to containers", &[], &[]),
    entry(
        "plan",
        "Print the steps that `create` would take, and take none",
        &[CREATE, PROCESS, &[JSON], UNUSED_SUBREAPER],
        &[Word { required: false, ..NEW_ID }],
    ),
    entry("check", "List all that is wrong with a bundle, and make nothing", &[&[CONFIG, JSON]], &[BUNDLE_WORD]),
    entry("checkpoint", "Save a running container with criu", &[CRIU, CHECKPOINT], &[ID]),
    entry("restore", "Restore a saved container with criu", &[CRIU, RESTORE, PROCESS], &[ID]),
    entry("completion", "Print the completion script of a shell", &[COMPLETION], &[SHELL]),
    entry("help", "Print this help, or a command's", &[], &[optional("command", "The command to explain")]),
];

/// The help of a flag that is not shown.
const HIDDEN: &str = "";

type Flags = &'static [Flag];

const fn entry(name: &'static str, about: &'static str, flags: &'static [Flags], words: &'static [Word]) -> Entry {
    Entry { name, about, place: Place::Anywhere, flags, words }
}

const fn wrapper(name: &'static str, about: &'static str, flags: &'static [Flags], words: &'static [Word]) -> Entry {
    Entry { name, about, place: Place::BeforeWords, flags, words }
}

const fn switch(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, kind: Kind::Switch, help }
}

const fn value(long: &'static str, name: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, kind: Kind::Value(name), help }
}

const fn repeatable(long: &'static str, name: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, kind: Kind::Repeatable(name), help }
}

impl Flag {
    const fn short(self, letter: char) -> Flag {
        Flag { short: Some(letter), ..self }
    }

    const fn help(self, help: &'static str) -> Flag {
        Flag { help, ..self }
    }
}

const fn required(name: &'static str, help: &'static str) -> Word {
    Word { name, required: true, many: false, help }
}

const fn optional(name: &'static str, help: &'static str) -> Word {
    Word { name, required: false, many: false, help }
}

const fn many(word: Word) -> Word {
    Word { many: true, ..word }
}

const ID: Word = required("container-id", "Name of the container");
const NEW_ID: Word = required("container-id", "Name to give the container");
const PROGRAM: Word = optional("command", "The program and its arguments");
const SIGNAL: Word = optional("signal", "Name or number [default: TERM]");
const PS_OPTION: Word = optional("ps-option", "Options of ps(1) [default: -ef]");
const ACTION: Word = required("action", "add, replace, remove or list");
const MOUNTS_FILE: Word =
    optional("file", "A JSON list of mounts as in config.json, - being stdin; for remove only `destination` counts");
const BUNDLE_WORD: Word = optional("bundle", BUNDLE.help);
const SHELL: Word = optional("shell", "bash, zsh or fish");

const BUNDLE: Flag =
    value("bundle", "DIR", "Directory of config.json and the root file system [default: .]").short('b');
const CONFIG: Flag = value("config", "FILE", "Read FILE in place of the bundle's config.json").short('f');
const PRESERVE_FDS: Flag = value("preserve-fds", "N", "Pass N more file descriptors on, from 3 + $LISTEN_FDS");
const NO_SUBREAPER: Flag = switch("no-subreaper", "Do not reap processes orphaned in the container");
const OUTPUT_FORMAT: Flag = value("format", "FORMAT", "Print a table or json [default: table]").short('f');
const QUIET: Flag = switch("quiet", "Print only the names").short('q');
const JSON: Flag = switch("json", "Print JSON");
const REGEX: Flag =
    switch("regex", "Take the name as an extended regular expression; act on each container it matches").short('r');

const CREATE: Flags = &[
    BUNDLE,
    CONFIG,
    switch("no-pivot", "Do not pivot_root: for a root file system on the initial ramfs"),
    switch("no-new-keyring", "Keep the caller's session keyring"),
    PRESERVE_FDS,
];

/// Of every command that makes a process.
const PROCESS: Flags = &[
    value("console-socket", "SOCKET", "Send the terminal's master end to this unix socket"),
    value("pidfd-socket", "SOCKET", "Send a pidfd of the process to this unix socket"),
    value("pid-file", "FILE", "Write the process id to FILE"),
];

/// crun accepts it where it means nothing, too.
const UNUSED_SUBREAPER: Flags = &[NO_SUBREAPER.help(HIDDEN)];

const RUN: Flags = &[
    switch("detach", "Return once the container runs").short('d'),
    switch("keep", "Do not delete the container when it ends"),
    NO_SUBREAPER,
];

const EXEC: Flags = &[
    value("process", "FILE", "Read the process from FILE, a JSON `process` object").short('p'),
    switch("detach", "Return once the process runs").short('d'),
    switch("tty", "Give the process a terminal").short('t'),
    value("cwd", "DIR", "Working directory in the container"),
    repeatable("env", "NAME=VALUE", "Set an environment variable (repeatable)").short('e'),
    value("user", "UID[:GID]", "Run as this user and group").short('u'),
    repeatable("additional-gids", "GID", "Add a supplementary group (repeatable)").short('g'),
    repeatable("cap", "CAP", "Add a capability (repeatable)").short('c'),
    switch("no-new-privs", "Set no_new_privs"),
    value("process-label", "LABEL", "SELinux label of the process"),
    value("apparmor", "PROFILE", "AppArmor profile of the process"),
    PRESERVE_FDS,
    repeatable("cgroup", "[CONTROLLER:]PATH", "Run in this sub-cgroup of the container (repeatable)"),
    switch("ignore-paused", "Allow a paused container; the process starts when it is resumed"),
    NO_SUBREAPER.help(HIDDEN),
];

const KILL: Flags = &[switch("all", "Signal all processes, also of a stopped container").short('a'), REGEX];

const DELETE: Flags = &[switch("force", "Kill it first if it runs; succeed if there is none").short('f'), REGEX];

const EVENTS: Flags = &[
    value("interval", "DURATION", "Time between statistics, like 500ms or 1m [default: 5s]"),
    switch("stats", "Print the statistics once"),
];

const FEATURES: Flags =
    &[switch("probe", "Print instead which interfaces of the running kernel were found, each by trying it")];

const COMPLETION: Flags = &[value("shell", "SHELL", "The same, as youki takes it").short('s')];

const MOUNTS: Flags = &[
    repeatable(
        "mount",
        "MOUNT",
        "Mount this: type=bind,source=DIR,destination=DIR,OPTION... (repeatable, in place of the file)",
    ),
    repeatable("destination", "DIR", "What to remove (repeatable, in place of the file)"),
    OUTPUT_FORMAT,
];

const SPEC: Flags = &[
    BUNDLE.help("Directory to write to [default: .]"),
    value("file", "FILE", "Write FILE in there, in place of config.json").short('f'),
    switch("rootless", "For a container of this user"),
];

const UPDATE: Flags = &[
    value(
        "resources",
        "FILE",
        "Read a JSON `linux.resources` object from FILE, - being stdin; beside it only --device and the schemas count",
    )
    .short('r'),
    value("blkio-weight", "N", "Block I/O weight, 10 to 1000"),
    value("cpu-period", "N", "CPU period in microseconds"),
    value("cpu-quota", "N", "CPU time in microseconds per period, -1 for no limit"),
    value("cpu-burst", "N", "Unused CPU time in microseconds that may be used later"),
    value("cpu-share", "N", "CPU weight against other containers, 2 to 262144"),
    value("cpu-rt-period", "N", "Real-time CPU period in microseconds (cgroup v1)"),
    value("cpu-rt-runtime", "N", "Real-time CPU time in microseconds per period (cgroup v1)"),
    value("cpu-idle", "N", "1 runs the container only when the CPU is idle (SCHED_IDLE), 0 normally"),
    value("cpuset-cpus", "LIST", "CPUs to use, like 0-3,8"),
    value("cpuset-mems", "LIST", "Memory nodes to use"),
    value("memory", "BYTES", "Memory limit, like 512m, -1 for none"),
    value("memory-reservation", "BYTES", "Memory to leave alone under pressure"),
    value("memory-swap", "BYTES", "Limit of memory and swap together, -1 for none"),
    value("pids-limit", "N", "Limit of processes and threads, -1 for none"),
    repeatable(
        "device",
        "RULE",
        "Add a device rule: \"c 10:200 rwm\", or \"deny c 10:200 w\" (repeatable; also beside --resources)",
    ),
    value("l3-cache-schema", "SCHEMA", "Intel RDT cache allocation, as L3:0=ff"),
    value("mem-bw-schema", "SCHEMA", "Intel RDT memory bandwidth, as MB:0=50"),
    // Obsolete since Linux 5.4; runc hides and ignores them too.
    value("kernel-memory", "BYTES", HIDDEN),
    value("kernel-memory-tcp", "BYTES", HIDDEN),
];

/// Flags of contract table A.7 that both `checkpoint` and `restore` have.
const CRIU: Flags = &[
    value("image-path", "DIR", "Directory of the image files [default: ./checkpoint]"),
    value("work-path", "DIR", "Directory of criu's log and statistics [default: that of the images]"),
    switch("tcp-established", "Keep open TCP connections"),
    switch("tcp-close", "Close open TCP connections"),
    switch("ext-unix-sk", "Keep unix sockets to the outside"),
    switch("shell-job", "Keep a terminal from the outside"),
    switch("file-locks", "Keep file locks"),
    switch("lazy-pages", "Move memory when it is first used"),
    switch("auto-dedup", "Drop pages of earlier images that later ones have"),
    value("manage-cgroups-mode", "MODE", "Cgroups below the container's: soft, full, strict or ignore [default: soft]"),
    repeatable(
        "empty-ns",
        "NAMESPACE",
        "Create a namespace, do not restore what is in it: network, which is always so",
    ),
    value("network-lock", "METHOD", "Hold connections by iptables, nftables or not at all: skip"),
];

const CHECKPOINT: Flags = &[
    value("parent-path", "DIR", "Images of an earlier --pre-dump, relative to --image-path"),
    switch("leave-running", "Let the container run on"),
    switch("pre-dump", "Save memory only and let the container run on"),
    switch("link-remap", "Save unlinked files that are still open"),
    switch("tcp-skip-in-flight", "Skip TCP connections that are being opened"),
    value("status-fd", "FD", "Write a NUL byte to this descriptor when --lazy-pages can be served"),
    value("page-server", "ADDRESS:PORT", "Send pages to this server"),
];

const RESTORE: Flags = &[
    BUNDLE,
    switch("detach", "Return once the container runs").short('d'),
    NO_SUBREAPER,
    switch("no-pivot", "Without effect: criu enters the root file system"),
    value("lsm-profile", "TYPE:NAME", "LSM profile of the restored processes"),
    value("lsm-mount-context", "CONTEXT", "LSM context of the restored mounts"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_name_stands_for_two_flags_of_a_command() {
        for entry in COMMANDS.iter().chain([&GLOBAL]) {
            let mut names: BTreeSet<String> = ["help".into(), "h".into()].into();
            for flag in entry.flags() {
                for name in [Some(flag.long.to_owned()), flag.short.map(String::from)].into_iter().flatten() {
                    assert!(flag.long.len() > 1 && names.insert(name), "{} {}", entry.name, flag.long);
                }
            }
        }
    }

    #[test]
    fn words_are_required_first_and_many_last() {
        for entry in &COMMANDS {
            for pair in entry.words.windows(2) {
                assert!(!pair[0].many && pair[0].required >= pair[1].required, "{}", entry.name);
            }
        }
    }

    #[test]
    fn commands_are_found_by_name() {
        let find = |name: &str| find(name.as_ref()).map(|entry| entry.name);
        assert!(COMMANDS.iter().all(|entry| find(entry.name) == Some(entry.name)));
        assert_eq!((find("h"), find(""), find("creat")), (Some("help"), None, None));
    }
}
