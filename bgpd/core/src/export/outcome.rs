//! What a group is sent of a best path: eligibility, export policy and rewrite put together.
//!
//! Pure but for a small cache: routes of one attribute set come in a row, and all but the policy's say is the same for
//! each of them. The cache is a table of fixed size in which a newer set takes an older one's place.

use causeway_bgp_wire::encode::{EncodeContext, EncodedAttributes};
use causeway_bgp_wire::{Family, PathAttributes, PrefixKey};

use super::eligibility::refusal;
use super::params::GroupKey;
use super::rewrite::{NO_ADDRESS, drops_med, next_hop, rewrite};
use crate::attrs::{AttrSet, Interner, Unpacked};
use crate::policy::PolicyContext;
use crate::rib::{BestPath, SessionKind, Source};

/// How many attribute sets are remembered.
const REMEMBERED: usize = 64;

/// Attributes that take less than this on the wire fit into any message.
const SURELY_FITS: usize = 3_000;

/// What rewriting adds at most, in octets: ORIGINATOR_ID, a cluster, an AS number, LOCAL_PREF, a next hop.
const REWRITING_ADDS: usize = 200;

/// What is the same for every prefix of an attribute set.
struct Remembered {
    best: BestPath,
    /// As the policy sees it; `None`: refused before.
    seen: Option<Unpacked>,
    /// Whether it can be sent where the policy changes nothing; filled in when first needed.
    sendable: Option<bool>,
    /// What it comes to, where the policy does not look at prefixes.
    outcome: Option<Option<AttrSet>>,
}

/// Decides what a group is sent.
#[derive(Default)]
pub(super) struct Outcomes {
    remembered: Vec<Option<Remembered>>,
}

impl Outcomes {
    /// The attributes for the group, to be rewritten or finished, or `None` where the path is not advertised to it. A
    /// path that is eligible and yet cannot be sent is told of in `warnings`.
    pub fn outcome<P: PrefixKey>(
        &mut self,
        prefix: P,
        best: &BestPath,
        key: &GroupKey,
        interner: &mut Interner,
        warnings: &mut dyn FnMut(String),
    ) -> Option<AttrSet> {
        if self.remembered.is_empty() {
            self.remembered.resize_with(REMEMBERED, || None);
        }
        let place = &mut self.remembered[(best.attrs.address() >> 5) % REMEMBERED];
        let remembered = match place {
            Some(remembered) if remembered.best == *best => remembered,
            place => place.insert(remember(best, key)),
        };
        if let Some(outcome) = &remembered.outcome {
            return outcome.clone();
        }
        let outcome = remembered.evaluate(prefix, key, interner, warnings);
        if key.policy.is_uniform(P::FAMILY) {
            remembered.outcome = Some(outcome.clone());
        }
        outcome
    }
}

impl Remembered {
    fn evaluate<P: PrefixKey>(
        &mut self,
        prefix: P,
        key: &GroupKey,
        interner: &mut Interner,
        warnings: &mut dyn FnMut(String),
    ) -> Option<AttrSet> {
        let Remembered { best, seen, sendable, .. } = self;
        let seen = seen.as_ref()?;
        let own = matches!(best.source, Source::Local { .. });
        let context = PolicyContext { ebgp: key.kind == SessionKind::Ebgp, own };
        let verdict = key.policy.evaluate(&prefix.into(), seen, &context);
        if !verdict.accept {
            return None;
        }
        let mut warn = |reason: String| warnings(format!("{} is not advertised: {reason}", prefix.into()));
        // A rule that sets the next hop to what it was changes nothing, and yet the next hop is to stay.
        let changed = verdict.changed.or_else(|| verdict.next_hop_set.then(|| Box::new((**seen).clone())));
        if let Some(changed) = changed {
            return match finish::<P>(*changed, &best.source, key, verdict.next_hop_set) {
                Ok(sent) => Some(interner.intern_finished(&sent)),
                Err(reason) => {
                    warn(reason);
                    None
                }
            };
        }
        let sendable = sendable
            .get_or_insert_with(|| check_sendable::<P>(seen, &best.source, key).map_err(&mut warn).is_ok());
        sendable.then(|| best.attrs.clone())
    }
}

fn remember(best: &BestPath, key: &GroupKey) -> Remembered {
    let facts = best.attrs.facts();
    let seen = if facts.med().is_some() && drops_med(&best.source, key) {
        let value = PathAttributes { med: None, ..best.attrs.unpack() };
        Unpacked::with_value(best.attrs.clone(), value)
    } else {
        Unpacked::new(best.attrs.clone())
    };
    let communities: &[_] = if facts.has_communities() { &seen.communities } else { &[] };
    let refused = refusal(communities, &best.source, key).is_some();
    Remembered { best: best.clone(), seen: (!refused).then_some(seen), sendable: None, outcome: None }
}

/// Whether a message can hold what rewriting comes to, found without rewriting in the usual case.
fn check_sendable<P: PrefixKey>(seen: &Unpacked, source: &Source, key: &GroupKey) -> Result<(), String> {
    let hop = next_hop(seen.set().next_hop(), source, key, false).ok_or(NO_ADDRESS)?;
    let own_family = hop.global.is_ipv4() == (P::FAMILY == Family::Ipv4Unicast);
    // An AS number takes four octets packed and at most twelve on the wire, beside a two-octet path.
    if own_family && 3 * seen.set().octets() + REWRITING_ADDS < SURELY_FITS {
        return Ok(());
    }
    finish::<P>((**seen).clone(), source, key, false).map(|_| ())
}

/// The attributes as sent, if a message can hold them.
fn finish<P: PrefixKey>(
    attributes: PathAttributes,
    source: &Source,
    key: &GroupKey,
    keep_next_hop: bool,
) -> Result<PathAttributes, String> {
    let sent = rewrite(attributes, source, key, keep_next_hop)?;
    let own_family = sent.next_hop.global.is_ipv4() == (P::FAMILY == Family::Ipv4Unicast);
    if !own_family || size_bound(&sent) >= SURELY_FITS {
        EncodedAttributes::<P>::new(&sent, &key.encode_context()).map_err(|error| error.to_string())?;
    }
    Ok(sent)
}

/// No less than what the attributes take on the wire, found without encoding them.
fn size_bound(attributes: &PathAttributes) -> usize {
    let unknown: usize = attributes.unknown.iter().map(|unknown| unknown.value.len() + 4).sum();
    200 + 12 * attributes.as_path.length()
        + 8 * attributes.as_path.segments().map(|segment| segment.asns().len() + 1).sum::<usize>()
        + 4 * attributes.communities.len()
        + 8 * attributes.ext_communities.len()
        + 12 * attributes.large_communities.len()
        + 4 * attributes.cluster_list.len()
        + unknown
}

impl GroupKey {
    /// What encoding for the group depends on.
    pub fn encode_context(&self) -> EncodeContext {
        EncodeContext {
            four_octet_as: self.four_octet_as,
            extended_message: self.extended_message,
            ..EncodeContext::default()
        }
    }
}
