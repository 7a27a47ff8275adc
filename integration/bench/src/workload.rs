//! What is fed and what must come out of it, as arithmetic. Pure.
//!
//! Each feeder has sets of path attributes, each with some prefixes. The last AS number of a path is its tag: it tells which feeder's
//! which set this is, so that what arrives can be judged by one number at first and by all attributes later.

use std::net::Ipv4Addr;

use crate::addresses::{self, Kind, Peer};
use crate::wire::{self, Attributes};

/// The tag of the first set of the first feeder; above all other AS numbers used.
pub const FIRST_TAG: u32 = 1_000_000;

/// LOCAL_PREF of what iBGP feeders send.
pub const LOCAL_PREF: u32 = 100;

/// What a table must hold for one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// Tag of the best path; 0: there must be none.
    pub tag: u32,
    /// Which peer the best path comes from: it must not get it back.
    pub source: u32,
}

/// Peers, what the first of them feed, and which receive.
#[derive(Debug, Clone)]
pub struct Workload {
    /// All peers; the feeders first.
    pub peers: Vec<Peer>,
    /// How many feed.
    pub feeders: usize,
    /// Sets of attributes of each feeder.
    pub sets: usize,
    /// Prefixes a set has.
    pub per_set: usize,
    /// All feeders announce the same prefixes, by paths of different lengths.
    pub shared: bool,
    /// Each feeder ends with one more prefix of its own.
    pub sentinel: bool,
    /// Peers that must receive nothing (iBGP feeders that are no clients) have a false here.
    pub feeders_receive: bool,
}

impl Workload {
    /// Prefixes without the sentinels.
    #[must_use]
    pub fn regular(&self) -> usize {
        self.sets * self.per_set * if self.shared { 1 } else { self.feeders }
    }

    /// All prefixes there are.
    #[must_use]
    pub fn prefixes(&self) -> usize {
        self.regular() + if self.sentinel { self.feeders } else { 0 }
    }

    /// Paths the daemon is given.
    #[must_use]
    pub fn paths(&self) -> usize {
        self.feeders * (self.sets * self.per_set + usize::from(self.sentinel))
    }

    fn tag(&self, feeder: usize, set: usize) -> u32 {
        FIRST_TAG + (feeder * (self.sets + 1) + set) as u32
    }

    /// Feeder and set of a tag.
    #[must_use]
    pub fn of_tag(&self, tag: u32) -> Option<(usize, usize)> {
        let at = tag.checked_sub(FIRST_TAG)? as usize;
        let (feeder, set) = (at / (self.sets + 1), at % (self.sets + 1));
        (feeder < self.feeders && (set < self.sets || self.sentinel)).then_some((feeder, set))
    }

    /// The feeder with the shortest path for this set of shared prefixes.
    fn best(&self, set: usize) -> usize {
        (scramble(set as u64 + 1) % self.feeders as u64) as usize
    }

