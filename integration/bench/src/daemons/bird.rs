//! BIRD 2: two dynamic protocols, no kernel protocol. Next hops are looked up in a table with the subnet alone.

use std::fs;

use anyhow::Result;

use super::{Setup, words};
use crate::addresses::{DAEMON, DAEMON_AS, EBGP_RANGE, IBGP_RANGE};
use crate::place::INTERFACE;

pub(super) fn prepare(setup: &Setup<'_>) -> Result<Vec<String>> {
    let client = if setup.reflector { "rr client; " } else { "" };
    let hold = setup.hold_time.map(|seconds| format!("hold time {seconds}; ")).unwrap_or_default();
    let channel = "ipv4 { igp table subnet; import all; export all; };";
    let text = format!(
        "log stderr {{ warning, error, auth, fatal, bug }};\n\
         router id {DAEMON};\n\
         ipv4 table subnet;\n\
         protocol device {{ }}\n\
         protocol direct {{ ipv4 {{ table subnet; }}; interface \"{INTERFACE}\"; }}\n\
         protocol bgp inside {{ local {DAEMON} as {DAEMON_AS}; neighbor range {IBGP_RANGE} internal; passive; \
         {client}{hold}{channel} }}\n\
         protocol bgp outside {{ local {DAEMON} as {DAEMON_AS}; neighbor range {EBGP_RANGE} external; passive; \
         {hold}{channel} }}\n"
    );
    let folder = setup.folder.display();
    fs::write(setup.folder.join("bird.conf"), text)?;
    Ok(words(&format!("/usr/sbin/bird -f -c {folder}/bird.conf -s {folder}/bird.ctl -P {folder}/bird.pid")))
}
