//! Messages put together octet by octet, independently of the encoder under test.

use causeway_bgp_wire::{DecodeContext, DecodeError, FamilySet, Message, Notification, SessionKind, Update};

pub const OPEN: u8 = 1;
pub const UPDATE: u8 = 2;
pub const NOTIFICATION: u8 = 3;
pub const KEEPALIVE: u8 = 4;
pub const ROUTE_REFRESH: u8 = 5;

/// 10.0.0.0/8.
pub const TEN: &[u8] = &[8, 10];
/// 192.0.2.0/24.
pub const TEST_NET: &[u8] = &[24, 192, 0, 2];
/// 2001:db8::/32.
pub const DOC6: &[u8] = &[32, 0x20, 0x01, 0x0d, 0xb8];

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&(19 + body.len() as u16).to_be_bytes());
    octets.push(kind);
    octets.extend_from_slice(body);
    octets
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

pub fn update_message(withdrawn: &[u8], attributes: &[Vec<u8>], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = (withdrawn.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(withdrawn);
    body.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    body.extend_from_slice(&attributes);
    body.extend_from_slice(nlri);
    message(UPDATE, &body)
}

pub fn origin() -> Vec<u8> {
    attribute(0x40, 1, &[0])
}

/// AS_SEQUENCE 64601, four octets.
pub fn as_path() -> Vec<u8> {
    attribute(0x40, 2, &[2, 1, 0, 0, 0xfc, 0x59])
}

pub fn next_hop() -> Vec<u8> {
    attribute(0x40, 3, &[192, 0, 2, 1])
}

pub fn local_pref() -> Vec<u8> {
    attribute(0x40, 5, &[0, 0, 0, 100])
}

/// ORIGIN, AS_PATH and NEXT_HOP.
pub fn mandatory() -> Vec<Vec<u8>> {
    vec![origin(), as_path(), next_hop()]
}

/// The mandatory ones and another.
pub fn mandatory_and(other: Vec<u8>) -> Vec<Vec<u8>> {
    let mut attributes = mandatory();
    attributes.push(other);
    attributes
}

/// MP_REACH_NLRI for IPv6 unicast.
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

/// 2001:db8::1.
pub const NEXT_HOP6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

pub fn external() -> DecodeContext {
    DecodeContext::new(SessionKind::External, FamilySet::ALL)
}

pub fn internal() -> DecodeContext {
    DecodeContext::new(SessionKind::Internal, FamilySet::ALL)
}

pub fn decode_update(message: &[u8], context: &DecodeContext) -> Result<Update, DecodeError> {
    match Message::decode(message, context)? {
        Message::Update(update) => Ok(update),
        other => panic!("an UPDATE, not {other:?}"),
    }
}

/// Decodes an UPDATE of an external peer that must not end the session.
pub fn survives(message: &[u8]) -> Update {
    decode_update(message, &external()).expect("the session survives")
}

/// Decodes an UPDATE of an external peer that must end the session.
#[track_caller]
pub fn resets(message: &[u8]) -> Notification {
    decode_update(message, &external()).expect_err("the session ends").notification
}

/// Asserts treat-as-withdraw: nothing announced, and as many prefixes withdrawn as were announced.
#[track_caller]
pub fn assert_withdrawn(update: &Update, prefixes: &[&str]) {
    assert!(update.treated_as_withdraw().is_some(), "treated as withdraw: {update:?}");
    assert!(update.announced.is_empty());
    assert_eq!(withdrawn(update), prefixes);
}

/// Asserts that everything was announced and the attribute discarded.
#[track_caller]
pub fn assert_discarded(update: &Update, code: u8) {
    assert_eq!(update.treated_as_withdraw(), None);
    assert!(update.problems.iter().any(|p| p.attribute == Some(code)), "{:?}", update.problems);
    assert!(!update.announced.is_empty());
}

pub fn withdrawn(update: &Update) -> Vec<String> {
    update.withdrawn.iter().flat_map(|list| list.iter()).map(|nlri| nlri.prefix.to_string()).collect()
}

pub fn announced(update: &Update) -> Vec<String> {
    update.announced.iter().flat_map(|a| a.nlri.iter()).map(|nlri| nlri.prefix.to_string()).collect()
}
