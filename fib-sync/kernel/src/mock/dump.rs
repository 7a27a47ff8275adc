//! Streamed dumps of the mock: parts of a few routes, between which changes come in.

use crate::dump::Dumped;
use crate::error::Error;
use crate::route::{Family, Route, RouteChange, RouteKey};

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
    /// IPv6 routes were deleted meanwhile, so that others may have been left out.
    deleted: bool,
}

impl MockKernel {
    pub(super) fn begin_dump(&mut self, family: Family, table: u32) {
        self.dumping =
            Some(Dumping { family, table, last: None, shown: 0, forms: Vec::new(), deleted: false });
    }

    /// Takes notice of a change that comes in between.
    pub(super) fn note_change(&mut self, change: &RouteChange) {
        if let (Some(dumping), RouteChange::Delete { key, .. }) = (&mut self.dumping, change) {
            dumping.deleted |= dumping.family == Family::Ipv6 && key.family() == Family::Ipv6;
        }
    }

    /// Shows the next part; whether there is more, or [`Error::Interrupted`].
    pub(super) fn go_on(&mut self, each: &mut dyn FnMut(Dumped<'_>)) -> Result<bool, Error> {
        let Some(mut dumping) = self.dumping.take() else { return Ok(false) };
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
        if part.len() == self.chunk {
            self.dumping = Some(dumping);
            return Ok(true);
        }
        if dumping.deleted { Err(Error::Interrupted("routes")) } else { Ok(false) }
    }
}

fn same_form(one: &Route, other: &Route) -> bool {
    let key = RouteKey { destination: one.key.destination, ..other.key };
    key == one.key && Route { key, ..other.clone() } == *one
}
