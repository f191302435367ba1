//! `meridian bucket`: buckets as an administrator sees them.

use std::process::ExitCode;

use anyhow::Result;
use http::Method;
use meridian_rest::{BucketChangeRequest, BucketInfo, BucketRequest};

use super::inspect::{encode, time_of};
use super::table;
use super::user::show;
use crate::cli::{BucketCommand, ConnectionArgs};
use crate::client::AdminClient;

pub async fn bucket(connection: &ConnectionArgs, command: BucketCommand) -> Result<ExitCode> {
    let client = AdminClient::connect(connection)?;
    match command {
        BucketCommand::Create { name, owner, replication } => {
            let replication = replication.map(|code| code.to_string());
            let request = BucketRequest { name, owner, replication };
            let made: BucketInfo = client.send(Method::POST, "/admin/v1/buckets", Some(&request)).await?;
            show(connection, &made, || print_buckets(std::slice::from_ref(&made)))
        }
        BucketCommand::List => {
            let buckets: Vec<BucketInfo> = client.get("/admin/v1/buckets").await?;
            show(connection, &buckets, || print_buckets(&buckets))
        }
        BucketCommand::Set { name, replication, default_replication: _ } => {
            let request = BucketChangeRequest { replication: replication.map(|code| code.to_string()) };
            let path = format!("/admin/v1/buckets/{}", encode(&name));
            let changed: BucketInfo = client.send(Method::PUT, &path, Some(&request)).await?;
            show(connection, &changed, || print_buckets(std::slice::from_ref(&changed)))
        }
    }
}

fn print_buckets(buckets: &[BucketInfo]) {
    let mut rows = table(&["NAME", "OWNER", "CREATED", "VERSIONING", "REPLICATION", "CONFIGURATIONS"]);
    for bucket in buckets {
        rows.add_row(vec![
            bucket.name.clone(),
            bucket.owner.clone(),
            time_of(bucket.created_unix_ms),
            bucket.versioning.clone(),
            bucket.replication.clone().unwrap_or_else(|| "default".to_owned()),
            bucket.configurations.join(", "),
        ]);
    }
    println!("{rows}");
}
