//! A scripted HTTP seam for the tests of this layer: answers by a function, remembers what was asked and when.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::exchange::{Answer, Exchange, TransportError, TransportErrorKind};
use super::page_list::ListSlots;
use super::retry::{RetryPolicy, Sender};
use super::token::{ServicePrincipal, TokenCache};
use super::{Azure, AzureConfig, Endpoints, Shared, Transport};
use crate::intake::Intake;
use crate::payload::Payload;
use crate::secret::Secret;

pub(super) type Outcome = Result<Answer, TransportError>;
type Handler = Box<dyn FnMut(&Request<Payload>, usize) -> Outcome + Send>;
type Latency = Box<dyn Fn(&Request<Payload>) -> Duration + Send + Sync>;

/// One request as it was sent.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) uri: String,
    pub(super) authorization: String,
    pub(super) body: Bytes,
    pub(super) at: Duration,
}

pub(super) struct Script {
    handler: Mutex<Handler>,
    seen: Mutex<Vec<Seen>>,
    began: Instant,
    latency: Latency,
}

impl Script {
    /// Answers the n-th request (from 0) with what `handler` returns, after 10 ms.
    pub(super) fn new(
        handler: impl FnMut(&Request<Payload>, usize) -> Outcome + Send + 'static,
    ) -> Arc<Self> {
        Self::paced(handler, |_| Duration::from_millis(10))
    }

    /// Answers each request after a time of its own.
    pub(super) fn paced(
        handler: impl FnMut(&Request<Payload>, usize) -> Outcome + Send + 'static,
        latency: impl Fn(&Request<Payload>) -> Duration + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            handler: Mutex::new(Box::new(handler)),
            seen: Mutex::default(),
            began: Instant::now(),
            latency: Box::new(latency),
        })
    }

    /// Answers in the order given; the last answer again and again.
    pub(super) fn sequence(answers: Vec<Outcome>) -> Arc<Self> {
        Self::new(move |_, index| answers[index.min(answers.len() - 1)].clone())
    }

    pub(super) fn sender(self: &Arc<Self>, policy: RetryPolicy) -> Sender {
        self.cancellable(policy, &CancellationToken::new())
    }

    pub(super) fn cancellable(
        self: &Arc<Self>,
        policy: RetryPolicy,
        cancel: &CancellationToken,
    ) -> Sender {
        Sender::new(
            Arc::clone(self) as Arc<dyn Exchange>,
            policy,
            cancel.clone(),
        )
    }

    /// A whole client over this script.
    pub(super) fn azure(self: &Arc<Self>, cancel: &CancellationToken) -> Azure {
        let config = config();
        let tokens = TokenCache::new(ServicePrincipal::new(&config).expect("good authority"));
        Azure {
            shared: Arc::new(Shared {
                transport: Transport::new(None, false, 1).expect("system roots"),
                config,
                tokens,
                list_slots: ListSlots::default(),
            }),
            sender: self.cancellable(RetryPolicy::JOB, cancel),
            versions: Arc::default(),
            patience: Duration::from_secs(3600),
        }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }
}

impl Exchange for Script {
    fn exchange<'a>(
        &'a self,
        request: Request<Payload>,
        _limit: u64,
        _intake: &'a dyn Intake,
    ) -> BoxFuture<'a, Result<Answer, TransportError>> {
        let index = {
            let mut seen = self.seen.lock().expect("no panic");
            let authorization = request.headers().get("authorization");
            seen.push(Seen {
                method: request.method().to_string(),
                uri: request.uri().to_string(),
                authorization: authorization
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default()
                    .to_owned(),
                body: request.body().whole().cloned().unwrap_or_default(),
                at: self.began.elapsed(),
            });
            seen.len() - 1
        };
        Box::pin(async move {
            tokio::time::sleep((self.latency)(&request)).await;
            (self.handler.lock().expect("no panic"))(&request, index)
        })
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

pub(super) const ARM: &str = "https://management.azure.com";

pub(super) fn config() -> AzureConfig {
    AzureConfig {
        tenant_id: "tenant-1".into(),
        application_id: "app-1".into(),
        application_secret: Secret::new("p~secret+1".into()),
        subscription_id: "sub-1".into(),
        endpoints: Endpoints::of_cloud("AzureCloud").expect("known"),
        ca_file: None,
        allow_http: false,
        concurrency: 4,
    }
}

pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Outcome {
    Ok(Answer {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::try_from(*name).expect("a name"),
                    HeaderValue::try_from(*value).expect("a value"),
                )
            })
            .collect(),
        body: vec![body.into()],
    })
}

pub(super) fn json(status: u16, body: &serde_json::Value) -> Outcome {
    answer(
        status,
        &[("content-type", "application/json")],
        body.to_string(),
    )
}

pub(super) fn token_answer(token: &str, lifetime: u64) -> Outcome {
    json(
        200,
        &serde_json::json!({"token_type": "Bearer", "expires_in": lifetime, "access_token": token}),
    )
}

/// Whether a request goes to the token endpoint.
pub(super) fn asks_for_token(request: &Request<Payload>) -> bool {
    request.uri().host() == Some("login.microsoftonline.com")
}

pub(super) fn lost(kind: TransportErrorKind, host_known: bool) -> Outcome {
    Err(TransportError {
        kind,
        text: "lost".into(),
        host_known,
    })
}
