//! The decision process: which of a prefix's eligible paths is best, which are equal to it, and what each other one
//! lost to.
//!
//! Pure. RFC 4271 §9.1.1 and §9.1.2, RFC 4456 §9 (ORIGINATOR_ID, CLUSTER_LIST). The steps eliminate, in the order of
//! [`Step`]; MED is compared among paths of one neighbouring AS only, as an elimination over all of them, so that the
//! outcome does not depend on the order the paths came in. There is no step for age for the same reason. Paths that
//! survive through the IGP cost are equal and installed together, up to `max_paths` next hops of them: two reflectors
//! that pass on the same path count once. AS_PATHs need only be of equal length for that.

use std::cmp::{Ordering, Reverse};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use causeway_bgp_wire::{Asn, Origin};
use smallvec::SmallVec;

use super::SessionKind;
use super::path::NextHopId;
use crate::attrs::Facts;
use crate::event::PeerId;

/// Degree of preference of a path without LOCAL_PREF.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

/// An eligible path with what the decision looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Of the attributes after import policy.
    pub facts: Facts,
    /// Number of the next hop.
    pub next_hop: NextHopId,
    /// This speaker originates it.
    pub local: bool,
    /// Kind of the session it came over.
    pub kind: SessionKind,
    /// Metric of the route to its next hop.
    pub igp_cost: u32,
    /// BGP identifier of the peer.
    pub router_id: Ipv4Addr,
    /// Address of the peer.
    pub address: IpAddr,
    /// Number of the peer: tells two peers of one address apart.
    pub peer: PeerId,
}

/// A step of the decision, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Step {
    /// This speaker's own prefixes come before everything.
    Local,
    /// Higher degree of preference (RFC 4271 §9.1.1).
    LocalPref,
    /// Shorter AS_PATH (§9.1.2.2 a).
    AsPathLength,
    /// Lower ORIGIN (b).
    Origin,
    /// Lower MULTI_EXIT_DISC among paths of one neighbouring AS (c).
    Med,
    /// External before internal (d).
    EbgpOverIbgp,
    /// Nearer next hop (e).
    IgpCost,
    /// Lower BGP identifier, ORIGINATOR_ID in its place (f, RFC 4456 §9).
    RouterId,
    /// Shorter CLUSTER_LIST (RFC 4456 §9).
    ClusterListLength,
    /// Lower peer address (g).
    PeerAddress,
    /// Lower peer number: two peers of one address.
    PeerNumber,
}

/// Outcome for one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It won; what the last rival lost at, if there was one.
    Best(Option<Step>),
    /// It lost at this step to the candidate of this index.
    Lost(Step, usize),
}

/// Outcome for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Index of the best candidate.
    pub best: usize,
    /// Indices of the equal paths to install, the best first; one at least.
    pub equal: SmallVec<[usize; 4]>,
}

/// What comes before MULTI_EXIT_DISC, the lower the better: as far as this tells two paths apart, no third path changes
/// which of them is better.
pub(crate) type Rank = (bool, Reverse<u32>, usize, Origin);

/// The rank of a path.
pub(crate) fn rank(local: bool, facts: &Facts) -> Rank {
    let local_pref = facts.local_pref().unwrap_or(DEFAULT_LOCAL_PREF);
    (!local, Reverse(local_pref), facts.as_path_length(), facts.origin())
}

/// Which of two paths of one rank is better; `None` where that hangs on MED, and so on who else is there.
pub(crate) fn compare_equals(a: &Candidate, b: &Candidate) -> Option<Ordering> {
    if neighbour(a) == neighbour(b) && med(a) != med(b) {
        // A path that is beaten by the best for its MED takes no part in what follows.
        return (med(a) > med(b)).then_some(Ordering::Greater);
    }
    let after_med = |c: &Candidate| {
        let ibgp = c.kind == SessionKind::Ibgp;
        (ibgp, c.igp_cost, identifier(c), c.facts.cluster_list_length(), c.address, c.peer)
    };
    Some(after_med(a).cmp(&after_med(b)))
}

