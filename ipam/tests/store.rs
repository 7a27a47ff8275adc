//! The store as its users see it: random histories, several processes at once, processes killed in the middle.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use causeway_api::pod_store::{AllocationState, BlockState, Netns, PodStore};
use causeway_ipam::allocator::{AllocateError, Request};
use causeway_ipam::{Store, StoreError};
use ipnetwork::IpNetwork;
use proptest::prelude::*;

fn request(container: &str, interface: &str) -> Request {
    Request {
        container: container.into(),
        interface: interface.into(),
        network: "causeway".into(),
        pod: None,
        veth: format!("cw-{container}-{interface}"),
        netns: Netns { path: "/run/netns/x".into(), dev: 1, ino: 2 },
    }
}

fn nets(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn store_with(blocks: &[&str]) -> (tempfile::TempDir, Store) {
    let run_dir = tempfile::tempdir().unwrap();
    let store = Store::new(run_dir.path());
    store.set_blocks("node-a1", &nets(blocks)).unwrap();
    (run_dir, store)
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    MarkDeleting(u8),
    Release(u8),
    /// A writer was killed while it wrote: half a file lies beside the real one.
    Torn(u8),
    SetBlocks(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..12_u8).prop_map(Step::Add),
        2 => (0..12_u8).prop_map(Step::MarkDeleting),
        4 => (0..12_u8).prop_map(Step::Release),
        1 => any::<u8>().prop_map(Step::Torn),
        1 => (0..4_u8).prop_map(Step::SetBlocks),
    ];
    prop::collection::vec(step, 1..60)
}

