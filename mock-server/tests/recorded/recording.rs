//! The recordings, as `tests/recordings/README.md` describes them, with the emulator's subscription in place of theirs.
use mock_server::DEFAULT_SUBSCRIPTION;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Exchange {
    request: String,
    #[serde(default)]
    pub(crate) sent: String,
    #[serde(default)]
    pub(crate) status: u16,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    pub(crate) body: String,
}

#[derive(Deserialize)]
struct Recording {
    exchanges: Vec<Exchange>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings")
}

/// Every recorded answer: its recording and position.
pub(crate) fn all() -> Vec<(String, usize)> {
    let files = std::fs::read_dir(folder()).unwrap();
    let names = files.filter_map(|file| {
        let name = file.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".json").map(str::to_owned)
    });
    names
        .flat_map(|name| {
            let exchanges = exchanges(&name).into_iter().enumerate();
            let answered = exchanges.filter(|(_, exchange)| exchange.status != 0);
            answered
                .map(|(number, _)| (name.clone(), number))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The exchanges of `tests/recordings/<name>.json`.
pub(crate) fn exchanges(name: &str) -> Vec<Exchange> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    let recording: Recording = serde_json::from_str(&text).unwrap();
    recording
        .exchanges
        .into_iter()
        .map(|mut exchange| {
            exchange.request = localized(&exchange.request);
            exchange.sent = localized(&exchange.sent);
            exchange.body = localized(&exchange.body);
            for header in &mut exchange.headers {
                *header = localized(header);
            }
            exchange
        })
        .collect()
}

/// Subscription ids follow `/subscriptions/` in addresses and ids; nothing else in the recordings names one.
fn localized(text: &str) -> String {
    let mut parts = text.split("/subscriptions/");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.find('/').map_or("", |end| &part[end..]);
        out.push_str(&format!("/subscriptions/{DEFAULT_SUBSCRIPTION}{rest}"));
    }
    out
}

impl Exchange {
    pub(crate) fn method(&self) -> http::Method {
        let (method, _) = self.request.split_once(' ').unwrap();
        method.parse().unwrap()
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        let (_, address) = self.request.split_once(' ').unwrap();
        target(address)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn sent_json(&self) -> Value {
        serde_json::from_str(&self.sent).unwrap()
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = (String, &str)> {
        self.headers.iter().map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value)
        })
    }

    pub(crate) fn header(&self, wanted: &str) -> Option<&str> {
        self.headers()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value)
    }
}

/// Path and query of an address, with or without host.
pub(crate) fn target(address: &str) -> &str {
    match address.find("://") {
        None => address,
        Some(scheme) => {
            let rest = &address[scheme + 3..];
            &rest[rest.find('/').unwrap_or(rest.len())..]
        }
    }
}
