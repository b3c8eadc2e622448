//! `version`.

use super::object_format;
use crate::app::App;
use crate::cli::{Count, Leaf, text};
use crate::exit::Exit;
use crate::output::format::{failed, parse};
use clap::ArgMatches;
use rrt_oci::image::Platform;
use rrt_template::Options;
use serde_json::{Value, json};

pub const VERSION: Leaf = Leaf {
    name: "version",
    other_names: &[],
    about: "Show the berth version information",
    usage: "[OPTIONS]",
    aliases: &[],
    count: Count::Exactly(0),
    flags: |command| command.arg(object_format()),
    run,
};

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let (version, host) = (env!("CARGO_PKG_VERSION"), Platform::host());
    let kernel = rustix::system::uname();
    let kernel = kernel.release().to_string_lossy();
    let Some(format) = text(matches, "format") else {
        return app.out.print(&format!(
            "Client:\n Version:           {version}\n OS/Arch:           {host}\n Context:           default\n\n\
             Server:\n Engine:\n  Version:          {version}\n  OS/Arch:          {host}\n  Kernel Version:   {kernel}\n"
        ));
    };
    let side = |context: Option<&str>| {
        let mut side = json!({"Version": version, "Os": host.os, "Arch": host.architecture});
        match context {
            Some(context) => side["Context"] = context.into(),
            None => side["KernelVersion"] = kernel.as_ref().into(),
        }
        side
    };
    let data = json!({"Client": side(Some("default")), "Server": side(None)});
    app.out.line(&object(&data, format)?)
}

/// `--format` of one thing; `json` is `{{json .}}`.
pub fn object(data: &Value, format: &str) -> Result<String, Exit> {
    let template = parse(if format == "json" { "{{json .}}" } else { format })?;
    let options = Options { missing_is_error: true, ..Options::default() };
    template.render(data, &options).map_err(|e| failed(&e))
}
