//! Which namespaces are made, which are joined, and in what order that has to happen.

use crate::error::{Error, Result, config};
use rrt_oci::{Linux, LinuxIdMapping, LinuxNamespaceType};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;

/// `CLONE_NEW*` bits of clone(2), unshare(2) and setns(2).
pub mod kind {
    #![allow(missing_docs)]
    pub const TIME: i32 = 0x0000_0080;
    pub const MOUNT: i32 = 0x0002_0000;
    pub const CGROUP: i32 = 0x0200_0000;
    pub const UTS: i32 = 0x0400_0000;
    pub const IPC: i32 = 0x0800_0000;
    pub const USER: i32 = 0x1000_0000;
    pub const PID: i32 = 0x2000_0000;
    pub const NETWORK: i32 = 0x4000_0000;

    /// Every kind with the name config.json has for it and the file below `/proc/PID/ns`.
    pub const ALL: [(i32, &str, &str); 8] = [
        (USER, "user", "user"),
        (MOUNT, "mount", "mnt"),
        (PID, "pid", "pid"),
        (NETWORK, "network", "net"),
        (IPC, "ipc", "ipc"),
        (UTS, "uts", "uts"),
        (CGROUP, "cgroup", "cgroup"),
        (TIME, "time", "time"),
    ];
}

/// The name config.json has for a kind.
pub fn name(kind: i32) -> &'static str {
    kind::ALL.iter().find(|(k, ..)| *k == kind).map_or("?", |(_, name, _)| name)
}

/// The namespaces of a container, in the order they are dealt with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NamespacePlan {
    /// New ones that init is born in: what it does afterwards depends on them, and nobody enters a pid namespace alive.
    #[serde(serialize_with = "kinds_text")]
    pub cloned: i32,
    /// New ones made by init first of all: a network namespace takes long to make, in which the parent makes the cgroups.
    #[serde(serialize_with = "kinds_text")]
    pub unshared_first: i32,
    /// New ones made by init once it has joined its cgroups: the cgroup namespace takes its root from the cgroup its maker is in, the time
    /// namespace's clocks can be set only before a process is in it, and the IPC namespace belongs to its maker's ids.
    #[serde(serialize_with = "kinds_text")]
    pub unshared: i32,
    /// Existing ones, to be joined by path; a user namespace first, because it gives the right to join the others.
    pub joined: Vec<Joined>,
    /// Those of `joined` that init is born in instead of joining them.
    #[serde(skip)]
    pub inherited: i32,
    /// Whether init is born by a process that has joined namespaces for it, see [`crate::rebirth`].
    #[serde(skip)]
    pub second_clone: bool,
    /// The text of `/proc/PID/uid_map`; empty without a new user namespace.
    pub uid_map: String,
    /// The text of `/proc/PID/gid_map`.
    pub gid_map: String,
    /// The container id to be while setting up in a user namespace: 0, or the first mapped.
    pub setup_uid: u32,
    /// The group to be while setting up.
    pub setup_gid: u32,
    /// The text of `/proc/PID/timens_offsets`.
    pub time_offsets: String,
}

/// A namespace to be joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Joined {
    /// Its `CLONE_NEW*` bit.
    #[serde(serialize_with = "kinds_text")]
    pub kind: i32,
    /// Its file.
    pub path: PathBuf,
    /// Where config.json names it, for errors.
    pub property: String,
}

fn kinds_text<S: serde::Serializer>(kinds: &i32, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_str(&describe(*kinds))
}

/// The kinds in a set of bits, as `pid,network`.
pub fn describe(kinds: i32) -> String {
    let names: Vec<_> = kind::ALL.iter().filter(|(k, ..)| kinds & k != 0).map(|(_, name, _)| *name).collect();
    names.join(",")
}

