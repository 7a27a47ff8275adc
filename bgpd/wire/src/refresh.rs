//! The ROUTE-REFRESH message. Pure. RFC 2918, RFC 7313.

use crate::{AfiSafi, Family};

/// What a ROUTE-REFRESH asks or says (RFC 7313 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefreshKind {
    /// Send the family again (RFC 2918).
    Request,
    /// The beginning of a refresh.
    BeginOfRefresh,
    /// The end of a refresh: what was not sent again is gone.
    EndOfRefresh,
    /// A subtype this speaker does not know: to be ignored.
    Unknown(u8),
}

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteRefresh {
    /// Of which family; possibly one this speaker does not route, to be ignored then.
    pub family: AfiSafi,
    /// What it asks or says.
    pub kind: RefreshKind,
}

impl RouteRefresh {
    /// A request to send the family again.
    pub fn request(family: Family) -> Self {
        RouteRefresh { family: family.afi_safi(), kind: RefreshKind::Request }
    }

    /// Reads the body, whose length the header check has fixed.
    pub(crate) fn decode_body(body: [u8; 4]) -> Self {
        let [a, b, subtype, safi] = body;
        let kind = match subtype {
            0 => RefreshKind::Request,
            1 => RefreshKind::BeginOfRefresh,
            2 => RefreshKind::EndOfRefresh,
            other => RefreshKind::Unknown(other),
        };
        RouteRefresh { family: AfiSafi { afi: u16::from_be_bytes([a, b]), safi }, kind }
    }

    /// Writes the body.
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        let subtype = match self.kind {
            RefreshKind::Request => 0,
            RefreshKind::BeginOfRefresh => 1,
            RefreshKind::EndOfRefresh => 2,
            RefreshKind::Unknown(other) => other,
        };
        out.extend_from_slice(&self.family.afi.to_be_bytes());
        out.extend_from_slice(&[subtype, self.family.safi]);
    }
}
