//! What a state of the Adj-RIB-Out is on the wire: attributes as the Loc-RIB has them, rewritten for the group.
//!
//! Pure. Rewriting depends on the attributes, on where they came from and on the group, and on nothing else, so it is
//! done when messages are made and what comes of it is not kept. Only what an export policy changed is kept as sent.

use causeway_bgp_wire::PathAttributes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::adj_rib_out::{Origin, State};
use super::params::GroupKey;
use super::rewrite::{before_policy, rewrite};
use crate::attrs::AttrSet;
use crate::event::PeerId;
use crate::rib::Source;

/// Where paths come from, for as long as one of them is in a table or waits to be withdrawn.
#[derive(Default)]
pub(super) struct Sources {
    known: HashMap<PeerId, Source, RandomState>,
    last: Option<Source>,
}

impl Sources {
    /// Takes note of the source of a path.
    pub fn learn(&mut self, source: &Source) {
        if self.last.as_ref() == Some(source) {
            return;
        }
        self.last = Some(*source);
        if let Source::Peer { id, .. } = source {
            self.known.insert(*id, *source);
        }
    }

    /// The source that an origin stands for.
    pub fn of(&self, origin: Origin) -> Option<Source> {
        match origin {
            None => Some(Source::Local { export: true }),
            Some(peer) => self.known.get(&peer).copied(),
        }
    }

    /// How many peers are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets the peers that `wanted` does not take.
    pub fn retain(&mut self, mut wanted: impl FnMut(PeerId) -> bool) {
        self.known.retain(|peer, _| wanted(*peer));
        self.last = None;
    }
}

/// Rewrites for one group.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub key: &'a GroupKey,
    pub sources: &'a Sources,
}

impl Sender<'_> {
    /// The attributes as sent. `None`: where they came from is not known any more, so they are about to be withdrawn.
    pub fn sent(&self, attrs: &AttrSet, origin: Origin) -> Option<PathAttributes> {
        let mut attributes = attrs.unpack();
        if attrs.is_finished() {
            return Some(attributes);
        }
        let source = self.sources.of(origin)?;
        before_policy(&mut attributes, &source, self.key);
        rewrite(attributes, &source, self.key, false).ok()
    }

    /// Whether members see the same attributes in both, whoever they are from.
    pub fn same_attributes(&self, a: (&AttrSet, Origin), b: (&AttrSet, Origin)) -> bool {
        if a.0 == b.0 && (a.1 == b.1 || a.0.is_finished()) {
            return true;
        }
        // Rewriting does the same to every AS_PATH.
        if a.0.is_finished() == b.0.is_finished() && a.0.as_path_octets() != b.0.as_path_octets() {
            return false;
        }
        let (a, b) = (self.sent(a.0, a.1), self.sent(b.0, b.1));
        a.is_some() && a == b
    }

    /// Whether members see the same in both: two withdrawn ones are the same whatever they were.
    pub fn same(&self, a: &State, b: &State) -> bool {
        match (&a.attrs, &b.attrs) {
            (None, None) => true,
            (Some(one), Some(other)) => {
                a.origin == b.origin && self.same_attributes((one, a.origin), (other, b.origin))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{attributes, from_ebgp, from_ibgp, key};
    use crate::rib::SessionKind;

    #[test]
    fn equal_on_the_wire_is_the_same() {
        let mut sources = Sources::default();
        sources.learn(&from_ibgp(1, true));
        sources.learn(&from_ibgp(2, true));
        sources.learn(&from_ebgp(3));
        let plain = AttrSet::single(&attributes(1));
        let mut other = attributes(1);
        other.local_pref = Some(5);
        let other = AttrSet::single(&other);
        let (one, two, three) = (Some(PeerId(1)), Some(PeerId(2)), Some(PeerId(3)));
        let (ebgp, ibgp) = (key(SessionKind::Ebgp, false), key(SessionKind::Ibgp, true));
        let to_ebgp = Sender { key: &ebgp, sources: &sources };
        let to_ibgp = Sender { key: &ibgp, sources: &sources };
        assert!(to_ebgp.same_attributes((&plain, one), (&other, two)), "LOCAL_PREF stays in the AS");
        assert!(!to_ibgp.same_attributes((&plain, one), (&other, one)));
        assert!(!to_ibgp.same_attributes((&plain, one), (&plain, two)), "ORIGINATOR_ID");
        assert!(!to_ibgp.same_attributes((&plain, one), (&plain, three)), "CLUSTER_LIST");
        assert!(!to_ibgp.same_attributes((&plain, one), (&AttrSet::single(&attributes(2)), one)));
        let state = |attrs: &AttrSet, origin| State { attrs: Some(attrs.clone()), origin };
        assert!(to_ebgp.same(&state(&plain, one), &state(&other, one)));
        assert!(!to_ebgp.same(&state(&plain, one), &state(&plain, two)), "each skips its own");
        assert!(to_ebgp.same(&State { attrs: None, origin: one }, &State::NOTHING));
        assert!(!to_ebgp.same(&state(&plain, one), &State::NOTHING));
    }

    #[test]
    fn a_source_that_is_forgotten_has_nothing_to_send() {
        let mut sources = Sources::default();
        sources.learn(&from_ibgp(1, true));
        sources.retain(|_| false);
        let key = key(SessionKind::Ibgp, true);
        let sender = Sender { key: &key, sources: &sources };
        let attrs = AttrSet::single(&attributes(1));
        assert_eq!(sender.sent(&attrs, Some(PeerId(1))), None);
        assert!(sender.sent(&attrs, None).is_some());
    }
}
