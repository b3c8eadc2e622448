//! In place of the `regex` crate, which `oci-spec` links for a single expression, that of `process.execCPUAffinity`: the engine and its
//! Unicode tables were a sixth of the runtime's binary (src/runtime/PERFORMANCE.md). This knows that expression, and refuses any other.

#![forbid(unsafe_code)]

/// The expression of `oci-spec` 0.10 for a list of CPUs: numbers and ranges, with commas between them.
const CPU_LIST: &str = r"^(\d+(-\d+)?)(,\d+(-\d+)?)*$";

/// A compiled expression.
#[derive(Debug)]
pub struct Regex(());

/// An expression that is not known here.
#[derive(Debug)]
pub struct Unknown(());

impl Regex {
    /// The expression for a list of CPUs.
    ///
    /// # Errors
    /// Any other expression.
    pub fn new(expression: &str) -> Result<Regex, Unknown> {
        if expression == CPU_LIST { Ok(Regex(())) } else { Err(Unknown(())) }
    }

    /// Whether `text` is a list of CPUs, as `0-3,7`.
    pub fn is_match(&self, text: &str) -> bool {
        let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        text.split(',').all(|range| match range.split_once('-') {
            Some((first, last)) => number(first) && number(last),
            None => number(range),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        let list = Regex::new(CPU_LIST).unwrap();
        for good in ["0", "0-3", "0-3,7", "1,2,3", "10-11,12-13"] {
            assert!(list.is_match(good), "{good}");
        }
        for bad in ["", ",", "0,", "a", "0-", "-1", "0-1-2", "0 ", "0,,1", "\u{0661}"] {
            assert!(!list.is_match(bad), "{bad:?}");
        }
        Regex::new("a").unwrap_err();
    }
}
