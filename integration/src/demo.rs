//! `causeway-lab demo`: the tour. Two racks come up, eight pods ping each other, the wire shows native packets, a node dies.
//!
//! Written for a person at a terminal; each step is a command that can be typed by hand in a lab left up by `make lab`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::lab::{Lab, Options};
use crate::topology;
use crate::until::until;

/// How long the fabric may take until every kernel has every route.
const CONVERGENCE: Duration = Duration::from_secs(60);

/// What the summary tells.
#[derive(Debug, Default)]
struct Tally {
    pods: usize,
    routes: usize,
    sent: usize,
    lost: usize,
    up_after: Duration,
    forgotten_after: Duration,
}

/// Runs the tour on a topology file; it must have nodes `node-a1`, `node-b1`, `node-b2` and routers `tor-a`, `spine`.
///
/// # Errors
/// The first step that fails. The lab is taken down in any case.
pub fn run(file: &Path, options: Options) -> Result<()> {
    let mut out = Screen::new();
    let start = Instant::now();
    let topology = topology::load(file)?;
    out.title(&format!("Building {}: {} nodes in network namespaces", topology.name, topology.nodes.len()));
    let lab = Lab::up(
        &topology,
        file,
        Options { tied: true, prefix: Some("demo".to_owned()), ..options },
        &|_| (),
    )?;
    out.say(&format!(
        "up in {}: FRR on spine, tor-a and tor-b, Causeway on the rest",
        seconds(start.elapsed())
    ));
    let mut tally = Tally::default();
    let toured = tour(&lab, &mut out, &mut tally);
    if let Err(error) = &toured {
        out.say(&format!("failed: {error:#}"));
        for node in lab.causeway_nodes() {
            for daemon in ["bgpd", "fib-sync", "ipam"] {
                out.show(&format!("{node}: the end of {daemon}.log"), &lab.log_tail(&node, daemon, 5));
            }
        }
    }
    lab.down()?;
    toured?;
    out.title("Summary");
    out.say(&format!("pods                {} on 4 nodes, IPv4 and IPv6 each", tally.pods));
    out.say(&format!("paths               {} learned and in the kernels of the nodes", tally.routes));
    out.say(&format!("pings               {} sent, {} lost", tally.sent, tally.lost));
    out.say(&format!("fabric up           {} after the daemons", seconds(tally.up_after)));
    out.say(&format!("node lost           withdrawn everywhere after {}", seconds(tally.forgotten_after)));
    out.say(&format!("all of this         {}", seconds(start.elapsed())));
    out.say("");
    out.say("`make lab` brings it up again and leaves it up for you.");
    ensure!(tally.lost == 0, "{} pings were lost", tally.lost);
    Ok(())
}

