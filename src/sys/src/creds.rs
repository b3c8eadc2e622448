//! Who the process is: ids, groups, capabilities.

use crate::error::{Named, Result};
use rustix::fs::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::str::FromStr;

/// setgroups(2)
pub fn set_groups(gids: &[u32]) -> Result<()> {
    let gids: Vec<Gid> = gids.iter().map(|&g| Gid::from_raw(g)).collect();
    rustix::thread::set_thread_groups(&gids).named(|| format!("setgroups({gids:?})"))
}

/// The effective uid and gid.
pub fn effective_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// setresgid(2), then setresuid(2), all three ids each.
pub fn set_ids(uid: u32, gid: u32) -> Result<()> {
    let (u, g) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(g, g, g).named(|| format!("setresgid({gid}, {gid}, {gid})"))?;
    rustix::thread::set_thread_res_uid(u, u, u).named(|| format!("setresuid({uid}, {uid}, {uid})"))
}

/// A set of capabilities, bit n for capability number n (capabilities(7)).
pub type CapBits = u64;

/// The number of a capability by its name, with or without `CAP_`, any case; `None` when unknown to this build.
pub fn capability(name: &str) -> Option<u8> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    caps::Capability::from_str(&full).ok().map(|c| c.index())
}

/// All capability names this build knows, in the kernel's order.
pub fn capability_names() -> Vec<String> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_by_key(|c| c.index());
    all.into_iter().map(|c| c.to_string()).collect()
}

/// Takes every capability that is not in `keep` out of the bounding set; needs CAP_SETPCAP.
pub fn limit_bounding_set(keep: CapBits) -> Result<()> {
    for cap in 0..64u8 {
        if keep & (1 << cap) != 0 {
            continue;
        }
        let set = CapabilitySet::from_bits_retain(1 << cap);
        match rustix::thread::remove_capability_from_bounding_set(set) {
            Ok(()) => {}
            // The first number that this kernel does not have.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e).named(|| format!("prctl(PR_CAPBSET_DROP, {cap})")),
        }
    }
    Ok(())
}

/// Keep the permitted set across the change of user. `prctl(PR_SET_KEEPCAPS)`
pub fn keep_capabilities(yes: bool) -> Result<()> {
    prctl::set_keep_capabilities(yes).named(|| format!("prctl(PR_SET_KEEPCAPS, {yes})"))
}

/// capset(2): the three sets in one call, so that there is no moment with a mixture.
pub fn set_capabilities(effective: CapBits, permitted: CapBits, inheritable: CapBits) -> Result<()> {
    let set = |b| CapabilitySet::from_bits_retain(b);
    let sets = CapabilitySets { effective: set(effective), permitted: set(permitted), inheritable: set(inheritable) };
    rustix::thread::set_capabilities(None, sets)
        .named(|| format!("capset(effective={effective:#x}, permitted={permitted:#x}, inheritable={inheritable:#x})"))
}

/// The permitted set of this process.
pub fn permitted_set() -> Result<CapBits> {
    rustix::thread::capabilities(None).map(|c| c.permitted.bits()).named(|| "capget()".into())
}

/// Clears the ambient set and raises `ambient` in it; the capabilities must be permitted and inheritable.
pub fn set_ambient(ambient: CapBits) -> Result<()> {
    rustix::thread::clear_ambient_capability_set().named(|| "prctl(PR_CAP_AMBIENT_CLEAR_ALL)".into())?;
    for cap in (0..64u8).filter(|c| ambient & (1 << c) != 0) {
        rustix::thread::configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << cap), true)
            .named(|| format!("prctl(PR_CAP_AMBIENT_RAISE, {cap})"))?;
    }
    Ok(())
}

/// Makes a new session keyring called `name`, so that the container does not share the caller's. keyctl(2)
///
/// # Errors
/// ENOSYS or EPERM where keyrings are absent or a sandbox forbids them; EDQUOT when the quota is used up.
pub fn join_session_keyring(name: &std::ffi::CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: `name` is NUL-terminated and only read. keyctl(2)
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    crate::error::check(ret, || format!("keyctl(KEYCTL_JOIN_SESSION_KEYRING, {name:?})")).map(|id| id as i32)
}

/// Lets processes of the same user search the keyring `id`, which `possessor`-only permissions would refuse. keyctl(2)
pub fn widen_keyring(id: i32) -> Result<()> {
    const KEYCTL_SETPERM: i32 = 5;
    /// All for the possessor, view|read|search|link for the user (keyctl_setperm(3)).
    const PERM: u32 = 0x3f00_0000 | 0x001b_0000;
    // SAFETY: integers only. keyctl(2)
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, id, PERM) };
    crate::error::check(ret, || format!("keyctl(KEYCTL_SETPERM, {id})")).map(drop)
}

/// The user name of a uid in a passwd(5) text, and its home: `(name, home)`. Pure; never NSS, which would load libraries of the
/// container's root (models.md 3.6).
pub fn passwd_entry(passwd: &[u8], uid: u32) -> Option<(&[u8], &[u8])> {
    passwd.split(|&b| b == b'\n').find_map(|line| {
        let mut fields = line.split(|&b| b == b':');
        let (name, _password, id) = (fields.next()?, fields.next()?, fields.next()?);
        let found = std::str::from_utf8(id).ok()?.parse::<u32>().ok()? == uid;
        let home = fields.nth(2)?;
        found.then_some((name, home))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_names_are_taken_in_every_spelling() {
        assert_eq!(capability("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(capability("sys_admin"), Some(21));
        assert_eq!(capability("CAP_NOPE"), None);
    }

    #[test]
    fn passwd_is_read_by_uid_and_survives_rubbish() {
        let text = b"garbage\nroot:x:0:0:root:/root:/bin/sh\n:::\napp:x:1000:1000::/home/app:/bin/sh";
        assert_eq!(passwd_entry(text, 1000), Some((&b"app"[..], &b"/home/app"[..])));
        assert_eq!(passwd_entry(text, 0).unwrap().1, b"/root");
        assert_eq!(passwd_entry(text, 7), None);
    }
}
