//! The bytes of BGP as the generator writes and reads them: messages framed, OPEN and UPDATE encoded, UPDATE taken apart.
//!
//! Written for this tool alone and sharing nothing with the speaker, so that a mistake there cannot hide here.
//! Pure. IPv4 unicast only. RFC 4271 §4, RFC 6793 (AS numbers of four octets), RFC 4456 §8 (reflection).

use std::net::Ipv4Addr;

/// Octets of a message's header.
pub const HEADER: usize = 19;
/// Longest message there is without extensions.
pub const LONGEST: usize = 4096;

/// OPEN.
pub const OPEN: u8 = 1;
/// UPDATE.
pub const UPDATE: u8 = 2;
/// NOTIFICATION.
pub const NOTIFICATION: u8 = 3;
/// KEEPALIVE.
pub const KEEPALIVE: u8 = 4;

/// What is no BGP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Path attributes as the generator sends them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// 0 IGP, 1 EGP, 2 incomplete.
    pub origin: u8,
    /// One AS_SEQUENCE.
    pub as_path: Vec<u32>,
    /// NEXT_HOP.
    pub next_hop: Ipv4Addr,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// ORIGINATOR_ID.
    pub originator: Option<Ipv4Addr>,
    /// CLUSTER_LIST.
    pub clusters: Vec<Ipv4Addr>,
    /// Types of attributes that were there besides these.
    pub others: Vec<u8>,
}

/// Frames a message: marker, length, type, body.
#[must_use]
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&((HEADER + body.len()) as u16).to_be_bytes());
    octets.push(kind);
    octets.extend_from_slice(body);
    octets
}

/// An OPEN with the capabilities multiprotocol IPv4 unicast, route refresh, and AS numbers of four octets.
#[must_use]
pub fn open(asn: u32, hold_time: u16, identifier: Ipv4Addr) -> Vec<u8> {
    let short = u16::try_from(asn).unwrap_or(23456);
    let mut body = vec![4];
    body.extend_from_slice(&short.to_be_bytes());
    body.extend_from_slice(&hold_time.to_be_bytes());
    body.extend_from_slice(&identifier.octets());
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 2, 0, 65, 4];
    capabilities.extend_from_slice(&asn.to_be_bytes());
    body.extend_from_slice(&[capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
    body.extend_from_slice(&capabilities);
    message(OPEN, &body)
}

/// A KEEPALIVE.
#[must_use]
pub fn keepalive() -> Vec<u8> {
    message(KEEPALIVE, &[])
}

/// The path attributes of an UPDATE, in the order of their types.
#[must_use]
pub fn attributes(of: &Attributes) -> Vec<u8> {
    let mut octets = vec![0x40, 1, 1, of.origin];
    let path = of.as_path.len();
    let length = if path == 0 { 0 } else { 2 + 4 * path };
    match u8::try_from(length) {
        Ok(length) => octets.extend_from_slice(&[0x40, 2, length]),
        Err(_) => {
            octets.extend_from_slice(&[0x50, 2]);
            octets.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    if path > 0 {
        octets.extend_from_slice(&[2, path as u8]);
        of.as_path.iter().for_each(|asn| octets.extend_from_slice(&asn.to_be_bytes()));
    }
    octets.extend_from_slice(&[0x40, 3, 4]);
    octets.extend_from_slice(&of.next_hop.octets());
    if let Some(med) = of.med {
        octets.extend_from_slice(&[0x80, 4, 4]);
        octets.extend_from_slice(&med.to_be_bytes());
    }
    if let Some(local_pref) = of.local_pref {
        octets.extend_from_slice(&[0x40, 5, 4]);
        octets.extend_from_slice(&local_pref.to_be_bytes());
    }
    octets
}

/// An UPDATE that announces /24s with these encoded attributes.
#[must_use]
pub fn announce(attributes: &[u8], prefixes: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    body.extend_from_slice(attributes);
    push_prefixes(&mut body, prefixes);
    message(UPDATE, &body)
}

/// An UPDATE that withdraws /24s.
#[must_use]
pub fn withdraw(prefixes: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut gone = Vec::new();
    push_prefixes(&mut gone, prefixes);
    let mut body = (gone.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(&gone);
    body.extend_from_slice(&[0, 0]);
    message(UPDATE, &body)
}

fn push_prefixes(octets: &mut Vec<u8>, prefixes: impl Iterator<Item = u32>) {
    for prefix in prefixes {
        octets.push(24);
        octets.extend_from_slice(&prefix.to_be_bytes()[..3]);
    }
}

/// Type and length of the message that begins here, once its header is there.
///
/// # Errors
/// Where this is no BGP header.
#[inline]
pub fn header(octets: &[u8]) -> Result<Option<(u8, usize)>, Malformed> {
    if octets.len() < HEADER {
        return Ok(None);
    }
    if octets[..16] != [0xff; 16] {
        return Err(Malformed("a header without its marker"));
    }
    let length = usize::from(u16::from_be_bytes([octets[16], octets[17]]));
    if !(HEADER..=LONGEST).contains(&length) {
        return Err(Malformed("a message of a length that none has"));
    }
    Ok(Some((octets[18], length)))
}

/// The three parts of an UPDATE's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Withdrawn prefixes, encoded.
    pub withdrawn: &'a [u8],
    /// Path attributes, encoded.
    pub attributes: &'a [u8],
    /// Announced prefixes, encoded.
    pub announced: &'a [u8],
}

/// Takes the body of an UPDATE apart.
///
/// # Errors
/// Where the lengths do not add up.
#[inline]
pub fn parts(body: &[u8]) -> Result<Parts<'_>, Malformed> {
    let (withdrawn, rest) =
        counted(body).ok_or(Malformed("an UPDATE shorter than its withdrawn prefixes"))?;
    let (attributes, announced) = counted(rest).ok_or(Malformed("an UPDATE shorter than its attributes"))?;
    Ok(Parts { withdrawn, attributes, announced })
}

#[inline]
fn counted(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_be_bytes([*octets.first()?, *octets.get(1)?]));
    octets[2..].split_at_checked(length)
}

/// Walks over encoded prefixes: network and length of each.
#[derive(Debug, Clone, Copy)]
pub struct Prefixes<'a>(pub &'a [u8]);

