//! A page-blob server that costs as little as it can: it shares the cores with whoever is measured.
//!
//! One blob is there to be read ([`IMAGE`]), with an earlier snapshot ([`EARLIER`]); two take an upload and compare what comes
//! with the expected content: that of a disk, which is there already ([`DISK_READY`]), and one to create ([`CREATED`]). Latency comes before each answer, and bandwidth is capped per connection,
//! as a distant service with many front ends would have it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use azure_vm_fd::vhd;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use uuid::Uuid;

use crate::content::{self, DISK};

/// Addresses that are no names have the account in their path.
pub(crate) const IMAGE: &str = "/bench/read/image";
pub(crate) const EARLIER: &str = "/bench/read/earlier";
pub(crate) const DISK_READY: &str = "/bench/upload/disk";
pub(crate) const CREATED: &str = "/bench/upload/created";

/// Ranges per page of a list, as Azure has it.
const LIST_PAGE: usize = 10_000;
/// Bytes that a capped connection may send at once.
const BURST: u64 = 128 << 10;

/// How the server behaves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Behaviour {
    pub(crate) tls: bool,
    /// Milliseconds before each answer.
    pub(crate) latency: u64,
    /// Bytes per second and connection; 0 is no cap.
    pub(crate) bandwidth: u64,
}

/// What the server has to say once it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) port: u16,
    /// The authority that issued the certificate.
    pub(crate) ca_pem: String,
}

/// What was asked of the server since the last question.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
    /// Writes that were not what the image holds there.
    pub(crate) wrong_writes: u64,
}

#[derive(Debug, Default)]
struct State {
    behaviour: Behaviour,
    counts: Mutex<Counts>,
    footer: Bytes,
    /// Length of the blob at [`CREATED`].
    created: AtomicU64,
    extents: Vec<Range<u64>>,
    changes: Vec<Range<u64>>,
}

/// Serves for ever; prints a line of JSON when it is ready.
pub(crate) fn run(behaviour: Behaviour) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(serve(behaviour))
}

