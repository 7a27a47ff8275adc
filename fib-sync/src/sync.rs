//! The thread that owns the kernel: it runs the [`Engine`] over a real netlink socket and listener.
//!
//! One blocking thread, because a network namespace belongs to a thread and netlink answers at once. It sleeps in
//! `poll` on the listener and on a wake-up socket; the tasks of the daemon hand it [`Input`]s through a bounded
//! channel and ring the bell. Nothing here waits for another process: what is to be told bgpd goes into the
//! [`Outbox`], which keeps one message per prefix and next hop at most, however slowly it is read.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use causeway_api::control::{FibRoute, NodeInfo};
use causeway_api::fib::{Command, Event, NextHop};
use causeway_api::pod_store;
use causeway_kernel::{Error, Monitor, Netlink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::Config;
use crate::engine::Engine;
use crate::flows::Forgetter;
use crate::local::Pod;
use crate::view::{Numbers, RowName};

/// How many inputs may wait; the tasks wait when it is full.
const INPUTS: usize = 64;
/// How many batches of bgpd's messages may wait; its task waits when it is full.
const FEED: usize = 8;
/// How many inputs are taken between two looks at the kernel.
const INPUTS_AT_ONCE: usize = 16;
/// The most messages in the outbox before commands of bgpd are left waiting.
const OUTBOX_HIGH: usize = 100_000;
/// The most messages about routes in the outbox before the engine keeps further ones back.
const OUTBOX_STATUSES: usize = 8192;
/// How long the thread sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How soon a socket that could not be opened is tried again.
const REOPEN: Duration = Duration::from_secs(1);

/// What comes from bgpd.
#[derive(Debug)]
pub enum FeedInput {
    /// It connected; its messages follow, those for it go into the outbox.
    Connected(Arc<Outbox>),
    /// Its messages in order.
    Commands(Vec<Command>),
    /// The connection ended.
    Disconnected,
}

/// What comes from this daemon's own tasks.
#[derive(Debug)]
pub enum Input {
    /// Another configuration.
    Config(Arc<Config>),
    /// The pods on record.
    Pods(Vec<Pod>),
    /// The names of the rows of `show fib`, unsorted.
    RowNames(oneshot::Sender<Vec<RowName>>),
    /// The rows of these names that are still there.
    Rows(Vec<RowName>, oneshot::Sender<Vec<FibRoute>>),
    /// `show node`.
    Node(oneshot::Sender<NodeInfo>),
    /// The names of the underlay links.
    Underlay(oneshot::Sender<Vec<String>>),
    /// Numbers for the metrics.
    Numbers(oneshot::Sender<Numbers>),
    /// Whether the kernel has been read.
    Ready(oneshot::Sender<Result<(), String>>),
    /// The end.
    Stop,
}

/// Hands inputs to the thread.
#[derive(Debug, Clone)]
pub struct Handle {
    feed: mpsc::Sender<FeedInput>,
    inputs: mpsc::Sender<Input>,
    bell: Arc<UnixStream>,
}

impl Handle {
    /// Hands over what comes from bgpd; waits while too much is waiting. Whether the thread is there.
    pub async fn feed(&self, input: FeedInput) -> bool {
        let sent = self.feed.send(input).await.is_ok();
        self.ring();
        sent
    }

    /// Hands over bgpd's messages and leaves `commands` empty; all of them or, when the future is dropped, none.
    /// Whether the thread is there.
    pub async fn feed_commands(&self, commands: &mut Vec<Command>) -> bool {
        if commands.is_empty() {
            return true;
        }
        let Ok(permit) = self.feed.reserve().await else { return false };
        permit.send(FeedInput::Commands(std::mem::take(commands)));
        self.ring();
        true
    }

    /// Hands over an input, past whatever bgpd sent. Whether the thread is there.
    pub async fn send(&self, input: Input) -> bool {
        let sent = self.inputs.send(input).await.is_ok();
        self.ring();
        sent
    }

    /// As [`Handle::send`], for threads that may block.
    pub fn blocking_send(&self, input: Input) -> bool {
        let sent = self.inputs.blocking_send(input).is_ok();
        self.ring();
        sent
    }

    /// Asks and waits for the answer; `None` when the thread ended.
    pub async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Option<T> {
        let (answer, asked) = oneshot::channel();
        if !self.send(input(answer)).await {
            return None;
        }
        asked.await.ok()
    }

    /// Wakes the thread. A full bell has been rung already.
    fn ring(&self) {
        let _ = (&*self.bell).write(&[0]);
    }
}

/// What waits to be sent to bgpd. Of several messages about one next hop only the last is kept; messages about routes are
/// given out by the engine only while there is [`Outbox::room`], each at most once for a prefix.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    emptied: Mutex<Option<Handle>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Numbers of the waiting messages that are not about routes, in order; one whose message is gone was overtaken.
    order: VecDeque<u64>,
    messages: HashMap<u64, Event>,
    next_hops: HashMap<NextHop, u64>,
    next: u64,
    /// About routes, in order.
    statuses: VecDeque<Event>,
    /// Nobody reads any more: what is put in is dropped.
    closed: bool,
}

