//! Who may ask: the administrator that `meridian init` made, for S3 and for admin calls.

use async_trait::async_trait;
use meridian_rest::AdminKeys;
use meridian_s3::{CredentialsError, CredentialsProvider, Principal};
use meridian_sigv4::SecretKey;
use subtle::ConstantTimeEq;

use crate::config::Secrets;

/// The name that S3 shows as the owner of buckets.
pub const ADMINISTRATOR: &str = "admin";

/// The first user, whose key stands in each node's secrets.
pub struct Administrator {
    access_key: String,
    secret: SecretKey,
}

impl Administrator {
    pub fn new(secrets: &Secrets) -> Self {
        Self { access_key: secrets.access_key.clone(), secret: SecretKey::new(secrets.secret_key.as_str()) }
    }

    fn is(&self, access_key: &str) -> bool {
        self.access_key.as_bytes().ct_eq(access_key.as_bytes()).into()
    }
}

impl AdminKeys for Administrator {
    fn secret_of(&self, access_key: &str) -> Option<SecretKey> {
        self.is(access_key).then(|| self.secret.clone())
    }
}

#[async_trait]
impl CredentialsProvider for Administrator {
    async fn principal(&self, access_key: &str) -> Result<Option<Principal>, CredentialsError> {
        Ok(self.is(access_key).then(|| Principal {
            secret_key: self.secret.clone(),
            owner: ADMINISTRATOR.to_owned(),
            display_name: ADMINISTRATOR.to_owned(),
            admin: true,
        }))
    }
}
