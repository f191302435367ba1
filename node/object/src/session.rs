//! Temporary credentials: an access key, a secret key and a token that names who it stands for, until when and with what
//! limits. Nothing of them is stored: the token is sealed under the cluster's key, and the secret key derives from it and
//! the access key, so that every datacenter verifies both without asking another.
//!
//! What is inside the seal:
//!
//! ```text
//! version u8 = 1 | postcard: who, expires_unix_ms, policy, tags
//! ```
//!
//! Invariants: a token opens only with the access key that it was made for; rights are looked up at each request, so that a
//! role or user that was deleted or changed takes its sessions with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use meridian_index::{MemberKind, UserRow, queries};
use meridian_sigv4::{NONCE_LENGTH, Purpose, SecretKey};
use meridian_types::PartitionId;
use serde::{Deserialize, Serialize};

use crate::identity::{Identity, identity};
use crate::member::unique_digits;
use crate::propose::meta_error;
use crate::read_row::index_error;
use crate::user::{ADMINISTRATOR, random};
use crate::{ObjectError, Objects};

const VERSION: u8 = 1;
/// Begins the access keys of sessions, which nobody may choose.
const ACCESS_KEY_PREFIX: &str = "ASIA";
const ACCESS_KEY_LENGTH: usize = 20;
/// Longest token that is looked at, in bytes.
const TOKEN_LENGTH_MAX: usize = 8192;

/// Who a session stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionOf {
    /// A role, by the id of its row, under the name that the caller gave the session.
    Role { role: String, session: String },
    /// A user, by the name of its row.
    User { name: String },
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionClaims {
    pub of: SessionOf,
    pub expires_unix_ms: u64,
    /// What the session may do at most.
    pub policy: Option<String>,
    pub tags: BTreeMap<String, String>,
}

/// Temporary credentials, told once.
pub struct Session {
    pub access_key: String,
    pub secret_key: String,
    pub token: String,
}

/// Who a session's request is from.
#[derive(Debug, Clone)]
pub struct SessionHolder {
    pub identity: Arc<Identity>,
    pub secret_key: SecretKey,
    pub policy: Option<Arc<str>>,
}

/// Why a token is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// None, or none of this cluster for this access key.
    #[error("the token is malformed or does not belong to the access key")]
    Invalid,
    #[error("the token has expired")]
    Expired,
    /// Its role or user is gone.
    #[error("whom the token stands for is not there any more")]
    Gone,
    #[error(transparent)]
    Unknown(#[from] ObjectError),
}

/// Whether an access key is one of a session.
pub fn is_session_key(access_key: &str) -> bool {
    access_key.len() == ACCESS_KEY_LENGTH && access_key.starts_with(ACCESS_KEY_PREFIX)
}

impl Objects {
    /// Makes temporary credentials.
    pub fn create_session(&self, claims: &SessionClaims) -> Session {
        let digits = unique_digits::<{ ACCESS_KEY_LENGTH - ACCESS_KEY_PREFIX.len() }>();
        let access_key = format!("{ACCESS_KEY_PREFIX}{digits}");
        let key = &self.inner.config.cluster_key;
        let sealed = key.seal(Purpose::SessionToken, &access_key, &encode(claims), random::<NONCE_LENGTH>());
        Session { secret_key: self.session_secret_text(&access_key), token: BASE64.encode(sealed), access_key }
    }

    /// The secret key of a session, whatever its token says.
    pub fn session_secret(&self, access_key: &str) -> SecretKey {
        SecretKey::new(self.session_secret_text(access_key))
    }

    fn session_secret_text(&self, access_key: &str) -> String {
        BASE64.encode(self.inner.config.cluster_key.derive(Purpose::SessionSecret, access_key))
    }

