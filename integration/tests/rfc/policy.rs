//! Filters and what they change, and paths at the edge of what can be passed on. DESIGN §3, RFC 4271 §5 and §9.

use std::time::Duration;

use anyhow::{Result, ensure};
use causeway_bgp_wire::PathAttributes;

use crate::octets::*;
use crate::peer::{Peer, established};
use crate::runner::{Case, Site, case};
use crate::speaker::{AS, Config};

const PREFIX: &str = "198.51.100.0/24";
const MARKER: &str = "203.0.113.0/24";

fn filter(name: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: causeway.dev/v1alpha1\nkind: BGPFilter\nmetadata: {{name: {name}}}\nspec: {{{rules}}}\n"
    )
}

/// Peer 2 announces through an import filter; what an internal (4) or external (3) watcher gets of it.
fn imported(site: &Site, rules: &str, to: u8, check: impl Fn(&PathAttributes) -> bool) -> Result<()> {
    let documents = filter("in", rules);
    let config = Config::new()
        .peer_with(2, 65002, "passive: true, filters: [in]")
        .peer(3, 65003)
        .peer(4, AS)
        .documents(&documents);
    let _speaker = config.start(site)?;
    let mut watcher = established(site, to, if to == 4 { AS } else { 65003 })?;
    let mut peer = established(site, 2, 65002)?;
    let attributes = [origin(0), as_path(&[65002, 7]), next_hop(site.v4(2)), communities(&[0xfc00_0001])];
    peer.send(&update(&[], &attributes, &nlri(PREFIX)))?;
    let route = watcher.route(PREFIX)?;
    ensure!(check(&route), "{route:?}");
    Ok(())
}

/// Whether an external path with these attributes comes through an import filter.
fn admitted(site: &Site, rules: &str, expected: bool) -> Result<()> {
    let rules = format!("importV4: [{{cidr: {MARKER}, matchOperator: Equal, action: Accept}}, {rules}]");
    let documents = filter("in", &rules);
    let config = Config::new()
        .peer_with(2, 65002, "passive: true, filters: [in]")
        .peer(3, 65003)
        .documents(&documents);
    let _speaker = config.start(site)?;
    let mut watcher = established(site, 3, 65003)?;
    let mut peer = established(site, 2, 65002)?;
    let attributes = [origin(0), as_path(&[65002, 7]), next_hop(site.v4(2)), communities(&[0xfc00_0001])];
    peer.send(&update(&[], &attributes, &[nlri(PREFIX), nlri(MARKER)].concat()))?;
    watcher.route(MARKER)?;
    watcher.listen_for(Duration::from_millis(250))?;
    ensure!(watcher.has(PREFIX) == expected, "admitted: {}", watcher.has(PREFIX));
    Ok(())
}

fn rule(name: &str, rules: &'static str, expected: bool) -> Case {
    case(format!("DESIGN §3: {name}"), move |site| admitted(site, rules, expected))
}

