//! What a client sets on an object beside its bytes: headers, metadata and tags at the write; tags, locks and access
//! changed later, each by itself.
//!
//! What is set with the write stands in [`Attributes`] and never changes. What is changed later stands in
//! [`Annotations`], each value with the stamp of its change, so that a change of tags in one datacenter and a new write
//! of the key in another do not undo each other: the write's stamp decides the version, and within one version each
//! annotation has its own.
//!
//! Invariants: `Annotations::join` is commutative, associative and idempotent (property test in `merge`); a date once
//! promised under COMPLIANCE is never taken back by a merge.

use meridian_types::Stamp;
use serde::{Deserialize, Serialize};

use crate::encryption::Encryption;

/// Headers, user metadata and tags: what a client set and reads back unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub content_disposition: Option<String>,
    pub content_encoding: Option<String>,
    pub content_language: Option<String>,
    pub expires: Option<String>,
    pub user_metadata: Vec<(String, String)>,
    pub tags: Vec<(String, String)>,
    pub website_redirect: Option<String>,
    /// Told back to clients; all classes are stored alike. `None` is STANDARD.
    pub storage_class: Option<String>,
    /// The account that wrote it, where it is not the bucket's owner.
    pub owner: Option<String>,
    /// Who may use it, in the gateway's own form; `None` is private.
    pub acl: Option<String>,
    pub retention: Option<Retention>,
    /// `None`: never said.
    pub legal_hold: Option<bool>,
    /// `None` is plain.
    pub encryption: Option<Box<Encryption>>,
}

/// How strictly a retention holds (S3 Object Lock). Discriminants are on disk: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetentionMode {
    /// May be shortened or passed over by those who are allowed to bypass it.
    Governance,
    /// Nobody may shorten it.
    Compliance,
}

/// Until when a version may not be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    pub mode: RetentionMode,
    /// Milliseconds since the Unix epoch.
    pub until_unix_ms: u64,
}

/// A value with the stamp of the change that set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped<T> {
    pub stamp: Stamp,
    pub value: T,
}

/// What was changed since the write; `None` where the write's own value still holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotations {
    pub tags: Option<Stamped<Vec<(String, String)>>>,
    pub retention: Option<Stamped<Option<Retention>>>,
    pub legal_hold: Option<Stamped<bool>>,
    pub acl: Option<Stamped<Option<String>>>,
    /// The latest date ever set under COMPLIANCE; it holds whatever `retention` says.
    pub compliance_until_unix_ms: u64,
}

/// One change of an object that was written before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Tags(Vec<(String, String)>),
    Retention(Option<Retention>),
    LegalHold(bool),
    Acl(Option<String>),
}

/// Why a version can't be removed or its retention not be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locked;

impl Annotations {
    /// Of every change that still holds.
    pub fn stamps(&self) -> impl Iterator<Item = Stamp> + use<> {
        let tags = self.tags.as_ref().map(|change| change.stamp);
        let retention = self.retention.as_ref().map(|change| change.stamp);
        let legal_hold = self.legal_hold.as_ref().map(|change| change.stamp);
        let acl = self.acl.as_ref().map(|change| change.stamp);
        [tags, retention, legal_hold, acl].into_iter().flatten()
    }

    /// Takes over what `other` changed later.
    pub(crate) fn join(&mut self, other: &Annotations) {
        fn later<T: Clone>(own: &mut Option<Stamped<T>>, other: Option<&Stamped<T>>) {
            if let Some(other) = other
                && own.as_ref().is_none_or(|own| own.stamp < other.stamp)
            {
                *own = Some(other.clone());
            }
        }
        later(&mut self.tags, other.tags.as_ref());
        later(&mut self.retention, other.retention.as_ref());
        later(&mut self.legal_hold, other.legal_hold.as_ref());
        later(&mut self.acl, other.acl.as_ref());
        self.compliance_until_unix_ms = self.compliance_until_unix_ms.max(other.compliance_until_unix_ms);
    }

    pub(crate) fn set(&mut self, stamp: Stamp, change: Change) {
        match change {
            Change::Tags(value) => self.tags = Some(Stamped { stamp, value }),
            Change::LegalHold(value) => self.legal_hold = Some(Stamped { stamp, value }),
            Change::Acl(value) => self.acl = Some(Stamped { stamp, value }),
            Change::Retention(value) => {
                if let Some(Retention { mode: RetentionMode::Compliance, until_unix_ms }) = value {
                    self.compliance_until_unix_ms = self.compliance_until_unix_ms.max(until_unix_ms);
                }
                self.retention = Some(Stamped { stamp, value });
            }
        }
    }
}

impl Attributes {
    /// These attributes with what was changed since the write.
    pub fn annotated(mut self, annotations: Option<&Annotations>) -> Attributes {
        let Some(annotations) = annotations else { return self };
        if let Some(tags) = &annotations.tags {
            self.tags.clone_from(&tags.value);
        }
        if let Some(acl) = &annotations.acl {
            self.acl.clone_from(&acl.value);
        }
        if let Some(legal_hold) = &annotations.legal_hold {
            self.legal_hold = Some(legal_hold.value);
        }
        self.retention = effective_retention(self.retention, Some(annotations));
        self
    }
}

