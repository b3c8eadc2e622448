//! An HTTP server that does what a test wants, also what no server should. One thread a connection, one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first byte that a Range header asks for, and the end.
    pub fn range(&self) -> Option<(usize, Option<usize>)> {
        let (begin, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((begin.parse().ok()?, last.parse::<usize>().ok().map(|last| last + 1)))
    }
}

#[derive(Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub cut: Option<usize>,
    /// What Content-Length says, when it is not the truth; `Some(None)`: there is none.
    pub length: Option<Option<usize>>,
    /// A pause before every piece of 16 KiB.
    pub slow: Duration,
    /// After the body come more bytes until the client has enough.
    pub endless: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, body: body.into(), ..Reply::default() }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Reply {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn json(status: u16, body: &str) -> Reply {
        Reply::new(status, body).header("Content-Type", "application/json")
    }

    /// A blob, or the part of it that is asked for.
    pub fn blob(request: &Request, bytes: &[u8]) -> Reply {
        match request.range() {
            None => Reply::new(200, bytes),
            Some((begin, _)) if begin >= bytes.len() => Reply::new(416, ""),
            Some((begin, end)) => {
                let end = end.unwrap_or(bytes.len()).min(bytes.len());
                let range = format!("bytes {begin}-{}/{}", end - 1, bytes.len());
                Reply::new(206, &bytes[begin..end]).header("Content-Range", range)
            }
        }
    }

    pub fn cut(mut self, bytes: usize) -> Reply {
        self.cut = Some(bytes);
        self
    }
}

pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub fn new(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (handler, log, stopped) = (Arc::new(handler), seen.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, log) = (handler.clone(), log.clone());
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    log.lock().unwrap().push(request.clone());
                    let _ = answer(&stream, &request, handler(&request));
                });
            }
        });
        Server { address, seen, stop }
    }

    /// What was asked so far, without the question whether this is plain HTTP.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().iter().filter(|request| request.path != "/v2/").cloned().collect()
    }

    pub fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|request| request.path.contains(part)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    // What is no text (a TLS handshake) ends the connection.
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0u64);
    reader.take(length).read_to_end(&mut request.body).ok()?;
    Some(request)
}

fn answer(mut stream: &TcpStream, request: &Request, reply: Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = reply.length.unwrap_or(Some(reply.body.len())) {
        head += &format!("Content-Length: {length}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
    for piece in body.chunks(16 << 10) {
        std::thread::sleep(reply.slow);
        stream.write_all(piece)?;
    }
    if !reply.endless {
        return Ok(());
    }
    // Until the client has enough.
    loop {
        stream.write_all(&[b'x'; 16 << 10])?;
    }
}
