//! `query NAME`: what `.query` in bconsole answers, word by word.

use azure_vm_fd::private_folder::PrivateFolder;
use azure_vm_fd::query::{Question, Sources, answer};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{Pairs, Parameters, QueryArgs};
use crate::failure::{Failure, Status, azure_status};
use crate::output::{Output, Report};

/// The JSON document.
#[derive(Serialize)]
struct Answered<'a> {
    /// Line by line.
    answer: &'a [String],
}

pub(crate) async fn run(
    parameters: &Parameters,
    args: &QueryArgs,
    cancel: CancellationToken,
    output: &mut Output,
) -> Result<Report, Failure> {
    let settings = parameters.settings(Pairs::new(), output);
    let groups = parameters.groups();
    let misconfigured = match Question::of_name(&args.name) {
        Some(Question::Connection | Question::Vm | Question::Disk) => settings.is_err(),
        Some(Question::Group) => groups.is_err(),
        Some(Question::Version | Question::Snapshot) => false,
        None => true,
    };
    let sources = Sources {
        settings: settings.map_err(|failure| failure.text),
        groups: groups.map_err(|failure| failure.text),
        state: state(args).map(Some),
        cancel: cancel.clone(),
    };
    let answer = answer(&args.name, &sources).await;
    if cancel.is_cancelled() {
        return Err(Failure::cancelled());
    }
    for line in answer.lines() {
        output.line(line);
    }
    let status = if misconfigured {
        Status::Usage
    } else if answer.is_good {
        Status::Ok
    } else {
        answer.azure.map_or(Status::Failed, azure_status)
    };
    Report::new(
        status,
        &Answered {
            answer: answer.lines(),
        },
    )
}

/// The plugin knows its working directory; here a wrong one must not look like a daemon without snapshots.
fn state(args: &QueryArgs) -> Result<PrivateFolder, String> {
    let dir = args.working_directory.join("azure-vm");
    PrivateFolder::open_to_read(&dir).map_err(|error| {
        format!(
            "read folder {}: {error}; name the File Daemon's WorkingDirectory with --working-directory",
            dir.display()
        )
    })
}
