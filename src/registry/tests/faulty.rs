//! The client against a server that misbehaves in one way at a time.

mod common;

use common::server::{Reply, Request, Server};
use common::{Folder, blob, client, config, fetch, manifest, noise, reference, sha256};
use rrt_oci::image::media_type as kind;
use rrt_registry::Client;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A server that has one blob, and answers its requests by a function of the request's number (from 0) and the request.
fn blob_server(bytes: Vec<u8>, reply: impl Fn(u32, &Request, &[u8]) -> Reply + Send + Sync + 'static) -> Server {
    let asked = AtomicU32::new(0);
    Server::new(move |request| match request.path.contains("/blobs/") {
        true => reply(asked.fetch_add(1, Ordering::SeqCst), request, &bytes),
        false => Reply::json(200, "{}"),
    })
}

fn pulled(server: &Server, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let folder = Folder::new();
    fetch(&client(&folder), &folder, &reference(format!("{}/a", server.address)), &blob(bytes))
}

fn manifest_server(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::new(move |request| match request.path.contains("/manifests/") {
        true => reply(request),
        false => Reply::json(200, "{}"),
    })
}

fn resolved(server: &Server, name: &str) -> Result<Vec<u8>, String> {
    let folder = Folder::new();
    let found = client(&folder).resolve(&reference(format!("{}/{name}", server.address)));
    found.map(|(_, bytes)| bytes).map_err(|e| e.to_string())
}

#[test]
fn a_cut_download_goes_on_where_it_ended() {
    let bytes = noise(1_000_000, 1);
    let server = blob_server(bytes.clone(), |at, request, bytes| {
        let reply = Reply::blob(request, bytes);
        if at < 7 { reply.cut(100_000) } else { reply }
    });
    // More cuts than attempts are allowed: each got further.
    assert_eq!(pulled(&server, &bytes).unwrap(), bytes);
    let begins: Vec<_> =
        server.requests().iter().map(|request| request.range().map_or(0, |(begin, _)| begin)).collect();
    assert_eq!(begins.len(), 8, "{begins:?}");
    assert!(begins.windows(2).all(|pair| pair[1] == pair[0] + 100_000), "{begins:?}");
}

#[test]
fn without_ranges_it_begins_anew() {
    let bytes = noise(500_000, 2);
    let server = blob_server(bytes.clone(), |at, _, bytes| {
        let reply = Reply::new(200, bytes);
        if at < 2 { reply.cut(200_000) } else { reply }
    });
    assert_eq!(pulled(&server, &bytes).unwrap(), bytes);
    assert_eq!(server.count("/blobs/"), 3);
}

#[test]
fn a_download_that_never_gets_further_ends() {
    let bytes = noise(500_000, 3);
    let server = blob_server(bytes.clone(), |_, _, bytes| Reply::new(200, bytes).cut(200_000));
    let error = pulled(&server, &bytes).unwrap_err();
    assert!(error.contains("GET http://") && error.contains("/blobs/sha256:"), "{error}");
    assert_eq!(server.count("/blobs/"), 5);
}

#[test]
fn a_repeated_pull_goes_on_with_what_is_there() {
    let bytes = noise(500_000, 4);
    let server = blob_server(bytes.clone(), |at, request, bytes| match at {
        0 => Reply::blob(request, bytes).cut(300_000),
        1..=4 => Reply::new(404, ""),
        _ => Reply::blob(request, bytes),
    });
    let folder = Folder::new();
    let name = reference(format!("{}/a", server.address));
    let error = fetch(&client(&folder), &folder, &name, &blob(&bytes)).unwrap_err();
    assert!(error.contains("not found"), "{error}");
    for _ in 0..3 {
        assert!(fetch(&client(&folder), &folder, &name, &blob(&bytes)).is_err());
    }
    assert_eq!(fetch(&client(&folder), &folder, &name, &blob(&bytes)).unwrap(), bytes);
    let last = server.requests().pop().unwrap();
    assert_eq!(last.range(), Some((300_000, None)));
}

