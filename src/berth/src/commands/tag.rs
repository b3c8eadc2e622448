//! `tag`.

use crate::app::App;
use crate::cli::{Count, Leaf, arguments};
use crate::exit::Exit;
use clap::ArgMatches;
use rrt_images::names::Error;
use rrt_oci::image::Reference;

pub const TAG: Leaf = Leaf {
    name: "tag",
    other_names: &[],
    about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    aliases: &["image tag", "tag"],
    count: Count::Exactly(2),
    flags: |command| command,
    run,
};

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let given = arguments(matches);
    let (source, target) = (given[0], given[1]);
    let target: Reference = target
        .parse()
        .map_err(|e| Exit::failed(format!("Error parsing reference: {target:?} is not a valid repository/tag: {e}")))?;
    match app.images()?.tag(source, &target) {
        Ok(_) => Ok(()),
        Err(e @ Error::TagWithDigest) => Err(Exit::failed(e.to_string())),
        Err(e) => Err(Exit::error(&e)),
    }
}
