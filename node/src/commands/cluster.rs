//! `meridian init`, `meridian node`, `meridian status`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{short_bytes, table};
use crate::cli::{ConnectionArgs, InitArgs, NodeArgs};
use crate::client::{AdminClient, UsageError, ask_ready, find_ready};
use crate::config::{LimitsSection, NodeConfig, RestSection};
use crate::init::{ClusterPlan, read_ready};
use crate::server::{ProcessMemory, RunningNode};
use crate::signals;
use crate::tls_client::read_ca;

/// Writes a cluster and says how to run it.
pub fn init(args: &InitArgs, json: bool) -> Result<ExitCode> {
    let plan = ClusterPlan {
        directory: args.dir.clone(),
        name: args.name.clone(),
        datacenters: args.datacenters,
        nodes: args.nodes,
        racks: args.racks,
        port_base: args.port_base,
        partitions: args.partitions,
        code: args.replication,
        address: args.address.clone(),
        wan_address: args.wan_address.clone(),
        public_address: args.public_address.clone(),
        limits: LimitsSection::default(),
        rest: RestSection::default(),
        tls: args.tls,
    };
    let ready = plan.write()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&ready)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("Wrote cluster {} to {}. Start its nodes:\n", args.name, args.dir.display());
    for dc in &ready.datacenters {
        for node in &dc.nodes {
            let config = args.dir.join(&dc.name).join(&node.name).join("node.toml");
            println!("  meridian node --config {}", config.display());
        }
    }
    println!("\nThen: meridian status --ready-file {}", args.dir.join("ready.json").display());
    Ok(ExitCode::SUCCESS)
}

/// Runs one node until it is told to stop.
pub async fn node(args: &NodeArgs) -> Result<ExitCode> {
    let config = args.config.as_deref().ok_or_else(|| UsageError("node needs --config node.toml".to_owned()))?;
    let mut config = NodeConfig::load(config)?;
    if let Some(data) = &args.data {
        config.data = data.clone();
    }
    let memory = ProcessMemory::new(&config.limits);
    let name = config.member.name.clone();
    let node = RunningNode::start(config, memory).await?;
    tokio::select! {
        () = node.wait_ready() => tracing::info!(node = %name, "ready"),
        stop = signals::stop_requested() => {
            stop?;
            node.stop().await;
            return Ok(ExitCode::SUCCESS);
        }
    }
    signals::stop_requested().await?;
    tracing::info!(node = %name, "stopping");
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Whether the asked node serves; for health checks and scripts.
pub async fn ready(connection: &ConnectionArgs) -> Result<ExitCode> {
    let (endpoint, ca_pem) = match &connection.endpoint {
        Some(endpoint) => {
            let ready = connection.ready_file.as_deref().map(read_ready).transpose()?;
            (endpoint.clone(), ready.and_then(|ready| ready.ca_pem))
        }
        None => {
            let ready = find_ready(connection.ready_file.as_deref())?;
            let first = ready.datacenters.first().context("the ready file names no datacenter")?;
            (first.rest.clone(), ready.ca_pem)
        }
    };
    let ca_pem = connection.ca_file.as_deref().map(read_ca).transpose()?.or(ca_pem);
    let (status, answer) = ask_ready(&endpoint, ca_pem.as_deref()).await?;
    let serves = status == http::StatusCode::OK;
    if connection.json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else if serves {
        println!("{endpoint} serves");
    } else {
        let missing = answer["missing"].as_array().into_iter().flatten().filter_map(Value::as_str);
        println!("{endpoint} does not serve yet: lacks {}", missing.collect::<Vec<_>>().join(", "));
    }
    Ok(if serves { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Nodes, partitions and volumes of the asked datacenter.
pub async fn status(connection: &ConnectionArgs) -> Result<ExitCode> {
    let status: Value = AdminClient::connect(connection)?.get("/admin/v1/status").await?;
    let ready = status["ready"].as_bool().unwrap_or(false);
    let code = if ready { ExitCode::SUCCESS } else { ExitCode::from(1) };
    if connection.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(code);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let missing: Vec<String> = status["missing"].as_array().into_iter().flatten().map(&text).collect();
    let state = if ready { "READY".to_owned() } else { format!("NOT READY: lacks {}", missing.join(", ")) };
    println!("cluster {}   datacenter {}   {state}\n", text(&status["cluster"]), text(&status["datacenter"]));
    print_rows(&status["nodes"], &["NODE", "RACK", "S3", "REST", "BOOTS", "GOSSIP"], |row| {
        ["name", "rack", "s3", "rest", "boot_counter", "gossip"].map(|field| text(&row[field])).to_vec()
    });
    print_rows(&status["partitions"], &["PARTITION", "LEADER", "TERM", "SERVING"], |row| {
        ["partition", "leader", "term", "serving"].map(|field| text(&row[field])).to_vec()
    });
    print_rows(&status["volumes"], &["VOLUME", "CODE", "ROLE", "STATE", "SIZE", "NEEDLES", "DAMAGED"], |row| {
        let state = match (row["failed"].is_null(), row["sealed"].as_bool()) {
            (false, _) => "failed",
            (true, Some(true)) => "sealed",
            _ => "open",
        };
        vec![
            text(&row["volume"]),
            text(&row["code"]),
            text(&row["role"]),
            state.to_owned(),
            short_bytes(row["committed_bytes"].as_u64().unwrap_or(0)),
            text(&row["needles"]),
            text(&row["damaged_ranges"]),
        ]
    });
    Ok(code)
}

fn print_rows(rows: &Value, header: &[&str], cells: impl Fn(&Value) -> Vec<String>) {
    let mut table = table(header);
    for row in rows.as_array().into_iter().flatten() {
        table.add_row(cells(row));
    }
    println!("{table}\n");
}
