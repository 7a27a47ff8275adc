//! One path of a prefix, in as few bytes as it takes: a table holds millions.
//!
//! Owner: the table. Pure.

use std::ops::Deref;
use std::rc::Rc;

use crate::attrs::AttrSet;
use crate::event::PeerId;

/// Stands for this speaker as the source of a path.
pub(crate) const LOCAL: PeerId = PeerId(u32::MAX);
/// Stands for "no path" where a prefix has no best one.
pub(crate) const NOBODY: PeerId = PeerId(u32::MAX - 1);

/// What import made of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Import {
    /// Kept to be shown, nothing else.
    Refused,
    /// It takes part in the decision as far as its next hop is reachable.
    Accepted,
}

impl Import {
    /// Whether it takes part in the decision.
    pub(crate) fn is_accepted(self) -> bool {
        self == Import::Accepted
    }
}

/// Number of a next hop in [`super::next_hop::NextHops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextHopId(pub(crate) u32);

impl NextHopId {
    /// Own and refused paths use no next hop.
    pub(crate) const NONE: NextHopId = NextHopId(u32::MAX);
}

/// Number of a rule's name in [`super::rules::RuleNames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuleId(pub(crate) u16);

/// What a peer said of some prefixes, and what import made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Attributes after import policy; they know those received.
    pub(crate) attrs: AttrSet,
    /// Who sent it, or [`LOCAL`].
    pub(crate) peer: PeerId,
    /// When it came, in seconds since the speaker's start.
    pub(crate) since: u32,
    /// Its next hop.
    pub(crate) next_hop: NextHopId,
    /// What accepted or refused it.
    pub(crate) rule: RuleId,
    /// Whether it was accepted.
    pub(crate) import: Import,
    /// The peer's epoch when it was sent: a path of an earlier epoch is stale.
    pub(crate) epoch: u8,
}

/// A path: a handle to what was announced, which the paths of all prefixes of an announcement share.
#[derive(Clone, Debug)]
pub(crate) struct Path(Rc<Announced>);

impl Deref for Path {
    type Target = Announced;

    fn deref(&self) -> &Announced {
        &self.0
    }
}

/// Makes paths, and equal ones of those that come in a row one.
#[derive(Default)]
pub(crate) struct PathMaker {
    last: Option<Path>,
}

impl PathMaker {
    /// The path of this.
    pub(crate) fn path(&mut self, announced: Announced) -> Path {
        match &self.last {
            Some(last) if **last == announced => last.clone(),
            _ => self.last.insert(Path(Rc::new(announced))).clone(),
        }
    }

    /// Forgets the last one, which may be the last user of its attributes.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}

/// How many paths one node holds: with what else is in it, it fills a block of the usual allocators.
const NODE_PATHS: usize = 9;

/// Some paths of a prefix.
struct Node {
    /// The older ones.
    next: Option<Box<Node>>,
    /// Who may have a path in here or in an older node, a bit for every 64th peer: who has none is mostly told so
    /// without a look at the paths.
    peers: u64,
    /// Filled from the left.
    paths: [Option<Path>; NODE_PATHS],
}

impl Drop for Node {
    /// A prefix may have thousands of paths: not one in the other.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut node) = next {
            next = node.next.take();
        }
    }
}

fn bit(peer: PeerId) -> u64 {
    1 << (peer.0 % 64)
}

/// The paths of a prefix, the best one first if there is one, the others in no order. One path, the usual case, needs no
/// allocation of its own; more of them are added to without moving any.
#[derive(Default)]
pub(crate) struct Paths {
    first: Option<Path>,
    /// Only the first node is not full.
    more: Option<Box<Node>>,
    /// The first path won the last decision.
    decided: bool,
}

impl Paths {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Path> {
        let nodes = std::iter::successors(self.more.as_deref(), |node| node.next.as_deref());
        self.first.iter().chain(nodes.flat_map(|node| node.paths.iter().flatten()))
    }

    /// Puts a path of a peer that has none.
    pub(crate) fn push(&mut self, path: Path) {
        if self.first.is_none() {
            self.first = Some(path);
            return;
        }
        let peer = bit(path.peer);
        if let Some(node) = &mut self.more
            && let Some(free) = node.paths.iter_mut().find(|place| place.is_none())
        {
            *free = Some(path);
            node.peers |= peer;
            return;
        }
        let next = self.more.take();
        let peers = peer | next.as_ref().map_or(0, |node| node.peers);
        let mut paths = [const { None }; NODE_PATHS];
        paths[0] = Some(path);
        self.more = Some(Box::new(Node { next, peers, paths }));
    }

    /// Whether the peer has a path.
    pub(crate) fn has(&self, peer: PeerId) -> bool {
        self.of(peer).is_some()
    }

    pub(crate) fn of(&self, peer: PeerId) -> Option<&Path> {
        if let Some(first) = self.first.as_ref().filter(|path| path.peer == peer) {
            return Some(first);
        }
        self.more.as_ref().filter(|node| node.peers & bit(peer) != 0)?;
        self.iter().find(|path| path.peer == peer)
    }