impl NamespacePlan {
    /// Sorts `linux.namespaces`.
    pub fn new(linux: &Linux) -> Result<NamespacePlan> {
        let mut plan = NamespacePlan::default();
        let mut seen = 0;
        for (i, ns) in linux.namespaces().iter().flatten().enumerate() {
            let (bit, property) = (ns.typ() as i32, format!("linux.namespaces[{i}]"));
            if seen & bit != 0 {
                return Err(config(property, format!("a second namespace of type {:?}; remove one", name(bit))));
            }
            seen |= bit;
            match ns.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    if !path.is_absolute() {
                        return Err(config(property + ".path", format!("{path:?} is not an absolute path")));
                    }
                    plan.joined.push(Joined { kind: bit, path: path.clone(), property: property + ".path" });
                }
                _ if matches!(ns.typ(), LinuxNamespaceType::Cgroup | LinuxNamespaceType::Time) => plan.unshared |= bit,
                _ if matches!(ns.typ(), LinuxNamespaceType::User | LinuxNamespaceType::Pid) => plan.cloned |= bit,
                _ => plan.unshared_first |= bit,
            }
        }
        // The IPC namespace brings its mqueue file system along, owned by whoever makes it: in a user namespace that must be the
        // container's root, which the child is only once its ids are mapped.
        if plan.has(kind::USER) && plan.unshared_first & kind::IPC != 0 {
            plan.unshared_first &= !kind::IPC;
            plan.unshared |= kind::IPC;
        }
        // kind::ALL begins with the user namespace; the mount namespace comes last, because paths mean something else in it.
        let rank = |k: i32| (k != kind::USER, k == kind::MOUNT);
        plan.joined.sort_by_key(|j| rank(j.kind));
        plan.plan_ids(linux)?;
        plan.plan_time(linux)?;
        Ok(plan)
    }

    /// Whether a namespace of this kind is new.
    pub fn is_new(&self, kind: i32) -> bool {
        (self.cloned | self.unshared_first | self.unshared) & kind != 0
    }

    /// Whether a namespace of this kind is joined by path.
    pub fn is_joined(&self, kind: i32) -> bool {
        self.joined.iter().any(|j| j.kind == kind)
    }

    /// Whether the container has a namespace of this kind of its own or of another container, not the runtime's.
    pub fn has(&self, kind: i32) -> bool {
        self.is_new(kind) || self.is_joined(kind)
    }

    /// Decides who enters the joined namespaces, and where a process more is needed for it.
    ///
    /// A pid namespace can only be entered by being born in it, and beside a user namespace all of them are, because they may belong to
    /// another one, in which init has no rights. Without privileges it is the other way round: only in a user namespace that it has
    /// joined has anybody a right.
    ///
    /// The parent enters what init is to be born in, and comes back, because its hooks belong on the host. From inside of a user
    /// namespace (rootless podman) there is no way back: the host's own namespaces belong to the host. Then a process in between
    /// enters them, as it does where only the children of a process in a joined user namespace are born in its namespaces.
    pub fn plan_entry(&mut self, unprivileged: bool, in_user_namespace: bool) {
        if !unprivileged {
            let beside_user = self.has(kind::USER);
            let born = |k: i32| k == kind::PID || beside_user && !matches!(k, kind::USER | kind::MOUNT | kind::TIME);
            self.inherited = self.joined.iter().map(|j| j.kind).filter(|k| born(*k)).fold(0, |bits, k| bits | k);
        }
        let children_of_joined = self.is_joined(kind::USER) && (self.cloned != 0 || self.is_joined(kind::PID));
        self.second_clone = children_of_joined || in_user_namespace && self.inherited != 0;
    }

    /// Checks that a namespace a property acts on belongs to the container, not to the host.
    pub fn require(&self, kind: i32, property: &str) -> Result<()> {
        if self.has(kind) {
            return Ok(());
        }
        let name = name(kind);
        Err(config(property, format!("needs a {name} namespace of the container's own; add it to linux.namespaces")))
    }

    fn plan_ids(&mut self, linux: &Linux) -> Result<()> {
        let uids = linux.uid_mappings().as_deref().unwrap_or_default();
        let gids = linux.gid_mappings().as_deref().unwrap_or_default();
        if !self.is_new(kind::USER) {
            // Mappings beside a joined user namespace only describe it (for idmapped mounts), as with runc.
            let given = !uids.is_empty() || !gids.is_empty();
            if given && !self.is_joined(kind::USER) {
                let hint = "given without a user namespace; add {\"type\": \"user\"} to linux.namespaces or remove it";
                return Err(config(if uids.is_empty() { "linux.gidMappings" } else { "linux.uidMappings" }, hint));
            }
            return Ok(());
        }
        (self.uid_map, self.setup_uid) = id_map(uids, "linux.uidMappings")?;
        (self.gid_map, self.setup_gid) = id_map(gids, "linux.gidMappings")?;
        Ok(())
    }

    fn plan_time(&mut self, linux: &Linux) -> Result<()> {
        let Some(offsets) = linux.time_offsets().as_ref().filter(|o| !o.is_empty()) else { return Ok(()) };
        if !self.is_new(kind::TIME) {
            let hint = "needs a new time namespace; add {\"type\": \"time\"} to linux.namespaces";
            return Err(config("linux.timeOffsets", hint));
        }
        let mut clocks: Vec<_> = offsets.iter().collect();
        clocks.sort_by_key(|(clock, _)| *clock);
        for (clock, offset) in clocks {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                let hint = "no such clock; the kernel has offsets for \"monotonic\" and \"boottime\"";
                return Err(config(format!("linux.timeOffsets[{clock:?}]"), hint));
            }
            let (secs, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            let _ = writeln!(self.time_offsets, "{clock} {secs} {nanos}");
        }
        Ok(())
    }
}

