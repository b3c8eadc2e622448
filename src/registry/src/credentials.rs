//! Credentials where Docker keeps them: `config.json`, and the `docker-credential-…` programs it names.
//!
//! podman's `auth.json` has the same form and is read, never written, when Docker's file has nothing for a registry.

use crate::base64;
use crate::error::{Error, Result};
use crate::helper::{self, Secret};
use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// docker.io's name in every file and helper.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// More than any such file has, bytes.
const MAX_FILE: u64 = 4 << 20;

/// What to show a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password (or an access token used as one).
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// An identity token: for the token server, as OAuth's refresh token.
    Identity(String),
    /// A token for the registry itself.
    Registry(String),
}

impl std::fmt::Debug for Credential {
    /// Secrets never come into a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credential::Basic { user, .. } => write!(f, "Basic({user}, …)"),
            Credential::Identity(_) => f.write_str("Identity(…)"),
            Credential::Registry(_) => f.write_str("Registry(…)"),
        }
    }
}

/// Where credentials are. The default is for the calling user.
#[derive(Clone, Debug)]
pub struct CredentialFiles {
    /// Docker's `config.json`: read first, and the one that `login` and `logout` change.
    pub docker: Option<PathBuf>,
    /// Read when Docker's has nothing: podman's `auth.json`.
    pub others: Vec<PathBuf>,
}

impl CredentialFiles {
    /// `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`; then `$REGISTRY_AUTH_FILE`, and
    /// `$XDG_RUNTIME_DIR/containers/auth.json` or `/run/containers/UID/auth.json`.
    pub fn of_user() -> CredentialFiles {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let docker = variable("DOCKER_CONFIG").map(PathBuf::from);
        let docker = docker.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".docker")));
        let run = variable("XDG_RUNTIME_DIR").map(|run| Path::new(&run).join("containers"));
        let uid = rustix::process::geteuid().as_raw();
        let run = run.unwrap_or_else(|| PathBuf::from(format!("/run/containers/{uid}")));
        let others = variable("REGISTRY_AUTH_FILE").map(PathBuf::from).into_iter().chain([run.join("auth.json")]);
        CredentialFiles { docker: docker.map(|folder| folder.join("config.json")), others: others.collect() }
    }

    /// What to show `registry` for `repository`, from the first file that has something.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>> {
        for path in self.docker.iter().chain(&self.others) {
            if let Some(credential) = Document::read(path)?.find(registry, repository)? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    /// Keeps a credential: with the registry's helper when the file names one, else in the file itself.
    pub(crate) fn store(&self, registry: &str, user: &str, credential: &Credential) -> Result<Stored> {
        self.change(|document| document.store(registry, user, credential))
    }

    /// Forgets a registry's credentials; says whether there were any.
    pub fn erase(&self, registry: &str) -> Result<bool> {
        match &self.docker {
            Some(path) if path.exists() => self.change(|document| document.erase(registry)),
            _ => Ok(false),
        }
    }

    /// Reads, changes and replaces `config.json`, which one program at a time may do.
    fn change<T>(&self, change: impl FnOnce(&mut Document) -> Result<T>) -> Result<T> {
        let path = self.docker.as_ref().ok_or_else(|| {
            Error::Invalid("where to keep credentials is not known: set HOME or DOCKER_CONFIG".to_owned())
        })?;
        // A link stays a link: what it names is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        make_folder(folder).map_err(file_error("make", folder))?;
        let lock = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let lock = lock.map_err(io::Error::from).map_err(file_error("open", folder))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(io::Error::from)
            .map_err(file_error("lock", folder))?;
        let mut document = Document::read(&path)?;
        let before = document.members.clone();
        let result = change(&mut document)?;
        if document.members != before {
            document.write(folder).map_err(file_error("write", &path))?;
        }
        Ok(result)
    }
}

/// Where `login` left a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// With this program.
    Helper(String),
    /// As plain text in this file, as Docker warns.
    File(PathBuf),
}

fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

pub(crate) fn file_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| Error::File { what, path: path.to_owned(), source }
}

/// A small file; `None` when there is none.
pub(crate) fn read_small(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(file_error("read", path)(e)),
    };
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(file_error("read", path))?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(Error::Settings { path: path.to_owned(), why: format!("is larger than {} MiB", MAX_FILE >> 20) }),
        false => Ok(Some(bytes)),
    }
}

