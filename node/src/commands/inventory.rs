//! `meridian node list`, `node drain`, `volume list`, `volume show`.

use std::process::ExitCode;

use anyhow::Result;
use meridian_replication::{NodeListing, VolumeListing};
use meridian_rest::DrainRequest;

use super::{short_bytes, table};
use crate::cli::{ConnectionArgs, NodeCommand};
use crate::client::{AdminClient, CALL_DEADLINE, UsageError};

/// The nodes of the asked datacenter, or a change of one.
pub async fn node_command(connection: &ConnectionArgs, command: &NodeCommand) -> Result<ExitCode> {
    let client = AdminClient::connect(connection)?;
    let (nodes, is_list) = match command {
        NodeCommand::List => (client.get::<Vec<NodeListing>>("/admin/v1/nodes").await?, true),
        NodeCommand::Drain { node, undo } => {
            let request = DrainRequest { node: node.clone(), draining: !undo };
            (vec![client.post("/admin/v1/nodes/drain", &request, CALL_DEADLINE).await?], false)
        }
    };
    if connection.json {
        let text =
            if is_list { serde_json::to_string_pretty(&nodes)? } else { serde_json::to_string_pretty(&nodes[0])? };
        println!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows =
        table(&["NODE", "ID", "RACK", "GOSSIP", "DRAINING", "REPLICAS", "PRIMARIES", "MIRRORS", "LEADS", "S3"]);
    for node in nodes {
        rows.add_row(vec![
            node.name,
            node.id.to_string(),
            node.rack,
            node.gossip,
            if node.draining { "yes" } else { "" }.to_owned(),
            node.replicas.to_string(),
            node.primaries.to_string(),
            node.mirrors.to_string(),
            node.leads.to_string(),
            node.s3,
        ]);
    }
    println!("{rows}");
    Ok(ExitCode::SUCCESS)
}

/// The volumes of the asked datacenter, or one of them.
pub async fn volumes(connection: &ConnectionArgs, wanted: Option<u32>) -> Result<ExitCode> {
    let mut volumes: Vec<VolumeListing> = AdminClient::connect(connection)?.get("/admin/v1/volumes").await?;
    if let Some(wanted) = wanted {
        volumes.retain(|volume| volume.volume == wanted);
        if volumes.is_empty() {
            return Err(UsageError(format!("volume {wanted} is not of the asked datacenter; see `volume list`")).into());
        }
    }
    if connection.json {
        let text = match wanted {
            Some(_) => serde_json::to_string_pretty(&volumes[0])?,
            None => serde_json::to_string_pretty(&volumes)?,
        };
        println!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(&["VOLUME", "CODE", "STATE", "COMMITTED", "ROLE", "DC", "RACK", "NODE", "LENGTH", "LIVE"]);
    let bytes = |length: Option<u64>| length.map_or_else(|| "?".to_owned(), short_bytes);
    for volume in volumes {
        for (place, copy) in volume.copies.into_iter().enumerate() {
            let of_volume = |text: String| if place == 0 { text } else { String::new() };
            rows.add_row(vec![
                of_volume(volume.volume.to_string()),
                of_volume(volume.code.clone()),
                of_volume(volume.state.clone()),
                of_volume(bytes(volume.committed)),
                copy.role,
                copy.datacenter,
                copy.rack.unwrap_or_else(|| "?".to_owned()),
                copy.node.unwrap_or_else(|| "?".to_owned()),
                bytes(copy.length),
                copy.live.map_or("?", |live| if live { "yes" } else { "no" }).to_owned(),
            ]);
        }
    }
    println!("{rows}");
    Ok(ExitCode::SUCCESS)
}
