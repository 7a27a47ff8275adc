//! Which records belong to pods that are gone without a DEL.
//!
//! The judgement is pure; [`Evidence::gather`] asks the system. A record is given up only when everything speaks for it:
//! it has not changed for [`GRACE`], its host interface is gone, and its network namespace is gone or is another one.
//! (With a namespace goes its end of the veth pair, and with that the host end. A namespace that cannot be looked at is
//! taken to exist.)

use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use causeway_api::pod_store::{Allocation, AllocationState, Netns};

use crate::store::Now;

/// How long a record is left alone after its last change: an ADD or DEL may be at work.
pub const GRACE: Duration = Duration::from_secs(60);

/// What the system says about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// The network namespace of the record is still there.
    pub netns: bool,
    /// The host interface is still there.
    pub veth: bool,
}

impl Evidence {
    /// Looks at the namespace's file and asks the kernel for the interface, in the namespace of the calling thread.
    pub fn gather(record: &Allocation) -> Self {
        Self { netns: netns_exists(&record.netns), veth: interface_exists(&record.veth) }
    }
}

/// Whether a record is dead.
pub fn is_dead(record: &Allocation, evidence: Evidence, now: Now) -> bool {
    let quiet = now.unix_seconds.saturating_sub(record.changed) >= GRACE.as_secs();
    match record.state {
        AllocationState::Active => quiet && !evidence.veth && !evidence.netns,
        AllocationState::Deleting => quiet && !evidence.veth,
    }
}

/// Whether the path still leads to that very namespace.
pub fn netns_exists(netns: &Netns) -> bool {
    match std::fs::metadata(&netns.path) {
        Ok(found) => found.dev() == netns.dev && found.ino() == netns.ino,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Whether the calling thread's network namespace has an interface of that name.
pub fn interface_exists(name: &str) -> bool {
    match nix::net::if_::if_nametoindex(name) {
        Ok(_) => true,
        Err(error) => error != nix::errno::Errno::ENODEV,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: AllocationState, changed: u64) -> Allocation {
        Allocation {
            container: "c".into(),
            interface: "eth0".into(),
            addresses: Vec::new(),
            network: "causeway".into(),
            pod: None,
            veth: "cw0123456789ab".into(),
            netns: Netns { path: "/nonexistent/netns".into(), dev: 1, ino: 2 },
            state,
            created: changed,
            changed,
        }
    }

    #[test]
    fn only_what_everything_speaks_against_is_dead() {
        let now = Now { boot_millis: 0, unix_seconds: 1_000 };
        for (state, changed, netns, veth, dead) in [
            (AllocationState::Active, 900, false, false, true),
            (AllocationState::Active, 941, false, false, false),
            (AllocationState::Active, 900, true, false, false),
            (AllocationState::Active, 900, false, true, false),
            (AllocationState::Active, 2_000, false, false, false),
            (AllocationState::Deleting, 900, true, false, true),
            (AllocationState::Deleting, 900, false, true, false),
            (AllocationState::Deleting, 950, false, false, false),
        ] {
            let evidence = Evidence { netns, veth };
            assert_eq!(
                is_dead(&record(state, changed), evidence, now),
                dead,
                "{state:?} {changed} {evidence:?}"
            );
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_not_the_namespace() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let found = file.as_file().metadata().unwrap();
        let netns = Netns { path: file.path().into(), dev: found.dev(), ino: found.ino() };
        assert!(netns_exists(&netns));
        assert!(!netns_exists(&Netns { ino: netns.ino + 1, ..netns }));
        assert!(!netns_exists(&Netns { path: "/nonexistent".into(), dev: 1, ino: 1 }));
    }

    #[test]
    fn interfaces_are_looked_up_by_name() {
        assert!(interface_exists("lo"));
        assert!(!interface_exists("cw-no-such-if"));
    }
}
