//! How fast a reflector serves its clients, and what it holds for them.
//!
//! `cargo run --release -p causeway-bgp-core --example reflector_load [CLIENTS] [PREFIXES EACH]`: all clients come up,
//! then each announces its prefixes in one message ("warm"); the same with each client announcing as it comes up
//! ("cold"); then a thousand rounds in which a hundred clients change what they announce, with all clients reading
//! and with one that does not. Octets are decoded on their way in and handed out as the sockets would be given them; nothing is sent.
//! Prints processor time, deliveries a second and resident bytes.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_bgp_core::event::{Input, Output, PeerId, PullState};
use causeway_bgp_core::speaker::Speaker;
use causeway_bgp_wire::encode::{EncodeContext, EncodedAttributes};
use causeway_bgp_wire::{
    DecodeContext, Family, Ipv4Prefix, Message, Nlri, Origin, PathAttributes, PrefixKey, SessionKind,
};

#[path = "../tests/reflector/clients.rs"]
mod clients;

use clients::{V4, address, session};

/// What a client announces, as it comes over the wire.
fn message(client: u32, prefixes: u32, med: Option<u32>) -> Vec<u8> {
    let attributes = PathAttributes {
        local_pref: Some(100),
        med,
        ..PathAttributes::new(Origin::Igp, IpAddr::V4(address(client)).into())
    };
    let encoded = EncodedAttributes::<Ipv4Prefix>::new(&attributes, &EncodeContext::default()).unwrap();
    let prefix =
        |number: u32| Ipv4Prefix::from_bits(0x0b00_0000 + ((client * prefixes + number) << 8), 24).unwrap();
    let nlri = (0..prefixes).map(|number| Nlri::from(prefix(number)));
    let mut octets = Vec::new();
    assert_eq!(encoded.announce(nlri, &mut octets), 1, "few prefixes");
    octets
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

struct Reflector {
    speaker: Speaker,
    peers: Vec<PeerId>,
    now: Instant,
    out: Vec<Bytes>,
    slices: usize,
    octets: usize,
    /// A client that is never served.
    stopped: Option<PeerId>,
}

impl Reflector {
    fn new(clients: u32) -> Self {
        let now = Instant::now();
        let (speaker, peers) = clients::reflector(now, clients);
        Reflector { speaker, peers, now, out: Vec::new(), slices: 0, octets: 0, stopped: None }
    }

    /// Hands out what is there to whoever is woken.
    fn serve(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            let Output::Wake(peer) = output else { continue };
            if self.stopped == Some(peer) {
                continue;
            }
            while self.speaker.pull(peer, 256 << 10, &mut self.out) == PullState::More {}
            self.slices += self.out.len();
            self.octets += self.out.iter().map(Bytes::len).sum::<usize>();
            self.out.clear();
        }
    }

    fn up(&mut self, client: u32) {
        let peer = self.peers[client as usize];
        self.speaker.handle(self.now, Input::SessionUp { peer, session: session(client) });
    }

    fn receive(&mut self, client: u32, octets: &[u8]) {
        let context = DecodeContext::new(SessionKind::Internal, V4);
        let Message::Update(update) = Message::decode(octets, &context).unwrap() else { unreachable!() };
        let peer = self.peers[client as usize];
        self.speaker.handle(self.now, Input::Updates { peer, updates: (&update).into() });
    }

    fn report(&self, what: &str, started: Duration, deliveries: u64, base: usize) {
        let seconds = (cpu() - started).as_secs_f64();
        println!(
            "{what}: {seconds:.3} s, {:.1} M deliveries/s, {} slices of {} octets in all, {} KiB resident more",
            deliveries as f64 / seconds / 1e6,
            self.slices,
            self.octets,
            resident().saturating_sub(base) / 1024,
        );
        for peer in &self.peers {
            let view = self.speaker.peer(*peer).unwrap();
            let advertised = view.families[Family::Ipv4Unicast.index()].advertised;
            assert_eq!(advertised * self.peers.len() as u64, deliveries);
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u32>().unwrap());
    let clients = arguments.next().unwrap_or(1_000);
    let prefixes = arguments.next().unwrap_or(1);
    let messages: Vec<Vec<u8>> = (0..clients).map(|client| message(client, prefixes, None)).collect();
    let deliveries = u64::from(clients) * u64::from(clients - 1) * u64::from(prefixes);
    // How many messages a reflector finds on its sockets before it looks at sending again.
    for batch in [1, 64, clients as usize] {
        let base = resident();
        let mut reflector = Reflector::new(clients);
        (0..clients).for_each(|client| reflector.up(client));
        reflector.serve();
        let started = cpu();
        for (client, octets) in (0..).zip(&messages) {
            reflector.receive(client, octets);
            if (client as usize + 1).is_multiple_of(batch) {
                reflector.serve();
            }
        }
        reflector.serve();
        reflector.report(&format!("warm, {batch} at a time"), started, deliveries, base);
    }
    for batch in [1, 64, clients as usize] {
        let base = resident();
        let mut reflector = Reflector::new(clients);
        let started = cpu();
        for (client, octets) in (0..).zip(&messages) {
            reflector.up(client);
            reflector.receive(client, octets);
            if (client as usize + 1).is_multiple_of(batch) {
                reflector.serve();
            }
        }
        reflector.serve();
        reflector.report(&format!("cold, {batch} at a time"), started, deliveries, base);
    }
    for stopped in [false, true] {
        let mut reflector = Reflector::new(clients);
        (0..clients).for_each(|client| reflector.up(client));
        messages.iter().zip(0..).for_each(|(octets, client)| reflector.receive(client, octets));
        reflector.serve();
        reflector.stopped = stopped.then_some(reflector.peers[0]);
        let (base, rounds, changes) = (resident(), 1_000, clients.min(100));
        let started = cpu();
        for round in 0..rounds {
            for client in (0..changes).map(|number| (round * changes + number) % clients) {
                reflector.receive(client, &message(client, prefixes, Some(round)));
            }
            reflector.serve();
        }
        let what = if stopped { "churn, one client not reading" } else { "churn" };
        let deliveries = u64::from(rounds * changes * prefixes) * u64::from(clients - 1);
        println!("{what}: {:.3} s", (cpu() - started).as_secs_f64());
        println!("  {deliveries} deliveries, {} KiB resident more", resident().saturating_sub(base) / 1024);
    }
}
