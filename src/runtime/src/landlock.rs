//! `run.rrt.landlock`: rules that the container's processes cannot lift, whoever they are inside: which files, TCP ports and
//! processes they can reach (landlock(7)). The annotation's value is JSON:
//!
//! ```json
//! {
//!   "paths": [
//!     { "path": "/", "allow": ["read", "execute"] },
//!     { "path": ["/tmp", "/data"], "allow": ["all"] }
//!   ],
//!   "tcp": { "bind": [8080], "connect": [443] },
//!   "scope": ["signal", "abstract_unix_socket"],
//!   "bestEffort": false
//! }
//! ```
//!
//! * `paths`: files of the container, or directories with all below them. Given, every use of a file is denied but those a rule
//!   allows. The rights are the kernel's in lower case (`read_file`, `make_dir`, …), and the words `read` (files and directories),
//!   `write` (files, and making, moving and removing them) and `all`.
//! * `handled`: the rights to be denied at all; by default each that this runtime knows.
//! * `tcp`: the ports that can be bound or connected to; a list not given leaves that free. `[]` is none.
//! * `scope`: `signal`: no signal to processes outside; `abstract_unix_socket`: no connection to such sockets outside.
//! * `bestEffort`: what this kernel has not is left out with a warning, and so are paths that do not exist. Without it both are errors.
//!
//! The rules hold from before the ids are changed on, so also for startContainer hooks, and for `exec`.

use crate::annotations::property;
use crate::error::{Doing, Error, Result, config};
use rrt_sys::landlock::{self, Handled};
use rrt_sys::path::{self, Root};
use rrt_sys::{OFlags, errno};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// The annotation's name.
pub const ANNOTATION: &str = "run.rrt.landlock";

