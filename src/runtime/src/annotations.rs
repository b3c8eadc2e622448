//! `annotations` of config.json that ask this runtime for something the specification has no property for.
//!
//! All begin with `run.rrt.`. One that is not known is an error: whoever misspells `run.rrt.landlock` would otherwise get a
//! container without it.

use crate::error::{Result, config};
use std::collections::BTreeMap;

/// What all of them begin with; `features` names it as potentially unsafe to take from others.
pub const PREFIX: &str = "run.rrt.";

/// What crun's begin with, some of which are acted on; another runtime's unknown ones are no error.
pub const CRUN: &str = "run.oci.";

/// Those that are acted on, sorted.
pub const KNOWN: [&str; 2] = [crate::core_sched::ANNOTATION, crate::landlock::ANNOTATION];

/// How an annotation is called in errors.
pub fn property(name: &str) -> String {
    format!("annotations[{name:?}]")
}

/// Refuses an annotation with our prefix that means nothing.
///
/// # Errors
/// [`crate::Error::Config`], with its name.
pub fn check(annotations: &BTreeMap<String, String>) -> Result<()> {
    // Sorted, so all with the prefix stand together.
    let ours = annotations.range(PREFIX.to_owned()..).map(|(name, _)| name).take_while(|n| n.starts_with(PREFIX));
    match ours.into_iter().find(|name| !KNOWN.contains(&name.as_str())) {
        Some(name) => Err(config(property(name), format!("unknown; there are {}", KNOWN.join(", ")))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_one_is_named() {
        let one = |name: &str| check(&BTreeMap::from([(name.to_owned(), String::new())]));
        assert!(KNOWN.is_sorted());
        let text = one("run.rrt.landlok").unwrap_err().to_string();
        assert!(text.contains(r#"annotations["run.rrt.landlok"]"#) && text.contains("run.rrt.landlock"), "{text}");
        for fine in ["run.rrt.landlock", "run.oci.x", "a", "zz", "run.rrt"] {
            one(fine).unwrap();
        }
    }
}
