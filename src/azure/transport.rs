//! One HTTP client: hyper over rustls.
//!
//! HTTP/1.1 only, since every service spoken to here serves it and one connection per request in flight is what the
//! disk endpoints reward. No redirect is followed. Every phase has its own timeout: connecting, each piece of the request, the
//! head of the answer, and each piece of the body. What went wrong is put into words by [`place`](super::place); what an
//! answer means is not decided here.

use std::collections::HashSet;
use std::fmt;
use std::hint::black_box;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::Authority;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::connector::Connector;
use super::exchange::{Answer, Exchange, TransportError};
use super::frames::{Frames, READ_BUFFER};
use super::outgoing_body::OutgoingBody;
use super::place::Place;
use super::resolver::{Names, Resolve, SystemResolver};
use super::{Error, tls};
use crate::intake::Intake;
use crate::payload::Payload;

/// From the request, or from the last piece of it that the connection took, to the head of the answer. A page write may take
/// longer as a whole: 16 at once over a line of 5 Mbit/s take two minutes each.
const HEAD_TIMEOUT: Duration = Duration::from_secs(100);
/// Between two pieces of a body.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections are closed before Azure's load balancers drop them silently (4 minutes by default).
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Bytes of freed memory that the allocator keeps at least, per arena: the read buffers of a few chunks.
const KEPT_MEMORY: usize = 8 << 20;
/// Header lines of one answer.
const MAX_HEADERS: usize = 256;

type HttpClient = Client<Connector, OutgoingBody>;

/// A connection pool. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Transport {
    client: HttpClient,
    pub(super) allow_http: bool,
    known_hosts: Arc<Mutex<HashSet<Authority>>>,
}

impl Transport {
    /// Trusts the system's roots and those of `ca_file` (PEM), and keeps up to `connections` idle connections per host.
    /// With `allow_http`, plain `http://` is accepted for loopback addresses; it is refused for all others. Proxies are
    /// those of the environment.
    ///
    /// # Errors
    ///
    /// An unusable CA file; no trusted roots at all.
    pub fn new(
        ca_file: Option<&Path>,
        allow_http: bool,
        connections: usize,
    ) -> Result<Self, Error> {
        Self::resolving(ca_file, allow_http, connections, Arc::new(SystemResolver))
    }

    /// The same with another resolver of names than the system's.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::new`].
    pub(super) fn resolving(
        ca_file: Option<&Path>,
        allow_http: bool,
        connections: usize,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, Error> {
        let names = Names::new(resolver);
        Self::with_proxies(ca_file, allow_http, connections, names, Matcher::from_env())
    }

    fn with_proxies(
        ca_file: Option<&Path>,
        allow_http: bool,
        connections: usize,
        names: Names,
        proxies: Matcher,
    ) -> Result<Self, Error> {
        keep_freed_memory();
        let connector = Connector::new(tls::client_config(ca_file)?, proxies, names);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(connections.max(1))
            .http1_read_buf_exact_size(READ_BUFFER)
            .http1_max_headers(MAX_HEADERS)
            .build(connector);
        Ok(Self {
            client,
            allow_http,
            known_hosts: Arc::default(),
        })
    }

    async fn run(
        &self,
        request: Request<Payload>,
        limit: u64,
        intake: &dyn Intake,
    ) -> Result<Answer, TransportError> {
        let place = Place::of(request.uri(), self)?;
        let response = self.answer(request, &place).await?;
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
        let mut frames = Frames::new(announced);
        while let Some(frame) = next_frame(&place, &mut incoming).await? {
            let received = frames.len + frame.len() as u64;
            if received > limit {
                return Err(place.too_long(received, limit));
            }
            intake.admit(frames.cost(&frame)).await;
            frames.push(frame);
        }
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: frames.finish(),
        })
    }

    /// Sends a request and waits for the head of its answer as long as the connection takes a piece of it every [`HEAD_TIMEOUT`].
    async fn answer(
        &self,
        request: Request<Payload>,
        place: &Place<'_>,
    ) -> Result<Response<Incoming>, TransportError> {
        let taken = Arc::new(Notify::new());
        let request = request.map(|payload| OutgoingBody::new(payload, Arc::clone(&taken)));
        let mut answer = pin!(self.client.request(request));
        loop {
            tokio::select! {
                // What is there counts, although the time may have gone by as well.
                biased;
                answer = &mut answer => return answer.map_err(|error| place.classify(&error)),
                () = taken.notified() => {}
                () = sleep(HEAD_TIMEOUT) => return Err(place.timed_out("no answer", HEAD_TIMEOUT)),
            }
        }
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

    /// Whether the host has answered before.
    pub(super) fn knows(&self, authority: &Authority) -> bool {
        self.known_hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(authority)
    }
}