type Indices = SmallVec<[usize; 16]>;

/// Keeps those with the lowest key.
fn keep_lowest<T: Ord>(
    alive: &mut Indices,
    step: Step,
    key: impl Fn(usize) -> T,
    lost: &mut impl FnMut(usize, Step, usize),
) {
    let Some(best) = alive.iter().copied().min_by_key(|index| key(*index)) else { return };
    let lowest = key(best);
    alive.retain(|index| {
        let keeps = key(*index) == lowest;
        if !keeps {
            lost(*index, step, best);
        }
        keeps
    });
}

/// The neighbouring AS a MED is compared within; `None` is this AS (RFC 4271 §9.1.2.2 c).
fn neighbour(candidate: &Candidate) -> Option<Asn> {
    candidate.facts.neighbour_as()
}

fn med(candidate: &Candidate) -> u32 {
    candidate.facts.med().unwrap_or(0)
}

fn local_pref(candidate: &Candidate) -> u32 {
    candidate.facts.local_pref().unwrap_or(DEFAULT_LOCAL_PREF)
}

fn identifier(candidate: &Candidate) -> Ipv4Addr {
    candidate.facts.originator_id().unwrap_or(candidate.router_id)
}

/// Removes each path that has a lower MED beside it from the same neighbour.
fn keep_lowest_med(candidates: &[Candidate], alive: &mut Indices, lost: &mut impl FnMut(usize, Step, usize)) {
    let mut lowest: SmallVec<[(Option<Asn>, usize); 8]> = SmallVec::new();
    for index in alive.iter().copied() {
        let asn = neighbour(&candidates[index]);
        match lowest.iter_mut().find(|(other, _)| *other == asn) {
            Some((_, best)) if med(&candidates[index]) < med(&candidates[*best]) => *best = index,
            Some(_) => {}
            None => lowest.push((asn, index)),
        }
    }
    alive.retain(|index| {
        let candidate = &candidates[*index];
        let rival = lowest.iter().find(|(asn, _)| *asn == neighbour(candidate));
        match rival {
            Some((_, best)) if med(&candidates[*best]) < med(candidate) => {
                lost(*index, Step::Med, *best);
                false
            }
            _ => true,
        }
    });
}

/// Runs the steps; `None` without candidates. `lost` is told of every loser: its index, the step, the index of a
/// candidate it lost to.
fn run(
    candidates: &[Candidate],
    max_paths: usize,
    mut lost: impl FnMut(usize, Step, usize),
) -> Option<Selection> {
    if candidates.len() <= 1 {
        return candidates.first().map(|_| Selection { best: 0, equal: SmallVec::from_slice(&[0]) });
    }
    let c = candidates;
    let lost = &mut lost;
    let mut alive: Indices = (0..c.len()).collect();
    keep_lowest(&mut alive, Step::Local, |i| !c[i].local, lost);
    keep_lowest(&mut alive, Step::LocalPref, |i| Reverse(local_pref(&c[i])), lost);
    keep_lowest(&mut alive, Step::AsPathLength, |i| c[i].facts.as_path_length(), lost);
    keep_lowest(&mut alive, Step::Origin, |i| c[i].facts.origin(), lost);
    keep_lowest_med(c, &mut alive, lost);
    keep_lowest(&mut alive, Step::EbgpOverIbgp, |i| c[i].kind == SessionKind::Ibgp, lost);
    keep_lowest(&mut alive, Step::IgpCost, |i| c[i].igp_cost, lost);

    let mut equal: SmallVec<[usize; 4]> = alive.iter().copied().collect();
    equal.sort_by_key(|i| (identifier(&c[*i]), c[*i].facts.cluster_list_length(), c[*i].address, c[*i].peer));
    let mut next_hops: SmallVec<[NextHopId; 4]> = SmallVec::new();
    equal.retain(|i| {
        let next_hop = c[*i].next_hop;
        let counted = next_hops.contains(&next_hop);
        if !counted && next_hops.len() < max_paths.max(1) {
            next_hops.push(next_hop);
            return true;
        }
        counted
    });

    keep_lowest(&mut alive, Step::RouterId, |i| identifier(&c[i]), lost);
    keep_lowest(&mut alive, Step::ClusterListLength, |i| c[i].facts.cluster_list_length(), lost);
    keep_lowest(&mut alive, Step::PeerAddress, |i| c[i].address, lost);
    keep_lowest(&mut alive, Step::PeerNumber, |i| c[i].peer, lost);
    let best = *equal.first()?;
    Some(Selection { best, equal })
}

