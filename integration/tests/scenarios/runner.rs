//! The lab runner itself, on routers that are not ours.

use std::time::Duration;

use anyhow::ensure;
use causeway_integration::until::until;
use nix::sys::signal::Signal;

use crate::scene::play;

#[test]
fn the_routers_of_this_machine_come_up_and_exchange_routes() {
    play("peers", |scene| {
        let lab = &scene.lab;
        until(Duration::from_secs(30), || {
            let summary = lab.json("frr", &["vtysh", "-c", "show bgp ipv4 unicast summary json"])?;
            for peer in ["192.0.2.3", "192.0.2.5", "192.0.2.7", "192.0.2.9"] {
                let state = &summary["peers"][peer]["state"];
                ensure!(state == "Established", "{peer} is {state}");
            }
            Ok(())
        })?;
        // ExaBGP's route has passed FRR and is in BIRD's kernel, in GoBGP's table and in OpenBGPD's.
        until(Duration::from_secs(10), || {
            let kernel = lab.text("bird", &["ip", "route", "show", "203.0.113.0/24"])?;
            ensure!(kernel.contains("via 192.0.2.2 dev eth1 proto bird"), "{kernel}");
            let gobgp = lab.text("gobgp", &["gobgp", "global", "rib", "203.0.113.0/24"])?;
            ensure!(gobgp.contains("65001 65009"), "{gobgp}");
            let openbgpd = lab.text("openbgpd", &["bgpctl", "show", "rib", "203.0.113.0/24"])?;
            ensure!(openbgpd.contains("65001 65009"), "{openbgpd}");
            Ok(())
        })?;
        // A killed daemon leaves, and comes back.
        lab.stop("exabgp", "exabgp", Signal::SIGKILL)?;
        until(Duration::from_secs(15), || {
            let kernel = lab.text("bird", &["ip", "route", "show", "203.0.113.0/24"])?;
            ensure!(kernel.is_empty(), "{kernel}");
            Ok(())
        })?;
        lab.start("exabgp", "exabgp")?;
        until(Duration::from_secs(30), || {
            let kernel = lab.text("bird", &["ip", "route", "show", "203.0.113.0/24"])?;
            ensure!(!kernel.is_empty(), "the route is not back");
            Ok(())
        })
    });
}

#[test]
fn a_node_has_its_own_files_names_and_processes() {
    play("peers", |scene| {
        let lab = &scene.lab;
        ensure!(lab.text("host", &["cat", "/tmp/greeting"])? == "hello from host\n");
        ensure!(lab.text("host", &["hostname"])? == "host\n");
        ensure!(lab.text("host", &["cat", "/sys/class/net/eth1/mtu"])? == "1400\n");
        let processes = lab.text("host", &["ps", "-e", "-o", "comm="])?;
        ensure!(!processes.contains("zebra"), "{processes}");
        // What a node writes stays its own.
        lab.text("host", &["sh", "-c", "echo x > /etc/only-here"])?;
        ensure!(!lab.run("frr", &["cat", "/etc/only-here"], None)?.status.success());
        ensure!(!std::path::Path::new("/etc/only-here").exists());
        // A bind that is read-only is.
        ensure!(!lab.run("frr", &["sh", "-c", "echo x > /etc/frr/frr.conf"], None)?.status.success());

        let state = lab.state();
        let inits: Vec<_> = state.nodes.values().map(|node| node.init).collect();
        let names: Vec<_> =
            state.nodes.keys().map(|node| format!("/run/netns/{}", state.long_name(node))).collect();
        ensure!(names.iter().all(|name| std::path::Path::new(name).exists()), "{names:?}");
        lab.down()?;
        lab.down()?;
        ensure!(!inits.iter().any(|init| init.is_alive()), "a process 1 is left");
        ensure!(!names.iter().any(|name| std::path::Path::new(name).exists()), "a namespace's name is left");
        ensure!(!state.dir().exists(), "{} is left", state.dir().display());
        Ok(())
    });
}
