//! The binary `meridian`: a node, a development cluster, and the commands that operators use.
//!
//! Exit codes: 0 done, 1 warn (status) or a failed operation, 2 bad input, configuration, or a time-out.

mod address;
mod cli;
mod cli_bench;
mod cli_kms;
mod cli_users;
mod client;
mod client_ports;
mod commands;
mod config;
mod dev;
mod forwarding;
mod identity;
mod init;
mod key_list;
mod lifecycle;
mod links;
mod pki;
mod server;
mod signals;
mod tls_client;
mod users;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command, NodeArgs, ParkedCommand, ReplicationCommand, VolumeCommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    without_huge_pages();
    let cli = Cli::parse();
    init_logging(matches!(cli.command, Command::Node(_)));
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("the first provider of this process");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("meridian")
        .build()
        .expect("a tokio runtime");
    let code = match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            exit_code_of(&error)
        }
    };
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    code
}

/// The allocator asks for huge pages, and then each of its heaps, one for every thread, holds megabytes of which it uses a few
/// pages: a third of an idle node's memory (docs/performance.md). Where it can't be refused nothing else changes.
fn without_huge_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn exit_code_of(error: &anyhow::Error) -> ExitCode {
    let bad_input = error.chain().any(|cause| {
        cause.is::<config::ConfigError>() || cause.is::<identity::IdentityError>() || cause.is::<client::UsageError>()
    });
    ExitCode::from(if bad_input { 2 } else { 1 })
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Init(args) => commands::init(&args, cli.connection.json),
        Command::Node(NodeArgs { command: Some(command), .. }) => {
            commands::node_command(&cli.connection, &command).await
        }
        Command::Node(args) => commands::node(&args).await,
        Command::Volume(VolumeCommand::List) => commands::volumes(&cli.connection, None).await,
        Command::Volume(VolumeCommand::Show { volume }) => commands::volumes(&cli.connection, Some(volume)).await,
        Command::Dev(args) => dev::run(&args, cli.connection.ready_file.as_deref()).await,
        Command::Ready => commands::ready(&cli.connection).await,
        Command::Status => commands::status(&cli.connection).await,
        Command::Replication(ReplicationCommand::Status { watch }) => {
            commands::replication_status(&cli.connection, watch).await
        }
        Command::Replication(ReplicationCommand::Wait(args)) => {
            commands::replication_wait(&cli.connection, &args).await
        }
        Command::Replication(ReplicationCommand::Explain { object }) => {
            commands::replication_explain(&cli.connection, &object).await
        }
        Command::Replication(ReplicationCommand::Conflicts(args)) => {
            commands::replication_conflicts(&cli.connection, &args).await
        }
        Command::Replication(ReplicationCommand::Parked { command: ParkedCommand::List }) => {
            commands::replication_parked(&cli.connection).await
        }
        Command::Replication(ReplicationCommand::Parked { command: ParkedCommand::Retry { from } }) => {
            commands::replication_retry(&cli.connection, from.as_deref()).await
        }
        Command::User(command) => commands::user(&cli.connection, command).await,
        Command::Group(command) => commands::group(&cli.connection, command).await,
        Command::Bucket(command) => commands::bucket(&cli.connection, command).await,
        Command::Kms(command) => commands::kms(&cli.connection, command),
        Command::Bench(args) => commands::bench(&cli.connection, &args).await,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "meridian", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Structured logs to standard error: JSON for a node, text elsewhere; `MERIDIAN_LOG` sets the levels.
fn init_logging(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MERIDIAN_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("warn,meridian=info,openraft=error,chitchat=error,s3s=off")
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.init();
    }
}
