//! What a user namespace changes about mounts: what has to be planned otherwise, and why the kernel refuses what it does.

use super::options::attr;
use super::{MountKind, MountPlan};
use crate::error::{Error, Result, config};
use crate::facts::OwnMaps;
use crate::namespaces::{NamespacePlan, is_mapped, kind};
use rrt_sys::{SysError, errno};
use std::path::Path;

impl MountPlan {
    /// Plans a mount of a container with a user namespace otherwise where it could not be made:
    ///
    /// * sysfs shows the network namespace of its maker, who must own that. With the host's network it is a bind of the host's, as
    ///   `runc spec --rootless` writes it and crun does by itself;
    /// * procfs shows the pid namespace of its maker, and is treated in the same way;
    /// * `/sys`, bound read-only, is so with all that is mounted below it: the host's cgroups are (CVE-2023-25809);
    /// * an owner given as an option has to be mapped. devpts goes without: a pty belongs to its opener.
    pub fn suit_user_namespace(&mut self, ns: &NamespacePlan, own: &OwnMaps, warnings: &mut Vec<String>) -> Result<()> {
        if !ns.has(kind::USER) {
            // The user namespace that the runtime is in; on the host all ids are mapped.
            return match &self.kind {
                MountKind::FileSystem { .. } => self.check_owner(&own.uids, &own.gids, "runtime's", warnings),
                _ => Ok(()),
            };
        }
        if self.is_type("sysfs") && !ns.has(kind::NETWORK) {
            self.kind = MountKind::Bind { source: "/sys".into(), recursive: true };
            self.options.data.clear();
            self.options.set |= attr::RDONLY;
        }
        if self.is_type("proc") && !ns.has(kind::PID) {
            self.kind = MountKind::Bind { source: "/proc".into(), recursive: true };
            self.options.data.clear();
        }
        match &self.kind {
            MountKind::Bind { source, recursive: true } if source == Path::new("/sys") => {
                self.options.rec_set |= self.options.set & attr::RDONLY;
                Ok(())
            }
            MountKind::FileSystem { .. } => self.check_owner(&ns.uid_map, &ns.gid_map, "container's", warnings),
            _ => Ok(()),
        }
    }

    /// Refuses what a user may not do: to map ids the kernel wants CAP_SYS_ADMIN in the user namespace of the file system.
    pub fn require_rights(&self, unprivileged: bool) -> Result<()> {
        match self.idmap {
            Some(_) if unprivileged => {
                let problem = "an idmapped mount needs CAP_SYS_ADMIN on the host; remove the mapping, or run as root";
                Err(config(&self.property, problem))
            }
            _ => Ok(()),
        }
    }

    fn check_owner(&mut self, uids: &str, gids: &str, whose: &str, warnings: &mut Vec<String>) -> Result<()> {
        let unmapped = |option: &String| {
            let (map, id) = match option.split_once('=') {
                Some(("gid", id)) => (gids, id),
                Some(("uid", id)) => (uids, id),
                _ => return false,
            };
            !map.is_empty() && id.parse().is_ok_and(|id| !is_mapped(map, id))
        };
        while let Some(i) = self.options.data.iter().position(unmapped) {
            let problem = format!("{} is not mapped in the {whose} user namespace", self.options.data[i]);
            if !self.is_type("devpts") {
                return Err(config(format!("{}.options", self.property), problem + "; map it or remove the option"));
            }
            warnings.push(format!("{}.options: {problem}; left out", self.property));
            self.options.data.remove(i);
        }
        Ok(())
    }

    /// A refused call of this mount, with the reason where only a user namespace or a context of SELinux can be it.
    pub fn explain(&self, doing: String, source: SysError) -> Error {
        let why = if source.is(errno::EPERM) || source.is(errno::EINVAL) { self.why_refused(&source) } else { None };
        match why.or_else(|| crate::lsm::explain_context(&self.options.data, &source)) {
            Some(why) => Error::System { doing: format!("{doing} ({why})"), source },
            None => Error::System { doing, source },
        }
    }

