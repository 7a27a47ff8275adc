//! How fast the FIB feed is encoded and decoded.
//!
//! `cargo run --release -p causeway-api --example fib_codec [ROUTES]`: routes as bgpd sends them and install statuses as
//! fib-sync does, in pieces as a socket gives them, of both families. Prints messages a second.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use causeway_api::fib::{Command, Decoder, Event, Message, RouteState, Via};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// As much as is read at a time.
const PIECE: usize = 64 << 10;

fn v4(number: u32) -> IpNetwork {
    Ipv4Network::new(Ipv4Addr::from_bits(0x0100_0000 + (number << 8)), 24).unwrap().into()
}

fn v6(number: u32) -> IpNetwork {
    Ipv6Network::new(Ipv6Addr::from_bits(0xfd << 120 | u128::from(number) << 64), 64).unwrap().into()
}

fn run<M: Message>(what: &str, count: u32, message: impl Fn(u32) -> M) {
    let mut bytes = Vec::new();
    // Once to have the memory.
    for _ in 0..2 {
        bytes.clear();
        let started = Instant::now();
        (0..count).for_each(|number| message(number).encode(&mut bytes));
        let encoding = started.elapsed();
        let started = Instant::now();
        let (mut decoder, mut decoded) = (Decoder::new(), 0);
        for piece in bytes.chunks(PIECE) {
            decoder.extend(piece);
            while let Some(message) = decoder.poll::<M>().unwrap() {
                std::hint::black_box(&message);
                decoded += 1;
            }
        }
        assert_eq!(decoded, count);
        let rate = |time: std::time::Duration| f64::from(count) / time.as_secs_f64() / 1e6;
        println!(
            "{what:<14} encoded {:>6.1} M/s, decoded {:>6.1} M/s",
            rate(encoding),
            rate(started.elapsed())
        );
    }
}

fn main() {
    let count: u32 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    for (family, prefix) in [("IPv4", v4 as fn(u32) -> IpNetwork), ("IPv6", v6)] {
        run(&format!("{family} routes"), count, |number| Command::Route {
            prefix: prefix(number),
            group: 7,
            generation: number.into(),
        });
        run(&format!("{family} statuses"), count, |number| Event::Status {
            prefix: prefix(number),
            generation: number.into(),
            state: RouteState::Installed { via: Via::Direct },
        });
    }
}
