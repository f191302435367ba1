//! Who calls: each request carries a `Caller`, which the served side checks before it looks at anything else.
//!
//! The certificate proves that a peer belongs to this cluster's authority, and names its node; the caller says which node it
//! is and which protocol it speaks, and `Members` demands that the two agree (rule 19). It does not authorise anything
//! beyond that.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use meridian_types::{ClusterId, DatacenterId, NodeId};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

use crate::common::Caller;
use crate::fields::{self, FieldError};

/// The newest protocol that this program speaks, and the one it sends.
pub const PROTOCOL_VERSION: u32 = 1;
/// The oldest protocol that this program still understands.
pub const PROTOCOL_VERSION_MIN: u32 = 1;

/// Why a request is refused for its sender. As a `tonic::Status`: FAILED_PRECONDITION for another cluster or
/// protocol, INVALID_ARGUMENT for a caller that does not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    #[error("the request is of cluster {theirs}, this node is of {ours}")]
    OtherCluster { ours: ClusterId, theirs: ClusterId },
    #[error(
        "the request speaks protocol {theirs}, this node {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}: \
         upgrade the older of the two"
    )]
    Protocol { theirs: u32 },
    #[error("the request is for node {wanted}, this is node {ours}")]
    OtherNode { ours: NodeId, wanted: u32 },
    #[error("the request comes from datacenter {theirs}, and only datacenter {ours}'s own nodes may ask this")]
    OtherDatacenter { ours: DatacenterId, theirs: DatacenterId },
    #[error(
        "the request says that it comes from node {node} of datacenter {datacenter}; its certificate is another one's"
    )]
    OtherCertificate { datacenter: DatacenterId, node: NodeId },
    #[error(transparent)]
    Field(#[from] FieldError),
}

impl From<CallerError> for tonic::Status {
    fn from(error: CallerError) -> Self {
        match error {
            CallerError::Field(field) => field.into(),
            CallerError::OtherCertificate { .. } => tonic::Status::permission_denied(error.to_string()),
            other => tonic::Status::failed_precondition(other.to_string()),
        }
    }
}

/// A node that a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    pub datacenter: DatacenterId,
    pub node: NodeId,
}

/// The certificate that a request came over, which the handshake has verified; none where there was no TLS.
#[derive(Debug, Clone)]
pub struct Shown(Option<Arc<Vec<CertificateDer<'static>>>>);

impl Shown {
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        Self(request.peer_certs())
    }
}

/// The nodes of the cluster, by the names in their certificates (`tls::server_name`). Cheap to clone.
#[derive(Debug, Clone)]
pub struct Members(Arc<BTreeMap<Peer, String>>);

impl Members {
    pub fn new(members: impl IntoIterator<Item = (Peer, String)>) -> Self {
        Self(Arc::new(members.into_iter().collect()))
    }

    /// Whether the request came over the certificate of the node that it names. A node that is no member is none.
    ///
    /// # Errors
    /// `OtherCertificate`.
    pub fn check(&self, shown: &Shown, peer: Peer) -> Result<(), CallerError> {
        let Peer { datacenter, node } = peer;
        let refused = CallerError::OtherCertificate { datacenter, node };
        let certificate = shown.0.as_ref().and_then(|chain| chain.first());
        let (Some(certificate), Some(name)) = (certificate, self.0.get(&peer)) else { return Err(refused) };
        let parsed = ParsedCertificate::try_from(certificate);
        let name = ServerName::try_from(name.as_str());
        match (parsed, name) {
            (Ok(parsed), Ok(name)) if verify_server_name(&parsed, &name).is_ok() => Ok(()),
            _ => Err(refused),
        }
    }
}

/// This node, as it introduces itself, and the check of those who introduce themselves to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalNode {
    pub cluster: ClusterId,
    pub datacenter: DatacenterId,
    pub node: NodeId,
}

impl LocalNode {
    /// The `caller` field of a request from this node.
    pub fn caller(&self) -> Option<Caller> {
        Some(Caller {
            cluster: Bytes::copy_from_slice(&self.cluster.0),
            protocol_version: PROTOCOL_VERSION,
            datacenter: u32::from(self.datacenter.get()),
            node: self.node.0,
        })
    }

