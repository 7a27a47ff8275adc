//! The body of an UPDATE under every outcome of the OPEN exchange (the first octet chooses); what is let through is
//! encoded, and must be read again without a problem.
#![no_main]

use causeway_bgp_wire::{
    DecodeContext, EncodeContext, EncodedAttributes, FamilySet, Message, NlriList, SessionKind,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = input.split_first() else { return };
    let flag = |bit: u8| choice >> bit & 1 == 1;
    let all = |yes: bool| if yes { FamilySet::ALL } else { FamilySet::EMPTY };
    let context = DecodeContext {
        four_octet_as: flag(0),
        families: FamilySet::ALL,
        session: if flag(1) { SessionKind::External } else { SessionKind::Internal },
        extended_message: true,
        add_path: all(flag(2)),
        ipv6_next_hop: all(flag(3)),
        confederation: flag(4),
        first_as: None,
    };
    let Ok(length) = u16::try_from(19 + body.len()) else { return };
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&length.to_be_bytes());
    message.push(2);
    message.extend_from_slice(body);
    let Ok(Message::Update(update)) = Message::decode(&message, &context) else { return };
    let encode = EncodeContext {
        four_octet_as: context.four_octet_as,
        extended_message: true,
        add_path: context.add_path,
        ipv6_next_hop: context.ipv6_next_hop,
    };
    for announcement in &update.announced {
        let mut out = Vec::new();
        let messages = match &announcement.nlri {
            NlriList::V4(list) => EncodedAttributes::new(&announcement.attributes, &encode)
                .map(|e| e.announce(list.iter().copied(), &mut out)),
            NlriList::V6(list) => EncodedAttributes::new(&announcement.attributes, &encode)
                .map(|e| e.announce(list.iter().copied(), &mut out)),
        };
        if messages == Ok(1) {
            // What came from outside may have held LOCAL_PREF and the like: read it as from inside.
            let inside = DecodeContext { session: SessionKind::Internal, ..context };
            let Ok(Message::Update(again)) = Message::decode(&out, &inside) else {
                panic!("own message is refused")
            };
            assert!(again.problems.is_empty());
        }
    }
});
