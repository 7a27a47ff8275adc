//! Every condition and operation both ways, the order of rules, the defaults, and properties over random rules.

use std::net::{IpAddr, Ipv4Addr};

use causeway_bgp_wire::{AsPath, Asn, Community, LargeCommunity, Origin, SegmentKind};
use proptest::prelude::*;

use super::*;

const EBGP: PolicyContext = PolicyContext { ebgp: true, own: false };
const IBGP: PolicyContext = PolicyContext { ebgp: false, own: false };
const OWN: PolicyContext = PolicyContext { ebgp: true, own: true };

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn attributes() -> PathAttributes {
    PathAttributes {
        as_path: AsPath::from_sequence([Asn(64601), Asn(64700)]),
        communities: vec![Community(1), Community(2)],
        large_communities: vec![LargeCommunity { global: 1, local1: 2, local2: 3 }],
        ..PathAttributes::new(Origin::Igp, Ipv4Addr::new(192, 0, 2, 1).into())
    }
}

fn rule(id: &str, conditions: Conditions, action: Action) -> Rule {
    Rule { id: id.into(), conditions, action }
}

fn accept() -> Action {
    Action::Accept(Vec::new())
}

fn matching(text: &str, operator: PrefixOperator) -> Conditions {
    Conditions { prefix: Some(PrefixMatch { prefix: prefix(text), operator }), ..Conditions::default() }
}

fn named(text: &str, rule: &str) -> NamedRange {
    NamedRange { prefix: prefix(text), rule: rule.into() }
}

fn import(rules: Vec<Rule>) -> ImportPolicy {
    ImportPolicy::new(
        vec![named("10.244.1.0/24", "default: own block")],
        RuleChain { v4: rules, v6: Vec::new() },
        vec![named("10.244.0.0/16", "default: inside IPPool pods")],
    )
}

#[test]
fn each_condition_both_ways() {
    use PrefixOperator::{Equal, In, NotEqual, NotIn};
    let base = Conditions::default();
    let with_path = |numbers: &[u32]| Conditions {
        as_path_prefix: numbers.iter().copied().map(Asn).collect(),
        ..Conditions::default()
    };
    let large = |local2| LargeCommunity { global: 1, local1: 2, local2 };
    for (conditions, expected) in [
        (base.clone(), true),
        (matching("10.1.0.0/16", Equal), true),
        (matching("10.0.0.0/8", Equal), false),
        (matching("10.1.0.0/16", NotEqual), false),
        (matching("10.0.0.0/8", NotEqual), true),
        (matching("10.0.0.0/8", In), true),
        (matching("10.1.0.0/16", In), true),
        (matching("10.1.0.0/24", In), false),
        (matching("10.0.0.0/8", NotIn), false),
        (matching("10.1.0.0/16", NotIn), false),
        (matching("10.1.0.0/24", NotIn), true),
        (Conditions { length: Some((16, 16)), ..base.clone() }, true),
        (Conditions { length: Some((17, 32)), ..base.clone() }, false),
        (Conditions { length: Some((0, 15)), ..base.clone() }, false),
        (Conditions { ebgp: Some(true), ..base.clone() }, true),
        (Conditions { ebgp: Some(false), ..base.clone() }, false),
        (Conditions { communities: vec![Community(1)], ..base.clone() }, true),
        (Conditions { communities: vec![Community(1), Community(2)], ..base.clone() }, true),
        (Conditions { communities: vec![Community(1), Community(3)], ..base.clone() }, false),
        (Conditions { large_communities: vec![large(3)], ..base.clone() }, true),
        (Conditions { large_communities: vec![large(4)], ..base.clone() }, false),
        (with_path(&[64601]), true),
        (with_path(&[64601, 64700]), true),
        (with_path(&[64700]), false),
        (with_path(&[64601, 64700, 1]), false),
        (Conditions { next_hop: Some(prefix("192.0.2.0/24")), ..base.clone() }, true),
        (Conditions { next_hop: Some(prefix("198.51.100.0/24")), ..base.clone() }, false),
        (Conditions { next_hop: Some(prefix("::/0")), ..base.clone() }, false),
        (Conditions { ebgp: Some(false), ..matching("10.0.0.0/8", In) }, false),
    ] {
        let holds = conditions.hold(&prefix("10.1.0.0/16"), &attributes(), &EBGP);
        assert_eq!(holds, expected, "{conditions:?}");
    }
}