impl Iterator for Prefixes<'_> {
    type Item = Result<(u32, u8), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (&length, rest) = self.0.split_first()?;
        let octets = usize::from(length).div_ceil(8);
        if length > 32 || rest.len() < octets {
            self.0 = &[];
            return Some(Err(Malformed("a prefix that is cut off")));
        }
        let mut network = [0; 4];
        network[..octets].copy_from_slice(&rest[..octets]);
        self.0 = &rest[octets..];
        Some(Ok((u32::from_be_bytes(network), length)))
    }
}

/// Decodes path attributes of a session with AS numbers of four octets.
///
/// # Errors
/// Where they are malformed, or a mandatory one is missing.
pub fn decode_attributes(mut octets: &[u8]) -> Result<Attributes, Malformed> {
    let mut all = Attributes {
        origin: u8::MAX,
        as_path: Vec::new(),
        next_hop: Ipv4Addr::UNSPECIFIED,
        med: None,
        local_pref: None,
        originator: None,
        clusters: Vec::new(),
        others: Vec::new(),
    };
    let cut = Malformed("an attribute that is cut off");
    while let [flags, kind, rest @ ..] = octets {
        let (length, rest) = match rest {
            [high, low, rest @ ..] if flags & 0x10 != 0 => {
                (usize::from(*high) << 8 | usize::from(*low), rest)
            }
            [length, rest @ ..] if flags & 0x10 == 0 => (usize::from(*length), rest),
            _ => return Err(cut),
        };
        let (value, rest) = rest.split_at_checked(length).ok_or(cut.clone())?;
        octets = rest;
        let number = || {
            value
                .try_into()
                .map(u32::from_be_bytes)
                .map_err(|_| Malformed("a number that is not four octets"))
        };
        match kind {
            1 if length == 1 => all.origin = value[0],
            2 => all.as_path = sequence(value)?,
            3 => all.next_hop = number()?.into(),
            4 => all.med = Some(number()?),
            5 => all.local_pref = Some(number()?),
            9 => all.originator = Some(number()?.into()),
            10 => {
                let (words, rest) = value.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(Malformed("a CLUSTER_LIST that is no list of numbers"));
                }
                all.clusters = words.iter().map(|word| Ipv4Addr::from(*word)).collect();
            }
            other => all.others.push(*other),
        }
    }
    match (octets, all.origin) {
        ([], 0..=2) => Ok(all),
        ([], _) => Err(Malformed("no ORIGIN")),
        _ => Err(cut),
    }
}

/// The AS numbers of a path that is one AS_SEQUENCE or empty.
fn sequence(value: &[u8]) -> Result<Vec<u32>, Malformed> {
    let [kind, count, rest @ ..] = value else {
        return if value.is_empty() { Ok(Vec::new()) } else { Err(Malformed("an AS_PATH that is cut off")) };
    };
    let (words, odd) = rest.as_chunks::<4>();
    if *kind != 2 || words.len() != usize::from(*count) || !odd.is_empty() {
        return Err(Malformed("an AS_PATH that is not one AS_SEQUENCE"));
    }
    Ok(words.iter().map(|word| u32::from_be_bytes(*word)).collect())
}

