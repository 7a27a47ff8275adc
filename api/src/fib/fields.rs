//! The fields of the feed's messages: how each is written and read back. Pure.
//!
//! [`super::codec`] has the messages; the layout of the fields is described there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::{
    DecodeError, GroupMember, Link, MAX_GROUP, MAX_SUBNETS, MAX_TEXT, MAX_VNI, NextHop, TunnelEndpoint,
    TunnelType, Via,
};

/// Appends fields.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.0.push(value.into());
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn octets(&mut self, address: &IpAddr) {
        match address {
            IpAddr::V4(a) => self.0.extend_from_slice(&a.octets()),
            IpAddr::V6(a) => self.0.extend_from_slice(&a.octets()),
        }
    }

    pub(super) fn address(&mut self, address: &IpAddr) {
        self.u8(if address.is_ipv4() { 4 } else { 6 });
        self.octets(address);
    }

    pub(super) fn prefix(&mut self, prefix: &IpNetwork) {
        self.u8(if prefix.is_ipv4() { 4 } else { 6 });
        self.u8(prefix.prefix());
        self.octets(&prefix.ip());
    }

    pub(super) fn next_hop(&mut self, next_hop: &NextHop) {
        self.address(&next_hop.address);
        self.u32(next_hop.scope);
    }

    pub(super) fn members(&mut self, members: &[GroupMember]) {
        let members = &members[..members.len().min(MAX_GROUP)];
        self.u16(members.len() as u16);
        for member in members {
            self.next_hop(&member.next_hop);
            self.u8(member.weight);
            match &member.tunnel {
                None => self.u8(0),
                Some(tunnel) => self.tunnel(tunnel),
            }
        }
    }

    fn tunnel(&mut self, tunnel: &TunnelEndpoint) {
        self.u8(match tunnel.kind {
            TunnelType::Any => 1,
            TunnelType::Vxlan => 2,
            TunnelType::Ipip => 3,
        });
        self.address(&tunnel.address);
        self.bool(tunnel.vni.is_some());
        if let Some(vni) = tunnel.vni {
            self.u32(vni);
        }
        self.bool(tunnel.mac.is_some());
        if let Some(mac) = tunnel.mac {
            self.0.extend_from_slice(&mac);
        }
    }

    pub(super) fn text(&mut self, text: &str) {
        let end = (0..=text.len().min(MAX_TEXT)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.u16(end as u16);
        self.0.extend_from_slice(&text.as_bytes()[..end]);
    }

    pub(super) fn via(&mut self, via: Via) {
        self.u8(match via {
            Via::Direct => 0,
            Via::Ipip => 1,
            Via::Vxlan => 2,
            Via::Recursive => 3,
            Via::Local => 4,
        });
    }

    pub(super) fn link(&mut self, link: &Link) {
        self.text(&link.device);
        self.u32(link.ifindex);
        let subnets = &link.subnets[..link.subnets.len().min(MAX_SUBNETS)];
        self.u16(subnets.len() as u16);
        for subnet in subnets {
            self.prefix(subnet);
        }
    }
}

