//! Proxies by environment: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, with Go's rules (golang.org/x/net/http/httpproxy), which
//! are Docker's: lower-case names count too, and loopback is never asked for through a proxy.

use crate::error::{Error, Result};
use crate::settings::covers;
use crate::url::{Url, is_loopback};
use std::net::IpAddr;
use ureq::Proxy;

/// Which proxy stands before which host.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `https` URLs.
    pub https: Option<String>,
    /// For `http` URLs.
    pub http: Option<String>,
    /// Hosts that are asked without one, in lower case.
    pub except: Vec<String>,
}

impl Proxies {
    /// What the environment says.
    pub fn from_environment() -> Proxies {
        Proxies::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let either = |name: &str| {
            let found = variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
            found.filter(|value| !value.trim().is_empty())
        };
        let all = either("ALL_PROXY");
        let except = either("NO_PROXY").unwrap_or_default();
        Proxies {
            https: either("HTTPS_PROXY").or_else(|| all.clone()),
            http: either("HTTP_PROXY").or(all),
            except: except
                .split(',')
                .map(|part| part.trim().to_ascii_lowercase())
                .filter(|part| !part.is_empty())
                .collect(),
        }
    }

    /// The proxy for a URL, as it is written.
    pub(crate) fn of(&self, url: &Url) -> Option<&str> {
        let proxy = if url.https { &self.https } else { &self.http };
        proxy.as_deref().filter(|_| !is_loopback(url.host()) && !self.excepted(url))
    }

    fn excepted(&self, url: &Url) -> bool {
        let host = url.host();
        let address: Option<IpAddr> = host.parse().ok();
        self.except.iter().any(|entry| {
            if entry == "*" {
                return true;
            }
            if let (Some((net, bits)), Some(address)) = (entry.split_once('/'), address) {
                let net = net.parse::<IpAddr>().ok().zip(bits.parse().ok());
                return net.is_some_and(|(net, bits)| bits <= 128 && covers(net, bits, address));
            }
            let (entry, port) = match entry.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') => (name, Some(port)),
                _ => (entry.as_str(), None),
            };
            if port.is_some_and(|port| port != url.port().to_string()) {
                return false;
            }
            // "a.b" means a.b and all below it, ".a.b" and "*.a.b" only what is below.
            let below = entry.strip_prefix('*').unwrap_or(entry);
            match below.strip_prefix('.') {
                Some(_) => host.ends_with(below),
                None => host == below || host.strip_suffix(below).is_some_and(|rest| rest.ends_with('.')),
            }
        })
    }

    /// The proxy in the form that ureq has.
    pub(crate) fn build(text: &str) -> Result<Proxy> {
        Proxy::new(text).map_err(|e| {
            let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
            Error::Invalid(format!("the proxy {shown:?} of the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY): {e}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_go() {
        let proxies = Proxies::read(|name| match name {
            "https_proxy" => Some("http://p:1".to_owned()),
            "HTTP_PROXY" => Some("http://p:2".to_owned()),
            "NO_PROXY" => Some("direct.example, .below.example,10.0.0.0/8, ported.example:5000,::1".to_owned()),
            _ => None,
        });
        let of = |url: &str| proxies.of(&Url::parse(url).unwrap()).map(str::to_owned);
        assert_eq!(of("https://other.example").as_deref(), Some("http://p:1"));
        assert_eq!(of("http://other.example").as_deref(), Some("http://p:2"));
        for direct in [
            "https://direct.example",
            "https://a.direct.example",
            "https://a.below.example",
            "https://10.9.8.7",
            "https://ported.example:5000",
            "http://127.0.0.1:5000",
            "http://localhost",
        ] {
            assert_eq!(of(direct), None, "{direct}");
        }
        for through in
            ["https://indirect.example", "https://below.example", "https://11.0.0.1", "https://ported.example:5001"]
        {
            assert!(of(through).is_some(), "{through}");
        }
        assert!(Proxies::read(|_| None).of(&Url::parse("https://a").unwrap()).is_none());
    }
}
