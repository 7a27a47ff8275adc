//! Desired against actual, keyed as the kernel keys. Pure.
//!
//! Invariant: after every call `pending` holds exactly the keys for which something is to be done and can be done
//! now, so that a change costs what it touches and a resync that finds nothing wrong writes nothing. A property test
//! compares it with a naive diff.
//!
//! Not pending are keys that have what they want; keys with a route of somebody else in the way (*blocked*, until a dump
//! no longer shows it); keys the kernel refused a moment ago (*failed*, until their time comes); and routes of
//! ours nobody wants that are not yet condemned (*surplus*: kept over a restart, or in their grace period).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use causeway_kernel::{Family, Refusal, Route, RouteChange, RouteKey};

/// The first wait after a refusal; doubled each time up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest wait after a refusal.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// What the kernel has at one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Actual {
    /// Ours. More than one only where somebody appended to an IPv4 key with our number.
    ours: Vec<Route>,
    /// The protocol number of somebody else's.
    foreign: Option<u8>,
}

/// The last refusal of a key that still wants something.
#[derive(Debug, Clone)]
struct Failure {
    refusal: Refusal,
    /// When to try again; `None`: now.
    again: Option<Instant>,
    wait: Duration,
}

/// How a wanted key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The kernel has it as wanted.
    Installed,
    /// To be written.
    Pending,
    /// A route of this protocol number is in the way.
    Foreign(u8),
    /// The kernel refused.
    Failed(Refusal),
}

/// What a dump brought to light.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Keys that had what they want and no longer do.
    pub lost: Vec<RouteKey>,
    /// Wanted keys whose standing changed otherwise, and unwanted ones where a route of ours is gone.
    pub changed: Vec<RouteKey>,
    /// Routes of ours that nobody wants and that were not there before.
    pub appeared: Vec<RouteKey>,
}

/// The tracker.
#[derive(Debug, Default)]
pub struct Tracker {
    desired: HashMap<RouteKey, Route>,
    actual: HashMap<RouteKey, Actual>,
    pending: BTreeSet<RouteKey>,
    surplus: BTreeSet<RouteKey>,
    condemned: HashSet<RouteKey>,
    failed: HashMap<RouteKey, Failure>,
}

impl Tracker {
    /// Wants this route at its key, or nothing there (which condemns a route of ours that is there).
    pub fn want(&mut self, key: &RouteKey, route: Option<Route>) {
        match route {
            Some(route) => {
                if self.desired.get(key) == Some(&route) {
                    return;
                }
                self.condemned.remove(key);
                self.desired.insert(*key, route);
            }
            None => {
                self.desired.remove(key);
                self.condemned.insert(*key);
            }
        }
        self.failed.remove(key);
        self.judge(key);
    }

    /// Forgets what is wanted at a key, without condemning what the kernel has there.
    pub fn disclaim(&mut self, key: &RouteKey) {
        self.desired.remove(key);
        self.failed.remove(key);
        self.judge(key);
    }

    /// What is wanted at a key.
    pub fn wanted(&self, key: &RouteKey) -> Option<&Route> {
        self.desired.get(key)
    }

    /// Whether the kernel has a route of ours at a key, as far as known.
    pub fn has_ours(&self, key: &RouteKey) -> bool {
        self.actual.get(key).is_some_and(|actual| !actual.ours.is_empty())
    }

    /// All routes of ours the kernel has, as far as known.
    pub fn ours(&self) -> impl Iterator<Item = &Route> {
        self.actual.values().flat_map(|actual| &actual.ours)
    }

    /// Routes of ours nobody wants and that are not condemned.
    pub fn surplus(&self) -> impl Iterator<Item = &Route> {
        self.surplus.iter().filter_map(|key| self.actual.get(key)?.ours.first())
    }

    /// Lets these surplus routes be deleted.
    pub fn condemn(&mut self, keys: &[RouteKey]) {
        for key in keys.iter().filter(|key| self.surplus.contains(key)).copied().collect::<Vec<_>>() {
            self.condemned.insert(key);
            self.judge(&key);
        }
    }

