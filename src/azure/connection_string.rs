//! Connection strings of storage accounts ("Configure Azure Storage connection strings").

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use super::shared_key::SharedKey;
use crate::secret::Secret;

/// Account and key of the storage emulator, published in "Use the Azurite emulator for local Azure Storage development".
const DEVELOPMENT_ACCOUNT: &str = "devstoreaccount1";
const DEVELOPMENT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const DEVELOPMENT_ENDPOINT: &str = "http://127.0.0.1:10000/devstoreaccount1";
const DEFAULT_SUFFIX: &str = "core.windows.net";

/// A checked connection string: where the blobs of an account are, and what opens them.
#[derive(Clone, Debug)]
pub struct ConnectionString {
    account: String,
    blob_endpoint: Url,
    access: AccountAccess,
}

/// What opens an account.
#[derive(Clone, Debug)]
pub enum AccountAccess {
    /// The account key.
    Key(SharedKey),
    /// A shared access signature, without a leading `?`.
    Sas(Secret),
}

/// What is wrong with a connection string. Shows keys of the string, never its values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// A part without `=`.
    #[error("connection string: part {0} is not key=value")]
    NotAPair(usize),
    /// A key that is not known.
    #[error("connection string: unknown key {0}")]
    UnknownKey(String),
    /// A key that occurs twice.
    #[error("connection string: {0} is given twice")]
    Duplicate(String),
    /// A value that is needed and missing.
    #[error("connection string: {0} is missing")]
    Missing(&'static str),
    /// A value that cannot be right.
    #[error("connection string: {key} {problem}")]
    Invalid {
        /// Whose value.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

use ConnectionStringError as Problem;

/// The parts as written; keys of other services are accepted and not kept.
#[derive(Default)]
struct Parts<'a> {
    protocol: Option<&'a str>,
    account: Option<&'a str>,
    key: Option<&'a str>,
    suffix: Option<&'a str>,
    blob_endpoint: Option<&'a str>,
    sas: Option<&'a str>,
    development: Option<&'a str>,
    development_proxy: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, Problem> {
        let mut parts = Self::default();
        let pairs = text.split(';').map(str::trim).enumerate();
        for (index, pair) in pairs.filter(|(_, pair)| !pair.is_empty()) {
            // Values may contain "=": base64 ends in it.
            let (key, value) = pair.split_once('=').ok_or(Problem::NotAPair(index + 1))?;
            let key = key.trim();
            let slot = match key.to_ascii_lowercase().as_str() {
                "defaultendpointsprotocol" => &mut parts.protocol,
                "accountname" => &mut parts.account,
                "accountkey" => &mut parts.key,
                "endpointsuffix" => &mut parts.suffix,
                "blobendpoint" => &mut parts.blob_endpoint,
                "sharedaccesssignature" => &mut parts.sas,
                "usedevelopmentstorage" => &mut parts.development,
                "developmentstorageproxyuri" => &mut parts.development_proxy,
                "queueendpoint"
                | "tableendpoint"
                | "fileendpoint"
                | "blobsecondaryendpoint"
                | "queuesecondaryendpoint"
                | "tablesecondaryendpoint"
                | "filesecondaryendpoint" => {
                    continue;
                }
                _ => return Err(Problem::UnknownKey(printable(key))),
            };
            if slot.replace(value.trim()).is_some() {
                return Err(Problem::Duplicate(printable(key)));
            }
        }
        Ok(parts)
    }
}

impl ConnectionString {
    /// Reads and checks a connection string.
    ///
    /// # Errors
    ///
    /// What is wrong with it; no value of it is shown.
    pub fn parse(text: &str) -> Result<Self, ConnectionStringError> {
        let parts = Parts::split(text)?;
        if let Some(development) = parts.development {
            return Self::development(development, parts.development_proxy);
        }
        let access = match (parts.key, parts.sas) {
            (Some(key), _) => {
                let account = parts.account.ok_or(Problem::Missing("AccountName"))?;
                AccountAccess::Key(SharedKey::new(account, key).ok_or(Problem::Invalid {
                    key: "AccountKey",
                    problem: "is not base64",
                })?)
            }
            (None, Some(sas)) => AccountAccess::Sas(signature(sas)?),
            (None, None) => return Err(Problem::Missing("AccountKey")),
        };
        let blob_endpoint = match (parts.blob_endpoint, parts.account) {
            (Some(endpoint), _) => endpoint_url(endpoint)?,
            (None, Some(account)) => derived_endpoint(&parts, account)?,
            (None, None) => return Err(Problem::Missing("AccountName")),
        };
        let account = match parts.account {
            Some(account) => account.to_owned(),
            // Only a SAS comes without the name; it is not needed to use one.
            None => blob_endpoint
                .host_str()
                .and_then(|host| host.split('.').next())
                .unwrap_or_default()
                .to_owned(),
        };
        Ok(Self {
            account,
            blob_endpoint,
            access,
        })
    }

    fn development(flag: &str, proxy: Option<&str>) -> Result<Self, Problem> {
        if !flag.eq_ignore_ascii_case("true") {
            return Err(Problem::Invalid {
                key: "UseDevelopmentStorage",
                problem: "can only be true",
            });
        }
        let blob_endpoint = match proxy {
            Some(proxy) => {
                let base = proxy.trim_end_matches('/');
                endpoint_url(&format!("{base}:10000/{DEVELOPMENT_ACCOUNT}"))?
            }
            None => endpoint_url(DEVELOPMENT_ENDPOINT)?,
        };
        let key = SharedKey::new(DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY).ok_or(Problem::Invalid {
            key: "AccountKey",
            problem: "is not base64",
        })?;
        Ok(Self {
            account: DEVELOPMENT_ACCOUNT.to_owned(),
            blob_endpoint,
            access: AccountAccess::Key(key),
        })
    }

    /// Name of the storage account.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Base URL of the account's containers.
    #[must_use]
    pub fn blob_endpoint(&self) -> &Url {
        &self.blob_endpoint
    }

    /// What opens the account.
    #[must_use]
    pub fn access(&self) -> &AccountAccess {
        &self.access
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "storage account {}", self.account)
    }
}

