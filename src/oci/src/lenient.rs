//! Reading documents that the specification allows and oci-spec's types refuse, and saying where a refused one is wrong.
//!
//! All of it happens only after the plain reading has failed, so a document that is as expected costs nothing more.

use crate::{Capability, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A document that could not be read.
#[derive(Debug)]
pub struct BadDocument {
    /// The property, as `linux.devices[0].type`; empty when the text is no JSON.
    pub property: String,
    /// What serde says, with line and column.
    pub error: serde_json::Error,
}

impl BadDocument {
    /// What runc calls it, where programs look for the words.
    fn known_as(&self) -> &'static str {
        match self.property.strip_prefix("linux.memoryPolicy") {
            Some("" | ".mode") => "invalid memory policy mode: ",
            Some(flags) if flags.starts_with(".flags") => "invalid memory policy flag: ",
            _ => "",
        }
    }
}

impl std::fmt::Display for BadDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.property.is_empty() {
            write!(f, "{}: {}", self.property, self.known_as())?;
        }
        self.error.fmt(f)
    }
}

impl std::error::Error for BadDocument {}

/// Reads a config.json; what had to be left out of it is told in `warnings`.
///
/// # Errors
/// [`BadDocument`]
pub fn spec_from_slice(json: &[u8], warnings: &mut Vec<String>) -> Result<Spec, BadDocument> {
    from_slice(json, "/process", warnings)
}

/// Reads a `process` document, as `exec --process` is given one.
///
/// # Errors
/// [`BadDocument`]
pub fn process_from_slice(json: &[u8], warnings: &mut Vec<String>) -> Result<Process, BadDocument> {
    from_slice(json, "", warnings)
}

fn from_slice<T: DeserializeOwned>(json: &[u8], process: &str, warnings: &mut Vec<String>) -> Result<T, BadDocument> {
    let error = match serde_json::from_slice(json) {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    let repaired = serde_json::from_slice(json).ok().and_then(|mut document: Value| {
        repair(document.pointer_mut(process)?, warnings);
        repair_huge_pages(document.pointer_mut("/linux/resources/hugepageLimits"));
        // Through text again: reading a Value would have the compiler make all of the types' code a second time.
        serde_json::from_slice(&serde_json::to_vec(&document).ok()?).ok()
    });
    repaired.ok_or_else(|| {
        warnings.clear();
        BadDocument { property: if error.is_data() { property_of(json, &error) } else { String::new() }, error }
    })
}

/// Rewrites what oci-spec's types are stricter about than the specification.
fn repair(process: &mut Value, warnings: &mut Vec<String>) {
    let Some(fields) = process.as_object_mut() else { return };
    // Required, but the reference runtime takes a missing one for root, and clients write documents without it.
    fields.entry("user").or_insert_with(|| json!({"uid": 0, "gid": 0}));
    // A capability that cannot be granted, be it because nobody knows it, is a warning (config.md, "Linux Process").
    for (set, names) in fields.get_mut("capabilities").and_then(Value::as_object_mut).into_iter().flatten() {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok() || !name.is_string();
            if !known {
                warnings.push(format!("process.capabilities.{set}: {name} is not a capability and is left out"));
            }
            known
        });
    }
    // oci-spec 0.10 derives these two names wrongly from its own.
    let flags = fields.get_mut("scheduler").and_then(|s| s.get_mut("flags")).and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = json!("SCHED_RESET_ON_FORK"),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = json!("SCHED_FLAG_D_L_OVERRUN"),
            _ => {}
        }
    }
}

/// The specification has unsigned numbers here, of which the greatest mean no limit; oci-spec has signed ones.
fn repair_huge_pages(limits: Option<&mut Value>) {
    for limit in limits.and_then(Value::as_array_mut).into_iter().flatten() {
        match limit.get_mut("limit") {
            Some(number) if number.as_u64().is_some_and(|n| i64::try_from(n).is_err()) => *number = json!(-1),
            _ => {}
        }
    }
}

/// The property an error is about.
fn property_of(json: &[u8], error: &serde_json::Error) -> String {
    let mut path = path_at(json, error.line(), error.column());
    // A field is missing in an object, not in the last of the fields that it has.
    if error.to_string().starts_with("missing field")
        && let Some(Step::Key(key)) = path.last_mut()
    {
        key.clear();
    }
    joined(&path)
}

