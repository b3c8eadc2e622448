//! Device rules: what a container may do with which device nodes, whoever made them.
//!
//! The list starts from "nothing is allowed" (as in runc, whatever the parent cgroup allows) and the last rule that
//! matches a device and an access decides about that access. cgroup v2 takes the list as a program
//! ([`crate::bpf`]) that does just this. cgroup v1 keeps one default and a set of exceptions from it instead, so the
//! list is folded into that form here, or refused where the form cannot express it.

use crate::Error;
use rrt_oci::{LinuxDeviceCgroup, LinuxDeviceType};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which accesses a rule is about; the bits are the kernel's `BPF_DEVCG_ACC_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access(u8);

impl Access {
    /// Make a node with mknod(2).
    pub const MKNOD: Access = Access(1);
    /// Read from it.
    pub const READ: Access = Access(2);
    /// Write to it.
    pub const WRITE: Access = Access(4);
    /// All three.
    pub const ALL: Access = Access(7);

    /// The bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Parses `rwm` in any order.
    fn parse(text: &str) -> Option<Access> {
        let mut bits = 0;
        for c in text.chars() {
            bits |= match c {
                'r' => Self::READ.0,
                'w' => Self::WRITE.0,
                'm' => Self::MKNOD.0,
                _ => return None,
            };
        }
        (bits != 0).then_some(Access(bits))
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            if self.0 & bit.0 != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// Which kind of device node a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Both.
    All,
    /// Character devices.
    Char,
    /// Block devices.
    Block,
}

impl DeviceKind {
    fn letter(self) -> char {
        match self {
            DeviceKind::All => 'a',
            DeviceKind::Char => 'c',
            DeviceKind::Block => 'b',
        }
    }

    fn contains(self, other: DeviceKind) -> bool {
        self == DeviceKind::All || self == other
    }
}

/// One rule, as an element of `linux.resources.devices`. In a state file it is text, `allow c 1:3 rwm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DeviceRule {
    /// Whether the accesses are allowed or denied.
    pub allow: bool,
    /// Kind of the nodes.
    pub kind: DeviceKind,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// The accesses.
    pub access: Access,
}

impl DeviceRule {
    /// A rule that allows `access` to one device (or to many, with `None`).
    pub const fn allow(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: Access) -> DeviceRule {
        DeviceRule { allow: true, kind, major, minor, access }
    }

