//! What bgpd may have programmed. Pure.
//!
//! bgpd parses what the network sends and may be wrong or worse; this is the one place that decides which prefixes it
//! can make this node's kernel route elsewhere. The allow-list comes from the documents, never from bgpd, and some
//! prefixes are refused whatever the documents say. Works on the prefix alone.

use std::net::IpAddr;

use causeway_kernel::{Address, Link};
use ipnetwork::IpNetwork;

use crate::config::{Allowed, Config, Match};

/// The guard's inputs that come from the kernel: which subnets are connected, and through which device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connected(Vec<(IpNetwork, String)>);

impl Connected {
    /// Takes the addresses of all devices but `ours`, the tunnels, whose addresses are of own blocks. Link-local subnets
    /// are refused anyway and left out.
    pub fn new(links: &[Link], addresses: &[Address], ours: impl Fn(u32) -> bool) -> Connected {
        let mut subnets: Vec<_> = addresses
            .iter()
            .filter(|address| !is_link_local(&address.network.ip()) && !ours(address.ifindex))
            .map(|address| {
                let device = links.iter().find(|link| link.index == address.ifindex);
                (address.network, device.map_or_else(String::new, |link| link.name.clone()))
            })
            .collect();
        subnets.sort();
        subnets.dedup();
        Connected(subnets)
    }
}

/// Decides about prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    allowed: Vec<Allowed>,
    own_blocks: Vec<IpNetwork>,
    own_addresses: Vec<IpAddr>,
    connected: Connected,
}

impl Guard {
    /// The guard for a configuration and the present addresses.
    pub fn new(config: &Config, connected: Connected) -> Guard {
        Guard {
            allowed: config.allowed.clone(),
            own_blocks: config.own_blocks.clone(),
            own_addresses: config.addresses.iter().map(IpNetwork::ip).collect(),
            connected,
        }
    }

    /// Whether bgpd may route this prefix.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn check(&self, prefix: &IpNetwork) -> Result<(), String> {
        for (special, what) in special_ranges(prefix) {
            if covers(&special, prefix) {
                return Err(format!("refused: inside {special}, {what}"));
            }
        }
        if let Some(block) = self.own_blocks.iter().find(|block| covers(block, prefix)) {
            return Err(format!("refused: inside {block}, a block of this node"));
        }
        if let Some(own) = self.own_addresses.iter().find(|own| covers(&IpNetwork::from(**own), prefix)) {
            return Err(format!("refused: {own} is this node's address"));
        }
        if let Some((subnet, device)) = self.connected.0.iter().find(|(subnet, _)| covers(subnet, prefix)) {
            return Err(match IpNetwork::new(subnet.network(), subnet.prefix()) {
                Ok(subnet) => format!("refused: inside {subnet}, connected on {device}"),
                Err(_) => format!("refused: inside {subnet}, connected on {device}"),
            });
        }
        if self.allowed.iter().any(|allowed| allows(allowed, prefix)) {
            return Ok(());
        }
        if prefix.prefix() == 0 {
            return Err(
                "refused: no import rule accepts the default route with matchOperator Equal".to_owned()
            );
        }
        Err("refused: inside no enabled IPPool, service range or accepting import rule".to_owned())
    }
}

fn special_ranges(prefix: &IpNetwork) -> impl Iterator<Item = (IpNetwork, &'static str)> {
    let v4: &[([u8; 4], u8, &str)] = &[
        ([0, 0, 0, 0], 8, "addresses of no network"),
        ([127, 0, 0, 0], 8, "loopback"),
        ([169, 254, 0, 0], 16, "link-local"),
        ([224, 0, 0, 0], 4, "multicast"),
        ([240, 0, 0, 0], 4, "reserved"),
    ];
    let v6: &[(u128, u8, &str)] = &[
        (0, 128, "unspecified"),
        (1, 128, "loopback"),
        (0xfe80 << 112, 10, "link-local"),
        (0xff00 << 112, 8, "multicast"),
    ];
    let (v4, v6) = if prefix.is_ipv4() { (v4, &v6[..0]) } else { (&v4[..0], v6) };
    let v4 = v4.iter().map(|(base, length, what)| (IpNetwork::new(IpAddr::from(*base), *length), *what));
    let v6 = v6
        .iter()
        .map(|(base, length, what)| (IpNetwork::new(IpAddr::from(base.to_be_bytes()), *length), *what));
    v4.chain(v6).filter_map(|(network, what)| Some((network.ok()?, what)))
}

fn allows(allowed: &Allowed, prefix: &IpNetwork) -> bool {
    if allowed.cidr.is_ipv4() != prefix.is_ipv4() || !(allowed.min..=allowed.max).contains(&prefix.prefix()) {
        return false;
    }
    let equal = allowed.cidr == *prefix;
    if prefix.prefix() == 0 {
        // The default route takes a rule that means it.
        return allowed.by == Match::Equal && equal;
    }
    match allowed.by {
        Match::Equal => equal,
        Match::NotEqual => !equal,
        Match::In => covers(&allowed.cidr, prefix),
        Match::NotIn => !covers(&allowed.cidr, prefix),
    }
}

