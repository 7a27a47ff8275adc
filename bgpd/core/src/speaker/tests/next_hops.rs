//! Next hops: asked for while used, and what an answer changes.

use super::*;

fn bench() -> Bench {
    Bench::with_mode(StartMode { restarting: false, fib: true }, config([1, 2]))
}

fn watches(bench: &mut Bench) -> Vec<(bool, IpAddr)> {
    std::mem::take(&mut bench.outputs)
        .into_iter()
        .filter_map(|output| match output {
            Output::WatchNextHop(address) => Some((true, address)),
            Output::UnwatchNextHop(address) => Some((false, address)),
            _ => None,
        })
        .collect()
}

#[test]
fn watched_from_the_first_path_to_the_last() {
    let mut bench = bench();
    bench.up(1);
    bench.announce(1, &["10.1.0.0/24", "10.1.1.0/24"]);
    assert_eq!(watches(&mut bench), [(true, address(1))]);
    bench.withdraw(1, &["10.1.0.0/24"]);
    assert_eq!(watches(&mut bench), []);
    let moved = PathAttributes { next_hop: ip("192.0.2.77").into(), ..attributes(1) };
    bench.announce_as(1, &["10.1.1.0/24"], moved);
    assert_eq!(watches(&mut bench), [(true, ip("192.0.2.77")), (false, address(1))]);
    bench.down(1, false);
    assert_eq!(watches(&mut bench), [(false, ip("192.0.2.77"))]);
    // A refused path uses none.
    bench.up(1);
    let looped = PathAttributes { as_path: AsPath::from_sequence([NODE_AS]), ..attributes(1) };
    bench.announce_as(1, &["10.1.0.0/24"], looped);
    assert_eq!(watches(&mut bench), []);
}

#[test]
fn rfc4271_9_1_2_a_path_is_eligible_while_its_next_hop_is_reachable() {
    let mut bench = bench();
    bench.up(1);
    bench.announce(1, &["10.1.0.0/24"]);
    let reason = |bench: &Bench| bench.path(1, "10.1.0.0/24").unwrap().reason;
    assert_eq!(bench.best("10.1.0.0/24"), None);
    assert_eq!(reason(&bench), "next hop 192.0.2.1 is not resolved yet");
    bench.reachable(address(1));
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
    assert_eq!(bench.path(1, "10.1.0.0/24").unwrap().via, Some(Via::Direct));
    bench.input(Input::NextHop { address: address(1), state: NextHopState::Unreachable });
    assert_eq!(bench.best("10.1.0.0/24"), None);
    assert_eq!(reason(&bench), "next hop 192.0.2.1 is unreachable");
    // While the feed is away the last answers hold.
    bench.reachable(address(1));
    bench.input(Input::FibLost);
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
}

#[test]
fn rfc4271_9_1_2_2_e_the_metric_to_the_next_hop_decides() {
    let mut bench = bench();
    for number in [1, 2] {
        bench.up(number);
        bench.announce(number, &["10.1.0.0/24"]);
    }
    let gateway =
        |metric| NextHopState::Gateway { gateway: ip("192.0.2.254"), device: "eth0".into(), metric };
    bench.input(Input::NextHop { address: address(1), state: gateway(20) });
    bench.input(Input::NextHop { address: address(2), state: gateway(10) });
    assert_eq!(bench.best("10.1.0.0/24"), Some(2));
    assert_eq!(bench.path(1, "10.1.0.0/24").unwrap().reason, "next hop farther (cost 20 > 10)");
    assert_eq!(bench.path(1, "10.1.0.0/24").unwrap().via, Some(Via::Recursive));
    bench.input(Input::NextHop { address: address(2), state: gateway(30) });
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
}

#[test]
fn an_answer_decides_what_uses_the_next_hop_and_nothing_else() {
    let mut bench = bench();
    for number in [1, 2] {
        bench.up(number);
        bench.reachable(address(number));
    }
    bench.announce(1, &["10.1.0.0/24", "10.1.1.0/24"]);
    bench.announce(2, &["10.2.0.0/24", "10.2.1.0/24", "10.2.2.0/24"]);
    for number in [1, 2] {
        bench.reachable(address(number));
    }
    let decisions = |bench: &Bench| bench.speaker.counters().decisions;
    let before = decisions(&bench);
    bench.input(Input::NextHop { address: address(1), state: NextHopState::Unreachable });
    assert_eq!(decisions(&bench), before + 2);
    bench.input(Input::NextHop { address: address(1), state: NextHopState::Unreachable });
    assert_eq!(decisions(&bench), before + 2);
}

