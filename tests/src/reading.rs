//! Reads a whole bucket back and judges it by the ledger: every key by GET, then LIST against the GETs.
//!
//! Invariants: nobody mutates the bucket meanwhile; a key that can't be read is a failure, not a gap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::ledger::{Ledger, Moment, Reader};
use crate::load::found_in;
use crate::s3::{Answer, S3, object_path};

/// GETs at once.
const READS_AT_ONCE: usize = 8;
/// How long a key may answer 5xx, after a start for instance.
const READ_DEADLINE: Duration = Duration::from_secs(20);
/// Between two tries of one key.
const READ_PAUSE: Duration = Duration::from_millis(25);

/// What lies under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub number: u64,
    pub etag: String,
}

/// Which keys' absence from or presence in LIST is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All: nothing comes from other datacenters any more.
    Everything,
    /// Those that only this datacenter's clients mutate; entries of others may come at any moment.
    Own,
    /// None, and what lies in other datacenters only need not be readable: they are dead.
    Alone,
}

/// Reads every key of the ledger in one datacenter, judges it, and compares LIST. Returns what is there.
///
/// # Errors
/// All keys that hold what they must not, and where LIST differs.
pub async fn read_back(
    s3: &S3,
    bucket: &'static str,
    datacenter: &str,
    ledger: &Arc<Ledger>,
    replicated: Moment,
    scope: Scope,
) -> Result<BTreeMap<String, Found>> {
    let places = Arc::new(Semaphore::new(READS_AT_ONCE));
    let mut reads = JoinSet::new();
    for key in ledger.keys() {
        let place = Arc::clone(&places).acquire_owned().await?;
        let (s3, ledger, datacenter) = (s3.clone(), Arc::clone(ledger), datacenter.to_owned());
        reads.spawn(async move {
            let found = read_key(&s3, bucket, &key, &datacenter, &ledger, replicated, scope).await;
            drop(place);
            (key, found)
        });
    }
    let (mut there, mut faults) = (BTreeMap::new(), Vec::new());
    while let Some(read) = reads.join_next().await {
        match read? {
            (key, Ok(Some(found))) => drop(there.insert(key, found)),
            (_, Ok(None)) => {}
            (_, Err(error)) => faults.push(format!("{error:#}")),
        }
    }
    if scope != Scope::Alone {
        let prefix = if scope == Scope::Own { format!("{datacenter}/") } else { String::new() };
        let listed: BTreeMap<String, String> = s3.list(bucket, &prefix).await.context("LIST")?.into_iter().collect();
        let got = there.iter().filter(|(key, _)| key.starts_with(&prefix));
        let got: BTreeMap<String, String> = got.map(|(key, found)| (key.clone(), found.etag.clone())).collect();
        faults.extend(differences(&got, &listed));
    }
    if faults.is_empty() {
        return Ok(there);
    }
    faults.sort();
    bail!("{} faults in {datacenter}:\n{}", faults.len(), faults.join("\n"))
}

async fn read_key(
    s3: &S3,
    bucket: &str,
    key: &str,
    datacenter: &str,
    ledger: &Ledger,
    replicated: Moment,
    scope: Scope,
) -> Result<Option<Found>> {
    let path = object_path(bucket, key);
    let until = Instant::now() + READ_DEADLINE;
    loop {
        let reader = Reader { datacenter, began: ledger.now(), replicated };
        let answer = s3.call(Method::GET, &path, &[], Bytes::new()).await;
        if let Some(there) = judged(key, &answer, ledger, reader, scope).with_context(|| datacenter.to_owned())? {
            return Ok(there);
        }
        if Instant::now() >= until {
            bail!("{key} in {datacenter} can't be read: {}", shown(&answer));
        }
        tokio::time::sleep(READ_PAUSE).await;
    }
}

fn shown(answer: &Result<Answer>) -> String {
    match answer {
        Ok(answer) => format!("{} {}", answer.status, answer.text()),
        Err(error) => format!("{error:#}"),
    }
}

/// What an answer shows, once judged; `None` for one that says nothing, such as a 503.
fn judged(
    key: &str,
    answer: &Result<Answer>,
    ledger: &Ledger,
    reader: Reader<'_>,
    scope: Scope,
) -> Result<Option<Option<Found>>> {
    let Some(found) = found_in(key, answer)? else {
        // It may be known here, and its bytes only where nobody is left to ask.
        let excused = scope == Scope::Alone && ledger.may_have_come_from_elsewhere(key, reader);
        return Ok(excused.then_some(None));
    };
    ledger.judge(key, found, reader).map_err(anyhow::Error::msg)?;
    let etag = answer.as_ref().ok().and_then(|answer| answer.header("etag")).unwrap_or_default().to_owned();
    Ok(Some(found.map(|number| Found { number, etag })))
}

/// LIST against what GET found: keys and ETags.
fn differences(got: &BTreeMap<String, String>, listed: &BTreeMap<String, String>) -> Vec<String> {
    let plain = |etag: &String| etag.replace("&quot;", "\"");
    let missing = got.iter().filter_map(|(key, etag)| match listed.get(key) {
        None => Some(format!("{key}: GET finds it, LIST does not")),
        Some(other) if plain(other) != plain(etag) => Some(format!("{key}: its ETag is {etag}, in LIST {other}")),
        Some(_) => None,
    });
    let extra = listed.keys().filter(|key| !got.contains_key(*key));
    missing.chain(extra.map(|key| format!("{key}: LIST has it, GET does not"))).collect()
}
