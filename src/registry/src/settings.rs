//! How registries are reached: `/etc/berth/registries.json`.

use crate::credentials::{CredentialFiles, read_small};
use crate::error::{Error, Result};
use crate::proxy::Proxies;
use crate::url::{Url, host_of, is_loopback};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The machine's settings of registries.
pub const SETTINGS: &str = "/etc/berth/registries.json";

/// What is in `registries.json`; the members that Docker's `daemon.json` has, too, mean the same here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// URLs of mirrors of docker.io, tried in order before it.
    #[serde(default)]
    pub registry_mirrors: Vec<String>,
    /// The same for any registry. A path in the URL is put before the repository's name.
    #[serde(default)]
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries (`host`, `host:port`, or a network as `10.0.0.0/8`) whose certificate is not checked, and which may speak plain HTTP.
    #[serde(default)]
    pub insecure_registries: Vec<String>,
    /// Layers fetched at once; 3 as in Docker.
    #[serde(default)]
    pub max_concurrent_downloads: Option<usize>,
    /// Layers pushed at once; 5 as in Docker.
    #[serde(default)]
    pub max_concurrent_uploads: Option<usize>,
    /// Attempts at one request or blob; 5 as in Docker.
    #[serde(default)]
    pub max_download_attempts: Option<u32>,
}

impl Settings {
    /// The file that is asked for, else the user's (`$XDG_CONFIG_HOME/berth/registries.json`), else the machine's.
    pub fn read(asked: Option<&Path>) -> Result<Settings> {
        if let Some(path) = asked {
            return Settings::file(path)?
                .ok_or_else(|| Error::Settings { path: path.to_owned(), why: "there is no such file".to_owned() });
        }
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
        if let Some(settings) =
            user.and_then(|folder| Settings::file(&folder.join("berth/registries.json")).transpose())
        {
            return settings;
        }
        Ok(Settings::file(Path::new(SETTINGS))?.unwrap_or_default())
    }

    fn file(path: &Path) -> Result<Option<Settings>> {
        let invalid = |why: String| Error::Settings { path: path.to_owned(), why };
        let Some(bytes) = read_small(path)? else { return Ok(None) };
        let settings: Settings = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
        settings.check().map_err(invalid)?;
        Ok(Some(settings))
    }

    fn check(&self) -> std::result::Result<(), String> {
        for (member, urls) in [("registry-mirrors", &self.registry_mirrors)]
            .into_iter()
            .chain(self.mirrors.iter().map(|(k, v)| (k.as_str(), v)))
        {
            for url in urls {
                let parsed = Url::parse(url).map_err(|why| format!("{member}: {why}"))?;
                if parsed.path.contains('?') {
                    return Err(format!("{member}: {url:?} has a query, which a mirror's URL can't have"));
                }
            }
        }
        for insecure in &self.insecure_registries {
            if insecure.contains("://") || (insecure.contains('/') && network(insecure).is_none()) {
                return Err(format!(
                    "insecure-registries: {insecure:?} is neither host, host:port nor a network as 10.0.0.0/8"
                ));
            }
        }
        let zero = [self.max_concurrent_downloads, self.max_concurrent_uploads].contains(&Some(0));
        match zero || self.max_download_attempts == Some(0) {
            true => {
                Err("max-concurrent-downloads, max-concurrent-uploads and max-download-attempts can't be 0".to_owned())
            }
            false => Ok(()),
        }
    }

    /// The mirrors of a registry, as they are written.
    pub(crate) fn mirrors_of(&self, registry: &str) -> impl Iterator<Item = &str> {
        let general = if registry == "docker.io" { self.registry_mirrors.as_slice() } else { &[] };
        self.mirrors.get(registry).into_iter().flatten().chain(general).map(String::as_str)
    }

    /// May `authority` speak plain HTTP, or have any certificate? Loopback always may, as in Docker.
    pub(crate) fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let address: Option<IpAddr> = host.parse().ok();
        is_loopback(host)
            || self.insecure_registries.iter().any(|known| match (network(known), address) {
                (Some((net, bits)), Some(address)) => covers(net, bits, address),
                (Some(_), None) => false,
                (None, _) => known.eq_ignore_ascii_case(authority) || known.eq_ignore_ascii_case(host),
            })
    }
}

/// `10.0.0.0/8`.
fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u32 = bits.parse().ok()?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

