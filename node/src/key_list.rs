//! `kms.toml`: the named keys of SSE-KMS, as `meridian kms` keeps them and a node reads them.
//!
//! ```text
//! version = 1
//! [[key]]
//! id = "reports"      what clients name
//! versions = 2        new objects are sealed under the newest one
//! disabled = false    neither seals nor opens
//! ```
//!
//! The file holds no key: each version is derived from the cluster's key, which is the same in every datacenter. So a node
//! reads what was sealed under a key that its own list does not have yet.
//!
//! Invariants: versions only grow; a key is never removed, only disabled; the store's own key is always there; a list that
//! can't be read leaves the last one in force.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use meridian_object::{KmsKeys, KmsRefusal, MANAGED_KEY_ID};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::init::write_atomically;

const LIST_VERSION: u32 = 1;
/// How old what a node knows of its list may get.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Most keys that a node adds by itself.
const KEYS_MADE_MAX: usize = 10_000;

/// The keys of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyList {
    version: u32,
    #[serde(default, rename = "key")]
    keys: Vec<KeyEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    pub id: String,
    /// At least 1.
    pub versions: u32,
    #[serde(default)]
    pub disabled: bool,
}

impl Default for KeyList {
    fn default() -> Self {
        Self { version: LIST_VERSION, keys: Vec::new() }
    }
}

impl KeyList {
    /// Reads a list; one that is not there is empty.
    ///
    /// # Errors
    /// When it can't be read, or is of a newer version.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let list: Self = toml::from_str(&text).with_context(|| format!("{} is no list of keys", path.display()))?;
        if list.version != LIST_VERSION {
            bail!("{}: version {}, this program knows {LIST_VERSION}", path.display(), list.version);
        }
        if let Some(odd) = list.keys.iter().find(|key| key.versions == 0 || check_id(&key.id).is_err()) {
            bail!("{}: key {:?} has no version or an id that is none", path.display(), odd.id);
        }
        Ok(list)
    }

    /// Changes a list under its lock, so that no other process's change is lost.
    ///
    /// # Errors
    /// Those of `load`, of writing, and of `change`, after which nothing is written.
    pub fn update<T>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let lock_path = path.with_extension("lock");
        let lock = std::fs::File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("lock {}", lock_path.display()))?;
        let mut list = Self::load(path)?;
        let before = list.clone();
        let done = change(&mut list)?;
        if list != before {
            write_atomically(path, toml::to_string(&list)?.as_bytes(), false)?;
        }
        Ok(done)
    }

    /// All keys by id, the store's own too.
    pub fn entries(&self) -> Vec<KeyEntry> {
        let mut entries = self.keys.clone();
        if self.find(MANAGED_KEY_ID).is_none() {
            entries.push(managed());
        }
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        entries
    }

    pub fn find(&self, id: &str) -> Option<&KeyEntry> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The key of an id to be changed; the store's own gets its entry here.
    pub fn entry(&mut self, id: &str) -> Option<&mut KeyEntry> {
        if id == MANAGED_KEY_ID && self.find(id).is_none() {
            self.keys.push(managed());
        }
        self.keys.iter_mut().find(|key| key.id == id)
    }

    /// Adds a key with one version. `false`: it is there already.
    ///
    /// # Errors
    /// For an id that no client could name.
    pub fn add(&mut self, id: &str) -> Result<bool> {
        check_id(id)?;
        if id == MANAGED_KEY_ID || self.find(id).is_some() {
            return Ok(false);
        }
        self.keys.push(KeyEntry { id: id.to_owned(), versions: 1, disabled: false });
        Ok(true)
    }
}

fn managed() -> KeyEntry {
    KeyEntry { id: MANAGED_KEY_ID.to_owned(), versions: 1, disabled: false }
}

/// Ids of AWS's form and plain names.
fn check_id(id: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/:.".contains(&byte);
    if id.is_empty() || id.len() > 256 || id.starts_with("arn:") || !id.bytes().all(is_plain) {
        bail!("{id:?} is no key id: write up to 256 letters, digits and any of - _ / : . and no ARN");
    }
    Ok(())
}

/// A node's list: read when it is asked for, and again when the file changes.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    make_keys: bool,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    list: KeyList,
    /// Of the file that `list` was read from.
    seen: Option<(SystemTime, u64)>,
    looked: Instant,
}

impl KeyFile {
    /// # Errors
    /// When the list can't be read.
    pub fn open(path: PathBuf, make_keys: bool) -> Result<Self> {
        let seen = look(&path);
        let known = Known { list: KeyList::load(&path)?, seen, looked: Instant::now() };
        Ok(Self { path, make_keys, known: Mutex::new(known) })
    }

