//! The scenarios, by name. Pure.

use anyhow::{Result, bail};

use crate::addresses::{Kind, Peer};
use crate::daemons::Target;
use crate::relay::Rule;
use crate::workload::Workload;

/// What a scenario does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// Feeders, all sessions up first, and one monitor.
    Feed(Feed),
    /// Clients of a reflector, each of which announces and receives.
    Reflect(Reflect),
    /// Sessions that come up at once.
    Establish {
        /// How many.
        sessions: usize,
    },
    /// One client changes prefixes, the others measure.
    Churn(Churn),
    /// One client changes prefixes in rounds, one reads slowly, one not at all.
    Slow(Slow),
    /// Two feeders, and then nothing happens.
    Idle(Idle),
    /// Random changes by clients that come and go.
    Random(Random),
}

/// Feeders and a monitor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Feed {
    /// How many feed.
    pub feeders: usize,
    /// Inside or outside the AS of the daemon. Those outside receive, too.
    pub kind: Kind,
    /// Sets of attributes of each.
    pub sets: usize,
    /// Prefixes a set has.
    pub per_set: usize,
    /// All announce the same prefixes.
    pub shared: bool,
}

/// Clients of a reflector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reflect {
    /// How many.
    pub clients: usize,
    /// Prefixes of each.
    pub each: usize,
    /// They announce as they come up, instead of when all are up.
    pub cold: bool,
}

/// Changes at a rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Churn {
    /// Clients, of which one changes.
    pub clients: usize,
    /// Changes a second.
    pub rate: usize,
    /// For how long, seconds.
    pub seconds: f64,
    /// Prefixes that change in turn.
    pub prefixes: usize,
}

/// Rounds of changes among clients that do not all read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slow {
    /// Clients: the first changes, the last but one reads slowly, the last not at all.
    pub clients: usize,
    /// Prefixes, all of which change in a round.
    pub prefixes: usize,
    /// Rounds, each of which begins when all others have all of the last.
    pub rounds: usize,
}

/// Nothing happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Idle {
    /// Sets of 10 prefixes, the same from two feeders.
    pub sets: usize,
    /// How long it is watched, seconds.
    pub seconds: f64,
}

/// Random changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Random {
    /// Clients of the reflector.
    pub clients: usize,
    /// eBGP peers besides.
    pub outside: usize,
    /// Prefixes they change.
    pub prefixes: usize,
    /// How many changes.
    pub changes: usize,
}

/// A scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Short name.
    pub name: String,
    /// What it is, for tables.
    pub title: String,
    /// What it does.
    pub load: Load,
}

fn feed(name: &str, title: &str, load: Feed) -> Scenario {
    Scenario { name: name.to_owned(), title: title.to_owned(), load: Load::Feed(load) }
}

