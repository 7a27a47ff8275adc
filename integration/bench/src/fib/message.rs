//! Netlink messages as octets. Pure.
//!
//! `linux/netlink.h`: a header of length, type, flags, sequence and port in the machine's order, a body by type, and attributes of
//! length, type and value, each padded to four octets.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// AF_INET.
pub const INET: u8 = 2;
/// AF_INET6.
pub const INET6: u8 = 10;
/// RT_TABLE_MAIN.
pub const MAIN_TABLE: u8 = 254;
/// The protocol number that this tool's own routes bear.
pub const PROTOCOL: u8 = 201;

/// NLM_F_ACK.
pub const FLAG_ACK: u16 = 4;
const FLAG_REQUEST: u16 = 1;
const FLAG_DUMP: u16 = 0x300;
const FLAG_CREATE: u16 = 0x400;
const FLAG_EXCLUSIVE: u16 = 0x200;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
/// RTM_NEWROUTE.
pub const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_OBJECT: u16 = 104;

const HEADER: usize = 16;
/// Octets of `struct rtmsg`.
pub const ROUTE_HEADER: usize = 12;
const LINK_HEADER: usize = 16;

/// RTA_DST.
pub const ROUTE_DESTINATION: u16 = 1;
/// RTA_OIF.
pub const ROUTE_LINK: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
/// RTA_MULTIPATH.
pub const ROUTE_HOPS: u16 = 9;
const ROUTE_OBJECT: u16 = 30;
const OBJECT_ID: u16 = 1;
const OBJECT_LINK: u16 = 5;
const OBJECT_GATEWAY: u16 = 6;

const UNICAST: u8 = 1;
const LINK_UP: u32 = 1;
const LINK_RUNNING: u32 = 0x40;

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To a router on a link.
    Router(IpAddr, u32),
    /// Where a nexthop object says.
    Object(u32),
}

/// A message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its type.
    pub kind: u16,
    /// Which request it answers.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

impl Message<'_> {
    /// The end of a dump.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.kind == DONE
    }

    /// The code of an answer that is only a code: 0, or an error number below it.
    #[must_use]
    pub fn error(&self) -> Option<i32> {
        (self.kind == ERROR).then(|| self.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)))
    }

    /// The index of the link this tells of, and whether it is up and carries.
    #[must_use]
    pub fn link(&self) -> Option<(u32, bool)> {
        let number = |at: usize| {
            self.body.get(at..at + 4).and_then(|octets| octets.try_into().ok()).map(u32::from_ne_bytes)
        };
        let works = LINK_UP | LINK_RUNNING;
        (self.kind == NEW_LINK).then(|| Some((number(4)?, number(8)? & works == works)))?
    }
}

/// Cuts what was received into messages; what is cut off at the end is left out.
pub fn split(mut octets: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*octets.first_chunk()?) as usize;
        let own = octets.get(..length.max(HEADER))?;
        octets = octets.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
        let number = |at: usize| own.get(at..at + 4).and_then(|octets| octets.try_into().ok());
        Some(Message {
            kind: u16::from_ne_bytes([own[4], own[5]]),
            sequence: number(8).map_or(0, u32::from_ne_bytes),
            body: &own[HEADER..],
        })
    })
}

/// Walks over attributes: type and value of each.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [low, high, kind, flags, ..] = *self.0 else { return None };
        let length = usize::from(u16::from_ne_bytes([low, high]));
        // A length below that of its own header is no range, and ends the walk.
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([kind, flags]) & 0x3fff, value))
    }
}

/// The link of the next hop that has most weight, of several: `struct rtnexthop`, each of which says how long it is.
#[must_use]
pub fn heaviest_link(mut hops: &[u8]) -> Option<u32> {
    let mut heaviest = None;
    while let [low, high, _, weight, a, b, c, d, ..] = *hops {
        let length = usize::from(u16::from_ne_bytes([low, high])).next_multiple_of(4);
        let link = u32::from_ne_bytes([a, b, c, d]);
        if heaviest.is_none_or(|(most, _)| weight > most) {
            heaviest = Some((weight, link));
        }
        hops = hops.get(length.max(8)..).unwrap_or_default();
    }
    heaviest.map(|(_, link)| link)
}

/// Appends a message that makes a route that is not there yet.
pub fn new_route(out: &mut Vec<u8>, sequence: u32, prefix: &IpNetwork, way: Way, protocol: u8) {
    let start = header(out, NEW_ROUTE, FLAG_REQUEST | FLAG_CREATE | FLAG_EXCLUSIVE, sequence);
    let length = prefix.prefix();
    let flags = [0; 4];
    out.extend_from_slice(&[family(&prefix.ip()), length, 0, 0, MAIN_TABLE, protocol, 0, UNICAST]);
    out.extend_from_slice(&flags);
    address(out, ROUTE_DESTINATION, &prefix.ip());
    match way {
        Way::Router(router, link) => {
            address(out, ROUTE_GATEWAY, &router);
            attribute(out, ROUTE_LINK, &link.to_ne_bytes());
        }
        Way::Object(id) => attribute(out, ROUTE_OBJECT, &id.to_ne_bytes()),
    }
    finish(out, start);
}

/// Appends a message that deletes a route.
pub fn delete_route(out: &mut Vec<u8>, sequence: u32, prefix: &IpNetwork, protocol: u8) {
    let start = header(out, DELETE_ROUTE, FLAG_REQUEST, sequence);
    let nowhere = 255;
    out.extend_from_slice(&[family(&prefix.ip()), prefix.prefix(), 0, 0, MAIN_TABLE, protocol, nowhere, 0]);
    out.extend_from_slice(&[0; 4]);
    address(out, ROUTE_DESTINATION, &prefix.ip());
    finish(out, start);
}

