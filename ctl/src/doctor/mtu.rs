//! `doctor mtu`: the largest packet to and from other nodes along the path of pods' packets, against what the routes promise.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use causeway_api::control::{DoctorPeer, DoctorTarget, FIB_SYNC_SOCKET, Family};
use clap::Args;
use comfy_table::Cell;
use serde::Serialize;

use super::path::{Back, Greeting, Out, Session};
use super::search::{Finding, Limit, hole, search};
use crate::Error;
use crate::client::Client;
use crate::render::{Output, judged, or_dash};

/// How many nodes are probed at a time.
const AT_ONCE: usize = 16;
/// What every path takes, in bytes: IPv4's 576 is what every host takes, IPv6's 1280 what every link does.
const FLOORS: [u16; 2] = [576, 1280];
/// What is expected where the kernel cannot say.
const ETHERNET: u16 = 1500;

/// Arguments of `doctor mtu`.
#[derive(Args)]
pub struct MtuArgs {
    /// Only the paths to and from this node
    #[arg(value_name = "NODE", conflicts_with = "all")]
    node: Option<String>,
    /// The paths to and from every other node, which is what happens without a word too
    #[arg(long)]
    all: bool,
    /// UDP port of the responders (`causeway-fib-sync --probe-port`)
    #[arg(long, value_name = "PORT", default_value_t = causeway_probe::PORT)]
    port: u16,
}

/// What was found about one direction of a path.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Direction {
    /// The largest packet this way should take, in bytes.
    expected: u16,
    /// The largest that did; null: none.
    largest: Option<u16>,
    /// Whether that is what it should be.
    fine: bool,
    /// What the next larger one met.
    limit: Option<Limit>,
    /// The same for people, where it is not fine.
    problem: Option<String>,
}

/// What was found about the paths to and from one address.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    node: String,
    family: Family,
    /// The address that was probed.
    target: Option<IpAddr>,
    source: Option<IpAddr>,
    /// The device the probes left by.
    device: Option<String>,
    /// To the node.
    out: Option<Direction>,
    /// From the node.
    back: Option<Direction>,
    /// Why nothing was measured.
    error: Option<String>,
    /// What to know besides.
    note: Option<String>,
}

impl Row {
    fn fine(&self) -> bool {
        let fine = |direction: &Option<Direction>| direction.as_ref().is_some_and(|direction| direction.fine);
        self.error.is_none() && fine(&self.out) && fine(&self.back)
    }
}

/// Measures, prints, and fails where something is wrong.
pub fn run(client: &Client, output: &Output, args: &MtuArgs) -> Result<(), Error> {
    let mut peers: Vec<DoctorPeer> = client.get(FIB_SYNC_SOCKET, "/v1/doctor/peers")?;
    if let Some(node) = &args.node {
        peers.retain(|peer| peer.node == *node);
        if peers.is_empty() {
            return Err(Error::Refused(format!("no other node named `{node}` in the documents")));
        }
    }
    let paths: Vec<(&DoctorPeer, Family)> = peers
        .iter()
        .flat_map(|peer| [Family::Ipv4, Family::Ipv6].map(|family| (peer, family)))
        .filter(|(peer, family)| peer.targets.iter().any(|target| target.family == *family))
        .collect();
    let rows = measure_all(&paths, args.port);
    output.print(&rows, |output| text(output, &rows))?;
    match rows.iter().filter(|row| !row.fine()).count() {
        0 => Ok(()),
        wrong => Err(Error::Refused(format!("{wrong} of {} paths are not as they should be", rows.len()))),
    }
}

