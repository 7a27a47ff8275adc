//! One dump: everything is read anew, and every conclusion drawn from it.

use std::time::Instant;

use causeway_api::fib::Family;
use causeway_kernel::route::{MAIN_TABLE, ROUTE_METRIC};
use causeway_kernel::{Error, Family as KernelFamily, Kernel, Route};

use super::{DUMP_GAP, DUMP_RETRY, Engine, FULL_CHECK, Feed};
use crate::desired::feed_family;
use crate::guard::{Connected, Guard};
use crate::interfaces::Interfaces;
use crate::next_hop::Table;
use crate::ownership::Class;

impl Engine {
    /// Reads everything anew and draws every conclusion from it.
    pub(super) fn dump(&mut self, kernel: &mut impl Kernel, now: Instant) {
        let started = Instant::now();
        let read = read(kernel);
        self.dumped_at = now + started.elapsed();
        self.gap = DUMP_GAP.max(started.elapsed() * 2);
        self.dump_at = self.dumped_at + FULL_CHECK;
        let Dump { interfaces, connected, ours, foreign, mut table } = match read {
            Ok(Read { links, addresses, routes }) => {
                self.counts.dumps += 1;
                if self.kernel_error.take().is_some() {
                    tracing::info!("the kernel can be read again");
                }
                let interfaces = Interfaces::new(&links, &addresses);
                let is_pod = |index| interfaces.is_pod_device(index);
                let (ours, foreign): (Vec<Route>, Vec<Route>) =
                    routes.into_iter().partition(|route| self.ownership.is_ours(route, is_pod));
                let table = Table::new(foreign.iter(), &links, &addresses, &mut self.table);
                Dump { interfaces, connected: Connected::new(&links, &addresses), ours, foreign, table }
            }
            Err(error) => {
                self.counts.dump_errors += 1;
                self.complain(&error);
                self.dump_at = self.dumped_at + DUMP_RETRY;
                return;
            }
        };

        let links_changed = interfaces != self.interfaces;
        if matches!(self.feed, Feed::Connected(_)) {
            self.events.extend(interfaces.events(&self.interfaces));
        }
        self.interfaces = interfaces;
        let unclaimed = ours.iter().filter(|route| {
            self.tracker.wanted(&route.key).is_none()
                && self.class(route) == Class::Learned
                && self.keeps(route)
        });
        table.set_unclaimed(unclaimed);
        self.table = table;
        let mut changed = self.desired.resolve_all(&self.table);
        let moved = links_changed || !changed.is_empty();
        if connected != self.connected {
            self.connected = connected;
            self.guard = Guard::new(&self.config, self.connected.clone());
            changed.extend(self.desired.guard_all(&self.guard));
        }
        self.apply_locals();
        self.apply(changed);
        self.stale = true;
        self.resolve_again();
        self.observe(ours, &foreign);
        if moved {
            self.tracker.retry(now, true);
        }
        if !self.ever_synced {
            self.adopt();
        }
        self.synced = true;
        self.ever_synced = true;
    }

    /// Gives a dump to the tracker and counts what others undid.
    fn observe(&mut self, ours: Vec<Route>, foreign: &[Route]) {
        let in_the_way = |route: &&Route| matches!(route.key.metric, metric if metric == self.config.metric || metric == ROUTE_METRIC);
        let mut ours_by_family = [Vec::new(), Vec::new()];
        for route in ours {
            ours_by_family[feed_family(route.key.family()) as usize].push(route);
        }
        let mut lost = Vec::new();
        for family in KernelFamily::ALL {
            let ours = std::mem::take(&mut ours_by_family[feed_family(family) as usize]);
            let foreign = foreign
                .iter()
                .filter(|route| route.key.family() == family)
                .filter(in_the_way)
                .map(|route| (route.key, route.protocol));
            let observed = self.tracker.observe(family, ours.into_iter(), foreign);
            for key in observed.lost.iter().chain(&observed.changed) {
                self.dirty.insert(key.destination);
            }
            lost.extend(observed.lost);
        }
        if let Some(first) = lost.first() {
            self.counts.healed += lost.len() as u64;
            tracing::warn!(
                routes = lost.len(),
                first = %first.destination,
                "routes of ours were deleted or changed by somebody else: putting them back"
            );
        }
    }

    /// The first dump: what is there of ours is kept until bgpd's snapshot or the restart time says otherwise.
    fn adopt(&mut self) {
        for family in Family::ALL {
            let found = self.tracker.ours().filter(|route| feed_family(route.key.family()) == family).count();
            self.kept[family as usize] = found > 0;
            if found > 0 {
                tracing::info!(routes = found, family = ?family, "found routes of an earlier run: keeping them");
            }
        }
    }
}

struct Read {
    links: Vec<causeway_kernel::Link>,
    addresses: Vec<causeway_kernel::Address>,
    routes: Vec<Route>,
}

struct Dump {
    interfaces: Interfaces,
    connected: Connected,
    ours: Vec<Route>,
    foreign: Vec<Route>,
    table: Table,
}

fn read(kernel: &mut impl Kernel) -> Result<Read, Error> {
    let links = kernel.links()?;
    let addresses = kernel.addresses()?;
    let mut routes = kernel.routes(KernelFamily::Ipv4, MAIN_TABLE)?;
    routes.extend(kernel.routes(KernelFamily::Ipv6, MAIN_TABLE)?);
    Ok(Read { links, addresses, routes })
}
