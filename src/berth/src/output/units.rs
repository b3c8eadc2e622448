//! Sizes and durations in Docker's words (the rules of github.com/docker/go-units).

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// Four significant digits, powers of 1000: `4.262MB`. Docker's sums and progress.
pub fn human_size(bytes: u64) -> String {
    size(bytes, 4, 1000.0, &DECIMAL)
}

/// Three significant digits: `4.26MB`. Docker's lists.
pub fn human_size_short(bytes: u64) -> String {
    size(bytes, 3, 1000.0, &DECIMAL)
}

/// Four significant digits, powers of 1024: `23.54GiB`. Docker's memory.
pub fn bytes_size(bytes: u64) -> String {
    size(bytes, 4, 1024.0, &BINARY)
}

fn size(bytes: u64, digits: usize, base: f64, units: &[&str]) -> String {
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= base && unit + 1 < units.len() {
        amount /= base;
        unit += 1;
    }
    significant(amount, digits) + units[unit]
}

/// C's `%.Ng`, for what is neither negative nor below 1 (but 0).
fn significant(amount: f64, digits: usize) -> String {
    let scientific = format!("{amount:.*e}", digits - 1);
    let exponent = scientific.split_once('e').and_then(|(_, e)| e.parse::<usize>().ok()).unwrap_or(0);
    if exponent >= digits {
        // 1023.6 GiB of three digits would be 1.02e+03.
        let (mantissa, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
        return format!("{}e+{exponent:02}", without_zeros(mantissa));
    }
    without_zeros(&format!("{amount:.*}", digits - 1 - exponent)).to_owned()
}

fn without_zeros(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

/// How long: `Less than a second`, `About a minute`, `2 weeks`.
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Rounded, as Docker does.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// At most `length` characters, the last of which says that there were more.
pub fn ellipsis(text: &str, length: usize) -> String {
    match text.chars().count() > length {
        true => text.chars().take(length.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        let sizes = [
            (0, "0B", "0B"),
            (1, "1B", "1B"),
            (999, "999B", "999B"),
            (1000, "1kB", "1kB"),
            (1_982_277, "1.98MB", "1.982MB"),
            (4_261_550, "4.26MB", "4.262MB"),
            (77_800_000, "77.8MB", "77.8MB"),
            (999_999, "1e+03kB", "1000kB"),
            (1_060_000_000, "1.06GB", "1.06GB"),
            (u64::MAX, "18.4EB", "18.45EB"),
        ];
        for (bytes, short, long) in sizes {
            assert_eq!((human_size_short(bytes).as_str(), human_size(bytes).as_str()), (short, long), "{bytes}");
        }
        assert_eq!(bytes_size(25_275_604_992), "23.54GiB");
    }

    #[test]
    fn durations_are_dockers() {
        let (minute, hour, day) = (60, 3600, 86400);
        let durations = [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (2 * minute, "2 minutes"),
            (59 * minute + 59, "59 minutes"),
            (hour, "About an hour"),
            (hour + 29 * minute, "About an hour"),
            (hour + 30 * minute, "2 hours"),
            (47 * hour, "47 hours"),
            (2 * day, "2 days"),
            (13 * day, "13 days"),
            (14 * day, "2 weeks"),
            (59 * day, "8 weeks"),
            (60 * day, "2 months"),
            (729 * day, "24 months"),
            (730 * day, "2 years"),
        ];
        for (seconds, text) in durations {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("abc", 3), "abc");
        assert_eq!(ellipsis("äbcd", 3), "äb…");
    }
}
