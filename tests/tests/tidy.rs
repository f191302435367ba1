//! Style that a tool can hold: headers, names, lengths and layers. Fails with the list of what to mend.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file past this many lines has lost its room; look for the second one in it.
const LINES_MAX: usize = 800;
/// Names that say nothing about what is inside.
const BANNED_NAMES: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "manager"];
/// Crates that take `now` and events and return effects.
const PURE_CRATES: [&str; 5] = ["proto/types", "topology", "replicator", "node/index", "node/policy"];
/// What a pure crate must not reach, by dependency and by path.
const IMPURE_DEPENDENCIES: [&str; 11] =
    ["tokio", "tonic", "rocksdb", "rand", "openraft", "hyper", "axum", "chitchat", "parking_lot", "rustix", "tracing"];
const IMPURE_PATHS: [&str; 10] = [
    "std::fs",
    "TcpStream",
    "UdpSocket",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "tokio::",
    "thread_rng",
    "HashMap<",
    "HashSet<",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with(".git") {
                found.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn demand_none(what: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{what}:\n  {}", problems.join("\n  "));
}

#[test]
fn every_file_opens_with_a_header() {
    let bare: Vec<String> = rust_files(&root())
        .iter()
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|path| shown(path))
        .collect();
    demand_none("files without a //! header", &bare);
}

#[test]
fn no_file_is_longer_than_its_room() {
    let long: Vec<String> = rust_files(&root())
        .iter()
        .map(|path| (fs::read_to_string(path).unwrap().lines().count(), path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{} has {lines} lines, at most {LINES_MAX}", shown(path)))
        .collect();
    demand_none("files that are too long", &long);
}

#[test]
fn names_say_what_is_inside() {
    let vague: Vec<String> = rust_files(&root())
        .iter()
        .filter(|path| {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let parents = path.components().filter_map(|part| part.as_os_str().to_str());
            BANNED_NAMES.contains(&stem) || parents.into_iter().any(|part| BANNED_NAMES.contains(&part))
        })
        .map(|path| shown(path))
        .collect();
    demand_none("files named after nothing", &vague);
}

#[test]
fn nothing_is_left_half_done() {
    let this_file = Path::new(file!()).file_name();
    let mut problems = Vec::new();
    for path in rust_files(&root()).iter().filter(|path| path.file_name() != this_file) {
        for (number, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            let at = || format!("{}:{}", shown(path), number + 1);
            if ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"].iter().any(|mark| line.contains(mark)) {
                problems.push(format!("{}: {}", at(), line.trim()));
            }
            if line.contains("TODO") || line.contains("FIXME") {
                problems.push(format!("{}: put it into docs/roadmap.md instead: {}", at(), line.trim()));
            }
            if line.trim_start().starts_with("use ") && line.contains("::*;") {
                problems.push(format!("{}: glob import", at()));
            }
        }
    }
    problems.retain(|problem| !problem.ends_with("use super::*;: glob import") && !is_test_glob(problem));
    demand_none("left half done", &problems);
}

/// `use super::*` and proptest's prelude are the habit of test modules.
fn is_test_glob(problem: &str) -> bool {
    let Some((place, "glob import")) = problem.rsplit_once(": ") else { return false };
    let (path, number) = place.rsplit_once(':').expect("a place is FILE:LINE");
    let text = fs::read_to_string(root().join(path)).unwrap();
    let line = text.lines().nth(number.parse::<usize>().unwrap() - 1).unwrap();
    line.contains("super::*") || line.contains("prelude::*")
}

#[test]
fn the_pure_crates_reach_nothing() {
    let mut problems = Vec::new();
    for krate in PURE_CRATES {
        let manifest: toml::Table =
            toml::from_str(&fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap()).unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        for name in IMPURE_DEPENDENCIES.iter().filter(|name| dependencies.contains_key(**name)) {
            problems.push(format!("{krate} depends on {name}"));
        }
        for path in rust_files(&root().join(krate).join("src")) {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            if path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs") {
                continue;
            }
            for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
                if let Some(reached) = IMPURE_PATHS.iter().find(|reached| line.contains(**reached)) {
                    problems.push(format!("{}:{} reaches {reached}", shown(&path), number + 1));
                }
            }
        }
    }
    demand_none("pure crates that reach outside", &problems);
}

