//! What a run holds for the bytes of one snapshot, and gives back: access to it, and its copy in a storage account.

use std::sync::{Mutex, PoisonError};

use super::{snapshot_set, staging_blob};
use crate::azure::{AccessGrant, PageBlob, ResourceId};
use crate::notice::Notices;

/// Held until [`Held::give_back`].
#[derive(Debug)]
pub(super) struct Held {
    grant: Mutex<Option<AccessGrant>>,
    copy: Mutex<Option<PageBlob>>,
}

impl Held {
    pub(super) fn new(grant: AccessGrant) -> Self {
        Self {
            grant: Mutex::new(Some(grant)),
            copy: Mutex::default(),
        }
    }

    /// Takes over a blob to which the snapshot is copied, or is going to be: it has to be deleted.
    pub(super) fn keep_copy(&self, blob: PageBlob) {
        *self.copy.lock().unwrap_or_else(PoisonError::into_inner) = Some(blob);
    }

    /// Gives access to the snapshot back, if it is still held.
    pub(super) async fn revoke(&self, id: &ResourceId, notices: &Notices) {
        if let Some(grant) = take(&self.grant) {
            snapshot_set::revoke(grant, id, notices).await;
        }
    }

    /// Gives back everything that is still held.
    pub(super) async fn give_back(&self, id: &ResourceId, notices: &Notices) {
        if let Some(blob) = take(&self.copy) {
            staging_blob::discard(&blob, notices).await;
        }
        self.revoke(id, notices).await;
    }
}

fn take<T>(held: &Mutex<Option<T>>) -> Option<T> {
    held.lock().unwrap_or_else(PoisonError::into_inner).take()
}
