//! Users: what a gateway needs to authenticate, and what administration needs to change.
//!
//! Knows nothing of signatures and policies: those are the gateways'.
//!
//! Invariants: an access key that is absent from the local view is looked up linearizably before it is called unknown.

use meridian_index::{Operation, Outcome, UserRow, UserState, queries};
use meridian_types::{PartitionId, Timestamp};

use crate::propose::{meta_error, unexpected};
use crate::read_row::index_error;
use crate::{ObjectError, Objects};

impl Objects {
    /// The active user that an access key belongs to.
    ///
    /// # Errors
    /// `Unavailable` when the catalog can't be read.
    pub async fn user_by_access_key(&self, access_key: &str) -> Result<Option<UserRow>, ObjectError> {
        let view = self.inner.meta.local_view(PartitionId::CATALOG).map_err(meta_error)?;
        let mut user = queries::user_by_access_key(&view, access_key).map_err(index_error)?;
        if user.is_none() {
            let view = self.inner.read(PartitionId::CATALOG).await?;
            user = queries::user_by_access_key(&view, access_key).map_err(index_error)?;
        }
        Ok(user.filter(|user| user.state == UserState::Active))
    }

    /// # Errors
    /// `Unavailable`.
    pub async fn user(&self, name: &str) -> Result<Option<UserRow>, ObjectError> {
        let view = self.inner.read(PartitionId::CATALOG).await?;
        let user = queries::user(&view, name).map_err(index_error)?;
        Ok(user.filter(|user| user.state == UserState::Active))
    }

    /// All active users, by name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list_users(&self) -> Result<Vec<UserRow>, ObjectError> {
        let view = self.inner.read(PartitionId::CATALOG).await?;
        let mut users = queries::users(&view).map_err(index_error)?;
        users.retain(|user| user.state == UserState::Active);
        Ok(users)
    }

    /// Creates or replaces a user, whole; its `updated` is set on the way.
    ///
    /// # Errors
    /// `Busy`, `Unavailable`.
    pub async fn put_user(&self, user: UserRow) -> Result<(), ObjectError> {
        let operation = Operation::PutUser(user);
        match self.inner.propose(PartitionId::CATALOG, operation, Timestamp::ZERO).await.outcome? {
            Outcome::UserStored => Ok(()),
            outcome => Err(unexpected("a user", &outcome)),
        }
    }
}