#[test]
fn as_path_prefix_does_not_look_into_sets() {
    let wanted = Conditions { as_path_prefix: vec![Asn(1), Asn(2)], ..Conditions::default() };
    let mut as_path = AsPath::from_sequence([Asn(1)]);
    as_path.push_segment(SegmentKind::Set, &[Asn(2)]);
    let path = PathAttributes { as_path, ..attributes() };
    assert!(!wanted.hold(&prefix("10.0.0.0/8"), &path, &EBGP));
    let mut as_path = AsPath::from_sequence([Asn(1)]);
    as_path.push_segment(SegmentKind::Sequence, &[Asn(2)]);
    let path = PathAttributes { as_path, ..attributes() };
    assert!(wanted.hold(&prefix("10.0.0.0/8"), &path, &EBGP));
}

#[test]
fn each_operation_changes_what_it_names() {
    struct Applied {
        changed: Option<Box<PathAttributes>>,
        next_hop_set: bool,
    }
    let apply = |operations: Vec<Operation>| {
        let policy = import(vec![rule("r", Conditions::default(), Action::Accept(operations))]);
        let verdict = policy.evaluate(&prefix("10.0.0.0/8"), &attributes(), &EBGP);
        assert!(verdict.accept);
        Applied { changed: verdict.changed, next_hop_set: verdict.next_hop_set }
    };
    let changed = |operation| apply(vec![operation]).changed.unwrap();
    let large = |local2| LargeCommunity { global: 1, local1: 2, local2 };
    assert_eq!(
        changed(Operation::AddCommunity(Community(3))).communities,
        [Community(1), Community(2), Community(3)]
    );
    assert_eq!(apply(vec![Operation::AddCommunity(Community(1))]).changed, None);
    assert_eq!(changed(Operation::AddLargeCommunity(large(4))).large_communities, [large(3), large(4)]);
    assert_eq!(changed(Operation::RemoveCommunity(Community(1))).communities, [Community(2)]);
    assert_eq!(changed(Operation::RemoveLargeCommunity(large(3))).large_communities, []);
    let set = changed(Operation::SetCommunities(vec![Community(9)], vec![]));
    assert_eq!(
        (set.communities.as_slice(), set.large_communities.as_slice()),
        (&[Community(9)][..], &[][..])
    );
    assert_eq!(
        changed(Operation::PrependAsPath(vec![Asn(7), Asn(8)])).as_path,
        AsPath::from_sequence([Asn(7), Asn(8), Asn(64601), Asn(64700)])
    );
    assert_eq!(changed(Operation::SetLocalPref(50)).local_pref, Some(50));
    assert_eq!(changed(Operation::SetMed(0)).med, Some(0));
    let address = IpAddr::from(Ipv4Addr::new(198, 51, 100, 1));
    let verdict = apply(vec![Operation::SetNextHop(address)]);
    assert_eq!(verdict.changed.unwrap().next_hop.global, address);
    assert!(verdict.next_hop_set);
    let same = apply(vec![Operation::SetNextHop(attributes().next_hop.global)]);
    assert!(same.next_hop_set && same.changed.is_none());
    let both = apply(vec![Operation::SetMed(1), Operation::SetMed(2)]).changed.unwrap();
    assert_eq!(both.med, Some(2));
}

#[test]
fn the_first_match_decides_and_is_named() {
    let policy = import(vec![
        rule("filter a importV4[0]", matching("10.1.0.0/16", PrefixOperator::Equal), Action::Reject),
        rule("filter a importV4[1]", matching("10.0.0.0/8", PrefixOperator::In), accept()),
        rule("filter b importV4[0]", Conditions::default(), Action::Reject),
    ]);
    for (text, accept, by) in [
        ("10.1.0.0/16", false, "filter a importV4[0]"),
        ("10.2.0.0/16", true, "filter a importV4[1]"),
        ("10.244.1.128/25", false, "default: own block"),
        ("172.16.0.0/12", false, "filter b importV4[0]"),
        ("fd00::/48", false, "default: outside every IPPool"),
    ] {
        let verdict = policy.evaluate(&prefix(text), &attributes(), &EBGP);
        assert_eq!((verdict.accept, &**verdict.rule), (accept, by), "{text}");
    }
}

