//! `meridian user` and `meridian group`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use http::Method;
use meridian_rest::{Created, GroupInfo, KeyInfo, KeyRequest, UserInfo, UserRequest};
use serde::Serialize;
use serde_json::{Value, json};

use super::inspect::{encode, time_of};
use super::table;
use crate::cli::{ConnectionArgs, GroupCommand, KeyCommand, PolicyCommand, UserCommand};
use crate::client::AdminClient;

const NO_BODY: Option<&()> = None;

pub async fn user(connection: &ConnectionArgs, command: UserCommand) -> Result<ExitCode> {
    let client = AdminClient::connect(connection)?;
    match command {
        UserCommand::Create(args) => {
            let request = UserRequest {
                name: args.name,
                id: args.id,
                display_name: args.display_name,
                email: args.email,
                tenant: args.tenant,
                account: args.account,
                admin: args.admin,
                access_key: args.access_key,
                secret_key: args.secret_key,
            };
            let made: Created = client.send(Method::POST, "/admin/v1/users", Some(&request)).await?;
            show(connection, &made, || print_created(&made))
        }
        UserCommand::List => {
            let users: Vec<UserInfo> = client.get("/admin/v1/users").await?;
            show(connection, &users, || print_users(&users))
        }
        UserCommand::Show { name } => {
            let user: UserInfo = client.get(&user_path(&name)).await?;
            show(connection, &user, || print_user(&user))
        }
        UserCommand::Delete { name } => {
            let done: Value = client.send(Method::DELETE, &user_path(&name), NO_BODY).await?;
            show(connection, &done, || println!("Deleted user {name}; its buckets stay."))
        }
        UserCommand::Key { command } => key(connection, &client, command).await,
        UserCommand::Policy { command } => policy(connection, &client, "users", command).await,
    }
}

async fn key(connection: &ConnectionArgs, client: &AdminClient, command: KeyCommand) -> Result<ExitCode> {
    match command {
        KeyCommand::Create { user, access_key, secret_key } => {
            let path = format!("{}/keys", user_path(&user));
            let request = KeyRequest { access_key, secret_key };
            let made: Created = client.send(Method::POST, &path, Some(&request)).await?;
            show(connection, &made, || print_created(&made))
        }
        KeyCommand::List { user } => {
            let keys: Vec<KeyInfo> = client.get(&format!("{}/keys", user_path(&user))).await?;
            show(connection, &keys, || print_keys(&keys))
        }
        KeyCommand::Disable { user, access_key } => set_active(connection, client, &user, &access_key, false).await,
        KeyCommand::Enable { user, access_key } => set_active(connection, client, &user, &access_key, true).await,
        KeyCommand::Delete { user, access_key } => {
            let path = format!("{}/keys/{}", user_path(&user), encode(&access_key));
            let done: Value = client.send(Method::DELETE, &path, NO_BODY).await?;
            show(connection, &done, || println!("Deleted access key {access_key} of user {user}."))
        }
    }
}

async fn set_active(
    connection: &ConnectionArgs,
    client: &AdminClient,
    user: &str,
    access_key: &str,
    active: bool,
) -> Result<ExitCode> {
    let path = format!("{}/keys/{}", user_path(user), encode(access_key));
    let done: Value = client.send(Method::PUT, &path, Some(&json!({ "active": active }))).await?;
    let state = if active { "in use again" } else { "out of use" };
    show(connection, &done, || println!("Access key {access_key} of user {user} is {state}."))
}

async fn policy(
    connection: &ConnectionArgs,
    client: &AdminClient,
    holders: &str,
    command: PolicyCommand,
) -> Result<ExitCode> {
    let path = |name: &str, policy: &str| format!("/admin/v1/{holders}/{}/policies/{}", encode(name), encode(policy));
    match command {
        PolicyCommand::Put { name, policy, file } => {
            let document = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let request = json!({ "document": document });
            let done: Value = client.send(Method::PUT, &path(&name, &policy), Some(&request)).await?;
            show(connection, &done, || println!("{name} has policy {policy} now."))
        }
        PolicyCommand::Delete { name, policy } => {
            let done: Value = client.send(Method::DELETE, &path(&name, &policy), NO_BODY).await?;
            show(connection, &done, || println!("{name} has policy {policy} no more."))
        }
    }
}

