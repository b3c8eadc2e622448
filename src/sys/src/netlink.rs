//! The little of rtnetlink(7) that moving a network device needs: find it, read its addresses, move and rename it, give it addresses, bring
//! it up. A socket acts in the network namespace in which it was made, wherever its owner goes.

use crate::error::{Named, Result, SysError, check};
use crate::socket::eintr;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The longest name of a device, without its NUL (`IFNAMSIZ`).
pub const NAME_MAX: usize = 15;

/// Message types, flags and attributes of the kernel's uapi/linux/netlink.h, rtnetlink.h, if_link.h and if_addr.h.
mod uapi {
    pub const NLMSG_ERROR: u16 = 2;
    pub const NLMSG_DONE: u16 = 3;
    pub const RTM_NEWLINK: u16 = 16;
    pub const RTM_GETLINK: u16 = 18;
    pub const RTM_NEWADDR: u16 = 20;
    pub const RTM_GETADDR: u16 = 22;
    pub const REQUEST: u16 = 1;
    pub const ACK: u16 = 4;
    pub const DUMP: u16 = 0x300;
    pub const CREATE_EXCL: u16 = 0x600;
    pub const CAPPED: u16 = 0x100;
    pub const ACK_TLVS: u16 = 0x200;
    pub const NLMSGERR_ATTR_MSG: u16 = 1;
    pub const IFLA_IFNAME: u16 = 3;
    pub const IFLA_NET_NS_FD: u16 = 28;
    pub const IFA_ADDRESS: u16 = 1;
    pub const IFA_LOCAL: u16 = 2;
    pub const IFA_BROADCAST: u16 = 4;
    pub const IFA_FLAGS: u16 = 8;
    pub const IFA_RT_PRIORITY: u16 = 9;
    pub const IFA_PROTO: u16 = 11;
}
use uapi::*;

/// `IFA_F_PERMANENT`: no lifetime, as a person or an engine gives addresses.
const PERMANENT: u32 = 0x80;
/// Flags that belong to whoever made the address, not to its state: NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN.
const KEPT_FLAGS: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
/// The kernel's own limit for a message of a dump.
const BUFFER: usize = 32 << 10;

/// A device of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number there.
    pub index: i32,
    /// Its name there.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
}

/// An address of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    scope: u8,
    /// What is given back as it was read: addresses, broadcast, metric, origin.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Whether it has no lifetime (`IFA_F_PERMANENT`) and is valid everywhere (`RT_SCOPE_UNIVERSE`).
    pub fn is_permanent_and_global(&self) -> bool {
        self.flags & PERMANENT != 0 && self.scope == 0
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes =
            |wanted| self.attributes.iter().find(|(kind, _)| *kind == wanted).map(|(_, bytes)| bytes.as_slice());
        let bytes = bytes(IFA_LOCAL).or(bytes(IFA_ADDRESS)).unwrap_or_default();
        match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
            (Ok(v4), _) => write!(f, "{}/{}", std::net::Ipv4Addr::from(v4), self.prefix),
            (_, Ok(v6)) => write!(f, "{}/{}", std::net::Ipv6Addr::from(v6), self.prefix),
            _ => write!(f, "an address of family {}", self.family),
        }
    }
}

