//! The emulator in this process, the plugin's configuration file for it, and a plain ARM client for what a user would
//! do in the portal.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mock_server::{
    Config, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_STORAGE_KEY, DEFAULT_SUBSCRIPTION,
    DEFAULT_TENANT, Emulator, Scenario, StateView,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use url::form_urlencoded;

/// API versions of the bench's own requests.
const COMPUTE_API: &str = "2024-11-01";
const DISK_API: &str = "2025-01-02";
const NETWORK_API: &str = "2023-11-01";

/// A running emulator with everything that the plugin needs to use it.
#[derive(Debug)]
pub struct Cloud {
    emulator: Emulator,
    directory: TempDir,
    http: Client<HttpConnector, Full<Bytes>>,
    // Last: the emulator's tasks run on it.
    runtime: Runtime,
}

impl Cloud {
    /// Starts the emulator with this world.
    ///
    /// # Errors
    ///
    /// The scenario contradicts itself, or no port is free.
    pub fn start(scenario: Scenario) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let emulator = runtime.block_on(Emulator::start(Config {
            scenario,
            ..Config::default()
        }))?;
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("ca.pem"), emulator.ca_pem())?;
        let http = Client::builder(TokioExecutor::new()).build_http();
        let cloud = Self {
            emulator,
            directory,
            http,
            runtime,
        };
        cloud.write_config("azure-vm.conf", &[])?;
        Ok(cloud)
    }

    /// The emulator.
    #[must_use]
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// Everything that exists.
    #[must_use]
    pub fn state(&self) -> StateView {
        self.emulator.state()
    }

    /// The plugin's configuration file: valid credentials, HTTPS endpoints, the emulator's CA, and the key of the first storage
    /// account, if there is one.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("azure-vm.conf")
    }

    /// A plugin command with the configuration file and these further parameters.
    #[must_use]
    pub fn plugin_command(&self, parameters: &str) -> String {
        format!(
            "azure-vm: config={} {parameters}",
            self.config_file().display()
        )
    }

    /// Writes another configuration file, with some values replaced (`Some`) or left out (`None`).
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write_config(&self, name: &str, changes: &[(&str, Option<&str>)]) -> Result<PathBuf> {
        let ca_file = self.directory.path().join("ca.pem");
        let ca_file = ca_file.to_string_lossy();
        // By number, which the certificate covers too: not every small machine can resolve `localhost`.
        let endpoint = self.emulator.https_url().replace("localhost", "127.0.0.1");
        let account = self.state().storage_accounts.into_iter().next();
        let connection_key = account.map(|account| {
            let name = account.name;
            format!(
                "AccountName={name};AccountKey={DEFAULT_STORAGE_KEY};BlobEndpoint={endpoint}/{name}"
            )
        });
        let mut values = vec![
            ("tenant_id", DEFAULT_TENANT),
            ("subscription_id", DEFAULT_SUBSCRIPTION),
            ("application_id", DEFAULT_CLIENT_ID),
            ("application_secret", DEFAULT_CLIENT_SECRET),
            ("authority", &endpoint),
            ("arm_endpoint", &endpoint),
            ("ca_file", &ca_file),
        ];
        values.extend(connection_key.as_deref().map(|key| ("connection_key", key)));
        let mut text = String::from("[emulator]\n");
        for (key, value) in values {
            let change = changes.iter().find(|(name, _)| *name == key);
            if let Some(value) = change.map_or(Some(value), |(_, value)| *value) {
                text += &format!("{key} = {value}\n");
            }
        }
        // Secrets are in it: the plugin warns of a file that everybody can read.
        self.write_file(name, &text, 0o600)
    }

    /// Writes a file beside the configuration file, readable for whom `mode` says.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write_file(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// Deletes a VM with its disks and network interfaces through ARM, as a user would.
    ///
    /// # Errors
    ///
    /// There is no such VM, or ARM refuses.
    pub fn delete_vm(&self, name: &str) -> Result<()> {
        let state = self.state();
        let vm = state
            .vm(name)
            .with_context(|| format!("delete VM {name}: not found"))?;
        let disks = std::iter::once(&vm.os_disk).chain(vm.data_disks.values());
        let resources = std::iter::once((vm.id.clone(), COMPUTE_API))
            .chain(disks.map(|disk| (disk.id.clone(), DISK_API)))
            .chain(
                vm.network_interfaces
                    .iter()
                    .map(|id| (id.clone(), NETWORK_API)),
            )
            .collect::<Vec<_>>();
        for (id, api_version) in resources {
            self.delete(&id, api_version)?;
            // The emulator's operations end at once by default; a second look costs nothing.
            ensure!(
                self.state().running_operations.is_empty(),
                "delete {id}: still running"
            );
        }
        let state = self.state();
        ensure!(state.vm(name).is_none(), "delete VM {name}: still there");
        Ok(())
    }

    /// Deletes all snapshots, as somebody might who wants to save money.
    ///
    /// # Errors
    ///
    /// ARM refuses.
    pub fn delete_snapshots(&self) -> Result<()> {
        for snapshot in self.state().snapshots {
            self.delete(&snapshot.id, DISK_API)?;
        }
        Ok(())
    }

    /// What the disks of a VM hold, as digests: the OS disk, then data disks by LUN.
    ///
    /// # Errors
    ///
    /// There is no such VM.
    pub fn digests(&self, vm: &str) -> Result<Vec<String>> {
        let state = self.state();
        let vm = state
            .vm(vm)
            .with_context(|| format!("find VM {vm}: not there"))?;
        std::iter::once(&vm.os_disk)
            .chain(vm.data_disks.values())
            .map(|disk| Ok(self.emulator.disk_digest(&disk.id)?))
            .collect()
    }

    /// Sends a DELETE to ARM.
    fn delete(&self, id: &str, api_version: &str) -> Result<()> {
        let url = format!("{}{id}?api-version={api_version}", self.emulator.http_url());
        let request = Request::delete(&url)
            .header("authorization", format!("Bearer {}", self.token()?))
            .body(Full::default())?;
        let (status, body) = self.send(request)?;
        ensure!(
            status.is_success(),
            "delete {id}: {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(())
    }

    /// Sends any request; a bad status is an answer.
    fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        self.runtime.block_on(async {
            let response = self.http.request(request).await?;
            let status = response.status();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        })
    }

    fn token(&self) -> Result<String> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", DEFAULT_CLIENT_ID)
            .append_pair("client_secret", DEFAULT_CLIENT_SECRET)
            .append_pair("scope", "https://management.azure.com/.default")
            .finish();
        let url = format!(
            "{}/{DEFAULT_TENANT}/oauth2/v2.0/token",
            self.emulator.http_url()
        );
        let request = Request::post(&url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::from(form))?;
        let (status, body) = self.send(request)?;
        ensure!(status.is_success(), "obtain a token: {status}");
        serde_json::from_slice::<Value>(&body)?
            .get("access_token")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .context("obtain a token: none in the answer")
    }
}
