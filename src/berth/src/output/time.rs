//! Points in time as Docker's lists show them. All in UTC, which Docker's are only where the machine's zone is.

use super::units::human_duration;
use rrt_images::time::Time;

/// Go's zero time, which an image that does not say when it was made has.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `2 weeks ago`.
pub fn age(made: Option<Time>, now: Time) -> String {
    match made.filter(|made| Some(*made) != Time::parse(NEVER)) {
        Some(made) => human_duration(now.seconds.saturating_sub(made.seconds)) + " ago",
        None => "N/A".to_owned(),
    }
}

/// To the second: `2026-11-24T16:21:37Z`.
pub fn rfc3339(made: Option<Time>) -> String {
    made.map_or_else(|| NEVER.to_owned(), |made| Time { nanoseconds: 0, ..made }.rfc3339())
}

/// `2026-11-24 16:21:37 +0000 UTC`.
pub fn zoned(made: Option<Time>) -> String {
    rfc3339(made).replace('T', " ").replace('Z', " +0000 UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dockers() {
        let made = Time::parse("2026-11-24T16:21:37.387Z");
        let now = Time::parse("2026-12-10T16:21:37Z").unwrap();
        assert_eq!((age(made, now).as_str(), age(None, now).as_str()), ("2 weeks ago", "N/A"));
        assert_eq!(age(Time::parse(NEVER), now), "N/A");
        assert_eq!(zoned(made), "2026-11-24 16:21:37 +0000 UTC");
        assert_eq!(zoned(None), "0001-01-01 00:00:00 +0000 UTC");
        assert_eq!(rfc3339(made), "2026-11-24T16:21:37Z");
    }
}
