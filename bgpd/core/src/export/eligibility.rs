//! Whether a path may be advertised to a group at all, before its export policy is asked. Pure.
//!
//! RFC 4271 §9.1.3 and §9.2, RFC 4456 §6 (who is reflected to whom), RFC 1997 (well-known communities). That a path
//! does not go back to the session it came from is seen to where messages are handed out, since members of one group
//! differ in it. A path whose AS_PATH names the peer's AS is sent: the peer refuses it, or wants it (allowas-in).

use causeway_bgp_wire::Community;

use super::params::GroupKey;
use crate::rib::{SessionKind, Source};

/// Why the path is not advertised to the group, or `None` where it may be.
pub(super) fn refusal(communities: &[Community], source: &Source, key: &GroupKey) -> Option<&'static str> {
    match source {
        Source::Local { export: false } => return Some("not exported (disableBGPExport)"),
        // RFC 4456 §6: a client's path goes to everybody, a non-client's to clients.
        Source::Peer { kind: SessionKind::Ibgp, client, .. }
            if key.kind == SessionKind::Ibgp && !client && !key.client =>
        {
            return Some("learned over iBGP, and neither end is a client");
        }
        Source::Local { export: true } | Source::Peer { .. } => {}
    }
    let ebgp = key.kind == SessionKind::Ebgp;
    communities.iter().find_map(|community| match *community {
        Community::NO_ADVERTISE => Some("NO_ADVERTISE"),
        Community::NO_EXPORT if ebgp => Some("NO_EXPORT"),
        Community::NO_EXPORT_SUBCONFED if ebgp => Some("NO_EXPORT_SUBCONFED"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{attributes, from_ebgp, from_ibgp, key};

    #[test]
    fn rfc4456_6_who_is_reflected_to_whom() {
        let attributes = attributes(1);
        for (source, kind, client, goes) in [
            (from_ibgp(1, true), SessionKind::Ibgp, true, true),
            (from_ibgp(1, true), SessionKind::Ibgp, false, true),
            (from_ibgp(1, false), SessionKind::Ibgp, true, true),
            (from_ibgp(1, false), SessionKind::Ibgp, false, false),
            (from_ibgp(1, false), SessionKind::Ebgp, false, true),
            (from_ibgp(1, true), SessionKind::Ebgp, false, true),
            (from_ebgp(1), SessionKind::Ibgp, false, true),
            (from_ebgp(1), SessionKind::Ibgp, true, true),
            (from_ebgp(1), SessionKind::Ebgp, false, true),
            (Source::Local { export: true }, SessionKind::Ibgp, false, true),
            (Source::Local { export: true }, SessionKind::Ebgp, false, true),
            (Source::Local { export: false }, SessionKind::Ibgp, true, false),
            (Source::Local { export: false }, SessionKind::Ebgp, false, false),
        ] {
            let refused = refusal(&attributes.communities, &source, &key(kind, client));
            assert_eq!(refused.is_none(), goes, "{source:?} to {kind:?} client={client}: {refused:?}");
        }
    }

    #[test]
    fn rfc1997_well_known_communities() {
        for (community, to_ebgp, to_ibgp) in [
            (Community::NO_ADVERTISE, false, false),
            (Community::NO_EXPORT, false, true),
            (Community::NO_EXPORT_SUBCONFED, false, true),
            (Community::new(64512, 1), true, true),
        ] {
            let mut attributes = attributes(1);
            attributes.communities = vec![Community::new(64512, 100), community];
            let source = Source::Local { export: true };
            let goes = |kind| refusal(&attributes.communities, &source, &key(kind, false)).is_none();
            assert_eq!((goes(SessionKind::Ebgp), goes(SessionKind::Ibgp)), (to_ebgp, to_ibgp), "{community}");
        }
    }
}
