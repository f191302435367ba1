//! The users of the catalog as a `CredentialsProvider`: what a node's gateway uses.

use async_trait::async_trait;
use meridian_object::{KeyHolder, Objects, SessionError, SessionHolder, is_session_key};
use meridian_sigv4::SecretKey;

use crate::config::{CredentialsError, CredentialsProvider, Principal};

/// Looks up access keys in the catalog, which every datacenter holds.
pub struct CatalogUsers(Objects);

impl CatalogUsers {
    pub fn new(objects: Objects) -> Self {
        Self(objects)
    }
}

#[async_trait]
impl CredentialsProvider for CatalogUsers {
    async fn principal(&self, access_key: &str) -> Result<Option<Principal>, CredentialsError> {
        let holder = self.0.key_holder(access_key).await;
        let holder = holder.map_err(|failure| CredentialsError(failure.to_string()))?;
        Ok(holder.map(|KeyHolder { identity, secret_key }| Principal { secret_key, identity, session_policy: None }))
    }

    fn session_secret(&self, access_key: &str) -> Option<SecretKey> {
        is_session_key(access_key).then(|| self.0.session_secret(access_key))
    }

    async fn session(&self, access_key: &str, token: &str) -> Result<Principal, SessionError> {
        let SessionHolder { identity, secret_key, policy } = self.0.session_holder(access_key, token).await?;
        Ok(Principal { secret_key, identity, session_policy: policy })
    }
}
