//! The clients that people have: skopeo, podman, Docker.

mod common;

use common::{Scratch, Server, digest, manifest};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Not a test: the server's process.
#[test]
fn server() {
    common::serve_if_told();
}

/// Is the program there? If not, the test says that it was skipped.
fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    there
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// An image layout (image-spec, image-layout.md) with two layers: one that all have, one of its own.
fn layout(directory: &Path, own: &str) -> PathBuf {
    let path = directory.join(format!("layout-{own}"));
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let write = |bytes: &[u8]| fs::write(blobs.join(digest(bytes).hex()), bytes).unwrap();
    let layer = |name: &str, size: usize| {
        let files = directory.join(format!("files-{own}-{name}"));
        fs::create_dir_all(&files).unwrap();
        fs::write(files.join(name), name.as_bytes().repeat(size)).unwrap();
        let tar = directory.join(format!("{own}-{name}.tar"));
        let (files, archive) = (files.to_str().unwrap(), tar.to_str().unwrap());
        run(
            "tar",
            &[
                "--sort=name",
                "--mtime=@0",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "-C",
                files,
                "-cf",
                archive,
                ".",
            ],
        );
        fs::read(tar).unwrap()
    };
    let layers = [layer("common", 300_000), layer(own, 100_000)];
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layers[0]).as_str(), digest(&layers[1]).as_str()]}});
    let config = config.to_string().into_bytes();
    let describe = |bytes: &[u8]| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(bytes).as_str(), "size": bytes.len()});
    let document =
        manifest(&config, &layers[0], &json!({"layers": layers.iter().map(|l| describe(l)).collect::<Vec<_>>()}));
    layers.iter().for_each(|layer| write(layer));
    write(&config);
    write(&document);
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": common::OCI_MANIFEST, "digest": digest(&document).as_str(), "size": document.len(),
        "annotations": {"org.opencontainers.image.ref.name": "1"}}]});
    fs::write(path.join("index.json"), index.to_string()).unwrap();
    path
}