fn tour(lab: &Lab, out: &mut Screen, tally: &mut Tally) -> Result<()> {
    let start = Instant::now();
    out.title("Waiting for sessions and routes");
    let nodes = lab.causeway_nodes();
    for node in &nodes {
        until(CONVERGENCE, || lab.all_established(node))?;
        out.say(&format!("{node}: eBGP with its ToR is Established, IPv4 and IPv6 in one session"));
    }
    tally.routes = until(CONVERGENCE, || routes_installed(lab, &nodes))?;
    tally.up_after = start.elapsed();
    out.say(&format!("{} routes learned and installed, after {}", tally.routes, seconds(tally.up_after)));

    out.title("Two pods on every node, through the CNI plugin");
    let pods = add_pods(lab, 2)?;
    for (name, (node, addresses)) in &pods {
        out.say(&format!("{name} on {node}: {}", list(addresses)));
    }
    tally.pods = pods.len();

    out.title("Every pod pings every pod");
    ping_all(lab, &pods, out, tally)?;

    out.title("The way across the fabric");
    let (from, to) = ("pod-a1-1", "pod-b1-1");
    let target = |family: fn(&IpAddr) -> bool| {
        pods.get(to).and_then(|(_, addresses)| addresses.iter().copied().find(family)).context("no address")
    };
    for address in [target(IpAddr::is_ipv4)?, target(IpAddr::is_ipv6)?] {
        let argv = ["traceroute", "-n", "-q", "1", "-w", "1", &address.to_string()];
        out.show(&format!("{from}: {}", argv.join(" ")), &lab.text(from, &argv)?);
    }

    out.title("On the wire at the spine: the packet itself, no outer header");
    for address in [target(IpAddr::is_ipv4)?, target(IpAddr::is_ipv6)?] {
        native(lab, out, from, address, &pods)?;
    }

    out.title("What a node knows");
    out.show("node-a1: causeway show routes", &lab.text("node-a1", &["causeway", "show", "routes"])?);
    out.show(
        "node-a1: ip route show proto 179",
        &lab.text("node-a1", &["ip", "route", "show", "proto", "179"])?,
    );
    out.title("What its ToR knows");
    for family in ["ipv4", "ipv6"] {
        let show = format!("show bgp {family} unicast wide");
        let text = lab.text("tor-a", &["vtysh", "-c", &show])?;
        // Wide columns keep a route on one line; narrow ones keep it readable.
        let table: Vec<String> = text
            .lines()
            .filter(|line| line.contains("10.244.") || line.contains("fd00:10:244:"))
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join("  "))
            .collect();
        out.show(&format!("tor-a: vtysh -c '{show}' (pods)"), &table.join("\n"));
    }

    out.title("node-b2 loses power");
    let dead = until(Duration::from_secs(5), || own_blocks(lab, "node-b2"))?;
    let start = Instant::now();
    lab.kill_node("node-b2")?;
    let mut last = Duration::ZERO;
    for node in nodes.iter().filter(|node| *node != "node-b2") {
        until(Duration::from_secs(20), || {
            let kernel = lab.kernel_routes(node)?;
            let left = kernel.iter().find(|route| dead.iter().any(|prefix| route["dst"] == prefix.as_str()));
            ensure!(left.is_none(), "{node} still has {left:?}");
            Ok(())
        })?;
        last = start.elapsed();
        out.say(&format!("{node}: {} gone after {}", dead.join(" and "), seconds(last)));
    }
    tally.forgotten_after = last;
    let left: BTreeMap<_, _> = pods.into_iter().filter(|(_, (node, _))| node != "node-b2").collect();
    out.say("the others go on:");
    ping_all(lab, &left, out, tally)
}

/// Pods by name: node and addresses.
type Pods = BTreeMap<String, (String, Vec<IpAddr>)>;

/// Adds pods named after their node: `pod-a1-1` on `node-a1`.
///
/// # Errors
/// What the plugin says.
pub fn add_pods(lab: &Lab, each: usize) -> Result<Pods> {
    let mut pods = Pods::new();
    for node in lab.causeway_nodes() {
        for number in 1..=each {
            let name = format!("pod-{}-{number}", node.trim_start_matches("node-"));
            let addresses = until(Duration::from_secs(20), || {
                // A second try needs the first one's remains gone.
                if lab.state().pods.contains_key(&name) {
                    lab.remove_pod(&name)?;
                }
                lab.add_pod(&node, &name)
            })?
            .addresses();
            ensure!(!addresses.is_empty(), "{name} has no address");
            pods.insert(name, (node.clone(), addresses));
        }
    }
    Ok(pods)
}

/// The number of learned routes, once all of them are installed on all nodes and every node has those of all others.
fn routes_installed(lab: &Lab, nodes: &[String]) -> Result<usize> {
    let mut count = 0;
    for node in nodes {
        let rows = lab.routes(node, "best")?;
        let learned: Vec<_> = rows.iter().filter(|row| row.peer.is_some()).collect();
        let wanted = (nodes.len() - 1) * 2;
        ensure!(learned.len() >= wanted, "{node} has {} of {wanted} routes", learned.len());
        if let Some(row) = learned.iter().find(|row| row.fib != "installed") {
            bail!("{node}: {} is {}", row.prefix, row.fib);
        }
        count += learned.len();
    }
    Ok(count)
}

fn own_blocks(lab: &Lab, node: &str) -> Result<Vec<String>> {
    Ok(lab.node_info(node)?.pod_cidrs.iter().map(ToString::to_string).collect())
}

/// How many pings each address left unanswered.
type Lost = Vec<(IpAddr, usize)>;

