//! Tests of the decision process.

use causeway_bgp_wire::{AsPath, Origin, PathAttributes};
use proptest::prelude::*;

use super::*;

fn attributes(path: &[u32]) -> PathAttributes {
    PathAttributes {
        as_path: AsPath::from_sequence(path.iter().copied().map(Asn)),
        ..PathAttributes::new(Origin::Igp, Ipv4Addr::LOCALHOST.into())
    }
}

/// The number that the tests give the next hop of these attributes: its last octet.
fn next_hop_id(attrs: &PathAttributes) -> NextHopId {
    match attrs.next_hop.global {
        IpAddr::V4(address) => NextHopId(u32::from(address.octets()[3])),
        IpAddr::V6(address) => panic!("{address}"),
    }
}

/// A candidate of peer `number`, with that number in its address and identifier.
fn candidate(attrs: &PathAttributes, number: u8) -> Candidate {
    Candidate {
        facts: Facts::of(attrs),
        next_hop: next_hop_id(attrs),
        local: false,
        kind: SessionKind::Ebgp,
        igp_cost: 10,
        router_id: Ipv4Addr::new(10, 0, 0, number),
        address: Ipv4Addr::new(192, 0, 2, number).into(),
        peer: PeerId(u32::from(number)),
    }
}

/// Asserts that `winner` wins at `step` whichever comes first, with this reason for the loser.
fn wins(winner: Candidate, loser: Candidate, step: Step, words: &str) {
    for (candidates, best) in [([winner, loser], 0), ([loser, winner], 1)] {
        let (selection, fates) = explain(&candidates, 1).unwrap();
        assert_eq!(selection.best, best, "{step:?}");
        assert_eq!(fates[best], Fate::Best(Some(step)));
        assert_eq!(fates[1 - best], Fate::Lost(step, best));
        assert_eq!(reason(&candidates, &fates, 1 - best), words);
        assert!(reason(&candidates, &fates, best).starts_with("best: "));
    }
}

#[test]
fn no_candidate_no_best() {
    assert_eq!(select(&[], 1), None);
}

#[test]
fn a_single_candidate_wins() {
    let attrs = attributes(&[1]);
    let candidates = [candidate(&attrs, 1)];
    let (selection, fates) = explain(&candidates, 4).unwrap();
    assert_eq!((selection.best, selection.equal.as_slice()), (0, [0].as_slice()));
    assert_eq!(reason(&candidates, &fates, 0), "only eligible path");
}

#[test]
fn own_prefix_beats_everything() {
    let own = attributes(&[]);
    let strong = PathAttributes { local_pref: Some(u32::MAX), ..attributes(&[]) };
    let local = Candidate { local: true, kind: SessionKind::Ibgp, ..candidate(&own, 9) };
    wins(local, candidate(&strong, 1), Step::Local, "own prefix wins");
}

#[test]
fn rfc4271_9_1_1_higher_local_pref_wins() {
    let high = PathAttributes { local_pref: Some(101), ..attributes(&[1, 2, 3]) };
    let none = attributes(&[1]);
    let low = PathAttributes { local_pref: Some(99), ..attributes(&[1]) };
    let words = "local preference lower (100 < 101)";
    wins(candidate(&high, 9), candidate(&none, 1), Step::LocalPref, words);
    let words = "local preference lower (99 < 100)";
    wins(candidate(&none, 9), candidate(&low, 1), Step::LocalPref, words);
}

#[test]
fn rfc4271_9_1_2_2_a_shorter_as_path_wins() {
    let short = PathAttributes { origin: Origin::Incomplete, ..attributes(&[1, 2]) };
    let long = attributes(&[1, 2, 3]);
    wins(candidate(&short, 9), candidate(&long, 1), Step::AsPathLength, "AS path longer (3 > 2)");
}

#[test]
fn rfc4271_9_1_2_2_a_a_set_counts_one() {
    let mut with_set = attributes(&[1]);
    with_set.as_path.push_segment(causeway_bgp_wire::SegmentKind::Set, &[Asn(2), Asn(3), Asn(4)]);
    with_set.origin = Origin::Incomplete;
    let long = attributes(&[1, 2, 3]);
    wins(candidate(&with_set, 9), candidate(&long, 1), Step::AsPathLength, "AS path longer (3 > 2)");
}

#[test]
fn rfc4271_9_1_2_2_b_lower_origin_wins() {
    let with = |origin, med| PathAttributes { origin, med: Some(med), ..attributes(&[1]) };
    let (igp, egp, other) = (with(Origin::Igp, 9), with(Origin::Egp, 5), with(Origin::Incomplete, 0));
    wins(candidate(&igp, 9), candidate(&egp, 1), Step::Origin, "origin higher (EGP > IGP)");
    wins(candidate(&egp, 9), candidate(&other, 1), Step::Origin, "origin higher (INCOMPLETE > EGP)");
}

