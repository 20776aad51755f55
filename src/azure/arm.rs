//! Requests to Azure Resource Manager: the bearer token, the endpoint, and JSON in both directions.
//!
//! Resources are kept as the JSON that Azure sent, in its order, members unknown to this version included: a
//! configuration that is saved must be complete. [`operation`](super::operation) waits for what takes longer.

use std::fmt::Display;

use http::{Method, Request, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::call::{BuildError, Call};
use super::error::{Defect, Failure};
use super::exchange::Answer;
use super::outgoing::{Outgoing, Received};
use super::pages::Pages;
use super::token::Bearer;
use super::{Azure, Error, ErrorKind};
use crate::payload::Payload;

/// What is being done to what, for messages.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// Verb and object: `create snapshot`.
    pub(super) operation: &'static str,
    /// Which one.
    pub(super) resource: &'a (dyn Display + Send + Sync),
}

impl<'a> Subject<'a> {
    pub(super) fn new(operation: &'static str, resource: &'a (dyn Display + Send + Sync)) -> Self {
        Self {
            operation,
            resource,
        }
    }

    pub(super) fn invalid(&self, text: impl Into<String>) -> Error {
        Error::invalid_answer(
            self.operation,
            self.resource,
            Defect::Malformed(text.into()),
        )
    }

    /// A request that cannot be built: a name that is none.
    pub(super) fn unbuildable(&self, error: &BuildError) -> Error {
        Failure::new(
            ErrorKind::Refused,
            self.operation,
            self.resource,
            error.to_string(),
        )
        .into()
    }

    /// JSON that a model does not fit. The cause is left out where it could quote a secret.
    pub(super) fn decode<T: DeserializeOwned>(&self, value: Value) -> Result<T, Error> {
        serde_json::from_value(value)
            .map_err(|_quotes_values| self.invalid("the answer does not have the documented form"))
    }

    /// A body as its model; unknown members go along.
    pub(super) fn encode<T: DeserializeOwned + Serialize>(&self, body: &Value) -> Result<T, Error> {
        T::deserialize(body).map_err(|error| {
            Error::new(
                ErrorKind::Refused,
                self.operation,
                self.resource,
                format!("its description is not one of such a resource: {error}"),
            )
        })
    }

    /// The body of an answer as JSON; `Null` if there is none.
    pub(super) fn json(&self, answer: &Answer) -> Result<Value, Error> {
        let body = answer.contiguous();
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|error| {
            self.invalid(format!(
                "the answer of {} bytes is not JSON (line {}, column {})",
                body.len(),
                error.line(),
                error.column()
            ))
        })
    }
}

impl Azure {
    pub(super) fn endpoint(&self) -> &Url {
        &self.shared.config.endpoints.arm
    }

