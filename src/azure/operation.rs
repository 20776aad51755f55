//! Long-running operations: waiting until Azure has done what it accepted.
//!
//! Three forms occur ("Track asynchronous Azure operations"): `Azure-AsyncOperation` names an address that tells a
//! status, `Location` one that answers 202 until it is done, and where neither is given the resource's own
//! `provisioningState` tells. A failed operation answers 200 with the status `Failed`. Every status that is not known
//! to be an end means that it is still running.
//!
//! The addresses are signed, several KB long, and never logged. Whoever creates a resource reads it afterwards: the
//! result that an operation carries leaves members out. Where that is nearly always there when one first looks, as of
//! snapshots, it is read first, and the operation is only asked about what is not ready then.

use std::time::Duration;

use super::arm::Subject;
use super::call::{BuildError, Call};
use super::cause::retry_after;
use super::error::Failure;
use super::error_body::ErrorBody;
use super::exchange::Answer;
use super::redact::clean;
use super::{Azure, Error, ErrorKind};
use http::{Method, StatusCode, Uri};
use serde_json::Value;

/// Disk operations finish in well under a second; the first look is early, then looks become rare.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(30);

const ACCEPTED: [u16; 4] = [200, 201, 202, 204];

/// Waits that double, unless the service names one.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(FIRST_DELAY)
    }

    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.0;
        self.0 = own.saturating_mul(2).min(MAX_DELAY);
        asked.unwrap_or(own)
    }
}

/// How far something is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Running(String),
    Succeeded,
    /// Ended as `Failed` or `Canceled`; which word.
    Failed(String),
}

impl Progress {
    /// Reads a status word; the service spells `Canceled` both ways.
    fn of(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "succeeded" => Self::Succeeded,
            "failed" | "canceled" | "cancelled" => Self::Failed(word.to_owned()),
            _ => Self::Running(clean(word)),
        }
    }
}

/// Where to ask how far it is.
enum Watch {
    Status(Uri),
    Location(Uri),
    /// The resource's own state; its absence is the end of a deletion.
    Resource {
        address: Uri,
        deleted: bool,
    },
}

/// An operation that Azure accepted, or has done at once.
pub(super) struct Accepted {
    /// The first answer.
    answer: Answer,
    /// The wait that it asks for, as long as nobody has waited.
    asked: Option<Duration>,
    location: Option<Uri>,
    /// `None` if there is nothing to wait for.
    watch: Option<Watch>,
}

impl Accepted {
    /// How long to wait before the first look; `None` if there is nothing to wait for. What the service asked for is waited for once.
    pub(super) fn first_look(&mut self) -> Option<Duration> {
        self.watch.as_ref()?;
        let asked = self.asked.take();
        Some(Backoff::new().next(asked))
    }
}

/// What a finished operation returned.
pub(super) struct Finished {
    /// `properties.output` of the status, or the body of an answer that needed no waiting; `Null` if there is none.
    pub(super) output: Value,
    /// Where the result can be read, if the answer named such a place.
    pub(super) location: Option<Uri>,
}

impl Azure {
    /// Sends a call and waits until its operation has ended.
    ///
    /// # Errors
    ///
    /// The refusal of the request; [`ErrorKind::OperationFailed`]; [`ErrorKind::Timeout`] after the time this view is
    /// ready to wait.
    pub(super) async fn run(
        &self,
        subject: Subject<'_>,
        call: Result<Call, BuildError>,
    ) -> Result<Finished, Error> {
        let accepted = self.begin(subject, call).await?;
        self.finish(subject, accepted).await
    }

