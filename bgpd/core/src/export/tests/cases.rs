//! Single cases, each with its RFC section where one speaks of it.

use std::sync::Arc;

use causeway_bgp_wire::{AsPath, Asn, Community, Family, FamilySet, PathAttributes};

use super::Harness;
use crate::event::PeerId;
use crate::export::testing::{attributes, from_ebgp, from_ibgp, params};
use crate::export::{ExportParams, Limits};
use crate::policy::{Action, Conditions, ExportDefault, ExportPolicy, Rule, RuleChain};
use crate::rib::{SessionKind, Source};

const LOCAL: Source = Source::Local { export: true };

fn v4_only(kind: SessionKind, client: bool) -> ExportParams {
    ExportParams { families: FamilySet::only(Family::Ipv4Unicast), ..params(kind, client) }
}

fn clients(harness: &mut Harness, peers: impl IntoIterator<Item = u32>) {
    peers.into_iter().for_each(|peer| harness.up(peer, v4_only(SessionKind::Ibgp, true)));
    harness.drain();
}

fn harness() -> Harness {
    Harness::new(Limits { slice_slots: 8, ..Limits::default() })
}

fn prefixes(harness: &Harness, peer: u32) -> Vec<String> {
    harness.receivers[&PeerId(peer)].table.keys().map(ToString::to_string).collect()
}

#[test]
fn a_path_does_not_go_back_to_the_session_it_came_from() {
    let mut harness = harness();
    clients(&mut harness, [1, 2, 3]);
    harness.announce("10.1.0.0/24", attributes(1), from_ibgp(1, true));
    harness.drain();
    assert_eq!((prefixes(&harness, 1).len(), prefixes(&harness, 2).len()), (0, 1));
    // From peer 2 now: peer 1 gets it, peer 2 is owed the withdrawal of what it had.
    harness.announce("10.1.0.0/24", attributes(2), from_ibgp(2, true));
    harness.drain();
    assert_eq!((prefixes(&harness, 1).len(), prefixes(&harness, 2).len()), (1, 0));
    harness.withdraw("10.1.0.0/24");
    harness.drain();
    harness.check();
    assert!(harness.receivers.values().all(|receiver| receiver.needless == 0));
}

#[test]
fn members_of_a_group_share_the_octets() {
    let mut harness = harness();
    clients(&mut harness, [1, 2, 3, 4]);
    harness.announce("10.1.0.0/24", attributes(1), from_ibgp(4, true));
    harness.announce("10.2.0.0/24", attributes(2), LOCAL);
    let (one, two) = (harness.pull(1, 4096), harness.pull(2, 4096));
    assert_eq!((one.len(), two.len()), (1, 1));
    assert_eq!(one[0].as_ptr(), two[0].as_ptr());
    // The origin shares what is not its own.
    let four = harness.pull(4, 4096);
    let shared = one[0].as_ptr_range();
    assert!(four.iter().all(|octets| shared.contains(&octets.as_ptr())));
    assert_eq!(prefixes(&harness, 4), ["10.2.0.0/24"]);
}

#[test]
fn members_that_join_together_share_their_walk() {
    let mut harness = harness();
    harness.announce("10.1.0.0/24", attributes(1), LOCAL);
    harness.up(1, v4_only(SessionKind::Ibgp, true));
    harness.up(2, v4_only(SessionKind::Ibgp, true));
    let (one, two) = (harness.pull(1, 4096), harness.pull(2, 4096));
    assert_eq!(one[0].as_ptr(), two[0].as_ptr());
}

#[test]
fn each_prefix_once_newest_state_wins_and_withdrawals_first() {
    let mut harness = harness();
    harness.announce("10.1.0.0/24", attributes(1), LOCAL);
    harness.announce("10.2.0.0/24", attributes(1), LOCAL);
    clients(&mut harness, [1]);
    let before = harness.receivers[&PeerId(1)].updates;
    harness.announce("10.3.0.0/24", attributes(1), LOCAL);
    harness.announce("10.1.0.0/24", attributes(2), LOCAL);
    harness.announce("10.1.0.0/24", attributes(3), LOCAL);
    harness.announce("10.2.0.0/24", attributes(3), LOCAL);
    harness.withdraw("10.2.0.0/24");
    harness.announce("10.4.0.0/24", attributes(3), LOCAL);
    harness.withdraw("10.4.0.0/24");
    let sent = harness.pull(1, 4096).concat();
    harness.drain();
    harness.check();
    // A withdrawal, and one announcement for each of two attribute sets.
    assert_eq!(harness.receivers[&PeerId(1)].updates - before, 3);
    let withdrawn_octets = u16::from_be_bytes([sent[19], sent[20]]);
    assert_eq!(withdrawn_octets, 4, "the first message withdraws 10.2.0.0/24");
}

