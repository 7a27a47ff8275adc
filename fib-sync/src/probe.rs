//! The other end of `causeway doctor mtu`: a thread that answers probes over UDP, and the list of nodes that may be
//! probed.
//!
//! It is the one part of fib-sync that reads what comes from the network, so it has little to read (a header of fixed
//! size, `causeway_probe::message`) and nothing to lose: no kernel socket, no access to routes. Only addresses of
//! other nodes' documents and of their blocks are answered; an answer is not larger than its question until the asker has
//! proved its address by a cookie; and all of it is bounded in packets of 1500 bytes a second.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use causeway_api::control::Condition;
use causeway_api::document_set::DocumentSet;
use causeway_daemon::documents::Configuration;
use causeway_probe::message::headers;
use causeway_probe::socket::readable;
use causeway_probe::{Event, HEADER, Kind, Message, Mishap, Packet, ProbeSocket, Verdict};
use ipnetwork::IpNetwork;
use tokio::sync::watch;

use crate::config::Config;
use crate::doctor;

/// How many packets of up to 1500 bytes are sent a second, and at once.
const RATE: f64 = 1000.0;
/// What a packet counts at least, in bytes.
const UNIT: f64 = 1500.0;
/// For how long a cookie is good: this time and the one before.
const EPOCH: Duration = Duration::from_secs(60);
/// How soon a port that is taken is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long the thread sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Another node of the documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherNode {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its blocks.
    pub blocks: Vec<IpNetwork>,
}

impl OtherNode {
    /// Whether an address is the node's or of one of its pods.
    fn holds(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.blocks.iter().any(|block| block.contains(address))
    }
}

/// All nodes but one, by name.
pub fn other_nodes(documents: &DocumentSet, node: &str) -> Vec<OtherNode> {
    let others = documents.nodes().filter(|(document, _)| document.name() != node);
    let mut others: Vec<OtherNode> = others
        .map(|(document, object)| {
            let bgp = &object.spec.bgp;
            let v4 = bgp.ipv4_address.map(|address| IpAddr::V4(address.0.ip()));
            let v6 = bgp.ipv6_address.map(|address| IpAddr::V6(address.0.ip()));
            OtherNode {
                name: document.name().to_owned(),
                addresses: v4.into_iter().chain(v6).collect(),
                blocks: object.spec.pod_cidrs.iter().map(|cidr| cidr.0).collect(),
            }
        })
        .collect();
    others.sort_by(|one, other| one.name.cmp(&other.name));
    others
}

/// How the responder does, for `show node`.
#[derive(Debug, Clone, Default)]
pub struct ProbeState(Arc<Mutex<Option<Condition>>>);

impl ProbeState {
    /// The condition `ProbesAnswered`.
    pub fn condition(&self) -> Condition {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        state.unwrap_or_else(|| Condition::new("ProbesAnswered", false, "NotYet", "no socket is open yet"))
    }

    fn set(&self, holds: bool, reason: &str, message: String) {
        let condition = Condition::new("ProbesAnswered", holds, reason, message);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.as_ref() != Some(&condition) && !holds && reason != "Off" {
            tracing::warn!(message = %condition.message);
        }
        *state = Some(condition);
    }
}

/// Starts the thread; port 0 starts none.
///
/// # Errors
/// The thread cannot be made.
pub fn start(
    port: u16,
    configuration: watch::Receiver<Configuration<Config>>,
    state: ProbeState,
) -> io::Result<()> {
    if port == 0 {
        state.set(true, "Off", "--probe-port 0: `causeway doctor mtu` cannot probe this node".to_owned());
        return Ok(());
    }
    let nodes = move || Arc::clone(&configuration.borrow().current);
    std::thread::Builder::new()
        .name("probes".to_owned())
        .spawn(move || {
            loop {
                let mut sockets = match bind(port) {
                    Ok(sockets) => sockets,
                    Err(error) => {
                        state.set(false, "NoSocket", format!("UDP port {port} for probes: {error}"));
                        std::thread::sleep(RETRY);
                        continue;
                    }
                };
                state.set(true, "Answering", format!("probes are answered on UDP port {port}"));
                let mut responder = Responder::new(Instant::now());
                let error = serve(&mut sockets, &mut responder, &nodes);
                state.set(false, "SocketFailed", format!("UDP port {port} for probes: {error}"));
                std::thread::sleep(RETRY);
            }
        })
        .map(drop)
}

