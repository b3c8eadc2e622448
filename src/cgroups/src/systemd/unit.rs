//! The unit planned for a container, with every property it will have.

use super::name::{Kind, UnitName};
use super::value::Value;
use super::{SavedUnit, SystemdFacts, gvariant, properties};
use crate::device::{DeviceRule, fold_v1};
use crate::setting::Setting;
use crate::{Error, Version};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A property of a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    pub(crate) name: Cow<'static, str>,
    pub(crate) value: Value,
}

impl Property {
    pub(crate) fn new(name: impl Into<Cow<'static, str>>, value: Value) -> Property {
        Property { name: name.into(), value }
    }

    /// As the calls take it, `(sv)`.
    pub(crate) fn value(&self) -> Value {
        super::property(&self.name, self.value.clone())
    }
}

/// `MemoryMax = uint64 1048576`
impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.name, self.value)
    }
}

impl Serialize for Property {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A unit to be made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnitPlan {
    /// Its name, as `rrt-box.scope`.
    pub name: String,
    /// Whether the user's own manager makes it.
    pub user: bool,
    /// Its properties, in order; those of annotations last.
    pub properties: Vec<Property>,
    /// What follows `org.systemd.property.` in the annotations that gave the last properties, in their order.
    #[serde(skip)]
    annotations: Vec<String>,
    #[serde(skip)]
    pub(crate) kind: Kind,
    /// Its cgroup below the root of each hierarchy.
    #[serde(skip)]
    pub(crate) path: PathBuf,
}

/// What annotations begin with that name a property of the unit.
pub const PROPERTY_ANNOTATION: &str = "org.systemd.property.";

/// What decides where the container is, and would have to be known before.
const OURS: [(&str, &str); 3] = [
    ("Slice", "linux.cgroupsPath gives the slice"),
    ("PIDs", "the runtime puts the container's processes in"),
    ("PIDFDs", "the runtime puts the container's processes in"),
];

impl UnitPlan {
    /// The unit of `linux.cgroupsPath` with all properties that do not depend on the resources.
    pub(crate) fn new(
        facts: &SystemdFacts,
        cgroups_path: Option<&str>,
        id: &str,
        legacy: bool,
    ) -> Result<UnitPlan, Error> {
        let unit = UnitName::parse(cgroups_path, id, facts.user)?;
        let mut properties = vec![Property::new("Description", Value::Str(format!("rrt container {id}")))];
        match unit.kind {
            Kind::Scope => {
                properties.push(Property::new("Slice", Value::Str(unit.slice)));
                // systemd leaves everything below the scope to the container, and makes all controllers available.
                properties.push(Property::new("Delegate", Value::Bool(true)));
            }
            Kind::Slice => properties.push(Property::new("Wants", Value::strings(&[&unit.slice]))),
        }
        // Always: statistics are wanted of containers without limits, too.
        let io = if legacy { "BlockIOAccounting" } else { "IOAccounting" };
        for name in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
            properties.push(Property::new(name, Value::Bool(true)));
        }
        // The container ends with its engine, not with the targets of the boot.
        properties.push(Property::new("DefaultDependencies", Value::Bool(false)));
        let root = facts.control_group.strip_prefix("/").unwrap_or(&facts.control_group);
        let (name, path) = (unit.name, root.join(unit.path));
        Ok(UnitPlan { name, user: facts.user, properties, annotations: Vec::new(), kind: unit.kind, path })
    }

    /// Adds the limits, as far as systemd knows them.
    pub(crate) fn add_limits(&mut self, version: Version, settings: &[Setting], systemd: u32) {
        self.properties.extend(properties(version, settings, systemd, true));
    }

    /// Adds the device rules. On v1 systemd has to know them, or it would allow everything the next time it reads its units
    /// again; on v2 its own filter stands beside ours and each has to allow a device, so a list that systemd cannot express
    /// is left to ours alone.
    pub(crate) fn add_devices(&mut self, rules: &[DeviceRule], legacy: bool) {
        self.properties.extend(device_properties(rules, legacy));
    }

