//! `replication wait`: block until what was acknowledged is in other datacenters, metadata, bytes and catalog.
//!
//! "Now" is asked of each origin: it closes its partitions, its volumes and its registry at a fresh stamp, so that the
//! answer covers everything it had acknowledged before. A session's token names the points itself, and nobody is asked. An origin is trivially met in itself; a member that can't be
//! asked fails the call at once, unless `from` leaves it out.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use meridian_types::{DatacenterId, Seen, Timestamp};
use meridian_wire::call;
use meridian_wire::replication::{AwaitRequest, CloseRequest};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::ReplicationError;
use crate::driver::Replication;
use crate::error::reason_of;
use crate::service::await_watermark;

/// Longest single call; a longer wait asks again.
const AWAIT_CALL_MAX: Duration = Duration::from_secs(20);

/// How long after its time-out a datacenter may take to say what holds it back; a silent one is named then.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// A member that says nothing for this long is asked once more: the first question may have gone out over a connection
/// that died in a cut and was not yet missed. One that refuses is not.
const SILENCE_MIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitRequest {
    /// `now`, or the token of a session.
    pub until: String,
    /// Names of the datacenters that must have it.
    pub destinations: Vec<String>,
    /// Names of the origins; empty for all members.
    #[serde(default)]
    pub from: Vec<String>,
    pub timeout_ms: u64,
}

/// What a wait has come to; field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitReport {
    pub met: bool,
    pub waited_ms: u64,
    pub origins: Vec<OriginPoint>,
    /// The links that were not met in time.
    pub failures: Vec<WaitFailure>,
}

/// "Now" at one origin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OriginPoint {
    pub origin: String,
    pub timestamp: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitFailure {
    pub from: String,
    pub to: String,
    pub reason: String,
}

impl Replication {
    /// # Errors
    /// An unknown name, or an origin that can't be asked for its "now". A time-out is a report that is not met.
    pub async fn wait(&self, request: &WaitRequest) -> Result<WaitReport, ReplicationError> {
        let started = Instant::now();
        let destinations = self.resolve(&request.destinations)?;
        let mut origins = if request.from.is_empty() { self.members() } else { self.resolve(&request.from)? };
        let until = started + Duration::from_millis(request.timeout_ms);
        let points = if request.until == "now" {
            try_join_all(origins.iter().map(|(id, name)| self.now_at(*id, name))).await?
        } else {
            let seen = self.token(&request.until)?;
            origins.retain(|(id, _)| seen.contains_key(id));
            origins.iter().map(|(id, _)| seen[id]).collect()
        };
        let pairs = origins.iter().zip(&points).flat_map(|((origin, from), point)| {
            let others = destinations.iter().filter(move |(destination, _)| destination != origin);
            others.map(move |(destination, to)| self.wait_for(*origin, from, *destination, to, *point, until))
        });
        let failures: Vec<WaitFailure> = join_all(pairs).await.into_iter().flatten().collect();
        Ok(WaitReport {
            met: failures.is_empty(),
            waited_ms: started.elapsed().as_millis() as u64,
            origins: origins
                .iter()
                .zip(points)
                .map(|((_, name), point)| OriginPoint { origin: name.clone(), timestamp: point.raw() })
                .collect(),
            failures,
        })
    }

    /// A session's token: what it has seen of each datacenter.
    fn token(&self, text: &str) -> Result<BTreeMap<DatacenterId, Timestamp>, ReplicationError> {
        let bad = |reason| ReplicationError::BadUntil { text: text.to_owned(), reason };
        let seen = Seen::from_text(text).map_err(|error| bad(error.to_string()))?;
        let members = self.members();
        match seen.iter().find(|(origin, _)| !members.iter().any(|(member, _)| member == origin)) {
            Some((origin, _)) => Err(bad(format!("datacenter {origin} is no member of this cluster"))),
            None => Ok(seen.iter().collect()),
        }
    }

    fn members(&self) -> Vec<(DatacenterId, String)> {
        let inner = &self.inner;
        let own = (inner.own(), inner.config.datacenter_name.to_string());
        let others = inner.sources.values().map(|source| (source.id(), source.peer.name.to_string()));
        std::iter::once(own).chain(others).collect()
    }

    pub(crate) fn resolve(&self, names: &[String]) -> Result<Vec<(DatacenterId, String)>, ReplicationError> {
        let members = self.members();
        names
            .iter()
            .map(|name| {
                members.iter().find(|(_, member)| member == name).cloned().ok_or_else(|| {
                    let members: Vec<&str> = members.iter().map(|(_, name)| name.as_str()).collect();
                    ReplicationError::NoSuchDatacenter { name: name.clone(), members: members.join(", ") }
                })
            })
            .collect()
    }

    async fn now_at(&self, origin: DatacenterId, name: &str) -> Result<Timestamp, ReplicationError> {
        let Some(source) = self.inner.sources.get(&origin) else {
            return self.inner.close_now().await;
        };
        let ask = || async {
            let mut client = source.client();
            let request = CloseRequest { caller: self.inner.config.local.caller() };
            let deadline = self.inner.config.limits.call_deadline;
            call(deadline, request, |request| async move { client.close(request).await }).await
        };
        let asked = Instant::now();
        let mut answer = ask().await;
        if answer.is_err() && asked.elapsed() >= SILENCE_MIN {
            answer = ask().await;
        }
        answer.map(|reply| Timestamp::from_raw(reply.timestamp)).map_err(|status| ReplicationError::Unreachable {
            datacenter: name.to_owned(),
            reason: format!("{}; leave it out with --from to wait for the others", reason_of(&status)),
        })
    }

    /// None when it is met.
    pub(crate) async fn wait_for(
        &self,
        origin: DatacenterId,
        from: &str,
        destination: DatacenterId,
        to: &str,
        point: Timestamp,
        until: Instant,
    ) -> Option<WaitFailure> {
        let failure = |reason: String| Some(WaitFailure { from: from.to_owned(), to: to.to_owned(), reason });
        loop {
            let left = until.saturating_duration_since(Instant::now()).min(AWAIT_CALL_MAX);
            let answer = match self.inner.sources.get(&destination) {
                None => await_watermark(&self.inner, origin, point, left, false).await,
                Some(source) => {
                    let mut client = source.client();
                    let request = AwaitRequest {
                        caller: self.inner.config.local.caller(),
                        source: u32::from(origin.get()),
                        timestamp: point.raw(),
                        timeout_ms: left.as_millis() as u32,
                        meta_only: false,
                    };
                    let deadline = left + ANSWER_GRACE;
                    call(deadline, request, |request| async move { client.await_watermark(request).await }).await
                }
            };
            match answer {
                Ok(reply) if reply.met => return None,
                Ok(reply) if Instant::now() >= until => return failure(reply.reason),
                Ok(_) => {}
                Err(status) => return failure(reason_of(&status)),
            }
        }
    }
}
