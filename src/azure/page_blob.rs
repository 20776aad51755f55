//! The page blob behind a SAS.
use super::{Error, SasUrl, Transport};
use crate::range::ByteRange;
use bytes::Bytes;

/// Whether a listed range holds data or reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageRangeKind {
    /// `<PageRange>`
    Written,
    /// `<ClearRange>`
    Cleared,
}

/// One entry of a page list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// Where.
    pub range: ByteRange,
    /// What.
    pub kind: PageRangeKind,
}

/// Client of one page blob.
#[derive(Clone, Debug)]
pub struct PageBlob {}

impl PageBlob {
    /// A blob reached by a SAS that nobody renews (command line).
    #[must_use]
    pub fn from_sas(transport: &Transport, sas: SasUrl) -> Self {
        let _ = (transport, sas);
        unimplemented!()
    }
    /// Content length in bytes (an exported disk has 512 more than the disk: its VHD footer).
    /// # Errors
    /// The service's refusal.
    pub async fn content_length(&self) -> Result<u64, Error> {
        unimplemented!()
    }
    /// All page ranges, every result page followed; ascending and disjoint.
    /// # Errors
    /// The service's refusal, or a list that cannot be trusted.
    pub async fn page_ranges(&self) -> Result<Vec<PageRange>, Error> {
        unimplemented!()
    }
    /// What changed since `base`.
    /// # Errors
    /// The service's refusal, or a list that cannot be trusted.
    pub async fn page_ranges_diff(&self, base: &Self) -> Result<Vec<PageRange>, Error> {
        let _ = base;
        unimplemented!()
    }
    /// Exactly the bytes of `range`, as the frames they came in.
    /// # Errors
    /// The service's refusal; a short, long or displaced body.
    pub async fn read(&self, range: ByteRange) -> Result<Vec<Bytes>, Error> {
        let _ = range;
        unimplemented!()
    }
    /// Put Page: 512-aligned, at most 4 MiB.
    /// # Errors
    /// The service's refusal.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<(), Error> {
        let _ = (offset, data);
        unimplemented!()
    }
}
