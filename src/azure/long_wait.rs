//! Waiting before another attempt, and what the job log is told of it when it takes minutes.
//!
//! Azure throttles a subscription, so most requests of a job are refused at the same time: one line tells for all of them,
//! and lines become ever rarer. When to ask again is left to `retry`.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::outgoing::Outgoing;
use crate::notice::Notices;

/// Waits; `refused` says since when Azure has refused the request each time for too many requests.
pub(super) async fn wait(
    delay: Duration,
    outgoing: &Outgoing<'_>,
    refused: Option<Instant>,
    notices: &Notices,
) {
    let until = Instant::now() + delay;
    while let Some(since) = refused
        && notices.due(since) < until
    {
        sleep_until(notices.due(since)).await;
        // Another request may have been faster.
        notices.lasting(since, || {
            format!(
                "Azure has too many requests, and has refused one for {} min: {} {}; the job goes on asking",
                since.elapsed().as_secs() / 60,
                outgoing.operation,
                outgoing.resource
            )
        });
    }
    sleep_until(until).await;
}

#[cfg(test)]
mod tests {

    use futures_util::future::join_all;
    use http::Request;

    use super::super::exchange::TransportErrorKind;
    use super::super::outgoing::Anonymous;
    use super::super::retry::RetryPolicy;
    use super::super::testing::{Outcome, Script, answer, lost};
    use super::*;

    /// Sends requests, each of which is answered as `answer` says after so many seconds; tells the texts that were left with the
    /// minute of each. What fails at last is told by the caller.
    async fn told(
        requests: usize,
        answer: impl Fn(u64) -> Outcome + Send + 'static,
    ) -> Vec<(u64, String)> {
        let began = Instant::now();
        let script = Script::new(move |_, _| answer(began.elapsed().as_secs()));
        let notices = Notices::default();
        let sender = script
            .sender(RetryPolicy::JOB)
            .with_notices(notices.clone());
        let all = join_all((0..requests).map(|_| async {
            let outgoing =
                Outgoing::new("read thing", &"t-1", Request::default(), &[200], &Anonymous);
            sender.send(outgoing).await.ok();
        }));
        let mut all = Box::pin(all);
        let mut told = Vec::new();
        loop {
            let ended = tokio::time::timeout(Duration::from_secs(1), &mut all).await;
            while let Some(notice) = notices.pop() {
                told.push((began.elapsed().as_secs() / 60, notice.text));
            }
            if ended.is_ok() {
                return told;
            }
        }
    }

    /// Answers like this until so many seconds have gone by, and well from then on.
    fn until(end: u64, refusal: Outcome) -> impl Fn(u64) -> Outcome {
        move |second| match second < end {
            true => refusal.clone(),
            false => answer(200, &[], ""),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn long_throttling_is_told_ever_more_seldom_and_once_for_all_requests() {
        for retry_after in ["20", "1200"] {
            let refusal = answer(429, &[("Retry-After", retry_after)], "");
            let told = told(100, until(150 * 60, refusal)).await;
            let minutes: Vec<_> = told.iter().map(|(minute, _)| *minute).collect();
            assert_eq!(minutes, [1, 3, 7, 15, 31, 63, 123], "{retry_after}");
            assert_eq!(
                told[2].1,
                "Azure has too many requests, and has refused one for 7 min: read thing t-1; the job goes on asking"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn short_throttling_and_other_failures_are_not_told() {
        let throttled = answer(429, &[("Retry-After", "5")], "");
        assert_eq!(told(20, until(20, throttled.clone())).await, []);
        let busy = answer(
            429,
            &[],
            r#"{"error":{"code":"RetryableError","message":"m"}}"#,
        );
        for failure in [
            answer(500, &[], ""),
            // An outage.
            answer(503, &[], ""),
            answer(503, &[("Retry-After", "90")], ""),
            // A resource.
            busy,
            lost(TransportErrorKind::Broken, true),
        ] {
            let throttled = throttled.clone();
            let after_throttling = move |second| match second {
                0..5 => throttled.clone(),
                _ => failure.clone(),
            };
            assert_eq!(told(1, after_throttling).await, []);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_that_begins_anew_lasts_since_then() {
        let told = told(1, |second| {
            // The second time begins at 87 s at the latest and is over before its second line would be due, whatever chance adds
            // to the waits.
            let status = match second {
                0..30 | 70..150 => 429,
                30..70 => 503,
                _ => 200,
            };
            answer(status, &[("Retry-After", "10")], "")
        })
        .await;
        let [(2, text)] = &told[..] else {
            panic!("{told:?}");
        };
        assert!(text.contains("refused one for 1 min"), "{text}");
    }
}
