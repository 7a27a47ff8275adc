//! Address families: the two this speaker routes, sets of them, and the raw AFI/SAFI pairs peers may name. Pure.
//! RFC 4760, RFC 1700 (AFI numbers).

use std::fmt;
use std::str::FromStr;

/// An address family this speaker routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

impl Family {
    /// How many families there are: the length of an array indexed by [`Family::index`].
    pub const COUNT: usize = 2;

    /// All families, in index order.
    pub const fn all() -> [Family; Family::COUNT] {
        [Family::Ipv4Unicast, Family::Ipv6Unicast]
    }

    /// A dense index for arrays by family.
    pub const fn index(self) -> usize {
        match self {
            Family::Ipv4Unicast => 0,
            Family::Ipv6Unicast => 1,
        }
    }

    /// The pair that names this family on the wire.
    pub const fn afi_safi(self) -> AfiSafi {
        match self {
            Family::Ipv4Unicast => AfiSafi { afi: 1, safi: 1 },
            Family::Ipv6Unicast => AfiSafi { afi: 2, safi: 1 },
        }
    }

    /// The longest prefix of the family, in bits.
    pub const fn max_prefix_len(self) -> u8 {
        match self {
            Family::Ipv4Unicast => 32,
            Family::Ipv6Unicast => 128,
        }
    }

    /// The short name used in documents and JSON: `ipv4` or `ipv6`.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Ipv4Unicast => "ipv4",
            Family::Ipv6Unicast => "ipv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no address family.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address family: {0:?} (ipv4 or ipv6)")]
pub struct ParseFamilyError(String);

impl FromStr for Family {
    type Err = ParseFamilyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Family::all().into_iter().find(|f| f.name() == text).ok_or_else(|| ParseFamilyError(text.to_owned()))
    }
}

/// An AFI/SAFI pair as it stands on the wire, routed by this speaker or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl AfiSafi {
    /// The family, if this speaker routes it.
    pub fn family(self) -> Option<Family> {
        Family::all().into_iter().find(|f| f.afi_safi() == self)
    }
}

impl From<Family> for AfiSafi {
    fn from(family: Family) -> Self {
        family.afi_safi()
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family() {
            Some(family) => family.fmt(f),
            None => write!(f, "afi {} safi {}", self.afi, self.safi),
        }
    }
}

/// A set of families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FamilySet(u8);

impl FamilySet {
    /// No family.
    pub const EMPTY: FamilySet = FamilySet(0);
    /// Every family.
    pub const ALL: FamilySet = FamilySet((1 << Family::COUNT) - 1);

    /// The set of one family.
    pub const fn only(family: Family) -> FamilySet {
        FamilySet(1 << family.index())
    }

    /// Whether the family is in the set.
    pub const fn contains(self, family: Family) -> bool {
        self.0 & 1 << family.index() != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Adds a family; true if it was not there.
    pub fn insert(&mut self, family: Family) -> bool {
        let new = !self.contains(family);
        self.0 |= 1 << family.index();
        new
    }

    /// Takes a family out; true if it was there.
    pub fn remove(&mut self, family: Family) -> bool {
        let was = self.contains(family);
        self.0 &= !(1 << family.index());
        was
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: FamilySet) -> FamilySet {
        FamilySet(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub const fn union(self, other: FamilySet) -> FamilySet {
        FamilySet(self.0 | other.0)
    }

    /// What is in this one but not in the other.
    #[must_use]
    pub const fn difference(self, other: FamilySet) -> FamilySet {
        FamilySet(self.0 & !other.0)
    }

    /// The members, in index order.
    pub fn iter(self) -> impl Iterator<Item = Family> + Clone {
        Family::all().into_iter().filter(move |f| self.contains(*f))
    }
}

impl FromIterator<Family> for FamilySet {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = FamilySet::EMPTY;
        for family in families {
            set.insert(family);
        }
        set
    }
}

impl From<Family> for FamilySet {
    fn from(family: Family) -> Self {
        FamilySet::only(family)
    }
}

impl fmt::Display for FamilySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.iter().map(Family::name);
        f.write_str(names.next().unwrap_or("none"))?;
        names.try_for_each(|name| write!(f, ",{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let mut set = FamilySet::only(Family::Ipv6Unicast);
        assert!(!set.contains(Family::Ipv4Unicast));
        assert!(set.insert(Family::Ipv4Unicast));
        assert!(!set.insert(Family::Ipv4Unicast));
        assert_eq!(set, FamilySet::ALL);
        assert_eq!(set.to_string(), "ipv4,ipv6");
        assert!(set.remove(Family::Ipv4Unicast));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Family::Ipv6Unicast]);
        assert_eq!(FamilySet::ALL.difference(set), FamilySet::only(Family::Ipv4Unicast));
        assert_eq!(FamilySet::EMPTY.to_string(), "none");
    }

    #[test]
    fn wire_pairs() {
        for (index, family) in Family::all().into_iter().enumerate() {
            assert_eq!(family.index(), index);
            assert_eq!(family.afi_safi().family(), Some(family));
            assert_eq!(family.name().parse::<Family>().unwrap(), family);
        }
        assert_eq!(AfiSafi { afi: 1, safi: 128 }.family(), None);
        assert_eq!(AfiSafi { afi: 25, safi: 70 }.to_string(), "afi 25 safi 70");
    }
}
