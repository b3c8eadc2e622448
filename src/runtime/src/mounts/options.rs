//! The mount options of runtime-spec config.md, "Linux mount options", as one table.
//!
//! The same table parses a mount's `options` and is what `rrt features` advertises, so the two cannot differ.

use super::idmap::IdmapOption;
use super::links::Links;
use crate::error::{Result, config};
use rrt_sys::mount::Propagation;
use serde::Serialize;

/// `MOUNT_ATTR_*` of mount_setattr(2).
pub mod attr {
    #![allow(missing_docs)]
    pub const RDONLY: u64 = 0x01;
    pub const NOSUID: u64 = 0x02;
    pub const NODEV: u64 = 0x04;
    pub const NOEXEC: u64 = 0x08;
    /// The field of three access-time settings; clearing it means all of it.
    pub const ATIME: u64 = 0x70;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// `MS_I_VERSION` of mount(2): the one flag of the table that the fd-based API cannot set.
pub const MS_I_VERSION: u64 = 1 << 23;

/// What an option does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Per mount: set and clear these `MOUNT_ATTR_*` bits.
    Attr {
        set: u64,
        clear: u64,
    },
    /// The same for the mount and all below it (mount_setattr with AT_RECURSIVE).
    RecAttr {
        set: u64,
        clear: u64,
    },
    /// Takes back this access-time setting if an earlier option has made it. A mount that has it already keeps it, as with
    /// mount(8) and runc: an access time is changed by naming another one.
    NotAtime(u64),
    /// Of the file system (super block), given to it by this name.
    Super(&'static str),
    /// `MS_I_VERSION` set or not.
    IVersion(bool),
    Bind {
        recursive: bool,
    },
    Propagation(Propagation, bool),
    Remount,
    TmpCopyUp,
    /// See [`super::links`].
    Link(super::links::LinkOption),
    /// See [`super::idmap`].
    Idmap {
        recursive: bool,
    },
    /// Nothing to do: it names the default, or only concerns kernel messages.
    Nothing,
}

use Effect::*;
const fn on(bits: u64) -> Effect {
    Attr { set: bits, clear: 0 }
}
const fn off(bits: u64) -> Effect {
    Attr { set: 0, clear: bits }
}
const fn ron(bits: u64) -> Effect {
    RecAttr { set: bits, clear: 0 }
}
const fn roff(bits: u64) -> Effect {
    RecAttr { set: 0, clear: bits }
}
/// One of the three access-time settings: the kernel wants the whole field cleared when one is set.
const fn atime(value: u64, recursive: bool) -> Effect {
    if recursive { RecAttr { set: value, clear: attr::ATIME } } else { Attr { set: value, clear: attr::ATIME } }
}

/// All options, in the order `rrt features` prints them.
const TABLE: &[(&str, Effect)] = &[
    ("async", Super("async")),
    ("atime", NotAtime(attr::NOATIME)),
    ("bind", Bind { recursive: false }),
    ("copy-symlink", Link(super::links::LinkOption::Copy)),
    ("defaults", Nothing),
    ("dest-nofollow", Link(super::links::LinkOption::Destination)),
    ("dev", off(attr::NODEV)),
    ("diratime", NotAtime(attr::NODIRATIME)),
    ("dirsync", Super("dirsync")),
    ("exec", off(attr::NOEXEC)),
    ("idmap", Idmap { recursive: false }),
    ("iversion", IVersion(true)),
    ("lazytime", Super("lazytime")),
    ("loud", Nothing),
    ("mand", Super("mand")),
    ("noatime", atime(attr::NOATIME, false)),
    ("nodev", on(attr::NODEV)),
    ("nodiratime", on(attr::NODIRATIME)),
    ("noexec", on(attr::NOEXEC)),
    ("noiversion", IVersion(false)),
    ("nolazytime", Super("nolazytime")),
    ("nomand", Super("nomand")),
    // relatime, the kernel's default, is the field's 0.
    ("norelatime", NotAtime(0)),
    ("nostrictatime", NotAtime(attr::STRICTATIME)),
    ("nosuid", on(attr::NOSUID)),
    ("nosymfollow", on(attr::NOSYMFOLLOW)),
    ("private", Propagation(self::Propagation::Private, false)),
    // Of crun's: a super block has nothing below it, so they are the same as without the r.
    ("rasync", Super("async")),
    // Here there is no "not": all of them return to the kernel's default, relatime.
    ("ratime", atime(0, true)),
    ("rbind", Bind { recursive: true }),
    ("rdev", roff(attr::NODEV)),
    ("rdiratime", roff(attr::NODIRATIME)),
    ("rdirsync", Super("dirsync")),
    ("relatime", atime(0, false)),
    ("remount", Remount),
    ("rexec", roff(attr::NOEXEC)),
    ("ridmap", Idmap { recursive: true }),
    ("rmand", Super("mand")),
    ("rnoatime", atime(attr::NOATIME, true)),
    ("rnodev", ron(attr::NODEV)),
    ("rnodiratime", ron(attr::NODIRATIME)),
    ("rnoexec", ron(attr::NOEXEC)),
    ("rnomand", Super("nomand")),
    ("rnorelatime", atime(0, true)),
    ("rnostrictatime", atime(0, true)),
    ("rnosuid", ron(attr::NOSUID)),
    ("rnosymfollow", ron(attr::NOSYMFOLLOW)),
    ("ro", on(attr::RDONLY)),
    ("rprivate", Propagation(self::Propagation::Private, true)),
    ("rrelatime", atime(0, true)),
    ("rro", ron(attr::RDONLY)),
    ("rrw", roff(attr::RDONLY)),
    ("rshared", Propagation(self::Propagation::Shared, true)),
    ("rslave", Propagation(self::Propagation::Slave, true)),
    ("rstrictatime", atime(attr::STRICTATIME, true)),
    ("rsuid", roff(attr::NOSUID)),
    ("rsymfollow", roff(attr::NOSYMFOLLOW)),
    ("rsync", Super("sync")),
    ("runbindable", Propagation(self::Propagation::Unbindable, true)),
    ("rw", off(attr::RDONLY)),
    ("shared", Propagation(self::Propagation::Shared, false)),
    ("silent", Nothing),
    ("slave", Propagation(self::Propagation::Slave, false)),
    ("src-nofollow", Link(super::links::LinkOption::Source)),
    ("strictatime", atime(attr::STRICTATIME, false)),
    ("suid", off(attr::NOSUID)),
    ("symfollow", off(attr::NOSYMFOLLOW)),
    ("sync", Super("sync")),
    ("tmpcopyup", TmpCopyUp),
    ("unbindable", Propagation(self::Propagation::Unbindable, false)),
];

/// The names of all options, for `rrt features`.
pub fn names() -> Vec<&'static str> {
    TABLE.iter().map(|(name, _)| *name).collect()
}