/// One socket for each family; a host without IPv6 has one.
fn bind(port: u16) -> io::Result<Vec<ProbeSocket>> {
    let mut sockets = vec![ProbeSocket::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))?];
    match ProbeSocket::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
        Ok(socket) => sockets.push(socket),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {}
        Err(error) => return Err(error),
    }
    Ok(sockets)
}

/// Answers until a socket fails.
fn serve(
    sockets: &mut [ProbeSocket],
    responder: &mut Responder,
    nodes: &impl Fn() -> Arc<Config>,
) -> io::Error {
    loop {
        let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        if let Err(error) = readable(&fds, LONGEST_SLEEP) {
            return error;
        }
        drop(fds);
        let config = nodes();
        for socket in sockets.iter_mut() {
            loop {
                let event = match socket.poll() {
                    Ok(Some(event)) => event,
                    Ok(None) => break,
                    Err(error) => return error,
                };
                responder.handle(socket, event, &config.others, Instant::now());
            }
        }
    }
}

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    message: Message,
    /// Length of the payload.
    length: usize,
    ttl: u8,
}

/// Judges what comes in.
#[derive(Debug)]
struct Responder {
    /// Its keys are its own.
    cookies: RandomState,
    started: Instant,
    /// How much may be sent now, in packets, and since when that is known.
    allowance: (f64, Instant),
}

impl Responder {
    fn new(now: Instant) -> Responder {
        Responder { cookies: RandomState::new(), started: now, allowance: (RATE, now) }
    }

    fn handle(&mut self, socket: &mut ProbeSocket, event: Event, nodes: &[OtherNode], now: Instant) {
        let (peer, own, replies) = match event {
            Event::Datagram { from, to, payload } => {
                // A question costs a look into the kernel, at most.
                let known = nodes.iter().any(|node| node.holds(from.ip()));
                if !known || !self.allow(HEADER, now) {
                    return;
                }
                let replies = self.answer(from, &payload, nodes, now, |own, peer| doctor::mtu(peer, own), to);
                (from, to, replies)
            }
            Event::Mishap(mishap) => match report(&mishap) {
                Some((peer, reply)) => (peer, None, vec![reply]),
                None => return,
            },
        };
        for reply in replies {
            let length = reply.length.max(HEADER);
            if !self.allow(length, now) {
                return;
            }
            let packet =
                Packet { to: peer, from: own, ttl: reply.ttl, payload: &reply.message.encode(length) };
            // What cannot be sent is not: the asker asks again. What is too large for our own device is told.
            if let Ok(Some(mishap)) = socket.send(&packet)
                && let Some((peer, reply)) = report(&Mishap { to: Some(peer), ..mishap })
            {
                let payload = reply.message.encode(HEADER);
                let _ = socket.send(&Packet { to: peer, from: own, ttl: 0, payload: &payload });
            }
        }
    }