/// One file. Members that are not ours are kept as they are.
struct Document {
    path: PathBuf,
    members: Map<String, Value>,
}

impl Document {
    /// A file that is not there or empty has nothing.
    fn read(path: &Path) -> Result<Document> {
        let members = match read_small(path)? {
            Some(bytes) if !bytes.trim_ascii().is_empty() => {
                serde_json::from_slice(&bytes).map_err(|e| Error::Settings {
                    path: path.to_owned(),
                    why: format!("is no JSON object as Docker's config.json: {e}"),
                })?
            }
            _ => Map::new(),
        };
        Ok(Document { path: path.to_owned(), members })
    }

    fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>> {
        if let Some(program) = self.helper(registry) {
            return Ok(helper::get(&program, server_key(registry))?.map(|secret| match secret.username.as_str() {
                "<token>" => Credential::Identity(secret.secret),
                _ => Credential::Basic { user: secret.username, password: secret.secret },
            }));
        }
        let Some(auths) = self.members.get("auths").and_then(Value::as_object) else { return Ok(None) };
        // podman's keys may have a part of the path; the longest fits best.
        let parts: Vec<&str> = repository.split('/').filter(|part| !part.is_empty()).collect();
        for length in (1..=parts.len()).rev() {
            let key = format!("{registry}/{}", parts[..length].join("/"));
            if let Some(entry) = auths.get(&key) {
                return self.entry(&key, entry);
            }
        }
        let exact = auths.get_key_value(server_key(registry));
        match exact.or_else(|| auths.iter().find(|(key, _)| names(key, registry))) {
            Some((key, entry)) => self.entry(key, entry),
            None => Ok(None),
        }
    }

    /// The helper for a registry: `credHelpers` before `credsStore`.
    fn helper(&self, registry: &str) -> Option<String> {
        let own = self.members.get("credHelpers").and_then(Value::as_object).and_then(|helpers| {
            let found = helpers.get_key_value(server_key(registry));
            found.or_else(|| helpers.iter().find(|(key, _)| names(key, registry))).map(|(_, program)| program)
        });
        let program = match own {
            Some(program) => program.as_str(),
            None => self.members.get("credsStore").and_then(Value::as_str),
        };
        program.filter(|program| !program.is_empty()).map(str::to_owned)
    }