#[test]
fn ranges_at_once() {
    let bytes = noise(40 << 20, 5);
    let cut = AtomicU32::new(0);
    let server = blob_server(bytes.clone(), move |_, request, bytes| {
        let reply = Reply::blob(request, bytes);
        // The third one ends early, once.
        if cut.fetch_add(1, Ordering::SeqCst) == 2 { reply.cut(1 << 20) } else { reply }
    });
    let folder = Folder::new();
    let mut config = config(&folder);
    config.split = 16 << 20;
    let pulled = fetch(&Client::new(config), &folder, &reference(format!("{}/a", server.address)), &blob(&bytes));
    assert!(pulled.unwrap() == bytes);
    let requests = server.requests();
    assert!(requests.len() >= 6 && requests.iter().all(|request| request.range().is_some()), "{}", requests.len());
    assert!(
        requests.iter().any(|request| request.range().unwrap().0 % (8 << 20) == 1 << 20),
        "the cut one goes on inside"
    );
}

#[test]
fn ranges_at_once_from_a_server_without_them() {
    let bytes = noise(20 << 20, 6);
    let server = blob_server(bytes.clone(), |_, _, bytes| Reply::new(200, bytes));
    let folder = Folder::new();
    let mut config = config(&folder);
    config.split = 16 << 20;
    let pulled = fetch(&Client::new(config), &folder, &reference(format!("{}/a", server.address)), &blob(&bytes));
    assert!(pulled.unwrap() == bytes);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_wrong_digest_is_refused_and_forgotten() {
    let bytes = noise(300_000, 7);
    let server = blob_server(noise(300_000, 8), |_, request, bytes| Reply::blob(request, bytes));
    let folder = Folder::new();
    let name = reference(format!("{}/a", server.address));
    for _ in 0..2 {
        let error = fetch(&client(&folder), &folder, &name, &blob(&bytes)).unwrap_err();
        assert!(error.contains("wrong content") && error.contains(blob(&bytes).digest.hex()), "{error}");
    }
    // The second time from its beginning.
    assert!(server.requests().iter().all(|request| request.range().is_none()));
    assert_eq!(std::fs::read_dir(folder.join("store/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn a_wrong_size_is_refused() {
    let bytes = noise(300_000, 9);
    for wrong in [&bytes[..200_000], &[&bytes[..], b"more"].concat()] {
        let served = wrong.to_vec();
        let server = blob_server(served.clone(), |_, request, bytes| Reply::blob(request, bytes));
        let error = pulled(&server, &bytes).unwrap_err();
        assert!(error.contains(&format!("{} bytes come", served.len())) && error.contains("300000"), "{error}");
        assert_eq!(server.count("/blobs/"), 1, "it is not asked again");
    }
}

#[test]
fn an_endless_body_ends() {
    let bytes = noise(300_000, 10);
    let server = blob_server(noise(400_000, 10), |_, _, bytes| Reply {
        length: Some(None),
        endless: true,
        ..Reply::new(200, bytes)
    });
    // The first 300,000 bytes are right, and no more are taken.
    assert_eq!(pulled(&server, &bytes).unwrap(), bytes);
    let server = manifest_server(|_| Reply { length: Some(None), endless: true, ..Reply::new(200, "{") });
    let error = resolved(&server, "a:1").unwrap_err();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
}

#[test]
fn a_slow_body_is_waited_for_and_a_silent_one_not() {
    let bytes = noise(200_000, 11);
    let server = blob_server(bytes.clone(), |_, request, bytes| Reply {
        slow: Duration::from_millis(150),
        ..Reply::blob(request, bytes)
    });
    let folder = Folder::new();
    let name = reference(format!("{}/a", server.address));
    let mut quick = config(&folder);
    quick.timeout = Duration::from_secs(1);
    // Slower in all than the timeout, but never silent so long.
    assert_eq!(fetch(&Client::new(quick.clone()), &folder, &name, &blob(&bytes)).unwrap(), bytes);
    let silent = blob_server(bytes.clone(), |_, request, bytes| Reply {
        slow: Duration::from_secs(4),
        ..Reply::blob(request, bytes)
    });
    quick.timeout = Duration::from_millis(300);
    quick.settings.max_download_attempts = Some(2);
    let begin = Instant::now();
    let folder = Folder::new();
    let error =
        fetch(&Client::new(quick), &folder, &reference(format!("{}/a", silent.address)), &blob(&bytes)).unwrap_err();
    assert!(error.to_lowercase().contains("timeout"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[test]
fn errors_of_the_server_are_tried_again() {
    let document = manifest(b"{}", &[]);
    for status in [500, 502, 503, 504] {
        let (asked, served) = (AtomicU32::new(0), document.clone());
        let server = manifest_server(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Reply::json(status, r#"{"errors":[{"code":"UNKNOWN","message":"busy"}]}"#),
            _ => Reply::new(200, &served[..]).header("Content-Type", kind::OCI_MANIFEST),
        });
        assert_eq!(resolved(&server, "a:1").unwrap(), document);
        assert_eq!(server.count("/manifests/"), 3);
    }
    let server = manifest_server(|_| Reply::json(500, r#"{"errors":[{"code":"UNKNOWN","message":"broken disk"}]}"#));
    let error = resolved(&server, "a:1").unwrap_err();
    assert!(error.contains("500") && error.contains("unknown: broken disk"), "{error}");
    assert_eq!(server.count("/manifests/"), 5);
}

#[test]
fn mistakes_of_ours_are_not_tried_again() {
    for (status, code, expected) in [
        (404, "MANIFEST_UNKNOWN", "manifest for 127.0.0.1:PORT/a:1 not found: manifest unknown: no"),
        (
            401,
            "UNAUTHORIZED",
            "pull access denied for 127.0.0.1:PORT/a, repository does not exist or may require 'berth login': unauthorized: no",
        ),
        (
            403,
            "DENIED",
            "pull access denied for 127.0.0.1:PORT/a, repository does not exist or may require 'berth login': denied: no",
        ),
        (
            400,
            "NAME_INVALID",
            "GET http://127.0.0.1:PORT/v2/a/manifests/1: the registry answered 400: name invalid: no",
        ),
    ] {
        let server = manifest_server(move |_| {
            Reply::json(status, &format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#))
        });
        let port = server.address.rsplit(':').next().unwrap();
        assert_eq!(resolved(&server, "a:1").unwrap_err(), expected.replace("PORT", port));
        assert_eq!(server.count("/manifests/"), 1);
    }
}

#[test]
fn a_rate_limit_is_waited_for_or_told() {
    let document = manifest(b"{}", &[]);
    let (asked, served) = (AtomicU32::new(0), document.clone());
    let server = manifest_server(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::json(429, "{}").header("Retry-After", 1),
        _ => Reply::new(200, &served[..]).header("Content-Type", kind::OCI_MANIFEST),
    });
    let begin = Instant::now();
    assert_eq!(resolved(&server, "a:1").unwrap(), document);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    let told = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    let server = manifest_server(move |_| {
        Reply::json(429, told)
            .header("Retry-After", 7200)
            .header("RateLimit-Limit", "100;w=21600")
            .header("RateLimit-Remaining", "0;w=21600")
    });
    let error = resolved(&server, "a:1").unwrap_err();
    for part in ["toomanyrequests", "You have reached your pull rate limit.", "100;w=21600, 0 left", "again in 7200 s"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(server.count("/manifests/"), 1, "nobody waits for two hours");
}

#[test]
fn html_is_named() {
    for (status, kind) in [(200, "text/html"), (200, "application/json"), (404, "text/html"), (503, "text/html")] {
        let page = "<!doctype html><html><title>Sign in</title></html>";
        let server = manifest_server(move |_| Reply::new(status, page).header("Content-Type", kind));
        let error = resolved(&server, "a:1").unwrap_err();
        assert!(error.contains("HTML page") && error.lines().count() == 1, "{status} {kind}: {error}");
    }
}

#[test]
fn manifests_that_are_none() {
    let image = String::from_utf8(manifest(b"{}", &[])).unwrap();
    let both = image.replacen("{", r#"{"manifests":[],"#, 1);
    for (media_type, document, expected) in [
        (kind::DOCKER_SCHEMA1_SIGNED, r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "version 1, schema 1"),
        ("application/json", r#"{"schemaVersion":1}"#.to_owned(), "version 1, schema 1"),
        (kind::OCI_MANIFEST, "{".to_owned(), "not the JSON of a manifest"),
        (kind::OCI_MANIFEST, "[]".to_owned(), "not the JSON of a manifest"),
        (kind::OCI_MANIFEST, both, "members of another type"),
        (kind::OCI_INDEX, image.clone(), "the registry says"),
        (kind::OCI_INDEX, r#"{"schemaVersion":2,"config":{}}"#.to_owned(), "members of another type"),
        (kind::OCI_MANIFEST, r#"{"mediaType":"application/x","config":{}}"#.to_owned(), "the registry says"),
        ("application/x", r#"{"mediaType":"application/x","config":{}}"#.to_owned(), "which is no image"),
    ] {
        let served = document.clone();
        let server = manifest_server(move |_| Reply::new(200, served.as_str()).header("Content-Type", media_type));
        let error = resolved(&server, "a:1").unwrap_err();
        assert!(error.contains(expected), "{media_type} {document}: {error}");
    }
}

#[test]
fn a_manifest_has_the_digest_it_was_asked_by() {
    let document = manifest(b"{}", &[]);
    let served = document.clone();
    let server = manifest_server(move |_| Reply::new(200, &served[..]).header("Content-Type", kind::OCI_MANIFEST));
    assert_eq!(resolved(&server, &format!("a@{}", sha256(&document))).unwrap(), document);
    let error = resolved(&server, &format!("a@{}", sha256(b"other"))).unwrap_err();
    assert!(error.contains("is not what its digest says"), "{error}");
    // What the registry says itself must be true, too.
    let served = document.clone();
    let server = manifest_server(move |_| {
        let reply = Reply::new(200, &served[..]).header("Content-Type", kind::OCI_MANIFEST);
        reply.header("Docker-Content-Digest", sha256(b"other"))
    });
    let error = resolved(&server, "a:1").unwrap_err();
    assert!(error.contains("is not what its digest says"), "{error}");
}

#[test]
fn a_redirection_takes_no_credentials_along() {
    let bytes = noise(100_000, 12);
    let served = bytes.clone();
    let storage = Server::new(move |request| Reply::blob(request, &served));
    let elsewhere = format!("http://{}/bucket/x?signature=s", storage.address);
    let registry = Server::new(move |request| match request.header("authorization") {
        None => Reply::json(401, "{}").header("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) if request.path == "/v2/" => Reply::json(200, "{}"),
        Some(_) => Reply::new(307, "").header("Location", &elsewhere),
    });
    let folder = Folder::new();
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpwYXNz"}}}}}}"#, registry.address);
    folder.write("docker/config.json", &auths);
    let name = reference(format!("{}/a", registry.address));
    assert_eq!(fetch(&client(&folder), &folder, &name, &blob(&bytes)).unwrap(), bytes);
    let asked = storage.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].path.as_str(), asked[0].header("authorization")), ("/bucket/x?signature=s", None));
    assert!(registry.requests().iter().any(|request| request.header("authorization") == Some("Basic dXNlcjpwYXNz")));
}

#[test]
fn redirections_end() {
    let server = manifest_server(|request| Reply::new(302, "").header("Location", &request.path));
    let error = resolved(&server, "a:1").unwrap_err();
    assert!(error.contains("more than 10 redirections"), "{error}");
    let server = manifest_server(|_| Reply::new(302, "").header("Location", "file:///etc/passwd"));
    let error = resolved(&server, "a:1").unwrap_err();
    assert!(error.contains("no http:// or https:// URL"), "{error}");
}

#[test]
fn nobody_there() {
    let folder = Folder::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begin = Instant::now();
    let error = client(&folder).resolve(&reference(format!("{free}/a:1"))).unwrap_err().to_string();
    assert!(error.contains("connection refused: is the registry running?"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2));
}
