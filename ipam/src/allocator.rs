//! Who gets which address.
//!
//! Pure: a function of the blocks, the records and the time. One address per family that has an active block, all or
//! none. The order of choice in a family: the lowest address nobody had (as far as the history goes back), block by
//! block; then the address that was given back longest ago and has rested; then the one that has rested longest.

use std::net::IpAddr;
use std::time::Duration;

use causeway_api::pod_store::{
    Allocation, AllocationState, Allocations, Block, BlockState, Blocks, MAX_ALLOCATIONS, Netns, PodName,
};
use ipnetwork::IpNetwork;

use crate::block::{self, Family};
use crate::quarantine;
use crate::store::Now;

/// Who asks for addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_IFNAME.
    pub interface: String,
    /// The CNI network's name.
    pub network: String,
    /// The Kubernetes pod.
    pub pod: Option<PodName>,
    /// The host end's name.
    pub veth: String,
    /// The pod's network namespace.
    pub netns: Netns,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// No block is active on this node.
    #[error("this node has no block of pod addresses yet (causeway-ipam writes them from the Node document)")]
    NoBlock,
    /// Every address of the family is taken.
    #[error("no free {family} address in {blocks}")]
    Full {
        /// The family.
        family: Family,
        /// The active blocks of that family.
        blocks: String,
    },
    /// Another attachment holds the host interface name.
    #[error("host interface {veth} belongs to container {container} interface {interface}")]
    VethTaken {
        /// The name.
        veth: String,
        /// Who has it.
        container: String,
        /// Who has it.
        interface: String,
    },
    /// The store holds as many records as it may.
    #[error("the store holds {MAX_ALLOCATIONS} attachments, which is all it may")]
    TooMany,
}

/// What [`allocate`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocated {
    /// The record as it is now.
    pub record: Allocation,
    /// There was a record of this container and interface before.
    pub known: bool,
}

/// Gives the attachment its addresses and returns its record. Asking again for the same container and interface gives
/// the same addresses, as long as they are of the families wanted now.
///
/// # Errors
/// [`AllocateError`]; `state` is then as it was.
pub fn allocate(
    blocks: &Blocks,
    state: &mut Allocations,
    request: &Request,
    now: Now,
    rest: Duration,
) -> Result<Allocated, AllocateError> {
    let wanted: Vec<Family> = [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| active(blocks, *family).next().is_some())
        .collect();
    if wanted.is_empty() {
        return Err(AllocateError::NoBlock);
    }
    if let Some(other) = state
        .allocations
        .iter()
        .find(|other| other.veth == request.veth && !is(other, &request.container, &request.interface))
    {
        return Err(AllocateError::VethTaken {
            veth: request.veth.clone(),
            container: other.container.clone(),
            interface: other.interface.clone(),
        });
    }
    let known = state.allocations.iter().position(|known| is(known, &request.container, &request.interface));
    if let Some(record) = known.map(|at| &mut state.allocations[at]) {
        let has: Vec<Family> = record.addresses.iter().map(Family::of).collect();
        if has == wanted {
            let fresh = record_of(request, record.addresses.clone(), now);
            *record = Allocation { created: record.created, ..fresh };
            return Ok(Allocated { record: record.clone(), known: true });
        }
    } else if state.allocations.len() >= MAX_ALLOCATIONS {
        return Err(AllocateError::TooMany);
    }
    let mut addresses = Vec::with_capacity(wanted.len());
    for family in wanted {
        addresses.push(pick(blocks, state, family, now, rest).ok_or_else(|| AllocateError::Full {
            family,
            blocks: active(blocks, family).map(|block| block.cidr.to_string()).collect::<Vec<_>>().join(", "),
        })?);
    }
    release(state, &request.container, &request.interface, now, rest);
    state.released.retain(|released| !addresses.contains(&released.address));
    let record = record_of(request, addresses, now);
    state.allocations.push(record.clone());
    Ok(Allocated { record, known: known.is_some() })
}

/// Marks a record as being deleted, and returns it. Its addresses stay taken.
pub fn mark_deleting(
    state: &mut Allocations,
    container: &str,
    interface: &str,
    now: Now,
) -> Option<Allocation> {
    let record = state.allocations.iter_mut().find(|record| is(record, container, interface))?;
    if record.state != AllocationState::Deleting {
        record.state = AllocationState::Deleting;
        record.changed = now.unix_seconds;
    }
    Some(record.clone())
}

/// Removes a record; its addresses begin to rest. Returns it.
pub fn release(
    state: &mut Allocations,
    container: &str,
    interface: &str,
    now: Now,
    rest: Duration,
) -> Option<Allocation> {
    let at = state.allocations.iter().position(|record| is(record, container, interface))?;
    let record = state.allocations.remove(at);
    for address in &record.addresses {
        quarantine::remember(&mut state.released, *address, now.boot_millis);
    }
    quarantine::forget(&mut state.released, now.boot_millis, rest);
    Some(record)
}

