//! `system df`.

use super::{images, list_format, used_by};
use crate::app::App;
use crate::cli::{Count, Leaf, is_on, switch, text};
use crate::exit::Exit;
use crate::output::format::{Format, List, Row};
use crate::output::units::human_size;
use clap::{ArgMatches, Command};
use rrt_images::names::{Filters, Images};
use rrt_images::time::Time;

pub const DF: Leaf = Leaf {
    name: "df",
    other_names: &[],
    about: "Show disk usage",
    usage: "[OPTIONS]",
    aliases: &[],
    count: Count::Exactly(0),
    flags: |command: Command| {
        command.arg(list_format()).arg(switch("verbose", Some('v'), "Show detailed information on space usage"))
    },
    run,
};

const LIST: List<'static> = List {
    context: "diskUsageContext",
    fields: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    table: &["Type", "TotalCount", "Active", "Size", "Reclaimable"],
    quiet: "Type",
};

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let images = app.images()?.load().map_err(|e| Exit::error(&e))?;
    let format = Format::parse(text(matches, "format"), false);
    if is_on(matches, "verbose") {
        if !matches!(format, Format::Table) {
            return Err(Exit::failed("Error: the verbose and the format options conflict"));
        }
        let rows = verbose(&images)?;
        let columns = &["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"];
        let list = List { table: columns, ..images::LIST };
        return app.out.print(&format!("Images space usage:\n\n{}", list.render(&format, &rows)?));
    }
    let usage = images.disk_usage(|image| !used_by(image).is_empty());
    let share = match usage.size {
        0 => String::new(),
        size => format!(" ({}%)", u128::from(usage.reclaimable) * 100 / u128::from(size)),
    };
    let texts = [
        ("Type", "Images".to_owned()),
        ("TotalCount", usage.count.to_string()),
        ("Active", usage.active.to_string()),
        ("Size", human_size(usage.size)),
        ("Reclaimable", human_size(usage.reclaimable) + &share),
    ];
    let row: Row = texts.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
    app.out.print(&LIST.render(&format, &[row])?)
}

fn verbose(images: &Images) -> Result<Vec<Row>, Exit> {
    let shared = images.shared_sizes();
    let show = images::Show { now: Time::now(), whole: false, digests: false, each_digest: false };
    let listed = images.list(&Filters::default(), &|_| Default::default()).map_err(|e| Exit::error(&e))?;
    let mut rows = Vec::new();
    for image in &listed {
        let shared = shared.get(&image.image.id).copied().unwrap_or(0);
        for mut row in show.rows(image) {
            row.insert("SharedSize".to_owned(), human_size(shared).into());
            row.insert("UniqueSize".to_owned(), human_size(image.image.size().saturating_sub(shared)).into());
            row.insert("Containers".to_owned(), used_by(image.image).len().to_string().into());
            rows.push(row);
        }
    }
    Ok(rows)
}