    pub(crate) fn of_mut(&mut self, peer: PeerId) -> Option<&mut Path> {
        if self.first.as_ref().is_some_and(|path| path.peer == peer) {
            return self.first.as_mut();
        }
        let mut node = self.more.as_deref_mut().filter(|node| node.peers & bit(peer) != 0);
        while let Some(Node { next, paths, .. }) = node {
            if let Some(path) = paths.iter_mut().flatten().find(|path| path.peer == peer) {
                return Some(path);
            }
            node = next.as_deref_mut();
        }
        None
    }

    /// Takes out the path that was added last.
    fn pop(&mut self) -> Option<Path> {
        let Some(node) = &mut self.more else { return self.first.take() };
        let path = node.paths.iter_mut().rev().find_map(Option::take);
        if node.paths[0].is_none() {
            self.more = node.next.take();
        }
        path
    }

    pub(crate) fn remove(&mut self, peer: PeerId) -> Option<Path> {
        if !self.has(peer) {
            return None;
        }
        self.decided &= self.first.as_ref().is_some_and(|first| first.peer != peer);
        let last = self.pop()?;
        if last.peer == peer {
            return Some(last);
        }
        let place = self.of_mut(peer)?;
        let added = last.peer;
        let path = std::mem::replace(place, last);
        // Where the last one went, older nodes did not know its peer.
        let mut node = self.more.as_deref_mut();
        while let Some(Node { next, peers, .. }) = node {
            *peers |= bit(added);
            node = next.as_deref_mut();
        }
        Some(path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The path that won the last decision.
    pub(crate) fn best(&self) -> Option<&Path> {
        self.first.as_ref().filter(|_| self.decided)
    }

    /// Whose path won the last decision, or [`NOBODY`].
    pub(crate) fn best_peer(&self) -> PeerId {
        self.best().map_or(NOBODY, |path| path.peer)
    }

    /// Puts the path first that has won now; [`NOBODY`]: none has.
    pub(crate) fn set_best(&mut self, peer: PeerId) {
        if self.first.as_ref().is_some_and(|first| first.peer != peer)
            && let Some(path) = self.remove(peer)
            && let Some(old) = self.first.replace(path)
        {
            self.push(old);
        }
        self.decided = self.first.as_ref().is_some_and(|first| first.peer == peer);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use causeway_bgp_wire::{Origin, PathAttributes};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_takes_8_bytes_and_the_paths_of_a_prefix_24() {
        assert_eq!((size_of::<Path>(), size_of::<Option<Path>>()), (8, 8));
        assert_eq!((size_of::<Paths>(), size_of::<Option<Paths>>()), (24, 24));
        assert_eq!((size_of::<Node>(), size_of::<Announced>()), (88, 24));
    }

    fn path(peer: u32) -> Path {
        Path(Rc::new(Announced {
            attrs: AttrSet::single(&PathAttributes::new(Origin::Igp, Ipv4Addr::LOCALHOST.into())),
            peer: PeerId(peer),
            since: 0,
            next_hop: NextHopId::NONE,
            rule: RuleId(0),
            import: Import::Accepted,
            epoch: 0,
        }))
    }

    #[test]
    fn equal_paths_in_a_row_are_one() {
        let mut maker = PathMaker::default();
        let announced = Announced::clone(&path(1));
        let one = maker.path(announced.clone());
        assert!(Rc::ptr_eq(&one.0, &maker.path(announced.clone()).0));
        let other = maker.path(Announced { since: 1, ..announced.clone() });
        assert!(!Rc::ptr_eq(&one.0, &other.0));
        assert!(!Rc::ptr_eq(&one.0, &maker.path(announced).0));
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(steps in proptest::collection::vec((0u8..4, 0u32..70), 0..200)) {
            let (mut paths, mut plain, mut best) = (Paths::default(), BTreeSet::new(), NOBODY);
            for (step, number) in steps {
                let peer = PeerId(number);
                match step {
                    0 | 1 if !plain.contains(&peer) => {
                        paths.push(path(number));
                        plain.insert(peer);
                    }
                    2 => {
                        prop_assert_eq!(paths.remove(peer).map(|path| path.peer), plain.take(&peer));
                        if best == peer {
                            best = NOBODY;
                        }
                    }
                    _ => {
                        best = if plain.contains(&peer) { peer } else { NOBODY };
                        paths.set_best(peer);
                    }
                }
                prop_assert_eq!(paths.best_peer(), best);
                prop_assert_eq!(paths.is_empty(), plain.is_empty());
                prop_assert_eq!(paths.iter().map(|path| path.peer).collect::<BTreeSet<_>>(), plain.clone());
                prop_assert_eq!(paths.iter().count(), plain.len());
                prop_assert!((0..70).all(|n| paths.has(PeerId(n)) == plain.contains(&PeerId(n))));
                prop_assert!((0..70).all(|n| paths.of_mut(PeerId(n)).is_some() == plain.contains(&PeerId(n))));
            }
        }
    }

    #[test]
    fn a_very_long_list_is_dropped() {
        let mut paths = Paths::default();
        (0..300_000).for_each(|number| paths.push(path(number)));
        drop(paths);
    }
}
