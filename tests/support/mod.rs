//! What the behaviour tests of backup and restore share: an emulated subscription, a driver of the core, saved files.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part; a panic is a failed test"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use azure_vm_fd::azure::{Azure, AzureConfig, Endpoints};
use azure_vm_fd::backup::{self, Backup, Content, Level, Outcome, Run, VmBackup};
use azure_vm_fd::config::{Selection, Transfer};
use azure_vm_fd::document::{Document, ImageContent};
use azure_vm_fd::notice::{Notices, Severity};
use azure_vm_fd::pipeline::Limits;
use azure_vm_fd::private_folder::PrivateFolder;
use azure_vm_fd::restore::{self, Disposition, Restore, RestoredVm};
use azure_vm_fd::secret::Secret;
use mock_server::{
    Config, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_SUBSCRIPTION, DEFAULT_TENANT, Disk,
    Emulator, KIB, MIB, NetworkInterface, Scenario, StateView, Vm,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const GROUP: &str = "rg-prod";

/// An emulated subscription and a client of it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) emulator: Emulator,
    pub(crate) cancel: CancellationToken,
    pub(crate) notices: Notices,
    /// State folder and staging folder are in it.
    pub(crate) folder: TempDir,
}

/// A file as the host would have stored it.
#[derive(Clone, Debug)]
pub(crate) struct SavedFile {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) blocks: Vec<(u64, Vec<u8>)>,
}

impl SavedFile {
    /// The blocks on zeros.
    pub(crate) fn content(&self) -> Vec<u8> {
        let mut content = vec![0; usize::try_from(self.size).unwrap()];
        for (offset, bytes) in &self.blocks {
            let at = usize::try_from(*offset).unwrap();
            content[at..at + bytes.len()].copy_from_slice(bytes);
        }
        content
    }

    pub(crate) fn sent(&self) -> u64 {
        self.blocks
            .iter()
            .map(|(_, bytes)| bytes.len() as u64)
            .sum()
    }
}

/// A VM with an OS disk and data disks on LUNs 0 and 5, each with another kind of content.
pub(crate) fn ledger() -> Vm {
    let os = Disk::new("ledger-os", 64 * MIB)
        .pattern(1, 0, 5 * MIB)
        .zeros(20 * MIB, 8 * MIB)
        .pattern(2, 40 * MIB, 512);
    let zero = Disk::new("ledger-data-a", 40 * MIB).ranges(3, 64 * KIB, 50, 4 * KIB, 512 * KIB);
    // Its last sectors hold data, and nothing before 21 MiB.
    let five = Disk::new("ledger-data-b", 24 * MIB).pattern(4, 21 * MIB, 3 * MIB);
    let mut vm = Vm::new(GROUP, "ledger01", os)
        .data_disk_cached(5, "ReadOnly", five)
        .data_disk_cached(0, "None", zero)
        .nic(NetworkInterface::new("ledger-nic", "vnet/subnet-a").static_address("10.0.0.10"))
        .tag("owner", "finance")
        .zone("2")
        .size("Standard_D4s_v5");
    vm.os_disk.disk.os_type = Some("Linux".into());
    vm.os_disk.disk.hyper_v_generation = Some("V2".into());
    vm
}

/// A VM with a single small disk.
pub(crate) fn small(name: &str) -> Vm {
    Vm::new(
        GROUP,
        name,
        Disk::new(&format!("{name}-os"), 20 * MIB).pattern(7, MIB, 2 * MIB),
    )
}

pub(crate) fn scenario() -> Scenario {
    Scenario::new().network(GROUP, "vnet", &[("subnet-a", "10.0.0.0/24")])
}

/// Of each image the run that it builds on, by the name of its disk.
pub(crate) fn bases(files: &[SavedFile]) -> BTreeMap<String, Option<String>> {
    files
        .iter()
        .filter(|file| file.path.ends_with("_conf"))
        .flat_map(|file| {
            let document: Document = serde_json::from_slice(&file.blocks[0].1).unwrap();
            document.images
        })
        .map(|image| {
            let base = match image.content {
                ImageContent::Full => None,
                ImageContent::Delta { base_job, .. } => Some(base_job),
            };
            (image.disk["name"].as_str().unwrap().to_owned(), base)
        })
        .collect()
}

pub(crate) fn limits() -> Limits {
    Limits {
        memory: 8 * MIB,
        concurrency: 4,
        chunk: MIB,
    }
}

pub(crate) fn run(number: u32) -> Run {
    Run {
        job: format!("AzureVMs.2026-11-23_09.05.00_{number:02}"),
        line: 0,
        client: "prod-fd".into(),
        level: Level::Full,
        previous: None,
        keep_snapshots: true,
    }
}

/// Ranges of a page list per answer.
pub(crate) const LIST_PAGE: usize = 7;

