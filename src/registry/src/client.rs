//! The client: where a registry is, credentials, redirects, second attempts.

use crate::auth::{Ask, Auth};
use crate::challenge;
use crate::credentials::Credential;
use crate::error::{Error, Result};
use crate::http::{Headers, Http, Payload, Response};
use crate::settings::Config;
use crate::url::{Url, is_loopback};
use rrt_oci::image::Reference;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use ureq::http::Method;

/// docker.io's API has another name.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// More redirections in a row lead nowhere.
const MAX_HOPS: usize = 10;
/// A registry that wants a longer pause than this gets no second attempt.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// A client of registries. Cheap to clone; used from several threads at once.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    http: Http,
    auth: Auth,
    /// Does the registry of this name speak TLS? Known once somebody has asked.
    schemes: Mutex<HashMap<String, bool>>,
    credentials: Mutex<HashMap<(String, String), Found>>,
    /// Mirrors that are not asked again.
    down: Mutex<Vec<String>>,
}

#[derive(Clone, Default)]
struct Found {
    credential: Option<Credential>,
    /// Why there is none, when files or helpers fail.
    trouble: Option<String>,
}

/// One place that has a registry's content: itself, or a mirror.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub url: Url,
    /// Put before the repository's name.
    prefix: String,
    /// The name that credentials are kept under.
    name: String,
    pub mirror: bool,
}

impl Endpoint {
    /// `/v2/REPOSITORY/REST`
    pub fn api(&self, repository: &str, rest: &str) -> Url {
        Url::new(self.url.https, &self.url.authority, &format!("/v2/{}{repository}/{rest}", self.prefix))
    }

    /// `repository:NAME:ACTIONS`
    pub fn scope(&self, repository: &str, actions: &str) -> String {
        format!("repository:{}{repository}:{actions}", self.prefix)
    }
}

/// One request to a registry, with what is needed to repeat it.
pub(crate) struct Ready<'a> {
    pub endpoint: &'a Endpoint,
    pub repository: &'a str,
    /// What a token must allow.
    pub scope: &'a str,
    pub method: Method,
    pub url: Url,
    pub headers: Headers,
    pub payload: Payload<'a>,
}

impl Client {
    /// Nothing is asked yet.
    pub fn new(config: Config) -> Client {
        let inner = Inner {
            config,
            http: Http::new(),
            auth: Auth::default(),
            schemes: Mutex::default(),
            credentials: Mutex::default(),
            down: Mutex::default(),
        };
        Client { inner: Arc::new(inner) }
    }

