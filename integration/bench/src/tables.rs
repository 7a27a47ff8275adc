//! The table of each simulated peer, and whether all are as they must be. Pure.
//!
//! While a run is timed, a table is judged by counting: each change of a prefix makes it right or wrong. Afterwards everything is compared,
//! attribute by attribute.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::addresses::{self, Peer};
use crate::interned::Interned;
use crate::wire::{self, Attributes, Malformed, Prefixes};
use crate::workload::{Want, judge};

/// What one peer has received.
#[derive(Default)]
struct Table {
    /// By the number of the prefix: number of its attributes, or 0.
    held: Vec<u32>,
    present: usize,
    right: usize,
    wanted: usize,
    receives: bool,
    complete: bool,
    ignored: bool,
}

/// How completeness is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Each table has exactly what it must have.
    Tables,
    /// Each receiver got so many announcements: for a relay, which sends every path there is.
    Announcements,
}

/// Counters of what arrived.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Announced prefixes.
    pub announced: u64,
    /// Withdrawn prefixes.
    pub withdrawn: u64,
    /// Announcements of what was there already, alike.
    pub repeated: u64,
    /// UPDATE messages.
    pub updates: u64,
    /// Paths that came back to the peer they are from, where that is let pass.
    pub returned: u64,
}

/// The tables of all peers.
pub struct Tables {
    judgement: Judgement,
    /// A path that comes back to the peer it is from is wrong. Where not, it is counted and dropped, as loop detection does; and a
    /// MED of zero may stand where none was sent.
    pub strict: bool,
    wanted: Vec<Want>,
    tables: Vec<Table>,
    announced: Vec<usize>,
    interned: Interned,
    incomplete: usize,
    /// When the last table became complete; `None` while one is not.
    completed: Option<Instant>,
    /// Counters.
    pub arrived: Arrived,
    alien: Option<String>,
    /// Who is told of each announcement, besides.
    pub latencies: Option<crate::latency::Latencies>,
}

impl Tables {
    /// Empty tables of so many peers, of which some must receive.
    #[must_use]
    pub fn new(judgement: Judgement, receives: impl Iterator<Item = bool>, wanted: Vec<Want>) -> Self {
        let tables: Vec<Table> = receives.map(|receives| Table { receives, ..Table::default() }).collect();
        let mut all = Tables {
            judgement,
            strict: true,
            wanted: Vec::new(),
            announced: vec![0; tables.len()],
            tables,
            interned: Interned::default(),
            incomplete: 0,
            completed: None,
            arrived: Arrived::default(),
            alien: None,
            latencies: None,
        };
        all.expect(wanted);
        all
    }

    /// From now on this is what must be there.
    pub fn expect(&mut self, wanted: Vec<Want>) {
        self.wanted = wanted;
        let all = self.wanted.iter().filter(|want| want.tag != 0).count();
        let mut own = vec![0; self.tables.len()];
        for want in self.wanted.iter().filter(|want| want.tag != 0) {
            own[want.source as usize] += 1;
        }
        self.completed = None;
        self.incomplete = 0;
        for (peer, table) in self.tables.iter_mut().enumerate() {
            table.held.resize(self.wanted.len(), 0);
            table.wanted = if table.receives { all - own[peer] } else { 0 };
            if self.judgement == Judgement::Announcements && table.receives {
                table.wanted = usize::MAX;
            }
            table.right = 0;
            for (prefix, held) in table.held.iter().enumerate() {
                let want = self.wanted[prefix];
                table.right += usize::from(*held != 0 && is_right(want, peer, self.interned.tag(*held)));
            }
            table.complete = table.ignored || table.right == table.wanted && table.present == table.wanted;
            self.incomplete += usize::from(!table.complete);
        }
        if self.incomplete == 0 {
            self.completed = Some(Instant::now());
        }
    }

