//! Whatever happens, in whatever order: once drained, every member has what export of the Loc-RIB comes to for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use causeway_bgp_wire::{Community, Family, FamilySet, PathAttributes, Prefix};
use proptest::prelude::*;

use super::Harness;
use crate::config::NextHopMode;
use crate::event::PeerId;
use crate::export::testing::{attributes, from_ebgp, from_ibgp, params};
use crate::export::{ExportParams, Limits};
use crate::policy::{Action, Conditions, ExportDefault, ExportPolicy, Operation, Rule, RuleChain};
use crate::rib::{SessionKind, Source};

#[derive(Clone, Debug)]
enum Op {
    Set { prefix: u8, path: u8, source: u8 },
    Withdraw { prefix: u8 },
    Up { peer: u8, variant: u8 },
    Down { peer: u8 },
    Change { peer: u8, variant: u8 },
    Pull { peer: u8, bytes: u16 },
    Refresh { peer: u8, v6: bool, enhanced: bool },
    Drain,
}

/// Routes change and members read.
fn routes() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (0..40u8, 1..6u8, 0..9u8).prop_map(|(prefix, path, source)| Op::Set { prefix, path, source }),
        5 => (0..40u8).prop_map(|prefix| Op::Withdraw { prefix }),
        6 => (0..6u8, 1..600u16).prop_map(|(peer, bytes)| Op::Pull { peer, bytes }),
        1 => Just(Op::Drain),
    ]
}

/// Members come, go and change as well.
fn op() -> impl Strategy<Value = Op> {
    let peer = 0..6u8;
    prop_oneof![
        22 => routes(),
        2 => (peer.clone(), 0..7u8).prop_map(|(peer, variant)| Op::Up { peer, variant }),
        1 => peer.clone().prop_map(|peer| Op::Down { peer }),
        1 => (peer.clone(), 0..7u8).prop_map(|(peer, variant)| Op::Change { peer, variant }),
        1 => (peer, any::<bool>(), any::<bool>())
            .prop_map(|(peer, v6, enhanced)| Op::Refresh { peer, v6, enhanced }),
    ]
}

/// Members that are up move between groups, over and over, many of them in the middle of something.
fn moves() -> impl Strategy<Value = Op> {
    let peer = 0..6u8;
    prop_oneof![
        16 => op(),
        6 => (peer.clone(), 0..6u8).prop_map(|(peer, variant)| Op::Change { peer, variant }),
        3 => peer.clone().prop_map(|peer| Op::Pull { peer, bytes: 1 }),
        2 => (peer, any::<bool>()).prop_map(|(peer, v6)| Op::Refresh { peer, v6, enhanced: false }),
    ]
}

fn prefix(number: u8) -> Prefix {
    let number = u16::from(number);
    match number % 4 {
        3 => Prefix::new(IpAddr::V6(Ipv6Addr::new(0xfd00, number, 0, 0, 0, 0, 0, 0)), 48),
        _ => Prefix::new(IpAddr::V4(Ipv4Addr::new(10, number as u8, 0, 0)), 24),
    }
    .unwrap()
}

fn path(prefix: Prefix, number: u8) -> PathAttributes {
    let mut path = attributes(u32::from(number));
    if matches!(prefix, Prefix::V6(_)) {
        path.next_hop = "2001:db8::7".parse::<IpAddr>().unwrap().into();
    }
    match number {
        4 => path.communities = vec![Community::NO_EXPORT],
        5 => path.med = Some(7),
        _ => {}
    }
    path
}

fn source(number: u8) -> Source {
    match number {
        0..3 => from_ibgp(u32::from(number), true),
        3 => from_ibgp(3, false),
        4..6 => from_ebgp(u32::from(number)),
        6 => from_ebgp(99),
        7 => from_ibgp(98, false),
        _ => Source::Local { export: true },
    }
}

