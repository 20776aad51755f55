//! A small client that knows nothing of the product's.
#![allow(dead_code, reason = "each test file uses its own part of the client")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "it is part of the tests"
)]

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use mock_server::{
    Config, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_SUBSCRIPTION, DEFAULT_TENANT,
    Emulator,
};
use serde_json::{Value, json};

pub(crate) const DISKS: &str = "api-version=2025-01-02";
pub(crate) const COMPUTE: &str = "api-version=2024-11-01";
pub(crate) const NETWORK: &str = "api-version=2023-11-01";
pub(crate) const BLOB_VERSION: &str = "2025-11-05";

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The code of an error of Resource Manager.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// A client of one emulator, with a token.
pub(crate) struct Azure {
    pub(crate) emulator: Emulator,
    pub(crate) token: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

pub(crate) type Fail = Box<dyn std::error::Error + Send + Sync>;

impl Azure {
    pub(crate) async fn start(config: Config) -> Self {
        let emulator = Emulator::start(config).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut azure = Self {
            emulator,
            token: String::new(),
            client,
        };
        let answer = azure
            .login(DEFAULT_TENANT, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET)
            .await
            .expect(200);
        azure.token = answer.json()["access_token"].as_str().unwrap().to_owned();
        azure
    }

    pub(crate) async fn login(&self, tenant: &str, id: &str, secret: &str) -> Answer {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", id)
            .append_pair("client_secret", secret)
            .append_pair("scope", "https://management.azure.com/.default")
            .finish();
        let url = format!("{}/{tenant}/oauth2/v2.0/token", self.emulator.http_url());
        self.send(
            Method::POST,
            &url,
            &[("content-type", "application/x-www-form-urlencoded")],
            form,
        )
        .await
        .unwrap()
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Fail> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .client
            .request(request.body(Full::new(body.into()))?)
            .await?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    /// A call to Resource Manager; `path` is below the default subscription.
    pub(crate) async fn arm(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!(
                "{}/subscriptions/{DEFAULT_SUBSCRIPTION}/{path}",
                self.emulator.http_url()
            )
        };
        let bearer = format!("Bearer {}", self.token);
        let text = body.map(|body| body.to_string()).unwrap_or_default();
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        self.send(method, &url, &headers, text).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.arm(Method::GET, path, None).await
    }

    /// A call whose operation is polled to its end; answers the last status document.
    pub(crate) async fn finish(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let first = self.arm(method, path, body).await;
        assert!(first.status.is_success(), "{}", first.text());
        let Some(url) = first.header("azure-asyncoperation") else {
            return Value::Null;
        };
        for _ in 0..100 {
            let status = self.get(url).await.expect(200).json();
            if status["status"] != "InProgress" {
                return status;
            }
        }
        panic!("the operation does not end");
    }

    #[track_caller]
    pub(crate) fn succeeded(status: &Value) -> &Value {
        assert_eq!(status["status"], "Succeeded", "{status}");
        status
    }

