//! `prune`: deletes snapshots that jobs have left in Azure. Only what carries our tags and is selected is touched, and
//! nothing is without `--yes`.

use azure_vm_fd::azure::Azure;
use azure_vm_fd::backup::delete_snapshot;
use azure_vm_fd::notice::{Severity, with_causes};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{Pairs, Parameters, PruneArgs};
use crate::failure::{Failure, Status};
use crate::output::{Output, Report};
use crate::snapshots::{Snapshot, select};

/// Deletions under way at a time: each is two requests and the polling of an operation, far below Azure's limits.
const PARALLEL_DELETIONS: usize = 8;

/// The JSON document.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pruned {
    /// Whether anything was to be deleted, or only shown.
    dry_run: bool,
    /// Deleted; of a dry run, what would be.
    snapshots: Vec<Snapshot>,
    /// Left alone, because somebody holds access to them.
    in_use: Vec<Snapshot>,
    /// Names of those that Azure did not delete; the messages say why.
    failed: Vec<String>,
}

pub(crate) async fn run(
    parameters: &Parameters,
    args: &PruneArgs,
    cancel: CancellationToken,
    output: &mut Output,
) -> Result<Report, Failure> {
    let selection = &args.selection;
    if selection.job.is_none() && selection.client.is_none() && selection.older_than.is_none() {
        return Err(Failure::usage(
            "say which snapshots, with --job, --client or --older-than; `azure-vm snapshots` lists them",
        ));
    }
    let settings = parameters.settings(Pairs::new(), output)?;
    let azure = Azure::new(settings.azure, cancel.clone())?;
    let (chosen, left): (Vec<_>, Vec<_>) = select(&azure, selection)
        .await?
        .into_iter()
        .partition(|snapshot| args.in_use || !snapshot.is_open);
    let mut pruned = Pruned {
        dry_run: !args.yes,
        in_use: left.iter().map(Snapshot::new).collect(),
        ..Pruned::default()
    };
    for snapshot in &pruned.in_use {
        output.message(
            Severity::Warning,
            format!(
                "somebody holds access to this snapshot, so it stays (--in-use takes it, too): {}",
                snapshot.text()
            ),
        );
    }
    if !chosen.is_empty() {
        output.message(
            Severity::Warning,
            "a job that loses its snapshots saves the disks in full at its next run, and ends with warnings"
                .to_owned(),
        );
    }
    if args.yes {
        let azure = &azure;
        let mut deletions =
            stream::iter(&chosen)
                .map(|snapshot| async move {
                    (snapshot, delete_snapshot(azure, &snapshot.known.id).await)
                })
                .buffered(PARALLEL_DELETIONS);
        while let Some((snapshot, result)) = deletions.next().await {
            let shown = Snapshot::new(snapshot);
            match result {
                Ok(()) => {
                    output.line(format!("deleted {}", shown.text()));
                    pruned.snapshots.push(shown);
                }
                Err(error) if error.is_cancelled() => return Err(Failure::cancelled()),
                Err(error) => {
                    output.message(Severity::Error, with_causes(&error));
                    pruned.failed.push(snapshot.known.id.name().to_owned());
                }
            }
        }
    } else {
        pruned.snapshots = chosen.iter().map(Snapshot::new).collect();
        for snapshot in &pruned.snapshots {
            output.line(format!("would delete {}", snapshot.text()));
        }
        output.line(format!(
            "{} snapshots; --yes deletes them",
            pruned.snapshots.len()
        ));
    }
    let status = match (pruned.failed.is_empty(), pruned.snapshots.is_empty()) {
        (true, _) => Status::Ok,
        (false, false) => Status::Partial,
        (false, true) => Status::Failed,
    };
    Report::new(status, &pruned)
}