    fn why_refused(&self, e: &SysError) -> Option<&'static str> {
        let forbidden = e.is(errno::EPERM);
        match &self.kind {
            MountKind::FileSystem { fstype, .. } if forbidden => match fstype.as_str() {
                "proc" => Some(
                    "a user namespace may mount a procfs only where it sees one that nothing covers; inside of another container \
                     start that one with /proc unmasked (docker: --security-opt systempaths=unconfined, podman: unmask=ALL, \
                     Kubernetes: procMount Unmasked), or bind its /proc with \"rbind\"",
                ),
                "sysfs" => Some(
                    "a user namespace may mount a sysfs only where it sees one that nothing covers, and with a network namespace of its \
                     own; bind /sys with \"rbind\" and \"ro\" instead",
                ),
                "mqueue" => Some("needs an ipc namespace that belongs to the container's user namespace"),
                _ => Some("a user namespace may not mount this type"),
            },
            MountKind::Bind { recursive: false, .. } if e.is(errno::EINVAL) && e.call().starts_with("open_tree") => {
                Some("a user namespace may not uncover what lies below other mounts; use \"rbind\"")
            }
            MountKind::Bind { .. } | MountKind::Remount if forbidden && e.call().starts_with("mount_setattr") => Some(
                "the mount has ro, nosuid, nodev, noexec or an access-time option that a user namespace may not take off; remove the \
                 opposite option",
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suited(mount: &str, linux: &str) -> Result<(MountPlan, Vec<String>)> {
        suited_within(mount, linux, OwnMaps::default())
    }

    fn suited_within(mount: &str, linux: &str, own: OwnMaps) -> Result<(MountPlan, Vec<String>)> {
        let (ns, mut warnings) = (NamespacePlan::new(&serde_json::from_str(linux).unwrap())?, Vec::new());
        let mut mount = MountPlan::new(&serde_json::from_str(mount).unwrap(), 3, Path::new("/b"), &ns)?;
        mount.suit_user_namespace(&ns, &own, &mut warnings)?;
        Ok((mount, warnings))
    }

    const ONE_ID: &str = r#"{"namespaces":[{"type":"mount"},{"type":"user"}],
        "uidMappings":[{"containerID":0,"hostID":1000,"size":1}],"gidMappings":[{"containerID":0,"hostID":1000,"size":1}]}"#;
    const WITH_NETWORK: &str = r#"{"namespaces":[{"type":"mount"},{"type":"user"},{"type":"network"}],
        "uidMappings":[{"containerID":0,"hostID":1000,"size":1}],"gidMappings":[{"containerID":0,"hostID":1000,"size":1}]}"#;
    const NONE: &str = r#"{"namespaces":[{"type":"mount"}]}"#;

    #[test]
    fn what_the_kernel_makes_for_owners_only_is_bound() {
        let sysfs = r#"{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid"]}"#;
        let (mount, _) = suited(sysfs, ONE_ID).unwrap();
        assert!(matches!(&mount.kind, MountKind::Bind { source, recursive: true } if source == Path::new("/sys")));
        assert_eq!(mount.options.rec_set, attr::RDONLY);
        let proc = r#"{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]}"#;
        let (mount, _) = suited(proc, ONE_ID).unwrap();
        assert!(matches!(&mount.kind, MountKind::Bind { source, recursive: true } if source == Path::new("/proc")));
        assert!(suited(proc, NONE).unwrap().0.is_type("proc"));
        assert!(suited(sysfs, WITH_NETWORK).unwrap().0.is_type("sysfs"));
        assert!(suited(sysfs, NONE).unwrap().0.is_type("sysfs"));
    }

    #[test]
    fn a_bound_sys_is_read_only_all_the_way_down() {
        let bound = r#"{"destination":"/sys","type":"none","source":"/sys","options":["rbind","ro"]}"#;
        assert_eq!(suited(bound, ONE_ID).unwrap().0.options.rec_set, attr::RDONLY);
        assert_eq!(suited(bound, NONE).unwrap().0.options.rec_set, 0);
    }

    #[test]
    fn a_user_maps_no_ids_of_a_mount() {
        let idmap = r#"{"destination":"/x","type":"none","source":"/y","options":["bind","idmap"]}"#;
        let (mount, _) = suited(idmap, ONE_ID).unwrap();
        assert!(mount.require_rights(false).is_ok());
        assert!(mount.require_rights(true).unwrap_err().to_string().starts_with("mounts[3]: an idmapped mount"));
    }

    #[test]
    fn an_owner_that_is_not_mapped() {
        let devpts = r#"{"destination":"/dev/pts","type":"devpts","options":["newinstance","gid=5","mode=0620"]}"#;
        let (mount, warnings) = suited(devpts, ONE_ID).unwrap();
        assert_eq!(mount.options.data, ["newinstance", "mode=0620"]);
        assert_eq!(warnings.len(), 1);
        // Neither in the user namespace that the runtime is in already.
        let own = || OwnMaps { uids: "0 1000 1\n".into(), gids: "0 1000 1\n".into() };
        assert_eq!(suited_within(devpts, NONE, own()).unwrap().0.options.data, ["newinstance", "mode=0620"]);
        assert_eq!(suited(devpts, NONE).unwrap().0.options.data, ["newinstance", "gid=5", "mode=0620"]);
        let root = r#"{"destination":"/x","type":"tmpfs","options":["uid=0"]}"#;
        assert_eq!(suited_within(root, NONE, own()).unwrap().0.options.data, ["uid=0"]);
        let e = suited(r#"{"destination":"/x","type":"tmpfs","options":["uid=7"]}"#, ONE_ID).unwrap_err().to_string();
        assert!(e.contains("mounts[3].options: uid=7 is not mapped"), "{e}");
    }
}