    /// Where announcements are counted: each receiver must get so many.
    pub fn expect_announcements(&mut self, of: impl Fn(usize) -> usize) {
        if self.judgement != Judgement::Announcements {
            return;
        }
        for (peer, table) in self.tables.iter_mut().enumerate().filter(|(_, table)| table.receives) {
            table.wanted = of(peer);
        }
    }

    /// An UPDATE arrived at a peer.
    ///
    /// # Errors
    /// Where it is malformed.
    #[inline]
    pub fn update(&mut self, peer: usize, body: &[u8], now: Instant) -> Result<(), Malformed> {
        let update = wire::parts(body)?;
        self.arrived.updates += 1;
        for prefix in Prefixes(update.withdrawn) {
            let (network, length) = prefix?;
            if let Some(prefix) = self.known(peer, network, length) {
                self.arrived.withdrawn += 1;
                self.forget(peer, prefix);
            }
        }
        if !update.announced.is_empty() {
            let (number, tag) = self.interned.intern(update.attributes);
            for prefix in Prefixes(update.announced) {
                let (network, length) = prefix?;
                if let Some(prefix) = self.known(peer, network, length) {
                    self.announce(peer, prefix, number, tag, now);
                }
            }
        }
        self.settle(peer, now);
        Ok(())
    }

    #[inline]
    fn known(&mut self, peer: usize, network: u32, length: u8) -> Option<usize> {
        let known = addresses::number(network, length).filter(|number| *number < self.wanted.len());
        if known.is_none() {
            let prefix = std::net::Ipv4Addr::from(network);
            self.alien.get_or_insert_with(|| format!("peer {peer} got {prefix}/{length}, which nobody sent"));
        }
        known
    }

    #[inline]
    fn announce(&mut self, peer: usize, prefix: usize, number: u32, tag: u32, now: Instant) {
        self.arrived.announced += 1;
        self.announced[peer] += 1;
        let want = self.wanted[prefix];
        if !self.strict && want.source as usize == peer && want.tag == tag {
            // What was there is gone, as by a withdrawal.
            self.arrived.returned += 1;
            return self.forget(peer, prefix);
        }
        let table = &mut self.tables[peer];
        let old = std::mem::replace(&mut table.held[prefix], number);
        if let Some(latencies) = &mut self.latencies {
            latencies.seen(peer, prefix, tag, now);
        }
        if old == number {
            self.arrived.repeated += 1;
            return;
        }
        if old == 0 {
            table.present += 1;
        } else if is_right(want, peer, self.interned.tag(old)) {
            table.right -= 1;
        }
        table.right += usize::from(is_right(want, peer, tag));
    }

    fn forget(&mut self, peer: usize, prefix: usize) {
        let table = &mut self.tables[peer];
        let old = std::mem::replace(&mut table.held[prefix], 0);
        if old != 0 {
            table.present -= 1;
            table.right -= usize::from(is_right(self.wanted[prefix], peer, self.interned.tag(old)));
        }
    }

    #[inline]
    fn settle(&mut self, peer: usize, now: Instant) {
        let table = &mut self.tables[peer];
        let complete = match self.judgement {
            Judgement::Tables => table.right == table.wanted && table.present == table.wanted,
            Judgement::Announcements => self.announced[peer] == table.wanted,
        };
        if complete == table.complete || table.ignored {
            return;
        }
        table.complete = complete;
        if complete {
            self.incomplete -= 1;
            if self.incomplete == 0 {
                self.completed = Some(now);
            }
        } else {
            self.incomplete += 1;
            self.completed = None;
        }
    }

    /// The session of a peer is gone, and with it all it held.
    pub fn clear(&mut self, peer: usize) {
        let table = &mut self.tables[peer];
        table.held.fill(0);
        (table.present, table.right) = (0, 0);
        self.announced[peer] = 0;
        self.settle(peer, Instant::now());
    }

