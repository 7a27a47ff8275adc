//! Nexthop objects of the mock.

use nix::errno::Errno;

use super::{MockKernel, refused};
use crate::error::Refusal;
use crate::nexthop::{Nexthop, NexthopKind};
use crate::route::Family;

impl MockKernel {
    pub(super) fn make_nexthop(&mut self, kind: &NexthopKind, protocol: u8) -> Result<u32, Refusal> {
        self.check_nexthop(kind)?;
        while self.next_nexthop == 0 || self.nexthops.contains_key(&self.next_nexthop) {
            self.next_nexthop += 1;
        }
        let id = self.next_nexthop;
        self.next_nexthop += 1;
        self.nexthops.insert(id, Nexthop { id, protocol, kind: kind.clone() });
        Ok(id)
    }

    pub(super) fn change_nexthop(
        &mut self,
        id: u32,
        kind: &NexthopKind,
        protocol: u8,
    ) -> Result<(), Refusal> {
        let there = self.nexthops.get(&id).ok_or(Refusal::new(Errno::ENOENT))?;
        self.check_nexthop(kind)?;
        let alike = match (&there.kind, kind) {
            (NexthopKind::Group { resilient: before, .. }, NexthopKind::Group { resilient, .. }) => {
                before == resilient
            }
            (NexthopKind::Single { .. }, NexthopKind::Single { .. }) => true,
            _ => false,
        };
        // An IPv4 way cannot come under IPv6 routes.
        let on_it = |route: &crate::Route| route.nexthop_id.is_some_and(|on| self.within(id, on));
        let v6_routes =
            self.routes.values().flatten().any(|route| route.key.family() == Family::Ipv6 && on_it(route));
        if !alike || (v6_routes && self.has_v4(kind)) {
            return refused(Errno::EINVAL);
        }
        self.nexthops.insert(id, Nexthop { id, protocol, kind: kind.clone() });
        Ok(())
    }

    /// Takes an object away, with the groups it leaves empty and with all routes on what is gone.
    pub(super) fn drop_nexthop(&mut self, id: u32) -> Result<(), Refusal> {
        self.nexthops.remove(&id).ok_or(Refusal::new(Errno::ENOENT))?;
        let mut gone = vec![id];
        for (group, object) in &mut self.nexthops {
            if let NexthopKind::Group { members, .. } = &mut object.kind {
                members.retain(|(member, _)| *member != id);
                if members.is_empty() {
                    gone.push(*group);
                }
            }
        }
        self.nexthops.retain(|id, _| !gone.contains(id));
        self.retain_routes(|route| route.nexthop_id.is_none_or(|id| !gone.contains(&id)));
        Ok(())
    }

    /// What Linux does in silence when a link goes down, loses its carrier or is deleted.
    pub(super) fn flush_nexthops(&mut self, ifindex: u32) {
        let lost: Vec<u32> = self
            .nexthops
            .values()
            .filter(
                |object| matches!(&object.kind, NexthopKind::Single { hop, .. } if hop.ifindex == ifindex),
            )
            .map(|object| object.id)
            .collect();
        for id in lost {
            // Each is there: no single object goes with another.
            let _ = self.drop_nexthop(id);
        }
    }

    /// What Linux asks of routes that name an object.
    pub(super) fn check_use(&self, family: Family, id: u32) -> Result<(), Refusal> {
        match self.nexthops.get(&id) {
            None => refused(Errno::EINVAL),
            Some(object) if family == Family::Ipv6 && self.has_v4(&object.kind) => refused(Errno::EINVAL),
            Some(_) => Ok(()),
        }
    }

    fn has_v4(&self, kind: &NexthopKind) -> bool {
        match kind {
            NexthopKind::Single { family, .. } => *family == Family::Ipv4,
            NexthopKind::Group { members, .. } => members
                .iter()
                .filter_map(|(id, _)| self.nexthops.get(id))
                .any(|member| matches!(member.kind, NexthopKind::Single { family: Family::Ipv4, .. })),
            NexthopKind::Other => false,
        }
    }

    /// Whether a route on object `on` is a route on `id`.
    fn within(&self, id: u32, on: u32) -> bool {
        id == on
            || matches!(
                self.nexthops.get(&on).map(|object| &object.kind),
                Some(NexthopKind::Group { members, .. }) if members.iter().any(|(member, _)| *member == id)
            )
    }

    fn check_nexthop(&self, kind: &NexthopKind) -> Result<(), Refusal> {
        match kind {
            NexthopKind::Single { hop, .. } => {
                match self.links.get(&hop.ifindex) {
                    None => return refused(Errno::EINVAL),
                    Some(link) if !link.up() => return refused(Errno::ENETDOWN),
                    Some(_) => {}
                }
                self.check_hop(hop)
            }
            NexthopKind::Group { members, .. } => {
                let single = |id: &u32| {
                    matches!(
                        self.nexthops.get(id).map(|object| &object.kind),
                        Some(NexthopKind::Single { .. })
                    )
                };
                let twice = members.windows(2).any(|pair| pair[0].0 == pair[1].0);
                let weights = members.iter().all(|(_, weight)| (1..=255).contains(weight));
                match !members.is_empty() && !twice && weights && members.iter().all(|(id, _)| single(id)) {
                    true => Ok(()),
                    false => refused(Errno::EINVAL),
                }
            }
            NexthopKind::Other => refused(Errno::EINVAL),
        }
    }
}
