//! Who asks, and what is known of the request.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::document::Policy;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    Anonymous,
    User(&'a UserCaller),
}

/// An authenticated user.
#[derive(Debug, Clone, Default)]
pub struct UserCaller {
    /// The canonical id.
    pub id: String,
    pub name: String,
    /// The canonical id of its account; its own when it is one.
    pub account: String,
    pub tenant: Option<String>,
    /// May do everything.
    pub admin: bool,
    /// Its own policies and its groups'.
    pub policies: Vec<Arc<Policy>>,
    /// What a session may do at most.
    pub session: Option<Arc<Policy>>,
    /// The role that it has taken on; its name is then the role's.
    pub role_session: Option<String>,
}

impl UserCaller {
    /// Whether it is an account of its own, which may do everything with what is its.
    pub fn is_account(&self) -> bool {
        self.account == self.id
    }
}

impl<'a> Caller<'a> {
    pub fn user(self) -> Option<&'a UserCaller> {
        match self {
            Caller::Anonymous => None,
            Caller::User(user) => Some(user),
        }
    }

    /// Whether the caller belongs to the account with this canonical id.
    pub fn is_of(self, account: &str) -> bool {
        self.user().is_some_and(|user| user.account == account)
    }
}

/// The values of condition keys, by lower-case name. A key that is not there is absent, which conditions can ask for.
#[derive(Debug, Clone, Default)]
pub struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value to a key.
    pub fn add(&mut self, key: &str, value: impl Into<String>) {
        self.0.entry(key.to_lowercase()).or_default().push(value.into());
    }

    /// Makes a key present without a value.
    pub fn add_empty(&mut self, key: &str) {
        self.0.entry(key.to_lowercase()).or_default();
    }

    pub fn get(&self, key: &str) -> Option<&[String]> {
        self.0.get(&key.to_lowercase()).map(Vec::as_slice)
    }

    /// The value of a key that has just one.
    pub(crate) fn single(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some([value]) => Some(value),
            _ => None,
        }
    }
}
