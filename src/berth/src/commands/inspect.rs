//! `inspect`, `image inspect`: an image in Docker's JSON.

use super::{object_format, together};
use crate::app::App;
use crate::cli::{Count, Leaf, arguments, ignored_switch, text, value};
use crate::exit::Exit;
use crate::output::format::{failed, parse};
use clap::{ArgMatches, Command};
use rrt_images::names::{Image, ImageStore};
use rrt_images::snapshots::Snapshots;
use rrt_images::time::Time;
use rrt_oci::image::{ContainerConfig, Healthcheck, ImageConfig};
use rrt_template::{Options, Zero};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub const INSPECT: Leaf = Leaf {
    name: "inspect",
    other_names: &[],
    about: "Return low-level information on berth objects",
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    aliases: &[],
    count: Count::AtLeast(1),
    flags: |command: Command| {
        command.arg(object_format()).arg(ignored_switch("size").short('s')).arg(value(
            "type",
            None,
            "string",
            "Only inspect objects of the given type",
        ))
    },
    run: |app, matches| match text(matches, "type") {
        None | Some("" | "image") => run(app, matches, false),
        Some(other) => Err(Exit::failed(format!(
            "Error: {other:?} is not a valid value for --type: image is the only type so far"
        ))),
    },
};

pub const IMAGE_INSPECT: Leaf = Leaf {
    about: "Display detailed information on one or more images",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    flags: |command: Command| command.arg(object_format()),
    run: |app, matches| run(app, matches, true),
    ..INSPECT
};

fn run(app: &mut App, matches: &ArgMatches, images_only: bool) -> Result<(), Exit> {
    let format = text(matches, "format").filter(|format| !format.is_empty());
    let template = format.filter(|format| *format != "json").map(parse).transpose()?;
    let store = app.images()?;
    let snapshots = app.snapshots()?;
    let (mut errors, mut found, mut lines) = (Vec::new(), Vec::new(), String::new());
    for name in arguments(matches) {
        let inspected = match store.resolve(name) {
            Ok(image) => inspect(&store, &snapshots, &image)?,
            Err(rrt_images::names::Error::NoSuchImage(_)) if !images_only => {
                errors.push(format!("Error: No such object: {name}"));
                continue;
            }
            Err(e) => {
                errors.push(format!("Error: {e}"));
                continue;
            }
        };
        let Some(template) = &template else {
            found.push(inspected);
            continue;
        };
        let data = serde_json::to_value(&inspected).map_err(|e| Exit::error(&e))?;
        let options = Options { missing_is_error: true, zero: Some(zero), ..Options::default() };
        match template.render(&data, &options) {
            Ok(text) => lines += &(text + "\n"),
            Err(e) => errors.push(failed(&e).message),
        }
    }
    match (&template, format) {
        (Some(_), _) => app.out.print(&lines)?,
        (None, Some(_)) => app.out.line(&serde_json::to_string(&found).map_err(|e| Exit::error(&e))?)?,
        (None, None) => app.out.line(&indented(&found)?)?,
    }
    together(errors)
}

fn indented(found: &[Inspected]) -> Result<String, Exit> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let written = found.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter));
    written.map_err(|e| Exit::error(&e))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// What Docker's structs have where JSON has `null` or nothing.
fn zero(name: &str) -> Option<Zero> {
    match name {
        "Env" | "Cmd" | "Entrypoint" | "OnBuild" | "Shell" | "RepoTags" | "RepoDigests" | "Layers" => Some(Zero::List),
        "Volumes" | "Labels" | "ExposedPorts" => Some(Zero::Map),
        "Healthcheck" | "StopTimeout" => Some(Zero::Pointer),
        "StopSignal" | "Variant" | "OsVersion" => Some(Zero::Text),
        "ArgsEscaped" => Some(Zero::Bool),
        _ => None,
    }
}

/// Docker's ImageInspect, in its order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    parent: String,
    comment: String,
    created: String,
    docker_version: String,
    author: String,
    config: Config,
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
    os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    os_version: String,
    size: u64,
    graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
    metadata: Metadata,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    data: BTreeMap<String, String>,
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    r#type: String,
    layers: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: String,
}

