//! Idmapped mounts: the owners of a bind mount's files are translated on the way (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
//!
//! The kernel takes the translation from a user namespace. For a mapping of the mount's own, and for that of the container, whose user
//! namespace does not exist yet when mounts are opened, a helper process is born in a new user namespace that lives as long as
//! the fd on it: once per distinct mapping. A user namespace that is joined serves as it is.

use super::{MountKind, MountPlan, Source};
use crate::error::{Doing, Error, Result, config};
use crate::launch::write_proc;
use crate::namespaces::{Joined, NamespacePlan, id_map, kind, mapped_to};
use crate::rebirth::idle_child;
use rrt_oci::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};
use rrt_sys::process::{Child, SingleThreaded};
use rrt_sys::{OFlags, errno, mount, path};
use serde::Serialize;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The options `idmap` and `ridmap`, and crun's longer form of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IdmapOption {
    /// `ridmap`: the mounts below it, too.
    pub recursive: bool,
    /// What stands behind `idmap=`, if anything.
    pub mapping: Option<String>,
}

/// How the owners of a mount's files are translated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdmapPlan {
    /// The mounts below it, too.
    pub recursive: bool,
    /// Where the mapping comes from.
    pub mapping: Mapping,
}

/// The user namespace that has the mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Mapping {
    /// One made for it; the texts of its uid_map and gid_map.
    New {
        /// `/proc/PID/uid_map`
        uids: String,
        /// `/proc/PID/gid_map`
        gids: String,
    },
    /// The one that the container joins.
    Joined,
}

impl fmt::Display for IdmapPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.recursive { " ridmap" } else { " idmap" })?;
        match &self.mapping {
            Mapping::New { uids, gids } => {
                let list = |map: &str| map.trim_end().replace(' ', ":").replace('\n', ",");
                write!(f, " uids {} gids {}", list(uids), list(gids))
            }
            Mapping::Joined => f.write_str(" of the joined user namespace"),
        }
    }
}

/// Plans `idmap`, `ridmap`, `uidMappings` and `gidMappings` of one mount; `None` when it has none of them.
pub fn plan(
    mount: &Mount,
    option: Option<&IdmapOption>,
    kind: &MountKind,
    namespaces: &NamespacePlan,
    property: &str,
) -> Result<Option<IdmapPlan>> {
    let uids = mount.uid_mappings().as_deref().unwrap_or_default();
    let gids = mount.gid_mappings().as_deref().unwrap_or_default();
    let given = !uids.is_empty() || !gids.is_empty();
    if option.is_none() && !given {
        return Ok(None);
    }
    let place = if given { format!("{property}.uidMappings") } else { format!("{property}.options") };
    if !matches!(kind, MountKind::Bind { .. }) {
        return Err(config(place, "an id mapping is for bind mounts only; remove it, or bind the mounted file system"));
    }
    let option = option.cloned().unwrap_or_default();
    let mapping = match (&option.mapping, given) {
        (Some(_), true) => {
            let problem = "the mapping is given in options (idmap=) and in uidMappings and gidMappings; remove one";
            return Err(config(place, problem));
        }
        (Some(text), false) => parse(text, namespaces, &place)?,
        (None, true) if uids.is_empty() || gids.is_empty() => {
            let missing = if uids.is_empty() { "uidMappings" } else { "gidMappings" };
            let problem = "missing: uidMappings and gidMappings of a mount go together";
            return Err(config(format!("{property}.{missing}"), problem));
        }
        (None, true) => of(uids, gids, property)?,
        (None, false) if namespaces.is_joined(kind::USER) => Mapping::Joined,
        (None, false) if namespaces.is_new(kind::USER) => {
            Mapping::New { uids: namespaces.uid_map.clone(), gids: namespaces.gid_map.clone() }
        }
        (None, false) => {
            let problem =
                "idmap without a mapping; add uidMappings and gidMappings to the mount, or a user namespace to linux";
            return Err(config(place, problem));
        }
    };
    Ok(Some(IdmapPlan { recursive: option.recursive, mapping }))
}

