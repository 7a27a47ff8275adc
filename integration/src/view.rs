//! What the daemons of a lab say of themselves: ours through `causeway`, routers through their own tools, the kernel through `ip`.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use causeway_api::control::{FibRoute, Ipam, NodeInfo, Peer, Route, SessionState};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::image::Family;
use crate::lab::Lab;

impl Lab {
    /// `causeway ARGS -o json` on a node.
    ///
    /// # Errors
    /// Where the command fails or answers something else.
    pub fn causeway<T: DeserializeOwned>(&self, node: &str, args: &[&str]) -> Result<T> {
        let argv: Vec<&str> =
            ["causeway"].into_iter().chain(args.iter().copied()).chain(["-o", "json"]).collect();
        let text = self.text(node, &argv)?;
        serde_json::from_str(&text).with_context(|| format!("in {node}: {argv:?} answered {text}"))
    }

    /// `causeway show peers` of a node.
    ///
    /// # Errors
    /// See [`Lab::causeway`].
    pub fn peers(&self, node: &str) -> Result<Vec<Peer>> {
        self.causeway(node, &["show", "peers"])
    }

    /// One row of `causeway show peers`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn peer(&self, node: &str, address: &str) -> Result<Peer> {
        let found = self.peers(node)?.into_iter().find(|peer| peer.peer == address);
        found.with_context(|| format!("{node} has no peer {address}"))
    }

    /// `causeway show routes` of a node: `best`, `learned` or `advertised`.
    ///
    /// # Errors
    /// See [`Lab::causeway`].
    pub fn routes(&self, node: &str, direction: &str) -> Result<Vec<Route>> {
        self.causeway(node, &["show", "routes", direction])
    }

    /// `causeway show fib` of a node.
    ///
    /// # Errors
    /// See [`Lab::causeway`].
    pub fn fib(&self, node: &str) -> Result<Vec<FibRoute>> {
        self.causeway(node, &["show", "fib"])
    }

    /// `causeway show ipam` of a node.
    ///
    /// # Errors
    /// See [`Lab::causeway`].
    pub fn ipam(&self, node: &str) -> Result<Ipam> {
        self.causeway(node, &["show", "ipam"])
    }

    /// `causeway show node` of a node.
    ///
    /// # Errors
    /// See [`Lab::causeway`].
    pub fn node_info(&self, node: &str) -> Result<NodeInfo> {
        self.causeway(node, &["show", "node"])
    }

    /// Short names of the nodes that run Causeway, in order.
    #[must_use]
    pub fn causeway_nodes(&self) -> Vec<String> {
        self.nodes_of(Family::CausewayNode)
    }

    /// Short names of the nodes of a family, in order.
    #[must_use]
    pub fn nodes_of(&self, family: Family) -> Vec<String> {
        let state = self.state();
        state.nodes.iter().filter(|(_, node)| node.family == family).map(|(name, _)| name.clone()).collect()
    }

    /// Fails unless every session of a node is Established, and it has at least one.
    ///
    /// # Errors
    /// Names the first session that is not, and why it last ended.
    pub fn all_established(&self, node: &str) -> Result<()> {
        self.all_but(node, "")
    }

    /// As [`Lab::all_established`] but for one peer that has other plans.
    ///
    /// # Errors
    /// See [`Lab::all_established`].
    pub fn all_but(&self, node: &str, except: &str) -> Result<()> {
        let mut peers = self.peers(node)?;
        peers.retain(|peer| peer.peer != except);
        ensure!(!peers.is_empty(), "{node} has no peers");
        for peer in peers {
            let why = peer.last_error.as_deref().unwrap_or("no error");
            ensure!(
                peer.state == SessionState::Established,
                "{node}: session with {} is {}: {why}",
                peer.peer,
                peer.state
            );
        }
        Ok(())
    }

    /// Fails unless every session of every Causeway node is Established and every node has every other node's blocks installed.
    ///
    /// # Errors
    /// Names what is missing first.
    pub fn fabric_is_complete(&self) -> Result<()> {
        let nodes = self.causeway_nodes();
        let mut blocks = Vec::new();
        for node in &nodes {
            self.all_established(node)?;
            blocks.extend(self.node_info(node)?.pod_cidrs.into_iter().map(|prefix| (node, prefix)));
        }
        for node in &nodes {
            let rows = self.routes(node, "best")?;
            for (owner, prefix) in blocks.iter().filter(|(owner, _)| *owner != node) {
                let row = rows.iter().find(|row| row.prefix == *prefix);
                let row = row.with_context(|| format!("{node} has no route to {prefix} of {owner}"))?;
                ensure!(row.fib == "installed", "{node}: {prefix} of {owner} is {}", row.fib);
            }
        }
        Ok(())
    }

    /// The kernel's route to exactly this prefix in the main table; null where it has none.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn kernel_route(&self, place: &str, prefix: &str) -> Result<Value> {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let routes = self.json(place, &["ip", "-j", "-d", family, "route", "show", "exact", prefix])?;
        Ok(routes.get(0).cloned().unwrap_or(Value::Null))
    }

    /// All of the kernel's routes of ours, both families.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn kernel_routes(&self, place: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for family in ["-4", "-6"] {
            let routes = self.json(place, &["ip", "-j", "-d", family, "route", "show", "proto", "179"])?;
            all.extend(routes.as_array().cloned().unwrap_or_default());
        }
        Ok(all)
    }

    /// Gateways of a kernel route, sorted: one, or those of a multipath route; none for a route without.
    #[must_use]
    pub fn gateways(route: &Value) -> Vec<IpAddr> {
        let single = std::slice::from_ref(route);
        let hops = route["nexthops"].as_array().map_or(single, Vec::as_slice);
        let mut found: Vec<IpAddr> = hops
            .iter()
            .filter_map(|hop| hop["gateway"].as_str().or_else(|| hop["via"]["host"].as_str()))
            .filter_map(|text| text.parse().ok())
            .collect();
        found.sort();
        found
    }
}
