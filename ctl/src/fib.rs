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
    output.print(&routes, |output| {
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
    })
}

fn next_hop(hop: &FibNextHop) -> String {
    match (&hop.gateway, &hop.device) {
        (Some(gateway), Some(device)) => format!("{gateway} dev {device}"),
        (Some(gateway), None) => gateway.to_string(),
        (None, Some(device)) => format!("dev {device}"),
        (None, None) => "-".to_owned(),
    }
}
