//! Tokens: the Docker registry's token protocol (distribution, spec/auth/token.md and oauth.md).

use crate::base64;
use crate::challenge::Challenge;
use crate::credentials::Credential;
use crate::error::{Error, Result};
use crate::http::{Headers, Http, Payload, Response};
use crate::settings::Config;
use crate::url::{Url, escape, is_loopback, shown};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::Method;

/// The longest answer of a token server, bytes.
const MAX_TOKEN: u64 = 1 << 20;
/// What the token protocol says where a server gives no lifetime.
const LIFETIME: Duration = Duration::from_secs(60);

/// Tokens that are still good, and how each registry wants to be asked.
#[derive(Default)]
pub(crate) struct Auth {
    challenges: Mutex<HashMap<String, Challenge>>,
    tokens: Mutex<HashMap<(String, String), Token>>,
}

#[derive(Clone)]
struct Token {
    value: String,
    until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
    refresh_token: Option<String>,
}

/// What a token is asked for with.
pub(crate) struct Ask<'a> {
    pub http: &'a Http,
    pub config: &'a Config,
    pub credential: Option<&'a Credential>,
    /// The registry's own URL.
    pub registry: &'a Url,
}

impl Auth {
    fn origin(url: &Url) -> String {
        Url::new(url.https, &url.authority, "").to_string()
    }

    pub fn challenge(&self, registry: &Url) -> Option<Challenge> {
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner).get(&Auth::origin(registry)).cloned()
    }

    pub fn learn(&self, registry: &Url, challenge: Challenge) {
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner).insert(Auth::origin(registry), challenge);
    }

    /// A token that was refused is not shown again.
    pub fn forget(&self, registry: &Url, scope: &str) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(&(Auth::origin(registry), scope.to_owned()));
    }

    /// The value of `Authorization` for a request that needs `scope`; `None` where nothing is known to be asked for.
    pub fn header(&self, ask: &Ask<'_>, scope: &str) -> Result<Option<String>> {
        if let Some(Credential::Registry(token)) = ask.credential {
            return Ok(Some(format!("Bearer {}", usable(token, ask.registry)?)));
        }
        let (realm, service) = match self.challenge(ask.registry) {
            None => return Ok(None),
            Some(Challenge::Basic) => {
                return match ask.credential {
                    Some(Credential::Basic { user, password }) => Ok(Some(basic(user, password))),
                    _ => Ok(None),
                };
            }
            Some(Challenge::Bearer { realm, service, .. }) => (realm, service),
        };
        // Held while asking, so that threads that need the same token ask for it once.
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Auth::origin(ask.registry), scope.to_owned());
        if let Some(token) = tokens.get(&key).filter(|token| token.until > Instant::now()) {
            return Ok(Some(format!("Bearer {}", token.value)));
        }
        let answer = request(ask, &realm, service.as_deref().unwrap_or_default(), scope, false)?;
        let (token, _) = token_of(answer, ask.registry)?;
        let header = format!("Bearer {}", token.value);
        tokens.insert(key, token);
        Ok(Some(header))
    }

    /// A token for `login`, and the identity token that the server offers in place of the password.
    pub fn log_in(&self, ask: &Ask<'_>, realm: &str, service: &str) -> Result<(String, Option<String>)> {
        let (token, identity) = token_of(request(ask, realm, service, "", true)?, ask.registry)?;
        Ok((format!("Bearer {}", token.value), identity))
    }
}

/// The value of `Authorization` for a name and a password.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::encode(format!("{user}:{password}").as_bytes()))
}

/// A token comes from outside and becomes a header.
fn usable<'a>(token: &'a str, registry: &Url) -> Result<&'a str> {
    match token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        true => Err(Error::Answer {
            url: shown(registry),
            why: "the token for it is empty or has invalid characters".to_owned(),
        }),
        false => Ok(token),
    }
}

fn token_of(answer: TokenAnswer, registry: &Url) -> Result<(Token, Option<String>)> {
    let value = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).unwrap_or_default();
    let value = usable(&value, registry)?.to_owned();
    let seconds = answer.expires_in.filter(|s| s.is_finite() && *s > 0.0).map(|s| s.min(86_400.0));
    let lifetime = seconds.map_or(LIFETIME, Duration::from_secs_f64);
    // A tenth less, for the way and for clocks.
    let token = Token { value, until: Instant::now() + lifetime - lifetime / 10 };
    Ok((token, answer.refresh_token.filter(|t| !t.is_empty())))
}

