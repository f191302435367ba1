//! Places at which a test can hold a debug build, to kill it there: between two steps whose order matters, where luck with
//! timing would be needed otherwise.
//!
//! `MERIDIAN_STOP_AT=NAME=PATH` holds the first one who comes to the place of that name: PATH is made, and the task goes no
//! further. An optimised build has no such places.
//!
//! Invariant: without the variable nothing happens.

use std::fs::OpenOptions;

/// The variable that names a place and a file.
const VARIABLE: &str = "MERIDIAN_STOP_AT";

/// A place of that name.
pub async fn stop_point(name: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    let Some((place, path)) = wanted.split_once('=') else { return };
    if place == name && OpenOptions::new().write(true).create_new(true).open(path).is_ok() {
        tracing::warn!(place, path, "held for a test");
        std::future::pending::<()>().await;
    }
}
