//! Which of two connections with one peer is kept. Pure. RFC 4271 §6.8, RFC 6286 §2.3 (equal identifiers).

use std::net::Ipv4Addr;

use causeway_bgp_wire::Asn;

/// Which end opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We did.
    Outgoing,
    /// The peer did.
    Incoming,
}

/// Who speaks: compared first by BGP identifier, then by AS number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// BGP identifier, as an unsigned number.
    pub router_id: Ipv4Addr,
    /// AS number.
    pub asn: Asn,
}

/// Whether, of a connection whose OPEN has just come (`new`) and one that is in OpenConfirm (`old`), the new one is
/// kept. Both ends come to the same answer: the connection that the end with the higher identity opened survives.
/// Where the same end opened both, the text of §6.8 is taken by its letter: the older one goes if the peer's identity
/// is the higher one, else the newer one.
pub fn keeps_new(local: Identity, remote: Identity, new: Origin, old: Origin) -> bool {
    let winner = winner(local, remote);
    if new == old { winner == Origin::Incoming } else { new == winner }
}

/// Which of two connections opened from both ends survives.
pub fn winner(local: Identity, remote: Identity) -> Origin {
    if local < remote { Origin::Incoming } else { Origin::Outgoing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Origin::{Incoming, Outgoing};

    fn identity(last: u8, asn: u32) -> Identity {
        Identity { router_id: Ipv4Addr::new(192, 0, 2, last), asn: Asn(asn) }
    }

    #[test]
    fn rfc4271_6_8_both_ends_keep_the_same_connection() {
        let pairs = [
            (identity(1, 64512), identity(2, 64512)),
            (identity(2, 64512), identity(1, 64601)),
            (identity(200, 1), identity(3, 2)),
            (identity(7, 64512), identity(7, 64601)),
        ];
        for (a, b) in pairs {
            // The connection a opened is outgoing at a and incoming at b.
            let a_keeps_its_own = keeps_new(a, b, Outgoing, Incoming);
            let b_keeps_that_of_a = keeps_new(b, a, Incoming, Outgoing);
            assert_eq!(a_keeps_its_own, b_keeps_that_of_a, "{a:?} {b:?}");
            assert_eq!(a_keeps_its_own, a > b, "the higher identity's connection stays");
            // The answer does not depend on whose OPEN came first.
            assert_eq!(keeps_new(a, b, Incoming, Outgoing), !a_keeps_its_own);
        }
    }

    #[test]
    fn rfc6286_2_3_equal_identifiers_are_told_apart_by_as() {
        assert!(keeps_new(identity(7, 64601), identity(7, 64512), Outgoing, Incoming));
        assert!(!keeps_new(identity(7, 64512), identity(7, 64601), Outgoing, Incoming));
        assert!(keeps_new(identity(7, 64512), identity(7, 64601), Incoming, Outgoing));
    }

    #[test]
    fn rfc4271_6_8_two_of_the_peers_own() {
        assert!(keeps_new(identity(1, 1), identity(2, 1), Incoming, Incoming));
        assert!(!keeps_new(identity(2, 1), identity(1, 1), Incoming, Incoming));
    }

    #[test]
    fn identifiers_compare_as_unsigned_numbers() {
        let low = Identity { router_id: Ipv4Addr::new(9, 0, 0, 1), asn: Asn(1) };
        let high = Identity { router_id: Ipv4Addr::new(200, 0, 0, 1), asn: Asn(1) };
        assert_eq!(winner(low, high), Incoming);
        assert_eq!(winner(high, low), Outgoing);
    }
}
