//! Connections: the way through a proxy, TCP and TLS.
//!
//! Everybody but this machine itself is reached through the proxy that the environment names (`HTTPS_PROXY` or
//! `ALL_PROXY`, unless `NO_PROXY` lists the host): a tunnel, in which TLS goes to the far end, so that the proxy sees
//! the host's name and nothing else. Errors tell which proxy was in the way. Names are left to [`resolver`](super::resolver).

use std::error::Error as StdError;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::endpoints::is_loopback;
use super::read_ahead::{FullReads, ReadAhead};
use super::resolver::Names;

/// From the name to the finished TLS handshake.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle time after which TCP asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long what was sent may stay unacknowledged. Without it the system goes on trying for a quarter of an hour, and the pieces of
/// an upload that was given up would keep their memory as long.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(100);

type BoxError = Box<dyn StdError + Send + Sync>;
/// TCP as the dialer makes it.
type Tcp = TokioIo<ReadAhead>;
/// What hyper gets.
type Io = TokioIo<FullReads<TokioIo<MaybeHttpsStream<Tcp>>>>;
type Connecting<T> = BoxFuture<'static, Result<T, BoxError>>;

/// Connects within [`CONNECT_TIMEOUT`].
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<Dialer>);

/// There was no connection within [`CONNECT_TIMEOUT`].
#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
pub(super) struct ConnectTimeout;

impl Connector {
    pub(super) fn new(tls: ClientConfig, proxies: Matcher, names: Names) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(names);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT));
        let dialer = Dialer {
            tcp,
            proxies: Arc::new(proxies),
        };
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(dialer);
        Self(https)
    }
}

impl Service<Uri> for Connector {
    type Response = Io;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            let stream = timeout(CONNECT_TIMEOUT, connecting)
                .await
                .map_err(|_elapsed| ConnectTimeout)??;
            Ok(TokioIo::new(FullReads::new(TokioIo::new(stream))))
        })
    }
}

/// A TCP connection to a host, or a tunnel to it.
#[derive(Clone)]
struct Dialer {
    tcp: HttpConnector<Names>,
    proxies: Arc<Matcher>,
}

/// A proxy did not open a tunnel.
#[derive(Debug, thiserror::Error)]
#[error("no tunnel through it")]
pub(super) struct ProxyError {
    /// Host and port, without credentials.
    pub(super) proxy: String,
    source: BoxError,
}

impl Dialer {
    fn proxy(&self, uri: &Uri) -> Option<Intercept> {
        let local = uri.host().is_none_or(is_loopback);
        (!local).then(|| self.proxies.intercept(uri)).flatten()
    }

    /// Through `proxy` to `uri`.
    fn tunnel(&self, proxy: &Intercept, uri: Uri) -> Connecting<Tcp> {
        let address = proxy.uri();
        let name = address.authority().map_or("", |a| a.as_str()).to_owned();
        let failed = move |source| ProxyError {
            proxy: name,
            source,
        };
        if address.scheme() != Some(&Scheme::HTTP) {
            let scheme = address.scheme_str().unwrap_or_default();
            let error = failed(format!("{scheme} proxies are not supported, only http").into());
            return Box::pin(async move { Err(error.into()) });
        }
        let mut tunnel = Tunnel::new(address.clone(), self.tcp.clone());
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let connecting = tunnel.call(uri);
        Box::pin(async move {
            let stream = connecting.await.map_err(|error| failed(error.into()))?;
            Ok(read_ahead(stream))
        })
    }
}

impl Service<Uri> for Dialer {
    type Response = Tcp;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if let Some(proxy) = self.proxy(&uri) {
            return self.tunnel(&proxy, uri);
        }
        let connecting = self.tcp.call(uri);
        Box::pin(async move { Ok(read_ahead(connecting.await?)) })
    }
}

fn read_ahead(stream: TokioIo<TcpStream>) -> Tcp {
    TokioIo::new(ReadAhead::new(stream.into_inner()))
}
