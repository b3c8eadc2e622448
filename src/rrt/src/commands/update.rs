//! `update`: new limits from a JSON document or from flags.

use super::Failure;
use crate::args::NewResources;
use rrt_oci::LinuxResources;
use rrt_runtime::{DeviceRule, Error, RdtUpdate, Runtime};
use serde::Deserialize;
use std::io::{self, Read};

/// Sets the limits that `resources` names on container `id`; what it leaves out stays.
pub fn run(
    runtime: &Runtime,
    id: &str,
    resources: NewResources,
    devices: &[DeviceRule],
    rdt: &RdtUpdate,
) -> Result<u8, Failure> {
    let resources = match resources {
        NewResources::Flags(resources) => *resources,
        NewResources::Stdin => {
            let mut text = Vec::new();
            io::stdin().read_to_end(&mut text).map_err(|source| failed("standard input", source))?;
            parse("standard input", &text)?
        }
        NewResources::File(file) => {
            let name = file.display().to_string();
            let text = std::fs::read(&file).map_err(|source| failed(&name, source))?;
            parse(&name, &text)?
        }
    };
    runtime.update(id, &resources, devices, rdt)?;
    Ok(0)
}

fn failed(what: &str, source: io::Error) -> Error {
    Error::Io { doing: format!("--resources: read {what}"), source }
}

fn parse(name: &str, text: &[u8]) -> Result<LinuxResources, Error> {
    let wrong = |e: serde_json::Error| Error::Usage(format!("--resources: {name}: {e}"));
    let mut resources: LinuxResources = serde_json::from_slice(text).map_err(wrong)?;
    // oci-spec reads a `pids` without `limit` as the limit 0, that is, as one process.
    let given: Given = serde_json::from_slice(text).map_err(wrong)?;
    if given.pids.is_none_or(|pids| pids.limit.is_none()) {
        resources.set_pids(None);
    }
    Ok(resources)
}

#[derive(Deserialize)]
struct Given {
    pids: Option<GivenPids>,
}

#[derive(Deserialize)]
struct GivenPids {
    limit: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_engines_send_are_read() {
        let text =
            br#"{"memory":{"limit":1048576},"cpu":{"shares":512,"quota":-1},"pids":{"limit":7},"unified":{"a":"b"}}"#;
        let resources = parse("x", text).unwrap();
        assert_eq!(resources.memory().unwrap().limit(), Some(1_048_576));
        assert_eq!(resources.pids().unwrap().limit(), 7);
        assert!(parse("x", b"{\n}\n").is_ok());
    }

    #[test]
    fn pids_without_a_limit_change_nothing() {
        assert!(parse("x", br#"{"pids":{}}"#).unwrap().pids().is_none());
        assert_eq!(parse("x", br#"{"pids":{"limit":0}}"#).unwrap().pids().unwrap().limit(), 0);
    }

    #[test]
    fn an_error_names_the_flag_the_file_and_the_place() {
        let text = parse("limits.json", b"{\n \"memory\": 7}").unwrap_err().to_string();
        assert!(text.contains("--resources") && text.contains("limits.json") && text.contains("line 2"), "{text}");
    }
}
