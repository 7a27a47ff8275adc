//! Node-wide sysctls: `--setup-node` sets them, the daemon only looks.
//!
//! | key | value | why |
//! |---|---|---|
//! | `net/ipv4/ip_forward` | 1 | the node is a router |
//! | `net/ipv6/conf/{all,default}/forwarding` | 1 | the same; links that accept router advertisements (`accept_ra` 1) get 2, or they would stop |
//! | `net/ipv4/ip_forward_use_pmtu` | 1 | what a hop said of its MTU counts for pods' packets as well, in tunnels above all |
//! | `net/ipv4/conf/{default,LINK}/rp_filter` | not strict | with several ways to a source, the answer may come another way; tunnel devices are born with the default |
//! | `net/ipv{4,6}/conf/{all,default,LINK}/ignore_routes_with_linkdown` | 1 | a link without carrier takes no packets |
//! | `net/ipv{4,6}/fib_multipath_hash_policy` | 1 | flows are spread by ports, not only by addresses |
//! | `net/ipv{4,6}/neigh/default/gc_thresh{1,2,3}` | at least 4096, 8192, 16384 | many pods are many neighbours |

use std::fmt;

use causeway_api::control::Condition;
use causeway_kernel::{Error, sysctl};

/// What a key should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Exactly(&'static str),
    AtLeast(u64),
    /// `rp_filter`: the kernel takes the larger of the link's and `all`'s, and 1 is the strict one.
    NotStrict,
    /// `accept_ra`: 2 where it is 1.
    EvenWhenForwarding,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    key: String,
    want: Want,
}

/// A key that is off, or that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Off {
    /// The key, in path form.
    pub key: String,
    /// What it holds (or held).
    pub is: String,
    /// What it should hold (or holds now).
    pub should: String,
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, should be {}", self.key, self.is, self.should)
    }
}

/// The settings for a node with these underlay links, in the order to make them.
fn settings(links: &[String]) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |key: String, want: Want| settings.push(Setting { key, want });
    // Before forwarding, which would stop the kernel listening to router advertisements.
    for link in links {
        add(format!("net/ipv6/conf/{link}/accept_ra"), Want::EvenWhenForwarding);
    }
    add("net/ipv4/ip_forward".to_owned(), Want::Exactly("1"));
    add("net/ipv4/ip_forward_use_pmtu".to_owned(), Want::Exactly("1"));
    for scope in ["all", "default"] {
        add(format!("net/ipv6/conf/{scope}/forwarding"), Want::Exactly("1"));
    }
    for scope in std::iter::once("default").chain(links.iter().map(String::as_str)) {
        add(format!("net/ipv4/conf/{scope}/rp_filter"), Want::NotStrict);
    }
    let scopes = ["all", "default"].into_iter().chain(links.iter().map(String::as_str));
    for scope in scopes {
        for family in ["ipv4", "ipv6"] {
            add(format!("net/{family}/conf/{scope}/ignore_routes_with_linkdown"), Want::Exactly("1"));
        }
    }
    for family in ["ipv4", "ipv6"] {
        add(format!("net/{family}/fib_multipath_hash_policy"), Want::Exactly("1"));
        for (threshold, least) in [("gc_thresh3", 16384), ("gc_thresh2", 8192), ("gc_thresh1", 4096)] {
            add(format!("net/{family}/neigh/default/{threshold}"), Want::AtLeast(least));
        }
    }
    settings
}

/// What is off about a key; `None` where it is right or this kernel (or namespace) does not have it.
fn look(setting: &Setting) -> Result<Option<Off>, Error> {
    let is = match sysctl::read(&setting.key) {
        Ok(is) => is,
        Err(Error::Sysctl { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let should = match setting.want {
        Want::Exactly(value) if is != value => value.to_owned(),
        Want::AtLeast(least) if is.parse::<u64>().is_ok_and(|is| is < least) => least.to_string(),
        Want::EvenWhenForwarding if is == "1" => "2".to_owned(),
        Want::NotStrict => {
            let all = sysctl::read("net/ipv4/conf/all/rp_filter")?;
            if is.as_str().max(all.as_str()) != "1" {
                return Ok(None);
            }
            "2".to_owned()
        }
        _ => return Ok(None),
    };
    Ok(Some(Off { key: setting.key.clone(), is, should }))
}

/// The keys that are off, for these underlay links.
///
/// # Errors
/// A key that cannot be read.
pub fn check(links: &[String]) -> Result<Vec<Off>, Error> {
    settings(links).iter().filter_map(|setting| look(setting).transpose()).collect()
}

/// Sets the keys that are off and returns them. Doing it twice changes nothing more.
///
/// # Errors
/// A key that cannot be read or written; those before it are set.
pub fn set(links: &[String]) -> Result<Vec<Off>, Error> {
    let mut changed = Vec::new();
    for setting in settings(links) {
        if let Some(off) = look(&setting)? {
            sysctl::write(&off.key, &off.should)?;
            changed.push(off);
        }
    }
    Ok(changed)
}

/// The condition `SysctlsSet`.
pub fn condition(links: &[String]) -> Condition {
    match check(links) {
        Ok(off) if off.is_empty() => {
            Condition::new("SysctlsSet", true, "Set", "node-wide sysctls are as they should be")
        }
        Ok(off) => {
            let list: Vec<String> = off.iter().map(ToString::to_string).collect();
            let message = format!("{}; `causeway-fib-sync --setup-node` sets them", list.join(", "));
            Condition::new("SysctlsSet", false, "Off", message)
        }
        Err(error) => Condition::new("SysctlsSet", false, "Unreadable", error.to_string()),
    }
}
