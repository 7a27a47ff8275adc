//! The FIB feed as the speaker's task sees it: what fib-sync is owed, and what it says.
//!
//! Owns the feed's queue of next hops to watch and one buffer, in which commands are encoded and which the client
//! ([`crate::fib_client`]) gives back when it has written it: a million routes are sent without an allocation for each of
//! them, and no more than a buffer's worth is ever on its way.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use causeway_api::fib::{self, Command, Message, NextHop};
use causeway_bgp_core::event::{FibStatus, FibUpdate, Input, Member, NextHopState, PullState, Via};
use causeway_bgp_wire::{Family, FamilySet, TunnelKind};

use crate::fib_client::{Connection, FibLink, FromFib};
use crate::speaker_link::ToPeer;
use crate::speaker_task::State;
use crate::views;

/// How many FIB updates the feed is given at a time.
const PULL_FIB: usize = 2048;

/// The FIB feed as the speaker sees it.
pub struct FibSide {
    /// False with `--no-fib`.
    pub enabled: bool,
    /// The connection in force.
    pub connection: Option<Connection>,
    /// Why the last one ended.
    pub last_error: Option<String>,
    link: Option<FibLink>,
    drained: bool,
    /// The speaker has FIB updates to give.
    awake: bool,
    watched: BTreeSet<IpAddr>,
    pending: VecDeque<Command>,
    /// Where updates are pulled to.
    updates: Vec<FibUpdate>,
    /// Where commands are encoded, unless it is on its way.
    buffer: Vec<u8>,
}