    /// Sends a call whose operation somebody has to wait for.
    ///
    /// # Errors
    ///
    /// The refusal of the request.
    pub(super) async fn begin(
        &self,
        subject: Subject<'_>,
        call: Result<Call, BuildError>,
    ) -> Result<Accepted, Error> {
        let call = call.map_err(|error| subject.unbuildable(&error))?;
        let method = call.request.method().clone();
        let address = call.request.uri().clone();
        let answer = self.send(subject, Ok(call)).await?.answer;
        let first = &answer;

        let location = self.header_address(subject, first, "location")?;
        let status = self.header_address(subject, first, "azure-asyncoperation")?;
        let watch = match (status, &location, first.status) {
            (Some(status), _, _) => Some(Watch::Status(status)),
            (None, Some(location), StatusCode::ACCEPTED) => Some(Watch::Location(location.clone())),
            (None, _, code) if method == Method::PUT || method == Method::PATCH => {
                let running = code == StatusCode::ACCEPTED
                    || self.check_resource(subject, first)? != Progress::Succeeded;
                running.then_some(Watch::Resource {
                    address,
                    deleted: false,
                })
            }
            (None, _, StatusCode::ACCEPTED) if method == Method::DELETE => Some(Watch::Resource {
                address,
                deleted: true,
            }),
            (None, _, StatusCode::ACCEPTED) => {
                return Err(subject.invalid("accepted, but no address tells how far it is"));
            }
            (None, _, _) => None,
        };
        Ok(Accepted {
            asked: retry_after(&answer),
            answer,
            location,
            watch,
        })
    }

    /// Waits until an operation has ended.
    ///
    /// # Errors
    ///
    /// As of [`Azure::run`], but for the refusal.
    pub(super) async fn finish(
        &self,
        subject: Subject<'_>,
        accepted: Accepted,
    ) -> Result<Finished, Error> {
        let Accepted {
            answer,
            asked,
            location,
            watch,
        } = accepted;
        let output = match watch {
            Some(watch) => self.wait(subject, &watch, asked).await?,
            None => subject.json(&answer)?,
        };
        Ok(Finished { output, location })
    }

    /// Deletes and waits until it is gone; what does not exist is gone.
    pub(super) async fn delete(
        &self,
        subject: Subject<'_>,
        call: Result<Call, BuildError>,
    ) -> Result<(), Error> {
        match self.run(subject, call).await {
            Ok(_finished) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn wait(
        &self,
        subject: Subject<'_>,
        watch: &Watch,
        mut asked: Option<Duration>,
    ) -> Result<Value, Error> {
        // Patience is for the operation: the time of a look, hours of throttling perhaps, does not count.
        let mut spent = Duration::ZERO;
        let mut backoff = Backoff::new();
        let mut state = String::from("accepted");
        loop {
            let delay = backoff.next(asked);
            if spent.saturating_add(delay) > self.patience {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    subject.operation,
                    subject.resource,
                    format!("still {state} after {} s", spent.as_secs()),
                ));
            }
            self.sender
                .pause(delay, subject.operation, subject.resource)
                .await?;
            spent += delay;
            let (progress, answer) = match watch {
                Watch::Status(address) => {
                    let answer = self.follow(subject, address, &ACCEPTED, true).await?;
                    (self.check_status(subject, &answer)?, answer)
                }
                Watch::Location(address) => {
                    let answer = self.follow(subject, address, &ACCEPTED, true).await?;
                    let progress = match answer.status {
                        StatusCode::ACCEPTED => Progress::Running("running".into()),
                        _ => Progress::Succeeded,
                    };
                    (progress, answer)
                }
                Watch::Resource { address, deleted } => {
                    match self.follow(subject, address, &[200], !deleted).await {
                        Err(error) if *deleted && error.is_not_found() => return Ok(Value::Null),
                        Err(error) => return Err(error),
                        Ok(answer) if *deleted => (Progress::Running("deleting".into()), answer),
                        Ok(answer) => (self.check_resource(subject, &answer)?, answer),
                    }
                }
            };
            match progress {
                Progress::Succeeded => return self.output(subject, watch, &answer),
                Progress::Failed(word) => return Err(failed(subject, &answer, &word)),
                Progress::Running(word) => state = word,
            }
            asked = retry_after(&answer);
        }
    }

