//! What the core has to say to the person who runs a job.
//!
//! The core never talks to the host: it leaves notices in a queue, and whoever drives the job (the plugin on the job's
//! own thread, the command line) drains it. Calls into the File Daemon from a second thread have killed jobs on 9.6.

use std::collections::{HashSet, VecDeque};
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long something lasts before a line tells of it.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// Longest time between two such lines.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How a notice counts for the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Progress and results.
    Info,
    /// Worth knowing; leaves the job's status alone.
    Warning,
    /// Counted as an error: the job ends "OK -- with warnings".
    Error,
}

/// One line for the job log, without the plugin's prefix and without a line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How it counts.
    pub severity: Severity,
    /// The text; never contains a secret.
    pub text: String,
}

/// A queue of notices, shared by everything that works for one job.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Notice>,
    /// What is said once in a job only.
    told: HashSet<String>,
    /// When the last line about something that lasts was left, and how long none follows.
    lasting: Option<(Instant, Duration)>,
}

impl Notices {
    /// Leaves an informational line.
    pub fn info(&self, text: impl Into<String>) {
        self.push(Severity::Info, text.into());
    }

    /// Leaves a warning.
    pub fn warning(&self, text: impl Into<String>) {
        self.push(Severity::Warning, text.into());
    }

    /// Leaves a warning, unless the same one was left before: what holds for a job is found by each of its parts.
    pub fn warning_once(&self, text: impl Into<String>) {
        let text = text.into();
        self.warning_once_about(text.clone(), text);
    }

    /// Leaves a warning, unless one about the same was left before: its text may hold what differs each time, as the id of a request.
    pub fn warning_once_about(&self, subject: impl Into<String>, text: impl Into<String>) {
        if self.queue().told.insert(subject.into()) {
            self.warning(text);
        }
    }

    /// Leaves an error.
    pub fn error(&self, text: impl Into<String>) {
        self.push(Severity::Error, text.into());
    }

    /// When a line about something that began at `since` and lasts may be left: after a minute, and after other such lines of the
    /// job not before a pause that grows.
    pub(crate) fn due(&self, since: Instant) -> Instant {
        self.queue().due(since)
    }

    /// Leaves an informational line about something that began at `since` and lasts, if it is due.
    pub(crate) fn lasting(&self, since: Instant, text: impl FnOnce() -> String) {
        let now = Instant::now();
        let mut queue = self.queue();
        if queue.due(since) > now {
            return;
        }
        let pause = queue.lasting.map_or(FIRST_PAUSE, |(_, pause)| pause);
        queue.lasting = Some((now, (pause * 2).min(LONGEST_PAUSE)));
        drop(queue);
        self.info(text());
    }

    /// Takes the oldest notice.
    #[must_use]
    pub fn pop(&self) -> Option<Notice> {
        self.queue().waiting.pop_front()
    }

    /// Forgets all that nobody took. It was traced.
    pub fn clear(&self) {
        self.queue().waiting.clear();
    }

    fn push(&self, severity: Severity, text: String) {
        match severity {
            Severity::Info => tracing::info!("{text}"),
            Severity::Warning => tracing::warn!("{text}"),
            Severity::Error => tracing::error!("{text}"),
        }
        self.queue().waiting.push_back(Notice { severity, text });
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn due(&self, since: Instant) -> Instant {
        let first = since + FIRST_PAUSE;
        self.lasting
            .map_or(first, |(last, pause)| first.max(last + pause))
    }
}

/// An error and its causes in one line, outermost first: each level of this crate's errors prints only itself.
#[must_use]
pub fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A text that may quote what came from outside, short enough for a message.
#[must_use]
pub(crate) fn brief(mut text: String) -> String {
    /// In bytes; the host's message buffer holds 2000.
    const MOST: usize = 1000;
    if text.len() > MOST {
        text.truncate(text.floor_char_boundary(MOST));
        text.push_str("...");
    }
    text
}

/// Names for one line, as many as leave it readable.
#[must_use]
pub fn some_of(mut names: impl ExactSizeIterator<Item = String>) -> String {
    /// More would bury what matters.
    const MOST: usize = 20;
    let shown: Vec<_> = names.by_ref().take(MOST).collect();
    let more = match names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_come_back_in_order() {
        let notices = Notices::default();
        notices.info("one");
        notices.clone().error("two");
        assert_eq!(notices.pop().map(|n| n.text), Some("one".into()));
        assert_eq!(notices.pop().map(|n| n.severity), Some(Severity::Error));
        assert_eq!(notices.pop(), None);
    }

    #[test]
    fn what_holds_for_a_job_is_said_once() {
        let notices = Notices::default();
        for text in ["one", "two", "one"] {
            notices.warning_once(text);
        }
        for text in ["disk d: request 1", "disk d: request 2"] {
            notices.warning_once_about("disk d", text);
        }
        let texts: Vec<_> = std::iter::from_fn(|| notices.pop()).collect();
        let texts: Vec<_> = texts.iter().map(|notice| &*notice.text).collect();
        assert_eq!(texts, ["one", "two", "disk d: request 1"]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(brief("short".into()), "short");
        let text = brief("x".to_owned() + &"\u{fc}".repeat(5000));
        assert!(
            text.len() <= 1003 && text.ends_with("\u{fc}..."),
            "{}",
            text.len()
        );
    }

    #[test]
    fn a_line_names_twenty() {
        let line = |count: u32| {
            some_of(
                (1..=count)
                    .map(|number| number.to_string())
                    .collect::<Vec<_>>()
                    .into_iter(),
            )
        };
        assert_eq!(line(2), "1, 2");
        assert!(line(20).ends_with("19, 20"));
        assert!(line(23).ends_with("19, 20 and 3 more"));
    }
}