#[test]
fn rfc4271_9_1_2_2_c_lower_med_of_one_neighbour_wins_and_a_missing_one_is_zero() {
    let with = |path: &[u32], med| PathAttributes { med, ..attributes(path) };
    let (missing, ten) = (with(&[1, 2], None), with(&[1, 3], Some(10)));
    let internal = Candidate { kind: SessionKind::Ibgp, ..candidate(&missing, 9) };
    wins(internal, candidate(&ten, 1), Step::Med, "MED higher (10 > 0, both from AS 1)");
    let (own, own_ten) = (with(&[], None), with(&[], Some(10)));
    wins(candidate(&own, 9), candidate(&own_ten, 1), Step::Med, "MED higher (10 > 0, both from this AS)");
    // Another neighbour: not compared, the next step decides.
    let other = with(&[2, 2], Some(10));
    wins(
        candidate(&other, 1),
        candidate(&missing, 9),
        Step::RouterId,
        "router ID higher (10.0.0.9 > 10.0.0.1)",
    );
}

#[test]
fn rfc4271_9_1_2_2_d_external_beats_internal() {
    let attrs = attributes(&[1]);
    let external = Candidate { igp_cost: 50, ..candidate(&attrs, 9) };
    let internal = Candidate { kind: SessionKind::Ibgp, ..candidate(&attrs, 1) };
    wins(external, internal, Step::EbgpOverIbgp, "iBGP, where an eBGP path wins");
}

#[test]
fn rfc4271_9_1_2_2_e_nearer_next_hop_wins() {
    let attrs = attributes(&[1]);
    let near = Candidate { igp_cost: 9, ..candidate(&attrs, 9) };
    wins(near, candidate(&attrs, 1), Step::IgpCost, "next hop farther (cost 10 > 9)");
}

#[test]
fn rfc4271_9_1_2_2_f_lower_identifier_wins() {
    let attrs = PathAttributes { cluster_list: vec![Ipv4Addr::LOCALHOST], ..attributes(&[1]) };
    let plain = attributes(&[1]);
    let low = Candidate { address: Ipv4Addr::BROADCAST.into(), ..candidate(&attrs, 1) };
    wins(low, candidate(&plain, 2), Step::RouterId, "router ID higher (10.0.0.2 > 10.0.0.1)");
}

#[test]
fn rfc4456_9_originator_id_stands_for_the_identifier() {
    let reflected = PathAttributes { originator_id: Some(Ipv4Addr::new(10, 0, 0, 0)), ..attributes(&[1]) };
    let plain = attributes(&[1]);
    wins(
        candidate(&reflected, 9),
        candidate(&plain, 1),
        Step::RouterId,
        "router ID higher (10.0.0.1 > 10.0.0.0)",
    );
}

#[test]
fn rfc4456_9_shorter_cluster_list_wins() {
    let list = |length| PathAttributes {
        cluster_list: vec![Ipv4Addr::LOCALHOST; length],
        originator_id: Some(Ipv4Addr::new(10, 9, 9, 9)),
        ..attributes(&[1])
    };
    let (short, long) = (list(1), list(2));
    wins(candidate(&short, 9), candidate(&long, 1), Step::ClusterListLength, "cluster list longer (2 > 1)");
}

#[test]
fn rfc4271_9_1_2_2_g_lower_peer_address_wins() {
    let attrs = attributes(&[1]);
    let same_id = |number| Candidate { router_id: Ipv4Addr::LOCALHOST, ..candidate(&attrs, number) };
    let low = Candidate { peer: PeerId(77), ..same_id(1) };
    wins(low, same_id(2), Step::PeerAddress, "peer address higher (192.0.2.2 > 192.0.2.1)");
}

#[test]
fn two_peers_of_one_address_are_told_apart() {
    let attrs = attributes(&[1]);
    let other = Candidate { peer: PeerId(2), ..candidate(&attrs, 1) };
    wins(candidate(&attrs, 1), other, Step::PeerNumber, "peer number higher (2 > 1)");
}

