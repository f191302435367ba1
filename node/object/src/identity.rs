//! Who an access key, a canonical id or an e-mail address stands for: the look-ups of every request, from memory.
//!
//! What was looked up is kept until users or groups change here, whoever changed them: the catalog counts its changes, and
//! what was remembered at another count is forgotten.
//!
//! Invariants: an access key that is absent from the local view is looked up linearizably before it is called unknown;
//! at most `IDENTITIES_MAX` keys are remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meridian_index::kv::KvRead;
use meridian_index::{MemberKind, UserRow, present, queries};
use meridian_meta::ReadView;
use meridian_sigv4::{Purpose, SecretKey};
use meridian_types::PartitionId;
use parking_lot::Mutex;

use crate::managed_policies::managed_policy;
use crate::objects::Inner;
use crate::propose::meta_error;
use crate::read_row::index_error;
use crate::user::{ADMINISTRATOR, unsealed_text};
use crate::{ObjectError, Objects};

/// Most access keys that are remembered; past it all are forgotten at once.
const IDENTITIES_MAX: usize = 4096;

/// A user as a request sees it.
#[derive(Debug, Clone)]
pub struct Identity {
    pub name: String,
    /// The canonical id.
    pub id: String,
    pub display_name: String,
    pub email: Option<String>,
    pub tenant: Option<String>,
    /// The canonical id of the account that owns what it creates.
    pub account: String,
    pub admin: bool,
    /// Where its account keeps it, from slash to slash; empty for what administration made.
    pub path: String,
    /// The documents of its own policies, of those attached to it, and of its groups'.
    pub policies: Vec<Arc<str>>,
    pub created_unix_ms: u64,
    /// Its own, and those of its session.
    pub tags: BTreeMap<String, String>,
    /// The session in which a role is taken on; name and path are then the role's.
    pub role_session: Option<String>,
}

impl Identity {
    /// The user that the cluster was made with.
    pub fn administrator() -> Self {
        let name = ADMINISTRATOR.to_owned();
        Self {
            id: name.clone(),
            display_name: name.clone(),
            account: name.clone(),
            name,
            email: None,
            tenant: None,
            admin: true,
            path: String::new(),
            policies: Vec::new(),
            created_unix_ms: 0,
            tags: BTreeMap::new(),
            role_session: None,
        }
    }

    /// Whether it is an account of its own, which may do everything with what is its.
    pub fn is_account(&self) -> bool {
        self.account == self.id
    }

    /// Its ARN in policies and answers of IAM.
    pub fn arn(&self) -> String {
        if let Some(session) = &self.role_session {
            return format!("arn:aws:sts::{}:assumed-role/{}/{session}", self.account, self.name);
        }
        match self.is_account() {
            true => format!("arn:aws:iam::{}:root", self.account),
            false if self.path.is_empty() => format!("arn:aws:iam::{}:user/{}", self.account, self.name),
            false => format!("arn:aws:iam::{}:user{}{}", self.account, self.path, self.name),
        }
    }
}

/// The ARN of a policy that an account manages.
pub fn policy_arn(row: &UserRow) -> String {
    format!("arn:aws:iam::{}:policy{}{}", row.account(), row.profile.path, row.profile.display_name)
}

/// An access key that may be used now.
#[derive(Debug, Clone)]
pub struct KeyHolder {
    pub identity: Arc<Identity>,
    pub secret_key: SecretKey,
}

/// All users by what others call them.
#[derive(Debug, Default)]
struct People {
    by_id: HashMap<String, Arc<Identity>>,
    id_by_email: HashMap<String, String>,
}

#[derive(Default)]
struct Remembered {
    /// The catalog's count of changes that all of this belongs to.
    changes: u64,
    keys: HashMap<String, KeyHolder>,
    people: Option<Arc<People>>,
}

/// What was looked up since users changed last.
#[derive(Default)]
pub(crate) struct Identities(Mutex<Remembered>);

impl Identities {
    fn at<T>(&self, changes: u64, read: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut remembered = self.0.lock();
        if remembered.changes != changes {
            *remembered = Remembered { changes, ..Remembered::default() };
        }
        read(&mut remembered)
    }
}

impl Objects {
    /// Who an access key belongs to; `None` when there is no such key, or it or its user may not be used.
    ///
    /// # Errors
    /// `Unavailable` when the catalog can't be read; `Storage` for a secret that was not sealed by this cluster.
    pub async fn key_holder(&self, access_key: &str) -> Result<Option<KeyHolder>, ObjectError> {
        let inner = &self.inner;
        let view = inner.meta.local_view(PartitionId::CATALOG).map_err(meta_error)?;
        let changes = queries::user_changes(&view).map_err(index_error)?;
        if let Some(found) = inner.identities.at(changes, |remembered| remembered.keys.get(access_key).cloned()) {
            return Ok(Some(found));
        }
        let (view, found) = match inner.look_up(&view, access_key)? {
            Some(found) => (ReadView::Here(view), Some(found)),
            None => {
                let view = inner.read(PartitionId::CATALOG).await?;
                let found = inner.look_up(&view, access_key)?;
                (view, found)
            }
        };
        if let Some(found) = &found {
            let changes = queries::user_changes(&view).map_err(index_error)?;
            inner.identities.at(changes, |remembered| {
                if remembered.keys.len() >= IDENTITIES_MAX {
                    remembered.keys.clear();
                }
                remembered.keys.insert(access_key.to_owned(), found.clone());
            });
        }
        Ok(found)
    }

