//! A container as the runtime's config.json (runtime-spec 1.3), with Docker's defaults. Pure: what the machine and the store say comes
//! in as [`Machine`] and [`Places`].
//!
//! The document is built as JSON and not of `rrt_oci`'s types: their maps are unordered, and the same container must give the same bytes.

use crate::container::{Container, Host, Namespace, Resources, Ulimit};
use crate::mounts::{Below, Mount, Source};
use crate::users::User;
use crate::{Error, capabilities, put, seccomp};
use serde_json::{Map, Value, json};

/// What the container needs to know of its host.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Names of the capabilities that this process has in its bounding set.
    pub capabilities: Vec<&'static str>,
    /// cgroup v2 alone.
    pub cgroup2: bool,
    /// AppArmor is there, and the profile to put containers under.
    pub apparmor: Option<String>,
    /// The kernel has seccomp filters.
    pub seccomp: bool,
    /// cgroups by systemd: paths are `slice:prefix:name`.
    pub systemd: bool,
    /// Devices of the host, for `--privileged`.
    pub devices: Vec<crate::container::Device>,
}

/// Where on the host the container's parts are.
pub struct Places<'a> {
    /// The mounted root.
    pub root: &'a str,
    /// The container's directory, with `hosts`, `hostname` and `resolv.conf`.
    pub directory: &'a str,
    /// The program for `--init`.
    pub init: &'a str,
    /// Finds what a volume or an image is on the host, for each of the container's mounts, in their order; binds are themselves.
    pub sources: &'a [String],
    /// Namespaces to join: the path below `/proc/PID/ns` or of a network that was made before.
    pub joined: &'a dyn Fn(&str, &str) -> String,
    /// The container's network namespace, if it was made before.
    pub network: Option<&'a str>,
}

/// The document.
///
/// # Errors
/// What of the container's flags means nothing: a capability, a profile.
pub fn spec(container: &Container, user: &User, machine: &Machine, places: &Places<'_>) -> Result<Value, Error> {
    let host = &container.host;
    let caps = capabilities::capabilities(&host.cap_add, &host.cap_drop, host.privileged, &machine.capabilities)?;
    let mut linux = Map::new();
    linux.insert("namespaces".to_owned(), namespaces(host, machine, places));
    linux.insert("resources".to_owned(), resources(host)?);
    linux.insert("devices".to_owned(), devices(host, machine));
    linux.insert("cgroupsPath".to_owned(), cgroups_path(container, machine).into());
    let sysctls = sysctls(host);
    if !sysctls.is_empty() {
        linux.insert("sysctl".to_owned(), Value::Object(sysctls));
    }
    if !host.privileged && !host.security.system_paths_unconfined {
        linux.insert("maskedPaths".to_owned(), json!(MASKED));
        linux.insert("readonlyPaths".to_owned(), json!(READ_ONLY));
    }
    if machine.seccomp
        && let Some(profile) = profile(host, &caps)?
    {
        linux.insert("seccomp".to_owned(), profile);
    }
    if let Some(label) = &host.security.label {
        linux.insert("mountLabel".to_owned(), label.clone().into());
    }
    let propagation = host.mounts.iter().filter_map(|m| match &m.source {
        Source::Bind(bind) => bind.propagation,
        _ => None,
    });
    if let Some(needed) = propagation.filter_map(|p| needs_root(p.option())).max() {
        linux.insert("rootfsPropagation".to_owned(), needed.into());
    }
    let mut document = json!({
        "ociVersion": rrt_oci::VERSION,
        "process": process(container, user, &caps, machine)?,
        "root": { "path": places.root, "readonly": host.read_only },
        "mounts": mounts(container, places),
        "linux": linux,
    });
    if host.uts != Namespace::Host {
        document["hostname"] = hostname(container).into();
        if !container.process.domainname.is_empty() {
            document["domainname"] = container.process.domainname.clone().into();
        }
    }
    Ok(document)
}

/// What a bind's propagation needs of the root's: a bind that sends or receives must be below a mount that does.
fn needs_root(option: &str) -> Option<&'static str> {
    match option.trim_start_matches('r') {
        "shared" => Some("shared"),
        "slave" => Some("rslave"),
        _ => None,
    }
}

