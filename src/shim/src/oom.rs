//! News of the kernel's OOM killer at work in a container's cgroup.
//!
//! v1: an eventfd that is written to when the cgroup is out of memory, and when it is removed. v2: `memory.events` is watched, where
//! kills are counted. Both are asked once more before the end of init is told, so that the reason comes before its effect.

use crate::cgroup::{self, Cgroup};
use crate::error::Error;
use crate::log;
use crate::publish::Publisher;
use crate::ready::Fd;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::task::{AbortHandle, spawn_local};

/// A container that is watched.
pub struct Watch {
    id: String,
    dir: PathBuf,
    fd: Fd,
    /// On v2, the kills that have been told of.
    told: Option<Cell<u64>>,
    publisher: Rc<Publisher>,
}

/// Ends the watching when it is dropped.
pub struct Watching {
    watch: Rc<Watch>,
    task: AbortHandle,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watching {
    /// Tells what there is to be told now.
    pub fn look(&self) {
        self.watch.look();
    }
}

/// Begins to watch. A machine without the memory controller has nothing to be watched.
pub fn watch(id: &str, cgroup: &Cgroup, publisher: &Rc<Publisher>) -> Option<Watching> {
    let opened = match cgroup {
        Cgroup::V1(_) => cgroup.v1("memory").map(|dir| (dir.to_owned(), open_v1(dir), None)),
        Cgroup::V2(dir) => {
            let events = dir.join("memory.events");
            events.exists().then(|| (dir.clone(), open_v2(&events), Some(Cell::new(kills(dir)))))
        }
    };
    let (dir, fd, told) = opened?;
    let fd = fd.map_err(|e| Error::system("watch", e)).and_then(Fd::new);
    let fd = fd.inspect_err(|e| log::warn(format_args!("OOM kills of {id} will not be reported: {e}"))).ok()?;
    let watch = Rc::new(Watch { id: id.into(), dir, fd, told, publisher: publisher.clone() });
    let task = spawn_local(run(watch.clone())).abort_handle();
    Some(Watching { watch, task })
}

/// `cgroup.event_control`: "EVENTFD FD-OF-MEMORY.OOM_CONTROL". Documentation/admin-guide/cgroup-v1/memory.rst, 10.
fn open_v1(dir: &Path) -> std::io::Result<OwnedFd> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = std::fs::File::open(dir.join("memory.oom_control"))?;
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    std::fs::write(dir.join("cgroup.event_control"), line)?;
    Ok(event)
}

fn open_v2(events: &Path) -> std::io::Result<OwnedFd> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&fd, events, inotify::WatchFlags::MODIFY)?;
    Ok(fd)
}

fn kills(dir: &Path) -> u64 {
    cgroup::table(dir, "memory.events").get("oom_kill").copied().unwrap_or(0)
}

async fn run(watch: Rc<Watch>) {
    loop {
        if watch.fd.readable().await.is_err() {
            return;
        }
        watch.look();
        if !watch.dir.exists() {
            return;
        }
    }
}

impl Watch {
    fn look(&self) {
        let mut buffer = [0; 512];
        let read = rustix::io::read(self.fd.fd(), &mut buffer).unwrap_or(0);
        match &self.told {
            Some(told) => {
                let now = kills(&self.dir);
                if now > told.replace(now.max(told.get())) {
                    self.publisher.oom(&self.id);
                }
            }
            None if read > 0 && self.dir.exists() => self.publisher.oom(&self.id),
            None => {}
        }
    }
}
