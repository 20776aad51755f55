//! Where a request goes, and what went wrong on the way there, in words that say what to check.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};

use super::connector::{CONNECT_TIMEOUT, ConnectTimeout, ProxyError};
use super::endpoints::is_loopback;
use super::exchange::{TransportError, TransportErrorKind};
use super::outgoing_body::Unreadable;
use super::redact::clean;
use super::resolver::ResolveError;
use super::transport::Transport;

/// Where one request goes, for its errors.
pub(super) struct Place<'a> {
    transport: &'a Transport,
    pub(super) authority: Authority,
}

impl<'a> Place<'a> {
    /// # Errors
    ///
    /// The address is not one that may be asked.
    pub(super) fn of(uri: &Uri, transport: &'a Transport) -> Result<Self, TransportError> {
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

    fn error(&self, kind: TransportErrorKind, text: String) -> TransportError {
        TransportError {
            kind,
            text,
            host_known: self.transport.knows(&self.authority),
        }
    }

    /// The connection ended in the middle of a body.
    pub(super) fn broken(&self, error: &hyper::Error) -> TransportError {
        self.error(
            TransportErrorKind::Broken,
            format!(
                "the connection to {} broke before the answer was complete: {}",
                self.authority,
                innermost(error)
            ),
        )
    }

    pub(super) fn timed_out(&self, what: &str, limit: Duration) -> TransportError {
        self.error(
            TransportErrorKind::Timeout,
            format!(
                "{what} from {} within {} s",
                self.authority,
                limit.as_secs()
            ),
        )
    }

    pub(super) fn too_long(&self, actual: u64, limit: u64) -> TransportError {
        self.error(
            TransportErrorKind::TooLong,
            format!(
                "the answer of {} has {actual} bytes or more where at most {limit} were asked for",
                self.authority
            ),
        )
    }

    /// A request that has no answer.
    pub(super) fn classify(&self, error: &hyper_util::client::legacy::Error) -> TransportError {
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
        if let Some(unreadable) = find::<Unreadable>(error) {
            return self.error(TransportErrorKind::Unreadable, unreadable.to_string());
        }
        if let Some(unknown) = find::<ResolveError>(error) {
            return self.error(
                UnknownHost,
                format!(
                    "the name {} has no address: {unknown}; check the name and DNS",
                    unknown.name
                ),
            );
        }
        if error.is_connect() {
            let text = if find::<ConnectTimeout>(error).is_some() {
                format!(
                    "no connection to {at} within {} s; check endpoint, routing and firewall",
                    CONNECT_TIMEOUT.as_secs()
                )
            } else if let Some(ProxyError { proxy, .. }) = find(error) {
                format!(
                    "no connection to {at} through proxy {proxy}: {}",
                    innermost(error)
                )
            } else {
                format!(
                    "no connection to {at}: {}; check endpoint, routing and firewall",
                    innermost(error)
                )
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
