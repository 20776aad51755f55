//! `query NAME`: what `.query` in bconsole answers, word by word.

use azure_vm_fd::notice::with_causes;
use azure_vm_fd::query::{Question, Sources, answer};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{Pairs, Parameters, QueryArgs};
use crate::failure::{Failure, Status};
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
    let sources = Sources {
        settings: parameters
            .settings(Pairs::new(), output)
            .map_err(|failure| failure.text),
        groups: parameters.groups().map_err(|error| with_causes(&error)),
        state_dir: state_dir(args),
        cancel: cancel.clone(),
    };
    let answer = answer(&args.name, &sources).await;
    if cancel.is_cancelled() {
        return Err(Failure::cancelled());
    }
    for line in answer.lines() {
        output.line(line);
    }
    let status = match Question::of_name(&args.name) {
        None => Status::Usage,
        Some(_) if answer.is_good => Status::Ok,
        Some(_) => Status::Failed,
    };
    Report::new(
        status,
        &Answered {
            answer: answer.lines(),
        },
    )
}

/// The plugin knows its working directory; here a wrong one must not look like a daemon without snapshots.
fn state_dir(args: &QueryArgs) -> Result<std::path::PathBuf, String> {
    let dir = args.working_directory.join("azure-vm");
    match dir.read_dir() {
        Ok(_) => Ok(dir),
        Err(error) => Err(format!(
            "read folder {}: {error}; name the File Daemon's WorkingDirectory with --working-directory",
            dir.display()
        )),
    }
}
