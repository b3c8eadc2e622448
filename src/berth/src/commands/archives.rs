//! `save`, `load`, `import`.

use crate::app::App;
use crate::cli::{Count, Leaf, arguments, is_on, switch, text, texts, value};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::output::file::Output;
use crate::output::progress::Screen;
use clap::{ArgMatches, Command};
use rrt_content::Lease;
use rrt_images::archive::{self, Import, Loaded, Saved};
use rrt_images::layer::Packing;
use rrt_images::names::{self, Image, ImageStore};
use rrt_oci::image::{Platform, Reference};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;

pub const SAVE: Leaf = Leaf {
    name: "save",
    other_names: &[],
    about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    aliases: &["image save", "save"],
    count: Count::AtLeast(1),
    flags: |command: Command| command.arg(value("output", Some('o'), "string", "Write to a file, instead of STDOUT")),
    run: save,
};

pub const LOAD: Leaf = Leaf {
    name: "load",
    other_names: &[],
    about: "Load an image from a tar archive or STDIN",
    usage: "[OPTIONS]",
    aliases: &["image load", "load"],
    count: Count::Exactly(0),
    flags: |command: Command| {
        command
            .arg(value(
                "input",
                Some('i'),
                "string",
                "Read from tar archive file or OCI layout directory, instead of STDIN",
            ))
            .arg(value("platform", None, "string", "Load only the given platform"))
            .arg(switch("quiet", Some('q'), "Suppress the load output"))
    },
    run: load,
};

pub const IMPORT: Leaf = Leaf {
    name: "import",
    other_names: &[],
    about: "Import the contents from a tarball to create a filesystem image",
    usage: "[OPTIONS] file|- [REPOSITORY[:TAG]]",
    aliases: &["image import", "import"],
    count: Count::Between(1, 2),
    flags: |command: Command| {
        command
            .arg(value("change", Some('c'), "list", "Apply Dockerfile instruction to the created image"))
            .arg(value("message", Some('m'), "string", "Set commit message for imported image"))
            .arg(value("platform", None, "string", "Set platform if server is multi-platform capable"))
    },
    run: import,
};

fn save(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let store = app.images()?;
    let content = store.content();
    let lease = content.lease().map_err(|e| Exit::error(&e))?;
    let chosen = arguments(matches)
        .into_iter()
        .try_fold(Vec::new(), |mut chosen, given| choose(&store, &lease, given, &mut chosen).map(|()| chosen));
    let chosen = chosen.map_err(|e| Exit::error(&e))?;
    let saved: Vec<Saved<'_>> =
        chosen.iter().map(|(image, names)| Saved { image, names: names.iter().cloned().collect() }).collect();
    let mut out = Output::create(text(matches, "output"))?;
    let interrupt = Interrupt::listen();
    let screen = Screen::new(true, Some(interrupt.clone()));
    let written = archive::save(content, &lease, &saved, &mut out, &screen);
    written.map_err(|e| interrupt.or(out.why(Exit::error(&e))))?;
    out.finish()
}

/// Adds what `given` means, as Docker understands it: a name without a tag means every tag of its repository; an id or digest, the image
/// without a name.
fn choose(
    store: &ImageStore,
    lease: &Lease,
    given: &str,
    chosen: &mut Vec<(Image, BTreeSet<Reference>)>,
) -> Result<(), names::Error> {
    let reference = given.parse::<Reference>().ok();
    let images = store.load()?;
    let mut add = |text: &str, names: Vec<Reference>| {
        let image = store.hold(lease, text)?;
        match chosen.iter_mut().find(|(other, _)| other.id == image.id) {
            Some((_, known)) => known.extend(names),
            None => chosen.push((image, names.into_iter().collect())),
        }
        Ok(())
    };
    let Some(reference) = reference.filter(|reference| reference.digest().is_none()) else {
        return add(given, Vec::new());
    };
    if reference.tag().is_some() {
        return add(given, vec![reference]);
    }
    let same = |name: &&Reference| name.familiar_name() == reference.familiar_name();
    let mut found = false;
    for image in images.iter() {
        let names: Vec<Reference> = image.tags.keys().filter(same).cloned().collect();
        if !names.is_empty() {
            found = true;
            add(image.id.as_str(), names)?;
        }
    }
    if found { Ok(()) } else { add(given, Vec::new()) }
}

