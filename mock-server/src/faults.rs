//! Faults on command: which request fails, and how.
use crate::size::ByteSize;
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// A rule. Rules are tried in the order they were added; the first that fires wins.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Operation name as in the counters, e.g. `Snapshots_CreateOrUpdate`; a trailing `*` matches any rest.
    pub operation: String,
    /// Only requests whose path and query contain this text, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_contains: Option<String>,
    /// Which of the matching requests fail.
    #[serde(default)]
    pub when: When,
    /// What happens to them.
    pub action: Action,
}

/// Which of the requests that match a rule fail.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum When {
    /// Each of them, as long as the rule stands.
    #[default]
    Always,
    /// The n-th only, counted from 1.
    Nth(u64),
    /// The first n.
    First(u64),
    /// From the n-th on, counted from 1.
    From(u64),
    /// Each with this probability, drawn from a generator with this seed.
    Probability {
        /// 0.0 ..= 1.0
        of: f64,
        /// Same seed, same draws.
        seed: u64,
    },
}

/// What happens to a request. Only `LostAnswer`, `Delay`, `FailOperation`, `NeverEnding`, `SkewClock` and those that spoil
/// a body let the request take effect.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Action {
    /// Answers this instead. Without a body the answer has the service's usual error shape.
    Status {
        /// HTTP status.
        status: u16,
        /// Error code of the body.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// Whole body, instead of the service's shape.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// `Retry-After`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<RetryAfter>,
    },
    /// Throttling in the service's own shape: 429 on ARM, 503 `ServerBusy` on the data endpoint.
    Throttle {
        /// `Retry-After`; the data endpoint often sends none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<RetryAfter>,
    },
    /// Answers later.
    Delay {
        /// How much later.
        milliseconds: u64,
    },
    /// Resets the connection before any answer; the request has no effect.
    Reset,
    /// The request takes effect, but the connection is reset before any answer.
    LostAnswer,
    /// The connection breaks after this much of the body.
    CutBody {
        /// Bytes of body that still arrive.
        after: ByteSize,
    },
    /// The body stops after this much, and the connection stays open.
    Stall {
        /// Bytes of body that still arrive.
        after: ByteSize,
    },
    /// The body is this much shorter than what `Content-Range` says, in correct framing.
    ShortBody {
        /// Bytes left out at the end.
        by: ByteSize,
    },
    /// `Content-Range` names a range this much further than the body's.
    WrongContentRange {
        /// Displacement in bytes.
        by: ByteSize,
    },
    /// Body and `Content-Range` are those of a range this much further than the one that was asked for; so much before it
    /// where the blob ends.
    OtherRange {
        /// Displacement in bytes.
        by: ByteSize,
    },
    /// The service is gone for a time on its own clock: all connections are reset, and new ones refused.
    Refuse {
        /// How long.
        seconds: u32,
    },
    /// All connections are reset, and for a time on the service's clock new ones meet a certificate of an authority that
    /// nobody was told to trust. Only for requests over TLS.
    UntrustedCertificate {
        /// How long.
        seconds: u32,
    },
    /// All connections are reset, and for a time on the service's clock [`crate::Emulator::look_up`] knows no name. Who asks
    /// another resolver notices nothing but the resets.
    ForgetNames {
        /// How long.
        seconds: u32,
    },
    /// The token the request came with has run out: answers 401.
    ExpireToken,
    /// The principal the request came from has another secret from now on, and its token has run out: answers 401.
    RotateSecret {
        /// The new secret.
        to: String,
    },
    /// The service's clock is so far ahead of the client's while it answers; behind, if negative.
    SkewClock {
        /// How far.
        seconds: i64,
    },
    /// On the data endpoint: this query parameter or header is not heeded, as by a service that does not know it.
    Ignore {
        /// Its name.
        name: String,
    },
    /// Withdraws the SAS the request came with, of its address or else of what it copies, then answers 403.
    RevokeSas,
    /// Lets this SAS run out, then answers 403.
    ExpireSas,
    /// Withdraws the SAS of the base that a difference is asked against, then answers 403.
    RevokeBaseSas,
    /// The long-running operation that the request starts ends as `Failed` (with HTTP 200).
    FailOperation {
        /// Error code.
        code: String,
        /// Error message.
        message: String,
    },
    /// The long-running operation that the request starts never ends.
    NeverEnding,
}

/// A rule in force.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultView {
    /// As it was added.
    #[serde(flatten)]
    pub fault: Fault,
    /// How many requests felt it: one that has nothing of what the action spoils is let through and not counted; the next one
    /// is to feel it then.
    pub fired: u64,
}

/// A `Retry-After` header.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum RetryAfter {
    /// As a number of seconds.
    Seconds(u32),
    /// As an HTTP date this many seconds ahead.
    DateInSeconds(u32),
}

impl Fault {
    /// A rule that fires for every request of the operation.
    #[must_use]
    pub fn new(operation: &str, action: Action) -> Self {
        Self {
            operation: operation.to_owned(),
            path_contains: None,
            when: When::Always,
            action,
        }
    }

