//! A container of an ordinary storage account, reached by the key or the signature of a connection string.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Uri;
use url::Url;

use super::arm::Subject;
use super::blob_credential::BlobCredential;
use super::call::{BuildError, Call};
use super::connection_string::{AccountAccess, ConnectionString};
use super::exchange::Answer;
use super::generated::{ApiVersions, blob};
use super::outgoing::Outgoing;
use super::pages::Pages;
use super::retry::Sender;
use super::{Azure, Error, ErrorKind, PageBlob, SasUrl, xml};

/// A container. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Container {
    sender: Sender,
    versions: Arc<ApiVersions>,
    account: ConnectionString,
    name: String,
    credential: Arc<BlobCredential>,
}

/// A blob as a list shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedBlob {
    /// Its name in the container.
    pub name: String,
    /// Name and value of its metadata, as the service wrote them.
    pub metadata: Vec<(String, String)>,
}

impl ListedBlob {
    /// A value of its metadata; names differ in more than case.
    #[must_use]
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl Azure {
    /// A container of a storage account, over the connections of this client; it need not exist.
    ///
    /// # Errors
    ///
    /// A name that does not fit into a URL.
    pub fn container(&self, account: &ConnectionString, name: &str) -> Result<Container, Error> {
        let credential = credential(account, name, None)?;
        Ok(Container {
            sender: self.sender.clone(),
            versions: Arc::clone(&self.versions),
            account: account.clone(),
            name: name.to_owned(),
            credential: Arc::new(credential),
        })
    }
}

impl Container {
    /// A page blob of this container; it need not exist.
    ///
    /// # Errors
    ///
    /// A name that does not fit into a URL.
    pub fn blob(&self, name: &str) -> Result<PageBlob, Error> {
        let credential = credential(&self.account, &self.name, Some(name))?;
        Ok(PageBlob::new(
            self.sender.clone(),
            Arc::clone(&self.versions),
            credential,
        ))
    }

    /// Makes the container, unless it is there.
    ///
    /// # Errors
    ///
    /// The service's refusal.
    pub async fn ensure(&self) -> Result<(), Error> {
        let call = blob::container_create(&self.credential.location(), &self.versions);
        match self.send(self.subject("create container"), call).await {
            Err(error) if error.code() == Some("ContainerAlreadyExists") => Ok(()),
            // A signature may open a container without being allowed to make one: whether it is there, a list tells.
            Err(error)
                if error.kind() == ErrorKind::Forbidden
                    && matches!(self.account.access(), AccountAccess::Sas(_)) =>
            {
                match self.list("").await {
                    Ok(_listed) => Ok(()),
                    Err(_also_refused) => Err(error),
                }
            }
            other => other.map(|_answer| ()),
        }
    }

    /// The blobs whose names begin with `prefix`, all pages, with their metadata.
    ///
    /// # Errors
    ///
    /// The service's refusal; a list that cannot be understood.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ListedBlob>, Error> {
        let subject = self.subject("list blobs of container");
        let mut all = Vec::new();
        let mut marker: Option<String> = None;
        let mut pages = Pages::default();
        loop {
            let call = blob::container_list_blob_flat_segment(
                &self.credential.location(),
                &self.versions,
                Some(prefix),
                marker.as_deref(),
            );
            let answer = self.send(subject, call).await?;
            let (mut blobs, next) =
                parse_list(&answer.body).map_err(|problem| subject.invalid(problem))?;
            all.append(&mut blobs);
            let Some(next) = next else {
                return Ok(all);
            };
            pages
                .go_on(&answer, &next)
                .map_err(|problem| subject.invalid(problem))?;
            marker = Some(next);
        }
    }

