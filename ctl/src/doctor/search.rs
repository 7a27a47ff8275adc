//! The search for the largest packet that passes, and for the place where larger ones end. Pure: what a probe meets is
//! behind [`Path`].

use std::net::IpAddr;

use serde::Serialize;

use crate::Error;

/// How far above what is expected the search looks.
const ABOVE: u16 = 8;
/// How many hops are looked at.
const HOPS: u8 = 30;

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It arrived.
    Arrived,
    /// Its sender's own device takes no more than this, in bytes.
    TooBigHere(u32),
    /// A hop said that the next link takes no more than this, in bytes (0: did not say).
    TooBig(Option<IpAddr>, u32),
    /// A hop said that its TTL was over.
    Expired(Option<IpAddr>),
    /// A hop said that there is no way.
    Unreachable(Option<IpAddr>),
    /// Nothing was heard of it, however often it was sent.
    Silent,
}

/// One direction of a path.
pub trait Path {
    /// Sends a probe of `size` bytes, IP header included; `ttl` 0: as usual. Repeats it where nothing is heard.
    ///
    /// # Errors
    /// The path as such does not work any more.
    fn probe(&mut self, size: u16, ttl: u8) -> Result<Outcome, Error>;
}

/// What keeps larger packets from passing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Limit {
    /// The sender's own device.
    Device {
        /// Its MTU, in bytes.
        mtu: u32,
    },
    /// A hop that says so, so that senders can adapt.
    Icmp {
        /// Who.
        hop: Option<IpAddr>,
        /// The MTU it names, in bytes; 0: none.
        mtu: u32,
    },
    /// Nobody says so: large transfers hang.
    BlackHole {
        /// The last hop that answers a packet of that size.
        after: Option<IpAddr>,
        /// The next one, which answers small packets only.
        before: Option<IpAddr>,
    },
    /// A hop that knows no way, for large packets.
    Unreachable {
        /// Who.
        hop: Option<IpAddr>,
    },
}

/// What was found in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The largest size that arrived, in bytes; `None`: not even the smallest.
    pub largest: Option<u16>,
    /// What the next larger one met; `None` where all that was tried arrived.
    pub limit: Option<Limit>,
}

/// Finds the largest size that passes. `expected` is what should, `floor` what every path takes.
///
/// # Errors
/// What [`Path::probe`] says.
pub fn search(path: &mut impl Path, expected: u16, floor: u16) -> Result<Finding, Error> {
    let ceiling = expected.saturating_add(ABOVE);
    // The sizes that tell most come first: what is expected, one more, and the MTU that a hop names.
    let mut guesses = vec![expected.saturating_add(1), expected];
    let (mut good, mut bad) = (None, None);
    loop {
        let (low, high) =
            (good.map_or(floor, |size: u16| size + 1), bad.map_or(ceiling, |(size, _)| size - 1));
        if low > high {
            break;
        }
        let guess = loop {
            match guesses.pop() {
                Some(guess) if (low..=high).contains(&guess) => break guess,
                Some(_) => {}
                None => break low + (high - low) / 2,
            }
        };
        match path.probe(guess, 0)? {
            Outcome::Arrived => good = Some(guess),
            outcome => {
                if let Outcome::TooBig(_, mtu) | Outcome::TooBigHere(mtu) = outcome
                    && let Ok(mtu) = u16::try_from(mtu)
                {
                    guesses.extend([mtu.saturating_add(1), mtu]);
                }
                bad = Some((guess, outcome));
            }
        }
    }
    let limit = match bad {
        None => None,
        Some((_, Outcome::Arrived)) => None,
        Some((_, Outcome::TooBigHere(mtu))) => Some(Limit::Device { mtu }),
        Some((_, Outcome::TooBig(hop, mtu))) => Some(Limit::Icmp { hop, mtu }),
        Some((_, Outcome::Unreachable(hop))) => Some(Limit::Unreachable { hop }),
        Some((size, Outcome::Silent | Outcome::Expired(_))) => Some(hole(path, size, floor)?),
    };
    Ok(Finding { largest: good, limit })
}