/// All scenarios, in the order of the tables.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let one = Feed { feeders: 1, kind: Kind::Ebgp, sets: 50_000, per_set: 10, shared: false };
    let ten = Feed { feeders: 10, kind: Kind::Ibgp, sets: 10_000, per_set: 10, shared: true };
    let outside = Feed { kind: Kind::Ebgp, ..ten };
    let mut all = vec![
        feed("A", "one feeder, 500,000 prefixes, 10 to an attribute set → monitor", one),
        feed("A1", "the same, 1 to an attribute set", Feed { sets: 500_000, per_set: 1, ..one }),
        feed("B", "ten iBGP feeders, the same 100,000 prefixes by different paths → monitor", ten),
        feed("B'", "the same with eBGP feeders, which receive too", outside),
        feed("C", "ten iBGP feeders, 1,000,000 distinct prefixes → monitor", Feed { shared: false, ..ten }),
        feed("C'", "the same with eBGP feeders, which receive too", Feed { shared: false, ..outside }),
    ];
    for (name, clients, each) in [("D", 200, 5), ("E", 1000, 1), ("F2000", 2000, 1), ("F4000", 4000, 1)] {
        for cold in [false, true] {
            let when = if cold { "cold" } else { "warm" };
            all.push(Scenario {
                name: format!("{name}-{when}"),
                title: format!("reflector, {clients} clients × {each}, {when}"),
                load: Load::Reflect(Reflect { clients, each, cold }),
            });
        }
    }
    all.push(Scenario {
        name: "S1000".to_owned(),
        title: "1,000 sessions established at once".to_owned(),
        load: Load::Establish { sessions: 1000 },
    });
    for (rate, prefixes) in [(100, 1000), (10_000, 10_000)] {
        all.push(Scenario {
            name: format!("churn-{rate}"),
            title: format!("{rate} changes a second, 200 clients"),
            load: Load::Churn(Churn { clients: 200, rate, seconds: 10.0, prefixes }),
        });
    }
    let one =
        |name: &str, title: &str, load| Scenario { name: name.to_owned(), title: title.to_owned(), load };
    all.push(one(
        "slow",
        "1,000 clients, of which one reads 10 KiB/s and one stops reading; 12 rounds of 1,000 changes",
        Load::Slow(Slow { clients: 1000, prefixes: 1000, rounds: 12 }),
    ));
    all.push(one(
        "idle",
        "10,000 prefixes from two reflectors, then nothing for 30 s",
        Load::Idle(Idle { sets: 1000, seconds: 30.0 }),
    ));
    all.push(one(
        "random",
        "10,000 random changes, 50 clients that come and go",
        Load::Random(Random { clients: 40, outside: 10, prefixes: 500, changes: 10_000 }),
    ));
    all
}

/// The scenarios that these names mean: `E` is `E-warm` and `E-cold`, `all` is all.
///
/// # Errors
/// Where a name means none.
pub fn by_names(names: &[String]) -> Result<Vec<Scenario>> {
    let all = all();
    let mut chosen = Vec::new();
    for name in names {
        let wanted = name.to_lowercase();
        let means = |scenario: &&Scenario| {
            let own = scenario.name.to_lowercase();
            wanted == "all" || own == wanted || own.split_once('-').is_some_and(|(head, _)| head == wanted)
        };
        let found: Vec<Scenario> = all.iter().filter(means).cloned().collect();
        if found.is_empty() {
            let names: Vec<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
            bail!("there is no scenario {name}: {}", names.join(", "));
        }
        chosen.extend(found);
    }
    Ok(chosen)
}

impl Load {
    /// The same, larger or smaller.
    #[must_use]
    pub fn scaled(self, scale: f64) -> Self {
        let of = |number: usize, least: usize| ((number as f64 * scale).round() as usize).max(least);
        match self {
            Load::Feed(feed) => Load::Feed(Feed { sets: of(feed.sets, 1), ..feed }),
            Load::Reflect(reflect) => Load::Reflect(Reflect { clients: of(reflect.clients, 3), ..reflect }),
            Load::Establish { sessions } => Load::Establish { sessions: of(sessions, 3) },
            Load::Churn(churn) => Load::Churn(Churn {
                clients: of(churn.clients, 3),
                prefixes: of(churn.prefixes, 10),
                rate: of(churn.rate, 10),
                ..churn
            }),
            Load::Slow(slow) => Load::Slow(Slow { clients: of(slow.clients, 5), ..slow }),
            Load::Idle(idle) => {
                Load::Idle(Idle { sets: of(idle.sets, 1), seconds: (idle.seconds * scale).max(2.0) })
            }
            Load::Random(random) => Load::Random(Random {
                clients: of(random.clients, 4),
                outside: of(random.outside, 2),
                prefixes: of(random.prefixes, 10),
                changes: of(random.changes, 100),
            }),
        }
    }

