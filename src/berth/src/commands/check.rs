//! `system check`: reads everything once, and says what a broken disk has done to it.

use crate::app::App;
use crate::cli::{Count, Leaf, is_on, switch};
use crate::exit::Exit;
use clap::{ArgMatches, Command};

pub const CHECK: Leaf = Leaf {
    name: "check",
    other_names: &[],
    about: "Read all images and report what is damaged",
    usage: "[OPTIONS]",
    aliases: &[],
    count: Count::Exactly(0),
    flags: |command: Command| command.arg(switch("quiet", Some('q'), "Only report problems")),
    run,
};

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let mut checked = 0u64;
    let problems = app.images()?.check(&mut |_| checked += 1).map_err(|e| Exit::error(&e))?;
    let mut lines = String::new();
    for problem in &problems {
        let what = if problem.damaged { "was damaged, and is removed" } else { "is missing" };
        lines += &format!("{} {what}: pull or load again {}\n", problem.blob, problem.images.join(", "));
    }
    app.out.print(&lines)?;
    match problems.len() {
        0 if is_on(matches, "quiet") => Ok(()),
        0 => app.out.line(&format!("{checked} blobs are what their digests say")),
        count => Err(Exit::failed(format!("Error: {count} of {checked} blobs are damaged or missing"))),
    }
}
