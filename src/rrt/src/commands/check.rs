//! `check`: what is wrong with a bundle, one line each, or as JSON.

use super::{Failure, json, print};
use rrt_runtime::{CreateOptions, Runtime, Severity};

/// Prints all findings; exit code 1 when one of them is an error.
pub fn run(runtime: &Runtime, options: &CreateOptions, as_json: bool) -> Result<u8, Failure> {
    let findings = runtime.check(options);
    let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
    let text = if as_json {
        let mut out = json(&serde_json::json!({ "bundle": options.bundle.to_string_lossy(), "findings": findings }));
        out.push(b'\n');
        out
    } else {
        let mut out = String::new();
        for f in &findings {
            let severity = if f.severity == Severity::Error { "error" } else { "warning" };
            out.push_str(&format!("{severity:<8} {}\n", f.problem));
        }
        out.push_str(&format!("{errors} errors, {} warnings\n", findings.len() - errors));
        out.into_bytes()
    };
    print(&text)?;
    Ok(u8::from(errors != 0))
}
