//! The mock as a [`Kernel`]: every operation recorded, refused or unanswered as the failures say.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::{MockKernel, Operation, refused};
use crate::Kernel;
use crate::dump::Dumped;
use crate::error::{Error, Refusal};
use crate::link::{Address, Link, LinkChange, Mac, Neighbour};
use crate::monitor::Hint;
use crate::nexthop::{Nexthop, NexthopKind};
use crate::route::{Family, Route, RouteChange};
use crate::tunnel::{FdbEntry, Tunnel, TunnelKind};

impl MockKernel {
    fn dump<T>(&mut self, what: &'static str, found: T) -> Result<T, Error> {
        if !self.as_another && self.failures.interrupt_dumps > 0 {
            self.failures.interrupt_dumps -= 1;
            return Err(Error::Interrupted(what));
        }
        Ok(found)
    }

    /// Carries out an operation on anything but routes, unless it is to fail. The hint is for what Linux tells even
    /// him who did it.
    fn operate<T>(
        &mut self,
        operation: Operation,
        told: Option<Hint>,
        work: impl FnOnce(&mut MockKernel) -> Result<T, Refusal>,
    ) -> Result<T, Error> {
        let what = format!("{operation:?}");
        let hint = told.or(self.as_another.then(|| operation.hint()));
        let mut lost = false;
        if !self.as_another {
            self.operations.push(operation);
            if let Some((nth, errno, times)) = &mut self.failures.refuse_operations
                && *times > 0
                && self.operations.len().is_multiple_of(*nth)
            {
                *times -= 1;
                return Err(Error::Refused { what, refusal: Refusal::new(*errno) });
            }
            if self.failures.lose_operations > 0 {
                self.failures.lose_operations -= 1;
                lost = true;
                // Nobody can tell which of the two it was.
                if self.failures.lose_operations.is_multiple_of(2) {
                    return Err(Error::Overrun);
                }
            }
        }
        let done = work(self).map_err(|refusal| Error::Refused { what, refusal });
        if done.is_ok()
            && let Some(hint) = hint
        {
            self.hint(hint);
        }
        if lost { Err(Error::Overrun) } else { done }
    }

    fn check_tunnel(&self, tunnel: &Tunnel, except: Option<u32>) -> Result<(), Refusal> {
        if self.lacks.kinds.contains(tunnel.kind.name()) {
            return refused(Errno::EOPNOTSUPP);
        }
        let taken = self.links.values().filter(|link| Some(link.index) != except).any(|link| {
            link.name == tunnel.name
                || match (link.tunnel, tunnel.kind) {
                    // One VXLAN device for each identifier and outer family.
                    (
                        Some(TunnelKind::Vxlan { local, vni, .. }),
                        TunnelKind::Vxlan { local: new_local, vni: new_vni, .. },
                    ) => vni == new_vni && local.is_ipv4() == new_local.is_ipv4(),
                    (Some(there), new) => there == new,
                    (None, _) => false,
                }
        });
        if taken { refused(Errno::EEXIST) } else { Ok(()) }
    }
}

/// Whether Linux can make the one out of the other in place.
fn changeable(from: Option<TunnelKind>, to: TunnelKind) -> bool {
    match (from, to) {
        (
            Some(TunnelKind::Vxlan { local, vni, port }),
            TunnelKind::Vxlan { local: new_local, vni: new_vni, port: new_port },
        ) => (vni, port, local.is_ipv4()) == (new_vni, new_port, new_local.is_ipv4()),
        (Some(TunnelKind::Ipip { .. }), TunnelKind::Ipip { .. }) => true,
        _ => false,
    }
}

impl Kernel for MockKernel {
    fn routes(&mut self, family: Family, table: u32) -> Result<Vec<Route>, Error> {
        self.dumps += 1;
        let found = self.routes_of(family, table).map(|route| self.shown(route)).collect();
        self.dump("routes", found)
    }

    fn dump_start(&mut self, family: Family, table: u32) -> Result<(), Error> {
        self.dumps += 1;
        self.begin_dump(family, table);
        Ok(())
    }

