//! What a request carries: bytes in memory, or bytes that are read only when they are sent.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// Bytes that are fetched while they are sent, and again if they have to be sent again: until then they need no memory.
pub trait Supply: Send + Sync + fmt::Debug + 'static {
    /// All of them. Never changes.
    fn total(&self) -> u64;

    /// Those from `position` on, as many as are sent at a time; at least one.
    fn fetch(self: Arc<Self>, position: u64) -> BoxFuture<'static, io::Result<Bytes>>;
}

/// The body of a request. Cheap to clone; each attempt sends a clone.
#[derive(Clone, Debug)]
pub enum Payload {
    /// In memory.
    Whole(Bytes),
    /// To be fetched.
    Supplied(Arc<dyn Supply>),
}

impl Payload {
    /// Its length in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Supplied(supply) => supply.total(),
        }
    }

    /// The bytes, if they are in memory.
    #[must_use]
    pub fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Supplied(_) => None,
        }
    }

    /// The bytes from `position` on, as many as are sent at a time; none at the end.
    ///
    /// # Errors
    ///
    /// They cannot be fetched, or are others than announced.
    pub async fn fetch(self, position: u64) -> io::Result<Bytes> {
        let left = self.total().saturating_sub(position);
        if left == 0 {
            return Ok(Bytes::new());
        }
        let bytes = match self {
            // Nothing else begins behind the beginning.
            Self::Whole(bytes) => bytes,
            Self::Supplied(supply) => supply.fetch(position).await?,
        };
        if bytes.is_empty() || bytes.len() as u64 > left {
            let found = bytes.len();
            return Err(io::Error::other(format!(
                "{found} bytes where up to {left} are due"
            )));
        }
        Ok(bytes)
    }
}

impl Default for Payload {
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl<B: Into<Bytes>> From<B> for Payload {
    fn from(bytes: B) -> Self {
        Self::Whole(bytes.into())
    }
}
