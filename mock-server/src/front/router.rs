//! wiremock decides which part of the emulator answers.
//!
//! Only heads pass through it: it keeps each matched request for good, and copies bodies more than once. The body of a
//! request waits beside it, as does the answer, under a number that travels in a header.
use crate::{
    message::Request,
    service::{Area, Reply, Service},
    sync::lock,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::RwLock;
use wiremock::{Match, Mock, MockServer, Respond, ResponseTemplate};

/// Header with the number of an exchange.
const EXCHANGE: &str = "x-emulator-exchange";

/// Requests after which wiremock's memory of them is wiped.
const WIPE_EVERY: u64 = 10_000;

/// One request and, later, its answer.
#[derive(Debug)]
enum Exchange {
    Asked(Box<Request>),
    Answered(Box<Reply>),
}

type Exchanges = Arc<Mutex<HashMap<u64, Exchange>>>;

/// The way from the listeners to the service.
#[derive(Debug)]
pub(super) struct Router {
    server: MockServer,
    service: Arc<Service>,
    exchanges: Exchanges,
    client: Client<HttpConnector, Empty<Bytes>>,
    next: AtomicU64,
    /// Held for writing while wiremock is wiped.
    open: RwLock<()>,
}

impl Router {
    pub(super) async fn new(service: Arc<Service>) -> Self {
        let router = Self {
            server: MockServer::builder()
                .disable_request_recording()
                .start()
                .await,
            service,
            exchanges: Exchanges::default(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            next: AtomicU64::new(0),
            open: RwLock::new(()),
        };
        router.mount().await;
        router
    }

    /// One mock per area; what none of them takes goes to the last.
    async fn mount(&self) {
        let areas = [
            (Area::Token, 1),
            (Area::Blob, 2),
            (Area::Arm, 3),
            (Area::Account, 4),
            (Area::Unknown, u8::MAX),
        ];
        for (area, priority) in areas {
            let delegate = Delegate {
                area,
                service: Arc::clone(&self.service),
                exchanges: Arc::clone(&self.exchanges),
            };
            Mock::given(InArea(area, Arc::clone(&self.service)))
                .respond_with(delegate)
                .with_priority(priority)
                .mount(&self.server)
                .await;
        }
    }

    /// Sends a request through wiremock to the service.
    pub(super) async fn route(&self, request: Request) -> Result<Reply, String> {
        let number = self.next.fetch_add(1, Relaxed);
        if number % WIPE_EVERY == WIPE_EVERY - 1 {
            let _closed = self.open.write().await;
            self.server.reset().await;
            self.mount().await;
        }
        let _open = self.open.read().await;
        let head = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{}{}", self.server.uri(), routed(&request)))
            .header(EXCHANGE, number)
            .body(Empty::new())
            .map_err(|error| format!("forward the request: {error}"))?;
        lock(&self.exchanges).insert(number, Exchange::Asked(Box::new(request)));
        let answer = self.client.request(head).await;
        let exchange = lock(&self.exchanges).remove(&number);
        let answer = answer.map_err(|error| format!("forward the request: {error}"))?;
        answer
            .into_body()
            .collect()
            .await
            .map_err(|error| format!("read the answer: {error}"))?;
        match exchange {
            Some(Exchange::Answered(reply)) => Ok(*reply),
            Some(Exchange::Asked(_)) | None => Err("the request matched no mock".to_owned()),
        }
    }
}

/// The path by which a request finds its area: a storage account that is named by the host comes first.
fn routed(request: &Request) -> String {
    match request.account_of_host() {
        Some(account) => format!("/{account}{}", request.path),
        None => request.path.clone(),
    }
}

/// Matches the paths of an area.
struct InArea(Area, Arc<Service>);

impl Match for InArea {
    fn matches(&self, request: &wiremock::Request) -> bool {
        let path = request.url.path().to_ascii_lowercase();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match self.0 {
            Area::Control => false,
            Area::Token => matches!(
                segments[..],
                [_, "oauth2", ..] | [_, "v2.0", ..] | ["metadata", ..]
            ),
            Area::Blob => path.starts_with("/md-"),
            Area::Arm => segments.first() == Some(&"subscriptions"),
            Area::Account => segments
                .first()
                .is_some_and(|first| self.1.has_account(first)),
            Area::Unknown => true,
        }
    }
}

/// Hands a request to the service and keeps the answer for the front.
struct Delegate {
    area: Area,
    service: Arc<Service>,
    exchanges: Exchanges,
}

impl Respond for Delegate {
    fn respond(&self, head: &wiremock::Request) -> ResponseTemplate {
        let number = head
            .headers
            .get(EXCHANGE)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let Some(number) = number else {
            return ResponseTemplate::new(500);
        };
        let exchange = lock(&self.exchanges).remove(&number);
        let Some(Exchange::Asked(request)) = exchange else {
            return ResponseTemplate::new(500);
        };
        let reply = self.service.handle(self.area, &request);
        let status = reply.response.status;
        lock(&self.exchanges).insert(number, Exchange::Answered(Box::new(reply)));
        ResponseTemplate::new(status)
    }
}
