//! Learned routes: from groups and classes to ways, forms and objects; what follows when a way changes.

use std::net::IpAddr;

use causeway_api::fib;
use causeway_kernel::{Family, NextHop, RouteKind};
use ipnetwork::IpNetwork;

use super::Engine;
use crate::config::Config;
use crate::decision::Kind;
use crate::delta::Tracker;
use crate::desired::{Bar, BundleId, Desired};
use crate::forms::{Form, FormId, NONE, Target};
use crate::interfaces::Interfaces;
use crate::local::learned_key;
use crate::next_hop::{Ours, Resolution, Table};
use crate::objects::Objects;
use crate::ownership::Class;
use crate::slots::Slot;
use crate::tunnel::Tunnels;
use crate::way::{Lookout, Way, way};

/// What next hops resolve through, and the tunnels there are.
pub(super) struct World<'a> {
    engine: &'a Engine,
    config: &'a Config,
    desired: &'a Desired,
    tracker: &'a Tracker,
    objects: &'a Objects,
    table: &'a Table,
    tunnels: &'a Tunnels,
    interfaces: &'a Interfaces,
}

impl Ours for World<'_> {
    fn lengths(&self, family: Family) -> Vec<u8> {
        self.tracker.slots().lengths(family).collect()
    }

    /// Of ours count those through connected next hops alone, so that a resolution is one step deep; and after a
    /// restart those nobody has claimed, so that next hops stay where they were until bgpd's snapshot is complete.
    fn route(&self, prefix: &IpNetwork) -> Option<(u32, Vec<NextHop>)> {
        let metric = self.config.metric;
        let key = learned_key(*prefix, self.config);
        let slot = self.tracker.slots().find(&key)?;
        if self.desired.is_local(slot) {
            let hops = self.engine.locals.get(&key)?.gateways()?;
            return Some((metric, hops.to_vec()));
        }
        if self.desired.is_learned(slot) {
            let (_, bundle) = self.desired.bundle_at(slot)?;
            let counts = bundle.way.direct && self.desired.bar(slot) == Bar::Open;
            return counts.then(|| (metric, bundle.way.hops.clone()));
        }
        if !self.tracker.is_surplus(slot)
            || self.engine.class(slot) != Class::Learned
            || !self.engine.keeps(slot)
        {
            return None;
        }
        let hops = match &self.tracker.forms().get(self.tracker.has(slot))?.target {
            Target::Hops(hops) => hops.clone(),
            Target::Object(id) => self.objects.hops(*id).to_vec(),
            Target::Unknown(_) => return None,
        };
        // What leads into a tunnel was no way to next hops before the restart either.
        (!hops.iter().any(|hop| self.tunnels.is_ours(hop.ifindex))).then_some((metric, hops))
    }
}

impl Lookout for World<'_> {
    fn resolve(&self, next_hop: &fib::NextHop) -> Resolution {
        self.table.resolve(next_hop, self)
    }

    fn ways(&self, next_hop: &fib::NextHop) -> Vec<(IpAddr, u32)> {
        self.table.ways(next_hop, self)
    }

    fn tunnel(&self, kind: Kind) -> Result<u32, String> {
        self.tunnels.index(kind).ok_or_else(|| self.tunnels.obstacle(kind))
    }

    fn link(&self, index: u32) -> Option<(&str, u32)> {
        self.interfaces.get(index).map(|link| (link.name.as_str(), link.mtu))
    }
}