    /// Fires for the n-th request only, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.when = When::Nth(n);
        self
    }

    /// Fires for the first n requests.
    #[must_use]
    pub fn first(mut self, n: u64) -> Self {
        self.when = When::First(n);
        self
    }

    /// Fires from the n-th request on, counted from 1.
    #[must_use]
    pub fn from(mut self, n: u64) -> Self {
        self.when = When::From(n);
        self
    }

    /// Fires with a probability, reproducibly.
    #[must_use]
    pub fn probability(mut self, of: f64, seed: u64) -> Self {
        self.when = When::Probability { of, seed };
        self
    }

    /// Only for requests whose path and query contain `text`.
    #[must_use]
    pub fn path_contains(mut self, text: &str) -> Self {
        self.path_contains = Some(text.to_owned());
        self
    }
}

impl Action {
    /// An error status in the service's usual shape.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            code: None,
            body: None,
            retry_after: None,
        }
    }

    /// An error status with a code.
    #[must_use]
    pub fn error(status: u16, code: &str) -> Self {
        Self::Status {
            status,
            code: Some(code.to_owned()),
            body: None,
            retry_after: None,
        }
    }

    /// A delay.
    #[must_use]
    pub fn delay(delay: Duration) -> Self {
        Self::Delay {
            milliseconds: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// The rules in force with their counts.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Vec<Armed>>);

#[derive(Debug)]
struct Armed {
    fault: Fault,
    matched: u64,
    draws: u64,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Requests that were to feel it, but for those that could not.
    due: AtomicU64,
    /// Requests that felt it.
    fired: AtomicU64,
}

/// What is to happen to a request.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) action: Action,
    counts: Arc<Counts>,
}

impl Due {
    /// Counts that it happened; what could not be felt is left to the next request.
    pub(crate) fn settle(&self, is_felt: bool) {
        if is_felt {
            self.counts.fired.fetch_add(1, Relaxed);
        } else {
            self.counts.due.fetch_sub(1, Relaxed);
        }
    }
}

impl Faults {
    pub(crate) fn add(&self, fault: Fault) {
        let draws = match fault.when {
            When::Probability { seed, .. } => seed,
            When::Always | When::Nth(_) | When::First(_) | When::From(_) => 0,
        };
        crate::sync::lock(&self.0).push(Armed {
            fault,
            matched: 0,
            draws,
            counts: Arc::default(),
        });
    }

    pub(crate) fn clear(&self) {
        crate::sync::lock(&self.0).clear();
    }

    pub(crate) fn list(&self) -> Vec<FaultView> {
        crate::sync::lock(&self.0)
            .iter()
            .map(|armed| FaultView {
                fault: armed.fault.clone(),
                fired: armed.counts.fired.load(Relaxed),
            })
            .collect()
    }

    /// What is to happen to this request, if anything.
    pub(crate) fn next(&self, operation: &str, target: &str) -> Option<Due> {
        let mut due = None;
        for armed in crate::sync::lock(&self.0).iter_mut() {
            if armed.fault.matches(operation, target) && armed.fires() && due.is_none() {
                due = Some(Due {
                    action: armed.fault.action.clone(),
                    counts: Arc::clone(&armed.counts),
                });
            }
        }
        due
    }
}

impl Fault {
    fn matches(&self, operation: &str, target: &str) -> bool {
        let named = match self.operation.strip_suffix('*') {
            Some(stem) => operation.starts_with(stem),
            None => operation == self.operation,
        };
        named
            && self.path_contains.as_ref().is_none_or(|text| {
                target
                    .to_ascii_lowercase()
                    .contains(&text.to_ascii_lowercase())
            })
    }
}

impl Armed {
    fn fires(&mut self) -> bool {
        self.matched += 1;
        let before = self.counts.due.load(Relaxed);
        let fires = match self.fault.when {
            When::Always => true,
            When::Nth(n) => self.matched >= n && before == 0,
            When::First(n) => before < n,
            When::From(n) => self.matched >= n,
            When::Probability { of, .. } => {
                self.draws = self.draws.wrapping_add(1);
                // 53 bits make an exact fraction of one.
                let draw = crate::pattern::mix(self.draws) >> 11;
                #[allow(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
                let draw = draw as f64 / (1u64 << 53) as f64;
                draw < of
            }
        };
        if fires {
            self.counts.due.fetch_add(1, Relaxed);
        }
        fires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(when: When, requests: usize) -> Vec<usize> {
        let faults = Faults::default();
        faults.add(Fault {
            when,
            ..Fault::new("Blob_*", Action::Reset)
        });
        (1..=requests)
            .filter(|_| faults.next("Blob_Get", "/x").is_some())
            .collect()
    }

    #[test]
    fn counts_decide() {
        assert_eq!(hits(When::Nth(2), 4), [2]);
        assert_eq!(hits(When::First(2), 4), [1, 2]);
        assert_eq!(hits(When::From(3), 4), [3, 4]);
        assert_eq!(hits(When::Always, 2), [1, 2]);
    }

    #[test]
    fn probability_is_reproducible_and_about_right() {
        let first = hits(When::Probability { of: 0.25, seed: 7 }, 4000);
        assert_eq!(first, hits(When::Probability { of: 0.25, seed: 7 }, 4000));
        assert!((800..1200).contains(&first.len()), "{}", first.len());
    }

    #[test]
    fn operation_and_path_select() {
        let faults = Faults::default();
        faults.add(Fault::new("Disks_Get", Action::Reset).path_contains("/DISK-1"));
        assert!(faults.next("Disks_Get", "/disks/disk-2").is_none());
        assert!(faults.next("Disks_GetMore", "/disks/disk-1").is_none());
        assert!(faults.next("Disks_Get", "/disks/disk-1").is_some());
    }
}
