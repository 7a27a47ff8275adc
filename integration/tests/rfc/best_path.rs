//! The decision process, step by step, as a third peer sees it. RFC 4271 §9.1.2, RFC 4456 §9.

use anyhow::Result;

use crate::octets::*;
use crate::peer::{Peer, established, open_of};
use crate::runner::{Case, Site, case};
use crate::speaker::{AS, Config};

const PREFIX: &str = "198.51.100.0/24";

/// A path one of the two rivals announces.
#[derive(Clone)]
struct Rival {
    asn: u32,
    /// The last octet of its BGP identifier.
    id: u8,
    attributes: Vec<Vec<u8>>,
}

fn external(asn: u32, path: &[u32]) -> Rival {
    let path: Vec<u32> = std::iter::once(asn).chain(path.iter().copied()).collect();
    Rival { asn, id: 50, attributes: vec![origin(0), as_path(&path)] }
}

fn internal(path: &[u32]) -> Rival {
    Rival { asn: AS, id: 50, attributes: vec![origin(0), as_path(path), local_pref(100)] }
}

impl Rival {
    fn with(mut self, attribute: Vec<u8>) -> Self {
        self.attributes.retain(|a| a[1] != attribute[1]);
        self.attributes.push(attribute);
        self
    }

    fn id(mut self, id: u8) -> Self {
        self.id = id;
        self
    }

    fn start(&self, site: &Site, host: u8) -> Result<Peer> {
        let mut peer = Peer::connect(site, host)?;
        let mut open = open_of(site, host, self.asn);
        open.router_id = [192, 0, 2, self.id].into();
        peer.establish(&open)?;
        let attributes =
            [self.attributes.as_slice(), &[next_hop(site.v4(host)), communities(&[host.into()])]].concat();
        peer.send(&update(&[], &attributes, &nlri(PREFIX)))?;
        Ok(peer)
    }
}

/// The first must win over the second, whichever comes first.
fn wins(name: &str, winner: Rival, loser: Rival) -> Vec<Case> {
    [true, false]
        .into_iter()
        .map(|winner_first| {
            let (winner, loser) = (winner.clone(), loser.clone());
            let order = if winner_first { "came first" } else { "came last" };
            case(format!("RFC 4271 §9.1.2.2: {name}; it {order}"), move |site| {
                let config = Config::new().peer(2, winner.asn).peer(3, loser.asn).peer(4, 65004);
                let _speaker = config.start(site)?;
                let mut watcher = established(site, 4, 65004)?;
                // The host number tells them apart: it stands in a community.
                let (_first, _second);
                if winner_first {
                    _first = winner.start(site, 2)?;
                    watcher.route(PREFIX)?;
                    _second = loser.start(site, 3)?;
                } else {
                    _first = loser.start(site, 3)?;
                    watcher.route(PREFIX)?;
                    _second = winner.start(site, 2)?;
                }
                let is_winner = |w: &Peer| {
                    w.routes
                        .get(&PREFIX.parse().unwrap())
                        .is_some_and(|a| a.communities.iter().any(|c| c.0 == 2))
                };
                watcher.until("the winner", is_winner)?;
                watcher.listen_for(std::time::Duration::from_millis(400))?;
                anyhow::ensure!(is_winner(&watcher), "it lost again: {:?}", watcher.routes);
                Ok(())
            })
        })
        .collect()
}