impl FibSide {
    /// The feed over `link`, or none at all.
    pub fn new(link: Option<FibLink>) -> FibSide {
        FibSide {
            enabled: link.is_some(),
            connection: None,
            last_error: None,
            link,
            drained: false,
            awake: false,
            watched: BTreeSet::new(),
            pending: VecDeque::new(),
            updates: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// The next thing fib-sync says; never returns where there is no feed.
    pub async fn next(&mut self) -> Option<FromFib> {
        match &mut self.link {
            Some(link) => link.events.recv().await,
            None => std::future::pending().await,
        }
    }

    /// The next thing fib-sync says, if it has said it.
    pub(crate) fn try_next(&mut self) -> Option<FromFib> {
        self.link.as_mut()?.events.try_recv().ok()
    }

    /// The speaker has updates to give.
    pub(crate) fn wake(&mut self) {
        self.awake = true;
    }

    /// A next hop is to be resolved and watched.
    pub(crate) fn watch(&mut self, address: IpAddr) {
        self.watched.insert(address);
        self.pending.push_back(Command::NextHopRegister { next_hop: NextHop::global(address) });
    }

    /// A next hop is of no interest any more.
    pub(crate) fn unwatch(&mut self, address: IpAddr) {
        self.watched.remove(&address);
        self.pending.push_back(Command::NextHopUnregister { next_hop: NextHop::global(address) });
    }
}

impl State {
    /// Takes in what the feed's client says.
    pub fn from_fib(&mut self, message: FromFib) {
        match message {
            FromFib::Connected { connection, kept } => {
                tracing::info!("connected to fib-sync");
                self.nursery.marks.send_modify(|marks| marks.forwarding = kept);
                self.fib.connection = Some(connection);
                self.fib.drained = true;
                self.fib.pending = self
                    .fib
                    .watched
                    .iter()
                    .map(|address| Command::NextHopRegister { next_hop: NextHop::global(*address) })
                    .collect();
                self.handle(Input::FibConnected);
            }
            FromFib::Lost { reason } => {
                if self.fib.connection.take().is_some() {
                    tracing::warn!(%reason, "fib-sync is away; routes and next hops stay as they are");
                    self.fib.last_error = Some(reason);
                    self.nursery.marks.send_modify(|marks| marks.forwarding = FamilySet::default());
                    self.handle(Input::FibLost);
                } else if self.fib.last_error.as_ref() != Some(&reason) {
                    tracing::warn!(%reason, "no FIB feed");
                    self.fib.last_error = Some(reason);
                }
            }
            FromFib::Drained { connection, buffer } => {
                self.fib.buffer = buffer;
                if self.fib.connection == Some(connection) {
                    self.fib.drained = true;
                    self.feed();
                }
            }
            FromFib::Events(events) => {
                let now = Instant::now();
                events.into_iter().for_each(|event| self.fib_event(now, event));
                self.follow();
            }
        }
    }

    fn fib_event(&mut self, now: Instant, event: fib::Event) {
        match event {
            fib::Event::NextHopState { next_hop, state } => {
                let address = next_hop.address;
                self.speaker.handle(now, Input::NextHop { address, state: next_hop_state(state) });
            }
            fib::Event::Status { prefix, generation, state } => {
                let status = match state {
                    fib::RouteState::Installed { via } => FibStatus::Installed(way(via)),
                    // The answer to a withdrawal: there is nothing to be known of the prefix any more.
                    fib::RouteState::Removed => return,
                    fib::RouteState::Pending { .. } => FibStatus::Pending,
                    fib::RouteState::Failed { reason } => FibStatus::Failed(reason.into()),
                };
                if let Some(prefix) = views::prefix(&prefix) {
                    self.speaker.handle(now, Input::FibStatus { prefix, generation, status });
                }
            }
            fib::Event::LinkDown(link) => {
                tracing::info!(device = link.device, "link down");
                let device: Arc<str> = link.device.into();
                for peer in self.peers.values() {
                    if link.subnets.iter().any(|subnet| subnet.contains(peer.key.address)) {
                        peer.handle.tell(ToPeer::LinkDown(Arc::clone(&device)));
                    }
                }
            }
            fib::Event::LinkUp(link) => tracing::info!(device = link.device, "link up"),
            // The client deals with these two.
            fib::Event::Hello { .. } | fib::Event::Goodbye { .. } => {}
        }
    }

    /// Gives a drained feed what it is owed: next hops first, then what the speaker has.
    pub(crate) fn feed(&mut self) {
        let (Some(connection), Some(link), true) = (self.fib.connection, &self.fib.link, self.fib.drained)
        else {
            if self.fib.connection.is_none() {
                // All of it is said again on the next connection.
                self.fib.pending.clear();
            }
            return;
        };
        let mut bytes = std::mem::take(&mut self.fib.buffer);
        bytes.clear();
        let mut updates = std::mem::take(&mut self.fib.updates);
        if self.fib.awake {
            let state = self.speaker.pull_fib(PULL_FIB, &mut updates);
            self.fib.awake = state == PullState::More;
        }
        // Registrations follow the mark that begins a snapshot, which forgets earlier ones.
        let mut updates_left = updates.drain(..).peekable();
        while let Some(begin) = updates_left.next_if(|update| *update == FibUpdate::Begin) {
            command(begin).encode(&mut bytes);
        }
        self.fib.pending.drain(..).for_each(|command| command.encode(&mut bytes));
        updates_left.for_each(|update| command(update).encode(&mut bytes));
        self.fib.updates = updates;
        if bytes.is_empty() {
            self.fib.buffer = bytes;
        } else {
            self.fib.drained = false;
            // The client lives as long as the daemon; while it ends, nothing is owed any more.
            let _ = link.batches.send((connection, bytes));
        }
    }
}

fn command(update: FibUpdate) -> Command {
    match update {
        FibUpdate::Begin => Command::SnapshotBegin,
        FibUpdate::Group { id, members, backups } => Command::Group {
            id,
            members: members.iter().map(member).collect(),
            backups: backups.iter().map(member).collect(),
        },
        FibUpdate::GroupGone(id) => Command::GroupDelete { id },
        FibUpdate::Route { prefix, group, generation } => {
            Command::Route { prefix: views::network(&prefix), group, generation }
        }
        FibUpdate::Withdraw { prefix, generation } => {
            Command::Withdraw { prefix: views::network(&prefix), generation }
        }
        FibUpdate::End(Family::Ipv4Unicast) => Command::EndOfSnapshot { family: fib::Family::Ipv4 },
        FibUpdate::End(Family::Ipv6Unicast) => Command::EndOfSnapshot { family: fib::Family::Ipv6 },
    }
}

fn member(member: &Member) -> fib::GroupMember {
    let tunnel = member.tunnel.as_deref().map(|tunnel| fib::TunnelEndpoint {
        kind: match tunnel.kind {
            TunnelKind::Any => fib::TunnelType::Any,
            TunnelKind::Vxlan => fib::TunnelType::Vxlan,
            TunnelKind::Ipip => fib::TunnelType::Ipip,
        },
        address: tunnel.endpoint.unwrap_or(member.next_hop),
        vni: tunnel.vni,
        mac: tunnel.mac,
    });
    fib::GroupMember { next_hop: NextHop::global(member.next_hop), weight: member.weight, tunnel }
}

fn next_hop_state(state: fib::NextHopState) -> NextHopState {
    match state {
        fib::NextHopState::Unreachable => NextHopState::Unreachable,
        fib::NextHopState::Connected { device, .. } => NextHopState::Connected { device: device.into() },
        fib::NextHopState::Gateway { gateway, device, metric, .. } => {
            NextHopState::Gateway { gateway, device: device.into(), metric }
        }
    }
}

fn way(via: fib::Via) -> Via {
    match via {
        fib::Via::Direct => Via::Direct,
        fib::Via::Ipip => Via::Ipip,
        fib::Via::Vxlan => Via::Vxlan,
        fib::Via::Recursive => Via::Recursive,
        fib::Via::Local => Via::Local,
    }
}

#[cfg(test)]
mod tests {
    use causeway_bgp_wire::Tunnel;
    use ipnetwork::IpNetwork;

    use super::*;

    #[test]
    fn a_subnet_with_host_bits_contains_its_peers() {
        let subnet: IpNetwork = "192.0.2.11/24".parse().unwrap();
        assert!(subnet.contains("192.0.2.1".parse().unwrap()));
        assert!(!subnet.contains("192.0.3.1".parse().unwrap()));
    }

    #[test]
    fn groups_keep_weights_tunnels_and_backups() {
        let next_hop: IpAddr = "192.0.2.1".parse().unwrap();
        let tunnel = Tunnel { kind: TunnelKind::Vxlan, endpoint: None, vni: Some(7), mac: None };
        let with_tunnel = Member { next_hop, weight: 3, tunnel: Some(Box::new(tunnel)) };
        let plain = Member { next_hop, weight: 1, tunnel: None };
        let update = FibUpdate::Group { id: 7, members: vec![with_tunnel], backups: vec![plain] };
        let Command::Group { id: 7, members, backups } = command(update) else { panic!("not a group") };
        assert_eq!((members[0].weight, members[0].next_hop.scope), (3, 0));
        let endpoint = members[0].tunnel.unwrap();
        assert_eq!((endpoint.address, endpoint.vni), (next_hop, Some(7)), "it ends at the next hop");
        assert_eq!(backups, [fib::GroupMember::plain(NextHop::global(next_hop))]);
    }
}
