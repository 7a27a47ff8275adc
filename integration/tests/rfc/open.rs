//! The OPEN message, as it is sent and as it is judged. RFC 4271 §4.2 and §6.2, RFC 5492, RFC 6286, RFC 6793, RFC 7607,
//! RFC 9072.

use anyhow::{Result, ensure};
use causeway_bgp_wire::{Asn, Capability, Family, FamilySet, Open};

use crate::octets::{self, keepalive, message};
use crate::peer::{Peer, SOON, open_of};
use crate::runner::{Case, Site, case};
use crate::speaker::{AS, Config};

fn rejected(site: &Site, asn: u32, octets: &[u8], subcode: u8, data: Option<&[u8]>) -> Result<()> {
    let _speaker = Config::new().peer(2, asn).start(site)?;
    let mut peer = Peer::connect(site, 2)?;
    peer.send(octets)?;
    let found = peer.expect_notification(2, subcode)?;
    if let Some(data) = data {
        ensure!(found.data == data, "data {data:?} was due, not {:?}", found.data);
    }
    Ok(())
}

/// A session that comes up with these optional parameters; what the speaker said.
fn accepted(site: &Site, asn: u32, hold_time: u16, id: [u8; 4], parameters: &[u8]) -> Result<Open> {
    let _speaker = Config::new().peer(2, asn).start(site)?;
    let mut peer = Peer::connect(site, 2)?;
    let my_as = u16::try_from(asn).unwrap_or(23456);
    peer.send(&octets::open(4, my_as, hold_time, id, parameters))?;
    let open = peer.agree(parameters.windows(2).any(|pair| pair == [65, 4]))?;
    peer.until("the end of its first sending", |peer| !peer.end_of_rib.is_empty() || peer.updates > 0)?;
    Ok(open)
}

/// One optional parameter with these capabilities.
fn capabilities(octets: &[u8]) -> Vec<u8> {
    let mut parameter = vec![2, octets.len() as u8];
    parameter.extend_from_slice(octets);
    parameter
}

const ID: [u8; 4] = [192, 0, 2, 2];

pub fn cases() -> Vec<Case> {
    let mut cases = what_is_sent();
    cases.extend(what_is_refused());
    cases.extend(what_is_accepted());
    cases
}

fn what_is_sent() -> Vec<Case> {
    fn look(site: &Site, config: Config, check: impl Fn(&Open) -> Result<()>) -> Result<()> {
        let _speaker = config.peer(2, 65002).start(site)?;
        let mut peer = Peer::connect(site, 2)?;
        check(&peer.expect_open()?)
    }
    vec![
        case("RFC 4271 §4.2: version, AS, hold time and identifier of the OPEN", |site| {
            let id = site.v4(1);
            look(site, Config::new(), move |open| {
                ensure!(open.version == 4 && u32::from(open.my_as) == AS, "{open:?}");
                ensure!(open.hold_time == 90 && open.router_id == id, "{open:?}");
                Ok(())
            })
        }),
        case("RFC 4271 §4.2: the configured hold time is proposed", |site| {
            look(site, Config::new().global("holdTime: 9s, keepaliveTime: 3s"), |open| {
                ensure!(open.hold_time == 9, "{}", open.hold_time);
                Ok(())
            })
        }),
        case("RFC 4760 §8: both families are announced", |site| {
            look(site, Config::new(), |open| {
                ensure!(open.families() == FamilySet::ALL, "{:?}", open.capabilities);
                Ok(())
            })
        }),
        case("RFC 2918 §2: Route Refresh is announced", |site| {
            look(site, Config::new(), |open| {
                ensure!(open.route_refresh(), "{:?}", open.capabilities);
                Ok(())
            })
        }),
        case("RFC 6793 §3: the four-octet AS number is announced", |site| {
            look(site, Config::new(), |open| {
                ensure!(open.four_octet_as() == Some(Asn(AS)), "{:?}", open.capabilities);
                Ok(())
            })
        }),
        case("RFC 6793 §9: AS_TRANS in My Autonomous System for a four-octet AS", |site| {
            look(site, Config::new().node("asNumber: 4200000001"), |open| {
                ensure!(open.my_as == 23456 && open.asn() == Asn(4_200_000_001), "{open:?}");
                Ok(())
            })
        }),
        case("RFC 4724 §3: Graceful Restart is announced for both families", |site| {
            look(site, Config::new(), |open| {
                let graceful = open.graceful_restart();
                ensure!(
                    graceful.is_some_and(|g| g.restart_time == 120 && g.families.len() == 2),
                    "{graceful:?}"
                );
                Ok(())
            })
        }),
        case("RFC 4724 §4.1: the Restart State bit is clear on a first start", |site| {
            look(site, Config::new(), |open| {
                ensure!(open.graceful_restart().is_some_and(|g| !g.restart_state), "{:?}", open.capabilities);
                Ok(())
            })
        }),
        case("RFC 4760 §8: a session of one family announces that one", |site| {
            let _speaker =
                Config::new().peer_with(2, 65002, "passive: true, families: [ipv6]").start(site)?;
            let open = Peer::connect(site, 2)?.expect_open()?;
            ensure!(open.families() == FamilySet::only(Family::Ipv6Unicast), "{:?}", open.capabilities);
            Ok(())
        }),
    ]
}

