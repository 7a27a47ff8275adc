//! The tables of both families and what the decision needs to know beside them.
//!
//! Owner: the speaker. Pure. Code over a table is written once, for any [`Tabled`] key.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::rc::Rc;

use causeway_bgp_wire::{Asn, Family, Ipv4Prefix, Ipv6Prefix, Prefix, PrefixKey};
use smallvec::SmallVec;

use super::decision::{Candidate, Fate, Rank, compare_equals, explain, rank, reason, select};
use super::next_hop::{NextHops, Watch};
use super::path::{Import, LOCAL, NOBODY, NextHopId, Path, PathMaker, Paths};
use super::rules::{Check, RuleNames};
use super::slots::{Keys, SlotKey, Slots};
use super::{BestPath, LocRib, SessionKind, Source};
use crate::attrs::Interner;
use crate::event::PeerId;
use crate::forwarding::{Forwarding, Members, Recent, Way, members};
use crate::peer_map::PeerMap;

/// The table of a family.
pub(crate) type Table<K> = Slots<K, Paths>;

/// One table a family.
pub(crate) struct Tables {
    v4: Table<Ipv4Prefix>,
    v6: Table<Ipv6Prefix>,
}

/// A prefix type with a table of its own.
pub(crate) trait Tabled: PrefixKey + SlotKey {
    fn table(tables: &Tables) -> &Table<Self>;
    fn table_mut(tables: &mut Tables) -> &mut Table<Self>;
}

impl Tabled for Ipv4Prefix {
    fn table(tables: &Tables) -> &Table<Self> {
        &tables.v4
    }

    fn table_mut(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.v4
    }
}

impl Tabled for Ipv6Prefix {
    fn table(tables: &Tables) -> &Table<Self> {
        &tables.v6
    }

    fn table_mut(tables: &mut Tables) -> &mut Table<Self> {
        &mut tables.v6
    }
}

/// Calls a function that is generic over the key with the key type of a family.
macro_rules! for_family {
    ($family:expr, $key:ident => $body:expr) => {
        match $family {
            ::causeway_bgp_wire::Family::Ipv4Unicast => {
                type $key = ::causeway_bgp_wire::Ipv4Prefix;
                $body
            }
            ::causeway_bgp_wire::Family::Ipv6Unicast => {
                type $key = ::causeway_bgp_wire::Ipv6Prefix;
                $body
            }
        }
    };
}
pub(crate) use for_family;

/// What the decision and export look at of a peer: that of its session or, while it is down, of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerFacts {
    pub(crate) id: PeerId,
    pub(crate) kind: SessionKind,
    pub(crate) client: bool,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) address: IpAddr,
    pub(crate) remote_as: Asn,
}

impl PeerFacts {
    fn source(&self) -> Source {
        Source::Peer { id: self.id, kind: self.kind, client: self.client, router_id: self.router_id }
    }
}

/// A prefix with up to so many paths is decided without an allocation.
const USUAL_PATHS: usize = 16;
type Indices = SmallVec<[usize; USUAL_PATHS]>;
/// Paths to be installed together.
type Chosen<'a> = SmallVec<[&'a Path; 4]>;
type Candidates = SmallVec<[Candidate; USUAL_PATHS]>;

/// What is known of a path without a look at all paths of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The best path stays what it is.
    Beaten,
    /// It is the best now.
    Wins,
    /// The decision has to be run.
    Unclear,
}

/// Outcome of a decision.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Whose path is best, or [`NOBODY`].
    pub(crate) best: PeerId,
    /// What is to be installed: nothing of an own prefix, and nothing without a FIB.
    pub(crate) forwarding: Rc<Forwarding>,
}

/// The RIB.
pub(crate) struct Rib {
    pub(crate) tables: Tables,
    pub(crate) peers: PeerMap<PeerFacts>,
    pub(crate) next_hops: NextHops,
    pub(crate) interner: Interner,
    pub(crate) rules: RuleNames,
    pub(crate) maker: PathMaker,
    /// At most this many equal paths are installed.
    pub(crate) max_paths: usize,
    /// Whether any are: a speaker without a FIB has no use for their next hops.
    installs: bool,
    recent: Recent,
    /// What nothing is installed by.
    nothing: Rc<Forwarding>,
}

/// Stands in for the facts of an own path.
const OWN: PeerFacts = PeerFacts {
    id: LOCAL,
    kind: SessionKind::Ibgp,
    client: false,
    router_id: Ipv4Addr::UNSPECIFIED,
    address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    remote_as: Asn(0),
};

fn rank_of(path: &Path) -> Rank {
    rank(path.peer == LOCAL, path.attrs.facts())
}

/// The best path, where it is another peer's.
fn rival<'a>(paths: &'a Paths, path: &Path) -> Option<&'a Path> {
    paths.best().filter(|best| best.peer != path.peer)
}