pub async fn group(connection: &ConnectionArgs, command: GroupCommand) -> Result<ExitCode> {
    let client = AdminClient::connect(connection)?;
    let member = |group: &str, user: &str| format!("{}/groups/{}", user_path(user), encode(group));
    match command {
        GroupCommand::Create { name } => {
            let done: Value = client.send(Method::POST, "/admin/v1/groups", Some(&json!({ "name": name }))).await?;
            show(connection, &done, || println!("Created group {name}."))
        }
        GroupCommand::List => {
            let groups: Vec<GroupInfo> = client.get("/admin/v1/groups").await?;
            show(connection, &groups, || print_groups(&groups))
        }
        GroupCommand::Delete { name } => {
            let path = format!("/admin/v1/groups/{}", encode(&name));
            let done: Value = client.send(Method::DELETE, &path, NO_BODY).await?;
            show(connection, &done, || println!("Deleted group {name}."))
        }
        GroupCommand::Add { name, user } => {
            let done: Value = client.send(Method::PUT, &member(&name, &user), NO_BODY).await?;
            show(connection, &done, || println!("User {user} is in group {name}."))
        }
        GroupCommand::Remove { name, user } => {
            let done: Value = client.send(Method::DELETE, &member(&name, &user), NO_BODY).await?;
            show(connection, &done, || println!("User {user} is in group {name} no more."))
        }
        GroupCommand::Policy { command } => policy(connection, &client, "groups", command).await,
    }
}

fn user_path(name: &str) -> String {
    format!("/admin/v1/users/{}", encode(name))
}

pub(super) fn show(connection: &ConnectionArgs, value: &impl Serialize, print: impl FnOnce()) -> Result<ExitCode> {
    if connection.json {
        println!("{}", serde_json::to_string_pretty(value)?);
    } else {
        print();
    }
    Ok(ExitCode::SUCCESS)
}

fn print_created(made: &Created) {
    if let Some(user) = &made.user {
        println!("Created user {} ({}).\n", user.name, user.id);
    }
    println!("access key  {}\nsecret key  {}\n", made.access_key, made.secret_key);
    println!("The secret key is not shown again.");
}

fn print_users(users: &[UserInfo]) {
    let mut rows = table(&["NAME", "ID", "DISPLAY NAME", "EMAIL", "TENANT", "KEYS", "ADMIN"]);
    for user in users {
        rows.add_row(vec![
            user.name.clone(),
            user.id.clone(),
            user.display_name.clone(),
            user.email.clone().unwrap_or_default(),
            user.tenant.clone().unwrap_or_default(),
            user.access_keys.len().to_string(),
            if user.admin { "yes" } else { "" }.to_owned(),
        ]);
    }
    println!("{rows}");
}

fn print_user(user: &UserInfo) {
    print_users(std::slice::from_ref(user));
    println!("\ngroups    {}", user.groups.join(", "));
    println!("policies  {}\n", user.policies.keys().cloned().collect::<Vec<_>>().join(", "));
    print_keys(&user.access_keys);
}

fn print_keys(keys: &[KeyInfo]) {
    let mut rows = table(&["ACCESS KEY", "STATE", "CREATED"]);
    for key in keys {
        let state = if key.active { "active" } else { "disabled" };
        rows.add_row(vec![key.access_key.clone(), state.to_owned(), time_of(key.created_unix_ms)]);
    }
    println!("{rows}");
}

fn print_groups(groups: &[GroupInfo]) {
    let mut rows = table(&["NAME", "POLICIES"]);
    for group in groups {
        rows.add_row(vec![group.name.clone(), group.policies.keys().cloned().collect::<Vec<_>>().join(", ")]);
    }
    println!("{rows}");
}