/// Measures several paths at a time; the rows come in the order of the paths.
fn measure_all(paths: &[(&DoctorPeer, Family)], port: u16) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut rows = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((peer, family)) = paths.get(index) else { return rows };
            rows.push((index, measure(peer, *family, port)));
        }
    };
    let mut rows: Vec<(usize, Row)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE.min(paths.len())).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    });
    rows.sort_by_key(|(index, _)| *index);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn measure(peer: &DoctorPeer, family: Family, port: u16) -> Row {
    let mut row = Row {
        node: peer.node.clone(),
        family,
        target: None,
        source: None,
        device: None,
        out: None,
        back: None,
        error: None,
        note: None,
    };
    let mut unanswered = Vec::new();
    for target in peer.targets.iter().filter(|target| target.family == family) {
        match greet(target, port) {
            Err(why) => unanswered.push((target, why)),
            Ok(mut session) => {
                row.note = note(target, &unanswered);
                row.target = Some(target.address);
                row.source = target.source;
                row.device.clone_from(&target.device);
                if let Err(error) = both_ways(&mut row, &mut session, peer, target, port) {
                    row.error = Some(error.to_string());
                }
                // A tunnel that leads nowhere is wrong, even where the node as such can be reached.
                let tunnel = unanswered.iter().find(|(target, _)| target.overhead.is_some());
                if let Some((target, why)) = tunnel {
                    row.error = Some(format!("{}, in the node's block: {why}", target.address));
                }
                return row;
            }
        }
    }
    let whys: Vec<String> =
        unanswered.iter().map(|(target, why)| format!("{}: {why}", target.address)).collect();
    row.error = Some(whys.join("; "));
    row
}

