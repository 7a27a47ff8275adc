//! What of the node, besides its sysctls, makes routes vanish or packets fail: systemd-networkd that deletes the routes of
//! others, and checksum offload that breaks tunnelled packets. [`networkd`] and [`offload`] judge facts; this module
//! gathers them, twice a minute.

pub mod networkd;
pub mod offload;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use causeway_api::control::Condition;
use causeway_daemon::signals::Shutdown;
use causeway_kernel::ethtool::Ethtool;
use causeway_kernel::{Kernel, Link, Netlink};

use offload::{Errors, Facts, Underlay};

/// How often the facts are gathered.
const INTERVAL: Duration = Duration::from_secs(30);

/// What was found last, for `show node`.
#[derive(Debug, Clone, Default)]
pub struct CheckState(Arc<Mutex<Vec<Condition>>>);

impl CheckState {
    /// The conditions; none before the first look.
    pub fn conditions(&self) -> Vec<Condition> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, conditions: Vec<Condition>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = conditions;
    }
}

/// Looks again and again until the shutdown.
pub async fn watch(state: CheckState, shutdown: Shutdown) {
    let mut errors = Errors::default();
    while !shutdown.is_ending() {
        // A few small files and netlink answers: milliseconds, but blocking.
        let looked = tokio::task::spawn_blocking(move || {
            let conditions = look(Path::new("/"), &mut errors);
            (conditions, errors)
        });
        let Ok((conditions, kept)) = looked.await else { return };
        errors = kept;
        state.set(conditions);
        tokio::select! {
            () = shutdown.ended() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

fn look(root: &Path, errors: &mut Errors) -> Vec<Condition> {
    let mut conditions = vec![networkd::condition(root)];
    errors.add(&offload::counters(root), Instant::now());
    if let Ok(links) = Netlink::open().and_then(|mut kernel| kernel.links()) {
        let facts = facts(root, &links);
        // A node without tunnels, or one that makes them just now, has nothing to say.
        if !facts.tunnels.is_empty() {
            conditions.push(offload::condition(&facts, errors, Instant::now()));
        }
    }
    conditions
}

/// What is on of the offloads. What cannot be read counts as off.
fn facts(root: &Path, links: &[Link]) -> Facts {
    let mut ethtool = Ethtool::open().ok();
    let mut features =
        |name: &str| ethtool.as_mut().and_then(|ethtool| ethtool.features(name).ok()).unwrap_or_default();
    let vxlan = links.iter().filter(|link| link.name.starts_with("causeway-vxlan"));
    let tunnels = vxlan.map(|link| (link.name.clone(), features(&link.name))).collect();
    let hardware = links.iter().filter_map(|link| {
        let driver = std::fs::read_link(driver_path(root, &link.name)).ok()?;
        Some((link.name.clone(), driver.file_name()?.to_string_lossy().into_owned()))
    });
    let underlay = hardware.collect::<Vec<_>>().into_iter();
    let underlay = underlay.map(|(name, driver)| Underlay { features: features(&name), name, driver });
    Facts { tunnels, underlay: underlay.collect() }
}

fn driver_path(root: &Path, device: &str) -> PathBuf {
    root.join("sys/class/net").join(device).join("device/driver")
}
