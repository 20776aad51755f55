//! What of this library others should judge and `azure-vm` has no command for: `tests/peers` sends a JSON document to
//! standard input and reads the answer from standard output.

use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use azure_vm_fd::azure::blob_copy::BlobCopy;
use azure_vm_fd::azure::connection_string::{AccountAccess, ConnectionString};
use azure_vm_fd::azure::shared_key::SharedKey;
use azure_vm_fd::azure::{
    self, Azure, AzureConfig, Container, Endpoints, PageBlob, PageRanges, SasUrl,
};
use azure_vm_fd::document::{Document, FORMAT, ImageContent, ImageRecord, Slot};
use azure_vm_fd::payload::Payload;
use azure_vm_fd::range::ByteRange;
use azure_vm_fd::range_list::RangeList;
use azure_vm_fd::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Deserialize)]
#[serde(tag = "task", rename_all = "camelCase")]
enum Task {
    /// Signs requests.
    Sign(Signing),
    /// Reads connection strings.
    Connections { strings: Vec<String> },
    /// Works in a container of a storage account.
    Account {
        connection: String,
        container: String,
        steps: Vec<Step>,
    },
    /// Writes a configuration document with an image of each kind.
    Document,
}

#[derive(Deserialize)]
struct Signing {
    account: String,
    key: String,
    /// Seconds since 1970.
    now: u64,
    requests: Vec<Unsigned>,
}

#[derive(Deserialize)]
struct Unsigned {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    /// Of the body.
    length: usize,
}

