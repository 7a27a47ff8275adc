//! Export driven as the speaker drives it, with members that decode what they are sent into tables of their own.

mod cases;
mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use causeway_bgp_wire::{
    DecodeContext, Family, HEADER_LEN, Header, Ipv4Prefix, Ipv6Prefix, Message, PathAttributes, Prefix,
    PrefixKey, RefreshKind, Update,
};

use super::eligibility::refusal;
use super::rewrite::{before_policy, rewrite};
use super::{Export, ExportParams, Limits};
use crate::attrs::Interner;
use crate::event::{PeerId, PullState};
use crate::policy::PolicyContext;
use crate::rib::slots::{Keys, SlotKey, Slots};
use crate::rib::{BestPath, LocRib, SessionKind, Source};

/// A Loc-RIB that is nothing but its best paths.
pub struct Rib {
    v4: Slots<Ipv4Prefix, Option<BestPath>>,
    v6: Slots<Ipv6Prefix, Option<BestPath>>,
}

impl Rib {
    fn best(&self) -> impl Iterator<Item = (Prefix, &BestPath)> {
        let v4 = self.v4.iter().filter_map(|(_, key, best)| Some((key.into(), best.as_ref()?)));
        v4.chain(self.v6.iter().filter_map(|(_, key, best)| Some((key.into(), best.as_ref()?))))
    }
}

impl LocRib for Rib {
    fn best_between(&self, family: Family, slots: Range<u32>, f: &mut dyn FnMut(u32, Prefix, &BestPath)) {
        fn each<K: PrefixKey + SlotKey>(
            table: &Slots<K, Option<BestPath>>,
            slots: Range<u32>,
            f: &mut dyn FnMut(u32, Prefix, &BestPath),
        ) {
            for (slot, key, best) in table.iter().filter(|(slot, ..)| slots.contains(slot)) {
                best.iter().for_each(|best| f(slot, key.into(), best));
            }
        }
        match family {
            Family::Ipv4Unicast => each(&self.v4, slots, f),
            Family::Ipv6Unicast => each(&self.v6, slots, f),
        }
    }

    fn v4(&self) -> &Keys<Ipv4Prefix> {
        self.v4.keys()
    }

    fn v6(&self) -> &Keys<Ipv6Prefix> {
        self.v6.keys()
    }
}

/// What a member has understood of what it was sent.
pub struct Receiver {
    pub params: ExportParams,
    pub table: BTreeMap<Prefix, PathAttributes>,
    /// Told again since BoRR; `None`: no refresh is going on.
    again: [Option<BTreeSet<Prefix>>; Family::COUNT],
    pub ends_of_rib: Vec<Family>,
    pub refreshes: usize,
    /// Announcements that said what it knew already, and withdrawals of what it did not know.
    pub needless: usize,
    /// UPDATEs, End-of-RIB included.
    pub updates: u64,
    pub withdrawn: u64,
}

impl Receiver {
    fn new(params: ExportParams) -> Self {
        Receiver {
            params,
            table: BTreeMap::new(),
            again: [None, None],
            ends_of_rib: Vec::new(),
            refreshes: 0,
            needless: 0,
            updates: 0,
            withdrawn: 0,
        }
    }

