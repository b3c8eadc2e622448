//! Commands that only tell: `state`, `list`, `plan`, `features`, `spec`, `--version`.

use super::{Failure, json, print};
use crate::args::Format;
use crate::table;
use rrt_runtime::features;
use rrt_runtime::spec_template::{self, For};
use rrt_runtime::{CreateOptions, Error, Runtime, probe as kernel};
use std::io::{ErrorKind, Write};
use std::path::Path;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Set by the build script.
const COMMIT: &str = env!("RRT_COMMIT");

/// `--version`, in the lines go-runc looks for: `runc version ` (when called so), `commit: `, `spec: ` (contract A.12).
pub fn version(program: &str) -> String {
    format!("{program} version {VERSION}\ncommit: {COMMIT}\nspec: {}\n", rrt_oci::VERSION)
}

/// `state`: the report alone, indented by two spaces and, as from runc, without a final line break.
pub fn state(runtime: &Runtime, id: &str) -> Result<u8, Failure> {
    let report = runtime.state(id)?;
    print(&rrt_oci::indented(&report, "  ").expect("a report is plain data"))
}

/// `list`
pub fn list(runtime: &Runtime, format: Format, quiet: bool) -> Result<u8, Failure> {
    let containers = runtime.list()?;
    if quiet {
        return print(containers.iter().map(|c| format!("{}\n", c.id)).collect::<String>().as_bytes());
    }
    if format == Format::Json {
        // runc prints null for none (a nil slice), and clients have learnt to read that.
        let mut out = if containers.is_empty() { b"null".to_vec() } else { json(&containers) };
        out.push(b'\n');
        return print(&out);
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(containers.into_iter().map(|c| {
        let bundle = c.bundle.display().to_string();
        [c.id, c.pid.to_string(), c.status.to_string(), bundle, c.created, c.owner]
    }));
    print(table::render(&rows).as_bytes())
}

/// `plan`
pub fn plan(runtime: &Runtime, options: &CreateOptions, as_json: bool) -> Result<u8, Failure> {
    let plan = runtime.plan(options)?;
    let mut out = if as_json {
        rrt_oci::indented(&plan, "  ").expect("a plan is plain data")
    } else {
        plan.to_string().into_bytes()
    };
    if out.last() != Some(&b'\n') {
        out.push(b'\n');
    }
    print(&out)
}

/// `features`. CRI-O reads stdout and stderr together, so nothing else may be said.
pub fn features(probe: bool) -> Result<u8, Failure> {
    let document = if probe { kernel::document() } else { features::document(VERSION, COMMIT) };
    let mut out = rrt_oci::indented(&document, "  ").expect("a document is plain data");
    out.push(b'\n');
    print(&out)
}

/// `spec`: never over a file that is there.
pub fn spec(path: &Path, rootless: bool) -> Result<u8, Failure> {
    let whose = if rootless {
        let (uid, gid) = rrt_sys::creds::effective_ids();
        For::User { uid, gid }
    } else {
        For::Root
    };
    // Only where v2 alone is mounted is this file at the top (cgroups(7)).
    let v2_only = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let mut file = std::fs::File::create_new(path).map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => Error::Usage(format!("File {} exists. Remove it first", path.display())),
        _ => Error::Io { doing: format!("create {}", path.display()), source },
    })?;
    file.write_all(&spec_template::config_json(whose, v2_only))
        .map_err(|source| Error::Io { doing: format!("write {}", path.display()), source })?;
    Ok(0)
}
