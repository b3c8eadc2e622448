//! Who writes the id maps of a new user namespace: the runtime itself, or newuidmap(1) and newgidmap(1).
//!
//! The kernel (user_namespaces(7)) lets whoever has CAP_SETUID and CAP_SETGID write any map, and everybody one line that maps his
//! own id, for groups only after `setgroups` is denied. Ranges beyond that are lent to a user in /etc/subuid and /etc/subgid, and
//! only the two programs, which have the right, may write them.

use crate::error::{Doing, Error, Result, config};
use crate::facts::{HostFacts, OwnMaps};
use crate::launch::write_proc;
use crate::namespaces::{NamespacePlan, kind};
use crate::process::ProcessPlan;
use rrt_oci::Linux;
use rrt_sys::errno;
use rrt_sys::process::{Child, ExecArgs, Exit, SingleThreaded};
use rrt_sys::spawn;
use serde::Serialize;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who writes a map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Writer {
    /// The runtime, which has the right to write any.
    #[default]
    Runtime,
    /// The runtime, which may map its own id alone.
    OwnId,
    /// newuidmap or newgidmap.
    Helper,
}

impl Writer {
    /// What a person reads behind a line of `file`.
    pub fn note(self, file: &str) -> &'static str {
        match (self, file) {
            (Writer::OwnId, "gid_map") => "   (after denying setgroups)",
            (Writer::Helper, "gid_map") => "   (by newgidmap)",
            (Writer::Helper, _) => "   (by newuidmap)",
            _ => "",
        }
    }
}

/// Who writes the two maps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Writers {
    /// `uid_map`
    pub uid: Writer,
    /// `gid_map`
    pub gid: Writer,
}

/// How long a helper may take: it asks the user database, which may be on the network.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

/// `CAP_SETUID`, `CAP_SETGID`
const CAP_SETUID: u64 = 1 << 7;
const CAP_SETGID: u64 = 1 << 6;

impl Writers {
    /// Decides for the maps of `ns`.
    pub fn new(ns: &NamespacePlan, host: &HostFacts) -> Writers {
        let writer = |map: &str, own: u32, cap: u64| {
            if map.is_empty() || host.capabilities & cap != 0 {
                Writer::Runtime
            } else if is_own_id(map, own) {
                Writer::OwnId
            } else {
                Writer::Helper
            }
        };
        Writers { uid: writer(&ns.uid_map, host.euid, CAP_SETUID), gid: writer(&ns.gid_map, host.egid, CAP_SETGID) }
    }

    /// Refuses what the kernel will: without a helper groups can be neither taken nor dropped.
    pub fn check_groups(self, process: &ProcessPlan) -> Result<()> {
        match self.gid {
            Writer::OwnId if !process.groups.is_empty() => {
                Err(groups_denied("linux.gidMappings maps only the user's own"))
            }
            _ => Ok(()),
        }
    }
}

fn groups_denied(why: &str) -> Error {
    let cure = "remove it, or map a range of groups from /etc/subgid (newgidmap)";
    config(
        "process.user.additionalGids",
        format!("cannot set any additional groups in a rootless container: {why}; {cure}"),
    )
}

/// Refuses to map ids that the user namespace which the runtime is in does not have itself: a range has to lie in one of its ranges
/// (user_namespaces(7)).
pub fn require_own(linux: &Linux, ns: &NamespacePlan, own: &OwnMaps) -> Result<()> {
    if !ns.is_new(kind::USER) {
        return Ok(());
    }
    let maps = [("uid", linux.uid_mappings(), &own.uids), ("gid", linux.gid_mappings(), &own.gids)];
    for (what, mappings, own) in maps {
        let ranges: Vec<(u64, u64)> = own.lines().filter_map(inside).collect();
        let lies_in = |start: u64, size: u64| ranges.iter().any(|(s, n)| *s <= start && start + size <= s + n);
        for (i, mapping) in mappings.iter().flatten().enumerate() {
            let (start, size) = (u64::from(mapping.host_id()), u64::from(mapping.size()));
            if !ranges.is_empty() && !lies_in(start, size) {
                let has: Vec<_> = ranges.iter().map(|(s, n)| format!("{s}:{n}")).collect();
                let problem = format!(
                    "{start}:{size} is not in the user namespace that the runtime is in, which has {} (/proc/self/{what}_map); map what \
                     it has, as `rrt spec --rootless` called inside of it does",
                    has.join(", ")
                );
                return Err(config(format!("linux.{what}Mappings[{i}].hostID"), problem));
            }
        }
    }
    Ok(())
}

