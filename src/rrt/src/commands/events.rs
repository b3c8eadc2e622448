//! `events`: statistics and OOM kills of a container, one JSON object a line, as go-runc reads them.

use super::{Failure, json, print};
use rrt_runtime::{Error, OomNews, OomWatch, Runtime, Status};
use rrt_sys::socket::poll_readable;
use serde::Serialize;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// A line of output. `data` is runc's `types.Stats` (contract A.9).
#[derive(Serialize)]
struct Event<'a, T> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
}

/// Prints statistics once, or every `interval` with the OOM kills between, until the container ends.
pub fn run(runtime: &Runtime, id: &str, interval: Duration, once: bool) -> Result<u8, Failure> {
    if once {
        return print_line("stats", id, Some(runtime.stats(id)?));
    }
    if runtime.state(id)?.status == Status::Stopped {
        return Err(Error::Status(format!("container with id {id} is not running")).into());
    }
    let mut watch = runtime.oom_watch(id)?;
    let mut due = Instant::now() + interval;
    loop {
        if wait(&watch, due)? {
            match watch.read().map_err(Error::from)? {
                OomNews::Gone => return Ok(0),
                OomNews::Events(count) => {
                    for _ in 0..count {
                        print_line("oom", id, None::<()>)?;
                    }
                }
            }
        }
        if Instant::now() >= due {
            let stats = runtime.stats(id);
            // Asked afterwards: a container that ends in between has no statistics, which is no failure. On v1 the watch
            // sees only the removal of the cgroup, so this is also where the end is noticed there.
            if has_ended(runtime, id) {
                return Ok(0);
            }
            print_line("stats", id, Some(stats?))?;
            due += interval;
        }
    }
}

/// Waits until the watch has something to say or `due` has come; tells whether it was the watch.
fn wait(watch: &OomWatch, due: Instant) -> Result<bool, Error> {
    // Rounded up, so as not to spin through the last millisecond. What is longer than poll(2) can say is waited in parts.
    let left = due.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
    let readable = poll_readable(&[watch.as_fd()], i32::try_from(left).unwrap_or(i32::MAX))
        .map_err(|source| Error::System { doing: "wait for events of the container".into(), source })?;
    Ok(readable.contains(&true))
}

fn has_ended(runtime: &Runtime, id: &str) -> bool {
    match runtime.state(id) {
        Ok(report) => report.status == Status::Stopped,
        Err(error) => matches!(error, Error::NotFound(_)),
    }
}

fn print_line<T: Serialize>(kind: &str, id: &str, data: Option<T>) -> Result<u8, Failure> {
    print(&line(kind, id, data))
}

fn line<T: Serialize>(kind: &str, id: &str, data: Option<T>) -> Vec<u8> {
    let mut line = json(&Event { r#type: kind, id, data });
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_type_id_and_data() {
        assert_eq!(line("stats", "c", Some([1])), b"{\"type\":\"stats\",\"id\":\"c\",\"data\":[1]}\n");
        assert_eq!(line("oom", "c", None::<()>), b"{\"type\":\"oom\",\"id\":\"c\"}\n");
    }
}
