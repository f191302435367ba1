//! Makes the syncs of a process fail or lie, through strace: chosen fdatasync calls do nothing, and answer EIO or success.
//!
//! strace counts the calls of each thread by itself, and only those on the chosen files.
//!
//! Invariants: what was injected is read back from the trace, so that a test can prove that its fault happened.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

use crate::machine::{Lacking, run};

/// What a chosen call answers; it does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncAnswer {
    /// EIO, as of a broken disk.
    Failure,
    /// Success: a disk that lies.
    Success,
}

/// A planned fault, and the trace of it.
#[derive(Debug)]
pub struct SyncFault {
    directory: TempDir,
    answer: SyncAnswer,
    /// In strace's words: `5` is the fifth call of a thread, `5+` that and all behind it.
    when: String,
    files: Vec<PathBuf>,
}

impl SyncFault {
    /// Hits the calls `when` on any of `files`, or on every file if there are none.
    pub fn new(answer: SyncAnswer, when: &str, files: Vec<PathBuf>) -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, answer, when: when.to_owned(), files })
    }

    /// # Errors
    /// What this machine lacks for it.
    pub fn check() -> Result<(), Lacking> {
        let lacking = |error: String| Lacking(error);
        let probe = Self::new(SyncAnswer::Failure, "1", Vec::new()).map_err(|error| lacking(error.to_string()))?;
        let file = probe.directory.path().join("probe");
        std::fs::write(&file, "probe").map_err(|error| lacking(error.to_string()))?;
        let file = file.to_str().ok_or_else(|| lacking("the temporary directory's name is no text".to_owned()))?;
        let words = probe.wrapper();
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["sync", "--data", file]).collect();
        let outcome = run(words[0], &words[1..]);
        match (probe.injected().as_slice(), outcome) {
            ([_, ..], _) => Ok(()),
            ([], Err(error)) => Err(error),
            ([], Ok(_)) => Err(lacking("strace does not inject errors here".to_owned())),
        }
    }

    /// The words to put before a program.
    pub fn wrapper(&self) -> Vec<String> {
        let answer = match self.answer {
            SyncAnswer::Failure => "error=EIO",
            SyncAnswer::Success => "retval=0",
        };
        let inject = format!("inject=fdatasync:{answer}:when={}", self.when);
        let mut words: Vec<String> =
            ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-e", "trace=fdatasync,fsync", "-e", &inject]
                .map(str::to_owned)
                .into();
        for file in &self.files {
            words.extend(["-P".to_owned(), file.display().to_string()]);
        }
        words.extend(["-o".to_owned(), self.trace().display().to_string()]);
        words
    }

    fn trace(&self) -> PathBuf {
        self.directory.path().join("trace")
    }

    /// The calls that were hit, each with the path of its file.
    pub fn injected(&self) -> Vec<String> {
        injected(&std::fs::read_to_string(self.trace()).unwrap_or_default())
    }
}

/// A call that another thread's came between stands in two lines, the path in the first of them.
fn injected(trace: &str) -> Vec<String> {
    let mut unfinished = HashMap::new();
    let mut found = Vec::new();
    for line in trace.lines() {
        let thread = line.split_whitespace().next().unwrap_or_default();
        if let Some(call) = line.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, call);
        } else if line.ends_with("(INJECTED)") {
            let begun =
                if line.contains("resumed>") { unfinished.get(thread).copied().unwrap_or_default() } else { "" };
            found.push(format!("{begun}{line}"));
        }
    }
    found
}

/// The files in `directory` whose names end so, sorted.
pub fn files_ending(directory: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_in_two_lines_keeps_its_path() {
        let trace = "7 fdatasync(5</d/1.log> <unfinished ...>\n8 fdatasync(6</d/1.data>) = 0\n\
            7  <... fdatasync resumed>)          = -1 EIO (Input/output error) (INJECTED)\n\
            8 fdatasync(6</d/1.data>) = -1 EIO (Input/output error) (INJECTED)\n";
        let found = injected(trace);
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("1.log>") && found[1].contains("1.data>"), "{found:?}");
    }
}
