//! `show fib`: desired routes against the kernel's.

use causeway_api::control::{FIB_SYNC_SOCKET, FibNextHop, FibRoute};
use comfy_table::Cell;
use ipnetwork::IpNetwork;

use crate::Error;
use crate::client::Client;
use crate::render::{Output, judged, or_dash};

/// Prints every desired route, sorted, or one.
pub fn show(client: &Client, output: &Output, only: Option<IpNetwork>) -> Result<(), Error> {
    let mut routes: Vec<FibRoute> = client.get(FIB_SYNC_SOCKET, "/v1/fib")?;
    if let Some(only) = only {
        routes.retain(|route| {
            route.prefix.network() == only.network() && route.prefix.prefix() == only.prefix()
        });
        if routes.is_empty() {
            return Err(Error::Refused(format!("{only}: no route of ours")));
        }
    }
    routes.sort_by_key(|route| (route.prefix.is_ipv6(), route.prefix));
    output.print(&routes, |output| text(output, &routes))
}

fn text(output: &Output, routes: &[FibRoute]) -> String {
    if routes.is_empty() {
        return "no routes\n".to_owned();
    }
    let headers = ["PREFIX", "NEXT HOPS", "VIA", "MTU", "STATE", "REASON"];
    let rows = routes.iter().map(|route| {
        let hops: Vec<String> = route.next_hops.iter().map(next_hop).collect();
        vec![
            Cell::new(route.prefix),
            Cell::new(if hops.is_empty() { "-".to_owned() } else { hops.join(", ") }),
            Cell::new(or_dash(route.via)),
            Cell::new(or_dash(route.mtu)),
            judged(&route.state, Some(route.state == "installed")),
            Cell::new(&route.reason),
        ]
    });
    output.table(&headers, rows.collect())
}

fn next_hop(hop: &FibNextHop) -> String {
    match (&hop.gateway, &hop.device) {
        (Some(gateway), Some(device)) => format!("{gateway} dev {device}"),
        (Some(gateway), None) => gateway.to_string(),
        (None, Some(device)) => format!("dev {device}"),
        (None, None) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use causeway_api::control::Via;

    use super::*;
    use crate::render::Format;

    fn route(prefix: &str, via: Via, (gateway, device): (&str, &str), reason: &str) -> FibRoute {
        let next_hop =
            FibNextHop { gateway: Some(gateway.parse().unwrap()), device: Some(device.to_owned()) };
        FibRoute {
            prefix: prefix.parse().unwrap(),
            next_hops: vec![next_hop],
            via: Some(via),
            mtu: None,
            reason: reason.to_owned(),
            state: "installed".to_owned(),
        }
    }

    #[test]
    fn a_route_into_a_tunnel_shows_its_device_mtu_and_reason() {
        let direct =
            route("10.244.2.0/24", Via::Direct, ("192.0.2.12", "eth0"), "next hop in a connected subnet");
        let tunnel =
            route("10.244.3.0/24", Via::Vxlan, ("198.51.100.5", "causeway-vxlan"), "VXLAN to node-b2");
        let tunnel = FibRoute { mtu: Some(1450), ..tunnel };
        let shown = text(&Output::new(Format::Wide), &[direct, tunnel]);
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["PREFIX", "NEXT", "HOPS", "VIA", "MTU", "STATE", "REASON"]);
        assert_eq!(lines[1][..7], ["10.244.2.0/24", "192.0.2.12", "dev", "eth0", "direct", "-", "installed"]);
        assert_eq!(
            lines[2],
            [
                "10.244.3.0/24",
                "198.51.100.5",
                "dev",
                "causeway-vxlan",
                "vxlan",
                "1450",
                "installed",
                "VXLAN",
                "to",
                "node-b2"
            ]
        );
        assert_eq!(text(&Output::new(Format::Wide), &[]), "no routes\n");
    }
}