/// A mount's `options`, sorted by what they act on. A later option wins over an earlier one, as in mount(8).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MountOptions {
    /// `MOUNT_ATTR_*` to set on the mount itself.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MOUNT_ATTR_*` to clear where the kernel lets us; see [`MountOptions::reset_unnamed`].
    #[serde(skip_serializing_if = "is_zero")]
    pub clear_unnamed: u64,
    /// `atime`, `diratime`, `norelatime` or `nostrictatime`: sets nothing, but is an option of the mount's own attributes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not_atime: bool,
    /// The same, for the mount and all below it.
    pub rec_set: u64,
    /// See `rec_set`.
    pub rec_clear: u64,
    /// Options of the super block (`sync`, `lazytime`, …).
    pub super_block: Vec<String>,
    /// `iversion` (true) or `noiversion` (false).
    pub iversion: Option<bool>,
    /// `bind` (false) or `rbind` (true).
    pub bind: Option<bool>,
    /// Propagation changes in order, with their recursion.
    #[serde(serialize_with = "propagation_text")]
    pub propagation: Vec<(Propagation, bool)>,
    /// `remount`
    pub remount: bool,
    /// `tmpcopyup`
    pub tmpcopyup: bool,
    /// `copy-symlink`, `src-nofollow`, `dest-nofollow`
    #[serde(skip_serializing_if = "Links::is_default")]
    pub links: Links,
    /// `idmap`, `ridmap`
    pub idmap: Option<IdmapOption>,
    /// SELinux label of the root directory, from `linux.mountLabel`, where it cannot be an option.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_label: Option<String>,
    /// What the table does not know: data of the file system, `key` or `key=value`.
    pub data: Vec<String>,
}

fn is_zero(bits: &u64) -> bool {
    *bits == 0
}

fn propagation_text<S: serde::Serializer>(p: &[(Propagation, bool)], s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_seq(p.iter().map(|(p, rec)| format!("{}{p:?}", if *rec { "r" } else { "" }).to_lowercase()))
}