    fn output(&self, subject: Subject<'_>, watch: &Watch, answer: &Answer) -> Result<Value, Error> {
        let mut body = subject.json(answer)?;
        Ok(match watch {
            Watch::Status(_) => body
                .pointer_mut("/properties/output")
                .map(Value::take)
                .unwrap_or_default(),
            Watch::Location(_) | Watch::Resource { .. } => body,
        })
    }

    fn check_status(&self, subject: Subject<'_>, answer: &Answer) -> Result<Progress, Error> {
        let body = subject.json(answer)?;
        match (body.get("status").and_then(Value::as_str), answer.status) {
            (Some(word), _) => Ok(Progress::of(word)),
            (None, StatusCode::NO_CONTENT) => Ok(Progress::Succeeded),
            (None, StatusCode::ACCEPTED) => Ok(Progress::Running("running".into())),
            (None, _) => Err(subject.invalid("the operation's answer has no `status`")),
        }
    }

    /// `provisioningState` of a resource; one without it is ready.
    fn check_resource(&self, subject: Subject<'_>, answer: &Answer) -> Result<Progress, Error> {
        let body = subject.json(answer)?;
        Ok(body
            .pointer("/properties/provisioningState")
            .and_then(Value::as_str)
            .map_or(Progress::Succeeded, Progress::of))
    }

    fn header_address(
        &self,
        subject: Subject<'_>,
        answer: &Answer,
        name: &str,
    ) -> Result<Option<Uri>, Error> {
        match answer.header(name) {
            None | Some("") => Ok(None),
            Some(text) => self.own_address(subject, text).map(Some),
        }
    }
}