fn operation(name: &str, operation: &str, to: u8, check: fn(&PathAttributes) -> bool) -> Case {
    let rules = format!("importV4: [{{action: Accept, operations: [{operation}]}}]");
    case(format!("DESIGN §3: {name}"), move |site| imported(site, &rules, to, check))
}

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        rule(
            "no match leaves it to the default policy",
            "{cidr: 192.0.2.0/24, matchOperator: Equal, action: Accept}",
            false,
        ),
        rule(
            "the first match wins",
            "{cidr: 198.51.100.0/24, matchOperator: Equal, action: Reject}, {action: Accept}",
            false,
        ),
        rule("Equal", "{cidr: 198.51.100.0/24, matchOperator: Equal, action: Accept}", true),
        rule("Equal is not In", "{cidr: 198.51.0.0/16, matchOperator: Equal, action: Accept}", false),
        rule("In", "{cidr: 198.51.0.0/16, matchOperator: In, action: Accept}", true),
        rule(
            "In with a prefix length",
            "{cidr: 198.51.0.0/16, matchOperator: In, prefixLength: {min: 25}, action: Accept}",
            false,
        ),
        rule("NotIn", "{cidr: 198.51.0.0/16, matchOperator: NotIn, action: Reject}, {action: Accept}", true),
        rule(
            "NotEqual",
            "{cidr: 198.51.100.0/24, matchOperator: NotEqual, action: Reject}, {action: Accept}",
            true,
        ),
        rule("a community that is there", "{communities: {values: [\"64512:1\"]}, action: Accept}", true),
        rule(
            "a community that is not there",
            "{communities: {values: [\"64512:2\"]}, action: Accept}",
            false,
        ),
        rule("a path that begins so", "{asPathPrefix: [65002], action: Accept}", true),
        rule("a path that begins otherwise", "{asPathPrefix: [7], action: Accept}", false),
        rule("peerType eBGP", "{peerType: eBGP, action: Accept}", true),
        rule("peerType iBGP", "{peerType: iBGP, action: Accept}", false),
        operation("setLocalPref", "{setLocalPref: {value: 50}}", 4, |a| a.local_pref == Some(50)),
        operation("setMED", "{setMED: {value: 9}}", 4, |a| a.med == Some(9)),
        operation("addCommunity", "{addCommunity: {value: \"64512:2\"}}", 3, |a| a.communities.len() == 2),
        operation("removeCommunity", "{removeCommunity: {value: \"64512:1\"}}", 3, |a| {
            a.communities.is_empty()
        }),
        operation("setCommunities", "{setCommunities: {values: [\"64512:7\", \"1:2:3\"]}}", 3, |a| {
            a.communities.len() == 1
                && a.communities[0].to_string() == "64512:7"
                && a.large_communities.len() == 1
        }),
        operation("prependASPath", "{prependASPath: {prefix: [65100, 65100]}}", 4, |a| {
            a.as_path.to_string() == "65100 65100 65002 7"
        }),
        case("DESIGN §3: setMED on export reaches the external peer", |site| {
            let documents =
                filter("out", "exportV4: [{action: Accept, operations: [{setMED: {value: 33}}]}]");
            let config =
                Config::new().peer_with(3, 65003, "passive: true, filters: [out]").documents(&documents);
            let _speaker = config.start(site)?;
            let route = established(site, 3, 65003)?.route("10.244.1.0/24")?;
            ensure!(route.med == Some(33), "{route:?}");
            Ok(())
        }),
        case("DESIGN §3: prefixAdvertisements give the own block its communities", |site| {
            let global = "communities: [{name: pods, value: \"64512:100\"}], \
                          prefixAdvertisements: [{cidr: 10.244.0.0/16, communities: [pods]}]";
            let _speaker = Config::new().global(global).peer(3, 65003).start(site)?;
            let route = established(site, 3, 65003)?.route("10.244.1.0/24")?;
            ensure!(route.communities.iter().map(ToString::to_string).eq(["64512:100"]), "{route:?}");
            Ok(())
        }),
    ];
    cases.extend(edges());
    cases
}

/// A peer 2 and a watcher 3, both external, with the prefix announced well.
fn announced(site: &Site) -> Result<(crate::speaker::Speaker, Peer, Peer)> {
    let speaker = Config::new().peer(2, 65002).peer(3, 65003).start(site)?;
    let mut watcher = established(site, 3, 65003)?;
    let mut peer = established(site, 2, 65002)?;
    peer.send(&update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(2))], &nlri(PREFIX)))?;
    watcher.route(PREFIX)?;
    Ok((speaker, peer, watcher))
}

