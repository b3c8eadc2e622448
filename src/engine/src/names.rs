//! Names of containers: those users give, and those made up as Docker does, `adjective_surname`.

use crate::Error;

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "apt", "avid", "bold", "brave", "brisk", "calm", "candid", "clever", "cosy", "crisp",
    "daring", "deft", "eager", "early", "fair", "fleet", "fluent", "fond", "frank", "gentle", "glad", "golden",
    "grand", "happy", "hardy", "honest", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky", "merry", "mild",
    "modest", "neat", "nimble", "noble", "patient", "placid", "polite", "prompt", "proud", "quick", "quiet", "ready",
    "serene", "sharp", "silent", "sincere", "smart", "steady", "sunny", "swift", "tidy", "upbeat", "vivid", "warm",
    "wise", "witty",
];

/// People of science and seafaring.
const SURNAMES: [&str; 64] = [
    "abel",
    "amundsen",
    "babbage",
    "banneker",
    "bering",
    "boole",
    "bose",
    "cabot",
    "cannon",
    "cauchy",
    "cook",
    "curie",
    "darwin",
    "drake",
    "earhart",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "franklin",
    "galois",
    "gauss",
    "germain",
    "goodall",
    "hamilton",
    "heyerdahl",
    "hopper",
    "hubble",
    "humboldt",
    "huygens",
    "hypatia",
    "joule",
    "kepler",
    "knuth",
    "kovalevskaya",
    "lamarr",
    "leavitt",
    "leibniz",
    "liskov",
    "lovelace",
    "magellan",
    "mendel",
    "meitner",
    "mirzakhani",
    "nansen",
    "newton",
    "noether",
    "pascal",
    "pasteur",
    "planck",
    "ptolemy",
    "ramanujan",
    "riemann",
    "ritchie",
    "sagan",
    "shannon",
    "somerville",
    "tasman",
    "tesla",
    "thompson",
    "turing",
    "vespucci",
    "volta",
    "wu",
];

/// A name made of `random`; from the second try on with a digit, so that a long list of names still finds a free one.
pub fn generated(random: u64, tries: u32) -> String {
    let adjective = ADJECTIVES[(random % 64) as usize];
    let surname = SURNAMES[(random / 64 % 64) as usize];
    match tries {
        0 => format!("{adjective}_{surname}"),
        _ => format!("{adjective}_{surname}{}", random / 4096 % 10u64.saturating_pow(tries.min(9))),
    }
}

/// # Errors
/// What Docker refuses as a container's, volume's or network's name, in its words.
pub fn check(name: &str) -> Result<&str, Error> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let bare = name.strip_prefix('/').unwrap_or(name);
    match bare.len() >= 2 && bare.bytes().all(good) && bare.as_bytes()[0].is_ascii_alphanumeric() {
        true => Ok(bare),
        false => Err(Error::Name(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(generated(0, 0), "able_abel");
        assert_eq!(generated(63 + 63 * 64, 0), "witty_wu");
        assert_eq!(generated(7 * 4096, 1), "able_abel7");
        for random in 0..4096 {
            check(&generated(random, 0)).unwrap();
        }
        assert_eq!(check("/web").unwrap(), "web");
        for bad in ["", "a", "-ab", "a b", "a/b", ".ab"] {
            assert!(check(bad).unwrap_err().to_string().contains("[a-zA-Z0-9][a-zA-Z0-9_.-]"), "{bad}");
        }
    }
}