    /// Checks the `caller` field of a request to this node.
    ///
    /// # Errors
    /// `OtherCluster`, `Protocol`, or the field that does not decode; `?` in a service turns it into the right status.
    pub fn check(&self, caller: Option<&Caller>) -> Result<Peer, CallerError> {
        let caller = fields::required("caller", caller)?;
        let theirs = fields::cluster("caller.cluster", &caller.cluster)?;
        if theirs != self.cluster {
            return Err(CallerError::OtherCluster { ours: self.cluster, theirs });
        }
        if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&caller.protocol_version) {
            return Err(CallerError::Protocol { theirs: caller.protocol_version });
        }
        let datacenter = fields::datacenter("caller.datacenter", caller.datacenter)?;
        Ok(Peer { datacenter, node: NodeId(caller.node) })
    }

    /// Like `check`, for requests that only a node of the same datacenter may make, and only to the node named `to`:
    /// a wiped node comes back under a new id, perhaps at the old address.
    ///
    /// # Errors
    /// Those of `check`, `OtherDatacenter`, `OtherNode`.
    pub fn check_raft(&self, caller: Option<&Caller>, to: u32) -> Result<Peer, CallerError> {
        let peer = self.check(caller)?;
        if peer.datacenter != self.datacenter {
            return Err(CallerError::OtherDatacenter { ours: self.datacenter, theirs: peer.datacenter });
        }
        if to != self.node.0 {
            return Err(CallerError::OtherNode { ours: self.node, wanted: to });
        }
        Ok(peer)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn local(cluster: u8, datacenter: u8, node: u32) -> LocalNode {
        LocalNode {
            cluster: ClusterId([cluster; 16]),
            datacenter: DatacenterId::new(datacenter).unwrap(),
            node: NodeId(node),
        }
    }

    fn code(result: Result<Peer, CallerError>) -> Code {
        tonic::Status::from(result.unwrap_err()).code()
    }

    #[test]
    fn a_caller_of_the_same_cluster_is_known_by_its_node() {
        let peer = local(1, 2, 7).check(local(1, 3, 9).caller().as_ref()).unwrap();
        assert_eq!(peer, Peer { datacenter: DatacenterId::new(3).unwrap(), node: NodeId(9) });
    }

    #[test]
    fn another_cluster_or_protocol_is_a_failed_precondition() {
        let here = local(1, 2, 7);
        assert_eq!(code(here.check(local(2, 2, 7).caller().as_ref())), Code::FailedPrecondition);
        for protocol_version in [0, PROTOCOL_VERSION + 1, u32::MAX] {
            let caller = Caller { protocol_version, ..here.caller().unwrap() };
            assert_eq!(code(here.check(Some(&caller))), Code::FailedPrecondition, "{protocol_version}");
        }
    }

    #[test]
    fn a_caller_that_does_not_decode_is_an_invalid_argument() {
        let here = local(1, 2, 7);
        assert_eq!(code(here.check(None)), Code::InvalidArgument);
        let short = Caller { cluster: Bytes::from_static(&[1; 15]), ..here.caller().unwrap() };
        assert_eq!(code(here.check(Some(&short))), Code::InvalidArgument);
        for datacenter in [0, 255, 256 + 2] {
            let caller = Caller { datacenter, ..here.caller().unwrap() };
            assert_eq!(code(here.check(Some(&caller))), Code::InvalidArgument, "{datacenter}");
        }
    }

    #[test]
    fn raft_is_taken_only_from_the_own_datacenter_and_for_the_own_id() {
        let here = local(1, 2, 7);
        assert!(here.check_raft(local(1, 2, 8).caller().as_ref(), 7).is_ok());
        assert_eq!(code(here.check_raft(local(1, 2, 8).caller().as_ref(), 6)), Code::FailedPrecondition);
        assert_eq!(code(here.check_raft(local(1, 3, 8).caller().as_ref(), 7)), Code::FailedPrecondition);
    }
}