#[test]
fn nothing_is_sent_where_the_outcome_is_the_same() {
    let mut harness = harness();
    harness.announce("10.1.0.0/24", attributes(1), from_ebgp(9));
    harness.up(1, v4_only(SessionKind::Ebgp, false));
    harness.drain();
    let before = harness.receivers[&PeerId(1)].updates;
    // A MED of another AS makes no difference to a third one.
    let with_med = PathAttributes { med: Some(7), ..attributes(1) };
    harness.announce("10.1.0.0/24", with_med, from_ebgp(9));
    harness.drain();
    // There and back before anybody looked.
    harness.announce("10.1.0.0/24", attributes(2), from_ebgp(9));
    harness.announce("10.1.0.0/24", attributes(1), from_ebgp(9));
    harness.drain();
    // From another session that is no member, with the same attributes as sent.
    harness.announce("10.1.0.0/24", attributes(1), from_ebgp(8));
    harness.drain();
    assert_eq!(harness.receivers[&PeerId(1)].updates, before);
    harness.check();
}

#[test]
fn rfc4724_2_end_of_rib_follows_the_initial_table_also_an_empty_one() {
    let mut harness = harness();
    harness.up(1, params(SessionKind::Ibgp, false));
    harness.drain();
    assert_eq!(harness.receivers[&PeerId(1)].ends_of_rib, [Family::Ipv4Unicast, Family::Ipv6Unicast]);
    for number in 0..40u8 {
        harness.announce(&format!("10.{number}.0.0/16"), attributes(1 + u32::from(number)), LOCAL);
    }
    // Half of it pending when the second member comes, and its walk interrupted.
    harness.up(2, v4_only(SessionKind::Ibgp, false));
    while harness.receivers[&PeerId(2)].ends_of_rib.is_empty() {
        assert!(harness.ready.contains(&PeerId(2)));
        harness.pull(2, 1);
    }
    assert_eq!(harness.receivers[&PeerId(2)].table.len(), 40, "complete at End-of-RIB");
    harness.drain();
    harness.check();
}

#[test]
fn a_table_that_empties_in_the_middle_of_a_walk_is_exported_when_it_fills_again() {
    let mut harness = harness();
    let prefix = |number: u8| format!("10.{number}.0.0/24");
    (0..10).for_each(|number| harness.announce(&prefix(number), attributes(1), LOCAL));
    (0..8).for_each(|number| harness.withdraw(&prefix(number)));
    harness.up(1, v4_only(SessionKind::Ibgp, true));
    // The first slice, in which there is nothing; then the rest of the table goes, and slots are counted from 0 again.
    harness.pull(1, 1);
    harness.pull(1, 1);
    (8..10).for_each(|number| harness.withdraw(&prefix(number)));
    harness.drain();
    (0..10).for_each(|number| harness.announce(&prefix(number), attributes(1), LOCAL));
    harness.drain();
    assert_eq!(prefixes(&harness, 1).len(), 10);
    harness.check();
}

#[test]
fn rfc4724_4_1_a_restarting_speaker_sends_nothing_until_its_selection_is_done() {
    let mut harness = harness();
    harness.export.hold();
    harness.up(1, params(SessionKind::Ibgp, true));
    harness.announce("10.1.0.0/24", attributes(1), LOCAL);
    harness.announce("10.2.0.0/24", attributes(1), LOCAL);
    harness.withdraw("10.2.0.0/24");
    harness.drain();
    assert_eq!(harness.receivers[&PeerId(1)].updates, 0);
    assert_eq!(harness.export.advertised_count(PeerId(1), Family::Ipv4Unicast), 0);
    harness.export.release(Family::Ipv4Unicast);
    harness.wakes();
    harness.drain();
    assert_eq!(harness.receivers[&PeerId(1)].ends_of_rib, [Family::Ipv4Unicast]);
    assert_eq!(prefixes(&harness, 1), ["10.1.0.0/24"]);
    harness.export.release(Family::Ipv6Unicast);
    harness.wakes();
    harness.drain();
    harness.check();
    assert_eq!(harness.receivers[&PeerId(1)].needless, 0);
}

#[test]
fn rfc2918_a_refresh_sends_everything_again_to_who_asked() {
    let mut harness = harness();
    harness.announce("10.1.0.0/24", attributes(1), LOCAL);
    harness.announce("10.2.0.0/24", attributes(2), from_ibgp(1, true));
    clients(&mut harness, [1, 2]);
    let before = harness.receivers[&PeerId(2)].updates;
    harness.refresh(1, Family::Ipv4Unicast, false);
    harness.drain();
    assert_eq!(harness.receivers[&PeerId(1)].needless, 1, "its only prefix once more");
    assert_eq!(harness.receivers[&PeerId(1)].refreshes, 0);
    assert_eq!(harness.receivers[&PeerId(2)].updates, before);
    harness.check();
}

