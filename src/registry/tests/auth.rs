//! Tokens, identity tokens, credential helpers.

mod common;

use common::registry::Registry;
use common::server::{Reply, Request, Server};
use common::tls::{certificates, connect_proxy};
use common::{Folder, blob, client, config, fetch, has, manifest, noise, reference};
use rrt_oci::image::media_type as kind;
use rrt_registry::{Client, Credential, CredentialFiles, Pushed, Stored, Unwatched};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

fn base64url(bytes: &[u8]) -> String {
    base64(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}

fn base64(bytes: &[u8]) -> String {
    run("base64", &["-w0"], Path::new("/"), bytes)
}

fn run(program: &str, arguments: &[&str], folder: &Path, input: &[u8]) -> String {
    String::from_utf8(run_bytes(program, arguments, folder, input)).unwrap()
}

fn run_bytes(program: &str, arguments: &[&str], folder: &Path, input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    output.stdout
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                rest = &rest[2..];
            }
            b => bytes.push(b),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// The members of a query or form by name.
fn members(text: &str, name: &str) -> Vec<String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(n, _)| *n == name)
        .map(|(_, v)| unescape(v))
        .collect()
}

/// A token server for docker-registry: `user` with `secret` or the refresh token `identity` may do all, anybody else pull `public`.
fn token_server(folder: PathBuf) -> Server {
    Server::new(move |request| {
        let query = match request.method.as_str() {
            "POST" => String::from_utf8(request.body.clone()).unwrap(),
            _ => request.path.split_once('?').map_or("", |(_, query)| query).to_owned(),
        };
        let user = match (request.method.as_str(), request.header("authorization")) {
            ("POST", _) if members(&query, "refresh_token") == ["identity"] => true,
            ("GET", Some(authorization)) if authorization == format!("Basic {}", base64(b"user:secret")) => true,
            ("GET", None) => false,
            _ => return Reply::json(401, r#"{"details":"incorrect username or password"}"#),
        };
        let access: Vec<serde_json::Value> = members(&query, "scope")
            .iter()
            .flat_map(|scope| scope.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|scope| {
                let parts: Vec<&str> = scope.split(':').collect();
                let actions: Vec<&str> = match (user, parts[1]) {
                    (true, _) => parts[2].split(',').collect(),
                    (false, "public") => vec!["pull"],
                    _ => return None,
                };
                Some(serde_json::json!({"type": parts[0], "name": parts[1], "actions": actions}))
            })
            .collect();
        let refresh = match members(&query, "offline_token").is_empty() {
            true => String::new(),
            false => r#","refresh_token":"identity""#.to_owned(),
        };
        let token = signed(&folder, &serde_json::Value::Array(access));
        Reply::json(200, &format!(r#"{{"token":"{token}","expires_in":300{refresh}}}"#))
    })
}

/// A JSON web token as Docker's registry wants it (RS256, with the certificate in its header).
fn signed(folder: &Path, access: &serde_json::Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let der = run_bytes("openssl", &["x509", "-in", "token.crt", "-outform", "DER"], folder, b"");
    let header = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [base64(&der)]});
    let claims = serde_json::json!({"iss": "test", "sub": "", "aud": "service of test", "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": format!("{now}"), "access": access});
    let text = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let signature = run_bytes("openssl", &["dgst", "-sha256", "-sign", "token.key"], folder, text.as_bytes());
    format!("{text}.{}", base64url(&signature))
}

/// Docker's registry with a token server; both, and the folder with the keys.
fn with_tokens() -> (Registry, Server, Folder) {
    let folder = Folder::new();
    let subject = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=token"];
    run("openssl", &[&subject[..], &["-keyout", "token.key", "-out", "token.crt"]].concat(), folder.path(), b"");
    let tokens = token_server(folder.path().to_owned());
    let more = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: service of test\n    issuer: test\n    rootcertbundle: {}\n",
        tokens.address,
        folder.join("token.crt").display()
    );
    (Registry::new("", &more), tokens, folder)
}

fn push(client: &Client, folder: &Folder, name: &str, bytes: &[u8], from: &[String]) -> Result<Pushed, String> {
    std::fs::write(folder.join("blob"), bytes).unwrap();
    let file = File::open(folder.join("blob")).unwrap();
    client.push_blob(&reference(name), &blob(bytes), &file, from, &Unwatched).map_err(|e| e.to_string())
}