/// The text of a uid_map or gid_map, and the id to be while setting up.
///
/// # Errors
/// [`Error::Config`] when a range is empty or too long; the kernel judges the rest.
pub fn id_map(mappings: &[LinuxIdMapping], property: &str) -> Result<(String, u32)> {
    if mappings.is_empty() {
        let hint = "missing: a new user namespace without a mapping has no usable id; map at least id 0";
        return Err(config(property, hint));
    }
    let mut text = String::new();
    let mut setup = mappings[0].container_id();
    for (i, m) in mappings.iter().enumerate() {
        let fits = |start: u32| start.checked_add(m.size()).is_some();
        if m.size() == 0 || !fits(m.container_id()) || !fits(m.host_id()) {
            return Err(config(format!("{property}[{i}]"), "size must be at least 1 and the range end below 2^32"));
        }
        if m.container_id() == 0 {
            setup = 0;
        }
        let _ = writeln!(text, "{} {} {}", m.container_id(), m.host_id(), m.size());
    }
    Ok((text, setup))
}

/// Whether a container id is mapped; `map` is the text of a uid_map or gid_map.
pub fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split(' ').map(|f| f.parse::<u64>().unwrap_or(0));
        let (start, _host, size) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0), fields.next().unwrap_or(0));
        (start..start + size).contains(&u64::from(id))
    })
}

/// The host's id for a container's one; `map` is the text of a uid_map or gid_map.
pub fn mapped_to(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut fields = line.split(' ').map(|f| f.parse::<u32>().ok());
        let (start, host, size) = (fields.next()??, fields.next()??, fields.next()??);
        id.checked_sub(start).filter(|offset| *offset < size).map(|offset| host + offset)
    })
}

