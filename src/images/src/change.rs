//! `--change` of `commit` and `import`: an instruction of a Dockerfile that changes what an image's containers are started with.

use crate::Error;
use rrt_oci::image::{ContainerConfig, Healthcheck};
use serde_json::{Map, Value};

/// The instructions that Docker takes here.
const KNOWN: &str = "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR";

/// Applies them in their order. Nothing is changed when one of them is wrong.
pub fn apply(config: &mut ContainerConfig, changes: &[String]) -> Result<(), Error> {
    let mut new = config.clone();
    let mut state = State { command_is_new: false };
    for text in changes {
        one(&mut new, &mut state, text.trim()).map_err(|why| Error::Change { text: text.clone(), why })?;
    }
    *config = new;
    Ok(())
}

struct State {
    /// CMD was given here, so ENTRYPOINT leaves it.
    command_is_new: bool,
}

fn one(config: &mut ContainerConfig, state: &mut State, text: &str) -> Result<(), String> {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let upper = name.to_ascii_uppercase();
    let needs = |what: &str| format!("{upper} requires {what}");
    if rest.is_empty() {
        return match upper.as_str() {
            _ if !KNOWN.split(", ").any(|known| known == upper) => Err(unknown(name)),
            "CMD" => {
                config.cmd = None;
                Ok(())
            }
            "ENTRYPOINT" => {
                config.entrypoint = None;
                Ok(())
            }
            _ => Err(needs("at least one argument")),
        };
    }
    match upper.as_str() {
        "CMD" => {
            config.cmd = Some(command(config, rest)?);
            state.command_is_new = true;
        }
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(config, rest)?);
            if !state.command_is_new {
                // The image's CMD are the arguments of the image's ENTRYPOINT.
                config.cmd = None;
            }
        }
        "ENV" => {
            for (key, value) in pairs(rest, &config.env)? {
                set_env(&mut config.env, &key, &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(rest, &config.env)?),
        "EXPOSE" => {
            for word in words(rest, &config.env)? {
                for port in ports(&word)? {
                    config.exposed_ports.insert(port, Value::Object(Map::new()));
                }
            }
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(config, rest)?),
        "ONBUILD" => config.on_build.push(trigger(rest)?),
        "STOPSIGNAL" => config.stop_signal = Some(single(rest, &config.env, &upper)?),
        "USER" => config.user = single(rest, &config.env, &upper)?,
        "VOLUME" => {
            let list = match list(rest) {
                Some(list) => list.into_iter().map(|word| expand(&word, &config.env)).collect::<Result<_, _>>()?,
                None => words(rest, &config.env)?,
            };
            if list.iter().any(|path| path.trim().is_empty()) {
                return Err("VOLUME specified can not be an empty string".to_owned());
            }
            config.volumes.extend(list.into_iter().map(|path| (path, Value::Object(Map::new()))));
        }
        "WORKDIR" => config.working_dir = join(&config.working_dir, &expand(rest, &config.env)?),
        _ => return Err(unknown(name)),
    }
    Ok(())
}

/// Docker's words.
fn unknown(name: &str) -> String {
    format!("{} is not a valid change command; there are {KNOWN}", name.to_ascii_lowercase())
}

/// The exec form, or a line for the shell.
fn command(config: &ContainerConfig, text: &str) -> Result<Vec<String>, String> {
    if let Some(list) = list(text) {
        return Ok(list);
    }
    let shell = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
    Ok(shell.into_iter().chain([text.to_owned()]).collect())
}

/// A JSON array of strings. What only looks like one is a shell's line, as with Docker.
fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// One word, with variables; the shell's quotes go.
fn single(text: &str, env: &[String], name: &str) -> Result<String, String> {
    match <[String; 1]>::try_from(words(text, env)?) {
        Ok([word]) => Ok(word),
        Err(_) => Err(format!("{name} requires exactly one argument")),
    }
}

/// `KEY=VALUE KEY="A VALUE"`, or one key with all the rest of the line as its value.
fn pairs(text: &str, env: &[String]) -> Result<Vec<(String, String)>, String> {
    let raw = split(text)?;
    if !raw[0].contains('=') {
        let (key, value) =
            text.split_once(char::is_whitespace).ok_or_else(|| format!("{text} must have two arguments"))?;
        return Ok(vec![(key.to_owned(), expand(value.trim(), env)?)]);
    }
    raw.iter()
        .map(|word| {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value"))?;
            let key = expand(key, env)?;
            if key.is_empty() {
                return Err("names can not be blank".to_owned());
            }
            Ok((key, expand(value, env)?))
        })
        .collect()
}

fn words(text: &str, env: &[String]) -> Result<Vec<String>, String> {
    split(text)?.iter().map(|word| expand(word, env)).collect()
}