#[test]
fn tokens_of_a_token_server() {
    if !has("docker-registry") || !has("openssl") {
        return;
    }
    let (registry, tokens, _keys) = with_tokens();
    let folder = Folder::new();
    let (public, private) = (format!("{}/public", registry.address), format!("{}/team/private", registry.address));
    let error = push(&client(&folder), &folder, &public, b"x", &[]).unwrap_err();
    assert!(error.contains("push access denied") && error.contains("berth login"), "{error}");
    let error = client(&folder).login(&registry.address, "user", "wrong").unwrap_err().to_string();
    assert!(error.contains("unauthorized: incorrect username or password"), "{error}");
    let logged_in = client(&folder).login(&registry.address, "user", "secret").unwrap();
    assert_eq!(logged_in.stored, Stored::File(folder.join("docker/config.json")));
    let written = std::fs::read_to_string(folder.join("docker/config.json")).unwrap();
    assert!(
        written.contains(r#""identitytoken": "identity""#) && !written.contains(&base64(b"user:secret")),
        "{written}"
    );
    // From here on with the identity token, by POST.
    let bytes = noise(100_000, 1);
    let client_in = client(&folder);
    for blob in [&bytes[..], b"{}"] {
        assert_eq!(push(&client_in, &folder, &public, blob, &[]), Ok(Pushed::Uploaded));
        assert_eq!(
            push(&client_in, &folder, &private, blob, &["public".to_owned()]),
            Ok(Pushed::Mounted("public".to_owned()))
        );
    }
    for name in [&public, &private] {
        client_in
            .push_manifest(&reference(format!("{name}:1")), kind::OCI_MANIFEST, &manifest(b"{}", &[&bytes]))
            .unwrap();
    }
    let posts = tokens.requests().iter().filter(|request| request.method == "POST").count();
    assert_eq!(posts, 3, "one token for each scope: public, private, and private with public");
    assert!(client(&folder).logout(&registry.address).unwrap());
    // Without a name: what is for everybody.
    assert_eq!(fetch(&client(&folder), &folder, &reference(format!("{public}:1")), &blob(&bytes)).unwrap(), bytes);
    let error = client(&folder).resolve(&reference(format!("{private}:1"))).unwrap_err().to_string();
    assert!(error.contains("pull access denied for") && error.contains("may require 'berth login'"), "{error}");
    // With name and password as the file has them, by GET.
    folder.write(
        "docker/config.json",
        &format!(r#"{{"auths":{{"{}":{{"auth":"{}"}}}}}}"#, registry.address, base64(b"user:secret")),
    );
    assert!(client(&folder).resolve(&reference(format!("{private}:1"))).is_ok());
    let last = tokens.requests().pop().unwrap();
    let scope = "scope=repository:team/private:pull";
    assert!(last.path.contains(scope) && last.path.contains("service=service%20of%20test"), "{}", last.path);
}

/// A registry whose tokens are good for a number of requests, and its token server.
fn forgetful(uses: u32, bytes: Vec<u8>) -> (Server, Arc<AtomicU32>) {
    let issued = Arc::new(AtomicU32::new(0));
    let count = issued.clone();
    let tokens = Server::new(move |_| {
        Reply::json(200, &format!(r#"{{"access_token":"t{}"}}"#, count.fetch_add(1, Ordering::SeqCst)))
    });
    let realm = tokens.address.clone();
    let used = AtomicU32::new(0);
    let (last, served) = (issued.clone(), bytes);
    let server = Server::new(move |request: &Request| {
        let _alive = &tokens;
        let good = format!("Bearer t{}", last.load(Ordering::SeqCst).wrapping_sub(1));
        if request.header("authorization") == Some(&good) && used.fetch_add(1, Ordering::SeqCst) % (uses + 1) < uses {
            return Reply::blob(request, &served).cut(100_000);
        }
        Reply::json(401, "{}")
            .header("WWW-Authenticate", format!(r#"Bearer realm="http://{realm}/t",service="s",error="invalid_token""#))
    });
    (server, issued)
}

#[test]
fn a_token_that_ends_in_the_middle_is_renewed() {
    let bytes = noise(1_000_000, 2);
    let (server, issued) = forgetful(3, bytes.clone());
    let folder = Folder::new();
    let name = reference(format!("{}/a", server.address));
    assert_eq!(fetch(&client(&folder), &folder, &name, &blob(&bytes)).unwrap(), bytes);
    // Ten pieces, three with each token.
    assert_eq!(issued.load(Ordering::SeqCst), 4);
}

#[test]
fn credentials_stay_away_from_a_token_server_without_tls() {
    if !has("docker-registry") || !has("openssl") {
        return;
    }
    let folder = Folder::new();
    certificates(folder.path());
    let at = folder.path().display();
    let more = |realm: &str| {
        format!(
            "auth:\n  token:\n    realm: {realm}\n    service: s\n    issuer: test\n    rootcertbundle: {at}/ca.crt\n"
        )
    };
    let tls = format!("  tls:\n    certificate: {at}/server.crt\n    key: {at}/server.key\n");
    let registry = Registry::new(&tls, &more("http://tokens.example/token"));
    let mut config = config(&folder);
    config.authorities = vec![folder.join("ca.crt")];
    config.proxies.https = Some(format!("http://{}", connect_proxy(registry.address.clone())));
    config.credential = Some(Credential::Basic { user: "u".to_owned(), password: "p".to_owned() });
    let name = reference("registry.example:5000/a:1");
    let error = Client::new(config.clone()).resolve(&name).unwrap_err().to_string();
    assert!(error.contains("http://tokens.example/token has no TLS; credentials are not sent there"), "{error}");
    // Loopback needs none, and who has no credentials shows none.
    let tokens = Server::new(|_| Reply::json(401, r#"{"details":"not you"}"#));
    let registry = Registry::new(&tls, &more(&format!("http://{}/token", tokens.address)));
    config.proxies.https = Some(format!("http://{}", connect_proxy(registry.address.clone())));
    let error = Client::new(config.clone()).resolve(&name).unwrap_err().to_string();
    assert!(error.contains("unauthorized: not you"), "{error}");
    assert_eq!(tokens.requests()[0].header("authorization"), Some("Basic dTpw"));
}

#[test]
fn token_servers_that_answer_nonsense() {
    for (reply, expected) in [
        (Reply::json(200, "{}"), "empty or has invalid characters"),
        (Reply::json(200, r#"{"token":"a\nb"}"#), "empty or has invalid characters"),
        (Reply::new(200, "<html>"), "HTML page"),
        (Reply::json(404, r#"{"message":"no such thing"}"#), "no such thing"),
    ] {
        let tokens = Server::new(move |_| reply.clone());
        let realm = format!(r#"Bearer realm="http://{}/t""#, tokens.address);
        let server = Server::new(move |_| Reply::json(401, "{}").header("WWW-Authenticate", &realm));
        let folder = Folder::new();
        let error = client(&folder).resolve(&reference(format!("{}/a:1", server.address))).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let server = Server::new(|_| Reply::json(401, "{}").header("WWW-Authenticate", r#"Bearer realm="ftp://x/""#));
    let folder = Folder::new();
    let error = client(&folder).resolve(&reference(format!("{}/a:1", server.address))).unwrap_err().to_string();
    assert!(error.contains("its token server") && error.contains("no http:// or https:// URL"), "{error}");
}

#[test]
fn podmans_file_counts_when_dockers_has_nothing() {
    let folder = Folder::new();
    let docker = folder.write("config.json", r#"{"auths":{"a.example":{"auth":"YTph"}}}"#);
    let podman =
        folder.write("auth.json", r#"{"auths":{"a.example":{"auth":"Yjpi"},"b.example/team":{"auth":"Yjpi"}}}"#);
    let files = CredentialFiles { docker: Some(docker), others: vec![podman, folder.join("none.json")] };
    let user = |registry: &str, repository: &str| match files.find(registry, repository).unwrap() {
        Some(Credential::Basic { user, .. }) => Some(user),
        _ => None,
    };
    assert_eq!(user("a.example", "x").as_deref(), Some("a"));
    assert_eq!(user("b.example", "team/x").as_deref(), Some("b"));
    assert_eq!(user("b.example", "x"), None);
}

/// A helper that keeps one secret in a file.
const HELPER: &str = r#"#!/bin/sh
here=$(dirname "$0")
case $1 in
store) cat >"$here/secret" ;;
get)
    read -r server || :
    echo "$server" >>"$here/asked"
    [ "$server" = broken.example ] && { echo "keyring is locked"; exit 1; }
    [ -e "$here/secret" ] || { echo "credentials not found in native keychain"; exit 1; }
    cat "$here/secret" ;;
erase) rm "$here/secret" ;;
esac
"#;

/// The second half of [`credential_helpers`]: with the helper in PATH, which only another process can have.
#[test]
#[ignore = "run by credential_helpers"]
fn with_a_helper_in_path() {
    let bin = PathBuf::from(std::env::var_os("HELPER_FOLDER").expect("run by credential_helpers"));
    let folder = Folder::new();
    let server = Server::new(|request| match request.header("authorization") {
        Some("Basic dTpzZWNyZXQ=") => Reply::new(200, manifest(b"{}", &[])).header("Content-Type", kind::OCI_MANIFEST),
        _ => Reply::json(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"who?"}]}"#)
            .header("WWW-Authenticate", "Basic realm=x"),
    });
    let name = reference(format!("{}/a:1", server.address));
    let settings =
        r#"{"credsStore":"test","credHelpers":{"broken.example":"test","own.example":"absent","evil.example":"../x"}}"#;
    let file = folder.write("docker/config.json", settings);
    assert!(client(&folder).resolve(&name).is_err());
    let stored = client(&folder).login(&server.address, "u", "secret").unwrap().stored;
    assert_eq!(stored, Stored::Helper("docker-credential-test".to_owned()));
    let kept = std::fs::read_to_string(bin.join("secret")).unwrap();
    assert_eq!(kept, format!(r#"{{"ServerURL":"{}","Username":"u","Secret":"secret"}}"#, server.address));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains(&server.address) && !written.contains("dTpzZWNyZXQ"), "{written}");
    client(&folder).resolve(&name).unwrap();
    let files = CredentialFiles { docker: Some(file), others: Vec::new() };
    assert!(files.find("docker.io", "library/a").unwrap().is_some());
    assert!(std::fs::read_to_string(bin.join("asked")).unwrap().ends_with("https://index.docker.io/v1/\n"));
    for (registry, why) in [
        ("broken.example", "docker-credential-test get: exit status: 1: keyring is locked"),
        ("own.example", "docker-credential-absent get: can't be run"),
        ("evil.example", "a helper's name has letters"),
    ] {
        let error = files.find(registry, "a").unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(client(&folder).logout(&server.address).unwrap());
    assert!(!bin.join("secret").exists());
    // A helper that fails is no reason not to try without; but it is told.
    std::fs::write(bin.join("docker-credential-test"), "#!/bin/sh\necho the keyring is locked; exit 1\n").unwrap();
    let error = client(&folder).resolve(&name).unwrap_err().to_string();
    assert!(error.contains("unauthorized: who?") && error.contains("the keyring is locked"), "{error}");
}

#[test]
fn credential_helpers() {
    let folder = Folder::new();
    let helper = folder.write("docker-credential-test", HELPER);
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "with_a_helper_in_path", "--ignored", "--nocapture"])
        .env("PATH", path)
        .env("HELPER_FOLDER", folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_login_cut_in_the_middle_leaves_the_old_file() {
    // The new file is made beside and renamed: a folder that can't be written to keeps what it has.
    let folder = Folder::new();
    let server = Server::new(|_| Reply::json(200, "{}"));
    let file = folder.write("docker/config.json", "{\"auths\": broken");
    let error = client(&folder).login(&server.address, "u", "p").unwrap_err().to_string();
    assert!(error.contains("config.json: is no JSON object"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"auths\": broken");
    std::fs::remove_file(&file).unwrap();
    // As with dot files kept elsewhere, a link stays one.
    let real = folder.write("elsewhere/config.json", "{}");
    std::os::unix::fs::symlink(&real, &file).unwrap();
    client(&folder).login(&server.address, "u", "p").unwrap();
    assert!(std::fs::symlink_metadata(&file).unwrap().is_symlink());
    assert!(std::fs::read_to_string(&real).unwrap().contains(&server.address));
    assert_eq!(std::fs::read_dir(folder.join("elsewhere")).unwrap().count(), 1);
}
