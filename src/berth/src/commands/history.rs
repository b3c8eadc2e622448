//! `history`.

use super::list_format;
use crate::app::App;
use crate::cli::{Count, Leaf, arguments, is_on, switch, text};
use crate::exit::Exit;
use crate::output::format::{Format, List, Row};
use crate::output::time::{age, rfc3339};
use crate::output::units::{ellipsis, human_size_short};
use clap::{ArgMatches, Command};
use rrt_images::names::Image;
use rrt_images::time::Time;
use rrt_oci::image::{History, ImageConfig};

pub const HISTORY: Leaf = Leaf {
    name: "history",
    other_names: &[],
    about: "Show the history of an image",
    usage: "[OPTIONS] IMAGE",
    aliases: &["image history", "history"],
    count: Count::Exactly(1),
    flags,
    run,
};

fn flags(command: Command) -> Command {
    command
        .arg(list_format())
        .arg(switch("human", Some('H'), "Print sizes and dates in human readable format (default true)"))
        .arg(switch("no-trunc", None, "Don't truncate output"))
        .arg(switch("quiet", Some('q'), "Only show image IDs"))
}

const LIST: List<'static> = List {
    context: "historyContext",
    fields: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    table: &["ID", "CreatedSince", "CreatedBy", "Size", "Comment"],
    quiet: "ID",
};

const FOR_MACHINES: &[&str] = &["ID", "CreatedAt", "CreatedBy", "Size", "Comment"];

/// Docker shows so many characters of a command.
const CREATED_BY: usize = 45;

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let human = matches.get_one::<bool>("human").copied().unwrap_or(true);
    let format = Format::parse(text(matches, "format"), is_on(matches, "quiet"));
    let store = app.images()?;
    let image = store.resolve(arguments(matches)[0]).map_err(|e| Exit::error(&e))?;
    let config = store.config(&image).map_err(|e| Exit::error(&e))?;
    let show = Show { now: Time::now(), human, whole: is_on(matches, "no-trunc") };
    let list = List { table: if human { LIST.table } else { FOR_MACHINES }, ..LIST };
    app.out.print(&list.render(&format, &show.rows(&image, &config)?)?)
}

struct Show {
    now: Time,
    human: bool,
    whole: bool,
}

impl Show {
    /// Newest first. Only the newest has an id of its own: that of the image.
    fn rows(&self, image: &Image, config: &ImageConfig) -> Result<Vec<Row>, Exit> {
        let mut layers = image.layers.iter();
        let mut rows = Vec::new();
        for step in &config.history {
            let size = match step.empty_layer {
                true => 0,
                false => layers.next().map(|layer| layer.unpacked).ok_or_else(|| {
                    Exit::failed(format!("Error: the history of {} has more layers than the image", image.id))
                })?,
            };
            rows.push(self.row(step, size));
        }
        rows.reverse();
        if let Some(newest) = rows.first_mut() {
            let id = if self.whole { image.id.as_str() } else { image.id.short() };
            newest.insert("ID".to_owned(), id.into());
        }
        Ok(rows)
    }

    fn row(&self, step: &History, size: u64) -> Row {
        let made = step.created.as_deref().and_then(Time::parse);
        let created_by = step.created_by.as_deref().unwrap_or_default().replace('\t', " ");
        let texts = [
            ("ID", "<missing>".to_owned()),
            // Docker's scripts expect the exact time here, when they asked for no human's.
            ("CreatedSince", if self.human { age(made, self.now) } else { rfc3339(made) }),
            ("CreatedAt", rfc3339(made)),
            ("CreatedBy", if self.whole { created_by } else { ellipsis(&created_by, CREATED_BY) }),
            ("Size", if self.human { human_size_short(size) } else { size.to_string() }),
            ("Comment", step.comment.clone().unwrap_or_default()),
        ];
        texts.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect()
    }
}
