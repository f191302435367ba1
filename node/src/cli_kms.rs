//! The command line's words for the keys that objects are encrypted under. What they do stands in `commands/kms.rs`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum KmsCommand {
    /// The keys with their versions.
    List {
        #[command(flatten)]
        place: KeyPlace,
    },
    /// Add a key.
    Create {
        /// What clients name: a plain name, or a name for an ARN's end.
        id: String,
        #[command(flatten)]
        place: KeyPlace,
    },
    /// Give a key a new version: new objects are sealed under it, older ones stay readable.
    Rotate {
        id: String,
        #[command(flatten)]
        place: KeyPlace,
    },
    /// Let a key neither seal nor open: its objects can't be read meanwhile.
    Disable {
        id: String,
        #[command(flatten)]
        place: KeyPlace,
    },
    /// Let a disabled key seal and open again.
    Enable {
        id: String,
        #[command(flatten)]
        place: KeyPlace,
    },
}

/// Which lists are meant. Nodes see a change within a second.
#[derive(Debug, Clone, Args)]
pub struct KeyPlace {
    /// The lists of all nodes below a directory that `meridian init` or `meridian dev` wrote; without it and --file
    /// that of `meridian dev`.
    #[arg(long, value_name = "D", conflicts_with = "file")]
    pub dir: Option<PathBuf>,
    /// One list, the kms.toml beside a node.toml. Give every node the same.
    #[arg(long, value_name = "F")]
    pub file: Option<PathBuf>,
}
