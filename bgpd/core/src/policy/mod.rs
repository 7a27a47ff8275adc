//! Import and export policy: what becomes of a path on its way in, and on its way out to one peer.
//!
//! Pure. A policy is compiled once from documents and evaluated per prefix and attribute set: the rules of its filters
//! in order, the first match deciding, then the default. Its verdict names the rule that decided, so that a refused
//! path can be shown with its reason. Well-known communities (NO_EXPORT and the like, RFC 1997) are not looked at
//! here: [`crate::export`] obeys them before it asks.

mod rule;

use std::borrow::Borrow;
use std::sync::Arc;

use causeway_bgp_wire::{Family, PathAttributes, Prefix};

pub use rule::{Action, Conditions, Operation, PrefixMatch, PrefixOperator, Rule};

/// What a rule may look at beside prefix and attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyContext {
    /// The session is with another AS.
    pub ebgp: bool,
    /// The path is this speaker's own (export only).
    pub own: bool,
}

/// What a policy says of one path.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict<'a> {
    /// Whether the path may pass.
    pub accept: bool,
    /// The rule that decided, for people: `filter tor-in importV4[1]`, `default: outside every IPPool`.
    pub rule: &'a Arc<str>,
    /// New attributes, where the rule changed them.
    pub changed: Option<Box<PathAttributes>>,
    /// The rule has set the next hop: export must leave it as it is.
    pub next_hop_set: bool,
}

impl<'a> Verdict<'a> {
    fn plain(accept: bool, rule: &'a Arc<str>) -> Self {
        Verdict { accept, rule, changed: None, next_hop_set: false }
    }
}

/// The rules of one direction, a list for each family.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleChain {
    /// For IPv4 prefixes.
    pub v4: Vec<Rule>,
    /// For IPv6 prefixes.
    pub v6: Vec<Rule>,
}

impl RuleChain {
    /// Whether all prefixes of an attribute set meet with the same verdict, and whether that is always a rule's.
    fn is_uniform(&self, family: Family) -> (bool, bool) {
        let rules = self.of(family);
        let blind = rules.iter().all(|rule| rule.conditions.ignore_prefix());
        (blind, rules.iter().any(|rule| rule.conditions.always_hold()))
    }

    fn of(&self, family: Family) -> &[Rule] {
        match family {
            Family::Ipv4Unicast => &self.v4,
            Family::Ipv6Unicast => &self.v6,
        }
    }

    /// The attributes are looked at only if a rule asks.
    fn decide(
        &self,
        prefix: &Prefix,
        attributes: &impl Borrow<PathAttributes>,
        context: &PolicyContext,
    ) -> Option<Verdict<'_>> {
        let rule =
            self.of(prefix.family()).iter().find(|rule| rule.conditions.hold(prefix, attributes, context))?;
        Some(rule.apply(attributes))
    }
}

/// A prefix with the words that name it in a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRange {
    /// The range.
    pub prefix: Prefix,
    /// What the verdict says of a prefix inside it: `default: inside IPPool pods`.
    pub rule: Arc<str>,
}

/// The first of `ranges` that contains the prefix.
fn find_range<'a>(ranges: &'a [NamedRange], prefix: &Prefix) -> Option<&'a NamedRange> {
    ranges.iter().find(|range| range.prefix.contains(prefix))
}

/// Rules for what one peer sends.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportPolicy {
    /// This node's own blocks: nothing inside them is ever imported, whatever the filters say.
    never: Vec<NamedRange>,
    chain: RuleChain,
    /// What passes where no rule matches.
    inside: Vec<NamedRange>,
    otherwise: Otherwise,
}

/// What becomes of a path that neither a rule nor a range speaks of.
#[derive(Clone, Debug, PartialEq)]
struct Otherwise {
    accept: bool,
    rule: Arc<str>,
}

