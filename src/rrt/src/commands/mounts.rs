//! `mounts`: the list of mounts from a file as crun takes it, or from flags.

use super::{Failure, json, print};
use crate::args::{Format, MountsAction};
use crate::table;
use rrt_runtime::seal::Seal;
use rrt_runtime::{Error, Runtime};
use serde_json::{Value, json as value};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What stood on the command line.
#[derive(Debug)]
pub struct Options {
    /// What to do.
    pub action: MountsAction,
    /// A JSON file with the `mounts` section of a config.json, `-` for stdin.
    pub file: Option<PathBuf>,
    /// `--mount`, in Docker's form.
    pub mounts: Vec<String>,
    /// `--destination`
    pub destinations: Vec<String>,
    /// Of the list.
    pub format: Format,
}

/// Changes the mounts of container `id`, or lists them.
pub fn run(runtime: &Runtime, id: &str, options: &Options, sealed: Result<Seal, Error>) -> Result<u8, Failure> {
    let MountsAction::Change(change) = options.action else { return list(runtime, id, options.format) };
    let seal = sealed?;
    let (name, document) = document(options)?;
    runtime.change_mounts(id, change, &document, Path::new(&name), seal)?;
    Ok(0)
}

fn list(runtime: &Runtime, id: &str, format: Format) -> Result<u8, Failure> {
    let mounts = runtime.list_mounts(id)?;
    if format == Format::Json {
        let mut out = json(&mounts);
        out.push(b'\n');
        return print(&out);
    }
    let mut rows = vec![["DESTINATION", "TYPE", "SOURCE", "OPTIONS"].map(str::to_owned)];
    rows.extend(mounts.into_iter().map(|m| [m.destination, m.fstype, m.source, m.options.join(",")]));
    print(table::render(&rows).as_bytes())
}

/// The list as JSON, and what to call it in errors.
fn document(options: &Options) -> Result<(String, Vec<u8>), Error> {
    let by_flags = !options.mounts.is_empty() || !options.destinations.is_empty();
    match &options.file {
        Some(_) if by_flags => Err(Error::Usage("mounts: give a file or flags, not both".into())),
        Some(file) => {
            let name = file.display().to_string();
            let failed = |source| Error::Io { doing: format!("mounts: read {name}"), source };
            let mut text = Vec::new();
            if name == "-" {
                io::stdin().read_to_end(&mut text).map_err(failed)?;
            } else {
                text = std::fs::read(file).map_err(failed)?;
            }
            Ok((name, text))
        }
        None if by_flags => {
            let places = options.destinations.iter().map(|d| Ok(value!({ "destination": d })));
            let list = options.mounts.iter().map(|m| mount(m)).chain(places).collect::<Result<Vec<Value>, Error>>()?;
            Ok(("--mount".into(), json(&list)))
        }
        None => Err(Error::Usage(
            "mounts: give a JSON file with a list of mounts (- for stdin), or --mount or --destination".into(),
        )),
    }
}

/// `type=bind,source=/a,destination=/b,ro`: what is not one of the three is an option, as config.json has them.
fn mount(text: &str) -> Result<Value, Error> {
    let mut mount = value!({ "options": [] });
    for word in text.split(',').filter(|w| !w.is_empty()) {
        match word.split_once('=') {
            Some(("type", v)) => mount["type"] = v.into(),
            Some(("source" | "src", v)) => mount["source"] = v.into(),
            Some(("destination" | "dst" | "target", v)) => mount["destination"] = v.into(),
            _ => {
                let option = if word == "readonly" { "ro" } else { word };
                if let Some(options) = mount["options"].as_array_mut() {
                    options.push(option.into());
                }
            }
        }
    }
    match mount.get("destination") {
        Some(_) => Ok(mount),
        None => Err(Error::Usage(format!("--mount {text:?}: has no destination=DIR"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_in_one_word() {
        let m = mount("type=bind,src=/a,dst=/b,readonly,nosuid,size=3").unwrap();
        let options = ["ro", "nosuid", "size=3"];
        assert_eq!(m, value!({ "type": "bind", "source": "/a", "destination": "/b", "options": options }));
        assert!(mount("type=tmpfs").is_err());
    }
}
