//! Streamed dumps of the mock: parts of a few routes, between which changes come in.

use crate::dump::Dumped;
use crate::route::{Family, Route, RouteKey};

use super::MockKernel;

/// An unfinished dump.
#[derive(Debug, Clone)]
pub(super) struct Dumping {
    family: Family,
    table: u32,
    /// IPv4 goes on behind the last one shown.
    last: Option<RouteKey>,
    /// IPv6 goes on behind as many as were shown, and begins anew when the table changed.
    shown: usize,
    /// The forms so far.
    forms: Vec<Route>,
}

impl MockKernel {
    pub(super) fn begin_dump(&mut self, family: Family, table: u32) {
        self.dumping = Some(Dumping { family, table, last: None, shown: 0, forms: Vec::new() });
    }

    /// Shows the next part; whether there is more.
    pub(super) fn go_on(&mut self, each: &mut dyn FnMut(Dumped<'_>)) -> bool {
        let Some(mut dumping) = self.dumping.take() else { return false };
        let all = self.routes_of(dumping.family, dumping.table).map(|route| self.shown(route));
        let part: Vec<Route> = match dumping.family {
            Family::Ipv4 => {
                let behind = |route: &Route| dumping.last.is_none_or(|last| route.key > last);
                all.filter(behind).take(self.chunk).collect()
            }
            Family::Ipv6 => all.skip(dumping.shown).take(self.chunk).collect(),
        };
        for route in &part {
            dumping.last = Some(route.key);
            dumping.shown += 1;
            let form = dumping.forms.iter().position(|form| same_form(form, route));
            let form = form.unwrap_or_else(|| {
                dumping.forms.push(route.clone());
                dumping.forms.len() - 1
            });
            let destination = route.key.destination;
            each(Dumped { destination, form: form as u32, route: &dumping.forms[form] });
        }
        let more = part.len() == self.chunk;
        if more {
            self.dumping = Some(dumping);
        }
        more
    }
}

fn same_form(one: &Route, other: &Route) -> bool {
    let key = RouteKey { destination: one.key.destination, ..other.key };
    key == one.key && Route { key, ..other.clone() } == *one
}