/// Opens what is to be read, `-` and nothing being standard input.
fn input(path: Option<&str>) -> Result<File, Exit> {
    let stdin = io::stdin();
    match path.filter(|path| !path.is_empty() && *path != "-") {
        Some(path) => File::open(path).map_err(|e| Exit::failed(format!("Error: open {path}: {e}"))),
        None if stdin.is_terminal() => Err(Exit::failed("requested load from stdin, but stdin is empty")),
        // Without the buffer that Rust puts before it.
        None => stdin
            .as_fd()
            .try_clone_to_owned()
            .map(File::from)
            .map_err(|e| Exit::failed(format!("Error: standard input: {e}"))),
    }
}

fn platform(matches: &ArgMatches) -> Result<Option<Platform>, Exit> {
    let platform = text(matches, "platform").filter(|platform| !platform.is_empty());
    platform.map(str::parse).transpose().map_err(|e: String| Exit::error(&e))
}

fn load(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let (path, platform) = (text(matches, "input"), platform(matches)?);
    let directory = path.map(Path::new).filter(|path| path.is_dir());
    let reader = if directory.is_none() { Some(input(path)?) } else { None };
    let (store, snapshots) = (app.images()?, app.snapshots()?);
    let interrupt = Interrupt::listen();
    let screen = Screen::new(is_on(matches, "quiet") || !io::stdout().is_terminal(), Some(interrupt.clone()));
    let loaded = match (directory, reader) {
        (Some(directory), _) => archive::load_directory(&store, &snapshots, directory, platform.as_ref(), &screen),
        (None, Some(reader)) => archive::load(&store, &snapshots, reader, platform.as_ref(), &screen),
        (None, None) => Ok(Vec::new()),
    };
    let loaded = loaded.map_err(|e| interrupt.or(of_file(path, &e)))?;
    app.out.print(&loaded.iter().map(lines).collect::<String>())
}

fn of_file(path: Option<&str>, error: &rrt_images::Error) -> Exit {
    Exit::failed(format!("Error: {}: {error}", path.filter(|path| *path != "-").unwrap_or("standard input")))
}

/// Docker's words.
fn lines(loaded: &Loaded) -> String {
    let mut out = String::new();
    for (name, id) in &loaded.replaced {
        let name = name.familiar();
        out += &format!("The image {name} already exists, renaming the old one with ID {id} to empty string\n");
    }
    for name in &loaded.names {
        out += &format!("Loaded image: {}\n", name.familiar());
    }
    match loaded.names.is_empty() {
        true => out + &format!("Loaded image ID: {}\n", loaded.id),
        false => out,
    }
}

fn import(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let given = arguments(matches);
    let source = given[0];
    if source.starts_with("http://") || source.starts_with("https://") {
        return Err(Exit::failed(
            "Error: a URL can't be imported: fetch it first, then berth import FILE, or berth import - with a pipe",
        ));
    }
    let name: Option<Reference> = given.get(1).map(|name| name.parse()).transpose().map_err(|e| Exit::error(&e))?;
    if name.as_ref().is_some_and(|name| name.digest().is_some()) {
        return Err(Exit::failed("Error: cannot import digest reference"));
    }
    let changes: Vec<String> = texts(matches, "change").into_iter().map(str::to_owned).collect();
    let import = Import {
        changes: &changes,
        message: text(matches, "message").map(str::to_owned),
        platform: platform(matches)?,
        packing: Packing::default(),
        name: name.map(Reference::with_default_tag),
        source_date_epoch: super::source_date_epoch()?,
    };
    let reader = input(Some(source))?;
    let (store, snapshots) = (app.images()?, app.snapshots()?);
    let interrupt = Interrupt::listen();
    let screen = Screen::new(true, Some(interrupt.clone()));
    let image = archive::import(&store, &snapshots, reader, &import, &screen);
    let image = image.map_err(|e| interrupt.or(of_file(Some(source), &e)))?;
    app.out.line(image.id.as_str())
}