impl Queue {
    fn len(&self) -> usize {
        self.messages.len() + self.statuses.len()
    }
}

impl Outbox {
    /// An empty one. `waker` is rung when there is room again.
    pub fn new(waker: Handle) -> Outbox {
        Outbox { emptied: Mutex::new(Some(waker)), ..Outbox::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole after every statement; a panic elsewhere does not make it less so.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts messages in. Whether there is room for more about routes; when there is none, the thread is woken as soon
    /// as there is.
    pub fn push(&self, events: Vec<Event>) -> bool {
        let mut queue = self.queue();
        if queue.closed || events.is_empty() {
            return queue.closed || queue.statuses.len() < OUTBOX_STATUSES;
        }
        for event in events {
            if matches!(event, Event::Status { .. }) {
                queue.statuses.push_back(event);
                continue;
            }
            let number = queue.next;
            queue.next += 1;
            if let Event::NextHopState { next_hop, .. } = &event
                && let Some(overtaken) = queue.next_hops.insert(*next_hop, number)
            {
                queue.messages.remove(&overtaken);
            }
            queue.order.push_back(number);
            queue.messages.insert(number, event);
        }
        if queue.order.len() > 2 * queue.messages.len() + 1024 {
            let Queue { order, messages, .. } = &mut *queue;
            order.retain(|number| messages.contains_key(number));
        }
        let room = queue.statuses.len() < OUTBOX_STATUSES;
        drop(queue);
        self.filled.notify_one();
        room
    }

    /// Drops what waits and whatever is put in from here on.
    pub fn close(&self) {
        *self.queue() = Queue { closed: true, ..Queue::default() };
        self.wake();
    }

    /// Tells the thread that there is room again.
    fn wake(&self) {
        if let Some(waker) = &*self.emptied.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.ring();
        }
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.queue().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For how many messages about routes there is room.
    pub fn room(&self) -> usize {
        let queue = self.queue();
        if queue.closed { usize::MAX } else { OUTBOX_STATUSES.saturating_sub(queue.statuses.len()) }
    }

    /// Takes up to `most` messages; waits for one.
    pub async fn take(&self, most: usize) -> Vec<Event> {
        loop {
            let taken = self.take_now(most);
            if !taken.is_empty() {
                return taken;
            }
            self.filled.notified().await;
        }
    }

    /// Takes up to `most` messages of those that are there; those about routes come last.
    pub fn take_now(&self, most: usize) -> Vec<Event> {
        let mut taken = Vec::new();
        let mut queue = self.queue();
        let (was_full, had_room) = (queue.len() >= OUTBOX_HIGH, queue.statuses.len() < OUTBOX_STATUSES);
        while taken.len() < most
            && let Some(number) = queue.order.pop_front()
        {
            let Some(event) = queue.messages.remove(&number) else { continue };
            if let Event::NextHopState { next_hop, .. } = &event {
                queue.next_hops.remove(next_hop);
            }
            taken.push(event);
        }
        let left = (most - taken.len()).min(queue.statuses.len());
        taken.extend(queue.statuses.drain(..left));
        let emptied = was_full && queue.len() < OUTBOX_HIGH;
        let room = !had_room && queue.statuses.len() < OUTBOX_STATUSES;
        drop(queue);
        if emptied || room {
            self.wake();
        }
        taken
    }
}

/// The thread and the way to it.
#[derive(Debug)]
pub struct KernelThread {
    /// Hands inputs to it.
    pub handle: Handle,
    /// Joins it.
    pub thread: std::thread::JoinHandle<()>,
}

/// Starts the thread in the calling thread's network namespace. Sockets that cannot be opened are tried again.
/// `objects`: whether nexthop objects are to be used.
///
/// # Errors
/// The thread or the bell cannot be made.
pub fn start(config: Config, objects: bool, run_dir: PathBuf) -> io::Result<KernelThread> {
    let (bell, ear) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    ear.set_nonblocking(true)?;
    let (feed, fed) = mpsc::channel(FEED);
    let (inputs, received) = mpsc::channel(INPUTS);
    let handle = Handle { feed, inputs, bell: Arc::new(bell) };
    let flows = Forgetter::start()?;
    let thread = std::thread::Builder::new().name("kernel".to_owned()).spawn(move || {
        let engine = Engine::new(config, objects, Instant::now());
        Worker { engine, fed, received, ear, run_dir, outbox: None, mtu: None, flows }.run();
    })?;
    Ok(KernelThread { handle, thread })
}

struct Worker {
    engine: Engine,
    fed: mpsc::Receiver<FeedInput>,
    received: mpsc::Receiver<Input>,
    ear: UnixStream,
    run_dir: PathBuf,
    outbox: Option<Arc<Outbox>>,
    /// The pod MTU that was written.
    mtu: Option<u32>,
    flows: Forgetter,
}

impl Worker {
    fn run(mut self) {
        loop {
            match self.work() {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(%error, "netlink sockets failed: opening new ones");
                    self.engine.kernel_failed(&error, Instant::now());
                    std::thread::sleep(REOPEN);
                }
            }
        }
    }

    /// Works until the end, or until the sockets are of no use.
    fn work(&mut self) -> Result<(), Error> {
        let mut kernel = Netlink::open()?;
        let mut monitor = Monitor::open(kernel.port()?)?;
        // What happened before the listener was there is not known.
        self.engine.hint(&causeway_kernel::Hint::Overrun);
        let mut watched = Vec::new();
        loop {
            self.engine.tick(Instant::now());
            for hint in monitor.drain()? {
                self.engine.hint(&hint);
            }
            if !self.take_inputs() {
                return Ok(());
            }
            self.take_feed();
            let now = Instant::now();
            self.engine.set_room(self.outbox.as_ref().map_or(usize::MAX, |outbox| outbox.room()));
            let mut more = self.engine.step(&mut kernel, now);
            let events = self.engine.take_events();
            if let Some(outbox) = &self.outbox {
                // What the step had no room for may have room by now: nobody rings the bell for that.
                more |= outbox.push(events) && self.engine.untold();
            }
            let tunnels = self.engine.tunnel_links();
            if tunnels != watched {
                monitor.watch_neighbours(&tunnels)?;
                watched = tunnels;
            }
            self.after_step();
            let now = Instant::now();
            let sleep = match more || !self.received.is_empty() || (!self.fed.is_empty() && self.takes_feed())
            {
                true => Duration::ZERO,
                false => self.engine.deadline().map_or(LONGEST_SLEEP, |at| at.saturating_duration_since(now)),
            };
            self.sleep(&monitor, sleep.min(LONGEST_SLEEP))?;
        }
    }

    /// bgpd's commands wait for the first dump, and while it does not read what it is told.
    fn takes_feed(&self) -> bool {
        self.engine.ready() && self.outbox.as_ref().is_none_or(|outbox| outbox.len() < OUTBOX_HIGH)
    }

    fn take_feed(&mut self) {
        for _ in 0..INPUTS_AT_ONCE {
            if !self.takes_feed() {
                return;
            }
            match self.fed.try_recv() {
                Ok(FeedInput::Connected(outbox)) => {
                    self.engine.connect();
                    self.outbox = Some(outbox);
                }
                Ok(FeedInput::Commands(commands)) => {
                    for command in commands {
                        self.engine.command(command);
                    }
                }
                Ok(FeedInput::Disconnected) => {
                    self.engine.disconnect(Instant::now());
                    self.outbox = None;
                }
                Err(_) => return,
            }
        }
    }

    /// Takes what is waiting; `false` at the end.
    fn take_inputs(&mut self) -> bool {
        for _ in 0..INPUTS_AT_ONCE {
            match self.received.try_recv() {
                Ok(Input::Config(config)) => self.engine.configure((*config).clone()),
                Ok(Input::Pods(pods)) => self.engine.set_pods(pods),
                // Whoever asked may have gone.
                Ok(Input::RowNames(answer)) => drop(answer.send(self.engine.row_names())),
                Ok(Input::Rows(names, answer)) => drop(answer.send(self.engine.rows_of(&names))),
                Ok(Input::Node(answer)) => drop(answer.send(self.engine.node())),
                Ok(Input::Underlay(answer)) => drop(answer.send(self.engine.underlay())),
                Ok(Input::Numbers(answer)) => drop(answer.send(self.engine.numbers())),
                Ok(Input::Ready(answer)) => drop(answer.send(match self.engine.ready() {
                    true => Ok(()),
                    false => Err("the kernel has not been read yet".to_owned()),
                })),
                Ok(Input::Stop) | Err(mpsc::error::TryRecvError::Disconnected) => return false,
                Err(mpsc::error::TryRecvError::Empty) => return true,
            }
        }
        true
    }

    fn after_step(&mut self) {
        self.flows.forget(self.engine.take_moved());
        if !self.engine.ready() {
            return;
        }
        let (mtu, reason) = self.engine.pod_mtu();
        if self.mtu != Some(mtu) {
            match pod_store::write_mtu(&self.run_dir, mtu) {
                Ok(()) => {
                    tracing::info!(mtu, %reason, "pods get this MTU");
                    self.mtu = Some(mtu);
                }
                Err(error) => {
                    tracing::warn!(%error, folder = %self.run_dir.display(), "the pod MTU cannot be written")
                }
            }
        }
    }

    /// Sleeps until an event, the bell, or the time is over.
    fn sleep(&mut self, monitor: &Monitor, time: Duration) -> Result<(), Error> {
        let mut fds = [
            PollFd::new(monitor.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.ear.as_fd(), PollFlags::POLLIN),
        ];
        // Rounded up, so that a deadline is over when the thread wakes.
        let millis = if time.is_zero() { 0 } else { time.as_millis() as u64 + 1 };
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::Socket { what: "poll", source: errno.into() }),
        }
        let mut rung = [0; 256];
        while matches!((&self.ear).read(&mut rung), Ok(count) if count > 0) {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use causeway_api::fib::{NextHopState, RouteState};
    use ipnetwork::IpNetwork;

    use super::*;

    fn status(n: u8, generation: u64) -> Event {
        let prefix = IpNetwork::new([10, n, 0, 0].into(), 16).unwrap();
        Event::Status { prefix, generation, state: RouteState::Removed }
    }

    fn next_hop(n: u8, state: NextHopState) -> Event {
        Event::NextHopState { next_hop: NextHop::global([192, 0, 2, n].into()), state }
    }

    #[test]
    fn a_later_message_about_a_next_hop_overtakes_the_earlier_one() {
        let outbox = Outbox::default();
        let goodbye = Event::Goodbye { reason: "x".to_owned() };
        let gone = |n| next_hop(n, NextHopState::Unreachable);
        let there = next_hop(1, NextHopState::Connected { device: "eth0".to_owned(), ifindex: 2 });
        outbox.push(vec![status(1, 1), gone(1), gone(2), goodbye.clone(), there.clone(), status(2, 1)]);
        assert_eq!(outbox.len(), 5);
        assert_eq!(outbox.take_now(1), [gone(2)]);
        assert_eq!(outbox.take_now(3), [goodbye, there, status(1, 1)], "routes come last");
        assert_eq!(outbox.take_now(9), [status(2, 1)]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_reader_that_never_reads_costs_a_message_a_next_hop_and_no_more_room() {
        let outbox = Outbox::default();
        for n in 0..100_000 {
            outbox.push(vec![next_hop((n % 4) as u8, NextHopState::Unreachable)]);
        }
        assert_eq!(outbox.len(), 4);
        assert!(outbox.queue().order.len() < 2_000);
        let filling = |count: usize| (0..count as u64).map(|generation| status(1, generation)).collect();
        assert!(outbox.push(filling(OUTBOX_STATUSES - 1)), "there is room for one more");
        assert!(!outbox.push(filling(1)));
        assert_eq!(outbox.room(), 0);
        outbox.take_now(10);
        assert_eq!(outbox.room(), 6);
        outbox.close();
        outbox.push(vec![status(1, 1)]);
        assert!(outbox.is_empty());
    }
}
