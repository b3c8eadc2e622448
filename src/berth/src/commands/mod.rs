//! What each command does.

mod archives;
mod check;
mod df;
mod export;
mod history;
mod images;
mod info;
mod inspect;
mod login;
mod prune;
mod pull;
mod push;
mod registry;
mod rmi;
mod tag;
mod version;

use crate::app::App;
use crate::cli::Entry;
use crate::exit::Exit;
use clap::{Arg, ArgMatches};
use rrt_images::names::{Image, User};
use std::io::{self, Write};

/// The commands, in the order of help.
pub const TREE: &[Entry] = &[
    Entry::Common(&pull::PULL),
    Entry::Common(&push::PUSH),
    Entry::Common(&images::IMAGES),
    Entry::Common(&login::LOGIN),
    Entry::Common(&login::LOGOUT),
    Entry::Common(&version::VERSION),
    Entry::Common(&info::INFO),
    Entry::Group(
        "image",
        "Manage images",
        &[
            &history::HISTORY,
            &archives::IMPORT,
            &inspect::IMAGE_INSPECT,
            &archives::LOAD,
            &images::LS,
            &prune::IMAGE_PRUNE,
            &pull::PULL,
            &push::PUSH,
            &rmi::RM,
            &archives::SAVE,
            &tag::TAG,
        ],
    ),
    Entry::Group("registry", "Serve images", &[&registry::SERVE]),
    Entry::Group("system", "Manage berth", &[&check::CHECK, &df::DF, &info::INFO, &prune::SYSTEM_PRUNE]),
    Entry::Other(&export::EXPORT),
    Entry::Other(&history::HISTORY),
    Entry::Other(&archives::IMPORT),
    Entry::Other(&inspect::INSPECT),
    Entry::Other(&archives::LOAD),
    Entry::Other(&rmi::RMI),
    Entry::Other(&archives::SAVE),
    Entry::Other(&tag::TAG),
];

/// `--format` of lists.
const LIST_FORMAT: &str = "Format output using a custom template:
'table':            Print output in table format
with column headers (default)
'table TEMPLATE':   Print output in table format
using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given
Go template.";

/// `--format` of single things.
const OBJECT_FORMAT: &str = "Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given
Go template.";

fn list_format() -> Arg {
    crate::cli::value("format", None, "string", LIST_FORMAT)
}

fn object_format() -> Arg {
    crate::cli::value("format", Some('f'), "string", OBJECT_FORMAT)
}

/// `--filter`s, each of which must be `name=value`.
fn filters<'a>(matches: &'a ArgMatches, flag: &str) -> Result<Vec<&'a str>, Exit> {
    let filters = crate::cli::texts(matches, "filter");
    match filters.iter().find(|filter| !filter.contains('=')) {
        None => Ok(filters),
        Some(bad) => Err(Exit {
            code: 125,
            message: format!(
                "invalid argument {bad:?} for \"{flag}\" flag: bad format of filter (expected name=value)"
            ),
        }),
    }
}

/// Which containers use an image: none, as long as there are no containers.
fn used_by(_: &Image) -> Vec<User> {
    Vec::new()
}

/// Asks; anything but `y` ends the command.
fn confirm(app: &mut App, question: &str) -> Result<(), Exit> {
    app.out.print(&format!("{question}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    if read.is_ok() && answer.trim().eq_ignore_ascii_case("y") {
        return Ok(());
    }
    if !answer.ends_with('\n') {
        app.out.print("\n")?;
    }
    Err(Exit::silent(1))
}

/// What went wrong with some of several arguments, after what went right was printed.
fn together(errors: Vec<String>) -> Result<(), Exit> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Exit::failed(errors.join("\n"))),
    }
}

/// To standard error, where nobody listens it is lost.
fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "{}", crate::output::printable(text));
}

/// `SOURCE_DATE_EPOCH`, for images that are the same each time (reproducible-builds.org).
fn source_date_epoch() -> Result<Option<i64>, Exit> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => text
            .parse()
            .map(Some)
            .map_err(|_| Exit::failed(format!("Error: SOURCE_DATE_EPOCH={text} is no number of seconds since 1970"))),
        _ => Ok(None),
    }
}
