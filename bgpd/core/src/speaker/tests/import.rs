//! UPDATEs: replacement, withdrawal, loops, limits, refresh marks.

use super::*;
use crate::config::OwnPrefix;
use crate::event::RefreshKind;

#[test]
fn an_announcement_is_learned_replaced_and_withdrawn() {
    let mut bench = Bench::new(config([1]));
    bench.up(1);
    bench.announce(1, &["10.1.0.0/24", "10.1.1.0/24"]);
    bench.announce(1, &["2001:db8:1::/64"]);
    assert_eq!(bench.rows(Direction::Best).len(), 3);
    assert_eq!(bench.peer(1).families[0].received, 2);
    assert_eq!(bench.peer(1).families[1].accepted, 1);
    let longer = PathAttributes { med: Some(5), ..attributes(1) };
    bench.announce_as(1, &["10.1.0.0/24"], longer);
    assert_eq!(bench.path(1, "10.1.0.0/24").unwrap().attrs.med, Some(5));
    assert_eq!(bench.peer(1).families[0].received, 2);
    bench.withdraw(1, &["10.1.0.0/24", "10.9.9.0/24"]);
    assert_eq!(bench.best("10.1.0.0/24"), None);
    assert_eq!(bench.best("10.1.1.0/24"), Some(1));
    assert_eq!(bench.peer(1).families[0].received, 1);
    assert_eq!(bench.speaker.counters().families[0].best, 1);
}

#[test]
fn rfc4271_4_3_a_prefix_in_both_parts_of_an_update_is_announced() {
    let mut bench = Bench::new(config([1]));
    bench.up(1);
    let list = nlri(&[prefix("10.1.0.0/24")]);
    let announced = Announcement { attributes: attributes(1), nlri: list.clone() };
    bench.update(
        1,
        Update {
            withdrawn: [list].into_iter().collect(),
            announced: [announced].into_iter().collect(),
            ..Update::default()
        },
    );
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
}

#[test]
fn the_better_path_wins_whichever_comes_first_and_the_other_takes_over() {
    for order in [[1, 2], [2, 1]] {
        let mut bench = Bench::new(config([1, 2]));
        for number in order {
            bench.up(number);
            let path = [peer_as(number), Asn(65000), Asn(65001)];
            let attrs = PathAttributes {
                as_path: AsPath::from_sequence(path.into_iter().take(1 + usize::from(number))),
                ..attributes(number)
            };
            bench.announce_as(number, &["10.1.0.0/24"], attrs);
        }
        assert_eq!(bench.best("10.1.0.0/24"), Some(1));
        let loser = bench.path(2, "10.1.0.0/24").unwrap();
        assert_eq!((loser.best, loser.reason.as_str()), (false, "AS path longer (3 > 2)"));
        let winner = bench.path(1, "10.1.0.0/24").unwrap();
        assert_eq!(winner.reason, "best: shortest AS path");
        bench.withdraw(1, &["10.1.0.0/24"]);
        assert_eq!(bench.best("10.1.0.0/24"), Some(2));
        assert_eq!(bench.path(2, "10.1.0.0/24").unwrap().reason, "only eligible path");
    }
}

