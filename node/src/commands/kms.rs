//! `meridian kms`: the named keys that objects are encrypted under.
//!
//! Works on the nodes' lists, not on running nodes: these read theirs again when it has changed.
//!
//! Invariants: a key gets the same number of versions in every list that one call changes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::table;
use super::user::show;
use crate::cli::{ConnectionArgs, KeyPlace, KmsCommand};
use crate::config::NodeConfig;
use crate::dev::default_directory;
use crate::init::node_files;
use crate::key_list::{KeyEntry, KeyList};

pub fn kms(connection: &ConnectionArgs, command: KmsCommand) -> Result<ExitCode> {
    match command {
        KmsCommand::List { place } => {
            let keys: Vec<KeyEntry> = all_keys(&lists(&place)?)?.into_values().collect();
            show(connection, &keys, || print_keys(&keys))
        }
        KmsCommand::Create { id, place } => {
            let lists = lists(&place)?;
            if all_keys(&lists)?.contains_key(&id) {
                bail!("there is a key {id} already; give it a new version with `meridian kms rotate`");
            }
            change(connection, &lists, &id, |list| list.add(&id).map(drop))
        }
        KmsCommand::Rotate { id, place } => {
            let lists = lists(&place)?;
            let newest = known(&lists, &id)?.versions;
            let next = newest.checked_add(1).context("a key has no further version")?;
            change(connection, &lists, &id, |list| set(list, &id, |key| key.versions = next))
        }
        KmsCommand::Disable { id, place } => set_disabled(connection, &place, &id, true),
        KmsCommand::Enable { id, place } => set_disabled(connection, &place, &id, false),
    }
}

fn set_disabled(connection: &ConnectionArgs, place: &KeyPlace, id: &str, disabled: bool) -> Result<ExitCode> {
    let lists = lists(place)?;
    let versions = known(&lists, id)?.versions;
    change(connection, &lists, id, |list| {
        set(list, id, |key| {
            key.versions = key.versions.max(versions);
            key.disabled = disabled;
        })
    })
}

/// The files of the lists that are meant.
fn lists(place: &KeyPlace) -> Result<Vec<PathBuf>> {
    if let Some(file) = &place.file {
        return Ok(vec![file.clone()]);
    }
    let directory = place.dir.clone().unwrap_or_else(default_directory);
    let files = node_files(&directory)?;
    files.iter().map(|file| Ok(NodeConfig::load(file)?.encryption.keys)).collect()
}

/// Every key that stands in any of the lists, with its newest version.
fn all_keys(lists: &[PathBuf]) -> Result<BTreeMap<String, KeyEntry>> {
    let mut keys: BTreeMap<String, KeyEntry> = BTreeMap::new();
    for list in lists {
        for key in KeyList::load(list)?.entries() {
            let found = keys.entry(key.id.clone()).or_insert_with(|| key.clone());
            found.versions = found.versions.max(key.versions);
            found.disabled |= key.disabled;
        }
    }
    Ok(keys)
}

fn known(lists: &[PathBuf], id: &str) -> Result<KeyEntry> {
    all_keys(lists)?.remove(id).with_context(|| format!("there is no key {id}; see `meridian kms list`"))
}

/// Sets a key in one list, where it is new if another list has it alone.
fn set(list: &mut KeyList, id: &str, set: impl Fn(&mut KeyEntry)) -> Result<()> {
    list.add(id)?;
    set(list.entry(id).context("the key was just added")?);
    Ok(())
}

fn change(
    connection: &ConnectionArgs,
    lists: &[PathBuf],
    id: &str,
    change: impl Fn(&mut KeyList) -> Result<()>,
) -> Result<ExitCode> {
    for list in lists {
        KeyList::update(list, &change).with_context(|| format!("change {}", list.display()))?;
    }
    let key = known(lists, id)?;
    show(connection, &key, || print_keys(std::slice::from_ref(&key)))
}

fn print_keys(keys: &[KeyEntry]) {
    let mut rows = table(&["ID", "VERSIONS", "STATE"]);
    for key in keys {
        let state = if key.disabled { "disabled" } else { "enabled" };
        rows.add_row(vec![key.id.clone(), key.versions.to_string(), state.to_owned()]);
    }
    println!("{rows}");
}
