//! Walks and explanations.

use super::*;
use crate::event::FibStatus;

fn prefixes(rows: &[RouteView]) -> Vec<String> {
    rows.iter().map(|row| row.prefix.to_string()).collect()
}

fn query(direction: Direction) -> Query {
    Query { direction, peer: None, family: None, prefix: None, longer: false }
}

fn bench() -> Bench {
    let mut bench = Bench::new(config([1, 2]));
    for number in [1, 2] {
        bench.up(number);
    }
    bench.announce(1, &["10.1.0.0/24", "10.1.0.0/16", "10.2.0.0/24"]);
    bench.announce(2, &["10.1.0.0/24"]);
    bench.announce(2, &["2001:db8::/48"]);
    bench
}

#[test]
fn a_walk_gives_the_same_rows_whatever_the_size_of_its_slices() {
    let bench = bench();
    let all = prefixes(&bench.walk(&query(Direction::Learned), 1000));
    assert_eq!(all, ["10.1.0.0/24", "10.1.0.0/24", "10.1.0.0/16", "10.2.0.0/24", "2001:db8::/48"]);
    for limit in 0..7 {
        assert_eq!(prefixes(&bench.walk(&query(Direction::Learned), limit)), all, "{limit}");
    }
    assert_eq!(bench.walk(&query(Direction::Best), 2).len(), 4);
}

#[test]
fn conditions_narrow_a_walk() {
    let bench = bench();
    let of_peer = Query { peer: Some(bench.id(2)), ..query(Direction::Learned) };
    assert_eq!(prefixes(&bench.walk(&of_peer, 2)), ["10.1.0.0/24", "2001:db8::/48"]);
    let of_family = Query { family: Some(Family::Ipv6Unicast), ..query(Direction::Best) };
    assert_eq!(prefixes(&bench.walk(&of_family, 2)), ["2001:db8::/48"]);
    let exact = Query { prefix: Some(prefix("10.1.0.0/16")), ..query(Direction::Learned) };
    assert_eq!(prefixes(&bench.walk(&exact, 2)), ["10.1.0.0/16"]);
    let longer = Query { longer: true, direction: Direction::Best, ..exact.clone() };
    assert_eq!(prefixes(&bench.walk(&longer, 2)), ["10.1.0.0/24", "10.1.0.0/16"]);
    let other_family = Query { family: Some(Family::Ipv6Unicast), ..exact };
    assert_eq!(bench.walk(&other_family, 2).len(), 0);
    let unknown = Query { prefix: Some(prefix("10.9.0.0/16")), ..query(Direction::Best) };
    assert_eq!(bench.walk(&unknown, 2).len(), 0);
}

#[test]
fn advertised_rows_are_what_export_holds() {
    let bench = bench();
    for number in [1, 2] {
        let of_peer = Query { peer: Some(bench.id(number)), ..query(Direction::Advertised) };
        let rows = bench.walk(&of_peer, 2);
        let sent: u64 = bench.peer(number).families.iter().map(|family| family.advertised).sum();
        assert_eq!(rows.len() as u64, sent);
        for row in rows {
            let exact = Query { prefix: Some(row.prefix), ..of_peer.clone() };
            let again = bench.walk(&exact, 1);
            assert_eq!(again.len(), 1);
            assert_eq!(again[0].attrs, row.attrs);
            assert_eq!(row.peer, Some(bench.id(number)));
        }
    }
    let every = bench.walk(&query(Direction::Advertised), 2);
    let sent: u64 =
        bench.speaker.peers().iter().flat_map(|peer| peer.families).map(|family| family.advertised).sum();
    assert_eq!(every.len() as u64, sent);
}

#[test]
fn an_explanation_has_the_best_first_and_the_refused_last() {
    let mut bench = Bench::new(config([1, 2, 3, 4]));
    for number in 1..=4 {
        bench.up(number);
    }
    let looped = PathAttributes { as_path: AsPath::from_sequence([peer_as(1), NODE_AS]), ..attributes(1) };
    bench.announce_as(1, &["10.1.0.0/24"], looped);
    let long = PathAttributes { as_path: AsPath::from_sequence([peer_as(2), Asn(65000)]), ..attributes(2) };
    bench.announce_as(2, &["10.1.0.0/24"], long);
    bench.announce(4, &["10.1.0.0/24"]);
    bench.announce(3, &["10.1.0.0/24"]);
    let rows = bench.speaker.explain(&prefix("10.1.0.0/24"));
    let told: Vec<(u8, &str)> =
        rows.iter().map(|row| (number(row.peer_address), row.reason.as_str())).collect();
    assert_eq!(
        told,
        [
            (3, "best: lowest router ID"),
            (4, "equal, installed beside the best; router ID higher (10.0.0.4 > 10.0.0.3)"),
            (2, "AS path longer (2 > 1)"),
            (1, "refused: AS loop"),
        ]
    );
    assert_eq!(bench.speaker.explain(&prefix("10.1.0.0/25")).len(), 0);
}

#[test]
fn install_status_and_age_are_shown() {
    let mut bench = Bench::with_mode(StartMode { restarting: false, fib: true }, config([1, 2]));
    bench.input(Input::FibConnected);
    bench.up(1);
    bench.advance(10);
    let before = bench.now;
    bench.announce(1, &["10.1.0.0/24"]);
    bench.reachable(address(1));
    let row = |bench: &Bench| bench.path(1, "10.1.0.0/24").unwrap();
    assert_eq!(row(&bench).fib, Some(FibStatus::Pending));
    assert_eq!(row(&bench).since, Some(before));
    let generation = bench
        .pull_fib()
        .iter()
        .find_map(|update| match update {
            FibUpdate::Route { generation, .. } => Some(*generation),
            _ => None,
        })
        .unwrap();
    let failed = FibStatus::Failed("foreign route (proto bird)".into());
    bench.input(Input::FibStatus { prefix: prefix("10.1.0.0/24"), generation, status: failed.clone() });
    assert_eq!(row(&bench).fib, Some(failed));
    assert_eq!(bench.speaker.counters().families[0].fib_failed, 1);
    // The same again keeps its age; what changes starts anew.
    bench.advance(10);
    bench.announce(1, &["10.1.0.0/24"]);
    assert_eq!(row(&bench).since, Some(before));
    bench.announce_as(1, &["10.1.0.0/24"], PathAttributes { med: Some(1), ..attributes(1) });
    assert_eq!(row(&bench).since, Some(bench.now));
}
