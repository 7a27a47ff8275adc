//! Forms: routes without their destination, each kept once and named by a number. Pure.
//!
//! A million routes have a few hundred forms. What a route should be and what the kernel has are two such numbers, and
//! a difference is a difference of numbers. A form with a nexthop object names the object by our own number, not by the
//! kernel's, so that an object that had to be made again leaves the forms as they are.

use std::collections::HashMap;

use causeway_kernel::{NextHop, Route, RouteKey, RouteKind};
use std::net::IpAddr;

use crate::objects::ObjectId;

/// The number of a form; [`NONE`] is no route at all.
pub type FormId = u32;

/// No route.
pub const NONE: FormId = 0;

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// These next hops, sorted; none for a route that leads nowhere.
    Hops(Vec<NextHop>),
    /// A nexthop object we know.
    Object(ObjectId),
    /// A nexthop object of this kernel number that we do not know.
    Unknown(u32),
}

/// A route without its destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Form {
    /// Who made it.
    pub protocol: u8,
    /// Its type.
    pub kind: RouteKind,
    /// Where it leads.
    pub target: Target,
    /// Source address for packets of the node itself.
    pub preferred_source: Option<IpAddr>,
    /// Path MTU of the route.
    pub mtu: Option<u32>,
}

impl Form {
    /// The form of a route; `object` knows our number of a kernel's nexthop object.
    pub fn of(route: &Route, object: impl Fn(u32) -> Option<ObjectId>) -> Form {
        let target = match route.nexthop_id {
            Some(id) => object(id).map_or(Target::Unknown(id), Target::Object),
            None => Target::Hops(route.next_hops.clone()),
        };
        Form {
            protocol: route.protocol,
            kind: route.kind,
            target,
            preferred_source: route.preferred_source,
            mtu: route.mtu,
        }
    }

    /// The route of this form at a key. `object` gives the kernel's number of an object; without one there is no route.
    pub fn route(&self, key: RouteKey, object: impl Fn(ObjectId) -> Option<u32>) -> Option<Route> {
        let (next_hops, nexthop_id) = match &self.target {
            Target::Hops(hops) => (hops.clone(), None),
            Target::Object(id) => (Vec::new(), Some(object(*id)?)),
            Target::Unknown(id) => (Vec::new(), Some(*id)),
        };
        Some(Route {
            key,
            protocol: self.protocol,
            kind: self.kind,
            next_hops,
            preferred_source: self.preferred_source,
            mtu: self.mtu,
            nexthop_id,
        })
    }

    /// The object it names.
    pub fn object(&self) -> Option<ObjectId> {
        match self.target {
            Target::Object(id) => Some(id),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Entry {
    form: Form,
    /// Slots and others that hold the number.
    holders: u32,
    /// Routes in the kernel of this form, as far as known.
    routes: u32,
}

/// All forms in use.
#[derive(Debug)]
pub struct Forms {
    entries: Vec<Option<Entry>>,
    numbers: HashMap<Form, FormId>,
    free: Vec<FormId>,
    /// Routes in the kernel on each object.
    on_objects: HashMap<ObjectId, u32>,
}

impl Default for Forms {
    fn default() -> Forms {
        Forms {
            // Number 0 is no form.
            entries: vec![None],
            numbers: HashMap::new(),
            free: Vec::new(),
            on_objects: HashMap::new(),
        }
    }
}

impl Forms {
    /// The number of a form, held once more. Give it back with [`Forms::release`].
    pub fn hold(&mut self, form: Form) -> FormId {
        if let Some(id) = self.numbers.get(&form) {
            if let Some(entry) = &mut self.entries[*id as usize] {
                entry.holders += 1;
            }
            return *id;
        }
        let entry = Entry { form: form.clone(), holders: 1, routes: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = Some(entry);
                id
            }
            None => {
                self.entries.push(Some(entry));
                (self.entries.len() - 1) as FormId
            }
        };
        self.numbers.insert(form, id);
        id
    }

    /// Holds a number once more.
    pub fn retain(&mut self, id: FormId) {
        if let Some(entry) = &mut self.entries[id as usize] {
            entry.holders += 1;
        }
    }

    /// Gives a number back; with its last holder a form goes.
    pub fn release(&mut self, id: FormId) {
        let Some(entry) = &mut self.entries[id as usize] else { return };
        entry.holders -= 1;
        if entry.holders == 0
            && let Some(entry) = self.entries[id as usize].take()
        {
            self.numbers.remove(&entry.form);
            self.free.push(id);
        }
    }

    /// One more route in the kernel has this form (which holds it), or one less.
    pub fn count(&mut self, id: FormId, there: bool) {
        let Some(entry) = &mut self.entries[id as usize] else { return };
        if there {
            entry.holders += 1;
            entry.routes += 1;
            if let Target::Object(object) = entry.form.target {
                *self.on_objects.entry(object).or_insert(0) += 1;
            }
            return;
        }
        entry.routes -= 1;
        if let Target::Object(object) = entry.form.target
            && let Some(count) = self.on_objects.get_mut(&object)
        {
            *count -= 1;
            if *count == 0 {
                self.on_objects.remove(&object);
            }
        }
        self.release(id);
    }

    /// The form of a number; `None` for [`NONE`].
    pub fn get(&self, id: FormId) -> Option<&Form> {
        self.entries.get(id as usize)?.as_ref().map(|entry| &entry.form)
    }

    /// How many routes in the kernel name an object, as far as known.
    pub fn on_object(&self, object: ObjectId) -> u32 {
        self.on_objects.get(&object).copied().unwrap_or(0)
    }

    /// Whether some route in the kernel leads through a device, by its own next hops.
    pub fn use_device(&self, ifindex: u32) -> bool {
        self.entries.iter().flatten().filter(|entry| entry.routes > 0).any(|entry| {
            matches!(&entry.form.target, Target::Hops(hops) if hops.iter().any(|hop| hop.ifindex == ifindex))
        })
    }

    /// How many forms there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(mtu: u32, target: Target) -> Form {
        Form { protocol: 179, kind: RouteKind::Unicast, target, preferred_source: None, mtu: Some(mtu) }
    }

    #[test]
    fn a_form_lives_as_long_as_it_is_held() {
        let mut forms = Forms::default();
        let one = forms.hold(form(1, Target::Object(7)));
        assert_eq!(forms.hold(form(1, Target::Object(7))), one);
        let two = forms.hold(form(2, Target::Object(7)));
        assert_ne!(one, two);
        forms.count(one, true);
        forms.count(two, true);
        assert_eq!(forms.on_object(7), 2);
        forms.release(two);
        forms.count(two, false);
        assert_eq!((forms.on_object(7), forms.get(two)), (1, None));
        let three = forms.hold(form(3, Target::Hops(Vec::new())));
        assert_eq!(three, two, "the number is used again");
        forms.release(one);
        forms.release(one);
        assert_eq!(forms.get(one), Some(&form(1, Target::Object(7))), "the kernel has it");
        forms.count(one, false);
        assert_eq!((forms.on_object(7), forms.len()), (0, 1));
    }
}