fn what_is_refused() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in [0u8, 3, 5] {
        cases.push(case(format!("RFC 4271 §6.2: version {version}, and 4 is named"), move |site| {
            rejected(site, 65002, &octets::open(version, 65002, 90, ID, &[]), 1, Some(&[0, 4]))
        }));
    }
    cases.push(case("RFC 4271 §6.2: another AS than configured", |site| {
        rejected(site, 65002, &octets::open(4, 65009, 90, ID, &[]), 2, None)
    }));
    cases.push(case("RFC 6793 §4.2.1: another AS in the capability than configured", |site| {
        let parameters = capabilities(&[65, 4, 0, 0, 0xfd, 0xf1]);
        rejected(site, 65002, &octets::open(4, 65002, 90, ID, &parameters), 2, None)
    }));
    cases.push(case("RFC 6793 §4.2.1: AS_TRANS without the capability", |site| {
        rejected(site, 4_200_000_002, &octets::open(4, 23456, 90, ID, &[]), 2, None)
    }));
    cases.push(case("RFC 7607 §2: AS 0", |site| {
        rejected(site, 65002, &octets::open(4, 0, 90, ID, &[]), 2, None)
    }));
    cases.push(case("RFC 7607 §2: AS 0 in the capability", |site| {
        let parameters = capabilities(&[65, 4, 0, 0, 0, 0]);
        rejected(site, 65002, &octets::open(4, 65002, 90, ID, &parameters), 2, None)
    }));
    cases.push(case("RFC 6286 §2.2: identifier 0.0.0.0", |site| {
        rejected(site, 65002, &octets::open(4, 65002, 90, [0; 4], &[]), 3, None)
    }));
    cases.push(case("RFC 6286 §2.2: the speaker's own identifier inside its AS", |site| {
        let own = site.v4(1).octets();
        rejected(site, AS, &octets::open(4, AS as u16, 90, own, &[]), 3, None)
    }));
    cases.push(case("RFC 6286 §2.2: the speaker's own identifier from another AS is fine", |site| {
        accepted(site, 65002, 90, site.v4(1).octets(), &[]).map(|_| ())
    }));
    for hold_time in [1u16, 2] {
        cases.push(case(format!("RFC 4271 §6.2: hold time {hold_time}"), move |site| {
            rejected(site, 65002, &octets::open(4, 65002, hold_time, ID, &[]), 6, None)
        }));
    }
    for kind in [1u8, 3, 100, 254] {
        cases.push(case(format!("RFC 4271 §6.2: optional parameter of type {kind}"), move |site| {
            rejected(site, 65002, &octets::open(4, 65002, 90, ID, &[kind, 2, 0, 0]), 4, None)
        }));
    }
    let malformed: [(&str, Vec<u8>); 6] = [
        ("a parameter longer than the field", vec![2, 9, 1, 4]),
        ("half a parameter header", vec![2]),
        ("a capability longer than its parameter", capabilities(&[1, 9, 0, 1, 0, 1])),
        ("half a capability header", capabilities(&[2])),
        ("a multiprotocol capability of 3 octets", capabilities(&[1, 3, 0, 1, 0])),
        ("a four-octet AS capability of 2 octets", capabilities(&[65, 2, 0xfd, 0xea])),
    ];
    for (name, parameters) in malformed {
        cases.push(case(format!("RFC 4271 §6.2: {name}"), move |site| {
            rejected(site, 65002, &octets::open(4, 65002, 90, ID, &parameters), 0, None)
        }));
    }
    cases.push(case("RFC 4271 §6.2: the parameters' length exceeds the message", |site| {
        rejected(site, 65002, &message(octets::OPEN, &[4, 0xfd, 0xea, 0, 90, 1, 1, 1, 1, 8, 2, 0]), 0, None)
    }));
    cases.push(case("RFC 4271 §6.2: the message exceeds the parameters' length", |site| {
        rejected(site, 65002, &message(octets::OPEN, &[4, 0xfd, 0xea, 0, 90, 1, 1, 1, 1, 0, 2, 0]), 0, None)
    }));
    cases
}