/// The retention that holds, of the write's own and what was set later. A COMPLIANCE date that a concurrent change would
/// shorten stays.
fn effective_retention(written: Option<Retention>, annotations: Option<&Annotations>) -> Option<Retention> {
    let floor = annotations.map_or(0, |annotations| annotations.compliance_until_unix_ms);
    let set = annotations.and_then(|annotations| annotations.retention.as_ref());
    let retention = set.map_or(written, |set| set.value);
    if floor > retention.map_or(0, |retention| retention.until_unix_ms) {
        return Some(Retention { mode: RetentionMode::Compliance, until_unix_ms: floor });
    }
    retention
}

/// Whether a version with these attributes may be removed at a time.
///
/// # Errors
/// `Locked` under a legal hold or a retention that has not passed.
pub(crate) fn check_removal(attributes: &Attributes, now_unix_ms: u64, bypass_governance: bool) -> Result<(), Locked> {
    if attributes.legal_hold == Some(true) {
        return Err(Locked);
    }
    match attributes.retention {
        Some(Retention { until_unix_ms, .. }) if until_unix_ms <= now_unix_ms => Ok(()),
        Some(Retention { mode: RetentionMode::Governance, .. }) if bypass_governance => Ok(()),
        Some(_) => Err(Locked),
        None => Ok(()),
    }
}

/// Whether a retention may take the place of another at a time: it may always become longer.
///
/// # Errors
/// `Locked` when it would become weaker and may not.
pub(crate) fn check_retention_change(
    existing: Option<Retention>,
    new: Option<Retention>,
    now_unix_ms: u64,
    bypass_governance: bool,
) -> Result<(), Locked> {
    let Some(existing) = existing.filter(|existing| existing.until_unix_ms > now_unix_ms) else { return Ok(()) };
    let extends = new.is_some_and(|new| new.mode == existing.mode && new.until_unix_ms >= existing.until_unix_ms);
    match existing.mode {
        _ if extends => Ok(()),
        RetentionMode::Governance if bypass_governance => Ok(()),
        RetentionMode::Governance | RetentionMode::Compliance => Err(Locked),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Annotations, Attributes, Change, Locked, Retention, RetentionMode, check_removal, check_retention_change,
    };
    use crate::testing::stamp;

    fn retention(mode: RetentionMode, until_unix_ms: u64) -> Option<Retention> {
        Some(Retention { mode, until_unix_ms })
    }

    #[test]
    fn locks_hold_until_their_time_and_governance_gives_way_to_a_bypass() {
        let locked = |retention, on| Attributes { retention, legal_hold: Some(on), ..Attributes::default() };
        let governance = locked(retention(RetentionMode::Governance, 10), false);
        let compliance = locked(retention(RetentionMode::Compliance, 10), false);
        assert_eq!(check_removal(&governance, 9, false), Err(Locked));
        assert_eq!(check_removal(&governance, 9, true), Ok(()));
        assert_eq!(check_removal(&governance, 10, false), Ok(()));
        assert_eq!(check_removal(&compliance, 9, true), Err(Locked));
        assert_eq!(check_removal(&compliance, 10, false), Ok(()));
        assert_eq!(check_removal(&locked(None, true), 99, true), Err(Locked));
        assert_eq!(check_removal(&locked(None, false), 0, false), Ok(()));
    }

    #[test]
    fn a_retention_may_become_longer_and_not_weaker() {
        use RetentionMode::{Compliance, Governance};
        let change = |existing, new, bypass| check_retention_change(existing, new, 5, bypass);
        assert_eq!(change(None, retention(Compliance, 9), false), Ok(()));
        assert_eq!(change(retention(Compliance, 5), None, false), Ok(()), "it has passed");
        for mode in [Governance, Compliance] {
            assert_eq!(change(retention(mode, 9), retention(mode, 10), false), Ok(()));
            assert_eq!(change(retention(mode, 9), retention(mode, 8), false), Err(Locked));
            assert_eq!(change(retention(mode, 9), None, false), Err(Locked));
            assert_eq!(change(retention(mode, 9), retention(mode, 8), true).is_ok(), mode == Governance);
        }
        assert_eq!(change(retention(Compliance, 9), retention(Governance, 20), true), Err(Locked));
        assert_eq!(change(retention(Governance, 9), retention(Compliance, 20), false), Err(Locked));
    }

    #[test]
    fn a_concurrent_change_does_not_shorten_compliance() {
        let (mut long, mut short) = (Annotations::default(), Annotations::default());
        long.set(stamp(5, 1), Change::Retention(retention(RetentionMode::Compliance, 100)));
        short.set(stamp(6, 2), Change::Retention(retention(RetentionMode::Compliance, 50)));
        long.join(&short);
        assert_eq!(Attributes::default().annotated(Some(&long)).retention, retention(RetentionMode::Compliance, 100));
        short.set(stamp(7, 2), Change::Retention(retention(RetentionMode::Governance, 200)));
        long.join(&short);
        assert_eq!(Attributes::default().annotated(Some(&long)).retention, retention(RetentionMode::Governance, 200));
    }
}
