//! `ps`: the pids of a container as JSON, or the host's ps(1) cut down to them.

use super::{Failure, json, print};
use crate::args::Format;
use rrt_runtime::{Error, Runtime};
use std::ffi::OsString;
use std::process::{Command, Stdio};

/// Prints the processes of container `id`; `args` are options of ps(1), `-ef` if there are none.
pub fn run(runtime: &Runtime, id: &str, format: Format, args: &[OsString]) -> Result<u8, Failure> {
    let pids = runtime.ps(id)?;
    if format == Format::Json {
        let mut out = json(&pids);
        out.push(b'\n');
        return print(&out);
    }
    print(filter(&host_ps(args)?, &pids).map_err(Error::Usage)?.as_bytes())
}

fn host_ps(args: &[OsString]) -> Result<String, Error> {
    let default = [OsString::from("-ef")];
    let args = if args.is_empty() { &default } else { args };
    let output = Command::new("ps").args(args).stdin(Stdio::null()).output().map_err(|source| {
        // ps is a package of its own, missing on small hosts; the JSON form does without it.
        Error::Io { doing: "run the host's ps (install procps, or use --format json)".into(), source }
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Usage(format!("ps {args:?}: {}: {}", output.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Keeps the header and the lines whose PID column is in `pids`.
fn filter(table: &str, pids: &[i32]) -> Result<String, String> {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or("the output of ps has no PID column: give options that print one, like -ef")?;
    let mut out = format!("{header}\n");
    for line in lines {
        // A column before PID can be empty on a line (a label); such a line shows no number there and is not ours.
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "UID          PID    PPID CMD\nroot           1       0 init 12\nme            12       1 sh\n\n";

    #[test]
    fn only_the_pid_column_counts() {
        assert_eq!(filter(TABLE, &[12, 99]), Ok("UID          PID    PPID CMD\nme            12       1 sh\n".into()));
        assert_eq!(filter(TABLE, &[]), Ok("UID          PID    PPID CMD\n".into()));
    }

    #[test]
    fn the_column_may_stand_anywhere_but_must_be_there() {
        assert_eq!(filter("CMD PID\nsh 7\n", &[7]), Ok("CMD PID\nsh 7\n".into()));
        assert!(filter("CMD\nsh\n", &[7]).is_err());
        assert!(filter("", &[7]).is_err());
    }
}
