//! An ordinary user's namespace: in it he is root and has the ids that /etc/subuid and /etc/subgid lend him, so that an image's files
//! have the owners that it says, and can be deleted again. The process enters it itself; nothing is forked.

use nix::sched::{CloneFlags, unshare};
use rustix::process::{getegid, geteuid};
use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// How an ordinary user unpacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// He is root of the machine, or of a namespace around us.
    Root,
    /// A namespace with the ranges lent to him.
    Lent,
    /// With his own ids alone, in a namespace.
    Own,
    /// The kernel allows no namespace.
    None,
}

/// A range of ids lent: the first, and how many.
type Range = (u32, u32);

/// Enters the namespace; no thread may run beside. Root stays where he is.
pub fn enter() -> io::Result<Ids> {
    if geteuid().is_root() {
        return Ok(Ids::Root);
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = name_of(&passwd, uid).unwrap_or_default();
    let lent = |file: &str| range_of(&fs::read_to_string(file).unwrap_or_default(), name, uid);
    match (lent("/etc/subuid"), lent("/etc/subgid")) {
        (Some(uids), Some(gids)) => with_ranges(uid, gid, uids, gids),
        _ => with_own(uid, gid),
    }
}

/// newuidmap and newgidmap write the maps, from outside: a shell that was started before waits for us to be inside.
fn with_ranges(uid: u32, gid: u32, uids: Range, gids: Range) -> io::Result<Ids> {
    let map = |program: &str, own: u32, lent: Range| {
        format!("{program} {} 0 {own} 1 1 {} {}", std::process::id(), lent.0, lent.1)
    };
    let script = format!("read -r go && {} && {}", map("newuidmap", uid, uids), map("newgidmap", gid, gids));
    let mut helper =
        Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).is_err() {
        drop(helper.stdin.take());
        helper.wait()?;
        return Ok(Ids::None);
    }
    let mut stdin = helper.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    stdin.write_all(b"go\n")?;
    drop(stdin);
    let done = helper.wait_with_output()?;
    match done.status.success() {
        true => Ok(Ids::Lent),
        false => Err(io::Error::other(format!(
            "newuidmap and newgidmap (Debian's package uidmap) did not map the ids of /etc/subuid and /etc/subgid: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        ))),
    }
}

fn with_own(uid: u32, gid: u32) -> io::Result<Ids> {
    if unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).is_err() {
        return Ok(Ids::None);
    }
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    Ok(Ids::Own)
}

/// passwd(5).
fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(uid)).map(|fields| fields[0])
}

/// subuid(5): the first line for the user's name or number.
fn range_of(file: &str, name: &str, uid: u32) -> Option<Range> {
    let uid = uid.to_string();
    file.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let whose = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ((whose == name && !name.is_empty()) || whose == uid).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_or_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000), Some("ann"));
        assert_eq!(name_of(passwd, 7), None);
        let file = "# comment\nbob:1:2\nann:100000:65536\n1001:200000:10\n";
        assert_eq!(range_of(file, "ann", 1000), Some((100_000, 65_536)));
        assert_eq!(range_of(file, "", 1001), Some((200_000, 10)));
        assert_eq!(range_of(file, "", 1000), None);
    }
}
