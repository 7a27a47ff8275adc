//! Messages put together octet by octet, so that they can be wrong in exactly one place.

pub const OPEN: u8 = 1;
pub const UPDATE: u8 = 2;
pub const NOTIFICATION: u8 = 3;
pub const KEEPALIVE: u8 = 4;
pub const ROUTE_REFRESH: u8 = 5;

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&(19 + body.len() as u16).to_be_bytes());
    octets.push(kind);
    octets.extend_from_slice(body);
    octets
}

pub fn with_length(mut message: Vec<u8>, length: u16) -> Vec<u8> {
    message[16..18].copy_from_slice(&length.to_be_bytes());
    message
}

pub fn keepalive() -> Vec<u8> {
    message(KEEPALIVE, &[])
}

pub fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut octets = vec![flags, code];
    if flags & 0x10 == 0 {
        octets.push(u8::try_from(value.len()).expect("a short attribute"));
    } else {
        octets.extend_from_slice(&(value.len() as u16).to_be_bytes());
    }
    octets.extend_from_slice(value);
    octets
}

pub fn update(withdrawn: &[u8], attributes: &[Vec<u8>], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = (withdrawn.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(withdrawn);
    body.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    body.extend_from_slice(&attributes);
    body.extend_from_slice(nlri);
    message(UPDATE, &body)
}

/// A prefix as NLRI, from `192.0.2.0/24` or `2001:db8::/32`.
pub fn nlri(prefix: &str) -> Vec<u8> {
    let (address, len) = prefix.split_once('/').expect("a prefix");
    let len: u8 = len.parse().expect("a length");
    let octets = match address.parse().expect("an address") {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut field = vec![len];
    field.extend_from_slice(&octets[..usize::from(len).div_ceil(8)]);
    field
}

pub fn origin(code: u8) -> Vec<u8> {
    attribute(0x40, 1, &[code])
}

/// One AS_SEQUENCE of four-octet numbers; empty for none.
pub fn as_path(asns: &[u32]) -> Vec<u8> {
    let mut value = Vec::new();
    if !asns.is_empty() {
        value.extend_from_slice(&[2, asns.len() as u8]);
        value.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    }
    attribute(0x50, 2, &value)
}

pub fn next_hop(address: std::net::Ipv4Addr) -> Vec<u8> {
    attribute(0x40, 3, &address.octets())
}

pub fn med(value: u32) -> Vec<u8> {
    attribute(0x80, 4, &value.to_be_bytes())
}

pub fn local_pref(value: u32) -> Vec<u8> {
    attribute(0x40, 5, &value.to_be_bytes())
}

pub fn communities(values: &[u32]) -> Vec<u8> {
    attribute(0xc0, 8, &values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<_>>())
}

pub fn mp_reach(next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut value = vec![0, 2, 1, next_hop.len() as u8];
    value.extend_from_slice(next_hop);
    value.push(0);
    value.extend_from_slice(nlri);
    attribute(0x80, 14, &value)
}

pub fn mp_unreach(nlri: &[u8]) -> Vec<u8> {
    let mut value = vec![0, 2, 1];
    value.extend_from_slice(nlri);
    attribute(0x80, 15, &value)
}

/// An OPEN with these fixed fields and optional parameters.
pub fn open(version: u8, my_as: u16, hold_time: u16, id: [u8; 4], parameters: &[u8]) -> Vec<u8> {
    let mut body = vec![version];
    body.extend_from_slice(&my_as.to_be_bytes());
    body.extend_from_slice(&hold_time.to_be_bytes());
    body.extend_from_slice(&id);
    body.push(parameters.len() as u8);
    body.extend_from_slice(parameters);
    message(OPEN, &body)
}