/// The property that the text has reached at a line and column (both from 1): serde's errors have no other place.
fn path_at(json: &[u8], line: usize, column: usize) -> Vec<Step> {
    let before: usize = json.split_inclusive(|&b| b == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let text = &json[..json.len().min(before + column)];
    let mut path: Vec<Step> = Vec::new();
    let mut i = 0;
    while i < text.len() {
        match text[i] {
            b'{' => path.push(Step::Key(String::new())),
            b'[' => path.push(Step::Index(0)),
            // The error's own closing bracket ends what is wrong, it does not leave it.
            b'}' | b']' if i + 1 < text.len() => drop(path.pop()),
            b',' => {
                if let Some(Step::Index(n)) = path.last_mut() {
                    *n += 1;
                }
            }
            b'"' => {
                let end = end_of_string(text, i);
                let is_key = text[end..].iter().find(|b| !b.is_ascii_whitespace()) == Some(&b':');
                if let (true, Some(Step::Key(key))) = (is_key, path.last_mut()) {
                    *key = String::from_utf8_lossy(&text[i + 1..end - 1]).into_owned();
                }
                i = end - 1;
            }
            _ => {}
        }
        i += 1;
    }
    path
}

fn joined(path: &[Step]) -> String {
    let mut property = String::new();
    for step in path {
        match step {
            Step::Key(key) if key.is_empty() => {}
            Step::Key(key) if property.is_empty() => property.push_str(key),
            Step::Key(key) => property.push_str(&format!(".{key}")),
            Step::Index(n) => property.push_str(&format!("[{n}]")),
        }
    }
    property
}

enum Step {
    Key(String),
    Index(usize),
}

/// The place after a string's closing quote; `start` is its opening one.
fn end_of_string(text: &[u8], start: usize) -> usize {
    let mut i = start + 1;
    while i < text.len() && text[i] != b'"' {
        i += if text[i] == b'\\' { 2 } else { 1 };
    }
    (i + 1).min(text.len()).max(start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: &str) -> (Result<Process, BadDocument>, Vec<String>) {
        let mut warnings = Vec::new();
        (process_from_slice(json.as_bytes(), &mut warnings), warnings)
    }

    #[test]
    fn a_bad_memory_policy_is_named_as_by_runc() {
        let text = |policy: &str| {
            let json = format!(r#"{{"ociVersion":"1.3.0","linux":{{"memoryPolicy":{policy}}}}}"#);
            spec_from_slice(json.as_bytes(), &mut Vec::new()).unwrap_err().to_string()
        };
        for (policy, expected) in [
            ("{}", "linux.memoryPolicy: invalid memory policy mode: missing field `mode`"),
            (r#"{"nodes":"0"}"#, "linux.memoryPolicy: invalid memory policy mode: missing field `mode`"),
            (r#"{"mode":"BIND"}"#, "linux.memoryPolicy.mode: invalid memory policy mode: unknown variant `BIND`"),
            (
                r#"{"mode":"MPOL_BIND","flags":["x"]}"#,
                "linux.memoryPolicy.flags[0]: invalid memory policy flag: unknown variant `x`",
            ),
        ] {
            assert!(text(policy).starts_with(expected), "{policy}: {}", text(policy));
        }
    }

    #[test]
    fn a_missing_user_is_root() {
        assert_eq!(process(r#"{"cwd":"/","args":["x"]}"#).0.unwrap().user().uid(), 0);
        let spec = spec_from_slice(br#"{"ociVersion":"1.0.0","process":{"cwd":"/"}}"#, &mut Vec::new()).unwrap();
        assert_eq!(spec.process().as_ref().unwrap().user().gid(), 0);
    }

    #[test]
    fn an_unknown_capability_is_left_out_with_a_warning() {
        let (read, warnings) =
            process(r#"{"user":{},"cwd":"/","capabilities":{"bounding":["CAP_KILL","CAP_NO_SUCH"]}}"#);
        let bounding = read.unwrap().capabilities().as_ref().unwrap().bounding().clone().unwrap();
        assert_eq!(bounding.len(), 1);
        assert!(warnings[0].contains("CAP_NO_SUCH") && warnings[0].contains("process.capabilities.bounding"));
    }

    #[test]
    fn scheduler_flags_have_the_specifications_names() {
        let flags = r#"["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_DL_OVERRUN"]"#;
        let (read, _) =
            process(&format!(r#"{{"user":{{}},"cwd":"/","scheduler":{{"policy":"SCHED_OTHER","flags":{flags}}}}}"#));
        assert_eq!(read.unwrap().scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 2);
    }

    #[test]
    fn the_greatest_limit_of_huge_pages_is_none() {
        let json = br#"{"ociVersion":"1.0.0","process":{"user":{},"cwd":"/"},
            "linux":{"resources":{"hugepageLimits":[{"pageSize":"2MB","limit":18446744073709551615}]}}}"#;
        let spec = spec_from_slice(json, &mut Vec::new()).unwrap();
        let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
        assert_eq!(resources.hugepage_limits().as_ref().unwrap()[0].limit(), -1);
    }

    #[test]
    fn an_error_names_the_property_and_its_place() {
        for (json, property) in [
            (
                "{\n \"ociVersion\": \"1.0.0\", \"process\": {\"user\": {\"uid\": \"x\"}, \"cwd\": \"/\"}}",
                "process.user.uid",
            ),
            (r#"{"process":{"user":{},"cwd":"/","args":["a",7]}}"#, "process.args[1]"),
            (r#"{"linux":{"devices":[{"path":"/\"a","type":"c"},{"path":"x","type":"q"}]}}"#, "linux.devices[1].type"),
            (r#"{"linux":{"namespaces":[{"type":"pid"},{"type":"nope"}]}}"#, "linux.namespaces[1].type"),
            (r#"{"root":7}"#, "root"),
        ] {
            let bad = spec_from_slice(json.as_bytes(), &mut Vec::new()).unwrap_err();
            assert_eq!(bad.property, property, "{bad}");
        }
        let bad = spec_from_slice(b"{\n\"a\": }", &mut Vec::new()).unwrap_err();
        assert_eq!((bad.property.as_str(), bad.error.line()), ("", 2));
    }
}
