//! One HTTP request and its answer: no redirects, no credentials, no second attempt.

use crate::error::{Error, Result};
use crate::proxy::Proxies;
use crate::settings::Config;
use crate::tls::{Tls, Trust};
use crate::url::{Url, is_loopback, shorten, shown};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use ureq::http::{HeaderMap, Method, Request};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};
use ureq::{Agent, SendBody};

/// The longest answer that says why something failed, bytes.
const MAX_COMPLAINT: u64 = 64 << 10;

/// What a request carries.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// No body at all.
    None,
    /// A small body; an empty one has a length of 0.
    Bytes(&'a [u8]),
    /// A part of a file; `sent` is told how many bytes went out.
    Part { file: &'a File, from: u64, length: u64, sent: &'a (dyn Fn(u64) + Sync) },
}

/// Reads a part of a file without its position, which other threads may use.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
    sent: &'a (dyn Fn(u64) + Sync),
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"));
        }
        self.at += read as u64;
        self.left -= read as u64;
        (self.sent)(read as u64);
        Ok(read)
    }
}

/// Headers of a request.
pub(crate) type Headers = Vec<(&'static str, String)>;

/// https or not, the registry, the proxy: what connections can be shared by.
type Pool = (bool, String, Option<String>);

/// Connections: one pool for each kind of them.
pub(crate) struct Http {
    agents: Mutex<HashMap<Pool, Agent>>,
    trust: Trust,
}

impl Http {
    pub fn new() -> Http {
        Http { agents: Mutex::default(), trust: Trust::default() }
    }

    fn agent(&self, config: &Config, url: &Url) -> Result<Agent> {
        let proxy = config.proxies.of(url);
        // Certificates may differ by registry; without TLS all connections are alike.
        let authority = if url.https { url.authority.clone() } else { String::new() };
        let key = (url.https, authority, proxy.map(str::to_owned));
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let settings = ureq::config::Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(proxy.map(Proxies::build).transpose()?)
            .user_agent(&config.user_agent)
            .accept("*/*")
            .accept_encoding("identity")
            .timeout_resolve(Some(config.timeout))
            .timeout_connect(Some(connect_timeout(config, url)))
            .timeout_recv_response(Some(config.timeout * 5))
            .timeout_per_read(Some(config.timeout))
            .timeout_per_write(Some(config.timeout))
            .max_idle_connections_per_host(8)
            .build();
        let verify = !config.is_insecure(&url.authority);
        let chain = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
        let chain = chain.chain(Tls(self.trust.of(config, &url.authority, verify)?));
        let agent = Agent::with_parts(settings, chain, DefaultResolver::default());
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    /// Sends and waits for the answer's headers.
    pub fn exchange(
        &self,
        config: &Config,
        method: &Method,
        url: &Url,
        headers: &Headers,
        payload: Payload<'_>,
    ) -> Result<Response> {
        let agent = self.agent(config, url)?;
        let invalid = |e: ureq::http::Error| Error::Invalid(format!("{method} {}: {e}", shown(url)));
        let mut request = Request::builder().method(method).uri(url.to_string());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = match payload {
            Payload::None => agent.run(request.body(()).map_err(invalid)?),
            Payload::Bytes(bytes) => agent.run(request.body(bytes).map_err(invalid)?),
            Payload::Part { file, from, length, sent } => {
                let mut part = Part { file, at: from, left: length, sent };
                let request = request.header("content-length", length.to_string());
                agent.run(request.body(SendBody::from_reader(&mut part)).map_err(invalid)?)
            }
        };
        let answer = answer.map_err(|e| unreachable_error(method, url, &e, config))?;
        let (parts, body) = answer.into_parts();
        Ok(Response {
            method: method.to_string(),
            url: url.clone(),
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }
}

/// A TLS handshake with what turns out to speak plain HTTP must not take long where that is likely.
fn connect_timeout(config: &Config, url: &Url) -> Duration {
    match url.https && config.is_insecure(&url.authority) {
        true => config.timeout.min(Duration::from_secs(10)),
        false => config.timeout.min(Duration::from_secs(30)),
    }
}

/// Why there is no answer, with what to do where we know.
fn unreachable_error(method: &Method, url: &Url, error: &ureq::Error, config: &Config) -> Error {
    let mut refused = false;
    let why = match error {
        ureq::Error::HostNotFound => {
            refused = true;
            format!("no such host {:?}: check the registry's name", url.host())
        }
        ureq::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            refused = true;
            match url.https && !is_loopback(url.host()) {
                true => "connection refused: is the registry running, and on this port?".to_owned(),
                false => "connection refused: is the registry running?".to_owned(),
            }
        }
        ureq::Error::Timeout(timeout) => format!("timeout ({timeout}) after {} s", config.timeout.as_secs()),
        ureq::Error::Io(e) => match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => tls_trouble(url, tls),
            None => e.to_string(),
        },
        ureq::Error::Rustls(tls) => tls_trouble(url, tls),
        other => other.to_string(),
    };
    Error::Connect { method: method.to_string(), url: shown(url), why: shorten(&why), refused }
}

fn tls_trouble(url: &Url, error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => format!(
            "http: server gave HTTP response to HTTPS client: add {:?} to \"insecure-registries\" in {}, if it is meant to have no TLS",
            url.authority,
            crate::settings::SETTINGS
        ),
        rustls::Error::InvalidCertificate(why) => format!(
            "tls: failed to verify certificate: {why}: put the authority's certificate as *.crt into /etc/berth/certs.d/{}/",
            url.authority
        ),
        other => format!("tls: {other}"),
    }
}

/// An answer; its body is not read yet.
pub(crate) struct Response {
    method: String,
    pub url: Url,
    pub status: u16,
    pub headers: HeaderMap,
    body: ureq::Body,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn header_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub fn success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The media type without parameters, in lower case.
    pub fn media_type(&self) -> String {
        let text = self.header("content-type").unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    pub fn reader(self) -> ureq::BodyReader<'static> {
        self.body.into_reader()
    }

    /// The whole body, which may have `limit` bytes.
    pub fn bytes(&mut self, limit: u64) -> Result<Vec<u8>> {
        let url = shown(&self.url);
        let method = self.method.clone();
        let mut bytes = Vec::new();
        let read = self.body.as_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::Connect { method, url: url.clone(), why: shorten(&e.to_string()), refused: false })?;
        match bytes.len() as u64 > limit {
            true => {
                Err(Error::Answer { url, why: format!("the answer has more than {limit} bytes, which is refused") })
            }
            false => Ok(bytes),
        }
    }

    /// A body that is JSON; `what` is what it should be.
    pub fn json<T: serde::de::DeserializeOwned>(&mut self, limit: u64, what: &str) -> Result<T> {
        let bytes = self.bytes(limit)?;
        serde_json::from_slice(&bytes).map_err(|e| match self.looks_like_html(&bytes) {
            true => self.html(),
            false => Error::Answer { url: shown(&self.url), why: format!("the answer is not {what}: {e}") },
        })
    }

    pub fn looks_like_html(&self, bytes: &[u8]) -> bool {
        self.media_type() == "text/html" || bytes.trim_ascii_start().first() == Some(&b'<')
    }

    pub fn html(&self) -> Error {
        let why = format!(
            "the answer (status {}) is an HTML page, not that of a registry: is {} a registry, or does a proxy or a login page stand \
             before it?",
            self.status, self.url.authority
        );
        Error::Answer { url: shown(&self.url), why }
    }

    /// What a failed request's answer says, on one line.
    pub fn complaint(&mut self) -> String {
        let mut bytes = Vec::new();
        // What is cut or too long is still better than nothing.
        let _ = self.body.as_reader().take(MAX_COMPLAINT).read_to_end(&mut bytes);
        if let Some(text) = serde_json::from_slice(&bytes).ok().and_then(|value| complaint(&value)) {
            return shorten(&text);
        }
        if self.looks_like_html(&bytes) {
            return format!("status {} with an HTML page, not a registry's answer", self.status);
        }
        let text = shorten(&String::from_utf8_lossy(&bytes));
        match text.is_empty() {
            true => reason(self.status),
            false => text,
        }
    }

    /// The error for a status that has no meaning of its own where it came.
    pub fn unexpected(&mut self) -> Error {
        let detail = self.complaint();
        let url = shown(&self.url);
        match self.status {
            429 => Error::RateLimited {
                registry: self.url.authority.clone(),
                detail,
                limit: self.rate_limit(),
                retry_after: self.retry_after(),
            },
            300..400 => {
                Error::Answer { url, why: format!("a redirection (status {}) that leads nowhere", self.status) }
            }
            status => Error::Status { method: self.method.clone(), url, status, detail },
        }
    }

    /// `100;w=21600, 0 left`
    fn rate_limit(&self) -> Option<String> {
        let limit = shorten(self.header("ratelimit-limit")?);
        Some(match self.header("ratelimit-remaining") {
            Some(left) => format!("{limit}, {} left", shorten(left.split(';').next().unwrap_or_default())),
            None => limit,
        })
    }

    /// Seconds or a date.
    fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?;
        if let Ok(seconds) = text.trim().parse() {
            return Some(Duration::from_secs(seconds));
        }
        let then = Duration::from_secs(crate::date::of_http(text)?);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(then.saturating_sub(now))
    }
}

