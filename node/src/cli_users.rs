//! The command line's words for users, groups and buckets.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use meridian_types::ReplicaCode;

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make a user: an account of its own, which may create buckets. Its secret key is told once.
    Create(UserCreateArgs),
    /// All users.
    List,
    /// One user with its keys, policies and groups.
    Show { name: String },
    /// Delete a user. Its keys stop working everywhere; its buckets stay.
    Delete { name: String },
    /// Access keys of a user.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Policies of a user.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
}

#[derive(Debug, Clone, Args)]
pub struct UserCreateArgs {
    pub name: String,
    /// The access key; made up without it.
    #[arg(long, requires = "secret_key")]
    pub access_key: Option<String>,
    #[arg(long, requires = "access_key")]
    pub secret_key: Option<String>,
    /// The canonical id that S3 shows as the owner; made up without it.
    #[arg(long)]
    pub id: Option<String>,
    /// What S3 shows beside the id; the name without it.
    #[arg(long)]
    pub display_name: Option<String>,
    /// For grants to an e-mail address.
    #[arg(long)]
    pub email: Option<String>,
    #[arg(long)]
    pub tenant: Option<String>,
    /// The id of the account that it belongs to; such a user may do what policies allow it.
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// May use the admin interface and every bucket.
    #[arg(long)]
    pub admin: bool,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Give a user one more access key. Its secret key is told once.
    Create {
        user: String,
        #[arg(long, requires = "secret_key")]
        access_key: Option<String>,
        #[arg(long, requires = "access_key")]
        secret_key: Option<String>,
    },
    /// The access keys of a user.
    List { user: String },
    /// Put an access key out of use.
    Disable { user: String, access_key: String },
    /// Put an access key into use again.
    Enable { user: String, access_key: String },
    /// Delete an access key.
    Delete { user: String, access_key: String },
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Give it a policy, in place of one of the same name.
    Put {
        /// The user or group.
        name: String,
        policy: String,
        /// The policy document, as JSON.
        #[arg(long)]
        file: PathBuf,
    },
    /// Take a policy away.
    Delete {
        /// The user or group.
        name: String,
        policy: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    Create {
        name: String,
    },
    List,
    Delete {
        name: String,
    },
    /// Make a user a member.
    Add {
        name: String,
        user: String,
    },
    /// End a user's membership.
    Remove {
        name: String,
        user: String,
    },
    /// Policies that all members have.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
}

#[derive(Debug, Subcommand)]
pub enum BucketCommand {
    /// Make a bucket for a user.
    Create {
        name: String,
        /// The user whose account owns it; the administrator without it.
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
        /// The replica code of its volumes, such as 110.
        #[arg(long, value_name = "XYZ")]
        replication: Option<ReplicaCode>,
    },
    /// All buckets.
    List,
    /// Change a bucket; it binds what is written from then on.
    Set {
        name: String,
        /// The replica code of its volumes, such as 110.
        #[arg(long, value_name = "XYZ", required_unless_present = "default_replication")]
        replication: Option<ReplicaCode>,
        /// Take the cluster's default code again.
        #[arg(long, conflicts_with = "replication")]
        default_replication: bool,
    },
}
