//! One HTTP client: hyper over rustls.
use super::Error;
use std::path::Path;

/// A connection pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Transport {}

impl Transport {
    /// Trusts the system's roots and those of `ca_file`.
    /// # Errors
    /// An unusable CA file; no roots at all.
    pub fn new(
        ca_file: Option<&Path>,
        allow_http: bool,
        connections: usize,
    ) -> Result<Self, Error> {
        let _ = (ca_file, allow_http, connections);
        unimplemented!()
    }
}