/// Reads the fields of one body; every error names the message type and the field.
pub(super) struct Reader<'a> {
    pub(super) kind: u8,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Result<Reader<'a>, DecodeError> {
        let (kind, rest) = body.split_first().ok_or(DecodeError::FrameLength(0))?;
        Ok(Reader { kind: *kind, rest })
    }

    pub(super) fn end(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes { kind: self.kind, left }),
        }
    }

    pub(super) fn bad(&self, field: &'static str, value: u64) -> DecodeError {
        DecodeError::BadValue { kind: self.kind, field, value }
    }

    pub(super) fn bytes<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated { kind: self.kind, field })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.bytes::<1>(field)?[0])
    }

    pub(super) fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.bad(field, other.into())),
        }
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.bytes(field)?))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.bytes(field)?))
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.bytes(field)?))
    }

    pub(super) fn count(
        &mut self,
        field: &'static str,
        least: usize,
        most: usize,
    ) -> Result<usize, DecodeError> {
        let count = usize::from(self.u16(field)?);
        if (least..=most).contains(&count) { Ok(count) } else { Err(self.bad(field, count as u64)) }
    }

    fn octets(&mut self, field: &'static str, family: u8) -> Result<IpAddr, DecodeError> {
        match family {
            4 => Ok(IpAddr::V4(Ipv4Addr::from(self.bytes::<4>(field)?))),
            6 => Ok(IpAddr::V6(Ipv6Addr::from(self.bytes::<16>(field)?))),
            other => Err(self.bad(field, other.into())),
        }
    }

    pub(super) fn address(&mut self, field: &'static str) -> Result<IpAddr, DecodeError> {
        let family = self.u8(field)?;
        self.octets(field, family)
    }

    pub(super) fn prefix(&mut self, field: &'static str) -> Result<IpNetwork, DecodeError> {
        let family = self.u8(field)?;
        let length = self.u8(field)?;
        let address = self.octets(field, family)?;
        IpNetwork::new(address, length).map_err(|_| self.bad(field, length.into()))
    }

    pub(super) fn canonical_prefix(&mut self, field: &'static str) -> Result<IpNetwork, DecodeError> {
        let prefix = self.prefix(field)?;
        if prefix.network() == prefix.ip() {
            Ok(prefix)
        } else {
            Err(DecodeError::HostBits { kind: self.kind, prefix })
        }
    }

    pub(super) fn next_hop(&mut self, field: &'static str) -> Result<NextHop, DecodeError> {
        Ok(NextHop { address: self.address(field)?, scope: self.u32(field)? })
    }

    pub(super) fn members(
        &mut self,
        field: &'static str,
        least: usize,
    ) -> Result<Vec<GroupMember>, DecodeError> {
        let count = self.count(field, least, MAX_GROUP)?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            let next_hop = self.next_hop("member")?;
            let weight = self.u8("weight")?;
            if weight == 0 {
                return Err(self.bad("weight", 0));
            }
            members.push(GroupMember { next_hop, weight, tunnel: self.tunnel()? });
        }
        Ok(members)
    }

    fn tunnel(&mut self) -> Result<Option<TunnelEndpoint>, DecodeError> {
        let kind = match self.u8("tunnel")? {
            0 => return Ok(None),
            1 => TunnelType::Any,
            2 => TunnelType::Vxlan,
            3 => TunnelType::Ipip,
            other => return Err(self.bad("tunnel", other.into())),
        };
        let address = self.address("tunnel endpoint")?;
        let vni = if self.bool("vni given")? { Some(self.u32("vni")?) } else { None };
        if let Some(vni) = vni
            && vni > MAX_VNI
        {
            return Err(self.bad("vni", vni.into()));
        }
        let mac = if self.bool("mac given")? { Some(self.bytes("mac")?) } else { None };
        Ok(Some(TunnelEndpoint { kind, address, vni, mac }))
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let length = self.count(field, 0, MAX_TEXT)?;
        let (text, rest) =
            self.rest.split_at_checked(length).ok_or(DecodeError::Truncated { kind: self.kind, field })?;
        self.rest = rest;
        match std::str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(DecodeError::BadText { kind: self.kind, field }),
        }
    }

    pub(super) fn via(&mut self) -> Result<Via, DecodeError> {
        match self.u8("via")? {
            0 => Ok(Via::Direct),
            1 => Ok(Via::Ipip),
            2 => Ok(Via::Vxlan),
            3 => Ok(Via::Recursive),
            4 => Ok(Via::Local),
            other => Err(self.bad("via", other.into())),
        }
    }

    pub(super) fn link(&mut self) -> Result<Link, DecodeError> {
        let device = self.text("device")?;
        let ifindex = self.u32("ifindex")?;
        let count = self.count("subnets", 0, MAX_SUBNETS)?;
        let mut subnets = Vec::with_capacity(count);
        for _ in 0..count {
            subnets.push(self.prefix("subnet")?);
        }
        Ok(Link { device, ifindex, subnets })
    }
}
