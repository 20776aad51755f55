//! One number of bytes that may be in memory at a time.

/// A budget of bytes; cheap to clone, clones share it.
#[derive(Clone, Debug)]
pub struct ByteBudget {}

impl ByteBudget {
    /// `bytes` in all.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let _ = bytes;
        unimplemented!()
    }
}