#[test]
fn import_default_is_what_lies_in_pools() {
    let policy = import(Vec::new());
    for (text, accept, by) in [
        ("10.244.2.0/24", true, "default: inside IPPool pods"),
        ("10.244.0.0/16", true, "default: inside IPPool pods"),
        ("10.244.1.0/24", false, "default: own block"),
        ("10.244.1.7/32", false, "default: own block"),
        ("10.0.0.0/8", false, "default: outside every IPPool"),
        ("0.0.0.0/0", false, "default: outside every IPPool"),
    ] {
        let verdict = policy.evaluate(&prefix(text), &attributes(), &IBGP);
        assert_eq!((verdict.accept, &**verdict.rule), (accept, by), "{text}");
    }
    let none = ImportPolicy::new(Vec::new(), RuleChain::default(), Vec::new());
    let verdict = none.evaluate(&prefix("10.0.0.0/8"), &attributes(), &IBGP);
    assert_eq!((verdict.accept, &**verdict.rule), (false, "default: there is no IPPool"));
}

#[test]
fn export_default_is_own_blocks_or_what_a_reflector_accepted() {
    let node = ExportPolicy::new(RuleChain::default(), ExportDefault::Own);
    assert!(node.evaluate(&prefix("10.244.1.0/24"), &attributes(), &OWN).accept);
    let refused = node.evaluate(&prefix("10.244.2.0/24"), &attributes(), &EBGP);
    assert_eq!((refused.accept, &**refused.rule), (false, "default: not an own block"));
    let reflector = ExportPolicy::new(
        RuleChain::default(),
        ExportDefault::AcceptedExcept(vec![named("10.9.0.0/16", "default: disableBGPExport")]),
    );
    assert!(reflector.evaluate(&prefix("10.244.2.0/24"), &attributes(), &IBGP).accept);
    assert!(!reflector.evaluate(&prefix("10.9.1.0/24"), &attributes(), &IBGP).accept);
    assert!(reflector.evaluate(&prefix("10.9.1.0/24"), &attributes(), &OWN).accept);
    let opened = ExportPolicy::new(
        RuleChain {
            v4: vec![rule("filter all exportV4[0]", Conditions::default(), accept())],
            v6: Vec::new(),
        },
        ExportDefault::Own,
    );
    assert!(opened.evaluate(&prefix("10.244.2.0/24"), &attributes(), &EBGP).accept);
    assert!(!opened.evaluate(&prefix("fd00::/48"), &attributes(), &EBGP).accept);
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    // Few distinct bits, so that prefixes often contain each other.
    (0_u32..16, 0_u8..=32)
        .prop_map(|(bits, length)| Prefix::new(Ipv4Addr::from_bits(bits << 28).into(), length).unwrap())
}

fn any_rule() -> impl Strategy<Value = (Conditions, bool)> {
    let operator = prop_oneof![
        Just(PrefixOperator::Equal),
        Just(PrefixOperator::NotEqual),
        Just(PrefixOperator::In),
        Just(PrefixOperator::NotIn)
    ];
    let wanted = (any_prefix(), operator).prop_map(|(prefix, operator)| PrefixMatch { prefix, operator });
    (proptest::option::of(wanted), proptest::option::of((0_u8..32, 0_u8..=32)), any::<bool>())
        .prop_map(|(prefix, length, accept)| (Conditions { prefix, length, ..Conditions::default() }, accept))
}

