//! What the operator's commands say about replication, asked of one datacenter's endpoint.

use std::process::Output;

use anyhow::{Context, Result};
use meridian_types::Timestamp;
use serde_json::Value;

use crate::cluster::{Cluster, program};

/// `meridian replication status --json`.
#[derive(Debug, Clone)]
pub struct ReplicationScreen(Value);

/// How far `to` is behind `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// `ok`, `warn`, `critical`, `down`, `clock`…
    pub state: String,
    /// W_meta and W_data, as raw timestamps.
    pub meta: u64,
    pub data: u64,
    pub visible_ms: u64,
    pub durable_ms: u64,
    /// What holds it back, in words; empty when nothing does.
    pub reason: String,
}

/// What would be lost with a datacenter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    pub writes_without_copy: u64,
    /// Of each other datacenter.
    pub missing_bytes: Vec<u64>,
    /// It is what was last heard.
    pub stale: bool,
}

impl Lag {
    /// W_meta and W_data in milliseconds since the Unix epoch; 0 for none yet.
    pub fn meta_unix_ms(&self) -> u64 {
        unix_ms(self.meta)
    }

    pub fn data_unix_ms(&self) -> u64 {
        unix_ms(self.data)
    }
}

fn unix_ms(raw: u64) -> u64 {
    if raw == 0 { 0 } else { Timestamp::from_raw(raw).unix_ms() }
}

impl ReplicationScreen {
    /// What one datacenter says.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of(cluster: &Cluster, asked: &str) -> Result<Self> {
        let output = command_at(cluster, asked, &["replication", "status", "--json"]).await?;
        let said = || format!("status of {asked}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self(serde_json::from_slice(&output.stdout).with_context(said)?))
    }

    /// The whole document.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// "ok", "warn" or "critical".
    pub fn verdict(&self) -> &str {
        self.0["verdict"].as_str().unwrap_or_default()
    }

    pub fn lag(&self, from: &str, to: &str) -> Result<Lag> {
        let pair = |list: &str| {
            let mut rows = self.0[list].as_array().into_iter().flatten();
            let row = rows.rfind(|row| row["from"] == from && row["to"] == to).cloned();
            row.with_context(|| format!("{from}→{to} is missing in {list} of {self}"))
        };
        let (cell, link) = (pair("lag")?, pair("links")?);
        let number = |name: &str| cell[name].as_u64().unwrap_or(u64::MAX);
        Ok(Lag {
            state: cell["state"].as_str().unwrap_or_default().to_owned(),
            meta: number("meta"),
            data: number("data"),
            visible_ms: number("visible_ms"),
            durable_ms: number("durable_ms"),
            reason: link["reason"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// What it says would be lost with a datacenter.
    ///
    /// # Errors
    /// When it says nothing of it.
    pub fn exposure(&self, datacenter: &str) -> Result<Exposure> {
        let mut rows = self.0["exposure"].as_array().into_iter().flatten();
        let row = rows.rfind(|row| row["datacenter"] == datacenter);
        let row = row.with_context(|| format!("nothing is said of the loss of {datacenter} in {self}"))?;
        let missing = row["missing"].as_array().into_iter().flatten();
        Ok(Exposure {
            writes_without_copy: row["writes_without_copy"].as_u64().context("a number of writes")?,
            missing_bytes: missing.filter_map(|to| to["bytes"].as_u64()).collect(),
            stale: row["stale"] == true,
        })
    }

    /// A datacenter's clock minus the asked one's.
    pub fn clock_offset_ms(&self, datacenter: &str) -> Option<i64> {
        let rows = self.0["datacenters"].as_array()?;
        rows.iter().find(|row| row["name"] == datacenter)?["clock_offset_ms"].as_i64()
    }
}

impl std::fmt::Display for ReplicationScreen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:#}", self.0)
    }
}

/// Runs `meridian` against the REST endpoint of one datacenter.
///
/// # Errors
/// When it can't be run; what it says is in the output.
pub async fn command_at(cluster: &Cluster, asked: &str, words: &[&str]) -> Result<Output> {
    let (access_key, secret_key) = cluster.keys();
    let mut command = tokio::process::Command::new(program());
    command.args(words).arg("--endpoint").arg(cluster.rest(asked)).kill_on_drop(true);
    command.env("MERIDIAN_ACCESS_KEY", access_key).env("MERIDIAN_SECRET_KEY", secret_key);
    command.output().await.context("run meridian")
}
