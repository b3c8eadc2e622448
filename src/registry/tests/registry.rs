//! The client against Debian's `docker-registry`, with `skopeo` as the other side.

mod common;

use common::registry::Registry;
use common::server::{Reply, Server};
use common::tls::{certificates, connect_proxy};
use common::{Folder, blob, client, config, fetch, has, manifest, noise, reference, sha256};
use rrt_oci::image::{Descriptor, Index, Platform, Reference, media_type as kind};
use rrt_registry::{Client, Error, Proxies, PushWatch, Pushed, Stored, Unwatched, choose};
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CONFIG: &[u8] =
    br#"{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;

fn file(folder: &Folder, bytes: &[u8]) -> File {
    let name = format!("blob-{}", sha256(bytes).short());
    std::fs::write(folder.join(&name), bytes).unwrap();
    File::open(folder.join(&name)).unwrap()
}

fn push_blob(client: &Client, folder: &Folder, name: &Reference, bytes: &[u8], from: &[String]) -> Pushed {
    client.push_blob(name, &blob(bytes), &file(folder, bytes), from, &Unwatched).unwrap()
}

/// An image of one layer, pushed; its manifest's descriptor.
fn push_image(client: &Client, folder: &Folder, name: &Reference, layer: &[u8]) -> Descriptor {
    for bytes in [CONFIG, layer] {
        push_blob(client, folder, name, bytes, &[]);
    }
    client.push_manifest(name, kind::OCI_MANIFEST, &manifest(CONFIG, &[layer])).unwrap()
}

fn skopeo(arguments: &[&str]) -> String {
    let output = Command::new("skopeo").args(arguments).output().unwrap();
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_pushed_skopeo_reads_and_we_read() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let (registry, folder) = (Registry::plain(), Folder::new());
    let client = client(&folder);
    let name = reference(format!("{}/team/app:1", registry.address));
    let layer = noise(300_000, 1);
    let pushed = push_image(&client, &folder, &name, &layer);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    assert_eq!(raw.as_bytes(), manifest(CONFIG, &[&layer]));
    let copied = folder.join("copy");
    skopeo(&["copy", "--src-tls-verify=false", &format!("docker://{name}"), &format!("dir:{}", copied.display())]);
    assert_eq!(std::fs::read(copied.join(blob(&layer).digest.hex())).unwrap(), layer);
    let (descriptor, bytes) = client.resolve(&name).unwrap();
    assert_eq!((&descriptor, &bytes), (&pushed, &manifest(CONFIG, &[&layer])));
    assert_eq!(client.head(&name).unwrap().unwrap().digest, pushed.digest);
    assert_eq!(client.head(&name.with_tag("2").unwrap()).unwrap(), None);
    assert_eq!(fetch(&client, &folder, &name, &blob(&layer)).unwrap(), layer);
    let config = Descriptor::new(kind::OCI_CONFIG, sha256(CONFIG), CONFIG.len() as u64);
    assert_eq!(client.document(&name, &config, 1000).unwrap(), CONFIG);
    assert!(client.document(&name, &config, 10).unwrap_err().to_string().contains("more than the 10"));
    let error = client.resolve(&name.with_tag("none").unwrap()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("manifest for {}/team/app:none not found: manifest unknown: manifest unknown", registry.address)
    );
}

#[test]
fn what_skopeo_pushed_is_pulled() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let (registry, folder) = (Registry::plain(), Folder::new());
    let client = client(&folder);
    let name = reference(format!("{}/a:1", registry.address));
    push_image(&client, &folder, &name, &noise(10_000, 2));
    for (format, expected) in [("v2s2", kind::DOCKER_MANIFEST), ("oci", kind::OCI_MANIFEST)] {
        let to = format!("{}/b:{format}", registry.address);
        skopeo(&[
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--format",
            format,
            &format!("docker://{name}"),
            &format!("docker://{to}"),
        ]);
        assert_eq!(client.resolve(&reference(&to)).unwrap().0.media_type, expected);
    }
}

