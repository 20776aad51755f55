//! `azure-vm`: the plugin's core on a command line, without a Director.
//!
//! Arguments in, core calls, results out: one file per command, [`args`] for what is asked, [`output`] for what is
//! shown, [`failure`] for how it ends. Whatever moves bytes or talks to Azure is the library's; there is no second way.

mod args;
mod backup;
mod check;
mod failure;
mod folder;
mod list;
mod output;
mod plan;
mod prune;
mod pull;
mod push;
mod query;
mod restore;
mod sas;
mod saved;
mod snapshots;

use std::process::ExitCode;

use azure_vm_fd::debug_log;
use azure_vm_fd::notice::Severity;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::args::{Args, Command};
use self::failure::{Failure, Status};
use self::output::{Output, Report};

fn main() -> ExitCode {
    let args = Args::parse();
    if args.parameters.debug > 0 {
        // Fails only if there is a subscriber already, and nobody else makes one in this process.
        drop(tracing::dispatcher::set_global_default(
            debug_log::to_stderr(args.parameters.debug),
        ));
    }
    let mut output = Output::new(args.json);
    let name = args.command.name();
    let result = tokio::runtime::Builder::new_multi_thread()
        // Beside the main thread, which consumes what comes. More of them hand bytes to each other; one alone would be what a fast
        // connection waits for.
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("start the runtime: {error}")))
        .and_then(|runtime| runtime.block_on(run(args, &mut output)));
    output.finish(name, result).into()
}

async fn run(args: Args, output: &mut Output) -> Result<Report, Failure> {
    let cancel = cancel_on_signal()?;
    let result = dispatch(args, cancel.clone(), output).await;
    match result {
        // Whatever a command stumbles over after the signal, the signal is why.
        Err(failure) if cancel.is_cancelled() && failure.status != Status::Cancelled => {
            output.message(Severity::Info, failure.text);
            Err(Failure::cancelled())
        }
        other => other,
    }
}

async fn dispatch(
    args: Args,
    cancel: CancellationToken,
    output: &mut Output,
) -> Result<Report, Failure> {
    let parameters = &args.parameters;
    match args.command {
        Command::Check => check::run(parameters, cancel, output).await,
        Command::List => list::run(parameters, cancel, output).await,
        Command::Plan(selection) => plan::run(parameters, &selection, cancel, output).await,
        Command::Backup(backup) => backup::run(parameters, backup, cancel, output).await,
        Command::Restore(restore) => restore::run(parameters, restore, cancel, output).await,
        Command::Query(query) => query::run(parameters, &query, cancel, output).await,
        Command::Snapshots(selection) => {
            snapshots::run(parameters, &selection, cancel, output).await
        }
        Command::Prune(prune) => prune::run(parameters, &prune, cancel, output).await,
        Command::Pull(pull) => pull::run(parameters, pull, cancel, output).await,
        Command::Push(push) => push::run(parameters, push, cancel, output).await,
    }
}

/// A token that the first SIGINT or SIGTERM trips; what the command holds is then given back. The second one leaves at
/// once, for whoever cannot wait that long.
fn cancel_on_signal() -> Result<CancellationToken, Failure> {
    let install = |kind| {
        signal(kind).map_err(|error| Failure::failed(format!("install signal handler: {error}")))
    };
    let mut interrupt = install(SignalKind::interrupt())?;
    let mut terminate = install(SignalKind::terminate())?;
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    tokio::spawn(async move {
        for second in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if second {
                std::process::exit(Status::Cancelled.code().into());
            }
            token.cancel();
        }
    });
    Ok(cancel)
}