    fn receive(&mut self, octets: &[u8]) {
        let kind = match self.params.kind {
            SessionKind::Ebgp => causeway_bgp_wire::SessionKind::External,
            SessionKind::Ibgp => causeway_bgp_wire::SessionKind::Internal,
        };
        let mut context = DecodeContext::new(kind, self.params.families);
        context.four_octet_as = self.params.four_octet_as;
        context.extended_message = self.params.extended_message;
        let mut rest = octets;
        while !rest.is_empty() {
            let header = Header::peek(rest, context.extended_message).unwrap().expect("whole messages");
            assert!(header.length >= HEADER_LEN);
            let (message, tail) = rest.split_at(header.length);
            match Message::decode(message, &context).unwrap() {
                Message::Update(update) => self.update(update),
                Message::RouteRefresh(refresh) => {
                    let family = refresh.family.family().unwrap();
                    match refresh.kind {
                        RefreshKind::BeginOfRefresh => self.again[family.index()] = Some(BTreeSet::new()),
                        RefreshKind::EndOfRefresh => {
                            let again = self.again[family.index()].take().expect("EoRR after BoRR");
                            let stale: Vec<Prefix> = (self.table.keys().copied())
                                .filter(|p| p.family() == family && !again.contains(p))
                                .collect();
                            assert_eq!(stale, [], "a refresh is complete");
                            self.refreshes += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
                other => panic!("{other:?}"),
            }
            rest = tail;
        }
    }

    fn update(&mut self, update: Update) {
        self.updates += 1;
        assert_eq!(update.problems, []);
        if let Some(family) = update.end_of_rib {
            self.ends_of_rib.push(family);
        }
        for nlri in update.withdrawn.iter().flat_map(|list| list.iter()) {
            self.withdrawn += 1;
            self.needless += usize::from(self.table.remove(&nlri.prefix).is_none());
        }
        for announcement in &update.announced {
            for nlri in announcement.nlri.iter() {
                if let Some(again) = &mut self.again[nlri.prefix.family().index()] {
                    again.insert(nlri.prefix);
                }
                let old = self.table.insert(nlri.prefix, announcement.attributes.clone());
                self.needless += usize::from(old.as_ref() == Some(&announcement.attributes));
            }
        }
    }
}

/// Export, the Loc-RIB it reads and the members' ends.
pub struct Harness {
    pub export: Export,
    pub rib: Rib,
    pub interner: Interner,
    pub receivers: BTreeMap<PeerId, Receiver>,
    /// Woken, or with more to pull.
    pub ready: BTreeSet<PeerId>,
    limits: Limits,
}

impl Harness {
    pub fn new(limits: Limits) -> Self {
        Harness {
            export: Export::with_limits(limits),
            rib: Rib { v4: Slots::new(), v6: Slots::new() },
            interner: Interner::new(),
            receivers: BTreeMap::new(),
            ready: BTreeSet::new(),
            limits,
        }
    }

    pub fn up(&mut self, peer: u32, params: ExportParams) {
        let peer = PeerId(peer);
        self.export.member_up(peer, params.clone());
        self.receivers.insert(peer, Receiver::new(params));
        self.wakes();
    }

    pub fn down(&mut self, peer: u32) {
        self.export.member_down(PeerId(peer));
        self.receivers.remove(&PeerId(peer));
        self.ready.remove(&PeerId(peer));
    }

    pub fn change(&mut self, peer: u32, params: ExportParams) {
        if let Some(receiver) = self.receivers.get_mut(&PeerId(peer)) {
            receiver.params = params.clone();
            self.export.member_changed(PeerId(peer), params, &self.rib);
            self.wakes();
        }
    }

    pub fn announce(&mut self, prefix: &str, attributes: PathAttributes, source: Source) {
        self.set(prefix.parse().unwrap(), Some((attributes, source)));
    }

    pub fn withdraw(&mut self, prefix: &str) {
        self.set(prefix.parse().unwrap(), None);
    }

    pub fn set(&mut self, prefix: Prefix, path: Option<(PathAttributes, Source)>) {
        let best = path.map(|(attrs, source)| BestPath { attrs: self.interner.intern(&attrs), source });
        fn place<K: PrefixKey + SlotKey>(
            table: &mut Slots<K, Option<BestPath>>,
            key: K,
            best: Option<BestPath>,
        ) -> Option<u32> {
            let slot = match &best {
                Some(_) => table.find_or_insert_with(key, || None),
                None => table.find(&key)?,
            };
            *table.get_mut(slot)? = best;
            Some(slot)
        }
        let slot = match prefix {
            Prefix::V4(key) => place(&mut self.rib.v4, key, best.clone()),
            Prefix::V6(key) => place(&mut self.rib.v6, key, best.clone()),
        };
        if let Some(slot) = slot {
            self.export.route_changed(slot, prefix, best.as_ref());
            self.free(prefix.family(), slot);
        }
        self.wakes();
    }

    /// Frees a slot that has no path and is held by nobody.
    fn free(&mut self, family: Family, slot: u32) {
        if self.export.holds(family, slot) {
            return;
        }
        match family {
            Family::Ipv4Unicast if matches!(self.rib.v4.get(slot), Some((_, None))) => {
                self.rib.v4.remove(slot)
            }
            Family::Ipv6Unicast if matches!(self.rib.v6.get(slot), Some((_, None))) => {
                self.rib.v6.remove(slot)
            }
            _ => {}
        }
    }

    pub fn refresh(&mut self, peer: u32, family: Family, enhanced: bool) {
        self.export.refresh(PeerId(peer), family, enhanced);
        self.wakes();
    }

    pub fn wakes(&mut self) {
        while let Some((family, slot)) = self.export.poll_released() {
            self.free(family, slot);
        }
        while let Some(peer) = self.export.poll_wake() {
            self.ready.insert(peer);
        }
    }

    /// One pull, as the driver does it: only of who is ready.
    pub fn pull(&mut self, peer: u32, bytes: usize) -> Vec<Bytes> {
        let peer = PeerId(peer);
        let mut out = Vec::new();
        if self.ready.contains(&peer) {
            if self.export.pull(peer, bytes, &mut out, &self.rib) == PullState::Drained {
                self.ready.remove(&peer);
            }
            let receiver = self.receivers.get_mut(&peer).unwrap();
            out.iter().for_each(|octets| receiver.receive(octets));
            self.wakes();
            self.check_bounds();
        }
        out
    }

    /// Pulls until everybody is drained.
    pub fn drain(&mut self) {
        let mut steps = 0;
        while let Some(peer) = self.ready.first() {
            self.pull(peer.0, 4096);
            steps += 1;
            assert!(steps < 100_000, "comes to rest");
        }
    }

    fn check_bounds(&self) {
        // One step may exceed the bound before it is enforced by the next.
        let bound = self.limits.journal_bytes + 80 * 1024;
        for group in self.export.v4.groups() {
            assert!(group.stream.journal.bytes() <= bound);
        }
        for group in self.export.v6.groups() {
            assert!(group.stream.journal.bytes() <= bound);
        }
    }

    /// What the member must have: every best path through eligibility, policy and rewrite, one by one.
    fn expected(&self, peer: PeerId, params: &ExportParams) -> BTreeMap<Prefix, PathAttributes> {
        let mut table = BTreeMap::new();
        for (prefix, best) in self.rib.best() {
            let Some(key) = params.group_key(prefix.family()) else { continue };
            let from_itself = matches!(best.source, Source::Peer { id, .. } if id == peer);
            let mut seen = best.attrs.unpack();
            if from_itself || refusal(&seen.communities, &best.source, &key).is_some() {
                continue;
            }
            before_policy(&mut seen, &best.source, &key);
            let own = matches!(best.source, Source::Local { .. });
            let context = PolicyContext { ebgp: key.kind == SessionKind::Ebgp, own };
            let verdict = key.policy.evaluate(&prefix, &seen, &context);
            let changed = verdict.changed.map_or(seen.clone(), |changed| *changed);
            if verdict.accept
                && let Ok(sent) = rewrite(changed, &best.source, &key, verdict.next_hop_set)
            {
                table.insert(prefix, sent);
            }
        }
        table
    }

    /// Everybody has what export comes to for it, and so says the looking glass.
    pub fn check(&self) {
        assert!(self.ready.is_empty(), "drained");
        for (peer, receiver) in &self.receivers {
            let expected = self.expected(*peer, &receiver.params);
            assert_eq!(receiver.table, expected, "what {peer:?} has");
            let mut shown = BTreeMap::new();
            for family in Family::all() {
                let count = shown.len();
                let mut position = Some(0);
                while let Some(at) = position {
                    position =
                        self.export.advertised(*peer, (family, at), 3, &self.rib, &mut |prefix, attrs| {
                            shown.insert(prefix, attrs);
                        });
                }
                let count = (shown.len() - count) as u64;
                assert_eq!(self.export.advertised_count(*peer, family), count, "{peer:?} {family}");
            }
            assert_eq!(shown, expected, "what is shown of {peer:?}");
            for (prefix, attributes) in &expected {
                let path = self.export.advertised_path(*peer, prefix, &self.rib);
                assert_eq!(path.as_ref(), Some(attributes));
            }
            let sent = self.export.sent(*peer);
            assert_eq!((sent.updates, sent.withdrawn), (receiver.updates, receiver.withdrawn), "{peer:?}");
            let families: Vec<Family> = receiver.params.families.iter().collect();
            let mut ends = receiver.ends_of_rib.clone();
            ends.sort_unstable();
            assert_eq!(ends, families, "End-of-RIB once for each family");
        }
    }
}
