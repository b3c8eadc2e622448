//! Unix sockets: the handshake's packet pair, the start gate, and fds sent to a console or pidfd socket.

use crate::error::{Named, Result, SysError};
use crate::path::{proc_fd, retry};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
    connect, listen, recvmsg, send as send_bytes, sendmsg, setsockopt, socket, socketpair, sockopt,
};
use nix::sys::time::TimeVal;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// A `SOCK_SEQPACKET` pair, close-on-exec: whole messages, order kept, end of file when the other side is gone.
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .named(|| "socketpair(AF_UNIX, SOCK_SEQPACKET)".into())
}

/// Sends one message, with fds if there are any; a closed peer is EPIPE, never a signal.
pub fn send(to: BorrowedFd<'_>, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let iov = [IoSlice::new(data)];
    let n = eintr(|| sendmsg::<UnixAddr>(to.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None))
        .named(|| format!("sendmsg({}, {} bytes, {} fds)", to.as_raw_fd(), data.len(), raw.len()))?;
    if n != data.len() {
        return Err(SysError::new(format!("sendmsg: {n} of {} bytes", data.len()), libc::EIO));
    }
    Ok(())
}

/// Receives one message into `buf`: its length (0 when the peer closed), and the fd that came with it.
pub fn receive(from: BorrowedFd<'_>, buf: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    receive_fds(from, buf).map(|(n, mut fds)| (n, fds.pop()))
}

/// As [`receive`], with all fds that came.
pub fn receive_fds(from: BorrowedFd<'_>, buf: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    /// `SCM_MAX_FD`: no message has more.
    const MOST: usize = 253;
    let mut space = nix::cmsg_space!([i32; MOST]);
    let call = || format!("recvmsg({})", from.as_raw_fd());
    loop {
        let mut iov = [IoSliceMut::new(buf)];
        let msg = match recvmsg::<UnixAddr>(from.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => continue,
            r => r.named(call)?,
        };
        let mut fds = Vec::new();
        for control in msg.cmsgs().named(call)? {
            if let ControlMessageOwned::ScmRights(raws) = control {
                // SAFETY: the kernel made these fds for us in recvmsg just now. unix(7)
                fds.extend(raws.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
            }
        }
        return Ok((msg.bytes, fds));
    }
}

/// A packet socket listening at `name` in the directory that `dir` holds.
///
/// The address goes through `/proc/self/fd`, so that a long state directory does not meet sun_path's 108 bytes.
pub fn listen_at(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    let call = || format!("bind({name:?})");
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).named(call)?;
    let addr = UnixAddr::new(&proc_fd(dir).join(name)).named(call)?;
    bind(fd.as_raw_fd(), &addr).named(call)?;
    listen(&fd, Backlog::new(4).unwrap_or(Backlog::MAXCONN)).named(|| format!("listen({name:?})"))?;
    Ok(fd)
}

/// Connects to a packet socket made by [`listen_at`].
///
/// # Errors
/// ENOENT when it was never made or is removed; ECONNREFUSED when nobody listens any more.
pub fn connect_at(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    let call = || format!("connect({name:?})");
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).named(call)?;
    let addr = UnixAddr::new(&proc_fd(dir).join(name)).named(call)?;
    eintr(|| connect(fd.as_raw_fd(), &addr)).named(call)?;
    Ok(fd)
}

