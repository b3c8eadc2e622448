//! `rrt info`: what of this machine matters to containers, in lines for people and for reports of errors.
//!
//! It reads what the kernel and the distribution publish. What cannot be read is said to be unknown; nothing here is an error,
//! because the command is there for machines on which something is wrong.

use rrt_cgroups::{HostCgroups, Version};
use rrt_sys::{creds, probe};
use std::fs;
use std::path::Path;

/// The kinds of namespaces, each with its name in /proc/self/ns and in the limits of namespaces(7).
const NAMESPACES: [(&str, &str); 8] = [
    ("mount", "mnt"),
    ("uts", "uts"),
    ("ipc", "ipc"),
    ("user", "user"),
    ("pid", "pid"),
    ("network", "net"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// The lines; `version` is the text of `--version`, which stands first.
pub fn text(version: &str) -> String {
    let (release, machine) = probe::kernel();
    let mut out = version.to_owned();
    let mut line = |name: &str, value: &str| out.push_str(&format!("{name:<18} {value}\n"));
    line("Kernel-Release", &release);
    line("Kernel-Version", &file("/proc/sys/kernel/version"));
    line("Architecture", &machine);
    line("Operating System", &operating_system(&file("/etc/os-release")));
    line("Cores", &std::thread::available_parallelism().map_or_else(|_| UNKNOWN.into(), |n| n.to_string()));
    line("Total Memory", &memory(&file("/proc/meminfo")));
    match HostCgroups::read() {
        Err(e) => line("Cgroup setup", &e.to_string()),
        Ok(host) => {
            line("Cgroup setup", &format!("{:?}", host.mode).to_lowercase());
            for one in &host.hierarchies {
                let version = if one.version == Version::V1 { "v1" } else { "v2" };
                let controllers = if one.controllers.is_empty() { "-".into() } else { one.controllers.join(",") };
                line("  mounted", &format!("{version} {controllers} at {}", one.mount.display()));
            }
        }
    }
    line("systemd", if Path::new("/run/systemd/system").is_dir() { "running" } else { "not running" });
    line("Namespaces", &words(NAMESPACES.iter().filter(is_there).map(|n| n.0)));
    let held = creds::permitted_set().unwrap_or_default();
    let names = creds::capability_names();
    let is_held = |name: &&String| creds::capability(name).is_some_and(|n| held & (1 << n) != 0);
    line("Capabilities", &words(names.iter().filter(is_held).map(String::as_str)));
    line("LSMs", &file("/sys/kernel/security/lsm"));
    line("Seccomp actions", &file("/proc/sys/kernel/seccomp/actions_avail"));
    out
}

const UNKNOWN: &str = "unknown";

fn file(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    if text.trim().is_empty() { UNKNOWN.into() } else { text.trim().into() }
}

fn words<'a>(list: impl Iterator<Item = &'a str>) -> String {
    let list: Vec<&str> = list.collect();
    if list.is_empty() { "none".into() } else { list.join(" ") }
}

/// `PRETTY_NAME` of os-release(5).
fn operating_system(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or(UNKNOWN, |name| name.trim_matches(['"', '\''])).into()
}

/// `MemTotal` of proc_meminfo(5), which is in KiB, as MiB.
fn memory(meminfo: &str) -> String {
    let total =
        meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    total.map_or_else(|| UNKNOWN.into(), |kib: u64| format!("{} MiB", kib / 1024))
}

/// Whether the kernel has the namespace, and allows at least one.
fn is_there((_, name): &&(&str, &str)) -> bool {
    let most = fs::read_to_string(format!("/proc/sys/user/max_{name}_namespaces")).unwrap_or_default();
    Path::new("/proc/self/ns").join(name).symlink_metadata().is_ok() && most.trim() != "0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_machine_are_read() {
        assert_eq!(operating_system("NAME=x\nPRETTY_NAME=\"A B 1\"\n"), "A B 1");
        assert_eq!(operating_system(""), UNKNOWN);
        assert_eq!(memory("MemTotal:        2097152 kB\nMemFree: 1 kB\n"), "2048 MiB");
        assert_eq!(memory("?"), UNKNOWN);
        assert_eq!(words(["a", "b"].into_iter()), "a b");
        assert_eq!(words([].into_iter()), "none");
    }
}
