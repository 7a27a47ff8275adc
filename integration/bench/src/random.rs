//! Random changes by peers that come and go; in the end every table must be what a naive decision over all that was sent gives.
//! Not pure but for the decision (RFC 4271 §9.1.2, without MED, which is not sent, and with equal ways to all next hops).

use std::cmp::Reverse;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;

use crate::addresses::{self, Peer};
use crate::latency::FIRST_CHANGE;
use crate::measure::Run;
use crate::measured::Outcome;
use crate::scenario::Random;
use crate::session::Stage;
use crate::wire::{self, Attributes};
use crate::workload::{LOCAL_PREF, Want};

/// Changes between two looks at what arrives.
const AT_ONCE: usize = 16;
/// How long everybody may take to have come back.
const RETURN: Duration = Duration::from_secs(30);

/// What each peer announces at present: by prefix the number of the change, if any.
struct Model {
    held: Vec<Vec<Option<usize>>>,
    /// How often the session was up when this was announced; another count means that all is gone.
    times_up: Vec<usize>,
}

/// Changes, lets all come back, and compares.
///
/// # Errors
/// Where sessions do not come up, or the daemon breaks.
pub fn run(run: &mut Run, load: Random, seed: u64) -> Result<Outcome> {
    let mut rng = Rng::with_seed(seed);
    let peers = run.workload.peers.len();
    run.bring_up()?;
    run.fleet.reconnect = true;
    run.fleet.tables.expect(vec![Want::default(); load.prefixes]);
    let mut model = Model { held: vec![vec![None; load.prefixes]; peers], times_up: vec![0; peers] };
    run.start_clock()?;
    let mut left = 0;
    for change in 0..load.changes {
        let peer = rng.usize(..peers);
        model.refresh(run, peer);
        match (run.fleet.sessions[peer].stage, rng.usize(..100)) {
            (Stage::Established, 0) => {
                run.fleet.disconnect(peer)?;
                left += 1;
            }
            (Stage::Established, roll) => {
                let prefix = rng.usize(..load.prefixes);
                let message = match roll < 25 && model.held[peer][prefix].is_some() {
                    true => {
                        model.held[peer][prefix] = None;
                        wire::withdraw(std::iter::once(addresses::network(prefix)))
                    }
                    false => {
                        model.held[peer][prefix] = Some(run.changes.len());
                        announce(run, &mut rng, peer, prefix)
                    }
                };
                run.fleet.send(peer, Rc::from(message))?;
            }
            (Stage::Idle, roll) if roll < 50 && run.fleet.sessions[peer].retry_at.is_none() => {
                run.fleet.connect(peer)?;
            }
            _ => {}
        }
        if change.is_multiple_of(AT_ONCE) {
            run.fleet.step(Duration::ZERO)?;
        }
    }
    for peer in 0..peers {
        let session = &run.fleet.sessions[peer];
        if session.stage == Stage::Idle && session.retry_at.is_none() {
            run.fleet.connect(peer)?;
        }
    }
    let back = run.fleet.until(Instant::now() + RETURN, |fleet| fleet.established == fleet.sessions.len())?;
    if !back {
        run.stop_clock(None)?;
        return run.verdict(Some(format!("{} of {peers} sessions came back", run.fleet.established)));
    }
    (0..peers).for_each(|peer| model.refresh(run, peer));
    run.fleet.tables.expect(model.wanted(run, load.prefixes));
    let complete = run.fleet.until(run.deadline, |fleet| fleet.tables.completed().is_some())?;
    run.stop_clock(run.fleet.tables.completed())?;
    run.result().more.insert("sessions that left".to_owned(), f64::from(left));
    let progress = run.fleet.tables.progress();
    run.verdict((!complete).then_some(progress))
}

/// Makes a path up, notes it as a change, and encodes it.
fn announce(run: &mut Run, rng: &mut Rng, peer: usize, prefix: usize) -> Vec<u8> {
    let own = run.workload.peers[peer];
    let tag = FIRST_CHANGE + run.changes.len() as u32;
    let length = rng.usize(0..3);
    let outside = own.is_external();
    let as_path: Vec<u32> = outside
        .then_some(own.asn)
        .into_iter()
        .chain((0..length).map(|_| rng.u32(1000..20_000)))
        .chain([tag])
        .collect();
    let attributes = Attributes {
        origin: rng.u8(0..3),
        as_path,
        next_hop: own.address,
        med: None,
        local_pref: (!outside).then(|| rng.u32(99..102)),
        originator: None,
        clusters: Vec::new(),
        others: Vec::new(),
    };
    let message = wire::announce(&wire::attributes(&attributes), std::iter::once(addresses::network(prefix)));
    run.changes.push((peer, attributes));
    message
}

impl Model {
    /// What a session that broke had announced is gone.
    fn refresh(&mut self, run: &Run, peer: usize) {
        let session = &run.fleet.sessions[peer];
        if session.stage != Stage::Established || session.times_up != self.times_up[peer] {
            self.held[peer].fill(None);
            self.times_up[peer] = session.times_up;
        }
    }

    fn wanted(&self, run: &Run, prefixes: usize) -> Vec<Want> {
        let best = |prefix: usize| {
            let candidates = self.held.iter().filter_map(|held| held[prefix]);
            let best = candidates.min_by_key(|change| {
                let (peer, attributes) = &run.changes[*change];
                rank(&run.workload.peers[*peer], attributes)
            });
            best.map_or(Want::default(), |change| Want {
                tag: FIRST_CHANGE + change as u32,
                source: run.changes[change].0 as u32,
            })
        };
        (0..prefixes).map(best).collect()
    }
}

/// The less, the better.
fn rank(source: &Peer, of: &Attributes) -> impl Ord + use<> {
    let preferred = of.local_pref.unwrap_or(LOCAL_PREF);
    (Reverse(preferred), of.as_path.len(), of.origin, !source.is_external(), source.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::Kind;

    #[test]
    fn the_steps_come_in_the_order_of_rfc4271_9_1_2_2() {
        let (inside, outside) = (Peer::new(Kind::Ibgp, 0), Peer::new(Kind::Ebgp, 0));
        let path = |local_pref: Option<u32>, length: usize, origin: u8| Attributes {
            origin,
            as_path: vec![1; length],
            next_hop: inside.address,
            med: None,
            local_pref,
            originator: None,
            clusters: Vec::new(),
            others: Vec::new(),
        };
        let worst_first = [
            (inside, path(Some(99), 1, 0)),
            (outside, path(None, 3, 0)),
            (inside, path(Some(100), 2, 2)),
            (Peer::new(Kind::Ibgp, 1), path(Some(100), 2, 1)),
            (inside, path(Some(100), 2, 1)),
            (outside, path(None, 2, 1)),
            (inside, path(Some(101), 4, 2)),
        ];
        assert!(
            worst_first.windows(2).all(|pair| rank(&pair[0].0, &pair[0].1) > rank(&pair[1].0, &pair[1].1))
        );
    }
}
