//! `login` and `logout`.

use crate::auth::{Ask, basic};
use crate::challenge::{self, Challenge};
use crate::client::Client;
use crate::credentials::{Credential, Stored};
use crate::error::{Error, Result};
use crate::http::{Headers, Payload, Response};
use crate::url::Url;
use ureq::http::Method;

/// A successful login.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// Where the credential is now.
    pub stored: Stored,
    /// The registry lets everybody in: name and password were not checked.
    pub unchecked: bool,
}

impl Client {
    /// Shows name and password to the registry and keeps them when it takes them. Nothing changes when it does not.
    pub fn login(&self, registry: &str, user: &str, password: &str) -> Result<LoggedIn> {
        if user.is_empty() || user.contains(':') || password.is_empty() {
            return Err(Error::Invalid("a name without colon and a password are needed".to_owned()));
        }
        let credential = Credential::Basic { user: user.to_owned(), password: password.to_owned() };
        let (kept, unchecked) = self.retry(&mut |_, _| Ok(()), || self.check(registry, user, password, &credential))?;
        let stored = self.config().credentials.store(registry, user, &kept)?;
        Ok(LoggedIn { stored, unchecked })
    }

    /// Forgets the registry's credentials; says whether there were any.
    pub fn logout(&self, registry: &str) -> Result<bool> {
        self.config().credentials.erase(registry)
    }

    /// What to keep: the password, or the identity token that the registry gives for it.
    fn check(&self, registry: &str, user: &str, password: &str, credential: &Credential) -> Result<(Credential, bool)> {
        let endpoint = self.origin(registry)?;
        let url = Url::new(endpoint.url.https, &endpoint.url.authority, "/v2/");
        let mut answer = self.ping(&url, None)?;
        if answer.success() {
            return Ok((credential.clone(), true));
        }
        if answer.status != 401 {
            return Err(no_api(&mut answer));
        }
        let (authorization, kept) = match challenge::parse(answer.header_all("www-authenticate")) {
            Some(Challenge::Basic) => (basic(user, password), credential.clone()),
            Some(Challenge::Bearer { realm, service, .. }) => {
                let ask = Ask {
                    http: self.http(),
                    config: self.config(),
                    credential: Some(credential),
                    registry: &endpoint.url,
                };
                let (token, identity) = self.auth().log_in(&ask, &realm, service.as_deref().unwrap_or_default())?;
                (token, identity.map_or_else(|| credential.clone(), Credential::Identity))
            }
            None => {
                let why = "it wants credentials, but neither Basic nor Bearer, which are the ones that registries have";
                return Err(Error::Answer { url: url.to_string(), why: why.to_owned() });
            }
        };
        let mut answer = self.ping(&url, Some(authorization))?;
        match answer.status {
            200..300 => Ok((kept, false)),
            401 | 403 => Err(Error::Unauthorized { url: url.to_string(), detail: answer.complaint() }),
            _ => Err(no_api(&mut answer)),
        }
    }

    fn ping(&self, url: &Url, authorization: Option<String>) -> Result<Response> {
        let headers: Headers = authorization.into_iter().map(|value| ("authorization", value)).collect();
        self.http().exchange(self.config(), &Method::GET, url, &headers, Payload::None)
    }
}

fn no_api(answer: &mut Response) -> Error {
    match answer.status {
        404 => Error::Answer {
            url: answer.url.to_string(),
            why: "404 Not Found: this is no registry of the distribution API (version 2)".to_owned(),
        },
        _ => answer.unexpected(),
    }
}
