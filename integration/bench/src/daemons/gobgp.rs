//! GoBGP: every peer by name, since it takes an eBGP peer of any AS in no other way.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;

use super::{Setup, words};
use crate::addresses::{DAEMON, DAEMON_AS, PORT};

pub(super) fn prepare(setup: &Setup<'_>) -> Result<Vec<String>> {
    let mut text = format!(
        "global:\n  config: {{as: {DAEMON_AS}, router-id: {DAEMON}, port: {PORT}, local-address-list: [{DAEMON}]}}\nneighbors:\n"
    );
    for peer in setup.peers {
        writeln!(
            text,
            "  - config: {{neighbor-address: {}, peer-as: {}}}\n    transport: {{config: {{passive-mode: true}}}}\n    \
             afi-safis: [{{config: {{afi-safi-name: ipv4-unicast}}}}]",
            peer.address, peer.asn
        )?;
        if let Some(seconds) = setup.hold_time {
            writeln!(
                text,
                "    timers: {{config: {{hold-time: {seconds}, keepalive-interval: {}}}}}",
                seconds / 3
            )?;
        }
        if setup.reflector && !peer.is_external() {
            writeln!(
                text,
                "    route-reflector: {{config: {{route-reflector-client: true, route-reflector-cluster-id: {DAEMON}}}}}"
            )?;
        }
    }
    let folder = setup.folder.display();
    fs::write(setup.folder.join("gobgpd.yml"), text)?;
    Ok(words(&format!(
        "/usr/bin/gobgpd -t yaml -f {folder}/gobgpd.yml --log-level=warn --api-hosts=127.0.0.1:50051 --pprof-disable"
    )))
}