#[test]
fn an_index_and_its_platforms() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let (registry, folder) = (Registry::plain(), Folder::new());
    let client = client(&folder);
    let name = reference(format!("{}/multi:1", registry.address));
    let entries = ["linux/amd64", "linux/arm/v7"].iter().enumerate().map(|(at, platform)| {
        let layer = noise(1000, 20 + at as u64);
        for bytes in [CONFIG, &layer] {
            push_blob(&client, &folder, &name, bytes, &[]);
        }
        let bytes = manifest(CONFIG, &[&layer]);
        let by_digest = name.with_digest(sha256(&bytes));
        let mut entry = client.push_manifest(&by_digest, kind::OCI_MANIFEST, &bytes).unwrap();
        entry.platform = Some(platform.parse().unwrap());
        entry
    });
    let index = Index {
        schema_version: 2,
        media_type: kind::OCI_INDEX.to_owned(),
        artifact_type: None,
        manifests: entries.collect(),
        subject: None,
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&index).unwrap();
    client.push_manifest(&name, kind::OCI_INDEX, &bytes).unwrap();
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    assert_eq!(raw.as_bytes(), bytes);
    let (descriptor, read) = client.resolve(&name).unwrap();
    assert_eq!((descriptor.media_type.as_str(), &read), (kind::OCI_INDEX, &bytes));
    let chosen = choose(&name, &index, &"linux/arm/v7".parse::<Platform>().unwrap()).unwrap();
    assert_eq!(client.manifest(&name, &chosen.digest).unwrap().0.digest, chosen.digest);
    let error = choose(&name, &index, &"linux/s390x".parse::<Platform>().unwrap()).unwrap_err().to_string();
    assert!(error.ends_with("multi:1 is there for linux/amd64, linux/arm/v7"), "{error}");
}

#[test]
fn blobs_that_are_there_are_not_sent() {
    if !has("docker-registry") {
        return;
    }
    let (registry, folder) = (Registry::plain(), Folder::new());
    let client = client(&folder);
    let (first, second) =
        (reference(format!("{}/one:1", registry.address)), reference(format!("{}/two/deep:1", registry.address)));
    let bytes = noise(50_000, 3);
    assert_eq!(push_blob(&client, &folder, &first, &bytes, &[]), Pushed::Uploaded);
    assert_eq!(push_blob(&client, &folder, &first, &bytes, &[]), Pushed::Exists);
    let wrong = "no/such".to_owned();
    assert_eq!(push_blob(&client, &folder, &second, &bytes, &["one".to_owned()]), Pushed::Mounted("one".to_owned()));
    assert!(client.has_blob(&second, &sha256(&bytes)).unwrap());
    let third = reference(format!("{}/three:1", registry.address));
    assert_eq!(push_blob(&client, &folder, &third, &bytes, &[wrong]), Pushed::Uploaded);
}

struct Count(AtomicU64);

impl PushWatch for Count {
    fn sent(&self, bytes: u64) {
        self.0.fetch_max(bytes, Ordering::SeqCst);
    }

    fn retrying(&self, _: Duration, _: &Error) {}
}

/// Forwards connections to the registry; each of the first `cuts` ends after so many bytes.
fn cutting_proxy(target: String, cuts: usize, bytes: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut left = cuts;
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&target).unwrap();
            let (mut client_in, mut server_out) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (mut server_in, mut client_out) = (server, client);
            std::thread::spawn(move || std::io::copy(&mut server_in, &mut client_out));
            // Only what is a large upload comes so far.
            let limit = if left > 0 { bytes } else { u64::MAX };
            let copied = std::io::copy(&mut std::io::Read::take(&mut client_in, limit), &mut server_out).unwrap_or(0);
            let _ = client_in.shutdown(std::net::Shutdown::Both);
            let _ = server_out.shutdown(std::net::Shutdown::Both);
            if copied == limit {
                left -= 1;
            }
        }
    });
    address
}