/// A socket to the routing part of the kernel, in the network namespace of its making.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens one in the current network namespace. socket(2), netlink(7)
    pub fn open() -> Result<Netlink> {
        let protocol = Some(SockProtocol::NetlinkRoute);
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .named(|| "socket(AF_NETLINK, NETLINK_ROUTE)".into())?;
        let on = 1i32;
        let size = size_of::<i32>() as libc::socklen_t;
        // SAFETY: the value is an int that outlives the call, its size is said. netlink(7) NETLINK_EXT_ACK
        let ret = unsafe {
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, (&raw const on).cast(), size)
        };
        check(ret.into(), || "setsockopt(NETLINK_EXT_ACK)".into())?;
        // Connected to the kernel (port 0), it takes nothing from anybody else: in a namespace that others use, one who may send to our
        // port could otherwise answer in the kernel's place. netlink(7)
        connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).named(|| "connect(AF_NETLINK, the kernel)".into())?;
        Ok(Netlink(fd))
    }

    /// The device of this name.
    ///
    /// # Errors
    /// ENODEV when there is none.
    pub fn link(&self, name: &str) -> Result<Link> {
        let request = Request::new(RTM_GETLINK, REQUEST | ACK).link(0, 0).text(IFLA_IFNAME, name);
        self.found_link(request, || format!("RTM_GETLINK {name:?}"))
    }

    /// The device of this number.
    ///
    /// # Errors
    /// ENODEV when there is none.
    pub fn link_by_index(&self, index: i32) -> Result<Link> {
        self.found_link(Request::new(RTM_GETLINK, REQUEST | ACK).link(index, 0), || format!("RTM_GETLINK {index}"))
    }

    fn found_link(&self, request: Request, call: impl Fn() -> String) -> Result<Link> {
        let mut found = None;
        self.call(request, &call, |kind, body| {
            if kind == RTM_NEWLINK {
                found = parse_link(body);
            }
        })?;
        found.ok_or_else(|| SysError::new(call(), libc::ENODEV))
    }

    /// All addresses of a device, of any family.
    pub fn addresses(&self, index: i32) -> Result<Vec<Address>> {
        let mut all = Vec::new();
        // struct ifaddrmsg: family, prefix length, flags, scope, index; all zero asks for everything.
        let request = Request::new(RTM_GETADDR, REQUEST | DUMP).bytes(&[0; 8]);
        self.call(
            request,
            || format!("RTM_GETADDR {index}"),
            |kind, body| {
                if let (RTM_NEWADDR, Some((of, address))) = (kind, parse_address(body))
                    && of == index
                {
                    all.push(address);
                }
            },
        )?;
        Ok(all)
    }

    /// Moves a device to another network namespace, where it has this name.
    ///
    /// # Errors
    /// EINVAL for a device that cannot leave (the loopback device); EEXIST when the name is taken there.
    pub fn move_link(&self, index: i32, to: BorrowedFd<'_>, name: &str) -> Result<()> {
        let fd = to.as_raw_fd().to_ne_bytes();
        let request = Request::new(RTM_NEWLINK, REQUEST | ACK).link(index, 0).text(IFLA_IFNAME, name);
        let request = request.attribute(IFLA_NET_NS_FD, &fd);
        self.call(request, || format!("RTM_NEWLINK {index}, IFLA_NET_NS_FD, name {name:?}"), |_, _| {})
    }

    /// Renames a device that is down; a `%d` in the name becomes the first free number.
    pub fn rename(&self, index: i32, name: &str) -> Result<()> {
        let request = Request::new(RTM_NEWLINK, REQUEST | ACK).link(index, 0).text(IFLA_IFNAME, name);
        self.call(request, || format!("RTM_NEWLINK {index}, name {name:?}"), |_, _| {})
    }

    /// Brings a device up.
    pub fn set_up(&self, index: i32) -> Result<()> {
        let request = Request::new(RTM_NEWLINK, REQUEST | ACK).link(index, libc::IFF_UP as u32);
        self.call(request, || format!("RTM_NEWLINK {index}, IFF_UP"), |_, _| {})
    }

    /// Gives a device an address.
    pub fn add_address(&self, index: i32, address: &Address) -> Result<()> {
        let flags = address.flags & KEPT_FLAGS;
        let mut head = vec![address.family, address.prefix, flags as u8, address.scope];
        head.extend(index.to_ne_bytes());
        let request = Request::new(RTM_NEWADDR, REQUEST | ACK | CREATE_EXCL).bytes(&head);
        let request = request.attribute(IFA_FLAGS, &flags.to_ne_bytes());
        let request = address.attributes.iter().fold(request, |r, (kind, bytes)| r.attribute(*kind, bytes));
        self.call(request, || format!("RTM_NEWADDR {index}, {address}"), |_, _| {})
    }

    /// Sends a request and hands each message of the answer to `each`: its type and its body.
    fn call(&self, request: Request, call: impl Fn() -> String, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        let bytes = request.finish();
        eintr(|| send(self.0.as_raw_fd(), &bytes, MsgFlags::empty())).named(&call)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = eintr(|| recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())).named(&call)?;
            for message in Messages(&buffer[..n]) {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return message.acknowledged(&call),
                    kind => each(kind, message.body),
                }
            }
        }
    }
}

/// A message being written. Its sequence number is always 0: a socket has one request at a time.
struct Request(Vec<u8>);

impl Request {
    /// struct nlmsghdr: length (filled in by `finish`), type, flags, sequence, port.
    fn new(kind: u16, flags: u16) -> Request {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Request(bytes)
    }

    fn bytes(mut self, bytes: &[u8]) -> Request {
        self.0.extend_from_slice(bytes);
        self.0.resize(aligned(self.0.len()), 0);
        self
    }

    /// struct ifinfomsg: family, padding, type (2 bytes), index, flags to have, flags to change.
    fn link(self, index: i32, up: u32) -> Request {
        self.bytes(&[0; 4]).bytes(&index.to_ne_bytes()).bytes(&up.to_ne_bytes()).bytes(&up.to_ne_bytes())
    }

    /// struct rtattr: length, type, value.
    fn attribute(self, kind: u16, value: &[u8]) -> Request {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        self.bytes(&bytes)
    }

    fn text(self, kind: u16, value: &str) -> Request {
        self.attribute(kind, format!("{value}\0").as_bytes())
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// The messages of one packet.
struct Messages<'a>(&'a [u8]);

struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = u32_at(self.0, 0)? as usize;
        let body = self.0.get(16..length)?;
        let message = Message { kind: u16_at(self.0, 4)?, flags: u16_at(self.0, 6)?, body };
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some(message)
    }
}