#[test]
fn rfc4271_9_1_2_own_as_in_the_path_is_refused_beyond_what_is_allowed() {
    let mut peers = config([1]);
    peers.peers[0].settings.session.local_as = Asn(65010);
    let mut bench = Bench::new(peers.clone());
    bench.up_as(1, SessionInfo { local_as: Asn(65010), ..session(1, peer_as(1)) });
    let through = |own: &[Asn]| PathAttributes {
        as_path: AsPath::from_sequence([peer_as(1)].into_iter().chain(own.iter().copied())),
        ..attributes(1)
    };
    bench.announce_as(1, &["10.1.0.0/24"], through(&[NODE_AS]));
    bench.announce_as(1, &["10.1.1.0/24"], through(&[Asn(65010)]));
    bench.announce_as(1, &["10.1.2.0/24"], through(&[Asn(65010), NODE_AS]));
    bench.announce_as(1, &["10.1.3.0/24"], through(&[NODE_AS, NODE_AS]));
    for text in ["10.1.0.0/24", "10.1.1.0/24", "10.1.2.0/24", "10.1.3.0/24"] {
        let path = bench.path(1, text).unwrap();
        assert_eq!((path.accepted, &*path.rule, path.best), (false, "AS loop", false), "{text}");
        assert_eq!(path.reason, "refused: AS loop");
    }
    assert_eq!(bench.peer(1).families[0], PeerFamilyView { received: 4, ..Default::default() });
    peers.peers[0].settings.allowed_local_as = 1;
    bench.configure(peers);
    for (text, accepted) in
        [("10.1.0.0/24", true), ("10.1.1.0/24", true), ("10.1.2.0/24", true), ("10.1.3.0/24", false)]
    {
        assert_eq!(bench.path(1, text).unwrap().accepted, accepted, "{text}");
    }
    assert_eq!(bench.peer(1).families[0].accepted, 3);
}

#[test]
fn rfc4456_8_reflection_loops_are_refused() {
    let mut reflector = config([1]);
    reflector.cluster_id = Some(Ipv4Addr::new(244, 0, 0, 1));
    let mut bench = Bench::new(reflector);
    bench.up_as(1, session(1, NODE_AS));
    let internal =
        PathAttributes { local_pref: Some(100), ..PathAttributes::new(Origin::Igp, address(1).into()) };
    let own_id = PathAttributes { originator_id: Some(Ipv4Addr::new(10, 0, 0, 100)), ..internal.clone() };
    bench.announce_as(1, &["10.1.0.0/24"], own_id);
    let cluster = vec![Ipv4Addr::new(244, 0, 0, 9), Ipv4Addr::new(244, 0, 0, 1)];
    bench.announce_as(1, &["10.1.1.0/24"], PathAttributes { cluster_list: cluster, ..internal.clone() });
    bench.announce_as(1, &["10.1.2.0/24"], internal);
    assert_eq!(&*bench.path(1, "10.1.0.0/24").unwrap().rule, "ORIGINATOR_ID is this speaker");
    assert_eq!(&*bench.path(1, "10.1.1.0/24").unwrap().rule, "cluster loop");
    assert!(bench.path(1, "10.1.2.0/24").unwrap().accepted);
    assert_eq!(bench.rows(Direction::Best).len(), 1);
}

#[test]
fn an_own_prefix_beats_what_a_peer_sends() {
    let mut own = config([1]);
    let prefix = prefix("10.244.1.0/24");
    own.own =
        vec![OwnPrefix { prefix, communities: vec![1], large_communities: vec![[1, 2, 3]], export: true }];
    let mut bench = Bench::new(own.clone());
    bench.up(1);
    bench.announce_as(1, &["10.244.1.0/24"], PathAttributes { local_pref: Some(u32::MAX), ..attributes(1) });
    assert_eq!(bench.best("10.244.1.0/24"), Some(0));
    assert_eq!(bench.path(1, "10.244.1.0/24").unwrap().reason, "own prefix wins");
    own.own.clear();
    bench.configure(own);
    assert_eq!(bench.best("10.244.1.0/24"), Some(1));
}

