//! The host end's name and both Ethernet addresses, derived from container and interface. Pure.
//!
//! Derived, so that DEL finds the pair even when the store is gone.

use causeway_api::pod_store::VETH_PREFIX;
use causeway_kernel::Mac;
use sha2::{Digest, Sha256};

/// What the pair is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The host end: `cw` and twelve hexadecimal digits.
    pub veth: String,
    /// The host end's Ethernet address.
    pub host_mac: Mac,
    /// The pod end's.
    pub pod_mac: Mac,
}

impl Names {
    /// The names for one interface of one container.
    pub fn of(container: &str, interface: &str) -> Self {
        let hash = Sha256::new().chain_update(container).chain_update([0]).chain_update(interface).finalize();
        let veth: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            veth: format!("{VETH_PREFIX}{veth}"),
            host_mac: mac(&hash[6..12]),
            pod_mac: mac(&hash[12..18]),
        }
    }
}

/// Six bytes as a locally administered unicast address.
fn mac(bytes: &[u8]) -> Mac {
    let mut mac = [0; 6];
    mac.copy_from_slice(bytes);
    mac[0] = mac[0] & 0xfc | 0x02;
    Mac(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_differ_by_container_and_interface() {
        let names = Names::of("c1", "eth0");
        assert_eq!(names, Names::of("c1", "eth0"));
        assert_eq!(names.veth.len(), 14);
        assert!(names.veth.starts_with("cw"));
        for mac in [names.host_mac, names.pod_mac] {
            assert_eq!(mac.0[0] & 0x03, 0x02, "{mac}: locally administered, unicast");
        }
        assert_ne!(names.host_mac, names.pod_mac);
        for other in [Names::of("c1", "eth1"), Names::of("c2", "eth0"), Names::of("c1e", "th0")] {
            assert_ne!(names.veth, other.veth);
        }
    }
}
