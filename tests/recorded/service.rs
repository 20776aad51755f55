//! A server that gives recorded answers as they came: status, headers in their order, spelling and number, and body. Only
//! the hosts in them are replaced by its own address, since the client follows no link to another one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use azure_vm_fd::azure::{Azure, AzureConfig, Endpoints};
use azure_vm_fd::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::recording::Exchange;

const TENANT: &str = "7e0a3c52-6d1f-4b8e-9c24-5f1d2a3b4c5d";
const TOKEN: &str = "recorded";

/// One request as it came; those for tokens are not kept.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) body: String,
    pub(crate) at: Instant,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// The running server; it ends with this value.
pub(crate) struct Service {
    /// `http://127.0.0.1:<port>`
    pub(crate) address: String,
    shared: Arc<Shared>,
    listener: JoinHandle<()>,
}

struct Shared {
    exchanges: Vec<Exchange>,
    /// Hosts that stand for this server, as `https://<host>`.
    origins: Vec<String>,
    address: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    /// How often each exchange was given as the answer.
    given: HashMap<usize, usize>,
    unexpected: Vec<String>,
    under_way: usize,
}

impl Service {
    /// Answers to the requests of `exchanges`; of several answers to one request each is given in its turn, and the last
    /// one again and again. `hosts` are further ones that stand for this server.
    pub(crate) async fn start(exchanges: Vec<Exchange>, hosts: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut origins: Vec<_> = exchanges.iter().map(|one| one.origin.clone()).collect();
        origins.extend(hosts.iter().map(|host| format!("https://{host}")));
        let shared = Arc::new(Shared {
            exchanges,
            origins,
            address: address.clone(),
            state: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let listener = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&accepting);
                tokio::spawn(async move { serve(&shared, stream).await });
            }
        });
        Self {
            address,
            shared,
            listener,
        }
    }

    /// A client of the subscription in the recordings.
    pub(crate) fn azure(&self) -> Azure {
        let url: url::Url = self.address.parse().unwrap();
        let config = AzureConfig {
            tenant_id: TENANT.into(),
            application_id: "recorded".into(),
            application_secret: Secret::new("recorded".into()),
            subscription_id: self.subscription().into(),
            endpoints: Endpoints {
                authority: url.clone(),
                arm: url,
                ..Endpoints::of_cloud("AzureCloud").unwrap()
            },
            ca_file: None,
            allow_http: true,
            concurrency: 4,
        };
        Azure::new(config, CancellationToken::new()).unwrap()
    }

    /// The configuration file of such a client.
    pub(crate) fn configuration(&self) -> String {
        let (url, subscription) = (&self.address, self.subscription());
        format!(
            "[recorded]\ntenant_id = {TENANT}\nsubscription_id = {subscription}\napplication_id = {TENANT}\n\
             application_secret = recorded\narm_endpoint = {url}\nauthority = {url}\nallow_http = yes\n"
        )
    }

    fn subscription(&self) -> &str {
        self.shared.exchanges[0].subscription()
    }

    /// Whether nothing waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.state.lock().unwrap().under_way == 0
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.state.lock().unwrap().seen.clone()
    }

    /// The requests so far as `METHOD target`, without the API version that the client chose.
    pub(crate) fn requests(&self) -> Vec<String> {
        let seen = self.seen();
        seen.iter()
            .map(|seen| format!("{} {}", seen.method, without_version(&seen.target)))
            .collect()
    }

    /// Every answer was given, and nothing else was asked.
    #[track_caller]
    pub(crate) fn assert_used_up(&self) {
        self.assert_nothing_else_was_asked();
        let state = self.shared.state.lock().unwrap();
        let unused: Vec<_> = (0..self.shared.exchanges.len())
            .filter(|index| !state.given.contains_key(index))
            .map(|index| &self.shared.exchanges[index].target)
            .collect();
        assert!(unused.is_empty(), "{unused:#?}");
    }

    #[track_caller]
    pub(crate) fn assert_nothing_else_was_asked(&self) {
        let state = self.shared.state.lock().unwrap();
        assert_eq!(state.unexpected, Vec::<String>::new());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn serve(shared: &Shared, mut stream: TcpStream) {
    let mut received = Vec::new();
    loop {
        let Some(head) = read_until(&mut stream, &mut received, head_len).await else {
            return;
        };
        shared.state.lock().unwrap().under_way += 1;
        let text = String::from_utf8(received[..head].to_vec()).unwrap();
        let len = field(&text, "content-length").map_or(0, |len| len.parse().unwrap());
        let whole = read_until(&mut stream, &mut received, |bytes| {
            (bytes.len() >= head + len).then_some(head + len)
        });
        let answer = match whole.await {
            Some(end) => {
                let body = String::from_utf8(received[head..end].to_vec()).unwrap();
                received.drain(..end);
                shared.answer(&text, body)
            }
            None => Vec::new(),
        };
        let written = stream.write_all(&answer).await;
        shared.state.lock().unwrap().under_way -= 1;
        if written.is_err() {
            return;
        }
    }
}

/// Reads until `complete` finds an end; `None` if the connection ends before.
async fn read_until(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
    complete: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    loop {
        if let Some(end) = complete(received) {
            return Some(end);
        }
        if !matches!(stream.read_buf(received).await, Ok(1..)) {
            return None;
        }
    }
}

fn head_len(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

fn field<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then_some(value.trim())
    })
}