/// The sets of blocks a Node document goes through in the histories.
fn block_set(which: u8) -> Vec<IpNetwork> {
    match which {
        0 => nets(&["10.0.0.0/29"]),
        1 => nets(&["10.0.0.0/29", "fd00::/125"]),
        2 => nets(&["10.0.1.0/29", "fd00::/125"]),
        _ => nets(&["10.0.0.0/29", "10.0.1.0/30", "fd00::/64"]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_address_is_ever_given_twice(steps in steps()) {
        let run_dir = tempfile::tempdir().unwrap();
        let store = Store::new(run_dir.path());
        store.set_blocks("n", &block_set(1)).unwrap();
        let mut model: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for step in steps {
            match step {
                Step::Add(n) => {
                    let container = format!("c{n}");
                    match store.allocate(&request(&container, "eth0")) {
                        Ok(allocated) => {
                            prop_assert_eq!(allocated.known, model.contains_key(&container));
                            model.insert(container, allocated.record.addresses);
                        }
                        Err(StoreError::Allocate(AllocateError::Full { .. })) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                Step::MarkDeleting(n) => {
                    let record = store.mark_deleting(&format!("c{n}"), "eth0").unwrap();
                    prop_assert_eq!(record.is_some(), model.contains_key(&format!("c{n}")));
                }
                Step::Release(n) => {
                    let record = store.release(&format!("c{n}"), "eth0").unwrap();
                    prop_assert_eq!(record.map(|record| record.addresses), model.remove(&format!("c{n}")));
                }
                Step::Torn(cut) => {
                    let whole = fs::read(store.files().allocations_path()).unwrap_or_default();
                    let half = &whole[..whole.len() * usize::from(cut) / 256];
                    fs::write(store.files().dir().join("allocations.json.new"), half).unwrap();
                }
                Step::SetBlocks(which) => {
                    store.set_blocks("n", &block_set(which)).unwrap();
                }
            }
            let snapshot = store.files().read().unwrap();
            let stored: HashMap<String, Vec<IpAddr>> = snapshot
                .allocations
                .allocations
                .iter()
                .map(|record| (record.container.clone(), record.addresses.clone()))
                .collect();
            prop_assert_eq!(&stored, &model);
            let held: Vec<IpAddr> = model.values().flatten().copied().collect();
            prop_assert_eq!(held.iter().collect::<HashSet<_>>().len(), held.len(), "an address twice");
            for address in &held {
                let blocks = snapshot.blocks.as_ref().unwrap();
                prop_assert!(
                    blocks.blocks.iter().any(|block| block.cidr.contains(*address)),
                    "{address} in no block: {blocks:?}"
                );
            }
            for released in &snapshot.allocations.released {
                prop_assert!(!held.contains(&released.address), "{} held and released", released.address);
            }
        }
    }
}

#[test]
fn without_a_store_adding_says_so_and_deleting_succeeds() {
    let run_dir = tempfile::tempdir().unwrap();
    let store = Store::new(run_dir.path());
    let error = store.allocate(&request("a", "eth0")).unwrap_err();
    assert!(matches!(error, StoreError::Missing(_)) && error.is_transient(), "{error}");
    assert_eq!(store.mark_deleting("a", "eth0").unwrap(), None);
    assert_eq!(store.release("a", "eth0").unwrap(), None);
    assert!(fs::read_dir(run_dir.path()).unwrap().next().is_none(), "nothing is made on the way");
}

#[test]
fn without_blocks_adding_may_be_tried_later() {
    let run_dir = tempfile::tempdir().unwrap();
    let store = Store::new(run_dir.path());
    store.create().unwrap();
    let error = store.allocate(&request("a", "eth0")).unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[test]
fn patience_for_the_lock_is_bounded() {
    let (_keep, store) = store_with(&["10.0.0.0/24"]);
    let held = fs::File::options().write(true).open(store.files().lock_path()).unwrap();
    held.lock().unwrap();
    let impatient = store.clone().with_lock_wait(Duration::from_millis(50));
    let started = Instant::now();
    let error = impatient.allocate(&request("a", "eth0")).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }) && error.is_transient(), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(held);
    store.allocate(&request("a", "eth0")).unwrap();
}

#[test]
fn a_broken_file_changes_nothing() {
    let (_keep, store) = store_with(&["10.0.0.0/24"]);
    store.allocate(&request("a", "eth0")).unwrap();
    fs::write(store.files().allocations_path(), "{\"version\":1,").unwrap();
    for error in [
        store.allocate(&request("b", "eth0")).unwrap_err(),
        store.release("a", "eth0").unwrap_err(),
        store.set_blocks("n", &nets(&["10.0.1.0/24"])).unwrap_err(),
    ] {
        assert!(!error.is_transient() && error.to_string().contains("allocations.json"), "{error}");
    }
    assert_eq!(fs::read_to_string(store.files().allocations_path()).unwrap(), "{\"version\":1,");
    assert_eq!(store.files().read_blocks().unwrap().unwrap().blocks[0].cidr, nets(&["10.0.0.0/24"])[0]);
}

#[test]
fn a_block_that_leaves_the_node_drains() {
    let (_keep, store) = store_with(&["10.0.0.0/24"]);
    let old = store.allocate(&request("a", "eth0")).unwrap().record;
    let blocks = store.set_blocks("n", &nets(&["10.0.1.0/24"])).unwrap().blocks;
    assert_eq!(
        blocks.iter().map(|block| (block.cidr.to_string(), block.state)).collect::<Vec<_>>(),
        [("10.0.1.0/24".into(), BlockState::Active), ("10.0.0.0/24".into(), BlockState::Draining)]
    );
    let new = store.allocate(&request("b", "eth0")).unwrap().record;
    assert_eq!(new.addresses, ["10.0.1.2".parse::<IpAddr>().unwrap()]);
    assert_eq!(store.find("a", "eth0").unwrap().unwrap().addresses, old.addresses);
    store.release("a", "eth0").unwrap();
    let blocks = store.set_blocks("n", &nets(&["10.0.1.0/24"])).unwrap().blocks;
    assert_eq!(blocks.len(), 1, "nothing in it any more");
}

#[test]
fn setting_the_same_blocks_again_writes_nothing() {
    let (_keep, store) = store_with(&["10.0.0.0/24"]);
    let before = fs::metadata(store.files().blocks_path()).unwrap();
    store.set_blocks("node-a1", &nets(&["10.0.0.9/24", "10.0.0.0/24"])).unwrap();
    let after = fs::metadata(store.files().blocks_path()).unwrap();
    assert_eq!(before.ino(), after.ino());
}

/// Set in the processes that the racing test starts: the run folder they work in.
const RACER_DIR: &str = "CAUSEWAY_TEST_RACER_DIR";

/// Not a test by itself: what one racing process does, for as long as it is let. Returns at once in a usual run.
#[test]
fn racer() {
    let Some(dir) = std::env::var_os(RACER_DIR) else { return };
    let store = Store::new(Path::new(&dir)).with_rest(Duration::from_millis(5));
    let me = std::process::id();
    loop {
        let container = format!("c{me}-{}", fastrand::u8(0..6));
        match fastrand::u8(0..3) {
            0 => match store.allocate(&request(&container, "eth0")) {
                Ok(_) | Err(StoreError::Allocate(AllocateError::Full { .. })) => {}
                Err(error) => panic!("{error}"),
            },
            1 => drop(store.mark_deleting(&container, "eth0").unwrap()),
            _ => drop(store.release(&container, "eth0").unwrap()),
        }
    }
}

fn start_racer(run_dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "racer", "--nocapture"])
        .env(RACER_DIR, run_dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn processes_that_race_and_are_killed_leave_a_sound_store() {
    let (run_dir, store) = store_with(&["10.0.0.0/27", "fd00::/123"]);
    let reader = PodStore::new(run_dir.path());
    let mut racers: Vec<Child> = (0..4).map(|_| start_racer(run_dir.path())).collect();
    let mut last = 0;
    let (mut killed, mut seen) = (0, 0);
    // Seconds on an idle machine.
    let end = Instant::now() + Duration::from_secs(240);
    while killed < 12 {
        assert!(Instant::now() < end, "only {killed} killed, {seen} states seen: the racers stand still");
        let snapshot = reader.read().expect("a state is always whole");
        let addresses: Vec<&IpAddr> =
            snapshot.allocations.allocations.iter().flat_map(|record| &record.addresses).collect();
        assert_eq!(addresses.iter().collect::<HashSet<_>>().len(), addresses.len(), "an address twice");
        assert!(snapshot.allocations.generation >= last, "a commit got lost");
        if snapshot.allocations.generation > last {
            seen += 1;
        }
        // Somebody dies whenever enough was done since the last death.
        if snapshot.allocations.generation >= last + 50 || (last == 0 && snapshot.allocations.generation > 0)
        {
            last = snapshot.allocations.generation;
            let victim = killed % racers.len();
            assert!(racers[victim].try_wait().unwrap().is_none(), "a racer failed by itself");
            racers[victim].kill().unwrap();
            racers[victim].wait().unwrap();
            racers[victim] = start_racer(run_dir.path());
            killed += 1;
        }
    }
    for racer in &mut racers {
        racer.kill().unwrap();
        racer.wait().unwrap();
    }
    // Nobody holds the lock any more, and every record can still be given back.
    for record in reader.read().unwrap().allocations.allocations {
        assert!(matches!(record.state, AllocationState::Active | AllocationState::Deleting));
        assert!(store.release(&record.container, &record.interface).unwrap().is_some());
    }
    assert!(reader.read().unwrap().allocations.allocations.is_empty());
}