/// Appends a message that makes a nexthop object.
pub fn new_object(out: &mut Vec<u8>, sequence: u32, id: u32, router: IpAddr, link: u32) {
    let start = header(out, NEW_OBJECT, FLAG_REQUEST | FLAG_CREATE | FLAG_EXCLUSIVE, sequence);
    out.extend_from_slice(&[family(&router), 0, PROTOCOL, 0, 0, 0, 0, 0]);
    attribute(out, OBJECT_ID, &id.to_ne_bytes());
    address(out, OBJECT_GATEWAY, &router);
    attribute(out, OBJECT_LINK, &link.to_ne_bytes());
    finish(out, start);
}

/// Appends a message that asks for all routes of a family.
pub fn dump_routes(out: &mut Vec<u8>, sequence: u32, v6: bool) {
    let start = header(out, GET_ROUTE, FLAG_REQUEST | FLAG_DUMP, sequence);
    out.push(if v6 { INET6 } else { INET });
    out.extend_from_slice(&[0; ROUTE_HEADER - 1]);
    finish(out, start);
}

/// Appends a message that asks for the way to an address.
pub fn look_up(out: &mut Vec<u8>, sequence: u32, to: IpAddr) {
    let start = header(out, GET_ROUTE, FLAG_REQUEST, sequence);
    out.extend_from_slice(&[family(&to), if to.is_ipv4() { 32 } else { 128 }]);
    out.extend_from_slice(&[0; ROUTE_HEADER - 2]);
    address(out, ROUTE_DESTINATION, &to);
    finish(out, start);
}

/// Appends a message that sets a link up or down.
pub fn set_link(out: &mut Vec<u8>, sequence: u32, link: u32, up: bool) {
    let start = header(out, NEW_LINK, FLAG_REQUEST, sequence);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&link.to_ne_bytes());
    out.extend_from_slice(&u32::from(up).to_ne_bytes());
    out.extend_from_slice(&LINK_UP.to_ne_bytes());
    debug_assert_eq!(out.len() - start, HEADER + LINK_HEADER);
    finish(out, start);
}

/// Sets flags of the message that begins here.
pub fn add_flags(octets: &mut [u8], flags: u16) {
    if let Some(own) = octets.get_mut(6..8) {
        let all = u16::from_ne_bytes([own[0], own[1]]) | flags;
        own.copy_from_slice(&all.to_ne_bytes());
    }
}

fn family(of: &IpAddr) -> u8 {
    if of.is_ipv4() { INET } else { INET6 }
}

fn header(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    start
}

fn finish(out: &mut [u8], start: usize) {
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn address(out: &mut Vec<u8>, kind: u16, of: &IpAddr) {
    match of {
        IpAddr::V4(of) => attribute(out, kind, &of.octets()),
        IpAddr::V6(of) => attribute(out, kind, &of.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_as_the_headers_draw_it() {
        let mut octets = Vec::new();
        let way = Way::Router("192.0.2.2".parse().unwrap(), 7);
        new_route(&mut octets, 5, &"16.0.1.0/24".parse().unwrap(), way, PROTOCOL);
        let messages: Vec<Message<'_>> = split(&octets).collect();
        assert_eq!((messages.len(), messages[0].kind, messages[0].sequence), (1, NEW_ROUTE, 5));
        assert_eq!(messages[0].body[..8], [2, 24, 0, 0, 254, 201, 0, 1]);
        let attributes: Vec<(u16, &[u8])> = Attributes(&messages[0].body[ROUTE_HEADER..]).collect();
        let link = 7_u32.to_ne_bytes();
        assert_eq!(attributes, [(1, &[16, 0, 1, 0][..]), (5, &[192, 0, 2, 2][..]), (4, &link[..])]);
        assert_eq!(octets.len(), 52);
    }

    #[test]
    fn messages_are_cut_apart_and_what_is_cut_off_is_left_out() {
        let mut octets = Vec::new();
        look_up(&mut octets, 1, "fd10::1".parse().unwrap());
        set_link(&mut octets, 2, 9, true);
        assert_eq!(split(&octets).count(), 2);
        let last = split(&octets).last().unwrap();
        assert_eq!(last.link(), Some((9, false)), "up, and not known to run");
        assert_eq!(split(&octets[..octets.len() - 1]).count(), 1);
        assert_eq!(split(&octets[..3]).count(), 0);
        assert_eq!(split(&[0; 16]).count(), 1, "a length of zero ends in the end");
    }

    #[test]
    fn of_several_hops_the_heaviest_counts() {
        let hop = |weight: u8, link: u32| {
            let [a, b, c, d] = link.to_ne_bytes();
            let [low, high] = 16_u16.to_ne_bytes();
            vec![low, high, 0, weight, a, b, c, d, 8, 0, 5, 0, 192, 0, 2, 2]
        };
        assert_eq!(heaviest_link(&[hop(0, 3), hop(254, 7), hop(9, 4)].concat()), Some(7));
        assert_eq!(heaviest_link(&hop(0, 3)), Some(3));
        assert_eq!(heaviest_link(&[1, 0, 0]), None);
        assert_eq!(heaviest_link(&[0; 8]), Some(0), "a length of zero ends in the end");
    }

    #[test]
    fn a_code_is_an_error_number() {
        let mut octets = Vec::new();
        let start = header(&mut octets, ERROR, 0, 3);
        octets.extend_from_slice(&(-17_i32).to_ne_bytes());
        finish(&mut octets, start);
        assert_eq!(split(&octets).next().unwrap().error(), Some(-17));
        let attributes = Attributes(&[3, 0, 1, 0]).count();
        assert_eq!(attributes, 0, "an attribute shorter than its header");
    }
}
