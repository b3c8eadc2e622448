//! As much of URLs as the distribution API needs: `http` and `https`, relative references, query members.

use std::fmt;
use std::net::IpAddr;

/// An absolute URL without user or fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Url {
    pub https: bool,
    /// `host`, `host:port` or `[address]:port`.
    pub authority: String,
    /// From the slash on, with the query.
    pub path: String,
}

impl Url {
    pub fn new(https: bool, authority: &str, path: &str) -> Url {
        Url { https, authority: authority.to_owned(), path: path.to_owned() }
    }

    /// Reads an absolute URL; the text of the error is for a person.
    pub fn parse(text: &str) -> Result<Url, String> {
        let invalid = |why: &str| format!("{:?} {why}", shorten(text));
        if text.len() > 8192 || text.bytes().any(|b| b <= b' ' || b >= 0x7f) {
            return Err(invalid("is no URL: it is too long or has characters that no URL has"));
        }
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        let (https, rest) = match lower {
            _ if lower.starts_with("https://") => (true, &text[8..]),
            _ if lower.starts_with("http://") => (false, &text[7..]),
            _ => return Err(invalid("is no http:// or https:// URL")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(invalid("has a user in it, which is not supported"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let url = Url::new(https, &authority.to_ascii_lowercase(), &path);
        let port = url.port_text().is_none_or(|port| port.parse::<u16>().is_ok());
        let host = url.host();
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        if host.is_empty() || !port || !host.bytes().all(good) {
            return Err(invalid("has no valid host and port"));
        }
        Ok(url)
    }

    /// What `reference` means in the document of this URL (RFC 3986, section 5.2, without `..`).
    pub fn join(&self, reference: &str) -> Result<Url, String> {
        let scheme = if self.https { "https" } else { "http" };
        if reference.starts_with("//") {
            return Url::parse(&format!("{scheme}:{reference}"));
        }
        if reference.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':')) {
            return Url::parse(reference);
        }
        let own = self.path.split('?').next().unwrap_or_default();
        let path = match reference.as_bytes().first() {
            Some(b'/') => reference.to_owned(),
            Some(b'?') => format!("{own}{reference}"),
            _ => format!("{}/{reference}", own.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Url::parse(&format!("{scheme}://{}{path}", self.authority))
    }

    /// With one more member of the query.
    pub fn with_query(mut self, name: &str, value: &str) -> Url {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(&escape(name));
        self.path.push('=');
        self.path.push_str(&escape(value));
        self
    }

    /// The host without port and brackets.
    pub fn host(&self) -> &str {
        host_of(&self.authority)
    }

    fn port_text(&self) -> Option<&str> {
        match self.authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((_, port)) => port.strip_prefix(':'),
            None => self.authority.split_once(':').map(|(_, port)| port),
        }
    }

    pub fn port(&self) -> u16 {
        let default = if self.https { 443 } else { 80 };
        self.port_text().and_then(|port| port.parse().ok()).unwrap_or(default)
    }

    /// Would a browser call it the same origin: scheme, host and port?
    pub fn same_origin(&self, other: &Url) -> bool {
        self.https == other.https && self.host() == other.host() && self.port() == other.port()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// The URL without its query: that may hold a signature which gives access.
pub(crate) fn shown(url: &Url) -> String {
    let text = url.to_string();
    text.split('?').next().unwrap_or_default().to_owned()
}

/// The host of `host`, `host:port`, `[address]:port`.
pub(crate) fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// `localhost`, 127.0.0.0/8, ::1.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Percent-encoding of all but RFC 3986's unreserved characters, and of `/` and `:`, which a query may have.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || b"-._~/:".contains(&b) => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Untrusted text made fit for an error line: printable, and at most 300 characters.
pub(crate) fn shorten(text: &str) -> String {
    let mut out: String = text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(300).is_some() {
        out.push('…');
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_joined() {
        let url = Url::parse("HTTPS://Host:5000/v2/a?x=1#f").unwrap();
        assert_eq!(url.to_string(), "https://host:5000/v2/a?x=1");
        assert_eq!((url.host(), url.port()), ("host", 5000));
        assert_eq!(Url::parse("http://[::1]/").unwrap().port(), 80);
        assert_eq!(Url::parse("http://[::1]:81?q").unwrap().to_string(), "http://[::1]:81/?q");
        for (reference, whole) in [
            ("/b", "https://host:5000/b"),
            ("b?c=/d", "https://host:5000/v2/b?c=/d"),
            ("?n=2", "https://host:5000/v2/a?n=2"),
            ("//other/x", "https://other/x"),
            ("http://other", "http://other/"),
        ] {
            assert_eq!(url.join(reference).unwrap().to_string(), whole, "{reference}");
        }
        for bad in
            ["", "ftp://a", "http://", "http://a:b", "http://u:p@a/", "http://a b/", "http://a:99999/", "file:///x"]
        {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        assert!(url.join("javascript:alert(1)").is_err());
    }

    #[test]
    fn origins() {
        let origin = |a: &str, b: &str| Url::parse(a).unwrap().same_origin(&Url::parse(b).unwrap());
        assert!(origin("https://a/x", "https://a:443/y"));
        assert!(!origin("https://a/", "http://a/"));
        assert!(!origin("https://a/", "https://a.b/"));
        assert!(!origin("https://a/", "https://a:444/"));
        assert!(
            is_loopback("127.9.9.9") && is_loopback("::1") && is_loopback("localhost") && !is_loopback("localhost.x")
        );
    }

    #[test]
    fn queries_are_escaped() {
        let url =
            Url::new(true, "a", "/v2/").with_query("service", "a b&c").with_query("scope", "repository:x/y:pull,push");
        assert_eq!(url.path, "/v2/?service=a%20b%26c&scope=repository:x/y:pull%2Cpush");
    }
}
