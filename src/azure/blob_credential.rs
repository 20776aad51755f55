//! What opens a blob: a SAS, renewed by its grant or not, two of them for a difference, or the key of an account.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::header::HeaderName;
use http::{Request, StatusCode, Uri};
use tokio::sync::Mutex;

use super::access::{CurrentSas, GrantCell};
use super::outgoing::Credential;
use super::shared_key::SharedKey;
use super::{Error, ErrorKind, SasUrl};
use crate::payload::Payload;

const COPY_SOURCE: HeaderName = HeaderName::from_static("x-ms-copy-source");
const PREVIOUS_SNAPSHOT: HeaderName = HeaderName::from_static("x-ms-previous-snapshot-url");

/// What opens a blob.
#[derive(Debug)]
pub(super) enum BlobCredential {
    /// A SAS that nobody renews.
    Fixed(SasUrl),
    /// The SAS of a grant, renewed by it.
    Grant(Arc<GrantCell>),
    /// The key of its storage account.
    Key { key: SharedKey, location: Uri },
}

impl BlobCredential {
    pub(super) fn location(&self) -> Uri {
        match self {
            Self::Fixed(sas) => sas.location().clone(),
            Self::Grant(cell) => cell.stored().url.location().clone(),
            Self::Key { location, .. } => location.clone(),
        }
    }

    /// The current SAS and its generation.
    async fn sas(&self) -> Result<(SasUrl, u64), Error> {
        match self {
            Self::Fixed(sas) => Ok((sas.clone(), 0)),
            Self::Grant(cell) => {
                let CurrentSas {
                    url, generation, ..
                } = cell.sas().await?;
                Ok((url, generation))
            }
            Self::Key { location, .. } => Err(Error::new(
                ErrorKind::Refused,
                "name blob",
                location,
                "only blobs behind a SAS can be a base or be copied",
            )),
        }
    }

    /// Number of renewals so far.
    fn generation(&self) -> u64 {
        match self {
            Self::Grant(cell) => cell.stored().generation,
            Self::Fixed(_) | Self::Key { .. } => 0,
        }
    }
}

impl Credential for BlobCredential {
    fn authorize<'a>(
        &'a self,
        request: &'a mut Request<Payload>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        match self {
            Self::Key { key, .. } => key.authorize(request),
            Self::Fixed(_) | Self::Grant(_) => Box::pin(async {
                let (sas, generation) = self.sas().await?;
                sas.apply(request)?;
                Ok(generation)
            }),
        }
    }

    fn is_refused(&self, status: StatusCode) -> bool {
        match self {
            Self::Grant(_) => status == StatusCode::FORBIDDEN,
            Self::Fixed(_) | Self::Key { .. } => false,
        }
    }

    fn renew(&self, generation: u64) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            match self {
                Self::Grant(cell) => cell.renew(generation).await,
                Self::Fixed(_) | Self::Key { .. } => Ok(false),
            }
        })
    }
}

/// A copy needs what opens its target, and the SAS of its source in a header.
pub(super) struct CopyFrom<'a> {
    pub(super) target: &'a BlobCredential,
    pub(super) source: &'a BlobCredential,
}

impl Credential for CopyFrom<'_> {
    fn authorize<'a>(
        &'a self,
        request: &'a mut Request<Payload>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(async {
            let (source, generation) = self.source.sas().await?;
            request
                .headers_mut()
                .insert(COPY_SOURCE, source.to_header()?);
            // Last, since a key signs the headers too.
            self.target.authorize(request).await?;
            Ok(generation)
        })
    }

    fn is_refused(&self, status: StatusCode) -> bool {
        self.source.is_refused(status)
    }

    fn renew(&self, generation: u64) -> BoxFuture<'_, Result<bool, Error>> {
        self.source.renew(generation)
    }
}

/// A difference needs two signatures: one in the address, one in a header.
pub(super) struct BothSas<'a> {
    pub(super) target: &'a BlobCredential,
    pub(super) base: &'a BlobCredential,
    /// The two are renewed one after the other; a request that sees only one of them renewed must wait for the other.
    pub(super) renewal: &'a Mutex<()>,
}

impl BothSas<'_> {
    /// Two generations in one number; each counts renewals of one job and stays far below 2^32.
    const SHIFT: u32 = 32;
}

impl Credential for BothSas<'_> {
    fn authorize<'a>(
        &'a self,
        request: &'a mut Request<Payload>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(async {
            let (target, target_generation) = self.target.sas().await?;
            let (base, base_generation) = self.base.sas().await?;
            target.apply(request)?;
            request
                .headers_mut()
                .insert(PREVIOUS_SNAPSHOT, base.to_header()?);
            Ok(target_generation << Self::SHIFT | base_generation)
        })
    }

    fn is_refused(&self, status: StatusCode) -> bool {
        self.target.is_refused(status) || self.base.is_refused(status)
    }

    /// The answer does not tell which of the two was refused.
    fn renew(&self, generation: u64) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            let _only_one = self.renewal.lock().await;
            let target = generation >> Self::SHIFT;
            let base = generation & ((1 << Self::SHIFT) - 1);
            if (self.target.generation(), self.base.generation()) != (target, base) {
                // Others had to do it meanwhile; to renew again would take from them what they use now.
                return Ok(true);
            }
            let target = self.target.renew(target).await?;
            let base = self.base.renew(base).await?;
            Ok(target || base)
        })
    }
}