/// A right: its name, its bit, the ABI that brought it.
type Right = (&'static str, u64, u32);

/// `LANDLOCK_ACCESS_FS_*`
const FS: [Right; 16] = [
    ("execute", 1, 1),
    ("write_file", 1 << 1, 1),
    ("read_file", 1 << 2, 1),
    ("read_dir", 1 << 3, 1),
    ("remove_dir", 1 << 4, 1),
    ("remove_file", 1 << 5, 1),
    ("make_char", 1 << 6, 1),
    ("make_dir", 1 << 7, 1),
    ("make_reg", 1 << 8, 1),
    ("make_sock", 1 << 9, 1),
    ("make_fifo", 1 << 10, 1),
    ("make_block", 1 << 11, 1),
    ("make_sym", 1 << 12, 1),
    ("refer", 1 << 13, 2),
    ("truncate", 1 << 14, 3),
    ("ioctl_dev", 1 << 15, 5),
];
/// Words for several.
const FS_WORDS: [(&str, u64); 3] = [
    ("all", (1 << 16) - 1),
    ("read", 1 << 2 | 1 << 3),
    ("write", 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 14),
];
/// Those that a file can have; the kernel refuses the others for it.
const OF_A_FILE: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15;
/// `LANDLOCK_ACCESS_NET_*`
const TCP: [Right; 2] = [("tcp.bind", 1, 4), ("tcp.connect", 2, 4)];
/// `LANDLOCK_SCOPE_*`
const SCOPE: [Right; 2] = [("abstract_unix_socket", 1, 6), ("signal", 2, 6)];

/// The rules of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LandlockPlan {
    /// Leave out what the kernel has not.
    pub best_effort: bool,
    /// The file rights that are denied but where a rule allows them.
    pub fs: u64,
    /// The same of TCP.
    pub tcp: u64,
    /// What is denied altogether.
    pub scope: u64,
    /// Paths in the container, and what is allowed there and below.
    pub paths: Vec<(PathBuf, u64)>,
    /// Ports, and what is allowed with them.
    pub ports: Vec<(u16, u64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Given {
    #[serde(default)]
    best_effort: bool,
    handled: Option<Vec<String>>,
    paths: Option<Vec<GivenPath>>,
    #[serde(default)]
    tcp: GivenTcp,
    #[serde(default)]
    scope: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenPath {
    path: OneOrMore,
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenTcp {
    bind: Option<Vec<u16>>,
    connect: Option<Vec<u16>>,
}

impl LandlockPlan {
    /// Reads the annotation; `None` without it.
    ///
    /// # Errors
    /// [`Error::Config`], with the annotation and the place in it.
    pub fn new(annotations: &BTreeMap<String, String>) -> Result<Option<LandlockPlan>> {
        let Some(text) = annotations.get(ANNOTATION) else { return Ok(None) };
        let given: Given =
            serde_json::from_slice(text.as_bytes()).map_err(|e| wrong(format!("not the JSON it should be: {e}")))?;
        let mut plan = LandlockPlan {
            best_effort: given.best_effort,
            fs: 0,
            tcp: 0,
            scope: 0,
            paths: Vec::new(),
            ports: Vec::new(),
        };
        if let Some(names) = &given.handled {
            plan.fs = bits(names, "handled", &FS, &FS_WORDS)?;
        } else if given.paths.is_some() {
            plan.fs = FS_WORDS[0].1;
        }
        for (i, rule) in given.paths.into_iter().flatten().enumerate() {
            plan.add_paths(i, rule, given.handled.is_some())?;
        }
        for (ports, (_, bit, _)) in [given.tcp.bind, given.tcp.connect].into_iter().zip(TCP) {
            plan.tcp |= if ports.is_some() { bit } else { 0 };
            plan.ports.extend(ports.into_iter().flatten().map(|port| (port, bit)));
        }
        plan.scope = bits(&given.scope, "scope", &SCOPE, &[])?;
        if (plan.fs, plan.tcp, plan.scope) == (0, 0, 0) {
            return Err(wrong("restricts nothing; give paths, tcp or scope, or remove the annotation"));
        }
        Ok(Some(plan))
    }

    fn add_paths(&mut self, i: usize, rule: GivenPath, chosen: bool) -> Result<()> {
        let access = bits(&rule.allow, &format!("paths[{i}].allow"), &FS, &FS_WORDS)?;
        let only_words = rule.allow.iter().all(|name| FS_WORDS.iter().any(|(word, _)| word == name));
        if access & !self.fs != 0 && chosen && !only_words {
            return Err(wrong(format!("paths[{i}].allow: has a right that is not in \"handled\"; add it there")));
        }
        let paths = match rule.path {
            OneOrMore::One(path) => vec![path],
            OneOrMore::More(paths) => paths,
        };
        for path in paths {
            if !path.is_absolute() {
                return Err(wrong(format!("paths[{i}].path: {path:?} is not an absolute path of the container")));
            }
            self.paths.push((path, access & self.fs));
        }
        Ok(())
    }

    /// Parent, before there is a child: fits the rules to this kernel. Returns what it has not, for a warning.
    ///
    /// # Errors
    /// [`Error::Config`] when it lacks something and `bestEffort` is not given.
    pub fn fit(&mut self) -> Result<Option<String>> {
        let (abi, why) = match landlock::abi() {
            Ok(abi) => (abi, format!("Landlock here is of ABI {abi}")),
            Err(e) => (0, format!("this kernel has no Landlock, or it is switched off ({e})")),
        };
        let lost = self.without(abi);
        match (lost.is_empty(), self.best_effort) {
            (true, _) => Ok(None),
            (false, true) => Ok(Some(format!("{}: {why}: without {}", property(ANNOTATION), lost.join(", ")))),
            (false, false) => {
                let cure = "set \"bestEffort\": true to do without, or name other rights in \"handled\"";
                Err(wrong(format!("{why}, and lacks {}; {cure}", lost.join(", "))))
            }
        }
    }

    /// Takes out what an ABI lacks, and names it.
    fn without(&mut self, abi: u32) -> Vec<&'static str> {
        let mut lost = Vec::new();
        for (given, rights) in [(&mut self.fs, &FS[..]), (&mut self.tcp, &TCP), (&mut self.scope, &SCOPE)] {
            for (name, bit, since) in rights {
                if *given & bit != 0 && *since > abi {
                    *given &= !bit;
                    lost.push(*name);
                }
            }
        }
        lost
    }

    /// Child, in the container, while files may still be opened and CAP_SYS_ADMIN is there: puts itself under the rules.
    pub fn restrict(&self) -> Result<()> {
        let handled = Handled { fs: self.fs, net: self.tcp, scoped: self.scope };
        if handled == Handled::default() {
            return Ok(());
        }
        let doing = || property(ANNOTATION);
        let ruleset = landlock::create_ruleset(handled).doing(doing)?;
        let root = Root::open(Path::new("/")).doing(doing)?;
        for (path, access) in &self.paths {
            let doing = || format!("{}: allow {path:?}", property(ANNOTATION));
            let place = match root.open_at(path, OFlags::PATH) {
                Err(e) if self.best_effort && e.is(errno::ENOENT) => continue,
                place => place.doing(doing)?,
            };
            let possible = if path::is_dir(&place).doing(doing)? { u64::MAX } else { OF_A_FILE };
            let access = access & self.fs & possible;
            // No right is none to be given: the kernel refuses such a rule.
            if access != 0 {
                landlock::allow_path(ruleset.as_fd(), place.as_fd(), access).doing(doing)?;
            }
        }
        for (port, access) in self.ports.iter().map(|(port, access)| (*port, access & self.tcp)) {
            if access != 0 {
                landlock::allow_port(ruleset.as_fd(), port, access).doing(doing)?;
            }
        }
        landlock::restrict_self(ruleset.as_fd()).doing(doing)
    }
}

/// For `rrt plan`: a line each.
impl std::fmt::Display for LandlockPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let effort = if self.best_effort { ", as far as the kernel can" } else { "" };
        writeln!(f, "  landlock denies {}{effort}", names(self.fs, self.tcp, self.scope))?;
        for (path, access) in &self.paths {
            writeln!(f, "  landlock allows {} {}", path.display(), names(*access, 0, 0))?;
        }
        for (port, access) in &self.ports {
            writeln!(f, "  landlock allows port {port} {}", names(0, *access, 0))?;
        }
        Ok(())
    }
}

fn names(fs: u64, tcp: u64, scope: u64) -> String {
    let of = |bits: u64, rights: &'static [Right]| rights.iter().filter(move |r| bits & r.1 != 0).map(|r| r.0);
    let fs = if fs == FS_WORDS[0].1 { vec!["all"] } else { of(fs, &FS).collect() };
    fs.into_iter().chain(of(tcp, &TCP)).chain(of(scope, &SCOPE)).collect::<Vec<_>>().join(",")
}

fn wrong(problem: impl Into<String>) -> Error {
    config(property(ANNOTATION), problem)
}

fn bits(names: &[String], at: &str, rights: &[Right], words: &[(&str, u64)]) -> Result<u64> {
    let all = || words.iter().map(|w| w.0).chain(rights.iter().map(|r| r.0)).collect::<Vec<_>>().join(", ");
    names.iter().enumerate().try_fold(0, |bits, (i, name)| {
        let known = rights.iter().map(|r| (r.0, r.1)).chain(words.iter().copied());
        match known.into_iter().find(|(known, _)| known == name) {
            Some((_, bit)) => Ok(bits | bit),
            None => Err(wrong(format!("{at}[{i}]: {name:?} is none of {}", all()))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<LandlockPlan> {
        LandlockPlan::new(&BTreeMap::from([(ANNOTATION.to_owned(), json.to_owned())])).map(Option::unwrap)
    }

    #[test]
    fn words_and_names_become_bits() {
        let p = plan(
            r#"{"paths":[{"path":"/","allow":["read","execute"]},{"path":["/a","/b"],"allow":["all"]}],
                "tcp":{"connect":[443]},"scope":["signal"]}"#,
        )
        .unwrap();
        assert_eq!((p.fs, p.tcp, p.scope, p.best_effort), (0xffff, 2, 2, false));
        assert_eq!(p.paths, [("/".into(), 0b1101), ("/a".into(), 0xffff), ("/b".into(), 0xffff)]);
        assert_eq!(p.ports, [(443, 2)]);
        let text = p.to_string();
        assert!(
            text.contains("denies all,tcp.connect,signal") && text.contains("allows / execute,read_file"),
            "{text}"
        );
        let p = plan(r#"{"handled":["execute"],"paths":[{"path":"/bin","allow":["all"]}]}"#).unwrap();
        assert_eq!((p.fs, &p.paths[0].1), (1, &1));
        assert_eq!(plan(r#"{"tcp":{"bind":[]}}"#).unwrap().tcp, 1);
    }

    #[test]
    fn an_older_kernel_lacks_the_newer_rights() {
        let all = r#"{"paths":[],"tcp":{"bind":[],"connect":[]},"scope":["signal","abstract_unix_socket"]}"#;
        for (abi, lost, fs) in
            [(7, 0, 0xffff), (5, 2, 0xffff), (4, 3, 0x7fff), (3, 5, 0x7fff), (1, 7, 0x1fff), (0, 20, 0)]
        {
            let mut p = plan(all).unwrap();
            assert_eq!((p.without(abi).len(), p.fs), (lost, fs), "ABI {abi}");
        }
    }

    #[test]
    fn bad_rules_are_named() {
        for (json, expected) in [
            ("", "not the JSON it should be"),
            ("{}", "restricts nothing"),
            (r#"{"path":[]}"#, "unknown field `path`"),
            (r#"{"paths":[{"path":"a","allow":[]}]}"#, "paths[0].path: \"a\" is not an absolute path"),
            (r#"{"paths":[{"path":"/a","allow":["reed"]}]}"#, "paths[0].allow[0]: \"reed\" is none of all, read"),
            (r#"{"paths":[{"path":"/a","allow":["read_dir"]}],"handled":["execute"]}"#, "not in \"handled\""),
            (r#"{"scope":["signals"]}"#, "scope[0]: \"signals\""),
            (r#"{"tcp":{"bind":[70000]}}"#, "line 1 column"),
        ] {
            let text = plan(json).unwrap_err().to_string();
            assert!(
                text.starts_with(r#"annotations["run.rrt.landlock"]: "#) && text.contains(expected),
                "{json}: {text}"
            );
        }
    }
}
