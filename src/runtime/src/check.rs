//! `check`: what is wrong with a bundle, all of it, before anything is made.
//!
//! Reading and planning stop at the first mistake, and stay that simple: here each mistake that they name is noted and taken out of a copy
//! of the document, and the rest is tried again, until it can be planned. What only this machine can tell (files, kernel) is looked
//! at afterwards.

mod in_root;
mod machine;

use crate::error::Error;
use crate::plan::Plan;
use crate::{CreateOptions, Runtime};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// `create` would fail.
    Error,
    /// `create` would work, but not as it may be meant.
    Warning,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What and why, with the property in front.
    pub problem: String,
}

/// The most mistakes in one document that are looked for.
const MOST: usize = 100;

impl Runtime {
    /// `check`: all that is wrong with a bundle, for the specification and for this machine. Nothing is made.
    pub fn check(&self, options: &CreateOptions) -> Vec<Finding> {
        let mut findings = Findings::default();
        let bundle = std::path::absolute(&options.bundle).unwrap_or_else(|_| options.bundle.clone());
        let file = options.config.clone().unwrap_or_else(|| bundle.join("config.json"));
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(e) => {
                findings.error(format!("{}: {e}", file.display()));
                return findings.0;
            }
        };
        let mut document: Value = match serde_json::from_slice(&text) {
            Ok(document) => document,
            Err(e) => {
                findings.error(format!("{}: {e}", file.display()));
                return findings.0;
            }
        };
        let given = document.clone();
        let mut taken = Taken::default();
        let mut planned = None;
        // The first reading is of the text itself; a line and column of the later ones would be of no file.
        let (mut source, mut first) = (text, true);
        while findings.0.len() < MOST {
            match self.attempt(&source, &bundle, options) {
                Ok(plan) => {
                    planned = Some(plan);
                    break;
                }
                Err(problem) => {
                    let property = problem.split(": ").next().unwrap_or_default().to_owned();
                    if !taken.is_consequence(&problem) {
                        let problem = taken.original(&problem);
                        findings.error(if first { problem } else { without_position(&problem).into() });
                    }
                    first = false;
                    if !taken.take_out(&mut document, &property) {
                        break;
                    }
                    source = serde_json::to_vec(&document).unwrap_or_default();
                }
            }
        }
        unknown_properties(&given, &mut findings);
        deprecated(&given, &mut findings);
        if let Some(mut plan) = planned {
            plan.warnings.iter().for_each(|w| findings.warning(w.clone()));
            machine::look(&mut plan, !taken.program, &mut findings);
        }
        findings.0
    }

    /// Reads and plans; the error's text begins with the property.
    fn attempt(&self, text: &[u8], bundle: &Path, options: &CreateOptions) -> Result<Plan, String> {
        let spec = rrt_oci::spec_from_slice(text, &mut Vec::new()).map_err(|e| e.to_string())?;
        if spec.process().is_none() {
            return Err("process: missing; it names the program to run".into());
        }
        let named = |e: Error| match e {
            Error::Unsupported(property) => format!("{property}: not supported yet"),
            other => other.to_string(),
        };
        let (facts, _) = self.read_facts(&spec).map_err(named)?;
        Plan::new(&spec, bundle, &self.root.join(&options.id), options, self.cgroup_manager, &facts).map_err(named)
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, problem: String) {
        if !self.0.iter().any(|f| f.problem == problem) {
            self.0.push(Finding { severity, problem });
        }
    }

    /// Notes what went wrong with something that was tried.
    fn result<T>(&mut self, tried: crate::error::Result<T>) -> Option<T> {
        tried.map_err(|e| self.error(e.to_string())).ok()
    }

    fn error(&mut self, problem: String) {
        self.add(Severity::Error, problem);
    }

    fn warning(&mut self, problem: String) {
        self.add(Severity::Warning, problem);
    }
}

/// Properties that must be there, and a value for each to go on with.
const STAND_INS: [(&str, &str); 5] = [
    ("ociVersion", "\"1.0.0\""),
    ("process.args", "[\"/\"]"),
    ("process.cwd", "\"/\""),
    ("process.user", "{\"uid\":0,\"gid\":0}"),
    ("root.path", "\"/\""),
];

