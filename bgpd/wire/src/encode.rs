//! UPDATE messages out of prefixes that share attributes: the attributes are encoded once, the prefixes packed behind
//! them into as few messages as possible, with no allocation per prefix. Pure.
//! RFC 4271 §4.3, RFC 4724 §2, RFC 4760, RFC 7606 §5.1 (one kind of prefixes a message, MP attributes first), RFC 8950.

use std::marker::PhantomData;
use std::net::IpAddr;

use crate::attr::{PathAttributes, code, encode_attributes, flag, write_attribute};
use crate::header::{self, HEADER_LEN, MessageType};
use crate::nlri::{self, MAX_NLRI_LEN};
use crate::{Family, FamilySet, MAX_EXTENDED_MESSAGE_LEN, MAX_MESSAGE_LEN, Nlri, PrefixKey};

/// What encoding an UPDATE depends on: the outcome of the OPEN exchange. Peers with equal contexts are sent equal octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EncodeContext {
    /// AS numbers take four octets; otherwise AS_TRANS, AS4_PATH and AS4_AGGREGATOR are used (RFC 6793).
    pub four_octet_as: bool,
    /// Messages may exceed 4,096 octets (RFC 8654).
    pub extended_message: bool,
    /// Families whose prefixes go with a path identifier (RFC 7911: we send, the peer receives).
    pub add_path: FamilySet,
    /// Families whose next hop may be an IPv6 one although they are not (RFC 8950).
    pub ipv6_next_hop: FamilySet,
}

impl Default for EncodeContext {
    /// Four-octet AS numbers and nothing else.
    fn default() -> Self {
        EncodeContext {
            four_octet_as: true,
            extended_message: false,
            add_path: FamilySet::EMPTY,
            ipv6_next_hop: FamilySet::EMPTY,
        }
    }
}

impl EncodeContext {
    fn max_message_len(&self) -> usize {
        if self.extended_message { MAX_EXTENDED_MESSAGE_LEN } else { MAX_MESSAGE_LEN }
    }
}

/// Why a path cannot be advertised to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The attributes leave no room for a prefix in a message of the size negotiated.
    #[error("attributes of {octets} octets leave no room for a prefix in a message of {limit}")]
    TooLarge {
        /// What the attributes take.
        octets: usize,
        /// The longest message.
        limit: usize,
    },
    /// The next hop is of an address family the peer cannot take for these prefixes.
    #[error("next hop {next_hop} does not go with {family} prefixes to this peer")]
    NextHopFamily {
        /// The next hop.
        next_hop: IpAddr,
        /// The prefixes' family.
        family: Family,
    },
}

/// Attributes ready to be sent with any number of prefixes of one family, to every peer of the same context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedAttributes<P> {
    /// Everything but MP_REACH_NLRI.
    attributes: Vec<u8>,
    /// MP_REACH_NLRI up to its prefixes, without its flags, type and length; empty where the prefixes go in the body.
    mp_reach: Vec<u8>,
    context: EncodeContext,
    family: PhantomData<P>,
}

/// Octets of an UPDATE's two length fields.
const LENGTHS: usize = 4;
/// Octets of an attribute's flags, type and two-octet length.
const ATTRIBUTE_HEADER: usize = 4;

impl<P: PrefixKey> EncodedAttributes<P> {
    /// Encodes the attributes. IPv4 prefixes with an IPv4 next hop go into the body of the UPDATE, all else into
    /// MP_REACH_NLRI. What is set is sent: leaving out LOCAL_PREF and the like towards an external peer is policy.
    ///
    /// # Errors
    /// The path cannot be advertised to such a peer.
    pub fn new(attributes: &PathAttributes, context: &EncodeContext) -> Result<Self, EncodeError> {
        let next_hop = attributes.next_hop;
        let mut mp_reach = Vec::new();
        match (next_hop.global, P::FAMILY) {
            (IpAddr::V4(_), Family::Ipv4Unicast) => {}
            (IpAddr::V6(global), family)
                if family == Family::Ipv6Unicast || context.ipv6_next_hop.contains(family) =>
            {
                let pair = family.afi_safi();
                mp_reach.extend_from_slice(&pair.afi.to_be_bytes());
                mp_reach.extend_from_slice(&[pair.safi, if next_hop.link_local.is_some() { 32 } else { 16 }]);
                mp_reach.extend_from_slice(&global.octets());
                mp_reach.extend(next_hop.link_local.into_iter().flat_map(|address| address.octets()));
                mp_reach.push(0);
            }
            (next_hop, family) => return Err(EncodeError::NextHopFamily { next_hop, family }),
        }
        let mut octets = Vec::with_capacity(128);
        let fits = encode_attributes(attributes, context.four_octet_as, mp_reach.is_empty(), &mut octets);
        let encoded =
            EncodedAttributes { attributes: octets, mp_reach, context: *context, family: PhantomData };
        let limit = context.max_message_len();
        if fits && encoded.overhead() + MAX_NLRI_LEN <= limit {
            Ok(encoded)
        } else {
            Err(EncodeError::TooLarge { octets: encoded.attributes.len(), limit })
        }
    }