/// First id inside and size of a line of a map.
fn inside(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
}

/// Whether a map is one line for one id, `own`.
fn is_own_id(map: &str, own: u32) -> bool {
    let mut lines = map.lines().map(|l| l.split_whitespace().skip(1).eq([own.to_string().as_str(), "1"]));
    lines.next() == Some(true) && lines.next().is_none()
}

/// A map that is to be written, and the program that does it.
struct Map<'a> {
    property: &'static str,
    file: &'static str,
    text: &'a str,
    writer: Writer,
    program: &'static str,
    ranges: &'static str,
}

fn maps<'a>(ns: &'a NamespacePlan, writers: Writers) -> [Map<'a>; 2] {
    [
        Map {
            property: "linux.gidMappings",
            file: "gid_map",
            text: &ns.gid_map,
            writer: writers.gid,
            program: "newgidmap",
            ranges: "/etc/subgid",
        },
        Map {
            property: "linux.uidMappings",
            file: "uid_map",
            text: &ns.uid_map,
            writer: writers.uid,
            program: "newuidmap",
            ranges: "/etc/subuid",
        },
    ]
}

/// Checks that the programs which are needed are there, before anything of the container exists.
pub fn find_helpers(ns: &NamespacePlan, writers: Writers) -> Result<()> {
    maps(ns, writers).iter().filter(|m| m.writer == Writer::Helper).try_for_each(|m| find(m).map(drop))
}

fn find(map: &Map<'_>) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let mut places = std::env::split_paths(&path).filter(|d| d.is_absolute()).map(|d| d.join(map.program));
    places.find(|file| file.is_file()).ok_or_else(|| {
        let problem = format!(
            "only root, or {} for a user, may map other ids than the user's own, and it is not in PATH ({}); install it (Debian's \
             package `uidmap`, others' `shadow-utils`), or map one id of size 1 to your own",
            map.program,
            path.display()
        );
        config(map.property, problem)
    })
}

/// Writes both maps of a child in a new user namespace. The groups' first: with it comes the answer of `setgroups`.
pub fn write(ns: &NamespacePlan, writers: Writers, token: &SingleThreaded, child: &Child) -> Result<()> {
    for map in maps(ns, writers) {
        match map.writer {
            Writer::Helper => run_helper(&map, token, child)?,
            Writer::OwnId if map.file == "gid_map" => {
                write_proc(child.pid, "setgroups", "deny").doing(|| format!("{}: deny setgroups", map.property))?;
                write_own(&map, child)?;
            }
            _ => write_own(&map, child)?,
        }
    }
    Ok(())
}

fn write_own(map: &Map<'_>, child: &Child) -> Result<()> {
    write_proc(child.pid, map.file, map.text).map_err(|source| {
        let maps_root = map.file == "uid_map" && map.text.lines().any(|l| l.split(' ').nth(1) == Some("0"));
        let setfcap = 1 << rrt_sys::creds::capability("CAP_SETFCAP").unwrap_or(31);
        let lacks = rrt_sys::creds::permitted_set().is_ok_and(|own| own & setfcap == 0);
        let why = if source.is(errno::EPERM) && maps_root && lacks {
            " (from Linux 5.12 on to map root takes CAP_SETFCAP, which the runtime has not: give it to the container that it runs in, or \
             map another id)"
        } else {
            ""
        };
        Error::System { doing: format!("{}: write {}{why}", map.property, map.file), source }
    })
}

