//! Tunnel devices, their addresses, and for VXLAN the neighbour and forwarding entries of the other ends: state that is
//! wanted, seen and reconciled as routes are.
//!
//! One device for each kind, with names of ours: whatever else is on such a device is taken off. What can be changed in
//! place is never deleted; a device nobody asks for any more stays for [`LINGER`] and until nothing leads through it, because
//! other nodes may still send into the tunnel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use causeway_kernel::tunnel::FdbEntry;
use causeway_kernel::{Address, Error, Kernel, Link, Mac, Neighbour, Refusal, Tunnel};
use ipnetwork::IpNetwork;
use nix::errno::Errno;

use crate::decision::Kind;

/// How long a device stays that nobody asks for.
pub const LINGER: Duration = Duration::from_secs(60);
/// How soon a device the kernel refused is tried again, and one that may go is looked at again while something leads
/// through it.
const RETRY: Duration = Duration::from_secs(5);

/// What there should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The devices.
    pub devices: BTreeMap<Kind, Tunnel>,
    /// The addresses on each.
    pub addresses: Vec<IpNetwork>,
    /// The other ends of VXLAN tunnels.
    pub peers: BTreeSet<Peer>,
}

/// The other end of a VXLAN tunnel, as the device has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The device.
    pub kind: Kind,
    /// What routes name as their gateway.
    pub gateway: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Where outer packets go.
    pub remote: IpAddr,
}

/// What the kernel has of one device.
#[derive(Debug, Clone)]
struct Seen {
    link: Link,
    addresses: BTreeSet<IpNetwork>,
    neighbours: BTreeMap<IpAddr, Option<Mac>>,
    fdb: BTreeMap<Mac, BTreeSet<IpAddr>>,
}

/// The address a node's tunnel devices have of a family: the second one of its first block, which pods never get. Pods may
/// have both addresses of a block of two.
pub fn address_of(blocks: &[IpNetwork], ipv4: bool) -> Option<IpAddr> {
    let block = blocks.iter().find(|block| block.is_ipv4() == ipv4)?;
    let address = match block.network() {
        IpAddr::V4(first) => IpAddr::from(first.to_bits().checked_add(1)?.to_be_bytes()),
        IpAddr::V6(first) => IpAddr::from(first.to_bits().checked_add(1)?.to_be_bytes()),
    };
    (block.contains(address) && !matches!((ipv4, block.prefix()), (true, 31) | (false, 127)))
        .then_some(address)
}

/// The devices of ours.
#[derive(Debug, Default)]
pub struct Tunnels {
    wanted: Wanted,
    seen: BTreeMap<Kind, Seen>,
    /// When a device that nobody asks for may go.
    idle: BTreeMap<Kind, Instant>,
    /// What the kernel refused, by what it was about.
    refused: BTreeMap<Kind, String>,
    dirty: bool,
    again: Option<Instant>,
    writes: u64,
}

impl Tunnels {
    /// Another idea of what there should be. Whether it is another.
    pub fn want(&mut self, wanted: Wanted) -> bool {
        if wanted == self.wanted {
            return false;
        }
        self.wanted = wanted;
        self.dirty = true;
        true
    }

    /// The index of a device that is there, up, and as wanted.
    pub fn index(&self, kind: Kind) -> Option<u32> {
        let seen = self.seen.get(&kind)?;
        let wanted = self.wanted.devices.get(&kind)?;
        (seen.link.admin_up && seen.link.tunnel == Some(wanted.kind)).then_some(seen.link.index)
    }

    /// Why a device is not there, for people.
    pub fn obstacle(&self, kind: Kind) -> String {
        match self.refused.get(&kind) {
            Some(refused) => refused.clone(),
            None => format!("device {} is not there yet", kind.device()),
        }
    }

    /// What the kernel refused, a line each.
    pub fn refused(&self) -> impl Iterator<Item = &String> {
        self.refused.values()
    }

    /// The devices there should be.
    pub fn devices(&self) -> impl Iterator<Item = (&Kind, &Tunnel)> {
        self.wanted.devices.iter()
    }

    /// The indexes of the devices that are there.
    pub fn links(&self) -> impl Iterator<Item = u32> {
        self.seen.values().map(|seen| seen.link.index)
    }

    /// Whether an index is a tunnel device of ours.
    pub fn is_ours(&self, index: u32) -> bool {
        self.seen.values().any(|seen| seen.link.index == index)
    }

