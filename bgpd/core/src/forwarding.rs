//! How packets to a prefix are to leave: the next hops that share them, and those that stand in when none of these is left.
//!
//! Pure. Weights follow the link bandwidth communities (draft-ietf-idr-link-bandwidth) where each of the next hops
//! has one, tunnels are those of RFC 9012.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use causeway_bgp_wire::Tunnel;
use smallvec::SmallVec;

use crate::event::Member;
use crate::rib::path::NextHopId;

/// Next hops, sorted by address, none of them twice.
pub(crate) type Members = SmallVec<[Member; 2]>;

/// What a route is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Forwarding {
    /// Used together; none: the prefix is not to be installed.
    pub(crate) members: Members,
    /// Used in their place when all of them are lost: what the decision comes to without any path through them.
    pub(crate) backups: Members,
}

impl Forwarding {
    /// Whether each of its ways is one of the other's too; shares and backups may differ.
    pub(crate) fn is_part_of(&self, other: &Forwarding) -> bool {
        let same = |a: &Member, b: &Member| a.next_hop == b.next_hop && a.tunnel == b.tunnel;
        self.members.iter().all(|member| other.members.iter().any(|other| same(member, other)))
    }

    /// Every next hop that is named.
    pub(crate) fn next_hops(&self) -> impl Iterator<Item = IpAddr> {
        self.members.iter().chain(&self.backups).map(|member| member.next_hop)
    }

    /// The same without these next hops; the backups take over where no member is left.
    pub(crate) fn without(&self, gone: impl Fn(IpAddr) -> bool) -> Forwarding {
        let rest = |members: &Members| -> Members {
            members.iter().filter(|member| !gone(member.next_hop)).cloned().collect()
        };
        let (mut members, mut backups) = (rest(&self.members), rest(&self.backups));
        if members.is_empty() {
            std::mem::swap(&mut members, &mut backups);
        }
        if members.len() == 1 {
            members[0].weight = 1;
        }
        Forwarding { members, backups }
    }
}

/// How many forwardings are kept to be used again.
const RECENT: usize = 16;

/// Forwardings that were made last, by the numbers of their next hops: prefixes that are decided in a row mostly come to the
/// same, and what is one allocation is compared by its address. Only of next hops whose paths say nothing of tunnels or
/// bandwidths. A table of fixed size in which a newer one takes an older one's place.
#[derive(Default)]
pub(crate) struct Recent(RefCell<[Option<Made>; RECENT]>);

struct Made {
    /// The members' numbers, then the backups'.
    next_hops: SmallVec<[NextHopId; 8]>,
    members: usize,
    forwarding: Rc<Forwarding>,
}

impl Recent {
    /// The forwarding with these members and backups; `make` makes it where it is not at hand.
    pub(crate) fn get(
        &self,
        members: impl ExactSizeIterator<Item = NextHopId> + Clone,
        backups: impl Iterator<Item = NextHopId> + Clone,
        make: impl FnOnce() -> Forwarding,
    ) -> Rc<Forwarding> {
        let (count, next_hops) = (members.len(), members.chain(backups));
        let place = next_hops.clone().fold(count, |place, id| place.wrapping_mul(31) + id.0 as usize);
        let made = &mut self.0.borrow_mut()[place % RECENT];
        match made {
            Some(made) if made.members == count && made.next_hops.iter().copied().eq(next_hops.clone()) => {
                made.forwarding.clone()
            }
            _ => {
                let forwarding = Rc::new(make());
                *made = Some(Made {
                    next_hops: next_hops.collect(),
                    members: count,
                    forwarding: forwarding.clone(),
                });
                forwarding
            }
        }
    }

    /// A number stands for another next hop now.
    pub(crate) fn clear(&mut self) {
        *self.0.get_mut() = Default::default();
    }
}

/// What one path adds: its next hop, where its tunnel ends, the bandwidth it is said to have in bytes a second.
pub(crate) struct Way {
    pub(crate) next_hop: IpAddr,
    pub(crate) tunnel: Option<Box<Tunnel>>,
    pub(crate) bandwidth: Option<f32>,
}

/// The members these ways come to; of several with one next hop the first counts.
pub(crate) fn members(mut ways: impl Iterator<Item = Way>) -> Members {
    let mut members = Members::new();
    let Some(first) = ways.next() else { return members };
    members.push(Member { next_hop: first.next_hop, weight: 1, tunnel: first.tunnel });
    let Some(second) = ways.next() else { return members };
    let mut bandwidths: SmallVec<[Option<f32>; 8]> = SmallVec::from_slice(&[first.bandwidth]);
    for Way { next_hop, tunnel, bandwidth } in std::iter::once(second).chain(ways) {
        let Err(at) = members.binary_search_by_key(&next_hop, |member| member.next_hop) else { continue };
        members.insert(at, Member { next_hop, weight: 1, tunnel });
        bandwidths.insert(at, bandwidth);
    }
    if members.len() > 1
        && bandwidths[0].is_some()
        && let Some(bandwidths) = bandwidths.into_iter().collect::<Option<SmallVec<[f32; 8]>>>()
    {
        members.iter_mut().zip(weights(&bandwidths)).for_each(|(member, weight)| member.weight = weight);
    }
    members
}

/// How far a weight may be from the exact proportion where that makes all of them small numbers.
const TOLERANCE: f64 = 0.01;

