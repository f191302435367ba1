//! What there is: nodes, volumes, who is asked; and what is not there yet.
//!
//! Names of fields are those that clients of blob stores of this kind read.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use meridian_object::{BlobNode, VolumePlaces};
use serde_json::{Map, Value, json};

use super::BlobState;
use super::answer::{json_answer, refuse};

/// Volumes that one node could still take are not counted by slots; clients read these two fields all the same.
const VOLUMES_MAX: usize = 1 << 24;

fn version() -> String {
    format!("meridian {}", env!("CARGO_PKG_VERSION"))
}

fn by_rack(nodes: Vec<BlobNode>) -> BTreeMap<String, Vec<BlobNode>> {
    let mut racks: BTreeMap<String, Vec<BlobNode>> = BTreeMap::new();
    for node in nodes {
        racks.entry(node.rack.clone()).or_default().push(node);
    }
    racks
}

pub(crate) async fn directory(State(state): State<BlobState>, request: Request) -> Response {
    let (_, region) = state.objects.placement_defaults();
    let volumes = state.objects.volume_places();
    let held = |node: &BlobNode| volumes.iter().filter(|volume| volume.nodes.contains(&node.id)).count();
    let racks: Vec<Value> = by_rack(state.objects.blob_nodes())
        .into_iter()
        .map(|(rack, nodes)| {
            let nodes: Vec<Value> = nodes
                .iter()
                .map(|node| {
                    let volumes = held(node);
                    let free = VOLUMES_MAX - volumes;
                    json!({
                        "Id": node.name, "Url": node.rest, "PublicUrl": node.rest, "Volumes": volumes,
                        "Free": free, "Max": VOLUMES_MAX, "Live": node.live, "Draining": node.draining,
                    })
                })
                .collect();
            json!({ "Id": rack, "DataNodes": nodes })
        })
        .collect();
    let mut writables: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for volume in volumes.iter().filter(|volume| volume.writable) {
        let code = volume.code.map_or_else(String::new, |code| code.to_string());
        writables.entry(code).or_default().push(volume.volume.get());
    }
    let layouts: Vec<Value> = writables
        .into_iter()
        .map(|(code, writables)| json!({ "collection": "", "replication": code, "writables": writables }))
        .collect();
    let answer = json!({
        "Topology": { "DataCenters": [{ "Id": region.to_string(), "Racks": racks }], "Layouts": layouts },
        "Version": version(),
    });
    json_answer(request.uri(), StatusCode::OK, &answer)
}

pub(crate) async fn volumes(State(state): State<BlobState>, request: Request) -> Response {
    let (_, region) = state.objects.placement_defaults();
    let volumes = state.objects.volume_places();
    let listing = |volume: &VolumePlaces| {
        json!({
            "Id": volume.volume.get(),
            "Size": volume.file_bytes,
            "ReplicaPlacement": volume.code.map(|code| code.to_string()),
            "Collection": "",
            "FileCount": volume.needles,
            "FileBytes": volume.bytes,
            "ReadOnly": !volume.writable,
            "Mirror": volume.mirror,
        })
    };
    let mut racks = Map::new();
    for (rack, nodes) in by_rack(state.objects.blob_nodes()) {
        let held = nodes.iter().map(|node| {
            let of_node = volumes.iter().filter(|volume| volume.nodes.contains(&node.id)).map(listing).collect();
            (node.rest.clone(), Value::Array(of_node))
        });
        racks.insert(rack, Value::Object(held.collect()));
    }
    let answer = json!({ "Version": version(), "Volumes": { "DataCenters": { region.to_string(): racks } } });
    json_answer(request.uri(), StatusCode::OK, &answer)
}

pub(crate) async fn cluster(State(state): State<BlobState>, request: Request) -> Response {
    // Every node hands out fids: whoever is asked is the leader that such clients look for.
    let (own, nodes) = (state.objects.node_id(), state.objects.blob_nodes());
    let leader = nodes.iter().find(|node| node.id == own).map(|node| node.rest.clone());
    let peers: Vec<&String> = nodes.iter().filter(|node| node.id != own).map(|node| &node.rest).collect();
    json_answer(request.uri(), StatusCode::OK, &json!({ "IsLeader": true, "Leader": leader, "Peers": peers }))
}

pub(crate) async fn vacuum(request: Request) -> Response {
    let text = "volumes are not compacted yet: what is deleted is no longer read, and keeps its space";
    refuse(request.uri(), StatusCode::NOT_IMPLEMENTED, text)
}

pub(crate) async fn delete_collection(request: Request) -> Response {
    let text = "volumes are not kept apart by collection yet: delete blobs one by one";
    refuse(request.uri(), StatusCode::NOT_IMPLEMENTED, text)
}