impl ImportPolicy {
    /// Lets everything pass as it is.
    pub fn accept_all() -> Self {
        ImportPolicy {
            never: Vec::new(),
            chain: RuleChain::default(),
            inside: Vec::new(),
            otherwise: Otherwise { accept: true, rule: "accept all".into() },
        }
    }

    /// Refuses what lies in `never`; then the rules of `chain`; then lets pass what lies in one of `inside` and
    /// refuses the rest.
    pub fn new(never: Vec<NamedRange>, chain: RuleChain, inside: Vec<NamedRange>) -> Self {
        let rule =
            if inside.is_empty() { "default: there is no IPPool" } else { "default: outside every IPPool" };
        ImportPolicy { never, chain, inside, otherwise: Otherwise { accept: false, rule: rule.into() } }
    }

    /// Whether all prefixes of one attribute set and context meet with the same verdict.
    pub fn is_uniform(&self, family: Family) -> bool {
        let (blind, decisive) = self.chain.is_uniform(family);
        blind && self.never.is_empty() && (decisive || self.inside.is_empty())
    }

    /// What becomes of this path.
    pub fn evaluate(
        &self,
        prefix: &Prefix,
        attributes: &impl Borrow<PathAttributes>,
        context: &PolicyContext,
    ) -> Verdict<'_> {
        if let Some(own) = find_range(&self.never, prefix) {
            return Verdict::plain(false, &own.rule);
        }
        if let Some(verdict) = self.chain.decide(prefix, attributes, context) {
            return verdict;
        }
        match find_range(&self.inside, prefix) {
            Some(range) => Verdict::plain(true, &range.rule),
            None => Verdict::plain(self.otherwise.accept, &self.otherwise.rule),
        }
    }
}

/// What is exported where no rule matches.
#[derive(Clone, Debug, PartialEq)]
pub enum ExportDefault {
    /// This speaker's own prefixes.
    Own,
    /// Whatever this speaker accepted, as a reflector does, but nothing inside these ranges unless it is its own.
    AcceptedExcept(Vec<NamedRange>),
}

/// Rules for what one peer is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportPolicy {
    chain: RuleChain,
    default: ExportDefault,
    own: Arc<str>,
    accepted: Arc<str>,
    foreign: Arc<str>,
}

impl ExportPolicy {
    /// Lets everything pass as it is.
    pub fn accept_all() -> Self {
        ExportPolicy::new(RuleChain::default(), ExportDefault::AcceptedExcept(Vec::new()))
    }

    /// The rules of `chain`, then the default.
    pub fn new(chain: RuleChain, default: ExportDefault) -> Self {
        ExportPolicy {
            chain,
            default,
            own: "default: own block".into(),
            accepted: "default: accepted by this reflector".into(),
            foreign: "default: not an own block".into(),
        }
    }

    /// Whether all prefixes of one attribute set and context meet with the same verdict.
    pub fn is_uniform(&self, family: Family) -> bool {
        let (blind, decisive) = self.chain.is_uniform(family);
        let ranges = match &self.default {
            ExportDefault::Own => 0,
            ExportDefault::AcceptedExcept(ranges) => ranges.len(),
        };
        blind && (decisive || ranges == 0)
    }

    /// What becomes of this path.
    pub fn evaluate(
        &self,
        prefix: &Prefix,
        attributes: &impl Borrow<PathAttributes>,
        context: &PolicyContext,
    ) -> Verdict<'_> {
        if let Some(verdict) = self.chain.decide(prefix, attributes, context) {
            return verdict;
        }
        match &self.default {
            _ if context.own => Verdict::plain(true, &self.own),
            ExportDefault::Own => Verdict::plain(false, &self.foreign),
            ExportDefault::AcceptedExcept(ranges) => match find_range(ranges, prefix) {
                Some(range) => Verdict::plain(false, &range.rule),
                None => Verdict::plain(true, &self.accepted),
            },
        }
    }
}

#[cfg(test)]
mod tests;