impl World {
    pub(crate) async fn new(scenario: Scenario) -> Self {
        Self::with(Config {
            scenario,
            // Small pages, so that every list has several.
            arm_page_size: 2,
            page_range_limit: LIST_PAGE,
            ..Config::default()
        })
        .await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self {
            emulator: Emulator::start(config).await.unwrap(),
            cancel: CancellationToken::new(),
            notices: Notices::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn azure(&self) -> Azure {
        self.azure_with_secret(DEFAULT_CLIENT_SECRET)
    }

    pub(crate) fn azure_with_secret(&self, secret: &str) -> Azure {
        let config = AzureConfig {
            application_secret: Secret::new(secret.into()),
            ..Self::config(self.emulator.http_url())
        };
        Azure::new(config, self.cancel.clone()).unwrap()
    }

    /// A client of another subscription than the usual one.
    pub(crate) fn azure_of(&self, subscription: &str) -> Azure {
        let config = AzureConfig {
            subscription_id: subscription.to_owned(),
            ..Self::config(self.emulator.http_url())
        };
        Azure::new(config, self.cancel.clone()).unwrap()
    }

    /// What a client of the emulator at `base` is told.
    pub(crate) fn config(base: &str) -> AzureConfig {
        let url: url::Url = base.parse().unwrap();
        AzureConfig {
            tenant_id: DEFAULT_TENANT.into(),
            application_id: DEFAULT_CLIENT_ID.into(),
            application_secret: Secret::new(DEFAULT_CLIENT_SECRET.into()),
            subscription_id: DEFAULT_SUBSCRIPTION.into(),
            endpoints: Endpoints {
                authority: url.clone(),
                arm: url,
                audience: "https://management.azure.com/".into(),
                storage_suffix: "core.windows.net".into(),
            },
            ca_file: None,
            allow_http: true,
            concurrency: 4,
        }
    }

    pub(crate) fn options(&self) -> backup::Options {
        backup::Options {
            selection: Selection::default(),
            abort_on_error: false,
            fallback: true,
            limits: limits(),
            transfer: Transfer::Direct,
            state: PrivateFolder::make(&self.state_dir()).unwrap(),
        }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) async fn begin(&self, run: Run) -> Result<Backup, backup::Error> {
        Backup::begin(self.azure(), run, self.options(), self.notices.clone()).await
    }

    /// A whole run as a driver makes it, all of it good.
    pub(crate) async fn back_up(&self, run: Run) -> Vec<SavedFile> {
        let mut backup = self.begin(run).await.unwrap();
        let mut files = Vec::new();
        while let Some(vm) = backup.next_vm().await.unwrap() {
            files.extend(read_vm(vm).await.unwrap());
        }
        backup.finish(Outcome::Good).await.unwrap();
        files
    }

    /// The folder that holds those of all restores.
    pub(crate) fn restores(&self) -> PrivateFolder {
        PrivateFolder::make(&self.folder.path().join("restore")).unwrap()
    }

    /// The folder of the restores of these tests.
    pub(crate) fn staging_dir(&self) -> PathBuf {
        self.folder.path().join("restore/17")
    }

    pub(crate) fn restore_options(&self, new_name: &str) -> restore::Options {
        restore::Options {
            new_hostname: Some(new_name.into()),
            restores: self.restores(),
            staging_name: "17".into(),
            has_next_job: true,
            keep_staging: false,
            one_run: false,
            verify: false,
            limits: limits(),
        }
    }

    /// A whole restore as a driver makes it.
    pub(crate) async fn restore(
        &self,
        files: &[SavedFile],
        new_name: &str,
    ) -> Result<RestoredVm, restore::Error> {
        self.restore_with(self.azure(), files, new_name).await
    }

    pub(crate) async fn restore_with(
        &self,
        azure: Azure,
        files: &[SavedFile],
        new_name: &str,
    ) -> Result<RestoredVm, restore::Error> {
        let options = self.restore_options(new_name);
        let mut restore = Restore::new(azure, options, self.notices.clone());
        match receive(&mut restore, files).await {
            Ok(()) => restore.complete().await,
            Err(error) => {
                restore.abandon().await;
                Err(error)
            }
        }
    }

    pub(crate) fn state(&self) -> StateView {
        self.emulator.state()
    }

    /// Notices so far, by severity.
    pub(crate) fn take_notices(&self) -> BTreeMap<Severity, Vec<String>> {
        let mut notices: BTreeMap<_, Vec<_>> = BTreeMap::new();
        while let Some(notice) = self.notices.pop() {
            notices
                .entry(notice.severity)
                .or_default()
                .push(notice.text);
        }
        notices
    }

    /// Nothing was asked that the emulator does not model, and nobody holds access to anything.
    pub(crate) fn assert_settled(&self) {
        assert_eq!(self.emulator.unmodelled(), Vec::<String>::new());
        assert!(self.state().grants.is_empty(), "{:?}", self.state().grants);
    }
}

pub(crate) async fn receive(
    restore: &mut Restore,
    files: &[SavedFile],
) -> Result<(), restore::Error> {
    for file in files {
        if restore.begin_entry(&file.path, file.size).await? == Disposition::Receive {
            for (offset, bytes) in &file.blocks {
                restore.write(*offset, bytes)?;
            }
            restore.end_entry().await?;
        }
    }
    Ok(())
}

/// All entries of a VM, closed in every outcome.
pub(crate) async fn read_vm(mut vm: VmBackup) -> Result<Vec<SavedFile>, backup::Error> {
    let files = read_entries(&mut vm).await;
    vm.close().await;
    files
}

async fn read_entries(vm: &mut VmBackup) -> Result<Vec<SavedFile>, backup::Error> {
    let mut files = Vec::new();
    while let Some(entry) = vm.next_entry() {
        let mut blocks = Vec::new();
        match entry.content {
            Content::Empty => {}
            Content::Bytes(bytes) => blocks.push((0, bytes)),
            Content::Image(mut image) => {
                // The host's buffer is 64 KiB.
                let mut buffer = vec![0; 64 * 1024];
                while let Some(block) = image.read_block(&mut buffer).await? {
                    blocks.push((block.offset, buffer[..block.len].to_vec()));
                }
                image.finish().await?;
            }
        }
        files.push(SavedFile {
            path: entry.path,
            size: entry.size,
            blocks,
        });
    }
    Ok(files)
}