fn derived_endpoint(parts: &Parts<'_>, account: &str) -> Result<Url, Problem> {
    let valid_name = (3..=24).contains(&account.len())
        && account
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !valid_name {
        return Err(Problem::Invalid {
            key: "AccountName",
            problem: "must have 3 to 24 lower-case letters and digits",
        });
    }
    let protocol = match parts.protocol.map(str::to_ascii_lowercase).as_deref() {
        None | Some("https") => "https",
        Some("http") => "http",
        Some(_) => {
            return Err(Problem::Invalid {
                key: "DefaultEndpointsProtocol",
                problem: "must be https or http",
            });
        }
    };
    let suffix = parts.suffix.unwrap_or(DEFAULT_SUFFIX);
    let valid_suffix = !suffix.is_empty()
        && suffix
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'));
    if !valid_suffix {
        return Err(Problem::Invalid {
            key: "EndpointSuffix",
            problem: "is not a host name",
        });
    }
    endpoint_url(&format!("{protocol}://{account}.blob.{suffix}"))
}

fn endpoint_url(text: &str) -> Result<Url, Problem> {
    let invalid = Problem::Invalid {
        key: "BlobEndpoint",
        problem: "is not an http or https URL of host and path alone",
    };
    match Url::parse(text) {
        Ok(url)
            if matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none() =>
        {
            Ok(url)
        }
        Ok(_) | Err(_) => Err(invalid),
    }
}

fn signature(sas: &str) -> Result<Secret, Problem> {
    let sas = sas.trim_start_matches('?');
    let signed = sas.split('&').any(|pair| {
        pair.strip_prefix("sig=")
            .is_some_and(|signature| !signature.is_empty())
    });
    if signed {
        Ok(Secret::new(sas.to_owned()))
    } else {
        Err(Problem::Invalid {
            key: "SharedAccessSignature",
            problem: "has no sig parameter",
        })
    }
}

/// A key as far as it is one: a misplaced value must not come out through an error.
fn printable(key: &str) -> String {
    let looks_like_a_key = key.len() <= 32 && key.bytes().all(|b| b.is_ascii_alphabetic());
    if looks_like_a_key {
        key.to_owned()
    } else {
        "(not shown)".to_owned()
    }
}

