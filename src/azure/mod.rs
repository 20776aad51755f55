//! Azure over REST: what the wire means.
//!
//! A request passes through few hands, each with one idea. [`Azure`] and [`PageBlob`] say what is wanted in the words of
//! the service (`vm`, `disk`, `snapshot`, `network`, `access`, `page_blob`, `container`). [`generated`] turns that into an HTTP
//! request, from the OpenAPI documents. `arm` adds endpoint, paging (`pages`) and JSON, `operation` and `readiness` wait for what
//! takes longer. `retry` holds the one loop that repeats: it asks a credential (`token`, `blob_credential`) to sign
//! each attempt, hands it to `exchange`, behind which [`Transport`] speaks HTTP, and judges what comes back (`cause`);
//! `error_body` reads refusals, [`Error`] tells them.
//!
//! Invariants: every wait ends when the view's cancellation is triggered; a token goes to the configured endpoint and
//! nowhere else; no secret, SAS or signed address is ever printed; an answer is used only after its status, length and
//! place were checked.

pub mod access;
mod arm;
pub mod authorization;
pub mod blob_copy;
mod blob_credential;
pub mod call;
mod cause;
pub mod connection_string;
mod connector;
pub mod container;
pub mod disk;
mod door;
pub mod endpoints;
mod error;
mod error_body;
mod exchange;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[rustfmt::skip] // formatted by its generator
pub mod generated;
mod long_wait;
pub mod network;
mod operation;
mod outgoing;
mod outgoing_body;
pub mod page_blob;
mod page_list;
mod page_list_slice;
mod page_list_xml;
mod pages;
mod place;
mod read_ahead;
pub mod read_only;
mod readiness;
mod redact;
mod resolver;
pub mod resource_id;
mod retry;
mod sas;
pub mod scope;
pub mod shared_key;
pub mod snapshot;
#[cfg(test)]
mod testing;
#[cfg(test)]
pub(crate) mod throttled;
mod tls;
mod token;
mod transport;
mod turn;
pub mod vm;
mod xml;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub(crate) use self::access::MAX_DURATION;
pub use self::access::{Access, AccessGrant};
pub use self::container::Container;
pub use self::endpoints::Endpoints;
pub use self::error::{Defect, Error, ErrorKind};
pub use self::page_blob::PageBlob;
pub use self::page_list::{PageList, PageRanges};
pub use self::resolver::{Resolve, SystemResolver};
pub use self::resource_id::ResourceId;
pub use self::sas::SasUrl;
pub use self::transport::Transport;

use self::generated::ApiVersions;
use self::page_list::ListSlots;
use self::retry::{RetryPolicy, Sender};
use self::token::{Bearer, ServicePrincipal, TokenCache};
use crate::notice::Notices;
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
pub struct Azure {
    shared: Arc<Shared>,
    sender: Sender,
    versions: Arc<ApiVersions>,
    /// Longest wait for a long-running operation.
    patience: Duration,
}

#[derive(Debug)]
struct Shared {
    config: AzureConfig,
    transport: Transport,
    tokens: TokenCache,
    list_slots: ListSlots,
}

/// A copy of a large disk in the background may take hours, but reports progress; nothing else takes this long.
const JOB_PATIENCE: Duration = Duration::from_secs(3600);
/// Nobody wants to wait for what is given back after a failure, but deleting a virtual machine takes minutes.
const CLEANUP_PATIENCE: Duration = Duration::from_secs(5 * 60);

impl Azure {
    /// Prepares the clients; no request is made. `cancel` ends every wait of this view.
    ///
    /// # Errors
    ///
    /// An unusable CA file or endpoint.
    pub fn new(config: AzureConfig, cancel: CancellationToken) -> Result<Self, Error> {
        Self::resolving(config, cancel, Arc::new(SystemResolver))
    }

    /// The same with another resolver of names than the system's.
    ///
    /// # Errors
    ///
    /// Those of [`Azure::new`].
    pub fn resolving(
        config: AzureConfig,
        cancel: CancellationToken,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, Error> {
        let transport = Transport::resolving(
            config.ca_file.as_deref(),
            config.allow_http,
            config.concurrency,
            resolver,
        )?;
        let principal = ServicePrincipal::new(&config)?;
        let sender = Sender::new(Arc::new(transport.clone()), RetryPolicy::JOB, cancel);
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                transport,
                tokens: TokenCache::new(principal),
                list_slots: ListSlots::default(),
            }),
            sender,
            versions: Arc::default(),
            patience: JOB_PATIENCE,
        })
    }

    /// The same client with a cancellation of its own and short deadlines: for giving back what a cancelled job holds.
    #[must_use]
    pub fn for_cleanup(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            sender: self.sender.detached(RetryPolicy::CLEANUP),
            versions: Arc::clone(&self.versions),
            patience: CLEANUP_PATIENCE,
        }
    }

    /// The same client with other API versions, for clouds that lag behind.
    #[must_use]
    pub fn with_api_versions(self, versions: ApiVersions) -> Self {
        Self {
            versions: Arc::new(versions),
            ..self
        }
    }

    /// The same client, whose waits also end when `cancel`, a child of [`Azure::cancellation`], is triggered.
    #[must_use]
    pub fn with_cancellation(&self, cancel: CancellationToken) -> Self {
        Self {
            sender: self.sender.with_cancel(cancel),
            ..self.clone()
        }
    }

    /// The same client, which leaves in `notices` what fails when no caller is left to be told, and that Azure has been refusing
    /// requests for minutes because there are too many.
    #[must_use]
    pub fn with_notices(self, notices: Notices) -> Self {
        Self {
            sender: self.sender.with_notices(notices),
            ..self
        }
    }

    /// Obtains a token, to learn early and soon whether the credentials are good.
    ///
    /// # Errors
    ///
    /// What the token endpoint said, or why it could not be asked.
    pub async fn login(&self) -> Result<(), Error> {
        let sender = self.sender.with_policy(RetryPolicy::SHORT);
        let bearer = Bearer {
            cache: &self.shared.tokens,
            sender: &sender,
        };
        bearer.login().await
    }

    /// The subscription that is worked on.
    #[must_use]
    pub fn subscription_id(&self) -> &str {
        &self.shared.config.subscription_id
    }

    /// The connections, for blobs that are reached without this subscription.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.shared.transport
    }

    /// Ends every wait of this view.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        self.sender.cancel()
    }
}