#[test]
fn a_cut_upload_is_done_again() {
    if !has("docker-registry") {
        return;
    }
    let (registry, folder) = (Registry::plain(), Folder::new());
    let address = cutting_proxy(registry.address.clone(), 2, 5 << 20);
    let client = client(&folder);
    let name = reference(format!("{address}/cut:1"));
    let bytes = noise(20 << 20, 4);
    let count = Count(AtomicU64::new(0));
    let pushed = client.push_blob(&name, &blob(&bytes), &file(&folder, &bytes), &[], &count).unwrap();
    assert_eq!((pushed, count.0.into_inner()), (Pushed::Uploaded, bytes.len() as u64));
    let own = reference(format!("{}/cut:1", registry.address));
    assert_eq!(fetch(&client, &folder, &own, &blob(&bytes)).unwrap().len(), bytes.len());
}

/// What uploads are where a cut one can go on: Docker's registry forgets those. With a limit on the size of one request.
fn upload_server(limit: usize) -> (Server, Arc<Mutex<Vec<u8>>>) {
    let content = Arc::new(Mutex::new(Vec::new()));
    let kept = content.clone();
    let server = Server::new(move |request| {
        let mut kept = kept.lock().unwrap();
        let has = |length: usize| format!("0-{}", length.max(1) - 1);
        match (request.method.as_str(), request.path.as_str()) {
            ("HEAD", _) => Reply::new(404, ""),
            // Relative, and with members that must be kept.
            ("POST", "/v2/a/blobs/uploads/") => Reply::new(202, "").header("Location", "upload?state=1"),
            ("PATCH", "/v2/a/blobs/uploads/upload?state=1") if request.body.len() > limit => Reply::new(413, ""),
            ("PATCH", "/v2/a/blobs/uploads/upload?state=1") => {
                let from: usize = request.header("content-range").unwrap().split_once('-').unwrap().0.parse().unwrap();
                if from != kept.len() {
                    return Reply::new(416, "");
                }
                kept.extend_from_slice(&request.body);
                Reply::new(202, "")
                    .header("Location", "/v2/a/blobs/uploads/upload?state=1")
                    .header("Range", has(kept.len()))
            }
            ("GET", "/v2/a/blobs/uploads/upload?state=1") => Reply::new(204, "").header("Range", has(kept.len())),
            ("PUT", path) if path.starts_with("/v2/a/blobs/uploads/upload?state=1&digest=sha256:") => {
                Reply::new(201, "")
            }
            _ => Reply::new(200, "{}"),
        }
    });
    (server, content)
}

#[test]
fn a_cut_upload_goes_on_where_it_ended() {
    let (server, content) = upload_server(usize::MAX);
    let folder = Folder::new();
    let address = cutting_proxy(server.address.clone(), 3, 5 << 20);
    let bytes = noise(20 << 20, 11);
    let name = reference(format!("{address}/a"));
    assert_eq!(push_blob(&client(&folder), &folder, &name, &bytes, &[]), Pushed::Uploaded);
    assert!(*content.lock().unwrap() == bytes);
    // One session to the end, and its parts follow each other: the server refuses any other.
    let of = |method: &str| server.requests().iter().filter(|request| request.method == method).count();
    assert_eq!((of("POST"), of("PUT")), (1, 1));
    assert!(of("PATCH") >= 4 && of("GET") >= 3);
}

#[test]
fn parts_are_made_smaller_for_who_takes_no_large_requests() {
    let (server, content) = upload_server(3 << 20);
    let (folder, bytes) = (Folder::new(), noise(20 << 20, 12));
    let name = reference(format!("{}/a", server.address));
    assert_eq!(push_blob(&client(&folder), &folder, &name, &bytes, &[]), Pushed::Uploaded);
    assert!(*content.lock().unwrap() == bytes);
}

