//! One rule of a filter: conditions that must all hold, and what becomes of a path then. Pure.

use std::borrow::Borrow;
use std::net::IpAddr;
use std::sync::Arc;

use causeway_bgp_wire::{Asn, Community, LargeCommunity, NextHop, PathAttributes, Prefix, SegmentKind};

use super::{PolicyContext, Verdict};

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name for people: `filter tor-in importV4[1]`.
    pub id: Arc<str>,
    /// When it decides.
    pub conditions: Conditions,
    /// What it decides.
    pub action: Action,
}

/// What a rule asks of a path; everything given must hold, nothing given means always.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Of the prefix.
    pub prefix: Option<PrefixMatch>,
    /// Bounds on its length, both included.
    pub length: Option<(u8, u8)>,
    /// Of the session: true for eBGP.
    pub ebgp: Option<bool>,
    /// Standard communities the path must carry.
    pub communities: Vec<Community>,
    /// Large communities the path must carry.
    pub large_communities: Vec<LargeCommunity>,
    /// AS numbers the AS_PATH must begin with, the nearest first; only sequences count.
    pub as_path_prefix: Vec<Asn>,
    /// Prefix the next hop must lie in.
    pub next_hop: Option<Prefix>,
}

/// A prefix and how to compare with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixMatch {
    /// The prefix.
    pub prefix: Prefix,
    /// The comparison.
    pub operator: PrefixOperator,
}

/// How a prefix is compared with that of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixOperator {
    /// It is the same.
    Equal,
    /// It is another one.
    NotEqual,
    /// It is the same or lies inside.
    In,
    /// It is neither the same nor lies inside.
    NotIn,
}

/// What a rule decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The path is refused.
    Reject,
    /// The path passes, after these operations in order.
    Accept(Vec<Operation>),
}

/// A change to a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Adds a standard community unless it is there.
    AddCommunity(Community),
    /// Adds a large community unless it is there.
    AddLargeCommunity(LargeCommunity),
    /// Removes a standard community.
    RemoveCommunity(Community),
    /// Removes a large community.
    RemoveLargeCommunity(LargeCommunity),
    /// Replaces all communities, of both kinds.
    SetCommunities(Vec<Community>, Vec<LargeCommunity>),
    /// Puts these AS numbers in front of the AS_PATH, the first of them first.
    PrependAsPath(Vec<Asn>),
    /// Sets LOCAL_PREF.
    SetLocalPref(u32),
    /// Sets MULTI_EXIT_DISC.
    SetMed(u32),
    /// Sets the next hop.
    SetNextHop(IpAddr),
}

impl PrefixMatch {
    fn holds(&self, prefix: &Prefix) -> bool {
        match self.operator {
            PrefixOperator::Equal => self.prefix == *prefix,
            PrefixOperator::NotEqual => self.prefix != *prefix,
            PrefixOperator::In => self.prefix.contains(prefix),
            PrefixOperator::NotIn => !self.prefix.contains(prefix),
        }
    }
}

impl Conditions {
    /// Whether the rule speaks of this path.
    pub fn hold(
        &self,
        prefix: &Prefix,
        attributes: &impl Borrow<PathAttributes>,
        context: &PolicyContext,
    ) -> bool {
        let length = prefix.prefix_len();
        let holds = self.prefix.is_none_or(|wanted| wanted.holds(prefix))
            && self.length.is_none_or(|(min, max)| (min..=max).contains(&length))
            && self.ebgp.is_none_or(|ebgp| ebgp == context.ebgp);
        holds && (!self.ask_attributes() || self.hold_of(attributes.borrow()))
    }

    /// Whether the rule asks nothing of the prefix: then it speaks of all prefixes of an attribute set or of none.
    pub fn ignore_prefix(&self) -> bool {
        self.prefix.is_none() && self.length.is_none()
    }

    /// Whether the rule speaks of every path.
    pub fn always_hold(&self) -> bool {
        self.ignore_prefix() && self.ebgp.is_none() && !self.ask_attributes()
    }

    fn ask_attributes(&self) -> bool {
        let Conditions { communities, large_communities, as_path_prefix, next_hop, .. } = self;
        let lists = [communities.len(), large_communities.len(), as_path_prefix.len()];
        next_hop.is_some() || lists.into_iter().any(|length| length > 0)
    }

    fn hold_of(&self, attributes: &PathAttributes) -> bool {
        self.communities.iter().all(|wanted| attributes.communities.contains(wanted))
            && self.large_communities.iter().all(|wanted| attributes.large_communities.contains(wanted))
            && self.as_path_begins(attributes)
            && self.next_hop.is_none_or(|range| range.contains_address(attributes.next_hop.global))
    }

    fn as_path_begins(&self, attributes: &PathAttributes) -> bool {
        if self.as_path_prefix.is_empty() {
            return true;
        }
        let sequences =
            attributes.as_path.segments().take_while(|segment| segment.kind == SegmentKind::Sequence);
        let mut path = sequences.flat_map(|segment| segment.asns());
        self.as_path_prefix.iter().all(|wanted| path.next() == Some(*wanted))
    }
}

impl Rule {
    /// The verdict on a path whose conditions hold.
    pub(super) fn apply(&self, attributes: &impl Borrow<PathAttributes>) -> Verdict<'_> {
        let operations = match &self.action {
            Action::Reject => return Verdict::plain(false, &self.id),
            Action::Accept(operations) => operations,
        };
        let mut verdict = Verdict::plain(true, &self.id);
        if operations.is_empty() {
            return verdict;
        }
        let attributes = attributes.borrow();
        let mut changed = Box::new(attributes.clone());
        for operation in operations {
            operation.apply(&mut changed);
            verdict.next_hop_set |= matches!(operation, Operation::SetNextHop(_));
        }
        if *changed != *attributes {
            verdict.changed = Some(changed);
        }
        verdict
    }
}

impl Operation {
    fn apply(&self, attributes: &mut PathAttributes) {
        match self {
            Operation::AddCommunity(community) => add(&mut attributes.communities, *community),
            Operation::AddLargeCommunity(community) => add(&mut attributes.large_communities, *community),
            Operation::RemoveCommunity(community) => attributes.communities.retain(|c| c != community),
            Operation::RemoveLargeCommunity(community) => {
                attributes.large_communities.retain(|c| c != community)
            }
            Operation::SetCommunities(communities, large_communities) => {
                attributes.communities.clone_from(communities);
                attributes.large_communities.clone_from(large_communities);
            }
            Operation::PrependAsPath(numbers) => {
                for number in numbers.iter().rev() {
                    attributes.as_path = attributes.as_path.prepend(*number, 1);
                }
            }
            Operation::SetLocalPref(value) => attributes.local_pref = Some(*value),
            Operation::SetMed(value) => attributes.med = Some(*value),
            Operation::SetNextHop(address) => attributes.next_hop = NextHop::from(*address),
        }
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}
