//! No packet is too large on any way: full-size transfers, routes that follow the link's MTU, a smaller leg in between, MSS clamped.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_integration::lab::Lab;
use causeway_integration::until::until;

use super::check::{self, Pod, large_transfers_complete, pods, settled};
use super::expect::{Kind, Modes, When};
use crate::fabric::CONVERGENCE;
use crate::scene::play;

/// What drops "fragmentation needed" and "packet too big" on a machine, its own included.
const DROP_TOO_BIG: &str = "add table inet lab; \
    add chain inet lab forward { type filter hook forward priority 0; }; \
    add chain inet lab output { type filter hook output priority 0; }; \
    add rule inet lab forward icmp type destination-unreachable icmp code frag-needed drop; \
    add rule inet lab forward icmpv6 type packet-too-big drop; \
    add rule inet lab output icmp type destination-unreachable icmp code frag-needed drop; \
    add rule inet lab output icmpv6 type packet-too-big drop";

/// What pods learned of paths is forgotten, so that they have to learn it again.
fn forget_paths(lab: &Lab, pods: &[Pod]) -> Result<()> {
    for pod in pods {
        for family in ["-4", "-6"] {
            lab.text(&pod.name, &["ip", family, "route", "flush", "cache"])?;
        }
    }
    Ok(())
}

#[test]
fn large_transfers_complete_with_and_without_icmp() {
    play("two-subnets", |scene| {
        let lab = &scene.lab;
        let pods = pods(lab)?;
        for when in [When::CrossSubnet, When::Always] {
            let modes = Modes::both(Kind::Vxlan, when);
            modes.ask(scene)?;
            settled(lab, modes)?;
            let open = large_transfers_complete(lab, &pods, modes)?;
            lab.text("router", &["nft", DROP_TOO_BIG])?;
            forget_paths(lab, &pods)?;
            let closed = large_transfers_complete(lab, &pods, modes)?;
            lab.text("router", &["nft", "delete table inet lab"])?;
            println!("{when:?}: the longest of 24 transfers of 2 MiB took {open:?}, without ICMP {closed:?}");
        }
        Ok(())
    });
}

#[test]
fn routes_follow_the_mtu_of_the_link() {
    play("two-subnets", |scene| {
        let lab = &scene.lab;
        let modes = Modes::both(Kind::Vxlan, When::CrossSubnet);
        settled(lab, modes)?;
        let fib_sync = lab.daemon("node-a1", "fib-sync")?.process;
        for (link, wanted) in
            [("1400", [None, Some(1350), None, Some(1330)]), ("1500", [None, Some(1450), None, Some(1430)])]
        {
            lab.text("node-a1", &["ip", "link", "set", "eth1", "mtu", link])?;
            until(CONVERGENCE, || {
                let fib = lab.fib("node-a1")?;
                let prefixes =
                    ["10.244.12.0/24", "10.244.21.0/24", "fd00:10:244:12::/64", "fd00:10:244:21::/64"];
                let mtu = |prefix: &str| {
                    let row = fib.iter().find(|row| row.prefix.to_string() == prefix);
                    row.filter(|row| row.state == "installed").and_then(|row| row.mtu)
                };
                ensure!(prefixes.map(mtu) == wanted, "the link has {link}: {:?}", prefixes.map(mtu));
                check::accounts_agree(lab, "node-a1", &fib)
            })?;
        }
        ensure!(fib_sync.is_alive(), "fib-sync was restarted");
        settled(lab, modes)
    });
}

#[test]
fn a_smaller_leg_in_between_is_named_by_the_doctor_and_learned_by_transfers() {
    play("two-subnets", |scene| {
        let lab = &scene.lab;
        let modes = Modes::both(Kind::Vxlan, When::CrossSubnet);
        settled(lab, modes)?;
        let pods = pods(lab)?;
        let doctor = || lab.run("node-a1", &["causeway", "doctor", "mtu", "--all"], None);
        until(CONVERGENCE, || {
            let said = doctor()?;
            ensure!(said.status.success(), "before: {}{}", said.stdout, said.stderr);
            Ok(())
        })?;
        lab.text("router", &["ip", "link", "set", "br-b", "mtu", "1400"])?;
        until(Duration::from_secs(20), || {
            let said = doctor()?;
            ensure!(said.status.code() == Some(1), "the doctor ended with {}: {}", said.status, said.stdout);
            for part in ["172.21.1.1", "fd00:21:1::1", "1400", "1350 of 1450", "1330 of 1430"] {
                ensure!(said.stdout.contains(part), "the doctor does not say {part}: {}", said.stdout);
            }
            Ok(())
        })?;
        forget_paths(lab, &pods)?;
        let longest = large_transfers_complete(lab, &pods, modes)?;
        println!("through a leg of 1,400 bytes the longest of 24 transfers took {longest:?}");
        Ok(())
    });
}

#[test]
fn clamped_transfers_need_no_icmp_at_all() {
    play("two-subnets", |scene| {
        let lab = &scene.lab;
        let modes = Modes::both(Kind::Vxlan, When::CrossSubnet);
        settled(lab, modes)?;
        let pods = pods(lab)?;
        for node in lab.causeway_nodes() {
            lab.text(&node, &["nft", DROP_TOO_BIG])?;
        }
        let of = |node: &str| pods.iter().find(|pod| pod.node == node).with_context(|| node.to_owned());
        let (from, to) = (of("node-a1")?, of("node-b1")?);
        for is_ipv4 in [true, false] {
            let stuck = lab.transfer(&from.name, &to.name, to.address(is_ipv4)?, 1 << 20);
            ensure!(stuck.is_err(), "without ICMP and without clamp a transfer into a tunnel went through");
        }
        let file = scene.documents().join("fabric.yaml");
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, text + "  clampMSS: true\n")?;
        until(CONVERGENCE, || {
            for node in lab.causeway_nodes() {
                let table = lab.text(&node, &["nft", "list", "table", "inet", "causeway"])?;
                ensure!(table.contains("maxseg"), "{node} clamps nothing: {table}");
            }
            Ok(())
        })?;
        let longest = large_transfers_complete(lab, &pods, modes)?;
        println!("clamped and without any ICMP the longest of 24 transfers took {longest:?}");
        Ok(())
    });
}