    /// Reads element `index` of `linux.resources.devices` (runtime-spec, config-linux.md, "Allowed Device list"). A
    /// missing type is `a`; a missing number, or -1, is every number.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a type other than a, b and c, a missing or unknown access, a number out of range.
    pub fn from_spec(index: usize, rule: &LinuxDeviceCgroup) -> Result<DeviceRule, Error> {
        let property = |name: &str| format!("linux.resources.devices[{index}].{name}");
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => DeviceKind::All,
            Some(LinuxDeviceType::C) => DeviceKind::Char,
            Some(LinuxDeviceType::B) => DeviceKind::Block,
            Some(other) => {
                return Err(Error::invalid(property("type"), format!("{:?} is none of a, b and c", other.as_str())));
            }
        };
        let access = rule.access().as_deref().unwrap_or_default();
        let Some(access) = Access::parse(access) else {
            return Err(Error::invalid(property("access"), format!("{access:?} must be one or more of r, w and m")));
        };
        let number = |name, value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(n) => u32::try_from(n)
                .map(Some)
                .map_err(|_| Error::invalid(property(name), format!("{n} is no device number (-1 means every one)"))),
        };
        let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
        Ok(DeviceRule { allow: rule.allow(), kind, major, minor, access })
    }

    /// Reads a rule as people write it, `[allow|deny] TYPE MAJOR:MINOR ACCESS`: `c 10:200 rwm`, `deny b 8:* w`. Without the first word it
    /// is allowed, as with Docker's `--device-cgroup-rule`; `*` is every number. `None` when it is none.
    pub fn parse(text: &str) -> Option<DeviceRule> {
        let mut words = text.split_whitespace().peekable();
        let verdict = words.next_if(|w| matches!(*w, "allow" | "deny"));
        let kind = match words.next()? {
            "a" => DeviceKind::All,
            "c" => DeviceKind::Char,
            "b" => DeviceKind::Block,
            _ => return None,
        };
        let number = |text: &str| match text {
            "*" => Some(None),
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().map(Some),
            _ => None,
        };
        let (major, minor) = words.next()?.split_once(':')?;
        let access = Access::parse(words.next()?)?;
        let rule =
            DeviceRule { allow: verdict != Some("deny"), kind, major: number(major)?, minor: number(minor)?, access };
        words.next().is_none().then_some(rule)
    }

    /// Whether nothing is left to decide for `earlier`, a rule before it.
    pub(crate) fn decides_all_of(&self, earlier: &DeviceRule) -> bool {
        self.covers(earlier) && earlier.access.0 & !self.access.0 == 0
    }

    /// What is left of its accesses, as an exception, when another for the same devices has some of them.
    pub(crate) fn without_same(self, other: &DeviceRule) -> Option<DeviceRule> {
        let same = self.covers(other) && other.covers(&self);
        let access = Access(if same { self.access.0 & !other.access.0 } else { self.access.0 });
        (access.0 != 0).then_some(DeviceRule { access, ..self })
    }

    /// Whether it decides about everything, so that no rule before it matters.
    fn is_total(&self) -> bool {
        self.kind == DeviceKind::All && self.major.is_none() && self.minor.is_none() && self.access == Access::ALL
    }

    /// Whether every device of `other` is one of its own.
    fn covers(&self, other: &DeviceRule) -> bool {
        self.kind.contains(other.kind)
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }

    /// Whether some device is matched by both.
    fn meets(&self, other: &DeviceRule) -> bool {
        let number = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        (self.kind.contains(other.kind) || other.kind == DeviceKind::All)
            && number(self.major, other.major)
            && number(self.minor, other.minor)
    }
}

impl From<DeviceRule> for String {
    fn from(rule: DeviceRule) -> String {
        format!("{} {rule}", if rule.allow { "allow" } else { "deny" })
    }
}

impl TryFrom<String> for DeviceRule {
    type Error = String;

    fn try_from(text: String) -> Result<DeviceRule, String> {
        DeviceRule::parse(&text).ok_or_else(|| format!("{text:?} is no device rule"))
    }
}

/// As the line of a v1 `devices.allow` file, without the verdict: `c 1:3 rwm`.
impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(f, "{} {}:{} {}", self.kind.letter(), number(self.major), number(self.minor), self.access)
    }
}

/// The rules that matter, and the verdict when none of them matches: what comes before a rule about everything is gone.
pub(crate) fn relevant(rules: &[DeviceRule]) -> (bool, &[DeviceRule]) {
    match rules.iter().rposition(DeviceRule::is_total) {
        Some(i) => (rules[i].allow, &rules[i + 1..]),
        None => (false, rules),
    }
}

/// A rule list in the form of the v1 devices controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DevicesV1 {
    /// What happens to a device without exception.
    pub(crate) allow_by_default: bool,
    /// Exceptions from the default: lines for `devices.allow` (or `devices.deny` when all is allowed by default).
    pub(crate) exceptions: Vec<String>,
}

/// Folds a rule list into a default and exceptions from it.
///
/// # Errors
/// [`Error::Invalid`] when a rule takes away a part of an earlier, wider one. The kernel would ignore such a line
/// without a word, so the device would stay open (runc refuses it too).
pub(crate) fn fold_v1(rules: &[DeviceRule]) -> Result<DevicesV1, Error> {
    let (allow_by_default, rules) = relevant(rules);
    let mut exceptions: Vec<DeviceRule> = Vec::with_capacity(rules.len());
    for rule in rules.iter().flat_map(split_kind) {
        if rule.allow != allow_by_default {
            add(&mut exceptions, rule);
            continue;
        }
        for old in &mut exceptions {
            if old.access.0 & rule.access.0 == 0 || !rule.meets(old) {
                continue;
            }
            if !rule.covers(old) {
                let verb = if rule.allow { "allow" } else { "deny" };
                return Err(Error::invalid(
                    "linux.resources.devices",
                    format!(
                        "cgroup v1 cannot {verb} \"{rule}\" as a part of the earlier \"{old}\"; name the devices one \
                         by one instead"
                    ),
                ));
            }
            old.access.0 &= !rule.access.0;
        }
        exceptions.retain(|e| e.access.0 != 0);
    }
    Ok(DevicesV1 { allow_by_default, exceptions: exceptions.iter().map(ToString::to_string).collect() })
}

