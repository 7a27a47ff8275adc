//! UPDATEs on their way from a session to the speaker, in as little memory as it takes.
//!
//! Pure. A session decodes and validates, a speaker takes in, and in between thousands of messages may wait: what they
//! say is kept in a few arrays, in the order of the wire, attributes packed as the RIB keeps them. Nothing is allocated
//! for a message of its own.

use std::ops::Range;

use causeway_bgp_wire::{Family, Ipv4Prefix, Ipv6Prefix, NlriList, Problem, Update};

use crate::attrs::{Facts, PackedAttributes};

/// Some prefixes of a family, by their places among those of the batch.
#[derive(Clone, Debug)]
struct List {
    family: Family,
    places: Range<u32>,
}

/// What an UPDATE says, a part of it.
#[derive(Debug)]
enum Item {
    Problems(Vec<Problem>),
    Withdrawn(List),
    Announced { facts: Facts, octets: Range<u32>, prefixes: List },
    EndOfRib(Family),
}

/// Prefixes of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefixes<'a> {
    V4(&'a [Ipv4Prefix]),
    V6(&'a [Ipv6Prefix]),
}

/// A part of an UPDATE, as it is taken in.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// Errors that did not end the session.
    Problems(&'a [Problem]),
    /// Prefixes withdrawn.
    Withdrawn(Prefixes<'a>),
    /// Prefixes announced with attributes.
    Announced(PackedAttributes<'a>, Prefixes<'a>),
    /// End-of-RIB.
    EndOfRib(Family),
}

/// UPDATEs of one session in the order they came. Withdrawals of a message stand before its announcements.
#[derive(Debug, Default)]
pub struct Updates {
    count: usize,
    items: Vec<Item>,
    octets: Vec<u8>,
    v4: Vec<Ipv4Prefix>,
    v6: Vec<Ipv6Prefix>,
}

impl From<&Update> for Updates {
    fn from(update: &Update) -> Self {
        let mut updates = Updates::default();
        updates.push(update);
        updates
    }
}

impl Updates {
    /// Adds the next message.
    pub fn push(&mut self, update: &Update) {
        self.count += 1;
        if !update.problems.is_empty() {
            self.items.push(Item::Problems(update.problems.clone()));
        }
        for list in &update.withdrawn {
            let list = self.add(list);
            self.items.push(Item::Withdrawn(list));
        }
        for announcement in &update.announced {
            let first = self.octets.len() as u32;
            let facts = Facts::pack(&announcement.attributes, &mut self.octets);
            let octets = first..self.octets.len() as u32;
            let prefixes = self.add(&announcement.nlri);
            self.items.push(Item::Announced { facts, octets, prefixes });
        }
        self.items.extend(update.end_of_rib.map(Item::EndOfRib));
    }

    fn add(&mut self, list: &NlriList) -> List {
        let (first, end) = match list {
            NlriList::V4(list) => {
                let first = self.v4.len();
                self.v4.extend(list.iter().map(|nlri| nlri.prefix));
                (first, self.v4.len())
            }
            NlriList::V6(list) => {
                let first = self.v6.len();
                self.v6.extend(list.iter().map(|nlri| nlri.prefix));
                (first, self.v6.len())
            }
        };
        List { family: list.family(), places: first as u32..end as u32 }
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What they say.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.items.iter().map(|item| match item {
            Item::Problems(problems) => Part::Problems(problems),
            Item::Withdrawn(list) => Part::Withdrawn(self.prefixes(list)),
            Item::Announced { facts, octets, prefixes } => {
                let octets = &self.octets[octets.start as usize..octets.end as usize];
                Part::Announced(PackedAttributes { facts, octets }, self.prefixes(prefixes))
            }
            Item::EndOfRib(family) => Part::EndOfRib(*family),
        })
    }

    fn prefixes(&self, list: &List) -> Prefixes<'_> {
        let places = list.places.start as usize..list.places.end as usize;
        match list.family {
            Family::Ipv4Unicast => Prefixes::V4(&self.v4[places]),
            Family::Ipv6Unicast => Prefixes::V6(&self.v6[places]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use causeway_bgp_wire::{Announcement, Consequence, Nlri, Origin, PathAttributes, PrefixKey};

    use super::*;

    fn list<P: PrefixKey>(texts: &[&str]) -> Vec<Nlri<P>> {
        texts.iter().map(|text| Nlri::from(text.parse::<P>().unwrap())).collect()
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let attributes = |med| PathAttributes {
            med: Some(med),
            ..PathAttributes::new(Origin::Igp, Ipv4Addr::LOCALHOST.into())
        };
        let announced = |med, nlri| Announcement { attributes: attributes(med), nlri };
        let problem = Problem {
            consequence: Consequence::AttributeDiscard,
            attribute: None,
            reason: "reason".to_owned(),
        };
        let first = Update {
            withdrawn: [
                NlriList::V6(list(&["fd00::/8"])),
                NlriList::V4(list(&["10.0.0.0/8", "10.1.0.0/16"])),
            ]
            .into_iter()
            .collect(),
            announced: [announced(7, NlriList::V4(list(&["10.2.0.0/16"])))].into_iter().collect(),
            problems: vec![problem.clone()],
            ..Update::default()
        };
        let second = Update {
            announced: [
                announced(8, NlriList::V4(list(&["10.3.0.0/16", "10.2.0.0/16"]))),
                announced(9, NlriList::V6(list(&["fd00:1::/32"]))),
            ]
            .into_iter()
            .collect(),
            end_of_rib: Some(Family::Ipv6Unicast),
            ..Update::default()
        };
        let mut updates = Updates::from(&first);
        updates.push(&second);
        assert_eq!(updates.len(), 2);
        let mut parts = Vec::new();
        for part in updates.parts() {
            parts.push(match part {
                Part::Problems(problems) => format!("{problems:?}"),
                Part::Withdrawn(prefixes) => format!("withdrawn {prefixes:?}"),
                Part::Announced(attributes, prefixes) => {
                    format!("{:?} {prefixes:?}", attributes.unpack().med)
                }
                Part::EndOfRib(family) => format!("end {family}"),
            });
        }
        let v4 = |texts: &[&str]| {
            let prefixes: Vec<Ipv4Prefix> = texts.iter().map(|text| text.parse().unwrap()).collect();
            format!("{:?}", Prefixes::V4(&prefixes))
        };
        let v6 = |text: &str| format!("{:?}", Prefixes::V6(&[text.parse().unwrap()]));
        assert_eq!(
            parts,
            [
                format!("{:?}", [problem]),
                format!("withdrawn {}", v6("fd00::/8")),
                format!("withdrawn {}", v4(&["10.0.0.0/8", "10.1.0.0/16"])),
                format!("Some(7) {}", v4(&["10.2.0.0/16"])),
                format!("Some(8) {}", v4(&["10.3.0.0/16", "10.2.0.0/16"])),
                format!("Some(9) {}", v6("fd00:1::/32")),
                format!("end {}", Family::Ipv6Unicast),
            ]
        );
    }

    #[test]
    fn a_message_with_one_prefix_takes_little() {
        assert!(size_of::<Item>() <= 64, "{}", size_of::<Item>());
    }
}