proptest! {
    /// A policy says what the first rule that holds says, whatever stands behind it.
    #[test]
    fn first_match_wins(rules in prop::collection::vec(any_rule(), 0..6), prefix in any_prefix()) {
        let compiled = |rules: &[(Conditions, bool)]| -> Vec<Rule> {
            rules.iter().enumerate().map(|(index, (conditions, accept))| {
                let action = if *accept { Action::Accept(Vec::new()) } else { Action::Reject };
                rule(&index.to_string(), conditions.clone(), action)
            }).collect()
        };
        let policy = ImportPolicy::new(
            Vec::new(), RuleChain { v4: compiled(&rules), v6: Vec::new() }, vec![named("0.0.0.0/0", "inside")]);
        let verdict = policy.evaluate(&prefix, &attributes(), &EBGP);
        let first = rules.iter().position(|(conditions, _)| conditions.hold(&prefix, &attributes(), &EBGP));
        match first {
            Some(index) => {
                prop_assert_eq!(verdict.accept, rules[index].1);
                prop_assert_eq!(&**verdict.rule, &index.to_string());
            }
            None => prop_assert_eq!(&**verdict.rule, "inside"),
        }
    }

    /// Each negated operator is the opposite of the plain one, and Equal implies In.
    #[test]
    fn operators_are_consistent(a in any_prefix(), b in any_prefix()) {
        let holds = |operator| {
            let conditions = Conditions { prefix: Some(PrefixMatch { prefix: a, operator }), ..Conditions::default() };
            conditions.hold(&b, &attributes(), &EBGP)
        };
        prop_assert_ne!(holds(PrefixOperator::Equal), holds(PrefixOperator::NotEqual));
        prop_assert_ne!(holds(PrefixOperator::In), holds(PrefixOperator::NotIn));
        prop_assert!(!holds(PrefixOperator::Equal) || holds(PrefixOperator::In));
    }

    /// Nothing inside an own block is imported, whatever the rules.
    #[test]
    fn own_blocks_are_never_imported(rules in prop::collection::vec(any_rule(), 0..6), host in any::<u8>()) {
        let rules = rules.into_iter().map(|(conditions, _)| rule("r", conditions, accept())).collect();
        let inside = Prefix::host(Ipv4Addr::new(10, 244, 1, host).into());
        prop_assert!(!import(rules).evaluate(&inside, &attributes(), &EBGP).accept);
    }
}

#[test]
fn a_policy_that_looks_at_prefixes_says_so() {
    let accept = |conditions| rule("r", conditions, Action::Accept(Vec::new()));
    let anything = || accept(Conditions::default());
    let of_ebgp = || accept(Conditions { ebgp: Some(true), ..Conditions::default() });
    let short = || accept(Conditions { length: Some((0, 24)), ..Conditions::default() });
    let v4 = Family::Ipv4Unicast;
    let range = || vec![NamedRange { prefix: prefix("10.0.0.0/8"), rule: "range".into() }];
    let policy =
        |never, rules, inside| ImportPolicy::new(never, RuleChain { v4: rules, v6: vec![short()] }, inside);
    assert!(policy(vec![], vec![anything()], range()).is_uniform(v4));
    assert!(policy(vec![], vec![of_ebgp()], vec![]).is_uniform(v4));
    assert!(!policy(vec![], vec![of_ebgp()], range()).is_uniform(v4));
    assert!(!policy(vec![], vec![short(), anything()], vec![]).is_uniform(v4));
    assert!(!policy(range(), vec![anything()], vec![]).is_uniform(v4));
    assert!(!policy(vec![], vec![anything()], vec![]).is_uniform(Family::Ipv6Unicast));
    let chain = |rules| RuleChain { v4: rules, v6: Vec::new() };
    assert!(ExportPolicy::accept_all().is_uniform(v4));
    assert!(ExportPolicy::new(chain(vec![of_ebgp()]), ExportDefault::Own).is_uniform(v4));
    assert!(
        !ExportPolicy::new(chain(vec![of_ebgp()]), ExportDefault::AcceptedExcept(range())).is_uniform(v4)
    );
    assert!(
        ExportPolicy::new(chain(vec![anything()]), ExportDefault::AcceptedExcept(range())).is_uniform(v4)
    );
    assert!(!ExportPolicy::new(chain(vec![short()]), ExportDefault::Own).is_uniform(v4));
}
