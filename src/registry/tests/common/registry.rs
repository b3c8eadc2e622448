//! Debian's `docker-registry` on loopback.

use super::Folder;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub struct Registry {
    child: Child,
    pub address: String,
    folder: Folder,
    /// Beside it, because it has to be there first.
    passwords: Option<std::path::PathBuf>,
}

impl Registry {
    /// With more lines for its configuration: of the `http` section, and of the whole.
    pub fn new(http: &str, more: &str) -> Registry {
        let folder = Folder::new();
        let data = folder.join("data");
        std::fs::create_dir(&data).unwrap();
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:0\n{http}{more}",
            data.display()
        );
        let settings = folder.write("config.yml", &text);
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(settings)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("docker-registry says where it listens").unwrap();
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ',']).next().unwrap().to_owned();
            }
        };
        // Its log has to be read on, or it waits for that.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Registry { child, address, folder, passwords: None }
    }

    pub fn plain() -> Registry {
        Registry::new("", "")
    }

    /// `name`: `user`, password: `pass:word`.
    pub fn with_password() -> Registry {
        let file =
            std::env::temp_dir().join(format!("rrt-htpasswd-{}-{:?}", std::process::id(), std::thread::current().id()));
        let made = Command::new("htpasswd").args(["-Bbn", "user", "pass:word"]).output().unwrap();
        std::fs::write(&file, &made.stdout).unwrap();
        let more = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        let mut registry = Registry::new("", &more);
        // The registry opens it by its name at each request.
        registry.passwords = Some(file);
        registry
    }

    /// Where its content is.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(file) = &self.passwords {
            let _ = std::fs::remove_file(file);
        }
    }
}
