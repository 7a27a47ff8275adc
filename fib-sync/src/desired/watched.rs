//! Which addresses matter to resolution: the next hops of groups and the ends of their tunnels. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use causeway_api::fib::GroupMember;

/// How many groups name each address.
#[derive(Debug, Default)]
pub(super) struct Watched(BTreeMap<IpAddr, u32>);

impl Watched {
    /// A group names these.
    pub(super) fn add(&mut self, members: &[GroupMember], backups: &[GroupMember]) {
        for address in addresses(members, backups) {
            *self.0.entry(address).or_insert(0) += 1;
        }
    }

    /// A group names these no longer.
    pub(super) fn remove(&mut self, members: &[GroupMember], backups: &[GroupMember]) {
        for address in addresses(members, backups) {
            if let Some(count) = self.0.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(&address);
                }
            }
        }
    }

    /// Whether some address lies between two, both included.
    pub(super) fn any(&self, first: IpAddr, last: IpAddr) -> bool {
        self.0.range(first..=last).next().is_some()
    }
}

fn addresses<'a>(
    members: &'a [GroupMember],
    backups: &'a [GroupMember],
) -> impl Iterator<Item = IpAddr> + 'a {
    members.iter().chain(backups).flat_map(|member| {
        let endpoint = member.tunnel.as_ref().map(|tunnel| tunnel.address);
        std::iter::once(member.next_hop.address).chain(endpoint)
    })
}