/// The last AS number of the path in encoded attributes, without decoding the rest; `None` where there is none.
#[must_use]
pub fn last_asn(mut octets: &[u8]) -> Option<u32> {
    while let [flags, kind, rest @ ..] = octets {
        let (length, rest) = match rest {
            [high, low, rest @ ..] if flags & 0x10 != 0 => {
                (usize::from(*high) << 8 | usize::from(*low), rest)
            }
            [length, rest @ ..] => (usize::from(*length), rest),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        if *kind == 2 {
            return value
                .len()
                .checked_sub(4)
                .and_then(|at| value[at..].try_into().ok())
                .map(u32::from_be_bytes);
        }
        octets = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Attributes {
        Attributes {
            origin: 0,
            as_path: vec![65001, 4_200_000_001],
            next_hop: Ipv4Addr::new(192, 0, 2, 1),
            med: Some(7),
            local_pref: Some(100),
            originator: None,
            clusters: Vec::new(),
            others: Vec::new(),
        }
    }

    #[test]
    fn an_open_is_what_rfc4271_draws() {
        let octets = open(4_200_000_001, 90, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(header(&octets), Ok(Some((OPEN, octets.len()))));
        assert_eq!(octets[HEADER..HEADER + 10], [4, 0x5b, 0xa0, 0, 90, 192, 0, 2, 1, 16]);
        assert_eq!(octets[HEADER + 10..][..2], [2, 14], "one parameter with all capabilities");
        assert_eq!(octets[octets.len() - 6..], [65, 4, 0xfa, 0x56, 0xea, 0x01]);
    }

    #[test]
    fn an_update_by_hand_decodes() {
        let octets = [
            0x40, 1, 1, 2, // ORIGIN incomplete
            0x50, 2, 0, 6, 2, 1, 0, 0, 0xfd, 0xe9, // AS_PATH 65001, extended length
            0x40, 3, 4, 10, 0, 0, 1, // NEXT_HOP
            0x80, 9, 4, 10, 0, 0, 9, // ORIGINATOR_ID
            0x80, 10, 8, 1, 1, 1, 1, 2, 2, 2, 2, // CLUSTER_LIST
            0xc0, 8, 4, 0, 1, 0, 2, // COMMUNITIES
        ];
        let decoded = decode_attributes(&octets).unwrap();
        assert_eq!((decoded.origin, decoded.as_path.as_slice()), (2, &[65001][..]));
        assert_eq!(decoded.next_hop, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(decoded.originator, Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(decoded.clusters, [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(2, 2, 2, 2)]);
        assert_eq!((decoded.med, decoded.local_pref, decoded.others), (None, None, vec![8]));
        assert_eq!(last_asn(&octets), Some(65001));
        for cut in 1..octets.len() {
            let _ = decode_attributes(&octets[..cut]);
            let _ = last_asn(&octets[..cut]);
        }
        assert!(decode_attributes(&octets[..octets.len() - 1]).is_err());
    }

    #[test]
    fn what_is_announced_comes_apart_again() {
        let encoded = attributes(&some());
        let octets = announce(&encoded, [0x1000_0000, 0x1000_0100].into_iter());
        assert_eq!(header(&octets), Ok(Some((UPDATE, octets.len()))));
        let update = parts(&octets[HEADER..]).unwrap();
        assert_eq!((update.withdrawn, update.attributes), (&[][..], &encoded[..]));
        let prefixes: Vec<_> = Prefixes(update.announced).collect();
        assert_eq!(prefixes, [Ok((0x1000_0000, 24)), Ok((0x1000_0100, 24))]);
        assert_eq!(decode_attributes(update.attributes), Ok(some()));
        assert_eq!(last_asn(update.attributes), Some(4_200_000_001));
    }

    #[test]
    fn a_long_path_has_an_extended_length() {
        let long = Attributes { as_path: vec![65001; 100], ..some() };
        assert_eq!(decode_attributes(&attributes(&long)), Ok(long));
    }

    #[test]
    fn what_is_withdrawn_comes_apart_again() {
        let octets = withdraw([0x1000_0000].into_iter());
        let update = parts(&octets[HEADER..]).unwrap();
        let parts = (update.withdrawn, update.attributes, update.announced);
        assert_eq!(parts, (&[24, 16, 0, 0][..], &[][..], &[][..]));
    }

    #[test]
    fn what_is_cut_off_is_malformed() {
        assert_eq!(header(&[0xff; 18]), Ok(None));
        assert!(header(&[0; 19]).is_err());
        assert!(header(&[0xff; 19]).is_err(), "65,535 octets are more than a message has");
        assert!(parts(&[0, 1]).is_err());
        assert!(parts(&[0, 0, 0, 2, 0]).is_err());
        assert!(Prefixes(&[24, 1, 2]).any(|prefix| prefix.is_err()));
        assert!(Prefixes(&[33, 1, 2, 3, 4, 5]).any(|prefix| prefix.is_err()));
        assert!(decode_attributes(&[]).is_err(), "ORIGIN is mandatory");
    }
}
