//! What the tests of this crate share: folders, references, a registry of Debian's, a server that behaves badly.

#![allow(dead_code, reason = "each test file uses another part")]

pub mod registry;
pub mod server;
pub mod tls;

use rrt_content::{Ingest, Lease, Store};
use rrt_oci::image::{Descriptor, Digest, Manifest, Reference, media_type as kind};
use rrt_registry::{Client, Config, CredentialFiles, Settings};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A folder that is gone with the value.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rrt-registry-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// No files but one folder's, and no waiting.
pub fn config(folder: &Folder) -> Config {
    let files = CredentialFiles { docker: Some(folder.join("docker/config.json")), others: Vec::new() };
    let mut config = Config::new(Settings::default(), files);
    config.backoff = Duration::from_millis(10);
    config.timeout = Duration::from_secs(10);
    config
}

pub fn client(folder: &Folder) -> Client {
    Client::new(config(folder))
}

pub fn reference(text: impl AsRef<str>) -> Reference {
    text.as_ref().parse().unwrap()
}

pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::sha256(&Sha256::digest(bytes).into())
}

pub fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor::new(kind::OCI_LAYER, sha256(bytes), bytes.len() as u64)
}

/// Bytes that no compression and no accident makes again.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An OCI manifest of a configuration and layers.
pub fn manifest(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: kind::OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::new(kind::OCI_CONFIG, sha256(config), config.len() as u64),
        layers: layers.iter().map(|layer| blob(layer)).collect(),
        subject: None,
        annotations: Default::default(),
    };
    serde_json::to_vec(&manifest).unwrap()
}

/// A store in the folder.
pub fn store(folder: &Folder) -> (Store, Lease) {
    let store = Store::open(&folder.join("store")).unwrap();
    let lease = store.lease().unwrap();
    (store, lease)
}

/// Fetches a blob into the store; the error's text.
pub fn fetch(
    client: &Client,
    folder: &Folder,
    reference: &Reference,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, String> {
    let (store, lease) = store(folder);
    match store.ingest(&lease, &descriptor.digest, Some(descriptor.size)).map_err(|e| e.to_string())? {
        Ingest::Present => {}
        Ingest::Write(mut writer) => {
            client.fetch(reference, descriptor, &mut writer, &rrt_registry::Unwatched).map_err(|e| e.to_string())?;
            writer.commit().map_err(|e| e.to_string())?;
        }
    }
    Ok(std::fs::read(store.path(&descriptor.digest)).unwrap())
}

/// Is the program there? Without it a test is skipped, which fails where all must run.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        eprintln!("SKIPPED: needs {program} in PATH (hack/test installs it)");
        assert!(std::env::var_os("CI").is_none(), "{program} is missing");
    }
    found
}