/// Docker's container.Config, in its order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    hostname: String,
    domainname: String,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Value>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    args_escaped: bool,
    image: String,
    volumes: Option<BTreeMap<String, Value>>,
    working_dir: String,
    entrypoint: Option<Vec<String>>,
    on_build: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<Vec<String>>,
}

impl Config {
    fn new(config: ContainerConfig) -> Config {
        let text = |name: &str| config.extra.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let switch = |name: &str| config.extra.get(name).and_then(Value::as_bool).unwrap_or(false);
        Config {
            hostname: text("Hostname"),
            domainname: text("Domainname"),
            attach_stdin: switch("AttachStdin"),
            attach_stdout: switch("AttachStdout"),
            attach_stderr: switch("AttachStderr"),
            tty: switch("Tty"),
            open_stdin: switch("OpenStdin"),
            stdin_once: switch("StdinOnce"),
            image: text("Image"),
            user: config.user,
            exposed_ports: config.exposed_ports,
            env: Some(config.env).filter(|list| !list.is_empty()),
            cmd: config.cmd,
            healthcheck: config.healthcheck,
            args_escaped: config.args_escaped,
            volumes: Some(config.volumes).filter(|map| !map.is_empty()),
            working_dir: config.working_dir,
            entrypoint: config.entrypoint,
            on_build: Some(config.on_build).filter(|list| !list.is_empty()),
            labels: Some(config.labels).filter(|map| !map.is_empty()),
            stop_signal: config.stop_signal,
            stop_timeout: config.stop_timeout,
            shell: config.shell,
        }
    }
}

fn inspect(store: &ImageStore, snapshots: &Snapshots, image: &Image) -> Result<Inspected, Exit> {
    let config: ImageConfig = store.config(image).map_err(|e| Exit::error(&e))?;
    let names = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>();
    let tagged = image.tags.values().max().map(|seconds| Time { seconds: *seconds, nanoseconds: 0 }.rfc3339());
    let never = || "0001-01-01T00:00:00Z".to_owned();
    let comment = config.history.last().and_then(|step| step.comment.clone());
    Ok(Inspected {
        id: image.id.to_string(),
        repo_tags: names(&mut image.tags.keys().map(|name| name.familiar())),
        repo_digests: names(&mut image.digests.iter().map(|name| name.familiar())),
        parent: String::new(),
        comment: extra(&config.extra, "comment").or(comment).unwrap_or_default(),
        created: config.created.unwrap_or_else(never),
        docker_version: extra(&config.extra, "docker_version").unwrap_or_default(),
        author: config.author.unwrap_or_default(),
        config: Config::new(config.config.unwrap_or_default()),
        architecture: config.architecture,
        variant: config.variant.unwrap_or_default(),
        os: config.os,
        os_version: config.os_version.unwrap_or_default(),
        size: image.size(),
        graph_driver: GraphDriver { data: graph_data(snapshots, image), name: snapshots.driver().name().to_owned() },
        root_fs: RootFs {
            r#type: "layers".to_owned(),
            layers: names(&mut image.layers.iter().map(|l| l.diff_id.to_string())),
        },
        metadata: Metadata { last_tag_time: tagged.unwrap_or_else(never) },
    })
}

/// Docker's names for the directories. An image has no upper directory of its own: that of its highest layer is shown, as Docker does.
fn graph_data(snapshots: &Snapshots, image: &Image) -> BTreeMap<String, String> {
    let paths: Vec<String> =
        snapshots.paths(&image.diff_ids()).iter().rev().map(|path| path.display().to_string()).collect();
    let mut data = BTreeMap::new();
    if let Some((highest, lower)) = paths.split_first() {
        data.insert("UpperDir".to_owned(), highest.clone());
        if !lower.is_empty() {
            data.insert("LowerDir".to_owned(), lower.join(":"));
        }
    }
    data
}

fn extra(extra: &Map<String, Value>, name: &str) -> Option<String> {
    extra.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}