    /// Grants access and answers the SAS.
    pub(crate) async fn grant(&self, path: &str, access: &str) -> String {
        let body = json!({ "access": access, "durationInSeconds": 3600 });
        let status = self
            .finish(
                Method::POST,
                &format!("{path}/beginGetAccess?{DISKS}"),
                Some(body),
            )
            .await;
        Self::succeeded(&status);
        status["properties"]["output"]["accessSAS"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) async fn revoke(&self, path: &str) -> Value {
        self.finish(Method::POST, &format!("{path}/endGetAccess?{DISKS}"), None)
            .await
    }

    pub(crate) async fn snapshot(&self, group: &str, name: &str, disk: &str) -> String {
        let path = format!("resourceGroups/{group}/providers/Microsoft.Compute/snapshots/{name}");
        let status = self
            .finish(
                Method::PUT,
                &format!("{path}?{DISKS}"),
                Some(snapshot_body(group, disk)),
            )
            .await;
        Self::succeeded(&status);
        path
    }

    pub(crate) async fn blob(
        &self,
        method: Method,
        sas: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut all = vec![("x-ms-version", BLOB_VERSION)];
        all.extend_from_slice(headers);
        self.send(method, &format!("{sas}{query}"), &all, body)
            .await
            .unwrap()
    }

    /// All ranges of a page list, every page followed: (kind, first byte, end).
    pub(crate) async fn ranges(
        &self,
        sas: &str,
        previous: Option<&str>,
        max: usize,
    ) -> Vec<(String, u64, u64)> {
        let mut out = Vec::new();
        let mut marker = String::new();
        loop {
            let encoded: String = url::form_urlencoded::byte_serialize(marker.as_bytes()).collect();
            let query = format!("&comp=pagelist&maxresults={max}&marker={encoded}");
            let headers: Vec<_> = previous
                .map(|url| ("x-ms-previous-snapshot-url", url))
                .into_iter()
                .collect();
            let text = self
                .blob(Method::GET, sas, &query, &headers, "")
                .await
                .expect(200)
                .text();
            let mut rest = text.as_str();
            while let Some(at) = rest.find("Range><Start>") {
                let kind = format!("{}Range", rest[..at].rsplit('<').next().unwrap());
                rest = &rest[at + 13..];
                let (start, after) = rest.split_once("</Start><End>").unwrap();
                let (end, after) = after.split_once("</End>").unwrap();
                out.push((
                    kind,
                    start.parse().unwrap(),
                    end.parse::<u64>().unwrap() + 1,
                ));
                // Past the closing tag, whose name holds "Range>" too.
                rest = after.split_once('>').unwrap().1;
            }
            match text.split_once("<NextMarker>") {
                Some((_, after)) => after.split_once('<').unwrap().0.clone_into(&mut marker),
                None => return out,
            }
        }
    }

    pub(crate) async fn read(&self, sas: &str, start: u64, end: u64) -> Bytes {
        let range = format!("bytes={start}-{}", end - 1);
        let answer = self
            .blob(Method::GET, sas, "", &[("x-ms-range", &range)], "")
            .await
            .expect(206);
        assert!(
            answer
                .header("content-range")
                .unwrap()
                .starts_with(&range.replace('=', " "))
        );
        assert_eq!(answer.body.len() as u64, end - start);
        answer.body
    }

    pub(crate) async fn write(&self, sas: &str, start: u64, bytes: Bytes) -> Answer {
        let range = format!("bytes={start}-{}", start + bytes.len() as u64 - 1);
        let headers = [
            ("x-ms-page-write", "update"),
            ("x-ms-range", range.as_str()),
        ];
        self.blob(Method::PUT, sas, "&comp=page", &headers, bytes)
            .await
    }
}

pub(crate) fn disk_id(group: &str, name: &str) -> String {
    format!(
        "/subscriptions/{DEFAULT_SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.Compute/disks/{name}"
    )
}

pub(crate) fn snapshot_body(group: &str, disk: &str) -> Value {
    json!({
        "location": "westeurope",
        "tags": { "made-by": "test" },
        "properties": {
            "creationData": { "createOption": "Copy", "sourceResourceId": disk_id(group, disk) },
            "incremental": true,
        },
    })
}

/// A fixed-VHD footer, written down independently of the emulator's own.
pub(crate) fn footer(size: u64) -> Vec<u8> {
    let total = size / 512;
    let (cylinders, heads, sectors) = if total >= 65_535 * 16 * 63 {
        (
            (total.min(65_535 * 16 * 255) / 255 / 16) as u16,
            16u8,
            255u8,
        )
    } else {
        let mut spt = 17_u64;
        let mut tracks = total / 17;
        let mut heads = tracks.div_ceil(1024).max(4);
        if tracks >= heads * 1024 || heads > 16 {
            (spt, heads) = (31, 16);
            tracks = total / 31;
        }
        if tracks >= heads * 1024 {
            (spt, heads) = (63, 16);
            tracks = total / 63;
        }
        ((tracks / heads) as u16, heads as u8, spt as u8)
    };
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"conectix\0\0\0\x02\0\x01\0\0");
    out.extend_from_slice(&[0xff; 8]);
    out.extend_from_slice(&[0x12, 0x34, 0x56, 0x78]);
    out.extend_from_slice(b"test\0\x01\0\0Wi2k");
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&cylinders.to_be_bytes());
    out.extend_from_slice(&[heads, sectors, 0, 0, 0, 2]);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[0xab; 16]);
    out.resize(512, 0);
    let checksum = !out.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    out[64..68].copy_from_slice(&checksum.to_be_bytes());
    out
}