#[test]
fn equal_paths_are_those_that_survive_the_igp_cost() {
    let through = |number, path: &[u32]| PathAttributes {
        next_hop: Ipv4Addr::new(192, 0, 2, number).into(),
        ..attributes(path)
    };
    let (two, one) = (through(4, &[2, 6]), through(3, &[1, 5]));
    let (long, other) = (through(1, &[1, 5, 7]), through(6, &[1, 5]));
    let candidates = [
        candidate(&two, 4),
        candidate(&one, 3),
        candidate(&long, 1),
        Candidate { kind: SessionKind::Ibgp, ..candidate(&one, 2) },
        Candidate { igp_cost: 11, ..candidate(&one, 5) },
        candidate(&other, 6),
    ];
    let equal = |max| select(&candidates, max).unwrap().equal.to_vec();
    assert_eq!(equal(16), [1, 0, 5]);
    assert_eq!(equal(2), [1, 0]);
    assert_eq!(equal(1), [1]);
    assert_eq!(equal(0), [1]);
}

#[test]
fn two_paths_of_one_next_hop_count_once_among_the_equal() {
    let through =
        |number| PathAttributes { next_hop: Ipv4Addr::new(192, 0, 2, number).into(), ..attributes(&[1]) };
    let (a, b) = (through(1), through(2));
    let candidates = [candidate(&a, 1), candidate(&a, 2), candidate(&b, 3), candidate(&b, 4)];
    let equal = |max| select(&candidates, max).unwrap().equal.to_vec();
    assert_eq!(equal(2), [0, 1, 2, 3]);
    assert_eq!(equal(1), [0, 1]);
}

/// MED makes a preference that is no order: pairwise comparison would depend on who comes first.
#[test]
fn all_720_orders_of_six_paths_give_one_outcome() {
    let with = |path: &[u32], med| PathAttributes { med: Some(med), ..attributes(path) };
    let attrs = [
        with(&[1, 9], 20),
        with(&[1, 9], 10),
        with(&[2, 9], 0),
        with(&[2, 9], 5),
        with(&[3, 9], 50),
        with(&[], 0),
    ];
    let mut six: Vec<Candidate> =
        attrs.iter().zip(1..).map(|(attrs, number)| candidate(attrs, number)).collect();
    let mut longer = attributes(&[1, 2, 3, 4]);
    longer.local_pref = Some(100);
    six[5] = Candidate { facts: Facts::of(&longer), ..six[5] };
    six[1].kind = SessionKind::Ibgp;
    six[2].router_id = Ipv4Addr::new(10, 0, 0, 9);

    let mut orders = 0;
    let mut permute = vec![(Vec::new(), six)];
    let mut outcomes = std::collections::BTreeSet::new();
    while let Some((taken, rest)) = permute.pop() {
        if rest.is_empty() {
            let selection = select(&taken, 16).unwrap();
            let equal: Vec<PeerId> = selection.equal.iter().map(|i: &usize| taken[*i].peer).collect();
            let (_, fates) = explain(&taken, 16).unwrap();
            let mut reasons: Vec<(PeerId, String)> =
                (0..6).map(|i| (taken[i].peer, reason(&taken, &fates, i))).collect();
            reasons.sort();
            outcomes.insert((taken[selection.best].peer, equal, reasons));
            orders += 1;
            continue;
        }
        for i in 0..rest.len() {
            let (mut taken, mut rest): (Vec<Candidate>, Vec<Candidate>) = (taken.clone(), rest.clone());
            taken.push(rest.remove(i));
            permute.push((taken, rest));
        }
    }
    assert_eq!(orders, 720);
    assert_eq!(outcomes.len(), 1, "{outcomes:#?}");
    let (best, equal, _) = outcomes.pop_first().unwrap();
    // 1 goes by MED to 2, 2 is internal, 4 goes by MED to 3; 3 and 5 are equal, and 5 has the lower identifier.
    assert_eq!((best, equal), (PeerId(5), vec![PeerId(5), PeerId(3)]));
}

/// The steps once more, written as RFC 4271 §9.1.2.2 and RFC 4456 §9 state them: each as a removal over all pairs.
fn naive(candidates: &[Candidate]) -> Option<usize> {
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    type Beats = fn(&Candidate, &Candidate) -> bool;
    let steps: [Beats; 11] = [
        |a, b| a.local && !b.local,
        |a, b| a.facts.local_pref().unwrap_or(100) > b.facts.local_pref().unwrap_or(100),
        |a, b| a.facts.as_path_length() < b.facts.as_path_length(),
        |a, b| (a.facts.origin() as u8) < (b.facts.origin() as u8),
        |a, b| {
            a.facts.neighbour_as() == b.facts.neighbour_as()
                && a.facts.med().unwrap_or(0) < b.facts.med().unwrap_or(0)
        },
        |a, b| a.kind == SessionKind::Ebgp && b.kind == SessionKind::Ibgp,
        |a, b| a.igp_cost < b.igp_cost,
        |a, b| {
            a.facts.originator_id().unwrap_or(a.router_id) < b.facts.originator_id().unwrap_or(b.router_id)
        },
        |a, b| a.facts.cluster_list_length() < b.facts.cluster_list_length(),
        |a, b| a.address < b.address,
        |a, b| a.peer < b.peer,
    ];
    for beats in steps {
        let before = left.clone();
        left.retain(|i| !before.iter().any(|j| beats(&candidates[*j], &candidates[*i])));
    }
    left.first().copied()
}