/// The distribution API's errors, or what token servers and proxies write in their place.
fn complaint(value: &Value) -> Option<String> {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    if let Some(errors) = value.get("errors").and_then(Value::as_array) {
        let lines = errors.iter().take(3).filter_map(|error| {
            let code = text(error, "code").map(|code| code.to_ascii_lowercase().replace('_', " "));
            match (code, text(error, "message").filter(|message| !message.is_empty())) {
                (Some(code), Some(message)) => Some(format!("{code}: {message}")),
                (code, message) => code.or(message),
            }
        });
        let lines: Vec<String> = lines.collect();
        return (!lines.is_empty()).then(|| lines.join("; "));
    }
    ["error_description", "details", "message", "error"].iter().find_map(|name| text(value, name))
}

fn reason(status: u16) -> String {
    let known = ureq::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    known.map_or_else(|| format!("status {status}"), |reason| format!("{status} {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_registries_and_others() {
        for (json, expected) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                "manifest unknown: manifest unknown",
            ),
            (r#"{"errors":[{"code":"DENIED"},{"message":"b"}]}"#, "denied; b"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (r#"{"error":"invalid_grant","error_description":"expired"}"#, "expired"),
        ] {
            assert_eq!(complaint(&serde_json::from_str(json).unwrap()).as_deref(), Some(expected));
        }
        assert_eq!(complaint(&serde_json::from_str(r#"{"errors":[]}"#).unwrap()), None);
        assert_eq!(complaint(&serde_json::from_str("[1]").unwrap()), None);
    }
}
