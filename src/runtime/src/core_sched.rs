//! `run.rrt.core-sched`: a core scheduling cookie for the container, so that no other's process runs on the sibling threads of
//! its cores at the same time (the kernel's core-scheduling.rst: against L1TF, MDS and the like, without switching SMT off).
//!
//! Without the annotation a container inherits its caller's cookie, which is how containerd's `SCHED_CORE` works for pods.

use crate::annotations::property;
use crate::error::{Error, Result, config};
use crate::state::Init;
use rrt_sys::{SysError, errno, limits, process};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

/// The annotation's name; its value is `true` or `false`.
pub const ANNOTATION: &str = "run.rrt.core-sched";

/// Whether the container gets a cookie of its own.
///
/// # Errors
/// [`Error::Config`] for a value that is neither.
pub fn plan(annotations: &BTreeMap<String, String>) -> Result<bool> {
    match annotations.get(ANNOTATION).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(config(property(ANNOTATION), format!("{other:?} is neither \"true\" nor \"false\""))),
    }
}

/// Child of `create`: a new cookie, which everything in the container will inherit.
pub fn create() -> Result<()> {
    limits::new_core_cookie().map_err(failed)
}

/// Child of `exec`, which is not init's: init's cookie. `container` is init's pidfd.
pub fn share(init: Init, container: BorrowedFd<'_>) -> Result<()> {
    limits::share_core_cookie(init.pid).map_err(failed)?;
    // The call takes a number. If init lives now, it was init's when the call was made.
    process::send_signal(container, 0).map_err(|_| Error::Status("container not running".into()))
}

fn failed(source: SysError) -> Error {
    let hint = match source.errno() {
        errno::ENODEV => {
            "this machine has no SMT, or has it switched off: there is no sibling thread to keep others from"
        }
        errno::EINVAL => "this kernel has no core scheduling (CONFIG_SCHED_CORE, Linux 5.14)",
        _ => "it needs the right to look into the process (CAP_SYS_PTRACE)",
    };
    config(property(ANNOTATION), format!("{source}; {hint}; remove the annotation"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn true_and_false() {
        let given = |value: &str| plan(&BTreeMap::from([(ANNOTATION.to_owned(), value.to_owned())]));
        assert!(!plan(&BTreeMap::new()).unwrap() && given("true").unwrap() && !given("false").unwrap());
        let text = given("yes").unwrap_err().to_string();
        assert!(text.starts_with(r#"annotations["run.rrt.core-sched"]: "yes""#), "{text}");
    }
}