#[test]
fn dependencies_run_downwards() {
    // Each crate with the layer it lies in; a crate depends only on lower layers.
    let layers: BTreeMap<&str, u32> = [
        ("meridian-types", 0),
        ("meridian-topology", 1),
        ("meridian-wire", 1),
        ("meridian-sigv4", 1),
        ("meridian-linger", 1),
        ("meridian-cipher", 1),
        ("meridian-policy", 1),
        ("meridian-gossip", 1),
        ("meridian-edge", 2),
        ("meridian-replicator", 2),
        ("meridian-index", 3),
        ("meridian-env", 3),
        ("meridian-store", 4),
        ("meridian-volume", 4),
        ("meridian-raft", 5),
        ("meridian-replica", 5),
        ("meridian-meta", 6),
        ("meridian-control", 6),
        ("meridian-object", 7),
        ("meridian-replication", 8),
        ("meridian-s3", 9),
        ("meridian-rest", 9),
        ("meridian", 10),
        ("meridian-chaos", 11),
        ("meridian-tests", 12),
    ]
    .into();
    let workspace: toml::Table = toml::from_str(&fs::read_to_string(root().join("Cargo.toml")).unwrap()).unwrap();
    let members: Vec<&str> =
        workspace["workspace"]["members"].as_array().unwrap().iter().filter_map(|m| m.as_str()).collect();
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for member in members {
        let manifest: toml::Table =
            toml::from_str(&fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap()).unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let Some(layer) = layers.get(name.as_str()) else {
            problems.push(format!("{name} has no layer here"));
            continue;
        };
        for dependency in manifest["dependencies"].as_table().unwrap().keys().filter(|d| d.starts_with("meridian")) {
            if layers.get(dependency.as_str()).is_none_or(|lower| lower >= layer) {
                problems.push(format!("{name} depends on {dependency}, which does not lie below it"));
            }
        }
        seen.insert(name);
    }
    let gone: Vec<&&str> = layers.keys().filter(|name| !seen.contains(**name)).collect();
    assert!(gone.is_empty(), "layers of crates that are gone: {gone:?}");
    demand_none("dependencies that run upwards", &problems);
}

/// Mistakes are planted by type (docs/adr/0015): `Sound` in all that is shipped, one other plant in `chaos`, which no
/// shipped crate depends on. So no build flag, feature or configuration can put one into the binary.
#[test]
fn no_mistake_can_be_planted_in_the_binary() {
    let mut problems = Vec::new();
    let mut plants = BTreeSet::new();
    for path in rust_files(&root()).iter().filter(|path| !path.ends_with("tidy.rs")) {
        let (text, place) = (fs::read_to_string(path).unwrap(), shown(path));
        let is_pure = PURE_CRATES.iter().any(|krate| place.starts_with(&format!("{krate}/")));
        let is_simulation = place.starts_with("chaos/");
        let is_pure = is_pure || place.starts_with("node/replica/src/protocol/");
        for (number, line) in text.lines().enumerate() {
            if line.contains("Plant for ") {
                plants.insert(place.clone());
            }
            let names_a_mistake =
                line.contains("Planted::") || line.contains("::planted(") || line.contains("_planted(");
            if names_a_mistake && !is_pure && !is_simulation {
                problems.push(format!("{place}:{} names a planted mistake", number + 1));
            }
        }
    }
    let known = ["chaos/src/planted.rs", "proto/types/src/plant.rs"].map(str::to_owned);
    assert_eq!(plants, known.into(), "the implementations of Plant");
    let workspace: toml::Table = toml::from_str(&fs::read_to_string(root().join("Cargo.toml")).unwrap()).unwrap();
    for member in workspace["workspace"]["members"].as_array().unwrap().iter().filter_map(|member| member.as_str()) {
        let text = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        if member != "tests" && manifest["dependencies"].as_table().unwrap().contains_key("meridian-chaos") {
            problems.push(format!("{member} depends on the simulation"));
        }
    }
    demand_none("mistakes that could reach the binary", &problems);
}