    /// How many changes were written.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Reads what the kernel has of our devices; `links` and `addresses` are those of a dump.
    ///
    /// # Errors
    /// A dump failed.
    pub fn look(
        &mut self,
        kernel: &mut impl Kernel,
        links: &[Link],
        addresses: &[Address],
    ) -> Result<(), Error> {
        let mut seen = BTreeMap::new();
        for kind in Kind::ALL {
            let Some(link) = links.iter().find(|link| link.name == kind.device()) else { continue };
            let own = addresses.iter().filter(|address| {
                address.ifindex == link.index && !crate::guard::is_link_local(&address.network.ip())
            });
            let addresses = own.map(|address| address.network).collect();
            let fdb = if kind.is_vxlan() { kernel.fdb(link.index)? } else { Vec::new() };
            let mut known: BTreeMap<Mac, BTreeSet<IpAddr>> = BTreeMap::new();
            for FdbEntry { mac, remote, .. } in fdb {
                known.entry(mac).or_default().insert(remote);
            }
            let link = link.clone();
            seen.insert(kind, Seen { link, addresses, neighbours: BTreeMap::new(), fdb: known });
        }
        if seen.keys().any(|kind| kind.is_vxlan()) {
            for Neighbour { ifindex, address, mac, permanent } in kernel.neighbours()? {
                let on = seen.iter_mut().find(|(kind, seen)| kind.is_vxlan() && seen.link.index == ifindex);
                if let Some((_, seen)) = on
                    && permanent
                {
                    seen.neighbours.insert(address, mac);
                }
            }
        }
        self.seen = seen;
        // One that somebody else deleted has nothing to wait for.
        self.forget(&BTreeSet::new());
        self.dirty = true;
        Ok(())
    }

    /// When [`Tunnels::make`] or [`Tunnels::clean`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.idle.values().copied().chain(self.again).min()
    }

    /// Makes what is missing and changes what is wrong: before routes lead there. Whether a device was made or changed,
    /// so that the links are to be looked at again.
    ///
    /// # Errors
    /// What is there is unknown: the caller must dump.
    pub fn make(&mut self, kernel: &mut impl Kernel, now: Instant) -> Result<bool, Error> {
        if self.again.is_some_and(|again| again <= now) {
            self.again = None;
            self.dirty = true;
        }
        if !std::mem::take(&mut self.dirty) {
            return Ok(false);
        }
        let wanted = self.wanted.clone();
        let mut refused = BTreeMap::new();
        let mut changed = false;
        for (kind, tunnel) in &wanted.devices {
            self.idle.remove(kind);
            match self.make_device(kernel, *kind, tunnel, &wanted) {
                Ok(made) => changed |= made,
                Err(Error::Refused { what, refusal }) => {
                    refused.insert(*kind, words(*kind, &what, &refusal));
                    self.again = Some(now + RETRY);
                }
                Err(error) => return Err(error),
            }
        }
        for kind in self.seen.keys().filter(|kind| !wanted.devices.contains_key(kind)) {
            self.idle.entry(*kind).or_insert(now + LINGER);
        }
        for (kind, text) in &refused {
            if self.refused.get(kind) != Some(text) {
                tracing::warn!(device = kind.device(), "{text}");
            }
        }
        // What routes say about a device that is not there.
        changed |= refused != self.refused;
        self.refused = refused;
        Ok(changed)
    }

    fn make_device(
        &mut self,
        kernel: &mut impl Kernel,
        kind: Kind,
        tunnel: &Tunnel,
        wanted: &Wanted,
    ) -> Result<bool, Error> {
        let mut changed = false;
        let index = match self.seen.get(&kind) {
            Some(seen) if as_wanted(&seen.link, tunnel) => seen.link.index,
            Some(seen) => {
                changed = true;
                self.writes += 1;
                let index = seen.link.index;
                match kernel.change_tunnel(index, tunnel) {
                    Ok(()) => index,
                    Err(Error::Refused { refusal, .. }) if !refusal.missing() => {
                        tracing::info!(device = kind.device(), %refusal, "cannot be changed in place: made anew");
                        self.writes += 2;
                        kernel.delete_link(index)?;
                        self.seen.remove(&kind);
                        kernel.add_tunnel(tunnel)?
                    }
                    Err(error) => return Err(error),
                }
            }
            None => {
                changed = true;
                self.writes += 1;
                let index = kernel.add_tunnel(tunnel)?;
                tracing::info!(device = kind.device(), mtu = tunnel.mtu, local = %tunnel.kind.local(), "tunnel device made");
                index
            }
        };
        let seen = self.seen.entry(kind).or_insert_with(|| Seen {
            link: tunnel.link(index),
            addresses: BTreeSet::new(),
            neighbours: BTreeMap::new(),
            fdb: BTreeMap::new(),
        });
        if changed {
            seen.link = tunnel.link(index);
        }
        for address in &wanted.addresses {
            if seen.addresses.insert(*address) {
                self.writes += 1;
                add_address(kernel, index, *address)?;
            }
        }
        for peer in wanted.peers.iter().filter(|peer| peer.kind == kind) {
            if seen.fdb.get(&peer.mac).is_none_or(|remotes| !remotes.iter().eq([&peer.remote])) {
                self.writes += 1;
                kernel.set_fdb(index, peer.mac, peer.remote)?;
                seen.fdb.insert(peer.mac, BTreeSet::from([peer.remote]));
            }
            if seen.neighbours.get(&peer.gateway) != Some(&Some(peer.mac)) {
                self.writes += 1;
                kernel.set_neighbour(index, peer.gateway, peer.mac)?;
                seen.neighbours.insert(peer.gateway, Some(peer.mac));
            }
        }
        Ok(changed)
    }

    /// Takes away what nobody asks for: after routes that led there are gone. While routes that nobody asks for are `kept`
    /// in the kernel, so are the neighbours and forwarding entries they may lead to. `in_use` tells whether something leads
    /// through a device. Whether a device went.
    ///
    /// # Errors
    /// What is there is unknown: the caller must dump.
    pub fn clean(
        &mut self,
        kernel: &mut impl Kernel,
        now: Instant,
        kept: bool,
        in_use: impl Fn(u32) -> bool,
    ) -> Result<bool, Error> {
        let mut went = BTreeSet::new();
        for (kind, seen) in &mut self.seen {
            let index = seen.link.index;
            if !self.wanted.devices.contains_key(kind) {
                let at = self.idle.entry(*kind).or_insert(now + LINGER);
                if *at > now {
                    continue;
                }
                if in_use(index) {
                    *at = now + RETRY;
                    continue;
                }
                self.writes += 1;
                quiet(kernel.delete_link(index))?;
                tracing::info!(device = kind.device(), "tunnel device removed: no pool asks for it");
                went.insert(*kind);
                continue;
            }
            let surplus: Vec<IpNetwork> = seen
                .addresses
                .iter()
                .filter(|address| !self.wanted.addresses.contains(address))
                .copied()
                .collect();
            for address in surplus {
                self.writes += 1;
                seen.addresses.remove(&address);
                quiet(kernel.delete_address(index, address))?;
            }
            if kept {
                continue;
            }
            let peers: Vec<&Peer> = self.wanted.peers.iter().filter(|peer| peer.kind == *kind).collect();
            let gateways: BTreeSet<IpAddr> = peers.iter().map(|peer| peer.gateway).collect();
            let macs: BTreeSet<Mac> = peers.iter().map(|peer| peer.mac).collect();
            let old: Vec<IpAddr> =
                seen.neighbours.keys().filter(|address| !gateways.contains(address)).copied().collect();
            for address in old {
                self.writes += 1;
                seen.neighbours.remove(&address);
                quiet(kernel.delete_neighbour(index, address))?;
            }
            let old: Vec<Mac> = seen.fdb.keys().filter(|mac| !macs.contains(mac)).copied().collect();
            for mac in old {
                for remote in seen.fdb.remove(&mac).unwrap_or_default() {
                    self.writes += 1;
                    quiet(kernel.delete_fdb(index, mac, remote))?;
                }
            }
        }
        self.forget(&went);
        Ok(!went.is_empty())
    }

    /// These devices are gone.
    fn forget(&mut self, went: &BTreeSet<Kind>) {
        self.seen.retain(|kind, _| !went.contains(kind));
        let seen = &self.seen;
        self.idle.retain(|kind, _| seen.contains_key(kind));
    }
}

