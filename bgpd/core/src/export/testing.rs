//! Paths, sources and group keys for the tests of export.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use causeway_bgp_wire::{AsPath, Asn, Family, FamilySet, Origin, PathAttributes};

use super::params::{ExportParams, GroupKey};
use crate::config::NextHopMode;
use crate::event::PeerId;
use crate::policy::ExportPolicy;
use crate::rib::{SessionKind, Source};

/// This speaker's IPv4 address.
pub const SELF: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// This speaker's IPv6 address.
pub const SELF_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 100);

/// Attributes that differ by a number.
pub fn attributes(number: u32) -> PathAttributes {
    let mut attributes = PathAttributes::new(Origin::Igp, Ipv4Addr::new(192, 0, 2, 1).into());
    attributes.as_path = AsPath::from_sequence([Asn(64601), Asn(number)]);
    attributes
}

/// From an external peer whose BGP identifier is its number.
pub fn from_ebgp(peer: u32) -> Source {
    Source::Peer { id: PeerId(peer), kind: SessionKind::Ebgp, client: false, router_id: Ipv4Addr::from(peer) }
}

/// From an internal peer whose BGP identifier is its number.
pub fn from_ibgp(peer: u32, client: bool) -> Source {
    Source::Peer { id: PeerId(peer), kind: SessionKind::Ibgp, client, router_id: Ipv4Addr::from(peer) }
}

/// Parameters of a member with both families and everything negotiated.
pub fn params(kind: SessionKind, client: bool) -> ExportParams {
    ExportParams {
        kind,
        local_as: Asn(64512),
        next_hop_mode: NextHopMode::Auto,
        self_v4: Some(SELF),
        self_v6: Some(SELF_V6),
        link_local: Some("fe80::100".parse().unwrap()),
        client,
        cluster_id: Ipv4Addr::new(244, 0, 0, 1),
        families: FamilySet::ALL,
        four_octet_as: true,
        extended_message: false,
        policy: Arc::new(ExportPolicy::accept_all()),
    }
}

/// The IPv4 group of [`params`].
pub fn key(kind: SessionKind, client: bool) -> GroupKey {
    params(kind, client).group_key(Family::Ipv4Unicast).unwrap()
}

/// The IPv6 group of [`params`].
pub fn key_v6(kind: SessionKind) -> GroupKey {
    params(kind, false).group_key(Family::Ipv6Unicast).unwrap()
}
