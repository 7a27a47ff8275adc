//! What one change costs does not depend on how large the table is: counted in decisions, octets sent and allocations.
//!
//! `examples/flap_cost.rs` counts instructions of the same.

#![allow(clippy::unwrap_used)]

mod reflector;

use std::cell::Cell;

use reflector::{Kind, Reflector};

/// The system's allocator, which counts.
#[allow(unsafe_code)] // counting is what a global allocator of one's own is for, and its interface is unsafe
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};

    use super::count;

    struct Counting;

    // SAFETY: every call is handed on to the system's allocator as it came.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout.size());
            // SAFETY: the caller's promises are those that the system's allocator asks for.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: as above; the pointer came from there.
            unsafe { System.dealloc(pointer, layout) }
        }

        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            count(size);
            // SAFETY: as above; the pointer came from there.
            unsafe { System.realloc(pointer, layout, size) }
        }
    }

    #[global_allocator]
    static COUNTING: Counting = Counting;
}

thread_local! {
    /// Allocations of this thread and their octets.
    static ALLOCATED: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn count(octets: usize) {
    let (number, sum) = ALLOCATED.get();
    ALLOCATED.set((number + 1, sum + octets as u64));
}

/// What a flap took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    allocations: u64,
    allocated: u64,
    decisions: u64,
    sent: usize,
}

const FLAPS: u32 = 501;
const MEMBERS: u32 = 20;

/// What most flaps took, and the allocations of all of them: once in a while one pays for a table that grows.
fn cost_of_a_flap(kind: Kind, routes: u32) -> (Cost, u64) {
    let mut reflector = Reflector::new(MEMBERS, 10);
    reflector.fill(kind, routes);
    let flap = |round: u32| (round * 337 % routes, round);
    // The first ones find buffers that have yet to get their size.
    for (number, round) in (1..FLAPS).map(flap) {
        reflector.flap(kind, round, number);
    }
    let mut costs: Vec<Cost> = (FLAPS..2 * FLAPS)
        .map(flap)
        .map(|(number, round)| {
            let (before, sent) = (ALLOCATED.get(), reflector.octets);
            let decisions = reflector.speaker.counters().decisions;
            reflector.flap(kind, round, number);
            let after = ALLOCATED.get();
            Cost {
                allocations: after.0 - before.0,
                allocated: after.1 - before.1,
                decisions: reflector.speaker.counters().decisions - decisions,
                sent: reflector.octets - sent,
            }
        })
        .collect();
    assert_eq!(reflector.speaker.counters().families[0].best, u64::from(routes), "all are back");
    costs.sort_unstable();
    (costs[costs.len() / 2], costs.iter().map(|cost| cost.allocations).sum())
}

fn costs_the_same_in_any_table(kind: Kind) -> Cost {
    let (small, all_in_small) = cost_of_a_flap(kind, 1_000);
    let (large, all_in_large) = cost_of_a_flap(kind, 100_000);
    assert_eq!(small, large, "{kind:?}");
    assert!(
        all_in_large * 100 <= all_in_small * 105,
        "{kind:?}: {all_in_large} and {all_in_small} allocations"
    );
    large
}

#[test]
fn a_withdrawal_and_what_brings_it_back() {
    let cost = costs_the_same_in_any_table(Kind::Withdraw);
    assert_eq!(cost.decisions, 2);
}

#[test]
fn a_change_of_attributes() {
    let cost = costs_the_same_in_any_table(Kind::Attributes);
    assert_eq!(cost.decisions, 2);
}

#[test]
fn a_best_path_that_moves_to_another_feeder() {
    let cost = costs_the_same_in_any_table(Kind::Feeders);
    assert_eq!(cost.decisions, 2);
}
