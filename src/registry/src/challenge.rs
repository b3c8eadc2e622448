//! `WWW-Authenticate` (RFC 9110, section 11.6.1), as registries use it.

/// How a registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token of the server at `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    /// Name and password themselves.
    Basic,
}

/// The first challenge of a header that we can answer; Bearer before Basic.
pub(crate) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers {
        for (scheme, members) in challenges(header) {
            let member = |name: &str| members.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
            match (scheme.as_str(), member("realm")) {
                ("bearer", Some(realm)) => {
                    return Some(Challenge::Bearer { realm, service: member("service"), scope: member("scope") });
                }
                ("basic", _) => basic = Some(Challenge::Basic),
                _ => {}
            }
        }
    }
    basic
}

type Members = Vec<(String, String)>;

/// All challenges of one header: scheme in lower case, members by lower-case name.
fn challenges(header: &str) -> Vec<(String, Members)> {
    let mut found: Vec<(String, Members)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let length = rest.bytes().take_while(|b| is_token(*b)).count();
        if length == 0 {
            return found;
        }
        let (word, after) = rest.split_at(length);
        match after.trim_start().strip_prefix('=') {
            Some(value) => {
                let Some((value, after)) = value_of(value.trim_start()) else { return found };
                if let Some((_, members)) = found.last_mut() {
                    members.push((word.to_ascii_lowercase(), value));
                }
                rest = after;
            }
            None => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// A token or quoted string, and what comes after it; `None` when the quotes don't end.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Not only a token's characters: some servers don't quote a URL.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) })
    }

    #[test]
    fn headers_of_registries() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull,push",error="invalid_token""#;
        let scope = Some("repository:library/a:pull,push");
        for (header, expected) in [
            (hub, bearer("https://auth.docker.io/token", Some("registry.docker.io"), scope)),
            (r#"Basic realm="Registry Realm""#, Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (r#"BEARER Realm="x" , Service = y"#, bearer("x", Some("y"), None)),
            (r#"Basic realm="a", Bearer realm="b",service="c, d""#, bearer("b", Some("c, d"), None)),
            (r#"Bearer realm="a\"b""#, bearer("a\"b", None, None)),
            (r#"Bearer realm=https://a/b?c,service=d"#, bearer("https://a/b?c", Some("d"), None)),
            (r#"Negotiate, NTLM"#, None),
            (r#"Bearer service="no realm""#, None),
            (r#"Bearer realm="open"#, None),
            ("", None),
            (",,, = \"", None),
        ] {
            assert_eq!(parse([header].into_iter()), expected, "{header}");
        }
        assert_eq!(parse(["Basic realm=a", "Bearer realm=b"].into_iter()), bearer("b", None, None));
    }
}
