//! `rmi`, `image rm`.

use super::{together, used_by};
use crate::app::App;
use crate::cli::{Count, Leaf, arguments, ignored_switch, is_on, switch};
use crate::exit::Exit;
use clap::{ArgMatches, Command};
use rrt_images::garbage::collect_snapshots;
use rrt_images::names::{Error, Removed};

pub const RMI: Leaf = Leaf { name: "rmi", other_names: &[], ..RM };

pub const RM: Leaf = Leaf {
    name: "rm",
    other_names: &["remove"],
    about: "Remove one or more images",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    aliases: &["image rm", "image remove", "rmi"],
    count: Count::AtLeast(1),
    flags,
    run,
};

fn flags(command: Command) -> Command {
    command.arg(switch("force", Some('f'), "Force removal of the image")).arg(ignored_switch("no-prune"))
}

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let force = is_on(matches, "force");
    let store = app.images()?;
    let (mut errors, mut deleted) = (Vec::new(), false);
    for image in arguments(matches) {
        match store.remove(image, force, &used_by) {
            Ok(removal) => {
                let lines: String = removal.removed.iter().map(|removed| format!("{removed}\n")).collect();
                deleted |= removal.removed.iter().any(|removed| matches!(removed, Removed::Deleted(_)));
                app.out.print(&lines)?;
            }
            // By force, what is not there is not removed, and that is no failure (as Docker since 1.13).
            Err(e @ Error::NoSuchImage(_)) if force => super::warn(&format!("Error: {e}")),
            Err(e) => errors.push(format!("Error: {e}")),
        }
    }
    if deleted {
        collect_snapshots(&store, &app.snapshots()?).map_err(|e| Exit::error(&e))?;
    }
    together(errors)
}