pub fn cases() -> Vec<Case> {
    let set = attribute(0x40, 2, &[2, 1, 0, 0, 0xfd, 0xea, 1, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
    let mut cases = Vec::new();
    cases.extend(wins(
        "the higher LOCAL_PREF, even of a longer path",
        internal(&[1, 2, 3]).with(local_pref(200)),
        internal(&[1]),
    ));
    cases.extend(wins("a: the shorter path", external(65002, &[]), external(65003, &[1])));
    cases.extend(wins("a: a set counts one", external(65002, &[]).with(set), external(65003, &[1, 2])));
    cases.extend(wins("a: an empty path is the shortest", internal(&[]), internal(&[1])));
    cases.extend(wins("b: IGP before EGP", external(65002, &[]), external(65003, &[]).with(origin(1))));
    cases.extend(wins(
        "b: EGP before INCOMPLETE",
        external(65002, &[]).with(origin(1)),
        external(65003, &[]).with(origin(2)),
    ));
    cases.extend(wins(
        "a before b: the shorter path of a worse ORIGIN",
        external(65002, &[]).with(origin(2)),
        external(65003, &[1]),
    ));
    cases.extend(wins(
        "c: the lower MED of one neighbouring AS",
        external(65002, &[7]).with(med(10)).id(60),
        external(65002, &[8]).with(med(20)).id(40),
    ));
    cases.extend(wins(
        "c: no MED is MED 0",
        external(65002, &[7]).id(60),
        external(65002, &[8]).with(med(5)).id(40),
    ));
    cases.extend(wins(
        "c: MEDs of different AS are not compared",
        external(65002, &[]).with(med(50)).id(40),
        external(65003, &[]).with(med(1)).id(60),
    ));
    cases.extend(wins("d: external before internal", external(65002, &[]), internal(&[65009])));
    cases.extend(wins(
        "d before f: external of a higher identifier",
        external(65002, &[]).id(90),
        internal(&[65009]).id(10),
    ));
    cases.extend(wins("f: the lower identifier", external(65002, &[]).id(40), external(65003, &[]).id(60)));
    cases.extend(wins(
        "f: the lower identifier, internal",
        internal(&[65009]).id(40),
        internal(&[65008]).id(60),
    ));
    cases.extend(wins("g: the lower peer address", external(65002, &[]).id(50), external(65003, &[]).id(50)));
    cases.extend(wins(
        "RFC 4456 §9: ORIGINATOR_ID counts for the identifier",
        internal(&[65009]).with(attribute(0x80, 9, &[1, 1, 1, 1])).id(60),
        internal(&[65008]).id(40),
    ));
    cases.extend(wins(
        "RFC 4456 §9: the shorter CLUSTER_LIST",
        internal(&[65009])
            .with(attribute(0x80, 9, &[9, 9, 9, 9]))
            .with(attribute(0x80, 10, &[8, 8, 8, 8]))
            .id(60),
        internal(&[65008])
            .with(attribute(0x80, 9, &[9, 9, 9, 9]))
            .with(attribute(0x80, 10, &[8, 8, 8, 8, 7, 7, 7, 7]))
            .id(40),
    ));
    for order in [[2u8, 3, 4], [2, 4, 3], [3, 2, 4], [3, 4, 2], [4, 2, 3], [4, 3, 2]] {
        cases.push(case(
            format!("RFC 4271 §9.1.2.2 c: MED within an AS first, then identifiers; order {order:?}"),
            move |site| {
                // 2 would win by its identifier, but 3 of the same AS has the lower MED; of 3 and 4 the identifier decides.
                let rivals = [
                    external(65002, &[7]).with(med(20)).id(10),
                    external(65002, &[8]).with(med(10)).id(90),
                    external(65003, &[9]).id(50),
                ];
                let config = Config::new().peer(2, 65002).peer(3, 65002).peer(4, 65003).peer(5, 65005);
                let _speaker = config.start(site)?;
                let mut watcher = established(site, 5, 65005)?;
                let mut peers = Vec::new();
                for host in order {
                    peers.push(rivals[usize::from(host) - 2].start(site, host)?);
                    watcher.listen_for(std::time::Duration::from_millis(200))?;
                }
                let from_4 = |w: &Peer| {
                    w.routes
                        .get(&PREFIX.parse().unwrap())
                        .is_some_and(|a| a.communities.iter().any(|c| c.0 == 4))
                };
                watcher.until("the path of 4", from_4)
            },
        ));
    }
    cases
}
