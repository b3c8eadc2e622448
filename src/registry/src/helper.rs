//! Credential helpers: programs named `docker-credential-NAME` that keep secrets (github.com/docker/docker-credential-helpers, README).

use crate::error::{Error, Result};
use crate::url::shorten;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// More than any secret has, bytes.
const MAX_ANSWER: u64 = 1 << 20;

#[derive(Deserialize)]
pub(crate) struct Secret {
    #[serde(rename = "Username", default)]
    pub username: String,
    #[serde(rename = "Secret", default)]
    pub secret: String,
}

#[derive(Serialize)]
struct Store<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    #[serde(rename = "Username")]
    username: &'a str,
    #[serde(rename = "Secret")]
    secret: &'a str,
}

/// `None` when the helper has nothing for the server.
pub(crate) fn get(name: &str, server: &str) -> Result<Option<Secret>> {
    let Some(answer) = run(name, "get", server.as_bytes())? else { return Ok(None) };
    let secret: Secret = serde_json::from_slice(&answer)
        .map_err(|e| failed(name, "get", &format!("its answer is not the JSON of a credential: {e}")))?;
    Ok(Some(secret).filter(|secret| !secret.secret.is_empty()))
}

pub(crate) fn store(name: &str, server: &str, secret: &Secret) -> Result<()> {
    let input = Store { server, username: &secret.username, secret: &secret.secret };
    let input = serde_json::to_vec(&input).map_err(|e| failed(name, "store", &e.to_string()))?;
    run(name, "store", &input).map(|_| ())
}

/// Says whether there was something to erase, as far as the helper tells.
pub(crate) fn erase(name: &str, server: &str) -> Result<bool> {
    Ok(run(name, "erase", server.as_bytes())?.is_some())
}

fn failed(name: &str, verb: &'static str, why: &str) -> Error {
    Error::Helper { program: format!("docker-credential-{name}"), verb, why: shorten(why) }
}

/// Runs a helper; `None` when it says that it has no such credentials.
fn run(name: &str, verb: &'static str, input: &[u8]) -> Result<Option<Vec<u8>>> {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(failed(name, verb, "a helper's name has letters, digits and ._- only"));
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|e| failed(name, verb, &format!("can't be run: {e}; install it, or change config.json")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input says by its status what is wrong.
        let _ = stdin.write_all(input);
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(MAX_ANSWER)
            .read_to_end(&mut answer)
            .map_err(|e| failed(name, verb, &format!("can't read its answer: {e}")))?;
    }
    let status = child.wait().map_err(|e| failed(name, verb, &e.to_string()))?;
    if status.success() {
        return Ok(Some(answer));
    }
    let text = String::from_utf8_lossy(&answer);
    match text.contains("credentials not found") {
        true => Ok(None),
        false => Err(failed(name, verb, &format!("{status}: {text}"))),
    }
}
