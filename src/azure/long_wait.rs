//! Waiting before another attempt, and what the job log is told of it when it takes minutes.
//!
//! Azure throttles a subscription, so most requests of a job are refused at the same time: one line tells for all of them,
//! and lines become ever rarer. When to ask again is left to `retry`.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::outgoing::Outgoing;
use crate::notice::Notices;

/// Waits; `refused` says since when the service has refused the request for having too many.
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

    use super::super::outgoing::Anonymous;
    use super::super::retry::RetryPolicy;
    use super::super::testing::{Outcome, Script, answer};
    use super::*;

    /// Sends requests that are answered like this until `end`, and tells the texts that were left with the minute of each.
    async fn told(requests: usize, end: Duration, refusal: Outcome) -> Vec<(u64, String)> {
        let began = Instant::now();
        let script = Script::new(move |_, _| match began.elapsed() < end {
            true => refusal.clone(),
            false => answer(200, &[], ""),
        });
        let notices = Notices::default();
        let sender = script
            .sender(RetryPolicy::JOB)
            .with_notices(notices.clone());
        let all = join_all((0..requests).map(|_| async {
            let outgoing =
                Outgoing::new("read thing", &"t-1", Request::default(), &[200], &Anonymous);
            sender.send(outgoing).await.expect("accepted at last");
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

    #[tokio::test(start_paused = true)]
    async fn long_throttling_is_told_ever_more_seldom_and_once_for_all_requests() {
        for retry_after in ["20", "1200"] {
            let refusal = answer(429, &[("Retry-After", retry_after)], "");
            let told = told(100, Duration::from_secs(150 * 60), refusal).await;
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
        assert_eq!(told(20, Duration::from_secs(20), throttled).await, []);
        let broken = answer(500, &[], "");
        assert_eq!(told(1, Duration::from_secs(120), broken).await, []);
        let busy = told(1, Duration::from_secs(120), answer(503, &[], "")).await;
        assert_eq!(busy.len(), 1, "{busy:?}");
    }
}