/// Words between blanks, which quotes and backslashes hold together; both stay for [`expand`].
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let word = words.last_mut().unwrap_or_else(|| unreachable!("there is always one"));
        match (c, quote) {
            ('\\', None | Some('"')) => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(String::new());
                }
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if let Some(quote) = quote {
        return Err(format!("unexpected end of statement while looking for matching {quote}"));
    }
    if words.len() > 1 && words.last().is_some_and(String::is_empty) {
        words.pop();
    }
    Ok(words)
}

/// Takes quotes and backslashes away and puts the values of variables in: `$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME:+word}`.
fn expand(word: &str, env: &[String]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = word;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let next = rest.chars().next();
                // In quotes only these lose their backslash.
                if quoted && !next.is_some_and(|n| "\"\\$".contains(n)) {
                    out.push('\\');
                }
                if let Some(next) = next {
                    out.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
            '"' => quoted = !quoted,
            '\'' if !quoted => {
                let end = rest.find('\'').unwrap_or(rest.len());
                out.push_str(&rest[..end]);
                rest = rest.get(end + 1..).unwrap_or("");
            }
            '$' => {
                let (value, used) = variable(rest, env)?;
                out.push_str(&value);
                rest = &rest[used..];
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// The value of the variable whose name begins `text`, and how much of it that was.
fn variable(text: &str, env: &[String]) -> Result<(String, usize), String> {
    let name_length =
        |text: &str| text.bytes().position(|b| !b.is_ascii_alphanumeric() && b != b'_').unwrap_or(text.len());
    let value =
        |name: &str| env.iter().find_map(|line| line.split_once('=').filter(|(key, _)| *key == name)).map(|(_, v)| v);
    let Some(inner) = text.strip_prefix('{') else {
        let length = name_length(text);
        return Ok(match length {
            0 => ("$".to_owned(), 0),
            _ => (value(&text[..length]).unwrap_or_default().to_owned(), length),
        });
    };
    let end = inner.find('}').ok_or_else(|| format!("${text}: the closing brace is missing"))?;
    let (name, modifier) = inner[..end].split_at(name_length(&inner[..end]));
    let value = value(name).filter(|value| !value.is_empty());
    let found = match (modifier.get(..2), modifier) {
        _ if name.is_empty() => return Err(format!("${{{}}}: bad substitution", &inner[..end])),
        (_, "") => value.unwrap_or_default(),
        (Some(":-"), _) => value.unwrap_or(&modifier[2..]),
        (Some(":+"), _) => value.map_or("", |_| &modifier[2..]),
        _ => return Err(format!("${{{}}}: unsupported modifier in substitution", &inner[..end])),
    };
    Ok((found.to_owned(), end + 2))
}

fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let line = format!("{key}={value}");
    match env.iter_mut().find(|old| old.split_once('=').is_some_and(|(k, _)| k == key)) {
        Some(old) => *old = line,
        None => env.push(line),
    }
}

/// `80`, `53/udp`, `8000-8010/tcp`, each port for itself.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let invalid = || format!("invalid containerPort: {text}");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().map_err(|_| invalid());
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn trigger(text: &str) -> Result<String, String> {
    let name = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match name.as_str() {
        "ONBUILD" => Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        "MAINTAINER" | "FROM" => Err(format!("{name} isn't allowed as an ONBUILD trigger")),
        _ => Ok(text.to_owned()),
    }
}

/// `NONE`, or flags and `CMD command`.
fn healthcheck(config: &ContainerConfig, text: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = after.trim_start();
        let (name, value) = flag.split_once('=').ok_or_else(|| format!("--{flag} needs a value: --{flag}=…"))?;
        match name {
            "interval" => check.interval = nanoseconds(value)?,
            "timeout" => check.timeout = nanoseconds(value)?,
            "start-period" => check.start_period = nanoseconds(value)?,
            "start-interval" => check.start_interval = nanoseconds(value)?,
            "retries" => check.retries = value.parse().map_err(|_| format!("--retries={value} is no number"))?,
            _ => return Err(format!("unknown flag: {name}")),
        }
    }
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match (kind.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("NONE", _) => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        ("CMD", "") => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
        ("CMD", rest) => match list(rest) {
            Some(list) => [vec!["CMD".to_owned()], list].concat(),
            None => {
                let shell = config.shell.as_ref().map(|_| command(config, rest)).transpose()?;
                match shell {
                    Some(command) => [vec!["CMD".to_owned()], command].concat(),
                    None => vec!["CMD-SHELL".to_owned(), rest.to_owned()],
                }
            }
        },
        (other, _) => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    };
    Ok(check)
}

/// Go's durations, in nanoseconds: at least 1 ms, as Docker wants it.
fn nanoseconds(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid duration {text:?}: expected, for example, 1m30s or 500ms");
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let end = rest[at..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |n| at + n);
        let unit = match &rest[at..end] {
            "h" => 3.6e12,
            "m" => 6e10,
            "s" => 1e9,
            "ms" => 1e6,
            "us" | "µs" => 1e3,
            "ns" => 1.0,
            _ => return Err(invalid()),
        };
        total += rest[..at].parse::<f64>().map_err(|_| invalid())? * unit;
        rest = &rest[end..];
    }
    if text.is_empty() || (total != 0.0 && total < 1e6) || total > i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(total as i64)
}

