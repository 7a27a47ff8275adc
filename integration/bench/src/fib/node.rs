//! The node a measurement takes place on: a network namespace with two links into a second one, where its routers are. Not pure.
//!
//! Both namespaces belong to this process and what it starts, and end with them.

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use super::netlink::Netlink;
use super::plan::{Family, LINKS, NODE, Plan, ROUTERS};

/// How long the kernel may take to put new links to use.
const LINKS_UP: Duration = Duration::from_secs(10);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// The node.
pub struct Node {
    own: File,
    far: File,
    /// Indexes of its links.
    pub links: [u32; 2],
    /// Indexes of the links' far ends.
    pub far_links: [u32; 2],
}

impl Node {
    /// Makes it; this thread, and what is started from now on, is on it.
    ///
    /// # Errors
    /// Where this process may not (it needs root), or `ip` fails.
    pub fn build() -> Result<Node> {
        let far = fresh()?;
        let own = fresh()?;
        ip("link set lo up")?;
        for ((near, end), addresses) in LINKS.iter().zip(NODE) {
            ip(&format!("link add {near} type veth peer name {end}"))?;
            let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&far));
            ip(&format!("link set {end} netns {path}"))?;
            for address in addresses {
                ip(&format!("address add {address} dev {near} {}", quiet(address)))?;
            }
            ip(&format!("link set {near} up"))?;
        }
        // Kernels of before 2023 bound the IPv6 table; others have no such file.
        let _ = std::fs::write("/proc/sys/net/ipv6/route/max_size", "2147483647");
        let mut node = Node { own, far, links: [0; 2], far_links: [0; 2] };
        node.far_links = node.far(|| {
            ip("link set lo up")?;
            for ((_, end), addresses) in LINKS.iter().zip(ROUTERS) {
                for address in addresses {
                    ip(&format!("address add {address} dev {end} {}", quiet(address)))?;
                }
                ip(&format!("link set {end} up"))?;
            }
            Ok([index(LINKS[0].1)?, index(LINKS[1].1)?])
        })?;
        node.links = [index(LINKS[0].0)?, index(LINKS[1].0)?];
        node.wait_for_links()?;
        Ok(node)
    }

    /// Does something where the routers are. Sockets opened there stay there.
    ///
    /// # Errors
    /// What it says, or that the namespace cannot be entered.
    pub fn far<T>(&self, what: impl FnOnce() -> Result<T>) -> Result<T> {
        setns(&self.far, CloneFlags::CLONE_NEWNET).context("entering the routers' namespace")?;
        let done = what();
        setns(&self.own, CloneFlags::CLONE_NEWNET).context("going back to the node's namespace")?;
        done
    }

    /// Takes the links away, with all routes, which would otherwise go in the background and disturb what comes next.
    pub fn demolish(&self) {
        for (near, _) in LINKS {
            let _ = ip(&format!("link delete {near}"));
        }
    }

    fn wait_for_links(&self) -> Result<()> {
        let mut netlink = Netlink::open()?;
        let end = Instant::now() + LINKS_UP;
        let plan = Plan { family: Family::V4, routes: 1 };
        while Instant::now() < end {
            let text = Command::new("ip").args(["-br", "link"]).output().context("ip")?.stdout;
            let up = String::from_utf8_lossy(&text).lines().filter(|line| line.contains(",LOWER_UP")).count();
            let reached = (0..2).all(|link| {
                netlink.link_to(plan.router(link)).is_ok_and(|found| found == Some(self.links[link]))
            });
            // The loopback device is one of them.
            if up > 2 && reached {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        bail!("the node's links do not come up")
    }
}

/// Enters a new network namespace and returns the way back to it.
fn fresh() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace (needs root)")?;
    // New links get addresses of their own, and the kernel would tell of them a second or two later, amid what is measured.
    for scope in ["all", "default"] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0");
    }
    File::open("/proc/thread-self/ns/net").context("the new network namespace")
}

/// No duplicate address detection, which takes a second.
fn quiet(address: &str) -> &'static str {
    if address.contains(':') { "nodad" } else { "" }
}

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().context("ip")?;
    ensure!(status.success(), "ip {arguments}");
    Ok(())
}

fn index(link: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(link).with_context(|| format!("the index of {link}"))
}
