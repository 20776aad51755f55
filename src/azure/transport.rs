//! One HTTP client: hyper over rustls.
//!
//! HTTP/1.1 only, since every service spoken to here serves it and one connection per request in flight is what the
//! disk endpoints reward. No redirect is followed, no proxy is used. Every phase has its own timeout: connecting, the
//! head of the answer, and each piece of the body. What an answer means is not decided here.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::exchange::{Answer, Exchange, TransportError, TransportErrorKind};
use super::redact::clean;
use super::{Error, ErrorKind};

/// From the name to the finished TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the request to the head of the answer, the upload of a 4 MiB page write over a slow line included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(100);
/// Between two pieces of a body.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections are closed before Azure's load balancers drop them silently (4 minutes by default).
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Upper bound of one read from a connection. It also bounds the head of an answer: two signed polling URLs of more
/// than 4 KB each come in one head ("Track asynchronous Azure operations"), so this leaves ample room.
const READ_BUFFER: usize = 256 * 1024;
/// Header lines of one answer.
const MAX_HEADERS: usize = 256;

type HttpClient = Client<TimedConnector, Full<Bytes>>;

/// A connection pool. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Transport {
    client: HttpClient,
    allow_http: bool,
    known_hosts: Arc<Mutex<HashSet<Authority>>>,
}

