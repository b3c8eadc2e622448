//! `export`: an image's root file system as an archive. (Docker's takes a container.)

use crate::app::App;
use crate::cli::{Count, Leaf, arguments, text, value};
use crate::exit::Exit;
use crate::output::file::Output;
use clap::{ArgMatches, Command};
use rrt_images::archive::export_image;
use rrt_images::layer::PackOptions;

pub const EXPORT: Leaf = Leaf {
    name: "export",
    other_names: &[],
    about: "Export an image's filesystem as a tar archive",
    usage: "[OPTIONS] IMAGE",
    aliases: &[],
    count: Count::Exactly(1),
    flags: |command: Command| command.arg(value("output", Some('o'), "string", "Write to a file, instead of STDOUT")),
    run,
};

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let (store, snapshots) = (app.images()?, app.snapshots()?);
    let lease = store.content().lease().map_err(|e| Exit::error(&e))?;
    let image = store.hold(&lease, arguments(matches)[0]).map_err(|e| Exit::error(&e))?;
    let mut out = Output::create(text(matches, "output"))?;
    let exported = export_image(&snapshots, &image.diff_ids(), &mut out, &PackOptions::default());
    exported.map_err(|e| out.why(Exit::error(&e)))?;
    out.finish()
}