fn as_wanted(link: &Link, tunnel: &Tunnel) -> bool {
    link.admin_up
        && link.tunnel == Some(tunnel.kind)
        && link.mtu == tunnel.mtu
        && (tunnel.mac.is_none() || link.mac == tunnel.mac)
}

fn add_address(kernel: &mut impl Kernel, index: u32, address: IpNetwork) -> Result<(), Error> {
    match kernel.add_address(index, address, true) {
        Err(error) if error.exists() => Ok(()),
        other => other,
    }
}

/// A refusal to take something away is no obstacle: the next dump shows whether it is still there.
fn quiet(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Refused { what, refusal }) => {
            tracing::debug!(%what, %refusal, "the kernel refused");
            Ok(())
        }
        other => other,
    }
}

/// The words for a refusal, with what to do about a kernel that lacks the kind.
fn words(kind: Kind, what: &str, refusal: &Refusal) -> String {
    if refusal.errno != Errno::EOPNOTSUPP {
        return format!("device {}: {what}: {refusal}", kind.device());
    }
    let (module, instead) = match kind {
        Kind::Ipip => ("ipip", ", or use vxlanMode"),
        Kind::Vxlan => ("vxlan", ", or use ipipMode"),
        // What ipipMode comes to between IPv6 addresses as well.
        Kind::Vxlan6 => ("vxlan", ""),
    };
    format!(
        "device {}: this node's kernel has no {kind} tunnels: `modprobe {module}`{instead}",
        kind.device()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_address_of_the_first_block_is_the_tunnels() {
        for (blocks, ipv4, address) in [
            (&["fd00::/64", "10.244.2.0/24", "10.244.3.0/24"][..], true, Some("10.244.2.1")),
            (&["10.244.2.0/24", "fd00::/64"], false, Some("fd00::1")),
            (&["10.0.0.7/32"], true, None),
            (&["10.0.0.6/31"], true, None),
            (&["10.244.2.0/24"], false, None),
        ] {
            let blocks: Vec<IpNetwork> = blocks.iter().map(|block| block.parse().unwrap()).collect();
            let expected = address.map(|address| address.parse().unwrap());
            assert_eq!(address_of(&blocks, ipv4), expected, "{blocks:?}");
        }
    }
}