/// Whether the record is that of this container's interface.
pub fn is(record: &Allocation, container: &str, interface: &str) -> bool {
    record.container == container && record.interface == interface
}

/// The blocks of a family that new pods may get addresses from.
pub fn active(blocks: &Blocks, family: Family) -> impl Iterator<Item = &Block> {
    blocks
        .blocks
        .iter()
        .filter(move |block| block.state == BlockState::Active && Family::of_network(&block.cidr) == family)
}

fn record_of(request: &Request, addresses: Vec<IpAddr>, now: Now) -> Allocation {
    Allocation {
        container: request.container.clone(),
        interface: request.interface.clone(),
        addresses,
        network: request.network.clone(),
        pod: request.pod.clone(),
        veth: request.veth.clone(),
        netns: request.netns.clone(),
        state: AllocationState::Active,
        created: now.unix_seconds,
        changed: now.unix_seconds,
    }
}

fn pick(blocks: &Blocks, state: &Allocations, family: Family, now: Now, rest: Duration) -> Option<IpAddr> {
    let held: Vec<&IpAddr> = state.allocations.iter().flat_map(|record| &record.addresses).collect();
    let unheard_of =
        active(blocks, family).find_map(|block| lowest_unheard_of(&block.cidr, &held, state, blocks));
    let may_be_taken = |address: &IpAddr| {
        active(blocks, family).any(|block| block::offset_of(&block.cidr, address).is_some())
            && !is_reserved(blocks, address)
            && !held.contains(&address)
    };
    unheard_of
        .or_else(|| {
            let rested = state.released.iter().find(|released| {
                !quarantine::rests(released, now.boot_millis, rest) && may_be_taken(&released.address)
            });
            rested.map(|released| released.address)
        })
        .or_else(|| {
            let resting = state.released.iter().find(|released| may_be_taken(&released.address));
            resting.map(|released| released.address)
        })
}

/// The lowest address of the block that no record holds and the history does not know.
fn lowest_unheard_of(
    block: &IpNetwork,
    held: &[&IpAddr],
    state: &Allocations,
    blocks: &Blocks,
) -> Option<IpAddr> {
    let usable = block::usable(block);
    let mut known = vec![false; usize::try_from(usable.end).ok()?];
    let history = state.released.iter().map(|released| &released.address);
    for offset in held.iter().copied().chain(history).filter_map(|address| block::offset_of(block, address)) {
        known[usize::try_from(offset).ok()?] = true;
    }
    (usable.start..usable.end)
        .filter(|offset| !known[*offset as usize])
        .map(|offset| block::address_at(block, offset))
        .find(|address| !is_reserved(blocks, address))
}

