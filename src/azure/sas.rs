//! A blob's address with the signature that opens it.

use std::fmt;

use http::{HeaderValue, Request, Uri};
use url::Url;

use super::{Error, ErrorKind};
use crate::secret::Secret;

const OPERATION: &str = "read SAS URL";

/// A SAS URL; prints only host and path.
///
/// The query is kept byte for byte: two forms of SAS exist for disks (one with its expiry, one with a stored policy),
/// and re-encoding either would break its signature.
#[derive(Clone)]
pub struct SasUrl {
    /// Scheme, host and path.
    location: Uri,
    /// The query, without `?`.
    query: Secret,
}

impl SasUrl {
    /// Takes a URL with a SAS query.
    ///
    /// # Errors
    ///
    /// Not an `http` or `https` URL with host, without user, and with a path, or no signature (`sig`) in its query.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |what: &str| Error::new(ErrorKind::Refused, OPERATION, &"", what);
        let (location, query) = text
            .trim()
            .split_once('?')
            .ok_or_else(|| refuse("the URL has no query, so no signature"))?;
        // Host and path are shown.
        if location.contains("sig=") {
            return Err(refuse("there is a signature (sig) before its query"));
        }
        // This parser takes any text for a port.
        let location: Uri = location
            .parse()
            .ok()
            .filter(|_uri| Url::parse(location).is_ok())
            .ok_or_else(|| refuse("it is not a URL"))?;
        if location
            .authority()
            .is_some_and(|place| place.as_str().contains('@'))
        {
            return Err(refuse("it has a user before its host"));
        }
        if !matches!(location.scheme_str(), Some("https" | "http")) {
            return Err(refuse("it is not an https URL"));
        }
        if location.path().trim_matches('/').is_empty() {
            return Err(refuse("the URL names no blob"));
        }
        let signed = query
            .split('&')
            .any(|pair| pair.strip_prefix("sig=").is_some_and(|s| !s.is_empty()));
        if !signed {
            return Err(refuse("the query of the URL has no signature (sig)"));
        }
        let url = Self {
            location,
            query: Secret::new(query.trim_end_matches('&').to_owned()),
        };
        // What follows puts it into requests: it must be possible.
        match url.with_query(None) {
            Some(_) => Ok(url),
            None => Err(refuse("its query has characters that a URL cannot have")),
        }
    }

    /// Scheme, host and path.
    pub(super) fn location(&self) -> &Uri {
        &self.location
    }

    /// Aims a request at this blob and adds the signature. Of the request's own address only the query remains.
    pub(super) fn apply<T>(&self, request: &mut Request<T>) -> Result<(), Error> {
        let address = self.with_query(request.uri().query()).ok_or_else(|| {
            Error::new(
                ErrorKind::Refused,
                "address blob",
                self,
                "the request does not fit behind its SAS",
            )
        })?;
        *request.uri_mut() = address;
        Ok(())
    }

    /// The complete URL as the value of a header, marked not to be printed.
    pub(super) fn to_header(&self) -> Result<HeaderValue, Error> {
        let mut value = HeaderValue::try_from(format!("{}?{}", self.location, self.query.expose()))
            .map_err(|_unusable| {
                Error::new(
                    ErrorKind::Refused,
                    "name blob",
                    self,
                    "it is not plain text",
                )
            })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn with_query(&self, more: Option<&str>) -> Option<Uri> {
        let signature = self.query.expose();
        match more {
            Some(more) => format!("{}?{signature}&{more}", self.location),
            None => format!("{}?{signature}", self.location),
        }
        .parse()
        .ok()
    }
}

impl fmt::Display for SasUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.location.authority().map_or("", |a| a.as_str());
        write!(f, "{host}{}", self.location.path())
    }
}

impl fmt::Debug for SasUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SasUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str =
        "https://md-x.z45.blob.storage.azure.net/rlz/abcd?sv=2018-03-28&sr=b&si=1-2&sig=a%2Fb%3D";

    #[test]
    fn prints_neither_query_nor_signature() {
        let sas = SasUrl::parse(URL).expect("valid");
        assert_eq!(sas.to_string(), "md-x.z45.blob.storage.azure.net/rlz/abcd");
        assert!(!format!("{sas:?}").contains("sv="));
        assert!(!format!("{:?}", sas.to_header().expect("text")).contains("sig"));
    }

    #[test]
    fn the_signature_goes_first_and_unchanged() {
        let sas = SasUrl::parse(URL).expect("valid");
        let mut request = Request::builder()
            .uri("https://elsewhere/x?comp=pagelist&marker=a%20b")
            .body(())
            .expect("valid");
        sas.apply(&mut request).expect("fits");
        assert_eq!(
            request.uri().to_string(),
            format!("{URL}&comp=pagelist&marker=a%20b")
        );
        assert_eq!(sas.to_header().expect("text").as_bytes(), URL.as_bytes());
    }

    #[test]
    fn other_texts_are_refused_without_quoting_them() {
        for text in [
            "",
            "https://host/c/b",
            "https://host/c/b?sv=1",
            "https://host/c/b?sv=1&sig=",
            "https://host/?sig=secret",
            "ftp://host/c/b?sig=secret",
            "host/c/b?sig=secret",
            "https://host:44(3/c/b?sig=secret",
            "https://user:sec@host/c/b?sig=secret",
            "https://host/c/b&sig=sec?sig=secret",
            "https://host/c/b?sig=sec ret",
        ] {
            let error = SasUrl::parse(text).expect_err(text).to_string();
            assert!(!error.contains("sec"), "{error}");
        }
    }
}
