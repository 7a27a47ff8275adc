//! Refinements of the desired FIB: changes that can wait, collected so that a group is changed once and not each of its routes.
//!
//! Owner: the desired FIB. Pure. A route is to be refined to a target, which is what its group is to become. When the
//! targets are released, one that all routes of its group have is made of the group in place. The routes of the others
//! move to another group one by one, behind everything that is more urgent. Memory: a number for each route that waits, and
//! a target for each group and change.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;

use causeway_bgp_wire::Prefix;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{DesiredFib, Item, NO_TARGET};
use crate::forwarding::Forwarding;

struct Target {
    /// The group of its routes.
    from: u32,
    to: Rc<Forwarding>,
    /// Routes that have it.
    routes: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is being collected.
    Open,
    /// Its routes are to move.
    Released,
    /// There is nothing to be done for it: its group became it, it names what is lost, or no route has it.
    Void,
}

/// What waits.
#[derive(Default)]
pub(super) struct Refinements {
    targets: Vec<Target>,
    /// Numbers of targets without routes.
    free: Vec<u32>,
    /// Open targets by group and forwarding.
    open: HashMap<(u32, Rc<Forwarding>), u32, RandomState>,
    /// The one asked for last: mostly the next one too.
    last: u32,
    /// Each route at most once.
    routes: VecDeque<u32>,
    /// So many of them, from the front, were released.
    due: usize,
}

impl Refinements {
    pub(super) fn is_due(&self) -> bool {
        self.due > 0
    }

    fn target(&mut self, from: u32, to: &Rc<Forwarding>) -> u32 {
        if let Some(last) = self.targets.get_mut(self.last as usize)
            && (last.from, last.state) == (from, State::Open)
            && last.to == *to
        {
            last.routes += 1;
            return self.last;
        }
        let key = (from, to.clone());
        if let Some(number) = self.open.get(&key) {
            self.targets[*number as usize].routes += 1;
            self.last = *number;
            return *number;
        }
        let target = Target { from, to: to.clone(), routes: 1, state: State::Open };
        let number = match self.free.pop() {
            Some(number) => {
                self.targets[number as usize] = target;
                number
            }
            None => {
                self.targets.push(target);
                self.targets.len() as u32 - 1
            }
        };
        self.open.insert(key, number);
        self.last = number;
        number
    }

    /// A route does not have this target any more.
    fn leave(&mut self, number: u32) {
        let Some(target) = self.targets.get_mut(number as usize) else { return };
        target.routes -= 1;
        if target.routes == 0 {
            target.state = State::Void;
            let key = (target.from, target.to.clone());
            if self.open.get(&key) == Some(&number) {
                self.open.remove(&key);
            }
            self.free.push(number);
        }
    }

    /// These next hops are lost: what names them is to be decided anew, and not to be made.
    pub(super) fn cancel(&mut self, lost: &[IpAddr]) {
        for target in &mut self.targets {
            if target.to.next_hops().any(|next_hop| lost.contains(&next_hop)) {
                target.state = State::Void;
            }
        }
        let targets = &self.targets;
        self.open.retain(|_, number| targets[*number as usize].state == State::Open);
    }
}

impl DesiredFib {
    /// As [`DesiredFib::want`], of a prefix whose present way does until [`DesiredFib::release`].
    pub(crate) fn refine(&mut self, prefix: Prefix, forwarding: &Rc<Forwarding>) {
        let Some(id) = self.routes.find(&prefix) else {
            self.want(prefix, forwarding);
            return;
        };
        self.forget_target(id);
        let Some(from) = self.routes.get(id).and_then(|(_, route)| route.group) else {
            self.assign(prefix, id, forwarding);
            return;
        };
        if self.groups.get(&from).is_some_and(|group| group.forwarding == *forwarding) {
            return;
        }
        if !self.connected {
            self.assign(prefix, id, forwarding);
            return;
        }
        let target = self.refinements.target(from, forwarding);
        if let Some(route) = self.routes.get_mut(id) {
            route.target = target;
            if !std::mem::replace(&mut route.listed, true) {
                self.refinements.routes.push_back(id);
            }
        }
    }

    /// Whether released refinements still wait to be pulled.
    pub(crate) fn is_refining(&self) -> bool {
        self.refinements.is_due()
    }

    /// What was collected is to be done. Groups whose routes all become the same are replaced, behind what is queued: by
    /// then whoever left them has been told so.
    pub(crate) fn release(&mut self) {
        let mut open: Vec<u32> = self.refinements.open.drain().map(|(_, number)| number).collect();
        // Not the order of a hash map.
        open.sort_unstable();
        for number in open {
            let target = &mut self.refinements.targets[number as usize];
            target.state = State::Released;
            let all = self.groups.get(&target.from).is_some_and(|group| group.routes == target.routes);
            if all {
                target.state = State::Void;
                let (from, to) = (target.from, target.to.clone());
                if self.replace_group(from, to) {
                    self.queue.push_back(Item::Group(from));
                }
            }
        }
        self.refinements.due = self.refinements.routes.len();
    }

    /// Takes the next route whose refinement was released. False where there is none.
    pub(super) fn refine_next(&mut self) -> bool {
        if self.refinements.due == 0 {
            return false;
        }
        self.refinements.due -= 1;
        let Some(id) = self.refinements.routes.pop_front() else { return false };
        let Some((prefix, route)) = self.routes.get(id) else { return true };
        let number = route.target;
        let state = self.refinements.targets.get(number as usize).map(|target| target.state);
        if state == Some(State::Open) {
            // It was refined again after the release.
            self.refinements.routes.push_back(id);
            return true;
        }
        if let Some(route) = self.routes.get_mut(id) {
            route.listed = false;
        }
        if state == Some(State::Released) {
            let to = self.refinements.targets[number as usize].to.clone();
            self.forget_target(id);
            self.assign(prefix, id, &to);
        } else {
            self.forget_target(id);
        }
        true
    }

    /// Does all that was collected: nobody is there to be told.
    pub(super) fn refine_all(&mut self) {
        self.release();
        while self.refine_next() {}
    }

    /// The route is to be something else by now.
    pub(super) fn forget_target(&mut self, id: u32) {
        let Some(route) = self.routes.get_mut(id) else { return };
        let number = std::mem::replace(&mut route.target, NO_TARGET);
        if number != NO_TARGET {
            self.refinements.leave(number);
        }
    }
}
