//! Shared Key: requests signed with the key of a storage account ("Authorize with Shared Key", the form of versions
//! 2015-02-21 and later).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, StatusCode, Uri};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::connection_string::decode_key;
use super::outgoing::Credential;
use super::{Error, ErrorKind};
use crate::payload::Payload;

/// The standard headers that are signed by their value alone, in this order; `Content-Length` stands between.
const BEFORE_LENGTH: [&str; 2] = ["content-encoding", "content-language"];
const AFTER_LENGTH: [&str; 8] = [
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// A storage account and its key; prints no key.
#[derive(Clone)]
pub struct SharedKey {
    account: String,
    key: Zeroizing<Vec<u8>>,
}

impl SharedKey {
    /// `key` in base64; `None` if it is not that, or empty.
    #[must_use]
    pub fn new(account: &str, key: &str) -> Option<Self> {
        Some(Self {
            account: account.to_owned(),
            key: Zeroizing::new(decode_key(key)?),
        })
    }

    /// Dates the request at `now` and signs it. Nothing signed may change afterwards: method, address, headers, length of
    /// the body.
    ///
    /// # Errors
    ///
    /// What cannot be signed.
    pub fn sign(&self, request: &mut Request<Payload>, now: SystemTime) -> Result<(), SignError> {
        let date = HeaderValue::try_from(httpdate::fmt_http_date(now))
            .map_err(|_not_text| SignError::Date)?;
        request.headers_mut().insert("x-ms-date", date);
        let text = string_to_sign(request, &self.account).ok_or(SignError::NotText)?;
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).map_err(|_length| SignError::Key)?;
        mac.update(text.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let mut value = HeaderValue::try_from(format!("SharedKey {}:{signature}", self.account))
            .map_err(|_not_text| SignError::NotText)?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }
}

/// Why a request cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The time.
    #[error("the clock is beyond what a header can say")]
    Date,
    /// A header, or the account.
    #[error("a header or the account name is not plain text")]
    NotText,
    /// The key.
    #[error("the key cannot be used")]
    Key,
}

impl std::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedKey")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl Credential for SharedKey {
    fn authorize<'a>(
        &'a self,
        request: &'a mut Request<Payload>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(async {
            self.sign(request, SystemTime::now()).map_err(|error| {
                Error::new(
                    ErrorKind::Configuration,
                    "sign a request for storage account",
                    &self.account,
                    error.to_string(),
                )
            })?;
            Ok(0)
        })
    }

    fn is_refused(&self, _status: StatusCode) -> bool {
        false
    }

    fn renew(&self, _generation: u64) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async { Ok(false) })
    }
}

/// What is signed; `None` if a header is not text.
fn string_to_sign(request: &Request<Payload>, account: &str) -> Option<String> {
    let value = |name: &str| match request.headers().get(name) {
        Some(value) => value.to_str().ok(),
        None => Some(""),
    };
    let mut text = format!("{}\n", request.method());
    for name in BEFORE_LENGTH {
        writeln!(text, "{}", value(name)?).ok()?;
    }
    // An empty body is signed as an empty line, not as 0.
    match request.body().total() {
        0 => text.push('\n'),
        length => writeln!(text, "{length}").ok()?,
    }
    for name in AFTER_LENGTH {
        // x-ms-date, always sent, takes the place of Date.
        let value = if name == "date" { "" } else { value(name)? };
        writeln!(text, "{value}").ok()?;
    }
    push_canonical_headers(&mut text, request)?;
    push_canonical_resource(&mut text, request.uri(), account);
    Some(text)
}

fn push_canonical_headers(text: &mut String, request: &Request<Payload>) -> Option<()> {
    let mut headers = BTreeMap::new();
    for name in request.headers().keys() {
        if name.as_str().starts_with("x-ms-") {
            let values = request.headers().get_all(name).iter();
            let values: Vec<&str> = values
                .map(|value| value.to_str().map(str::trim).ok())
                .collect::<Option<_>>()?;
            headers.insert(sort_key(name.as_str()), (name, values.join(",")));
        }
    }
    for (name, value) in headers.values() {
        writeln!(text, "{name}:{value}").ok()?;
    }
    Some(())
}