#[test]
fn skopeo_pushes_and_pulls() {
    if !has("skopeo") {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch.0.join("root"), &[]);
    let source = format!("oci:{}:1", layout(&scratch.0, "app").display());
    let there = |tag: &str| format!("docker://{}/team/app:{tag}", server.address);
    run("skopeo", &["copy", "--dest-tls-verify=false", "--preserve-digests", &source, &there("1")]);
    // Docker's types, and a second repository that can mount.
    run("skopeo", &["copy", "--dest-tls-verify=false", "--format", "v2s2", &source, &there("docker")]);
    let other = format!("docker://{}/other/app:1", server.address);
    run("skopeo", &["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &there("1"), &other]);
    let back = scratch.0.join("back");
    run("skopeo", &["copy", "--src-tls-verify=false", &there("1"), &format!("dir:{}", back.display())]);
    let files = fs::read_dir(scratch.0.join("layout-app/blobs/sha256")).unwrap().map(|e| e.unwrap().path());
    for file in files {
        let name = file.file_name().unwrap().to_owned();
        let pulled = [back.join(&name), back.join("manifest.json")];
        assert!(pulled.iter().any(|p| fs::read(p).is_ok_and(|bytes| bytes == fs::read(&file).unwrap())), "{name:?}");
    }
    let tags = run("skopeo", &["list-tags", "--tls-verify=false", &format!("docker://{}/team/app", server.address)]);
    assert!(tags.contains("\"1\"") && tags.contains("\"docker\""), "{tags}");
    let inspected = run("skopeo", &["inspect", "--tls-verify=false", "--raw", &there("docker")]);
    assert!(inspected.contains("vnd.docker.distribution.manifest.v2+json"), "{inspected}");
    run("skopeo", &["delete", "--tls-verify=false", &there("1")]);
}

#[test]
fn eight_push_at_once() {
    if !has("skopeo") {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch.0.join("root"), &[]);
    let names: Vec<String> = (0..8).map(|n| format!("app{n}")).collect();
    let sources: Vec<String> = names.iter().map(|n| format!("oci:{}:1", layout(&scratch.0, n).display())).collect();
    thread::scope(|scope| {
        for (n, source) in sources.iter().enumerate() {
            // Two at a time into each of four repositories.
            let to = format!("docker://{}/app{}:{n}", server.address, n / 2);
            scope.spawn(move || run("skopeo", &["copy", "--dest-tls-verify=false", source, &to]));
        }
    });
    for n in 0..8 {
        let (from, to) = (format!("docker://{}/app{}:{n}", server.address, n / 2), scratch.0.join(format!("back{n}")));
        run("skopeo", &["copy", "--src-tls-verify=false", &from, &format!("dir:{}", to.display())]);
    }
    assert_eq!(fs::read_dir(scratch.0.join("root/tmp")).unwrap().count(), 0);
}

#[test]
fn podman_pushes_and_pulls_with_a_password() {
    if !has("podman") {
        return;
    }
    let scratch = Scratch::new();
    let users = scratch.0.join("users");
    fs::write(&users, format!("anna:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let server = Server::start(&scratch.0.join("root"), &[("REGISTRY_HTPASSWD", users.to_str().unwrap())]);
    let storage = scratch.0.join("podman");
    let podman = |args: &[&str]| {
        let mut all = vec!["--root", storage.to_str().unwrap(), "--storage-driver", "vfs"];
        all.extend(args);
        run("podman", &all)
    };
    let source = format!("oci:{}:1", layout(&scratch.0, "app").display());
    let id = podman(&["pull", "-q", &source]);
    let to = format!("{}/app:1", server.address);
    podman(&["push", "-q", "--tls-verify=false", "--creds", "anna:secret", id.trim(), &to]);
    podman(&["rmi", "-f", id.trim()]);
    let again = podman(&["pull", "-q", "--tls-verify=false", "--creds", "anna:secret", &to]);
    assert_eq!(again, id);
    let wrong = Command::new("podman")
        .args([
            "--root",
            storage.to_str().unwrap(),
            "--storage-driver",
            "vfs",
            "pull",
            "-q",
            "--tls-verify=false",
            "--creds",
            "anna:wrong",
            &to,
        ])
        .output()
        .unwrap();
    assert!(!wrong.status.success());
    podman(&["rmi", "-f", id.trim()]);
}

/// A daemon of its own, ended with the value.
struct Dockerd {
    child: std::process::Child,
    host: String,
}

impl Dockerd {
    fn start(directory: &Path) -> Dockerd {
        fs::create_dir(directory).unwrap();
        let place = |name: &str| directory.join(name).display().to_string();
        let host = format!("unix://{}", place("socket"));
        let child = Command::new("dockerd")
            .args(["--data-root", &place("data"), "--exec-root", &place("exec"), "--pidfile", &place("pid")])
            .args(["--host", &host, "--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"])
            .stderr(fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .unwrap();
        let daemon = Dockerd { child, host };
        let begin = Instant::now();
        while !Command::new("docker").args(["--host", &daemon.host, "version"]).output().unwrap().status.success() {
            assert!(begin.elapsed() < Duration::from_secs(120), "dockerd does not answer: see {}", place("log"));
            thread::sleep(Duration::from_millis(200));
        }
        daemon
    }

    fn docker(&self, args: &[&str]) -> String {
        run("docker", &[&["--host", &self.host], args].concat())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

#[test]
fn docker_pushes_mounts_and_pulls() {
    if !has("dockerd") {
        return;
    }
    let scratch = Scratch::new();
    let server = Server::start(&scratch.0.join("root"), &[]);
    let daemon = Dockerd::start(&scratch.0.join("docker"));
    layout(&scratch.0, "app");
    let [first, second] = ["first", "second"].map(|name| format!("{}/{name}/app:1", server.address));
    let id = daemon.docker(&["import", scratch.0.join("app-common.tar").to_str().unwrap(), &first]);
    daemon.docker(&["tag", &first, &second]);
    daemon.docker(&["push", &first]);
    let mounted = daemon.docker(&["push", &second]);
    assert!(mounted.contains("Mounted from first/app"), "{mounted}");
    daemon.docker(&["rmi", &first, &second]);
    daemon.docker(&["pull", &second]);
    assert_eq!(daemon.docker(&["images", "--quiet", "--no-trunc"]), id);
}