fn of(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping], property: &str) -> Result<Mapping> {
    let map = |list, name: &str| id_map(list, &format!("{property}.{name}")).map(|(text, _)| text);
    Ok(Mapping::New { uids: map(uids, "uidMappings")?, gids: map(gids, "gidMappings")? })
}

/// crun's form, `uids=0-1-10#10-11-10;gids=@0-100-10`: triplets of an id of the files, an id of the host and a count; with `@` the
/// second one is an id of the container.
fn parse(text: &str, namespaces: &NamespacePlan, place: &str) -> Result<Mapping> {
    let bad = || config(place, format!("idmap={text}: is not \"uids=A-B-COUNT#…;gids=A-B-COUNT#…\""));
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    for part in text.split(';').filter(|p| !p.is_empty()) {
        let (list, triplets, own) = match part.split_once('=') {
            Some(("uids", t)) => (&mut uids, t, &namespaces.uid_map),
            Some(("gids", t)) => (&mut gids, t, &namespaces.gid_map),
            _ => return Err(bad()),
        };
        for triplet in triplets.split('#') {
            let (relative, numbers) = match triplet.strip_prefix('@') {
                Some(numbers) => (true, numbers),
                None => (false, triplet),
            };
            let numbers: Option<Vec<u32>> = numbers.split('-').map(|n| n.parse().ok()).collect();
            let Some([id, host, size]) = numbers.as_deref().and_then(|n| <[u32; 3]>::try_from(n).ok()) else {
                return Err(bad());
            };
            let host = match relative {
                false => host,
                true => mapped_to(own, host).ok_or_else(|| {
                    let hint =
                        "is not mapped in a new user namespace of the container (linux.uidMappings, gidMappings)";
                    config(place, format!("idmap={text}: @: {host} {hint}"))
                })?,
            };
            let mapping = LinuxIdMappingBuilder::default().container_id(id).host_id(host).size(size).build();
            list.push(mapping.map_err(|_| bad())?);
        }
    }
    let map = |list: &[_]| id_map(list, place).map(|(text, _)| text);
    match uids.is_empty() || gids.is_empty() {
        true => Err(bad()),
        false => Ok(Mapping::New { uids: map(&uids)?, gids: map(&gids)? }),
    }
}

/// Sources that init opens and the parent then translates, in the order that init comes to them: each with its user namespace.
pub type Waiting<'a> = std::collections::VecDeque<(&'a MountPlan, OwnedFd)>;

/// Translates the sources that the plan says, before any of them is attached; those that are not opened yet are returned. Does nothing
/// without such a mount.
pub fn apply<'a>(
    mounts: &'a [MountPlan],
    sources: &[Option<Source>],
    joined: &[(Joined, OwnedFd)],
) -> Result<Waiting<'a>> {
    let mut made: Vec<(&Mapping, OwnedFd)> = Vec::new();
    let mut waiting = Waiting::new();
    for (plan, source) in mounts.iter().zip(sources) {
        let Some(idmap) = &plan.idmap else { continue };
        let user = match &idmap.mapping {
            Mapping::Joined => joined.iter().find(|(j, _)| j.kind == kind::USER).map(|(_, fd)| fd.as_fd()),
            Mapping::New { uids, gids } => {
                if !made.iter().any(|(mapping, _)| *mapping == &idmap.mapping) {
                    made.push((&idmap.mapping, user_namespace(uids, gids, &plan.property)?));
                }
                made.iter().find(|(mapping, _)| *mapping == &idmap.mapping).map(|(_, fd)| fd.as_fd())
            }
        };
        let user = user.ok_or_else(|| config(&plan.property, "idmap without a user namespace"))?;
        match source {
            Some(source) => map_ids(plan, idmap, source.tree.as_fd(), user)?,
            None => waiting.push_back((plan, user.try_clone_to_owned().doing(|| plan.property.clone())?)),
        }
    }
    Ok(waiting)
}

/// Translates the next source that was waited for; `tree` is init's, and attached nowhere.
pub fn apply_next(waiting: &mut Waiting<'_>, tree: BorrowedFd<'_>) -> Result<()> {
    match waiting.pop_front() {
        Some((plan, user)) => plan.idmap.as_ref().map_or(Ok(()), |idmap| map_ids(plan, idmap, tree, user.as_fd())),
        None => Err(Error::Init("an idmapped source that nobody waits for".into())),
    }
}