    /// One member of `auths`.
    fn entry(&self, key: &str, entry: &Value) -> Result<Option<Credential>> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(token) = text("registrytoken") {
            return Ok(Some(Credential::Registry(token.to_owned())));
        }
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credential::Identity(token.to_owned())));
        }
        let basic = |user: &str, password: &str| {
            // Docker's own fixed-length fields end in zeros.
            let password = password.trim_end_matches('\0');
            Some(Credential::Basic { user: user.to_owned(), password: password.to_owned() })
        };
        if let Some(auth) = text("auth") {
            let digits = auth.trim().trim_end_matches('=');
            let plain = base64::decode(digits.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
            return match plain.as_deref().and_then(|plain| plain.split_once(':')) {
                Some((user, password)) => Ok(basic(user, password)),
                None => Err(Error::Settings {
                    path: self.path.clone(),
                    why: format!("auths, {key:?}: auth is not the base64 of name:password; log in again"),
                }),
            };
        }
        Ok(text("username").and_then(|user| basic(user, text("password")?)))
    }

    fn store(&mut self, registry: &str, user: &str, credential: &Credential) -> Result<Stored> {
        let key = server_key(registry).to_owned();
        let helper = self.helper(registry);
        let path = self.path.clone();
        let auths = self.members.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        let Some(auths) = auths.as_object_mut() else { unreachable!("made an object above") };
        if let Some(program) = helper {
            let (username, secret) = match credential {
                Credential::Basic { user, password } => (user.as_str(), password),
                Credential::Identity(token) | Credential::Registry(token) => ("<token>", token),
            };
            helper::store(&program, &key, &Secret { username: username.to_owned(), secret: secret.clone() })?;
            // An empty entry, by which Docker lists who is logged in.
            auths.insert(key, json!({}));
            return Ok(Stored::Helper(format!("docker-credential-{program}")));
        }
        let entry = match credential {
            Credential::Basic { user, password } => {
                json!({ "auth": base64::encode(format!("{user}:{password}").as_bytes()) })
            }
            Credential::Identity(token) => {
                json!({ "auth": base64::encode(format!("{user}:").as_bytes()), "identitytoken": token })
            }
            Credential::Registry(token) => json!({ "registrytoken": token }),
        };
        auths.insert(key, entry);
        Ok(Stored::File(path))
    }

    fn erase(&mut self, registry: &str) -> Result<bool> {
        let helper = self.helper(registry);
        let mut found = false;
        if let Some(auths) = self.members.get_mut("auths").and_then(Value::as_object_mut) {
            let before = auths.len();
            auths.retain(|key, _| !names(key, registry));
            found = auths.len() < before;
        }
        if let Some(program) = helper {
            found |= helper::erase(&program, server_key(registry))?;
        }
        Ok(found)
    }

    /// Replaces the file by a new one that only its owner can read, indented as Docker does.
    fn write(&self, folder: &Path) -> io::Result<()> {
        let mut name = OsString::from(".config.json.");
        name.push(std::process::id().to_string());
        let beside = folder.join(name);
        let mut bytes = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        self.members.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, format))?;
        bytes.push(b'\n');
        let written = (|| {
            let _ = fs::remove_file(&beside);
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
            if let Ok(old) = fs::metadata(&self.path) {
                let (uid, gid) = (Uid::from_raw(old.uid()), Gid::from_raw(old.gid()));
                // As root in another user's home (sudo) the file stays that user's; who may not do it owns it already.
                let _ = fchown(&file, Some(uid.as_raw()), Some(gid.as_raw()));
            }
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

/// The registry's key in files and for helpers.
fn server_key(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_HUB_KEY } else { registry }
}

/// Does a key of `auths` mean the registry? Docker's keys may be URLs, and docker.io has several names.
fn names(key: &str, registry: &str) -> bool {
    let plain = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = plain.unwrap_or(key).split_once('/').unwrap_or((plain.unwrap_or(key), ""));
    if !matches!(path.trim_matches('/'), "" | "v1" | "v2") {
        return false;
    }
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io",
        other => other,
    };
    host == registry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(json: &str) -> Document {
        Document { path: "config.json".into(), members: serde_json::from_str(json).unwrap() }
    }

    fn basic(user: &str, password: &str) -> Option<Credential> {
        Some(Credential::Basic { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn entries_of_docker_and_podman() {
        let document = document(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "dTpw"},
                "https://old.example/v2/": {"auth": "dTpwOng="},
                "quay.io/team": {"auth": "dGVhbTpw"},
                "quay.io": {"username": "all", "password": "x"},
                "id.example": {"auth": "dTo=", "identitytoken": "id"},
                "reg.example:5000": {"registrytoken": "tok"},
                "broken.example": {"auth": "!!"},
                "empty.example": {}}}"#,
        );
        let find = |registry: &str, repository: &str| document.find(registry, repository).unwrap();
        assert_eq!(find("docker.io", "library/a"), basic("u", "p"));
        assert_eq!(find("old.example", "a"), basic("u", "p:x"));
        assert_eq!(find("quay.io", "team/app"), basic("team", "p"));
        assert_eq!(find("quay.io", "teams/app"), basic("all", "x"));
        assert_eq!(find("id.example", "a"), Some(Credential::Identity("id".to_owned())));
        assert_eq!(find("reg.example:5000", "a"), Some(Credential::Registry("tok".to_owned())));
        assert_eq!(find("reg.example", "a"), None);
        assert_eq!(find("empty.example", "a"), None);
        let error = document.find("broken.example", "a").unwrap_err().to_string();
        assert!(error.contains("broken.example") && error.contains("config.json"), "{error}");
    }

    #[test]
    fn the_other_names_of_docker_hub() {
        for key in ["docker.io", "index.docker.io", "registry-1.docker.io", "https://registry-1.docker.io/v2/"] {
            let document = document(&format!(r#"{{"auths": {{"{key}": {{"auth": "dTpw"}}}}}}"#));
            assert_eq!(document.find("docker.io", "library/a").unwrap(), basic("u", "p"), "{key}");
        }
        assert!(!names("docker.io.example", "docker.io"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", [basic("u", "hunter2"), Some(Credential::Identity("hunter2".to_owned()))]);
        assert!(shown.contains('u') && !shown.contains("hunter2"));
    }
}