impl Rib {
    pub(crate) fn new(resolve: bool) -> Self {
        Rib {
            tables: Tables { v4: Slots::new(), v6: Slots::new() },
            peers: PeerMap::new(),
            next_hops: NextHops::new(resolve),
            interner: Interner::new(),
            rules: RuleNames::new(),
            maker: PathMaker::default(),
            max_paths: 1,
            installs: resolve,
            recent: Recent::default(),
            nothing: Rc::default(),
        }
    }

    /// The number of a next hop, with what is to be asked of the resolver if it is new.
    pub(crate) fn acquire(
        &mut self,
        address: IpAddr,
        own: impl FnOnce(IpAddr) -> bool,
    ) -> (NextHopId, Option<Watch>) {
        let (id, watch) = self.next_hops.acquire(address, own);
        if watch.is_some() {
            self.recent.clear();
        }
        (id, watch)
    }

    /// IGP cost of an eligible path (RFC 4271 §9.1.2); `None` where it is not eligible.
    fn cost(&self, path: &Path) -> Option<u32> {
        match path.import {
            Import::Refused => None,
            Import::Accepted if path.peer == LOCAL => Some(0),
            Import::Accepted => self.next_hops.get(path.next_hop)?.cost(),
        }
    }

    /// Whether a path takes part in the decision.
    pub(crate) fn is_eligible(&self, path: &Path) -> bool {
        self.cost(path).is_some()
    }

    fn candidate(&self, path: &Path) -> Option<Candidate> {
        let igp_cost = self.cost(path)?;
        let facts = if path.peer == LOCAL { &OWN } else { self.peers.get(&path.peer)? };
        Some(Candidate {
            facts: *path.attrs.facts(),
            next_hop: path.next_hop,
            local: path.peer == LOCAL,
            kind: facts.kind,
            igp_cost,
            router_id: facts.router_id,
            address: facts.address,
            peer: path.peer,
        })
    }

    /// Decides between the paths of a prefix.
    pub(crate) fn decide(&self, paths: &Paths) -> Decision {
        let paths: SmallVec<[&Path; USUAL_PATHS]> = paths.iter().collect();
        let nobody = || Decision { best: NOBODY, forwarding: self.nothing.clone() };
        match paths.as_slice() {
            [] => nobody(),
            [path] if self.is_eligible(path) => {
                Decision { best: path.peer, forwarding: self.forwarding(&[path], &[]) }
            }
            [_] => nobody(),
            _ => {
                let (mut eligible, mut candidates) = (Indices::new(), Candidates::new());
                self.candidates(&paths, &mut eligible, &mut candidates);
                let Some(selection) = select(&candidates, self.max_paths) else { return nobody() };
                let chosen: Chosen<'_> =
                    selection.equal.iter().map(|index| paths[eligible[*index]]).collect();
                let backups = self.backups(&paths, &chosen);
                let best = paths[eligible[selection.best]].peer;
                Decision { best, forwarding: self.forwarding(&chosen, &backups) }
            }
        }
    }

    /// What is to be installed where this path wins alone.
    pub(crate) fn alone(&self, paths: &Paths, path: &Path) -> Rc<Forwarding> {
        let all: SmallVec<[&Path; USUAL_PATHS]> = paths.iter().collect();
        self.forwarding(&[path], &self.backups(&all, &[path]))
    }

    /// What comes of these paths, used together, and of those that stand in for them.
    fn forwarding(&self, chosen: &[&Path], backups: &[&Path]) -> Rc<Forwarding> {
        if !self.installs {
            return self.nothing.clone();
        }
        let make = || Forwarding { members: self.members(chosen), backups: self.members(backups) };
        if chosen.iter().chain(backups).all(|path| path.attrs.facts().is_plain()) {
            let number = |path: &&Path| path.next_hop;
            self.recent.get(chosen.iter().map(number), backups.iter().map(number), make)
        } else {
            Rc::new(make())
        }
    }

    /// The next hops of these paths as they are installed together.
    fn members(&self, paths: &[&Path]) -> Members {
        members(paths.iter().filter_map(|path| {
            let attributes = path.attrs.packed();
            Some(Way {
                next_hop: self.next_hops.get(path.next_hop)?.address,
                tunnel: attributes.tunnel().map(Box::new),
                bandwidth: attributes.bandwidth(),
            })
        }))
    }

