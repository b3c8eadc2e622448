//! The OCI documents: `oci-spec`'s types re-exported, plus what they lack. No I/O.

#![forbid(unsafe_code)]

pub use oci_spec::runtime::*;

/// The version of the runtime specification that is implemented, as `state`, `features` and `--version` tell it.
pub const VERSION: &str = "1.3.0";

/// Reads a config.json.
///
/// # Errors
/// What serde says, with line and column.
pub fn spec_from_slice(json: &[u8]) -> serde_json::Result<Spec> {
    serde_json::from_slice(json).or_else(|e| with_default_user(json, "/process", e))
}

/// Reads a `process` document, as `exec --process` is given one.
///
/// # Errors
/// What serde says, with line and column.
pub fn process_from_slice(json: &[u8]) -> serde_json::Result<Process> {
    serde_json::from_slice(json).or_else(|e| with_default_user(json, "", e))
}

/// `process.user` is required by the specification and by oci-spec's types, but the reference runtime takes a missing one
/// for root, and clients write documents without it. Only then is the document read a second time.
fn with_default_user<T: serde::de::DeserializeOwned>(
    json: &[u8],
    process: &str,
    error: serde_json::Error,
) -> serde_json::Result<T> {
    if !error.to_string().contains("missing field `user`") {
        return Err(error);
    }
    let mut document: serde_json::Value = serde_json::from_slice(json)?;
    match document.pointer_mut(process).and_then(|p| p.as_object_mut()) {
        Some(process) => process.insert("user".into(), serde_json::json!({"uid": 0, "gid": 0})),
        None => return Err(error),
    };
    serde_json::from_value(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_user_is_root() {
        assert_eq!(process_from_slice(br#"{"cwd":"/","args":["x"]}"#).unwrap().user().uid(), 0);
        let spec = spec_from_slice(br#"{"ociVersion":"1.0.0","process":{"cwd":"/"}}"#).unwrap();
        assert_eq!(spec.process().as_ref().unwrap().user().gid(), 0);
    }

    #[test]
    fn other_errors_keep_their_place() {
        let e = process_from_slice(b"{\n  \"cwd\": 7}").unwrap_err();
        assert_eq!((e.line(), e.is_data()), (2, true));
    }
}
