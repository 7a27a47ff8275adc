//! What decides how a path looks to a peer: members with equal parameters share an update group. Pure.
//!
//! RFC 4271 §5.1.3 and RFC 2545 (which address is "this speaker" in a session), RFC 4456 (role).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use causeway_bgp_wire::{Asn, Family, FamilySet, NextHop};

use crate::config::{Config, NextHopMode, PeerSettings};
use crate::event::SessionInfo;
use crate::policy::ExportPolicy;
use crate::rib::SessionKind;

/// Everything about a member that what it is sent depends on.
#[derive(Clone, Debug)]
pub struct ExportParams {
    /// eBGP or iBGP.
    pub kind: SessionKind,
    /// The AS number shown to this peer: put before the AS_PATH in eBGP.
    pub local_as: Asn,
    /// What becomes of next hops.
    pub next_hop_mode: NextHopMode,
    /// This speaker's address as next hop of IPv4 prefixes; without one no such next hop is sent.
    pub self_v4: Option<Ipv4Addr>,
    /// This speaker's address as next hop of IPv6 prefixes; without one no such next hop is sent.
    pub self_v6: Option<Ipv6Addr>,
    /// This speaker's link-local address on the link it shares with the peer (RFC 2545).
    pub link_local: Option<Ipv6Addr>,
    /// The peer is a client of this reflector; means nothing in eBGP.
    pub client: bool,
    /// The cluster this speaker reflects for (RFC 4456 §7: the BGP identifier where none is configured).
    pub cluster_id: Ipv4Addr,
    /// Families negotiated.
    pub families: FamilySet,
    /// AS numbers take four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Messages may take 65,535 octets (RFC 8654).
    pub extended_message: bool,
    /// Rules for what it is sent.
    pub policy: Arc<ExportPolicy>,
}

impl ExportParams {
    /// The parameters of an Established session.
    pub fn for_session(session: &SessionInfo, settings: &PeerSettings, config: &Config) -> Self {
        let (self_v4, self_v6) = match session.local_address {
            IpAddr::V4(address) => (Some(address), config.address_v6),
            IpAddr::V6(address) if address.is_unicast_link_local() => (config.address_v4, config.address_v6),
            IpAddr::V6(address) => (config.address_v4, Some(address)),
        };
        let kind = if session.is_ibgp() { SessionKind::Ibgp } else { SessionKind::Ebgp };
        ExportParams {
            kind,
            local_as: session.local_as,
            next_hop_mode: settings.next_hop_mode,
            self_v4,
            self_v6,
            link_local: session.local_link_local,
            client: settings.client && kind == SessionKind::Ibgp,
            cluster_id: config.cluster_id.unwrap_or(config.router_id),
            families: session.families,
            four_octet_as: session.four_octet_as,
            extended_message: session.extended_message,
            policy: settings.export.clone(),
        }
    }

    /// The group key of one family; `None` where it is not negotiated.
    pub(super) fn group_key(&self, family: Family) -> Option<GroupKey> {
        if !self.families.contains(family) {
            return None;
        }
        let self_next_hop = match family {
            Family::Ipv4Unicast => self.self_v4.map(NextHop::from),
            Family::Ipv6Unicast => {
                self.self_v6.map(|global| NextHop { global: global.into(), link_local: self.link_local })
            }
        };
        let ibgp = self.kind == SessionKind::Ibgp;
        Some(GroupKey {
            kind: self.kind,
            local_as: self.local_as,
            next_hop_mode: self.next_hop_mode,
            self_next_hop,
            client: ibgp && self.client,
            cluster_id: if ibgp { self.cluster_id } else { Ipv4Addr::UNSPECIFIED },
            four_octet_as: self.four_octet_as,
            extended_message: self.extended_message,
            policy: self.policy.clone(),
        })
    }
}

/// [`ExportParams`] of one family, without what makes no difference there.
#[derive(Clone, Debug)]
pub(super) struct GroupKey {
    pub kind: SessionKind,
    pub local_as: Asn,
    pub next_hop_mode: NextHopMode,
    pub self_next_hop: Option<NextHop>,
    pub client: bool,
    pub cluster_id: Ipv4Addr,
    pub four_octet_as: bool,
    pub extended_message: bool,
    pub policy: Arc<ExportPolicy>,
}

impl PartialEq for GroupKey {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.local_as == other.local_as
            && self.next_hop_mode == other.next_hop_mode
            && self.self_next_hop == other.self_next_hop
            && self.client == other.client
            && self.cluster_id == other.cluster_id
            && self.four_octet_as == other.four_octet_as
            && self.extended_message == other.extended_message
            && (Arc::ptr_eq(&self.policy, &other.policy) || self.policy == other.policy)
    }
}
