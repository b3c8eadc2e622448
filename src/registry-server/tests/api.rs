//! The distribution API, request by request.

mod common;

use common::{Answer, OCI_INDEX, OCI_MANIFEST, Scratch, Server, digest, head, manifest};
use rrt_content::Store;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Not a test: the server's process.
#[test]
fn server() {
    common::serve_if_told();
}

fn started() -> (Scratch, Server) {
    let scratch = Scratch::new();
    let server = Server::start(&scratch.0, &[]);
    (scratch, server)
}

fn error(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn what_is_not_there_is_said_as_the_specification_says() {
    let (_scratch, server) = started();
    let base = server.get("/v2/");
    assert_eq!((base.status, base.header("docker-distribution-api-version")), (200, Some("registry/2.0")));
    let none = digest(b"none");
    for (method, path, expected) in [
        ("GET", "/".to_owned(), error(404, "UNSUPPORTED")),
        ("GET", "/v2/app/tags/list".to_owned(), error(404, "NAME_UNKNOWN")),
        ("GET", "/v2/app/manifests/latest".to_owned(), error(404, "MANIFEST_UNKNOWN")),
        ("GET", format!("/v2/app/manifests/{none}"), error(404, "MANIFEST_UNKNOWN")),
        ("GET", format!("/v2/app/blobs/{none}"), error(404, "BLOB_UNKNOWN")),
        ("GET", "/v2/app/blobs/sha256:12".to_owned(), error(400, "DIGEST_INVALID")),
        ("GET", "/v2/UP/tags/list".to_owned(), error(400, "NAME_INVALID")),
        ("PATCH", "/v2/app/blobs/uploads/none".to_owned(), error(404, "BLOB_UPLOAD_UNKNOWN")),
        ("DELETE", "/v2/app/manifests/latest".to_owned(), error(404, "MANIFEST_UNKNOWN")),
        ("DELETE", format!("/v2/app/blobs/{none}"), error(404, "BLOB_UNKNOWN")),
        ("POST", "/v2/app/manifests/latest".to_owned(), error(405, "UNSUPPORTED")),
        ("POST", "/v2/app/blobs/uploads/?digest=x".to_owned(), error(400, "DIGEST_INVALID")),
        ("GET", "/v2/_catalog?n=x".to_owned(), error(400, "PAGINATION_NUMBER_INVALID")),
    ] {
        assert_eq!(server.ask(method, &path, &[], b"").error(), expected, "{method} {path}");
    }
    assert_eq!(server.ask("HEAD", &format!("/v2/app/blobs/{none}"), &[], b"").status, 404);
    assert_eq!(server.get(&format!("/v2/app/referrers/{none}")).json()["manifests"], json!([]));
    assert_eq!(server.get("/v2/_catalog").json(), json!({"repositories": []}));
}

#[test]
fn a_blob_comes_at_once_in_chunks_or_with_its_digest_last() {
    let (_scratch, server) = started();
    let bytes: Vec<u8> = (0..2_000_000u32).map(|n| (n / 3) as u8).collect();
    let wanted = digest(&bytes);
    let blob = format!("/v2/a/b/blobs/{wanted}");
    server.push_blob("other", b"first");

    // POST, PUT with all of it.
    let begun = server.ask("POST", "/v2/a/b/blobs/uploads/", &[], b"");
    assert_eq!((begun.status, begun.header("range"), begun.body.len()), (202, Some("0-0"), 0));
    let place = begun.header("location").unwrap();
    assert!(place.ends_with(begun.header("docker-upload-uuid").unwrap()));
    let done = server.ask("PUT", &format!("{place}?digest={wanted}"), &[], &bytes);
    assert_eq!(
        (done.status, done.header("location"), done.header("docker-content-digest")),
        (201, Some(blob.as_str()), Some(wanted.as_str()))
    );
    let got = server.get(&blob);
    assert!(got.body == bytes && got.header("docker-content-digest") == Some(wanted.as_str()));
    assert_eq!(server.get(place).error(), error(404, "BLOB_UPLOAD_UNKNOWN"));

    // In chunks, of which one comes out of order.
    let begun = server.ask("POST", "/v2/chunked/blobs/uploads/", &[], b"");
    let place = begun.header("location").unwrap();
    let chunk = |from: usize, to: usize| {
        server.ask("PATCH", place, &[("Content-Range", &format!("{from}-{}", to - 1))], &bytes[from..to])
    };
    let first = chunk(0, 700_000);
    assert_eq!((first.status, first.header("range")), (202, Some("0-699999")));
    let wrong = chunk(800_000, 900_000);
    assert_eq!((wrong.error(), wrong.header("range")), (error(416, "BLOB_UPLOAD_INVALID"), Some("0-699999")));
    let status = server.get(place);
    assert_eq!((status.status, status.header("range")), (204, Some("0-699999")));
    assert_eq!(chunk(700_000, 1_500_000).status, 202);
    let elsewhere = place.replace("chunked", "elsewhere");
    assert_eq!(server.get(&elsewhere).error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
    let last = server.ask(
        "PUT",
        &format!("{place}?digest={wanted}"),
        &[("Content-Range", "1500000-1999999")],
        &bytes[1_500_000..],
    );
    assert_eq!(last.status, 201);
    assert!(server.get(&format!("/v2/chunked/blobs/{wanted}")).body == bytes);

    // sha512, an empty blob, a cancelled upload, wrong content.
    let sha512 = rrt_content::Hasher::digest_of("sha512", b"hello");
    assert_eq!(server.ask("POST", &format!("/v2/a/blobs/uploads/?digest={sha512}"), &[], b"hello").status, 201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{sha512}")).body, b"hello");
    server.push_blob("a", b"");
    let begun = server.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert_eq!(server.ask("DELETE", begun.header("location").unwrap(), &[], b"").status, 204);
    let lie = server.ask("POST", &format!("/v2/a/blobs/uploads/?digest={wanted}"), &[], b"something else");
    assert_eq!(lie.error(), error(400, "DIGEST_INVALID"));
    assert_eq!(server.get(&format!("/v2/a/blobs/{wanted}")).status, 404);
}

/// A connection that breaks in a chunk leaves what came; the client asks how much, and goes on.
#[test]
fn a_cut_upload_goes_on() {
    let (_scratch, server) = started();
    let bytes = vec![7; 3_000_000];
    let begun = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"");
    let place = begun.header("location").unwrap();
    let mut stream = server.connect();
    stream.write_all(head("PATCH", place, &[], bytes.len()).as_bytes()).unwrap();
    stream.write_all(&bytes[..1_234_567]).unwrap();
    drop(stream);
    let begin = Instant::now();
    let offset = loop {
        let status = server.get(place);
        // 409 while the cut request still has it.
        let offset: usize = status.header("range").map_or(0, |range| range[2..].parse::<usize>().unwrap() + 1);
        if offset > 1 {
            break offset;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{status:?}");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(offset, 1_234_567);
    let range = format!("{offset}-{}", bytes.len() - 1);
    assert_eq!(server.ask("PATCH", place, &[("Content-Range", &range)], &bytes[offset..]).status, 202);
    assert_eq!(server.ask("PUT", &format!("{place}?digest={}", digest(&bytes)), &[], b"").status, 201);
}

#[test]
fn a_part_of_a_blob_can_be_had() {
    let (_scratch, server) = started();
    let blob = format!("/v2/app/blobs/{}", server.push_blob("app", b"0123456789"));
    let part = |range: &str| server.ask("GET", &blob, &[("Range", range)], b"");
    let got = part("bytes=2-4");
    assert_eq!((got.status, got.header("content-range"), &got.body[..]), (206, Some("bytes 2-4/10"), &b"234"[..]));
    assert_eq!((part("bytes=7-").body, part("bytes=-2").body), (b"789".to_vec(), b"89".to_vec()));
    let beyond = part("bytes=10-");
    assert_eq!((beyond.error(), beyond.header("content-range")), (error(416, "RANGE_INVALID"), Some("bytes */10")));
    assert_eq!((part("bytes=0-1,3-4").status, part("lines=1-2").status), (200, 200));
    let head = server.ask("HEAD", &blob, &[], b"");
    assert_eq!(
        (head.status, head.header("content-length"), head.header("accept-ranges")),
        (200, Some("10"), Some("bytes"))
    );
}

#[test]
fn another_repositorys_blob_is_mounted() {
    let (_scratch, server) = started();
    let blob = server.push_blob("from/here", b"blob");
    let mount = |to: &str, from: &str| {
        server.ask("POST", &format!("/v2/{to}/blobs/uploads/?mount={blob}&from={from}"), &[], b"")
    };
    let mounted = mount("to", "from%2Fhere");
    assert_eq!((mounted.status, mounted.header("location")), (201, Some(format!("/v2/to/blobs/{blob}").as_str())));
    assert_eq!(server.get(&format!("/v2/to/blobs/{blob}")).body, b"blob");
    // One that has not got it, or none, begins an upload.
    assert_eq!((mount("x", "nosuch").status, mount("x", "BAD").status), (202, 202));
    assert_eq!(server.ask("POST", &format!("/v2/x/blobs/uploads/?mount={blob}"), &[], b"").status, 202);
    assert_eq!(server.get(&format!("/v2/x/blobs/{blob}")).status, 404);
}

#[test]
fn manifests_by_tag_and_digest() {
    let (_scratch, server) = started();
    let (wanted, bytes) = server.push_image("app", "1.0", b"layer");
    for reference in ["1.0", wanted.as_str()] {
        let path = format!("/v2/app/manifests/{reference}");
        let got = server.get(&path);
        assert!(got.body == bytes && got.header("content-type") == Some(OCI_MANIFEST));
        let head = server.ask("HEAD", &path, &[], b"");
        assert_eq!((head.status, head.header("docker-content-digest")), (200, Some(wanted.as_str())));
        assert_eq!(head.header("content-length"), Some(bytes.len().to_string().as_str()));
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{"mediaType": OCI_MANIFEST, "digest": wanted.as_str(), "size": bytes.len()}]});
    let index = index.to_string().into_bytes();
    assert_eq!(
        server.put_manifest("app", digest(&index).as_str(), &format!("{OCI_INDEX}; charset=utf-8"), &index).status,
        201
    );
    assert_eq!(server.get(&format!("/v2/app/manifests/{}", digest(&index))).header("content-type"), Some(OCI_INDEX));
    let put = |name: &str, reference: &str, kind: &str, bytes: &[u8]| {
        server.put_manifest(name, reference, kind, bytes).error()
    };
    assert_eq!(put("other", "x", OCI_MANIFEST, &bytes), error(404, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(put("other", "x", OCI_INDEX, &index), error(404, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(put("app", digest(b"x").as_str(), OCI_MANIFEST, &bytes), error(400, "DIGEST_INVALID"));
    assert_eq!(put("app", "x", OCI_INDEX, &bytes), error(400, "MANIFEST_INVALID"));
    assert_eq!(put("app", "x", "text/html", b"<html>"), error(400, "MANIFEST_INVALID"));
    assert_eq!(put("app", ".x", OCI_MANIFEST, &bytes), error(400, "TAG_INVALID"));
    let large = put("app", "x", OCI_MANIFEST, &vec![b' '; (4 << 20) + 1]);
    assert_eq!(large, error(413, "MANIFEST_INVALID"));
}

#[test]
fn lists_come_in_pages() {
    let (_scratch, server) = started();
    for tag in ["b", "a", "c", "B"] {
        server.push_image("app", tag, b"layer");
    }
    server.push_image("zoo/deep/er", "1", b"layer");
    server.push_blob("only/blobs", b"x");
    let list = |path: &str, key: &str| {
        let got = server.get(path);
        (got.json()[key].clone(), got.header("link").map(str::to_owned))
    };
    assert_eq!(list("/v2/app/tags/list", "tags"), (json!(["B", "a", "b", "c"]), None));
    let next = "</v2/app/tags/list?n=2&last=a>; rel=\"next\"".to_owned();
    assert_eq!(list("/v2/app/tags/list?n=2", "tags"), (json!(["B", "a"]), Some(next)));
    assert_eq!(list("/v2/app/tags/list?n=2&last=a", "tags"), (json!(["b", "c"]), None));
    assert_eq!(list("/v2/app/tags/list", "name").0, "app");
    assert_eq!(list("/v2/_catalog", "repositories").0, json!(["app", "zoo/deep/er"]));
    let (first, next) = list("/v2/_catalog?n=1", "repositories");
    assert_eq!((first, next.as_deref()), (json!(["app"]), Some("</v2/_catalog?n=1&last=app>; rel=\"next\"")));
}

#[test]
fn referrers_are_listed_by_their_type() {
    let (_scratch, server) = started();
    let (subject, bytes) = server.push_image("app", "1", b"layer");
    let about = json!({"mediaType": OCI_MANIFEST, "digest": subject.as_str(), "size": bytes.len()});
    let push = |more: Value| {
        let document = manifest(b"{}", b"signature", &more);
        server.push_blob("app", b"{}");
        server.push_blob("app", b"signature");
        let put = server.put_manifest("app", digest(&document).as_str(), OCI_MANIFEST, &document);
        assert_eq!((put.status, put.header("oci-subject")), (201, Some(subject.as_str())));
        digest(&document)
    };
    let signature =
        push(json!({"subject": about, "artifactType": "application/x.signature", "annotations": {"by": "me"}}));
    let plain = push(json!({"subject": about}));
    let list = |query: &str| server.get(&format!("/v2/app/referrers/{subject}{query}"));
    let all = list("");
    assert_eq!((all.header("content-type"), all.header("oci-filters-applied")), (Some(OCI_INDEX), None));
    let all = all.json()["manifests"].as_array().unwrap().clone();
    let one = |digest: &str| all.iter().find(|one| one["digest"] == digest).unwrap().clone();
    assert_eq!(
        (all.len(), one(plain.as_str())["artifactType"].as_str()),
        (2, Some("application/vnd.oci.image.config.v1+json"))
    );
    assert_eq!(
        (&one(signature.as_str())["annotations"]["by"], &one(signature.as_str())["mediaType"]),
        (&json!("me"), &json!(OCI_MANIFEST))
    );
    let filtered = list("?artifactType=application%2Fx.signature");
    assert_eq!(
        (filtered.json()["manifests"].as_array().unwrap().len(), filtered.header("oci-filters-applied")),
        (1, Some("artifactType"))
    );
    assert_eq!(server.ask("DELETE", &format!("/v2/app/manifests/{signature}"), &[], b"").status, 202);
    assert_eq!(list("").json()["manifests"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_deleted_is_gone_and_its_blobs_too() {
    let (scratch, server) = started();
    let (first, _) = server.push_image("app", "1", b"layer one");
    let (second, _) = server.push_image("app", "2", b"layer two");
    assert_eq!(server.ask("DELETE", "/v2/app/manifests/1", &[], b"").status, 202);
    assert_eq!(server.get("/v2/app/manifests/1").status, 404);
    assert_eq!(server.get(&format!("/v2/app/manifests/{first}")).status, 200, "only the tag went");
    assert_eq!(server.ask("DELETE", &format!("/v2/app/manifests/{second}"), &[], b"").status, 202);
    assert_eq!(server.get("/v2/app/tags/list").json()["tags"], json!([]));
    let layer = format!("/v2/app/blobs/{}", digest(b"layer two"));
    assert_eq!(server.get(&layer).status, 200, "a push may be under way");
    assert_eq!(server.ask("DELETE", &layer, &[], b"").status, 202);
    assert_eq!(server.get(&layer).status, 404);
    let store = Store::open(&scratch.0).unwrap();
    let begin = Instant::now();
    while store.has(&digest(b"layer two")) || store.has(&second) {
        assert!(begin.elapsed() < Duration::from_secs(30), "not collected");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(store.has(&digest(b"layer one")) && store.has(&first));

    // Once the grace of an hour is over, the blobs that no manifest has go by themselves.
    assert_eq!(server.ask("DELETE", &format!("/v2/app/manifests/{first}"), &[], b"").status, 202);
    let links = scratch.0.join("registry/app/_blobs");
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(4000);
    for link in fs::read_dir(&links).unwrap() {
        fs::File::options().write(true).open(link.unwrap().path()).unwrap().set_modified(long_ago).unwrap();
    }
    rrt_images::names::ImageStore::open(&store).unwrap().collect(Duration::ZERO).unwrap();
    assert_eq!((store.blobs().unwrap(), fs::read_dir(&links).unwrap().count()), (vec![], 0));
}

/// Images of `berth` in the same root are nobody's business here, and stay when the registry collects, as its blobs do when they collect.
#[test]
fn the_store_is_shared_and_shows_only_what_was_pushed() {
    let (scratch, server) = started();
    let store = Store::open(&scratch.0).unwrap();
    let lease = store.lease().unwrap();
    let private = store.put(&lease, b"private").unwrap();
    assert_eq!(server.get(&format!("/v2/app/blobs/{private}")).status, 404);
    server.push_image("app", "1", b"layer");
    drop(lease);
    rrt_images::names::ImageStore::open(&store).unwrap().collect(Duration::ZERO).unwrap();
    assert!(!store.has(&private) && store.has(&digest(b"layer")));
}

#[test]
fn only_users_may_and_a_mirror_only_reads() {
    let scratch = Scratch::new();
    let (root, users) = (scratch.0.join("root"), scratch.0.join("users"));
    let hash = bcrypt::hash("secret", 4).unwrap();
    fs::write(&users, format!("anna:{hash}\n")).unwrap();
    let server = Server::start(&root, &[("REGISTRY_HTPASSWD", users.to_str().unwrap())]);
    let anna = [("Authorization", "Basic YW5uYTpzZWNyZXQ=")];
    let refused = server.get("/v2/");
    assert_eq!(
        (refused.error(), refused.header("www-authenticate")),
        (error(401, "UNAUTHORIZED"), Some("Basic realm=\"berth registry\""))
    );
    assert_eq!(server.ask("GET", "/v2/", &[("Authorization", "Basic YW5uYTp3cm9uZw==")], b"").status, 401);
    assert_eq!(server.ask("POST", "/v2/app/blobs/uploads/", &[], b"").status, 401);
    assert_eq!(server.ask("GET", "/v2/", &anna, b"").status, 200);
    assert_eq!(server.ask("POST", &format!("/v2/app/blobs/uploads/?digest={}", digest(b"x")), &anna, b"x").status, 201);
    drop(server);
    let server = Server::start(&root, &[("REGISTRY_READ_ONLY", "1")]);
    assert_eq!(server.get(&format!("/v2/app/blobs/{}", digest(b"x"))).body, b"x");
    assert_eq!(server.ask("POST", "/v2/app/blobs/uploads/", &[], b"").error(), error(405, "UNSUPPORTED"));
    assert_eq!(
        server.ask("DELETE", &format!("/v2/app/blobs/{}", digest(b"x")), &[], b"").error(),
        error(405, "UNSUPPORTED")
    );
}

#[test]
fn a_signal_lets_requests_end_and_a_kill_loses_nothing_that_was_answered() {
    for name in ["TERM", "INT", "KILL"] {
        let scratch = Scratch::new();
        let server = Server::start(&scratch.0, &[]);
        let (wanted, bytes) = server.push_image("app", "1", b"layer");
        let body = vec![1; 100_000];
        let mut slow = server.connect();
        let path = format!("/v2/app/blobs/uploads/?digest={}", digest(&body));
        slow.write_all(head("POST", &path, &[], body.len()).as_bytes()).unwrap();
        slow.write_all(&body[..50_000]).unwrap();
        thread::sleep(Duration::from_millis(200));
        server.signal(name);
        thread::sleep(Duration::from_millis(200));
        if name == "KILL" {
            server.wait();
        } else {
            slow.write_all(&body[50_000..]).unwrap();
            assert_eq!(Answer::read(slow, "POST").status, 201, "{name}");
            assert!(server.wait().success(), "{name}");
        }
        let again = Server::start(&scratch.0, &[]);
        assert!(again.get(&format!("/v2/app/manifests/{wanted}")).body == bytes);
        assert_eq!(again.get(&format!("/v2/app/blobs/{}", digest(b"layer"))).body, b"layer");
        let begun = again.get(&format!("/v2/app/blobs/{}", digest(&body)));
        assert_eq!(begun.status, if name == "KILL" { 404 } else { 200 });
        // What the killed one had in work is swept.
        again.push_blob("app", b"more");
        assert_eq!(fs::read_dir(scratch.0.join("tmp")).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn a_full_disk_is_said_and_the_rest_still_served() {
    let scratch = Scratch::new();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(&scratch.0).status().unwrap();
    if !mounted.success() {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    }
    let server = Server::start(&scratch.0, &[]);
    let (wanted, _) = server.push_image("app", "1", b"layer");
    let large = vec![1; 4 << 20];
    let answer = server.ask("POST", &format!("/v2/app/blobs/uploads/?digest={}", digest(&large)), &[], &large);
    let text = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(answer.status == 507 && text.starts_with("no space left on device: "), "{answer:?}");
    assert_eq!(server.get(&format!("/v2/app/manifests/{wanted}")).status, 200);
    server.push_blob("app", &large[..1 << 20]);
    drop(server);
    assert!(Command::new("umount").arg(&scratch.0).status().unwrap().success());
}