/// Rootless the sources are opened by init, which may not translate them: an error, never a mount without the mapping.
pub fn refuse(mounts: &[MountPlan]) -> Result<Waiting<'_>> {
    match mounts.iter().find(|m| m.idmap.is_some()) {
        Some(m) => Err(config(
            &m.property,
            "an id mapping needs CAP_SYS_ADMIN in the first user namespace; run as root, or remove it",
        )),
        None => Ok(Waiting::new()),
    }
}

fn map_ids(plan: &MountPlan, idmap: &IdmapPlan, tree: BorrowedFd<'_>, user: BorrowedFd<'_>) -> Result<()> {
    let MountKind::Bind { source: from, .. } = &plan.kind else { return Ok(()) };
    let name = if idmap.recursive { "ridmap" } else { "idmap" };
    mount::set_idmap(tree, user, idmap.recursive).map_err(|source| {
        let types = file_systems(from, idmap.recursive).unwrap_or_default();
        let hint = match source.errno() {
            errno::EINVAL => format!("; this kernel has no id mapping for the file system ({types})"),
            errno::EPERM => {
                format!("; the source is mapped already, or the runtime may not administer its file system ({types})")
            }
            _ => String::new(),
        };
        let problem = format!("{name} of {from:?}: {source}{hint}");
        Error::Config { property: plan.property.clone(), problem }
    })
}

/// The types of the file systems at a place of the host, and with `recursive` below it, for an error.
fn file_systems(at: &Path, recursive: bool) -> Option<String> {
    let fd = path::open(at, OFlags::PATH).ok()?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let id = info.lines().find_map(|l| l.strip_prefix("mnt_id:"))?.trim();
    let real = std::fs::canonicalize(at).ok()?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut types = Vec::new();
    for line in table.lines() {
        let mut fields = line.split(' ');
        let (this, place) = (fields.next()?, fields.nth(3)?);
        let fstype = line.split_once(" - ")?.1.split(' ').next()?;
        let below = recursive && Path::new(place).starts_with(&real);
        if (this == id || below) && !types.contains(&fstype) {
            types.push(fstype);
        }
    }
    Some(types.join(", "))
}

/// A new user namespace with this mapping, held by the fd alone: the process it was made with has ended.
fn user_namespace(uids: &str, gids: &str, property: &str) -> Result<OwnedFd> {
    let doing = || format!("{property}: make a user namespace for its id mapping");
    let token = SingleThreaded::check().doing(doing)?;
    let helper = idle_child(&token, kind::USER, false).doing(doing)?;
    map_and_open(&helper.child, uids, gids, property)
}

