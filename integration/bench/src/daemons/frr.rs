//! FRR's bgpd alone: no zebra, two listen ranges with a peer group each. Among equals the identifier decides, as in RFC 4271, not age.

use std::fs;

use anyhow::Result;

use super::{Setup, words};
use crate::addresses::{DAEMON, DAEMON_AS, EBGP_RANGE, IBGP_RANGE, PORT};

pub(super) fn prepare(setup: &Setup<'_>) -> Result<Vec<String>> {
    let client = if setup.reflector { "  neighbor INSIDE route-reflector-client\n" } else { "" };
    let hold =
        setup.hold_time.map(|seconds| format!(" timers bgp {} {seconds}\n", seconds / 3)).unwrap_or_default();
    let text = format!(
        "frr defaults traditional\n\
         hostname bench\n\
         log stdout warnings\n\
         router bgp {DAEMON_AS}\n bgp router-id {DAEMON}\n bgp bestpath compare-routerid\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n{hold} \
         bgp listen limit 5000\n \
         neighbor INSIDE peer-group\n neighbor INSIDE remote-as internal\n \
         neighbor OUTSIDE peer-group\n neighbor OUTSIDE remote-as external\n \
         bgp listen range {IBGP_RANGE} peer-group INSIDE\n bgp listen range {EBGP_RANGE} peer-group OUTSIDE\n \
         address-family ipv4 unicast\n  neighbor INSIDE activate\n{client}  neighbor OUTSIDE activate\n exit-address-family\n"
    );
    let folder = setup.folder.display();
    fs::write(setup.folder.join("bgpd.conf"), text)?;
    Ok(words(&format!(
        "/usr/lib/frr/bgpd -f {folder}/bgpd.conf -i {folder}/bgpd.pid -z {folder}/zserv.api --vty_socket {folder} -P 0 \
         -l {DAEMON} -p {PORT} -n -Z -S"
    )))
}
