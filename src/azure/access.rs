//! Access to the bytes of a disk or snapshot: granted, renewed, given back.
//!
//! At most five snapshots of one disk may be open at a time, and what stays open blocks later work, so access is held
//! by a value that gives it back: [`AccessGrant::revoke`] at the regular end, `Drop` otherwise. All readers of a grant
//! share one cell with the current SAS. It is replaced before it expires, and once after a 403 that came in the middle.
//!
//! What Azure does when access is granted twice is not documented. So a target that may be open is closed first, and
//! renewal is closing and opening again. Write access is never renewed: closing it ends the upload for good.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::blob_credential::BlobCredential;
use super::door::{Door, NotOpened};
use super::{Azure, Error, PageBlob, ResourceId, SasUrl};

/// Longest access that Azure grants (since February 2025: 60 days).
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(60 * 24 * 3600);

/// Access with less time left is renewed before it is used.
const RENEWAL_MARGIN: Duration = Duration::from_secs(300);

/// Direction of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read a snapshot.
    Read,
    /// Write an upload disk.
    Write,
}

/// Access that Azure holds open until [`AccessGrant::revoke`]; dropping it unrevoked starts the revocation.
#[derive(Debug)]
pub struct AccessGrant {
    cell: Arc<GrantCell>,
    held: Held,
}

impl Azure {
    /// `beginGetAccess` on a disk or snapshot, waited for. Access for reading that is open already is closed first.
    ///
    /// # Errors
    ///
    /// Azure's refusal. Whatever may have been opened nevertheless has been closed again.
    pub async fn grant(
        &self,
        target: &ResourceId,
        access: Access,
        duration: Duration,
    ) -> Result<AccessGrant, Error> {
        let door = self.door(target, access, duration);
        if access == Access::Read {
            door.close_if_open().await?;
        }
        Self::open_door(door).await
    }

    /// [`Azure::grant`] for reading what is not open, as the caller has just seen: nobody looks again.
    ///
    /// # Errors
    ///
    /// As there.
    pub(super) async fn grant_closed(
        &self,
        target: &ResourceId,
        duration: Duration,
    ) -> Result<AccessGrant, Error> {
        Self::open_door(self.door(target, Access::Read, duration)).await
    }

    fn door(&self, target: &ResourceId, access: Access, duration: Duration) -> Arc<Door> {
        Arc::new(Door {
            azure: self.clone(),
            target: target.clone(),
            access,
            duration: duration.min(MAX_DURATION),
            renewal: AsyncMutex::new(()),
        })
    }

    async fn open_door(door: Arc<Door>) -> Result<AccessGrant, Error> {
        // From here on something may be open: also if this future is dropped, or the answer is lost.
        let mut held = Held(Some(Arc::clone(&door)));
        match door.open().await {
            Ok((url, expires)) => Ok(AccessGrant {
                cell: Arc::new(GrantCell {
                    door,
                    current: Mutex::new(CurrentSas {
                        url,
                        expires,
                        generation: 1,
                    }),
                    revoked: AtomicBool::new(false),
                }),
                held,
            }),
            Err(NotOpened { error, accepted }) => {
                held.0 = None;
                if accepted || error.may_be_done() {
                    door.give_back().await;
                }
                Err(error)
            }
        }
    }
}

impl AccessGrant {
    /// A client of the blob behind the grant; shares the SAS, renewals included.
    #[must_use]
    pub fn page_blob(&self) -> PageBlob {
        let azure = &self.cell.door.azure;
        PageBlob::new(
            azure.sender.clone(),
            Arc::clone(&azure.versions),
            BlobCredential::Grant(Arc::clone(&self.cell)),
        )
        .with_list_slots(&azure.shared.list_slots)
    }

    /// The disk or snapshot that is open.
    #[must_use]
    pub fn target(&self) -> &ResourceId {
        &self.cell.door.target
    }

