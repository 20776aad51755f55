//! The listeners, and the way of a request from the socket to the service and back.
mod connection;
mod outgoing;
mod router;
mod tls;

use self::{
    connection::{Connection, Ending},
    outgoing::Outgoing,
    router::Router,
};
use crate::{
    Config, Error,
    message::{Body, Request, Response},
    observer::{Flight, Presence},
    service::{Area, Reply, Service, Wire},
};
use http::{HeaderName, HeaderValue, header};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
};
use tokio_rustls::TlsAcceptor;

/// How soon it is noticed that connections are refused, and that they are not any more.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What the system refused may be had a little later.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Longest request body: what a control client may write to a disk at once.
const MAX_BODY: usize = 256 << 20;

/// Where the emulator listens.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) service: Arc<Service>,
}

impl Front {
    /// Binds both ports and serves them on the current runtime until it ends.
    pub(crate) async fn start(config: &Config) -> Result<Self, Error> {
        let http = bind(SocketAddr::new(config.listen, config.http_port)).await?;
        let https = bind(SocketAddr::new(config.listen, config.https_port)).await?;
        let (acceptor, ca_pem) = tls::acceptor()?;
        let service = Arc::new(Service::new(config, ca_pem)?);
        let router = Arc::new(Router::new(Arc::clone(&service)).await);
        let front = Self {
            http: address(&http)?,
            https: address(&https)?,
            service: Arc::clone(&service),
        };
        let gate = Gate { service, router };
        tokio::spawn(gate.clone().listen(http, None));
        tokio::spawn(gate.listen(https, Some(acceptor)));
        Ok(front)
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })
}

/// Takes an address without listening: connections are refused.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Connections to it may still be open.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn address(listener: &TcpListener) -> Result<SocketAddr, Error> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|source| Error::Listen {
        address: unknown,
        source,
    })
}

/// What every connection needs.
#[derive(Clone, Debug)]
struct Gate {
    service: Arc<Service>,
    router: Arc<Router>,
}

impl Gate {
    /// Whether connections are refused now.
    fn is_refused(&self) -> bool {
        self.service.outage.is_refused(self.service.clock.now())
    }

