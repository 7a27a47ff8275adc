//! What the FIB is told to forward by: backups, weights, tunnels, and how few messages a loss takes.

use causeway_bgp_wire::{ExtCommunity, Tunnel, TunnelKind, UnknownAttribute};

use super::*;

fn bench() -> Bench {
    let mut bench = Bench::with_mode(StartMode { restarting: false, fib: true }, config(1..5));
    bench.input(Input::FibConnected);
    bench
}

/// What is pulled when everything has come to rest, beside what begins and ends a snapshot.
fn told(bench: &mut Bench) -> Vec<FibUpdate> {
    let mut updates = Vec::new();
    for _ in 0..3 {
        updates.extend(bench.pull_fib());
        bench.advance(1);
    }
    updates.retain(|update| !matches!(update, FibUpdate::Begin | FibUpdate::End(_)));
    updates
}

/// The next hops and the backups of the one group that is told of.
fn group(updates: &[FibUpdate]) -> (Vec<Member>, Vec<Member>) {
    let mut groups = updates.iter().filter_map(|update| match update {
        FibUpdate::Group { members, backups, .. } => Some((members.clone(), backups.clone())),
        _ => None,
    });
    let last = groups.next_back();
    last.unwrap_or_else(|| panic!("no group: {updates:?}"))
}

const MANY: u32 = 10_000;

/// Many prefixes from a peer, its own AS as often in the path as it says.
fn announce_many(bench: &mut Bench, number: u8, path_length: usize) {
    let prefixes: Vec<Prefix> = (0..MANY)
        .map(|number| Prefix::new(Ipv4Addr::from_bits(0x0a00_0000 + (number << 8)).into(), 24).unwrap())
        .collect();
    let attributes = PathAttributes {
        as_path: AsPath::from_sequence(vec![peer_as(number); path_length]),
        ..attributes(number)
    };
    let announcement = Announcement { attributes, nlri: nlri(&prefixes) };
    bench.update(number, Update { announced: [announcement].into_iter().collect(), ..Update::default() });
    bench.reachable(address(number));
}

#[test]
fn a_session_that_falls_is_one_message_and_so_is_its_return() {
    for length in [1, 2] {
        let mut bench = bench();
        for number in 1..=3 {
            bench.up(number);
            announce_many(&mut bench, number, if number == 1 { 1 } else { length });
        }
        let all = told(&mut bench);
        let expected = match length {
            1 => (vec![plain(1), plain(2), plain(3)], Vec::new()),
            _ => (vec![plain(1)], vec![plain(2), plain(3)]),
        };
        assert_eq!(group(&all), expected);
        let routes = all.iter().filter(|update| matches!(update, FibUpdate::Route { .. })).count();
        assert_eq!(routes, MANY as usize, "each prefix is told once, whoever comes later");
        // The first of what the speaker does, before the prefixes have been decided anew.
        let down = Down { reason: "hold timer".to_owned(), label: "hold-timer", retain: false };
        let peer = bench.id(1);
        bench.speaker.handle(bench.now, Input::SessionDown { peer, down });
        let mut first = Vec::new();
        bench.speaker.pull_fib(1, &mut first);
        assert_eq!(group(&first), (vec![plain(2), plain(3)], Vec::new()));
        assert_eq!(told(&mut bench), []);
        bench.up(1);
        announce_many(&mut bench, 1, 1);
        let back = told(&mut bench);
        assert_eq!((group(&back), back.len()), (expected, 1));
        // A lost backup, or one of equals, likewise.
        bench.down(3, false);
        let less = told(&mut bench);
        assert_eq!(less.len(), 1);
        assert!(group(&less).0.iter().chain(&group(&less).1).all(|member| member.next_hop != address(3)));
    }
}

#[test]
fn a_next_hop_that_comes_in_the_place_of_another_is_told_as_itself() {
    let mut bench = bench();
    (1..=2).for_each(|number| bench.up(number));
    announce_many(&mut bench, 1, 1);
    assert_eq!(group(&told(&mut bench)).0, [plain(1)]);
    bench.down(1, false);
    told(&mut bench);
    announce_many(&mut bench, 2, 1);
    assert_eq!(group(&told(&mut bench)).0, [plain(2)]);
}