    fn entry(&self, id: &str) -> Option<KeyEntry> {
        let mut known = self.known.lock();
        if known.looked.elapsed() >= FRESH_FOR {
            self.refresh(&mut known);
        }
        known.list.find(id).cloned().or_else(|| (id == MANAGED_KEY_ID).then(managed))
    }

    fn refresh(&self, known: &mut Known) {
        known.looked = Instant::now();
        let seen = look(&self.path);
        if seen == known.seen {
            return;
        }
        match KeyList::load(&self.path) {
            Ok(list) => (known.list, known.seen) = (list, seen),
            Err(error) => tracing::warn!(%error, "the list of keys can't be read; the last one stays in force"),
        }
    }

    fn make(&self, id: &str) -> Result<KeyEntry> {
        let added = KeyList::update(&self.path, |list| {
            if list.keys.len() >= KEYS_MADE_MAX {
                bail!("there are {KEYS_MADE_MAX} keys already");
            }
            list.add(id)?;
            list.find(id).cloned().context("the key was just added")
        })?;
        self.refresh(&mut self.known.lock());
        Ok(added)
    }
}

fn look(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl KmsKeys for KeyFile {
    fn version_to_seal(&self, name: &str) -> Result<u32, KmsRefusal> {
        let entry = match self.entry(name) {
            Some(entry) => entry,
            None if self.make_keys && check_id(name).is_ok() => {
                self.make(name).map_err(|error| KmsRefusal::Unavailable(format!("{error:#}")))?
            }
            None => return Err(KmsRefusal::NotFound(name.to_owned())),
        };
        if entry.disabled { Err(KmsRefusal::Disabled(entry.id)) } else { Ok(entry.versions) }
    }

    fn check_open(&self, name: &str) -> Result<(), KmsRefusal> {
        match self.entry(name) {
            Some(entry) if entry.disabled => Err(KmsRefusal::Disabled(entry.id)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kms.toml");
        assert_eq!(KeyList::load(&path).unwrap().entries(), [managed()]);
        assert!(KeyList::update(&path, |list| list.add("reports")).unwrap());
        assert!(!KeyList::update(&path, |list| list.add("reports")).unwrap());
        KeyList::update(&path, |list| {
            list.entry("reports").unwrap().versions += 1;
            list.entry(MANAGED_KEY_ID).unwrap().versions += 1;
            Ok(())
        })
        .unwrap();
        let versions = |list: KeyList| list.entries().iter().map(|key| key.versions).collect::<Vec<_>>();
        assert_eq!(versions(KeyList::load(&path).unwrap()), [2, 2]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("version = 1\n\n[[key]]\nid = \"reports\"\nversions = 2\n"), "{text}");
    }

    #[test]
    fn a_change_that_fails_writes_nothing_and_odd_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kms.toml");
        for id in ["", "a b", "arn:aws:kms:x", &"k".repeat(257)] {
            assert!(KeyList::update(&path, |list| list.add(id)).is_err());
        }
        assert!(!path.exists());
        for text in ["version = 2", "keys = []", "version = 1\n[[key]]\nid = \"a\"\nversions = 0\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(KeyList::load(&path).is_err(), "{text}");
        }
    }

    #[test]
    fn a_node_knows_its_list_and_a_changed_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kms.toml");
        let file = KeyFile::open(path.clone(), false).unwrap();
        assert_eq!(file.version_to_seal(MANAGED_KEY_ID), Ok(1));
        assert_eq!(file.version_to_seal("reports"), Err(KmsRefusal::NotFound("reports".to_owned())));
        assert_eq!(file.check_open("reports"), Ok(()), "another datacenter may know it");
        KeyList::update(&path, |list| list.add("reports")).unwrap();
        file.refresh(&mut file.known.lock());
        assert_eq!(file.version_to_seal("reports"), Ok(1));
        KeyList::update(&path, |list| {
            list.entry("reports").unwrap().disabled = true;
            Ok(())
        })
        .unwrap();
        file.refresh(&mut file.known.lock());
        assert_eq!(file.version_to_seal("reports"), Err(KmsRefusal::Disabled("reports".to_owned())));
        assert_eq!(file.check_open("reports"), Err(KmsRefusal::Disabled("reports".to_owned())));
        std::fs::write(&path, "no list").unwrap();
        file.refresh(&mut file.known.lock());
        assert_eq!(file.check_open("reports"), Err(KmsRefusal::Disabled("reports".to_owned())), "the last one stays");
    }

    #[test]
    fn a_development_cluster_makes_keys_when_they_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kms.toml");
        let file = KeyFile::open(path.clone(), true).unwrap();
        assert_eq!(file.version_to_seal("reports"), Ok(1));
        assert_eq!(KeyList::load(&path).unwrap().entries().len(), 2);
        assert_eq!(file.version_to_seal("a b"), Err(KmsRefusal::NotFound("a b".to_owned())));
    }
}