/// A working directory from another one, cleaned.
fn join(from: &str, to: &str) -> String {
    let whole = if to.starts_with('/') { to.to_owned() } else { format!("{from}/{to}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<ContainerConfig, String> {
        let mut config = ContainerConfig {
            env: vec!["PATH=/bin".to_owned(), "HOME=/root".to_owned()],
            cmd: Some(vec!["old".to_owned()]),
            working_dir: "/w".to_owned(),
            ..ContainerConfig::default()
        };
        let changes: Vec<String> = changes.iter().map(|text| (*text).to_owned()).collect();
        apply(&mut config, &changes).map(|()| config).map_err(|e| e.to_string())
    }

    #[test]
    fn commands() {
        let config = changed(&[r#"CMD ["a", "b c"]"#]).unwrap();
        assert_eq!(config.cmd.unwrap(), ["a", "b c"]);
        assert_eq!(changed(&["cmd echo $X"]).unwrap().cmd.unwrap(), ["/bin/sh", "-c", "echo $X"]);
        let config = changed(&[r#"ENTRYPOINT ["/e"]"#]).unwrap();
        assert_eq!((config.entrypoint.unwrap(), config.cmd), (vec!["/e".to_owned()], None));
        let config = changed(&["CMD x", r#"ENTRYPOINT ["/e"]"#]).unwrap();
        assert_eq!(config.cmd.unwrap()[2], "x");
        assert_eq!(changed(&["CMD ['not json']"]).unwrap().cmd.unwrap()[2], "['not json']");
    }

    #[test]
    fn variables_and_labels() {
        let config =
            changed(&[r#"ENV A=1 B="two words" C=$HOME/x D='$HOME' E=a\ b"#, "ENV PATH /new:$PATH", "ENV Q it's"]);
        assert!(config.unwrap_err().contains("matching '"));
        let config = changed(&[r#"ENV A=1 B="two words" C=$HOME/x D='$HOME' E=a\ b"#, "ENV PATH /new:$PATH"]).unwrap();
        assert_eq!(config.env, ["PATH=/new:/bin", "HOME=/root", "A=1", "B=two words", "C=/root/x", "D=$HOME", "E=a b"]);
        let config = changed(&["LABEL a=b c.d=\"${NO:-none} ${HOME:+yes}\"", "LABEL old style"]).unwrap();
        let labels: Vec<_> = config.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(labels, ["a=b", "c.d=none yes", "old=style"]);
    }

    #[test]
    fn the_rest() {
        let config =
            changed(&["EXPOSE 80 53/UDP 8000-8002", "USER a:b", "WORKDIR x/../y", "WORKDIR z", "STOPSIGNAL SIGINT"]);
        let config = config.unwrap();
        let ports: Vec<_> = config.exposed_ports.keys().cloned().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("a:b", "/w/y/z"));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        let config = changed(&[r#"VOLUME ["/a b"]"#, "VOLUME /c /d", "ONBUILD RUN x"]).unwrap();
        assert_eq!((config.volumes.len(), config.on_build), (3, vec!["RUN x".to_owned()]));
        let check = changed(&["HEALTHCHECK --interval=1m30s --retries=3 CMD curl x"]).unwrap().healthcheck.unwrap();
        assert_eq!(
            (check.interval, check.retries, check.test),
            (90_000_000_000, 3, vec!["CMD-SHELL".to_owned(), "curl x".to_owned()])
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (bad, why) in [
            ("RUN x", "run is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("ENV A", "must have two arguments"),
            ("ENV A=1 B", "can't find = in \"B\""),
            ("ENV =1", "names can not be blank"),
            ("EXPOSE 99999", "invalid containerPort: 99999"),
            ("EXPOSE 80/icmp", "invalid proto: icmp"),
            ("EXPOSE 9-8", "invalid containerPort"),
            ("ONBUILD FROM x", "FROM isn't allowed"),
            ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
            ("USER a b", "exactly one argument"),
            ("LABEL a=\"x", "looking for matching \""),
            ("LABEL a=${x", "closing brace"),
            ("HEALTHCHECK --interval=5 CMD x", "invalid duration"),
            ("HEALTHCHECK FOO", "Unknown type"),
        ] {
            let error = changed(&["ENV Z=1", bad]).expect_err(bad);
            assert!(error.contains(why) && error.contains(bad.split_whitespace().next().unwrap()), "{bad}: {error}");
        }
    }
}