/// An `a` rule that is not about everything becomes two: the kernel takes every line that begins with `a`, whatever its
/// numbers and accesses, as "all devices", which is more than was asked for.
fn split_kind(rule: &DeviceRule) -> impl Iterator<Item = DeviceRule> + use<> {
    let rule = *rule;
    let kinds: &[DeviceKind] = match rule.kind {
        DeviceKind::All => &[DeviceKind::Char, DeviceKind::Block],
        DeviceKind::Char => &[DeviceKind::Char],
        DeviceKind::Block => &[DeviceKind::Block],
    };
    kinds.iter().map(move |&kind| DeviceRule { kind, ..rule })
}

/// Adds an exception, merged with the one for the same devices: v1 wants one exception to hold all accesses of an
/// open(2), so `r` and `w` apart would not let `O_RDWR` pass.
fn add(exceptions: &mut Vec<DeviceRule>, rule: DeviceRule) {
    match exceptions.iter_mut().find(|e| e.covers(&rule) && rule.covers(e)) {
        Some(same) => same.access.0 |= rule.access.0,
        None => exceptions.push(rule),
    }
}

/// The verdict of a rule list on one use of a device: the meaning of the list, which the tests hold the v1 form and the
/// v2 program against.
#[cfg(test)]
pub(crate) fn allowed(rules: &[DeviceRule], kind: DeviceKind, major: u32, minor: u32, access: u8) -> bool {
    [Access::MKNOD, Access::READ, Access::WRITE].iter().filter(|bit| access & bit.0 != 0).all(|bit| {
        let device = DeviceRule { allow: true, kind, major: Some(major), minor: Some(minor), access: *bit };
        let last = rules.iter().rev().find(|r| r.covers(&device) && r.access.0 & bit.0 != 0);
        last.is_some_and(|r| r.allow)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, random_rules};

    fn rule(text: &str) -> DeviceRule {
        let mut words = text.split_whitespace();
        let allow = words.next() == Some("allow");
        let kind = match words.next() {
            Some("c") => DeviceKind::Char,
            Some("b") => DeviceKind::Block,
            _ => DeviceKind::All,
        };
        let (major, minor) = words.next().unwrap().split_once(':').unwrap();
        let number = |s: &str| s.parse().ok();
        let access = Access::parse(words.next().unwrap()).unwrap();
        DeviceRule { allow, kind, major: number(major), minor: number(minor), access }
    }

    fn fold(lines: &[&str]) -> Result<DevicesV1, Error> {
        fold_v1(&lines.iter().map(|l| rule(l)).collect::<Vec<_>>())
    }

    #[test]
    fn rules_as_people_write_them() {
        for text in ["allow c 10:200 rwm", "deny b 8:* w", "allow a *:* rm", "deny c *:4294967295 r"] {
            let rule = DeviceRule::parse(text).unwrap();
            assert_eq!(String::from(rule), text);
            assert_eq!(serde_json::from_str::<DeviceRule>(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
        }
        assert!(DeviceRule::parse("c 1:3 r").unwrap().allow);
        let bad = ["", "c", "c 1:3", "c 1 r", "p 1:3 r", "c 1:3 rx", "c -1:3 r", "c +1:3 r", "c 1:3 r w", "c :3 r"];
        for text in bad.into_iter().chain(["allow deny c 1:3 r", "c 4294967296:0 r", "Allow c 1:3 r"]) {
            assert_eq!(DeviceRule::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn without_rules_nothing_is_allowed() {
        assert_eq!(fold(&[]).unwrap(), DevicesV1 { allow_by_default: false, exceptions: vec![] });
    }

    #[test]
    fn the_usual_list_folds_into_exceptions() {
        let folded =
            fold(&["allow c 9:9 rwm", "deny a *:* rwm", "allow c 1:3 rw", "allow c 1:3 m", "allow a 8:* r"]).unwrap();
        assert!(!folded.allow_by_default);
        assert_eq!(folded.exceptions, ["c 1:3 rwm", "c 8:* r", "b 8:* r"]);
    }

    #[test]
    fn taking_back_a_rule_leaves_the_rest_of_it() {
        assert_eq!(fold(&["allow c 1:3 rwm", "deny c 1:3 w"]).unwrap().exceptions, ["c 1:3 rm"]);
        assert_eq!(fold(&["allow c 1:3 rwm", "deny c 1:* rwm"]).unwrap().exceptions, Vec::<String>::new());
        let open = fold(&["allow a *:* rwm", "deny b 8:0 w", "allow b 8:* rwm"]).unwrap();
        assert_eq!(open, DevicesV1 { allow_by_default: true, exceptions: vec![] });
    }

    #[test]
    fn a_hole_in_a_wider_rule_is_refused_on_v1() {
        for lines in [["allow c 1:* r", "deny c 1:3 r"], ["allow c *:3 rw", "deny c 1:* w"]] {
            let text = fold(&lines).unwrap_err().to_string();
            assert!(text.starts_with("linux.resources.devices: cgroup v1 cannot deny"), "{text}");
        }
        // Other accesses are no part of it.
        fold(&["allow c 1:* r", "deny c 1:3 w"]).unwrap();
    }

    /// What the v1 controller decides (devcgroup_check_permission of the kernel): with all denied by default, one
    /// exception has to hold every access; with all allowed, one shared access is enough to deny.
    fn v1_allows(form: &DevicesV1, kind: DeviceKind, major: u32, minor: u32, access: u8) -> bool {
        let exceptions: Vec<DeviceRule> = form.exceptions.iter().map(|l| rule(&format!("x {l}"))).collect();
        let device = DeviceRule { allow: true, kind, major: Some(major), minor: Some(minor), access: Access(access) };
        let mut matching = exceptions.iter().filter(|e| e.covers(&device));
        if form.allow_by_default {
            !matching.any(|e| e.access.0 & access != 0)
        } else {
            matching.any(|e| access & !e.access.0 == 0)
        }
    }

    #[test]
    fn the_v1_form_never_allows_more_and_is_exact_for_one_access() {
        let mut random = Random::new(1);
        let mut folded = 0;
        for _ in 0..3000 {
            let rules = random_rules(&mut random);
            let Ok(form) = fold_v1(&rules) else { continue };
            folded += 1;
            for _ in 0..20 {
                let (kind, major, minor, access) = random.device();
                let (v1, list) =
                    (v1_allows(&form, kind, major, minor, access), allowed(&rules, kind, major, minor, access));
                assert!(!v1 || list, "{rules:?} {kind:?} {major}:{minor} {access}");
                if access.is_power_of_two() || form.allow_by_default {
                    assert_eq!(v1, list, "{rules:?} {kind:?} {major}:{minor} {access}");
                }
            }
        }
        assert!(folded > 500, "{folded}");
    }

    #[test]
    fn spec_rules_name_the_property_they_break() {
        let parse = |json: &str| DeviceRule::from_spec(2, &serde_json::from_str(json).unwrap());
        let everything = parse(r#"{"allow":false,"access":"rwm"}"#).unwrap();
        assert!(everything.is_total() && !everything.allow);
        assert_eq!(
            parse(r#"{"allow":true,"type":"c","major":1,"minor":-1,"access":"wr"}"#).unwrap(),
            rule("allow c 1:* rw")
        );
        for (json, start) in [
            (r#"{"allow":true,"type":"c","major":-2,"access":"r"}"#, "linux.resources.devices[2].major: -2 is no"),
            (r#"{"allow":true,"type":"c","access":"rx"}"#, "linux.resources.devices[2].access: \"rx\""),
            (r#"{"allow":true}"#, "linux.resources.devices[2].access: \"\""),
            (r#"{"allow":true,"type":"p","access":"r"}"#, "linux.resources.devices[2].type: \"p\""),
        ] {
            let text = parse(json).unwrap_err().to_string();
            assert!(text.starts_with(start), "{text}");
        }
    }
}
