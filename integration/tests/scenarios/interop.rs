//! Implementations that are no ToR: attributes come through, and their own view agrees with ours.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_api::control::{Origin, Route};
use causeway_integration::lab::Lab;
use causeway_integration::until::until;

use crate::fabric::CONVERGENCE;
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
            for (neighbour, prefix) in
                [("192.0.2.3", "10.244.1.0/24"), ("2001:db8:2::1", "fd00:10:244:1::/64")]
            {
                let rib = lab.text("openbgpd", &["bgpctl", "show", "rib", "in", "neighbor", neighbour])?;
                ensure!(rib.contains(prefix), "OpenBGPD has no {prefix}: {rib}");
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
