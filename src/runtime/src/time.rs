//! Times as RFC 3339 text, without a date library (models.md 3.9).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment that prints as `2026-08-19T10:00:00Z`, or with the alternate form (`{:#}`) to the nanosecond.
#[derive(Debug, Clone, Copy)]
pub struct Rfc3339(Duration);

impl Rfc3339 {
    /// Now. A clock before 1970 counts as 1970.
    pub fn now() -> Rfc3339 {
        Rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// A time since 1970.
    pub fn from_unix(since: Duration) -> Rfc3339 {
        Rfc3339(since)
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        let (year, month, day) = civil(secs / 86_400);
        let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if f.alternate() {
            write!(f, ".{:09}", self.0.subsec_nanos())?;
        }
        f.write_str("Z")
    }
}

/// Year, month and day of a number of days since 1970-01-01 (Gregorian).
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is the last day of a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(Rfc3339::from_unix(Duration::from_secs(secs)).to_string(), text);
        }
        assert_eq!(format!("{:#}", Rfc3339::from_unix(Duration::new(1, 7))), "1970-01-01T00:00:01.000000007Z");
    }
}
