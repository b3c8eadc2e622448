//! `-p` and EXPOSE: texts to ports.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// What a port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn parse(text: &str) -> Option<Protocol> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            "sctp" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// A container's port: `80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Port {
    pub number: u16,
    pub protocol: Protocol,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// A container's port at the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// In the container.
    pub port: Port,
    /// At which of the host's addresses; `None` is all, of both families.
    pub address: Option<IpAddr>,
    /// The host's ports of which one free is taken, first and last; `None`: any that is free.
    pub host: Option<(u16, u16)>,
}

impl Published {
    /// `[[ADDRESS:][HOST-PORT]:]CONTAINER-PORT[/PROTOCOL]`, with ranges in both places; as many entries as the range is long. A
    /// range of the host for one port of the container means any of them.
    ///
    /// # Errors
    /// A port out of 1 to 65535 (0 of the host is any), ranges of different lengths, an address in no brackets, another protocol.
    pub fn parse(text: &str) -> Result<Vec<Published>, Error> {
        let invalid = |why: &str| Error::invalid("--publish", text, why);
        let (rest, protocol) = match text.split_once('/') {
            Some((rest, name)) => {
                (rest, Protocol::parse(name).ok_or_else(|| invalid("the protocol is tcp, udp or sctp"))?)
            }
            None => (text, Protocol::Tcp),
        };
        let (rest, container) = rest.rsplit_once(':').unwrap_or(("", rest));
        let container = range(container).ok_or_else(|| {
            invalid("invalid container port; expected a number from 1 to 65535, or two with a hyphen")
        })?;
        // What is before the host's port is an address, an IPv6 one in brackets.
        let (address, host) = match rest.rsplit_once(':') {
            _ if rest.ends_with(']') => (Some(rest), ""),
            Some((address, host)) => (Some(address), host),
            None => (None, rest),
        };
        let address = match address.filter(|a| !a.is_empty()) {
            Some(address) => {
                let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
                let parsed: IpAddr = bare.parse().map_err(|_| invalid("invalid IP address"))?;
                if parsed.is_ipv6() && bare.len() == address.len() {
                    return Err(invalid("an IPv6 address belongs in brackets"));
                }
                Some(parsed)
            }
            None => None,
        };
        let host = match host {
            "" | "0" => None,
            text => Some(range(text).ok_or_else(|| {
                invalid("invalid host port; expected a number from 1 to 65535, or two with a hyphen")
            })?),
        };
        let length = container.1 - container.0;
        if let Some((first, last)) = host
            && length > 0
            && last - first != length
        {
            return Err(invalid("the ranges of host and container ports have different lengths"));
        }
        let one = |offset: u16| Published {
            port: Port { number: container.0 + offset, protocol },
            address,
            host: host.map(|(first, last)| if length > 0 { (first + offset, first + offset) } else { (first, last) }),
        };
        Ok((0..=length).map(one).collect())
    }
}

/// EXPOSE and `--expose`: `PORT[-PORT][/PROTOCOL]`.
///
/// # Errors
/// As [`Published::parse`].
pub fn exposed(text: &str) -> Result<Vec<Port>, Error> {
    let invalid = || Error::invalid("--expose", text, "expected PORT or FIRST-LAST, then /tcp, /udp, /sctp or nothing");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = Protocol::parse(protocol).ok_or_else(invalid)?;
    let (first, last) = range(ports).ok_or_else(invalid)?;
    Ok((first..=last).map(|number| Port { number, protocol }).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |t: &str| t.parse::<u16>().ok().filter(|n| *n > 0 && t.bytes().all(|b| b.is_ascii_digit()));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let one = |p: &Published| {
            let address = p.address.map_or("*".to_owned(), |a| a.to_string());
            let host = p.host.map_or("?".to_owned(), |(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
            format!("{address}:{host}>{}", p.port)
        };
        Published::parse(text).unwrap_or_else(|e| panic!("{e}")).iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_form_of_p() {
        assert_eq!(shown("80"), "*:?>80/tcp");
        assert_eq!(shown("4000:80"), "*:4000>80/tcp");
        assert_eq!(shown("0:80"), "*:?>80/tcp");
        assert_eq!(shown("127.0.0.1:4000:80/udp"), "127.0.0.1:4000>80/udp");
        assert_eq!(shown("127.0.0.1::80"), "127.0.0.1:?>80/tcp");
        assert_eq!(shown("[::1]:4000:80"), "::1:4000>80/tcp");
        assert_eq!(shown("[::1]::80/SCTP"), "::1:?>80/sctp");
        assert_eq!(shown(":80"), "*:?>80/tcp");
        assert_eq!(shown("7000-7001:80-81"), "*:7000>80/tcp *:7001>81/tcp");
        assert_eq!(shown("7000-7009:80"), "*:7000-7009>80/tcp");
        assert_eq!(shown("80-81"), "*:?>80/tcp *:?>81/tcp");
    }

    #[test]
    fn what_is_refused() {
        for (bad, why) in [
            ("", "container port"),
            ("0", "container port"),
            ("65536", "container port"),
            ("+80", "container port"),
            ("81-80", "container port"),
            ("x:80", "host port"),
            ("1.2.3:1:80", "invalid IP"),
            ("::1:4000:80", "brackets"),
            ("80/http", "protocol"),
            ("7000-7002:80-81", "different lengths"),
        ] {
            let error = Published::parse(bad).expect_err(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn exposed_ports() {
        let text = |t: &str| exposed(t).unwrap().iter().map(Port::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(text("80"), "80/tcp");
        assert_eq!(text("80-82/udp"), "80/udp 81/udp 82/udp");
        assert!(exposed("80/x").is_err() && exposed("x").is_err() && exposed("2-1").is_err());
    }
}
