//! Implementations that are no ToR: attributes come through, and their own view agrees with ours.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_api::control::{Origin, Route};
use causeway_integration::lab::Lab;
use causeway_integration::until::until;

use crate::fabric::CONVERGENCE;
use crate::peer_views::{gobgp_view, openbgpd_view, views_agree};
use crate::scene::play;

fn learned(lab: &Lab, peer: &str, prefix: &str) -> Result<Route> {
    let rows = lab.routes("node", "learned")?;
    let row =
        rows.into_iter().find(|row| row.peer.as_deref() == Some(peer) && row.prefix.to_string() == prefix);
    row.with_context(|| format!("no {prefix} learned from {peer}"))
}

#[test]
fn openbgpd_exchanges_both_families() {
    play("edge", |scene| {
        let lab = &scene.lab;
        until(CONVERGENCE, || {
            for (prefix, hop) in [("10.244.21.0/24", "192.0.2.2"), ("fd00:10:244:21::/64", "2001:db8:2::")] {
                let row = learned(lab, hop, prefix)?;
                ensure!(row.accepted == Some(true) && row.best, "{row:?}");
                ensure!(row.next_hop.map(|hop| hop.to_string()).as_deref() == Some(hop), "{row:?}");
                ensure!(
                    row.origin == Origin::Igp && serde_json::to_string(&row.as_path)? == "[65002]",
                    "{row:?}"
                );
                ensure!(!lab.kernel_route("node", prefix)?.is_null(), "{prefix} is not in the kernel");
            }
            Ok(())
        })?;
        until(Duration::from_secs(10), || {
            for (neighbour, address) in [("192.0.2.3", "192.0.2.2"), ("2001:db8:2::1", "2001:db8:2::")] {
                let (received, sent) = openbgpd_view(lab, "openbgpd", neighbour)?;
                views_agree(lab, "node", address, &received, &sent)?;
            }
            Ok(())
        })
    });
}

#[test]
fn gobgp_exchanges_both_families_and_withdraws() {
    play("edge", |scene| {
        let lab = &scene.lab;
        let rib = |verb: &str| -> Result<()> {
            lab.text("gobgp", &["gobgp", "global", "rib", verb, "-a", "ipv4", "10.244.23.0/24"])?;
            lab.text("gobgp", &["gobgp", "global", "rib", verb, "-a", "ipv6", "fd00:10:244:23::/64"])
                .map(|_| ())
        };
        rib("add")?;
        until(CONVERGENCE, || {
            for (family, neighbour, address, prefix) in [
                ("ipv4", "192.0.2.9", "192.0.2.8", "10.244.23.0/24"),
                ("ipv6", "2001:db8:5::1", "2001:db8:5::", "fd00:10:244:23::/64"),
            ] {
                let (received, sent) = gobgp_view(lab, "gobgp", neighbour, family)?;
                ensure!(received.len() == 1, "GoBGP has {received:?} of the node");
                views_agree(lab, "node", address, &received, &sent)?;
                ensure!(!lab.kernel_route("node", prefix)?.is_null(), "{prefix} is not in the kernel");
            }
            Ok(())
        })?;
        rib("del")?;
        until(Duration::from_secs(10), || {
            for prefix in ["10.244.23.0/24", "fd00:10:244:23::/64"] {
                ensure!(lab.kernel_route("node", prefix)?.is_null(), "{prefix} is still in the kernel");
            }
            Ok(())
        })
    });
}

#[test]
fn exabgp_attributes_come_through() {
    play("edge", |scene| {
        let lab = &scene.lab;
        until(CONVERGENCE, || {
            let v4 = learned(lab, "192.0.2.4", "10.244.22.0/24")?;
            ensure!(v4.med == Some(30), "MED: {v4:?}");
            ensure!(v4.communities == ["65003:7"], "communities: {v4:?}");
            ensure!(v4.large_communities == ["65003:1:2"], "large communities: {v4:?}");
            ensure!(serde_json::to_string(&v4.as_path)? == "[65003,65100]", "AS path: {v4:?}");
            let v6 = learned(lab, "192.0.2.4", "fd00:10:244:22::/64")?;
            ensure!(v6.origin == Origin::Incomplete, "ORIGIN: {v6:?}");
            ensure!(
                v6.next_hop.map(|hop| hop.to_string()).as_deref() == Some("2001:db8:3::"),
                "next hop: {v6:?}"
            );
            ensure!(!lab.kernel_route("node", "fd00:10:244:22::/64")?.is_null(), "not in the kernel");
            Ok(())
        })
    });
}
