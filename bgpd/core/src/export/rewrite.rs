//! What the attributes of a path become on their way to a group. Pure; *whether* the path goes at all is decided in
//! [`super::eligibility`] and by policy.
//!
//! RFC 4271 §5.1 (AS_PATH, NEXT_HOP, MULTI_EXIT_DISC, LOCAL_PREF), RFC 2545 §2 and §3 (IPv6 next hops), RFC 4456 §8
//! (reflection changes nothing but ORIGINATOR_ID and CLUSTER_LIST), RFC 4360 §2 (non-transitive communities),
//! RFC 9012 §11 (tunnels).

use std::net::IpAddr;

use causeway_bgp_wire::{NextHop, PathAttributes, code};

use super::params::GroupKey;
use crate::config::NextHopMode;
use crate::rib::{SessionKind, Source};

/// LOCAL_PREF of a path that has none on its way into iBGP, where it is mandatory (RFC 4271 §5.1.5).
const DEFAULT_LOCAL_PREF: u32 = 100;

/// Why a path is not sent where its next hop would have to be this speaker.
pub(super) const NO_ADDRESS: &str = "no local address of the family to be the next hop";

/// Makes of the attributes what the export policy is to see. A MULTI_EXIT_DISC of another AS does not go on to a third
/// one (RFC 4271 §5.1.4), but one that the policy sets does; taken out first, what is there afterwards is the policy's.
pub(super) fn before_policy(attributes: &mut PathAttributes, source: &Source, key: &GroupKey) {
    if drops_med(source, key) {
        attributes.med = None;
    }
}

/// Whether [`before_policy`] takes a MULTI_EXIT_DISC out.
pub(super) fn drops_med(source: &Source, key: &GroupKey) -> bool {
    key.kind == SessionKind::Ebgp && matches!(source, Source::Peer { .. })
}

/// The attributes as sent. `keep_next_hop`: the policy has set it.
///
/// # Errors
/// Why the path cannot be sent after all.
pub(super) fn rewrite(
    mut attributes: PathAttributes,
    source: &Source,
    key: &GroupKey,
    keep_next_hop: bool,
) -> Result<PathAttributes, &'static str> {
    attributes.next_hop = next_hop(attributes.next_hop, source, key, keep_next_hop).ok_or(NO_ADDRESS)?;
    match key.kind {
        SessionKind::Ebgp => leave_as(&mut attributes, key),
        SessionKind::Ibgp => {
            attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
            if let Source::Peer { kind: SessionKind::Ibgp, router_id, .. } = source {
                attributes.originator_id.get_or_insert(*router_id);
                attributes.cluster_list.insert(0, key.cluster_id);
            }
        }
    }
    Ok(attributes)
}

/// Over the border of the AS: our number before the path, nothing that is the AS's own business, which tunnels are too.
fn leave_as(sent: &mut PathAttributes, key: &GroupKey) {
    sent.as_path = sent.as_path.prepend(key.local_as, 1);
    sent.local_pref = None;
    sent.originator_id = None;
    sent.cluster_list.clear();
    sent.ext_communities.retain(|community| community.is_transitive() && !community.is_encapsulation());
    sent.unknown.retain(|attribute| attribute.code != code::TUNNEL_ENCAPSULATION);
}