    /// Who a session's request is from, and with what rights now.
    ///
    /// # Errors
    /// `SessionError`.
    pub async fn session_holder(&self, access_key: &str, token: &str) -> Result<SessionHolder, SessionError> {
        let claims = self.claims(access_key, token)?;
        if claims.expires_unix_ms <= self.now_unix_ms() {
            return Err(SessionError::Expired);
        }
        let identity = Arc::new(self.session_identity(&claims).await?.ok_or(SessionError::Gone)?);
        let policy = claims.policy.map(Arc::from);
        Ok(SessionHolder { identity, secret_key: self.session_secret(access_key), policy })
    }

    fn claims(&self, access_key: &str, token: &str) -> Result<SessionClaims, SessionError> {
        if token.len() > TOKEN_LENGTH_MAX || !is_session_key(access_key) {
            return Err(SessionError::Invalid);
        }
        let sealed = BASE64.decode(token).map_err(|_| SessionError::Invalid)?;
        let opened = self.inner.config.cluster_key.open(Purpose::SessionToken, access_key, &sealed);
        decode(&opened.map_err(|_| SessionError::Invalid)?).ok_or(SessionError::Invalid)
    }

    async fn session_identity(&self, claims: &SessionClaims) -> Result<Option<Identity>, ObjectError> {
        let (name, kind) = match &claims.of {
            SessionOf::User { name } if name == ADMINISTRATOR => return Ok(Some(Identity::administrator())),
            SessionOf::User { name } => (name, MemberKind::User),
            SessionOf::Role { role, .. } => (role, MemberKind::Role),
        };
        let is_wanted = |row: &UserRow| row.profile.kind == kind;
        let view = self.inner.meta.local_view(PartitionId::CATALOG).map_err(meta_error)?;
        let found = match queries::user(&view, name).map_err(index_error)?.filter(is_wanted) {
            Some(row) => Some(identity(&view, row)?),
            // A role that was made just now may not have been applied here yet.
            None => {
                let view = self.inner.read(PartitionId::CATALOG).await?;
                let row = queries::user(&view, name).map_err(index_error)?.filter(is_wanted);
                row.map(|row| identity(&view, row)).transpose()?
            }
        };
        Ok(found.map(|mut identity| {
            identity.tags.extend(claims.tags.clone());
            if let SessionOf::Role { session, .. } = &claims.of {
                identity.id = format!("{}:{session}", identity.id);
                identity.role_session = Some(session.clone());
            }
            identity
        }))
    }
}

fn encode(claims: &SessionClaims) -> Vec<u8> {
    postcard::to_extend(claims, vec![VERSION]).expect("our types serialise into memory")
}

fn decode(bytes: &[u8]) -> Option<SessionClaims> {
    let (version, body) = bytes.split_first()?;
    let (claims, rest) = postcard::take_from_bytes(body).ok()?;
    (*version == VERSION && rest.is_empty()).then_some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> SessionClaims {
        SessionClaims {
            of: SessionOf::Role { role: "AROA1".to_owned(), session: "s".to_owned() },
            expires_unix_ms: 300,
            policy: Some("{}".to_owned()),
            tags: [("k".to_owned(), "v".to_owned())].into(),
        }
    }

    /// A format that clients hold: these bytes never change; a new form gets a new version.
    #[test]
    fn golden_bytes() {
        assert_eq!(hex::encode(encode(&claims())), "01000541524f41310173ac0201027b7d01016b0176");
        assert_eq!(decode(&encode(&claims())), Some(claims()));
    }

    #[test]
    fn cut_longer_and_newer_claims_are_none() {
        let bytes = encode(&claims());
        assert!((0..bytes.len()).all(|length| decode(&bytes[..length]).is_none()));
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(decode(&[&[9], &bytes[1..]].concat()), None);
    }

    #[test]
    fn keys_of_sessions_are_told_by_their_form() {
        assert!(is_session_key("ASIAABCDEFGHIJKLMNOP"));
        assert!(!is_session_key("ASIAABC") && !is_session_key("MRDNABCDEFGHIJKLMNOP"));
    }
}
