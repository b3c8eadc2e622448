//! A server in a process of its own, and an HTTP client that does exactly what it is told.
#![allow(dead_code, reason = "each test program uses its part")]

use rrt_content::Hasher;
use rrt_oci::image::Digest;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The other side of [`Server::start`], for a test that is none: serves when the environment says what.
pub fn serve_if_told() {
    let Some(root) = std::env::var_os("REGISTRY_ROOT") else { return };
    let config = rrt_registry_server::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        content: rrt_content::Store::open(Path::new(&root)).unwrap(),
        htpasswd: std::env::var_os("REGISTRY_HTPASSWD").map(PathBuf::from),
        read_only: std::env::var_os("REGISTRY_READ_ONLY").is_some(),
        log: Box::new(|line| eprintln!("registry: {line}")),
    };
    rrt_registry_server::serve(config, |address| println!("\nready {address}")).unwrap();
}

/// A directory that goes with the value.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rrt-registry-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub struct Server {
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    pub fn start(root: &Path, environment: &[(&str, &str)]) -> Server {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "server", "--nocapture", "--test-threads=1"]).env("REGISTRY_ROOT", root);
        command.envs(environment.iter().copied()).stdout(Stdio::piped());
        if std::env::var_os("REGISTRY_LOG").is_none() {
            command.stderr(Stdio::null());
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("ready ").map(str::to_owned));
        // The rest is the test program's own; it must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        Server { address: address.expect("the server is ready").parse().unwrap(), child }
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// One request on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(head(method, path, headers, body.len()).as_bytes()).unwrap();
        // It may answer, and close, before it has read all.
        let _ = stream.write_all(body);
        Answer::read(stream, method)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// Uploads a blob at once.
    pub fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = digest(bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let answer = self.ask("POST", &path, &[], bytes);
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    /// Pushes an image of one layer, tagged; returns the manifest.
    pub fn push_image(&self, name: &str, tag: &str, layer: &[u8]) -> (Digest, Vec<u8>) {
        let config = b"{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}";
        self.push_blob(name, config);
        self.push_blob(name, layer);
        let manifest = manifest(config, layer, &json!({}));
        let answer = self.put_manifest(name, tag, OCI_MANIFEST, &manifest);
        assert_eq!(answer.status, 201, "{answer:?}");
        (digest(&manifest), manifest)
    }

    pub fn put_manifest(&self, name: &str, reference: &str, kind: &str, bytes: &[u8]) -> Answer {
        self.ask("PUT", &format!("/v2/{name}/manifests/{reference}"), &[("Content-Type", kind)], bytes)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn digest(bytes: &[u8]) -> Digest {
    Hasher::digest_of("sha256", bytes)
}

/// A manifest of one layer, with more members.
pub fn manifest(config: &[u8], layer: &[u8], more: &Value) -> Vec<u8> {
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config).as_str(), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(layer).as_str(), "size": layer.len()}],
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    document.to_string().into_bytes()
}

pub fn head(method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    head + &format!("Content-Length: {length}\r\n\r\n")
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn read(mut stream: TcpStream, method: &str) -> Answer {
        let mut all = Vec::new();
        if let Err(e) = stream.read_to_end(&mut all) {
            assert!(!all.is_empty(), "no answer: {e}");
        }
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let text = String::from_utf8(all[..end].to_vec()).unwrap();
        let mut lines = text.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).unwrap();
        let answer = Answer { status, headers: lines.map(header).collect(), body: all[end + 4..].to_vec() };
        if let Some(length) = answer.header("content-length").filter(|_| method != "HEAD") {
            assert_eq!(length, answer.body.len().to_string(), "{method}");
        }
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The status and the error code of the body.
    pub fn error(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/json"));
        (self.status, self.json()["errors"][0]["code"].as_str().unwrap().to_owned())
    }
}
