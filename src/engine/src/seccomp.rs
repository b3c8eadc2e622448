//! The seccomp profile of a container: Docker's default one, or a user's in Docker's format, as the runtime's `linux.seccomp`.
//!
//! What the default profile leaves out is what Docker's documentation lists as blocked ("Seccomp security profiles for Docker"), and
//! what its later releases added to that (io_uring, the mount API). The rest of the calls that Linux has stands in `seccomp.allow`.

use crate::{Error, put};
use serde::Deserialize;
use serde_json::{Value, json};

/// Calls that anyone may make.
const ALLOWED: &str = include_str!("seccomp.allow");

/// Calls that a capability opens: for who has it, each of them does what it says.
const BY_CAPABILITY: [(&str, &[&str]); 14] = [
    ("CAP_BPF", &["bpf"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    (
        "CAP_SYS_TIME",
        &["clock_adjtime", "clock_adjtime64", "clock_settime", "clock_settime64", "settimeofday", "stime"],
    ),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];

/// Calls of some processors, by Rust's names of those.
const BY_ARCHITECTURE: [(&[&str], &[&str]); 5] = [
    (&["x86_64", "x86"], &["arch_prctl", "modify_ldt"]),
    (
        &["arm", "aarch64"],
        &["arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2"],
    ),
    (&["powerpc64"], &["rtas", "swapcontext", "switch_endian", "sync_file_range2"]),
    (
        &["s390x"],
        &["s390_guarded_storage", "s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr", "s390_sthyi"],
    ),
    (&["riscv64"], &["riscv_flush_icache", "riscv_hwprobe"]),
];

/// personality(2): Linux, Linux of 32 bits, each also with the old kernel's number (UNAME26), and asking.
const PERSONALITIES: [u64; 5] = [0, 8, 0x20000, 0x20008, 0xffff_ffff];
/// clone(2)'s flags that make a namespace.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// The socket family that reaches the virtual machine's host.
const AF_VSOCK: u64 = 40;

/// The default profile for a process with these capabilities, for this machine.
pub fn default(caps: &[&str]) -> Value {
    let mut names: Vec<&str> = ALLOWED.split_whitespace().collect();
    names.extend(BY_CAPABILITY.iter().filter(|(cap, _)| caps.contains(cap)).flat_map(|(_, calls)| *calls));
    let here = std::env::consts::ARCH;
    names.extend(BY_ARCHITECTURE.iter().filter(|(of, _)| of.contains(&here)).flat_map(|(_, calls)| *calls));
    names.sort_unstable();
    names.dedup();
    let allow = |names: &[&str], args: Value| json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": args });
    let arg = |index: u8, value: u64, op: &str| json!({ "index": index, "value": value, "op": op });
    let mut rules = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    for value in PERSONALITIES {
        rules.push(allow(&["personality"], json!([arg(0, value, "SCMP_CMP_EQ")])));
    }
    rules.push(allow(&["socket"], json!([arg(0, AF_VSOCK, "SCMP_CMP_NE")])));
    if !caps.contains(&"CAP_SYS_ADMIN") {
        // On s390x the flags are clone's second argument.
        let index = if here == "s390x" { 1 } else { 0 };
        let flags = json!({ "index": index, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" });
        rules.push(allow(&["clone"], json!([flags])));
        // Its flags are in memory where no filter sees them: C libraries then take clone.
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }));
    }
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": architectures(), "syscalls": rules })
}

/// The machine's architecture with those whose programs it runs as well.
fn architectures() -> Value {
    match std::env::consts::ARCH {
        "x86_64" => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        "x86" => json!(["SCMP_ARCH_X86"]),
        "aarch64" => json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        "arm" => json!(["SCMP_ARCH_ARM"]),
        "riscv64" => json!(["SCMP_ARCH_RISCV64"]),
        "s390x" => json!(["SCMP_ARCH_S390X", "SCMP_ARCH_S390"]),
        "powerpc64" => json!(["SCMP_ARCH_PPC64LE"]),
        "loongarch64" => json!(["SCMP_ARCH_LOONGARCH64"]),
        _ => json!([]),
    }
}

/// A profile in Docker's format: the runtime's, with conditions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<Family>>,
    #[serde(default)]
    flags: Option<Value>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Value>,
    #[serde(default)]
    includes: Option<Condition>,
    #[serde(default)]
    excludes: Option<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// A user's profile (`--security-opt seccomp=FILE`) for a process with these capabilities.
///
/// # Errors
/// Text that is no profile.
pub fn resolve(text: &str, caps: &[&str]) -> Result<Value, Error> {
    let profile: Profile = serde_json::from_str(text)
        .map_err(|e| Error::invalid("--security-opt seccomp", "a profile", &e.to_string()))?;
    let native = architectures();
    let listed = profile.architectures.filter(|a| !a.is_empty()).map(|a| json!(a));
    let mapped =
        profile.arch_map.unwrap_or_default().into_iter().find(|f| native[0] == f.architecture.as_str()).map(|family| {
            let mut all = vec![family.architecture];
            all.extend(family.sub_architectures.unwrap_or_default());
            json!(all)
        });
    let here = go_architecture();
    let mut rules = Vec::new();
    for rule in profile.syscalls.unwrap_or_default() {
        let included = rule.includes.is_none_or(|c| {
            c.caps.is_none_or(|list| list.iter().all(|cap| caps.contains(&cap.as_str())))
                && c.arches.is_none_or(|list| list.is_empty() || list.iter().any(|a| a == here))
                && c.min_kernel.is_none_or(|least| !newer(&least))
        });
        let excluded = rule.excludes.is_some_and(|c| {
            c.caps.is_some_and(|list| list.iter().any(|cap| caps.contains(&cap.as_str())))
                || c.arches.is_some_and(|list| list.iter().any(|a| a == here))
                || c.min_kernel.is_some_and(|least| !newer(&least))
        });
        if included && !excluded {
            let mut names = rule.names.unwrap_or_default();
            names.extend(rule.name);
            let mut kept = json!({ "names": names, "action": rule.action });
            put(&mut kept, "errnoRet", rule.errno_ret);
            put(&mut kept, "args", rule.args.filter(|a| !a.is_null()));
            rules.push(kept);
        }
    }
    let mut resolved = json!({ "defaultAction": profile.default_action, "syscalls": rules });
    put(&mut resolved, "defaultErrnoRet", profile.default_errno_ret);
    put(&mut resolved, "architectures", listed.or(mapped));
    put(&mut resolved, "flags", profile.flags.filter(|f| !f.is_null()));
    put(&mut resolved, "listenerPath", profile.listener_path);
    put(&mut resolved, "listenerMetadata", profile.listener_metadata);
    Ok(resolved)
}

/// Go's name of this architecture, which profiles use.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Is `least` ("4.8") a newer kernel than the oldest that the runtime takes, 5.12?
fn newer(least: &str) -> bool {
    let mut parts = least.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) > (5, 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &Value, name: &str) -> bool {
        let rules = profile["syscalls"].as_array().unwrap();
        let names = |r: &Value| r["names"].as_array().unwrap().iter().any(|n| n == name);
        rules.iter().any(|r| r["action"] == "SCMP_ACT_ALLOW" && names(r))
    }

    #[test]
    fn capabilities_open_calls() {
        let plain = default(&["CAP_CHOWN"]);
        for call in ["read", "clone", "openat2", "landlock_create_ruleset", "personality", "socket"] {
            assert!(allowed(&plain, call), "{call}");
        }
        for call in [
            "mount",
            "unshare",
            "setns",
            "bpf",
            "clone3",
            "io_uring_setup",
            "keyctl",
            "kexec_load",
            "reboot",
            "open_tree",
        ] {
            assert!(!allowed(&plain, call), "{call}");
        }
        let admin = default(&["CAP_SYS_ADMIN"]);
        assert!(allowed(&admin, "mount") && allowed(&admin, "clone3") && !allowed(&admin, "reboot"));
        assert!(!admin["syscalls"].as_array().unwrap().iter().any(|r| r["action"] == "SCMP_ACT_ERRNO"));
        assert!(allowed(&default(&["CAP_SYS_BOOT"]), "reboot"));
    }

    #[test]
    fn a_profile_in_dockers_format() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
            "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":null}],
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":null,"includes":{},"excludes":{}},
                {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
                {"names":["mount"],"action":"SCMP_ACT_ERRNO","errnoRet":1,"excludes":{"caps":["CAP_SYS_ADMIN"]}},
                {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
                {"names":["future"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},
                {"names":["foreign"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["z80"]}}]}"#;
        let profile = resolve(text, &[]).unwrap();
        assert!(allowed(&profile, "read") && allowed(&profile, "ptrace"));
        assert!(!allowed(&profile, "mount") && !allowed(&profile, "future") && !allowed(&profile, "foreign"));
        assert!(allowed(&resolve(text, &["CAP_SYS_ADMIN"]).unwrap(), "mount"));
        if std::env::consts::ARCH == "x86_64" {
            assert_eq!(profile["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
        }
        assert!(resolve("{", &[]).unwrap_err().to_string().contains("--security-opt seccomp"));
    }
}