fn run_helper(map: &Map<'_>, token: &SingleThreaded, child: &Child) -> Result<()> {
    let program = find(map)?;
    let doing = || format!("{}: run {program:?}", map.property);
    let c =
        |bytes: &[u8]| CString::new(bytes).map_err(|_| config(map.property, "the path of the helper has a NUL byte"));
    let path = c(program.as_os_str().as_bytes())?;
    let mut argv = vec![path.clone(), c(child.pid.to_string().as_bytes())?];
    for id in map.text.split_whitespace() {
        argv.push(c(id.as_bytes())?);
    }
    // It needs no variable, and has more rights than we.
    let args = ExecArgs::new(argv, Vec::new());
    let outcome =
        spawn::run(token, &path, &args, b"", Path::new("/"), [None; 2], Some(HELPER_TIMEOUT), None, &|| Ok(()))
            .doing(doing)?;
    let how = match outcome.exit {
        Some(Exit::Code(0)) => return Ok(()),
        Some(Exit::Code(code)) => format!("exit status {code}"),
        Some(Exit::Signal(signal)) => format!("killed by signal {signal}"),
        None => format!("killed after {} s", HELPER_TIMEOUT.as_secs()),
    };
    let said = outcome.output.trim();
    Err(config(map.property, format!("{}: {how}, output: {said:?}; {}", map.program, hint(map))))
}

/// What is wrong with the ranges lent to the user; never an error itself.
fn hint(map: &Map<'_>) -> String {
    let (uid, gid) = rrt_sys::creds::effective_ids();
    let own = if map.file == "uid_map" { uid } else { gid };
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let name = rrt_sys::creds::passwd_entry(&passwd, uid).map(|(name, _)| String::from_utf8_lossy(name).into_owned());
    let lent = ranges(&std::fs::read_to_string(map.ranges).unwrap_or_default(), name.as_deref(), uid);
    let missing = missing(map.text, own, &lent);
    let user = name.clone().unwrap_or_else(|| uid.to_string());
    if name.is_none() {
        return format!("uid {uid} has no name in the user database, which {} needs", map.program);
    }
    match missing.first() {
        Some((start, size)) if lent.is_empty() => {
            format!("{} lends {user} nothing; add the line {user}:{start}:{size} to it", map.ranges)
        }
        Some((start, size)) => {
            let list: Vec<_> = lent.iter().map(|(start, size)| format!("{start}:{size}")).collect();
            let list = list.join(", ");
            format!(
                "{} lends {user} {list}, and of that {start}:{size} is not a part; add the line {user}:{start}:{size}",
                map.ranges
            )
        }
        None => format!(
            "{} lends {user} what is asked for; see that {} is set-user-id root or has its file capability, and that the runtime was \
             not started with no_new_privs",
            map.ranges, map.program
        ),
    }
}

/// The ranges (first id, size) that a text like /etc/subuid lends to a user (subuid(5): the name or the uid).
fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u64, u64)> {
    let uid = uid.to_string();
    let parse = |line: &str| {
        let mut fields = line.trim().splitn(3, ':');
        let whose = fields.next()?;
        (Some(whose) == name || whose == uid)
            .then(|| Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)))
            .flatten()
    };
    text.lines().filter_map(parse).collect()
}

/// The host ranges of a map that are neither the user's own id nor within one lent.
fn missing(map: &str, own: u32, lent: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let host = |line: &str| {
        let mut fields = line.split_whitespace().skip(1).map(|f| f.parse::<u64>().unwrap_or(0));
        (fields.next().unwrap_or(0), fields.next().unwrap_or(0))
    };
    let within = |(start, size): &(u64, u64)| {
        (*start, *size) == (u64::from(own), 1) || lent.iter().any(|(s, n)| s <= start && start + size <= s + n)
    };
    map.lines().map(host).filter(|range| !within(range)).collect()
}

/// `exec`: checks the process' ids against the maps of the container's user namespace, in which `init` is.
pub fn check_exec(process: &ProcessPlan, init: i32) -> Result<()> {
    let read = |file: &str| {
        // One that is gone or cannot be read: then the kernel gives the answer later.
        let text = std::fs::read_to_string(format!("/proc/{init}/{file}")).unwrap_or_default();
        text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n")
    };
    process.require_mapped("process", &read("uid_map"), &read("gid_map"))?;
    if !process.groups.is_empty() && read("setgroups") == "deny" {
        return Err(groups_denied("its user namespace denies setgroups"));
    }
    Ok(())
}

