//! Checksum offload of tunnelled packets, the classic that lets pings pass and TCP hang: a network card that is given a
//! VXLAN packet to fill in both checksums and gets the inner one wrong. Judged by drivers known for it, and by what can be
//! measured: packets with wrong checksums that arrive here. Pure but for [`counters`].

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use causeway_api::control::{Condition, ConditionStatus};

/// Name of the condition.
const CONDITION: &str = "ChecksumOffload";
/// Drivers that are known to have got inner checksums wrong, and how.
const SUSPECTS: [(&str, &str); 2] = [
    ("vmxnet3", "some versions of ESXi get the inner checksum of VXLAN wrong"),
    ("be2net", "the card only knows VXLAN on one UDP port at a time"),
];
/// Features of the tunnel device that leave the inner checksum to the card.
const INNER: [&str; 2] = ["tx-checksum-ip-generic", "tx-checksum-ipv4"];
/// Features of the card that make it do so.
const TUNNELLED: [&str; 2] = ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
/// So many wrong checksums between two looks are no accident.
const MANY: u64 = 10;
/// For how long they are remembered.
const MEMORY: Duration = Duration::from_secs(600);

/// A device of hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Offload features that are on.
    pub features: BTreeSet<String>,
}

/// What is known of the offloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Our VXLAN devices, with the features that are on.
    pub tunnels: Vec<(String, BTreeSet<String>)>,
    /// Devices of hardware.
    pub underlay: Vec<Underlay>,
}

/// Packets with a wrong checksum, counted by the kernel since it started: of UDP and TCP.
pub type Counters = [u64; 2];

/// How the counters grew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Errors {
    last: Option<Counters>,
    /// When many came, and how many.
    grown: Option<(Instant, Counters)>,
}

impl Errors {
    /// Takes in the counters of now.
    pub fn add(&mut self, counters: &Counters, now: Instant) {
        if let Some(last) = self.last {
            let grown = [0, 1].map(|at| counters[at].saturating_sub(last[at]));
            if grown.iter().sum::<u64>() >= MANY {
                self.grown = Some((now, grown));
            }
        }
        self.last = Some(*counters);
    }
}

/// The condition `ChecksumOffload` of a node with VXLAN devices.
pub fn condition(facts: &Facts, errors: &Errors, now: Instant) -> Condition {
    let turn_off = |device: &str| format!("`ethtool -K {device} tx-checksum-ip-generic off`");
    let devices: Vec<String> = facts.tunnels.iter().map(|(name, _)| turn_off(name)).collect();
    if let Some((at, [udp, tcp])) = errors.grown
        && now.saturating_duration_since(at) < MEMORY
    {
        let message = format!(
            "{udp} UDP and {tcp} TCP packets with wrong checksums came in within half a minute: the network card of a \
             sender gets checksums of tunnelled packets wrong; run {} on the nodes they come from",
            devices.join(", ")
        );
        return Condition::new(CONDITION, false, "WrongChecksums", message);
    }
    let leaves =
        |(_, features): &&(String, BTreeSet<String>)| INNER.iter().any(|name| features.contains(*name));
    let tunnels: Vec<String> = facts.tunnels.iter().filter(leaves).map(|(name, _)| turn_off(name)).collect();
    let suspect = facts.underlay.iter().find_map(|device| {
        let (_, why) = SUSPECTS.iter().find(|(driver, _)| *driver == device.driver)?;
        TUNNELLED.iter().any(|name| device.features.contains(*name)).then_some((device, why))
    });
    match suspect {
        Some((device, why)) if !tunnels.is_empty() => Condition {
            kind: CONDITION.to_owned(),
            status: ConditionStatus::Unknown,
            reason: "SuspectDriver".to_owned(),
            message: format!(
                "{} (driver {}) fills in checksums of tunnelled packets, and {why}: where TCP through tunnels hangs, run {}",
                device.name,
                device.driver,
                tunnels.join(", ")
            ),
        },
        _ => Condition::new(CONDITION, true, "NoErrors", "no sign of wrong checksums of tunnelled packets"),
    }
}

