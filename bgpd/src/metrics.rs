//! `/metrics`: made from the speaker's counts when it is asked for. Label values come from closed lists and from the
//! configured peers, so their number is bounded by the configuration.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use causeway_api::control::{Peer, SessionState};
use causeway_bgp_core::speaker::Counters;
use causeway_bgp_wire::Family as BgpFamily;
use causeway_daemon::http::encode_metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::views;

/// Why sessions ended, counted by the label of [`causeway_bgp_core::event::Down`].
#[derive(Clone, Debug, Default)]
pub struct ResetCounts(BTreeMap<&'static str, u64>);

impl ResetCounts {
    /// Counts one.
    pub fn add(&mut self, label: &'static str) {
        *self.0.entry(label).or_default() += 1;
    }
}

/// What the metrics are made from.
pub struct Snapshot {
    /// Rows of `show peers`.
    pub peers: Vec<Peer>,
    /// Counts of the speaker.
    pub counters: Counters,
    /// Why sessions ended.
    pub resets: ResetCounts,
    /// Whether the FIB feed is there; `None` with `--no-fib`.
    pub fib_connected: Option<bool>,
    /// Number of the configuration in force.
    pub generation: u64,
    /// Whether the last change of the documents was refused.
    pub refused: bool,
}

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge>;
type Counts = Family<Labels, Counter<u64, AtomicU64>>;

/// The text of `/metrics`.
pub fn text(snapshot: &Snapshot) -> String {
    let mut registry = Registry::with_prefix("causeway_bgp");
    sessions(&mut registry, &snapshot.peers, &snapshot.resets);
    tables(&mut registry, &snapshot.counters);
    let single = |registry: &mut Registry, name: &str, help: &str, value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    if let Some(connected) = snapshot.fib_connected {
        single(&mut registry, "fib_connected", "Whether the FIB feed is connected", connected.into());
    }
    let generation = i64::try_from(snapshot.generation).unwrap_or(i64::MAX);
    single(&mut registry, "configuration_generation", "Number of the configuration in force", generation);
    single(
        &mut registry,
        "configuration_refused",
        "Whether the last change of the documents was refused",
        snapshot.refused.into(),
    );
    encode_metrics(&registry)
}

fn sessions(registry: &mut Registry, peers: &[Peer], resets: &ResetCounts) {
    let (states, up, prefixes) = (Gauges::default(), Gauges::default(), Gauges::default());
    let (updates, ended) = (Counts::default(), Counts::default());
    for (state, name) in views::SESSION_STATES {
        let count = peers.iter().filter(|peer| peer.state == state).count();
        set(&states, vec![("state", name.to_owned())], count as u64);
    }
    for peer in peers {
        let labels = || vec![("peer", peer.peer.clone())];
        let with = |name, value: &str| vec![("peer", peer.peer.clone()), (name, value.to_owned())];
        set(&up, labels(), u64::from(peer.state == SessionState::Established));
        for (kind, count) in [
            ("received", peer.received),
            ("accepted", peer.accepted),
            ("stale", peer.stale),
            ("advertised", peer.advertised),
        ] {
            set(&prefixes, with("kind", kind), count);
        }
        updates.get_or_create(&with("direction", "received")).inc_by(peer.updates_received);
        updates.get_or_create(&with("direction", "sent")).inc_by(peer.updates_sent);
    }
    for (reason, count) in &resets.0 {
        ended.get_or_create(&vec![("reason", (*reason).to_owned())]).inc_by(*count);
    }
    registry.register("sessions", "Peers by session state", states);
    registry.register("peer_up", "Whether the session with a peer is established", up);
    registry.register("peer_prefixes", "Prefixes of a peer", prefixes);
    registry.register("peer_updates", "UPDATE messages exchanged with a peer", updates);
    registry.register("session_resets", "Established sessions that ended, by reason", ended);
}

fn tables(registry: &mut Registry, counters: &Counters) {
    let (rib, fib) = (Gauges::default(), Gauges::default());
    for family in BgpFamily::all() {
        let counts = &counters.families[family.index()];
        let with = |name, value: &str| {
            vec![("family", views::family_label(family).to_owned()), (name, value.to_owned())]
        };
        for (kind, count) in [("prefixes", counts.prefixes), ("paths", counts.paths), ("best", counts.best)] {
            set(&rib, with("kind", kind), count);
        }
        for (state, count) in [
            ("wanted", counts.fib_wanted),
            ("installed", counts.fib_installed),
            ("failed", counts.fib_failed),
        ] {
            set(&fib, with("state", state), count);
        }
    }
    let decisions: Counter<u64, AtomicU64> = Counter::default();
    decisions.inc_by(counters.decisions);
    let sets: Gauge = Gauge::default();
    sets.set(i64::try_from(counters.attribute_sets).unwrap_or(i64::MAX));
    registry.register("rib", "Entries of the routing table", rib);
    registry.register("fib_routes", "Prefixes given to the kernel, by state", fib);
    registry.register("decisions", "Runs of the decision process", decisions);
    registry.register("attribute_sets", "Distinct attribute sets held", sets);
}

fn set(gauges: &Gauges, labels: Labels, value: u64) {
    gauges.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_states_and_reasons() {
        let mut resets = ResetCounts::default();
        resets.add("hold-timer");
        let text = text(&Snapshot {
            peers: Vec::new(),
            counters: Counters::default(),
            resets,
            fib_connected: Some(true),
            generation: 3,
            refused: false,
        });
        for line in [
            "causeway_bgp_sessions{state=\"Established\"} 0",
            "causeway_bgp_session_resets_total{reason=\"hold-timer\"} 1",
            "causeway_bgp_fib_connected 1",
            "causeway_bgp_configuration_generation 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
