//! The seam between who reads a body from a connection and who has to find room for it.

use std::fmt;

use futures_util::future::{BoxFuture, ready};

/// Room for the body of one request, over all its attempts. Whoever does not care has room for everything.
pub trait Intake: Send + Sync + fmt::Debug {
    /// An attempt begins; what was admitted for an earlier one is no longer held.
    fn restart(&self) {}

    /// Waits for room for so many more bytes of memory. Until then nothing further is read from the connection, whose sender
    /// stops once the buffers on the way are full.
    fn admit(&self, _bytes: u64) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    /// An attempt failed because there are too many requests, as the service says or as time-outs suggest.
    fn throttled(&self) {}
}

/// For what is small, or bounded by others.
#[derive(Clone, Copy, Debug)]
pub struct Unbounded;

impl Intake for Unbounded {}
