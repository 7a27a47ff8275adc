//! Broken messages: whatever is done to a good one, decoding neither panics nor hangs, and what it lets through can be
//! encoded again. The seed is fixed, so a failure repeats; the fuzz targets in `fuzz/` search further.

use causeway_bgp_wire::{
    DecodeContext, EncodeContext, EncodedAttributes, FamilySet, Header, Message, NlriList, PathAttributes,
    SessionKind, encode_notification, encode_open,
};

use crate::handmade::*;
use crate::vectors::captured;

const ROUNDS: usize = 200_000;

fn seeds() -> Vec<Vec<u8>> {
    let mut everything = vec![mp_reach(&NEXT_HOP6, DOC6), mp_unreach(&[0])];
    everything.extend(mandatory());
    everything.extend([
        attribute(0x80, 4, &[0, 0, 0, 1]),
        local_pref(),
        attribute(0x40, 6, &[]),
        attribute(0xc0, 7, &[0, 0, 0, 1, 1, 1, 1, 1]),
        attribute(0xc0, 8, &[0, 1, 0, 1]),
        attribute(0x80, 9, &[1, 1, 1, 1]),
        attribute(0x80, 10, &[1, 1, 1, 1]),
        attribute(0xc0, 16, &[0; 8]),
        attribute(0xc0, 17, &[2, 1, 0, 1, 0, 0]),
        attribute(0xc0, 18, &[0, 1, 0, 0, 1, 1, 1, 1]),
        attribute(0xc0, 25, &[0; 20]),
        attribute(0xc0, 32, &[0; 12]),
        attribute(0xd0, 200, &[7; 5]),
    ]);
    let mut seeds = vec![
        update_message(TEN, &everything, TEST_NET),
        update_message(&[], &[], &[]),
        message(ROUTE_REFRESH, &[0, 1, 0, 1]),
        message(NOTIFICATION, &[6, 2, 3, b'b', b'y', b'e']),
        message(KEEPALIVE, &[]),
        message(OPEN, &[4, 0, 1, 0, 90, 1, 1, 1, 1, 255, 255, 0, 5, 2, 0, 2, 2, 0]),
    ];
    seeds.extend(captured().into_iter().map(|(_, octets)| octets));
    seeds
}

fn contexts() -> Vec<DecodeContext> {
    let mut contexts = Vec::new();
    for bits in 0..16 {
        let flag = |bit: u32| bits >> bit & 1 == 1;
        contexts.push(DecodeContext {
            four_octet_as: flag(0),
            families: if flag(1) {
                FamilySet::ALL
            } else {
                FamilySet::only(causeway_bgp_wire::Family::Ipv4Unicast)
            },
            session: if flag(2) { SessionKind::External } else { SessionKind::Internal },
            extended_message: true,
            add_path: if flag(3) { FamilySet::ALL } else { FamilySet::EMPTY },
            ipv6_next_hop: FamilySet::ALL,
            confederation: flag(3),
            first_as: None,
        });
    }
    contexts
}

fn mutate(octets: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(19..octets.len().max(20));
        match random.u8(0..12) {
            0..=3 if at < octets.len() => octets[at] = random.u8(..),
            4..=6 if at < octets.len() => octets[at] ^= 1 << random.u8(0..8),
            7..=8 if at < octets.len() => {
                octets[at] = *random.choice(&[0, 1, 2, 0x7f, 0x80, 0xff]).unwrap_or(&0)
            }
            9 if at <= octets.len() && octets.len() < 60_000 => octets.insert(at, random.u8(..)),
            10 if at < octets.len() => drop(octets.remove(at)),
            11 => octets.truncate(at),
            _ => {}
        }
    }
    let length = octets.len() as u16;
    octets[16..18].copy_from_slice(&length.to_be_bytes());
}

fn encode_again(attributes: &PathAttributes, nlri: &NlriList, four_octet_as: bool) {
    let context = EncodeContext { four_octet_as, ipv6_next_hop: FamilySet::ALL, ..EncodeContext::default() };
    let mut out = Vec::new();
    let decode =
        DecodeContext { four_octet_as, ipv6_next_hop: FamilySet::ALL, confederation: true, ..internal() };
    match nlri {
        NlriList::V4(list) => match EncodedAttributes::new(attributes, &context) {
            Ok(encoded) => encoded.announce(list.iter().copied(), &mut out),
            Err(_) => return,
        },
        NlriList::V6(list) => match EncodedAttributes::new(attributes, &context) {
            Ok(encoded) => encoded.announce(list.iter().copied(), &mut out),
            Err(_) => return,
        },
    };
    let mut rest = out.as_slice();
    while let Some(header) = Header::peek(rest, false).unwrap() {
        let update = decode_update(&rest[..header.length], &decode).expect("own messages are well-formed");
        assert_eq!(update.problems, []);
        rest = &rest[header.length..];
    }
}

#[test]
fn nothing_received_makes_the_decoder_panic() {
    let seeds = seeds();
    let contexts = contexts();
    let mut random = fastrand::Rng::with_seed(4271);
    let (mut survived, mut reset) = (0, 0);
    for round in 0..ROUNDS {
        let mut octets = seeds[round % seeds.len()].clone();
        mutate(&mut octets, &mut random);
        let context = &contexts[random.usize(0..contexts.len())];
        match Message::decode(&octets, context) {
            Ok(Message::Update(update)) => {
                survived += 1;
                let listed: usize = update.withdrawn.iter().map(NlriList::len).sum();
                let listed = listed + update.announced.iter().map(|a| a.nlri.len()).sum::<usize>();
                assert!(listed <= octets.len(), "a prefix takes an octet at least");
                for announcement in &update.announced {
                    encode_again(&announcement.attributes, &announcement.nlri, context.four_octet_as);
                }
                drop(format!("{update:?}"));
            }
            Ok(Message::Open(open)) => {
                let mut out = Vec::new();
                encode_open(&open, &mut out);
                assert_eq!(Message::decode(&out, context).expect("own OPEN"), Message::Open(open));
            }
            Ok(other) => drop(format!("{other:?}")),
            Err(error) => {
                reset += 1;
                let mut out = Vec::new();
                encode_notification(&error.notification, &mut out);
                assert!(matches!(Message::decode(&out, context), Ok(Message::Notification(_))));
                assert!(!error.reason.is_empty());
                drop(error.to_string());
            }
        }
    }
    assert!(
        survived > ROUNDS / 50 && reset > ROUNDS / 50,
        "the mutations reach both ends: {survived}, {reset}"
    );
}

#[test]
fn framing_never_panics_either() {
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..ROUNDS {
        let mut buffer = vec![0xff; 16];
        buffer.extend((0..random.usize(0..10)).map(|_| random.u8(..)));
        if random.u8(0..10) == 0 {
            buffer[random.usize(0..16)] = random.u8(..);
        }
        if let Ok(Some(header)) = Header::peek(&buffer, random.bool()) {
            assert!((19..=65535).contains(&header.length));
        }
    }
}