    /// Listens on `address` again when it is time. Until then no other emulator, which asks for any free port, gets this one.
    async fn reopen(&self, address: SocketAddr) -> TcpListener {
        loop {
            let reserved = reserve(address);
            while self.is_refused() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            match reserved.and_then(|socket| socket.listen(BACKLOG)) {
                Ok(listener) => return listener,
                Err(error) => {
                    tracing::warn!(%error, %address, "listen again");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    async fn listen(self, mut listener: TcpListener, acceptor: Option<TlsAcceptor>) {
        let outage = &self.service.outage;
        outage.listener_opened();
        loop {
            let accepted = tokio::select! {
                biased;
                () = async { while !self.is_refused() { tokio::time::sleep(LOOK_AGAIN).await } } => None,
                accepted = listener.accept() => Some(accepted),
            };
            let stream = match accepted {
                None => {
                    let Ok(address) = listener.local_addr() else {
                        return;
                    };
                    drop(listener);
                    outage.listener_closed();
                    listener = self.reopen(address).await;
                    outage.listener_opened();
                    continue;
                }
                Some(Ok((stream, _))) => stream,
                Some(Err(error)) => {
                    // Out of descriptors, for example; others may be closed meanwhile.
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(TRY_AGAIN).await;
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "switch off Nagle's algorithm");
            }
            let ending = Ending::default();
            let stream = Connection::new(stream, ending.clone(), self.service.link().bandwidth);
            let (gate, acceptor) = (self.clone(), acceptor.clone());
            let mut cut = outage.cut.subscribe();
            tokio::spawn(async move {
                let mut used = pin!(gate.use_up(stream, acceptor, ending.clone()));
                tokio::select! {
                    () = &mut used => {}
                    // Before the connection is dropped.
                    _ = cut.changed() => ending.reset(),
                }
            });
        }
    }

    /// Serves a connection to its end.
    async fn use_up(self, stream: Connection, acceptor: Option<TlsAcceptor>, ending: Ending) {
        match acceptor {
            None => self.serve(stream, "http", ending).await,
            Some(mut acceptor) => {
                if self.service.outage.is_distrusted(self.service.clock.now()) {
                    match tls::acceptor() {
                        Ok((stranger, _ca)) => acceptor = stranger,
                        Err(error) => tracing::error!(%error, "make a certificate"),
                    }
                }
                match acceptor.accept(stream).await {
                    Ok(stream) => self.serve(stream, "https", ending).await,
                    Err(error) => tracing::debug!(%error, "TLS handshake"),
                }
            }
        }
    }

    async fn serve<S>(self, stream: S, scheme: &'static str, ending: Ending)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let gate = self.clone();
        let ended = ending.clone();
        let service = service_fn(move |request| {
            let (gate, ending) = (gate.clone(), ended.clone());
            async move { gate.answer(request, scheme, &ending).await }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = serving.await {
            tracing::debug!(%error, "connection ended");
        }
    }

    /// Answers one request; an error ends the connection.
    async fn answer(
        self,
        request: hyper::Request<Incoming>,
        scheme: &str,
        ending: &Ending,
    ) -> io::Result<hyper::Response<Outgoing>> {
        let presence = self.service.observer.arrived();
        let (head, body) = request.into_parts();
        let host = head
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or("localhost");
        let base = format!("{scheme}://{host}");
        let target = head
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str())
            .to_owned();
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                tracing::debug!(%error, "read a request body");
                return Ok(build(Response::empty(413), Wire::Whole, None, presence));
            }
        };
        let request = Request::new(head.method, base, &target, head.headers, body);
        let reply = if request
            .segments
            .first()
            .is_some_and(|first| first == "_emulator")
        {
            // The digest of a large disk takes its time; wiremock answers one request after the other.
            let service = Arc::clone(&self.service);
            let handled =
                tokio::task::spawn_blocking(move || service.handle(Area::Control, &request));
            handled.await.map_err(|error| error.to_string())
        } else {
            self.router.route(request).await
        };
        let Reply {
            response,
            wire,
            delay,
            flight,
        } = reply.unwrap_or_else(|error| {
            tracing::error!(error, "the emulator failed");
            let mut response = Response::empty(500);
            response.body = Body::Bytes(format!("the emulator failed: {error}").into());
            Reply {
                response,
                wire: Wire::Whole,
                delay: Duration::ZERO,
                flight: None,
            }
        });
        let link = self.service.link();
        let wait = delay
            + if flight.is_some() {
                link.latency
            } else {
                Duration::ZERO
            };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if let Some(flight) = &flight {
            flight.answered(if wire == Wire::Reset {
                0
            } else {
                response.status
            });
        }
        if wire == Wire::Reset {
            ending.reset();
            let outage = &self.service.outage;
            let now = self.service.clock.now();
            while outage.is_refused(now) && !outage.is_closed() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            if outage.is_on(now) {
                outage.cut.send_replace(());
            }
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "reset by a fault",
            ));
        }
        Ok(build(response, wire, flight, presence))
    }
}

fn build(
    response: Response,
    wire: Wire,
    flight: Option<Flight>,
    presence: Presence,
) -> hyper::Response<Outgoing> {
    let Response {
        status,
        headers,
        named,
        body,
    } = response;
    let len = body.len();
    let mut out = hyper::Response::new(Outgoing::new(body, wire, flight, presence));
    *out.status_mut() =
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    if status != 204 {
        out.headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    }
    for (name, value) in headers {
        match HeaderValue::from_str(&value) {
            Ok(value) => {
                out.headers_mut()
                    .append(HeaderName::from_static(name), value);
            }
            Err(error) => tracing::error!(name, %error, "a header cannot be sent"),
        }
    }
    for (name, value) in named {
        match (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(&value),
        ) {
            (Ok(name), Ok(value)) => {
                out.headers_mut().append(name, value);
            }
            _ => tracing::error!(name, "a header cannot be sent"),
        }
    }
    out
}