fn what_is_accepted() -> Vec<Case> {
    let mut cases = Vec::new();
    let fine: [(&str, Vec<u8>); 10] = [
        ("RFC 4271 §4.2: no optional parameter at all", vec![]),
        ("RFC 5492 §4: an empty capabilities parameter", vec![2, 0]),
        ("RFC 5492 §3: an unknown capability", capabilities(&[200, 3, 1, 2, 3])),
        ("RFC 5492 §4: a capability of zero length that nobody knows", capabilities(&[201, 0])),
        ("RFC 5492 §4: the same capability twice", capabilities(&[1, 4, 0, 1, 0, 1, 1, 4, 0, 1, 0, 1])),
        (
            "RFC 5492 §4: a capability a parameter",
            [capabilities(&[1, 4, 0, 1, 0, 1]), capabilities(&[2, 0])].concat(),
        ),
        (
            "RFC 4760 §8: a family nobody routes beside one that is",
            capabilities(&[1, 4, 0, 25, 0, 70, 1, 4, 0, 1, 0, 1]),
        ),
        (
            "RFC 6793 §3: the four-octet AS capability",
            capabilities(&[65, 4, 0, 0, 0xfd, 0xea, 1, 4, 0, 1, 0, 1]),
        ),
        ("RFC 9072 §2: extended parameters of little length", vec![255, 0, 9, 2, 0, 6, 1, 4, 0, 1, 0, 1]),
        ("RFC 4724 §3: Graceful Restart without families", capabilities(&[64, 2, 0, 120])),
    ];
    for (name, parameters) in fine {
        cases.push(case(name, move |site| accepted(site, 65002, 90, ID, &parameters).map(|_| ())));
    }
    for id in [[0, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
        cases.push(case(
            format!("RFC 6286 §2.1: identifier {id:?} is a number like any other"),
            move |site| accepted(site, 65002, 90, id, &[]).map(|_| ()),
        ));
    }
    for hold_time in [0u16, 3, 65535] {
        cases.push(case(format!("RFC 4271 §4.2: hold time {hold_time}"), move |site| {
            accepted(site, 65002, hold_time, ID, &[]).map(|_| ())
        }));
    }
    cases.push(case("RFC 6793 §4.2.1: a four-octet AS with AS_TRANS in the field", |site| {
        let parameters = capabilities(&[65, 4, 0xfa, 0x56, 0xea, 2, 1, 4, 0, 1, 0, 1]);
        accepted(site, 4_200_000_002, 90, ID, &parameters).map(|_| ())
    }));
    cases.push(case("RFC 9072 §2: parameters beyond 255 octets", |site| {
        let _speaker = Config::new().peer(2, 65002).start(site)?;
        let mut peer = Peer::connect(site, 2)?;
        let mut open = open_of(site, 2, 65002);
        open.capabilities.extend((0..40).map(|i| Capability::Unknown { code: 200, value: vec![i; 10] }));
        peer.establish(&open).map(|_| ())
    }));
    cases.push(case("RFC 4271 §8.2.2: an OPEN is answered with a KEEPALIVE", |site| {
        let _speaker = Config::new().peer(2, 65002).start(site)?;
        let mut peer = Peer::connect(site, 2)?;
        peer.expect_open()?;
        peer.send(&octets::open(4, 65002, 90, ID, &[]))?;
        peer.expect_keepalive(SOON)?;
        peer.send(&keepalive())
    }));
    cases.push(case("RFC 4271 §8.2.2: nothing is advertised before the peer's KEEPALIVE", |site| {
        let _speaker = Config::new().peer(2, 65002).start(site)?;
        let mut peer = Peer::connect(site, 2)?;
        peer.send(&octets::open(4, 65002, 90, ID, &[]))?;
        peer.expect_keepalive(SOON)?;
        peer.listen_for(std::time::Duration::from_millis(700))?;
        ensure!(peer.updates == 0 && peer.end_of_rib.is_empty(), "an UPDATE came in OpenConfirm");
        peer.send(&keepalive())?;
        peer.until("an UPDATE", |peer| peer.updates > 0)
    }));
    cases
}
