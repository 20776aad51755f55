//! The one retry loop: every request of this layer, to ARM, the token endpoint or a blob, goes through [`Sender::send`].
//!
//! An attempt is a whole exchange, the body and its check included: a chunk that broke in the middle is fetched again
//! whole. The loop decides by method, status and error code; it waits longer than `Retry-After` says, gives up at a number
//! of attempts or at a deadline, and every wait ends at once when the job is cancelled. Being throttled is no failure: a
//! thousand machines that are saved in one night need more requests than Azure allows at a time. What the answer means, and
//! who is asked for a token or a SAS, is left to the caller.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::cause::{Cause, retry_after};
use super::error_body::ErrorBody;
use super::exchange::{Answer, Exchange, TransportError, TransportErrorKind};
use super::long_wait::wait;
use super::outgoing::{Outgoing, Received};
use crate::notice::Notices;
use crate::payload::Payload;

/// How often and how long a request is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RetryPolicy {
    /// Attempts in all.
    pub(super) attempts: u32,
    /// Attempts while the host has never answered: that is a wrong address rather than an outage.
    pub(super) first_contact_attempts: u32,
    /// Wait after the first attempt; doubles from then on.
    pub(super) first_delay: Duration,
    /// Longest wait of our own choice.
    pub(super) max_delay: Duration,
    /// From the first attempt to the last answer, waits included but those below.
    pub(super) deadline: Duration,
    /// Waits that Azure asks for by 429 and `Retry-After`, in all. They count neither as attempts nor to the deadline;
    /// what goes beyond this does.
    pub(super) throttled: Duration,
    /// How long the first attempt waits for its answer; each further one waits twice as long as the one before. `MAX` leaves it
    /// to the connection.
    pub(super) answer: Duration,
}

/// What a request has been through.
struct Tally {
    started: Instant,
    attempts: u32,
    /// Since when it was refused each time for too many requests.
    refused: Option<Instant>,
    /// Of the attempts, those that were throttled, and told until when.
    throttled: u32,
    /// The waits after them.
    waited: Duration,
    /// What was spent on credentials, for which others have deadlines of their own.
    authorizing: Duration,
    /// Whether one of them may have been carried out.
    unclear: bool,
}

impl Tally {
    /// Time that counts to no deadline.
    fn excused(&self) -> Duration {
        self.waited + self.authorizing
    }
}

impl RetryPolicy {
    /// For the requests of a job. Restore uploads are known to sit in `OperationTimedOut` for minutes, and compute asks
    /// to wait up to 20 minutes ("Troubleshooting API throttling errors"); both shall not end a job of hours.
    pub(super) const JOB: Self = Self {
        attempts: 12,
        first_contact_attempts: 4,
        first_delay: Duration::from_millis(800),
        max_delay: Duration::from_secs(60),
        deadline: Duration::from_secs(30 * 60),
        throttled: Duration::from_secs(4 * 3600),
        answer: Duration::MAX,
    };

    /// For giving back what is held when nobody wants to wait any more. The deadline leaves room for the reservation of
    /// a network interface, which lasts 180 s. All that is asked for then can be asked for twice, so one lost answer, or a
    /// connection that leads nowhere any more, does not hold up a cancelled job for minutes.
    pub(super) const CLEANUP: Self = Self {
        attempts: 8,
        deadline: Duration::from_secs(4 * 60),
        throttled: Duration::ZERO,
        answer: Duration::from_secs(2),
        max_delay: Duration::from_secs(10),
        ..Self::JOB
    };

    /// For questions that a person waits on, and for a refresh that can also be made later.
    pub(super) const SHORT: Self = Self {
        attempts: 4,
        deadline: Duration::from_secs(45),
        throttled: Duration::ZERO,
        ..Self::JOB
    };

    /// Wait before the next attempt, or `None` to give up.
    fn delay(&self, cause: &Cause, request: &Outgoing<'_>, tally: &mut Tally) -> Option<Duration> {
        if cause.is_throttled() && cause.retry_after().is_some() {
            let delay = self.pause(cause, tally.throttled + 1);
            let waited = tally.waited.saturating_add(delay);
            if waited <= self.throttled {
                tally.throttled += 1;
                tally.waited = waited;
                return Some(delay);
            }
        }
        let made = tally.attempts - tally.throttled;
        if !cause.is_transient(request) || made >= self.limit(cause) {
            return None;
        }
        let delay = self.pause(cause, made);
        let spent = tally.started.elapsed().saturating_sub(tally.excused());
        (spent.checked_add(delay)? < self.deadline).then_some(delay)
    }

