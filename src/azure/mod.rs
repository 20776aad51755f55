//! Azure over REST: what the wire means.

pub mod access;
pub mod call;
pub mod connection_string;
pub mod disk;
pub mod endpoints;
mod error;
#[rustfmt::skip] // formatted by its generator
pub mod generated;
pub mod network;
pub mod operation;
pub mod page_blob;
pub mod read_only;
pub mod resource_id;
pub mod retry;
pub mod shared_key;
pub mod snapshot;
pub mod token;
pub mod transport;
pub mod vm;

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

pub use self::access::{Access, AccessGrant, SasUrl};
pub use self::endpoints::Endpoints;
pub use self::error::{Error, ErrorKind};
pub use self::page_blob::{PageBlob, PageRange, PageRangeKind};
pub use self::resource_id::ResourceId;
pub use self::transport::Transport;

use crate::secret::Secret;

/// Everything needed to talk to one subscription as one service principal.
#[derive(Clone, Debug)]
pub struct AzureConfig {
    /// Tenant of the service principal, as given by the user.
    pub tenant_id: String,
    /// Client id of the service principal.
    pub application_id: String,
    /// Client secret of the service principal.
    pub application_secret: Secret,
    /// Subscription that is worked on.
    pub subscription_id: String,
    /// Which cloud.
    pub endpoints: Endpoints,
    /// A PEM file with further trusted roots.
    pub ca_file: Option<PathBuf>,
    /// Accept `http://` endpoints on loopback addresses (an emulator); any other plain HTTP is refused.
    pub allow_http: bool,
    /// Requests in flight per disk; the connection pool is as wide.
    pub concurrency: usize,
}

/// One service principal's view of one subscription. Cheap to clone; clones share token and connections.
#[derive(Clone, Debug)]
pub struct Azure {}

impl Azure {
    /// Prepares the clients; no request is made. `cancel` ends every wait of this view.
    ///
    /// # Errors
    ///
    /// An unusable CA file or endpoint.
    pub fn new(config: AzureConfig, cancel: CancellationToken) -> Result<Self, Error> {
        let _ = (config, cancel);
        unimplemented!()
    }

    /// The same client with a cancellation of its own and a short deadline: for giving back what a cancelled job holds.
    #[must_use]
    pub fn for_cleanup(&self) -> Self {
        unimplemented!()
    }

    /// Obtains a token, to learn early whether the credentials are good.
    ///
    /// # Errors
    ///
    /// What the token endpoint said, or why it could not be asked.
    pub async fn login(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// The subscription that is worked on.
    #[must_use]
    pub fn subscription_id(&self) -> &str {
        unimplemented!()
    }
}