/// What was taken out of the document.
#[derive(Default)]
struct Taken {
    /// The last property, as the planner called it.
    last: String,
    /// Elements taken out of lists: the list's path, and the element's place in the document as it was given.
    elements: Vec<(String, usize)>,
    /// The program is a stand-in, and need not be looked for.
    program: bool,
}

/// `linux.namespaces[2].path` → `["linux", "namespaces", "2", "path"]`.
fn steps(property: &str) -> Vec<String> {
    property
        .replace("[\"", ".")
        .replace("\"]", "")
        .replace('[', ".")
        .replace(']', "")
        .split('.')
        .map(str::to_owned)
        .collect()
}

impl Taken {
    /// Whether an error comes only from what was taken out: a property that must be there.
    fn is_consequence(&self, problem: &str) -> bool {
        let leaf = steps(&self.last).pop().unwrap_or_default();
        !leaf.is_empty()
            && (problem.contains(&format!("missing field `{leaf}`"))
                || problem.starts_with(&format!("{}: ", self.last)) && problem.contains("missing"))
    }

    /// The text with list indices as the document given has them.
    fn original(&self, problem: &str) -> String {
        let mut text = problem.to_owned();
        for (list, _) in &self.elements {
            let start = format!("{list}[");
            let Some(rest) = text.strip_prefix(&start) else { continue };
            let Some((number, rest)) = rest.split_once(']') else { continue };
            let Ok(mut index) = number.parse::<usize>() else { continue };
            let mut gone: Vec<usize> = self.elements.iter().filter(|(l, _)| l == list).map(|(_, i)| *i).collect();
            gone.sort_unstable();
            gone.iter().for_each(|g| index += usize::from(*g <= index));
            text = format!("{start}{index}]{rest}");
            break;
        }
        text
    }

    /// Takes a property out, or, when that did not help or is not possible, what it is in. False when nothing is left to take.
    fn take_out(&mut self, document: &mut Value, property: &str) -> bool {
        let mut path = steps(property);
        // What has to be there gets a value that is right.
        if let Some((name, value)) = STAND_INS.iter().find(|(name, _)| property.split('[').next() == Some(*name))
            && let Some((leaf, parent)) = path.split_last()
            && let Some(fields) = document.pointer_mut(&pointer(parent)).and_then(Value::as_object_mut)
            && self.last != property
        {
            fields.insert(leaf.clone(), serde_json::from_str(value).unwrap_or_default());
            self.program |= *name == "process.args";
            self.last = property.to_owned();
            return true;
        }
        if self.last == property || document.pointer(&pointer(&path)).is_none() {
            path.pop();
        }
        self.last = property.to_owned();
        while let Some(leaf) = path.pop() {
            let place = pointer(&path);
            let Some(at) = document.pointer_mut(&place) else { continue };
            if at.as_object_mut().is_some_and(|fields| fields.remove(&leaf).is_some()) {
                return true;
            }
            let Some(list) = at.as_array_mut() else { continue };
            if let Some(index) = leaf.parse::<usize>().ok().filter(|i| *i < list.len()) {
                list.remove(index);
                let name = path.join(".");
                let original = self.original(&format!("{name}[{index}]"));
                let digits = original.rsplit('[').next().unwrap_or_default().trim_end_matches(']');
                self.elements.push((name, digits.parse().unwrap_or(index)));
                return true;
            }
        }
        false
    }
}

/// An error's text without the line and column at its end, where serde has them.
fn without_position(problem: &str) -> &str {
    let Some((text, position)) = problem.rsplit_once(" at line ") else { return problem };
    let is_position = position.split(" column ").all(|n| n.parse::<usize>().is_ok());
    if is_position { text } else { problem }
}

fn pointer(path: &[String]) -> String {
    path.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
}

/// Names that oci-spec's types drop on the way through are not of the specification.
fn unknown_properties(given: &Value, findings: &mut Findings) {
    // Through text both ways: another form of input or output has the compiler make all of the types' code again.
    let text = |value: &Value| serde_json::to_vec(value).unwrap_or_default();
    let Ok(spec) = rrt_oci::spec_from_slice(&text(given), &mut Vec::new()) else { return };
    let Ok(kept) = serde_json::to_vec(&spec).and_then(|text| serde_json::from_slice(&text)) else { return };
    compare(given, &kept, "", findings);
}

