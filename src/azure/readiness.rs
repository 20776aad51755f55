//! Waiting until a resource is what its creator needs, judged on the resource itself.
//!
//! The end of an operation is not enough: a snapshot was seen as `Succeeded` with `completionPercent` 0 (recorded in
//! Azure CLI's `test_completion_percent`, API version 2023-04-02).

use std::future::Future;
use std::time::Duration;

use super::arm::Subject;
use super::operation::Backoff;
use super::redact::clean;
use super::{Azure, Error, ErrorKind};
use serde_json::Value;

/// What a resource's own state says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Readiness {
    Ready,
    Pending {
        /// Words for people.
        state: String,
        /// Progress of a background copy, 0 to 100.
        percent: Option<f64>,
    },
    /// It will not become ready; why.
    Never(String),
}

impl Azure {
    /// Reads a resource until `judge` finds it ready, and returns it. Gives up when nothing has moved for the time this
    /// view is ready to wait, the looks themselves not counted; `progress` hears each new percentage.
    pub(super) async fn wait_until_ready<F>(
        &self,
        subject: Subject<'_>,
        read: impl Fn() -> F,
        judge: fn(&Value) -> Readiness,
        progress: &mut (dyn FnMut(f64) + Send),
    ) -> Result<Value, Error>
    where
        F: Future<Output = Result<Value, Error>>,
    {
        let mut still = Duration::ZERO;
        let mut reached = -1.0;
        let mut backoff = Backoff::new();
        loop {
            let resource = read().await?;
            let (state, percent) = match judge(&resource) {
                Readiness::Ready => return Ok(resource),
                Readiness::Pending { state, percent } => (state, percent),
                Readiness::Never(reason) => {
                    return Err(Error::new(
                        ErrorKind::OperationFailed,
                        subject.operation,
                        subject.resource,
                        reason,
                    ));
                }
            };
            if let Some(percent) = percent.filter(|&percent| percent > reached) {
                reached = percent;
                still = Duration::ZERO;
                progress(percent);
            }
            let delay = backoff.next(None);
            if still.saturating_add(delay) > self.patience {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    subject.operation,
                    subject.resource,
                    format!("still {state} after {} s", still.as_secs()),
                ));
            }
            self.sender
                .pause(delay, subject.operation, subject.resource)
                .await?;
            still += delay;
        }
    }
}

/// `Never` if the last change of the resource failed.
pub(super) fn provisioning_failure(resource: &Value) -> Option<Readiness> {
    let state = provisioning_state(resource)?;
    matches!(
        state.to_ascii_lowercase().as_str(),
        "failed" | "canceled" | "cancelled"
    )
    .then(|| Readiness::Never(format!("Azure reports provisioning state {state}")))
}

pub(super) fn provisioning_state(resource: &Value) -> Option<String> {
    resource
        .pointer("/properties/provisioningState")?
        .as_str()
        .map(clean)
}
