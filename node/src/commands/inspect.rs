//! `meridian replication explain`, `conflicts`, `parked list` and `parked retry`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;
use meridian_replication::{CONFLICTS_PAGE_MAX, Conflict, ConflictPage, Explanation, ParkedVolume, RetryRequest};

use super::{short_bytes, table};
use crate::cli::{ConflictsArgs, ConnectionArgs};
use crate::client::{AdminClient, CALL_DEADLINE, UsageError};

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

/// The recorded losers, page by page up to the limit; says on standard error where there are more.
pub async fn replication_conflicts(connection: &ConnectionArgs, args: &ConflictsArgs) -> Result<ExitCode> {
    let client = AdminClient::connect(connection)?;
    let mut filter = String::new();
    if let Some(bucket) = &args.bucket {
        filter.push_str(&format!("&bucket={}", encode(bucket)));
    }
    if let Some(age) = args.since {
        let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        filter.push_str(&format!("&since_ms={}", now_ms.saturating_sub(age.as_millis() as u64)));
    }
    let mut after = args.after.clone();
    let (mut conflicts, mut not_asked): (Vec<Conflict>, BTreeSet<String>) = (Vec::new(), BTreeSet::new());
    loop {
        let wanted = (args.limit - conflicts.len()).min(CONFLICTS_PAGE_MAX);
        let from = after.as_ref().map_or(String::new(), |after| format!("&after={}", encode(after)));
        let path = format!("/admin/v1/replication/conflicts?limit={wanted}{filter}{from}");
        let page: ConflictPage = client.get(&path).await?;
        conflicts.extend(page.conflicts);
        not_asked.extend(page.not_asked);
        after = page.next;
        if after.is_none() || conflicts.len() >= args.limit {
            break;
        }
    }
    for datacenter in not_asked {
        eprintln!("{datacenter} could not be asked: what only it saw lose is missing here");
    }
    if let Some(next) = &after {
        eprintln!("{} are shown; go on with --after {next}", conflicts.len());
    }
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
    show_parked(connection, parked)?;
    Ok(code)
}

/// Lets the mirrors that stand still try again at once, and lists them.
pub async fn replication_retry(connection: &ConnectionArgs, source: Option<&str>) -> Result<ExitCode> {
    let request = RetryRequest { source: source.map(str::to_owned) };
    let client = AdminClient::connect(connection)?;
    let retried: Vec<ParkedVolume> = client.post("/admin/v1/replication/parked/retry", &request, CALL_DEADLINE).await?;
    if !connection.json {
        println!("{} parked mirrors are tried again now.", retried.len());
    }
    show_parked(connection, retried)?;
    Ok(ExitCode::SUCCESS)
}

fn show_parked(connection: &ConnectionArgs, parked: Vec<ParkedVolume>) -> Result<()> {
    if connection.json {
        println!("{}", serde_json::to_string_pretty(&parked)?);
        return Ok(());
    }
    let mut rows = table(&["SOURCE", "VOLUME", "OFFSET", "REASON"]);
    for volume in parked {
        rows.add_row(vec![volume.source, volume.volume.to_string(), volume.offset.to_string(), volume.reason]);
    }
    println!("{rows}");
    Ok(())
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