/// Whether some block keeps the address for the node: of overlapping blocks each keeps its own.
fn is_reserved(blocks: &Blocks, address: &IpAddr) -> bool {
    blocks.blocks.iter().any(|block| block::is_reserved(&block.cidr, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quarantine::REST;

    fn blocks(cidrs: &[&str]) -> Blocks {
        let block = |cidr: &&str| Block { cidr: cidr.parse().unwrap(), state: BlockState::Active };
        Blocks { version: 1, node: "node-a1".into(), blocks: cidrs.iter().map(block).collect() }
    }

    fn request(container: &str) -> Request {
        Request {
            container: container.into(),
            interface: "eth0".into(),
            network: "causeway".into(),
            pod: None,
            veth: format!("cw{container}"),
            netns: Netns { path: "/run/netns/x".into(), dev: 1, ino: 2 },
        }
    }

    fn at(seconds: u64) -> Now {
        Now { boot_millis: seconds * 1_000, unix_seconds: 1_700_000_000 + seconds }
    }

    fn add(
        blocks: &Blocks,
        state: &mut Allocations,
        request: &Request,
        now: Now,
        rest: Duration,
    ) -> Result<Allocation, AllocateError> {
        let before = state.allocations.iter().any(|record| is(record, &request.container, "eth0"));
        let allocated = allocate(blocks, state, request, now, rest)?;
        assert_eq!(allocated.known, before);
        Ok(allocated.record)
    }

    fn texts(record: &Allocation) -> Vec<String> {
        record.addresses.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn the_first_pod_gets_the_first_address_of_each_family() {
        let mut state = Allocations::default();
        let blocks = blocks(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
        let record = add(&blocks, &mut state, &request("a"), at(1), REST).unwrap();
        assert_eq!(texts(&record), ["10.244.1.2", "fd00:10:244:1::2"]);
        assert_eq!(state.allocations, [record]);
    }

    #[test]
    fn asking_again_gives_the_same_addresses_and_revives_a_dying_record() {
        let mut state = Allocations::default();
        let blocks = blocks(&["10.244.1.0/24", "fd00::/64"]);
        let first = add(&blocks, &mut state, &request("a"), at(1), REST).unwrap();
        mark_deleting(&mut state, "a", "eth0", at(2)).unwrap();
        let again = add(&blocks, &mut state, &request("a"), at(3), REST).unwrap();
        assert_eq!(again.addresses, first.addresses);
        assert_eq!(again.state, AllocationState::Active);
        assert_eq!(state.allocations.len(), 1);
    }

    #[test]
    fn a_record_of_other_families_is_given_up_for_a_new_one() {
        let mut state = Allocations::default();
        add(&blocks(&["10.244.1.0/24"]), &mut state, &request("a"), at(1), REST).unwrap();
        let dual = blocks(&["10.244.1.0/24", "fd00::/64"]);
        let record = add(&dual, &mut state, &request("a"), at(2), REST).unwrap();
        assert_eq!(texts(&record), ["10.244.1.3", "fd00::2"]);
        assert_eq!(state.allocations.len(), 1);
        assert_eq!(state.released.len(), 1);
    }

    #[test]
    fn released_addresses_come_back_first_in_first_out() {
        let mut state = Allocations::default();
        let blocks = blocks(&["10.0.0.0/29"]);
        for pod in ["a", "b", "c", "d", "e"] {
            add(&blocks, &mut state, &request(pod), at(1), REST).unwrap();
        }
        release(&mut state, "d", "eth0", at(2), REST).unwrap();
        release(&mut state, "b", "eth0", at(3), REST).unwrap();
        let fresh = add(&blocks, &mut state, &request("f"), at(100), REST).unwrap();
        assert_eq!(texts(&fresh), ["10.0.0.7"], "one that nobody had goes first");
        let next = add(&blocks, &mut state, &request("g"), at(100), REST).unwrap();
        assert_eq!(texts(&next), ["10.0.0.5"], "d's, released before b's");
        let last = add(&blocks, &mut state, &request("h"), at(100), REST).unwrap();
        assert_eq!(texts(&last), ["10.0.0.3"]);
        let error = add(&blocks, &mut state, &request("i"), at(100), REST).unwrap_err();
        assert_eq!(error, AllocateError::Full { family: Family::V4, blocks: "10.0.0.0/29".into() });
    }

    #[test]
    fn another_block_goes_before_an_address_that_rests() {
        let mut state = Allocations::default();
        let blocks = blocks(&["10.0.0.0/31", "10.0.1.0/31"]);
        add(&blocks, &mut state, &request("a"), at(1), REST).unwrap();
        add(&blocks, &mut state, &request("b"), at(1), REST).unwrap();
        release(&mut state, "a", "eth0", at(2), REST).unwrap();
        let next = add(&blocks, &mut state, &request("c"), at(3), REST).unwrap();
        assert_eq!(texts(&next), ["10.0.1.0"]);
        add(&blocks, &mut state, &request("d"), at(3), REST).unwrap();
        let shortened = add(&blocks, &mut state, &request("e"), at(4), REST).unwrap();
        assert_eq!(texts(&shortened), ["10.0.0.0"], "better than no pod");
    }

    #[test]
    fn all_families_or_none() {
        let mut state = Allocations::default();
        let blocks = blocks(&["10.244.1.0/24", "fd00::/128"]);
        add(&blocks, &mut state, &request("a"), at(1), REST).unwrap();
        let before = state.clone();
        assert!(matches!(
            add(&blocks, &mut state, &request("b"), at(2), REST),
            Err(AllocateError::Full { family: Family::V6, .. })
        ));
        assert_eq!(state, before);
    }

    #[test]
    fn a_draining_block_gives_nothing_new() {
        let mut state = Allocations::default();
        let mut blocks = blocks(&["10.0.0.0/24", "10.0.1.0/24"]);
        add(&blocks, &mut state, &request("a"), at(1), REST).unwrap();
        blocks.blocks[0].state = BlockState::Draining;
        let next = add(&blocks, &mut state, &request("b"), at(2), REST).unwrap();
        assert_eq!(texts(&next), ["10.0.1.2"]);
        blocks.blocks[1].state = BlockState::Draining;
        let error = add(&blocks, &mut state, &request("c"), at(3), REST).unwrap_err();
        assert_eq!(error, AllocateError::NoBlock);
    }

    #[test]
    fn two_attachments_cannot_share_a_host_interface() {
        let mut state = Allocations::default();
        let blocks = blocks(&["10.0.0.0/24"]);
        add(&blocks, &mut state, &request("a"), at(1), REST).unwrap();
        let clash = Request { veth: "cwa".into(), ..request("b") };
        assert!(matches!(
            add(&blocks, &mut state, &clash, at(2), REST),
            Err(AllocateError::VethTaken { .. })
        ));
    }

    #[test]
    fn the_reserved_addresses_of_an_overlapping_block_are_kept() {
        let mut state = Allocations::default();
        let blocks = blocks(&["10.0.0.0/29", "10.0.0.4/30"]);
        let mut given = Vec::new();
        while let Ok(record) = add(&blocks, &mut state, &request(&format!("p{}", given.len())), at(1), REST) {
            given.extend(texts(&record));
        }
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.6", "10.0.0.7"]);
    }
}