    /// The active user with a canonical id, as far as this node has applied the catalog.
    ///
    /// # Errors
    /// `Unavailable`, `Storage`.
    pub fn identity_by_id(&self, id: &str) -> Result<Option<Arc<Identity>>, ObjectError> {
        Ok(self.inner.people()?.by_id.get(id).cloned())
    }

    /// The active user with an e-mail address.
    ///
    /// # Errors
    /// `Unavailable`, `Storage`.
    pub fn identity_by_email(&self, email: &str) -> Result<Option<Arc<Identity>>, ObjectError> {
        let people = self.inner.people()?;
        Ok(people.id_by_email.get(&email.to_lowercase()).and_then(|id| people.by_id.get(id)).cloned())
    }
}

impl Inner {
    fn look_up(&self, view: &impl KvRead, access_key: &str) -> Result<Option<KeyHolder>, ObjectError> {
        let Some(user) = queries::user_by_access_key(view, access_key).map_err(index_error)? else { return Ok(None) };
        if !has_account(view, &user)? {
            return Ok(None); // its account was deleted, and it with it
        }
        let key = user.access_keys.get(access_key).and_then(|register| register.value.as_ref());
        let Some(key) = key.filter(|key| key.active) else { return Ok(None) };
        let damaged = |what: &str| ObjectError::Storage(format!("the secret of user {}: {what}", user.name));
        let sealed = unsealed_text(&key.secret_key).ok_or_else(|| damaged("is not base64"))?;
        let opened = self.config.cluster_key.open(Purpose::SecretKey, access_key, &sealed);
        let opened = opened.map_err(|error| damaged(&error.to_string()))?;
        let secret = std::str::from_utf8(&opened).map_err(|_| damaged("is not text"))?;
        let secret_key = SecretKey::new(secret);
        let identity = Arc::new(identity(view, user)?);
        Ok(Some(KeyHolder { identity, secret_key }))
    }

    fn people(&self) -> Result<Arc<People>, ObjectError> {
        let view = self.meta.local_view(PartitionId::CATALOG).map_err(meta_error)?;
        let changes = queries::user_changes(&view).map_err(index_error)?;
        if let Some(people) = self.identities.at(changes, |remembered| remembered.people.clone()) {
            return Ok(people);
        }
        let mut people = People::default();
        people.by_id.insert(ADMINISTRATOR.to_owned(), Arc::new(Identity::administrator()));
        for user in queries::users(&view).map_err(index_error)? {
            let identity = Arc::new(with_policies(user, Vec::new())); // who they are, not what they may
            if let Some(email) = &identity.email {
                people.id_by_email.insert(email.to_lowercase(), identity.id.clone());
            }
            people.by_id.insert(identity.id.clone(), identity);
        }
        let people = Arc::new(people);
        self.identities.at(changes, |remembered| remembered.people = Some(Arc::clone(&people)));
        Ok(people)
    }
}

/// Whether the account that a user belongs to is still there.
fn has_account(view: &impl KvRead, user: &UserRow) -> Result<bool, ObjectError> {
    let account = user.account();
    if account == user.profile.id || account == ADMINISTRATOR || !user.profile.is_member() {
        return Ok(true);
    }
    let users = queries::users(view).map_err(index_error)?;
    Ok(users.iter().any(|other| other.profile.id == account))
}

pub(crate) fn identity(view: &impl KvRead, user: UserRow) -> Result<Identity, ObjectError> {
    let policies = documents(view, &user)?;
    Ok(with_policies(user, policies))
}

fn with_policies(user: UserRow, policies: Vec<Arc<str>>) -> Identity {
    let account = user.account().to_owned();
    let profile = user.profile;
    // What an account made goes by its unique id; its name is what the account calls it.
    let name = if profile.is_member() { profile.display_name.clone() } else { user.name };
    Identity {
        name,
        id: profile.id,
        display_name: profile.display_name,
        email: profile.email,
        tenant: profile.tenant,
        account,
        admin: profile.admin,
        path: profile.path,
        policies,
        created_unix_ms: profile.created_unix_ms,
        tags: profile.tags,
        role_session: None,
    }
}

/// The documents of a user's or role's policies, attached ones and those of groups included. A policy that is attached and
/// not there says nothing.
fn documents(view: &impl KvRead, row: &UserRow) -> Result<Vec<Arc<str>>, ObjectError> {
    let own = |row: &UserRow| present(&row.policies).map(|(_, text)| Arc::from(text.as_str())).collect::<Vec<_>>();
    let mut policies: Vec<Arc<str>> = own(row);
    let mut attached: Vec<String> = present(&row.attached).map(|(arn, ())| arn.to_owned()).collect();
    for (name, ()) in present(&row.groups) {
        if let Some(group) = queries::user(view, name).map_err(index_error)? {
            policies.extend(own(&group));
            attached.extend(present(&group.attached).map(|(arn, ())| arn.to_owned()));
        } else if let Some(group) = queries::group(view, name).map_err(index_error)? {
            policies.extend(present(&group.policies).map(|(_, text)| Arc::from(text.as_str())));
        }
    }
    policies.extend(attached.iter().filter_map(|arn| managed_policy(arn)).map(|policy| Arc::from(policy.document)));
    if attached.iter().any(|arn| managed_policy(arn).is_none()) {
        let rows = queries::all_members(view).map_err(index_error)?;
        let managed = rows.iter().filter(|row| row.profile.kind == MemberKind::Policy);
        let wanted = managed.filter(|row| attached.contains(&policy_arn(row)));
        policies.extend(wanted.filter_map(|row| row.profile.document.as_deref().map(Arc::from)));
    }
    Ok(policies)
}
