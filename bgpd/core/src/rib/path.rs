//! One path of a prefix, in as few bytes as it takes: a table holds millions.
//!
//! Owner: the table. Pure.

use thin_vec::ThinVec;

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
    /// It takes part in the decision as far as its next hop is reachable.
    Accepted,
    /// Kept to be shown, nothing else.
    Refused,
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

/// A path.
#[derive(Clone, Debug)]
pub(crate) struct Path {
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

/// The paths of a prefix, in order of arrival. One path, the usual case, needs no allocation of its own; several grow by
/// five eighths of what they are.
pub(crate) enum Paths {
    None,
    One(Path),
    Many(ThinVec<Path>),
}

impl Paths {
    pub(crate) fn as_slice(&self) -> &[Path] {
        match self {
            Paths::None => &[],
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Paths::None => &mut [],
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(paths) => paths,
        }
    }

    pub(crate) fn push(&mut self, path: Path) {
        if let Paths::Many(paths) = self {
            if paths.len() == paths.capacity() {
                paths.reserve_exact(paths.len() * 5 / 8 + 1);
            }
            paths.push(path);
            return;
        }
        *self = match std::mem::replace(self, Paths::None) {
            Paths::One(first) => {
                let mut paths = ThinVec::with_capacity(2);
                paths.extend([first, path]);
                Paths::Many(paths)
            }
            Paths::None | Paths::Many(_) => Paths::One(path),
        };
    }

    pub(crate) fn of(&self, peer: PeerId) -> Option<&Path> {
        self.as_slice().iter().find(|path| path.peer == peer)
    }

    pub(crate) fn of_mut(&mut self, peer: PeerId) -> Option<&mut Path> {
        self.as_mut_slice().iter_mut().find(|path| path.peer == peer)
    }

    pub(crate) fn remove(&mut self, peer: PeerId) -> Option<Path> {
        let at = self.as_slice().iter().position(|path| path.peer == peer)?;
        if let Paths::Many(paths) = self
            && paths.len() > 2
        {
            return Some(paths.remove(at));
        }
        match std::mem::replace(self, Paths::None) {
            Paths::None => None,
            Paths::One(path) => Some(path),
            Paths::Many(mut paths) => {
                let path = paths.remove(at);
                *self = paths.pop().map_or(Paths::None, Paths::One);
                Some(path)
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Paths::None)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use causeway_bgp_wire::{Origin, PathAttributes};

    use super::*;

    #[test]
    fn a_path_takes_24_bytes_and_so_do_the_paths_of_a_prefix() {
        assert_eq!(size_of::<Path>(), 24);
        assert_eq!(size_of::<Paths>(), 24);
    }

    #[test]
    fn paths_come_and_go() {
        let attrs = AttrSet::single(&PathAttributes::new(Origin::Igp, Ipv4Addr::LOCALHOST.into()));
        let path = |peer| Path {
            peer: PeerId(peer),
            since: 0,
            attrs: attrs.clone(),
            next_hop: NextHopId::NONE,
            rule: RuleId(0),
            import: Import::Accepted,
            epoch: 0,
        };
        let peers = |paths: &Paths| paths.as_slice().iter().map(|path| path.peer.0).collect::<Vec<_>>();
        let mut paths = Paths::None;
        assert!(paths.remove(PeerId(1)).is_none());
        for peer in 1..=3 {
            paths.push(path(peer));
        }
        assert_eq!(peers(&paths), [1, 2, 3]);
        assert_eq!(paths.remove(PeerId(2)).map(|path| path.peer), Some(PeerId(2)));
        assert!(paths.remove(PeerId(2)).is_none());
        assert_eq!(peers(&paths), [1, 3]);
        assert!(paths.remove(PeerId(1)).is_some());
        assert!(matches!(paths, Paths::One(_)));
        assert!(paths.of(PeerId(3)).is_some() && paths.of(PeerId(1)).is_none());
        assert!(paths.remove(PeerId(3)).is_some());
        assert!(paths.is_empty());
    }
}