/// Whether every address of `inner` is one of `outer` (which may have host bits set).
pub fn covers(outer: &IpNetwork, inner: &IpNetwork) -> bool {
    outer.is_ipv4() == inner.is_ipv4() && outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

/// 169.254.0.0/16 or fe80::/10.
pub fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn allowed(cidr: &str, by: Match) -> Allowed {
        let cidr = network(cidr);
        Allowed { cidr, by, min: 0, max: if cidr.is_ipv4() { 32 } else { 128 } }
    }

    fn guard(allowed: Vec<Allowed>) -> Guard {
        let config = Config {
            addresses: vec![network("10.244.200.7/32"), network("2001:db8::11/64")],
            own_blocks: vec![network("10.244.1.0/24"), network("fd00:1::/64")],
            allowed,
            ..Config::empty("a")
        };
        let connected = Connected(vec![
            (network("10.244.50.1/24"), "eth0".into()),
            (network("2001:db8::11/64"), "eth1".into()),
        ]);
        Guard::new(&config, connected)
    }

    fn reason(guard: &Guard, prefix: &str) -> String {
        guard.check(&network(prefix)).unwrap_err()
    }

    #[test]
    fn only_what_the_documents_name_passes() {
        let guard = guard(vec![
            allowed("10.244.0.0/16", Match::In),
            allowed("192.168.7.0/24", Match::Equal),
            Allowed { min: 20, max: 24, ..allowed("172.16.0.0/12", Match::In) },
            allowed("fd00::/16", Match::In),
        ]);
        for prefix in [
            "10.244.2.0/24",
            "10.244.0.0/16",
            "192.168.7.0/24",
            "172.16.4.0/22",
            "fd00:2::/64",
            "10.244.9.9/32",
        ] {
            assert_eq!(guard.check(&network(prefix)), Ok(()), "{prefix}");
        }
        for prefix in
            ["10.0.0.0/8", "10.245.0.0/16", "192.168.7.0/25", "172.16.0.0/12", "172.16.4.0/25", "fd01::/64"]
        {
            assert_eq!(
                reason(&guard, prefix),
                "refused: inside no enabled IPPool, service range or accepting import rule",
                "{prefix}"
            );
        }
    }

    #[test]
    fn some_prefixes_never_pass() {
        let everything = vec![allowed("0.0.0.0/0", Match::In), allowed("::/0", Match::In)];
        let guard = guard(everything);
        for (prefix, why) in [
            ("10.244.1.0/24", "a block of this node"),
            ("10.244.1.128/25", "a block of this node"),
            ("fd00:1::7/128", "a block of this node"),
            ("10.244.50.0/24", "connected on eth0"),
            ("10.244.50.9/32", "connected on eth0"),
            ("2001:db8::/64", "connected on eth1"),
            ("10.244.200.7/32", "is this node's address"),
            ("169.254.1.0/24", "link-local"),
            ("fe80::/64", "link-local"),
            ("127.0.0.0/8", "loopback"),
            ("::1/128", "loopback"),
            ("224.0.0.0/4", "multicast"),
            ("239.1.0.0/16", "multicast"),
            ("ff02::/16", "multicast"),
            ("0.0.0.0/8", "addresses of no network"),
            ("240.0.0.0/8", "reserved"),
        ] {
            assert!(reason(&guard, prefix).ends_with(why), "{prefix}: {}", reason(&guard, prefix));
        }
        // What contains them is another matter: the longer prefix wins in the kernel.
        for prefix in ["10.244.0.0/16", "10.0.0.0/8", "2001:db8::/32", "fd00:1::/48"] {
            assert_eq!(guard.check(&network(prefix)), Ok(()), "{prefix}");
        }
    }

    #[test]
    fn the_default_route_takes_an_equal_rule() {
        let wide = guard(vec![allowed("0.0.0.0/0", Match::In), allowed("10.0.0.0/8", Match::NotEqual)]);
        let why = "refused: no import rule accepts the default route with matchOperator Equal";
        assert_eq!(reason(&wide, "0.0.0.0/0"), why);
        assert_eq!(reason(&wide, "::/0"), why);
        let exact = guard(vec![allowed("0.0.0.0/0", Match::Equal)]);
        assert_eq!(exact.check(&network("0.0.0.0/0")), Ok(()));
        assert_eq!(reason(&exact, "::/0"), why);
        assert!(exact.check(&network("10.0.0.0/8")).is_err());
    }

    #[test]
    fn negative_rules_let_through_the_rest_of_their_family() {
        let guard = guard(vec![allowed("10.0.0.0/8", Match::NotIn)]);
        assert_eq!(guard.check(&network("172.16.0.0/12")), Ok(()));
        assert!(guard.check(&network("10.3.0.0/16")).is_err());
        assert!(guard.check(&network("fd00:2::/64")).is_err());
    }
}
