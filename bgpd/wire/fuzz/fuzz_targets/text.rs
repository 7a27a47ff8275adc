//! Everything that is read from text: what is accepted must be printed as it can be read again.
#![no_main]

use causeway_bgp_wire::{Asn, Community, Family, LargeCommunity, Prefix};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(prefix.to_string().parse(), Ok(prefix));
    }
    if let Ok(community) = text.parse::<Community>() {
        assert_eq!(community.to_string().parse(), Ok(community));
    }
    if let Ok(community) = text.parse::<LargeCommunity>() {
        assert_eq!(community.to_string().parse(), Ok(community));
    }
    if let Ok(asn) = text.parse::<Asn>() {
        assert_eq!(asn.to_string().parse(), Ok(asn));
    }
    let _ = text.parse::<Family>();
});