    /// Adds the properties of `org.systemd.property.NAME` annotations, which win over all others.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the annotation's name.
    pub(crate) fn add_annotations(&mut self, annotations: &BTreeMap<String, String>) -> Result<(), Error> {
        for (annotation, text) in annotations {
            let Some(name) = annotation.strip_prefix(PROPERTY_ANNOTATION) else { continue };
            let invalid = |reason: String| Error::invalid(format!("annotations[{annotation:?}]"), reason);
            if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
                return Err(invalid(format!("{name:?} is no name of a property: three or more letters")));
            }
            if let Some((_, why)) = OURS.iter().find(|(ours, _)| *ours == name) {
                return Err(invalid(format!("cannot be set: {why}")));
            }
            let value = gvariant::parse(text).map_err(|e| invalid(format!("{text:?} is no GVariant: {e}")))?;
            let (property, value) =
                in_microseconds(name, value).ok_or_else(|| invalid(format!("{text:?} is no number of seconds")))?;
            self.properties.push(Property::new(property, value));
            self.annotations.push(name.to_owned());
        }
        Ok(())
    }

    /// The properties that annotations gave, with what follows `org.systemd.property.` in the annotation's name.
    pub(crate) fn annotated(&self) -> impl Iterator<Item = (&str, &Property)> {
        let first = self.properties.len() - self.annotations.len();
        self.annotations.iter().map(String::as_str).zip(&self.properties[first..])
    }

    pub(crate) fn values(&self) -> Vec<Value> {
        self.properties.iter().map(Property::value).collect()
    }

    pub(crate) fn saved(&self, dir: PathBuf) -> SavedUnit {
        SavedUnit { name: self.name.clone(), user: self.user, started: false, dir }
    }
}

/// The properties for device rules; see [`UnitPlan::add_devices`].
pub(crate) fn device_properties(rules: &[DeviceRule], legacy: bool) -> Vec<Property> {
    let policy = |name: &str| Property::new("DevicePolicy", Value::str(name));
    // An empty list forgets what was allowed before.
    let none = Property::new("DeviceAllow", Value::Array("(ss)".into(), vec![]));
    let form = fold_v1(rules).ok();
    let entries = form.as_ref().filter(|f| !f.allow_by_default);
    let entries: Option<Vec<Option<Value>>> =
        entries.map(|f| f.exceptions.iter().map(|line| device_entry(line)).collect());
    let exact = entries.as_ref().is_some_and(|e| e.iter().all(Option::is_some));
    if form.as_ref().is_some_and(|f| f.allow_by_default && f.exceptions.is_empty()) || !(exact || legacy) {
        return vec![none, policy("auto")];
    }
    let allowed = entries.into_iter().flatten().flatten().collect();
    let allowed = Property::new("DeviceAllow", Value::Array("(ss)".into(), allowed));
    vec![none, policy("strict"), allowed]
}

/// A line of a v1 device list in the words of `DeviceAllow=` (systemd.resource-control(5)); `None` when it has none: systemd
/// cannot name one minor number of every driver.
fn device_entry(line: &str) -> Option<Value> {
    let mut words = line.split(' ');
    let kind = if words.next()? == "b" { "block" } else { "char" };
    let node = match words.next()?.split_once(':')? {
        ("*", "*") => format!("{kind}-*"),
        ("*", _) => return None,
        (major, "*") => format!("{kind}-{major}"),
        (major, minor) => format!("/dev/{kind}/{major}:{minor}"),
    };
    Some(Value::Struct(vec![Value::Str(node), Value::str(words.next()?)]))
}

