//! A process that the kernel killed for lack of memory while the container was set up, or that got no memory (contract F15).
//!
//! It dies without a word, so the word is found in what its cgroup counts. Only asked after a failure: nothing is watched before.

use crate::error::Error;
use rrt_cgroups::{Cgroup, OomKills};

/// Says of a container's init, killed or refused memory, under which limit that was.
pub fn explain(error: Error, cgroup: &Cgroup) -> Error {
    match (&error, cgroup.oom_kills()) {
        (Error::Killed(_), Some(kills)) if kills.count > 0 => Error::Killed(format!(
            "init was killed by the kernel for lack of memory during setup: {}",
            limit(kills, "raise it")
        )),
        // With its last process gone systemd takes the scope back, and may be faster than we are.
        (Error::Killed(text), None) if cgroup.has_unit() => Error::Killed(format!(
            "{text}; by the kernel for lack of memory (then raise linux.resources.memory.limit), or by somebody who sent it SIGKILL: \
             systemd has already removed the cgroup that would tell"
        )),
        (Error::Killed(text), _) => {
            Error::Killed(format!("{text}; somebody sent it SIGKILL, such as a `delete --force`"))
        }
        (Error::Init(text), Some(kills @ OomKills { limit: Some(_), .. })) if text.contains("ENOMEM") => {
            Error::Init(format!("{text}; {}", limit(kills, "too little for the setup? raise it")))
        }
        (Error::System { doing, source }, Some(kills @ OomKills { limit: Some(_), .. }))
            if source.is(rrt_sys::errno::ENOMEM) =>
        {
            Error::Init(format!("{doing}: {source}; {}", limit(kills, "too little for the setup? raise it")))
        }
        _ => error,
    }
}

/// The same for a process that joins a running container, whose cgroup may have counted others before.
pub fn suspect(error: Error, cgroup: &Cgroup) -> Error {
    match (&error, cgroup.oom_kills()) {
        (Error::Killed(text), Some(kills)) if kills.count > 0 => {
            let count = kills.count;
            Error::Killed(format!(
                "{text}; the kernel has killed {count} process(es) of this container for lack of memory so far: {}",
                limit(kills, "raise it if that is why")
            ))
        }
        _ => error,
    }
}

fn limit(kills: OomKills, cure: &str) -> String {
    match kills.limit {
        Some(bytes) => format!("linux.resources.memory.limit is {bytes}; {cure}"),
        None => "linux.resources.memory.limit is not set, so a cgroup above it, or the machine, had no more".into(),
    }
}