impl Engine {
    pub(super) fn world(&self) -> World<'_> {
        World {
            engine: self,
            config: &self.config,
            desired: &self.desired,
            tracker: &self.tracker,
            objects: &self.objects,
            table: &self.table,
            tunnels: &self.tunnels,
            interfaces: &self.interfaces,
        }
    }

    /// The link of an address in a connected subnet.
    pub(super) fn connected_link(&self, address: IpAddr) -> Option<u32> {
        match self.world().resolve(&fib::NextHop::global(address)) {
            Resolution::Connected { ifindex } => Some(ifindex),
            Resolution::Gateway { .. } | Resolution::Unreachable => None,
        }
    }

    /// The bundle for a prefix on a group, made if need be; `None`: there is no such group.
    pub(super) fn bundle_for(&mut self, slot: Slot, prefix: &IpNetwork, group: u32) -> Option<BundleId> {
        let class = self.classes.of(prefix, &self.config);
        if let Some(id) = self.desired.find_bundle(slot, group, class) {
            return Some(id);
        }
        let (members, backups) = self.desired.group(group)?;
        let way = way(members, backups, self.classes.get(class), &self.config, &self.world());
        self.stale_tunnels |= !way.kinds.is_empty();
        self.desired.add_bundle(group, class, way)
    }

    /// Works out the ways of bundles anew; gives those whose way is another, with the one before.
    pub(super) fn resolve(&mut self, ids: Vec<BundleId>) -> Vec<(BundleId, Way)> {
        let mut changed = Vec::new();
        for id in ids {
            let Some(bundle) = self.desired.bundle(id) else { continue };
            let (members, backups) = self.desired.members_of(id);
            let fresh = way(members, backups, self.classes.get(bundle.class), &self.config, &self.world());
            changed.extend(self.desired.set_way(id, fresh).map(|old| (id, old)));
        }
        changed
    }

    /// Resolves anew what may resolve through something that changed. Two rounds are enough: the second is for what
    /// resolves through the direct routes of the first, and nothing resolves through that.
    pub(super) fn resolve_all(&mut self) -> bool {
        let mut any = false;
        for _ in 0..2 {
            self.stale = false;
            let changed = self.resolve(self.desired.bundle_ids());
            if changed.is_empty() {
                break;
            }
            any = true;
            self.follow(changed);
        }
        self.stale = false;
        self.apply_locals();
        self.tell_next_hops();
        any
    }

    /// Draws the conclusions from ways that changed.
    pub(super) fn follow(&mut self, changed: Vec<(BundleId, Way)>) {
        for (id, old) in changed {
            let Some(bundle) = self.desired.bundle(id) else { continue };
            let way = bundle.way.clone();
            self.stale |= (old.direct || way.direct) && self.desired.in_use(id);
            self.stale_tunnels |= old.kinds != way.kinds || old.peers != way.peers || old.mtu != way.mtu;
            if old.via != way.via || way.hops.is_empty() {
                self.say_again(id);
            }
            if old.hops == way.hops && old.standby == way.standby && old.mtu == way.mtu {
                continue;
            }
            if way.hops.is_empty() || old.hops.is_empty() {
                self.release_form(id);
            } else {
                self.move_object(id, &way);
            }
            let form = self.desired.bundle(id).map_or(NONE, |bundle| bundle.form);
            if form == NONE || old.hops.is_empty() || old.mtu != way.mtu {
                for slot in self.desired.slots_of(id) {
                    self.refresh(slot);
                }
            }
        }
    }

    /// Moves the object of a bundle along, if all its users go the same way; else the bundle gets another.
    fn move_object(&mut self, id: BundleId, way: &Way) {
        let object = self.desired.bundle(id).and_then(|bundle| bundle.object);
        let moved = object.is_some_and(|object| {
            let desired = &self.desired;
            let agrees = |user| {
                let there = desired.bundle(user).map(|bundle| &bundle.way);
                there.is_some_and(|there| there.hops == way.hops && there.standby == way.standby)
            };
            let layout = self.objects.layout(&way.hops, way.standby);
            self.objects.moved(object, &layout, agrees)
        });
        let form = self.desired.bundle(id).map_or(NONE, |bundle| bundle.form);
        let same = self.tracker.forms().get(form).is_some_and(|form| form.mtu == way.mtu);
        if moved && same {
            return;
        }
        if moved {
            let form = self.hold_form(self.form(object, way));
            self.set_form(id, form);
            return;
        }
        self.release_form(id);
        // An object of its own; its routes go over one by one.
        for slot in self.desired.slots_of(id) {
            self.refresh(slot);
        }
    }

    /// Groups have no standby members after all.
    pub(super) fn relayout(&mut self) {
        for id in self.desired.bundle_ids() {
            let Some(bundle) = self.desired.bundle(id) else { continue };
            if let Some(object) = bundle.object {
                let layout = self.objects.layout(&bundle.way.hops, bundle.way.standby);
                self.objects.moved(object, &layout, |_| true);
            }
        }
    }

    /// bgpd may have to hear of the routes of a bundle again.
    fn say_again(&mut self, id: BundleId) {
        for slot in self.desired.slots_of(id) {
            self.desired.mark_dirty(slot);
        }
    }

    fn form(&self, object: Option<u32>, way: &Way) -> Form {
        let target = object.map_or_else(|| Target::Hops(way.hops.clone()), Target::Object);
        Form {
            protocol: self.config.protocol,
            kind: RouteKind::Unicast,
            target,
            preferred_source: None,
            mtu: way.mtu,
        }
    }

    pub(super) fn hold_form(&mut self, form: Form) -> FormId {
        self.tracker.forms_mut().hold(form)
    }

    fn set_form(&mut self, id: BundleId, form: FormId) {
        if let Some(bundle) = self.desired.bundle_mut(id) {
            let old = std::mem::replace(&mut bundle.form, form);
            self.tracker.forms_mut().release(old);
        }
    }

    /// Gives a bundle's form and object back.
    pub(super) fn release_form(&mut self, id: BundleId) {
        self.set_form(id, NONE);
        if let Some(bundle) = self.desired.bundle_mut(id)
            && let Some(object) = bundle.object.take()
        {
            self.objects.leave(object, id);
        }
    }

    /// Gives back what bundles held that are gone.
    pub(super) fn give_back(&mut self) {
        for (id, bundle) in self.desired.take_emptied() {
            self.tracker.forms_mut().release(bundle.form);
            if let Some(object) = bundle.object {
                self.objects.leave(object, id);
            }
            self.stale_tunnels |= !bundle.way.kinds.is_empty();
        }
    }

    /// The form of a bundle's routes, made for the first one that needs it: its slot may have a nexthop object of an
    /// earlier run to go on with.
    fn form_of(&mut self, id: BundleId, slot: Slot) -> FormId {
        let Some(bundle) = self.desired.bundle(id) else { return NONE };
        if bundle.form != NONE || bundle.way.hops.is_empty() {
            return bundle.form;
        }
        let way = bundle.way.clone();
        let object = self.objects.used().then(|| {
            let near = self.tracker.forms().get(self.tracker.has(slot)).and_then(Form::object);
            let desired = &self.desired;
            let layout = self.objects.layout(&way.hops, way.standby);
            self.objects.assign(id, &layout, near, |user| desired.of_the_past(user))
        });
        let form = self.hold_form(self.form(object, &way));
        self.stale_tunnels |= !way.kinds.is_empty();
        if let Some(bundle) = self.desired.bundle_mut(id) {
            bundle.object = object;
            bundle.form = form;
        }
        form
    }

    /// Brings the tracker, and what next hops may resolve through, up to date about a learned prefix.
    pub(super) fn refresh(&mut self, slot: Slot) {
        self.desired.mark_dirty(slot);
        if self.desired.is_local(slot) {
            return;
        }
        let at = self.desired.bundle_at(slot).map(|(id, _)| id);
        let form = match at {
            Some(id) if self.desired.bar(slot) == Bar::Open => self.form_of(id, slot),
            _ => NONE,
        };
        let before = self.tracker.wanted(slot);
        self.tracker.want(slot, form);
        if before != form || form == NONE {
            self.stale |= self.is_watched(&self.tracker.slots().prefix(slot));
        }
    }

    /// Whether some next hop that matters lies in a prefix.
    fn is_watched(&self, prefix: &IpNetwork) -> bool {
        let (first, last) = (prefix.network(), prefix.broadcast());
        if self.desired.watches(first, last) {
            return true;
        }
        let from = fib::NextHop { address: first, scope: 0 };
        let to = fib::NextHop { address: last, scope: u32::MAX };
        self.next_hops.range(from..=to).next().is_some()
    }

    /// Asks the guard about every learned route again.
    pub(super) fn guard_all(&mut self) {
        let learned: Vec<Slot> = self.desired.learned().collect();
        for slot in learned {
            let before = self.desired.bar(slot);
            if before == Bar::Open || before == Bar::Guard {
                let refused = self.guard.check(&self.tracker.slots().prefix(slot)).is_err();
                let bar = if refused { Bar::Guard } else { Bar::Open };
                if bar != before {
                    self.desired.set_bar(slot, bar);
                    self.refresh(slot);
                }
            }
        }
    }
}