#[test]
fn rfc7313_4_an_enhanced_refresh_is_framed_and_complete() {
    let mut harness = harness();
    harness.announce("10.1.0.0/24", attributes(1), LOCAL);
    harness.announce("10.2.0.0/24", attributes(2), LOCAL);
    clients(&mut harness, [1]);
    harness.refresh(1, Family::Ipv4Unicast, true);
    harness.pull(1, 1);
    // Changes while it goes on; the receiver sees to it that nothing is missing between the marks.
    harness.announce("10.1.0.0/24", attributes(3), LOCAL);
    harness.refresh(1, Family::Ipv4Unicast, false);
    harness.withdraw("10.2.0.0/24");
    harness.drain();
    assert!(harness.receivers[&PeerId(1)].refreshes >= 1);
    harness.check();
}

/// Accepts all but one prefix.
fn without(prefix: &str) -> Arc<ExportPolicy> {
    let rule = Rule {
        id: "test".into(),
        conditions: Conditions {
            prefix: Some(crate::policy::PrefixMatch {
                prefix: prefix.parse().unwrap(),
                operator: crate::policy::PrefixOperator::Equal,
            }),
            ..Conditions::default()
        },
        action: Action::Reject,
    };
    let chain = RuleChain { v4: vec![rule], v6: vec![] };
    Arc::new(ExportPolicy::new(chain, ExportDefault::AcceptedExcept(vec![])))
}

#[test]
fn a_live_change_of_policy_sends_the_difference_to_who_it_concerns() {
    let mut harness = harness();
    for number in 0..20u32 {
        harness.announce(&format!("10.{number}.0.0/24"), attributes(1 + number), LOCAL);
    }
    clients(&mut harness, [1, 2]);
    let before = harness.receivers[&PeerId(1)].updates;
    let policy = without("10.7.0.0/24");
    let others = harness.receivers[&PeerId(2)].updates;
    let equal =
        ExportParams { policy: Arc::new(ExportPolicy::accept_all()), ..v4_only(SessionKind::Ibgp, true) };
    harness.change(1, equal.clone());
    assert!(harness.ready.is_empty(), "equal policies are no change");
    harness.change(1, ExportParams { policy, ..equal.clone() });
    harness.drain();
    harness.check();
    assert_eq!(harness.receivers[&PeerId(1)].updates, before + 1);
    harness.change(1, equal);
    harness.drain();
    harness.check();
    assert_eq!(harness.receivers[&PeerId(1)].updates, before + 2);
    assert_eq!(harness.receivers[&PeerId(1)].needless, 0);
    assert_eq!(harness.receivers[&PeerId(2)].updates, others);
}

#[test]
fn a_member_moves_slice_by_slice_while_routes_change() {
    let mut harness = harness();
    // Ten slices.
    for number in 0..80u32 {
        harness.announce(&format!("10.{number}.0.0/24"), attributes(1 + number), LOCAL);
    }
    clients(&mut harness, [1, 2]);
    let policy = without("10.79.0.0/24");
    harness.change(1, ExportParams { policy, ..v4_only(SessionKind::Ibgp, true) });
    for slice in 0..9 {
        assert!(harness.pull(1, 1).is_empty(), "no difference in slice {slice}");
        assert!(harness.ready.contains(&PeerId(1)), "and there is more to do");
    }
    // What has been walked over and what has not; what its old group tells meanwhile it is not told.
    for number in [3, 77, 78] {
        harness.withdraw(&format!("10.{number}.0.0/24"));
    }
    harness.announce("10.78.0.0/24", attributes(1), LOCAL);
    harness.pull(2, 65_536);
    assert_eq!(harness.export.v4.groups().count(), 2);
    harness.drain();
    harness.check();
    assert_eq!(harness.receivers[&PeerId(1)].table.len(), 77);
    harness.change(2, harness.receivers[&PeerId(1)].params.clone());
    harness.drain();
    harness.check();
    assert_eq!(harness.export.v4.groups().count(), 1, "the old group is gone with its last member");
    assert!(harness.receivers.values().all(|receiver| receiver.needless <= 1));
}

