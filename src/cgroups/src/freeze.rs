//! Freezing and thawing.

use crate::cgroup::{Group, NO_CGROUP};
use crate::dir::{Deadline, Dir};
use crate::error::Doing;
use crate::{Cgroup, Error, Version};
use rrt_sys::OFlags;
use std::time::Duration;

pub use crate::cgroup::FreezerState;

const FREEZE: &str = "freeze the container";
const THAW: &str = "thaw the container";
const STATE: &str = "read whether the container is frozen";

impl Cgroup {
    /// The hierarchy that freezes: v1's freezer where there is one, as in runc, so that what others read of it is true.
    fn freezer(&self, what: &'static str) -> Result<&Group, Error> {
        let group = self.v1("freezer").or_else(|| self.unified());
        group.ok_or(Error::Unavailable {
            what,
            reason: if self.is_disabled() { NO_CGROUP } else { "this machine has no freezer cgroup controller" },
        })
    }

    /// The directory that freezes, for others to do it; `None` where there is no freezer.
    pub fn freezer_dir(&self) -> Option<std::path::PathBuf> {
        self.freezer(FREEZE).ok().map(|group| group.dir.clone())
    }

    /// Stops every process of the container and returns when none runs any more.
    ///
    /// # Errors
    /// [`Error::Timeout`] when some still runs after `timeout` (a process in an uninterruptible wait, as on a dead NFS
    /// server); then all of them are thawed again. [`Error::Unavailable`], [`Error::Call`].
    pub fn freeze(&self, timeout: Duration) -> Result<(), Error> {
        let group = self.freezer("pause the container")?;
        let dir = Dir::open(&group.dir).doing(FREEZE)?;
        let deadline = Deadline::after(timeout);
        match group.version {
            Version::V1 => freeze_v1(&dir, deadline),
            Version::V2 => freeze_v2(&dir, deadline),
        }
    }

    /// Lets the processes of the container run again.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Call`].
    pub fn thaw(&self) -> Result<(), Error> {
        let group = self.freezer("resume the container")?;
        let dir = Dir::open(&group.dir).doing(THAW)?;
        thaw(&dir, group.version)
    }

    /// Whether the container is frozen.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Parse`].
    pub fn freezer_state(&self) -> Result<FreezerState, Error> {
        // Without freezer nothing can be frozen; without directory there is nothing.
        let Ok(group) = self.freezer(STATE) else { return Ok(FreezerState::Thawed) };
        let dir = match Dir::open(&group.dir) {
            Err(e) if e.is(libc::ENOENT) => return Ok(FreezerState::Thawed),
            done => done.doing(STATE)?,
        };
        match group.version {
            Version::V1 => v1_state(&dir),
            Version::V2 => v2_state(&dir),
        }
    }
}

fn thaw(dir: &Dir, version: Version) -> Result<(), Error> {
    match version {
        Version::V1 => dir.write("freezer.state", "THAWED"),
        Version::V2 => dir.write("cgroup.freeze", "0"),
    }
    .doing(THAW)
}

/// Runs a freeze and thaws when it fails: a half frozen container is neither running nor paused.
fn or_thaw(dir: &Dir, version: Version, frozen: Result<(), Error>) -> Result<(), Error> {
    if frozen.is_err() {
        // The error that made the freeze fail is the one to report.
        let _ = thaw(dir, version);
    }
    frozen
}

pub(crate) fn freeze_v2(dir: &Dir, deadline: Deadline) -> Result<(), Error> {
    dir.write("cgroup.freeze", "1").doing(FREEZE)?;
    or_thaw(dir, Version::V2, wait_event(dir, "frozen 1", FREEZE, deadline))
}

/// Waits until cgroup.events has the line `event`: the kernel wakes a poll(2) on the file when one of its values changes.
pub(crate) fn wait_event(dir: &Dir, event: &'static str, doing: &'static str, deadline: Deadline) -> Result<(), Error> {
    const EVENTS: &str = "cgroup.events";
    let file = dir.open_file(EVENTS, OFlags::RDONLY).doing(doing)?;
    loop {
        // Read before the wait: poll reports a change since the last read.
        let text = dir.reread(&file, EVENTS).doing(doing)?;
        if text.lines().any(|line| line == event) {
            return Ok(());
        }
        if deadline.passed() {
            return Err(Error::Timeout { doing, event, path: dir.path().join(EVENTS), after: deadline.length });
        }
        deadline.wait_changed(&file).doing(doing)?;
    }
}