    /// How a wanted key stands; `None` for one that is not wanted.
    pub fn standing(&self, key: &RouteKey) -> Option<Standing> {
        let desired = self.desired.get(key)?;
        let actual = self.actual.get(key);
        if actual.is_some_and(|actual| actual.ours == std::slice::from_ref(desired)) {
            return Some(Standing::Installed);
        }
        if let Some(protocol) = actual.and_then(|actual| actual.foreign) {
            return Some(Standing::Foreign(protocol));
        }
        match self.failed.get(key) {
            // Whose route is in the way, the next dump tells.
            Some(failure) if failure.refusal.exists() => Some(Standing::Pending),
            Some(failure) => Some(Standing::Failed(failure.refusal.clone())),
            None => Some(Standing::Pending),
        }
    }

    /// How many keys wait to be written.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Replaces what is known of one family by a dump: `ours`, and the keys and protocol numbers of others'
    /// routes that could be in the way.
    pub fn observe(
        &mut self,
        family: Family,
        ours: impl Iterator<Item = Route>,
        foreign: impl Iterator<Item = (RouteKey, u8)>,
    ) -> Observed {
        let mut fresh: HashMap<RouteKey, Actual> = HashMap::new();
        for route in ours {
            fresh.entry(route.key).or_default().ours.push(route);
        }
        for (key, protocol) in foreign {
            fresh.entry(key).or_default().foreign = Some(protocol);
        }
        let mut observed = Observed::default();
        let gone = self.actual.keys().filter(|key| key.family() == family && !fresh.contains_key(key));
        let touched: Vec<RouteKey> = gone
            .copied()
            .chain(
                fresh
                    .iter()
                    .filter(|(key, actual)| self.actual.get(key) != Some(actual))
                    .map(|(key, _)| *key),
            )
            .collect();
        for key in touched {
            let before = self.standing(&key);
            let had_ours = self.has_ours(&key);
            match fresh.remove(&key) {
                Some(actual) => self.actual.insert(key, actual),
                None => self.actual.remove(&key),
            };
            self.judge(&key);
            match (before, self.standing(&key)) {
                (None, None) if !had_ours && self.has_ours(&key) => observed.appeared.push(key),
                (Some(Standing::Installed), after) if after != Some(Standing::Installed) => {
                    observed.lost.push(key)
                }
                (None, None) if had_ours && !self.has_ours(&key) => observed.changed.push(key),
                (before, after) if before != after => observed.changed.push(key),
                _ => {}
            }
        }
        observed.lost.sort_unstable();
        observed
    }

    /// Up to `limit` keys' worth of changes, deletions first. Each is to be answered with [`Tracker::applied`],
    /// or all of them forgotten by a dump.
    pub fn changes(&self, limit: usize) -> Vec<RouteChange> {
        let mut changes = Vec::new();
        let (deletions, rest): (Vec<_>, Vec<_>) =
            self.pending.iter().take(limit).partition(|key| !self.desired.contains_key(key));
        for key in deletions.into_iter().chain(rest) {
            let none = Actual::default();
            let actual = self.actual.get(key).unwrap_or(&none);
            match (self.desired.get(key), &actual.ours[..]) {
                (Some(desired), []) => changes.push(RouteChange::Add(desired.clone())),
                (Some(desired), [_]) if actual.foreign.is_none() => {
                    changes.push(RouteChange::Replace(desired.clone()));
                }
                (_, ours) => changes.extend(
                    ours.iter().map(|route| RouteChange::Delete { key: *key, protocol: route.protocol }),
                ),
            }
        }
        changes
    }