#[derive(Clone, Debug)]
struct Any {
    attrs: PathAttributes,
    local: bool,
    ibgp: bool,
    cost: u32,
    id: u8,
}

impl Any {
    fn candidate(&self, number: u32) -> Candidate {
        Candidate {
            facts: Facts::of(&self.attrs),
            next_hop: next_hop_id(&self.attrs),
            local: self.local,
            kind: if self.ibgp { SessionKind::Ibgp } else { SessionKind::Ebgp },
            igp_cost: self.cost,
            router_id: Ipv4Addr::new(10, 0, 0, self.id),
            address: Ipv4Addr::new(192, 0, 2, self.id / 2).into(),
            peer: PeerId(number),
        }
    }
}

fn any_path() -> impl Strategy<Value = Any> {
    (
        (proptest::collection::vec(1u32..4, 0..3), 0u8..3, proptest::option::of(0u32..3)),
        (proptest::option::of(99u32..102), proptest::option::of(0u8..3), 0usize..3),
        (proptest::bool::weighted(0.1), any::<bool>(), 0u32..2, 0u8..3),
    )
        .prop_map(|((path, origin, med), (pref, originator, clusters), (local, ibgp, cost, id))| Any {
            attrs: PathAttributes {
                origin: Origin::from_code(origin).unwrap_or_default(),
                med,
                local_pref: pref,
                originator_id: originator.map(|id| Ipv4Addr::new(10, 0, 0, id)),
                cluster_list: vec![Ipv4Addr::LOCALHOST; clusters],
                ..attributes(&path)
            },
            local,
            ibgp,
            cost,
            id,
        })
}

proptest! {
    #[test]
    fn agrees_with_the_steps_taken_one_by_one(paths in proptest::collection::vec(any_path(), 0..8), seed: u64) {
        let candidates: Vec<Candidate> = paths.iter().zip(0..).map(|(path, number)| path.candidate(number)).collect();
        let best = select(&candidates, 4).map(|selection| candidates[selection.best].peer);
        prop_assert_eq!(best, naive(&candidates).map(|index| candidates[index].peer));
        let mut shuffled = candidates.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        let peers = |candidates: &[Candidate]| {
            select(candidates, 4).map(|s| s.equal.iter().map(|i| candidates[*i].peer).collect::<Vec<_>>())
        };
        prop_assert_eq!(peers(&shuffled), peers(&candidates));
        if let Some((selection, fates)) = explain(&candidates, 4) {
            prop_assert_eq!(selection.equal.first(), Some(&selection.best));
            for (index, fate) in fates.iter().enumerate() {
                prop_assert_eq!(matches!(fate, Fate::Best(_)), index == selection.best);
            }
        }
    }

    /// What is concluded from the best path alone is what the whole decision comes to.
    #[test]
    fn a_new_path_stands_as_the_whole_decision_says(paths in proptest::collection::vec(any_path(), 2..8)) {
        let mut candidates: Vec<Candidate> = paths.iter().zip(0..).map(|(path, number)| path.candidate(number)).collect();
        let Some(new) = candidates.pop() else { return Ok(()) };
        let Some(best) = select(&candidates, 1).map(|selection| candidates[selection.best]) else { return Ok(()) };
        let rank_of = |c: &Candidate| rank(c.local, &c.facts);
        let standing = match rank_of(&new).cmp(&rank_of(&best)) {
            Ordering::Less => Some(new.peer),
            Ordering::Greater => Some(best.peer),
            Ordering::Equal => match compare_equals(&new, &best) {
                Some(Ordering::Less) if new.facts.med().unwrap_or(0) == 0 => Some(new.peer),
                Some(Ordering::Greater) => Some(best.peer),
                _ => None,
            },
        };
        candidates.push(new);
        if let (Some(winner), Some(selection)) = (standing, select(&candidates, 1)) {
            prop_assert_eq!(winner, candidates[selection.best].peer);
        }
        // One that ranks below the best, taken away, leaves the decision as it is.
        candidates.pop();
        let below = candidates.iter().position(|c| rank_of(c) > rank_of(&best));
        if let Some(below) = below {
            candidates.remove(below);
            prop_assert_eq!(select(&candidates, 1).map(|s| candidates[s.best].peer), Some(best.peer));
        }
    }
}
