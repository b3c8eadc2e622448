//! Events for containerd, in the order in which they were sent, over its ttrpc socket.
//!
//! While containerd is away they are kept and sent again, from the first that was not acknowledged, so a restart loses none. One whose
//! acknowledgement was lost with containerd is sent twice, to two daemons: each has it once.

use crate::log;
use crate::proto::events::{Envelope, ForwardRequest};
use crate::proto::{Any, events};
use crate::time;
use crate::ttrpc::Client;
use prost::Message;
use std::cell::RefCell;
use std::collections::VecDeque;
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
    address: String,
    queue: RefCell<VecDeque<Envelope>>,
    filled: Notify,
    emptied: Notify,
}

impl Publisher {
    /// For a namespace, to the socket in `TTRPC_ADDRESS`. Without a socket events go nowhere.
    pub fn new(namespace: &str, address: &str) -> Rc<Publisher> {
        Rc::new(Publisher {
            namespace: namespace.into(),
            address: address.trim_start_matches("unix://").into(),
            queue: RefCell::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
        })
    }

    /// Sends an event after all others; never waits.
    pub fn send(&self, topic: &str, name: &str, event: &impl Message) {
        if self.address.is_empty() {
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
    ) -> std::io::Result<Result<(), crate::proto::Status>> {
        let connected = match client {
            Some(client) => client,
            None => client.insert(Client::connect(&self.address).await?),
        };
        match tokio::time::timeout(PATIENCE, connected.call(SERVICE, "Forward", request)).await {
            Ok(result) => result,
            Err(_) => Err(std::io::Error::other("no answer")),
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