fn variant(number: u8) -> ExportParams {
    let policy = |action| {
        let rule = Rule {
            id: "test".into(),
            conditions: Conditions { communities: vec![], length: Some((0, 24)), ..Conditions::default() },
            action,
        };
        let chain = RuleChain { v4: vec![rule], v6: vec![] };
        Arc::new(ExportPolicy::new(chain, ExportDefault::AcceptedExcept(vec![])))
    };
    let client = params(SessionKind::Ibgp, true);
    match number {
        0 => client,
        1 => params(SessionKind::Ibgp, false),
        2 => params(SessionKind::Ebgp, false),
        3 => ExportParams { policy: policy(Action::Reject), ..client },
        4 => ExportParams { policy: policy(Action::Accept(vec![Operation::SetMed(9)])), ..client },
        5 => ExportParams { next_hop_mode: NextHopMode::Self_, ..client },
        _ => ExportParams { families: FamilySet::only(Family::Ipv4Unicast), ..client },
    }
}

fn run(ops: &[Op], limits: Limits) -> Harness {
    let mut harness = Harness::new(limits);
    for op in ops {
        match *op {
            Op::Set { prefix: p, path: number, source: from } => {
                let prefix = prefix(p);
                harness.set(prefix, Some((path(prefix, number), source(from))));
            }
            Op::Withdraw { prefix: p } => harness.set(prefix(p), None),
            Op::Up { peer, variant: v } => harness.up(u32::from(peer), variant(v)),
            Op::Down { peer } => harness.down(u32::from(peer)),
            Op::Change { peer, variant: v } => {
                let now = harness.receivers.get(&PeerId(u32::from(peer))).map(|r| r.params.clone());
                // Kind and families are the session's and do not change in it.
                if let Some(ExportParams { kind, families, .. }) = now {
                    harness.change(u32::from(peer), ExportParams { kind, families, ..variant(v) });
                }
            }
            Op::Pull { peer, bytes } => drop(harness.pull(u32::from(peer), usize::from(bytes))),
            Op::Refresh { peer, v6, enhanced } => {
                let family = if v6 { Family::Ipv6Unicast } else { Family::Ipv4Unicast };
                harness.refresh(u32::from(peer), family, enhanced);
            }
            Op::Drain => {
                harness.drain();
                harness.check();
            }
        }
    }
    harness.drain();
    harness.check();
    harness
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn members_have_what_export_comes_to(ops in prop::collection::vec(op(), 1..150)) {
        run(&ops, Limits { slice_slots: 4, ..Limits::default() });
    }

    #[test]
    fn members_that_fall_out_of_the_journal_too(ops in prop::collection::vec(op(), 1..150)) {
        run(&ops, Limits { journal_bytes: 700, tombstones: 1_000, slice_slots: 4 });
    }

    #[test]
    fn members_that_move_between_groups_too(
        ops in prop::collection::vec(moves(), 1..200),
        journal_bytes in prop_oneof![Just(700), Just(8 << 20)],
        slice_slots in prop_oneof![Just(1), Just(4)],
        prefixes in prop_oneof![Just(4), Just(40)],
    ) {
        let mut all: Vec<Op> = (0..6).map(|peer| Op::Up { peer, variant: peer % 3 }).collect();
        // Of few prefixes each is told, withdrawn and told again all the more often.
        all.extend(ops.into_iter().map(|op| match op {
            Op::Set { prefix, path, source } => Op::Set { prefix: prefix % prefixes, path, source },
            Op::Withdraw { prefix } => Op::Withdraw { prefix: prefix % prefixes },
            op => op,
        }));
        let harness = run(&all, Limits { journal_bytes, tombstones: 1_000, slice_slots });
        let places: usize = harness.export.v4.groups().map(|group| group.readers.len()).sum();
        prop_assert_eq!(places, harness.receivers.len(), "nobody's place is kept in a group it has left");
    }

    #[test]
    fn nothing_is_said_twice_to_members_with_their_initial_table(
        variants in prop::collection::vec(0..7u8, 1..6),
        ops in prop::collection::vec(routes(), 1..150),
    ) {
        let mut all: Vec<Op> = (0..).zip(variants).map(|(peer, variant)| Op::Up { peer, variant }).collect();
        all.push(Op::Drain);
        all.extend(ops);
        let harness = run(&all, Limits::default());
        for (peer, receiver) in &harness.receivers {
            prop_assert_eq!(receiver.needless, 0, "{:?}", peer);
        }
    }
}