/// Waits for the next connection.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    let fd = eintr(|| accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)).named(|| "accept4".into())?;
    // SAFETY: accept4 made this fd for us just now. accept(2)
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Connects to a stream socket of the host's (a console or pidfd socket, a seccomp agent's, the bus), waiting at most `limit` for a place
/// in its queue, and later for room for what is sent. A leading `@` stands for the NUL byte of an abstract address.
///
/// A path too long for sun_path is reached through its parent directory's fd.
///
/// # Errors
/// EAGAIN when the queue was full all the time; unix(7).
pub fn connect_within(path: &Path, limit: Duration) -> Result<OwnedFd> {
    let call = || format!("connect({path:?})");
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).named(call)?;
    // A blocking connect(2) to a unix socket waits for a place in the queue as long as a send would.
    let time = TimeVal::new(limit.as_secs() as i64, i64::from(limit.subsec_micros()));
    setsockopt(&fd, sockopt::SendTimeout, &time).named(|| "setsockopt(SO_SNDTIMEO)".into())?;
    let parent;
    let abstract_name = path.as_os_str().as_bytes().strip_prefix(b"@");
    let addr = match abstract_name.map_or_else(|| UnixAddr::new(path), UnixAddr::new_abstract) {
        Err(Errno::ENAMETOOLONG) if abstract_name.is_none() => {
            let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            parent = crate::path::open_dir(dir)?;
            UnixAddr::new(&proc_fd(&parent).join(path.file_name().unwrap_or_default()))
        }
        addr => addr,
    }
    .named(call)?;
    let full = || format!("{}: its queue was full for {limit:?}", call());
    match eintr(|| connect(fd.as_raw_fd(), &addr)) {
        Err(Errno::EAGAIN) => Err(Errno::EAGAIN).named(full)?,
        done => done.named(call)?,
    }
    Ok(fd)
}

/// Sends as much as fits without waiting; a closed peer is EPIPE, never a signal.
///
/// # Errors
/// EAGAIN when nothing fits.
pub fn send_some(to: BorrowedFd<'_>, data: &[u8]) -> Result<usize> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    eintr(|| send_bytes(to.as_raw_fd(), data, flags))
        .named(|| format!("send({}, {} bytes)", to.as_raw_fd(), data.len()))
}

/// Sends a datagram to a unix socket by path, as sd_notify(3) does.
pub fn send_datagram(path: &Path, data: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let call = || format!("sendmsg({path:?})");
    let sock = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).named(call)?;
    // A leading @ stands for the NUL byte of an abstract address (sd_notify(3)).
    let addr = match path.as_os_str().as_bytes().split_first() {
        Some((b'@', name)) => UnixAddr::new_abstract(name),
        _ => UnixAddr::new(path),
    };
    connect(sock.as_raw_fd(), &addr.named(call)?).named(call)?;
    match fd {
        Some(fd) => send(sock.as_fd(), data, &[fd]),
        None => send(sock.as_fd(), data, &[]),
    }
}

/// A datagram socket bound at `path` that everybody may write to, as a notify socket is.
pub fn bind_datagram(path: &Path) -> Result<OwnedFd> {
    let call = || format!("bind({path:?})");
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).named(call)?;
    let addr = UnixAddr::new(path).named(call)?;
    // By umask, not by a chmod afterwards, whose path could be another file's by then.
    let umask = crate::process::umask(0);
    let bound = bind(fd.as_raw_fd(), &addr).named(call);
    crate::process::umask(umask);
    bound.map(|()| fd)
}

/// A pipe, close-on-exec: the reading and the writing end.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).named(|| "pipe2(O_CLOEXEC)".into())
}

/// Waits until one of the fds is readable or hung up, at most `timeout_ms` (negative: for ever); returns which are.
pub fn poll_readable(fds: &[BorrowedFd<'_>], timeout_ms: i32) -> Result<Vec<bool>> {
    poll(fds, &[], timeout_ms)
}

/// Waits until one of `readers` is readable or one of `writers` writable (or either hung up), at most `timeout_ms` (negative:
/// for ever); returns which are, the readers first. poll(2)
pub fn poll(readers: &[BorrowedFd<'_>], writers: &[BorrowedFd<'_>], timeout_ms: i32) -> Result<Vec<bool>> {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let readers_polled = readers.iter().map(|fd| PollFd::new(fd, PollFlags::IN));
    let writers_polled = writers.iter().map(|fd| PollFd::new(fd, PollFlags::OUT));
    let mut polls: Vec<PollFd<'_>> = readers_polled.chain(writers_polled).collect();
    let timeout = (timeout_ms >= 0)
        .then(|| Timespec { tv_sec: i64::from(timeout_ms / 1000), tv_nsec: i64::from(timeout_ms % 1000) * 1_000_000 });
    retry(|| rustix::event::poll(&mut polls, timeout.as_ref())).named(|| "poll".into())?;
    Ok(polls.iter().map(|p| !p.revents().is_empty()).collect())
}

pub(crate) fn eintr<T>(mut f: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match f() {
            Err(Errno::EINTR) => {}
            r => return r,
        }
    }
}
