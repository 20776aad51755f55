//! Small writes in, large aligned concurrent writes out.
use super::{ByteBudget, Error, Limits, RangeSink};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteStats {
    /// Bytes acknowledged by the sink.
    pub bytes: u64,
    /// Requests to the sink.
    pub requests: u64,
}

/// Coalesces neighbouring writes and sends them, several at a time.
#[derive(Debug)]
pub struct PageWriter {}

impl PageWriter {
    /// A writer into `sink`.
    #[must_use]
    pub fn new(
        sink: Arc<dyn RangeSink>,
        budget: &ByteBudget,
        limits: Limits,
        cancel: &CancellationToken,
    ) -> Self {
        let _ = (sink, budget, limits, cancel);
        unimplemented!()
    }
    /// Takes `data` for `offset`; waits for room, not for the write.
    /// # Errors
    /// An earlier write failed.
    pub async fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let _ = (offset, data);
        unimplemented!()
    }
    /// Waits until everything taken so far is acknowledged; a later write may then overwrite it.
    /// # Errors
    /// A write failed.
    pub async fn barrier(&mut self) -> Result<(), Error> {
        unimplemented!()
    }
    /// A last barrier, and the account.
    /// # Errors
    /// A write failed.
    pub async fn finish(self) -> Result<WriteStats, Error> {
        unimplemented!()
    }
}
