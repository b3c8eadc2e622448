//! `image prune`, `system prune`.

use super::{confirm, filters, used_by};
use crate::app::App;
use crate::cli::{Count, Leaf, is_on, switch, value};
use crate::exit::Exit;
use crate::output::units::human_size;
use clap::{ArgMatches, Command};
use rrt_images::garbage::collect_snapshots;
use rrt_images::names::{Filters, Removed};
use rrt_images::time::Time;

pub const IMAGE_PRUNE: Leaf = Leaf {
    name: "prune",
    other_names: &[],
    about: "Remove unused images",
    usage: "[OPTIONS]",
    aliases: &[],
    count: Count::Exactly(0),
    flags: |command| flags(command, "Remove all unused images, not just dangling ones"),
    run: |app, matches| {
        let which = if is_on(matches, "all") {
            "all images without at least one container associated to them"
        } else {
            "all dangling images"
        };
        run(app, matches, &format!("WARNING! This will remove {which}."))
    },
};

pub const SYSTEM_PRUNE: Leaf = Leaf {
    name: "prune",
    other_names: &[],
    about: "Remove unused data",
    usage: "[OPTIONS]",
    aliases: &[],
    count: Count::Exactly(0),
    flags: |command| flags(command, "Remove all unused images not just dangling ones"),
    run: |app, matches| {
        let which = if is_on(matches, "all") {
            "all images without at least one container associated to them"
        } else {
            "all dangling images"
        };
        run(app, matches, &format!("WARNING! This will remove:\n  - {which}\n  - what cut downloads have left\n"))
    },
};

fn flags(command: Command, all: &'static str) -> Command {
    command
        .arg(switch("all", Some('a'), all))
        .arg(value("filter", None, "filter", "Provide filter values (e.g. \"until=<timestamp>\")"))
        .arg(switch("force", Some('f'), "Do not prompt for confirmation"))
}

fn run(app: &mut App, matches: &ArgMatches, question: &str) -> Result<(), Exit> {
    let mut wanted = Filters::default();
    for filter in filters(matches, "--filter")? {
        wanted.add(filter, Time::now()).map_err(|e| Exit::error(&e))?;
    }
    let other = wanted.references.first().or(wanted.before.first()).or(wanted.since.first());
    if other.is_some() {
        return Err(Exit::failed("Error: prune takes the filters until, label and dangling"));
    }
    let store = app.images()?;
    if !is_on(matches, "force") {
        confirm(app, question)?;
    }
    // `--filter dangling=false` is `--all`.
    let all = is_on(matches, "all") || wanted.dangling == Some(false);
    let removal = store.prune(all, &wanted, &used_by).map_err(|e| Exit::error(&e))?;
    let mut out = String::new();
    for (i, removed) in removal.removed.iter().enumerate() {
        out.push_str(if i == 0 { "Deleted Images:\n" } else { "" });
        out.push_str(&match removed {
            Removed::Untagged(name) => format!("untagged: {}\n", name.familiar()),
            Removed::Deleted(digest) => format!("deleted: {digest}\n"),
        });
    }
    out.push_str(if removal.removed.is_empty() { "" } else { "\n" });
    let layers = collect_snapshots(&store, &app.snapshots()?).map_err(|e| Exit::error(&e))?;
    let reclaimed = human_size(removal.collected.bytes + layers.bytes);
    app.out.print(&format!("{out}Total reclaimed space: {reclaimed}\n"))
}
