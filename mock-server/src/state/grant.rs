//! Access to the data of a disk or snapshot: shared access signatures on the data endpoint.
use super::content::Content;
use crate::clock::Instant;
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Access {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
        }
    }
}

/// A signature that is or was valid. Revoked ones are kept, so that their use is told from that of invented ones.
#[derive(Debug)]
pub(crate) struct Grant {
    /// Key of the disk or snapshot.
    pub(crate) volume: String,
    pub(crate) access: Access,
    pub(crate) expires: Instant,
    pub(crate) revoked: bool,
    /// What a reader sees: the data with its VHD footer. A writer works on the disk itself.
    pub(crate) image: Option<Content>,
    /// `/md-<id>/<container>/abcd`
    pub(crate) path: String,
    /// Name of the stored access policy, where the service hides the expiry.
    pub(crate) policy: String,
    /// Signature, base64.
    pub(crate) signature: String,
}

impl Grant {
    pub(crate) fn new(
        key: &[u8],
        volume: String,
        access: Access,
        expires: Instant,
        image: Option<Content>,
    ) -> Self {
        let host = match access {
            Access::Read => format!("md-{}", label(12)),
            Access::Write => format!("md-impexp-{}", label(12)),
        };
        let path = format!("/{host}/{}/abcd", label(12));
        let policy = uuid::Uuid::new_v4().to_string();
        let signature = STANDARD.encode(sign(key, format!("{path}\n{policy}").as_bytes()));
        Self {
            volume,
            access,
            expires,
            revoked: false,
            image,
            path,
            policy,
            signature,
        }
    }

    pub(crate) fn is_active(&self, now: Instant) -> bool {
        !self.revoked && now < self.expires
    }

    /// The complete URL for a client that knows the emulator as `base`.
    pub(crate) fn url(&self, base: &str) -> String {
        let signature: String =
            url::form_urlencoded::byte_serialize(self.signature.as_bytes()).collect();
        format!(
            "{base}{}?sv=2018-03-28&sr=b&si={}&sig={signature}",
            self.path, self.policy
        )
    }
}

/// HMAC-SHA256.
pub(crate) fn sign(key: &[u8], text: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC accepts any key length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// A random label of lower-case letters and digits.
fn label(len: usize) -> String {
    uuid::Uuid::new_v4()
        .simple()
        .to_string()
        .chars()
        .take(len)
        .collect()
}