/// Follows a size that does not arrive from hop to hop.
///
/// # Errors
/// What [`Path::probe`] says.
pub fn hole(path: &mut impl Path, size: u16, small: u16) -> Result<Limit, Error> {
    let mut after = None;
    for ttl in 1..=HOPS {
        match path.probe(size, ttl)? {
            Outcome::Expired(hop) => after = hop,
            Outcome::TooBig(hop, mtu) => return Ok(Limit::Icmp { hop, mtu }),
            Outcome::TooBigHere(mtu) => return Ok(Limit::Device { mtu }),
            Outcome::Unreachable(hop) => return Ok(Limit::Unreachable { hop }),
            Outcome::Arrived => break,
            Outcome::Silent => {
                let before = match path.probe(small, ttl)? {
                    Outcome::Expired(hop) => hop,
                    _ => None,
                };
                return Ok(Limit::BlackHole { after, before });
            }
        }
    }
    Ok(Limit::BlackHole { after, before: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Links of these MTUs, the first being the sender's own, with a router before each further one.
    struct Line {
        mtus: Vec<u16>,
        /// Which routers, counted from 1, say that a packet is too big.
        silent: Vec<usize>,
        probes: usize,
    }

    fn router(n: usize) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, n as u8]))
    }

    impl Path for Line {
        fn probe(&mut self, size: u16, ttl: u8) -> Result<Outcome, Error> {
            self.probes += 1;
            if size > self.mtus[0] {
                return Ok(Outcome::TooBigHere(self.mtus[0].into()));
            }
            for (n, mtu) in self.mtus.iter().enumerate().skip(1) {
                if usize::from(ttl) == n {
                    return Ok(Outcome::Expired(router(n)));
                }
                if size > *mtu {
                    let silent = self.silent.contains(&n);
                    return Ok(if silent {
                        Outcome::Silent
                    } else {
                        Outcome::TooBig(router(n), (*mtu).into())
                    });
                }
            }
            Ok(Outcome::Arrived)
        }
    }

    fn found(mtus: &[u16], silent: &[usize], expected: u16) -> (Option<u16>, Option<Limit>, usize) {
        let mut line = Line { mtus: mtus.to_vec(), silent: silent.to_vec(), probes: 0 };
        let Finding { largest, limit } = search(&mut line, expected, 576).unwrap();
        (largest, limit, line.probes)
    }

    #[test]
    fn a_path_as_expected_takes_two_probes() {
        assert_eq!(found(&[1500, 1500], &[], 1500), (Some(1500), Some(Limit::Device { mtu: 1500 }), 2));
    }

    #[test]
    fn a_path_that_takes_more_is_not_searched_far() {
        let (largest, limit, _) = found(&[9000, 9000], &[], 1500);
        assert_eq!((largest, limit), (Some(1508), None));
    }

    #[test]
    fn a_hop_that_names_its_mtu_is_believed_after_a_look() {
        let icmp = Some(Limit::Icmp { hop: router(1), mtu: 1400 });
        assert_eq!(found(&[1500, 1400, 1500], &[], 1500), (Some(1400), icmp, 3));
        let icmp = Some(Limit::Icmp { hop: router(2), mtu: 1300 });
        assert_eq!(found(&[1500, 1400, 1300], &[], 1500), (Some(1300), icmp, 4));
    }

    #[test]
    fn silence_is_followed_to_the_hop_where_it_begins() {
        for mtu in [576, 577, 1000, 1399, 1499] {
            let hole = Some(Limit::BlackHole { after: router(2), before: router(3) });
            let (largest, limit, probes) = found(&[1500, 1500, mtu, 1500], &[2], 1500);
            assert_eq!((largest, limit), (Some(mtu), hole), "{mtu}");
            assert!(probes < 20, "{probes} probes for {mtu}");
        }
        let first = Some(Limit::BlackHole { after: router(1), before: None });
        assert_eq!(found(&[1500, 1400], &[1], 1500).1, first);
    }

    #[test]
    fn a_hop_that_speaks_before_one_that_does_not() {
        let hole = Some(Limit::BlackHole { after: router(2), before: None });
        let (largest, limit, _) = found(&[1500, 1400, 1300], &[2], 1500);
        assert_eq!((largest, limit), (Some(1300), hole));
    }

    #[test]
    fn where_nothing_passes_that_is_said() {
        let (largest, limit, _) = found(&[1500, 500], &[1], 1500);
        assert_eq!(largest, None);
        assert_eq!(limit, Some(Limit::BlackHole { after: router(1), before: None }));
    }
}
