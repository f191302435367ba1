//! Users and groups: what administration changes, and who a user id or an e-mail address stands for.
//!
//! Knows nothing of signatures and policies: those are the gateways'. Secret keys are made and sealed here, and told in
//! the clear once, to who made them. The look-up of access keys for requests stands in `identity`.
//!
//! Invariants: no secret key reaches the catalog unsealed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use meridian_env::entropy;
use meridian_index::{
    AccessKey, GroupChange, GroupRow, Operation, Outcome, Profile, Secret, UserChange, UserRefusal, UserRow, queries,
};
use meridian_sigv4::{NONCE_LENGTH, Purpose};
use meridian_types::{PartitionId, Timestamp};

use crate::objects::Inner;
use crate::propose::unexpected;
use crate::read_row::index_error;
use crate::session::is_session_key;
use crate::{ObjectError, Objects};

/// The name and id of the user that the cluster was made with, whose key stands in the nodes' secrets.
pub const ADMINISTRATOR: &str = "admin";
/// Lengths of keys that callers choose, in characters (IAM, with room for shorter ones).
const ACCESS_KEY_LENGTH_MAX: usize = 128;
const SECRET_KEY_LENGTH_MAX: usize = 256;
/// Longest names, ids and addresses, in bytes.
const TEXT_LENGTH_MAX: usize = 256;

/// A user to be made; what is left out is made up.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    pub name: String,
    pub id: Option<String>,
    pub display_name: Option<String>,
    pub email: Option<String>,
    pub tenant: Option<String>,
    /// The account that it belongs to; `None`: an account of its own.
    pub account: Option<String>,
    pub admin: bool,
    pub key: NewKey,
}

/// Which key a user gets.
#[derive(Debug, Clone, Default)]
pub enum NewKey {
    #[default]
    Generated,
    Given(PlainKey),
    None,
}

/// An access key with its secret in the clear.
#[derive(Clone)]
pub struct PlainKey {
    pub access_key: String,
    pub secret_key: String,
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainKey").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

impl Objects {
    /// # Errors
    /// `UserRefused` when name, id, address or access key are another's; `InvalidArgument`, `Busy`, `Unavailable`.
    pub async fn create_user(&self, new: NewUser) -> Result<(UserRow, Option<PlainKey>), ObjectError> {
        let key = new.key.chosen()?;
        let id = new.id.unwrap_or_else(|| hex::encode(random::<32>()));
        for (argument, text) in [("name", &new.name), ("id", &id)] {
            check_text(argument, text)?;
        }
        if new.name == ADMINISTRATOR || id == ADMINISTRATOR {
            return Err(ObjectError::UserRefused { name: new.name, refusal: UserRefusal::Exists });
        }
        let profile = Profile {
            id,
            display_name: new.display_name.unwrap_or_else(|| new.name.clone()),
            email: new.email,
            tenant: new.tenant,
            account: new.account,
            admin: new.admin,
            created_unix_ms: self.inner.now_unix_ms(),
            ..Profile::default()
        };
        let access_key = key.as_ref().map(|key| (key.access_key.clone(), self.inner.sealed(key)));
        self.change_user(&new.name, UserChange::Create { profile, access_key }).await?;
        Ok((self.existing_user(&new.name).await?, key))
    }

    /// Gives a user one more key.
    ///
    /// # Errors
    /// `UserRefused`, `InvalidArgument`, `Busy`, `Unavailable`.
    pub async fn create_access_key(&self, name: &str, key: NewKey) -> Result<PlainKey, ObjectError> {
        let key = key.chosen()?.ok_or_else(|| invalid("access_key", "no key was asked for"))?;
        let (access_key, sealed) = (key.access_key.clone(), self.inner.sealed(&key));
        self.change_user(name, UserChange::PutAccessKey { access_key, key: sealed }).await?;
        Ok(key)
    }

    /// # Errors
    /// `UserRefused`, `Busy`, `Unavailable`.
    pub async fn change_user(&self, name: &str, change: UserChange) -> Result<(), ObjectError> {
        let operation = Operation::ChangeUser { name: name.to_owned(), change };
        self.inner.propose_user(name, operation).await
    }

