//! BGPFilters in the engine's own types. Pure.

use causeway_api::effective::EffectiveNode;
use causeway_api::resource::bgp_filter::{
    Action as DocumentAction, FilterRule, MatchOperator, Operation as DocumentOperation, PeerType,
};
use causeway_api::resource::community::Community as DocumentCommunity;
use causeway_bgp_core::policy::{
    Action, Conditions, Operation, PrefixMatch, PrefixOperator, Rule, RuleChain,
};
use causeway_bgp_wire::{Asn, Community, LargeCommunity};

use super::native::prefix;

/// Which lists of a filter.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Import,
    Export,
}

/// The rules of the named filters, one filter after the other.
pub(super) fn chain(node: &EffectiveNode, filters: &[String], direction: Direction) -> RuleChain {
    let mut chain = RuleChain::default();
    for (name, filter) in filters.iter().filter_map(|name| Some((name, node.filters.get(name)?))) {
        let (v4, v6) = match direction {
            Direction::Import => (("importV4", &filter.import_v4), ("importV6", &filter.import_v6)),
            Direction::Export => (("exportV4", &filter.export_v4), ("exportV6", &filter.export_v6)),
        };
        for ((field, rules), list, longest) in [(v4, &mut chain.v4, 32), (v6, &mut chain.v6, 128)] {
            list.extend(rules.iter().enumerate().map(|(index, rule)| Rule {
                id: format!("filter {name} {field}[{index}]").into(),
                conditions: conditions(rule, longest),
                action: action(rule),
            }));
        }
    }
    chain
}

fn conditions(rule: &FilterRule, longest: u8) -> Conditions {
    let wanted = rule.communities.iter().flat_map(|communities| &communities.values);
    let (communities, large_communities) = split(wanted);
    Conditions {
        prefix: rule.cidr.and_then(prefix).zip(rule.match_operator).map(|(prefix, operator)| PrefixMatch {
            prefix,
            operator: match operator {
                MatchOperator::Equal => PrefixOperator::Equal,
                MatchOperator::NotEqual => PrefixOperator::NotEqual,
                MatchOperator::In => PrefixOperator::In,
                MatchOperator::NotIn => PrefixOperator::NotIn,
            },
        }),
        length: rule.prefix_length.map(|bounds| (bounds.min.unwrap_or(0), bounds.max.unwrap_or(longest))),
        ebgp: rule.peer_type.map(|kind| kind == PeerType::EBgp),
        communities,
        large_communities,
        as_path_prefix: rule.as_path_prefix.iter().flatten().copied().map(Asn).collect(),
        next_hop: rule.next_hop.and_then(prefix),
    }
}

fn action(rule: &FilterRule) -> Action {
    match rule.action {
        DocumentAction::Reject => Action::Reject,
        DocumentAction::Accept => Action::Accept(rule.operations.iter().flat_map(operations).collect()),
    }
}

/// The operation that a valid document's entry holds.
fn operations(entry: &DocumentOperation) -> Vec<Operation> {
    let add = entry.add_community.map(|add| match add.value {
        DocumentCommunity::Standard(value) => Operation::AddCommunity(Community(value)),
        DocumentCommunity::Large(value) => Operation::AddLargeCommunity(large(value)),
    });
    let remove = entry.remove_community.map(|remove| match remove.value {
        DocumentCommunity::Standard(value) => Operation::RemoveCommunity(Community(value)),
        DocumentCommunity::Large(value) => Operation::RemoveLargeCommunity(large(value)),
    });
    let set = entry.set_communities.as_ref().map(|set| {
        let (communities, large_communities) = split(&set.values);
        Operation::SetCommunities(communities, large_communities)
    });
    let prepend = entry
        .prepend_as_path
        .as_ref()
        .map(|prepend| Operation::PrependAsPath(prepend.prefix.iter().copied().map(Asn).collect()));
    let local_pref = entry.set_local_pref.map(|set| Operation::SetLocalPref(set.value));
    let med = entry.set_med.map(|set| Operation::SetMed(set.value));
    let next_hop = entry.set_next_hop.map(|set| Operation::SetNextHop(set.address.0));
    [add, remove, set, prepend, local_pref, med, next_hop].into_iter().flatten().collect()
}

/// Standard and large communities apart, each once, in the order given.
fn split<'a>(
    communities: impl IntoIterator<Item = &'a DocumentCommunity>,
) -> (Vec<Community>, Vec<LargeCommunity>) {
    let (mut standard, mut larges) = (Vec::new(), Vec::new());
    for community in communities {
        match community {
            DocumentCommunity::Standard(value) if !standard.contains(&Community(*value)) => {
                standard.push(Community(*value));
            }
            DocumentCommunity::Large(value) if !larges.contains(&large(*value)) => larges.push(large(*value)),
            _ => {}
        }
    }
    (standard, larges)
}

fn large([global, local1, local2]: [u32; 3]) -> LargeCommunity {
    LargeCommunity { global, local1, local2 }
}
