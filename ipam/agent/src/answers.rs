//! The answers of the local API: `GET /v1/ipam` and this daemon's part of `GET /v1/node`.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use causeway_api::control::{Ipam, IpamAllocation, IpamBlock, NodeInfo};
use causeway_api::pod_store::{Allocation, AllocationState};
use causeway_daemon::http::refuse;
use causeway_ipam::report::BlockUse;

use crate::keeper::Keeper;

/// `GET /v1/ipam`: the blocks and who has which address.
pub async fn ipam(keeper: Arc<Keeper>) -> Response {
    match keeper.snapshot() {
        Ok(snapshot) => {
            let blocks = keeper.block_use(&snapshot).into_iter().map(block).collect();
            Json(Ipam { blocks }).into_response()
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// `GET /v1/node`: blocks, conditions and configuration.
pub async fn node(keeper: Arc<Keeper>) -> Json<NodeInfo> {
    let configuration = keeper.configuration();
    Json(NodeInfo {
        name: keeper.node().to_owned(),
        pod_cidrs: configuration.current.blocks.clone(),
        conditions: keeper.conditions(),
        configuration: Some(configuration.info()),
        ..NodeInfo::default()
    })
}

fn block(block: BlockUse<'_>) -> IpamBlock {
    IpamBlock {
        cidr: block.cidr,
        total: block.total,
        used: block.used,
        free: block.free,
        quarantined: block.quarantined,
        allocations: block
            .allocations
            .into_iter()
            .map(|(address, record)| IpamAllocation {
                address,
                container: record.container.clone(),
                interface: record.interface.clone(),
                pod: pod(record),
                veth: Some(record.veth.clone()),
                state: state(record.state).to_owned(),
            })
            .collect(),
    }
}

fn pod(record: &Allocation) -> Option<String> {
    record.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name))
}

fn state(state: AllocationState) -> &'static str {
    match state {
        AllocationState::Active => "active",
        AllocationState::Deleting => "deleting",
    }
}