#[test]
fn a_member_that_moves_in_mid_walk_is_not_handed_what_was_made_for_one_that_knew_less() {
    let mut harness = harness();
    harness.announce("10.1.0.0/24", attributes(1), LOCAL);
    let client = v4_only(SessionKind::Ibgp, true);
    let strict = ExportParams { policy: without("10.1.0.0/24"), ..client.clone() };
    // Member 3 is in the stricter group already, so that slices made there are kept.
    (1..3).for_each(|peer| harness.up(peer, client.clone()));
    harness.up(3, strict.clone());
    // Member 1 moves when its walk has just begun: neither it nor its group has come to the route.
    harness.pull(1, 1);
    harness.change(1, strict.clone());
    harness.drain();
    assert_eq!((prefixes(&harness, 1).len(), prefixes(&harness, 2).len()), (0, 1));
    // Member 2, which has the route, moves in the middle of a refresh.
    harness.refresh(2, Family::Ipv4Unicast, false);
    harness.pull(2, 1);
    harness.change(2, strict);
    harness.drain();
    assert_eq!(prefixes(&harness, 2), Vec::<String>::new());
    harness.check();
}

#[test]
fn attributes_that_fit_no_message_are_not_advertised_and_withdrawn_if_they_were() {
    let mut harness = harness();
    harness.announce("10.1.0.0/24", attributes(1), LOCAL);
    clients(&mut harness, [1]);
    let communities = (0..1_100).map(Community).collect();
    let large = PathAttributes { communities, ..attributes(1) };
    harness.announce("10.1.0.0/24", large.clone(), LOCAL);
    harness.drain();
    assert_eq!(prefixes(&harness, 1), Vec::<String>::new());
    let warning = harness.export.poll_warning().unwrap();
    assert!(warning.starts_with("10.1.0.0/24 is not advertised"), "{warning}");
    // A peer that takes long messages gets it.
    let long = ExportParams { extended_message: true, ..v4_only(SessionKind::Ibgp, true) };
    harness.up(2, long);
    harness.drain();
    assert_eq!(prefixes(&harness, 2), ["10.1.0.0/24"]);
}

#[test]
fn an_as_path_at_its_limit_grows_by_a_segment() {
    let mut harness = harness();
    let full = PathAttributes { as_path: AsPath::from_sequence((0..255).map(|_| Asn(7))), ..attributes(1) };
    harness.announce("10.1.0.0/24", full, from_ebgp(9));
    harness.up(1, v4_only(SessionKind::Ebgp, false));
    harness.drain();
    harness.check();
    assert_eq!(harness.receivers[&PeerId(1)].table.len(), 1);
}

#[test]
fn one_that_stops_reading_holds_up_nobody_and_catches_up() {
    let limits = Limits { journal_bytes: 16 * 1024, tombstones: 100_000, slice_slots: 100 };
    let mut harness = Harness::new(limits);
    clients(&mut harness, 0..20);
    for round in 0..50u32 {
        for number in 0..100u32 {
            let prefix = format!("10.{}.{number}.0/24", round % 7);
            match (round + number) % 5 {
                0 => harness.withdraw(&prefix),
                _ => harness.announce(&prefix, attributes(1 + round * 100 + number), LOCAL),
            }
        }
        // Peer 0 never pulls; the bound on the journal is checked at every pull of the others.
        (1..20).for_each(|peer| while !harness.pull(peer, 65_536).is_empty() {});
    }
    harness.drain();
    harness.check();
    assert_eq!(harness.export.poll_stuck(), None);
}

#[test]
fn one_that_never_reads_is_given_up_before_it_costs_too_much() {
    let mut harness = Harness::new(Limits { journal_bytes: 1_024, tombstones: 2_000, slice_slots: 100 });
    clients(&mut harness, [1, 2]);
    for number in 0..8_000u32 {
        let prefix = format!("10.{}.{}.0/24", number / 256, number % 256);
        harness.announce(&prefix, attributes(1), LOCAL);
        harness.pull(1, 65_536);
        harness.withdraw(&prefix);
        harness.pull(1, 65_536);
    }
    assert_eq!(harness.export.poll_stuck(), Some(PeerId(2)));
    assert_eq!(harness.export.poll_stuck(), None, "once");
    harness.down(2);
    harness.pull(1, 65_536);
    harness.announce("10.1.0.0/24", attributes(1), LOCAL);
    harness.drain();
    let tombstones: usize = harness.export.v4.groups().map(|group| group.stream.tombstones()).sum();
    assert!(tombstones < 10, "{tombstones}");
    harness.check();
}

#[test]
fn a_group_without_members_is_forgotten() {
    let mut harness = harness();
    harness.announce("10.1.0.0/24", attributes(1), LOCAL);
    clients(&mut harness, [1, 2]);
    harness.down(1);
    harness.down(2);
    assert_eq!(harness.export.v4.groups().count(), 0);
}
