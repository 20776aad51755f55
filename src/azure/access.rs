//! Access to the bytes of a disk or snapshot: grants and their SAS.
use super::{Azure, Error, PageBlob, ResourceId};
use std::time::Duration;

/// Direction of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read a snapshot.
    Read,
    /// Write an upload disk.
    Write,
}

/// A SAS URL; prints only host and path.
#[derive(Clone)]
pub struct SasUrl {}

impl SasUrl {
    /// Takes a URL with a SAS query.
    /// # Errors
    /// Not a URL, no signature in it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let _ = text;
        unimplemented!()
    }
}

/// Access that Azure holds open until [`AccessGrant::revoke`]; dropping it unrevoked starts the revocation.
#[derive(Debug)]
pub struct AccessGrant {}

impl Azure {
    /// `beginGetAccess` on a disk or snapshot, waited for.
    /// # Errors
    /// Azure's refusal.
    pub async fn grant(
        &self,
        target: &ResourceId,
        access: Access,
        duration: Duration,
    ) -> Result<AccessGrant, Error> {
        let _ = (target, access, duration);
        unimplemented!()
    }
    /// `endGetAccess`, waited for; succeeds if nothing is active.
    /// # Errors
    /// Azure's refusal.
    pub async fn revoke(&self, target: &ResourceId) -> Result<(), Error> {
        let _ = target;
        unimplemented!()
    }
}

impl AccessGrant {
    /// A client of the blob behind the grant; shares the SAS, renewals included.
    #[must_use]
    pub fn page_blob(&self) -> PageBlob {
        unimplemented!()
    }
    /// Gives the access back.
    /// # Errors
    /// Azure's refusal.
    pub async fn revoke(self) -> Result<(), Error> {
        unimplemented!()
    }
}