impl Transport {
    /// Trusts the system's roots and those of `ca_file` (PEM), and keeps up to `connections` idle connections per host.
    /// With `allow_http`, plain `http://` is accepted for loopback addresses; it is refused for all others.
    ///
    /// # Errors
    ///
    /// An unusable CA file; no trusted roots at all.
    pub fn new(
        ca_file: Option<&Path>,
        allow_http: bool,
        connections: usize,
    ) -> Result<Self, Error> {
        let tls = tls_config(trusted_roots(ca_file)?)?;
        let mut tcp = HttpConnector::new_with_resolver(Resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(connections.max(1))
            .http1_max_buf_size(READ_BUFFER)
            .http1_max_headers(MAX_HEADERS)
            .build(TimedConnector(https));
        Ok(Self {
            client,
            allow_http,
            known_hosts: Arc::default(),
        })
    }

    async fn run(&self, request: Request<Bytes>, limit: u64) -> Result<Answer, TransportError> {
        let place = Place::of(request.uri(), self)?;
        let response = timeout(HEAD_TIMEOUT, self.client.request(request.map(Full::new)))
            .await
            .map_err(|_elapsed| place.timed_out("no answer", HEAD_TIMEOUT))?
            .map_err(|error| place.classify(&error))?;
        self.remember(&place.authority);

        let (head, mut incoming) = response.into_parts();
        let announced = head
            .headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        // The answer to a HEAD announces a length that it does not have.
        let bodiless = hyper::body::Body::is_end_stream(&incoming);
        if let Some(length) = announced.filter(|&length| length > limit && !bodiless) {
            return Err(place.too_long(length, limit));
        }
        // Frames are put together at once, in a buffer of the right size. Each would otherwise keep the whole read buffer
        // that it is a slice of, and most are far from full: measured with TLS, chunks then took 1.7 times their length.
        let capacity = announced.filter(|_| !bodiless).unwrap_or(0);
        let mut body = BytesMut::with_capacity(usize::try_from(capacity).unwrap_or(0));
        while let Some(frame) = place.next_frame(&mut incoming).await? {
            let received = (body.len() + frame.len()) as u64;
            if received > limit {
                return Err(place.too_long(received, limit));
            }
            body.extend_from_slice(&frame);
        }
        let body = vec![body.freeze()];
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    fn remember(&self, authority: &Authority) {
        let mut known = self
            .known_hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !known.contains(authority) {
            known.insert(authority.clone());
        }
    }

    fn knows(&self, authority: &Authority) -> bool {
        self.known_hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(authority)
    }
}

impl Exchange for Transport {
    fn exchange(
        &self,
        request: Request<Bytes>,
        limit: u64,
    ) -> BoxFuture<'_, Result<Answer, TransportError>> {
        Box::pin(self.run(request, limit))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

/// Whether a URL names this machine itself: the only place where plain HTTP is acceptable.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where one request goes, for its errors.
struct Place<'a> {
    transport: &'a Transport,
    authority: Authority,
}

impl<'a> Place<'a> {
    fn of(uri: &Uri, transport: &'a Transport) -> Result<Self, TransportError> {
        let refuse = |text: String| TransportError {
            kind: TransportErrorKind::NotAllowed,
            text,
            host_known: false,
        };
        let Some(authority) = uri.authority() else {
            return Err(refuse("the URL has no host".into()));
        };
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => {}
            Some(scheme) if *scheme == Scheme::HTTP => {
                if !transport.allow_http {
                    return Err(refuse(format!(
                        "plain http to {authority} is refused; use https, or allow_http for an emulator on this machine"
                    )));
                }
                if !is_loopback(authority.host()) {
                    return Err(refuse(format!(
                        "plain http to {authority} is refused: allow_http holds for loopback addresses only"
                    )));
                }
            }
            Some(_) | None => return Err(refuse(format!("the URL of {authority} is not https"))),
        }
        Ok(Self {
            transport,
            authority: authority.clone(),
        })
    }

    async fn next_frame(&self, body: &mut Incoming) -> Result<Option<Bytes>, TransportError> {
        loop {
            let Some(frame) = timeout(BODY_IDLE_TIMEOUT, body.frame())
                .await
                .map_err(|_elapsed| self.timed_out("no further data", BODY_IDLE_TIMEOUT))?
            else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| {
                self.error(
                    TransportErrorKind::Broken,
                    format!(
                        "the connection to {} broke before the answer was complete: {}",
                        self.authority,
                        innermost(&error)
                    ),
                )
            })?;
            // Trailers are of no use here.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    fn error(&self, kind: TransportErrorKind, text: String) -> TransportError {
        TransportError {
            kind,
            text,
            host_known: self.transport.knows(&self.authority),
        }
    }

    fn timed_out(&self, what: &str, limit: Duration) -> TransportError {
        self.error(
            TransportErrorKind::Timeout,
            format!(
                "{what} from {} within {} s",
                self.authority,
                limit.as_secs()
            ),
        )
    }

    fn too_long(&self, actual: u64, limit: u64) -> TransportError {
        self.error(
            TransportErrorKind::Protocol,
            format!(
                "the answer of {} has {actual} bytes or more where at most {limit} were asked for",
                self.authority
            ),
        )
    }

    fn classify(&self, error: &hyper_util::client::legacy::Error) -> TransportError {
        use TransportErrorKind::{Broken, Certificate, NotConnected, Protocol, Tls, UnknownHost};
        let at = &self.authority;
        if let Some(tls) = find::<rustls::Error>(error) {
            return if let rustls::Error::InvalidCertificate(reason) = tls {
                self.error(
                    Certificate,
                    format!(
                        "the certificate of {at} is not trusted: {}; if a private authority issued it, name its PEM \
                         file with ca_file",
                        certificate_problem(reason)
                    ),
                )
            } else {
                self.error(
                    Tls,
                    format!("TLS with {at} failed: {}", clean(&tls.to_string())),
                )
            };
        }
        if let Some(unknown) = find::<ResolveError>(error) {
            return self.error(
                UnknownHost,
                format!(
                    "the name {} has no address: {}; check the name and DNS",
                    at.host(),
                    unknown.0
                ),
            );
        }
        if error.is_connect() {
            let text = if find::<ConnectTimeout>(error).is_some() {
                format!(
                    "no connection to {at} within {} s",
                    CONNECT_TIMEOUT.as_secs()
                )
            } else {
                format!("no connection to {at}: {}", innermost(error))
            };
            return self.error(NotConnected, text);
        }
        match find::<hyper::Error>(error) {
            Some(hyper) if hyper.is_parse() => self.error(
                Protocol,
                format!("the answer of {at} is not HTTP/1.1: {}", innermost(error)),
            ),
            Some(_) | None => self.error(
                Broken,
                format!("the connection to {at} broke: {}", innermost(error)),
            ),
        }
    }
}

/// The first error of type `T` in the chain. An `io::Error` hides what it wraps from `source`, so it is opened.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<T>() {
            return Some(found);
        }
        next = match current
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    None
}