    /// The paths the decision comes to where every one through the next hops of the chosen ones is gone. None beside own
    /// prefixes, which are not installed.
    fn backups<'a>(&self, paths: &[&'a Path], chosen: &[&Path]) -> Chosen<'a> {
        let own = || chosen.iter().all(|path| path.next_hop == NextHopId::NONE);
        if !self.installs || chosen.len() == paths.len() || own() {
            return Chosen::new();
        }
        let used = |path: &Path| chosen.iter().any(|chosen| chosen.next_hop == path.next_hop);
        let rest: SmallVec<[&Path; USUAL_PATHS]> = paths.iter().copied().filter(|path| !used(path)).collect();
        match rest[..] {
            [] => return Chosen::new(),
            [only] if self.is_eligible(only) => return Chosen::from_slice(&[only]),
            [_] => return Chosen::new(),
            _ => {}
        }
        let (mut eligible, mut candidates) = (Indices::new(), Candidates::new());
        self.candidates(&rest, &mut eligible, &mut candidates);
        match select(&candidates, self.max_paths) {
            Some(selection) => selection.equal.iter().map(|index| rest[eligible[*index]]).collect(),
            None => Chosen::new(),
        }
    }

    /// Whether a path that went could not have won, nor kept another from winning: then the decision stands.
    ///
    /// So it is where it ranked below the best before anything that only compares some of the paths (MED).
    pub(crate) fn is_beaten(&self, paths: &Paths, path: &Path) -> bool {
        let Some(best) = rival(paths, path) else { return false };
        self.cost(path).is_none() || rank_of(path) > rank_of(best)
    }

    /// How a new path stands against the best one, as far as no third path has a say in it.
    ///
    /// MED is compared among paths of one neighbour only, so a path may beat the best one and yet be beaten by a third
    /// that does not. One with the lowest MED there is, none, is beaten by nobody for it; and the best path, not beaten by
    /// the new one for it, stays what it was to all others.
    pub(crate) fn standing(&self, paths: &Paths, path: &Path) -> Standing {
        let Some(best) = rival(paths, path) else { return Standing::Unclear };
        if self.cost(path).is_none() {
            return Standing::Beaten;
        }
        match rank_of(path).cmp(&rank_of(best)) {
            Ordering::Less => return Standing::Wins,
            Ordering::Greater => return Standing::Beaten,
            Ordering::Equal => {}
        }
        // Equal paths are installed together, which takes a look at all of them.
        if self.max_paths > 1 && self.installs {
            return Standing::Unclear;
        }
        let (Some(new), Some(best)) = (self.candidate(path), self.candidate(best)) else {
            return Standing::Unclear;
        };
        match compare_equals(&new, &best) {
            Some(Ordering::Less) if new.facts.med().unwrap_or(0) == 0 => Standing::Wins,
            Some(Ordering::Greater) => Standing::Beaten,
            _ => Standing::Unclear,
        }
    }

    /// The eligible paths, and where each of them stands among all.
    fn candidates(&self, paths: &[&Path], eligible: &mut Indices, candidates: &mut Candidates) {
        for (index, path) in paths.iter().enumerate() {
            if let Some(candidate) = self.candidate(path) {
                eligible.push(index);
                candidates.push(candidate);
            }
        }
    }

    /// For each path: whether it is among the equal ones that are installed, and why it won or lost.
    pub(crate) fn reasons(&self, paths: &[&Path]) -> Vec<(bool, String)> {
        let mut reasons: Vec<(bool, String)> = paths
            .iter()
            .map(|path| match path.import {
                Import::Refused => (false, format!("refused: {}", self.rules.name(path.rule))),
                Import::Accepted => {
                    let why = self.next_hops.get(path.next_hop).and_then(|entry| entry.why_not());
                    (false, why.unwrap_or_default())
                }
            })
            .collect();
        let (mut eligible, mut candidates) = (Indices::new(), Candidates::new());
        self.candidates(paths, &mut eligible, &mut candidates);
        let Some((selection, fates)) = explain(&candidates, self.max_paths) else { return reasons };
        for (index, at) in eligible.into_iter().enumerate() {
            let equal = selection.equal.contains(&index);
            let mut words = reason(&candidates, &fates, index);
            if equal && !matches!(fates[index], Fate::Best(_)) {
                words = format!("equal, installed beside the best; {words}");
            }
            reasons[at] = (equal, words);
        }
        reasons
    }

    fn source(&self, path: &Path) -> Option<Source> {
        if path.peer == LOCAL {
            Some(Source::Local { export: path.rule == RuleNames::check(Check::Own) })
        } else {
            self.peers.get(&path.peer).map(PeerFacts::source)
        }
    }

    /// The best path of a prefix, as its last decision has it.
    pub(crate) fn best_of(&self, paths: &Paths) -> Option<BestPath> {
        let path = paths.best()?;
        Some(BestPath { attrs: path.attrs.clone(), source: self.source(path)? })
    }
}

impl LocRib for Rib {
    fn best_between(&self, family: Family, slots: Range<u32>, f: &mut dyn FnMut(u32, Prefix, &BestPath)) {
        for_family!(family, K => {
            let table = K::table(&self.tables);
            for slot in slots.start..slots.end.min(table.end()) {
                if let Some((key, paths)) = table.get(slot)
                    && let Some(best) = self.best_of(paths)
                {
                    f(slot, key.into(), &best);
                }
            }
        })
    }

    fn v4(&self) -> &Keys<Ipv4Prefix> {
        self.tables.v4.keys()
    }

    fn v6(&self) -> &Keys<Ipv6Prefix> {
        self.tables.v6.keys()
    }
}
