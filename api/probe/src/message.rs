//! The messages: one fixed header in network byte order, followed by padding that means nothing. Pure.

use std::net::{IpAddr, Ipv6Addr};

/// Length of the header, and so the shortest message, in bytes.
pub const HEADER: usize = 48;

const MAGIC: [u8; 4] = *b"CWP1";

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asks for a cookie.
    Hello,
    /// The answer.
    Cookie,
    /// Is itself the probe.
    Probe,
    /// The probe came in.
    Got,
    /// Asks for a probe back.
    Send,
    /// It was sent, or could not be.
    Sent,
    /// The probe back.
    Data,
    /// What a hop said of it.
    Report,
}

const KINDS: [Kind; 8] =
    [Kind::Hello, Kind::Cookie, Kind::Probe, Kind::Got, Kind::Send, Kind::Sent, Kind::Data, Kind::Report];

/// What is said of a packet that did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    None,
    /// Larger than the next link takes, by ICMP.
    TooBig,
    /// Its TTL was over, by ICMP.
    TimeExceeded,
    /// Unreachable, by ICMP.
    Unreachable,
    /// Larger than the sender's own device takes.
    TooBigHere,
}

const VERDICTS: [Verdict; 5] =
    [Verdict::None, Verdict::TooBig, Verdict::TimeExceeded, Verdict::Unreachable, Verdict::TooBigHere];

/// A message. Fields its kind has no use for are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// `Sent`, `Report`: what happened.
    pub verdict: Verdict,
    /// `Send`: TTL (hop limit) of the probe; 0: as usual.
    pub ttl: u8,
    /// `Send`, `Got`, `Sent`: length of the probe with its IP header, in bytes.
    pub size: u16,
    /// The asker's number; its answer bears the same.
    pub nonce: u64,
    /// `Cookie`, `Probe`, `Send`: proves the asker's address.
    pub cookie: u64,
    /// `Sent`, `Report`: an MTU in bytes; 0: none is known.
    pub mtu: u32,
    /// `Report`: the hop that said it.
    pub hop: Option<IpAddr>,
}

impl Message {
    /// A message with nothing but its kind and number.
    pub fn new(kind: Kind, nonce: u64) -> Message {
        Message { kind, verdict: Verdict::None, ttl: 0, size: 0, nonce, cookie: 0, mtu: 0, hop: None }
    }

    /// The bytes, padded with zeros to `length` (at least [`HEADER`]).
    pub fn encode(&self, length: usize) -> Vec<u8> {
        let hop = match self.hop {
            None => Ipv6Addr::UNSPECIFIED,
            Some(IpAddr::V4(address)) => address.to_ipv6_mapped(),
            Some(IpAddr::V6(address)) => address,
        };
        let mut bytes = Vec::with_capacity(length.max(HEADER));
        bytes.extend_from_slice(&MAGIC);
        bytes.push(self.kind as u8);
        bytes.push(self.verdict as u8);
        bytes.push(self.ttl);
        bytes.push(0);
        bytes.extend_from_slice(&self.nonce.to_be_bytes());
        bytes.extend_from_slice(&self.cookie.to_be_bytes());
        bytes.extend_from_slice(&self.mtu.to_be_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&hop.octets());
        bytes.resize(length.max(HEADER), 0);
        bytes
    }

    /// The message at the start of a datagram; `None` where it is none of ours.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let (magic, rest) = header.split_first_chunk::<4>()?;
        let ([kind, verdict, ttl, _], rest) = rest.split_first_chunk::<4>()?;
        let (nonce, rest) = rest.split_first_chunk::<8>()?;
        let (cookie, rest) = rest.split_first_chunk::<8>()?;
        let (mtu, rest) = rest.split_first_chunk::<4>()?;
        let (size, rest) = rest.split_first_chunk::<2>()?;
        let hop: &[u8; 16] = rest.last_chunk()?;
        let hop = Ipv6Addr::from(*hop);
        Some(Message {
            kind: (*magic == MAGIC).then(|| KINDS.get(usize::from(*kind)).copied()).flatten()?,
            verdict: *VERDICTS.get(usize::from(*verdict))?,
            ttl: *ttl,
            size: u16::from_be_bytes(*size),
            nonce: u64::from_be_bytes(*nonce),
            cookie: u64::from_be_bytes(*cookie),
            mtu: u32::from_be_bytes(*mtu),
            hop: (!hop.is_unspecified()).then(|| IpAddr::V6(hop).to_canonical()),
        })
    }
}

/// Bytes of IP and UDP headers in front of a payload.
pub fn headers(address: IpAddr) -> u16 {
    if address.is_ipv4() { 28 } else { 48 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_survive_the_wire(
            (kind, verdict, ttl, size) in (0..KINDS.len(), 0..VERDICTS.len(), any::<u8>(), any::<u16>()),
            (nonce, cookie, mtu) in (any::<u64>(), any::<u64>(), any::<u32>()),
            (hop, length) in (any::<Option<IpAddr>>(), 0..2000usize),
        ) {
            let hop = hop.filter(|hop| !hop.is_unspecified()).map(|hop| hop.to_canonical());
            let message =
                Message { kind: KINDS[kind], verdict: VERDICTS[verdict], ttl, size, nonce, cookie, mtu, hop };
            let bytes = message.encode(length);
            prop_assert_eq!(bytes.len(), length.max(HEADER));
            prop_assert_eq!(Message::decode(&bytes), Some(message));
        }

        #[test]
        fn any_bytes_are_a_message_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(message) = Message::decode(&bytes) {
                prop_assert_eq!(Message::decode(&message.encode(0)), Some(message));
            }
        }
    }

    #[test]
    fn what_is_short_or_foreign_is_none() {
        let bytes = Message::new(Kind::Report, 7).encode(0);
        assert!(Message::decode(&bytes[..HEADER - 1]).is_none());
        for (at, value) in [(0, b'X'), (4, 8), (5, 5)] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            assert!(Message::decode(&bytes).is_none(), "byte {at} is {value}");
        }
    }
}