/// A [`Error::Config`] when `id` is not mapped in a new user namespace.
pub fn require_mapped(map: &str, id: u32, property: &str, mappings: &str) -> Result<()> {
    if map.is_empty() || is_mapped(map, id) {
        return Ok(());
    }
    let problem = format!("{id} is not mapped in the container's user namespace; add it to {mappings}");
    Err(Error::Config { property: property.into(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<NamespacePlan> {
        NamespacePlan::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn what_clone3_cannot_make_comes_later() {
        let p = plan(r#"{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"cgroup"},{"type":"time"}]}"#).unwrap();
        assert_eq!((p.cloned, p.unshared_first), (kind::PID, kind::MOUNT));
        assert_eq!(p.unshared, kind::CGROUP | kind::TIME);
    }

    #[test]
    fn a_user_namespace_is_joined_first_and_mounts_last() {
        let p = plan(
            r#"{"namespaces":[{"type":"mount","path":"/m"},{"type":"network","path":"/n"},{"type":"user","path":"/u"}]}"#,
        )
        .unwrap();
        let order: Vec<_> = p.joined.iter().map(|j| j.kind).collect();
        assert_eq!(order, [kind::USER, kind::NETWORK, kind::MOUNT]);
        assert_eq!(p.joined[0].property, "linux.namespaces[2].path");
    }

    /// Bits of those that init is born in, and whether a process in between is needed for it: for root, in a user namespace, as a user.
    fn entry(json: &str) -> [(i32, bool); 3] {
        [(false, false), (false, true), (true, false)].map(|(unprivileged, in_user_namespace)| {
            let mut p = plan(json).unwrap();
            p.plan_entry(unprivileged, in_user_namespace);
            (p.inherited, p.second_clone)
        })
    }

    #[test]
    fn new_namespaces_belong_to_a_joined_user_namespace() {
        let all = |expected| [(0, expected); 3];
        let json = r#"{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"user","path":"/u"}]}"#;
        assert_eq!(entry(json), all(true));
        // This one is made once init is in the user namespace.
        assert_eq!(entry(r#"{"namespaces":[{"type":"mount"},{"type":"user","path":"/u"}]}"#), all(false));
    }

    #[test]
    fn nobody_comes_back_to_the_hosts_namespaces_from_a_user_namespace() {
        let json = r#"{"namespaces":[{"type":"mount"},{"type":"pid","path":"/p"},{"type":"ipc","path":"/i"}]}"#;
        assert_eq!(entry(json), [(kind::PID, false), (kind::PID, true), (0, false)]);
        let json = r#"{"namespaces":[{"type":"mount"},{"type":"network","path":"/n"},{"type":"time","path":"/t"},{"type":"user"}],
            "uidMappings":[{"containerID":0,"hostID":0,"size":1}],"gidMappings":[{"containerID":0,"hostID":0,"size":1}]}"#;
        assert_eq!(entry(json), [(kind::NETWORK, false), (kind::NETWORK, true), (0, false)]);
    }

    #[test]
    fn bad_namespaces_are_named() {
        for (json, expected) in [
            (r#"{"namespaces":[{"type":"mount"},{"type":"mount"}]}"#, "linux.namespaces[1]: a second"),
            (r#"{"namespaces":[{"type":"mount","path":"x"}]}"#, "linux.namespaces[0].path: \"x\""),
            (r#"{"namespaces":[{"type":"mount"},{"type":"user"}]}"#, "linux.uidMappings: missing"),
            (
                r#"{"namespaces":[{"type":"mount"}],"uidMappings":[{"containerID":0,"hostID":0,"size":1}]}"#,
                "without a user",
            ),
            (r#"{"namespaces":[{"type":"mount"}],"timeOffsets":{"monotonic":{"secs":1}}}"#, "linux.timeOffsets: needs"),
            (
                r#"{"namespaces":[{"type":"mount"},{"type":"time"}],"timeOffsets":{"x":{"secs":1}}}"#,
                "linux.timeOffsets[\"x\"]",
            ),
        ] {
            let e = plan(json).unwrap_err().to_string();
            assert!(e.contains(expected), "{json}: {e}");
        }
    }

    #[test]
    fn mappings_become_the_kernels_text() {
        let p = plan(
            r#"{"namespaces":[{"type":"mount"},{"type":"user"}],
            "uidMappings":[{"containerID":5,"hostID":1000,"size":1},{"containerID":0,"hostID":100000,"size":5}],
            "gidMappings":[{"containerID":7,"hostID":1000,"size":2}]}"#,
        )
        .unwrap();
        assert_eq!(p.uid_map, "5 1000 1\n0 100000 5\n");
        assert_eq!((p.setup_uid, p.setup_gid), (0, 7));
        assert_eq!((mapped_to(&p.uid_map, 5), mapped_to(&p.uid_map, 4)), (Some(1000), Some(100004)));
        assert_eq!(mapped_to(&p.uid_map, 6), None);
        assert!(is_mapped(&p.uid_map, 4) && is_mapped(&p.uid_map, 5) && !is_mapped(&p.uid_map, 6));
    }
}
