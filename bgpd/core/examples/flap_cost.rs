//! What a change costs in a table of a size, to be counted in instructions.
//!
//! `valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/flap_cost ROUTES FLAPS KIND MEMBERS
//! [ROUTES PER ATTRIBUTE SET]`: a client of a reflector announces a table and as many members as said are sent it;
//! then so many single routes all over the table flap, and every member is sent every change before the next. A flap is
//! there and back again: two changes. KIND: `withdraw` (gone and back), `attributes` (MED changes twice), `feeders` (a
//! second client announces the same table, and the best path moves to it and back). What one flap costs is the difference
//! between two runs that differ in FLAPS, by that difference.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::{Duration, Instant};

#[path = "../tests/reflector/mod.rs"]
mod reflector;

use reflector::{Kind, Reflector};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(default, |text| text.parse::<u32>().unwrap());
    let (routes, flaps) = (number(1_000_000), number(10_000));
    let kind = match arguments.next().as_deref() {
        None | Some("withdraw") => Kind::Withdraw,
        Some("attributes") => Kind::Attributes,
        Some("feeders") => Kind::Feeders,
        Some(other) => panic!("{other}: neither withdraw nor attributes nor feeders"),
    };
    let members = arguments.next().map_or(1, |text| text.parse::<u32>().unwrap());
    let per_set = arguments.next().map_or(10, |text| text.parse::<u32>().unwrap());
    let mut reflector = Reflector::new(members, per_set);
    let started = Instant::now();
    reflector.fill(kind, routes);
    println!("{routes} routes to {members} members: {:.3} s", started.elapsed().as_secs_f64());
    let (started, octets) = (Instant::now(), reflector.octets);
    let mut longest = Duration::ZERO;
    for round in 0..flaps {
        // All over the table: a stride that has no divisor in common with its size.
        let number = (u64::from(round) * 7_368_787 % u64::from(routes)) as u32;
        let begun = Instant::now();
        reflector.flap(kind, round, number);
        longest = longest.max(begun.elapsed());
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{flaps} flaps: {:.2} us each, the longest {:.0} us; {} octets sent",
        seconds * 1e6 / f64::from(flaps.max(1)),
        longest.as_secs_f64() * 1e6,
        reflector.octets - octets,
    );
    assert_eq!(reflector.speaker.counters().families[0].best, u64::from(routes));
}