    /// Peers, feeds and expectations.
    #[must_use]
    pub fn workload(self) -> Workload {
        let some = |kind: Kind, count: usize| (0..count).map(move |number| Peer::new(kind, number));
        let clients = |count: usize| some(Kind::Ibgp, count).collect();
        let nothing = Workload {
            peers: Vec::new(),
            feeders: 0,
            sets: 0,
            per_set: 0,
            shared: false,
            sentinel: false,
            feeders_receive: false,
        };
        match self {
            Load::Feed(Feed { feeders, kind, sets, per_set, shared }) => {
                let peers = some(kind, feeders).chain(some(Kind::Monitor, 1)).collect();
                // iBGP feeders are no clients here.
                let feeders_receive = kind == Kind::Ebgp;
                Workload { peers, feeders, sets, per_set, shared, sentinel: true, feeders_receive }
            }
            Load::Reflect(Reflect { clients: count, each, .. }) => Workload {
                peers: clients(count),
                feeders: count,
                sets: 1,
                per_set: each,
                feeders_receive: true,
                ..nothing
            },
            Load::Establish { sessions } => Workload { peers: clients(sessions), ..nothing },
            Load::Churn(Churn { clients: count, prefixes, .. })
            | Load::Slow(Slow { clients: count, prefixes, .. }) => {
                Workload { peers: clients(count), feeders: 1, sets: prefixes, per_set: 1, ..nothing }
            }
            Load::Idle(Idle { sets, .. }) => {
                Workload { peers: clients(2), feeders: 2, sets, per_set: 10, shared: true, ..nothing }
            }
            Load::Random(Random { clients: inside, outside, .. }) => Workload {
                peers: some(Kind::Ibgp, inside).chain(some(Kind::Ebgp, outside)).collect(),
                ..nothing
            },
        }
    }

    /// The daemon is a route reflector.
    #[must_use]
    pub fn reflector(self) -> bool {
        !matches!(self, Load::Feed(_) | Load::Idle(_))
    }

    /// Whether it is a task for this daemon. A relay decides nothing, and nothing is to be learned of it at rest. Under random changes
    /// FRR holds paths back from peers that return, and GoBGP calls what came from outside the AS reflected.
    #[must_use]
    pub fn suits(self, target: Target) -> bool {
        match self {
            Load::Idle(_) => target != Target::Relay,
            Load::Random(_) => matches!(target, Target::Causeway | Target::Bird),
            _ => true,
        }
    }

    /// Hold time, where the scenario needs its own, seconds.
    #[must_use]
    pub fn hold_time(self) -> Option<u16> {
        matches!(self, Load::Slow(_)).then_some(30)
    }

    /// Whom a relay copies to.
    #[must_use]
    pub fn rule(self) -> Rule {
        match self {
            Load::Feed(Feed { kind: Kind::Ibgp, .. }) | Load::Idle(_) => Rule::Monitors,
            _ => Rule::Others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_scenarios() {
        let names = |wanted: &[&str]| -> Vec<String> {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            by_names(&wanted).unwrap().into_iter().map(|scenario| scenario.name).collect()
        };
        assert_eq!(names(&["A", "e"]), ["A", "E-warm", "E-cold"]);
        assert_eq!(names(&["b'", "D-warm"]), ["B'", "D-warm"]);
        assert_eq!(names(&["all"]).len(), all().len());
        assert!(by_names(&["Z".to_owned()]).is_err());
    }

    #[test]
    fn the_sizes_are_those_of_the_titles() {
        let size = |name: &str| {
            let workload = by_names(&[name.to_owned()]).unwrap()[0].load.workload();
            (
                workload.peers.len(),
                workload.regular(),
                workload.paths() - workload.prefixes() + workload.regular(),
            )
        };
        assert_eq!(size("A"), (2, 500_000, 500_000));
        assert_eq!(size("A1"), (2, 500_000, 500_000));
        assert_eq!(size("B"), (11, 100_000, 1_000_000));
        assert_eq!(size("C"), (11, 1_000_000, 1_000_000));
        assert_eq!(size("D-warm"), (200, 1000, 1000));
        assert_eq!(size("E-cold"), (1000, 1000, 1000));
    }
}