    fn bearer(&self) -> Bearer<'_> {
        Bearer {
            cache: &self.shared.tokens,
            sender: &self.sender,
        }
    }

    /// Sends a call with the token. POST and PATCH calls count as repeatable: all of this layer's are (granting and
    /// revoking access, changing tags).
    pub(super) async fn send(
        &self,
        subject: Subject<'_>,
        call: Result<Call, BuildError>,
    ) -> Result<Received, Error> {
        let call = call.map_err(|error| subject.unbuildable(&error))?;
        self.send_request(subject, call.request, call.operation.success, false)
            .await
    }

    pub(super) async fn send_request(
        &self,
        subject: Subject<'_>,
        request: Request<Payload>,
        success: &[u16],
        awaits_existence: bool,
    ) -> Result<Received, Error> {
        let bearer = self.bearer();
        let outgoing = Outgoing {
            repeatable: true,
            awaits_existence,
            ..Outgoing::new(
                subject.operation,
                subject.resource,
                request,
                success,
                &bearer,
            )
        };
        self.sender.send(outgoing).await
    }

    /// Requests an address that an answer named, as it is.
    pub(super) async fn follow(
        &self,
        subject: Subject<'_>,
        address: &Uri,
        success: &[u16],
        awaits_existence: bool,
    ) -> Result<Answer, Error> {
        let mut request = Request::new(Payload::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = address.clone();
        let received = self
            .send_request(subject, request, success, awaits_existence)
            .await?;
        Ok(received.answer)
    }

    /// Reads a resource.
    pub(super) async fn read(
        &self,
        subject: Subject<'_>,
        call: Result<Call, BuildError>,
    ) -> Result<Value, Error> {
        let answer = self.send(subject, call).await?.answer;
        let value = subject.json(&answer)?;
        if value.is_object() {
            Ok(value)
        } else {
            Err(subject.invalid("the answer is not a JSON object"))
        }
    }

    /// Reads all pages of a list. Fails rather than return an incomplete one.
    pub(super) async fn list(
        &self,
        subject: Subject<'_>,
        call: Result<Call, BuildError>,
    ) -> Result<Vec<Value>, Error> {
        let mut answer = self.send(subject, call).await?.answer;
        let mut items = Vec::new();
        let mut pages = Pages::default();
        loop {
            let mut page: Value = subject.json(&answer)?;
            match page.get_mut("value").map(Value::take) {
                Some(Value::Array(mut values)) => items.append(&mut values),
                Some(_) | None => return Err(subject.invalid("the list has no `value`")),
            }
            let next = match page.get("nextLink") {
                None | Some(Value::Null) => return Ok(items),
                Some(Value::String(link)) if link.is_empty() => return Ok(items),
                Some(Value::String(link)) => link,
                Some(_) => return Err(subject.invalid("`nextLink` is not a text")),
            };
            let address = self.own_address(subject, next)?;
            pages
                .go_on(&answer, next)
                .map_err(|problem| subject.invalid(problem))?;
            answer = self.follow(subject, &address, &[200], false).await?;
        }
    }

    /// As the function of this name.
    pub(super) fn own_address(&self, subject: Subject<'_>, text: &str) -> Result<Uri, Error> {
        own_address(self.endpoint(), subject, text)
    }
}

/// An address that an answer named: it gets the token, so it must be of the configured endpoint. Kept byte for
/// byte, since such addresses are signed.
pub(super) fn own_address(endpoint: &Url, subject: Subject<'_>, text: &str) -> Result<Uri, Error> {
    let absolute = if text.starts_with('/') {
        format!("{}{text}", endpoint.origin().ascii_serialization())
    } else {
        text.to_owned()
    };
    let address: Uri = absolute
        .parse()
        .map_err(|_not_an_address| subject.invalid("the answer names no usable address"))?;
    // Host and port are compared as they stand there: of "host:44(3" two parsers make two things.
    let place = address.authority().map_or("no host", |a| a.as_str());
    let is_own = endpoint
        .host_str()
        .zip(endpoint.port_or_known_default())
        .is_some_and(|(host, port)| {
            place.eq_ignore_ascii_case(&format!("{host}:{port}"))
                || (endpoint.port().is_none() && place.eq_ignore_ascii_case(host))
        });
    if is_own && address.scheme_str() == Some(endpoint.scheme()) {
        Ok(address)
    } else {
        let (_user, place) = place.rsplit_once('@').unwrap_or(("", place));
        Err(subject.invalid(format!(
            "the answer leads away from {endpoint} to {place}, which gets no token"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_known_in_each_form() {
        for (endpoint, texts) in [
            (
                "https://management.azure.com/",
                &[
                    "https://management.azure.com/x?y=Z",
                    "https://MANAGEMENT.azure.com:443/x?y=Z",
                    "/x?y=Z",
                ][..],
            ),
            (
                "https://localhost:8443/",
                &["https://localhost:8443/x?y=Z", "/x?y=Z"],
            ),
            ("http://[::1]:8080/", &["http://[::1]:8080/x?y=Z", "/x?y=Z"]),
        ] {
            let endpoint = Url::parse(endpoint).expect("an address");
            for text in texts {
                let subject = Subject::new("read", &endpoint);
                let address = own_address(&endpoint, subject, text).expect("its own");
                assert_eq!(address.path_and_query().map(|p| p.as_str()), Some("/x?y=Z"));
            }
        }
        let endpoint = Url::parse("https://localhost:8443/").expect("an address");
        for text in ["https://localhost/x", "https://a:secret@other:8443/x"] {
            let subject = Subject::new("read", &endpoint);
            let error = own_address(&endpoint, subject, text).expect_err("another");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
