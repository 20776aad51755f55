//! Names of hosts and their addresses: the one way in which names are resolved.
//!
//! An error keeps its name, so that whoever tells it can say which host it is about; whether it is tried again is decided
//! elsewhere, as for a connection that is refused.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use super::redact::clean;

/// Finds the addresses of a host. [`SystemResolver`] asks the system; tests decide themselves which names there are.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of `name`, best first; their ports mean nothing.
    ///
    /// # Errors
    ///
    /// Nobody knows the name, or nobody can be asked.
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver (`getaddrinfo`): `/etc/hosts`, DNS and what else it is configured to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    }
}

/// A resolver as hyper asks it.
#[derive(Clone, Debug)]
pub(super) struct Names(Arc<dyn Resolve>);

/// A name has no address.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub(super) struct ResolveError {
    pub(super) name: String,
    cause: String,
}

impl Names {
    pub(super) fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self(resolver)
    }
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = BoxFuture<'static, Result<Self::Response, ResolveError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolving = self.0.resolve(name.as_str());
        Box::pin(async move {
            let failed = |cause| ResolveError {
                name: name.as_str().to_owned(),
                cause,
            };
            match resolving.await {
                Ok(found) if found.is_empty() => Err(failed("nothing was found".into())),
                Ok(found) => Ok(found.into_iter()),
                Err(error) => Err(failed(clean(&error.to_string()))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use std::time::Duration;

    use http::{Method, Request};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio_util::sync::CancellationToken;

    use super::super::outgoing::{Anonymous, Outgoing};
    use super::super::retry::{RetryPolicy, Sender};
    use super::super::{Error, ErrorKind, Transport};
    use super::*;
    use crate::payload::Payload;

    const IMPATIENT: RetryPolicy = RetryPolicy {
        attempts: 5,
        first_contact_attempts: 3,
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(1),
        ..RetryPolicy::SHORT
    };

    /// Knows every name as this machine's, but for the next so many questions.
    #[derive(Debug, Default)]
    struct Moody {
        failures: AtomicU32,
    }

    impl Resolve for Moody {
        fn resolve(&self, _name: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            let fails = self
                .failures
                .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
                .is_ok();
            Box::pin(async move {
                match fails {
                    true => Err(io::Error::other("failure in name resolution")),
                    false => Ok(vec![([127, 0, 0, 1], 0).into()]),
                }
            })
        }
    }

    /// The port of a server that answers one request per connection.
    async fn served() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                let reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
                drop(stream.write_all(reply).await);
            }
        });
        port
    }

    struct Client {
        sender: Sender,
        names: Arc<Moody>,
    }

    impl Client {
        fn new() -> Self {
            let names = Arc::new(Moody::default());
            let transport = Transport::resolving(None, true, 1, names.clone()).unwrap();
            let cancel = CancellationToken::new();
            let sender = Sender::new(Arc::new(transport), IMPATIENT, cancel);
            Self { sender, names }
        }

        /// Attempts until the answer came, with so many failures of the resolver at first.
        async fn get(&self, failures: u32, method: Method, port: u16) -> Result<u32, Error> {
            self.names.failures.store(failures, SeqCst);
            let mut request = Request::new(Payload::default());
            *request.method_mut() = method;
            *request.uri_mut() = format!("http://localhost:{port}/x").parse().unwrap();
            let outgoing = Outgoing::new("read thing", &"t-1", request, &[200], &Anonymous);
            self.sender
                .send(outgoing)
                .await
                .map(|received| received.attempts)
        }
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_named_and_tried_again_like_a_refused_connection() {
        let client = Client::new();
        let port = served().await;
        // Nobody listens there.
        let closed = TcpSocket::new_v4().unwrap();
        closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let nobody = closed.local_addr().unwrap().port();

        // From the start, and for good.
        let refused = client.get(0, Method::GET, nobody).await.unwrap_err();
        let unknown = client.get(u32::MAX, Method::GET, port).await.unwrap_err();
        for error in [&refused, &unknown] {
            assert_eq!((error.kind(), error.attempts()), (ErrorKind::Network, 3));
        }
        assert!(refused.to_string().contains("refused"), "{refused}");
        let text = unknown.to_string();
        let expected =
            "the name localhost has no address: failure in name resolution; check the name and DNS";
        assert!(text.contains(expected), "{text}");

        // Once, also where an answer that is lost would be final: nothing was sent.
        assert_eq!(client.get(1, Method::POST, port).await.unwrap(), 2);

        // In the midst of a job, when the host is known to be there.
        let error = client.get(u32::MAX, Method::GET, port).await.unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Network, 5));
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(client.get(4, Method::GET, port).await.unwrap(), 5);
    }

    #[tokio::test]
    async fn no_addresses_are_no_address() {
        #[derive(Debug)]
        struct Empty;
        impl Resolve for Empty {
            fn resolve(&self, _name: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
                Box::pin(async { Ok(Vec::new()) })
            }
        }
        let mut names = Names::new(Arc::new(Empty));
        let error = names.call("host.example".parse().unwrap()).await;
        let error = error.map(|_| ()).unwrap_err();
        assert_eq!(error.name, "host.example");
        assert_eq!(error.to_string(), "nothing was found");
    }
}
