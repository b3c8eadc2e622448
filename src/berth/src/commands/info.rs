//! `info`, `system info`.

use super::object_format;
use super::version::object;
use crate::app::App;
use crate::cli::{Count, Leaf, text};
use crate::exit::Exit;
use crate::output::units::bytes_size;
use clap::ArgMatches;
use serde_json::{Value, json};
use std::fs;

pub const INFO: Leaf = Leaf {
    name: "info",
    other_names: &[],
    about: "Display system-wide information",
    usage: "[OPTIONS]",
    aliases: &["system info", "info"],
    count: Count::Exactly(0),
    flags: |command| command.arg(object_format()),
    run,
};

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let data = facts(app)?;
    match text(matches, "format") {
        Some(format) => app.out.line(&object(&data, format)?),
        None => app.out.print(&layout(&data)),
    }
}

/// With Docker's names, as far as there is something to say.
fn facts(app: &mut App) -> Result<Value, Exit> {
    let images = app.images()?.load().map_err(|e| Exit::error(&e))?;
    let snapshots = app.snapshots()?;
    let status = snapshots.info().into_iter().map(|(name, value)| json!([name, value]));
    let kernel = rustix::system::uname();
    let host = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let version = env!("CARGO_PKG_VERSION");
    Ok(json!({
        "Images": images.iter().count(),
        "Driver": snapshots.driver().name(),
        "DriverStatus": status.collect::<Vec<_>>(),
        "KernelVersion": host(kernel.release()),
        "OperatingSystem": operating_system(),
        "OSType": "linux",
        "Architecture": host(kernel.machine()),
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": memory(),
        "DockerRootDir": app.root.display().to_string(),
        "Name": host(kernel.nodename()),
        "ServerVersion": version,
        "Debug": app.debug,
        "ClientInfo": {"Version": version, "Context": "default", "Debug": app.debug},
    }))
}

fn layout(data: &Value) -> String {
    let text = |name: &str| match &data[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let status = data["DriverStatus"].as_array().into_iter().flatten();
    let status: String = status
        .map(|row| format!("  {}: {}\n", row[0].as_str().unwrap_or_default(), row[1].as_str().unwrap_or_default()))
        .collect();
    format!(
        "Client:\n Version:    {version}\n Context:    default\n Debug Mode: {debug}\n\nServer:\n Images: {images}\n Server Version: {version}\n \
         Storage Driver: {driver}\n{status} Kernel Version: {kernel}\n Operating System: {system}\n OSType: {kind}\n Architecture: {architecture}\n \
         CPUs: {cpus}\n Total Memory: {memory}\n Name: {name}\n Docker Root Dir: {root}\n Debug Mode: {debug}\n",
        version = text("ServerVersion"),
        debug = text("Debug"),
        images = text("Images"),
        driver = text("Driver"),
        kernel = text("KernelVersion"),
        system = text("OperatingSystem"),
        kind = text("OSType"),
        architecture = text("Architecture"),
        cpus = text("NCPU"),
        memory = bytes_size(data["MemTotal"].as_u64().unwrap_or(0)),
        name = text("Name"),
        root = text("DockerRootDir"),
    )
}

/// os-release(5).
fn operating_system() -> String {
    let file = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| fs::read_to_string(path).ok());
    let file = file.unwrap_or_default();
    let name = file.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("<unknown>", |name| name.trim_matches(['"', '\''])).to_owned()
}

/// Bytes, by proc_meminfo(5).
fn memory() -> u64 {
    let file = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        file.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    total.unwrap_or(0) * 1024
}
