//! Nodes, links, connections and the clock.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::node::{ConnectionKey, Effect, Node};
use crate::config::Config;
use crate::event::PeerId;

/// How long an attempt to connect over a dead link takes to fail.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Two nodes and the wire between them.
pub struct Link {
    pub ends: [usize; 2],
    pub delay: Duration,
    pub up: bool,
    /// What was on its way when the link went down: TCP sends it again when it is back.
    stalled: VecDeque<Event>,
}

/// One end of a connection: node, and the session's number for it.
type End = (usize, ConnectionKey);

/// A connection; an end is gone when it has closed, or has been told that the other end has.
struct Connection {
    link: usize,
    nodes: [usize; 2],
    ends: [Option<End>; 2],
}

enum Event {
    Dial { from: End, link: usize },
    Dialed { connection: usize },
    DialFailed { from: End },
    Data { connection: usize, to: usize, octets: Vec<u8>, of_speaker: usize },
    Closed { connection: usize, to: usize },
    Start { node: usize, restarting: bool },
}

/// The network.
pub struct Network {
    pub now: Instant,
    pub nodes: Vec<Option<Node>>,
    pub links: Vec<Link>,
    configs: Vec<Arc<Config>>,
    addresses: Vec<IpAddr>,
    connections: Vec<Connection>,
    /// Which connection an end is of, and which of its ends.
    by_end: BTreeMap<End, (usize, usize)>,
    /// Accepted connections that the session has yet to answer for.
    accepting: BTreeMap<(usize, PeerId), VecDeque<(End, usize)>>,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    pub steps: u64,
    pub rng: fastrand::Rng,
}