/// Is the address in the network?
pub(crate) fn covers(net: IpAddr, bits: u32, address: IpAddr) -> bool {
    match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            let differ = u32::from(net) ^ u32::from(address);
            differ.checked_shr(32u32.saturating_sub(bits)).unwrap_or(0) == 0
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => {
            let differ = u128::from(net) ^ u128::from(address);
            differ.checked_shr(128u32.saturating_sub(bits)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Everything a [`crate::Client`] is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// Mirrors, insecure registries, how much at once.
    pub settings: Settings,
    /// Credentials.
    pub credentials: CredentialFiles,
    /// Credentials given for this command alone; files are not asked.
    pub credential: Option<crate::Credential>,
    /// Folders that have a folder for each registry with `*.crt`, `*.cert` and `*.key`; the first that has one counts.
    pub certificates: Vec<PathBuf>,
    /// Files with the authorities everybody trusts; the first that is there counts.
    pub authorities: Vec<PathBuf>,
    /// Treat every registry as an insecure one (`--tls-verify=false`).
    pub insecure: bool,
    /// Proxies.
    pub proxies: Proxies,
    /// How long a connection may take to be made, and how long it may be silent.
    pub timeout: Duration,
    /// The wait before the second attempt; doubled for each one after it.
    pub backoff: Duration,
    /// From this size on (bytes) a blob is fetched by several ranges at once.
    pub split: u64,
    /// How many ranges at once.
    pub ranges: usize,
    /// What to call ourselves.
    pub user_agent: String,
}

impl Config {
    /// For the calling user, with the settings of a file ([`Settings::read`]).
    pub fn of_user(asked: Option<&Path>) -> Result<Config> {
        let settings = Settings::read(asked)?;
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
        let mut certificates: Vec<PathBuf> = user.into_iter().map(|folder| folder.join("berth/certs.d")).collect();
        certificates
            .extend(["/etc/berth/certs.d", "/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from));
        let authorities = match variable("SSL_CERT_FILE") {
            Some(file) => vec![file],
            None => [
                "/etc/ssl/certs/ca-certificates.crt",
                "/etc/pki/tls/certs/ca-bundle.crt",
                "/etc/ssl/ca-bundle.pem",
                "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
                "/etc/ssl/cert.pem",
            ]
            .map(PathBuf::from)
            .to_vec(),
        };
        let proxies = Proxies::from_environment();
        Ok(Config { certificates, authorities, proxies, ..Config::new(settings, CredentialFiles::of_user()) })
    }

    /// With no certificates at all.
    pub fn new(settings: Settings, credentials: CredentialFiles) -> Config {
        Config {
            settings,
            credentials,
            credential: None,
            certificates: Vec::new(),
            authorities: Vec::new(),
            insecure: false,
            proxies: Proxies::default(),
            timeout: Duration::from_secs(60),
            backoff: Duration::from_millis(500),
            split: 64 << 20,
            ranges: 3,
            user_agent: format!("berth/{}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// Blobs fetched at once.
    pub fn downloads(&self) -> usize {
        self.settings.max_concurrent_downloads.unwrap_or(3)
    }

    /// Blobs pushed at once.
    pub fn uploads(&self) -> usize {
        self.settings.max_concurrent_uploads.unwrap_or(5)
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.settings.max_download_attempts.unwrap_or(5)
    }

    pub(crate) fn is_insecure(&self, authority: &str) -> bool {
        self.insecure || self.settings.is_insecure(authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> std::result::Result<Settings, String> {
        let settings: Settings = serde_json::from_str(json).map_err(|e| e.to_string())?;
        settings.check().map(|()| settings)
    }

    #[test]
    fn mirrors_and_insecure_registries() {
        let settings = settings(
            r#"{"registry-mirrors": ["https://m.example"], "mirrors": {"ghcr.io": ["http://h.example:80/ghcr"], "docker.io": ["https://first.example"]},
                "insecure-registries": ["10.0.0.0/8", "plain.example:5000", "any.example", "fd00::/8"]}"#,
        )
        .unwrap();
        let mirrors = |registry: &str| settings.mirrors_of(registry).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(mirrors("docker.io"), ["https://first.example", "https://m.example"]);
        assert_eq!(mirrors("ghcr.io"), ["http://h.example:80/ghcr"]);
        assert!(mirrors("quay.io").is_empty());
        for insecure in
            ["10.1.2.3:5000", "plain.example:5000", "any.example:1", "[fd12::1]:5000", "localhost:5000", "127.0.0.2"]
        {
            assert!(settings.is_insecure(insecure), "{insecure}");
        }
        for secure in ["11.0.0.1", "plain.example", "ten.example", "[fe80::1]", "localhost.example"] {
            assert!(!settings.is_insecure(secure), "{secure}");
        }
    }

    #[test]
    fn a_mistake_is_named() {
        for (json, why) in [
            (r#"{"registry-mirror": []}"#, "unknown field `registry-mirror`"),
            (r#"{"registry-mirrors": ["mirror.example"]}"#, "no http:// or https:// URL"),
            (r#"{"insecure-registries": ["http://a"]}"#, "neither host"),
            (r#"{"insecure-registries": ["10.0.0.0/99"]}"#, "neither host"),
            (r#"{"max-concurrent-downloads": 0}"#, "can't be 0"),
        ] {
            let error = settings(json).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
    }
}