fn map_and_open(helper: &Child, uids: &str, gids: &str, property: &str) -> Result<OwnedFd> {
    write_proc(helper.pid, "gid_map", gids).doing(|| format!("{property}.gidMappings: write gid_map"))?;
    write_proc(helper.pid, "uid_map", uids).doing(|| format!("{property}.uidMappings: write uid_map"))?;
    path::open(Path::new(&format!("/proc/{}/ns/user", helper.pid)), OFlags::RDONLY)
        .doing(|| format!("{property}: open the user namespace of its id mapping"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::options::MountOptions;

    const OWN: &str = r#"{"namespaces":[{"type":"mount"},{"type":"user"}],
        "uidMappings":[{"containerID":0,"hostID":1000,"size":10}],"gidMappings":[{"containerID":0,"hostID":2000,"size":10}]}"#;
    const NONE: &str = r#"{"namespaces":[{"type":"mount"}]}"#;
    const JOINED: &str = r#"{"namespaces":[{"type":"mount"},{"type":"user","path":"/u"}]}"#;

    fn planned(linux: &str, extra: &str) -> Result<Option<IdmapPlan>> {
        let namespaces = NamespacePlan::new(&serde_json::from_str(linux).unwrap()).unwrap();
        let mount: Mount =
            serde_json::from_str(&format!(r#"{{"destination":"/x","type":"bind","source":"/s",{extra}}}"#)).unwrap();
        let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default(), "mounts[0]").unwrap();
        let kind = match options.bind {
            Some(recursive) => MountKind::Bind { source: "/s".into(), recursive },
            None => MountKind::FileSystem { fstype: "tmpfs".into(), source: None },
        };
        plan(&mount, options.idmap.as_ref(), &kind, &namespaces, "mounts[0]")
    }

    fn new(uids: &str, gids: &str) -> Mapping {
        Mapping::New { uids: uids.into(), gids: gids.into() }
    }

    #[test]
    fn the_mapping_is_the_mounts_own_or_the_containers() {
        let own = r#""options":["bind","ridmap"],"uidMappings":[{"containerID":0,"hostID":5,"size":2}],
            "gidMappings":[{"containerID":0,"hostID":6,"size":2},{"containerID":9,"hostID":1,"size":1}]"#;
        let p = planned(OWN, own).unwrap().unwrap();
        assert_eq!((p.recursive, p.mapping.clone()), (true, new("0 5 2\n", "0 6 2\n9 1 1\n")));
        assert_eq!(p.to_string(), " ridmap uids 0:5:2 gids 0:6:2,9:1:1");
        let p = planned(OWN, r#""options":["rbind","idmap"]"#).unwrap().unwrap();
        assert_eq!((p.recursive, p.mapping), (false, new("0 1000 10\n", "0 2000 10\n")));
        assert_eq!(planned(JOINED, r#""options":["bind","idmap"]"#).unwrap().unwrap().mapping, Mapping::Joined);
        // Without the option the mapping counts all the same, as in runc; without anything there is none.
        assert!(planned(NONE, &own.replace(",\"ridmap\"", "")).unwrap().is_some());
        assert!(planned(OWN, r#""options":["bind"]"#).unwrap().is_none());
    }

    #[test]
    fn the_form_of_crun() {
        let option = |text: &str| format!(r#""options":["bind","idmap={text}"]"#);
        let p = planned(NONE, &option("uids=0-1-10#10-11-10;gids=0-100-10")).unwrap().unwrap();
        assert_eq!(p.mapping, new("0 1 10\n10 11 10\n", "0 100 10\n"));
        let p = planned(OWN, &option("uids=@0-3-2;gids=7-7-1")).unwrap().unwrap();
        assert_eq!(p.mapping, new("0 1003 2\n", "7 7 1\n"));
        for bad in ["uids=0-1-10", "uids=0-1;gids=0-1-1", "x=0-0-1", "uids=a-1-1;gids=0-1-1", "uids=;gids="] {
            let e = planned(NONE, &option(bad)).unwrap_err().to_string();
            assert!(e.contains("mounts[0].options") && e.contains(bad), "{e}");
        }
        let e = planned(OWN, &option("uids=@0-30-2;gids=0-0-1")).unwrap_err().to_string();
        assert!(e.contains("30 is not mapped"), "{e}");
    }

    #[test]
    fn bad_mappings_are_named() {
        let uids = r#""uidMappings":[{"containerID":0,"hostID":5,"size":2}]"#;
        for (linux, extra, expected) in [
            (NONE, r#""options":["bind","idmap"]"#.to_string(), "mounts[0].options: idmap without a mapping"),
            (OWN, format!(r#""options":["bind"],{uids}"#), "mounts[0].gidMappings: missing"),
            (OWN, format!(r#""options":["bind"],{}"#, uids.replace("uid", "gid")), "mounts[0].uidMappings: missing"),
            (OWN, format!(r#""options":["idmap"],{uids}"#), "for bind mounts only"),
            (OWN, format!(r#""options":["bind","idmap=uids=0-0-1;gids=0-0-1"],{uids}"#), "remove one"),
            (
                OWN,
                format!(r#""options":["bind"],{uids},"gidMappings":[{{"containerID":0,"hostID":1,"size":0}}]"#),
                "mounts[0].gidMappings[0]",
            ),
        ] {
            let e = planned(linux, &extra).unwrap_err().to_string();
            assert!(e.contains(expected), "{extra}: {e}");
        }
    }
}