    /// Takes the kernel's answer to one change. Returns whether only a dump can tell what is there now.
    pub fn applied(&mut self, change: &RouteChange, result: &Result<(), Refusal>, now: Instant) -> bool {
        let key = *change.key();
        let mut unclear = false;
        match (change, result) {
            (RouteChange::Add(route) | RouteChange::Replace(route), Ok(())) => {
                let actual = self.actual.entry(key).or_default();
                actual.ours = vec![route.clone()];
            }
            (RouteChange::Delete { .. }, Ok(())) => self.drop_one(&key),
            (RouteChange::Delete { .. }, Err(refusal)) if refusal.missing() => self.drop_one(&key),
            (_, Err(refusal)) => {
                // Somebody was quicker: only a dump shows who.
                unclear = refusal.exists();
                let wait =
                    self.failed.get(&key).map_or(FIRST_RETRY, |last| (last.wait * 2).min(LONGEST_RETRY));
                let failure = Failure { refusal: refusal.clone(), again: Some(now + wait), wait };
                self.failed.insert(key, failure);
            }
        }
        self.judge(&key);
        unclear
    }

    fn drop_one(&mut self, key: &RouteKey) {
        if let Some(actual) = self.actual.get_mut(key) {
            actual.ours.pop();
            if *actual == Actual::default() {
                self.actual.remove(key);
            }
        }
        self.failed.remove(key);
    }

    /// Makes those failed keys pending again whose time has come, or all of them.
    pub fn retry(&mut self, now: Instant, all: bool) {
        let is_due = |failure: &Failure| failure.again.is_some_and(|again| all || again <= now);
        let due: Vec<_> =
            self.failed.iter().filter(|(_, failure)| is_due(failure)).map(|(key, _)| *key).collect();
        for key in due {
            if let Some(failure) = self.failed.get_mut(&key) {
                failure.again = None;
            }
            self.judge(&key);
        }
    }

    /// When [`Tracker::retry`] has something to do next.
    pub fn next_retry(&self) -> Option<Instant> {
        self.failed.values().filter_map(|failure| failure.again).min()
    }

    /// Whether the key has not what it should and something can be done about it.
    fn work_left(&self, key: &RouteKey) -> bool {
        let none = Actual::default();
        let actual = self.actual.get(key).unwrap_or(&none);
        match self.desired.get(key) {
            None => !actual.ours.is_empty() && self.condemned.contains(key),
            Some(desired) if actual.ours == std::slice::from_ref(desired) => false,
            // With somebody else's route there, ours can only be taken away.
            Some(_) => actual.foreign.is_none() || !actual.ours.is_empty(),
        }
    }

