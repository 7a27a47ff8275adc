//! How full the blocks are: what `show ipam`, the metrics and the plugin's STATUS say.
//!
//! Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use causeway_api::pod_store::{Allocation, BlockState, Snapshot};
use ipnetwork::IpNetwork;

use crate::block::{self, Family};
use crate::quarantine;

/// One block and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockUse<'a> {
    /// The prefix.
    pub cidr: IpNetwork,
    /// Whether new pods may get addresses here.
    pub state: BlockState,
    /// How many addresses pods may have here in all.
    pub total: u64,
    /// How many they have.
    pub used: u64,
    /// How many rest after a release.
    pub quarantined: u64,
    /// The others.
    pub free: u64,
    /// Who has which address, by address.
    pub allocations: Vec<(IpAddr, &'a Allocation)>,
}

/// The blocks in order of preference. `now` is in milliseconds of the boot-time clock.
pub fn block_use(snapshot: &Snapshot, now: u64, rest: Duration) -> Vec<BlockUse<'_>> {
    let held: HashMap<IpAddr, &Allocation> = snapshot
        .allocations
        .allocations
        .iter()
        .flat_map(|record| record.addresses.iter().map(move |address| (*address, record)))
        .collect();
    let blocks = snapshot.blocks.iter().flat_map(|blocks| &blocks.blocks);
    blocks
        .map(|block| {
            let total = block::usable(&block.cidr).len();
            let mut allocations: Vec<(IpAddr, &Allocation)> = held
                .iter()
                .filter(|(address, _)| block.cidr.contains(**address))
                .map(|(address, record)| (*address, *record))
                .collect();
            allocations.sort_unstable_by_key(|(address, _)| *address);
            let used = allocations.len() as u64;
            let quarantined = snapshot
                .allocations
                .released
                .iter()
                .filter(|released| block::offset_of(&block.cidr, &released.address).is_some())
                .filter(|released| !held.contains_key(&released.address))
                .filter(|released| quarantine::rests(released, now, rest))
                .count() as u64;
            let free = total.saturating_sub(used + quarantined);
            BlockUse { cidr: block.cidr, state: block.state, total, used, quarantined, free, allocations }
        })
        .collect()
}

/// Whether a new pod would get an address: the families that have an active block, each with whether one of those has
/// an address left (one that rests counts, as it is given when nothing else is left).
pub fn room(snapshot: &Snapshot, now: u64, rest: Duration) -> Vec<(Family, bool)> {
    let blocks = block_use(snapshot, now, rest);
    [Family::V4, Family::V6]
        .into_iter()
        .filter_map(|family| {
            let mut active = blocks
                .iter()
                .filter(|block| {
                    block.state == BlockState::Active && Family::of_network(&block.cidr) == family
                })
                .peekable();
            active.peek()?;
            Some((family, active.any(|block| block.free + block.quarantined > 0)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use causeway_api::pod_store::{Allocations, Block, Blocks, Released};

    #[test]
    fn resting_addresses_are_counted_until_their_rest_is_over() {
        let blocks = vec![
            Block { cidr: "10.0.0.0/29".parse().unwrap(), state: BlockState::Active },
            Block { cidr: "fd00::/64".parse().unwrap(), state: BlockState::Draining },
        ];
        let snapshot = Snapshot {
            blocks: Some(Blocks { version: 1, node: "a".into(), blocks }),
            allocations: Allocations {
                released: vec![Released { address: "10.0.0.3".parse().unwrap(), at: 1_000 }],
                ..Allocations::default()
            },
        };
        let used = block_use(&snapshot, 2_000, quarantine::REST);
        assert_eq!((used[0].total, used[0].used, used[0].quarantined, used[0].free), (6, 0, 1, 5));
        let later = block_use(&snapshot, 31_000, quarantine::REST);
        assert_eq!((later[0].quarantined, later[0].free), (0, 6));
        assert_eq!(room(&snapshot, 2_000, quarantine::REST), [(Family::V4, true)]);
    }
}