/// The kernel's counters, from the files below `root`. What is not there counts as 0.
pub fn counters(root: &Path) -> Counters {
    let read = |name: &str| std::fs::read_to_string(root.join("proc/net").join(name)).unwrap_or_default();
    let (v4, v6) = (read("snmp"), read("snmp6"));
    [table(&v4, "Udp:", "InCsumErrors") + line(&v6, "Udp6InCsumErrors"), table(&v4, "Tcp:", "InCsumErrors")]
}

/// A value of `/proc/net/snmp`: a line of names, then one of values, each beginning with the protocol.
fn table(text: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let at = names.split_whitespace().position(|found| found == name);
    at.and_then(|at| values.split_whitespace().nth(at)?.parse().ok()).unwrap_or_default()
}

/// A value of `/proc/net/snmp6`: a name and a value a line.
fn line(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    lines
        .find(|(found, _)| *found == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn facts(inner: &[&str], driver: &str, card: &[&str]) -> Facts {
        Facts {
            tunnels: vec![("causeway-vxlan".to_owned(), features(inner))],
            underlay: vec![Underlay {
                name: "ens192".to_owned(),
                driver: driver.to_owned(),
                features: features(card),
            }],
        }
    }

    #[test]
    fn drivers_known_for_it_are_suspected_while_they_do_it() {
        let (inner, card) = (&["tx-checksum-ip-generic"][..], &["tx-udp_tnl-segmentation"][..]);
        for (what, facts, reason) in [
            ("a good driver", facts(inner, "mlx5_core", card), "NoErrors"),
            ("a suspect", facts(inner, "vmxnet3", card), "SuspectDriver"),
            ("a suspect that is not asked", facts(&[], "vmxnet3", card), "NoErrors"),
            ("a suspect that does not do it", facts(inner, "vmxnet3", &[]), "NoErrors"),
        ] {
            let condition = condition(&facts, &Errors::default(), Instant::now());
            assert_eq!(condition.reason, reason, "{what}");
        }
    }

    #[test]
    fn wrong_checksums_that_keep_coming_are_named_with_what_to_run() {
        let facts = facts(&[], "mlx5_core", &[]);
        let start = Instant::now();
        let mut errors = Errors::default();
        errors.add(&[1000, 5], start);
        assert_eq!(condition(&facts, &errors, start).reason, "NoErrors", "what came before is not known");
        errors.add(&[1004, 10], start);
        assert_eq!(condition(&facts, &errors, start).reason, "NoErrors", "a few are an accident");
        errors.add(&[1004, 40], start);
        let bad = condition(&facts, &errors, start);
        assert_eq!((bad.status, bad.reason.as_str()), (ConditionStatus::False, "WrongChecksums"));
        assert!(bad.message.contains("0 UDP and 30 TCP"), "{}", bad.message);
        assert!(bad.message.contains("`ethtool -K causeway-vxlan tx-checksum-ip-generic off`"));
        assert_eq!(condition(&facts, &errors, start + MEMORY).reason, "NoErrors", "long ago");
        errors.add(&[0, 0], start);
        assert_eq!(condition(&facts, &errors, start).reason, "WrongChecksums", "a counter that began anew");
    }

    #[test]
    fn counters_are_found_among_the_others() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(counters(root.path()), [0, 0]);
        let folder = root.path().join("proc/net");
        std::fs::create_dir_all(&folder).unwrap();
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: InErrs OutRsts InCsumErrors\nTcp: 1 2 3\n\
                    Udp: InDatagrams InCsumErrors MemErrors\nUdp: 9 7 8\nUdpLite: InCsumErrors\nUdpLite: 99\n";
        std::fs::write(folder.join("snmp"), snmp).unwrap();
        std::fs::write(folder.join("snmp6"), "Udp6InDatagrams \t1\nUdp6InCsumErrors       \t4\n").unwrap();
        assert_eq!(counters(root.path()), [11, 3]);
    }
}