    /// The answers to a datagram.
    fn answer(
        &self,
        from: SocketAddr,
        payload: &[u8],
        nodes: &[OtherNode],
        now: Instant,
        mtu: impl FnOnce(Option<IpAddr>, IpAddr) -> u32,
        own: Option<IpAddr>,
    ) -> Vec<Reply> {
        let Some(message) = Message::decode(payload) else { return Vec::new() };
        let peer = from.ip();
        if !nodes.iter().any(|node| node.holds(peer)) {
            return Vec::new();
        }
        let short = |message| Reply { message, length: HEADER, ttl: 0 };
        let epoch = now.saturating_duration_since(self.started).as_secs() / EPOCH.as_secs();
        match message.kind {
            Kind::Hello => {
                let cookie = self.cookie(from, epoch);
                vec![short(Message { cookie, ..Message::new(Kind::Cookie, message.nonce) })]
            }
            Kind::Probe | Kind::Send
                if message.cookie != self.cookie(from, epoch)
                    && (epoch == 0 || message.cookie != self.cookie(from, epoch - 1)) =>
            {
                Vec::new()
            }
            Kind::Probe => {
                let size = payload.len() + usize::from(headers(peer));
                let size = u16::try_from(size).unwrap_or(u16::MAX);
                vec![short(Message { size, ..Message::new(Kind::Got, message.nonce) })]
            }
            Kind::Send => {
                let sent = Message {
                    size: message.size,
                    mtu: mtu(own, peer),
                    ..Message::new(Kind::Sent, message.nonce)
                };
                let length = usize::from(message.size.saturating_sub(headers(peer)));
                let data = Reply {
                    message: Message { size: message.size, ..Message::new(Kind::Data, message.nonce) },
                    length,
                    ttl: message.ttl,
                };
                vec![short(sent), data]
            }
            Kind::Cookie | Kind::Got | Kind::Sent | Kind::Data | Kind::Report => Vec::new(),
        }
    }

    /// Only who gets it can know it, for a while.
    fn cookie(&self, asker: SocketAddr, epoch: u64) -> u64 {
        self.cookies.hash_one((asker.ip(), asker.port(), epoch))
    }

    /// Whether so many bytes may be sent.
    fn allow(&mut self, length: usize, now: Instant) -> bool {
        let (left, since) = self.allowance;
        let left = (left + now.saturating_duration_since(since).as_secs_f64() * RATE).min(RATE);
        let cost = (length as f64 / UNIT).max(1.0);
        let allowed = left >= cost;
        self.allowance = (if allowed { left - cost } else { left }, now);
        allowed
    }
}