    /// Restores the invariant for one key.
    fn judge(&mut self, key: &RouteKey) {
        let unwanted = !self.desired.contains_key(key);
        if unwanted && !self.has_ours(key) {
            self.condemned.remove(key);
        }
        if !self.work_left(key) {
            self.failed.remove(key);
            self.pending.remove(key);
        } else if self.failed.get(key).is_some_and(|failure| failure.again.is_some()) {
            self.pending.remove(key);
        } else {
            self.pending.insert(*key);
        }
        if unwanted && self.has_ours(key) && !self.condemned.contains(key) {
            self.surplus.insert(*key);
        } else {
            self.surplus.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use causeway_kernel::NextHop;
    use ipnetwork::IpNetwork;
    use nix::errno::Errno;
    use proptest::prelude::*;

    use super::*;

    fn route(n: u8, gateway: u8) -> Route {
        let destination = IpNetwork::new(IpAddr::from([10, n, 0, 0]), 16).unwrap();
        Route::unicast(destination, vec![NextHop::gateway(IpAddr::from([192, 0, 2, gateway]), 1)])
    }

    fn number(change: &RouteChange) -> u8 {
        match change.key().destination.ip() {
            IpAddr::V4(address) => address.octets()[1],
            IpAddr::V6(_) => panic!("an IPv6 key"),
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Want(u8, Option<u8>),
        Disclaim(u8),
        CondemnAll,
        /// What the kernel has: ours and others', by key.
        Dump(BTreeMap<u8, u8>, Vec<u8>),
        Write,
        WriteAllRefused,
        RetryAll,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0u8..6;
        prop_oneof![
            4 => (key.clone(), prop::option::of(1u8..4)).prop_map(|(key, gateway)| Step::Want(key, gateway)),
            1 => key.clone().prop_map(Step::Disclaim),
            1 => Just(Step::CondemnAll),
            2 => (prop::collection::btree_map(key.clone(), 1u8..4, 0..6), prop::collection::vec(key, 0..3))
                .prop_map(|(ours, foreign)| Step::Dump(ours, foreign)),
            3 => Just(Step::Write),
            1 => Just(Step::WriteAllRefused),
            1 => Just(Step::RetryAll),
        ]
    }

    /// The same rules, computed from scratch.
    #[derive(Default)]
    struct Naive {
        desired: BTreeMap<u8, u8>,
        condemned: BTreeSet<u8>,
        ours: BTreeMap<u8, u8>,
        foreign: BTreeSet<u8>,
        refused: BTreeSet<u8>,
    }

    impl Naive {
        fn changes(&self) -> Vec<RouteChange> {
            let mut deletions = Vec::new();
            let mut rest = Vec::new();
            for key in (0..6).filter(|key| !self.refused.contains(key)) {
                let delete = RouteChange::Delete { key: route(key, 1).key, protocol: 179 };
                match (self.desired.get(&key), self.ours.get(&key), self.foreign.contains(&key)) {
                    (None, Some(_), _) if self.condemned.contains(&key) => deletions.push(delete),
                    (Some(want), None, false) => rest.push(RouteChange::Add(route(key, *want))),
                    (Some(want), Some(have), false) if want != have => {
                        rest.push(RouteChange::Replace(route(key, *want)));
                    }
                    (Some(want), Some(have), true) if want != have => rest.push(delete),
                    _ => {}
                }
            }
            deletions.extend(rest);
            deletions
        }

        fn tidy(&mut self) {
            let Naive { desired, condemned, ours, .. } = self;
            condemned.retain(|key| ours.contains_key(key) && !desired.contains_key(key));
            let refused = std::mem::take(&mut self.refused);
            let left: BTreeSet<u8> = self.changes().iter().map(number).collect();
            self.refused = refused.intersection(&left).copied().collect();
        }
    }

    proptest! {
        #[test]
        fn pending_is_what_a_naive_diff_finds(steps in prop::collection::vec(step(), 0..40)) {
            let now = Instant::now();
            let mut tracker = Tracker::default();
            let mut naive = Naive::default();
            for step in steps {
                match step {
                    Step::Want(key, gateway) => {
                        let same = gateway.is_some() && naive.desired.get(&key) == gateway.as_ref();
                        tracker.want(&route(key, 1).key, gateway.map(|gateway| route(key, gateway)));
                        if !same {
                            naive.refused.remove(&key);
                        }
                        match gateway {
                            Some(gateway) => naive.desired.insert(key, gateway),
                            None => naive.desired.remove(&key),
                        };
                        if gateway.is_none() {
                            naive.condemned.insert(key);
                        }
                    }
                    Step::Disclaim(key) => {
                        tracker.disclaim(&route(key, 1).key);
                        naive.desired.remove(&key);
                        naive.refused.remove(&key);
                    }
                    Step::CondemnAll => {
                        let all: Vec<RouteKey> = tracker.surplus().map(|route| route.key).collect();
                        tracker.condemn(&all);
                        let Naive { desired, condemned, ours, .. } = &mut naive;
                        condemned.extend(ours.keys().filter(|key| !desired.contains_key(key)));
                    }
                    Step::Dump(ours, foreign) => {
                        tracker.observe(
                            Family::Ipv4,
                            ours.iter().map(|(key, gateway)| route(*key, *gateway)),
                            foreign.iter().map(|key| (route(*key, 1).key, 12)),
                        );
                        naive.ours = ours;
                        naive.foreign = foreign.into_iter().collect();
                    }
                    Step::Write => {
                        for change in tracker.changes(usize::MAX) {
                            prop_assert!(!tracker.applied(&change, &Ok(()), now));
                        }
                        for change in naive.changes() {
                            let key = number(&change);
                            match change {
                                RouteChange::Delete { .. } => naive.ours.remove(&key),
                                RouteChange::Add(_) | RouteChange::Replace(_) => {
                                    naive.ours.insert(key, naive.desired[&key])
                                }
                            };
                            naive.refused.remove(&key);
                        }
                    }
                    Step::WriteAllRefused => {
                        for change in tracker.changes(usize::MAX) {
                            tracker.applied(&change, &Err(Refusal::new(Errno::EPERM)), now);
                        }
                        for change in naive.changes() {
                            naive.refused.insert(number(&change));
                        }
                    }
                    Step::RetryAll => {
                        tracker.retry(now, true);
                        naive.refused.clear();
                    }
                }
                naive.tidy();
                prop_assert_eq!(tracker.changes(usize::MAX), naive.changes());
                prop_assert_eq!(tracker.pending(), naive.changes().len());
                let surplus: Vec<_> = tracker.surplus().cloned().collect();
                let expected: Vec<_> = naive
                    .ours
                    .iter()
                    .filter(|(key, _)| !naive.desired.contains_key(key) && !naive.condemned.contains(key))
                    .map(|(key, gateway)| route(*key, *gateway))
                    .collect();
                prop_assert_eq!(surplus, expected);
            }
        }
    }

    #[test]
    fn a_dump_tells_what_was_lost_and_what_appeared() {
        let mut tracker = Tracker::default();
        let now = Instant::now();
        for n in 0..3 {
            tracker.want(&route(n, 1).key, Some(route(n, 1)));
        }
        for change in tracker.changes(100) {
            tracker.applied(&change, &Ok(()), now);
        }
        let kernel = [route(0, 1), route(1, 2), route(7, 1)];
        let observed = tracker.observe(Family::Ipv4, kernel.into_iter(), [(route(2, 1).key, 12)].into_iter());
        assert_eq!(observed.lost, [route(1, 1).key, route(2, 1).key]);
        assert_eq!(observed.appeared, [route(7, 1).key]);
        assert_eq!(tracker.standing(&route(1, 1).key), Some(Standing::Pending));
        assert_eq!(tracker.standing(&route(2, 1).key), Some(Standing::Foreign(12)));
        assert_eq!(tracker.changes(100), [RouteChange::Replace(route(1, 1))]);
    }

    #[test]
    fn a_refused_change_waits_longer_each_time() {
        let mut tracker = Tracker::default();
        let mut now = Instant::now();
        let key = route(0, 1).key;
        tracker.want(&key, Some(route(0, 1)));
        let refused = Err(Refusal::new(Errno::ENETUNREACH));
        for wait in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let changes = tracker.changes(10);
            assert_eq!(changes.len(), 1);
            assert!(!tracker.applied(&changes[0], &refused, now));
            assert_eq!(tracker.next_retry(), Some(now + Duration::from_millis(wait)));
            tracker.retry(now, false);
            assert_eq!(tracker.pending(), 0);
            now += Duration::from_millis(wait);
            tracker.retry(now, false);
        }
        assert!(tracker.applied(&RouteChange::Add(route(0, 1)), &Err(Refusal::new(Errno::EEXIST)), now));
    }

    #[test]
    fn two_of_ours_at_one_key_become_one() {
        let mut tracker = Tracker::default();
        let now = Instant::now();
        let key = route(0, 1).key;
        tracker.want(&key, Some(route(0, 1)));
        tracker.observe(Family::Ipv4, [route(0, 1), route(0, 2)].into_iter(), [].into_iter());
        let delete = RouteChange::Delete { key, protocol: 179 };
        assert_eq!(tracker.changes(10), [delete.clone(), delete.clone()]);
        tracker.applied(&delete, &Ok(()), now);
        tracker.applied(&delete, &Ok(()), now);
        assert_eq!(tracker.changes(10), [RouteChange::Add(route(0, 1))]);
    }
}