/// Decodes an account key.
pub(super) fn decode_key(key: &str) -> Option<Vec<u8>> {
    STANDARD.decode(key).ok().filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        ConnectionString::parse(text)
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn the_usual_form() {
        let parsed = ConnectionString::parse(
            "DefaultEndpointsProtocol=https;AccountName=prodstage;ACCOUNTKEY=ZXhhbXBsZQ==;EndpointSuffix=core.windows.net;",
        )
        .expect("valid");
        assert_eq!(parsed.account(), "prodstage");
        assert_eq!(
            parsed.blob_endpoint().as_str(),
            "https://prodstage.blob.core.windows.net/"
        );
        assert!(matches!(parsed.access(), AccountAccess::Key(_)));
        assert!(!format!("{parsed:?}").contains("ZXhhbXBsZQ"));
    }

    #[test]
    fn the_blob_endpoint_wins_and_the_suffix_has_a_default() {
        let parsed = ConnectionString::parse(
            "AccountName=abc;AccountKey=AA==;BlobEndpoint=https://b.example:8443/abc",
        )
        .expect("valid");
        assert_eq!(
            parsed.blob_endpoint().as_str(),
            "https://b.example:8443/abc"
        );
        let parsed = ConnectionString::parse("AccountName=abc;AccountKey=AA==").expect("valid");
        assert_eq!(
            parsed.blob_endpoint().host_str(),
            Some("abc.blob.core.windows.net")
        );
    }

    #[test]
    fn a_signature_serves_without_a_key() {
        let parsed = ConnectionString::parse(
            "BlobEndpoint=https://abc.blob.core.windows.net;SharedAccessSignature=?sv=1&sig=x%3D",
        )
        .expect("valid");
        assert_eq!(parsed.account(), "abc");
        assert!(
            matches!(parsed.access(), AccountAccess::Sas(sas) if sas.expose() == "sv=1&sig=x%3D")
        );
        assert!(!format!("{parsed:?}").contains("sig"));
    }

    #[test]
    fn the_development_account() {
        let parsed = ConnectionString::parse("UseDevelopmentStorage=true").expect("valid");
        assert_eq!(
            parsed.blob_endpoint().as_str(),
            "http://127.0.0.1:10000/devstoreaccount1"
        );
        assert_eq!(parsed.account(), "devstoreaccount1");
    }

    #[test]
    fn what_is_wrong_is_said_without_values() {
        for (text, expected) in [
            ("", "AccountKey is missing"),
            ("AccountName=abc", "AccountKey is missing"),
            ("AccountKey=AA==", "AccountName is missing"),
            ("SharedAccessSignature=sig=1", "AccountName is missing"),
            ("AccountName=abc;AccountKey=%%", "AccountKey is not base64"),
            ("AccountName=Abc;AccountKey=AA==", "AccountName must have"),
            (
                "AccountName=abc;AccountKey=AA==;AccountName=abc",
                "AccountName is given twice",
            ),
            ("AccountName=abc;AcountKey=AA==", "unknown key AcountKey"),
            ("AccountName=abc;c2VjcmV0Kw+/=x", "unknown key (not shown)"),
            ("AccountName=abc;oops", "part 2 is not key=value"),
            (
                "AccountName=abc;AccountKey=AA==;DefaultEndpointsProtocol=ftp",
                "https or http",
            ),
            (
                "AccountName=abc;AccountKey=AA==;EndpointSuffix=a/b",
                "is not a host name",
            ),
            (
                "BlobEndpoint=https://a.b/?x=1;SharedAccessSignature=sig=1",
                "BlobEndpoint is not",
            ),
            (
                "AccountName=abc;SharedAccessSignature=sv=1",
                "has no sig parameter",
            ),
            (
                "BlobEndpoint=https://:hunter2@a.b/;SharedAccessSignature=sig=1",
                "BlobEndpoint is not",
            ),
            (
                "BlobEndpoint=https://a.b/#sig=1;SharedAccessSignature=sig=1",
                "BlobEndpoint is not",
            ),
            ("UseDevelopmentStorage=false", "can only be true"),
        ] {
            let text = problem(text);
            assert!(text.contains(expected), "{text} / {expected}");
        }
    }
}