    /// A peer counts no more, whatever it holds: its session is meant to break, or to lag. Or it counts again.
    pub fn ignore(&mut self, peer: usize, ignored: bool) {
        self.tables[peer].ignored = ignored;
        let wanted = std::mem::take(&mut self.wanted);
        self.expect(wanted);
    }

    /// When the last table became complete; `None` while one is not.
    #[must_use]
    pub fn completed(&self) -> Option<Instant> {
        self.completed
    }

    /// How far it is: for messages.
    #[must_use]
    pub fn progress(&self) -> String {
        let right: usize = self.tables.iter().map(|table| table.right).sum();
        let wanted: usize = self.tables.iter().map(|table| table.wanted.min(1 << 40)).sum();
        format!(
            "{} of {} tables incomplete, {right} of {wanted} entries right, {} announcements arrived",
            self.incomplete,
            self.tables.len(),
            self.arrived.announced,
        )
    }

    /// Compares everything: what is missing, what is extra, and whether each path's attributes are what `sent` and the rules of
    /// BGP make of them. `sent` gives, by tag, the number of the source and what it sent.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn verify(
        &self,
        peers: &[Peer],
        sent: impl Fn(u32) -> Option<(usize, Attributes)>,
        verbatim: bool,
    ) -> Result<(), String> {
        if let Some(alien) = &self.alien {
            return Err(alien.clone());
        }
        let mut used: BTreeMap<(bool, u32), usize> = BTreeMap::new();
        let mut seen = [
            vec![false; self.interned.encodings().len() + 1],
            vec![false; self.interned.encodings().len() + 1],
        ];
        for (peer, table) in self.tables.iter().enumerate().filter(|(_, table)| !table.ignored) {
            let outside = peers[peer].is_external();
            for (prefix, held) in table.held.iter().enumerate() {
                let fault = match self.judgement {
                    Judgement::Tables => self.fault(peer, prefix, *held, table.receives),
                    Judgement::Announcements => None,
                };
                if let Some(fault) = fault {
                    let name = std::net::Ipv4Addr::from(addresses::network(prefix));
                    return Err(format!("peer {peer} ({}): {fault} {name}/24", peers[peer].address));
                }
                if *held != 0 && !seen[usize::from(outside)][*held as usize] {
                    seen[usize::from(outside)][*held as usize] = true;
                    used.insert((outside, *held), peer);
                }
            }
        }
        let encodings = self.interned.encodings();
        for ((_, number), peer) in used {
            let mut got = wire::decode_attributes(encodings[number as usize - 1])
                .map_err(|error| error.0.to_owned())?;
            if !self.strict && got.med == Some(0) {
                got.med = None;
            }
            let tag = self.interned.tag(number);
            let (source, sent) =
                sent(tag).ok_or_else(|| format!("peer {peer}: a path that nobody sent: {got:?}"))?;
            if verbatim {
                if got != sent {
                    return Err(format!("peer {peer}: {got:?}, sent as {sent:?}"));
                }
                continue;
            }
            judge(&sent, &peers[source], peers[peer].kind, &got)
                .map_err(|error| format!("peer {peer}: {error}"))?;
        }
        Ok(())
    }

    fn fault(&self, peer: usize, prefix: usize, held: u32, receives: bool) -> Option<String> {
        let want = self.wanted[prefix];
        let due = receives && want.tag != 0 && want.source as usize != peer;
        let tag = self.interned.tag(held);
        match (due, held != 0) {
            (true, false) => Some("misses".to_owned()),
            (false, true) if receives && want.source as usize == peer && want.tag == tag => {
                Some("got back what it sent itself,".to_owned())
            }
            (false, true) => Some("has, and should not have,".to_owned()),
            (true, true) if tag != want.tag => {
                Some(format!("has the path {tag} instead of {} for", want.tag))
            }
            _ => None,
        }
    }
}

#[inline]
fn is_right(want: Want, peer: usize, tag: u32) -> bool {
    tag == want.tag && want.source as usize != peer
}