    /// The attributes of a feeder's set.
    #[must_use]
    pub fn attributes(&self, feeder: usize, set: usize) -> Attributes {
        let peer = &self.peers[feeder];
        let tag = self.tag(feeder, set);
        let fill = match self.shared && set < self.sets {
            true => 1 + (feeder + self.feeders - self.best(set)) % self.feeders,
            false => 2,
        };
        let own = peer.is_external().then_some(peer.asn);
        let between =
            (0..fill).map(|at| 1000 + (scramble((u64::from(tag) << 8) + at as u64) % 20_000) as u32);
        Attributes {
            origin: 0,
            as_path: own.into_iter().chain(between).chain([tag]).collect(),
            next_hop: peer.address,
            med: None,
            local_pref: (!peer.is_external()).then_some(LOCAL_PREF),
            originator: None,
            clusters: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Numbers of the prefixes of a feeder's set.
    fn prefixes_of(&self, feeder: usize, set: usize) -> std::ops::Range<usize> {
        if set == self.sets {
            return self.regular() + feeder..self.regular() + feeder + 1;
        }
        let first = if self.shared { set } else { feeder * self.sets + set } * self.per_set;
        first..first + self.per_set
    }

    /// All a feeder sends, as bytes: one UPDATE a set.
    #[must_use]
    pub fn feed(&self, feeder: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        for set in 0..self.sets + usize::from(self.sentinel) {
            let attributes = wire::attributes(&self.attributes(feeder, set));
            let prefixes = self.prefixes_of(feeder, set).map(addresses::network);
            octets.extend_from_slice(&wire::announce(&attributes, prefixes));
        }
        octets
    }

    /// What every table must hold in the end, by the number of the prefix.
    #[must_use]
    pub fn wanted(&self) -> Vec<Want> {
        let mut all = vec![Want::default(); self.prefixes()];
        for feeder in 0..self.feeders {
            for set in 0..self.sets + usize::from(self.sentinel) {
                if self.shared && set < self.sets && self.best(set) != feeder {
                    continue;
                }
                let want = Want { tag: self.tag(feeder, set), source: feeder as u32 };
                all[self.prefixes_of(feeder, set)].fill(want);
            }
        }
        all
    }

    /// Whether a peer must receive.
    #[must_use]
    pub fn receives(&self, peer: usize) -> bool {
        peer >= self.feeders || self.feeders_receive
    }
}

/// What the attributes of a path must be at a receiver, given what its source sent (RFC 4271 §5.1, RFC 4456 §8).
///
/// # Errors
/// What is wrong.
pub fn judge(sent: &Attributes, source: &Peer, to: Kind, got: &Attributes) -> Result<(), String> {
    let outside = to != Kind::Ibgp;
    let path: Vec<u32> =
        outside.then_some(addresses::DAEMON_AS).into_iter().chain(sent.as_path.iter().copied()).collect();
    let must = |good: bool, what: &str| {
        if good { Ok(()) } else { Err(format!("{what}: {got:?}, sent as {sent:?}")) }
    };
    must(got.as_path == path, "AS_PATH")?;
    must(got.origin == sent.origin, "ORIGIN")?;
    // To an external peer of the same subnet the first-hand next hop may stay (RFC 4271 §5.1.3).
    must(got.next_hop == sent.next_hop || outside && got.next_hop == addresses::DAEMON, "NEXT_HOP")?;
    match outside {
        true => must(got.local_pref.is_none(), "LOCAL_PREF")?,
        false => must(got.local_pref == Some(sent.local_pref.unwrap_or(LOCAL_PREF)), "LOCAL_PREF")?,
    }
    must(got.med == if outside { None } else { sent.med }, "MED")?;
    let reflected = !outside && !source.is_external();
    let originator: Option<Ipv4Addr> = reflected.then_some(source.address);
    must(got.originator == originator, "ORIGINATOR_ID")?;
    must(got.clusters.len() == usize::from(reflected), "CLUSTER_LIST")?;
    must(got.others.is_empty(), "attributes that nobody sent")
}

/// A number that looks like chance and is always the same (the finaliser of splitmix64).
#[must_use]
pub fn scramble(of: u64) -> u64 {
    let mut at = of.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    at = (at ^ (at >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    at = (at ^ (at >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    at ^ (at >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HEADER, Prefixes};

    fn ten(shared: bool, kind: Kind) -> Workload {
        let mut peers: Vec<Peer> = (0..10).map(|number| Peer::new(kind, number)).collect();
        peers.push(Peer::new(Kind::Monitor, 0));
        Workload { peers, feeders: 10, sets: 30, per_set: 10, shared, sentinel: true, feeders_receive: false }
    }

    /// Takes the feeds apart and decides: shortest path wins.
    fn decided(workload: &Workload) -> Vec<Want> {
        let mut best: Vec<(usize, Want)> = vec![(usize::MAX, Want::default()); workload.prefixes()];
        for feeder in 0..workload.feeders {
            let octets = workload.feed(feeder);
            let mut at = 0;
            while let Some((_, length)) = wire::header(&octets[at..]).unwrap() {
                let update = wire::parts(&octets[at + HEADER..at + length]).unwrap();
                let path = wire::decode_attributes(update.attributes).unwrap().as_path;
                for prefix in Prefixes(update.announced) {
                    let (network, length) = prefix.unwrap();
                    let slot = &mut best[addresses::number(network, length).unwrap()];
                    assert_ne!(slot.0, path.len(), "paths of different lengths");
                    if path.len() < slot.0 {
                        *slot = (path.len(), Want { tag: *path.last().unwrap(), source: feeder as u32 });
                    }
                }
                at += length;
            }
        }
        best.into_iter().map(|(_, want)| want).collect()
    }

    #[test]
    fn what_is_wanted_is_what_the_feeds_decide() {
        for (shared, kind) in
            [(true, Kind::Ibgp), (true, Kind::Ebgp), (false, Kind::Ibgp), (false, Kind::Ebgp)]
        {
            let workload = ten(shared, kind);
            assert_eq!(workload.wanted(), decided(&workload));
            let sources: std::collections::BTreeSet<u32> =
                workload.wanted().iter().map(|w| w.source).collect();
            assert_eq!(sources.len(), 10, "every feeder wins somewhere");
        }
    }

    #[test]
    fn a_tag_names_its_set() {
        let workload = ten(true, Kind::Ibgp);
        for (feeder, set) in [(0, 0), (3, 29), (9, 30)] {
            assert_eq!(workload.of_tag(workload.tag(feeder, set)), Some((feeder, set)));
        }
        assert_eq!(workload.of_tag(65000), None);
        assert_eq!(workload.of_tag(FIRST_TAG + 310), None);
    }

    #[test]
    fn reflection_and_export_are_judged() {
        let workload = ten(false, Kind::Ibgp);
        let (sent, source) = (workload.attributes(2, 3), workload.peers[2]);
        let mut reflected = sent.clone();
        assert!(judge(&sent, &source, Kind::Ibgp, &reflected).unwrap_err().contains("ORIGINATOR_ID"));
        reflected.originator = Some(source.address);
        assert!(judge(&sent, &source, Kind::Ibgp, &reflected).unwrap_err().contains("CLUSTER_LIST"));
        reflected.clusters.push(addresses::DAEMON);
        assert_eq!(judge(&sent, &source, Kind::Ibgp, &reflected), Ok(()));
        let mut outside = sent.clone();
        assert!(judge(&sent, &source, Kind::Monitor, &outside).unwrap_err().contains("AS_PATH"));
        outside.as_path.insert(0, addresses::DAEMON_AS);
        assert!(judge(&sent, &source, Kind::Monitor, &outside).unwrap_err().contains("LOCAL_PREF"));
        outside.local_pref = None;
        assert_eq!(judge(&sent, &source, Kind::Monitor, &outside), Ok(()));
        outside.next_hop = Ipv4Addr::new(192, 0, 2, 99);
        assert!(judge(&sent, &source, Kind::Monitor, &outside).unwrap_err().contains("NEXT_HOP"));
    }
}
