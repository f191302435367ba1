//! Who may ask: the administrator that `meridian init` made, whose key stands in each node's secrets, and the users of the
//! catalog.
//!
//! Invariants: the administrator's key works before there is a catalog, and no user can take it.

use std::sync::Arc;

use async_trait::async_trait;
use meridian_object::{Identity, Objects, SessionError};
use meridian_rest::AdminKeys;
use meridian_s3::{CatalogUsers, CredentialsError, CredentialsProvider, Principal};
use meridian_sigv4::SecretKey;
use subtle::ConstantTimeEq;

use crate::config::Secrets;

/// The holders of access keys.
pub struct Users {
    access_key: String,
    administrator: Principal,
    catalog: CatalogUsers,
}

impl Users {
    pub fn new(secrets: &Secrets, objects: Objects) -> Self {
        let secret_key = SecretKey::new(secrets.secret_key.as_str());
        let administrator =
            Principal { secret_key, identity: Arc::new(Identity::administrator()), session_policy: None };
        Self { access_key: secrets.access_key.clone(), administrator, catalog: CatalogUsers::new(objects) }
    }
}

#[async_trait]
impl AdminKeys for Users {
    async fn secret_of(&self, access_key: &str) -> Option<SecretKey> {
        match self.principal(access_key).await {
            Ok(principal) => principal.filter(Principal::is_admin).map(|principal| principal.secret_key),
            Err(error) => {
                tracing::warn!(%error, "the users can't be asked");
                None
            }
        }
    }
}

#[async_trait]
impl CredentialsProvider for Users {
    async fn principal(&self, access_key: &str) -> Result<Option<Principal>, CredentialsError> {
        if self.access_key.as_bytes().ct_eq(access_key.as_bytes()).into() {
            return Ok(Some(self.administrator.clone()));
        }
        self.catalog.principal(access_key).await
    }

    fn session_secret(&self, access_key: &str) -> Option<SecretKey> {
        self.catalog.session_secret(access_key)
    }

    async fn session(&self, access_key: &str, token: &str) -> Result<Principal, SessionError> {
        self.catalog.session(access_key, token).await
    }
}
