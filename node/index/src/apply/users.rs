//! The catalog's mutations of users and groups.
//!
//! Who may change them is for the gateways. Invariants: names and access keys hold no NUL, because they stand in keys; an
//! access key has one holder as far as this datacenter knows; every change of any row counts up `USER_CHANGES`, by which
//! caches know that they are old.

use meridian_types::{Plant, Stamp};

use crate::apply::Apply;
use crate::command::{Mutation, Outcome};
use crate::keys;
use crate::machine::MachineError;
use crate::merge::{merge_group, merge_user};
use crate::queries;
use crate::rows::Row;
use crate::user_rows::{
    AccessKey, GroupChange, GroupRow, MemberKind, Profile, REGISTERS_MAX, Register, Registers, UserChange, UserRefusal,
    UserRow, UserState, present,
};

type Refused<T> = Result<Result<T, UserRefusal>, MachineError>;

impl<P: Plant> Apply<'_, '_, P> {
    pub(super) fn change_user(
        &mut self,
        stamp: Stamp,
        name: String,
        change: UserChange,
    ) -> Result<Outcome, MachineError> {
        let row = match self.changed_user(stamp, name, change)? {
            Ok(row) => row,
            Err(refusal) => return Ok(Outcome::UserRefused(refusal)),
        };
        if !is_valid_user(&row) {
            return Ok(Outcome::UserRefused(UserRefusal::Malformed));
        }
        let mutation = Mutation::User(row);
        self.append_log(stamp, mutation.encode());
        let Mutation::User(row) = mutation else { unreachable!("made above") };
        self.place_user(row)?;
        Ok(Outcome::UserStored)
    }

    fn changed_user(&self, stamp: Stamp, name: String, change: UserChange) -> Refused<UserRow> {
        let existing = queries::user_row(self.view, &name)?;
        let active = existing.clone().filter(UserRow::is_active);
        let change = match change {
            UserChange::Create { profile, access_key } => {
                return match active {
                    Some(_) => Ok(Err(UserRefusal::Exists)),
                    None => self.created_user(stamp, name, existing, profile, access_key),
                };
            }
            change => change,
        };
        let Some(mut row) = active else { return Ok(Err(UserRefusal::NotFound)) };
        row.updated = stamp;
        let done = match change {
            UserChange::Create { .. } => unreachable!("taken above"),
            UserChange::Profile(profile) => {
                let Profile { id, created_unix_ms, account, kind, .. } = row.profile.clone();
                let profile = Profile { id, created_unix_ms, account, kind, state: UserState::Active, ..profile };
                if let Err(refusal) = self.check_identity(&row.name, &profile)? {
                    return Ok(Err(refusal));
                }
                row.profile = profile;
                row.profile_changed = stamp;
                Ok(())
            }
            UserChange::PutAccessKey { access_key, key } => {
                if self.is_taken(&access_key, &row.name)? {
                    return Ok(Err(UserRefusal::AccessKeyTaken));
                }
                set(&mut row.access_keys, stamp, access_key, Some(key))
            }
            UserChange::SetAccessKeyActive { access_key, active } => match value(&row.access_keys, &access_key) {
                Some(key) => set(&mut row.access_keys, stamp, access_key, Some(AccessKey { active, ..key })),
                None => Err(UserRefusal::NoSuchAccessKey),
            },
            UserChange::DeleteAccessKey { access_key } => match value(&row.access_keys, &access_key) {
                Some(_) => set(&mut row.access_keys, stamp, access_key, None),
                None => Err(UserRefusal::NoSuchAccessKey),
            },
            UserChange::Policy { name, document: None } if value(&row.policies, &name).is_none() => {
                Err(UserRefusal::NoSuchPolicy)
            }
            UserChange::Policy { name, document } => set(&mut row.policies, stamp, name, document),
            UserChange::Group { name, member } if member && !self.is_group(&name)? => Err(UserRefusal::NoSuchGroup),
            UserChange::Group { name, member } => set(&mut row.groups, stamp, name, member.then_some(())),
            UserChange::Attach { arn, attached: false } if value(&row.attached, &arn).is_none() => {
                Err(UserRefusal::NoSuchPolicy)
            }
            UserChange::Attach { arn, attached } => set(&mut row.attached, stamp, arn, attached.then_some(())),
            UserChange::Delete => {
                row.profile.state = UserState::Deleted;
                row.profile_changed = stamp;
                Ok(())
            }
        };
        Ok(done.map(|()| row))
    }

