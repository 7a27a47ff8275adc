//! `/metrics`: the numbers of the kernel thread in OpenMetrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::view::Numbers;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// The text for present numbers.
pub fn render(numbers: &Numbers) -> String {
    let mut registry = Registry::with_prefix("causeway_fib");
    let Numbers { counts, routes, bgpd, mtu } = numbers;

    let by_state = Family::<State, Gauge>::default();
    for (state, number) in [
        ("installed", routes.installed),
        ("pending", routes.pending),
        ("failed", routes.failed),
        ("kept", routes.kept),
    ] {
        by_state.get_or_create(&State { state }).set(number as i64);
    }
    registry.register("routes", "Routes by what became of them", by_state);

    for (name, help, number) in [
        ("routes_healed", "Routes put back after somebody else deleted or changed them", counts.healed),
        ("routes_refused", "Routes of bgpd that the guard refused", counts.refused),
        ("netlink_changes", "Route changes written to the kernel", counts.writes),
        ("netlink_refusals", "Route changes the kernel refused", counts.write_refusals),
    ] {
        let counter = Counter::<u64>::default();
        counter.inc_by(number);
        registry.register(name, help, counter);
    }
    for (name, help, good, bad) in [
        (
            "netlink_batches",
            "Batches of route changes by outcome",
            counts.batches - counts.batch_errors,
            counts.batch_errors,
        ),
        ("netlink_dumps", "Dumps of the kernel's tables by outcome", counts.dumps, counts.dump_errors),
    ] {
        let family = Family::<Outcome, Counter>::default();
        family.get_or_create(&Outcome { outcome: "ok" }).inc_by(good);
        family.get_or_create(&Outcome { outcome: "error" }).inc_by(bad);
        registry.register(name, help, family);
    }
    for (name, help, number) in [
        ("bgpd_connected", "1 while bgpd is connected", i64::from(*bgpd)),
        ("pod_mtu_bytes", "The MTU pods get", i64::from(*mtu)),
    ] {
        let gauge: Gauge = Gauge::default();
        gauge.set(number);
        registry.register(name, help, gauge);
    }
    causeway_daemon::http::encode_metrics(&registry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Counts;
    use crate::view::RouteNumbers;

    #[test]
    fn numbers_become_text() {
        let numbers = Numbers {
            counts: Counts { healed: 3, batches: 5, batch_errors: 1, ..Counts::default() },
            routes: RouteNumbers { installed: 7, ..RouteNumbers::default() },
            bgpd: true,
            mtu: 1500,
        };
        let text = render(&numbers);
        for line in [
            "causeway_fib_routes{state=\"installed\"} 7",
            "causeway_fib_routes_healed_total 3",
            "causeway_fib_netlink_batches_total{outcome=\"ok\"} 4",
            "causeway_fib_netlink_batches_total{outcome=\"error\"} 1",
            "causeway_fib_bgpd_connected 1",
            "causeway_fib_pod_mtu_bytes 1500",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
