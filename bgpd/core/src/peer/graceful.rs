//! Graceful restart as the session sees it: what stands in our capability, what the peer's means, and whether paths
//! may be retained when the session is lost. Pure. RFC 4724.

use std::time::Duration;

use causeway_bgp_wire::{Capability, FamilySet, GracefulRestart, Open};

use crate::event::PeerRestart;

/// The longest restart time the capability can say: 12 bits of seconds (RFC 4724 §3).
const RESTART_TIME_MAX: u64 = 4095;

/// What this speaker says of its own restart in the next OPEN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartMarks {
    /// The R bit: this speaker has just restarted and has not yet finished its initial convergence.
    pub restarting: bool,
    /// The F bits: families whose forwarding state survived.
    pub forwarding: FamilySet,
}

/// Our capability (RFC 4724 §3). The N bit (RFC 8538) stays clear: NOTIFICATIONs end the retention.
pub fn capability(restart_time: Duration, families: FamilySet, marks: RestartMarks) -> Capability {
    Capability::GracefulRestart(GracefulRestart {
        restart_state: marks.restarting,
        notification: false,
        restart_time: restart_time.as_secs().min(RESTART_TIME_MAX) as u16,
        families: families.iter().map(|f| (f.afi_safi(), marks.forwarding.contains(f))).collect(),
    })
}

/// What the peer's capability says of the families negotiated; `None` without the capability.
pub fn peer_restart(open: &Open, negotiated: FamilySet) -> Option<PeerRestart> {
    let theirs = open.graceful_restart()?;
    let families = theirs.families.iter().filter_map(|(family, kept)| Some((family.family()?, *kept)));
    Some(PeerRestart {
        restarting: theirs.restart_state,
        restart_time: Duration::from_secs(u64::from(theirs.restart_time)),
        families: families.filter(|(family, _)| negotiated.contains(*family)).collect(),
    })
}

/// Whether the loss of TCP alone lets paths be retained: both ends sent the capability, and the peer's names a family
/// (RFC 4724 §4.2: without one it only promises End-of-RIB).
pub fn retains(graceful: Option<&PeerRestart>) -> bool {
    graceful.is_some_and(|g| !g.families.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use causeway_bgp_wire::{Asn, Family};
    use std::net::Ipv4Addr;

    fn open_with(capabilities: Vec<Capability>) -> Open {
        Open::new(Asn(64512), 90, Ipv4Addr::new(192, 0, 2, 1), capabilities)
    }

    #[test]
    fn rfc4724_3_bits_of_our_capability() {
        let v6 = FamilySet::only(Family::Ipv6Unicast);
        let marks = RestartMarks { restarting: true, forwarding: v6 };
        let Capability::GracefulRestart(ours) = capability(Duration::from_secs(120), FamilySet::ALL, marks)
        else {
            panic!("not the graceful restart capability");
        };
        assert!(ours.restart_state);
        assert!(!ours.notification);
        assert_eq!(ours.restart_time, 120);
        assert_eq!(
            ours.families,
            [(Family::Ipv4Unicast.afi_safi(), false), (Family::Ipv6Unicast.afi_safi(), true)]
        );
        let Capability::GracefulRestart(fresh) =
            capability(Duration::from_secs(9999), v6, RestartMarks::default())
        else {
            panic!("not the graceful restart capability");
        };
        assert!(!fresh.restart_state);
        assert_eq!(fresh.restart_time, 4095);
        assert_eq!(fresh.families, [(Family::Ipv6Unicast.afi_safi(), false)]);
    }

    #[test]
    fn peer_families_outside_the_negotiated_ones_do_not_count() {
        let marks = RestartMarks { restarting: true, forwarding: FamilySet::ALL };
        let open = open_with(vec![capability(Duration::from_secs(60), FamilySet::ALL, marks)]);
        let restart = peer_restart(&open, FamilySet::only(Family::Ipv4Unicast)).unwrap();
        assert!(restart.restarting);
        assert_eq!(restart.restart_time, Duration::from_secs(60));
        assert_eq!(restart.families, [(Family::Ipv4Unicast, true)]);
        assert!(retains(Some(&restart)));
        assert_eq!(peer_restart(&open_with(Vec::new()), FamilySet::ALL), None);
    }

    #[test]
    fn rfc4724_4_a_capability_without_families_retains_nothing() {
        let open =
            open_with(vec![capability(Duration::from_secs(60), FamilySet::EMPTY, RestartMarks::default())]);
        let restart = peer_restart(&open, FamilySet::ALL);
        assert!(restart.is_some());
        assert!(!retains(restart.as_ref()));
        assert!(!retains(None));
    }
}