/// The name inside: the one asked for, or the short id.
pub fn hostname(container: &Container) -> &str {
    match container.process.hostname.as_str() {
        "" => &container.id[..12.min(container.id.len())],
        name => name,
    }
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where `--init`'s program is in the container, as Docker has it.
const INIT: &str = "/sbin/docker-init";

fn process(container: &Container, user: &User, caps: &[&str], machine: &Machine) -> Result<Value, Error> {
    let config = &container.config;
    let mut args: Vec<&str> = Vec::new();
    if container.process.init {
        args.extend([INIT, "--"]);
    }
    let words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten());
    let before = args.len();
    args.extend(words.map(String::as_str));
    if args.len() == before {
        return Err(Error::NoCommand);
    }
    // Docker's order; the image and the flags override each of them.
    let mut env: Vec<String> = vec![PATH.to_owned(), format!("HOSTNAME={}", hostname(container))];
    if container.process.terminal {
        env.push("TERM=xterm".to_owned());
    }
    for line in &config.env {
        let name = line.split_once('=').map_or(line.as_str(), |(name, _)| name);
        let same = |other: &String| other.split_once('=').is_some_and(|(n, _)| n == name);
        match env.iter().position(same) {
            Some(at) => env[at] = line.clone(),
            None => env.push(line.clone()),
        }
    }
    if !env.iter().any(|line| line.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let root = user.uid == 0;
    let mut process = json!({
        "terminal": container.process.terminal,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": groups(user) },
        "args": args,
        "env": env,
        "cwd": if config.working_dir.is_empty() { "/" } else { &config.working_dir },
        "capabilities": {
            "bounding": caps,
            "permitted": if root { caps } else { &[] },
            "effective": if root { caps } else { &[] },
        },
        "noNewPrivileges": container.host.security.no_new_privileges,
    });
    if let Some(adjust) = container.host.oom_score_adj {
        process["oomScoreAdj"] = adjust.into();
    }
    if !container.host.ulimits.is_empty() {
        process["rlimits"] = container.host.ulimits.iter().map(rlimit).collect();
    }
    let profile = match container.host.security.apparmor.as_deref() {
        Some(named) => Some(named.to_owned()),
        None if container.host.privileged => None,
        None => machine.apparmor.clone(),
    };
    if let Some(profile) = profile.filter(|_| machine.apparmor.is_some()) {
        process["apparmorProfile"] = profile.into();
    }
    if let Some(label) = &container.host.security.label {
        process["selinuxLabel"] = label.clone().into();
    }
    Ok(process)
}

/// Docker puts the user's own group among the others, once.
fn groups(user: &User) -> Vec<u32> {
    let others = user.groups.iter().copied().filter(|g| *g != user.gid);
    std::iter::once(user.gid).chain(others).collect()
}

fn rlimit(limit: &Ulimit) -> Value {
    json!({ "type": format!("RLIMIT_{}", limit.name.to_uppercase()), "soft": limit.soft, "hard": limit.hard })
}

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn namespaces(host: &Host, machine: &Machine, places: &Places<'_>) -> Value {
    let mut list = vec![json!({ "type": "mount" })];
    let cgroup = host.cgroup.clone().unwrap_or(match machine.cgroup2 {
        true => Namespace::Private,
        false => Namespace::Host,
    });
    let each = [
        ("network", "net", &host.network),
        ("uts", "uts", &host.uts),
        ("pid", "pid", &host.pid),
        ("ipc", "ipc", &host.ipc),
        ("cgroup", "cgroup", &cgroup),
    ];
    for (kind, file, namespace) in each {
        match namespace {
            Namespace::Host => {}
            Namespace::Container(id) => list.push(json!({ "type": kind, "path": (places.joined)(id, file) })),
            Namespace::Private | Namespace::Shareable | Namespace::None => match places.network {
                Some(path) if kind == "network" => list.push(json!({ "type": kind, "path": path })),
                _ => list.push(json!({ "type": kind })),
            },
        }
    }
    Value::Array(list)
}

/// Unprivileged ports and pings, as Docker allows them where the network is the container's own.
fn sysctls(host: &Host) -> Map<String, Value> {
    let mut all = Map::new();
    if !matches!(host.network, Namespace::Host | Namespace::Container(_)) {
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".into());
        all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".into());
    }
    all.extend(host.sysctls.iter().map(|(name, value)| (name.clone(), value.clone().into())));
    all
}

fn cgroups_path(container: &Container, machine: &Machine) -> String {
    let (parent, id) = (container.host.cgroup_parent.as_str(), &container.id);
    match (machine.systemd, parent) {
        (true, "") => format!("system.slice:berth:{id}"),
        (true, slice) => format!("{slice}:berth:{id}"),
        (false, "") => format!("/berth/{id}"),
        (false, parent) => format!("/{}/{id}", parent.trim_matches('/')),
    }
}

fn devices(host: &Host, machine: &Machine) -> Value {
    let list: &[_] = if host.privileged { &machine.devices } else { &[] };
    let one = |d: &crate::container::Device| {
        json!({ "path": d.path, "type": d.kind.to_string(), "major": d.major, "minor": d.minor, "fileMode": d.mode,
            "uid": d.uid, "gid": d.gid })
    };
    list.iter().filter(|d| !host.devices.iter().any(|own| own.path == d.path)).chain(&host.devices).map(one).collect()
}

fn resources(host: &Host) -> Result<Value, Error> {
    let Resources { memory, memory_reservation, memory_swap, memory_swappiness, oom_kill_disable, .. } = host.resources;
    let limits = &host.resources;
    let mut all = json!({ "devices": device_rules(host)? });
    let swap = memory_swap.or(memory.map(|m| m.saturating_mul(2)));
    set(&mut all, "memory", "limit", memory);
    set(&mut all, "memory", "reservation", memory_reservation);
    set(&mut all, "memory", "swap", swap);
    set(&mut all, "memory", "swappiness", memory_swappiness);
    set(&mut all, "memory", "disableOOMKiller", oom_kill_disable.then_some(true));
    // A period of 100 ms is the kernel's own; in it, billionths of a processor are quota * 10^9 / period.
    let (quota, period) = match limits.nano_cpus {
        Some(nano) => (Some((nano / 10_000) as i64), Some(100_000)),
        None => (limits.cpu_quota, limits.cpu_period),
    };
    set(&mut all, "cpu", "shares", limits.cpu_shares);
    set(&mut all, "cpu", "quota", quota);
    set(&mut all, "cpu", "period", period);
    set(&mut all, "cpu", "realtimeRuntime", limits.cpu_realtime_runtime);
    set(&mut all, "cpu", "realtimePeriod", limits.cpu_realtime_period);
    set(&mut all, "cpu", "cpus", limits.cpuset_cpus.clone());
    set(&mut all, "cpu", "mems", limits.cpuset_mems.clone());
    set(&mut all, "blockIO", "weight", limits.blkio_weight);
    set(&mut all, "pids", "limit", limits.pids_limit.filter(|n| *n != 0));
    Ok(all)
}

fn set(all: &mut Value, group: &str, name: &str, value: Option<impl Into<Value>>) {
    if value.is_some() {
        put(&mut all[group], name, value);
    }
}

fn device_rules(host: &Host) -> Result<Value, Error> {
    if host.privileged {
        return Ok(json!([{ "allow": true, "access": "rwm" }]));
    }
    // Docker's: any node may be made; null, zero, full, random, urandom, tty, console, ptmx and terminals used.
    let mut rules =
        vec![json!({ "allow": false, "access": "rwm" }), allow("c", None, None, "m"), allow("b", None, None, "m")];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(allow("c", Some(major), Some(minor), "rwm"));
    }
    rules.push(allow("c", Some(136), None, "rwm"));
    for device in &host.devices {
        rules.push(allow(&device.kind.to_string(), Some(device.major), Some(device.minor), &device.access));
    }
    for text in &host.device_rules {
        rules.push(device_rule(text)?);
    }
    Ok(Value::Array(rules))
}

