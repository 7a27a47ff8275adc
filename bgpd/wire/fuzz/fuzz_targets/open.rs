//! The body of an OPEN; what is let through is encoded, and must be read again as the same.
#![no_main]

use causeway_bgp_wire::{DecodeContext, FamilySet, Message, SessionKind, encode_open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let context = DecodeContext::new(SessionKind::External, FamilySet::ALL);
    let Ok(length) = u16::try_from(19 + body.len()) else { return };
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&length.to_be_bytes());
    message.push(1);
    message.extend_from_slice(body);
    if let Ok(Message::Open(open)) = Message::decode(&message, &context) {
        let mut out = Vec::new();
        encode_open(&open, &mut out);
        if out.len() <= 4096 {
            assert!(matches!(Message::decode(&out, &context), Ok(Message::Open(_))));
        }
    }
});
