//! The users of the catalog as a `CredentialsProvider`: what a node's gateway uses.

use async_trait::async_trait;
use meridian_object::{Objects, UserRow};
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
        let user = self.0.user_by_access_key(access_key).await;
        let user = user.map_err(|failure| CredentialsError(failure.to_string()))?;
        Ok(user.and_then(|user| principal(user, access_key)))
    }
}

fn principal(user: UserRow, access_key: &str) -> Option<Principal> {
    let key = user.access_keys.into_iter().find(|key| key.access_key == access_key)?;
    Some(Principal {
        secret_key: SecretKey::new(key.secret_key.0),
        owner: user.id,
        display_name: user.display_name,
        admin: user.admin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_object::{AccessKey, Secret, UserState};
    use meridian_types::{DatacenterId, Stamp, Timestamp};

    #[test]
    fn a_key_stands_for_its_user_with_its_own_secret() {
        let key = |access: &str, secret: &str| AccessKey {
            access_key: access.to_owned(),
            secret_key: Secret(secret.to_owned()),
        };
        let user = || UserRow {
            name: "ann".to_owned(),
            id: "id-7".to_owned(),
            display_name: "Ann".to_owned(),
            email: None,
            tenant: None,
            admin: false,
            access_keys: vec![key("A1", "s1"), key("A2", "s2")],
            state: UserState::Active,
            updated: Stamp::new(Timestamp::ZERO, DatacenterId::new(1).unwrap()),
        };
        let found = principal(user(), "A2").unwrap();
        assert_eq!((found.secret_key.expose(), found.owner.as_str(), found.admin), ("s2", "id-7", false));
        assert!(principal(user(), "A3").is_none());
    }
}
