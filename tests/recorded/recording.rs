//! The recordings, as `tests/recordings/README.md` describes them.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

const ARM: &str = "https://management.azure.com";

/// A request and the answer that was given to it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) method: String,
    /// Scheme and host, as recorded.
    pub(crate) origin: String,
    /// Path and query.
    pub(crate) target: String,
    /// Body of the request.
    pub(crate) sent: String,
    pub(crate) status: u16,
    /// In the order and spelling in which they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

#[derive(Deserialize)]
struct Recording {
    exchanges: Vec<Recorded>,
}

#[derive(Deserialize)]
struct Recorded {
    request: String,
    #[serde(default)]
    sent: String,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    body: String,
}

/// The exchanges of `tests/recordings/<name>.json`.
pub(crate) fn exchanges(name: &str) -> Vec<Exchange> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    let recording: Recording = serde_json::from_str(&text).unwrap();
    recording
        .exchanges
        .into_iter()
        .map(Exchange::from)
        .collect()
}

impl From<Recorded> for Exchange {
    fn from(recorded: Recorded) -> Self {
        let (method, address) = recorded.request.split_once(' ').unwrap();
        let (origin, target) = match address.find("://") {
            None => (ARM, address),
            Some(scheme) => {
                let host = scheme + "://".len();
                let path = host + address[host..].find('/').unwrap();
                address.split_at(path)
            }
        };
        let header = |line: String| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        Self {
            method: method.to_owned(),
            origin: origin.to_owned(),
            target: target.to_owned(),
            sent: recorded.sent,
            status: recorded.status,
            headers: recorded.headers.into_iter().map(header).collect(),
            body: recorded.body,
        }
    }
}

impl Exchange {
    /// An answer that no recording has; its body is JSON.
    pub(crate) fn made(method: &str, target: &str, status: u16, body: &Value) -> Self {
        Self {
            method: method.to_owned(),
            origin: ARM.to_owned(),
            target: target.to_owned(),
            sent: String::new(),
            status,
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
            body: body.to_string(),
        }
    }

    /// This answer, given to another request.
    pub(crate) fn at(&self, method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            ..self.clone()
        }
    }

    /// This answer with other text in headers and body.
    pub(crate) fn replacing(mut self, from: &str, to: &str) -> Self {
        for (_, value) in &mut self.headers {
            *value = value.replace(from, to);
        }
        self.body = self.body.replace(from, to);
        self
    }

    /// The JSON of the answer.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The JSON of the request.
    pub(crate) fn sent_json(&self) -> Value {
        serde_json::from_str(&self.sent).unwrap()
    }

    pub(crate) fn header(&self, wanted: &str) -> &str {
        let found = self
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        &found.unwrap().1
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// Path and query of the address in a header of the answer.
    pub(crate) fn link(&self, header: &str) -> &str {
        self.header(header).strip_prefix(&self.origin).unwrap()
    }

    /// The resource that the request is about: its path without an action at the end.
    pub(crate) fn resource(&self) -> azure_vm_fd::azure::ResourceId {
        let path = self.path();
        let path = ["/beginGetAccess", "/endGetAccess"]
            .into_iter()
            .find_map(|action| path.strip_suffix(action))
            .unwrap_or(path);
        azure_vm_fd::azure::ResourceId::parse(path).unwrap()
    }

    pub(crate) fn subscription(&self) -> &str {
        self.target.split('/').nth(2).unwrap()
    }
}