impl Shared {
    fn answer(&self, head: &str, body: String) -> Vec<u8> {
        let mut line = head.lines().next().unwrap().split(' ');
        let (method, target) = (line.next().unwrap(), line.next().unwrap());
        if target == format!("/{TENANT}/oauth2/v2.0/token") {
            let token =
                json!({"token_type": "Bearer", "expires_in": 360_000, "access_token": TOKEN});
            return written(200, &[], token.to_string().as_bytes(), false);
        }
        let mut state = self.state.lock().unwrap();
        state.seen.push(Seen {
            method: method.to_owned(),
            target: target.to_owned(),
            body,
            at: Instant::now(),
        });
        let authorized = field(head, "authorization") == Some(&format!("Bearer {TOKEN}"));
        let wanted = |exchange: &Exchange| {
            exchange.method == method
                && is_request_for(&exchange.target, target)
                && authorized == target.starts_with("/subscriptions/")
        };
        let mut fitting = (0..self.exchanges.len()).filter(|&at| wanted(&self.exchanges[at]));
        let fresh = fitting
            .clone()
            .find(|index| !state.given.contains_key(index));
        let Some(index) = fresh.or_else(|| fitting.next_back()) else {
            let path = target.split('?').next().unwrap();
            state.unexpected.push(format!("{method} {path}"));
            return written(501, &[], b"", false);
        };
        *state.given.entry(index).or_default() += 1;
        let exchange = &self.exchanges[index];
        let headers: Vec<_> = exchange
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), self.local(value)))
            .collect();
        let body = self.local(&exchange.body);
        written(exchange.status, &headers, body.as_bytes(), method == "HEAD")
    }

    /// A text with this server in place of Azure's hosts.
    fn local(&self, text: &str) -> String {
        self.origins.iter().fold(text.to_owned(), |text, origin| {
            text.replace(origin.as_str(), &self.address)
        })
    }
}

/// What an answer named must come back byte for byte; what the client addresses itself has its own API version.
fn is_request_for(recorded: &str, target: &str) -> bool {
    recorded == target
        || (target.contains("/providers/")
            && !target.contains("/locations/")
            && without_version(recorded) == without_version(target))
}

fn without_version(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut rest: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("api-version="))
        .collect();
    rest.sort_unstable();
    match rest.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", rest.join("&")),
    }
}

/// An answer on the wire. Its length is that of its body, in which hosts may have changed; an answer to HEAD brings the
/// length that it tells.
fn written(status: u16, headers: &[(&str, String)], body: &[u8], head: bool) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Recorded\r\n");
    for (name, value) in headers {
        if head || !name.eq_ignore_ascii_case("content-length") {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if !head && status != 204 {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}
