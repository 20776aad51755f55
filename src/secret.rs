//! Values that must never be printed.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use regex::bytes::Regex;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A secret text: no `Display`, a `Debug` that shows nothing of it, memory wiped on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of a secret text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself, for the one place that has to send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Read from an answer; there is no way to write one.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Secrets that may stand in a text as it goes over the wire: the value after each of these names.
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r#"(?i)(\bsig=|\bbearer\s+|client_secret=|application_secret\s*=\s*|accountkey=|"#,
        r#"sharedkey(?:lite)?\s+[a-z0-9]+:|(?:access_token|client_secret|accesssas)\\?"\s*:\s*\\?")"#,
        r#"[^\s&;"\\]+"#
    ))
    .expect("a constant expression")
});

/// The text with what looks like a secret in it masked: a second guard, where texts of others are passed on.
pub(crate) fn mask(text: &[u8]) -> Cow<'_, [u8]> {
    SECRET.replace_all(text, &b"${1}***"[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(
            format!("{:?}", Secret::new("hunter2".into())),
            "Secret(***)"
        );
    }
}