#[test]
fn rfc4271_5_1_3_a_next_hop_that_is_this_speaker_is_not_used() {
    let mut bench = Bench::new(config([1]));
    bench.up_as(1, SessionInfo { local_address: ip("198.51.100.7"), ..session(1, peer_as(1)) });
    for (text, own) in [("192.0.2.100", true), ("198.51.100.7", true), ("198.51.100.8", false)] {
        let attrs = PathAttributes { next_hop: ip(text).into(), ..attributes(1) };
        bench.announce_as(1, &["10.1.0.0/24"], attrs);
        assert_eq!(bench.best("10.1.0.0/24"), if own { None } else { Some(1) }, "{text}");
        if own {
            let reason = bench.path(1, "10.1.0.0/24").unwrap().reason;
            assert_eq!(reason, format!("next hop {text} is this speaker's own address"));
        }
    }
    // An address that becomes this speaker's own, and ceases to be.
    let mut changed = config([1]);
    changed.address_v4 = Some(Ipv4Addr::new(198, 51, 100, 8));
    bench.configure(changed);
    assert_eq!(bench.best("10.1.0.0/24"), None);
    bench.configure(config([1]));
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
}

#[test]
fn a_snapshot_is_followed_by_the_next_hops_to_watch() {
    let mut bench = bench();
    bench.up(1);
    bench.announce(1, &["10.1.0.0/24"]);
    watches(&mut bench);
    bench.input(Input::FibConnected);
    assert_eq!(watches(&mut bench), [], "not before the snapshot has begun");
    assert_eq!(bench.pull_fib().first(), Some(&FibUpdate::Begin));
    assert_eq!(watches(&mut bench), [(true, address(1))]);
}

#[test]
fn a_dead_next_hop_of_many_prefixes_is_one_message_to_the_fib() {
    let mut bench = bench();
    bench.input(Input::FibConnected);
    let prefixes: Vec<String> = (0..200).map(|number| format!("10.1.{number}.0/24")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    for number in [1, 2] {
        bench.up(number);
        bench.announce(number, &prefixes);
        bench.reachable(address(number));
    }
    bench.pull_fib();
    bench.input(Input::NextHop { address: address(1), state: NextHopState::Unreachable });
    let updates = bench.pull_fib();
    assert!(
        matches!(updates.as_slice(), [FibUpdate::Group { members, .. }] if members[..] == [plain(2)]),
        "{updates:?}"
    );
    assert_eq!(bench.best("10.1.7.0/24"), Some(2));
}

#[test]
fn a_next_hop_that_flaps_while_its_prefixes_are_being_decided() {
    let mut bench = bench();
    bench.up(1);
    let prefixes: Vec<Prefix> = (0..10_000u32)
        .map(|number| Prefix::new(Ipv4Addr::from_bits(0x0a00_0000 + (number << 8)).into(), 24).unwrap())
        .collect();
    let announcement = Announcement { attributes: attributes(1), nlri: nlri(&prefixes) };
    bench.update(1, Update { announced: [announcement].into_iter().collect(), ..Update::default() });
    bench.reachable(address(1));
    let best = |bench: &Bench| bench.speaker.counters().families[0].best;
    assert_eq!(best(&bench), 10_000);
    // No time passes for the work that is left, only inputs come.
    let connected = NextHopState::Connected { device: "eth0".into() };
    for round in 0..50 {
        for state in [NextHopState::Unreachable, connected.clone()] {
            bench.speaker.handle(bench.now, Input::NextHop { address: address(1), state });
        }
        let announcement = Announcement {
            attributes: attributes(1),
            nlri: nlri(&[prefix(&format!("172.16.{round}.0/24"))]),
        };
        let update = Update { announced: [announcement].into_iter().collect(), ..Update::default() };
        bench.speaker.handle(bench.now, Input::Updates { peer: bench.id(1), updates: (&update).into() });
    }
    assert!(bench.speaker.work.len() <= 2, "{} pieces", bench.speaker.work.len());
    bench.speaker.handle(bench.now, Input::NextHop { address: address(1), state: NextHopState::Unreachable });
    bench.settle();
    assert_eq!(best(&bench), 0);
    bench.reachable(address(1));
    assert_eq!(best(&bench), 10_050);
}