    fn dump_next(&mut self, each: &mut dyn FnMut(Dumped<'_>)) -> Result<bool, Error> {
        if self.go_on(each)? { Ok(true) } else { self.dump("routes", false) }
    }

    fn write(&mut self, changes: &[RouteChange]) -> Result<Vec<Result<(), Refusal>>, Error> {
        let lost = self.failures.lose_answers > 0;
        self.failures.lose_answers -= usize::from(lost);
        let count = if lost { changes.len() / 2 } else { changes.len() };
        let mut results = Vec::with_capacity(count);
        for change in &changes[..count] {
            self.written.push(change.clone());
            self.changes += 1;
            self.note_change(change);
            let refusal = match &mut self.failures.refuse {
                Some((nth, errno, times)) if *times > 0 && self.changes.is_multiple_of(*nth) => {
                    *times -= 1;
                    Some(Refusal::new(*errno))
                }
                _ => None,
            };
            results.push(match refusal {
                Some(refusal) => Err(refusal),
                None => self.change(change),
            });
        }
        if lost { Err(Error::Overrun) } else { Ok(results) }
    }

    fn nexthops(&mut self) -> Result<Option<Vec<Nexthop>>, Error> {
        let found = (!self.lacks.nexthops).then(|| self.nexthops.values().cloned().collect());
        self.dump("nexthop objects", found)
    }

    fn add_nexthop(&mut self, kind: &NexthopKind, protocol: u8) -> Result<u32, Error> {
        self.operate(Operation::AddNexthop(kind.clone()), None, |kernel| {
            if kernel.lacks.nexthops {
                return refused(Errno::EOPNOTSUPP);
            }
            kernel.make_nexthop(kind, protocol)
        })
    }

    fn replace_nexthop(&mut self, id: u32, kind: &NexthopKind, protocol: u8) -> Result<(), Error> {
        self.operate(Operation::ReplaceNexthop(id, kind.clone()), None, |kernel| {
            kernel.change_nexthop(id, kind, protocol)
        })
    }

    fn delete_nexthop(&mut self, id: u32) -> Result<(), Error> {
        self.operate(Operation::DeleteNexthop(id), None, |kernel| kernel.drop_nexthop(id))
    }

    fn links(&mut self) -> Result<Vec<Link>, Error> {
        let found = self.links.values().cloned().collect();
        self.dump("links", found)
    }

    fn set_link(&mut self, ifindex: u32, change: &LinkChange) -> Result<(), Error> {
        let operation = Operation::SetLink(ifindex, change.clone());
        self.operate(operation, None, |kernel| {
            let link = kernel.links.get_mut(&ifindex).ok_or(Refusal::new(Errno::ENODEV))?;
            link.mtu = change.mtu.unwrap_or(link.mtu);
            link.mac = change.mac.or(link.mac);
            if let Some(name) = &change.name {
                link.name.clone_from(name);
            }
            match change.up {
                Some(up) if up != link.admin_up => kernel.set_admin(ifindex, up),
                _ => kernel.hint(Hint::Link),
            }
            Ok(())
        })
    }

    fn delete_link(&mut self, ifindex: u32) -> Result<(), Error> {
        self.operate(Operation::DeleteLink(ifindex), None, |kernel| {
            if !kernel.links.contains_key(&ifindex) {
                return refused(Errno::ENODEV);
            }
            kernel.remove_link(ifindex);
            Ok(())
        })
    }

    fn add_tunnel(&mut self, tunnel: &Tunnel) -> Result<u32, Error> {
        self.operate(Operation::AddTunnel(tunnel.clone()), Some(Hint::Link), |kernel| {
            kernel.check_tunnel(tunnel, None)?;
            let index = kernel.links.keys().max().map_or(2, |last| last + 1).max(1000);
            kernel.links.insert(index, tunnel.link(index));
            Ok(index)
        })
    }

    fn change_tunnel(&mut self, ifindex: u32, tunnel: &Tunnel) -> Result<(), Error> {
        self.operate(Operation::ChangeTunnel(ifindex, tunnel.clone()), Some(Hint::Link), |kernel| {
            kernel.check_tunnel(tunnel, Some(ifindex))?;
            let link = kernel.links.get_mut(&ifindex).ok_or(Refusal::new(Errno::ENODEV))?;
            if !changeable(link.tunnel, tunnel.kind) {
                return refused(Errno::EOPNOTSUPP);
            }
            link.mtu = tunnel.mtu;
            link.mac = tunnel.mac.or(link.mac);
            link.tunnel = Some(tunnel.kind);
            if !link.admin_up {
                kernel.set_admin(ifindex, true);
            }
            Ok(())
        })
    }

    fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let found = self.addresses.clone();
        self.dump("addresses", found)
    }