impl MountOptions {
    /// Sorts `options`; `property` is the mount's name in errors, `mounts[3]`.
    pub fn parse(options: &[String], property: &str) -> Result<MountOptions> {
        let mut o = MountOptions::default();
        for name in options {
            let (key, value) = split_idmap(name);
            let Ok(found) = TABLE.binary_search_by_key(&key, |(n, _)| n) else {
                if !name.is_empty() {
                    o.data.push(name.clone());
                }
                continue;
            };
            match TABLE[found].1 {
                Attr { set, clear } => merge(&mut o.set, &mut o.clear, set, clear),
                NotAtime(value) => o.take_back_atime(value),
                RecAttr { set, clear } => merge(&mut o.rec_set, &mut o.rec_clear, set, clear),
                Super(key) => o.super_block.push(key.to_string()),
                IVersion(yes) => o.iversion = Some(yes),
                Bind { recursive } => o.bind = Some(recursive || o.bind.unwrap_or(false)),
                Propagation(p, recursive) => o.propagation.push((p, recursive)),
                Remount => o.remount = true,
                TmpCopyUp => o.tmpcopyup = true,
                Link(option) => o.links.add(option),
                Idmap { recursive } => o.idmap = Some(IdmapOption { recursive, mapping: value.map(Into::into) }),
                Nothing => {}
            }
        }
        // As with mount(2), to which nodiratime is an access-time setting: whoever names one names all of them. By itself nodiratime
        // is relatime, too, and with another one directories have access times unless it is named.
        if o.set & attr::NODIRATIME != 0 {
            o.clear |= attr::ATIME;
        } else if o.clear & attr::ATIME != 0 {
            o.clear |= attr::NODIRATIME;
        }
        if o.bind.is_some() {
            o.refuse_file_system_options(options, property)?;
        }
        Ok(o)
    }

    fn take_back_atime(&mut self, value: u64) {
        self.not_atime = true;
        if value == attr::NODIRATIME {
            self.set &= !attr::NODIRATIME;
        } else if self.clear & attr::ATIME != 0 && self.set & attr::ATIME == value {
            self.set &= !attr::ATIME;
            self.clear &= !attr::ATIME;
        }
    }

    /// For a bind mount: with an option for the mount's own attributes, the others are as on a new mount, not as its source has
    /// them; with none, all are the source's. So it is in runc, and engines count on it: a `ro` volume from a `noexec` file system
    /// can be executed from. The access time stays the source's unless it is named.
    pub fn reset_unnamed(&mut self) {
        use attr::{NODEV, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY};
        let named = self.set | self.clear;
        if named != 0 || self.not_atime {
            self.clear_unnamed = (RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW) & !named;
        }
    }

    /// A bind mount shares its source's super block: an option of the super block would change the source for all others, and
    /// data that nobody reads would be silence (spec: SHOULD be an error).
    fn refuse_file_system_options(&self, options: &[String], property: &str) -> Result<()> {
        let offending = options.iter().find(|o| {
            let (key, _) = split_idmap(o);
            match TABLE.binary_search_by_key(&key, |(n, _)| n).map(|i| TABLE[i].1) {
                Ok(Super(effect)) => !matches!(effect, "async" | "nomand"),
                Ok(_) => false,
                Err(_) => !o.is_empty(),
            }
        });
        match offending {
            Some(option) if !self.remount => Err(config(
                format!("{property}.options"),
                format!("{option:?} is an option of a file system and cannot be given to a bind mount; remove it"),
            )),
            _ => Ok(()),
        }
    }
}

/// The options as they act, in the table's own words: `rrt plan` prints them.
impl std::fmt::Display for MountOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut words: Vec<String> = Vec::new();
        for (name, effect) in TABLE {
            let shown = match *effect {
                Attr { set, clear: 0 } => set != 0 && self.set & set == set,
                Attr { set, clear: attr::ATIME } => set != 0 && self.set & attr::ATIME == set,
                RecAttr { set, clear: 0 } => set != 0 && self.rec_set & set == set,
                RecAttr { set: 0, clear } => clear != attr::ATIME && self.rec_clear & clear == clear,
                RecAttr { set, .. } => set != 0 && self.rec_set & attr::ATIME == set,
                Propagation(p, recursive) => self.propagation.contains(&(p, recursive)),
                IVersion(yes) => self.iversion == Some(yes),
                TmpCopyUp => self.tmpcopyup,
                Link(option) => self.links.has(option),
                _ => false,
            };
            if shown {
                words.push((*name).into());
            }
        }
        words.extend(self.super_block.iter().chain(&self.data).cloned());
        words.extend(self.root_label.as_ref().map(|label| format!("root labelled {label}")));
        f.write_str(&words.join(","))
    }
}

