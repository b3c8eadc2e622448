//! Events for containerd, in the order in which they were sent, over its ttrpc socket; or, where there is none, for the program that
//! `-publish-binary` names: `PROGRAM --address ADDRESS publish --topic TOPIC --namespace NAMESPACE`, with the event (`Any`) on its standard
//! input. That is containerd's older way, and it needs nobody who listens.
//!
//! While containerd is away they are kept and sent again, from the first that was not acknowledged, so a restart loses none. One whose
//! acknowledgement was lost with containerd is sent twice, to two daemons: each has it once.

use crate::args::Args;
use crate::log;
use crate::proto::events::{Envelope, ForwardRequest};
use crate::proto::{Any, Status, events};
use crate::reaper::Reaper;
use crate::time;
use crate::ttrpc::Client;
use prost::Message;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
/// How many are kept. A containerd that is away for so long has more to learn than events can tell.
const MOST: usize = 1 << 16;
/// How long a connected containerd may take for one.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a server that is there may refuse an event.
const TRIES: u32 = 5;

/// Where events go.
pub struct Publisher {
    namespace: String,
    to: Receiver,
    reaper: Rc<Reaper>,
    queue: RefCell<VecDeque<Envelope>>,
    filled: Notify,
    emptied: Notify,
}

/// Who is told.
enum Receiver {
    Nobody,
    /// containerd's socket for events.
    Socket(String),
    /// A program, and the address it is given.
    Program(String, String),
}

impl Publisher {
    /// To the socket (`TTRPC_ADDRESS`), or else to the program of `args`.
    pub fn new(args: &Args, socket: &str, reaper: Rc<Reaper>) -> Rc<Publisher> {
        let to = match (socket, args.publish_binary.as_str()) {
            ("", "") => Receiver::Nobody,
            ("", program) => Receiver::Program(program.into(), args.address.clone()),
            (socket, _) => Receiver::Socket(socket.trim_start_matches("unix://").into()),
        };
        Rc::new(Publisher {
            namespace: args.namespace.clone(),
            to,
            reaper,
            queue: RefCell::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
        })
    }

    /// Sends an event after all others; never waits.
    pub fn send(&self, topic: &str, name: &str, event: &impl Message) {
        if matches!(self.to, Receiver::Nobody) {
            return;
        }
        let mut queue = self.queue.borrow_mut();
        if queue.len() == MOST {
            log::warn(format_args!("{MOST} events wait for containerd; the oldest is dropped"));
            queue.pop_front();
        }
        queue.push_back(Envelope {
            timestamp: Some(time::now()),
            namespace: self.namespace.clone(),
            topic: topic.into(),
            event: Some(Any::of(name, event)),
        });
        self.filled.notify_one();
    }

    /// Forwards for ever.
    pub async fn run(self: Rc<Self>) {
        let mut client = None;
        let mut refused = 0;
        loop {
            let Some(envelope) = self.queue.borrow().front().cloned() else {
                self.queue.borrow_mut().shrink_to_fit();
                self.emptied.notify_waiters();
                self.filled.notified().await;
                continue;
            };
            let topic = envelope.topic.clone();
            let request = ForwardRequest { envelope: Some(envelope) };
            match self.forward(&mut client, &request).await {
                Ok(Ok(())) => {}
                Ok(Err(status)) if refused < TRIES => {
                    refused += 1;
                    log::warn(format_args!("event {topic}: {}", status.message));
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
                Ok(Err(status)) => log::warn(format_args!("event {topic} is given up: {}", status.message)),
                Err(e) => {
                    client = None;
                    log::debug(format_args!("event {topic}: {e}"));
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    continue;
                }
            }
            refused = 0;
            self.queue.borrow_mut().pop_front();
        }
    }

    async fn forward(
        &self,
        client: &mut Option<Client>,
        request: &ForwardRequest,
    ) -> std::io::Result<Result<(), Status>> {
        let address = match &self.to {
            Receiver::Nobody => return Ok(Ok(())),
            Receiver::Program(program, address) => return self.tell(program, address, request).await,
            Receiver::Socket(address) => address,
        };
        let connected = match client {
            Some(client) => client,
            None => client.insert(Client::connect(address).await?),
        };
        match tokio::time::timeout(PATIENCE, connected.call(SERVICE, "Forward", request)).await {
            Ok(result) => result,
            Err(_) => Err(std::io::Error::other("no answer")),
        }
    }

    async fn tell(
        &self,
        program: &str,
        address: &str,
        request: &ForwardRequest,
    ) -> std::io::Result<Result<(), Status>> {
        let Some(envelope) = &request.envelope else { return Ok(Ok(())) };
        let mut command = Command::new(program);
        command.args(["--address", address, "publish", "--topic", &envelope.topic, "--namespace", &envelope.namespace]);
        // An event is far smaller than a pipe.
        let (input, mut event) = std::io::pipe()?;
        event.write_all(&envelope.event.clone().unwrap_or_default().encode_to_vec())?;
        drop(event);
        let refused = |message: String| Ok(Err(Status { code: 0, message }));
        let end = match command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => self.reaper.exit_of(child.id().cast_signed()),
            Err(e) => return refused(format!("{program}: {e}")),
        };
        match tokio::time::timeout(PATIENCE, end).await {
            Ok(Ok((status, _))) if status.exit_status() == Some(0) => Ok(Ok(())),
            Ok(Ok((status, _))) => refused(format!("{program} publish: {status:?}")),
            Ok(Err(_)) => refused(format!("{program} publish: its end was not seen")),
            Err(_) => refused(format!("{program} publish has not ended in {PATIENCE:?}")),
        }
    }

    /// Waits until all are sent, for `limit` at most.
    pub async fn drained(&self, limit: Duration) {
        let empty = async {
            while !self.queue.borrow().is_empty() {
                self.emptied.notified().await;
            }
        };
        if tokio::time::timeout(limit, empty).await.is_err() {
            log::warn(format_args!("{} events were not taken by containerd", self.queue.borrow().len()));
        }
    }

    /// `/tasks/oom`
    pub fn oom(&self, id: &str) {
        self.send("/tasks/oom", "containerd.events.TaskOOM", &events::TaskOnly { container_id: id.into() });
    }
}