    fn add_address(&mut self, ifindex: u32, network: IpNetwork, _nodad: bool) -> Result<(), Error> {
        self.operate(Operation::AddAddress(ifindex, network), None, |kernel| {
            if !kernel.links.contains_key(&ifindex) {
                return refused(Errno::ENODEV);
            }
            if kernel.addresses.iter().any(|there| (there.ifindex, there.network) == (ifindex, network)) {
                return refused(Errno::EEXIST);
            }
            kernel.put_address(ifindex, network);
            Ok(())
        })
    }

    fn delete_address(&mut self, ifindex: u32, network: IpNetwork) -> Result<(), Error> {
        self.operate(Operation::DeleteAddress(ifindex, network), None, |kernel| {
            let at = kernel
                .addresses
                .iter()
                .position(|there| (there.ifindex, there.network) == (ifindex, network))
                .ok_or(Refusal::new(Errno::EADDRNOTAVAIL))?;
            kernel.addresses.remove(at);
            kernel.disconnect(ifindex, network);
            Ok(())
        })
    }

    fn neighbours(&mut self) -> Result<Vec<Neighbour>, Error> {
        let found = self
            .neighbours
            .iter()
            .map(|((ifindex, address), mac)| Neighbour {
                ifindex: *ifindex,
                address: *address,
                mac: Some(*mac),
                permanent: true,
            })
            .collect();
        self.dump("neighbours", found)
    }

    fn set_neighbour(&mut self, ifindex: u32, address: IpAddr, mac: Mac) -> Result<(), Error> {
        self.operate(Operation::SetNeighbour(ifindex, address, mac), None, |kernel| {
            if !kernel.links.contains_key(&ifindex) {
                return refused(Errno::ENODEV);
            }
            kernel.neighbours.insert((ifindex, address), mac);
            Ok(())
        })
    }

    fn delete_neighbour(&mut self, ifindex: u32, address: IpAddr) -> Result<(), Error> {
        self.operate(Operation::DeleteNeighbour(ifindex, address), Some(Hint::Neighbour), |kernel| {
            kernel.neighbours.remove(&(ifindex, address)).map(drop).ok_or(Refusal::new(Errno::ENOENT))
        })
    }

    fn fdb(&mut self, ifindex: u32) -> Result<Vec<FdbEntry>, Error> {
        let found = self
            .fdb
            .iter()
            .filter(|((index, _), _)| *index == ifindex)
            .map(|((ifindex, mac), remote)| FdbEntry {
                ifindex: *ifindex,
                mac: *mac,
                remote: *remote,
                permanent: true,
            })
            .collect();
        self.dump("FDB entries", found)
    }

    fn set_fdb(&mut self, ifindex: u32, mac: Mac, remote: IpAddr) -> Result<(), Error> {
        self.operate(Operation::SetFdb(ifindex, mac, remote), Some(Hint::Neighbour), |kernel| {
            let link = kernel.links.get(&ifindex).ok_or(Refusal::new(Errno::ENODEV))?;
            if link.kind.as_deref() != Some("vxlan") {
                // Other devices take it for one more address to listen to.
                return Ok(());
            }
            kernel.fdb.insert((ifindex, mac), remote);
            Ok(())
        })
    }

    fn delete_fdb(&mut self, ifindex: u32, mac: Mac, remote: IpAddr) -> Result<(), Error> {
        self.operate(Operation::DeleteFdb(ifindex, mac, remote), Some(Hint::Neighbour), |kernel| {
            let there = *kernel.fdb.get(&(ifindex, mac)).ok_or(Refusal::new(Errno::ENOENT))?;
            if there == remote {
                kernel.fdb.remove(&(ifindex, mac));
            }
            Ok(())
        })
    }
}