#[test]
fn tags_come_in_pages() {
    if !has("docker-registry") {
        return;
    }
    let (registry, folder) = (Registry::plain(), Folder::new());
    let client = client(&folder);
    let name = reference(format!("{}/many", registry.address));
    let layer = noise(100, 5);
    for tag in ["a", "b", "c"] {
        push_image(&client, &folder, &name.with_tag(tag).unwrap(), &layer);
    }
    assert_eq!(client.tags(&name).unwrap(), ["a", "b", "c"]);
    let error = client.tags(&reference(format!("{}/none", registry.address))).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    // Debian's registry has no pages; this server has.
    let server = Server::new(|request| match request.path.as_str() {
        "/v2/p/tags/list?n=1000" => {
            Reply::json(200, r#"{"tags":["x",".bad"]}"#).header("Link", r#"</v2/p/tags/list?last=x>; rel="next""#)
        }
        "/v2/p/tags/list?last=x" => Reply::json(200, r#"{"name":"p","tags":["y"]}"#),
        "/v2/q/tags/list?n=1000" => Reply::json(200, r#"{"tags":null}"#).header("Link", r#"<http://h/>; rel="next""#),
        _ => Reply::json(200, "{}"),
    });
    assert_eq!(client.tags(&reference(format!("{}/p", server.address))).unwrap(), ["x", "y"]);
    let error = client.tags(&reference(format!("{}/q", server.address))).unwrap_err().to_string();
    assert!(error.contains("next page"), "{error}");
}

#[test]
fn referrers_without_an_api_are_kept_by_tag() {
    if !has("docker-registry") {
        return;
    }
    let (registry, folder) = (Registry::plain(), Folder::new());
    let client = client(&folder);
    let name = reference(format!("{}/signed:1", registry.address));
    let subject = push_image(&client, &folder, &name, &noise(100, 6));
    assert!(client.referrers(&name, &subject.digest, None).unwrap().manifests.is_empty());
    for artifact in ["application/x.sbom", "application/x.signature"] {
        let mut value: serde_json::Value = serde_json::from_slice(&manifest(CONFIG, &[])).unwrap();
        value["artifactType"] = artifact.into();
        value["subject"] = serde_json::to_value(&subject).unwrap();
        let bytes = serde_json::to_vec(&value).unwrap();
        client.push_manifest(&name.with_digest(sha256(&bytes)), kind::OCI_MANIFEST, &bytes).unwrap();
    }
    let found = client.referrers(&name, &subject.digest, None).unwrap();
    assert_eq!((found.manifests.len(), found.by_tag), (2, true));
    let found = client.referrers(&name, &subject.digest, Some("application/x.sbom")).unwrap();
    assert_eq!(found.manifests.len(), 1);
}

#[test]
fn referrers_of_an_api() {
    let subject = sha256(b"subject");
    let asked = format!("/v2/a/referrers/{subject}");
    let entry = |bytes: &[u8], artifact: &str| {
        let mut entry = Descriptor::new(kind::OCI_MANIFEST, sha256(bytes), bytes.len() as u64);
        entry.artifact_type = Some(artifact.to_owned());
        serde_json::to_string(&entry).unwrap()
    };
    let index =
        |entries: String| format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{entries}]}}"#, kind::OCI_INDEX);
    let (first, second) = (index(entry(b"1", "application/x.sbom")), index(entry(b"2", "application/x.signature")));
    let server = Server::new(move |request| match request.path.split('?').next() {
        Some(path) if path == asked && !request.path.contains("page=2") => {
            Reply::json(200, &first).header("Link", format!(r#"<{asked}?page=2>; rel="next""#))
        }
        Some(path) if path == asked => Reply::json(200, &second),
        _ => Reply::json(200, "{}"),
    });
    let folder = Folder::new();
    let name = reference(format!("{}/a", server.address));
    let found = client(&folder).referrers(&name, &subject, None).unwrap();
    assert_eq!((found.manifests.len(), found.by_tag), (2, false));
    // This server does not filter, so the client does.
    let found = client(&folder).referrers(&name, &subject, Some("application/x.signature")).unwrap();
    assert_eq!(found.manifests[0].digest, sha256(b"2"));
    assert_eq!(found.manifests.len(), 1);
    assert!(server.requests().iter().any(|request| request.path.ends_with("?artifactType=application/x.signature")));
}

#[test]
fn name_and_password() {
    if !has("docker-registry") || !has("htpasswd") {
        return;
    }
    let (registry, folder) = (Registry::with_password(), Folder::new());
    let name = reference(format!("{}/private:1", registry.address));
    let error = client(&folder).resolve(&name).unwrap_err().to_string();
    assert!(
        error.contains("pull access denied for") && error.contains("unauthorized: authentication required"),
        "{error}"
    );
    let error = client(&folder).push_manifest(&name, kind::OCI_MANIFEST, b"{}").unwrap_err().to_string();
    assert!(error.contains("berth login"), "{error}");
    let error = client(&folder).login(&registry.address, "user", "wrong").unwrap_err().to_string();
    assert!(error.starts_with(&format!("Get \"http://{}/v2/\": unauthorized: ", registry.address)), "{error}");
    assert!(!folder.join("docker/config.json").exists());
    let kept =
        r#"{"psFormat": "x", "HttpHeaders": {"a": "b"}, "auths": {"other.example": {"auth": "YTpi", "extra": 1}}}"#;
    let path = folder.write("docker/config.json", kept);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let logged_in = client(&folder).login(&registry.address, "user", "pass:word").unwrap();
    assert_eq!((logged_in.stored, logged_in.unchecked), (Stored::File(path.clone()), false));
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(written["auths"][&registry.address]["auth"], "dXNlcjpwYXNzOndvcmQ=");
    assert_eq!((&written["psFormat"], &written["auths"]["other.example"]["extra"]), (&"x".into(), &1.into()));
    push_image(&client(&folder), &folder, &name, &noise(1000, 7));
    assert!(client(&folder).resolve(&name).is_ok());
    if has("skopeo") {
        // The file is one that others read.
        let authfile = format!("--authfile={}", path.display());
        skopeo(&["inspect", "--raw", "--tls-verify=false", &authfile, &format!("docker://{name}")]);
    }
    assert!(client(&folder).logout(&registry.address).unwrap());
    assert!(!client(&folder).logout(&registry.address).unwrap());
    assert!(client(&folder).resolve(&name).is_err());
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(written["auths"].as_object().unwrap().len(), 1);
}

#[test]
fn a_registry_for_everybody_checks_no_password() {
    if !has("docker-registry") {
        return;
    }
    let (registry, folder) = (Registry::plain(), Folder::new());
    assert!(client(&folder).login(&registry.address, "a", "b").unwrap().unchecked);
}

#[test]
fn private_authorities_and_client_certificates_through_a_proxy() {
    if !has("docker-registry") || !has("openssl") {
        return;
    }
    let folder = Folder::new();
    certificates(folder.path());
    let at = folder.path().display();
    let tls = |name: &str| format!("  tls:\n    certificate: {at}/{name}.crt\n    key: {at}/{name}.key\n");
    let by_authority = Registry::new(&tls("server"), "");
    let with_client = Registry::new(&format!("{}    clientcas:\n      - {at}/ca.crt\n", tls("server")), "");
    let self_signed = Registry::new(&tls("own"), "");
    let tags = |registry: &Registry, change: &dyn Fn(&mut rrt_registry::Config)| {
        let mut config = config(&folder);
        config.proxies = Proxies {
            https: Some(format!("http://{}", connect_proxy(registry.address.clone()))),
            ..Default::default()
        };
        config.certificates = vec![folder.join("none"), folder.join("certs.d")];
        change(&mut config);
        let found = Client::new(config).resolve(&reference("registry.example:5000/a:1"));
        found.map(|_| ()).map_err(|e| e.to_string()).unwrap_err()
    };
    let reached = "manifest for registry.example:5000/a:1 not found";
    let error = tags(&by_authority, &|_| {});
    assert!(
        error.contains("failed to verify certificate") && error.contains("/etc/berth/certs.d/registry.example:5000/"),
        "{error}"
    );
    let error = tags(&by_authority, &|config| config.authorities = vec![folder.join("ca.crt")]);
    assert!(error.starts_with(reached), "{error}");
    let error = tags(&by_authority, &|config| config.insecure = true);
    assert!(error.starts_with(reached), "{error}");
    let own = folder.join("certs.d/registry.example:5000");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(folder.join("ca.crt"), own.join("ca.crt")).unwrap();
    assert!(tags(&by_authority, &|_| {}).starts_with(reached));
    let error = tags(&with_client, &|_| {});
    assert!(error.contains("ertificate"), "{error}");
    std::fs::copy(folder.join("client.crt"), own.join("client.cert")).unwrap();
    let error = tags(&with_client, &|_| {});
    assert!(error.contains("client.cert: has no client.key beside it"), "{error}");
    std::fs::copy(folder.join("server.key"), own.join("client.key")).unwrap();
    let error = tags(&with_client, &|_| {});
    assert!(error.contains("client.key: does not fit"), "{error}");
    std::fs::copy(folder.join("client.key"), own.join("client.key")).unwrap();
    assert!(tags(&with_client, &|_| {}).starts_with(reached));
    // A server's own certificate, as Docker's documents make it.
    assert!(tags(&self_signed, &|_| {}).contains("failed to verify certificate"));
    std::fs::copy(folder.join("own.crt"), own.join("ca.crt")).unwrap();
    assert!(tags(&self_signed, &|_| {}).starts_with(reached));
    std::fs::write(own.join("ca.crt"), "nonsense").unwrap();
    assert!(tags(&self_signed, &|_| {}).contains("ca.crt: has no certificate in PEM"));
}

#[test]
fn plain_http_where_tls_is_expected() {
    if !has("docker-registry") {
        return;
    }
    let (registry, folder) = (Registry::plain(), Folder::new());
    let mut config = config(&folder);
    let proxy = format!("http://{}", connect_proxy(registry.address.clone()));
    config.proxies = Proxies { https: Some(proxy.clone()), http: Some(proxy), ..Default::default() };
    let name = reference("registry.example:5000/a:1");
    let error = Client::new(config.clone()).resolve(&name).unwrap_err().to_string();
    assert!(
        error.contains("server gave HTTP response to HTTPS client") && error.contains("insecure-registries"),
        "{error}"
    );
    config.settings.insecure_registries = vec!["registry.example:5000".to_owned()];
    let error = Client::new(config).resolve(&name).unwrap_err().to_string();
    assert!(error.starts_with("manifest for registry.example:5000/a:1 not found"), "{error}");
}

#[test]
fn mirrors() {
    if !has("docker-registry") {
        return;
    }
    let (mirror, origin, folder) = (Registry::plain(), Registry::plain(), Folder::new());
    let name = reference(format!("{}/a:1", origin.address));
    let (here, there) = (noise(100_000, 8), noise(100_000, 9));
    // The mirror has the image under a path, and other content for its layer is only at the origin.
    push_image(&client(&folder), &folder, &reference(format!("{}/cache/a:1", mirror.address)), &here);
    push_image(&client(&folder), &folder, &name, &there);
    let mut config = config(&folder);
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = vec![format!("http://{dead}"), format!("http://{}/cache", mirror.address)];
    config.settings.mirrors.insert(origin.address.clone(), urls);
    let client = Client::new(config);
    assert_eq!(client.resolve(&name).unwrap().1, manifest(CONFIG, &[&here]));
    assert_eq!(fetch(&client, &folder, &name, &blob(&here)).unwrap(), here);
    // What the mirror has not comes from the registry.
    assert_eq!(fetch(&client, &folder, &name, &blob(&there)).unwrap(), there);
    drop(mirror);
    assert_eq!(client.resolve(&name).unwrap().1, manifest(CONFIG, &[&there]));
}

#[test]
fn mirrors_that_cut_are_followed_by_the_registry() {
    let bytes = noise(500_000, 10);
    let served = bytes.clone();
    let mirror = Server::new(move |request| match request.range() {
        None => Reply::blob(request, &served).cut(200_000),
        Some(_) => Reply::new(404, ""),
    });
    let served = bytes.clone();
    let origin = Server::new(move |request| Reply::blob(request, &served));
    let folder = Folder::new();
    let mut config = config(&folder);
    config.settings.mirrors.insert(origin.address.clone(), vec![format!("http://{}", mirror.address)]);
    let name = reference(format!("{}/a", origin.address));
    assert_eq!(fetch(&Client::new(config), &folder, &name, &blob(&bytes)).unwrap(), bytes);
    assert_eq!(origin.requests()[0].range(), Some((200_000, None)));
}