fn resets(bench: &mut Bench) -> Vec<(Vec<u8>, u8, Option<Duration>)> {
    std::mem::take(&mut bench.outputs)
        .into_iter()
        .filter_map(|output| match output {
            Output::ResetSession { notification, idle_for, .. } => {
                assert_eq!(notification.code, 6);
                Some((notification.data, notification.subcode, idle_for))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn rfc4486_4_more_prefixes_than_allowed_end_the_session() {
    let mut limited = config([1]);
    limited.peers[0].settings.max_prefixes = MaxPrefixes {
        ipv4: Some(4),
        ipv6: Some(1),
        warn_at: Some(75),
        restart_after: Some(Duration::from_secs(300)),
    };
    limited.peers[0].settings.import = Arc::new(ImportPolicy::accept_all());
    let mut bench = Bench::new(limited);
    bench.up(1);
    let warnings = |bench: &Bench| {
        bench
            .outputs
            .iter()
            .filter(|output| matches!(output, Output::Log { level: LogLevel::Warn, .. }))
            .count()
    };
    bench.announce(1, &["10.1.0.0/24", "10.1.1.0/24"]);
    assert_eq!(warnings(&bench), 0);
    bench.announce(1, &["10.1.2.0/24", "10.1.2.0/24", "10.1.0.0/24"]);
    bench.announce(1, &["10.1.3.0/24"]);
    assert_eq!(warnings(&bench), 1);
    assert_eq!(resets(&mut bench), []);
    // A refused path counts as well.
    let looped = PathAttributes { as_path: AsPath::from_sequence([NODE_AS]), ..attributes(1) };
    bench.announce_as(1, &["10.1.4.0/24"], looped);
    assert_eq!(resets(&mut bench), [(vec![0, 1, 1, 0, 0, 0, 4], 1, Some(Duration::from_secs(300)))]);
    // What still arrives of the session is not listened to, and nothing is said twice.
    bench.announce(1, &["10.1.5.0/24"]);
    assert_eq!(resets(&mut bench), []);
    assert!(bench.path(1, "10.1.5.0/24").is_none());
    bench.down(1, false);
    assert_eq!(bench.rows(Direction::Learned).len(), 0);
    bench.up(1);
    bench.announce(1, &["2001:db8:1::/64", "2001:db8:2::/64"]);
    assert_eq!(resets(&mut bench), [(vec![0, 2, 1, 0, 0, 0, 1], 1, Some(Duration::from_secs(300)))]);
}

#[test]
fn without_a_restart_time_the_session_stays_down() {
    let mut limited = config([1]);
    limited.peers[0].settings.max_prefixes = MaxPrefixes { ipv4: Some(1), ..MaxPrefixes::default() };
    let mut bench = Bench::new(limited);
    bench.up(1);
    bench.announce(1, &["10.1.0.0/24", "10.1.1.0/24"]);
    assert_eq!(resets(&mut bench), [(vec![0, 1, 1, 0, 0, 0, 1], 1, Some(Duration::MAX))]);
}

#[test]
fn rfc7313_4_what_a_refresh_did_not_repeat_goes_at_its_end() {
    let mut bench = Bench::new(config([1]));
    bench.up_as(1, SessionInfo { enhanced_refresh: true, ..session(1, peer_as(1)) });
    bench.announce(1, &["10.1.0.0/24", "10.1.1.0/24", "10.1.2.0/24"]);
    let mark = |bench: &mut Bench, kind| {
        bench.input(Input::RouteRefresh { peer: bench.id(1), family: Family::Ipv4Unicast, kind });
    };
    // An end without a beginning means nothing.
    mark(&mut bench, RefreshKind::End);
    assert_eq!(bench.peer(1).families[0].received, 3);
    mark(&mut bench, RefreshKind::Begin);
    assert_eq!(bench.peer(1).families[0].stale, 3);
    bench.announce(1, &["10.1.0.0/24"]);
    bench.announce_as(1, &["10.1.1.0/24"], PathAttributes { med: Some(1), ..attributes(1) });
    assert_eq!(bench.best("10.1.2.0/24"), Some(1));
    mark(&mut bench, RefreshKind::End);
    assert_eq!(bench.best("10.1.2.0/24"), None);
    let expected = PeerFamilyView { received: 2, accepted: 2, stale: 0, advertised: 0 };
    assert_eq!(PeerFamilyView { advertised: 0, ..bench.peer(1).families[0] }, expected);
    // One that is never ended is ended by time.
    mark(&mut bench, RefreshKind::Begin);
    bench.announce(1, &["10.1.0.0/24"]);
    bench.advance(599);
    assert_eq!(bench.peer(1).families[0].received, 2);
    bench.advance(1);
    assert_eq!(bench.peer(1).families[0].received, 1);
}

#[test]
fn rfc7313_4_marks_that_were_not_agreed_on_are_ignored() {
    let mut bench = Bench::new(config([1]));
    bench.up(1);
    bench.announce(1, &["10.1.0.0/24"]);
    for kind in [RefreshKind::Begin, RefreshKind::End] {
        bench.input(Input::RouteRefresh { peer: bench.id(1), family: Family::Ipv4Unicast, kind });
    }
    assert_eq!(bench.best("10.1.0.0/24"), Some(1));
}

#[test]
fn soft_in_asks_for_the_families_of_the_session() {
    let mut bench = Bench::new(config([1, 2]));
    let only = FamilySet::only(Family::Ipv6Unicast);
    bench.up_as(1, SessionInfo { families: only, ..session(1, peer_as(1)) });
    bench.up_as(2, SessionInfo { route_refresh: false, ..session(2, peer_as(2)) });
    bench.outputs.clear();
    bench.input(Input::SoftIn(bench.id(1)));
    bench.input(Input::SoftIn(bench.id(2)));
    let id = bench.id(1);
    assert!(matches!(
        bench.outputs.as_slice(),
        [Output::RequestRefresh { peer, family: Family::Ipv6Unicast }] if *peer == id
    ));
}

#[test]
fn rfc7606_8_errors_in_updates_are_logged_but_not_without_end() {
    let mut bench = Bench::new(config([1]));
    let problem = causeway_bgp_wire::Problem {
        consequence: causeway_bgp_wire::Consequence::TreatAsWithdraw,
        attribute: Some(1),
        reason: "ORIGIN of 2 octets".to_owned(),
    };
    for _ in 0..2 {
        bench.up(1);
        bench.outputs.clear();
        for _ in 0..50 {
            bench.update(1, Update { problems: vec![problem.clone()], ..Update::default() });
        }
        let lines: Vec<&str> = bench
            .outputs
            .iter()
            .filter_map(|output| match output {
                Output::Log { level: LogLevel::Warn, text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(lines.len(), 20);
        assert_eq!(lines[0], "error in an UPDATE: ORIGIN of 2 octets: treated as withdraw");
        assert!(lines[19].ends_with("further ones are not logged"));
        bench.down(1, false);
    }
}

#[test]
fn input_about_unknown_peers_or_sessions_changes_nothing() {
    let mut bench = Bench::new(config([1]));
    bench.announce(1, &["10.1.0.0/24"]);
    bench.down(1, true);
    bench.ids.insert(address(9), PeerId(99));
    bench.up(9);
    bench.announce(9, &["10.1.0.0/24"]);
    bench.down(9, false);
    bench.input(Input::SoftIn(PeerId(99)));
    bench.input(Input::SoftOut(PeerId(99)));
    bench.input(Input::DynamicPeerGone(bench.id(1)));
    assert_eq!(bench.rows(Direction::Learned).len(), 0);
    assert_eq!(bench.speaker.peers().len(), 1);
}

#[test]
fn a_big_table_goes_in_slices() {
    let mut bench = Bench::new(config([1]));
    bench.up(1);
    let prefixes: Vec<Prefix> = (0..20_000u32)
        .map(|number| Prefix::new(Ipv4Addr::from_bits(0x0a00_0000 + (number << 8)).into(), 24).unwrap())
        .collect();
    let announcement = Announcement { attributes: attributes(1), nlri: nlri(&prefixes) };
    bench.update(1, Update { announced: [announcement].into_iter().collect(), ..Update::default() });
    assert_eq!(bench.speaker.counters().families[0].best, 20_000);
    let down = Down { reason: "hold timer expired".to_owned(), label: "hold-timer", retain: false };
    bench.speaker.handle(bench.now, Input::SessionDown { peer: bench.id(1), down });
    let left = bench.speaker.counters().families[0].best;
    assert!((1..20_000).contains(&left), "{left} left after the first slice");
    assert!(bench.speaker.poll_timeout().is_some_and(|at| at <= bench.now));
    // The next session finds nothing of the last one.
    bench.up(1);
    assert_eq!(bench.speaker.counters().families[0].paths, 0);
    assert_eq!(bench.speaker.counters().next_hops, 0);
}