    /// Gives the access back and waits for it, for a cancelled job with a deadline of its own. Readers get 403 from
    /// then on.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn revoke(mut self) -> Result<(), Error> {
        // Renewal must not open again what is closed here.
        self.cell.revoked.store(true, Ordering::Release);
        let Door {
            azure,
            target,
            renewal,
            ..
        } = &*self.cell.door;
        let _no_renewal = renewal.lock().await;
        let mut outcome = Err(Error::cancelled("revoke access to", target));
        if !azure.cancellation().is_cancelled() {
            outcome = azure.revoke(target).await;
        }
        if outcome.as_ref().is_err_and(Error::is_cancelled) {
            outcome = azure.for_cleanup().revoke(target).await;
        }
        // Tried and reported; trying once more behind the caller's back would only hide it.
        self.held.0 = None;
        outcome
    }
}

impl Drop for AccessGrant {
    fn drop(&mut self) {
        self.cell.revoked.store(true, Ordering::Release);
    }
}

/// What may be open and has to be given back, unless it is empty.
#[derive(Debug)]
struct Held(Option<Arc<Door>>);

impl Drop for Held {
    fn drop(&mut self) {
        let Some(door) = self.0.take() else {
            return;
        };
        match Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move { door.give_back().await });
            }
            Err(_outside) => door.azure.sender.notices().error(format!(
                "revoke access to {}: dropped outside the runtime; it stays open until it expires",
                door.target
            )),
        }
    }
}

/// A SAS and how long it serves.
#[derive(Clone, Debug)]
pub(super) struct CurrentSas {
    pub(super) url: SasUrl,
    expires: Instant,
    pub(super) generation: u64,
}

/// The grant as its readers share it.
#[derive(Debug)]
pub(super) struct GrantCell {
    door: Arc<Door>,
    current: Mutex<CurrentSas>,
    revoked: AtomicBool,
}

impl GrantCell {
    /// The SAS for the next request, renewed if it would soon expire.
    pub(super) async fn sas(&self) -> Result<CurrentSas, Error> {
        let sas = self.stored();
        let margin = RENEWAL_MARGIN.min(self.door.duration / 4);
        let fresh = sas.expires.saturating_duration_since(Instant::now()) > margin;
        if fresh || !self.renew(sas.generation).await? {
            return Ok(sas);
        }
        Ok(self.stored())
    }

    /// Replaces the SAS of that generation, unless somebody did already. `false` if it cannot be replaced.
    pub(super) async fn renew(&self, generation: u64) -> Result<bool, Error> {
        if self.door.access == Access::Write {
            return Ok(false);
        }
        let _only_one = self.door.renewal.lock().await;
        if self.revoked.load(Ordering::Acquire) {
            return Ok(false);
        }
        if self.stored().generation != generation {
            return Ok(true);
        }
        tracing::debug!(target_id = %self.door.target, "renews access");
        self.door.close_if_open().await?;
        let opened = self.door.open().await;
        let (url, expires) = opened.map_err(|failed| failed.error)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = CurrentSas {
            url,
            expires,
            generation: generation + 1,
        };
        Ok(true)
    }