impl Network {
    /// Starts a node for each configuration, linked as given.
    pub fn new(nodes: Vec<(Arc<Config>, IpAddr)>, links: &[(usize, usize)], seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let links = links.iter().map(|(a, b)| Link {
            ends: [*a, *b],
            delay: Duration::from_micros(rng.u64(50..20_000)),
            up: true,
            stalled: VecDeque::new(),
        });
        let links = links.collect();
        let (configs, addresses): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
        let mut network = Network {
            now: Instant::now(),
            nodes: configs.iter().map(|_| None).collect(),
            links,
            configs,
            addresses,
            connections: Vec::new(),
            by_end: BTreeMap::new(),
            accepting: BTreeMap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            steps: 0,
            rng,
        };
        for node in 0..network.nodes.len() {
            let start = Duration::from_millis(network.rng.u64(0..2_000));
            network.schedule(start, Event::Start { node, restarting: false });
        }
        network
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    pub fn address(&self, node: usize) -> IpAddr {
        self.addresses[node]
    }

    pub fn node_at(&self, address: IpAddr) -> Option<usize> {
        self.addresses.iter().position(|other| *other == address)
    }

    pub fn link_between(&self, a: usize, b: usize) -> Option<usize> {
        self.links.iter().position(|link| link.ends == [a, b] || link.ends == [b, a])
    }

    /// Runs for this long. Panics where it takes more steps than a network that is not in a loop would.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        let bound = self.steps + 2_000_000;
        loop {
            let timeouts = self.nodes.iter().flatten().filter_map(Node::next_timeout);
            let event = self.events.keys().next().map(|(at, _)| *at);
            let Some(next) = timeouts.chain(event).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            self.steps += 1;
            assert!(self.steps < bound, "does not go quiet");
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        if let Some(first) = self.events.first_entry()
            && first.key().0 <= self.now
        {
            let event = first.remove();
            self.happen(event);
        } else {
            for index in 0..self.nodes.len() {
                if let Some(node) = &mut self.nodes[index]
                    && node.next_timeout().is_some_and(|at| at <= self.now)
                {
                    node.handle_timeout(self.now);
                    self.carry_out(index);
                }
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        if let Event::Data { connection, .. } | Event::Closed { connection, .. } = event {
            let link = &mut self.links[self.connections[connection].link];
            if !link.up {
                return link.stalled.push_back(event);
            }
        }
        match event {
            Event::Start { node, restarting } => {
                let rng = self.rng.fork();
                let config = self.configs[node].clone();
                self.nodes[node] = Some(Node::start(now, config, self.addresses[node], restarting, rng));
                self.carry_out(node);
            }
            Event::Dial { from, link } => self.dial(from, link),
            Event::Dialed { connection } => {
                let Connection { nodes: [index, to], ends: [Some((_, end)), _], .. } =
                    self.connections[connection]
                else {
                    return;
                };
                let address = self.addresses[to];
                match &mut self.nodes[index] {
                    Some(node) => node.connected(now, end, address),
                    None => self.close(connection, 0),
                }
                self.carry_out(index);
            }
            Event::DialFailed { from } => {
                if let Some(node) = &mut self.nodes[from.0] {
                    node.lost(now, from.1, "cannot connect");
                }
                self.carry_out(from.0);
            }
            Event::Data { connection, to, octets, of_speaker } => {
                let ends = self.connections[connection].ends;
                if let Some((index, end)) = ends[to]
                    && let Some(node) = &mut self.nodes[index]
                {
                    node.receive(now, end, &octets);
                    self.carry_out(index);
                }
                if let (Some((index, (peer, _))), true) = (ends[1 - to], of_speaker > 0)
                    && let Some(node) = &mut self.nodes[index]
                {
                    node.arrived(now, peer, of_speaker);
                    self.carry_out(index);
                }
            }
            Event::Closed { connection, to } => {
                let Some((index, end)) = self.connections[connection].ends[to].take() else { return };
                self.by_end.remove(&(index, end));
                if let Some(node) = &mut self.nodes[index] {
                    node.lost(now, end, "closed by the peer");
                    self.carry_out(index);
                }
            }
        }
    }

    /// One end closes; the other is told.
    fn close(&mut self, connection: usize, side: usize) {
        if let Some(end) = self.connections[connection].ends[side].take() {
            self.by_end.remove(&end);
            let delay = self.links[self.connections[connection].link].delay;
            self.schedule(delay, Event::Closed { connection, to: 1 - side });
        }
    }

    fn dial(&mut self, from: End, link: usize) {
        let [a, b] = self.links[link].ends;
        let to = if a == from.0 { b } else { a };
        let address = self.addresses[from.0];
        if !self.links[link].up {
            return self.schedule(CONNECT_TIMEOUT, Event::DialFailed { from });
        }
        // The session answers at once, while its outputs are carried out.
        let peer = self.nodes[to].as_ref().and_then(|node| node.peer_at(address));
        let Some(peer) = peer else {
            let delay = self.links[link].delay;
            return self.schedule(delay, Event::DialFailed { from });
        };
        self.accepting.entry((to, peer)).or_default().push_back((from, link));
        if let Some(node) = &mut self.nodes[to] {
            node.accept(self.now, address);
        }
        self.carry_out(to);
    }

    fn carry_out(&mut self, index: usize) {
        while let Some(effect) = self.nodes[index].as_mut().and_then(|node| node.effects.pop_front()) {
            match effect {
                Effect::Connect { end, to } => {
                    let from = (index, end);
                    let link = self.node_at(to).and_then(|to| self.link_between(index, to));
                    match link {
                        Some(link) => {
                            let delay = self.links[link].delay;
                            self.schedule(delay, Event::Dial { from, link });
                        }
                        None => self.schedule(CONNECT_TIMEOUT, Event::DialFailed { from }),
                    }
                }
                Effect::Adopt { end } => {
                    let waiting = self.accepting.get_mut(&(index, end.0)).and_then(VecDeque::pop_front);
                    let (from, link) = waiting.expect("an answer for each accepted connection");
                    let to = (index, end);
                    let connection = self.connections.len();
                    self.by_end.extend([(from, (connection, 0)), (to, (connection, 1))]);
                    let ends = [Some(from), Some(to)];
                    self.connections.push(Connection { link, nodes: [from.0, index], ends });
                    let delay = self.links[link].delay;
                    self.schedule(delay, Event::Dialed { connection });
                }
                Effect::Refuse { peer } => {
                    let waiting = self.accepting.get_mut(&(index, peer)).and_then(VecDeque::pop_front);
                    let (from, link) = waiting.expect("an answer for each accepted connection");
                    let delay = self.links[link].delay;
                    self.schedule(delay, Event::DialFailed { from });
                }
                Effect::Send { end, octets, of_speaker } => {
                    if let Some((connection, side)) = self.by_end.get(&(index, end)).copied() {
                        let delay = self.links[self.connections[connection].link].delay;
                        self.schedule(delay, Event::Data { connection, to: 1 - side, octets, of_speaker });
                    }
                }
                Effect::Close { end } => {
                    if let Some((connection, side)) = self.by_end.get(&(index, end)).copied() {
                        self.close(connection, side);
                    }
                }
            }
        }
    }

    /// A link goes down or comes back; nobody is told but by silence.
    pub fn set_link(&mut self, link: usize, up: bool) {
        self.links[link].up = up;
        if up {
            // At once, since nothing may overtake it.
            for event in std::mem::take(&mut self.links[link].stalled) {
                self.schedule(Duration::ZERO, event);
            }
        }
    }

    /// The node's process dies; its kernel closes the connections.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
        self.accepting.retain(|(index, _), _| *index != node);
        for index in 0..self.connections.len() {
            for side in 0..2 {
                if self.connections[index].ends[side].is_some_and(|(other, _)| other == node) {
                    self.close(index, side);
                }
            }
        }
    }

    /// It comes back after a while, with the mark of a restart or without.
    pub fn start_after(&mut self, node: usize, after: Duration, restarting: bool) {
        self.schedule(after, Event::Start { node, restarting });
    }

    pub fn configure(&mut self, node: usize, config: Config) {
        let config = Arc::new(config);
        self.configs[node] = config.clone();
        if let Some(running) = &mut self.nodes[node] {
            running.configure(self.now, config);
        }
        self.carry_out(node);
    }

    pub fn speak(&mut self, node: usize, input: crate::event::Input) {
        if let Some(running) = &mut self.nodes[node] {
            running.speak(self.now, input);
        }
        self.carry_out(node);
    }

    /// When the last UPDATE came anywhere.
    pub fn last_update(&self) -> Option<Instant> {
        self.nodes.iter().flatten().filter(|node| node.updates > 0).map(|node| node.last_update).max()
    }

    pub fn updates(&self) -> u64 {
        self.nodes.iter().flatten().map(|node| node.updates).sum()
    }
}