fn edges() -> Vec<Case> {
    vec![
        case(
            "RFC 4271 §9.2: a path too long to be passed on is withdrawn from those who have its predecessor",
            |site| {
                let (_speaker, mut peer, mut watcher) = announced(site)?;
                // 4,096 octets as they come in; the own AS in front makes them too many.
                let fixed =
                    update(&[], &[origin(0), attribute(0x50, 2, &[]), next_hop(site.v4(2))], &nlri(PREFIX))
                        .len();
                let mut value = Vec::new();
                let mut room = (4096 - fixed) / 4;
                while room > 1 {
                    let count = (room - 1).min(255);
                    value.extend([2, count as u8]);
                    value.extend((0..count).flat_map(|_| 65002u32.to_be_bytes()));
                    room -= count + 1;
                }
                peer.send(&update(
                    &[],
                    &[origin(0), attribute(0x50, 2, &value), next_hop(site.v4(2))],
                    &nlri(PREFIX),
                ))?;
                peer.send(&update(
                    &[],
                    &[origin(0), as_path(&[65002]), next_hop(site.v4(2))],
                    &nlri(MARKER),
                ))?;
                watcher.route(MARKER)?;
                watcher.until("the old path gone", |w| {
                    w.routes.get(&PREFIX.parse().unwrap()).is_none_or(|a| a.as_path.length() > 2)
                })
            },
        ),
        case("RFC 4271 §5.1.5: a path without LOCAL_PREF inside the AS counts 100", |site| {
            let _speaker = Config::new().peer(2, AS).peer(3, AS).peer(4, 65004).start(site)?;
            let mut watcher = established(site, 4, 65004)?;
            let mut without = established(site, 2, AS)?;
            let mut with = established(site, 3, AS)?;
            without.send(&update(&[], &[origin(0), as_path(&[7]), next_hop(site.v4(2))], &nlri(PREFIX)))?;
            watcher.route(PREFIX)?;
            let lower = [origin(0), as_path(&[8]), next_hop(site.v4(3)), local_pref(99)];
            with.send(&update(&[], &lower, &nlri(PREFIX)))?;
            watcher.listen_for(Duration::from_millis(400))?;
            let path = watcher.route(PREFIX)?.as_path.to_string();
            ensure!(path == "65001 7", "99 won: {path}");
            let higher = [origin(0), as_path(&[8]), next_hop(site.v4(3)), local_pref(101)];
            with.send(&update(&[], &higher, &nlri(PREFIX)))?;
            watcher.until("101 wins", |w| {
                w.routes.get(&PREFIX.parse().unwrap()).is_some_and(|a| a.as_path.to_string() == "65001 8")
            })
        }),
        case("RFC 4271 §4.3: prefixes announced and others withdrawn in one UPDATE", |site| {
            let (_speaker, mut peer, mut watcher) = announced(site)?;
            let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
            peer.send(&update(&nlri(PREFIX), &attributes, &nlri(MARKER)))?;
            watcher.route(MARKER)?;
            watcher.withdrawn(PREFIX)
        }),
        case("RFC 4271 §4.3: bits beyond the length of a prefix do not matter", |site| {
            let (_speaker, mut peer, mut watcher) = announced(site)?;
            let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
            peer.send(&update(&[], &attributes, &[20, 203, 0, 0xff]))?;
            watcher.route("203.0.240.0/20").map(|_| ())
        }),
        case("RFC 4271 §6.3: a multicast prefix is ignored, the others are taken", |site| {
            let (_speaker, mut peer, mut watcher) = announced(site)?;
            let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
            peer.send(&update(&[], &attributes, &[nlri("224.1.0.0/16"), nlri(MARKER)].concat()))?;
            watcher.route(MARKER)?;
            watcher.listen_for(Duration::from_millis(250))?;
            ensure!(!watcher.has("224.1.0.0/16"), "it was taken");
            Ok(())
        }),
        case("RFC 4271 §6.3: the speaker's own IPv6 address as next hop", |site| {
            let (_speaker, mut peer, mut watcher) = announced(site)?;
            let attributes =
                [mp_reach(&site.v6(1).octets(), &nlri("2001:db8:5::/48")), origin(0), as_path(&[65002])];
            peer.send(&update(&[], &attributes, &[]))?;
            peer.send(&update(&[], &[origin(0), as_path(&[65002]), next_hop(site.v4(2))], &nlri(MARKER)))?;
            watcher.route(MARKER)?;
            watcher.listen_for(Duration::from_millis(250))?;
            ensure!(!watcher.has("2001:db8:5::/48"), "it was taken");
            Ok(())
        }),
        case("RFC 4271 §9.1.2: host routes and long prefixes of both families", |site| {
            let (_speaker, mut peer, mut watcher) = announced(site)?;
            let attributes = [origin(0), as_path(&[65002]), next_hop(site.v4(2))];
            peer.send(&update(&[], &attributes, &[nlri("203.0.113.7/32"), nlri("203.0.113.8/31")].concat()))?;
            let six = mp_reach(&site.v6(2).octets(), &nlri("2001:db8::7/128"));
            peer.send(&update(&[], &[six, origin(0), as_path(&[65002])], &[]))?;
            watcher.route("203.0.113.7/32")?;
            watcher.route("203.0.113.8/31")?;
            watcher.route("2001:db8::7/128").map(|_| ())
        }),
    ]
}
