//! `pull`, `image pull`.

use crate::app::App;
use crate::cli::{Count, Leaf, arguments, ignored_switch, is_on, switch, text, value};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::output::progress::Screen;
use clap::{ArgMatches, Command};
use rrt_images::pull::Puller;
use rrt_oci::image::{Platform, Reference};

pub const PULL: Leaf = Leaf {
    name: "pull",
    other_names: &[],
    about: "Download an image from a registry",
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    aliases: &["image pull", "pull"],
    count: Count::Exactly(1),
    flags,
    run,
};

fn flags(command: Command) -> Command {
    command
        .arg(switch("all-tags", Some('a'), "Download all tagged images in the repository"))
        .arg(ignored_switch("disable-content-trust"))
        .arg(value("platform", None, "string", "Set platform if server is multi-platform capable"))
        .arg(switch("quiet", Some('q'), "Suppress verbose output"))
}

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let given = arguments(matches)[0];
    let reference: Reference = given.parse().map_err(|e| Exit::error(&e))?;
    let platform = text(matches, "platform").filter(|platform| !platform.is_empty());
    let platform: Option<Platform> = platform.map(str::parse).transpose().map_err(|e: String| Exit::error(&e))?;
    let (all, quiet) = (is_on(matches, "all-tags"), is_on(matches, "quiet"));
    if all && (reference.tag().is_some() || reference.digest().is_some()) {
        return Err(Exit::failed("tag can't be used with --all-tags/-a"));
    }
    let (client, images, snapshots) = (app.registry()?, app.images()?, app.snapshots()?);
    let interrupt = Interrupt::listen();
    if !all && reference.tag().is_none() && reference.digest().is_none() && !quiet {
        app.out.line("Using default tag: latest")?;
    }
    let screen = Screen::new(quiet, Some(interrupt.clone()));
    let puller = Puller {
        client: &client,
        images: &images,
        snapshots: &snapshots,
        progress: &screen,
        options: app.unpacking(),
        platform,
    };
    let pulled = match all {
        true => puller.pull_all(&reference).map(drop),
        false => puller.pull(&reference).map(drop),
    };
    pulled.map_err(|e| interrupt.or(Exit::error(&e)))?;
    let shown = if all { reference.clone() } else { reference.clone().with_default_tag() };
    app.out.line(&full_name(&shown))
}

/// Docker's last line has the registry's name, too: `docker.io/library/busybox:latest`.
fn full_name(reference: &Reference) -> String {
    reference.to_string()
}