    pub(super) fn stored(&self) -> CurrentSas {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use http::Request;
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::super::ErrorKind;
    use super::super::testing::{Outcome, Script, answer, asks_for_token, json, token_answer};
    use super::*;
    use crate::notice::{Notices, Severity};
    use crate::payload::Payload;
    use crate::range::ByteRange;

    const LOCATION: &str = "https://management.azure.com/location?1";
    const POLL: &str = "https://management.azure.com/poll?1";
    const HOUR: Duration = Duration::from_secs(3600);

    /// A snapshot with one grant at a time, each with a SAS of its own; the blob accepts the current one.
    #[derive(Debug, Default)]
    struct Service {
        open: Option<u32>,
        granted: u32,
        answers: Vec<String>,
        /// Access cannot be given back.
        locked: bool,
    }

    impl Service {
        fn sas(number: u32) -> String {
            format!("https://md-1.blob.example/c/abcd?sv=1&sig=s{number}")
        }

        fn handle(&mut self, request: &Request<Payload>) -> Outcome {
            if asks_for_token(request) {
                return token_answer("t", 360_000);
            }
            let path = request.uri().path().to_owned();
            let query = request.uri().query().unwrap_or_default();
            if path.ends_with("/beginGetAccess") {
                if self.open.is_some() {
                    return answer(409, &[], "{\"code\":\"Conflict\",\"message\":\"open\"}");
                }
                self.granted += 1;
                self.open = Some(self.granted);
                self.answers.push("begin".into());
                return answer(
                    202,
                    &[("azure-asyncoperation", POLL), ("location", LOCATION)],
                    "",
                );
            }
            if path.ends_with("/endGetAccess") && self.locked {
                return answer(
                    409,
                    &[],
                    "{\"code\":\"ScopeLocked\",\"message\":\"locked\"}",
                );
            }
            if path.ends_with("/endGetAccess") {
                self.open = None;
                self.answers.push("end".into());
                return answer(200, &[], "");
            }
            match path.as_str() {
                "/poll" => json(
                    200,
                    &json!({"status": "Succeeded", "properties": {"output": {"accessSAS": Self::sas(self.granted)}}}),
                ),
                "/c/abcd" => match self.open {
                    Some(open) if query.contains(&format!("sig=s{open}")) => {
                        answer(206, &[("content-range", "bytes 0-511/1024")], vec![7; 512])
                    }
                    _ => answer(403, &[], ""),
                },
                _ => {
                    let state = if self.open.is_some() {
                        "ActiveSAS"
                    } else {
                        "Unattached"
                    };
                    json(200, &json!({"properties": {"diskState": state}}))
                }
            }
        }
    }

    fn service() -> (Arc<Script>, Arc<Mutex<Service>>) {
        let state = Arc::new(Mutex::new(Service::default()));
        let service = Arc::clone(&state);
        let script =
            Script::new(move |request, _| service.lock().expect("no panic").handle(request));
        (script, state)
    }

    fn snapshot() -> ResourceId {
        ResourceId::new("s", "g", "Microsoft.Compute/snapshots", "n")
    }

    fn first_page() -> ByteRange {
        ByteRange::new(0, 512).expect("not empty")
    }

    #[tokio::test(start_paused = true)]
    async fn access_is_granted_used_and_given_back() {
        let (script, state) = service();
        let azure = script.azure(&CancellationToken::new());
        let grant = azure
            .grant(&snapshot(), Access::Read, HOUR)
            .await
            .expect("granted");
        let blob = grant.page_blob();
        assert_eq!(
            blob.read(first_page()).await.expect("read").concat(),
            [7; 512]
        );
        grant.revoke().await.expect("revoked");
        assert_eq!(state.lock().expect("no panic").open, None);
        // A reader that is left over does not open it again.
        let error = blob.read(first_page()).await.expect_err("closed");
        assert_eq!(error.kind(), ErrorKind::Forbidden);
        assert_eq!(state.lock().expect("no panic").granted, 1);
        let blob_requests = script
            .seen()
            .into_iter()
            .filter(|seen| seen.uri.contains("sig="));
        assert!(
            blob_requests
                .into_iter()
                .all(|seen| seen.authorization.is_empty())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_result_may_be_in_any_of_three_places() {
        let output = |value: Value| {
            json(
                200,
                &json!({"status": "Succeeded", "properties": {"output": value}}),
            )
        };
        let bare = || json(200, &json!({"accessSAS": Service::sas(1)}));
        let accepted = |headers: &[(&str, &str)]| answer(202, headers, "");
        for answers in [
            vec![bare()],
            vec![accepted(&[("location", LOCATION)]), bare()],
            vec![
                accepted(&[("azure-asyncoperation", POLL), ("location", LOCATION)]),
                json(200, &json!({"status": "Succeeded"})),
                bare(),
            ],
            vec![
                accepted(&[("azure-asyncoperation", POLL), ("location", LOCATION)]),
                output(json!({"accessSAS": Service::sas(1)})),
            ],
        ] {
            let mut next = 0;
            let script = Script::new(move |request, _| {
                if asks_for_token(request) {
                    return token_answer("t", 3600);
                }
                if request.method() == http::Method::GET && next == 0 {
                    return json(200, &json!({"properties": {}}));
                }
                next += 1;
                answers[next - 1].clone()
            });
            let azure = script.azure(&CancellationToken::new());
            let grant = azure
                .grant(&snapshot(), Access::Read, HOUR)
                .await
                .expect("granted");
            assert_eq!(grant.page_blob().to_string(), "md-1.blob.example/c/abcd");
            std::mem::forget(grant);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn access_left_open_by_others_is_closed_first() {
        let (script, state) = service();
        state.lock().expect("no panic").open = Some(99);
        let azure = script.azure(&CancellationToken::new());
        let grant = azure
            .grant(&snapshot(), Access::Read, HOUR)
            .await
            .expect("granted");
        assert_eq!(state.lock().expect("no panic").answers, ["end", "begin"]);
        grant.revoke().await.expect("revoked");
    }

    /// An operation that was accepted goes on, although nobody is allowed to ask how far it is any more.
    #[tokio::test(start_paused = true)]
    async fn what_was_accepted_is_closed_whatever_its_polls_say() {
        let script = Script::new(|request, _| {
            let path = request.uri().path();
            if asks_for_token(request) {
                token_answer("t", 3600)
            } else if path.ends_with("/beginGetAccess") {
                answer(202, &[("azure-asyncoperation", POLL)], "")
            } else if path == "/poll" {
                answer(403, &[], "")
            } else {
                json(200, &json!({"properties": {}}))
            }
        });
        let azure = script.azure(&CancellationToken::new());
        let refused = azure.grant(&snapshot(), Access::Read, HOUR).await;
        assert_eq!(refused.expect_err("no SAS").kind(), ErrorKind::Forbidden);
        let ended = |seen: &super::super::testing::Seen| seen.uri.contains("endGetAccess");
        assert!(script.seen().iter().any(ended));
    }

    /// Throttling opens nothing: what a conflict after it tells of is somebody else's, and is left alone.
    #[tokio::test(start_paused = true)]
    async fn what_is_open_after_mere_throttling_is_not_ours_to_close() {
        for (status, closes) in [(429, false), (503, true)] {
            let mut begun = 0;
            let script = Script::new(move |request, _| {
                let path = request.uri().path();
                if asks_for_token(request) {
                    token_answer("t", 3600)
                } else if path.ends_with("/beginGetAccess") {
                    begun += 1;
                    match begun {
                        1 => answer(status, &[], ""),
                        2 => answer(409, &[], ""),
                        _ => json(200, &json!({"accessSAS": Service::sas(1)})),
                    }
                } else {
                    json(200, &json!({"properties": {}}))
                }
            });
            let azure = script.azure(&CancellationToken::new());
            let granted = azure.grant(&snapshot(), Access::Read, HOUR).await;
            let ended = script
                .seen()
                .iter()
                .any(|seen| seen.uri.contains("endGetAccess"));
            assert_eq!((granted.is_ok(), ended), (closes, closes), "{status}");
            std::mem::forget(granted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_403_renews_once_for_all_readers() {
        let (script, state) = service();
        let azure = script.azure(&CancellationToken::new());
        let grant = azure
            .grant(&snapshot(), Access::Read, HOUR)
            .await
            .expect("granted");
        let blob = grant.page_blob();
        state.lock().expect("no panic").open = None;
        let reads = futures_util::future::join_all((0..8).map(|_| blob.read(first_page()))).await;
        assert!(reads.iter().all(Result::is_ok));
        assert_eq!(state.lock().expect("no panic").granted, 2);
        grant.revoke().await.expect("revoked");
    }

    #[tokio::test(start_paused = true)]
    async fn access_is_renewed_before_it_runs_out() {
        let (script, state) = service();
        let azure = script.azure(&CancellationToken::new());
        let grant = azure
            .grant(&snapshot(), Access::Read, HOUR)
            .await
            .expect("granted");
        let blob = grant.page_blob();
        tokio::time::advance(HOUR - Duration::from_secs(200)).await;
        assert!(blob.read(first_page()).await.is_ok());
        assert_eq!(state.lock().expect("no panic").granted, 2);
        grant.revoke().await.expect("revoked");
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_a_grant_gives_it_back() {
        let (script, state) = service();
        let cancel = CancellationToken::new();
        let azure = script.azure(&cancel);
        let grant = azure
            .grant(&snapshot(), Access::Read, HOUR)
            .await
            .expect("granted");
        cancel.cancel();
        drop(grant);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(state.lock().expect("no panic").open, None);
    }

    #[tokio::test(start_paused = true)]
    async fn access_that_a_dropped_grant_leaves_open_is_told() {
        let (script, state) = service();
        let notices = Notices::default();
        let azure = script.azure(&CancellationToken::new());
        let grant = azure
            .with_notices(notices.clone())
            .grant(&snapshot(), Access::Read, HOUR)
            .await
            .expect("granted");
        state.lock().expect("no panic").locked = true;
        drop(grant);
        // Longer than any cleanup tries.
        tokio::time::sleep(HOUR).await;
        let notice = notices.pop().expect("told");
        assert_eq!(notice.severity, Severity::Error);
        for part in ["revoke access to", "ScopeLocked", "until it expires"] {
            assert!(notice.text.contains(part), "{}", notice.text);
        }
        assert_eq!(notices.pop(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_under_way_does_not_outlive_a_dropped_grant() {
        let (script, state) = service();
        let azure = script.azure(&CancellationToken::new());
        let grant = azure
            .grant(&snapshot(), Access::Read, HOUR)
            .await
            .expect("granted");
        let blob = grant.page_blob();
        tokio::time::advance(HOUR - Duration::from_secs(200)).await;
        let reader = tokio::spawn(async move { blob.read(first_page()).await });
        // The renewal asks for the state, closes and opens, 10 ms each.
        tokio::time::sleep(Duration::from_millis(12)).await;
        drop(grant);
        drop(reader.await.expect("no panic"));
        tokio::time::sleep(Duration::from_secs(5)).await;
        let state = state.lock().expect("no panic");
        assert_eq!((state.granted, state.open), (2, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_job_can_still_give_back() {
        let (script, state) = service();
        let cancel = CancellationToken::new();
        let azure = script.azure(&cancel);
        let grant = azure
            .grant(&snapshot(), Access::Read, HOUR)
            .await
            .expect("granted");
        cancel.cancel();
        grant.revoke().await.expect("revoked");
        assert_eq!(state.lock().expect("no panic").open, None);
    }

    /// Neither the answer that the job waited for comes, nor the first one after the cancel.
    #[tokio::test(start_paused = true)]
    async fn a_cancelled_job_does_not_wait_for_answers_that_do_not_come() {
        let state = Arc::new(Mutex::new(Service::default()));
        let service = Arc::clone(&state);
        let closings = AtomicUsize::new(0);
        let script = Script::paced(
            move |request, _| service.lock().expect("no panic").handle(request),
            move |request| {
                let closes = request.uri().path().ends_with("/endGetAccess");
                match closes && closings.fetch_add(1, Ordering::Relaxed) < 2 {
                    true => HOUR,
                    false => Duration::from_millis(10),
                }
            },
        );
        let cancel = CancellationToken::new();
        let azure = script.azure(&cancel);
        let target = snapshot();
        let grant = azure.grant(&target, Access::Read, HOUR).await;
        let grant = grant.expect("granted");
        let began = Instant::now();
        let cancelling = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            cancel.cancel();
        };
        let (revoked, ()) = tokio::join!(grant.revoke(), cancelling);
        revoked.expect("revoked");
        assert_eq!(state.lock().expect("no panic").open, None);
        assert!(began.elapsed() < Duration::from_secs(60 + 4));
    }

    #[tokio::test(start_paused = true)]
    async fn cancelling_while_it_is_granted_leaves_nothing_open() {
        let (script, state) = service();
        let cancel = CancellationToken::new();
        let azure = script.azure(&cancel);
        let target = snapshot();
        // Token, state and begin take 10 ms each; the first poll comes 250 ms later.
        let cancelling = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(state.lock().expect("no panic").open.is_some());
            cancel.cancel();
        };
        let (result, ()) = tokio::join!(azure.grant(&target, Access::Read, HOUR), cancelling);
        assert!(result.expect_err("cancelled").is_cancelled());
        assert_eq!(state.lock().expect("no panic").open, None);
    }
}