    fn subject(&self, operation: &'static str) -> Subject<'_> {
        Subject::new(operation, self)
    }

    async fn send(
        &self,
        subject: Subject<'_>,
        call: Result<Call, BuildError>,
    ) -> Result<Answer, Error> {
        let call = call.map_err(|error| subject.unbuildable(&error))?;
        let outgoing = Outgoing::new(
            subject.operation,
            subject.resource,
            call.request,
            call.operation.success,
            &*self.credential,
        );
        Ok(self.sender.send(outgoing).await?.answer)
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.account)
    }
}

/// What opens a container, or a blob in it.
fn credential(
    account: &ConnectionString,
    container: &str,
    blob: Option<&str>,
) -> Result<BlobCredential, Error> {
    let refuse = || {
        let name = [Some(container), blob].into_iter().flatten();
        let name = name.collect::<Vec<_>>().join("/");
        Error::new(
            ErrorKind::Refused,
            "address blob storage",
            &name,
            "the name does not fit into a URL",
        )
    };
    let mut url: Url = account.blob_endpoint().clone();
    url.path_segments_mut()
        .map_err(|()| refuse())?
        .pop_if_empty()
        .push(container)
        .extend(blob.into_iter().flat_map(|name| name.split('/')));
    Ok(match account.access() {
        AccountAccess::Key(key) => BlobCredential::Key {
            key: key.clone(),
            location: url.as_str().parse::<Uri>().map_err(|_unusable| refuse())?,
        },
        AccountAccess::Sas(sas) => {
            BlobCredential::Fixed(SasUrl::parse(&format!("{url}?{}", sas.expose()))?)
        }
    })
}

/// The blobs of one page, and the marker of the next.
fn parse_list(body: &[Bytes]) -> Result<(Vec<ListedBlob>, Option<String>), String> {
    let document: Vec<u8> = body.concat();
    let mut blobs = Vec::new();
    let mut next = None;
    let mut current = ListedBlob::default();
    xml::walk(&document[..], |path, text| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path[..] {
            ["EnumerationResults", "Blobs", "Blob", "Name"] => text.clone_into(&mut current.name),
            ["EnumerationResults", "Blobs", "Blob", "Metadata", name] => {
                current.metadata.push((name.to_owned(), text.to_owned()));
            }
            ["EnumerationResults", "Blobs", "Blob"] => {
                let blob = std::mem::take(&mut current);
                if blob.name.is_empty() {
                    return Err("a blob of the list has no name".into());
                }
                blobs.push(blob);
            }
            ["EnumerationResults", "NextMarker"] if !text.is_empty() => {
                next = Some(text.to_owned());
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok((blobs, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_metadata_and_marker() {
        let text = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"https://a/\">\
            <Prefix>p</Prefix><Blobs><Blob><Name>p/a&amp;b</Name><Properties><BlobType>PageBlob</BlobType></Properties>\
            <Metadata><Job>j 1</Job><client>c</client></Metadata></Blob><Blob><Name>p/c</Name><Metadata /></Blob></Blobs>\
            <NextMarker>m=</NextMarker></EnumerationResults>";
        let (blobs, next) = parse_list(&[Bytes::from(text)]).unwrap();
        assert_eq!(next.as_deref(), Some("m="));
        assert_eq!(blobs.len(), 2);
        assert_eq!(blobs[0].name, "p/a&b");
        assert_eq!(blobs[0].metadata("job"), Some("j 1"));
        assert_eq!(blobs[1].metadata("job"), None);
        assert!(parse_list(&[Bytes::from_static(b"<html>")]).is_err());
    }

    #[test]
    fn names_become_one_path() {
        let account = ConnectionString::parse("AccountName=abc;AccountKey=ZXhhbXBsZQ==").unwrap();
        let location = |container, blob| {
            credential(&account, container, blob)
                .unwrap()
                .location()
                .to_string()
        };
        assert_eq!(
            location("box", Some("a/b c?d")),
            "https://abc.blob.core.windows.net/box/a/b%20c%3Fd"
        );
        assert_eq!(
            location("box", None),
            "https://abc.blob.core.windows.net/box"
        );
    }
}