    /// # Errors
    /// `UserRefused`, `Busy`, `Unavailable`.
    pub async fn change_group(&self, name: &str, change: GroupChange) -> Result<(), ObjectError> {
        check_text("name", name)?;
        self.inner.propose_user(name, Operation::ChangeGroup { name: name.to_owned(), change }).await
    }

    /// # Errors
    /// `Unavailable`.
    pub async fn user(&self, name: &str) -> Result<Option<UserRow>, ObjectError> {
        let view = self.inner.read(PartitionId::CATALOG).await?;
        queries::user(&view, name).map_err(index_error)
    }

    /// # Errors
    /// `UserRefused` with `NotFound`; `Unavailable`.
    pub async fn existing_user(&self, name: &str) -> Result<UserRow, ObjectError> {
        let refusal = UserRefusal::NotFound;
        self.user(name).await?.ok_or_else(|| ObjectError::UserRefused { name: name.to_owned(), refusal })
    }

    /// All active users, by name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list_users(&self) -> Result<Vec<UserRow>, ObjectError> {
        let view = self.inner.read(PartitionId::CATALOG).await?;
        queries::users(&view).map_err(index_error)
    }

    /// All active groups, by name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list_groups(&self) -> Result<Vec<GroupRow>, ObjectError> {
        let view = self.inner.read(PartitionId::CATALOG).await?;
        queries::groups(&view).map_err(index_error)
    }
}

impl Inner {
    async fn propose_user(&self, name: &str, operation: Operation) -> Result<(), ObjectError> {
        match self.propose(PartitionId::CATALOG, operation, Timestamp::ZERO).await.outcome? {
            Outcome::UserStored => Ok(()),
            Outcome::UserRefused(refusal) => Err(ObjectError::UserRefused { name: name.to_owned(), refusal }),
            outcome => Err(unexpected("a change of a user", &outcome)),
        }
    }

    fn sealed(&self, key: &PlainKey) -> AccessKey {
        let plain = key.secret_key.as_bytes();
        let nonce = random::<NONCE_LENGTH>();
        let sealed = self.config.cluster_key.seal(Purpose::SecretKey, &key.access_key, plain, nonce);
        AccessKey { secret_key: Secret(BASE64.encode(sealed)), active: true, created_unix_ms: self.now_unix_ms() }
    }

    pub(crate) fn now_unix_ms(&self) -> u64 {
        self.clock.wall().unix_ms()
    }
}

impl NewKey {
    fn chosen(self) -> Result<Option<PlainKey>, ObjectError> {
        let key = match self {
            NewKey::None => return Ok(None),
            NewKey::Generated => PlainKey {
                access_key: format!("MRDN{}", hex::encode_upper(random::<8>())),
                secret_key: hex::encode(random::<20>()),
            },
            NewKey::Given(key) => key,
        };
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if key.access_key.is_empty() || key.access_key.len() > ACCESS_KEY_LENGTH_MAX || !is_plain(&key.access_key) {
            return Err(invalid("access_key", "must be 1 to 128 printable ASCII characters"));
        }
        if key.secret_key.is_empty() || key.secret_key.len() > SECRET_KEY_LENGTH_MAX || !is_plain(&key.secret_key) {
            return Err(invalid("secret_key", "must be 1 to 256 printable ASCII characters"));
        }
        if is_session_key(&key.access_key) {
            return Err(invalid("access_key", "has the form of a session's; choose another"));
        }
        if key.access_key.contains(['/', ',']) {
            return Err(invalid("access_key", "must hold no slash and no comma"));
        }
        Ok(Some(key))
    }
}

fn check_text(argument: &'static str, text: &str) -> Result<(), ObjectError> {
    if text.is_empty() || text.len() > TEXT_LENGTH_MAX || text.chars().any(|c| c.is_control() || c == '/') {
        return Err(invalid(argument, "must be 1 to 256 bytes without control characters and slashes"));
    }
    Ok(())
}

fn invalid(argument: &'static str, reason: &str) -> ObjectError {
    ObjectError::InvalidArgument { argument, reason: reason.to_owned() }
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    entropy::fill(&mut bytes);
    bytes
}

pub(crate) fn unsealed_text(secret: &Secret) -> Option<Vec<u8>> {
    BASE64.decode(&secret.0).ok()
}