impl Message<'_> {
    /// struct nlmsgerr: a negative errno (0 for success), the request's head, and the kernel's text if it has one.
    fn acknowledged(&self, call: impl Fn() -> String) -> Result<()> {
        let errno = u32_at(self.body, 0).map_or(libc::EIO, |e| -(e as i32));
        if errno == 0 {
            return Ok(());
        }
        let text = self.extended().map(|t| format!(" [{t}]")).unwrap_or_default();
        Err(SysError::new(call() + &text, errno))
    }

    fn extended(&self) -> Option<String> {
        if self.flags & ACK_TLVS == 0 {
            return None;
        }
        let request = if self.flags & CAPPED != 0 { 16 } else { u32_at(self.body, 4)? as usize };
        let attributes = self.body.get(4 + aligned(request)..)?;
        let (_, text) = Attributes(attributes).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').into())
    }
}

/// The attributes behind a message's fixed part: type and value.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16_at(self.0, 0)?);
        let value = self.0.get(4..length)?;
        // The two highest bits only say how the value is written.
        let kind = u16_at(self.0, 2)? & 0x3fff;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let index = u32_at(body, 4)? as i32;
    let (_, name) = Attributes(body.get(16..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    let up = u32_at(body, 8)? & libc::IFF_UP as u32 != 0;
    Some(Link { index, name: String::from_utf8_lossy(name).trim_end_matches('\0').into(), up })
}

fn parse_address(body: &[u8]) -> Option<(i32, Address)> {
    let [family, prefix, flags, scope] = *body.first_chunk::<4>()?;
    let mut address = Address { family, prefix, flags: flags.into(), scope, attributes: Vec::new() };
    for (kind, value) in Attributes(body.get(8..)?) {
        match kind {
            IFA_FLAGS => address.flags = u32_at(value, 0)?,
            IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST | IFA_RT_PRIORITY | IFA_PROTO => {
                address.attributes.push((kind, value.to_vec()));
            }
            _ => {}
        }
    }
    Some((u32_at(body, 4)? as i32, address))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_found_with_its_address() {
        // A test machine has one, and here it is up.
        let netlink = Netlink::open().unwrap();
        let lo = netlink.link("lo").unwrap();
        assert_eq!((lo.index, netlink.link_by_index(lo.index).unwrap().name), (1, "lo".into()));
        let addresses = netlink.addresses(1).unwrap();
        assert!(addresses.iter().all(|a| a.scope != 0 || a.is_permanent_and_global()), "{addresses:?}");
        assert!(netlink.link("no-such-device").unwrap_err().is(libc::ENODEV));
    }

    #[test]
    fn only_the_kernel_is_listened_to() {
        let netlink = Netlink::open().unwrap();
        let own: NetlinkAddr = nix::sys::socket::getsockname(netlink.0.as_raw_fd()).unwrap();
        let other =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute).unwrap();
        let rubbish = Request::new(RTM_NEWLINK, 0).link(77, 0).text(IFLA_IFNAME, "evil").finish();
        let to = NetlinkAddr::new(own.pid(), 0);
        let sent = nix::sys::socket::sendto(other.as_raw_fd(), &rubbish, &to, MsgFlags::empty());
        assert_eq!(sent, Err(nix::errno::Errno::ECONNREFUSED));
        assert_eq!(netlink.link("lo").unwrap().index, 1);
    }

    #[test]
    fn an_address_is_read_as_it_was_written() {
        let request = Request::new(RTM_NEWADDR, 0).bytes(&[2, 24, 0x80, 0, 7, 0, 0, 0]);
        let request = request.attribute(IFA_LOCAL, &[10, 1, 2, 3]).attribute(IFA_FLAGS, &0x280u32.to_ne_bytes());
        let bytes = request.attribute(3, b"eth0\0").finish();
        let message = Messages(&bytes).next().unwrap();
        let (index, address) = parse_address(message.body).unwrap();
        assert_eq!((index, address.to_string(), address.flags), (7, "10.1.2.3/24".into(), 0x280));
        assert!(address.is_permanent_and_global());
        assert_eq!(address.attributes.len(), 1, "the label has the old name in it");
    }

    #[test]
    fn a_cut_message_is_none() {
        let bytes = Request::new(RTM_NEWLINK, 0).link(3, 0).text(IFLA_IFNAME, "eth0").finish();
        for end in 0..bytes.len() {
            assert!(Messages(&bytes[..end]).next().is_none(), "{end}");
        }
        assert_eq!(
            parse_link(Messages(&bytes).next().unwrap().body),
            Some(Link { index: 3, name: "eth0".into(), up: false })
        );
        assert!(Attributes(&[3, 0, 1, 0]).next().is_none() && Attributes(&[0; 8]).next().is_none());
    }
}
