//! Being told when the container runs out of memory.

use crate::cgroup::NO_CGROUP;
use crate::dir::Dir;
use crate::error::Doing;
use crate::freeze::lookup;
use crate::{Cgroup, Error, Version};
use rrt_sys::{OFlags, SysError};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const WATCH: &str = "watch the container for out-of-memory events";

/// A watch on the container's memory: poll its fd for reading, then ask it.
#[derive(Debug)]
pub struct OomWatch {
    /// v1: the eventfd the kernel counts in; v2: an inotify instance. Both non-blocking.
    wakeup: OwnedFd,
    dir: Dir,
    version: Version,
    /// v2: kills reported so far.
    seen: u64,
}

/// What an [`OomWatch`] has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomNews {
    /// So many times since the last answer the container ran out of memory (v1), or a process of it was killed for
    /// that (v2). May be 0.
    Events(u64),
    /// The container has ended: no process is left (v2), or its cgroup is removed.
    Gone,
}

impl Cgroup {
    /// Begins to watch: v1 by an eventfd registered in `cgroup.event_control` (kernel's cgroup-v1/memory.rst), v2 by
    /// inotify on `memory.events`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without memory controller; [`Error::Call`].
    pub fn oom_watch(&self) -> Result<OomWatch, Error> {
        let v2 = self.unified().filter(|g| g.controllers.iter().any(|c| c == "memory"));
        let group = self.v1("memory").or(v2).ok_or(Error::Unavailable {
            what: "watch for out-of-memory events",
            reason: if self.is_disabled() { NO_CGROUP } else { "this machine has no memory cgroup controller" },
        })?;
        let dir = Dir::open(&group.dir).doing(WATCH)?;
        let wakeup = match group.version {
            Version::V1 => watch_v1(&dir),
            Version::V2 => watch_v2(&dir),
        };
        let mut watch = OomWatch { wakeup: wakeup.doing(WATCH)?, dir, version: group.version, seen: 0 };
        if watch.version == Version::V2 {
            watch.seen = watch.kills()?.unwrap_or(0);
        }
        Ok(watch)
    }
}

/// What a memory cgroup says after something in it was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomKills {
    /// How many of its processes the kernel has killed for lack of memory.
    pub count: u64,
    /// Its own limit in bytes; `None`: it has none, and a cgroup above it, or the machine, had no more.
    pub limit: Option<u64>,
}

impl Cgroup {
    /// How many processes of the container the kernel has killed for lack of memory, and under which limit. `None` without memory
    /// controller, and where the kernel does not count (v1 before Linux 4.13).
    pub fn oom_kills(&self) -> Option<OomKills> {
        let v2 = self.unified().filter(|g| g.controllers.iter().any(|c| c == "memory"));
        let group = self.v1("memory").or(v2)?;
        let (events, limit) = match group.version {
            Version::V1 => ("memory.oom_control", "memory.limit_in_bytes"),
            Version::V2 => ("memory.events", "memory.max"),
        };
        let dir = Dir::open(&group.dir).ok()?;
        let count = lookup(&dir.read(events).ok()?, "oom_kill")?.parse().ok()?;
        // v1 has no word for "none", only the greatest number of pages.
        let limit = dir.read(limit).ok().and_then(|t| t.trim_end().parse().ok()).filter(|l| *l < i64::MAX as u64 / 2);
        Some(OomKills { count, limit })
    }
}

fn watch_v1(dir: &Dir) -> rrt_sys::Result<OwnedFd> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|e| SysError::new("eventfd2", e.raw_os_error()))?;
    let control = dir.open_file("memory.oom_control", OFlags::RDONLY)?;
    // The kernel holds on to both itself; the second fd may go when this returns.
    dir.write("cgroup.event_control", &format!("{} {}", event.as_raw_fd(), control.as_raw_fd()))?;
    Ok(event)
}

fn watch_v2(dir: &Dir) -> rrt_sys::Result<OwnedFd> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
        .map_err(|e| SysError::new("inotify_init1", e.raw_os_error()))?;
    // The removal of a cgroup is no inotify event, but its last process's end changes cgroup.events.
    for file in ["memory.events", "cgroup.events"] {
        let path = dir.path().join(file);
        inotify::add_watch(&watch, &path, WatchFlags::MODIFY)
            .map_err(|e| SysError::new(format!("inotify_add_watch({path:?}, IN_MODIFY)"), e.raw_os_error()))?;
    }
    Ok(watch)
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }
}

