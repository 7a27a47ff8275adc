//! How fast the speaker takes a table in and hands it out, and what it holds per route.
//!
//! `cargo run --release -p causeway-bgp-core --example table_load [ROUTES] [PREFIXES PER ATTRIBUTE SET] [FEEDERS]
//! [fib]`: eBGP feeders announce the same table one after the other, the first's paths being the best; one eBGP monitor
//! is sent it; then the first feeder's session falls. Prints seconds of processor time, routes a second and resident
//! bytes a route, of all feeders together.

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

/// Attribute set `number` of a feeder, as a transit feed has them.
fn attributes(feeder: u8, number: u32) -> PathAttributes {
    let path = [64600 + u32::from(feeder), 65000 + number % 500, 66000 + number / 500, 70000 + number % 7];
    PathAttributes {
        as_path: AsPath::from_sequence(path.into_iter().map(Asn)),
        ..PathAttributes::new(Origin::Igp, address(feeder).into())
    }
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn settle(speaker: &mut Speaker, now: Instant) -> Vec<PeerId> {
    let mut added = Vec::new();
    loop {
        while let Some(output) = speaker.poll_output() {
            match output {
                Output::PeerAdded { peer, .. } => added.push(peer),
                Output::WatchNextHop(address) => {
                    let state = NextHopState::Connected { device: "eth0".into() };
                    speaker.handle(now, Input::NextHop { address, state });
                }
                _ => {}
            }
        }
        match speaker.poll_timeout() {
            Some(at) if at <= now => speaker.handle_timeout(now),
            _ => return added,
        }
    }
}

/// Processor time of this process, whatever else the machine does.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

fn report(what: &str, started: Duration, routes: u32) {
    let seconds = (cpu() - started).as_secs_f64();
    println!("{what:<28} {seconds:>7.3} s  {:>10.0} routes/s", f64::from(routes) / seconds);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let routes: u32 = arguments.next().map_or(500_000, |text| text.parse().unwrap());
    let per_set: u32 = arguments.next().map_or(10, |text| text.parse().unwrap());
    let feeders: u8 = arguments.next().map_or(1, |text| text.parse().unwrap());
    let fib = arguments.next().is_some();
    let now = Instant::now();
    let mut speaker = Speaker::new(now, StartMode { restarting: false, fib });
    speaker.handle(now, Input::Configure(Arc::new(node(feeders + 1))));
    let peers = settle(&mut speaker, now);
    for (id, number) in peers.iter().zip(1..) {
        speaker.handle(now, Input::SessionUp { peer: *id, session: Arc::new(session(number)) });
    }
    speaker.handle(now, Input::FibConnected);
    settle(&mut speaker, now);

    let mut messages = Vec::new();
    let mut sent = (0, 0);
    let mut pull = |speaker: &mut Speaker| {
        loop {
            let state = speaker.pull(peers[usize::from(feeders)], 256 << 10, &mut messages);
            sent.0 += messages.len();
            sent.1 += messages.iter().map(bytes::Bytes::len).sum::<usize>();
            messages.clear();
            if state == PullState::Drained {
                return sent;
            }
        }
    };
    let base = resident();
    let started = cpu();
    let mut made = Duration::ZERO;
    for (feeder, peer) in (1..=feeders).zip(&peers) {
        for set in 0..routes / per_set {
            let making = Instant::now();
            let nlri = (0..per_set)
                .map(|number| {
                    let bits = 0x0100_0000 + ((set * per_set + number) << 8);
                    Ipv4Prefix::from_bits(bits, 24).unwrap().into()
                })
                .collect();
            let announcement = Announcement { attributes: attributes(feeder, set), nlri: NlriList::V4(nlri) };
            let update =
                Box::new(Update { announced: [announcement].into_iter().collect(), ..Update::default() });
            made += making.elapsed();
            speaker.handle(now, Input::Updates { peer: *peer, updates: (&*update).into() });
            if set % 100 == 99 {
                settle(&mut speaker, now);
                pull(&mut speaker);
            }
        }
    }
    settle(&mut speaker, now);
    let (count, octets) = pull(&mut speaker);
    let all = routes * u32::from(feeders);
    report("table in and out", started, all);
    println!("{:<28} {:>7.3} s", "  of which making it", made.as_secs_f64());
    println!("{:<28} {count} messages, {octets} octets", "  sent");
    println!("{:<28} {} bytes a route", "  resident", (resident() - base) / all as usize);
    assert_eq!(speaker.counters().families[0].best, u64::from(routes));

    if fib {
        let started = cpu();
        let mut updates: Vec<FibUpdate> = Vec::new();
        while speaker.pull_fib(4096, &mut updates) == PullState::More {
            updates.clear();
        }
        report("FIB pulled", started, routes);
        let started = cpu();
        let state = NextHopState::Unreachable;
        speaker.handle(now, Input::NextHop { address: address(1), state });
        settle(&mut speaker, now);
        report("next hop dead", started, routes);
        let state = NextHopState::Connected { device: "eth0".into() };
        speaker.handle(now, Input::NextHop { address: address(1), state });
        settle(&mut speaker, now);
        pull(&mut speaker);
    }

    let started = cpu();
    let down = Down { reason: "hold timer expired".to_owned(), label: "hold-timer", retain: false };
    let slice = cpu();
    speaker.handle(now, Input::SessionDown { peer: peers[0], down });
    let slice = cpu() - slice;
    settle(&mut speaker, now);
    pull(&mut speaker);
    report("table withdrawn", started, routes);
    println!("{:<28} {:.2} ms", "  first slice", slice.as_secs_f64() * 1e3);
    println!("{:<28} {} bytes a route", "  resident", resident().saturating_sub(base) / all as usize);
}