/// What a hop said of a probe we sent back, for whom it was meant.
fn report(mishap: &Mishap) -> Option<(SocketAddr, Reply)> {
    let sent = Message::decode(&mishap.quoted);
    let about = match (sent, mishap.verdict) {
        (Some(sent), _) if sent.kind == Kind::Data => sent,
        // Hops need not quote that much, and this host quotes nothing of what it did not send.
        (None, Verdict::TooBig | Verdict::TimeExceeded | Verdict::TooBigHere) => Message::new(Kind::Data, 0),
        _ => return None,
    };
    let message = Message {
        verdict: mishap.verdict,
        mtu: mishap.mtu,
        hop: mishap.hop,
        size: about.size,
        ..Message::new(Kind::Report, about.nonce)
    };
    Some((mishap.to?, Reply { message, length: HEADER, ttl: 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: &str = "192.0.2.2:40000";

    fn nodes() -> Vec<OtherNode> {
        vec![OtherNode {
            name: "b".to_owned(),
            addresses: vec!["192.0.2.2".parse().unwrap()],
            blocks: vec!["10.244.2.0/24".parse().unwrap()],
        }]
    }

    fn answers(
        responder: &Responder,
        from: &str,
        message: &Message,
        length: usize,
        now: Instant,
    ) -> Vec<Reply> {
        let payload = message.encode(length);
        responder.answer(from.parse().unwrap(), &payload, &nodes(), now, |_, _| 1450, None)
    }

    fn cookie(responder: &Responder, from: &str, now: Instant) -> u64 {
        let replies = answers(responder, from, &Message::new(Kind::Hello, 7), 0, now);
        let [reply] = replies.as_slice() else { panic!("one answer: {replies:?}") };
        assert_eq!((reply.message.kind, reply.message.nonce, reply.length), (Kind::Cookie, 7, HEADER));
        reply.message.cookie
    }

    #[test]
    fn only_nodes_and_their_pods_are_answered() {
        let now = Instant::now();
        let responder = Responder::new(now);
        let hello = Message::new(Kind::Hello, 1);
        for (from, answered) in
            [(ASKER, 1), ("10.244.2.1:9", 1), ("192.0.2.3:9", 0), ("10.244.3.1:9", 0), ("[2001:db8::1]:9", 0)]
        {
            assert_eq!(answers(&responder, from, &hello, 0, now).len(), answered, "{from}");
        }
    }

    #[test]
    fn nothing_large_is_sent_without_the_cookie_of_that_address_and_time() {
        let start = Instant::now();
        let responder = Responder::new(start);
        let good = cookie(&responder, ASKER, start);
        let send = |cookie| Message { cookie, size: 1500, ttl: 3, ..Message::new(Kind::Send, 9) };
        let replies = answers(&responder, ASKER, &send(good), 0, start);
        let [sent, data] = replies.as_slice() else { panic!("two answers: {replies:?}") };
        assert_eq!((sent.message.kind, sent.message.mtu, sent.length), (Kind::Sent, 1450, HEADER));
        assert_eq!((data.message.kind, data.length, data.ttl), (Kind::Data, 1472, 3));
        for wrong in [0, good ^ 1] {
            assert_eq!(answers(&responder, ASKER, &send(wrong), 1400, start), []);
        }
        assert_eq!(answers(&responder, "192.0.2.2:40001", &send(good), 0, start), [], "another port");
        assert_eq!(answers(&responder, ASKER, &send(good), 0, start + EPOCH).len(), 2, "still good");
        assert_eq!(answers(&responder, ASKER, &send(good), 0, start + 2 * EPOCH), [], "too old");
        assert_ne!(cookie(&Responder::new(start), ASKER, start), good, "keys are a responder's own");
    }

    #[test]
    fn no_answer_is_larger_than_its_question_but_data() {
        let now = Instant::now();
        let responder = Responder::new(now);
        let cookie = cookie(&responder, ASKER, now);
        for kind in [Kind::Hello, Kind::Cookie, Kind::Probe, Kind::Got, Kind::Sent, Kind::Data, Kind::Report]
        {
            for reply in answers(&responder, ASKER, &Message { cookie, ..Message::new(kind, 1) }, 0, now) {
                assert!(reply.length <= HEADER, "{kind:?}: {reply:?}");
            }
        }
        let probe = Message { cookie, ..Message::new(Kind::Probe, 1) };
        assert_eq!(answers(&responder, ASKER, &probe, 1472, now)[0].message.size, 1500);
    }

    #[test]
    fn answers_are_bounded_by_the_second() {
        let now = Instant::now();
        let mut responder = Responder::new(now);
        let count = |responder: &mut Responder, length, now| {
            (0..5000).filter(|_| responder.allow(length, now)).count()
        };
        assert_eq!(count(&mut responder, 48, now), RATE as usize);
        let later = now + Duration::from_millis(500);
        assert_eq!(count(&mut responder, 3000, later), RATE as usize / 4, "larger ones count more");
        assert_eq!(count(&mut responder, 48, later + Duration::from_secs(600)), RATE as usize);
    }

    #[test]
    fn complaints_go_to_who_asked() {
        let data = Message { size: 1500, ..Message::new(Kind::Data, 5) };
        let hop = Some("203.0.113.1".parse().unwrap());
        let to = Some(ASKER.parse().unwrap());
        let mishap = |verdict, quoted| Mishap { verdict, hop, mtu: 1400, to, quoted };
        let (peer, reply) = report(&mishap(Verdict::TooBig, data.encode(500))).unwrap();
        assert_eq!(peer, ASKER.parse().unwrap());
        let told = reply.message;
        assert_eq!(
            (told.kind, told.nonce, told.mtu, told.hop, told.size),
            (Kind::Report, 5, 1400, hop, 1500)
        );
        let (_, reply) = report(&mishap(Verdict::TooBig, Vec::new())).unwrap();
        assert_eq!(reply.message.nonce, 0, "a hop that quotes too little");
        let got = Message::new(Kind::Got, 5).encode(0);
        assert_eq!(report(&mishap(Verdict::Unreachable, got)), None, "nobody waits for our answer");
    }
}
