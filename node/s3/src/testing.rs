//! Users for the tests of this crate.

use std::sync::Arc;

use meridian_object::Identity;
use meridian_sigv4::SecretKey;

use crate::config::Principal;

/// An account of its own, with a display name in capitals.
pub(crate) fn identity(name: &str, admin: bool) -> Identity {
    Identity {
        name: name.to_owned(),
        id: name.to_owned(),
        display_name: name.to_uppercase(),
        email: None,
        tenant: None,
        account: name.to_owned(),
        admin,
        path: String::new(),
        policies: Vec::new(),
        created_unix_ms: 0,
        tags: Default::default(),
        role_session: None,
    }
}

pub(crate) fn principal(name: &str, admin: bool) -> Principal {
    Principal { secret_key: SecretKey::new("s"), identity: Arc::new(identity(name, admin)), session_policy: None }
}
