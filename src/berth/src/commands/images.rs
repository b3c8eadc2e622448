//! `images`, `image ls`.

use super::{filters, list_format};
use crate::app::App;
use crate::cli::{Count, Leaf, arguments, ignored_switch, is_on, switch, text, value};
use crate::exit::Exit;
use crate::output::format::{Format, List, Row};
use crate::output::time::{age, zoned};
use crate::output::units::{human_size, human_size_short};
use clap::{ArgMatches, Command};
use rrt_images::names::{Filters, Image, Listed};
use rrt_images::time::Time;
use rrt_oci::image::Digest;
use std::collections::BTreeMap;

pub const IMAGES: Leaf = Leaf { name: "images", other_names: &[], ..LS };

pub const LS: Leaf = Leaf {
    name: "ls",
    other_names: &["list"],
    about: "List images",
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    aliases: &["image ls", "image list", "images"],
    count: Count::AtMost(1),
    flags,
    run,
};

fn flags(command: Command) -> Command {
    command
        .arg(switch("all", Some('a'), "Show all images (default hides intermediate images)"))
        .arg(switch("digests", None, "Show digests"))
        .arg(value("filter", Some('f'), "filter", "Filter output based on conditions provided"))
        .arg(list_format())
        .arg(switch("no-trunc", None, "Don't truncate output"))
        .arg(switch("quiet", Some('q'), "Only show image IDs"))
        .arg(ignored_switch("tree"))
}

pub const LIST: List<'static> = List {
    context: "imageContext",
    fields: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("VirtualSize", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
    table: &["Repository", "Tag", "ID", "CreatedSince", "Size"],
    quiet: "ID",
};

const WITH_DIGESTS: &[&str] = &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"];

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let now = Time::now();
    let mut wanted = Filters::default();
    for filter in filters(matches, "-f, --filter")? {
        wanted.add(filter, now).map_err(|e| Exit::error(&e))?;
    }
    let format = Format::parse(text(matches, "format"), is_on(matches, "quiet"));
    let digests = is_on(matches, "digests");
    let list = List { table: if digests { WITH_DIGESTS } else { LIST.table }, ..LIST };
    if let [pattern] = arguments(matches)[..] {
        // What is no pattern matches nothing, as in Docker.
        if wanted.add(&format!("reference={pattern}"), now).is_err() {
            return app.out.print(&list.render(&format, &[])?);
        }
    }
    let store = app.images()?;
    let images = store.load().map_err(|e| Exit::error(&e))?;
    let listed = images.list(&wanted, &|image| store.labels(image)).map_err(|e| Exit::error(&e))?;
    let show = Show { now, whole: is_on(matches, "no-trunc"), digests, each_digest: digests || format.names("Digest") };
    let rows: Vec<Row> = listed.iter().flat_map(|image| show.rows(image)).collect();
    app.out.print(&list.render(&format, &rows)?)
}

/// How rows are made.
pub struct Show {
    /// Ages count from it.
    pub now: Time,
    /// Ids are not cut.
    pub whole: bool,
    /// A name with a digest alone has a row for each digest.
    pub digests: bool,
    /// A name with a tag has a row for each digest.
    pub each_digest: bool,
}

impl Show {
    /// A row for each name, by Docker's rules: a repository's digests stand beside its tags, or alone where it has none.
    pub fn rows(&self, listed: &Listed<'_>) -> Vec<Row> {
        let mut repositories: BTreeMap<String, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
        for name in &listed.tags {
            repositories.entry(name.familiar_name()).or_default().0.extend(name.tag());
        }
        for name in &listed.digests {
            repositories.entry(name.familiar_name()).or_default().1.extend(name.digest().map(Digest::as_str));
        }
        if repositories.is_empty() {
            return vec![self.row(listed.image, "<none>", "<none>", "<none>")];
        }
        let mut rows = Vec::new();
        for (repository, (tags, digests)) in &repositories {
            let shown: &[&str] = match (self.each_digest && !tags.is_empty()) || self.digests {
                true if !digests.is_empty() => digests,
                _ => &["<none>"],
            };
            let tags: &[&str] = if tags.is_empty() { &["<none>"] } else { tags };
            for tag in tags {
                rows.extend(shown.iter().map(|digest| self.row(listed.image, repository, tag, digest)));
            }
        }
        rows
    }

    fn row(&self, image: &Image, repository: &str, tag: &str, digest: &str) -> Row {
        let id = if self.whole { image.id.as_str() } else { image.id.short() };
        let texts = [
            ("Repository", repository.to_owned()),
            ("Tag", tag.to_owned()),
            ("Digest", digest.to_owned()),
            ("ID", id.to_owned()),
            ("CreatedSince", age(image.made(), self.now)),
            ("CreatedAt", zoned(image.made())),
            ("Size", human_size_short(image.size())),
            ("VirtualSize", human_size(image.size())),
            ("SharedSize", "N/A".to_owned()),
            ("UniqueSize", "N/A".to_owned()),
            ("Containers", "N/A".to_owned()),
        ];
        texts.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect()
    }
}