/// The value of a `key value` line.
pub(crate) fn lookup<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// How long a v1 freeze waits before it looks again, at first and at most. Each look is a write and a read, some 10 µs.
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const LAST_PAUSE: Duration = Duration::from_millis(5);

/// v1 tells nobody when it has frozen a cgroup; the state has to be read again. Nearly always the first or second look
/// finds it frozen, so the pauses between looks begin very short and grow. Each look writes FROZEN anew, which catches
/// the processes that were born meanwhile and the kernel overlooked.
fn freeze_v1(dir: &Dir, deadline: Deadline) -> Result<(), Error> {
    or_thaw(dir, Version::V1, try_freeze_v1(dir, deadline))
}

fn try_freeze_v1(dir: &Dir, deadline: Deadline) -> Result<(), Error> {
    let mut pause = FIRST_PAUSE;
    loop {
        dir.write("freezer.state", "FROZEN").doing(FREEZE)?;
        let state = dir.read("freezer.state").doing(FREEZE)?;
        match state.trim_end() {
            "FROZEN" => return Ok(()),
            "FREEZING" if deadline.passed() => {
                let path = dir.path().join("freezer.state");
                return Err(Error::Timeout { doing: FREEZE, event: "FROZEN", path, after: deadline.length });
            }
            "FREEZING" => {
                deadline.pause(pause).doing(FREEZE)?;
                pause = (pause * 2).min(LAST_PAUSE);
            }
            _ => return Err(Error::Parse { path: dir.path().join("freezer.state"), text: state }),
        }
    }
}

pub(crate) fn v1_state(dir: &Dir) -> Result<FreezerState, Error> {
    let file = "freezer.state";
    let Some(state) = dir.read_if_there(file).doing(STATE)? else { return Ok(FreezerState::Thawed) };
    let frozen = match state.trim_end() {
        "THAWED" => return Ok(FreezerState::Thawed),
        "FREEZING" => FreezerState::Freezing,
        "FROZEN" => FreezerState::Frozen,
        _ => return Err(Error::Parse { path: dir.path().join(file), text: state }),
    };
    // 0: only because of a cgroup above, which thawing this one would not change.
    let own = dir.read_if_there("freezer.self_freezing").doing(STATE)?;
    Ok(if own.is_some_and(|own| own.trim_end() == "0") { FreezerState::Thawed } else { frozen })
}

pub(crate) fn v2_state(dir: &Dir) -> Result<FreezerState, Error> {
    let asked = dir.read_if_there("cgroup.freeze").doing(STATE)?;
    if asked.is_none_or(|asked| asked.trim_end() == "0") {
        return Ok(FreezerState::Thawed);
    }
    let events = dir.read_if_there("cgroup.events").doing(STATE)?.unwrap_or_default();
    Ok(if lookup(&events, "frozen") == Some("1") { FreezerState::Frozen } else { FreezerState::Freezing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeDir;

    #[test]
    fn a_freeze_that_never_ends_is_taken_back() {
        let fake = FakeDir::new("freeze", &[("cgroup.freeze", "0"), ("cgroup.events", "populated 1\nfrozen 0\n")]);
        let end = Deadline::after(Duration::ZERO);
        let text = freeze_v2(&fake.open(), end).unwrap_err().to_string();
        assert!(text.starts_with("freeze the container: `frozen 1` did not come within"), "{text}");
        assert_eq!(fake.content("cgroup.freeze"), "0");
    }

    #[test]
    fn states_of_v2() {
        for (freeze, events, state) in [
            ("0\n", "frozen 0\n", FreezerState::Thawed),
            ("1\n", "populated 1\nfrozen 0\n", FreezerState::Freezing),
            ("1\n", "populated 1\nfrozen 1\n", FreezerState::Frozen),
        ] {
            let fake = FakeDir::new("state", &[("cgroup.freeze", freeze), ("cgroup.events", events)]);
            assert_eq!(v2_state(&fake.open()).unwrap(), state);
        }
    }

    #[test]
    fn states_of_v1() {
        for (own, file, state) in [
            ("1\n", "THAWED\n", FreezerState::Thawed),
            ("1\n", "FREEZING\n", FreezerState::Freezing),
            ("1\n", "FROZEN\n", FreezerState::Frozen),
            ("0\n", "FROZEN\n", FreezerState::Thawed),
        ] {
            let fake = FakeDir::new("state1", &[("freezer.state", file), ("freezer.self_freezing", own)]);
            assert_eq!(v1_state(&fake.open()).unwrap(), state);
        }
        let fake = FakeDir::new("state1", &[("freezer.state", "MELTING\n")]);
        assert!(v1_state(&fake.open()).is_err());
    }
}
