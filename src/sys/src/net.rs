//! The one thing a new network namespace needs from the runtime: its loopback interface up.

use crate::error::{Named, Result, check};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::AsRawFd;

/// Brings `lo` up in the current network namespace. netdevice(7) SIOCSIFFLAGS
pub fn loopback_up() -> Result<()> {
    let call = || "ioctl(SIOCSIFFLAGS, \"lo\", IFF_UP)".to_string();
    let sock = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .named(|| "socket(AF_INET, SOCK_DGRAM)".into())?;
    let mut name = [0; libc::IFNAMSIZ];
    name[0] = b'l' as libc::c_char;
    name[1] = b'o' as libc::c_char;
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let request = libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: the request is a valid ifreq with a NUL-terminated name and outlives the call. netdevice(7)
    let ret = unsafe { libc::ioctl(sock.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check(ret.into(), call).map(drop)
}