fn failed(subject: Subject<'_>, answer: &Answer, word: &str) -> Error {
    let body = ErrorBody::parse(&answer.headers, &answer.contiguous());
    let explained = body.code.is_some();
    let reason = body.message.filter(|_| explained);
    Failure {
        code: body.code,
        request_id: answer.request_id(),
        ..Failure::new(
            ErrorKind::OperationFailed,
            subject.operation,
            subject.resource,
            match reason {
                Some(reason) => format!("the operation ended as {word}: {reason}"),
                None => format!("the operation ended as {word}, without an explanation"),
            },
        )
    }
    .into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::super::ResourceId;
    use super::super::testing::{ARM, Outcome, Script, answer, asks_for_token, json, token_answer};
    use super::*;

    const POLL: &str =
        "https://management.azure.com/subscriptions/s/DiskOperations/1?p=1&t=secret%2B";
    const LOCATION: &str =
        "https://management.azure.com/subscriptions/s/DiskOperations/1?monitor=true&t=secret";

    fn disk() -> ResourceId {
        ResourceId::new("s", "g", "Microsoft.Compute/disks", "d")
    }

    /// Answers ARM requests in order, the last one again and again.
    fn scripted(answers: Vec<Outcome>) -> std::sync::Arc<Script> {
        let mut next = 0;
        Script::new(move |request, _| {
            if asks_for_token(request) {
                return token_answer("t", 3600);
            }
            let answer = answers[next.min(answers.len() - 1)].clone();
            next += 1;
            answer
        })
    }

    fn azure(script: &std::sync::Arc<Script>) -> Azure {
        script.azure(&CancellationToken::new())
    }

    fn uris(script: &Script) -> Vec<String> {
        let seen = script.seen();
        seen.iter()
            .filter(|seen| seen.uri.starts_with(ARM))
            .map(|seen| format!("{} {}", seen.method, seen.uri.trim_start_matches(ARM)))
            .collect()
    }

    fn both_headers() -> [(&'static str, &'static str); 2] {
        [("Azure-AsyncOperation", POLL), ("location", LOCATION)]
    }

    fn status(word: &str) -> Outcome {
        json(200, &json!({"status": word, "name": "1"}))
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_address_wins_and_is_followed_as_it_is() {
        let script = scripted(vec![
            answer(202, &both_headers(), ""),
            status("InProgress"),
            status("Hydrating"),
            status("Succeeded"),
        ]);
        azure(&script).delete_disk(&disk()).await.expect("deleted");
        let uris = uris(&script);
        assert!(uris[0].starts_with("DELETE /subscriptions/s/resourceGroups/g/"));
        assert!(
            uris[1..]
                .iter()
                .all(|uri| uri.ends_with("/DiskOperations/1?p=1&t=secret%2B"))
        );
        assert_eq!(uris.len(), 4);
        // First looks are early, later ones rare.
        let seen = script.seen();
        assert!((seen[2].at - seen[1].at).as_millis() < 300);
        assert!((seen[4].at - seen[3].at).as_millis() >= 1000);
    }

    /// Looks that are throttled, each for an hour, do not use up the patience with an operation.
    #[tokio::test(start_paused = true)]
    async fn throttled_looks_do_not_count_as_waiting() {
        let throttled = || answer(429, &[("Retry-After", "3500")], "");
        let script = scripted(vec![
            answer(202, &both_headers(), ""),
            throttled(),
            throttled(),
            status("InProgress"),
            status("Succeeded"),
        ]);
        azure(&script).delete_disk(&disk()).await.expect("deleted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_location_alone_answers_202_until_it_is_done() {
        let script = scripted(vec![
            answer(202, &[("Location", LOCATION)], ""),
            answer(202, &[("Retry-After", "7")], ""),
            answer(204, &[], ""),
        ]);
        azure(&script).delete_disk(&disk()).await.expect("deleted");
        let seen = script.seen();
        assert!((seen[3].at - seen[2].at).as_secs_f64() >= 7.0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_address_the_resource_itself_tells() {
        let vm = |state: &str| json(200, &json!({"properties": {"provisioningState": state}}));
        let script = scripted(vec![
            json(
                201,
                &json!({"properties": {"provisioningState": "Creating"}}),
            ),
            answer(404, &[], ""),
            vm("Creating"),
            vm("Succeeded"),
        ]);
        let id = ResourceId::new("s", "g", "Microsoft.Compute/virtualMachines", "v");
        azure(&script)
            .create_virtual_machine(&id, &json!({"location": "l"}))
            .await
            .expect("created");
        // The last one is the reading of the finished machine.
        assert_eq!(uris(&script).len(), 5);

        let script = scripted(vec![
            answer(202, &[], ""),
            vm("Deleting"),
            answer(404, &[], ""),
        ]);
        azure(&script)
            .delete_virtual_machine(&id)
            .await
            .expect("gone");
    }

    /// A refusal means that there is no machine only if it is that of the request itself.
    #[tokio::test(start_paused = true)]
    async fn what_was_accepted_may_be_done_whatever_follows() {
        let id = ResourceId::new("s", "g", "Microsoft.Compute/virtualMachines", "v");
        let accepted = || answer(201, &both_headers(), "{}");
        let refused = || answer(403, &[], "");
        for (answers, may_be_done) in [
            (vec![refused()], false),
            (vec![answer(500, &[], ""), refused()], true),
            (vec![accepted(), refused()], true),
            (vec![accepted(), status("Succeeded"), refused()], true),
        ] {
            let script = scripted(answers);
            let made = azure(&script)
                .create_virtual_machine(&id, &json!({"location": "l"}))
                .await;
            let error = made.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Forbidden);
            assert_eq!(error.may_be_done(), may_be_done, "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_operation_answers_200() {
        let failed = json(
            200,
            &json!({"status": "Failed", "error": {"code": "InvalidParameter", "message": "Cannot be resized down."}}),
        );
        let script = scripted(vec![answer(202, &both_headers(), ""), failed]);
        let error = azure(&script)
            .delete_disk(&disk())
            .await
            .expect_err("failed");
        assert_eq!(error.kind(), ErrorKind::OperationFailed);
        assert_eq!(error.code(), Some("InvalidParameter"));
        assert!(
            error
                .to_string()
                .contains("ended as Failed: Cannot be resized down."),
            "{error}"
        );
        for word in ["Canceled", "Cancelled"] {
            let script = scripted(vec![answer(202, &both_headers(), ""), status(word)]);
            let error = azure(&script)
                .delete_disk(&disk())
                .await
                .expect_err("cancelled there");
            assert_eq!(error.kind(), ErrorKind::OperationFailed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_while_polling_is_not_the_operations_trouble() {
        let script = scripted(vec![
            answer(202, &both_headers(), ""),
            answer(404, &[], ""),
            answer(500, &[], ""),
            answer(429, &[("Retry-After", "3")], ""),
            status("Succeeded"),
        ]);
        azure(&script).delete_disk(&disk()).await.expect("deleted");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_and_says_where_it_stood() {
        let script = scripted(vec![answer(202, &both_headers(), ""), status("Running")]);
        let error = azure(&script)
            .delete_disk(&disk())
            .await
            .expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let text = error.to_string();
        assert!(text.contains("still Running after 3"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_absurd_wait_is_refused_and_does_no_harm() {
        let endless = u64::MAX.to_string();
        let script = scripted(vec![
            answer(202, &both_headers(), ""),
            status("Running"),
            status("Running"),
            status("Running"),
            answer(202, &[("Retry-After", endless.as_str())], "{}"),
        ]);
        let error = azure(&script)
            .delete_disk(&disk())
            .await
            .expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }

    /// Deleting a machine took 51 s with `Retry-After: 30` (recorded in the tests of Azure's libraries for .NET).
    #[tokio::test(start_paused = true)]
    async fn cleaning_up_waits_for_slow_deletions() {
        let deleting = || {
            json(200, &json!({"status": "InProgress"})).map(|mut running| {
                running
                    .headers
                    .insert("retry-after", http::HeaderValue::from_static("30"));
                running
            })
        };
        let script = scripted(vec![
            answer(202, &both_headers(), ""),
            deleting(),
            deleting(),
            deleting(),
            status("Succeeded"),
        ]);
        let id = ResourceId::new("s", "g", "Microsoft.Compute/virtualMachines", "v");
        azure(&script)
            .for_cleanup()
            .delete_virtual_machine(&id)
            .await
            .expect("gone");
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_elsewhere_get_no_token() {
        for address in [
            "https://evil.example/x?t=secret",
            "http://management.azure.com/x",
            "https://management.azure.com:8443/x",
            "https://management.azure.com:44(3/x",
            "https://user@management.azure.com/x",
            "https://management.azure.com.evil.example/x",
            "https://management.azure.com@evil.example/x",
            "https://evil.example\\@management.azure.com/x",
            "https:management.azure.com/x",
        ] {
            for header in ["Azure-AsyncOperation", "Location"] {
                let script = scripted(vec![answer(202, &[(header, address)], "")]);
                let error = azure(&script)
                    .delete_disk(&disk())
                    .await
                    .expect_err("refused");
                assert_eq!(error.kind(), ErrorKind::InvalidAnswer, "{address}");
                assert!(!error.to_string().contains("secret"), "{error}");
                assert_eq!(script.seen().len(), 2, "the token, and the deletion");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn redirects_are_errors_and_get_no_token() {
        for status in [301, 302, 303, 307, 308] {
            let elsewhere = [("Location", "https://evil.example/x")];
            let script = scripted(vec![answer(status, &elsewhere, "")]);
            let azure = azure(&script);
            for error in [
                azure.snapshots().await.expect_err("refused"),
                azure.delete_disk(&disk()).await.expect_err("refused"),
            ] {
                assert_eq!(error.status(), Some(status), "{error}");
            }
            assert_eq!(script.seen().len(), 3, "the token, and these two");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_exist_is_deleted() {
        let script = scripted(vec![answer(404, &[], "")]);
        azure(&script).delete_disk(&disk()).await.expect("gone");
        let script = scripted(vec![answer(204, &[], "")]);
        azure(&script).delete_disk(&disk()).await.expect("gone");
    }

    #[tokio::test(start_paused = true)]
    async fn lists_are_followed_to_their_end() {
        let next = format!("{ARM}/next?$skiptoken=a%20b");
        let script = scripted(vec![
            json(200, &json!({"value": [{"name": "a"}], "nextLink": next})),
            json(
                200,
                &json!({"value": [], "nextLink": format!("{ARM}/next?2")}),
            ),
            json(200, &json!({"value": [{"name": "b"}], "nextLink": ""})),
        ]);
        let all = azure(&script).snapshots().await.expect("listed");
        assert_eq!(all, [json!({"name": "a"}), json!({"name": "b"})]);
        assert_eq!(uris(&script)[1], "GET /next?$skiptoken=a%20b");
    }

    #[tokio::test(start_paused = true)]
    async fn lists_that_cannot_be_trusted_are_refused() {
        let circle = format!("{ARM}/next?1");
        for page in [
            json!({"value": [], "nextLink": circle}),
            json!({"value": [], "nextLink": "https://evil.example/"}),
            json!({"value": [], "nextLink": 1}),
            json!({"items": []}),
            json!([]),
        ] {
            let script = scripted(vec![json(200, &page)]);
            let error = azure(&script).snapshots().await.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidAnswer, "{page}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_without_end_is_refused() {
        let script = Script::new(|request, index| {
            if asks_for_token(request) {
                return token_answer("t", 1 << 30);
            }
            json(
                200,
                &json!({"value": [], "nextLink": format!("{ARM}/next?{index}")}),
            )
        });
        let error = azure(&script).snapshots().await.expect_err("refused");
        assert!(error.to_string().contains("does not end"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_is_ready_when_it_can_be_read() {
        let snapshot = |percent: f64| {
            json(
                200,
                &json!({"properties": {"provisioningState": "Succeeded", "completionPercent": percent}}),
            )
        };
        let script = scripted(vec![
            answer(202, &both_headers(), ""),
            snapshot(0.0),
            status("Succeeded"),
            snapshot(0.0),
            snapshot(40.0),
            snapshot(100.0),
        ]);
        let id = ResourceId::new("s", "g", "Microsoft.Compute/snapshots", "n");
        let body = json!({"location": "l", "properties": {"incremental": true, "futureMember": 1}});
        let read = azure(&script)
            .create_snapshot(&id, &body)
            .await
            .expect("readable");
        assert_eq!(read["properties"]["completionPercent"], 100.0);
        let sent: Value = serde_json::from_slice(&script.seen()[1].body).expect("JSON");
        assert_eq!(sent, body);
    }

    /// The snapshot says that its creation failed; why, only the operation says.
    #[tokio::test(start_paused = true)]
    async fn a_snapshot_that_fails_is_explained() {
        let script = scripted(vec![
            answer(202, &both_headers(), ""),
            json(200, &json!({"properties": {"provisioningState": "Failed"}})),
            json(
                200,
                &json!({"status": "Failed", "error": {"code": "DiskBusy", "message": "busy"}}),
            ),
        ]);
        let id = ResourceId::new("s", "g", "Microsoft.Compute/snapshots", "n");
        let error = azure(&script)
            .create_snapshot(&id, &json!({"location": "l"}))
            .await
            .expect_err("failed");
        assert_eq!(error.kind(), ErrorKind::OperationFailed);
        assert_eq!(error.code(), Some("DiskBusy"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_that_stands_still_is_given_up() {
        let script = scripted(vec![json(
            200,
            &json!({"properties": {"provisioningState": "Succeeded", "completionPercent": 30.0}}),
        )]);
        let id = ResourceId::new("s", "g", "Microsoft.Compute/snapshots", "n");
        let mut heard = Vec::new();
        let error = azure(&script)
            .wait_snapshot_readable(&id, |percent| heard.push(percent))
            .await
            .expect_err("stands still");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("copied to 30 %"), "{error}");
        assert_eq!(heard, [30.0]);
    }
}