    /// Octets of a message without its prefixes.
    fn overhead(&self) -> usize {
        let mp_reach = if self.mp_reach.is_empty() { 0 } else { ATTRIBUTE_HEADER + self.mp_reach.len() };
        HEADER_LEN + LENGTHS + mp_reach + self.attributes.len()
    }

    /// Appends UPDATE messages that announce the prefixes, as few as possible, in the order given; returns how many.
    pub fn announce(&self, nlri: impl IntoIterator<Item = Nlri<P>>, out: &mut Vec<u8>) -> usize {
        let add_path = self.context.add_path.contains(P::FAMILY);
        let room = self.context.max_message_len() - self.overhead();
        pack(nlri, add_path, room, out, |out, fill| {
            if self.mp_reach.is_empty() {
                out.extend_from_slice(&[0, 0]);
                out.extend_from_slice(&(self.attributes.len() as u16).to_be_bytes());
                out.extend_from_slice(&self.attributes);
                fill(out);
            } else {
                with_attributes_only(out, |out| {
                    let fits = write_attribute(flag::OPTIONAL, code::MP_REACH_NLRI, out, |out| {
                        out.extend_from_slice(&self.mp_reach);
                        fill(out);
                    });
                    debug_assert!(fits, "the room for prefixes is bounded by the message");
                    out.extend_from_slice(&self.attributes);
                });
            }
        })
    }
}

/// Appends UPDATE messages that withdraw the prefixes, as few as possible, in the order given; returns how many.
pub fn encode_withdrawals<P: PrefixKey>(
    nlri: impl IntoIterator<Item = Nlri<P>>,
    context: &EncodeContext,
    out: &mut Vec<u8>,
) -> usize {
    let add_path = context.add_path.contains(P::FAMILY);
    let overhead = HEADER_LEN + LENGTHS + ATTRIBUTE_HEADER + 3;
    let room = context.max_message_len() - overhead;
    pack(nlri, add_path, room, out, |out, fill| match P::FAMILY {
        Family::Ipv4Unicast => {
            let at = out.len();
            out.extend_from_slice(&[0, 0]);
            fill(out);
            let length = (out.len() - at - 2) as u16;
            out[at..at + 2].copy_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        family => with_attributes_only(out, |out| write_mp_unreach(family, out, fill)),
    })
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2).
pub fn encode_end_of_rib(family: Family, out: &mut Vec<u8>) {
    let at = header::start(out, MessageType::Update);
    match family {
        Family::Ipv4Unicast => out.extend_from_slice(&[0; LENGTHS]),
        family => with_attributes_only(out, |out| write_mp_unreach(family, out, &mut |_| {})),
    }
    header::finish(out, at);
}

fn write_mp_unreach(family: Family, out: &mut Vec<u8>, fill: &mut dyn FnMut(&mut Vec<u8>)) {
    let pair = family.afi_safi();
    let fits = write_attribute(flag::OPTIONAL, code::MP_UNREACH_NLRI, out, |out| {
        out.extend_from_slice(&pair.afi.to_be_bytes());
        out.push(pair.safi);
        fill(out);
    });
    debug_assert!(fits, "the room for prefixes is bounded by the message");
}

/// Writes the body of an UPDATE that consists of path attributes alone.
fn with_attributes_only(out: &mut Vec<u8>, attributes: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; LENGTHS]);
    attributes(out);
    let length = (out.len() - at - LENGTHS) as u16;
    out[at + 2..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Writes messages until the prefixes are used up. `body` writes one message's body, calling what it is given at the
/// place of the prefixes; that fills in as many as fit into `room` octets.
fn pack<P: PrefixKey>(
    nlri: impl IntoIterator<Item = Nlri<P>>,
    add_path: bool,
    room: usize,
    out: &mut Vec<u8>,
    mut body: impl FnMut(&mut Vec<u8>, &mut dyn FnMut(&mut Vec<u8>)),
) -> usize {
    let mut nlri = nlri.into_iter().peekable();
    let mut messages = 0;
    while nlri.peek().is_some() {
        let at = header::start(out, MessageType::Update);
        body(out, &mut |out| {
            let end = out.len() + room;
            while let Some(next) = nlri.next_if(|next| out.len() + nlri::encoded_len(next, add_path) <= end) {
                nlri::encode(&next, add_path, out);
            }
        });
        header::finish(out, at);
        messages += 1;
    }
    messages
}