/// The next hop as sent; `None`: there is none.
pub(super) fn next_hop(received: NextHop, source: &Source, key: &GroupKey, keep: bool) -> Option<NextHop> {
    // A next hop that is passed on goes without its link-local companion, which means nothing beyond its own link
    // (RFC 2545 §3); one that is nothing but link-local cannot be passed on.
    let passed_on = NextHop { global: received.global, link_local: None };
    if keep {
        return Some(passed_on);
    }
    let link_local_only = matches!(passed_on.global, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if matches!(source, Source::Local { .. }) || link_local_only {
        return key.self_next_hop;
    }
    match (key.next_hop_mode, key.kind) {
        (NextHopMode::Self_, _) | (NextHopMode::Auto, SessionKind::Ebgp) => key.self_next_hop,
        (NextHopMode::Keep, _) | (NextHopMode::Auto, SessionKind::Ibgp) => Some(passed_on),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use causeway_bgp_wire::{AsPath, Asn, Community, ExtCommunity, Origin};

    use super::*;
    use crate::export::testing::{SELF, SELF_V6, attributes, from_ebgp, from_ibgp, key, key_v6};

    const LOCAL: Source = Source::Local { export: true };

    fn sent(attributes: &PathAttributes, source: &Source, key: &GroupKey) -> PathAttributes {
        let mut seen = attributes.clone();
        before_policy(&mut seen, source, key);
        rewrite(seen, source, key, false).unwrap()
    }

    #[test]
    fn rfc4271_5_1_2_as_path_grows_at_the_border_only() {
        let path = attributes(7);
        let ebgp = sent(&path, &from_ebgp(1), &key(SessionKind::Ebgp, false));
        assert_eq!(ebgp.as_path.to_string(), format!("64512 {}", path.as_path));
        assert_eq!(sent(&path, &from_ebgp(1), &key(SessionKind::Ibgp, false)).as_path, path.as_path);
        let own = PathAttributes::new(Origin::Igp, Ipv4Addr::UNSPECIFIED.into());
        assert_eq!(sent(&own, &LOCAL, &key(SessionKind::Ibgp, false)).as_path, AsPath::empty());
        assert_eq!(
            sent(&own, &LOCAL, &key(SessionKind::Ebgp, false)).as_path,
            AsPath::from_sequence([Asn(64512)])
        );
    }

    #[test]
    fn rfc4271_5_1_3_next_hop() {
        use NextHopMode::{Auto, Keep, Self_};
        use SessionKind::{Ebgp, Ibgp};
        let path = attributes(7);
        let theirs = path.next_hop;
        for (source, kind, mode, expected) in [
            (from_ebgp(1), Ebgp, Auto, SELF.into()),
            (from_ebgp(1), Ebgp, Keep, theirs),
            (from_ebgp(1), Ibgp, Auto, theirs),
            (from_ebgp(1), Ibgp, Self_, SELF.into()),
            (from_ibgp(1, true), Ibgp, Auto, theirs),
            (from_ibgp(1, true), Ibgp, Keep, theirs),
            (from_ibgp(1, true), Ibgp, Self_, SELF.into()),
            (from_ibgp(1, true), Ebgp, Auto, SELF.into()),
            (LOCAL, Ibgp, Auto, SELF.into()),
            (LOCAL, Ibgp, Keep, SELF.into()),
            (LOCAL, Ebgp, Keep, SELF.into()),
        ] {
            let key = GroupKey { next_hop_mode: mode, ..key(kind, true) };
            assert_eq!(sent(&path, &source, &key).next_hop, expected, "{source:?} {kind:?} {mode:?}");
        }
        let set_by_policy = rewrite(path.clone(), &LOCAL, &key(Ebgp, false), true).unwrap().next_hop;
        assert_eq!(set_by_policy, theirs);
    }

    #[test]
    fn without_an_address_of_the_family_there_is_no_next_hop_self() {
        let key = |kind| GroupKey { self_next_hop: None, ..key(kind, false) };
        let path = attributes(7);
        assert!(rewrite(path.clone(), &LOCAL, &key(SessionKind::Ibgp), false).is_err());
        assert!(rewrite(path.clone(), &from_ebgp(1), &key(SessionKind::Ebgp), false).is_err());
        assert!(rewrite(path.clone(), &from_ebgp(1), &key(SessionKind::Ibgp), false).is_ok());
    }

    #[test]
    fn rfc2545_3_link_local_goes_only_with_our_own_next_hop() {
        let link_local = "fe80::1".parse().unwrap();
        let mut path = attributes(7);
        path.next_hop = NextHop { global: "2001:db8::7".parse().unwrap(), link_local: Some(link_local) };
        let ibgp = sent(&path, &from_ebgp(1), &key_v6(SessionKind::Ibgp));
        assert_eq!(ibgp.next_hop, NextHop { link_local: None, ..path.next_hop });
        let ebgp = sent(&path, &from_ebgp(1), &key_v6(SessionKind::Ebgp));
        assert_eq!(ebgp.next_hop.global, IpAddr::from(SELF_V6));
        assert!(ebgp.next_hop.link_local.is_some());
        path.next_hop = link_local.into();
        let ibgp = sent(&path, &from_ebgp(1), &key_v6(SessionKind::Ibgp));
        assert_eq!(ibgp.next_hop.global, IpAddr::from(SELF_V6), "a link-local next hop cannot be passed on");
    }

    #[test]
    fn rfc4271_5_1_4_med_stops_at_the_next_as() {
        let mut path = attributes(7);
        path.med = Some(50);
        assert_eq!(sent(&path, &from_ebgp(1), &key(SessionKind::Ebgp, false)).med, None);
        assert_eq!(sent(&path, &from_ibgp(1, false), &key(SessionKind::Ebgp, false)).med, None);
        assert_eq!(sent(&path, &from_ebgp(1), &key(SessionKind::Ibgp, false)).med, Some(50));
        assert_eq!(sent(&path, &LOCAL, &key(SessionKind::Ebgp, false)).med, Some(50));
        let policy_set =
            rewrite(path.clone(), &from_ebgp(1), &key(SessionKind::Ebgp, false), false).unwrap().med;
        assert_eq!(policy_set, Some(50));
    }

    #[test]
    fn rfc4271_5_1_5_local_pref_inside_only() {
        let mut path = attributes(7);
        path.local_pref = Some(250);
        assert_eq!(sent(&path, &from_ebgp(1), &key(SessionKind::Ebgp, false)).local_pref, None);
        assert_eq!(sent(&path, &from_ebgp(1), &key(SessionKind::Ibgp, false)).local_pref, Some(250));
        path.local_pref = None;
        assert_eq!(sent(&path, &from_ebgp(1), &key(SessionKind::Ibgp, false)).local_pref, Some(100));
    }

    #[test]
    fn rfc4456_8_reflection_adds_originator_and_cluster_and_changes_nothing_else() {
        let mut path = attributes(7);
        path.local_pref = Some(80);
        path.med = Some(3);
        let key = key(SessionKind::Ibgp, true);
        let once = sent(&path, &from_ibgp(9, true), &key);
        let expected = PathAttributes {
            originator_id: Some(Ipv4Addr::from(9)),
            cluster_list: vec![key.cluster_id],
            ..path.clone()
        };
        assert_eq!(once, expected);
        path.originator_id = Some(Ipv4Addr::from(5));
        path.cluster_list = vec![Ipv4Addr::from(77)];
        let twice = sent(&path, &from_ibgp(9, true), &key);
        assert_eq!(twice.originator_id, Some(Ipv4Addr::from(5)));
        assert_eq!(twice.cluster_list, [key.cluster_id, Ipv4Addr::from(77)]);
        let own = sent(&attributes(7), &LOCAL, &key);
        assert_eq!((own.originator_id, own.cluster_list), (None, vec![]));
    }

    #[test]
    fn what_belongs_to_the_as_stays_in_it() {
        let mut path = attributes(7);
        path.originator_id = Some(Ipv4Addr::from(5));
        path.cluster_list = vec![Ipv4Addr::from(77)];
        path.communities = vec![Community::new(1, 2)];
        let (transitive, bound) = (ExtCommunity([0; 8]), ExtCommunity([0x40, 0, 0, 0, 0, 0, 0, 0]));
        path.ext_communities = vec![bound, transitive];
        let ebgp = sent(&path, &from_ibgp(1, true), &key(SessionKind::Ebgp, false));
        assert_eq!((ebgp.originator_id, ebgp.cluster_list), (None, vec![]));
        assert_eq!(ebgp.ext_communities, [transitive]);
        assert_eq!(ebgp.communities, path.communities);
        let ibgp = sent(&path, &from_ebgp(1), &key(SessionKind::Ibgp, false));
        assert_eq!(ibgp.ext_communities, [bound, transitive]);
    }
}
