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
mod pull;
mod restore;
mod sas;
mod saved;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::args::{Args, Command};
use self::failure::{Failure, Status};
use self::output::{Output, Report};

fn main() -> ExitCode {
    let args = Args::parse();
    let mut output = Output::new(args.json);
    let name = args.command.name();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("start the runtime: {error}")))
        .and_then(|runtime| runtime.block_on(run(args, &mut output)));
    output.finish(name, result).into()
}

async fn run(args: Args, output: &mut Output) -> Result<Report, Failure> {
    let cancel = cancel_on_signal()?;
    match args.command {
        Command::Plan(selection) => plan::run(&args.parameters, &selection, cancel, output).await,
        Command::Backup(backup) => backup::run(&args.parameters, backup, cancel, output).await,
        Command::Restore(restore) => restore::run(&args.parameters, restore, cancel, output).await,
        Command::Check => check::run(&args.parameters, cancel, output).await,
        Command::List => list::run(&args.parameters, cancel, output).await,
        Command::Pull(pull) => pull::run(&args.parameters, pull, cancel, output).await,
        Command::Push(_) => unimplemented!(),
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
