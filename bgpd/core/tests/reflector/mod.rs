//! A reflector whose clients 0 and 1 announce a table, and whose others are sent it; single routes of it flap.
//!
//! What `examples/flap_cost.rs` counts instructions of and `cost_of_change.rs` counts allocations of. Pure.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use causeway_bgp_core::Updates;
use causeway_bgp_core::event::{Input, Output, PeerId, PullState};
use causeway_bgp_core::speaker::Speaker;
use causeway_bgp_wire::{
    Announcement, AsPath, Asn, Ipv4Prefix, NlriList, Origin, PathAttributes, PrefixKey, Update,
};

mod clients;

use clients::{address, session};

/// Clients that announce; the others are members that are sent it.
const FEEDERS: u32 = 2;

/// What a flap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The route goes and comes back.
    Withdraw,
    /// Its MED changes and changes back.
    Attributes,
    /// The best path moves to the second feeder and back.
    Feeders,
}

fn prefix(number: u32) -> Ipv4Prefix {
    Ipv4Prefix::from_bits(0x0100_0000 + (number << 8), 24).unwrap()
}

/// What a feeder says of routes of one attribute set; the second one's paths are the longer ones.
fn announcement(feeder: u32, set: u32, med: Option<u32>, prefixes: impl Iterator<Item = u32>) -> Update {
    let path = [65000 + set % 500, 66000 + set / 500, 70000 + set % 7];
    let longer = std::iter::repeat_n(65000 + set % 500, feeder as usize);
    let attributes = PathAttributes {
        as_path: AsPath::from_sequence(longer.chain(path).map(Asn)),
        local_pref: Some(100),
        med,
        ..PathAttributes::new(Origin::Igp, IpAddr::V4(address(feeder)).into())
    };
    let nlri = prefixes.map(|number| prefix(number).into()).collect();
    let announcement = Announcement { attributes, nlri: NlriList::V4(nlri) };
    Update { announced: [announcement].into_iter().collect(), ..Update::default() }
}

fn withdrawal(number: u32) -> Update {
    let nlri = NlriList::V4([prefix(number).into()].into_iter().collect());
    Update { withdrawn: [nlri].into_iter().collect(), ..Update::default() }
}

/// The reflector, and what it has sent.
pub struct Reflector {
    pub speaker: Speaker,
    /// Octets of all messages to all clients.
    pub octets: usize,
    peers: Vec<PeerId>,
    per_set: u32,
    now: Instant,
    out: Vec<Bytes>,
}

impl Reflector {
    /// With so many clients beside the feeders, all of them up. So many routes are to share an attribute set.
    pub fn new(members: u32, per_set: u32) -> Self {
        let clients = FEEDERS + members;
        let now = Instant::now();
        let (mut speaker, peers) = clients::reflector(now, clients);
        for (client, peer) in (0..).zip(&peers) {
            speaker.handle(now, Input::SessionUp { peer: *peer, session: session(client) });
        }
        let mut reflector = Reflector { speaker, octets: 0, peers, per_set, now, out: Vec::new() };
        reflector.serve();
        reflector
    }

    /// Hands out what is there to whoever is woken.
    fn serve(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            let Output::Wake(peer) = output else { continue };
            while self.speaker.pull(peer, 256 << 10, &mut self.out) == PullState::More {}
            self.octets += self.out.iter().map(Bytes::len).sum::<usize>();
            self.out.clear();
        }
    }

    fn receive(&mut self, feeder: u32, update: &Update) {
        let peer = self.peers[feeder as usize];
        self.speaker.handle(self.now, Input::Updates { peer, updates: Updates::from(update) });
    }

    /// One feeder announces a table, or where they are to compete, both.
    pub fn fill(&mut self, kind: Kind, routes: u32) {
        for feeder in 0..if kind == Kind::Feeders { 2 } else { 1 } {
            for set in 0..routes / self.per_set {
                let prefixes = set * self.per_set..(set + 1) * self.per_set;
                self.receive(feeder, &announcement(feeder, set, None, prefixes));
                if set % 100 == 99 {
                    self.serve();
                }
            }
        }
        self.serve();
    }

    /// A route changes and changes back; every client is sent the one before the other. No two rounds use the same
    /// attributes.
    pub fn flap(&mut self, kind: Kind, round: u32, number: u32) {
        let set = number / self.per_set;
        match kind {
            Kind::Withdraw | Kind::Feeders => self.receive(0, &withdrawal(number)),
            Kind::Attributes => {
                self.receive(0, &announcement(0, set, Some(round), std::iter::once(number)));
            }
        }
        self.serve();
        self.receive(0, &announcement(0, set, None, std::iter::once(number)));
        self.serve();
    }
}
