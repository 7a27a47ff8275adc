//! Tunnel devices and FDB entries to and from bytes (`linux/if_link.h`, `linux/if_tunnel.h`, `linux/neighbour.h`).
//! Pure.

use std::net::IpAddr;

use crate::attribute::{self, Attributes};
use crate::link::Mac;
use crate::tunnel::{FdbEntry, Tunnel, TunnelKind};

/// `RTM_NEWLINK`.
pub(crate) const NEW_LINK: u16 = 16;
/// `RTM_NEWNEIGH`.
pub(crate) const NEW_NEIGHBOUR: u16 = 28;
/// `RTM_DELNEIGH`.
pub(crate) const DELETE_NEIGHBOUR: u16 = 29;
/// `RTM_GETNEIGH`.
pub(crate) const GET_NEIGHBOUR: u16 = 30;

const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;

const VXLAN_ID: u16 = 1;
const VXLAN_GROUP: u16 = 2;
const VXLAN_LINK: u16 = 3;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_TTL: u16 = 5;
const VXLAN_TOS: u16 = 6;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PROXY: u16 = 11;
const VXLAN_RSC: u16 = 12;
const VXLAN_L2MISS: u16 = 13;
const VXLAN_L3MISS: u16 = 14;
const VXLAN_PORT: u16 = 15;
const VXLAN_GROUP6: u16 = 16;
const VXLAN_LOCAL6: u16 = 17;
const VXLAN_UDP_CSUM: u16 = 18;
const VXLAN_ZERO_CSUM6_TX: u16 = 19;
const VXLAN_ZERO_CSUM6_RX: u16 = 20;
const VXLAN_GBP: u16 = 23;
const VXLAN_COLLECT_METADATA: u16 = 25;
const VXLAN_GPE: u16 = 27;
const VXLAN_DF: u16 = 29;

const TUN_LINK: u16 = 1;
const TUN_LOCAL: u16 = 2;
const TUN_REMOTE: u16 = 3;
const TUN_TTL: u16 = 4;
const TUN_TOS: u16 = 5;
const TUN_PROTO: u16 = 9;
const TUN_PMTUDISC: u16 = 10;
const TUN_ENCAP_TYPE: u16 = 15;
const TUN_COLLECT_METADATA: u16 = 19;

/// Time to live of outer packets.
const TTL: u8 = 64;
/// Take the type of service of the inner packet.
const TOS_INHERIT: u8 = 1;
/// `VXLAN_DF_SET`.
const DF_SET: u8 = 1;
const PROTO_IPIP: u8 = 4;

const AF_BRIDGE: u8 = 7;
const NTF_SELF: u8 = 2;
const NUD_PERMANENT: u16 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// `struct ndmsg`: family, padding, index, state, flags, type.
const NEIGHBOUR_HEADER: usize = 12;

fn link_header(ifindex: u32) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    // `struct ifinfomsg`: family, padding, type; index; flags; which flags count.
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&ifindex.to_ne_bytes());
    body.extend_from_slice(&IFF_UP.to_ne_bytes());
    body.extend_from_slice(&IFF_UP.to_ne_bytes());
    body
}

/// The body that makes a tunnel device, up from the start.
pub(crate) fn new(tunnel: &Tunnel) -> Vec<u8> {
    let mut body = link_header(0);
    attribute::put_text(&mut body, IFLA_IFNAME, &tunnel.name);
    attribute::put_u32(&mut body, IFLA_MTU, tunnel.mtu);
    if let (TunnelKind::Vxlan { .. }, Some(mac)) = (tunnel.kind, tunnel.mac) {
        attribute::put(&mut body, IFLA_ADDRESS, &mac.0);
    }
    put_kind(&mut body, tunnel.kind, true);
    body
}

/// The body that makes a device the tunnel it should be, as far as the kernel can, and sets it up. VXLAN refuses an MTU
/// in the same message.
pub(crate) fn change(ifindex: u32, kind: TunnelKind) -> Vec<u8> {
    let mut body = link_header(ifindex);
    put_kind(&mut body, kind, false);
    body
}

fn put_kind(body: &mut Vec<u8>, kind: TunnelKind, create: bool) {
    attribute::nest(body, IFLA_LINKINFO, |body| {
        attribute::put_text(body, IFLA_INFO_KIND, kind.name());
        attribute::nest(body, IFLA_INFO_DATA, |body| match kind {
            TunnelKind::Vxlan { local, vni, port } => put_vxlan(body, local, vni, port, create),
            TunnelKind::Ipip { local } => {
                attribute::put(body, TUN_LOCAL, &local.octets());
                attribute::put(body, TUN_TTL, &[TTL]);
                attribute::put(body, TUN_TOS, &[TOS_INHERIT]);
                attribute::put(body, TUN_PMTUDISC, &[1]);
            }
        });
    });
}

fn put_vxlan(body: &mut Vec<u8>, local: IpAddr, vni: u32, port: u16, create: bool) {
    let field = if local.is_ipv4() { VXLAN_LOCAL } else { VXLAN_LOCAL6 };
    attribute::put_address(body, field, local);
    attribute::put(body, VXLAN_TTL, &[TTL]);
    attribute::put(body, VXLAN_TOS, &[TOS_INHERIT]);
    attribute::put(body, VXLAN_DF, &[DF_SET]);
    attribute::put(body, VXLAN_LEARNING, &[0]);
    if create {
        // The kernel refuses even an unchanged value of most of these for a device that is there.
        attribute::put_u32(body, VXLAN_ID, vni);
        attribute::put(body, VXLAN_PORT, &port.to_be_bytes());
        match local {
            IpAddr::V4(_) => attribute::put(body, VXLAN_UDP_CSUM, &[1]),
            IpAddr::V6(_) => {
                attribute::put(body, VXLAN_ZERO_CSUM6_TX, &[0]);
                attribute::put(body, VXLAN_ZERO_CSUM6_RX, &[1]);
            }
        }
    }
}

