//! IP-in-IP, on a kernel that has it, and what is said of a kernel that has not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use causeway_api::control::ConditionStatus;
use causeway_integration::until::until;

use super::check::{large_transfers_complete, nodes_reach_pods, pods, reach_each_other, settled};
use super::expect::{ALL, Kind, Modes, When};
use super::vxlan::lost_while;
use crate::fabric::CONVERGENCE;
use crate::kernel::{with_ipip, without_ipip};
use crate::scene::play;

#[test]
fn every_mode_of_ipip_is_seen_on_the_wire_and_in_every_account() {
    with_ipip("tunnels::ipip::every_mode_of_ipip_is_seen_on_the_wire_and_in_every_account", || {
        play("two-subnets", |scene| {
            let lab = &scene.lab;
            let pods = pods(lab)?;
            for when in ALL {
                let modes = Modes::both(Kind::Ipip, when);
                modes.ask(scene)?;
                settled(lab, modes)?;
                reach_each_other(lab, &pods, modes)?;
                nodes_reach_pods(lab, &pods, modes)?;
            }
            Ok(())
        });
    });
}

#[test]
fn ipip_becomes_vxlan_and_back_without_a_lost_packet() {
    with_ipip("tunnels::ipip::ipip_becomes_vxlan_and_back_without_a_lost_packet", || {
        play("two-subnets", |scene| {
            let lab = &scene.lab;
            let ipip = Modes::both(Kind::Ipip, When::CrossSubnet);
            ipip.ask(scene)?;
            settled(lab, ipip)?;
            let pods = pods(lab)?;
            let longest = large_transfers_complete(lab, &pods, ipip)?;
            println!("the longest of the transfers took {longest:?}");
            let of = |name: &str| {
                pods.iter().find(|pod| pod.node == name).with_context(|| format!("no pod on {name}"))
            };
            let (a1, b1) = (of("node-a1")?, of("node-b1")?);
            let pairs: [(&str, IpAddr); 2] = [(&a1.name, b1.address(true)?), (&b1.name, a1.address(true)?)];
            let lost = lost_while(lab, &pairs, || {
                for modes in [Modes::both(Kind::Vxlan, When::CrossSubnet), ipip] {
                    let start = Instant::now();
                    modes.ask(scene)?;
                    settled(lab, modes)?;
                    println!("{:?} after {:?}", modes.ipv4.0, start.elapsed());
                }
                Ok(())
            })?;
            ensure!(lost <= 2, "{lost} pings lost on one way");
            Ok(())
        });
    });
}

#[test]
fn a_kernel_without_ipip_is_named_and_keeps_all_other_routes() {
    without_ipip("tunnels::ipip::a_kernel_without_ipip_is_named_and_keeps_all_other_routes", || {
        play("two-subnets", |scene| {
            let lab = &scene.lab;
            settled(lab, Modes::both(Kind::Vxlan, When::CrossSubnet))?;
            Modes::both(Kind::Ipip, When::CrossSubnet).ask(scene)?;
            until(CONVERGENCE, || {
                let conditions = lab.node_info("node-a1")?.conditions;
                let named = conditions.iter().find(|condition| {
                    condition.status == ConditionStatus::False && condition.message.contains("ipip")
                });
                named.map(|_| ()).with_context(|| format!("no condition names ipip: {conditions:?}"))
            })?;
            until(Duration::from_secs(15), || {
                let fib = lab.fib("node-a1")?;
                let row = |prefix: &str| {
                    let row = fib.iter().find(|row| row.prefix.to_string() == prefix);
                    row.with_context(|| format!("show fib has no {prefix}"))
                };
                for prefix in ["10.244.12.0/24", "fd00:10:244:12::/64", "fd00:10:244:21::/64"] {
                    ensure!(row(prefix)?.state == "installed", "{:?}", row(prefix)?);
                }
                for prefix in ["10.244.21.0/24", "10.244.22.0/24"] {
                    let row = row(prefix)?;
                    let says = format!("{} {}", row.state, row.reason);
                    ensure!(row.state != "installed" && says.contains("ipip"), "{row:?}");
                }
                Ok(())
            })?;
            for daemon in ["bgpd", "fib-sync", "ipam"] {
                ensure!(lab.daemon("node-a1", daemon)?.process.is_alive(), "{daemon} ended");
            }
            // And back: nothing of it is left.
            let vxlan = Modes::both(Kind::Vxlan, When::CrossSubnet);
            vxlan.ask(scene)?;
            settled(lab, vxlan)
        });
    });
}
