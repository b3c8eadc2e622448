//! `update`: new limits from a JSON document or from flags.

use super::Failure;
use crate::args::NewResources;
use rrt_oci::LinuxResources;
use rrt_runtime::{Error, Runtime};
use std::io::{self, Read};

/// Sets the limits that `resources` names on container `id`; what it leaves out stays.
pub fn run(runtime: &Runtime, id: &str, resources: NewResources) -> Result<u8, Failure> {
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
    runtime.update(id, &resources)?;
    Ok(0)
}

fn failed(what: &str, source: io::Error) -> Error {
    Error::Io { doing: format!("--resources: read {what}"), source }
}

fn parse(name: &str, text: &[u8]) -> Result<LinuxResources, Error> {
    serde_json::from_slice(text).map_err(|e| Error::Usage(format!("--resources: {name}: {e}")))
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
    fn an_error_names_the_flag_the_file_and_the_place() {
        let text = parse("limits.json", b"{\n \"memory\": 7}").unwrap_err().to_string();
        assert!(text.contains("--resources") && text.contains("limits.json") && text.contains("line 2"), "{text}");
    }
}