impl OomWatch {
    /// What has happened since the last answer; never waits.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Parse`].
    pub fn read(&mut self) -> Result<OomNews, Error> {
        let count = self.drain().doing(WATCH)?;
        match self.version {
            Version::V1 => {
                // The kernel counts the cgroup's removal in, too.
                let there = self.dir.read_if_there("memory.oom_control").doing(WATCH)?.is_some();
                Ok(if there { OomNews::Events(count) } else { OomNews::Gone })
            }
            Version::V2 => self.read_v2(),
        }
    }

    fn read_v2(&mut self) -> Result<OomNews, Error> {
        let Some(kills) = self.kills()? else { return Ok(OomNews::Gone) };
        if kills > self.seen {
            let new = kills - self.seen;
            self.seen = kills;
            return Ok(OomNews::Events(new));
        }
        // After the kills: the last process's end may be one of them.
        let events = self.dir.read_if_there("cgroup.events").doing(WATCH)?;
        let ended = events.is_none_or(|e| lookup(&e, "populated") == Some("0"));
        Ok(if ended { OomNews::Gone } else { OomNews::Events(0) })
    }

    /// v2: the kills in the container so far; `None` when its cgroup is gone.
    fn kills(&self) -> Result<Option<u64>, Error> {
        let file = "memory.events";
        let Some(text) = self.dir.read_if_there(file).doing(WATCH)? else { return Ok(None) };
        match lookup(&text, "oom_kill").and_then(|n| n.parse().ok()) {
            Some(kills) => Ok(Some(kills)),
            None => Err(Error::Parse { path: self.dir.path().join(file), text }),
        }
    }

    /// Takes what made the fd readable away, and returns an eventfd's count.
    fn drain(&self) -> rrt_sys::Result<u64> {
        let mut buffer = [0u8; 4096];
        let mut count = 0;
        loop {
            match rustix::io::read(&self.wakeup, &mut buffer) {
                Ok(n) if self.version == Version::V1 => {
                    if let Some(Ok(bytes)) = buffer.get(..n).map(<[u8; 8]>::try_from) {
                        count += u64::from_ne_bytes(bytes);
                    }
                }
                Ok(0) | Err(Errno::AGAIN) => return Ok(count),
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(SysError::new("read", e.raw_os_error())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Group;
    use crate::testing::FakeDir;

    #[test]
    fn kills_come_with_the_limit() {
        let oom = |version, files: &[(&str, &str)]| {
            let fake = FakeDir::new("kills", files);
            Cgroup {
                groups: vec![Group { version, controllers: vec!["memory".into()], dir: fake.path().into() }],
                unit: None,
                made: Vec::new(),
            }
            .oom_kills()
        };
        let v2 = oom(Version::V2, &[("memory.events", "oom 3\noom_kill 2\n"), ("memory.max", "4096\n")]);
        assert_eq!(v2, Some(OomKills { count: 2, limit: Some(4096) }));
        let control = ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
        let v1 = oom(Version::V1, &[control, ("memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(v1, Some(OomKills { count: 1, limit: None }));
        assert_eq!(oom(Version::V1, &[("memory.oom_control", "under_oom 0\n")]), None);
    }

    #[test]
    fn v2_counts_kills_and_sees_the_end() {
        let fake = FakeDir::new(
            "oom",
            &[("memory.events", "low 0\noom 3\noom_kill 3\n"), ("cgroup.events", "populated 1\nfrozen 0\n")],
        );
        let group = Group { version: Version::V2, controllers: vec!["memory".into()], dir: fake.path().into() };
        let mut watch = Cgroup { groups: vec![group], unit: None, made: Vec::new() }.oom_watch().unwrap();
        assert_eq!(watch.read().unwrap(), OomNews::Events(0));
        fake.open().write("memory.events", "low 0\noom 5\noom_kill 5\n").unwrap();
        assert_eq!(watch.read().unwrap(), OomNews::Events(2));
        assert_eq!(watch.read().unwrap(), OomNews::Events(0));
        fake.open().write("cgroup.events", "populated 0\nfrozen 0\n").unwrap();
        assert_eq!(watch.read().unwrap(), OomNews::Gone);
    }
}
