//! How soon the FIB feed is told when a session falls that many prefixes hang on, and in how many messages.
//!
//! `cargo run --release -p causeway-bgp-core --example fib_failover [ROUTES]`: two eBGP peers announce the same table,
//! once with one of them the better and once both equal. The first one's session falls and comes back, and its next hop
//! dies and comes back. Prints, for each, the messages to the feed and the time to the last of them.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod neighbours;

use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_bgp_core::event::{Down, FibUpdate, Input, NextHopState, Output, PeerId, PullState};
use causeway_bgp_core::speaker::{Speaker, StartMode};
use causeway_bgp_wire::{
    Announcement, AsPath, Asn, Ipv4Prefix, NlriList, Origin, PathAttributes, PrefixKey, Update,
};

use neighbours::{address, node, session};

/// Prefixes of one UPDATE.
const PER_UPDATE: u32 = 100;

/// A speaker and its two peers.
struct Scene {
    speaker: Speaker,
    peers: Vec<PeerId>,
    routes: u32,
    /// The second peer's paths are as good as the first's.
    equal: bool,
    /// The speaker's clock, which jumps over what only waits.
    now: Instant,
}

/// What the feed was told.
struct Told {
    groups: usize,
    routes: usize,
    /// From the event to the last message, of the time the speaker worked.
    last: Duration,
}

impl Scene {
    fn new(routes: u32, equal: bool) -> Scene {
        let now = Instant::now();
        let speaker = Speaker::new(now, StartMode { restarting: false, fib: true });
        let mut scene = Scene { speaker, peers: Vec::new(), routes, equal, now };
        scene.speaker.handle(now, Input::Configure(Arc::new(node(2))));
        scene.speaker.handle(now, Input::FibConnected);
        scene
    }

    fn up(&mut self, number: u8) {
        let peer = self.peers[usize::from(number) - 1];
        self.speaker.handle(self.now, Input::SessionUp { peer, session: Arc::new(session(number)) });
        let longer = (!self.equal && number == 2).then_some(Asn(65000));
        let path = [Asn(64600 + u32::from(number)), Asn(65001)].into_iter().chain(longer);
        for update in 0..self.routes / PER_UPDATE {
            let prefix = |number: u32| Ipv4Prefix::from_bits(0x0100_0000 + (number << 8), 24).unwrap().into();
            let numbers = update * PER_UPDATE..(update + 1) * PER_UPDATE;
            let announcement = Announcement {
                attributes: PathAttributes {
                    as_path: AsPath::from_sequence(path.clone()),
                    ..PathAttributes::new(Origin::Igp, address(number).into())
                },
                nlri: NlriList::V4(numbers.map(prefix).collect()),
            };
            let update = Update { announced: [announcement].into_iter().collect(), ..Update::default() };
            self.speaker.handle(self.now, Input::Updates { peer, updates: (&update).into() });
        }
    }

    fn down(&mut self, number: u8) {
        let down = Down { reason: "hold timer expired".to_owned(), label: "hold-timer", retain: false };
        let peer = self.peers[usize::from(number) - 1];
        self.speaker.handle(self.now, Input::SessionDown { peer, down });
    }

    fn next_hop(&mut self, number: u8, alive: bool) {
        let state = match alive {
            true => NextHopState::Connected { device: "eth0".into() },
            false => NextHopState::Unreachable,
        };
        self.speaker.handle(self.now, Input::NextHop { address: address(number), state });
    }

    /// Lets the speaker do what is due now, and the feed pull what there is after every piece of it.
    fn settle(&mut self, started: Instant, told: &mut Told) {
        loop {
            let mut updates = Vec::new();
            while self.speaker.pull_fib(1024, &mut updates) == PullState::More {}
            if !updates.is_empty() {
                told.last = started.elapsed();
            }
            for update in updates {
                match update {
                    FibUpdate::Group { .. } | FibUpdate::GroupGone(_) => told.groups += 1,
                    FibUpdate::Route { .. } | FibUpdate::Withdraw { .. } => told.routes += 1,
                    FibUpdate::Begin | FibUpdate::End(_) => {}
                }
            }
            while let Some(output) = self.speaker.poll_output() {
                match output {
                    Output::PeerAdded { peer, .. } => self.peers.push(peer),
                    Output::WatchNextHop(address) => {
                        let state = NextHopState::Connected { device: "eth0".into() };
                        self.speaker.handle(self.now, Input::NextHop { address, state });
                    }
                    _ => {}
                }
            }
            match self.speaker.poll_timeout() {
                Some(at) if at <= self.now => self.speaker.handle_timeout(self.now),
                _ => return,
            }
        }
    }

    fn report(&mut self, what: &str, event: impl FnOnce(&mut Scene)) {
        let mut told = Told { groups: 0, routes: 0, last: Duration::ZERO };
        let started = Instant::now();
        event(self);
        self.settle(started, &mut told);
        let Told { groups, routes, last } = told;
        // What waits for quiet comes then.
        let mut later = Told { groups: 0, routes: 0, last: Duration::ZERO };
        for _ in 0..5 {
            self.now += Duration::from_secs(1);
            self.settle(Instant::now(), &mut later);
        }
        let milliseconds = last.as_secs_f64() * 1e3;
        println!(
            "{what:<24} {groups:>3} group and {routes:>7} route messages, the last after {milliseconds:>6.1} ms; \
             refined later by {} and {}",
            later.groups, later.routes
        );
    }
}

fn main() {
    let routes: u32 = std::env::args().nth(1).map_or(100_000, |text| text.parse().unwrap());
    for equal in [false, true] {
        println!("{routes} routes, {}", if equal { "both peers equal" } else { "best and backup" });
        let mut scene = Scene::new(routes, equal);
        scene.report("start", |_| {});
        scene.report("first peer", |scene| scene.up(1));
        scene.report("second peer", |scene| scene.up(2));
        scene.report("next hop of the first dies", |scene| scene.next_hop(1, false));
        scene.report("it comes back", |scene| scene.next_hop(1, true));
        scene.report("session of the first falls", |scene| scene.down(1));
        scene.report("it comes back", |scene| scene.up(1));
        scene.report("session of the second falls", |scene| scene.down(2));
    }
}
