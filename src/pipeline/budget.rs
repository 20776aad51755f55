//! One number of bytes that may be in memory at a time.
//!
//! Whoever wants to hold bytes acquires a [`Permit`] first and keeps it as long as the bytes. Requests are served in the
//! order in which they were made, so that nobody starves and the front of a queue always gets its turn.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A budget of bytes; cheap to clone, clones share it.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    free: Arc<Semaphore>,
    capacity: u32,
}

/// A part of a [`ByteBudget`]; goes back when dropped.
#[derive(Debug)]
pub struct Permit(OwnedSemaphorePermit);

impl ByteBudget {
    /// `bytes` in all: at least 1, at most 4 GiB - 1 (what does not fit is cut off).
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let capacity = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        Self {
            free: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
        }
    }

    /// All bytes, free or not.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity.into()
    }

    /// Bytes that nobody holds right now.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.free.available_permits() as u64
    }

    /// Waits for `len` bytes. More than the whole budget is charged as the whole, so that no request can wait for ever;
    /// callers keep their requests below [`ByteBudget::capacity`] to make the account exact.
    ///
    /// # Panics
    ///
    /// Never: the semaphore behind it is not closed.
    ///
    /// # Cancellation
    ///
    /// Dropping the future gives up the place in the queue and nothing else.
    pub async fn acquire(&self, len: u64) -> Permit {
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(self.capacity);
        Permit(
            Arc::clone(&self.free)
                .acquire_many_owned(len)
                .await
                .expect("the semaphore is never closed"),
        )
    }
}

impl Permit {
    /// Gives back all but `len` bytes; does nothing if it holds fewer.
    pub fn shrink_to(&mut self, len: u64) {
        let excess = (self.0.num_permits() as u64).saturating_sub(len);
        if let Ok(excess) = usize::try_from(excess) {
            drop(self.0.split(excess));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn permits_return_when_dropped_or_shrunk() {
        let budget = ByteBudget::new(100);
        let mut permit = budget.acquire(60).await;
        assert_eq!(budget.available(), 40);
        permit.shrink_to(10);
        assert_eq!(budget.available(), 90);
        permit.shrink_to(50);
        assert_eq!(budget.available(), 90);
        drop(permit);
        assert_eq!(budget.available(), 100);
    }

    #[tokio::test]
    async fn requests_are_served_in_order() {
        let budget = ByteBudget::new(100);
        let held = budget.acquire(60).await;
        let mut large = Box::pin(budget.acquire(80));
        assert!(large.as_mut().now_or_never().is_none());
        // 40 bytes are free, yet the small request must not overtake the large one.
        let mut small = Box::pin(budget.acquire(10));
        assert!(small.as_mut().now_or_never().is_none());
        drop(held);
        assert!(large.now_or_never().is_some());
        assert!(small.now_or_never().is_some());
    }

    #[tokio::test]
    async fn an_abandoned_request_makes_way() {
        let budget = ByteBudget::new(100);
        let _held = budget.acquire(60).await;
        let mut large = Box::pin(budget.acquire(80));
        assert!(large.as_mut().now_or_never().is_none());
        drop(large);
        assert!(budget.acquire(40).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_request_above_the_budget_takes_all_of_it() {
        let budget = ByteBudget::new(100);
        let _all = budget.acquire(u64::MAX).await;
        assert_eq!(budget.available(), 0);
        assert_eq!(ByteBudget::new(0).capacity(), 1);
        assert_eq!(ByteBudget::new(u64::MAX).capacity(), u64::from(u32::MAX));
    }
}