/// Text of the cause at the end of the chain.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    clean(&last.to_string())
}

fn certificate_problem(reason: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Problem;
    if matches!(reason, Problem::UnknownIssuer) {
        return "no trusted authority issued it".into();
    }
    clean(&reason.to_string())
}

fn tls_config(roots: RootCertStore) -> Result<rustls::ClientConfig, Error> {
    // The provider is passed on, never installed: a plugin must not decide for the whole process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
        .map_err(|error| {
            Error::new(
                ErrorKind::Configuration,
                "prepare TLS",
                &"",
                error.to_string(),
            )
        })
}

fn trusted_roots(ca_file: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!("system trust store: {error}");
    }
    let (_added, ignored) = roots.add_parsable_certificates(system.certs);
    if ignored > 0 {
        tracing::debug!(ignored, "system trust store: unusable certificates");
    }
    if let Some(path) = ca_file {
        add_ca_file(&mut roots, path)?;
    }
    if roots.is_empty() {
        return Err(Error::new(
            ErrorKind::Configuration,
            "load trusted certificates",
            &"",
            "the system has none; install the package ca-certificates, or name a PEM file with ca_file",
        ));
    }
    Ok(roots)
}

fn add_ca_file(roots: &mut RootCertStore, path: &Path) -> Result<(), Error> {
    let refuse = |cause: String| {
        Error::new(
            ErrorKind::Configuration,
            "read CA file",
            &path.display(),
            cause,
        )
    };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| refuse(error.to_string()))?;
        count += 1;
    }
    if count == 0 {
        return Err(refuse("no certificate in it; PEM is expected".into()));
    }
    Ok(())
}

/// The system's resolver; its errors stay recognisable.
#[derive(Clone, Debug)]
struct Resolver;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ResolveError(String);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = BoxFuture<'static, Result<Self::Response, ResolveError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0))
                .await
                .map_err(|error| ResolveError(clean(&error.to_string())))?;
            Ok(found.collect::<Vec<_>>().into_iter())
        })
    }
}

/// Connects within [`CONNECT_TIMEOUT`], name resolution and TLS handshake included.
#[derive(Clone)]
struct TimedConnector(HttpsConnector<HttpConnector<Resolver>>);

#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
struct ConnectTimeout;