/// `idmap=…` is the only option of the table that has a value.
fn split_idmap(option: &str) -> (&str, Option<&str>) {
    match option.split_once('=') {
        Some((key @ ("idmap" | "ridmap"), value)) => (key, Some(value)),
        _ => (option, None),
    }
}

fn merge(set: &mut u64, clear: &mut u64, on: u64, off: u64) {
    *set = (*set & !off) | on;
    // A bit to be set stays in `clear` only as part of the access-time field, which the kernel wants so.
    *clear = (*clear & !(on & !attr::ATIME)) | off;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> MountOptions {
        let options: Vec<String> = options.iter().map(|s| s.to_string()).collect();
        MountOptions::parse(&options, "mounts[0]").unwrap()
    }

    #[test]
    fn the_table_is_sorted_and_has_the_whole_specification() {
        assert!(TABLE.is_sorted_by_key(|(n, _)| *n));
        // 61 of the specification's table; `rnodev`, which the table forgets and all runtimes take; and 8 of crun's.
        assert_eq!(TABLE.len(), 70);
    }

    #[test]
    fn a_later_option_wins() {
        assert_eq!((parse(&["ro", "rw"]).set, parse(&["ro", "rw"]).clear), (0, attr::RDONLY));
        assert_eq!((parse(&["rw", "ro"]).set, parse(&["rw", "ro"]).clear), (attr::RDONLY, 0));
        let o = parse(&["noatime", "strictatime"]);
        assert_eq!((o.set, o.clear), (attr::STRICTATIME, attr::ATIME | attr::NODIRATIME));
        let o = parse(&["noatime", "relatime"]);
        assert_eq!((o.set, o.clear), (0, attr::ATIME | attr::NODIRATIME));
    }

    #[test]
    fn an_access_time_is_taken_back_and_not_changed() {
        let others = attr::ATIME | attr::NODIRATIME;
        for (options, set, clear) in [
            (&["atime"][..], 0, 0),
            (&["noatime", "atime"], 0, 0),
            (&["noatime", "norelatime"], attr::NOATIME, others),
            (&["strictatime", "nostrictatime"], 0, 0),
            (&["relatime", "norelatime"], 0, 0),
            (&["relatime", "atime"], 0, others),
            (&["nodiratime"], attr::NODIRATIME, attr::ATIME),
            (&["nodiratime", "norelatime"], attr::NODIRATIME, attr::ATIME),
            (&["nodiratime", "diratime"], 0, 0),
            (&["nodiratime", "noatime"], attr::NODIRATIME | attr::NOATIME, attr::ATIME),
        ] {
            let o = parse(options);
            assert_eq!((o.set, o.clear), (set, clear), "{options:?}");
        }
        let mut o = parse(&["bind", "norelatime"]);
        o.reset_unnamed();
        assert_ne!(o.clear_unnamed, 0);
    }

    #[test]
    fn the_unknown_is_data_but_not_on_a_bind() {
        assert_eq!(parse(&["size=64k", "mode=755", "nosuid"]).data, ["size=64k", "mode=755"]);
        let e = MountOptions::parse(&["rbind".into(), "size=1m".into()], "mounts[0]").unwrap_err();
        assert!(e.to_string().contains("mounts[0].options") && e.to_string().contains("size=1m"), "{e}");
        assert!(MountOptions::parse(&["bind".into(), "sync".into()], "mounts[0]").is_err());
        let e = MountOptions::parse(&["bind".into(), "rsync".into()], "mounts[0]").unwrap_err();
        assert!(e.to_string().contains("\"rsync\""), "{e}");
        assert!(parse(&["rbind", "rasync", "rnomand"]).bind.is_some());
        assert_eq!(parse(&["rsync", "rdirsync", "rmand"]).super_block, ["sync", "dirsync", "mand"]);
    }

    #[test]
    fn recursive_and_plain_are_kept_apart() {
        let o = parse(&["rbind", "rro", "nosuid", "rslave"]);
        assert_eq!((o.rec_set, o.set, o.bind), (attr::RDONLY, attr::NOSUID, Some(true)));
        assert_eq!(o.propagation, [(self::Propagation::Slave, true)]);
    }
}
