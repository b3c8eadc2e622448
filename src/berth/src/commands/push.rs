//! `push`, `image push`.

use crate::app::App;
use crate::cli::{Count, Leaf, arguments, ignored_switch, is_on, switch};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::output::progress::Screen;
use clap::{ArgMatches, Command};
use rrt_images::push::Pusher;
use rrt_oci::image::Reference;

pub const PUSH: Leaf = Leaf {
    name: "push",
    other_names: &[],
    about: "Upload an image to a registry",
    usage: "[OPTIONS] NAME[:TAG]",
    aliases: &["image push", "push"],
    count: Count::Exactly(1),
    flags,
    run,
};

fn flags(command: Command) -> Command {
    command
        .arg(switch("all-tags", Some('a'), "Push all tags of an image to the repository"))
        .arg(ignored_switch("disable-content-trust"))
        .arg(switch("quiet", Some('q'), "Suppress verbose output"))
}

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let reference: Reference = arguments(matches)[0].parse().map_err(|e| Exit::error(&e))?;
    let (all, quiet) = (is_on(matches, "all-tags"), is_on(matches, "quiet"));
    if all && (reference.tag().is_some() || reference.digest().is_some()) {
        return Err(Exit::failed("tag can't be used with --all-tags/-a"));
    }
    let interrupt = Interrupt::listen();
    let (client, images) = (app.registry()?, app.images()?);
    if !all && reference.tag().is_none() && reference.digest().is_none() && !quiet {
        app.out.line("Using default tag: latest")?;
    }
    let screen = Screen::new(quiet, Some(interrupt.clone()));
    let pusher = Pusher { client: &client, images: &images, progress: &screen };
    let pushed = match all {
        true => pusher.push_all(&reference).map(drop),
        false => pusher.push(&reference).map(drop),
    };
    pushed.map_err(|e| interrupt.or(Exit::error(&e)))?;
    match quiet {
        true => app.out.line(&(if all { reference } else { reference.with_default_tag() }).to_string()),
        false => Ok(()),
    }
}