impl Service<Uri> for TimedConnector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            timeout(CONNECT_TIMEOUT, connecting)
                .await
                .map_err(|_elapsed| ConnectTimeout)?
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const LIMIT: u64 = 1 << 20;

    /// Serves one request: reads its head, writes `reply`, closes.
    async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, reply: &[u8]) {
        let mut head = Vec::new();
        while !head.windows(4).any(|window| window == b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        // The client may hang up first, which is what some tests are about.
        drop(stream.write_all(reply).await);
        drop(stream.shutdown().await);
    }

    async fn listen(reply: Vec<u8>, tls: Option<TlsAcceptor>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    None => serve(stream, &reply).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, &reply).await;
                        }
                    }
                }
            }
        });
        address
    }

    async fn get(transport: &Transport, url: &str) -> Result<Answer, TransportError> {
        let request = Request::get(url).body(Bytes::new()).unwrap();
        transport.exchange(request, LIMIT).await
    }

    async fn get_plain(reply: impl Into<Vec<u8>>) -> Result<Answer, TransportError> {
        let address = listen(reply.into(), None).await;
        let transport = Transport::new(None, true, 4).unwrap();
        get(&transport, &format!("http://{address}/x")).await
    }

    #[tokio::test]
    async fn heads_of_more_than_64_kib_are_accepted() {
        let long = "u".repeat(40 * 1024);
        let many: String = (0..150).map(|i| format!("x-{i}: v\r\n")).collect();
        let answer = get_plain(format!(
            "HTTP/1.1 202 Accepted\r\nLocation: {long}\r\nAzure-AsyncOperation: {long}\r\n{many}Content-Length: 2\r\n\r\nok"
        ))
        .await
        .unwrap();
        assert_eq!(answer.header("location").map(str::len), Some(long.len()));
        assert_eq!(answer.contiguous(), "ok");
    }

    #[tokio::test]
    async fn bodies_that_end_early_or_are_too_long_are_errors() {
        let cut = get_plain("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        assert_eq!(cut.unwrap_err().kind, TransportErrorKind::Broken);
        let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", LIMIT + 1);
        let long = get_plain(announced).await.unwrap_err();
        assert_eq!(long.kind, TransportErrorKind::Protocol);
        let mut endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        endless.resize(endless.len() + (2 << 20), b'x');
        let long = get_plain(endless).await.unwrap_err();
        assert_eq!(long.kind, TransportErrorKind::Protocol);
    }

    #[tokio::test]
    async fn what_is_no_http_is_an_error_and_redirects_are_answers() {
        let garbage = get_plain("220 smtp ready\r\n\r\n").await.unwrap_err();
        assert_eq!(garbage.kind, TransportErrorKind::Protocol);
        let redirect = get_plain(
            "HTTP/1.1 302 Found\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!(redirect.await.unwrap().status, 302);
    }

    #[tokio::test]
    async fn a_silent_hang_up_is_a_broken_connection() {
        let address = listen(Vec::new(), None).await;
        let transport = Transport::new(None, true, 4).unwrap();
        let error = get(&transport, &format!("http://{address}/"))
            .await
            .unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::Broken);
    }

    #[tokio::test]
    async fn addresses_without_a_server_are_told_apart() {
        let transport = Transport::new(None, true, 4).unwrap();
        let refused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = refused.local_addr().unwrap();
        drop(refused);
        let error = get(&transport, &format!("http://{address}/"))
            .await
            .unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::NotConnected);
        assert!(
            error.text.contains("refused") && !error.host_known,
            "{}",
            error.text
        );
        let error = get(&transport, "https://no-such-host.invalid/")
            .await
            .unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::UnknownHost);
    }

    #[tokio::test]
    async fn plain_http_is_for_loopback_only() {
        let strict = Transport::new(None, false, 4).unwrap();
        let lenient = Transport::new(None, true, 4).unwrap();
        for (transport, url) in [
            (&strict, "http://127.0.0.1:1/"),
            (&lenient, "http://management.azure.com/"),
            (&lenient, "http://127.0.0.1.example.com/"),
            (&lenient, "ftp://127.0.0.1/"),
            (&lenient, "/relative"),
        ] {
            let error = get(transport, url).await.unwrap_err();
            assert_eq!(error.kind, TransportErrorKind::NotAllowed, "{url}");
        }
        for host in ["localhost", "127.8.9.1", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
    }

    #[tokio::test]
    async fn private_authorities_are_trusted_by_their_file_only() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key =
            rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let address = listen(reply.into(), Some(Arc::new(config).into())).await;
        let url = format!("https://localhost:{}/", address.port());

        let stranger = Transport::new(None, false, 4).unwrap();
        let error = get(&stranger, &url).await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::Certificate);
        assert!(error.text.contains("ca_file"), "{}", error.text);

        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(made.cert.pem().as_bytes()).unwrap();
        let friend = Transport::new(Some(file.path()), false, 4).unwrap();
        assert_eq!(get(&friend, &url).await.unwrap().contiguous(), "ok");
        // The name counts, not only the signature.
        let by_number = format!("https://127.0.0.1:{}/", address.port());
        let error = get(&friend, &by_number).await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::Certificate);
    }

    #[test]
    fn unusable_ca_files_are_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"not PEM").unwrap();
        for path in [file.path(), Path::new("/no/such/file.pem")] {
            let error = Transport::new(Some(path), false, 4).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("read CA file {}: ", path.display())),
                "{text}"
            );
        }
    }
}