    /// Wait after so many failures.
    fn pause(&self, cause: &Cause, failures: u32) -> Duration {
        let exponential = self
            .first_delay
            .saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX))
            .min(self.max_delay);
        // Half of it is left to chance, so that many requests that failed together do not return together.
        let jittered = exponential.mul_f64(0.5 + fastrand::f64() / 2.0);
        match cause.retry_after() {
            None => jittered,
            // Those that are throttled together are told the same time.
            Some(asked) => {
                asked.saturating_add(jittered.max(asked.mul_f64(fastrand::f64() / 10.0)))
            }
        }
    }

    /// How long this attempt, counted from 1, waits for its answer.
    fn patience(&self, attempt: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX);
        self.answer.saturating_mul(doubled)
    }

    fn limit(&self, cause: &Cause) -> u32 {
        match cause {
            Cause::Transport(error) if error.is_unsent() && !error.host_known => {
                self.attempts.min(self.first_contact_attempts)
            }
            // Something on the way damages answers: a second look may help, a long wait does not.
            Cause::Transport(TransportError {
                kind: TransportErrorKind::TooLong,
                ..
            })
            | Cause::Defect(..) => self.attempts.min(4),
            // Nothing is wrong; only the deadline counts.
            cause if cause.is_reservation() => u32::MAX,
            Cause::Transport(_) | Cause::Status { .. } => self.attempts,
        }
    }
}

/// Sends requests until they succeed, fail for good, run out of time or are cancelled. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    exchange: Arc<dyn Exchange>,
    policy: RetryPolicy,
    cancel: CancellationToken,
    /// Where it is told what lasts, and what fails when no caller is left to be told.
    notices: Notices,
}