async fn serve(behaviour: Behaviour) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let (tls, ca_pem) = certificate()?;
    let footer = vhd::fixed_footer(DISK, Uuid::nil(), SystemTime::now());
    let state = Arc::new(State {
        footer: Bytes::copy_from_slice(&footer),
        extents: content::extents(),
        changes: content::changes(),
        behaviour,
        ..State::default()
    });
    // The first answer must not pay for making the pattern.
    drop(content::bytes(&state.extents, state.extents[0].clone()));
    let ready = Ready {
        port: listener.local_addr()?.port(),
        ca_pem,
    };
    println!("{}", serde_json::to_string(&ready)?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let state = Arc::clone(&state);
        let acceptor = state.behaviour.tls.then(|| tls.clone());
        tokio::spawn(async move {
            match acceptor {
                None => connection(stream, state).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection(stream, state).await;
                    }
                }
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) {
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    // A client that hangs up is no failure of the server.
    drop(
        http1::Builder::new()
            .max_buf_size(1 << 20)
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

fn certificate() -> anyhow::Result<(TlsAcceptor, String)> {
    let ca_key = rcgen::KeyPair::generate()?;
    let mut ca = rcgen::CertificateParams::new(Vec::<String>::new())?;
    ca.distinguished_name
        .push(rcgen::DnType::CommonName, "bench authority");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate()?;
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    let config = ServerConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_no_client_auth()
    .with_single_cert(
        vec![CertificateDer::from(certificate.der().to_vec())],
        PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
    )?;
    Ok((TlsAcceptor::from(Arc::new(config)), ca_pem))
}

type Answer = Response<Slices>;

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Answer, Infallible> {
    let latency = Duration::from_millis(state.behaviour.latency);
    if request.uri().path() == "/counts" {
        return Ok(counts(&state));
    }
    // A write is answered late, when it has come.
    if !latency.is_zero() && request.method() != Method::PUT {
        sleep(latency).await;
    }
    let answered = match *request.method() {
        Method::HEAD => Ok(head(&request, &state)),
        Method::GET => match query(&request, "comp") {
            None => read(&request, &state),
            Some("pagelist") => Ok(list(&request, &state)),
            Some(_) => Err("comp"),
        },
        Method::PUT => match query(&request, "comp") {
            None => create(&request, &state).await,
            Some("page") => write(request, &state).await,
            Some("properties") => Ok(set_properties(&state).await),
            Some(_) => Err("comp"),
        },
        _ => Err("method"),
    };
    Ok(answered.unwrap_or_else(|what| {
        let mut refusal = Response::new(Slices::of(what.into(), &state));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        refusal
    }))
}

fn counts(state: &State) -> Answer {
    let counts = std::mem::take(&mut *state.counts.lock().expect("no panic"));
    let text = serde_json::to_vec(&counts).expect("numbers");
    Response::new(Slices::of(text.into(), state))
}

fn count(state: &State, add: impl FnOnce(&mut Counts)) {
    let mut counts = state.counts.lock().expect("no panic");
    counts.requests += 1;
    add(&mut counts);
}

fn head(request: &Request<Incoming>, state: &State) -> Answer {
    count(state, |_| {});
    let mut answer = Response::new(Slices::default());
    let length = match request.uri().path() {
        CREATED => state.created.load(Ordering::Relaxed),
        _ => DISK + vhd::FOOTER_LEN,
    };
    answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    blob_headers(&mut answer);
    answer
}

fn blob_headers(answer: &mut Answer) {
    let headers = answer.headers_mut();
    for (name, value) in [
        ("x-ms-blob-type", "PageBlob"),
        ("x-ms-version", "2021-12-02"),
        ("x-ms-request-id", "0"),
        ("accept-ranges", "bytes"),
        ("etag", "\"0x8D0\""),
        ("last-modified", "Mon, 23 Nov 2026 10:00:00 GMT"),
        ("content-type", "application/octet-stream"),
    ] {
        headers.insert(name, value.parse().expect("a value"));
    }
}

fn list(request: &Request<Incoming>, state: &State) -> Answer {
    let footer = std::iter::once(DISK..DISK + vhd::FOOTER_LEN);
    let ranges: Vec<_> = if matches!(request.uri().path(), DISK_READY | CREATED) {
        Vec::new()
    } else if request.headers().contains_key("x-ms-previous-snapshot-url") {
        state.changes.clone()
    } else {
        state.extents.iter().cloned().chain(footer).collect()
    };
    let asked = range(request).unwrap_or(0..u64::MAX);
    let ranges: Vec<_> = ranges
        .into_iter()
        .map(|range| range.start.max(asked.start)..range.end.min(asked.end))
        .filter(|range| !range.is_empty())
        .collect();
    let number = |name| query(request, name).and_then(|text| text.parse::<usize>().ok());
    let from = number("marker").unwrap_or(0);
    let page = number("maxresults").unwrap_or(LIST_PAGE).min(LIST_PAGE);
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>");
    for range in ranges.iter().skip(from).take(page) {
        text += &format!(
            "<PageRange><Start>{}</Start><End>{}</End></PageRange>",
            range.start,
            range.end - 1
        );
    }
    if from + page < ranges.len() {
        text += &format!("<NextMarker>{}</NextMarker>", from + page);
    }
    text += "</PageList>";
    count(state, |_| {});
    let mut answer = Response::new(Slices::of(text.into(), state));
    blob_headers(&mut answer);
    let length = (DISK + vhd::FOOTER_LEN).into();
    answer
        .headers_mut()
        .insert("x-ms-blob-content-length", length);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, "application/xml".parse().expect("a value"));
    answer
}

fn read(request: &Request<Incoming>, state: &State) -> Result<Answer, &'static str> {
    let total = DISK + vhd::FOOTER_LEN;
    let range = range(request).unwrap_or(0..total);
    let range = range.start..range.end.min(total);
    if range.start >= range.end {
        return Err("range");
    }
    let mut parts = content::bytes(
        &state.extents,
        range.start..range.end.min(DISK).max(range.start),
    );
    if range.end > DISK {
        let from =
            usize::try_from(range.start.saturating_sub(DISK)).map_err(|_too_large| "range")?;
        let to = usize::try_from(range.end - DISK).map_err(|_too_large| "range")?;
        parts.push(state.footer.slice(from..to));
    }
    let length = range.end - range.start;
    count(state, |counts| counts.bytes_out += length);
    let mut answer = Response::new(Slices {
        pace: Pace::new(state.behaviour.bandwidth),
        ..Slices::from(parts)
    });
    *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    let place = format!("bytes {}-{}/{total}", range.start, range.end - 1);
    answer
        .headers_mut()
        .insert(CONTENT_RANGE, place.parse().expect("a value"));
    blob_headers(&mut answer);
    Ok(answer)
}

/// Makes the blob at [`CREATED`].
async fn create(request: &Request<Incoming>, state: &State) -> Result<Answer, &'static str> {
    let length = request.headers().get("x-ms-blob-content-length");
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    state
        .created
        .store(length.ok_or("length")?, Ordering::Relaxed);
    sleep(Duration::from_millis(state.behaviour.latency)).await;
    count(state, |_| {});
    Ok(created())
}

