//! CHECK: whether everything is as ADD left it. Finds all that is wrong, changes nothing.

use causeway_api::pod_store::AllocationState;
use causeway_ipam::Store;
use causeway_kernel::Netlink;

use crate::attachment::PodNetns;
use crate::config::Config;
use crate::env::Environment;
use crate::error::{CniError, Code};
use crate::names::Names;
use crate::result::PrevResult;
use crate::{host_end, pod_end};

/// Compares `prevResult`, the store and the kernel.
///
/// # Errors
/// [`Code::CheckFailed`] with everything that is missing or changed; [`Code::UnknownContainer`] without any trace of
/// the attachment; other codes when it could not be checked.
pub fn check(environment: &Environment, config: &Config) -> Result<(), CniError> {
    let result = PrevResult::of(config)?;
    let names = Names::of(&environment.container, &environment.interface);
    let record = Store::new(&config.run_dir)
        .find(&environment.container, &environment.interface)
        .map_err(|error| CniError::new(Code::Io, error.to_string()))?;
    let mut host = Netlink::open()?;
    let Some(record) = record else {
        let (container, interface) = (&environment.container, &environment.interface);
        let message = format!("container {container} interface {interface}: not in the pod store");
        let code = match host.link_by_name(&names.veth)? {
            Some(_) => Code::CheckFailed,
            None => Code::UnknownContainer,
        };
        return Err(CniError::new(code, message));
    };
    let netns = PodNetns::open(environment)?;
    let mut faults = Vec::new();
    if record.state == AllocationState::Deleting {
        faults.push("its DEL has begun".to_owned());
    }
    if (record.netns.dev, record.netns.ino) != (netns.identity.dev, netns.identity.ino) {
        faults.push(format!(
            "CNI_NETNS {} is another network namespace than at ADD",
            netns.identity.path.display()
        ));
    }
    faults.extend(disagreements(&result, environment, &names, &record.addresses));
    let mtu = result
        .interfaces
        .iter()
        .find(|interface| interface.name == environment.interface && !interface.sandbox.is_empty())
        .and_then(|interface| interface.mtu)
        .or(config.mtu);
    let (in_pod, pod_index) = pod_end::faults(
        &mut netns.netlink()?,
        &environment.interface,
        &names,
        mtu,
        &record.addresses,
        &result,
    )?;
    faults.extend(in_pod);
    faults.extend(host_end::faults(&mut host, &names, mtu, pod_index, &record.addresses)?);
    if faults.is_empty() {
        return Ok(());
    }
    let message =
        format!("container {} interface {}: {}", environment.container, environment.interface, faults[0]);
    Err(CniError::new(Code::CheckFailed, message).with_details(faults[1..].join("; ")))
}

/// Where `prevResult` and the store say different things.
fn disagreements(
    result: &PrevResult,
    environment: &Environment,
    names: &Names,
    addresses: &[std::net::IpAddr],
) -> Vec<String> {
    let mut faults = Vec::new();
    let sandbox = environment.netns.to_string_lossy();
    let pod = result
        .interfaces
        .iter()
        .position(|interface| interface.name == environment.interface && !interface.sandbox.is_empty());
    match pod.map(|at| &result.interfaces[at]) {
        None => faults.push(format!("prevResult has no interface {}", environment.interface)),
        Some(interface) => {
            if interface.sandbox != sandbox {
                faults.push(format!("prevResult has sandbox {}, not {sandbox}", interface.sandbox));
            }
            if !interface.mac.eq_ignore_ascii_case(&names.pod_mac.to_string()) {
                faults.push(format!(
                    "prevResult has Ethernet address {:?} for {}, not {}",
                    interface.mac, interface.name, names.pod_mac
                ));
            }
        }
    }
    match result.interfaces.iter().find(|interface| interface.name == names.veth) {
        None => faults.push(format!("prevResult has no interface {}", names.veth)),
        Some(interface) if !interface.mac.eq_ignore_ascii_case(&names.host_mac.to_string()) => {
            faults.push(format!(
                "prevResult has Ethernet address {:?} for {}, not {}",
                interface.mac, interface.name, names.host_mac
            ));
        }
        Some(_) => {}
    }
    for ip in &result.ips {
        if ip.interface.is_some_and(|interface| interface >= result.interfaces.len()) {
            faults.push(format!("prevResult: the interface of address {} does not exist", ip.address));
        } else if pod.is_some() && ip.interface == pod && !addresses.contains(&ip.address.ip()) {
            faults.push(format!("prevResult has address {}, which the pod store does not know", ip.address));
        }
    }
    for address in addresses {
        if !result.ips.iter().any(|ip| ip.address == (*address).into() && ip.interface == pod) {
            faults.push(format!("prevResult has not address {address} on {}", environment.interface));
        }
    }
    faults
}
