//! The words flags take: durations, sizes, signals, users. Pure; each error says what is accepted.

use super::completion::Shell;
use rrt_runtime::{DeviceRule, ManageCgroups, MountChange, NetworkLock};
use std::num::ParseIntError;
use std::time::Duration;

/// Takes any text.
pub fn text(text: &str) -> Result<String, String> {
    Ok(text.into())
}

/// Reads a whole number in its range.
pub fn u16(text: &str) -> Result<u16, String> {
    up_to(u16::MAX.into(), text).map(|number| number as u16)
}

/// Reads a whole number in its range.
pub fn u32(text: &str) -> Result<u32, String> {
    up_to(u32::MAX.into(), text).map(|number| number as u32)
}

/// Reads a whole number in its range.
pub fn u64(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error: ParseIntError| error.to_string())
}

/// Reads a whole number in its range.
pub fn i64(text: &str) -> Result<i64, String> {
    text.parse().map_err(|error: ParseIntError| error.to_string())
}

fn up_to(most: i64, text: &str) -> Result<i64, String> {
    match i64(text)? {
        number if (0..=most).contains(&number) => Ok(number),
        number => Err(format!("{number} is not in 0..={most}")),
    }
}

/// `table` or `json`, of `list` and `ps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    Table,
    /// For programs.
    Json,
}

/// Reads an output format.
pub fn format(text: &str) -> Result<Format, String> {
    match text {
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        _ => Err("expected table or json".into()),
    }
}

/// Reads the name of a shell.
pub fn shell(text: &str) -> Result<Shell, String> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err("expected bash, zsh or fish".into()),
    }
}

/// Reads Go's `time.Duration`: `5s`, `1m30s`, `1.5h`, `100ms`. Zero and less are refused: no flag here means anything by
/// them, and an interval of nothing would spin.
pub fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "expected numbers with units, like 5s, 1m30s or 100ms";
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanoseconds = 0f64;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(FORM)?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len()));
        let scale = match unit {
            "ns" => 1.0,
            // U+00B5 micro sign, U+03BC Greek mu: Go takes both.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(FORM.into()),
        };
        nanoseconds += number.parse::<f64>().map_err(|_| FORM)? * scale;
        rest = tail;
    }
    // Go's duration is an i64 of nanoseconds.
    if nanoseconds >= i64::MAX as f64 {
        return Err("longer than 292 years".into());
    }
    if nanoseconds < 1.0 {
        return Err(format!("must be greater than 0; {FORM}"));
    }
    Ok(Duration::from_nanos(nanoseconds as u64))
}

/// Reads a size in bytes as Docker and runc do: a number, then `b`, `k`, `m`, `g`, `t` or `p` in either case, each with an
/// optional `b` or `ib`, all powers of 1024; `1.5g` too. `-1` is "no limit".
pub fn size(text: &str) -> Result<i64, String> {
    const FORM: &str = "expected bytes with an optional unit b, k, m, g, t or p (512m), or -1 for no limit";
    if text == "-1" {
        return Ok(-1);
    }
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let shift = match unit.trim_start_matches(' ').to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(FORM.into()),
    };
    let bytes = if number.contains('.') {
        let value = number.parse::<f64>().map_err(|_| FORM)? * (1i64 << shift) as f64;
        // A cast of a larger float would saturate silently.
        (value < i64::MAX as f64).then_some(value as i64)
    } else {
        number.parse::<i64>().map_err(|_| FORM)?.checked_mul(1 << shift)
    };
    bytes.ok_or_else(|| "more than 2^63-1 bytes".into())
}

/// Reads a signal: a number (0 only asks whether the process is there), or a name in any case, with or without `SIG`,
/// also `RTMIN+3` and `RTMAX-1`.
pub fn signal(text: &str) -> Result<i32, String> {
    rrt_sys::signal::by_name(text).ok_or_else(|| "expected a number from 0 to 64 or a name like TERM or RTMIN+3".into())
}

/// Reads `UID[:GID]`, numbers only: a name would have to be looked up in the container's `/etc/passwd`, which is the
/// container's to write (CVE-2026-30892 came from reading a malformed number as 0).
pub fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |part: &str| match part.parse() {
        // u32::MAX is (uid_t)-1, "leave unchanged" to the kernel.
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err("expected UID or UID:GID in decimal numbers".to_owned()),
    };
    match text.split_once(':') {
        None => Ok((number(text)?, None)),
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
    }
}