/// What tunnel a link is by the contents of its `IFLA_INFO_DATA`; `None` when it is none as [`new`] makes them.
pub(crate) fn parse(kind: &str, data: &[u8]) -> Option<TunnelKind> {
    match kind {
        "vxlan" => parse_vxlan(data),
        "ipip" => parse_ipip(data),
        _ => None,
    }
}

fn parse_vxlan(data: &[u8]) -> Option<TunnelKind> {
    let (mut vni, mut local, mut port) = (None, None, None);
    let (mut ttl, mut tos, mut df, mut learning) = (0, 0, 0, 1);
    let (mut checksum, mut zero6_tx, mut zero6_rx) = (0, 0, 0);
    for attribute in Attributes(data) {
        let number = attribute.number();
        match attribute.kind {
            VXLAN_ID => vni = number,
            VXLAN_LOCAL | VXLAN_LOCAL6 => local = attribute.address(),
            VXLAN_PORT => port = attribute.value.try_into().ok().map(u16::from_be_bytes),
            VXLAN_TTL => ttl = number?,
            VXLAN_TOS => tos = number?,
            VXLAN_DF => df = number?,
            VXLAN_LEARNING => learning = number?,
            VXLAN_UDP_CSUM => checksum = number?,
            VXLAN_ZERO_CSUM6_TX => zero6_tx = number?,
            VXLAN_ZERO_CSUM6_RX => zero6_rx = number?,
            VXLAN_GROUP | VXLAN_GROUP6 if attribute.value.iter().any(|byte| *byte != 0) => return None,
            // A flag without a value is one that is set.
            VXLAN_GBP | VXLAN_GPE => return None,
            VXLAN_LINK | VXLAN_PROXY | VXLAN_RSC | VXLAN_L2MISS | VXLAN_L3MISS | VXLAN_COLLECT_METADATA
                if number != Some(0) =>
            {
                return None;
            }
            _ => {}
        }
    }
    let local = local?;
    let checksums = if local.is_ipv4() { checksum == 1 } else { zero6_tx == 0 && zero6_rx == 1 };
    let as_made = (ttl, tos, df, learning) == (TTL.into(), TOS_INHERIT.into(), DF_SET.into(), 0);
    (checksums && as_made).then_some(TunnelKind::Vxlan { local, vni: vni?, port: port? })
}

fn parse_ipip(data: &[u8]) -> Option<TunnelKind> {
    let (mut local, mut ttl, mut tos, mut discovery, mut proto) = (None, 0, 0, 0, None);
    for attribute in Attributes(data) {
        let number = attribute.number();
        match attribute.kind {
            TUN_LOCAL => local = attribute.address(),
            TUN_TTL => ttl = number?,
            TUN_TOS => tos = number?,
            TUN_PMTUDISC => discovery = number?,
            TUN_PROTO => proto = number,
            TUN_REMOTE if attribute.value.iter().any(|byte| *byte != 0) => return None,
            TUN_COLLECT_METADATA => return None,
            TUN_LINK | TUN_ENCAP_TYPE if number != Some(0) => return None,
            _ => {}
        }
    }
    let as_made = (ttl, tos, discovery) == (TTL.into(), TOS_INHERIT.into(), 1);
    let ipv4_inside = proto.is_none_or(|proto| proto == PROTO_IPIP.into());
    match local {
        Some(IpAddr::V4(local)) if as_made && ipv4_inside => Some(TunnelKind::Ipip { local }),
        _ => None,
    }
}

/// The body about one FDB entry: to make or replace it, or to delete it.
pub(crate) fn fdb(ifindex: u32, mac: Mac, remote: IpAddr) -> Vec<u8> {
    let mut body = neighbour_header(ifindex, NUD_PERMANENT, NTF_SELF);
    attribute::put(&mut body, NDA_LLADDR, &mac.0);
    attribute::put_address(&mut body, NDA_DST, remote);
    body
}

/// The body of a request for all FDB entries of a device.
pub(crate) fn dump_fdb(ifindex: u32) -> Vec<u8> {
    neighbour_header(ifindex, 0, 0)
}

fn neighbour_header(ifindex: u32, state: u16, flags: u8) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    body.extend_from_slice(&[AF_BRIDGE, 0, 0, 0]);
    body.extend_from_slice(&ifindex.to_ne_bytes());
    body.extend_from_slice(&state.to_ne_bytes());
    body.extend_from_slice(&[flags, 0]);
    body
}

/// Reads `RTM_NEWNEIGH` about an FDB entry with a remote; `None` for other entries.
pub(crate) fn parse_fdb(payload: &[u8]) -> Option<FdbEntry> {
    let (header, attributes) = payload.split_at_checked(NEIGHBOUR_HEADER)?;
    if header[0] != AF_BRIDGE {
        return None;
    }
    let (mut mac, mut remote) = (None, None);
    for attribute in Attributes(attributes) {
        match attribute.kind {
            NDA_LLADDR => mac = attribute.value.try_into().ok().map(Mac),
            NDA_DST => remote = attribute.address(),
            _ => {}
        }
    }
    Some(FdbEntry {
        ifindex: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
        mac: mac?,
        remote: remote?,
        permanent: u16::from_ne_bytes([header[8], header[9]]) & NUD_PERMANENT != 0,
    })
}
