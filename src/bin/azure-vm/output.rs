//! What people and scripts see.
//!
//! Results go to standard output: lines for people, or with `--json` one document. Messages and progress go to standard
//! error, so that a result can be piped. On a terminal progress is a bar, otherwise a plain line now and then.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use azure_vm_fd::notice::{Notice, Notices, Severity};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::failure::{Failure, Status};

/// Time between two plain progress lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// [`Severity::Error`] in the JSON document.
const ERROR: &str = "error";

/// The one place that prints.
pub(crate) struct Output {
    json: bool,
    notices: Notices,
    messages: Vec<Message>,
    progress: Option<Progress>,
}

/// A message in the JSON document.
#[derive(Serialize)]
struct Message {
    severity: &'static str,
    text: String,
}

/// Progress of one image.
struct Progress {
    name: String,
    size: u64,
    bar: Option<ProgressBar>,
    next_line: Instant,
}

/// What a command has to report: a status and the members of its JSON document.
pub(crate) struct Report {
    pub(crate) status: Status,
    pub(crate) members: Map<String, Value>,
}

impl Report {
    /// `body` must be a struct: its fields become members of the document.
    pub(crate) fn new(status: Status, body: &impl Serialize) -> Result<Self, Failure> {
        match serde_json::to_value(body) {
            Ok(Value::Object(members)) => Ok(Self { status, members }),
            Ok(other) => Err(Failure::failed(format!(
                "write JSON: the result is {other}, not an object"
            ))),
            Err(error) => Err(Failure::failed(format!("write JSON: {error}"))),
        }
    }
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            notices: Notices::default(),
            messages: Vec::new(),
            progress: None,
        }
    }

    /// Whether standard output is for the JSON document alone.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The queue that the core fills; [`Output::drain`] empties it.
    pub(crate) fn notices(&self) -> Notices {
        self.notices.clone()
    }

    /// One line of the result, for people.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        if !self.json {
            // A reader that went away (`| head`) is no failure of the command: there is nobody left to tell.
            self.around_bar(|| drop(writeln!(io::stdout().lock(), "{}", text.as_ref())));
        }
    }

    /// Shows what the core has left.
    pub(crate) fn drain(&mut self) {
        while let Some(Notice { severity, text }) = self.notices.pop() {
            self.message(severity, text);
        }
    }

    /// Whether an error was among the messages so far.
    pub(crate) fn has_errors(&self) -> bool {
        self.messages
            .iter()
            .any(|message| message.severity == ERROR)
    }

    /// One message.
    pub(crate) fn message(&mut self, severity: Severity, text: String) {
        let (prefix, severity) = match severity {
            Severity::Info => ("", "info"),
            Severity::Warning => ("warning: ", "warning"),
            Severity::Error => ("error: ", ERROR),
        };
        self.around_bar(|| stderr(&format!("{prefix}{text}")));
        self.messages.push(Message { severity, text });
    }

    /// An image of `size` bytes begins.
    pub(crate) fn begin_progress(&mut self, name: &str, size: u64) {
        let bar = io::stderr().is_terminal().then(|| bar(name, size));
        self.progress = Some(Progress {
            name: name.to_owned(),
            size,
            bar,
            next_line: Instant::now() + PLAIN_INTERVAL,
        });
    }

    /// The image is done up to `position` bytes.
    pub(crate) fn progress(&mut self, position: u64) {
        let Some(progress) = &mut self.progress else {
            return;
        };
        match &progress.bar {
            Some(bar) => bar.set_position(position),
            None if Instant::now() >= progress.next_line => {
                progress.next_line = Instant::now() + PLAIN_INTERVAL;
                stderr(&format!(
                    "{}: {} of {}",
                    progress.name,
                    HumanBytes(position),
                    HumanBytes(progress.size)
                ));
            }
            None => {}
        }
    }

    /// The image is done, or given up.
    pub(crate) fn end_progress(&mut self) {
        if let Some(bar) = self.progress.take().and_then(|progress| progress.bar) {
            bar.finish_and_clear();
        }
    }

    /// The last word of the process.
    pub(crate) fn finish(mut self, command: &str, result: Result<Report, Failure>) -> Status {
        self.end_progress();
        self.drain();
        let (status, error, members) = match result {
            Ok(report) => (report.status, None, report.members),
            Err(failure) => (failure.status, Some(failure.text), Map::new()),
        };
        if let Some(error) = &error {
            stderr(&format!("azure-vm {command}: {error}"));
        }
        if self.json {
            let document = self.document(command, status, error, members);
            if let Err(error) = writeln!(io::stdout().lock(), "{document}") {
                stderr(&format!("azure-vm {command}: write JSON: {error}"));
                return Status::Failed;
            }
        }
        status
    }

    fn document(
        &self,
        command: &str,
        status: Status,
        error: Option<String>,
        members: Map<String, Value>,
    ) -> String {
        let mut document = Map::new();
        document.insert("command".to_owned(), command.into());
        document.insert("status".to_owned(), serde_json::json!(status));
        document.insert("error".to_owned(), error.into());
        document.insert("messages".to_owned(), serde_json::json!(self.messages));
        document.extend(members);
        Value::Object(document).to_string()
    }

    fn around_bar(&self, print: impl FnOnce()) {
        match self.progress.as_ref().and_then(|p| p.bar.as_ref()) {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

/// A size for people; JSON has the bytes.
pub(crate) fn human(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

fn bar(name: &str, size: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix} {wide_bar} {bytes} of {total_bytes} {bytes_per_sec} {eta}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(size).with_style(style);
    bar.set_prefix(name.to_owned());
    bar
}

fn stderr(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}