/// Reads `[allow|deny] TYPE MAJOR:MINOR ACCESS`, as `update --device` takes it.
pub fn device_rule(text: &str) -> Result<DeviceRule, String> {
    let form =
        "expected [allow|deny] a, b or c, MAJOR:MINOR with * for every number, and some of rwm: \"c 10:200 rwm\"";
    DeviceRule::parse(text).ok_or_else(|| form.into())
}

/// What `mounts` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountsAction {
    /// It changes something.
    Change(MountChange),
    /// It only looks.
    List,
}

/// Reads the first word after `mounts`.
pub fn mounts_action(text: &str) -> Result<MountsAction, String> {
    match text {
        "add" => Ok(MountsAction::Change(MountChange::Add)),
        "replace" => Ok(MountsAction::Change(MountChange::Replace)),
        "remove" => Ok(MountsAction::Change(MountChange::Remove)),
        "list" => Ok(MountsAction::List),
        _ => Err("expected add, replace, remove or list".into()),
    }
}

/// Reads `--rootless`: none is "auto".
pub fn rootless(text: &str) -> Result<Option<bool>, String> {
    match text {
        "auto" => Ok(None),
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        _ => Err("expected true, false or auto".into()),
    }
}

/// What criu does about cgroups.
pub fn manage_cgroups(text: &str) -> Result<ManageCgroups, String> {
    match text {
        "" => Ok(ManageCgroups::Default),
        name => ManageCgroups::named(name).ok_or_else(|| "expected soft, full, strict or ignore".into()),
    }
}

/// How criu holds the network.
pub fn network_lock(text: &str) -> Result<Option<NetworkLock>, String> {
    match text {
        "" => Ok(None),
        name => NetworkLock::named(name).map(Some).ok_or_else(|| "expected iptables, nftables or skip".into()),
    }
}

/// A namespace that criu leaves empty: it can do so with one kind, and there is nothing to choose.
pub fn empty_namespace(text: &str) -> Result<(), String> {
    match text {
        "network" => Ok(()),
        _ => Err(format!("namespace {text:?} is not supported: expected network")),
    }
}

/// A file descriptor; runc's default of -1 is none.
pub fn status_fd(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| "expected the number of an open file descriptor".into())
}

/// `ADDRESS:PORT`; an IPv6 address stands in brackets, as in Go.
pub fn page_server(text: &str) -> Result<(String, u16), String> {
    const FORM: &str = "use --page-server ADDRESS:PORT, with an IPv6 address in brackets";
    let (address, port) = text.rsplit_once(':').ok_or(FORM)?;
    let address = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or(FORM)?,
        None if address.contains(':') => return Err(FORM.into()),
        None => address,
    };
    match port.parse() {
        Ok(port) if port > 0 && !address.is_empty() => Ok((address.into(), port)),
        _ => Err(FORM.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, milliseconds) in
            [("5s", 5000), ("1m30s", 90_000), ("100ms", 100), ("1.5h", 5_400_000), ("1h0m0s", 3_600_000), ("+2s", 2000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(duration("7us"), Ok(Duration::from_micros(7)));
        assert_eq!(duration("7\u{b5}s"), Ok(Duration::from_micros(7)));
    }

    #[test]
    fn a_duration_without_a_unit_or_of_nothing_is_refused() {
        for text in ["5", "", "s", "5x", "0", "0s", "-1s", "1..5s", "0.1ns", "9999999h999999999999h", "5 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("42", 42),
            ("42b", 42),
            ("1k", 1024),
            ("1K", 1024),
            ("512m", 512 << 20),
            ("512MB", 512 << 20),
            ("512 MiB", 512 << 20),
            ("1.5g", 1_610_612_736),
            ("2t", 2 << 40),
            ("3p", 3 << 50),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_are_not_are_refused() {
        for text in ["", "m", "-2", "1x", "1mm", "9223372036854775808", "8192p", "8192.5p", "1e3", "0x10", "1.2.3k"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signals_have_the_numbers_glibc_gives_them() {
        // systemd stops on SIGRTMIN+3 and is built against glibc, whose SIGRTMIN is 34; musl's is 35.
        for (text, number) in [("9", 9), ("0", 0), ("SIGKILL", 9), ("sigterm", 15), ("RTMIN+3", 37), ("64", 64)] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for text in ["", "SIG", "FOO", "-9", "65", "9 "] {
            assert!(signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_user_is_one_or_two_numbers() {
        assert_eq!(user("1000"), Ok((1000, None)));
        assert_eq!(user("0:5"), Ok((0, Some(5))));
        for text in ["", "root", "1:", ":1", "1:2:3", "-1", "4294967295", "4294967296", "1:x"] {
            assert!(user(text).is_err(), "{text}");
        }
    }
}
