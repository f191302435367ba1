//! `meridian replication explain`, `conflicts`, `parked list`.

use std::process::ExitCode;

use anyhow::Result;
use meridian_replication::{Conflict, Explanation, ParkedVolume};

use super::{short_bytes, table};
use crate::cli::ConnectionArgs;
use crate::client::{AdminClient, UsageError};

/// Each datacenter's version of BUCKET/KEY.
pub async fn replication_explain(connection: &ConnectionArgs, object: &str) -> Result<ExitCode> {
    let (bucket, key) = object
        .split_once('/')
        .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
        .ok_or_else(|| UsageError(format!("{object:?} is not BUCKET/KEY")))?;
    let path = format!("/admin/v1/replication/explain?bucket={}&key={}", encode(bucket), encode(key));
    let explanation: Explanation = AdminClient::connect(connection)?.get(&path).await?;
    if connection.json {
        println!("{}", serde_json::to_string_pretty(&explanation)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{}/{}   partition {}   {}\n",
        explanation.bucket, explanation.key, explanation.partition, explanation.verdict
    );
    let mut rows = table(&["DC", "STATE", "WRITTEN IN", "AT", "SIZE", "ETAG", "BYTES HERE", "WINS", "REASON"]);
    for version in explanation.versions {
        rows.add_row(vec![
            version.datacenter,
            version.state,
            version.written_in.unwrap_or_default(),
            version.written_ms.map_or_else(String::new, time_of),
            version.size.map_or_else(String::new, short_bytes),
            version.etag.unwrap_or_default(),
            format!("{}/{} chunks", version.chunks_here, version.chunks),
            if version.wins { "*" } else { "" }.to_owned(),
            version.reason,
        ]);
    }
    println!("{rows}");
    Ok(ExitCode::SUCCESS)
}

/// The recorded losers.
pub async fn replication_conflicts(connection: &ConnectionArgs) -> Result<ExitCode> {
    let conflicts: Vec<Conflict> = AdminClient::connect(connection)?.get("/admin/v1/replication/conflicts").await?;
    if connection.json {
        println!("{}", serde_json::to_string_pretty(&conflicts)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(&["BUCKET", "KEY", "LOST", "LOSER", "AT", "WINNER", "AT"]);
    for conflict in conflicts {
        rows.add_row(vec![
            conflict.bucket,
            conflict.key,
            conflict.lost,
            conflict.loser.datacenter,
            time_of(conflict.loser.at_ms),
            conflict.winner.datacenter,
            time_of(conflict.winner.at_ms),
        ]);
    }
    println!("{rows}");
    Ok(ExitCode::SUCCESS)
}

/// The mirrors that stand still; exit code 1 when there are any.
pub async fn replication_parked(connection: &ConnectionArgs) -> Result<ExitCode> {
    let parked: Vec<ParkedVolume> = AdminClient::connect(connection)?.get("/admin/v1/replication/parked").await?;
    let code = ExitCode::from(u8::from(!parked.is_empty()));
    if connection.json {
        println!("{}", serde_json::to_string_pretty(&parked)?);
        return Ok(code);
    }
    let mut rows = table(&["SOURCE", "VOLUME", "OFFSET", "REASON"]);
    for volume in parked {
        rows.add_row(vec![volume.source, volume.volume.to_string(), volume.offset.to_string(), volume.reason]);
    }
    println!("{rows}");
    Ok(code)
}

pub(super) fn time_of(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(String::new, |at| at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
pub(super) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