/// By what the service sorts header names. It compares as people do, not by bytes: `-` does not count, and `_` stands
/// before digits and letters (the table in the signer of Azure's SDK for Python, 12.31). The name itself parts the rest.
fn sort_key(name: &str) -> (String, &str) {
    (name.replace('-', "").replace('_', " "), name)
}

/// `/account`, the path as sent, and the decoded query parameters by name.
fn push_canonical_resource(text: &mut String, uri: &Uri, account: &str) {
    text.push('/');
    text.push_str(account);
    text.push_str(uri.path());
    let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let query = uri.query().unwrap_or_default().as_bytes();
    for (name, value) in url::form_urlencoded::parse(query) {
        parameters
            .entry(name.to_lowercase())
            .or_default()
            .push(value.into_owned());
    }
    for (name, mut values) in parameters {
        values.sort_unstable();
        text.push('\n');
        text.push_str(&name);
        text.push(':');
        text.push_str(&values.join(","));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    /// Signs at Mon, 23 Nov 2026 09:10:11 GMT.
    fn signature(mut request: Request<Payload>) -> String {
        let key = SharedKey::new("devstoreaccount1", KEY).expect("base64");
        key.sign(
            &mut request,
            UNIX_EPOCH + Duration::from_secs(1_795_425_011),
        )
        .expect("signable");
        request.headers()[AUTHORIZATION]
            .to_str()
            .expect("text")
            .to_owned()
    }

    /// The expected values were computed with Python's hmac module over strings written by hand.
    #[test]
    fn signatures_of_known_requests() {
        let list = Request::get(
            "http://127.0.0.1:10000/devstoreaccount1/disks/os%20disk?marker=a%20b&comp=pagelist&maxresults=10000",
        )
        .header("x-ms-version", "2021-12-02")
        .body(Payload::default())
        .expect("valid");
        assert_eq!(
            signature(list),
            "SharedKey devstoreaccount1:KHn0V4PckHUk75gYsEemUnPqYna+XTcHZQJWYzXkqfY="
        );
        let write = Request::put("http://127.0.0.1:10000/devstoreaccount1/disks/b?comp=page")
            .header("x-ms-version", "2021-12-02")
            .header("x-ms-range", "bytes=0-511")
            .header("x-ms-page-write", "update")
            .header("content-type", "application/octet-stream")
            .header("content-length", "512")
            .body(Payload::from(vec![0; 512]))
            .expect("valid");
        assert_eq!(
            signature(write),
            "SharedKey devstoreaccount1:/6/axHeLuB31+/koWQBIMKKrDveOYnjhIdLhKrIqa0c="
        );
    }

    #[test]
    fn headers_are_sorted_as_the_service_does() {
        let names = [
            "x-ms-metaa",
            "x-ms-meta-a_b",
            "x-ms-meta-a1",
            "x-ms-meta-ab",
            "x-ms-meta-b",
        ];
        let request = names
            .iter()
            .rev()
            .fold(Request::get("/"), |request, &name| {
                request.header(name, "v")
            });
        let mut text = String::new();
        let request = request.body(Payload::default()).expect("valid");
        push_canonical_headers(&mut text, &request).expect("text");
        let expected =
            "x-ms-metaa:v\nx-ms-meta-a_b:v\nx-ms-meta-a1:v\nx-ms-meta-ab:v\nx-ms-meta-b:v\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_key_is_not_shown() {
        let key = SharedKey::new("a", KEY).expect("base64");
        assert_eq!(format!("{key:?}"), "SharedKey { account: \"a\", .. }");
        assert!(SharedKey::new("a", "").is_none());
    }
}