/// Asks the token server: with an identity token by POST, else by GET, which old servers know, too.
fn request(ask: &Ask<'_>, realm: &str, service: &str, scope: &str, offline: bool) -> Result<TokenAnswer> {
    let url = ask
        .registry
        .join(realm)
        .map_err(|why| Error::Answer { url: shown(ask.registry), why: format!("its token server {why}") })?;
    let secret = ask.credential.is_some();
    if secret && ask.registry.https && !url.https && !is_loopback(url.host()) {
        let why = format!("its token server {} has no TLS; credentials are not sent there", shown(&url));
        return Err(Error::Answer { url: shown(ask.registry), why });
    }
    let mut answer = match ask.credential {
        Some(Credential::Identity(token)) => {
            let members = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
            post(ask, &url, service, scope, &members)?
        }
        Some(Credential::Basic { user, password }) => {
            let mut answer = get(ask, &url, service, scope, Some((user.as_str(), password.as_str())), offline)?;
            if matches!(answer.status, 404 | 405) {
                let offline = if offline { "offline" } else { "online" };
                let members = [
                    ("grant_type", "password"),
                    ("username", user.as_str()),
                    ("password", password.as_str()),
                    ("access_type", offline),
                ];
                answer = post(ask, &url, service, scope, &members)?;
            }
            answer
        }
        _ => get(ask, &url, service, scope, None, offline)?,
    };
    match answer.status {
        200..300 => answer.json(MAX_TOKEN, "the JSON of a token server"),
        401 | 403 => Err(Error::Unauthorized { url: shown(&url), detail: answer.complaint() }),
        400 if secret => Err(Error::Unauthorized { url: shown(&url), detail: answer.complaint() }),
        _ => Err(answer.unexpected()),
    }
}

fn get(
    ask: &Ask<'_>,
    url: &Url,
    service: &str,
    scope: &str,
    basic_of: Option<(&str, &str)>,
    offline: bool,
) -> Result<Response> {
    let mut url = url.clone();
    if !service.is_empty() {
        url = url.with_query("service", service);
    }
    for scope in scope.split(' ').filter(|scope| !scope.is_empty()) {
        url = url.with_query("scope", scope);
    }
    let mut headers = Headers::new();
    if let Some((user, password)) = basic_of {
        url = url.with_query("account", user);
        headers.push(("authorization", basic(user, password)));
    }
    if offline {
        url = url.with_query("offline_token", "true").with_query("client_id", "berth");
    }
    ask.http.exchange(ask.config, &Method::GET, &url, &headers, Payload::None)
}

fn post(ask: &Ask<'_>, url: &Url, service: &str, scope: &str, members: &[(&str, &str)]) -> Result<Response> {
    let common = [("service", service), ("scope", scope), ("client_id", "berth")];
    // application/x-www-form-urlencoded escapes more than a query needs: all but letters and digits does no harm.
    let form = |text: &str| escape(text).replace('/', "%2F").replace(':', "%3A");
    let pairs = members.iter().chain(&common).filter(|(_, value)| !value.is_empty());
    let body: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", form(value))).collect();
    let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
    ask.http.exchange(ask.config, &Method::POST, url, &headers, Payload::Bytes(body.join("&").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_a_lifetime_and_harmless_characters() {
        let registry = Url::parse("https://r.example/").unwrap();
        let answer = |json: &str| token_of(serde_json::from_str(json).unwrap(), &registry);
        let (token, identity) =
            answer(r#"{"token":"","access_token":"abc","expires_in":100,"refresh_token":"r"}"#).unwrap();
        assert_eq!((token.value.as_str(), identity.as_deref()), ("abc", Some("r")));
        let left = token.until - Instant::now();
        assert!(left > Duration::from_secs(85) && left <= Duration::from_secs(90), "{left:?}");
        let (token, _) = answer(r#"{"token":"abc","expires_in":1e300}"#).unwrap();
        assert!(token.until - Instant::now() < Duration::from_secs(86_400));
        for bad in [r#"{}"#, r#"{"token":"a\r\nX: y"}"#, r#"{"token":"a b"}"#] {
            assert!(answer(bad).is_err(), "{bad}");
        }
    }
}
