//! Bodies of answers: bytes, or a part of a file that is read while it is sent.

use hyper::body::{Bytes, Frame, SizeHint};
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// So much of a file is read at once, by a thread that may wait for the disk.
const PIECE: u64 = 256 << 10;

/// An answer's body.
pub(crate) struct Body(Kind);

enum Kind {
    Bytes(Option<Bytes>),
    File { file: Arc<File>, at: u64, left: u64, reading: Option<JoinHandle<io::Result<Bytes>>> },
}

impl Body {
    pub fn empty() -> Body {
        Body(Kind::Bytes(None))
    }

    pub fn bytes(bytes: Vec<u8>) -> Body {
        Body(Kind::Bytes(Some(bytes.into())))
    }

    pub fn file(file: File, at: u64, left: u64) -> Body {
        Body(Kind::File { file: Arc::new(file), at, left, reading: None })
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let (file, at, left, reading) = match &mut self.0 {
            Kind::Bytes(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::File { file, at, left, reading } => (file, at, left, reading),
        };
        if *left == 0 {
            return Poll::Ready(None);
        }
        let task = reading.get_or_insert_with(|| {
            let (file, at, length) = (file.clone(), *at, PIECE.min(*left) as usize);
            tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; length];
                file.read_exact_at(&mut buffer, at).map(|()| buffer.into())
            })
        });
        let read = ready!(Pin::new(task).poll(cx)).unwrap_or_else(|e| Err(io::Error::other(e)));
        *reading = None;
        if let Ok(bytes) = &read {
            *at += bytes.len() as u64;
            *left -= bytes.len() as u64;
        }
        Poll::Ready(Some(read.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.is_none(),
            Kind::File { left, .. } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.0 {
            Kind::Bytes(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Kind::File { left, .. } => *left,
        })
    }
}
