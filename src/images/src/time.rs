//! Points in time: RFC 3339, as the documents have them, and the durations that Docker's `until` filter takes.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds and nanoseconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999, always after `seconds`.
    pub nanoseconds: u32,
}

impl Time {
    /// The present.
    pub fn now() -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time { seconds: since.as_secs() as i64, nanoseconds: since.subsec_nanos() }
    }

    /// `2026-11-24T16:01:40.5Z`, `…+01:00`; `None` for anything else. The year has four digits.
    pub fn parse(text: &str) -> Option<Time> {
        let (date, clock) = text.split_once(['T', 't'])?;
        let days = days_of(date)?;
        let zone_at = clock.find(['Z', 'z', '+', '-'])?;
        let (clock, zone) = clock.split_at(zone_at);
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
        let offset = match zone {
            "Z" | "z" => 0,
            _ => {
                let [hours, minutes] = numbers(&zone[1..], ':', [2, 2])?;
                (hours * 60 + minutes) * if zone.starts_with('-') { -60 } else { 60 }
            }
        };
        if hour > 23 || minute > 59 || second > 60 || fraction.is_empty() {
            return None;
        }
        let digits = fraction.bytes().all(|b| b.is_ascii_digit()).then_some(&fraction[..fraction.len().min(9)])?;
        let nanoseconds = format!("{digits:0<9}").parse().ok()?;
        Some(Time { seconds: days * 86400 + hour * 3600 + minute * 60 + second - offset, nanoseconds })
    }

    /// What Docker's `until` takes: seconds since 1970, RFC 3339, a date with or without a clock (UTC), or how long ago it was
    /// (`24h`, `1h30m`).
    pub fn parse_until(text: &str, now: Time) -> Option<Time> {
        if let Some(ago) = duration(text) {
            return Some(Time { seconds: now.seconds.checked_sub(ago)?, ..now });
        }
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if let (Ok(seconds), Ok(_)) = (seconds.parse(), fraction.parse::<u64>()) {
            return Some(Time { seconds, nanoseconds: 0 });
        }
        let whole = match text.split_once('T') {
            None => format!("{text}T00:00:00Z"),
            Some((date, clock)) => {
                let zone = clock.find(['Z', '+', '-']).unwrap_or(clock.len());
                let filled =
                    clock[..zone].to_owned() + &":00".repeat(2usize.saturating_sub(clock[..zone].matches(':').count()));
                format!("{date}T{filled}{}", if zone == clock.len() { "Z" } else { &clock[zone..] })
            }
        };
        Time::parse(&whole)
    }

    /// RFC 3339 in UTC, with as many digits of the fraction as it needs.
    pub fn rfc3339(self) -> String {
        let (days, second) = (self.seconds.div_euclid(86400), self.seconds.rem_euclid(86400));
        let (year, month, day) = date_of(days);
        let clock = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
        let fraction = match self.nanoseconds {
            0 => String::new(),
            n => format!(".{n:09}").trim_end_matches('0').to_owned(),
        };
        format!("{year:04}-{month:02}-{day:02}T{clock}{fraction}Z")
    }
}

/// Numbers of exactly these many digits.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut found = [0; N];
    for (place, digits) in found.iter_mut().zip(digits) {
        let part = parts.next().filter(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_digit()))?;
        *place = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// Days since 1970 of a date of the Gregorian calendar, counted from March so that the leap day is a year's last.
fn days_of(date: &str) -> Option<i64> {
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    Some(y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468)
}

/// The reverse of [`days_of`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let m = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * m + 2) / 5 + 1, if m < 10 { m + 3 } else { m - 9 });
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// Go's durations, in whole seconds: `72h`, `1h30m`, `90s`.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(unit_at);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let unit = match &after[..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = &after[unit_end..];
    }
    (!text.is_empty()).then_some(seconds as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time() {
        let seconds = |text: &str| Time::parse(text).map(|t| t.seconds);
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:00:00+01:00"), Some(951_822_000));
        assert_eq!(seconds("1969-12-31T23:59:59Z"), Some(-1));
        assert_eq!(seconds("2026-11-24T16:01:40-00:30"), Some(1_795_537_900));
        assert_eq!(Time::parse("1970-01-01T00:00:00.0123Z").unwrap().nanoseconds, 12_300_000);
        assert_eq!(Time::parse("1970-01-01T00:00:00.1234567891Z").unwrap().nanoseconds, 123_456_789);
        for bad in [
            "",
            "1970-01-01",
            "1970-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.Z",
            "1970-1-01T00:00:00Z",
            "1970-01-01T00:00:00+1:00",
            "1970-13-01T00:00:00Z",
        ] {
            assert_eq!(Time::parse(bad), None, "{bad}");
        }
        for text in
            ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00.5Z", "2024-02-29T23:59:59.000000001Z", "9999-12-31T00:00:00Z"]
        {
            assert_eq!(Time::parse(text).unwrap().rfc3339(), text);
        }
    }

    #[test]
    fn until() {
        let now = Time { seconds: 1_000_000, nanoseconds: 0 };
        let seconds = |text: &str| Time::parse_until(text, now).map(|t| t.seconds);
        assert_eq!(seconds("24h"), Some(1_000_000 - 86400));
        assert_eq!(seconds("1h30m0.5s"), Some(1_000_000 - 5400));
        assert_eq!(seconds("86400"), Some(86400));
        assert_eq!(seconds("86400.25"), Some(86400));
        assert_eq!(seconds("1970-01-02"), Some(86400));
        assert_eq!(seconds("1970-01-02T01"), Some(90000));
        assert_eq!(seconds("1970-01-02T01:00"), Some(90000));
        assert_eq!(seconds("1970-01-02T01:00:00+01:00"), Some(86400));
        for bad in ["", "yesterday", "1d", "h", "-"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
