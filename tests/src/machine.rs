//! What of this machine a fault test needs beyond a user's rights: a disk to cut the power of, a failing sync.
//!
//! A machine that lacks something is no failure of a test: it says what is missing, visibly, and ends.

use std::fmt;
use std::io::Write;
use std::process::Command;

/// Why a fault can't be made on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking(pub String);

impl fmt::Display for Lacking {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Says on standard error that a test was skipped; not by a macro, whose output the test runner would keep to itself.
pub fn skipped(test: &str, why: &Lacking) {
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// Runs a system tool and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, Lacking> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let said = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).env("PATH", path).env("LC_ALL", "C").output();
    let output = output.map_err(|error| Lacking(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(Lacking(format!("{}: {}", said(), String::from_utf8_lossy(&output.stderr).trim())))
}
