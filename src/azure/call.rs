//! What the generated request builders are made of: an operation, and one request for it.
//!
//! Nothing here sends anything. ARM requests are put together from an endpoint and a path; blob requests keep the
//! address they are given byte for byte, since its query carries a signature, and append to it.

use std::fmt::{self, Display};

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Uri, request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use url::Url;

use crate::payload::Payload;
use crate::range::ByteRange;

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An operation of a REST interface.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its published name, e.g. `Disks_GrantAccess`.
    pub id: &'static str,
    /// Statuses of an accepted request; any other is an error.
    pub success: &'static [u16],
    /// Whether the answer may be only the beginning: then its headers say where to ask for the end.
    pub long_running: bool,
}

/// One request for an operation, without credentials. `Debug` shows neither query nor headers nor body, since any of
/// them may hold a signature.
pub struct Call {
    /// What is asked for.
    pub operation: &'static Operation,
    /// The request.
    pub request: Request<Payload>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("operation", &self.operation.id)
            .field("method", self.request.method())
            .field("host", &self.request.uri().host())
            .field("path", &self.request.uri().path())
            .finish_non_exhaustive()
    }
}

/// A request that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A name that would change the path instead of standing in it.
    #[error("build request {operation}: {parameter} is empty, `.` or `..`")]
    PathParameter {
        /// What was asked for.
        operation: &'static str,
        /// The parameter.
        parameter: &'static str,
    },
    /// Something that HTTP cannot carry.
    #[error("build request {operation}")]
    Http {
        /// What was asked for.
        operation: &'static str,
        /// What is wrong.
        source: http::Error,
    },
    /// A body that JSON cannot carry.
    #[error("build request {operation}")]
    Json {
        /// What was asked for.
        operation: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Puts a [`Call`] together; the first mistake is reported at the end. Not `Debug`: the address may be signed.
pub(super) struct CallBuilder {
    operation: &'static Operation,
    request: request::Builder,
    method: Method,
    address: String,
    body: Payload,
    error: Option<BuildError>,
}

impl CallBuilder {
    /// A request to Azure Resource Manager. Query and fragment of `endpoint` are left out, its path is kept.
    pub(super) fn arm(operation: &'static Operation, method: Method, endpoint: &Url) -> Self {
        let mut endpoint = endpoint.clone();
        endpoint.set_query(None);
        endpoint.set_fragment(None);
        let mut builder = Self::new(
            operation,
            method,
            endpoint.as_str().trim_end_matches('/').to_owned(),
        );
        builder.request = builder.request.header(ACCEPT, "application/json");
        builder
    }

    /// A request to a blob at its complete address, which is kept as it is.
    pub(super) fn blob(operation: &'static Operation, method: Method, blob: &Uri) -> Self {
        Self::new(operation, method, blob.to_string())
    }

    fn new(operation: &'static Operation, method: Method, address: String) -> Self {
        Self {
            operation,
            request: Request::builder(),
            method,
            address,
            body: Payload::default(),
            error: None,
        }
    }

    /// A literal part of the path.
    pub(super) fn path(mut self, literal: &'static str) -> Self {
        self.address.push_str(literal);
        self
    }

    /// A name that stands for one whole segment of the path.
    pub(super) fn segment(mut self, parameter: &'static str, value: &str) -> Self {
        if matches!(value, "" | "." | "..") {
            let operation = self.operation.id;
            self.error.get_or_insert(BuildError::PathParameter {
                operation,
                parameter,
            });
        }
        self.address.extend(utf8_percent_encode(value, RESERVED));
        self
    }

    /// A parameter of the query, if there is a value. Names are literals and stay as they are.
    pub(super) fn query(mut self, name: &'static str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            let separator = match self.address.split_once('?') {
                None => "?",
                Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
                Some(_) => "&",
            };
            self.address.push_str(separator);
            self.address.push_str(name);
            self.address.push('=');
            self.address
                .extend(utf8_percent_encode(&value.to_string(), RESERVED));
        }
        self
    }

    /// A header, if there is a value.
    pub(super) fn header(mut self, name: &'static str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            self.request = self.request.header(name, value.to_string());
        }
        self
    }

    /// A range in the inclusive form of the wire, if there is one.
    pub(super) fn range_header(mut self, name: &'static str, range: Option<ByteRange>) -> Self {
        if let Some(range) = range {
            self.request = self
                .request
                .header(name, format!("bytes={}-{}", range.start(), range.last()));
        }
        self
    }

    /// An address with a signature, kept as it is and marked not to be printed.
    pub(super) fn secret_header(mut self, name: &'static str, value: Option<&Uri>) -> Self {
        if let Some(value) = value {
            match HeaderValue::try_from(value.to_string()) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    self.request = self.request.header(HeaderName::from_static(name), value);
                }
                Err(error) => {
                    let operation = self.operation.id;
                    self.error.get_or_insert(BuildError::Http {
                        operation,
                        source: error.into(),
                    });
                }
            }
        }
        self
    }

    /// A body of JSON.
    pub(super) fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(text) => self.body = text.into(),
            Err(source) => {
                let operation = self.operation.id;
                self.error
                    .get_or_insert(BuildError::Json { operation, source });
            }
        }
        self.request = self.request.header(CONTENT_TYPE, "application/json");
        self
    }

    /// A body of bytes as they are.
    pub(super) fn bytes(mut self, body: Payload) -> Self {
        self.body = body;
        self.request = self
            .request
            .header(CONTENT_TYPE, "application/octet-stream");
        self
    }

    /// The finished call, or the first mistake.
    pub(super) fn build(self) -> Result<Call, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        // hyper leaves the length out where a body is empty; Azure refuses such a request (411).
        let with_length = matches!(self.method, Method::PUT | Method::POST | Method::PATCH);
        let mut request = self.request.method(self.method).uri(self.address);
        if with_length {
            request = request.header(CONTENT_LENGTH, self.body.total());
        }
        match request.body(self.body) {
            Ok(request) => Ok(Call {
                operation: self.operation,
                request,
            }),
            Err(source) => Err(BuildError::Http {
                operation: self.operation.id,
                source,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::azure::generated::{ApiVersions, blob, compute, disks, network, subscriptions};

    const SAS: &str = "https://md-x.z01.blob.storage.azure.net/c/abcd?sv=2018-03-28&sr=b&si=1-2&sig=a%2Bb%2fc+d'e%3D";

    fn arm() -> Url {
        Url::parse("https://management.azure.com/").unwrap()
    }

    fn sas() -> Uri {
        SAS.parse().unwrap()
    }

    fn header<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
        call.request
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap())
    }

    #[test]
    fn arm_requests_have_path_version_and_accept() {
        let versions = ApiVersions::default();
        let call = compute::virtual_machines_get(
            &arm(),
            &versions,
            "s",
            "RG",
            "web",
            Some("instanceView"),
        )
        .unwrap();
        assert_eq!(call.request.method(), Method::GET);
        assert_eq!(
            call.request.uri().to_string(),
            "https://management.azure.com/subscriptions/s/resourceGroups/RG/providers/Microsoft.Compute\
             /virtualMachines/web?api-version=2024-11-01&$expand=instanceView"
        );
        assert_eq!(header(&call, "accept"), Some("application/json"));
        assert_eq!(header(&call, "content-length"), None);
        assert_eq!(call.operation.success, [200]);
        assert!(!call.operation.long_running);
    }

    #[test]
    fn versions_are_replaceable_one_by_one() {
        let versions = ApiVersions {
            disks: "2022-03-02".into(),
            ..ApiVersions::default()
        };
        let endpoint = Url::parse("http://127.0.0.1:8080/arm/?x=y#z").unwrap();
        assert_eq!(
            disks::snapshots_list(&endpoint, &versions, "s")
                .unwrap()
                .request
                .uri()
                .to_string(),
            "http://127.0.0.1:8080/arm/subscriptions/s/providers/Microsoft.Compute/snapshots?api-version=2022-03-02"
        );
        assert_eq!(
            subscriptions::subscriptions_get(&endpoint, &versions, "s")
                .unwrap()
                .request
                .uri()
                .query(),
            Some("api-version=2022-12-01")
        );
    }

    #[test]
    fn names_stay_one_segment() {
        let versions = ApiVersions::default();
        let call = disks::disks_delete(&arm(), &versions, "s", "ä (1)", "a/b?c#d%2f").unwrap();
        assert_eq!(
            call.request.uri().path(),
            "/subscriptions/s/resourceGroups/%C3%A4%20%281%29/providers/Microsoft.Compute/disks/a%2Fb%3Fc%23d%252f"
        );
        for name in ["", ".", ".."] {
            let error = disks::disks_delete(&arm(), &versions, "s", name, "d").unwrap_err();
            assert_eq!(
                error.to_string(),
                "build request Disks_Delete: resourceGroupName is empty, `.` or `..`"
            );
        }
    }

    #[test]
    fn too_long_an_address_is_an_error() {
        let name = "x".repeat(70_000);
        let error = disks::disks_get(&arm(), &ApiVersions::default(), "s", "g", &name).unwrap_err();
        assert!(
            matches!(
                error,
                BuildError::Http {
                    operation: "Disks_Get",
                    ..
                }
            ),
            "{error:?}"
        );
    }

    #[test]
    fn bodies_are_json_with_their_length() {
        let versions = ApiVersions::default();
        let nic: network::NetworkInterface =
            serde_json::from_value(json!({"location": "l", "new": [1]})).unwrap();
        let call =
            network::network_interfaces_create_or_update(&arm(), &versions, "s", "g", "n", &nic)
                .unwrap();
        assert_eq!(call.request.method(), Method::PUT);
        let body = call.request.body().whole().unwrap();
        assert_eq!(body, r#"{"location":"l","new":[1]}"#);
        assert_eq!(header(&call, "content-type"), Some("application/json"));
        assert_eq!(header(&call, "content-length"), Some("26"));
        assert!(call.operation.long_running);

        let call = disks::snapshots_revoke_access(&arm(), &versions, "s", "g", "n").unwrap();
        assert_eq!(call.request.method(), Method::POST);
        assert!(
            call.request
                .uri()
                .path()
                .ends_with("/snapshots/n/endGetAccess")
        );
        assert_eq!(header(&call, "content-length"), Some("0"));
        assert_eq!(header(&call, "content-type"), None);
    }

    #[test]
    fn a_vm_can_be_created_only_where_there_is_none() {
        let versions = ApiVersions::default();
        let vm = compute::VirtualMachine::default();
        let create = |condition| {
            compute::virtual_machines_create_or_update(
                &arm(),
                &versions,
                "s",
                "g",
                "v",
                condition,
                &vm,
            )
            .unwrap()
        };
        assert_eq!(header(&create(Some("*")), "if-none-match"), Some("*"));
        assert_eq!(header(&create(None), "if-none-match"), None);
    }

    #[test]
    fn blob_requests_keep_the_signed_query() {
        let versions = ApiVersions::default();
        let call = blob::blob_get_properties(&sas(), &versions).unwrap();
        assert_eq!(call.request.method(), Method::HEAD);
        assert_eq!(call.request.uri().to_string(), SAS);
        assert_eq!(header(&call, "x-ms-version"), Some("2025-11-05"));

        let range = ByteRange::new(4096, 8192).unwrap();
        let call = blob::blob_download(&sas(), &versions, range).unwrap();
        assert_eq!(call.request.uri().to_string(), SAS);
        assert_eq!(header(&call, "x-ms-range"), Some("bytes=4096-8191"));

        let call = blob::page_blob_get_page_ranges(
            &sas(),
            &versions,
            Some(range),
            Some("2!8&="),
            Some(100),
        )
        .unwrap();
        assert_eq!(
            call.request.uri().to_string(),
            format!("{SAS}&comp=pagelist&marker=2%218%26%3D&maxresults=100")
        );
        assert_eq!(header(&call, "x-ms-range"), Some("bytes=4096-8191"));
    }

    #[test]
    fn an_address_without_a_query_gets_one() {
        for (address, expected) in [
            (
                "http://127.0.0.1:1/c/b",
                "http://127.0.0.1:1/c/b?comp=pagelist",
            ),
            (
                "http://127.0.0.1:1/c/b?",
                "http://127.0.0.1:1/c/b?comp=pagelist",
            ),
            (
                "http://127.0.0.1:1/c/b?a=1&",
                "http://127.0.0.1:1/c/b?a=1&comp=pagelist",
            ),
        ] {
            let address: Uri = address.parse().unwrap();
            let versions = ApiVersions::default();
            let call =
                blob::page_blob_get_page_ranges(&address, &versions, None, None, None).unwrap();
            assert_eq!(call.request.uri().to_string(), expected);
        }
    }

    #[test]
    fn page_writes_say_what_they_do() {
        let versions = ApiVersions::default();
        let range = ByteRange::new(512, 1536).unwrap();
        let data = bytes::Bytes::from(vec![7; 1024]);
        let call =
            blob::page_blob_upload_pages(&sas(), &versions, range, data.clone().into()).unwrap();
        assert_eq!(call.request.method(), Method::PUT);
        assert_eq!(call.request.uri().to_string(), format!("{SAS}&comp=page"));
        assert_eq!(header(&call, "x-ms-page-write"), Some("update"));
        assert_eq!(header(&call, "x-ms-range"), Some("bytes=512-1535"));
        assert_eq!(header(&call, "content-length"), Some("1024"));
        assert_eq!(call.request.body().whole(), Some(&data));

        let call = blob::page_blob_clear_pages(&sas(), &versions, range).unwrap();
        assert_eq!(header(&call, "x-ms-page-write"), Some("clear"));
        assert_eq!(header(&call, "content-length"), Some("0"));
    }

    #[test]
    fn a_diff_names_its_base_and_shows_no_signature() {
        let base: Uri = SAS.replace("abcd", "base").parse().unwrap();
        let call = blob::page_blob_get_page_ranges_diff(
            &sas(),
            &ApiVersions::default(),
            &base,
            None,
            None,
            None,
        )
        .unwrap();
        let value = &call.request.headers()["x-ms-previous-snapshot-url"];
        assert_eq!(value, SAS.replace("abcd", "base").as_str());
        assert!(value.is_sensitive());
        assert_eq!(
            call.request.uri().to_string(),
            format!("{SAS}&comp=pagelist")
        );
        assert_eq!(
            format!("{call:?}"),
            r#"Call { operation: "PageBlob_GetPageRangesDiff", method: GET, host: Some("md-x.z01.blob.storage.azure.net"), path: "/c/abcd", .. }"#
        );
    }
}