/// What azcopy ends an upload with.
async fn set_properties(state: &State) -> Answer {
    sleep(Duration::from_millis(state.behaviour.latency)).await;
    count(state, |_| {});
    let mut answer = Response::new(Slices::default());
    blob_headers(&mut answer);
    answer
}

fn created() -> Answer {
    let mut answer = Response::new(Slices::default());
    *answer.status_mut() = StatusCode::CREATED;
    blob_headers(&mut answer);
    answer
}

async fn write(request: Request<Incoming>, state: &State) -> Result<Answer, &'static str> {
    let range = range(&request).ok_or("range")?;
    let mut at = range.start;
    let mut right = true;
    let mut pace = Pace::new(state.behaviour.bandwidth);
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_broken| "body")?.into_data() else {
            continue;
        };
        if let Some(pace) = &mut pace {
            pace.spend(data.len() as u64);
            sleep_until(pace.free).await;
        }
        right &= at >= DISK || content::matches(&state.extents, at, &data);
        at += data.len() as u64;
    }
    sleep(Duration::from_millis(state.behaviour.latency)).await;
    right &= at == range.end;
    count(state, |counts| {
        counts.bytes_in += at - range.start;
        counts.wrong_writes += u64::from(!right);
    });
    Ok(created())
}

fn query<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn range(request: &Request<Incoming>) -> Option<Range<u64>> {
    let headers = request.headers();
    let value = headers.get("x-ms-range").or_else(|| headers.get(RANGE))?;
    let (first, last) = value
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let last = match last {
        "" => u64::MAX - 1,
        last => last.parse().ok()?,
    };
    Some(first.parse().ok()?..last + 1)
}

/// A body of slices that exist already.
#[derive(Debug, Default)]
struct Slices {
    parts: VecDeque<Bytes>,
    pace: Option<Pace>,
}

/// When the next bytes may go.
#[derive(Debug)]
struct Pace {
    bandwidth: u64,
    free: Instant,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new(bandwidth: u64) -> Option<Self> {
        (bandwidth > 0).then(|| Self {
            bandwidth,
            free: Instant::now(),
            wait: None,
        })
    }

    fn spend(&mut self, bytes: u64) {
        let nanos = bytes.saturating_mul(1_000_000_000) / self.bandwidth;
        self.free = self.free.max(Instant::now()) + Duration::from_nanos(nanos);
    }
}

impl From<Vec<Bytes>> for Slices {
    fn from(parts: Vec<Bytes>) -> Self {
        Self {
            parts: parts.into(),
            pace: None,
        }
    }
}

impl Slices {
    fn of(text: Bytes, state: &State) -> Self {
        Self {
            pace: Pace::new(state.behaviour.bandwidth),
            ..Self::from(vec![text])
        }
    }
}

impl Body for Slices {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let Some(front) = this.parts.front_mut() else {
            return Poll::Ready(None);
        };
        let Some(pace) = &mut this.pace else {
            return Poll::Ready(this.parts.pop_front().map(|part| Ok(Frame::data(part))));
        };
        let wait = pace
            .wait
            .get_or_insert_with(|| Box::pin(sleep_until(pace.free)));
        ready!(wait.as_mut().poll(cx));
        let len = front
            .len()
            .min(usize::try_from(BURST).unwrap_or(usize::MAX));
        let piece = front.split_to(len);
        if front.is_empty() {
            this.parts.pop_front();
        }
        pace.wait = None;
        pace.spend(len as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.parts.iter().map(|part| part.len() as u64).sum())
    }
}
