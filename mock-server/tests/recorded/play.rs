//! One recording played to one emulator.
use crate::{
    common::{Answer, Azure},
    recording::{Exchange, exchanges},
    shape,
};
use bytes::Bytes;
use http::Method;
use mock_server::{Config, DEFAULT_SUBSCRIPTION, OperationPolicy, Scenario};
use serde_json::Value;
use std::collections::HashMap;

pub(crate) struct Play {
    name: &'static str,
    pub(crate) recorded: Vec<Exchange>,
    pub(crate) azure: Azure,
    /// Recorded polling address (path and query) to the emulator's.
    links: HashMap<String, String>,
    found: Played,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Played {
    /// Recording and position of what was compared.
    pub(crate) compared: Vec<(&'static str, usize)>,
    /// Those of them that another request than the recorded one led to.
    pub(crate) instead: Vec<(&'static str, usize)>,
    /// As `<recording> <position>: <difference>`.
    pub(crate) differences: Vec<String>,
}

impl Played {
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.compared.extend(other.compared);
        self.instead.extend(other.instead);
        self.differences.extend(other.differences);
        self
    }
}

/// As the recorded services of those years: the first polls come too early, `Retry-After` is given.
pub(crate) fn config(scenario: Scenario, polls_in_progress: u32) -> Config {
    Config {
        scenario,
        operations: OperationPolicy {
            polls_in_progress,
            retry_after: Some(2),
            ..OperationPolicy::default()
        },
        ..Config::default()
    }
}

impl Play {
    pub(crate) async fn start(name: &'static str, config: Config) -> Self {
        Self {
            name,
            recorded: exchanges(name),
            azure: Azure::start(config).await,
            links: HashMap::new(),
            found: Played::default(),
        }
    }

    /// Sends the recorded request, and compares the answer with the recorded one.
    pub(crate) async fn send(&mut self, number: usize) -> Answer {
        let recorded = self.recorded[number].clone();
        let url = self.url(recorded.target());
        let answer = self
            .request(recorded.method(), &url, recorded.sent.clone())
            .await;
        self.compare(number, &answer);
        answer
    }

    /// Sends a request whose recorded form the emulator does not model, and compares with what Azure answered there.
    pub(crate) async fn send_instead(
        &mut self,
        number: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let url = self.url(path);
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = self.request(method, &url, body).await;
        self.compare(number, &answer);
        self.found.instead.push((self.name, number));
        answer
    }

    /// Does what the recording presupposes; nothing is compared. The operation, if it is one, is waited for.
    pub(crate) async fn prepare(&self, method: Method, path: &str, body: Option<Value>) {
        let status = self.azure.finish(method, &self.url(path), body).await;
        if !status.is_null() {
            Azure::succeeded(&status);
        }
    }

    /// Begins an operation and answers where it is polled; nothing is compared.
    pub(crate) async fn begin(&self, method: Method, path: &str, body: Value) -> String {
        let url = self.url(path);
        let answer = self.request(method, &url, body.to_string()).await;
        polling(&answer.expect(202))
    }

    #[track_caller]
    pub(crate) fn end(self) -> Played {
        let unmodelled = self.azure.emulator.unmodelled();
        assert!(unmodelled.is_empty(), "{}: {unmodelled:?}", self.name);
        self.found
    }

    /// A recorded polling address stands for the one that the emulator gave instead.
    pub(crate) fn url(&self, target: &str) -> String {
        match self.links.get(target) {
            Some(url) => url.clone(),
            None => format!("{}{target}", self.azure.emulator.http_url()),
        }
    }

    async fn request(&self, method: Method, url: &str, body: String) -> Answer {
        let bearer = format!("Bearer {}", self.azure.token);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        self.azure
            .send(method, url, &headers, Bytes::from(body))
            .await
            .unwrap()
    }

    fn compare(&mut self, number: usize, answer: &Answer) {
        let recorded = &self.recorded[number];
        for name in ["azure-asyncoperation", "location"] {
            if let (Some(theirs), Some(own)) = (recorded.header(name), answer.header(name)) {
                let theirs = crate::recording::target(theirs).to_owned();
                self.links.insert(theirs, own.to_owned());
            }
        }
        let name = self.name;
        let found = shape::differences(recorded, answer);
        let found = found.iter().map(|what| format!("{name} {number}: {what}"));
        self.found.differences.extend(found);
        self.found.compared.push((name, number));
    }
}

/// Where the operation that an answer began is polled: path and query.
pub(crate) fn polling(answer: &Answer) -> String {
    let url = answer.header("azure-asyncoperation").unwrap();
    crate::recording::target(url).to_owned()
}

/// Path of a resource of `Microsoft.Compute`, with an API version.
pub(crate) fn compute(group: &str, kind: &str, name: &str) -> String {
    format!(
        "/subscriptions/{DEFAULT_SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.Compute/{kind}/{name}?api-version=2023-04-02"
    )
}
