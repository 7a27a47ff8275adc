//! A stream of octets as a peer would send it: framed and decoded message by message until something ends the session.
#![no_main]

use causeway_bgp_wire::{DecodeContext, FamilySet, Header, Message, SessionKind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let context = DecodeContext::new(SessionKind::External, FamilySet::ALL);
    let mut rest = octets;
    while let Ok(Some(header)) = Header::peek(rest, context.extended_message) {
        let Some((message, tail)) = rest.split_at_checked(header.length) else { return };
        if Message::decode(message, &context).is_err() {
            return;
        }
        rest = tail;
    }
});
