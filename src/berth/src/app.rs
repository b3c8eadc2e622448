//! What every command is given: where things are, and where output goes.

use crate::cli::{is_on, text};
use crate::exit::Exit;
use crate::user::Ids;
use clap::ArgMatches;
use rrt_content::Store;
use rrt_images::layer;
use rrt_images::names::ImageStore;
use rrt_images::snapshots::Snapshots;
use rrt_registry::{Client, Config};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The global flags, and the output.
pub struct App {
    /// Where images are kept.
    pub root: PathBuf,
    /// The storage driver asked for.
    pub storage_driver: Option<String>,
    /// Docker's folder with `config.json`.
    pub config: Option<PathBuf>,
    /// `--debug` or `--log-level debug`.
    pub debug: bool,
    /// Set when layers were looked at: then the process is in an ordinary user's namespace.
    ids: Option<Ids>,
    /// Standard output.
    pub out: Out,
}

/// Standard output; nobody reading any more ends the command quietly.
pub struct Out;

impl Out {
    /// Writes all of it, at once.
    pub fn print(&mut self, text: &str) -> Result<(), Exit> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Exit::write("standard output", &e))
    }

    /// A line.
    pub fn line(&mut self, text: &str) -> Result<(), Exit> {
        self.print(&format!("{text}\n"))
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

impl App {
    /// From the flags before the command and the environment.
    pub fn new(matches: &ArgMatches) -> Result<App, Exit> {
        let root = match text(matches, "root").map(PathBuf::from).or_else(|| variable("BERTH_ROOT")) {
            Some(root) if root.as_os_str().is_empty() => return Err(wrong("--root is empty")),
            Some(root) => std::path::absolute(&root).map_err(|e| wrong(&format!("--root {}: {e}", root.display())))?,
            None => default_root()
                .ok_or_else(|| wrong("where to keep images is not known: give --root, or set BERTH_ROOT or HOME"))?,
        };
        let config = text(matches, "config").map(PathBuf::from).or_else(|| variable("DOCKER_CONFIG"));
        let storage_driver = text(matches, "storage-driver").map(str::to_owned);
        Ok(App {
            root,
            storage_driver: storage_driver
                .or_else(|| std::env::var("BERTH_STORAGE_DRIVER").ok().filter(|d| !d.is_empty())),
            config: config.or_else(|| variable("HOME").map(|home| home.join(".docker"))),
            debug: is_on(matches, "debug") || text(matches, "log-level") == Some("debug"),
            ids: None,
            out: Out,
        })
    }

    /// For `--debug`.
    pub fn debug(&self, text: impl FnOnce() -> String) {
        if self.debug {
            eprintln!("DEBU {}", text());
        }
    }

    /// The content and the names; made when there are none.
    pub fn images(&self) -> Result<ImageStore, Exit> {
        self.debug(|| format!("root {}", self.root.display()));
        let store = Store::open(&self.root).map_err(|e| self.not_opened(&e))?;
        ImageStore::open(&store).map_err(|e| Exit { code: 125, message: format!("berth: {e}") })
    }

    /// The layers unpacked. Before any thread: an ordinary user enters his namespace here.
    pub fn snapshots(&mut self) -> Result<Snapshots, Exit> {
        if self.ids.is_none() {
            let ids = crate::user::enter().map_err(|e| Exit { code: 125, message: format!("berth: {e}") })?;
            self.debug(|| format!("ids {ids:?}"));
            self.ids = Some(ids);
        }
        Snapshots::open(&self.root, self.storage_driver.as_deref())
            .map_err(|e| Exit { code: 125, message: format!("berth: {e}") })
    }

    /// How layers are unpacked: who has but his own ids can neither give files away nor make devices.
    pub fn unpacking(&self) -> layer::Options {
        let default = layer::Options::default();
        match self.ids {
            None | Some(Ids::Root) => default,
            Some(Ids::Lent) => layer::Options { skip_devices: true, ..default },
            Some(Ids::Own | Ids::None) => {
                layer::Options { owners: layer::Owners::Ignore, skip_devices: true, ..default }
            }
        }
    }

    /// The registries' client, with Docker's credentials.
    pub fn registry(&self) -> Result<Client, Exit> {
        let mut config = Config::of_user(None).map_err(|e| Exit::error(&e))?;
        config.credentials.docker = self.config.as_ref().map(|folder| folder.join("config.json"));
        Ok(Client::new(config))
    }

    /// `berth` itself failed, not what it was asked for.
    fn not_opened(&self, error: &rrt_content::Error) -> Exit {
        let mut message = format!("berth: {error}");
        if self.root == Path::new(SYSTEM_ROOT) && !rustix::process::geteuid().is_root() {
            message += "; as an ordinary user, give --root or leave BERTH_ROOT unset";
        }
        Exit { code: 125, message }
    }

    #[cfg(test)]
    pub fn for_tests() -> App {
        App { root: "/nonexistent".into(), storage_driver: None, config: None, debug: false, ids: None, out: Out }
    }
}

fn wrong(text: &str) -> Exit {
    Exit { code: 125, message: format!("berth: {text}") }
}

const SYSTEM_ROOT: &str = "/var/lib/berth";

fn default_root() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(SYSTEM_ROOT.into());
    }
    let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    data.or_else(|| Some(variable("HOME")?.join(".local/share"))).map(|data| data.join("berth"))
}