#[test]
fn paths_retained_over_a_restart_keep_their_next_hop_and_end_in_one_message() {
    // Their time is over, or the peer is back and has lost what it forwarded by.
    for back in [false, true] {
        let mut bench = bench();
        let up = |bench: &mut Bench, number| {
            let kept = graceful(60, false, !back);
            bench.up_as(number, SessionInfo { graceful: kept, ..session(number, peer_as(number)) });
        };
        for number in 1..=2 {
            up(&mut bench, number);
            announce_many(&mut bench, number, usize::from(number));
        }
        told(&mut bench);
        bench.down(1, true);
        assert_eq!(told(&mut bench), []);
        match back {
            false => bench.advance(61),
            true => up(&mut bench, 1),
        }
        let updates = told(&mut bench);
        assert_eq!((group(&updates), updates.len()), ((vec![plain(2)], Vec::new()), 1));
    }
}

fn bandwidth(gigabytes: f32) -> ExtCommunity {
    let [a, b, c, d] = (gigabytes * 1e9).to_be_bytes();
    ExtCommunity([0x40, 4, 0xfc, 0, a, b, c, d])
}

#[test]
fn flows_are_shared_by_bandwidth_where_each_path_has_one() {
    let mut bench = bench();
    for (number, share) in [(1, 1.0), (2, 4.0)] {
        bench.up(number);
        bench.reachable(address(number));
        let attributes = PathAttributes { ext_communities: vec![bandwidth(share)], ..attributes(number) };
        bench.announce_as(number, &["10.1.0.0/24"], attributes);
        bench.reachable(address(number));
    }
    let (members, _) = group(&told(&mut bench));
    assert_eq!(members, [plain(1), Member { weight: 4, ..plain(2) }]);
    assert_eq!(bench.path(2, "10.1.0.0/24").unwrap().weight, Some(4));
    bench.up(3);
    bench.announce(3, &["10.1.0.0/24"]);
    bench.reachable(address(3));
    let (members, _) = group(&told(&mut bench));
    assert_eq!(members, [plain(1), plain(2), plain(3)]);
    assert_eq!(bench.path(2, "10.1.0.0/24").unwrap().weight, None);
}

#[test]
fn rfc9012_6_the_tunnel_of_a_path_goes_with_its_next_hop() {
    let mut bench = bench();
    let value =
        [0, 8, 0, 26, 6, 10, 0, 0, 0, 0, 0, 1, 192, 0, 2, 9, 1, 12, 0x80, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let with_attribute = PathAttributes {
        unknown: vec![UnknownAttribute { code: 23, partial: false, value: value.into() }],
        large_communities: vec![causeway_bgp_wire::LargeCommunity { global: 1, local1: 2, local2: 3 }],
        ..attributes(1)
    };
    let with_community = PathAttributes {
        ext_communities: vec![bandwidth(1.0), ExtCommunity([3, 0x0c, 0, 0, 0, 0, 0, 7])],
        as_path: AsPath::from_sequence([peer_as(2), peer_as(2)]),
        ..attributes(2)
    };
    for (number, attributes) in [(1, with_attribute), (2, with_community)] {
        bench.up(number);
        bench.announce_as(number, &["10.1.0.0/24"], attributes);
        bench.reachable(address(number));
    }
    let (members, backups) = group(&told(&mut bench));
    let vxlan = Tunnel { kind: TunnelKind::Vxlan, endpoint: Some(address(9)), vni: Some(4096), mac: None };
    let ipip = Tunnel { kind: TunnelKind::Ipip, endpoint: None, vni: None, mac: None };
    assert_eq!(members, [Member { tunnel: Some(Box::new(vxlan)), ..plain(1) }]);
    assert_eq!(backups, [Member { tunnel: Some(Box::new(ipip)), ..plain(2) }]);
    let (first, second) = (bench.path(1, "10.1.0.0/24").unwrap(), bench.path(2, "10.1.0.0/24").unwrap());
    assert_eq!(
        (first.tunnel, first.backup, second.tunnel, second.backup),
        (Some(vxlan), false, Some(ipip), true)
    );
}