impl Sender {
    /// What it has to tell nobody hears, but for [`Sender::with_notices`].
    pub(super) fn new(
        exchange: Arc<dyn Exchange>,
        policy: RetryPolicy,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            exchange,
            policy,
            cancel,
            notices: Notices::default(),
        }
    }

    /// The same, which tells `notices`.
    pub(super) fn with_notices(&self, notices: Notices) -> Self {
        Self {
            notices,
            ..self.clone()
        }
    }

    pub(super) fn notices(&self) -> &Notices {
        &self.notices
    }

    /// The same connections under another policy.
    pub(super) fn with_policy(&self, policy: RetryPolicy) -> Self {
        Self {
            policy,
            ..self.clone()
        }
    }

    /// The same under another cancellation.
    pub(super) fn with_cancel(&self, cancel: CancellationToken) -> Self {
        Self {
            cancel,
            ..self.clone()
        }
    }

    /// The same connections under another policy and cancellation.
    pub(super) fn detached(&self, policy: RetryPolicy) -> Self {
        Self {
            policy,
            cancel: CancellationToken::new(),
            ..self.clone()
        }
    }

    pub(super) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Waits, unless the job is cancelled.
    pub(super) async fn pause(
        &self,
        delay: Duration,
        operation: &'static str,
        resource: &(dyn fmt::Display + Send + Sync),
    ) -> Result<(), Error> {
        self.cancel
            .run_until_cancelled(sleep(delay))
            .await
            .ok_or_else(|| Error::cancelled(operation, resource))
    }

    /// Sends `outgoing` and returns its successful answer.
    ///
    /// # Cancellation
    ///
    /// Ends at once with `ErrorKind::Cancelled`; the service may still carry the request out.
    pub(super) async fn send(&self, outgoing: Outgoing<'_>) -> Result<Received, Error> {
        let cancelled = || Error::cancelled(outgoing.operation, outgoing.resource);
        let mut tally = Tally {
            started: Instant::now(),
            attempts: 0,
            refused: None,
            throttled: 0,
            waited: Duration::ZERO,
            authorizing: Duration::ZERO,
            unclear: false,
        };
        let mut renewed = false;
        loop {
            tally.attempts += 1;
            let attempts = tally.attempts;
            let mut request = outgoing.request.clone();
            outgoing.reception.intake.restart();
            let asked = Instant::now();
            let generation = self
                .cancel
                .run_until_cancelled(outgoing.credential.authorize(&mut request))
                .await
                .ok_or_else(cancelled)??;
            tally.authorizing += asked.elapsed();
            let left = (tally.started + self.policy.deadline + tally.excused())
                .saturating_duration_since(Instant::now());
            let patience = self.policy.patience(attempts);
            let attempt = self.attempt(&outgoing, request);
            let outcome = self
                .cancel
                .run_until_cancelled(timeout(left.min(patience), attempt))
                .await
                .ok_or_else(cancelled)?
                .unwrap_or_else(|_elapsed| {
                    Err(Cause::deadline(patience.min(self.policy.deadline)))
                });
            let cause = match outcome {
                Ok(answer) => return Ok(Received { answer, attempts }),
                Err(cause) => cause,
            };
            if !renewed
                && cause
                    .status()
                    .is_some_and(|s| outgoing.credential.is_refused(s))
            {
                renewed = true;
                let asked = Instant::now();
                let renewal = outgoing.credential.renew(generation);
                let is_renewed = self
                    .cancel
                    .run_until_cancelled(renewal)
                    .await
                    .ok_or_else(cancelled)??;
                tally.authorizing += asked.elapsed();
                if is_renewed {
                    continue;
                }
            }
            if cause.is_overload() {
                outgoing.reception.intake.throttled();
            }
            let Some(delay) = self.policy.delay(&cause, &outgoing, &mut tally) else {
                let elapsed = tally.started.elapsed();
                return Err(cause.into_error(&outgoing, attempts, elapsed, tally.unclear));
            };
            tally.unclear |= cause.is_unclear();
            tracing::trace!(
                operation = outgoing.operation,
                resource = %outgoing.resource,
                attempts,
                delay_ms = delay.as_millis(),
                "repeats after a failed attempt"
            );
            tally.refused = match cause.is_throttled() {
                true => tally.refused.or_else(|| Some(Instant::now())),
                false => None,
            };
            self.cancel
                .run_until_cancelled(wait(delay, &outgoing, tally.refused, &self.notices))
                .await
                .ok_or_else(cancelled)?;
        }
    }

    async fn attempt(
        &self,
        outgoing: &Outgoing<'_>,
        request: Request<Payload>,
    ) -> Result<Answer, Cause> {
        let reception = outgoing.reception;
        let method = request.method().clone();
        let sent = Instant::now();
        let result = self
            .exchange
            .exchange(request, reception.limit, reception.intake)
            .await;
        let milliseconds = sent.elapsed().as_millis();
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                tracing::trace!(
                    operation = outgoing.operation,
                    resource = %outgoing.resource,
                    %method,
                    milliseconds,
                    error = error.text,
                    "no answer"
                );
                return Err(Cause::Transport(error));
            }
        };
        let is_success = outgoing.success.contains(&answer.status.as_u16());
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(
                    operation = outgoing.operation,
                    resource = %outgoing.resource,
                    %method,
                    status = answer.status.as_u16(),
                    milliseconds,
                    request_id = answer.request_id(),
                    "answer"
                )
            };
        }
        // Of thousands that are as they should be only traces are left.
        if is_success {
            tell!(trace);
        } else {
            tell!(debug);
        }
        if is_success {
            return match reception.check.map_or(Ok(()), |check| check(&answer)) {
                Ok(()) => Ok(answer),
                Err(defect) => Err(Cause::Defect(defect, answer.request_id())),
            };
        }
        Err(Cause::Status {
            status: answer.status,
            retry_after: retry_after(&answer),
            request_id: answer.request_id(),
            body: ErrorBody::parse(&answer.headers, &answer.contiguous()),
            head: method == Method::HEAD,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::SystemTime;

    use super::super::ErrorKind;
    use super::super::error::Defect;
    use super::super::outgoing::{Anonymous, Reception};
    use super::super::testing::{Outcome, Script, answer, lost};
    use super::*;

    const QUICK: RetryPolicy = RetryPolicy {
        attempts: 6,
        first_contact_attempts: 2,
        first_delay: Duration::from_secs(1),
        max_delay: Duration::from_secs(8),
        deadline: Duration::from_secs(600),
        throttled: Duration::ZERO,
        answer: Duration::MAX,
    };

    async fn send(script: &Arc<Script>, method: Method) -> Result<Received, Error> {
        let mut request = Request::new(Payload::default());
        *request.method_mut() = method;
        *request.uri_mut() = "https://host/x".parse().expect("valid");
        let outgoing = Outgoing::new("read thing", &"t-1", request, &[200], &Anonymous);
        script.sender(QUICK).send(outgoing).await
    }

    fn ok() -> Outcome {
        answer(200, &[], "fine")
    }

    /// Seconds between the requests, without the latency of the script.
    fn waits(script: &Script) -> Vec<f64> {
        let seen = script.seen();
        seen.windows(2)
            .map(|pair| (pair[1].at - pair[0].at).as_secs_f64() - 0.01)
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn transient_failures_are_waited_out_longer_and_longer() {
        for status in [408, 429, 500, 502, 503, 504] {
            let failure = || answer(status, &[], "");
            let script = Script::sequence(vec![failure(), failure(), failure(), failure(), ok()]);
            let received = send(&script, Method::GET).await.expect("succeeds at last");
            assert_eq!(received.attempts, 5);
            for (wait, most) in waits(&script).into_iter().zip([1.0, 2.0, 4.0, 8.0]) {
                assert!(
                    (most / 2.0..=most + 0.01).contains(&wait),
                    "{wait} of {most}"
                );
            }
        }
    }

    /// A credential that takes its time: hours of throttling, for example.
    struct Slow(Duration);

    impl super::super::outgoing::Credential for Slow {
        fn authorize<'a>(
            &'a self,
            _request: &'a mut Request<Payload>,
        ) -> futures_util::future::BoxFuture<'a, Result<u64, Error>> {
            Box::pin(async {
                sleep(self.0).await;
                Ok(0)
            })
        }

        fn is_refused(&self, status: http::StatusCode) -> bool {
            status == 403
        }

        fn renew(
            &self,
            _generation: u64,
        ) -> futures_util::future::BoxFuture<'_, Result<bool, Error>> {
            Box::pin(async {
                sleep(self.0).await;
                Ok(true)
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_credential_counts_to_no_deadline() {
        let failures = [403, 503, 503].map(|status| answer(status, &[], ""));
        let script = Script::sequence(failures.into_iter().chain([ok()]).collect());
        let mut request = Request::new(Payload::default());
        *request.uri_mut() = "https://host/x".parse().expect("valid");
        let slow = Slow(QUICK.deadline * 2);
        let outgoing = Outgoing::new("read thing", &"t-1", request, &[200], &slow);
        let received = script.sender(QUICK).send(outgoing).await;
        assert_eq!(received.expect("succeeds").attempts, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn final_refusals_are_final() {
        for (status, kind) in [
            (400, ErrorKind::Refused),
            (401, ErrorKind::Unauthorized),
            (403, ErrorKind::Forbidden),
            (404, ErrorKind::NotFound),
            (409, ErrorKind::Conflict),
            (412, ErrorKind::Conflict),
            (416, ErrorKind::Refused),
            (501, ErrorKind::Service),
            (505, ErrorKind::Service),
            (302, ErrorKind::InvalidAnswer),
        ] {
            let script = Script::sequence(vec![answer(status, &[], ""), ok()]);
            let error = send(&script, Method::GET).await.expect_err("final");
            assert_eq!((error.kind(), error.attempts()), (kind, 1), "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn conflicts_known_to_pass_are_waited_out() {
        let busy = answer(
            409,
            &[],
            r#"{"error":{"code":"AnotherOperationInProgress","message":"m"}}"#,
        );
        let script = Script::sequence(vec![busy, ok()]);
        assert!(send(&script, Method::PUT).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reserved_network_interface_is_waited_for() {
        let began = Instant::now();
        let script = Script::new(move |_, _| {
            if began.elapsed() < Duration::from_secs(180) {
                let body =
                    r#"{"error":{"code":"NicReservedForAnotherVm","message":"180 seconds"}}"#;
                return answer(400, &[], body);
            }
            ok()
        });
        let request = Request::new(Payload::default());
        let outgoing = Outgoing::new("delete thing", &"t-1", request, &[200], &Anonymous);
        let sender = script.sender(RetryPolicy::CLEANUP);
        assert!(sender.send(outgoing).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_heeded_in_both_forms() {
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(120));
        let script = Script::sequence(vec![
            answer(429, &[("Retry-After", "90")], ""),
            answer(503, &[("Retry-After", date.as_str())], ""),
            answer(503, &[("Retry-After", "0")], ""),
            ok(),
        ]);
        assert!(send(&script, Method::GET).await.is_ok());
        let waits = waits(&script);
        assert!((90.5..100.0).contains(&waits[0]), "{waits:?}");
        // A date is compared with a clock that does not stop.
        assert!((90.0..134.0).contains(&waits[1]), "{waits:?}");
        assert!((2.0..=4.01).contains(&waits[2]), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_beyond_the_deadline_is_not_begun() {
        let script = Script::sequence(vec![answer(429, &[("Retry-After", "1200")], "")]);
        let error = send(&script, Method::GET).await.expect_err("too long");
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Throttled, 1));
        assert!(error.to_string().contains("after 1200 s"), "{error}");
    }

    /// The first answers never come, the others after a while.
    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_is_asked_for_again_soon_and_then_less_soon() {
        let send = |policy, lost: usize, latency: Duration| async move {
            let asked = AtomicUsize::new(0);
            let script = Script::paced(
                |_, _| ok(),
                move |_| match asked.fetch_add(1, Ordering::Relaxed) < lost {
                    true => Duration::from_secs(3600),
                    false => latency,
                },
            );
            let request = Request::new(Payload::default());
            let outgoing = Outgoing::new("delete thing", &"t-1", request, &[200], &Anonymous);
            let began = Instant::now();
            let sent = script.sender(policy).send(outgoing).await;
            (sent.expect("at last").attempts, began.elapsed())
        };
        let soon = Duration::from_millis(10);
        let (attempts, took) = send(RetryPolicy::CLEANUP, 1, soon).await;
        assert!(attempts == 2 && took < Duration::from_secs(3), "{took:?}");
        // A service that is slow, but answers, is not asked for ever.
        let (attempts, took) = send(RetryPolicy::CLEANUP, 0, Duration::from_secs(20)).await;
        assert!(attempts == 5 && took < Duration::from_secs(70), "{took:?}");
        let (attempts, _) = send(RetryPolicy::JOB, 0, Duration::from_secs(20)).await;
        assert_eq!(attempts, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn being_throttled_for_hours_is_no_failure() {
        const REFUSALS: usize = 10;
        let throttled = answer(429, &[("Retry-After", "1200")], "");
        let mut answers = vec![throttled.clone(); REFUSALS];
        // Failures of its own the request may have as ever.
        answers.extend(vec![answer(503, &[], ""); 5]);
        answers.push(ok());
        let send = |script: Arc<Script>| async move {
            let request = Request::new(Payload::default());
            let outgoing = Outgoing::new("read thing", &"t-1", request, &[200], &Anonymous);
            script.sender(RetryPolicy::JOB).send(outgoing).await
        };
        let received = send(Script::sequence(answers)).await.expect("at last");
        assert_eq!(received.attempts, 16);

        let began = Instant::now();
        let error = send(Script::sequence(vec![throttled])).await;
        assert_eq!(error.expect_err("never").kind(), ErrorKind::Throttled);
        let hours = began.elapsed().as_secs_f64() / 3600.0;
        assert!((3.6..5.0).contains(&hours), "{hours}");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_are_throttled_together_do_not_return_together() {
        let began = Instant::now();
        let script = Script::new(move |_, _| match began.elapsed().as_secs() < 180 {
            true => answer(429, &[("Retry-After", "180")], ""),
            false => ok(),
        });
        let requests = (0..100).map(|_| send(&script, Method::GET));
        let sent = futures_util::future::join_all(requests).await;
        assert!(sent.iter().all(Result::is_ok));
        let mut returns: Vec<_> = script.seen().iter().map(|seen| seen.at.as_secs()).collect();
        returns.retain(|&second| second > 0);
        assert_eq!(returns.len(), 100);
        let most = (180..200).map(|at| returns.iter().filter(|&&second| second == at).count());
        assert!(most.max() < Some(50), "{returns:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded_and_counted() {
        let script = Script::sequence(vec![answer(
            503,
            &[("x-ms-request-id", "r-1")],
            "<?xml version=\"1.0\"?><Error><Code>ServerBusy</Code><Message>Busy.</Message></Error>",
        )]);
        let error = send(&script, Method::GET)
            .await
            .expect_err("never succeeds");
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Throttled, 6));
        let text = error.to_string();
        assert!(
            text.starts_with("read thing t-1: Busy.; gave up after 6 attempts in "),
            "{text}"
        );
        assert!(
            text.ends_with("(status 503, ServerBusy, request id r-1)"),
            "{text}"
        );
    }

    /// As docs/SEMANTICS.md says it.
    #[tokio::test(start_paused = true)]
    async fn a_request_of_a_job_has_twelve_attempts_within_half_an_hour() {
        for status in [408, 429, 500, 502, 503, 504] {
            let script = Script::sequence(vec![answer(status, &[], "<html>")]);
            let request = Request::new(Payload::default());
            let outgoing = Outgoing::new("read thing", &"t-1", request, &[200], &Anonymous);
            let began = Instant::now();
            let error = script
                .sender(RetryPolicy::JOB)
                .send(outgoing)
                .await
                .expect_err("never succeeds");
            assert_eq!(error.attempts(), 12, "{status}");
            assert!(began.elapsed() < Duration::from_secs(30 * 60), "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lost_answers_are_asked_for_again_only_where_that_is_safe() {
        let lost = || lost(TransportErrorKind::Broken, true);
        let script = Script::sequence(vec![lost(), ok()]);
        assert!(send(&script, Method::PUT).await.is_ok());
        let script = Script::sequence(vec![lost(), ok()]);
        let error = send(&script, Method::POST)
            .await
            .expect_err("may have been done");
        assert_eq!(error.kind(), ErrorKind::Network);
        // Refused for load: certainly not done.
        let script = Script::sequence(vec![answer(429, &[], ""), ok()]);
        assert!(send(&script, Method::POST).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_never_answered_are_given_up_soon() {
        let script = Script::sequence(vec![lost(TransportErrorKind::NotConnected, false)]);
        let error = send(&script, Method::GET).await.expect_err("no such host");
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Network, 2));
        let script = Script::sequence(vec![lost(TransportErrorKind::NotConnected, true)]);
        let error = send(&script, Method::GET).await.expect_err("outage");
        assert_eq!(error.attempts(), 6);
        let script = Script::sequence(vec![lost(TransportErrorKind::Certificate, true)]);
        let error = send(&script, Method::GET).await.expect_err("untrusted");
        assert_eq!(
            (error.kind(), error.attempts()),
            (ErrorKind::Certificate, 1)
        );
        let script = Script::sequence(vec![lost(TransportErrorKind::Unreadable, true)]);
        let error = send(&script, Method::PUT)
            .await
            .expect_err("nothing to send");
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Unreadable, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_ends_a_long_wait_at_once() {
        let script = Script::sequence(vec![answer(429, &[("Retry-After", "500")], "")]);
        let cancel = CancellationToken::new();
        let sender = script.cancellable(QUICK, &cancel);
        let began = Instant::now();
        let sending = async {
            let request = Request::new(Payload::default());
            let outgoing = Outgoing::new("read thing", &"t-1", request, &[200], &Anonymous);
            sender.send(outgoing).await
        };
        let cancelling = async {
            sleep(Duration::from_secs(5)).await;
            cancel.cancel();
        };
        let (result, ()) = tokio::join!(sending, cancelling);
        assert!(result.expect_err("cancelled").is_cancelled());
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_fail_their_check_are_fetched_again() {
        let script = Script::sequence(vec![
            answer(200, &[], "short"),
            answer(200, &[], "complete"),
        ]);
        let check = |answer: &Answer| match answer.len() {
            8 => Ok(()),
            actual => Err(Defect::WrongLength {
                expected: 8,
                actual,
            }),
        };
        let outgoing = || {
            let request = Request::new(Payload::default());
            Outgoing {
                reception: Reception {
                    check: Some(&check),
                    ..Reception::DOCUMENT
                },
                ..Outgoing::new("read bytes", &"0..8", request, &[200], &Anonymous)
            }
        };
        let sender = script.sender(QUICK);
        assert!(sender.send(outgoing()).await.is_ok());
        let sender = Script::sequence(vec![answer(200, &[], "short")]).sender(QUICK);
        let error = sender.send(outgoing()).await.expect_err("stays short");
        assert_eq!(error.kind(), ErrorKind::InvalidAnswer);
        assert_eq!(
            error.defect(),
            Some(&Defect::WrongLength {
                expected: 8,
                actual: 5
            })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_too_long_is_fetched_again_like_others_that_are_wrong() {
        let too_long = || lost(TransportErrorKind::TooLong, true);
        assert!(
            send(&Script::sequence(vec![too_long(), ok()]), Method::GET)
                .await
                .is_ok()
        );
        let error = send(&Script::sequence(vec![too_long()]), Method::GET)
            .await
            .expect_err("stays too long");
        assert_eq!(
            (error.kind(), error.attempts()),
            (ErrorKind::InvalidAnswer, 4)
        );
        let error = send(&Script::sequence(vec![too_long()]), Method::POST)
            .await
            .expect_err("may have been carried out");
        assert_eq!(error.attempts(), 1);
    }
}