    /// What it was made from.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn http(&self) -> &Http {
        &self.inner.http
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.inner.auth
    }

    /// The registry itself.
    pub(crate) fn origin(&self, registry: &str) -> Result<Endpoint> {
        let authority = if registry == "docker.io" { DOCKER_HUB_HOST } else { registry };
        let https = self.speaks_tls(authority)?;
        let url = Url::new(https, &authority.to_ascii_lowercase(), "/");
        Ok(Endpoint { url, prefix: String::new(), name: registry.to_owned(), mirror: false })
    }

    pub(crate) fn mirrors(&self, registry: &str) -> Vec<Endpoint> {
        let down = self.inner.down.lock().unwrap_or_else(PoisonError::into_inner);
        let urls = self.inner.config.settings.mirrors_of(registry).filter_map(|url| Url::parse(url).ok());
        let endpoint = |url: Url| {
            let path = url.path.trim_matches('/');
            let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
            let name = url.authority.clone();
            Endpoint { url: Url::new(url.https, &url.authority, "/"), prefix, name, mirror: true }
        };
        urls.map(endpoint).filter(|endpoint| !down.contains(&endpoint.url.authority)).collect()
    }

    /// This client does not ask a mirror (`host:port`) again: it gave no answer, or a wrong one.
    pub fn distrust(&self, mirror: &str) {
        self.inner.down.lock().unwrap_or_else(PoisonError::into_inner).push(mirror.to_owned());
    }

    /// Tries the mirrors in order, then the registry. A mirror's failure counts only when all fail.
    pub(crate) fn anywhere<T>(&self, registry: &str, attempt: impl Fn(&Endpoint) -> Result<T>) -> Result<T> {
        let mut failures = Vec::new();
        for mirror in self.mirrors(registry) {
            match self.retry(&mut |_, _| Ok(()), || attempt(&mirror)) {
                Ok(found) => return Ok(found),
                Err(e) => {
                    if matches!(e, Error::Connect { .. }) {
                        self.distrust(&mirror.url.authority);
                    }
                    failures.push(format!("mirror {}: {e}", mirror.url.authority));
                }
            }
        }
        let own = self.retry(&mut |_, _| Ok(()), || attempt(&self.origin(registry)?));
        own.map_err(|e| match (e, failures.is_empty()) {
            (Error::Connect { method, url, why, refused }, false) => {
                Error::Connect { method, url, why: format!("{why} ({})", failures.join("; ")), refused }
            }
            (e, _) => e,
        })
    }

    /// Repeats what may work a moment later. `before` hears of each pause, and may end the whole.
    pub(crate) fn retry<T>(
        &self,
        before: &mut dyn FnMut(Duration, &Error) -> Result<()>,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let mut done = 1;
        loop {
            let error = match attempt() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match self.pause(&error, done) {
                Some(pause) => {
                    before(pause, &error)?;
                    thread::sleep(pause);
                }
                None => return Err(error),
            }
            done += 1;
        }
    }

    /// How long to wait after the attempt number `done` that failed so; `None`: another makes no sense.
    pub(crate) fn pause(&self, error: &Error, done: u32) -> Option<Duration> {
        let config = &self.inner.config;
        let most = match error {
            // Nobody listens: that is seldom over in a second.
            Error::Connect { refused: true, .. } => config.attempts().min(2),
            _ => config.attempts(),
        };
        if !error.passes() || done >= most {
            return None;
        }
        let wait = config.backoff.saturating_mul(1 << (done - 1).min(6)).min(MAX_PAUSE / 2);
        // Between half and all of it, so that many who failed at once don't come again at once.
        let random = RandomState::new().build_hasher().finish() % 1000;
        let wait = wait / 2 + wait.mul_f64(random as f64 / 2000.0);
        match error {
            Error::RateLimited { retry_after: Some(after), .. } if *after > MAX_PAUSE => None,
            Error::RateLimited { retry_after: Some(after), .. } => Some(wait.max(*after)),
            _ => Some(wait),
        }
    }

    /// https or http? Only a registry that may be insecure is asked: loopback by http first, another by https first.
    fn speaks_tls(&self, authority: &str) -> Result<bool> {
        if !self.inner.config.is_insecure(authority) {
            return Ok(true);
        }
        let known = |schemes: &Mutex<HashMap<String, bool>>| {
            schemes.lock().unwrap_or_else(PoisonError::into_inner).get(authority).copied()
        };
        if let Some(https) = known(&self.inner.schemes) {
            return Ok(https);
        }
        let first = !is_loopback(crate::url::host_of(authority));
        let ping = |https: bool| -> Result<bool> {
            let url = Url::new(https, authority, "/v2/");
            let answer = self.http().exchange(self.config(), &Method::GET, &url, &Headers::new(), Payload::None)?;
            // What a server of TLS says to plain HTTP is 400.
            let right = https || answer.status != 400;
            if right && answer.status == 401 {
                self.learn(&answer);
            }
            Ok(right)
        };
        let https = match ping(first) {
            Ok(true) => first,
            Ok(false) => ping(!first).map_or(first, |_| !first),
            Err(e @ Error::Connect { refused: true, .. }) => return Err(e),
            Err(e) => match ping(!first) {
                Ok(_) => !first,
                Err(_) => return Err(e),
            },
        };
        self.inner.schemes.lock().unwrap_or_else(PoisonError::into_inner).insert(authority.to_owned(), https);
        Ok(https)
    }

    /// Keeps how the registry wants to be asked; says whether that is known now.
    fn learn(&self, answer: &Response) -> bool {
        match challenge::parse(answer.header_all("www-authenticate")) {
            Some(challenge) => {
                self.auth().learn(&answer.url, challenge);
                true
            }
            None => false,
        }
    }

    fn credential(&self, endpoint: &Endpoint, repository: &str) -> Found {
        if let Some(given) = self.config().credential.as_ref().filter(|_| !endpoint.mirror) {
            return Found { credential: Some(given.clone()), trouble: None };
        }
        let key = (endpoint.name.clone(), repository.to_owned());
        // Held while a helper runs, which may ask a person: once is enough.
        let mut known = self.inner.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        let found =
            known.entry(key).or_insert_with(|| match self.config().credentials.find(&endpoint.name, repository) {
                Ok(credential) => Found { credential, trouble: None },
                Err(e) => Found { credential: None, trouble: Some(e.to_string()) },
            });
        found.clone()
    }

    /// Why credentials could not be read, for an error that comes of it.
    pub(crate) fn trouble(&self, endpoint: &Endpoint, repository: &str) -> String {
        let trouble = self.credential(endpoint, repository).trouble;
        trouble.map(|trouble| format!("; credentials can't be read: {trouble}")).unwrap_or_default()
    }

    /// Sends a request with its credentials, follows redirections, and answers one challenge. Credentials go to the endpoint's
    /// own origin only.
    pub(crate) fn send(&self, ready: &Ready<'_>) -> Result<Response> {
        let credential = self.credential(ready.endpoint, ready.repository).credential;
        let ask = Ask {
            http: self.http(),
            config: self.config(),
            credential: credential.as_ref(),
            registry: &ready.endpoint.url,
        };
        let mut answered = false;
        loop {
            let answer = self.follow(ready, &ask)?;
            let own = answer.url.same_origin(&ready.endpoint.url);
            if answer.status != 401 || !own || answered || !self.learn(&answer) {
                return Ok(answer);
            }
            answered = true;
            self.auth().forget(&ready.endpoint.url, ready.scope);
        }
    }

    fn follow(&self, ready: &Ready<'_>, ask: &Ask<'_>) -> Result<Response> {
        let mut url = ready.url.clone();
        for _ in 0..MAX_HOPS {
            let mut headers = ready.headers.clone();
            if url.same_origin(&ready.endpoint.url) {
                headers.extend(self.auth().header(ask, ready.scope)?.map(|value| ("authorization", value)));
            }
            let answer = self.http().exchange(self.config(), &ready.method, &url, &headers, ready.payload)?;
            let read = ready.method == Method::GET || ready.method == Method::HEAD;
            let follows = matches!(answer.status, 307 | 308) || (read && matches!(answer.status, 301..=303));
            let Some(location) = answer.header("location").filter(|_| follows) else { return Ok(answer) };
            url = url.join(location).map_err(|why| Error::Answer {
                url: crate::url::shown(&url),
                why: format!("a redirection to {why}"),
            })?;
        }
        Err(Error::Answer { url: crate::url::shown(&url), why: format!("more than {MAX_HOPS} redirections") })
    }

    /// The error for an answer of 401, 403 or 404 to a pull; any other by its status.
    pub(crate) fn pull_error(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        what: &str,
        mut answer: Response,
    ) -> Error {
        match answer.status {
            404 => Error::NotFound { what: what.to_owned(), detail: answer.complaint() },
            401 | 403 => {
                let trouble = self.trouble(endpoint, reference.repository());
                let detail = format!("{}{trouble}", answer.complaint());
                Error::PullDenied { name: reference.familiar_name(), detail }
            }
            _ => answer.unexpected(),
        }
    }
}
