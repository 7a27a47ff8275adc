//! ADD: validate everything, then do, then answer; undo in reverse when anything fails, the answer included.

use std::net::IpAddr;

use causeway_api::pod_store::{self, BlockState};
use causeway_ipam::{Request, Store};
use causeway_kernel::{Kernel, Netlink, VethPair};

use crate::attachment::{Attachment, PodNetns};
use crate::config::{self, Config};
use crate::env::Environment;
use crate::error::{CniError, Code};
use crate::names::Names;
use crate::plan::{self, Step};
use crate::{host_end, pod_end, print, result};

/// The MTU where neither the configuration nor fib-sync says any.
const DEFAULT_MTU: u32 = 1_500;

/// What the steps work on.
struct Work<'a> {
    store: Store,
    request: Request,
    netns: &'a PodNetns,
    host: Netlink,
    pod: Netlink,
    attachment: Attachment<'a>,
    /// The record was there before: an ADD before this one died, or is at work.
    known: bool,
    pair: Pair,
}

/// The veth pair, as far as this ADD is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pair {
    NotMade,
    /// With the host end's index.
    Made(u32),
    Deleted,
}

impl Pair {
    fn index(self) -> Result<u32, CniError> {
        match self {
            Pair::Made(index) => Ok(index),
            Pair::NotMade | Pair::Deleted => Err(CniError::new(Code::Internal, "there is no veth pair")),
        }
    }
}

/// The steps of ADD, in order.
#[derive(Debug, Clone, Copy)]
enum Do {
    Allocate,
    MakePair,
    HostEnd,
    PodEnd,
    HostRoutes,
}

const STEPS: [Do; 5] = [Do::Allocate, Do::MakePair, Do::HostEnd, Do::PodEnd, Do::HostRoutes];

impl Step<Work<'_>> for Do {
    type Error = CniError;

    fn apply(&self, work: &mut Work<'_>) -> Result<(), CniError> {
        let attachment = &mut work.attachment;
        let names = attachment.names;
        match self {
            Do::Allocate => {
                let allocated = work.store.allocate(&work.request)?;
                work.known = allocated.known;
                attachment.addresses = allocated.record.addresses;
            }
            Do::MakePair => {
                work.host.add_veth(&VethPair {
                    name: &names.veth,
                    mac: names.host_mac,
                    peer_name: attachment.interface,
                    peer_mac: names.pod_mac,
                    peer_netns: Some(work.netns.fd()),
                    mtu: attachment.mtu,
                })?;
                match work.host.link_by_name(&names.veth)? {
                    Some(link) => work.pair = Pair::Made(link.index),
                    None => {
                        let message = format!("{} was made, and is gone again", names.veth);
                        return Err(CniError::new(Code::Internal, message));
                    }
                }
            }
            Do::HostEnd => {
                host_end::configure(&mut work.host, work.pair.index()?, names, &attachment.addresses)?;
            }
            Do::PodEnd => {
                attachment.default_metrics = pod_end::configure(
                    &mut work.pod,
                    work.netns,
                    attachment.interface,
                    names,
                    &attachment.addresses,
                )?;
            }
            Do::HostRoutes => {
                host_end::add_routes(&mut work.host, work.pair.index()?, &attachment.addresses)?;
            }
        }
        Ok(())
    }

    fn undo(&self, work: &mut Work<'_>) -> Result<(), CniError> {
        match (self, work.pair) {
            (Do::MakePair, Pair::Made(index)) => {
                match work.host.delete_link(index) {
                    Err(error) if !error.missing() => return Err(error.into()),
                    _ => work.pair = Pair::Deleted,
                }
                Ok(())
            }
            // The addresses of a pair that could not be deleted are still in use. A pair that was there before belongs
            // to whoever made the record: both stay as they are.
            (Do::Allocate, Pair::Made(_)) => Ok(()),
            (Do::Allocate, Pair::NotMade) if work.known => Ok(()),
            (Do::Allocate, _) => {
                work.store.release(&work.request.container, &work.request.interface)?;
                Ok(())
            }
            // The rest goes with the pair.
            (Do::MakePair | Do::HostEnd | Do::PodEnd | Do::HostRoutes, _) => Ok(()),
        }
    }
}

/// Adds the container to the network.
///
/// # Errors
/// [`CniError`]; whatever had been done is then undone.
pub fn add(environment: &Environment, config: &Config) -> Result<(), CniError> {
    let netns = PodNetns::open(environment)?;
    let names = Names::of(&environment.container, &environment.interface);
    let store = Store::new(&config.run_dir);
    let mtu = mtu(config, &store)?;
    let mut pod = netns.netlink()?;
    let mut host = Netlink::open()?;
    refuse_second(environment, &names, &mut host, &mut pod)?;
    let request = Request {
        container: environment.container.clone(),
        interface: environment.interface.clone(),
        network: config.name.clone(),
        pod: environment.pod.clone(),
        veth: names.veth.clone(),
        netns: netns.identity.clone(),
    };
    let attachment = Attachment {
        interface: &environment.interface,
        netns_path: &environment.netns,
        names: &names,
        mtu,
        addresses: Vec::new(),
        default_metrics: Vec::new(),
    };
    let mut work =
        Work { store, request, netns: &netns, host, pod, attachment, known: false, pair: Pair::NotMade };
    let failed = match plan::run(&STEPS, &mut work) {
        Ok(()) => match print(&result::render(&work.attachment, config)) {
            Ok(()) => return Ok(()),
            Err(error) => [error].into_iter().chain(plan::undo(&STEPS, &mut work)).collect(),
        },
        Err(errors) => errors,
    };
    Err(CniError::all(failed).unwrap_or_else(|| CniError::new(Code::Internal, "ADD failed")))
}

/// Before anything is touched: with either end of the pair there, nothing could be done here but harm.
fn refuse_second(
    environment: &Environment,
    names: &Names,
    host: &mut Netlink,
    pod: &mut Netlink,
) -> Result<(), CniError> {
    let Environment { container, interface, .. } = environment;
    let message = if pod.link_by_name(interface)?.is_some() {
        format!("CNI_IFNAME {interface}: the container has an interface of that name already")
    } else if host.link_by_name(&names.veth)?.is_some() {
        format!(
            "container {container} interface {interface}: its host interface {} exists already",
            names.veth
        )
    } else {
        return Ok(());
    };
    Err(CniError::new(Code::InterfaceExists, message))
}

/// The MTU of both ends: the configuration's, or the node's; it must do for the families the pod will have.
fn mtu(config: &Config, store: &Store) -> Result<u32, CniError> {
    let unreadable = |error: pod_store::PodStoreError| CniError::new(Code::Io, error.to_string());
    let mtu = match config.mtu {
        Some(mtu) => mtu,
        None => pod_store::read_mtu(&config.run_dir).map_err(unreadable)?.unwrap_or(DEFAULT_MTU),
    };
    let blocks = store.files().read_blocks().map_err(unreadable)?;
    let has_ipv6 = blocks
        .iter()
        .flat_map(|blocks| &blocks.blocks)
        .any(|block| block.state == BlockState::Active && IpAddr::is_ipv6(&block.cidr.ip()));
    config::check_mtu(mtu, has_ipv6)?;
    Ok(mtu)
}
