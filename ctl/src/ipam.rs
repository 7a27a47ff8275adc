//! `show ipam`: blocks of pod addresses.

use causeway_api::control::{IPAM_SOCKET, Ipam};
use comfy_table::Cell;

use crate::Error;
use crate::client::Client;
use crate::render::{Output, or_dash};

/// Prints the blocks, or with `each` every address given out.
pub fn show(client: &Client, output: &Output, each: bool) -> Result<(), Error> {
    let ipam: Ipam = client.get(IPAM_SOCKET, "/v1/ipam")?;
    output.print(&ipam, |output| {
        if ipam.blocks.is_empty() {
            return "no blocks\n".to_owned();
        }
        let rows = ipam.blocks.iter().map(|block| {
            vec![
                Cell::new(block.cidr),
                Cell::new(block.total),
                Cell::new(block.used),
                Cell::new(block.free),
                Cell::new(block.quarantined),
            ]
        });
        let mut text = output.table(&["BLOCK", "TOTAL", "USED", "FREE", "QUARANTINED"], rows.collect());
        if each {
            let rows = ipam.blocks.iter().flat_map(|block| &block.allocations).map(|allocation| {
                vec![
                    Cell::new(allocation.address),
                    Cell::new(or_dash(allocation.pod.as_ref())),
                    Cell::new(&allocation.container),
                    Cell::new(&allocation.interface),
                    Cell::new(or_dash(allocation.veth.as_ref())),
                    Cell::new(&allocation.state),
                ]
            });
            text.push('\n');
            text +=
                &output.table(&["ADDRESS", "POD", "CONTAINER", "INTERFACE", "VETH", "STATE"], rows.collect());
        }
        text
    })
}