    fn created_user(
        &self,
        stamp: Stamp,
        name: String,
        before: Option<UserRow>,
        profile: Profile,
        access_key: Option<(String, AccessKey)>,
    ) -> Refused<UserRow> {
        if let Err(refusal) = self.check_identity(&name, &profile)? {
            return Ok(Err(refusal));
        }
        let profile = Profile { state: UserState::Active, ..profile };
        let mut row = UserRow {
            name,
            profile,
            profile_changed: stamp,
            access_keys: Registers::new(),
            policies: Registers::new(),
            attached: Registers::new(),
            groups: Registers::new(),
            updated: stamp,
        };
        if let Some(before) = before {
            // The one before had this name: what it had must not come to the new one.
            row.access_keys = cleared(before.access_keys, stamp);
            row.policies = cleared(before.policies, stamp);
            row.attached = cleared(before.attached, stamp);
            row.groups = cleared(before.groups, stamp);
        }
        if let Some((access_key, key)) = access_key {
            if self.is_taken(&access_key, &row.name)? {
                return Ok(Err(UserRefusal::AccessKeyTaken));
            }
            if let Err(refusal) = set(&mut row.access_keys, stamp, access_key, Some(key)) {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(row))
    }

    fn is_group(&self, name: &str) -> Result<bool, MachineError> {
        let of_account = queries::user(self.view, name)?.is_some_and(|row| row.profile.kind == MemberKind::Group);
        Ok(of_account || queries::group(self.view, name)?.is_some())
    }

    /// Ids and e-mail addresses name one user; what an account has of one kind differs by name.
    fn check_identity(&self, name: &str, profile: &Profile) -> Refused<()> {
        for user in queries::all_members(self.view)?.iter().filter(|user| user.name != name) {
            let is_beside = user.profile.account == profile.account && user.profile.kind == profile.kind;
            let by_name = user.profile.is_member() && profile.is_member();
            if is_beside && by_name && user.profile.is_called(&profile.display_name) {
                return Ok(Err(UserRefusal::Exists));
            }
            if user.profile.id == profile.id {
                return Ok(Err(UserRefusal::IdTaken));
            }
            if profile.email.is_some() && user.profile.email == profile.email {
                return Ok(Err(UserRefusal::EmailTaken));
            }
        }
        Ok(Ok(()))
    }

    fn is_taken(&self, access_key: &str, name: &str) -> Result<bool, MachineError> {
        Ok(queries::user_by_access_key(self.view, access_key)?.is_some_and(|holder| holder.name != name))
    }

    pub(super) fn change_group(
        &mut self,
        stamp: Stamp,
        name: String,
        change: GroupChange,
    ) -> Result<Outcome, MachineError> {
        let existing = queries::group_row(self.view, &name)?;
        let active = existing.clone().filter(GroupRow::is_active);
        let changed = match (change, active) {
            (GroupChange::Create, Some(_)) => Err(UserRefusal::Exists),
            (GroupChange::Create, None) => {
                let policies = existing.map_or_else(Registers::new, |before| cleared(before.policies, stamp));
                Ok(GroupRow { name, state: UserState::Active, state_changed: stamp, policies, updated: stamp })
            }
            (_, None) => Err(UserRefusal::NoSuchGroup),
            (GroupChange::Policy { name, document: None }, Some(row)) if value(&row.policies, &name).is_none() => {
                Err(UserRefusal::NoSuchPolicy)
            }
            (GroupChange::Policy { name, document }, Some(mut row)) => {
                row.updated = stamp;
                set(&mut row.policies, stamp, name, document).map(|()| row)
            }
            (GroupChange::Delete, Some(row)) => {
                Ok(GroupRow { state: UserState::Deleted, state_changed: stamp, updated: stamp, ..row })
            }
        };
        let row = match changed {
            Ok(row) if is_valid_group(&row) => row,
            Ok(_) => return Ok(Outcome::UserRefused(UserRefusal::Malformed)),
            Err(refusal) => return Ok(Outcome::UserRefused(refusal)),
        };
        let mutation = Mutation::Group(row);
        self.append_log(stamp, mutation.encode());
        let Mutation::Group(row) = mutation else { unreachable!("made above") };
        self.place_group(row)?;
        Ok(Outcome::UserStored)
    }

    /// Merges a user row, own or remote, and keeps the look-up by access key in step.
    pub(super) fn place_user(&mut self, incoming: UserRow) -> Result<(), MachineError> {
        let existing = queries::user_row(self.view, &incoming.name)?;
        let merged = merge_user(existing.as_ref(), &incoming);
        for (access_key, _) in existing.iter().flat_map(|user| present(&user.access_keys)) {
            self.view.delete(keys::access_key(access_key, &incoming.name));
        }
        for (access_key, _) in present(&merged.access_keys) {
            self.view.put(keys::access_key(access_key, &merged.name), Vec::new());
        }
        self.view.put(keys::user(&merged.name), merged.to_record());
        self.count_user_change()
    }

    pub(super) fn place_group(&mut self, incoming: GroupRow) -> Result<(), MachineError> {
        let existing = queries::group_row(self.view, &incoming.name)?;
        let merged = merge_group(existing.as_ref(), &incoming);
        self.view.put(keys::group(&merged.name), merged.to_record());
        self.count_user_change()
    }

    fn count_user_change(&mut self) -> Result<(), MachineError> {
        let count = queries::user_changes(self.view)? + 1;
        self.view.put(keys::USER_CHANGES.to_vec(), count.to_be_bytes().to_vec());
        Ok(())
    }
}

fn value<T: Clone>(registers: &Registers<T>, name: &str) -> Option<T> {
    registers.get(name)?.value.clone()
}

fn set<T>(registers: &mut Registers<T>, stamp: Stamp, name: String, value: Option<T>) -> Result<(), UserRefusal> {
    if registers.len() >= REGISTERS_MAX && !registers.contains_key(&name) {
        return Err(UserRefusal::TooMany);
    }
    registers.insert(name, Register { value, changed: stamp });
    Ok(())
}

/// All of them removed, at `stamp`.
fn cleared<T>(registers: Registers<T>, stamp: Stamp) -> Registers<T> {
    registers.into_keys().map(|name| (name, Register { value: None, changed: stamp })).collect()
}

fn is_valid_text(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

/// Whether a user's name and access keys can stand in keys.
pub(super) fn is_valid_user(user: &UserRow) -> bool {
    is_valid_text(&user.name)
        && is_valid_text(&user.profile.id)
        && user.access_keys.keys().all(|key| is_valid_text(key))
}

pub(super) fn is_valid_group(group: &GroupRow) -> bool {
    is_valid_text(&group.name)
}
