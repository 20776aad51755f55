//! Access to a snapshot that has to wait for its turn.
//!
//! At most five snapshots of a disk may be open at a time ("Create an incremental snapshot for managed disks"), and the
//! other jobs of a virtual machine hold some of them. Which error code Azure gives to the sixth is not documented, so
//! every conflict is waited out.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Access, AccessGrant, Azure, Error, ErrorKind, ResourceId};

/// How long to wait for what others have to give back.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// From one attempt to the next; doubles up to the second value.
const DELAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

impl Azure {
    /// [`grant`](Self::grant) for reading what the caller has seen closed, repeated for five minutes as long as Azure
    /// reports a conflict: from the first one on, of which `waiting` hears, it is looked at before each attempt.
    ///
    /// # Errors
    ///
    /// Azure's refusal; the last conflict.
    pub async fn grant_in_turn(
        &self,
        target: &ResourceId,
        duration: Duration,
        waiting: impl FnOnce(&Error) + Send,
    ) -> Result<AccessGrant, Error> {
        let mut give_up = None;
        let (mut delay, longest) = DELAY;
        let mut waiting = Some(waiting);
        let mut attempt = self.grant_closed(target, duration).await;
        loop {
            let error = match attempt {
                Err(error) if error.kind() == ErrorKind::Conflict => error,
                other => return other,
            };
            // The first attempt may have been throttled for longer than that.
            let give_up = *give_up.get_or_insert_with(|| Instant::now() + PATIENCE);
            if Instant::now() >= give_up {
                return Err(error);
            }
            if let Some(waiting) = waiting.take() {
                waiting(&error);
            }
            // After a cancellation the next attempt fails by itself.
            let pause = sleep_until(give_up.min(Instant::now() + delay));
            self.cancellation()
                .run_until_cancelled(pause)
                .await
                .unwrap_or_default();
            delay = (delay * 2).min(longest);
            attempt = self.grant(target, Access::Read, duration).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::super::testing::{Script, answer, asks_for_token, json, token_answer};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Refuses access so many times.
    fn busy(mut times: u32) -> Arc<Script> {
        Script::new(move |request, _| {
            if asks_for_token(request) {
                return token_answer("t", 360_000);
            }
            if !request.uri().path().ends_with("/beginGetAccess") {
                return json(200, &json!({"properties": {"diskState": "Unattached"}}));
            }
            if times == 0 {
                return json(
                    200,
                    &json!({"accessSAS": "https://md-1.blob.example/c/abcd?sig=s"}),
                );
            }
            times -= 1;
            answer(
                409,
                &[],
                "{\"code\":\"OperationNotAllowed\",\"message\":\"five\"}",
            )
        })
    }

    fn snapshot() -> ResourceId {
        ResourceId::new("s", "g", "Microsoft.Compute/snapshots", "n")
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_that_passes_is_waited_out() {
        let azure = busy(7).azure(&CancellationToken::new());
        let mut heard = 0;
        let grant = azure.grant_in_turn(&snapshot(), HOUR, |_| heard += 1).await;
        std::mem::forget(grant.expect("granted"));
        assert_eq!(heard, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_that_stays_ends_the_wait() {
        let azure = busy(u32::MAX).azure(&CancellationToken::new());
        let began = Instant::now();
        let error = azure.grant_in_turn(&snapshot(), HOUR, |_| {}).await;
        assert_eq!(error.expect_err("busy").kind(), ErrorKind::Conflict);
        let waited = began.elapsed();
        assert!(waited >= PATIENCE && waited < PATIENCE * 2, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_job_does_not_wait() {
        let cancel = CancellationToken::new();
        let azure = busy(u32::MAX).azure(&cancel);
        let began = Instant::now();
        let error = azure
            .grant_in_turn(&snapshot(), HOUR, |_| cancel.cancel())
            .await;
        assert!(error.expect_err("cancelled").is_cancelled());
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
