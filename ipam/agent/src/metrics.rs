//! The metrics: made anew for each scrape out of the store, which others write.

use std::sync::atomic::AtomicU64;

use causeway_daemon::http::encode_metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::keeper::Keeper;

/// Addresses by block and what they are doing.
type ByBlock = Family<[(&'static str, String); 2], Gauge<i64>>;

/// The text of `/metrics`.
pub fn text(keeper: &Keeper) -> String {
    let mut registry = Registry::with_prefix("causeway_ipam");
    let addresses = ByBlock::default();
    registry.register("addresses", "Pod addresses by block and state", addresses.clone());
    let records = Gauge::<i64>::default();
    registry.register("attachments", "Interfaces of containers that have addresses", records.clone());
    let up = Gauge::<i64>::default();
    registry.register("blocks_written", "Whether the node's blocks are in the store", up.clone());
    let outcome = keeper.outcome();
    register_count(&mut registry, "collected", "Records of pods that went without a DEL", outcome.collected);
    register_count(&mut registry, "failures", "Passes in which the store was unusable", outcome.failures);
    up.set(i64::from(keeper.ready().is_ok()));
    if let Ok(snapshot) = keeper.snapshot() {
        records.set(gauge(snapshot.allocations.allocations.len() as u64));
        for block in keeper.block_use(&snapshot) {
            for (state, count) in
                [("used", block.used), ("free", block.free), ("quarantined", block.quarantined)]
            {
                addresses
                    .get_or_create(&[("block", block.cidr.to_string()), ("state", state.to_owned())])
                    .set(gauge(count));
            }
        }
    }
    encode_metrics(&registry)
}

fn register_count(registry: &mut Registry, name: &str, help: &str, count: u64) {
    let counter = Counter::<u64, AtomicU64>::default();
    counter.inc_by(count);
    registry.register(name, help, counter);
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
