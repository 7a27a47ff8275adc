//! `show peers`, and `peer reset|disable|enable`.

use causeway_api::control::{self, BGPD_SOCKET, Done, Peer, SessionState, SoftReset};
use comfy_table::Cell;

use crate::client::{Client, encode};
use crate::render::{Output, duration, judged, or_dash};
use crate::{Error, PeerCommand, Soft};

/// Prints all peers, or one in full.
pub fn show(client: &Client, output: &Output, only: Option<&str>) -> Result<(), Error> {
    let mut peers: Vec<Peer> = client.get(BGPD_SOCKET, "/v1/peers")?;
    if let Some(only) = only {
        peers.retain(|peer| {
            peer.peer == only || peer.name == only || peer.name.ends_with(&format!(" {only}"))
        });
        if peers.is_empty() {
            return Err(Error::Refused(format!("no peer {only}")));
        }
        return output.print(&peers, |_| peers.iter().map(detail).collect::<Vec<_>>().join("\n"));
    }
    output.print(&peers, |output| table(output, &peers))
}

/// Tells bgpd to reset, disable or enable a peer.
pub fn command(client: &Client, output: &Output, command: &PeerCommand) -> Result<(), Error> {
    let (peer, verb, body) = match command {
        PeerCommand::Reset { peer, soft, message } => (
            peer,
            "reset",
            control::PeerCommand {
                soft: soft.map(|soft| match soft {
                    Soft::In => SoftReset::In,
                    Soft::Out => SoftReset::Out,
                }),
                message: message.clone(),
            },
        ),
        PeerCommand::Disable { peer, message } => {
            (peer, "disable", control::PeerCommand { soft: None, message: message.clone() })
        }
        PeerCommand::Enable { peer } => (peer, "enable", control::PeerCommand::default()),
    };
    let body = serde_json::to_string(&body).map_err(std::io::Error::other)?;
    let done: Done = client.post(BGPD_SOCKET, &format!("/v1/peers/{}/{verb}", encode(peer)), &body)?;
    output.print(&done, |_| done.done.clone())
}

fn table(output: &Output, peers: &[Peer]) -> String {
    if peers.is_empty() {
        return "no peers\n".to_owned();
    }
    let mut headers =
        vec!["PEER", "NAME", "AS", "STATE", "UPTIME", "HOLD", "RECEIVED", "ACCEPTED", "ADVERTISED"];
    if output.is_wide() {
        headers.extend(["LOCAL AS", "FAMILIES", "STALE", "UPDATES IN/OUT", "RESETS", "ROUTER ID"]);
    }
    headers.push("LAST ERROR");
    let rows = peers.iter().map(|peer| {
        let up = peer.state == SessionState::Established;
        let mut row = vec![
            Cell::new(&peer.peer),
            Cell::new(&peer.name),
            Cell::new(or_dash(peer.remote_as)),
            judged(state(peer), Some(up)),
            Cell::new(or_dash(peer.uptime.map(duration))),
            Cell::new(or_dash(peer.hold_time.map(duration))),
            Cell::new(peer.received),
            judged(peer.accepted, (up && peer.accepted < peer.received).then_some(false)),
            Cell::new(peer.advertised),
        ];
        if output.is_wide() {
            let families: Vec<_> = peer.families.iter().map(ToString::to_string).collect();
            row.extend([
                Cell::new(peer.local_as),
                Cell::new(families.join(",")),
                Cell::new(peer.stale),
                Cell::new(format!("{}/{}", peer.updates_received, peer.updates_sent)),
                Cell::new(peer.resets),
                Cell::new(or_dash(peer.router_id.as_ref())),
            ]);
        }
        row.push(Cell::new(or_dash(peer.last_error.as_ref())));
        row
    });
    output.table(&headers, rows.collect())
}

fn state(peer: &Peer) -> String {
    if peer.disabled { format!("{} (disabled)", peer.state) } else { peer.state.to_string() }
}

fn detail(peer: &Peer) -> String {
    let families: Vec<_> = peer.families.iter().map(ToString::to_string).collect();
    let lines = [
        ("peer", format!("{} ({})", peer.peer, peer.name)),
        ("state", state(peer)),
        ("remote AS", or_dash(peer.remote_as)),
        ("local AS", peer.local_as.to_string()),
        ("router id", or_dash(peer.router_id.as_ref())),
        ("local address", or_dash(peer.local_address.as_ref())),
        ("uptime", or_dash(peer.uptime.map(duration))),
        ("hold time", or_dash(peer.hold_time.map(duration))),
        ("keepalive", or_dash(peer.keepalive_time.map(duration))),
        ("families", families.join(", ")),
        ("capabilities", peer.capabilities.join(", ")),
        (
            "prefixes",
            format!(
                "{} received, {} accepted, {} stale, {} advertised",
                peer.received, peer.accepted, peer.stale, peer.advertised
            ),
        ),
        ("updates", format!("{} received, {} sent", peer.updates_received, peer.updates_sent)),
        ("resets", peer.resets.to_string()),
        ("last error", or_dash(peer.last_error.as_ref())),
    ];
    lines.iter().map(|(name, value)| format!("{name:<15}{value}\n")).collect()
}