fn allow(kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> Value {
    let mut rule = json!({ "allow": true, "type": kind, "access": access });
    put(&mut rule, "major", major);
    put(&mut rule, "minor", minor);
    rule
}

/// `--device-cgroup-rule "c 10:* rwm"`.
fn device_rule(text: &str) -> Result<Value, Error> {
    let invalid =
        || Error::invalid("--device-cgroup-rule", text, "expected TYPE MAJOR:MINOR ACCESS, such as \"c 10:* rwm\"");
    let mut words = text.split_whitespace();
    let (Some(kind @ ("a" | "b" | "c")), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    let number = |t: &str| match t {
        "*" => Ok(None),
        t => t.parse::<i64>().map(Some).map_err(|_| invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    match access.bytes().all(|b| b"rwm".contains(&b)) {
        true => Ok(allow(kind, number(major)?, number(minor)?, access)),
        false => Err(invalid()),
    }
}

fn profile(host: &Host, caps: &[&str]) -> Result<Option<Value>, Error> {
    match host.security.seccomp.as_deref() {
        Some("unconfined") => Ok(None),
        Some(text) => seccomp::resolve(text, caps).map(Some),
        None if host.privileged => Ok(None),
        None => Ok(Some(seccomp::default(caps))),
    }
}

fn mounts(container: &Container, places: &Places<'_>) -> Value {
    let host = &container.host;
    let mount = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let access = if host.privileged { "rw" } else { "ro" };
    let mut list = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", access]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    let size = format!("size={}", host.shm_size.unwrap_or(64 << 20));
    match &host.ipc {
        Namespace::Private | Namespace::Shareable => {
            list.push(mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
        }
        Namespace::Host => list.push(bind("/dev/shm", "/dev/shm", &["rbind", "rprivate"])),
        Namespace::Container(id) => {
            list.push(bind("/dev/shm", &format!("{}/dev/shm", (places.joined)(id, "root")), &["rbind", "rprivate"]));
        }
        Namespace::None => {}
    }
    for name in ["resolv.conf", "hostname", "hosts"] {
        list.push(bind(&format!("/etc/{name}"), &format!("{}/{name}", places.directory), &["rbind", "rprivate"]));
    }
    if container.process.init {
        list.push(bind(INIT, places.init, &["bind", "ro"]));
    }
    // A user's mount takes the place of ours at the same target; what is nearer to the root comes first.
    list.retain(|m| !host.mounts.iter().any(|own| m["destination"] == own.target.as_str()));
    let mut own: Vec<_> = host.mounts.iter().zip(places.sources).collect();
    own.sort_by_key(|(m, _)| m.target.matches('/').count());
    list.extend(own.iter().map(|(m, source)| user_mount(m, source)));
    Value::Array(list)
}

fn bind(target: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": "bind", "source": source, "options": options })
}

fn user_mount(mount: &Mount, source: &str) -> Value {
    let access = if mount.read_only { "ro" } else { "rw" };
    match &mount.source {
        Source::Tmpfs { size, mode, options } => {
            let mut all = vec!["nosuid".to_owned(), "nodev".to_owned(), "noexec".to_owned(), access.to_owned()];
            // What the user says (exec, suid, dev) comes later and wins.
            all.extend(options.iter().cloned());
            all.extend(size.map(|n| format!("size={n}")));
            all.push(format!("mode={:o}", mode.unwrap_or(0o1777)));
            json!({ "destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": all })
        }
        Source::Bind(of) => {
            let recursive = of.below != Below::Disabled;
            let access = match (mount.read_only, of.below) {
                (true, Below::Readonly) => "rro",
                // Where the kernel can: the runtime needs 5.12 anyway.
                (true, Below::Enabled) => "rro",
                _ => access,
            };
            let propagation = of.propagation.map_or("rprivate", crate::mounts::Propagation::option);
            bind(&mount.target, source, &[if recursive { "rbind" } else { "bind" }, access, propagation])
        }
        Source::Volume(_) => bind(&mount.target, source, &["rbind", access, "rprivate"]),
        Source::Image { .. } => bind(&mount.target, source, &["rbind", "ro", "rprivate"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::ALL;

    fn container() -> Container {
        let image = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().unwrap();
        let config =
            serde_json::from_value(json!({ "Env": ["PATH=/bin", "A=b"], "Cmd": ["sh"], "WorkingDir": "/app" }))
                .unwrap();
        Container {
            id: "4ddf4638572d".repeat(5) + "abcd",
            name: "web".to_owned(),
            created: String::new(),
            image,
            image_name: "box".to_owned(),
            config,
            process: Default::default(),
            host: Host::default(),
        }
    }

    fn of(container: &Container) -> Value {
        let machine = Machine {
            capabilities: ALL.to_vec(),
            cgroup2: true,
            apparmor: None,
            seccomp: true,
            systemd: false,
            devices: Vec::new(),
        };
        let sources: Vec<String> = container.host.mounts.iter().map(|_| "/source".to_owned()).collect();
        let joined = |id: &str, file: &str| format!("/proc/{id}/ns/{file}");
        let places =
            Places { root: "/r", directory: "/c", init: "/init", sources: &sources, joined: &joined, network: None };
        let user = User { home: "/root".to_owned(), ..User::default() };
        let document = spec(container, &user, &machine, &places).unwrap();
        // The runtime must take it.
        let mut warnings = Vec::new();
        rrt_oci::spec_from_slice(document.to_string().as_bytes(), &mut warnings).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        document
    }

    fn mount<'a>(document: &'a Value, target: &str) -> &'a Value {
        let list = document["mounts"].as_array().unwrap();
        list.iter().find(|m| m["destination"] == target).unwrap_or(&Value::Null)
    }

    #[test]
    fn dockers_defaults() {
        let document = of(&container());
        assert_eq!(document["process"]["args"], json!(["sh"]));
        assert_eq!(document["process"]["env"], json!(["PATH=/bin", "HOSTNAME=4ddf4638572d", "A=b", "HOME=/root"]));
        assert_eq!((&document["process"]["cwd"], &document["hostname"]), (&json!("/app"), &json!("4ddf4638572d")));
        assert_eq!(document["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
        assert_eq!(document["linux"]["namespaces"].as_array().unwrap().len(), 6);
        assert_eq!(mount(&document, "/etc/hosts")["source"], "/c/hosts");
        assert_eq!(document["linux"]["resources"]["devices"][0], json!({ "allow": false, "access": "rwm" }));
        assert_eq!(document["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"], "0");
        assert_eq!(of(&container()), document);
    }

    #[test]
    fn privileges() {
        let mut privileged = container();
        privileged.host.privileged = true;
        let document = of(&privileged);
        assert_eq!(document["linux"]["resources"]["devices"], json!([{ "allow": true, "access": "rwm" }]));
        assert!(document["linux"].get("maskedPaths").is_none() && document["linux"].get("seccomp").is_none());
        assert!(mount(&document, "/sys")["options"].as_array().unwrap().contains(&json!("rw")));
    }

    #[test]
    fn a_user_other_than_root_has_no_effective_capabilities() {
        let container = container();
        let machine = Machine {
            capabilities: ALL.to_vec(),
            cgroup2: true,
            apparmor: None,
            seccomp: true,
            systemd: true,
            devices: vec![],
        };
        let places =
            Places { root: "/", directory: "/c", init: "", sources: &[], joined: &|_, _| String::new(), network: None };
        let user = User { uid: 33, gid: 33, groups: vec![29, 33], home: "/".to_owned() };
        let document = spec(&container, &user, &machine, &places).unwrap();
        assert_eq!(document["process"]["capabilities"]["effective"], json!([]));
        assert_eq!(document["process"]["user"]["additionalGids"], json!([33, 29]));
        assert!(document["linux"]["cgroupsPath"].as_str().unwrap().starts_with("system.slice:berth:4ddf"));
    }

    #[test]
    fn namespaces_and_mounts_of_the_user() {
        let mut own = container();
        own.host.network = Namespace::Container("12".to_owned());
        own.host.pid = Namespace::Host;
        own.host.ipc = Namespace::None;
        own.host.mounts = vec![
            Mount::volume("/a:/data/deep:ro", "/").unwrap(),
            Mount::tmpfs("/data:size=1m,exec").unwrap(),
            Mount::volume("/h:/etc/hosts", "/").unwrap(),
        ];
        own.process.init = true;
        let document = of(&own);
        let namespaces = document["linux"]["namespaces"].as_array().unwrap();
        assert!(namespaces.contains(&json!({ "type": "network", "path": "/proc/12/ns/net" })));
        assert!(!namespaces.iter().any(|n| n["type"] == "pid"));
        assert!(mount(&document, "/dev/shm").is_null());
        assert_eq!(mount(&document, "/etc/hosts")["source"], "/source");
        assert_eq!(mount(&document, "/data/deep")["options"], json!(["rbind", "rro", "rprivate"]));
        let targets: Vec<_> =
            document["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
        let at = |t| targets.iter().position(|x| *x == t).unwrap();
        assert!(at("/data") < at("/data/deep"));
        assert_eq!(document["process"]["args"], json!(["/sbin/docker-init", "--", "sh"]));
    }

    #[test]
    fn limits() {
        let mut limited = container();
        limited.host.resources.memory = Some(500 << 20);
        limited.host.resources.nano_cpus = Some(1_500_000_000);
        limited.host.resources.cpuset_cpus = Some("1".to_owned());
        limited.host.ulimits = vec![crate::container::ulimit("nofile=10:20").unwrap()];
        limited.host.device_rules = vec!["c 10:* rw".to_owned()];
        let document = of(&limited);
        let resources = &document["linux"]["resources"];
        assert_eq!(resources["memory"], json!({ "limit": 500 << 20, "swap": 1000 << 20 }));
        assert_eq!(resources["cpu"], json!({ "quota": 150_000, "period": 100_000, "cpus": "1" }));
        assert_eq!(document["process"]["rlimits"], json!([{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }]));
        let rule = json!({ "allow": true, "type": "c", "major": 10, "access": "rw" });
        assert!(resources["devices"].as_array().unwrap().contains(&rule));
        limited.host.device_rules = vec!["c 10 rw".to_owned()];
        let machine = Machine {
            capabilities: vec![],
            cgroup2: true,
            apparmor: None,
            seccomp: true,
            systemd: true,
            devices: vec![],
        };
        let places =
            Places { root: "/", directory: "/c", init: "", sources: &[], joined: &|_, _| String::new(), network: None };
        let error = spec(&limited, &User::default(), &machine, &places).unwrap_err().to_string();
        assert!(error.contains("--device-cgroup-rule"), "{error}");
    }
}