impl Exchange for Transport {
    fn exchange<'a>(
        &'a self,
        request: Request<Payload>,
        limit: u64,
        intake: &'a dyn Intake,
    ) -> BoxFuture<'a, Result<Answer, TransportError>> {
        Box::pin(self.run(request, limit, intake))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

/// Makes the allocator keep the memory of read buffers, which come and go by the thousand. glibc gives freed memory back
/// to the system as soon as 128 KiB of it lie together, and each piece costs page faults when it is needed again; once a
/// larger piece was freed, it keeps twice as much as that (mallopt(3), `M_MMAP_THRESHOLD`). The piece is never touched.
fn keep_freed_memory() {
    drop(black_box(Vec::<u8>::with_capacity(KEPT_MEMORY)));
}

/// The next piece of a body; `None` at its end.
async fn next_frame(
    place: &Place<'_>,
    body: &mut Incoming,
) -> Result<Option<Bytes>, TransportError> {
    loop {
        let Some(frame) = timeout(BODY_IDLE_TIMEOUT, body.frame())
            .await
            .map_err(|_elapsed| place.timed_out("no further data", BODY_IDLE_TIMEOUT))?
        else {
            return Ok(None);
        };
        // Trailers are of no use here.
        if let Ok(data) = frame.map_err(|error| place.broken(&error))?.into_data() {
            return Ok(Some(data));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write as _};
    use std::net::SocketAddr;

    use futures_util::FutureExt as _;
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio_rustls::TlsAcceptor;

    use super::super::exchange::TransportErrorKind;
    use super::*;
    use crate::intake::Unbounded;
    use crate::payload::Supply;

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
        let request = Request::get(url).body(Payload::default()).unwrap();
        transport.exchange(request, LIMIT, &Unbounded).await
    }

    fn proxied(proxy: SocketAddr, user: &str) -> Transport {
        let proxies = Matcher::builder()
            .https(format!("http://{user}{proxy}"))
            .no("direct.invalid")
            .build();
        by_way_of(proxies)
    }

    fn by_way_of(proxies: Matcher) -> Transport {
        let names = Names::new(Arc::new(SystemResolver));
        Transport::with_proxies(None, true, 4, names, proxies).unwrap()
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
    async fn heads_without_end_are_refused() {
        let many: String = (0..=MAX_HEADERS).map(|i| format!("x-{i}: v\r\n")).collect();
        let long = format!("x: {}\r\n", "u".repeat(2 * READ_BUFFER));
        for lines in [many, long] {
            let answer = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok");
            let error = get_plain(answer).await.unwrap_err();
            assert_eq!(error.kind, TransportErrorKind::Protocol, "{}", error.text);
        }
    }

    #[tokio::test]
    async fn bodies_that_end_early_or_are_too_long_are_errors() {
        let cut = get_plain("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        assert_eq!(cut.unwrap_err().kind, TransportErrorKind::Broken);
        let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", LIMIT + 1);
        let long = get_plain(announced).await.unwrap_err();
        assert_eq!(long.kind, TransportErrorKind::TooLong);
        let mut endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        endless.resize(endless.len() + (2 << 20), b'x');
        let long = get_plain(endless).await.unwrap_err();
        assert_eq!(long.kind, TransportErrorKind::TooLong);
    }

    #[tokio::test]
    async fn what_is_no_http_is_an_error_and_redirects_are_answers() {
        let garbage = get_plain("220 smtp ready\r\n\r\n").await.unwrap_err();
        assert_eq!(garbage.kind, TransportErrorKind::Protocol);
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let location = format!("http://{}/", elsewhere.local_addr().unwrap());
        for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
            let redirect = get_plain(format!(
                "HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            ));
            assert!(redirect.await.unwrap().status.is_redirection());
        }
        let nobody = elsewhere.accept().now_or_never();
        assert!(nobody.is_none(), "a redirect was followed");
    }

    /// Bytes in pieces, up to a place where they cannot be read.
    #[derive(Debug)]
    struct Pieces {
        bytes: Bytes,
        broken_at: usize,
    }

    impl Supply for Pieces {
        fn total(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn fetch(self: Arc<Self>, position: u64) -> BoxFuture<'static, io::Result<Bytes>> {
            let start = usize::try_from(position).unwrap();
            let end = self.bytes.len().min(start + 1000);
            Box::pin(async move {
                if end > self.broken_at {
                    return Err(io::Error::other("the disk is broken"));
                }
                Ok(self.bytes.slice(start..end))
            })
        }
    }

    #[tokio::test]
    async fn what_is_supplied_in_pieces_is_sent_as_one_body() {
        let bytes: Bytes = (0..251).cycle().take(10_500).collect();
        let put = |broken_at| {
            let bytes = bytes.clone();
            let supply = Payload::Supplied(Arc::new(Pieces { bytes, broken_at }));
            async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let url = format!("http://{}/", listener.local_addr().unwrap());
                let transport = Transport::new(None, true, 4).unwrap();
                let request = Request::put(url).body(supply).unwrap();
                let server = async {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut all = Vec::new();
                    let body = |all: &[u8]| {
                        let end = all.windows(4).position(|window| window == b"\r\n\r\n");
                        end.map_or(0, |end| all.len() - end - 4)
                    };
                    while body(&all) < 10_500 {
                        if stream.read_buf(&mut all).await.unwrap_or(0) == 0 {
                            return all;
                        }
                    }
                    let reply = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
                    stream.write_all(reply).await.unwrap();
                    all
                };
                tokio::join!(server, transport.exchange(request, LIMIT, &Unbounded))
            }
        };
        let (seen, answer) = put(usize::MAX).await;
        assert_eq!(answer.unwrap().status, 201);
        let head = seen.len() - bytes.len();
        assert!(seen[head..] == bytes);
        let head = String::from_utf8_lossy(&seen[..head]).to_lowercase();
        assert!(head.contains("\r\ncontent-length: 10500\r\n"), "{head}");
        // A body that is cut must not look complete.
        let (seen, answer) = put(5000).await;
        assert!(seen.len() < bytes.len());
        let error = answer.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::Unreadable);
        assert!(error.text.ends_with("the disk is broken"), "{}", error.text);
    }

    /// What becomes of a write of 64 MiB to a server that takes 1 MiB each `pause` seconds, and whose clock is ours.
    async fn slow_write(pause: u64) -> Result<Answer, TransportError> {
        const LENGTH: usize = 64 << 20;
        let server = TcpSocket::new_v4().unwrap();
        // The system would take much of it ahead.
        server.set_recv_buffer_size(1 << 16).unwrap();
        server.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = server.listen(1).unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let supply = Pieces {
            bytes: Bytes::from(vec![1; LENGTH]),
            broken_at: usize::MAX,
        };
        let request = Request::put(url).body(Payload::Supplied(Arc::new(supply)));
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut part = vec![0; 1 << 20];
            // The head is a part of the first.
            for _ in 0..LENGTH / part.len() {
                sleep(Duration::from_secs(pause)).await;
                // Real bytes take real time, in which a clock that jumps would reach the deadline.
                tokio::time::resume();
                if stream.read_exact(&mut part).await.is_err() {
                    return;
                }
                tokio::time::pause();
            }
            let reply = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
            drop(stream.write_all(reply).await);
            drop(stream.read_to_end(&mut part).await);
        });
        let transport = Transport::new(None, true, 4).unwrap();
        transport
            .exchange(request.unwrap(), LIMIT, &Unbounded)
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_as_long_as_it_moves() {
        assert_eq!(slow_write(2).await.unwrap().status, 201);
        let error = slow_write(1000).await.unwrap_err();
        assert!(error.text.contains("within 100 s"), "{}", error.text);
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

    /// An address where nobody listens as long as it is held.
    fn closed() -> TcpSocket {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket
    }

    #[tokio::test]
    async fn addresses_without_a_server_are_told_apart() {
        let transport = by_way_of(Matcher::builder().build());
        let refused = closed();
        let address = refused.local_addr().unwrap();
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

    /// What the proxy was asked, and what came of it.
    async fn through_proxy(reply: &'static [u8], url: &str) -> (String, TransportError) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let transport = proxied(listener.local_addr().unwrap(), "user:pass%20word@");
        let proxy = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut head).await.unwrap();
            }
            stream.write_all(reply).await.unwrap();
            // Of what follows in the tunnel, its first byte.
            head.extend(stream.read_u8().await.ok());
            String::from_utf8(head).unwrap()
        };
        let (head, result) = tokio::join!(proxy, get(&transport, url));
        (head, result.unwrap_err())
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_tunnel() {
        let url = "https://md-1.blob.example/c/abcd?sig=secret";
        let (head, _hung_up) = through_proxy(b"HTTP/1.1 200 OK\r\n\r\n", url).await;
        assert!(
            head.starts_with("CONNECT md-1.blob.example:443 HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.contains("\r\nProxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n"),
            "{head}"
        );
        assert!(!head.contains("secret"), "{head}");
        // A TLS handshake record: the tunnel is not trusted with plain text.
        assert!(head.ends_with("\r\n\r\n\u{16}"), "{head:?}");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_named_without_credentials() {
        let reply = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
        let (_, error) = through_proxy(reply, "https://management.example/").await;
        assert_eq!(error.kind, TransportErrorKind::NotConnected);
        assert!(
            error
                .text
                .starts_with("no connection to management.example through proxy 127.0.0.1:"),
            "{}",
            error.text
        );
        assert!(
            error.text.contains("proxy authorization required"),
            "{}",
            error.text
        );
        assert!(!error.text.contains("pass"), "{}", error.text);
    }

    #[tokio::test]
    async fn some_hosts_are_reached_without_the_proxy() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let transport = proxied(dead.local_addr().unwrap(), "");
        let nobody = closed();
        let local = format!("https://{}/", nobody.local_addr().unwrap());
        let error = get(&transport, &local).await.unwrap_err();
        assert!(error.text.contains("refused"), "{}", error.text);
        let listed = get(&transport, "https://direct.invalid/").await;
        assert_eq!(listed.unwrap_err().kind, TransportErrorKind::UnknownHost);
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
    }

    /// A server with a certificate that `change` is made to; a file with it, and the port.
    async fn certified(
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> (tempfile::NamedTempFile, u16) {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.der().clone()], key)
            .unwrap();
        let reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let address = listen(reply.into(), Some(Arc::new(config).into())).await;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(made.pem().as_bytes()).unwrap();
        (file, address.port())
    }

    #[tokio::test]
    async fn private_authorities_are_trusted_by_their_file_only() {
        let (file, port) = certified(|_| {}).await;
        let url = format!("https://localhost:{port}/");
        let stranger = Transport::new(None, false, 4).unwrap();
        let error = get(&stranger, &url).await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::Certificate);
        assert!(error.text.contains("ca_file"), "{}", error.text);

        let friend = Transport::new(Some(file.path()), false, 4).unwrap();
        assert_eq!(get(&friend, &url).await.unwrap().contiguous(), "ok");
        // The name counts, not only the signature.
        let by_number = format!("https://127.0.0.1:{port}/");
        let error = get(&friend, &by_number).await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::Certificate);
    }

    #[tokio::test]
    async fn certificates_hold_for_their_time_and_purpose_only() {
        let (past, future) = (
            rcgen::date_time_ymd(2000, 1, 1),
            rcgen::date_time_ymd(4000, 1, 1),
        );
        let expired = certified(|params| params.not_after = past).await;
        let early = certified(|params| params.not_before = future).await;
        let client = rcgen::ExtendedKeyUsagePurpose::ClientAuth;
        let other = certified(|params| params.extended_key_usages = vec![client]).await;
        for (name, (file, port)) in [("expired", expired), ("early", early), ("other", other)] {
            let friend = Transport::new(Some(file.path()), false, 4).unwrap();
            let url = format!("https://localhost:{port}/");
            let error = get(&friend, &url).await.unwrap_err();
            assert_eq!(error.kind, TransportErrorKind::Certificate, "{name}");
        }
    }
}