/// `blob` is a name in the container, or a SAS URL.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
enum Step {
    Ensure,
    List {
        prefix: String,
    },
    Create {
        blob: String,
        length: u64,
    },
    Write {
        blob: String,
        offset: u64,
        base64: String,
    },
    Length {
        blob: String,
    },
    Ranges {
        blob: String,
    },
    Difference {
        blob: String,
        base: String,
    },
    Read {
        blob: String,
        start: u64,
        end: u64,
    },
    Copy {
        blob: String,
        source: String,
        metadata: Vec<(String, String)>,
    },
    CopyState {
        blob: String,
    },
    Discard {
        blob: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let answer = match serde_json::from_reader(io::stdin())? {
        Task::Sign(signing) => sign(&signing)?,
        Task::Connections { strings } => strings.iter().map(|text| connection(text)).collect(),
        Task::Account {
            connection,
            container,
            steps,
        } => account(&connection, &container, &steps).await?,
        Task::Document => serde_json::from_slice(&document().to_bytes()?)?,
    };
    writeln!(io::stdout(), "{answer}")?;
    Ok(())
}

fn sign(signing: &Signing) -> Outcome<Value> {
    let key = SharedKey::new(&signing.account, &signing.key).ok_or("the key is not base64")?;
    let now = UNIX_EPOCH + Duration::from_secs(signing.now);
    let requests = signing.requests.iter();
    requests.map(|request| request.signed(&key, now)).collect()
}

impl Unsigned {
    fn signed(&self, key: &SharedKey, now: SystemTime) -> Outcome<Value> {
        let mut request = Request::builder().method(&*self.method).uri(&self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        authorization(request.body(vec![0; self.length].into())?, key, now)
    }
}

/// The signature of a request, or why there is none.
fn authorization(
    mut request: Request<Payload>,
    key: &SharedKey,
    now: SystemTime,
) -> Outcome<Value> {
    Ok(match key.sign(&mut request, now) {
        Ok(()) => json!(request.headers()[AUTHORIZATION].to_str()?),
        Err(error) => json!({ "error": error.to_string() }),
    })
}

fn connection(text: &str) -> Value {
    let parsed = match ConnectionString::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => return json!({ "error": error.to_string() }),
    };
    let access = match parsed.access() {
        // A key is not shown; that it is the right one shows by what it signs.
        AccountAccess::Key(key) => authorization(Request::default(), key, UNIX_EPOCH).map_or_else(
            |error| error.to_string().into(),
            |signed| json!({ "key": signed }),
        ),
        AccountAccess::Sas(sas) => json!({ "sas": sas.expose() }),
    };
    json!({
        "account": parsed.account(),
        "endpoint": parsed.blob_endpoint().as_str(),
        "access": access,
    })
}

async fn account(connection: &str, container: &str, steps: &[Step]) -> Outcome<Value> {
    // Storage accounts have their own credentials: nothing is asked of Resource Manager.
    let config = AzureConfig {
        tenant_id: "none".to_owned(),
        application_id: "none".to_owned(),
        application_secret: Secret::new("none".to_owned()),
        subscription_id: "none".to_owned(),
        endpoints: Endpoints::of_cloud("AzureCloud").ok_or("no such cloud")?,
        ca_file: None,
        allow_http: true,
        concurrency: 4,
    };
    let azure = Azure::new(config, CancellationToken::new())?;
    let connection = ConnectionString::parse(connection)?;
    let container = azure.container(&connection, container)?;
    let mut answers = Vec::new();
    for step in steps {
        answers.push(match step.run(&azure, &container).await {
            Ok(answer) => answer,
            Err(error) => json!({
                "error": error.to_string(), "code": error.code(), "status": error.status(),
            }),
        });
    }
    Ok(answers.into())
}

impl Step {
    async fn run(&self, azure: &Azure, container: &Container) -> Result<Value, azure::Error> {
        let blob = |name: &str| -> Result<PageBlob, azure::Error> {
            if !name.starts_with("http") {
                return container.blob(name);
            }
            let cancel = azure.cancellation().clone();
            let sas = SasUrl::parse(name)?;
            Ok(PageBlob::from_sas(azure.transport(), sas, cancel))
        };
        Ok(match self {
            Self::Ensure => container.ensure().await?.into(),
            Self::List { prefix } => {
                let listed = container.list(prefix).await?;
                let blob = |blob: &azure::container::ListedBlob| json!([blob.name, blob.metadata]);
                listed.iter().map(blob).collect()
            }
            Self::Create { blob: name, length } => blob(name)?.create(*length).await?.into(),
            Self::Write {
                blob: name,
                offset,
                base64,
            } => {
                let data = STANDARD.decode(base64).unwrap_or_default();
                blob(name)?.write(*offset, data).await?.into()
            }
            Self::Length { blob: name } => blob(name)?.content_length().await?.into(),
            Self::Ranges { blob: name } => ranges(&blob(name)?.page_ranges().await?),
            Self::Difference { blob: name, base } => {
                let list = blob(name)?.page_list_diff(&blob(base)?);
                ranges(&list.collect().await?)
            }
            Self::Read {
                blob: name,
                start,
                end,
            } => match ByteRange::new(*start, *end) {
                Some(range) => STANDARD
                    .encode(blob(name)?.read(range).await?.concat())
                    .into(),
                None => Value::Null,
            },
            Self::Copy {
                blob: name,
                source,
                metadata,
            } => {
                let pairs = metadata.iter();
                let pairs: Vec<_> = pairs.map(|(name, value)| (&**name, &**value)).collect();
                copy(&blob(name)?.start_copy(&blob(source)?, &pairs).await?)
            }
            Self::CopyState { blob: name } => copy(&blob(name)?.copy_state().await?),
            Self::Discard { blob: name } => blob(name)?.discard().await?.into(),
        })
    }
}

/// In address order.
fn ranges(listed: &PageRanges) -> Value {
    let of = |ranges: &RangeList, cleared: bool| -> Vec<_> {
        let entry = |range: ByteRange| (range.start(), range.end(), cleared);
        ranges.iter().map(entry).collect()
    };
    let mut all = [of(&listed.written, false), of(&listed.cleared, true)].concat();
    all.sort_unstable();
    all.into_iter().map(|entry| json!(entry)).collect()
}

fn copy(copy: &BlobCopy) -> Value {
    json!({ "status": copy.status.to_string(), "copied": copy.copied })
}

fn document() -> Document {
    let image = |file: &str, slot, content| ImageRecord {
        file: file.to_owned(),
        slot,
        disk_unique_id: "04edf645-da44-41ee-9920-b0677ec17605".to_owned(),
        size_bytes: 1 << 30,
        sector_size: 512,
        data_bytes: 1 << 20,
        content,
        snapshot: "snapshot-1".to_owned(),
        snapshot_time: "2026-11-23T09:00:00.1234567+00:00".to_owned(),
        disk: json!({ "name": "disk", "properties": { "new": [null, {}] } }),
    };
    let delta = ImageContent::Delta {
        base_epoch: 1_795_300_000,
        base_job: "Nightly.2026-11-22_01.05.00_03".to_owned(),
        cleared: [(0, 512), (4096, 1 << 20)]
            .into_iter()
            .filter_map(|(start, end)| ByteRange::new(start, end))
            .collect(),
    };
    Document {
        format: FORMAT,
        creator: concat!("azure-vm-fd ", env!("CARGO_PKG_VERSION")).to_owned(),
        job: "Nightly.2026-11-23_01.05.00_03".to_owned(),
        level: "Incremental".to_owned(),
        epoch: 1_795_395_900,
        vm_uuid: "98f6aa47-7ef0-4a36-90bc-d8957c9f0033".to_owned(),
        vm_name: "web".to_owned(),
        virtual_machine: json!({ "name": "web", "new": true }),
        network_interfaces: vec![json!({ "name": "nic" })],
        images: vec![
            image("1795395900_osdisk", Slot::Os, ImageContent::Full),
            image("1795395900_0", Slot::Data(5), delta),
        ],
    }
}