/// Opens a conversation; why there is none.
fn greet(target: &DoctorTarget, port: u16) -> Result<Session, String> {
    if let Some(error) = &target.error {
        return Err(format!("no way there: {error}"));
    }
    let mut session = Session::open(SocketAddr::new(target.address, port), target.source)
        .map_err(|error| error.to_string())?;
    match session.greet() {
        Ok(Greeting::Answered) => Ok(session),
        Ok(Greeting::Unanswered) => Err(format!(
            "no answer to small probes on UDP port {port} (is fib-sync running there, and this node in its documents?)"
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn note(target: &DoctorTarget, unanswered: &[(&DoctorTarget, String)]) -> Option<String> {
    let (block, _) = unanswered.first().filter(|(block, _)| block.block && !target.block)?;
    Some(format!("probed at the node's own address: {} in its block does not answer", block.address))
}

fn both_ways(
    row: &mut Row,
    session: &mut Session,
    peer: &DoctorPeer,
    target: &DoctorTarget,
    port: u16,
) -> Result<(), Error> {
    let floor = FLOORS[usize::from(target.address.is_ipv6())];
    let size = |mtu: Option<u32>| mtu.and_then(|mtu| u16::try_from(mtu).ok()).filter(|mtu| *mtu >= floor);
    let expected = size(target.mtu).unwrap_or(ETHERNET);
    let mut found = search(&mut Out(session), expected, floor)?;
    outer(&mut found, expected, target, port, |session, size| hole(&mut Out(session), size, floor));
    let who = Who { here: "this node".to_owned(), device: target.device.clone(), from: None };
    row.out = Some(judge(expected, found, &who));

    // The first probe back brings what the other node's kernel has to say of the way.
    let mut back = Back(session);
    super::search::Path::probe(&mut back, floor, 0)?;
    let expected = size(Some(session.mtu_back)).unwrap_or(expected);
    let mut found = search(&mut Back(session), expected, floor)?;
    outer(&mut found, expected, target, port, |session, size| hole(&mut Back(session), size, floor));
    let who = Who { here: peer.node.clone(), device: None, from: Some(peer.node.clone()) };
    row.back = Some(judge(expected, found, &who));
    Ok(())
}

/// A tunnel is one hop to what is in it. Where something is lost in it, the same packet with its outer header is followed
/// on the way to the tunnel's other end.
fn outer(
    found: &mut Finding,
    expected: u16,
    target: &DoctorTarget,
    port: u16,
    follow: impl Fn(&mut Session, u16) -> Result<Limit, Error>,
) {
    let Some(overhead) = target.overhead else { return };
    let lost = matches!(found.limit, Some(Limit::BlackHole { .. }));
    let (Some(endpoint), true) =
        (target.endpoint, lost && found.largest.is_none_or(|largest| largest < expected))
    else {
        return;
    };
    let size = found.largest.unwrap_or_default().saturating_add(1).saturating_add(overhead);
    let Ok(mut session) = Session::open(SocketAddr::new(endpoint, port), None) else { return };
    if session.greet().is_ok_and(|greeting| greeting == Greeting::Answered)
        && let Ok(limit) = follow(&mut session, size)
    {
        found.limit = Some(limit);
    }
}

/// Whose words a problem is put in.
struct Who {
    /// The sender.
    here: String,
    /// The sender's device, where it is known.
    device: Option<String>,
    /// The other node, where it is the sender.
    from: Option<String>,
}

fn judge(expected: u16, found: Finding, who: &Who) -> Direction {
    let fine = found.largest.is_some_and(|largest| largest >= expected);
    let problem = (!fine).then(|| problem(&found, who));
    Direction { expected, largest: found.largest, fine, limit: found.limit, problem }
}

fn problem(found: &Finding, who: &Who) -> String {
    let hop = |hop: &Option<IpAddr>| hop.map_or_else(|| "a hop".to_owned(), |hop| hop.to_string());
    let direction = match &who.from {
        Some(node) => format!("from {node}: "),
        None => String::new(),
    };
    let above = match found.largest {
        Some(largest) => format!("packets above {largest} bytes"),
        None => "packets of any size".to_owned(),
    };
    let text = match &found.limit {
        Some(Limit::Device { mtu }) => {
            let device =
                who.device.as_ref().map_or_else(|| "device".to_owned(), |name| format!("device {name}"));
            format!("{} of {} has an MTU of {mtu}", device, who.here)
        }
        Some(Limit::Icmp { hop: by, mtu }) => {
            format!("{} says that it can pass on no more than {mtu} bytes", hop(by))
        }
        Some(Limit::BlackHole { after: Some(after), before }) => {
            let next = before.map_or_else(String::new, |before| format!(", before {before}"));
            format!("black hole: {above} vanish after {after}{next}, and nobody says so")
        }
        Some(Limit::BlackHole { after: None, before }) => {
            let next = before.map_or_else(|| "the other end".to_owned(), |before| before.to_string());
            format!("black hole: {above} vanish between {} and {next}, and nobody says so", who.here)
        }
        Some(Limit::Unreachable { hop: by }) => format!("{} says that {above} cannot get there", hop(by)),
        None => format!("{above} do not arrive"),
    };
    format!("{direction}{text}")
}

fn text(output: &Output, rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no other node in the documents\n".to_owned();
    }
    let size = |direction: &Option<Direction>| match direction {
        None => judged("-", Some(false)),
        Some(direction) if direction.fine => judged(or_dash(direction.largest), Some(true)),
        Some(direction) => {
            judged(format!("{} of {}", or_dash(direction.largest), direction.expected), Some(false))
        }
    };
    let cells = |row: &Row| {
        let problems = [&row.out, &row.back]
            .into_iter()
            .flatten()
            .filter_map(|direction| direction.problem.clone())
            .chain(row.error.clone())
            .chain(row.note.clone());
        let problems: Vec<String> = problems.collect();
        let problems = if problems.is_empty() { "fine".to_owned() } else { problems.join("; ") };
        vec![
            Cell::new(&row.node),
            Cell::new(row.family),
            Cell::new(or_dash(row.target)),
            Cell::new(or_dash(row.device.as_ref())),
            size(&row.out),
            size(&row.back),
            Cell::new(problems),
        ]
    };
    let headers = ["NODE", "FAMILY", "TARGET", "DEVICE", "TO", "FROM", "RESULT"];
    output.table(&headers, rows.iter().map(cells).collect())
}
