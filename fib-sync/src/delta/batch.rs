//! What one write takes on. Pure.

use causeway_kernel::RouteChange;

use crate::forms::FormId;
use crate::slots::Slot;

/// Changes to be written, and what each is about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What to tell the kernel.
    pub changes: Vec<RouteChange>,
    /// For each the slot, and the form it will have.
    pub about: Vec<(Slot, FormId)>,
}

impl Batch {
    /// Adds a change of a slot that will have this form.
    pub(super) fn push(&mut self, slot: Slot, form: FormId, change: RouteChange) {
        self.changes.push(change);
        self.about.push((slot, form));
    }
}