/// The best path and those equal to it; `None` without candidates.
pub(crate) fn select(candidates: &[Candidate], max_paths: usize) -> Option<Selection> {
    run(candidates, max_paths, |_, _, _| {})
}

/// The same with the fate of every candidate.
pub(crate) fn explain(candidates: &[Candidate], max_paths: usize) -> Option<(Selection, Vec<Fate>)> {
    let mut fates = vec![Fate::Best(None); candidates.len()];
    let mut last = None;
    let selection = run(candidates, max_paths, |index, step, to| {
        fates[index] = Fate::Lost(step, to);
        last = last.max(Some(step));
    })?;
    fates[selection.best] = Fate::Best(last);
    Some((selection, fates))
}

/// Why the candidate of this index won or lost, in words.
pub(crate) fn reason(candidates: &[Candidate], fates: &[Fate], index: usize) -> String {
    match fates[index] {
        Fate::Best(None) => "only eligible path".to_owned(),
        Fate::Best(Some(step)) => format!("best: {}", won_by(step)),
        Fate::Lost(step, to) => lost_by(step, &candidates[index], &candidates[to]),
    }
}

fn won_by(step: Step) -> &'static str {
    match step {
        Step::Local => "own prefix",
        Step::LocalPref => "highest local preference",
        Step::AsPathLength => "shortest AS path",
        Step::Origin => "lowest origin",
        Step::Med => "lowest MED",
        Step::EbgpOverIbgp => "eBGP over iBGP",
        Step::IgpCost => "nearest next hop",
        Step::RouterId => "lowest router ID",
        Step::ClusterListLength => "shortest cluster list",
        Step::PeerAddress => "lowest peer address",
        Step::PeerNumber => "lowest peer number",
    }
}

fn lost_by(step: Step, loser: &Candidate, winner: &Candidate) -> String {
    let mut text = String::new();
    let (l, w) = (loser, winner);
    // Writing to a String cannot fail.
    let _ = match step {
        Step::Local => write!(text, "own prefix wins"),
        Step::LocalPref => {
            write!(text, "local preference lower ({} < {})", local_pref(l), local_pref(w))
        }
        Step::AsPathLength => {
            write!(text, "AS path longer ({} > {})", l.facts.as_path_length(), w.facts.as_path_length())
        }
        Step::Origin => write!(text, "origin higher ({} > {})", l.facts.origin(), w.facts.origin()),
        Step::Med => write!(text, "MED higher ({} > {}", med(l), med(w)).and_then(|()| match neighbour(l) {
            Some(asn) => write!(text, ", both from AS {asn})"),
            None => write!(text, ", both from this AS)"),
        }),
        Step::EbgpOverIbgp => write!(text, "iBGP, where an eBGP path wins"),
        Step::IgpCost => write!(text, "next hop farther (cost {} > {})", l.igp_cost, w.igp_cost),
        Step::RouterId => write!(text, "router ID higher ({} > {})", identifier(l), identifier(w)),
        Step::ClusterListLength => write!(
            text,
            "cluster list longer ({} > {})",
            l.facts.cluster_list_length(),
            w.facts.cluster_list_length()
        ),
        Step::PeerAddress => write!(text, "peer address higher ({} > {})", l.address, w.address),
        Step::PeerNumber => write!(text, "peer number higher ({} > {})", l.peer.0, w.peer.0),
    };
    text
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