/// Shares in proportion, 1 to 255. Small numbers where they say it well enough, as 1 and 4 for 10 and 40 Gbit/s; else the
/// largest is 255.
fn weights(bandwidths: &[f32]) -> SmallVec<[u8; 8]> {
    let least = bandwidths.iter().copied().fold(f32::INFINITY, f32::min);
    let most = bandwidths.iter().copied().fold(0.0, f32::max);
    let round = |share: f64| share.round().clamp(1.0, 255.0) as u8;
    for unit in 1..=16_u8 {
        let shares = || bandwidths.iter().map(|one| f64::from(*one) / f64::from(least) * f64::from(unit));
        let well = |share: f64| share < 255.5 && (share - share.round()).abs() <= share * TOLERANCE;
        if shares().all(well) {
            return shares().map(round).collect();
        }
    }
    bandwidths.iter().map(|one| round(f64::from(*one) / f64::from(most) * 255.0)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn way(number: u8, bandwidth: Option<f32>) -> Way {
        Way { next_hop: IpAddr::from([192, 0, 2, number]), tunnel: None, bandwidth }
    }

    fn shares(bandwidths: &[Option<f32>]) -> Vec<u8> {
        let ways = (1..).zip(bandwidths).map(|(number, bandwidth)| way(number, *bandwidth));
        members(ways).iter().map(|member| member.weight).collect()
    }

    #[test]
    fn weights_are_in_proportion_where_every_next_hop_has_a_bandwidth() {
        let gigabit = 125e6;
        assert_eq!(shares(&[Some(10.0 * gigabit), Some(40.0 * gigabit)]), [1, 4]);
        assert_eq!(shares(&[Some(25.0 * gigabit), Some(10.0 * gigabit), Some(10.0 * gigabit)]), [5, 2, 2]);
        assert_eq!(shares(&[Some(gigabit), Some(gigabit)]), [1, 1]);
        assert_eq!(shares(&[Some(1.0), Some(1e9)]), [1, 255]);
        assert_eq!(shares(&[Some(10.0 * gigabit), None]), [1, 1]);
        assert_eq!(shares(&[Some(10.0 * gigabit)]), [1]);
    }

    #[test]
    fn of_two_paths_through_one_next_hop_the_first_counts() {
        let ways = [way(2, Some(2.0)), way(1, Some(1.0)), way(2, Some(9.0))];
        let members = members(ways.into_iter());
        assert_eq!(members.iter().map(|m| m.weight).collect::<Vec<_>>(), [1, 2]);
        assert!(members.is_sorted_by_key(|member| member.next_hop));
    }

    #[test]
    fn what_comes_to_the_same_is_one_until_the_numbers_change() {
        let mut recent = Recent::default();
        let get = |recent: &Recent, members: &[u32], backups: &[u32], next_hop: u8| {
            let [members, backups] = [members, backups].map(|ids| ids.iter().copied().map(NextHopId));
            recent.get(members, backups, || {
                let members = super::members([way(next_hop, None)].into_iter());
                Forwarding { members, backups: Members::new() }
            })
        };
        let one = get(&recent, &[1], &[2, 3], 1);
        assert!(Rc::ptr_eq(&one, &get(&recent, &[1], &[2, 3], 2)));
        // What takes its place in the table, or is told from it by the number of members alone.
        for (members, backups) in [(&[1, 2][..], &[3][..]), (&[1], &[2]), (&[1], &[2, 19]), (&[17], &[2, 3])]
        {
            assert_eq!(get(&recent, members, backups, 3).members[0].next_hop, IpAddr::from([192, 0, 2, 3]));
        }
        let again = get(&recent, &[1], &[2, 3], 1);
        assert_eq!(one, again);
        recent.clear();
        assert_ne!(one, get(&recent, &[1], &[2, 3], 9));
    }

    #[test]
    fn backups_take_over_when_no_member_is_left() {
        let [a, b, c] = [1, 2, 3].map(|number| IpAddr::from([192, 0, 2, number]));
        let of = |list: &[(IpAddr, u8)]| -> Members {
            list.iter()
                .map(|(next_hop, weight)| Member { next_hop: *next_hop, weight: *weight, tunnel: None })
                .collect()
        };
        let both = Forwarding { members: of(&[(a, 4), (b, 1)]), backups: of(&[(c, 1)]) };
        let left = Forwarding { members: of(&[(a, 1)]), backups: of(&[(c, 1)]) };
        assert_eq!(both.without(|next_hop| next_hop == b), left);
        assert_eq!(
            both.without(|next_hop| next_hop != c),
            Forwarding { members: of(&[(c, 1)]), backups: of(&[]) }
        );
        assert_eq!(both.without(|next_hop| next_hop == c).backups, of(&[]));
        assert_eq!(both.without(|_| true), Forwarding::default());
    }

    proptest! {
        #[test]
        fn weights_keep_the_order_and_depend_on_proportions_alone(
            list in proptest::collection::vec(1f32..1e12, 2..8), scale in 1u8..10
        ) {
            let weights = super::weights(&list);
            prop_assert!(weights.iter().all(|weight| *weight >= 1));
            for (a, x) in list.iter().zip(&weights) {
                for (b, y) in list.iter().zip(&weights) {
                    prop_assert!(a > b || x <= y);
                }
            }
            let scaled: Vec<f32> = list.iter().map(|one| one * f32::from(1u16 << scale)).collect();
            prop_assert_eq!(super::weights(&scaled), weights);
        }
    }
}