/// Why this machine may have refused a new user namespace: what the administrator can have set.
pub fn why_refused(e: &rrt_sys::SysError) -> String {
    let setting = |file: &str| std::fs::read_to_string(Path::new("/proc/sys").join(file)).unwrap_or_default();
    let is = |file: &str, value: &str| setting(file).trim() == value;
    if is("user/max_user_namespaces", "0") || e.is(errno::ENOSPC) {
        return "; user.max_user_namespaces is reached or 0: raise it (sysctl)".into();
    }
    if is("kernel/unprivileged_userns_clone", "0") {
        return "; kernel.unprivileged_userns_clone is 0: set it to 1 (sysctl)".into();
    }
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return restricted_by_apparmor().into();
    }
    "; a user namespace cannot be made inside a chroot, or where a seccomp filter or security module forbids it".into()
}

fn restricted_by_apparmor() -> &'static str {
    "; kernel.apparmor_restrict_unprivileged_userns is 1: give this program an AppArmor profile with `userns,`, or set it to 0 (sysctl)"
}

/// AppArmor may let the namespace be made and then give no right in it: a failure of init's is explained by that.
pub fn explain_init(error: Error, ns: &NamespacePlan, unprivileged: bool) -> Error {
    let file = OsStr::new("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    match error {
        Error::Init(text)
            if unprivileged
                && ns.is_new(kind::USER)
                && (text.contains("(EPERM)") || text.contains("(EACCES)"))
                && std::fs::read_to_string(file).is_ok_and(|v| v.trim() == "1") =>
        {
            Error::Init(text + restricted_by_apparmor())
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_the_own_id_needs_no_helper() {
        assert!(is_own_id("0 1000 1\n", 1000));
        assert!(is_own_id("77 1000 1\n", 1000));
        for other in ["", "0 1000 2\n", "0 1001 1\n", "0 1000 1\n1 100000 5\n", "0 100000 1\n"] {
            assert!(!is_own_id(other, 1000), "{other:?}");
        }
    }

    #[test]
    fn ranges_are_lent_by_name_or_number() {
        let text = "root:1:2\nme:100000:65536\n1000:5:6\n# x\nme:bad:1\nyou:7:8";
        assert_eq!(ranges(text, Some("me"), 1000), [(100_000, 65536), (5, 6)]);
        assert_eq!(ranges(text, None, 1000), [(5, 6)]);
        assert_eq!(ranges(text, Some("who"), 3), []);
    }

    #[test]
    fn only_ids_of_the_runtimes_own_user_namespace_can_be_mapped() {
        let check = |host: u32, size: u32, own: &str| {
            let text = format!(
                r#"{{"namespaces":[{{"type":"mount"}},{{"type":"user"}}],
                "uidMappings":[{{"containerID":0,"hostID":{host},"size":{size}}}],"gidMappings":[{{"containerID":0,"hostID":0,"size":1}}]}}"#
            );
            let linux = serde_json::from_str(&text).unwrap();
            let own = OwnMaps { uids: own.into(), gids: own.into() };
            require_own(&linux, &NamespacePlan::new(&linux).unwrap(), &own).map_err(|e| e.to_string())
        };
        let own = "0 1000 1\n1 100000 65536\n";
        for (host, size) in [(0, 1), (1, 65536), (65536, 1)] {
            assert_eq!(check(host, size, own), Ok(()));
            assert_eq!(check(host, size, ""), Ok(()), "on the host");
        }
        // Not over two ranges either.
        for (host, size) in [(70_000, 1), (0, 2), (65536, 2)] {
            let e = check(host, size, own).unwrap_err();
            assert!(e.contains("linux.uidMappings[0].hostID") && e.contains("0:1, 1:65536"), "{e}");
        }
    }

    #[test]
    fn what_is_not_lent_is_found() {
        let lent = [(100_000, 65536)];
        assert_eq!(missing("0 1000 1\n1 100000 65536\n", 1000, &lent), []);
        assert_eq!(missing("0 1001 1\n1 100001 65536\n", 1000, &lent), [(1001, 1), (100_001, 65536)]);
        assert_eq!(missing("0 1000 2\n", 1000, &[]), [(1000, 2)]);
    }
}
