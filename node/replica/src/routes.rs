//! The served side: `/v1/replica/` at the bulk port, for nodes of this datacenter only.
//!
//! Invariants: nothing is looked at before the caller's certificate, cluster, datacenter and the node it means are checked;
//! bodies are bounded, each and all together.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use meridian_types::{Fid, NodeId};
use meridian_volume::{ReplicaRole, VolumeError, VolumeStatus};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use serde::Serialize;

use crate::call::{AppendedAnswer, Call, Verb};
use crate::directory::Stage;
use crate::error::{Refusal, ReplicaError};
use crate::primary_replica::BATCH_SIZE_MAX;
use crate::protocol::secondary::Refused;
use crate::reading::has_all;
use crate::replicas::{Inner, Replicas};
use crate::secondary_replica::Asked;

/// Largest range of a volume in one answer.
const RANGE_SIZE_MAX: u64 = 2 * meridian_volume::NEEDLE_SPAN_MAX;

/// How long an append waits until this node has applied that its volume is open, and how often it looks.
const OPENED_WAIT: Duration = Duration::from_secs(1);
const OPENED_PAUSE: Duration = Duration::from_millis(10);

/// Answers a request of the bulk port whose caller showed this certificate.
pub type PeerHandler = Arc<
    dyn Fn(Option<CertificateDer<'static>>, Request<Incoming>) -> BoxFuture<'static, Response<Full<Bytes>>>
        + Send
        + Sync,
>;

impl Replicas {
    /// What the bulk port hands requests under `PATH_PREFIX` to.
    pub fn handler(&self) -> PeerHandler {
        let replicas = self.clone();
        Arc::new(move |certificate, request| {
            let replicas = replicas.clone();
            Box::pin(async move {
                match replicas.inner.answer(certificate, request, &replicas).await {
                    Ok(bytes) => Response::new(Full::new(bytes)),
                    Err(refusal) => {
                        let mut response = json_of(&refusal)
                            .map_or_else(|_| Response::default(), |bytes| Response::new(Full::new(bytes)));
                        *response.status_mut() = StatusCode::CONFLICT;
                        response
                    }
                }
            })
        })
    }
}

fn json_of<T: Serialize>(answer: &T) -> Result<Bytes, Refusal> {
    serde_json::to_vec(answer).map(Bytes::from).map_err(|error| Refusal::Failed(error.to_string()))
}

impl Inner {
    async fn answer(
        &self,
        certificate: Option<CertificateDer<'static>>,
        request: Request<Incoming>,
        replicas: &Replicas,
    ) -> Result<Bytes, Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::Call("only POST".to_owned()));
        }
        let call = Call::parse(request.uri().path(), request.uri().query().unwrap_or(""))?;
        self.check_caller(&call, certificate.as_ref())?;
        let Call { volume, generation, epoch, verb, .. } = call;
        let fid = |key, cookie| Fid { volume, key, cookie };
        if verb != Verb::Create {
            self.status(&call)?;
        }
        match verb {
            Verb::Create => {
                let placement = self.peers.placement(volume).ok_or(Refusal::NoSuchVolume(volume))?;
                if placement.stage != Stage::Creating || (placement.epoch, placement.generation) != (epoch, generation)
                {
                    // Rule 1: a replica that was lost is never made anew empty.
                    return Err(Refusal::Failed(format!("volume {volume} is not being created")));
                }
                self.create_here(&placement).await.map_err(|error| Refusal::from(&error))?;
                json_of(&())
            }
            Verb::Begin { session } => self.ask_secondary(&call, Asked::Begin { session }).await,
            Verb::Tell { session, committed } => self.ask_secondary(&call, Asked::Tell { session, committed }).await,
            Verb::Write { session, offset, committed } => {
                let (data, _budget) = self.body(request.into_body()).await?;
                self.ask_secondary(&call, Asked::Append { session, offset, committed, data }).await
            }
            Verb::Append { key, cookie } => {
                let (data, _budget) = self.body(request.into_body()).await?;
                self.append_here(replicas, &call, (key, cookie), data).await
            }
            Verb::Read { key, cookie, start, end } => {
                let fid = fid(key, cookie);
                self.volumes.read(fid, start..end).await.map_err(|error| self.unread(fid, &error))
            }
            Verb::Size { key, cookie } => {
                let fid = fid(key, cookie);
                json_of(&self.volumes.needle_size(fid).map_err(|error| self.unread(fid, &error))?)
            }
            Verb::Delete { key, cookie } => {
                let fid = fid(key, cookie);
                self.volumes.delete(fid).await.map_err(|error| self.unread(fid, &error))?;
                json_of(&())
            }
            Verb::Range { offset, length } => {
                let size = length.min(RANGE_SIZE_MAX) as usize;
                self.volumes.read_raw(volume, generation, offset, size).await.map_err(|error| Refusal::from(&error))
            }
            Verb::Fence => json_of(&self.fence_here(volume, epoch).await.map_err(|error| Refusal::from(&error))?),
            Verb::End { length } => {
                let placement = self.peers.placement(volume).ok_or(Refusal::NoSuchVolume(volume))?;
                let placement = crate::Placement { epoch, ..placement };
                self.end_here(&placement, length).await.map_err(|error| Refusal::from(&error))?;
                json_of(&())
            }
        }
    }

    fn check_caller(&self, call: &Call, certificate: Option<&CertificateDer<'_>>) -> Result<(), Refusal> {
        let local = &self.config.local;
        if call.cluster != local.cluster {
            return Err(Refusal::OtherCluster);
        }
        if call.datacenter != local.datacenter {
            return Err(Refusal::OtherDatacenter(call.datacenter));
        }
        if call.to != local.node {
            return Err(Refusal::OtherNode(call.to));
        }
        if certificate.is_some_and(|certificate| self.is_of(certificate, call.from)) {
            return Ok(());
        }
        Err(Refusal::OtherCertificate(call.from))
    }

    /// Whether a certificate, which the handshake has verified, is that of a node of this datacenter.
    fn is_of(&self, certificate: &CertificateDer<'_>, node: NodeId) -> bool {
        let Some(address) = self.peers.directory().and_then(|directory| directory.node(node)) else { return false };
        let (Ok(parsed), Ok(name)) =
            (ParsedCertificate::try_from(certificate), ServerName::try_from(address.server_name))
        else {
            return false;
        };
        verify_server_name(&parsed, &name).is_ok()
    }

    fn status(&self, call: &Call) -> Result<VolumeStatus, Refusal> {
        let status = self.volumes.state(call.volume).ok_or(Refusal::NoSuchVolume(call.volume))?;
        let current = status.header.generation;
        if current == call.generation { Ok(status) } else { Err(Refusal::WrongGeneration { current }) }
    }

    async fn ask_secondary(&self, call: &Call, asked: Asked) -> Result<Bytes, Refusal> {
        if let Some(placement) = self.peers.placement(call.volume)
            && placement.primary != call.from
        {
            return Err(Refusal::NotPrimary(call.from));
        }
        let secondary = self.secondary(call.volume).map_err(|error| match error {
            // Fenced or sealed: an epoch's end is told by its name.
            VolumeError::Sealed(_) => match self.volumes.state(call.volume) {
                Some(status) => Refusal::WrongEpoch { current: status.header.epoch, asked: call.epoch },
                None => Refusal::NoSuchVolume(call.volume),
            },
            error => Refusal::from(&error),
        })?;
        match secondary.ask(call.epoch, asked).await {
            Ok(end) => json_of(&end),
            Err(Refused::WrongEpoch { current, asked }) => Err(Refusal::WrongEpoch { current, asked }),
            Err(refused) => Err(Refusal::Protocol(refused)),
        }
    }

    async fn append_here(
        &self,
        replicas: &Replicas,
        call: &Call,
        (key, cookie): (meridian_types::NeedleKey, meridian_types::Cookie),
        data: Bytes,
    ) -> Result<Bytes, Refusal> {
        let status = self.status(call)?;
        if status.header.epoch != call.epoch {
            return Err(Refusal::WrongEpoch { current: status.header.epoch, asked: call.epoch });
        }
        if !matches!(status.role, ReplicaRole::Sole | ReplicaRole::Primary) {
            return Err(Refusal::NotPrimary(self.config.local.node));
        }
        self.opened(call).await;
        let appended = replicas.append(call.volume, key, cookie, data).await.map_err(|error| match error {
            ReplicaError::Volume(error) => Refusal::from(&error),
            error if error.take_another() => Refusal::TakeAnother(error.to_string()),
            error => Refusal::Failed(error.to_string()),
        })?;
        json_of(&AppendedAnswer { end_offset: appended.end_offset, stamp: appended.stamp.raw() })
    }

    /// The caller's registry may be ahead of ours: a volume that is just being opened gets a moment.
    async fn opened(&self, call: &Call) {
        let deadline = tokio::time::Instant::now() + OPENED_WAIT;
        while self.peers.placement(call.volume).is_some_and(|placement| placement.stage == Stage::Creating)
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(OPENED_PAUSE).await;
        }
    }

    fn unread(&self, fid: Fid, error: &VolumeError) -> Refusal {
        let all = self.volumes.state(fid.volume).is_some_and(|status| has_all(&status));
        match error {
            VolumeError::NoSuchNeedle(_) if all => Refusal::NoSuchNeedle,
            error => Refusal::Failed(error.to_string()),
        }
    }

    /// The whole body, and its place among those in memory.
    async fn body(&self, mut body: Incoming) -> Result<(Bytes, tokio::sync::OwnedSemaphorePermit), Refusal> {
        let size = body.size_hint().exact().ok_or_else(|| Refusal::Call("a body has a Content-Length".to_owned()))?;
        if size > BATCH_SIZE_MAX as u64 {
            return Err(Refusal::Call(format!("a body has at most {BATCH_SIZE_MAX} bytes")));
        }
        let kib = (size / 1024 + 1) as u32;
        let budget = Arc::clone(&self.bodies).acquire_many_owned(kib).await;
        let budget = budget.map_err(|error| Refusal::Failed(error.to_string()))?;
        let mut bytes = BytesMut::with_capacity(size as usize);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Refusal::Call(format!("its body broke off: {error}")))?;
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        Ok((bytes.freeze(), budget))
    }
}