fn compare(given: &Value, kept: &Value, at: &str, findings: &mut Findings) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (key, value) in given {
                let name = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                match kept.get(key) {
                    Some(kept) => compare(value, kept, &name, findings),
                    // What was kept as nothing is known: it may be left out when it is empty.
                    None if value.is_null() || NOT_KEPT.contains(&key.as_str()) => {}
                    None => {
                        let known = NAMES.iter().copied().chain(kept.keys().map(String::as_str));
                        let near = known.map(|k| (distance(key, k), k)).min().filter(|(d, _)| *d <= 2);
                        let hint = near.map(|(_, k)| format!("; {k:?} is meant?")).unwrap_or_default();
                        findings.warning(format!("{name}: not a property of the specification, and ignored{hint}"));
                    }
                }
            }
        }
        (Value::Array(given), Value::Array(kept)) if given.len() == kept.len() => {
            for (i, (given, kept)) in given.iter().zip(kept).enumerate() {
                compare(given, kept, &format!("{at}[{i}]"), findings);
            }
        }
        _ => {}
    }
}

/// Properties of the specification for other systems, or that oci-spec does not keep.
const NOT_KEPT: [&str; 5] = ["solaris", "windows", "vm", "zos", "commandLine"];

/// The names people misspell, for suggestions.
const NAMES: [&str; 40] = [
    "additionalGids",
    "annotations",
    "apparmorProfile",
    "args",
    "capabilities",
    "cgroupsPath",
    "cwd",
    "destination",
    "devices",
    "domainname",
    "env",
    "gid",
    "gidMappings",
    "hooks",
    "hostname",
    "linux",
    "maskedPaths",
    "memory",
    "mountLabel",
    "mounts",
    "namespaces",
    "noNewPrivileges",
    "oomScoreAdj",
    "options",
    "path",
    "personality",
    "pids",
    "process",
    "readonly",
    "readonlyPaths",
    "resources",
    "rlimits",
    "root",
    "rootfsPropagation",
    "seccomp",
    "source",
    "sysctl",
    "terminal",
    "uidMappings",
    "user",
];

/// Levenshtein's: how many letters to add, drop or change.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}

fn deprecated(given: &Value, findings: &mut Findings) {
    let old = [
        ("/hooks/prestart", "hooks.prestart", "use createRuntime, createContainer or startContainer"),
        ("/linux/resources/memory/kernel", "linux.resources.memory.kernel", "the kernel has it no more"),
        ("/linux/resources/memory/kernelTCP", "linux.resources.memory.kernelTCP", "only cgroup v1 had it"),
    ];
    for (place, property, cure) in old {
        if given.pointer(place).is_some_and(|v| *v != json!([]) && !v.is_null()) {
            findings.warning(format!("{property}: deprecated; {cure}"));
        }
    }
    for (i, m) in given.get("mounts").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if m["destination"].as_str().is_some_and(|d| !d.starts_with('/')) {
            findings.warning(format!("mounts[{i}].destination: a relative path is deprecated"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted() {
        assert_eq!((distance("hostnam", "hostname"), distance("mounts", "mounts"), distance("", "ab")), (1, 0, 2));
    }

    #[test]
    fn only_a_position_is_cut_off() {
        assert_eq!(without_position("process.cwd: invalid type at line 1 column 22"), "process.cwd: invalid type");
        for kept in ["x at line 1 column y", "x", "\"at line 1 column 2\" is no path"] {
            assert_eq!(without_position(kept), kept);
        }
    }

    #[test]
    fn lists_keep_their_numbers() {
        let mut taken = Taken::default();
        let mut document = json!({"m": [{"a": 0}, {"a": 1}, {"a": 2}, {"a": 3}]});
        assert!(taken.take_out(&mut document, "m[1]"));
        assert_eq!(taken.original("m[1].a: x"), "m[2].a: x");
        assert!(taken.take_out(&mut document, "m[1]") || document["m"].as_array().unwrap().len() < 4);
        assert_eq!(taken.original("m[0].a: x"), "m[0].a: x");
    }
}
