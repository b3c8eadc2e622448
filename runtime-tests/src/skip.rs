//! The one way for a test not to run: it says why, and the reason can be counted.

use std::io::Write as _;

/// Ends the test as skipped: `skip!("needs cgroup v2")`.
///
/// With `CI` set, a test that `skips.allow` does not list fails instead.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        $crate::skipped(std::any::type_name_of_val(&|| ()), &format!($($why)*));
        return;
    }};
}

/// Ends the test as skipped if the runtime under test is the one named, of a version below the one given (`"*"`: any):
/// `known!("runc", "1.2", "domainname is runtime-spec 1.1")`.
#[macro_export]
macro_rules! known {
    ($runtime:literal, $below:literal, $($why:tt)*) => {
        if $crate::known_difference(std::any::type_name_of_val(&|| ()), $runtime, $below, &format!($($why)*)) {
            return;
        }
    };
}

/// Reports a skip; called by [`skip!`].
///
/// # Panics
/// With `CI` set, when the test is not listed in `skips.allow`.
pub fn skipped(place: &str, why: &str) {
    let test = test_name(place);
    tell(test, why);
    let allowed = include_str!("../skips.allow").lines().map(|l| l.split('#').next().unwrap_or_default().trim());
    let listed = allowed.into_iter().any(|l| l == test);
    assert!(listed || std::env::var_os("CI").is_none(), "{test} is not in skips.allow and was skipped: {why}");
}

/// Whether the runtime under test is known to differ here; called by [`known!`]. Another runtime's difference is
/// always permitted: the list of them is the calls themselves. With `RT_RUN_KNOWN` set the test runs all the same, to
/// show that the difference is still there.
#[must_use]
pub fn known_difference(place: &str, name: &str, below: &str, why: &str) -> bool {
    let runtime = crate::runtime();
    let known = std::env::var_os("RT_RUN_KNOWN").is_none()
        && runtime.name == name
        && (below == "*" || runtime.version < version(below));
    if known {
        tell(test_name(place), &format!("known difference of {name} below {below}: {why}"));
    }
    known
}

/// `1.2.3-rc.1` as numbers that compare; what follows the numbers does not count.
pub(crate) fn version(text: &str) -> Vec<u32> {
    let numbers = text.trim().split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
    numbers.split('.').map_while(|n| n.parse().ok()).collect()
}

fn tell(test: &str, why: &str) {
    let line = format!("SKIP {test}: {why}\n");
    // Past libtest's capture, which would show it for failed tests only.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("RT_SKIPS") {
        let file = std::fs::File::options().append(true).create(true).open(path);
        file.and_then(|mut f| f.write_all(line.as_bytes())).expect("append to the file that RT_SKIPS names");
    }
}

/// `mounts::tmpcopyup::{{closure}}` is the test `mounts::tmpcopyup`.
fn test_name(place: &str) -> &str {
    place.split("::{{").next().unwrap_or(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(version("1.1.5+ds1") < version("1.2"));
        assert!(version("1.10") > version("1.9.3"));
        assert_eq!(version("0.1.0"), [0, 1, 0]);
    }

    #[test]
    fn a_place_names_its_test() {
        assert_eq!(test_name("mounts::tmpcopyup::{{closure}}"), "mounts::tmpcopyup");
    }
}
