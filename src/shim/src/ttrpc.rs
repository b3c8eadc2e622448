//! ttrpc: requests and responses in frames of ten bytes and a protocol buffer, over a unix socket.
//!
//! Only unary calls: the task service and the events service have no others. The server answers each request in a task of its own,
//! so a call that takes long holds up nobody; what has been begun is finished, even if the caller has gone.

use crate::error::{Code, Error};
use crate::log;
use crate::proto::frame::{HEADER, Header, LONGEST, REQUEST, RESPONSE, frame};
use crate::proto::{Request, Response, Status};
use prost::Message;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::spawn_local;

/// A request with a stream of data behind it.
const REMOTE_OPEN: u8 = 2;

/// A future on the one thread.
pub type Local<T> = Pin<Box<dyn Future<Output = T>>>;

/// Whoever answers requests.
pub trait Service {
    /// Answers one.
    fn call(self: Rc<Self>, service: &str, method: &str, payload: Vec<u8>) -> Local<Result<Vec<u8>, Error>>;

    /// Whether a call only waits, so that it can be given up with its caller.
    fn only_waits(&self, method: &str) -> bool;
}

/// Reads a frame; a message that is too long is read away, and the frame has none.
async fn read_frame(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<(Header, Option<Vec<u8>>)> {
    let mut bytes = [0; HEADER];
    from.read_exact(&mut bytes).await?;
    let header = Header::parse(bytes);
    if header.length > LONGEST {
        let mut rest = from.take(header.length as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        return Ok((header, None));
    }
    let mut payload = vec![0; header.length];
    from.read_exact(&mut payload).await?;
    Ok((header, Some(payload)))
}

/// How many requests are being answered, but for those that only wait.
#[derive(Default)]
pub struct Busy {
    now: Cell<usize>,
    less: Notify,
}

impl Busy {
    fn one(self: &Rc<Self>) -> One {
        self.now.set(self.now.get() + 1);
        One(self.clone())
    }

    /// Waits until the last answer has been written.
    pub async fn idle(&self) {
        while self.now.get() > 0 {
            self.less.notified().await;
        }
    }
}

/// One request, until it is answered.
struct One(Rc<Busy>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.now.set(self.0.now.get() - 1);
        self.0.less.notify_one();
    }
}

/// Serves every connection until the process ends.
pub async fn serve(listener: UnixListener, service: Rc<dyn Service>, busy: Rc<Busy>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                spawn_local(connection(stream, service.clone(), busy.clone()));
            }
            Err(e) => {
                // Out of descriptors, most likely: others have to end first.
                log::warn(format_args!("accept: {e}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, service: Rc<dyn Service>, busy: Rc<Busy>) {
    // As containerd's shims: whoever is not our own user has no business here, however he got at the socket.
    let ours = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == ours => {}
        Ok(peer) => return log::warn(format_args!("a connection of uid {} is refused", peer.uid())),
        Err(e) => return log::warn(format_args!("SO_PEERCRED: {e}")),
    }
    let (reader, writer) = stream.into_split();
    let line = Line { writer: Mutex::new(writer), service, busy };
    // Its end tells those who only wait that the caller has gone.
    let (open, closed) = watch::channel(());
    if let Err(e) = requests(reader, &Rc::new(line), &closed).await
        && e.kind() != io::ErrorKind::UnexpectedEof
    {
        log::debug(format_args!("connection: {e}"));
    }
    drop(open);
}

/// What the answers of a connection have in common.
struct Line {
    writer: Mutex<OwnedWriteHalf>,
    service: Rc<dyn Service>,
    busy: Rc<Busy>,
}

async fn requests(mut reader: OwnedReadHalf, line: &Rc<Line>, closed: &watch::Receiver<()>) -> io::Result<()> {
    loop {
        let (header, payload) = read_frame(&mut reader).await?;
        let request = match payload {
            _ if header.kind != REQUEST => continue,
            None => {
                Err(Error::new(Code::ResourceExhausted, format!("a message has {LONGEST} bytes at most; split it")))
            }
            Some(_) if header.flags & REMOTE_OPEN != 0 => {
                Err(Error::new(Code::Unimplemented, "streams are not supported"))
            }
            Some(bytes) => Request::decode(&bytes[..])
                .map_err(|e| Error::new(Code::InvalidArgument, format!("the request cannot be read: {e}"))),
        };
        spawn_local(answer(header.stream, request, line.clone(), closed.clone()));
    }
}

async fn answer(stream: u32, request: Result<Request, Error>, line: Rc<Line>, mut closed: watch::Receiver<()>) {
    let waits = request.as_ref().is_ok_and(|request| line.service.only_waits(&request.method));
    let _busy = (!waits).then(|| line.busy.one());
    let result = match request {
        Err(error) => Err(error),
        Ok(request) => {
            let limit = u64::try_from(request.timeout_nano).ok().filter(|n| waits && *n > 0).map(Duration::from_nanos);
            let call = line.service.clone().call(&request.service, &request.method, request.payload);
            tokio::select! {
                result = call => result,
                // The sender is dropped, that is the only change there is.
                _ = closed.changed(), if waits => return,
                () = timer(limit) => Err(Error::new(Code::DeadlineExceeded, "context deadline exceeded")),
            }
        }
    };
    let response = match result {
        Ok(payload) => Response { status: None, payload },
        Err(Error { code, message }) => {
            Response { status: Some(Status { code: code as i32, message }), payload: Vec::new() }
        }
    };
    // A caller that has gone does not need it; the reader notices, too.
    if let Ok(bytes) = frame(stream, RESPONSE, &response) {
        let _ = line.writer.lock().await.write_all(&bytes).await;
    }
}

async fn timer(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// A caller, one call at a time.
pub struct Client {
    stream: UnixStream,
    next: u32,
}

impl Client {
    /// Connects to a socket.
    ///
    /// # Errors
    /// `connect(2)`
    pub async fn connect(path: &str) -> io::Result<Client> {
        Ok(Client { stream: UnixStream::connect(path).await?, next: 1 })
    }

    /// Calls and waits for the answer, whose payload is not looked at.
    ///
    /// # Errors
    /// The connection; or, inside, what the server says.
    pub async fn call(
        &mut self,
        service: &str,
        method: &str,
        message: &impl Message,
    ) -> io::Result<Result<(), Status>> {
        let stream = self.next;
        self.next = self.next.wrapping_add(2);
        let payload = message.encode_to_vec();
        let request = Request { service: service.into(), method: method.into(), payload, timeout_nano: 0 };
        self.stream.write_all(&frame(stream, REQUEST, &request)?).await?;
        loop {
            let (header, payload) = read_frame(&mut self.stream).await?;
            if header.stream == stream && header.kind == RESPONSE {
                let response = Response::decode(&payload.unwrap_or_default()[..]).map_err(io::Error::other)?;
                return Ok(response.status.filter(|s| s.code != 0).map_or(Ok(()), Err));
            }
        }
    }
}