/// Units files say `TimeoutStopSec=`, the bus `TimeoutStopUSec`; as in runc the first is taken as the second. `None` when it is
/// no number.
fn in_microseconds(name: &str, value: Value) -> Option<(String, Value)> {
    let stem = name.strip_suffix("Sec").filter(|s| s.ends_with(|c: char| c.is_ascii_lowercase()));
    let Some(stem) = stem else { return Some((name.to_owned(), value)) };
    let seconds: f64 = match value {
        Value::Byte(n) => n.into(),
        Value::Int16(n) => n.into(),
        Value::Uint16(n) => n.into(),
        Value::Int32(n) => n.into(),
        Value::Uint32(n) => n.into(),
        Value::Int64(n) => n as f64,
        Value::Uint64(n) => n as f64,
        Value::Double(n) => n,
        _ => return None,
    };
    // Out of range stays at the end of the range; the largest number is systemd's "infinity".
    (seconds >= 0.0).then(|| (format!("{stem}USec"), Value::Uint64((seconds * 1e6) as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, DeviceKind};

    fn facts(user: bool) -> SystemdFacts {
        SystemdFacts { version: 252, user, control_group: if user { "/user.slice/u".into() } else { "/".into() } }
    }

    fn plan() -> UnitPlan {
        UnitPlan::new(&facts(false), None, "box", false).unwrap()
    }

    fn shown(plan: &UnitPlan) -> Vec<String> {
        plan.properties.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_scope_and_a_slice() {
        let scope = UnitPlan::new(&facts(true), Some("a.slice:p:n"), "box", true).unwrap();
        assert_eq!(scope.path, PathBuf::from("user.slice/u/a.slice/p-n.scope"));
        assert_eq!(
            shown(&scope),
            [
                "Description = 'rrt container box'",
                "Slice = 'a.slice'",
                "Delegate = true",
                "MemoryAccounting = true",
                "CPUAccounting = true",
                "BlockIOAccounting = true",
                "TasksAccounting = true",
                "DefaultDependencies = false",
            ]
        );
        let slice = UnitPlan::new(&facts(false), Some("a.slice:p:a-b.slice"), "box", false).unwrap();
        assert!(shown(&slice).contains(&"Wants = ['a.slice']".to_owned()));
        assert!(!shown(&slice).iter().any(|p| p.starts_with("Delegate") || p.starts_with("Slice")));
    }

    #[test]
    fn annotations_become_properties() {
        let mut unit = plan();
        let annotations = [
            ("org.systemd.property.TimeoutStopUSec", "uint64 123456789"),
            ("org.systemd.property.TimeoutStopSec", "1.5"),
            ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
            ("org.systemd.property.RuntimeMaxSec", "2"),
            ("other", "what ever"),
        ];
        let annotations = annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        unit.add_annotations(&annotations).unwrap();
        assert_eq!(
            shown(&unit)[8..],
            [
                "CollectMode = 'inactive-or-failed'",
                "RuntimeMaxUSec = uint64 2000000",
                "TimeoutStopUSec = uint64 1500000",
                "TimeoutStopUSec = uint64 123456789",
            ]
        );
    }

    #[test]
    fn bad_annotations_are_named() {
        for (name, value, why) in [
            ("Slice", "'x.slice'", "cannot be set: linux.cgroupsPath"),
            ("PIDs", "[uint32 1]", "cannot be set"),
            ("A", "1", "no name of a property"),
            ("Cpu_Weight", "1", "no name of a property"),
            ("CollectMode", "inactive", "is no GVariant: \"inactive\" is no value; a text needs quotes"),
            ("TimeoutStopSec", "'5'", "no number of seconds"),
            ("TimeoutStopSec", "-5", "no number of seconds"),
        ] {
            let annotations = [(format!("{PROPERTY_ANNOTATION}{name}"), value.to_owned())].into();
            let error = plan().add_annotations(&annotations).unwrap_err().to_string();
            let start = format!("annotations[\"org.systemd.property.{name}\"]: ");
            assert!(error.starts_with(&start) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn device_rules_in_systemds_words() {
        let deny = DeviceRule { allow: false, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL };
        let allow = |kind, major, minor| DeviceRule::allow(kind, major, minor, Access::ALL);
        let devices = |rules: &[DeviceRule], legacy| {
            let mut unit = plan();
            unit.add_devices(rules, legacy);
            shown(&unit)[8..].to_vec()
        };
        let usual = [
            deny,
            DeviceRule::allow(DeviceKind::Char, None, None, Access::MKNOD),
            allow(DeviceKind::Char, Some(1), Some(3)),
            allow(DeviceKind::Char, Some(136), None),
            allow(DeviceKind::Block, Some(8), Some(0)),
        ];
        let strict = "DevicePolicy = 'strict'";
        let list =
            "DeviceAllow = [('char-*', 'm'), ('/dev/char/1:3', 'rwm'), ('char-136', 'rwm'), ('/dev/block/8:0', 'rwm')]";
        assert_eq!(devices(&usual, false), ["DeviceAllow = @a(ss) []", strict, list]);
        assert_eq!(devices(&[], false), ["DeviceAllow = @a(ss) []", strict, "DeviceAllow = @a(ss) []"]);
        let everything = DeviceRule { allow: true, ..deny };
        assert_eq!(devices(&[everything], true), ["DeviceAllow = @a(ss) []", "DevicePolicy = 'auto'"]);
        // What systemd cannot say: on v2 ours alone decides, on v1 systemd's list is the narrower one.
        let odd = [deny, allow(DeviceKind::Char, None, Some(3)), allow(DeviceKind::Char, Some(1), Some(5))];
        assert_eq!(devices(&odd, false), ["DeviceAllow = @a(ss) []", "DevicePolicy = 'auto'"]);
        assert_eq!(devices(&odd, true)[2], "DeviceAllow = [('/dev/char/1:5', 'rwm')]");
        let hole = [everything, DeviceRule { allow: false, ..allow(DeviceKind::Char, Some(1), Some(3)) }];
        assert_eq!(devices(&hole, false)[1], "DevicePolicy = 'auto'");
        assert_eq!(devices(&hole, true)[1..], [strict, "DeviceAllow = @a(ss) []"]);
    }
}