/// Pings each ordered pair in each family three times, all sources at once.
fn ping_all(lab: &Lab, pods: &Pods, out: &mut Screen, tally: &mut Tally) -> Result<()> {
    const EACH: usize = 3;
    let lost_of = |from: &str| -> Result<Lost> {
        let mut lost = Vec::new();
        for (_, (_, addresses)) in pods.iter().filter(|(to, _)| to.as_str() != from) {
            for address in addresses {
                let count = EACH.to_string();
                let done = lab.run(
                    from,
                    &["ping", "-n", "-q", "-c", &count, "-i", "0.02", "-W", "1", &address.to_string()],
                    None,
                )?;
                let received =
                    crate::ping::parse(&done.stdout).map_or(0, |counted| counted.received as usize);
                lost.push((*address, EACH - received.min(EACH)));
            }
        }
        Ok(lost)
    };
    let results: Vec<(&String, Result<Lost>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = pods.keys().map(|from| (from, scope.spawn(|| lost_of(from)))).collect();
        threads
            .into_iter()
            .map(|(from, thread)| (from, thread.join().unwrap_or_else(|_| bail!("the pinger panicked"))))
            .collect()
    });
    for (from, result) in results {
        let result = result?;
        let sent = result.len() * EACH;
        let lost: usize = result.iter().map(|(_, lost)| lost).sum();
        let silent: Vec<IpAddr> =
            result.iter().filter(|(_, lost)| *lost > 0).map(|(address, _)| *address).collect();
        let note =
            if silent.is_empty() { String::new() } else { format!("  no answer from {}", list(&silent)) };
        out.say(&format!("{from}: {sent} sent, {lost} lost{note}"));
        tally.sent += sent;
        tally.lost += lost;
    }
    Ok(())
}

/// Captures one ping at the spine and checks that it carries the pods' own addresses in its outermost header.
fn native(lab: &Lab, out: &mut Screen, from: &str, to: IpAddr, pods: &Pods) -> Result<()> {
    let source =
        pods.get(from).and_then(|(_, addresses)| addresses.iter().find(|own| own.is_ipv4() == to.is_ipv4()));
    let source = source.context("the pod has no address of that family")?;
    // Everything but BGP and neighbour discovery: an outer header would show here whatever it is.
    let filter = "(ip or ip6) and not tcp port 179 and not (icmp6 and ip6[40] >= 133 and ip6[40] <= 137)";
    let argv = ["tcpdump", "-n", "-l", "-e", "-t", "-i", "eth1", "-Q", "in", "-c", "1", filter];
    let mut tcpdump = lab.spawn("spine", &argv)?;
    let stdout = crate::run::collect(tcpdump.stdout.take());
    let stderr = crate::run::collect(tcpdump.stderr.take());
    // It listens from some moment on; pings go out until it has its one packet.
    let ended = until(Duration::from_secs(15), || {
        lab.ping(from, to)?;
        tcpdump.try_wait()?.context("tcpdump has captured nothing")
    });
    if ended.is_err() {
        tcpdump.kill()?;
        tcpdump.wait()?;
    }
    let line = String::from_utf8_lossy(&stdout.join().unwrap_or_default()).trim().to_owned();
    let said = String::from_utf8_lossy(&stderr.join().unwrap_or_default()).trim().to_owned();
    ended.with_context(|| said)?;
    out.show(&format!("spine: {}", argv[..9].join(" ")), &line);
    let wanted = format!("{source} > {to}: ICMP");
    let headers = line.matches(" > ").count();
    ensure!(line.contains(&wanted) && headers <= 2, "not the pod's own packet: {line}");
    out.say(&format!("native: Ethernet, then {source} > {to}, nothing between"));
    Ok(())
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// Standard output, coloured on a terminal.
struct Screen {
    colour: bool,
}

impl Screen {
    fn new() -> Self {
        Self { colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn line(&mut self, code: &str, text: &str) {
        let mut out = std::io::stdout();
        // A closed pipe ends the tour no sooner than its next step.
        let _ =
            if self.colour { writeln!(out, "\x1b[{code}m{text}\x1b[0m") } else { writeln!(out, "{text}") };
        let _ = out.flush();
    }

    /// The start of a step.
    fn title(&mut self, text: &str) {
        self.line("0", "");
        self.line("1;36", &format!("== {text}"));
    }

    /// One line of what happens.
    fn say(&mut self, text: &str) {
        self.line("0", &format!("   {text}"));
    }

    /// A command and what it printed.
    fn show(&mut self, command: &str, output: &str) {
        self.line("2", &format!("   $ {command}"));
        for line in output.lines() {
            self.line("0", &format!("   {line}"));
        }
    }
}
