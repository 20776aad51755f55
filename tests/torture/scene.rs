//! A machine, its backup and its restore, and what must be true afterwards whatever happened on the way.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use azure_vm_fd::azure::connection_string::ConnectionString;
use azure_vm_fd::azure::{Azure, AzureConfig};
use azure_vm_fd::backup::{Backup, Level, Options, Outcome, Run};
use azure_vm_fd::config::Transfer;
use azure_vm_fd::document::{Document, ImageContent};
use azure_vm_fd::notice::{Severity, with_causes};
use azure_vm_fd::pipeline::Limits;
use azure_vm_fd::restore::{self, Restore};
use mock_server::{
    Action, Change, Config, Counters, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET,
    DEFAULT_STORAGE_KEY, DEFAULT_SUBSCRIPTION, Disk, Emulator, Fault, KIB, MIB, NetworkInterface,
    OperationPolicy, Scenario, Vm,
};

use crate::hours::hasten;
use crate::support::{GROUP, SavedFile, World, read_vm, receive, run, scenario};

const ACCOUNT: &str = "stage";
const MACHINE: &str = "ledger01";
const DISKS: [&str; 2] = ["ledger-os", "ledger-data"];

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scene {
    /// Full and Incremental, read from the snapshots.
    Backup,
    /// The same by way of a blob.
    ByBlob,
    /// Both runs into a new machine.
    Restore,
}

impl Scene {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::ByBlob => "blob",
            Self::Restore => "restore",
        }
    }
}

/// How a scene with faults ended, if it ended as it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Succeeded,
    /// With this message.
    Failed(String),
}

/// What earlier runs saved, and what was on the disks then.
#[derive(Clone, Default)]
pub(crate) struct Saved {
    files: Vec<SavedFile>,
    disks: Vec<Vec<u8>>,
}

/// One try of a scene in a world of its own.
pub(crate) struct Try {
    scene: Scene,
    world: Arc<World>,
    tls: bool,
    jobs: u32,
    /// Unique name of the last good run.
    previous: Option<String>,
    images: Vec<Vec<u8>>,
    files: Vec<SavedFile>,
}

fn machine() -> Scenario {
    let os = Disk::new(DISKS[0], 20 * MIB)
        .pattern(1, 0, 200 * KIB)
        .pattern(2, 10 * MIB, 64 * KIB)
        .zeros(12 * MIB, 64 * KIB);
    let data = Disk::new(DISKS[1], 20 * MIB)
        .ranges(3, 64 * KIB, 9, 4 * KIB, MIB)
        .pattern(4, 20 * MIB - 4 * KIB, 4 * KIB);
    let mut vm = Vm::new(GROUP, MACHINE, os)
        .data_disk(3, data)
        .nic(NetworkInterface::new("ledger-nic", "vnet/subnet-a"));
    vm.vm_id = Some("0f0e0d0c-0b0a-4908-8706-050403020100".into());
    scenario().vm(vm).storage_account(ACCOUNT)
}

impl Try {
    pub(crate) fn new(scene: Scene, tls: bool) -> Self {
        let emulator = Emulator::start_blocking(&Config {
            scenario: machine(),
            arm_page_size: 1,
            page_range_limit: 5,
            operations: OperationPolicy {
                // Longer than until the first look at it.
                duration: std::time::Duration::from_millis(400),
                ..OperationPolicy::default()
            },
            ..Config::default()
        })
        .expect("an emulator");
        let world = World {
            emulator,
            cancel: Default::default(),
            notices: Default::default(),
            folder: tempfile::tempdir().expect("a folder"),
        };
        fs::write(world.folder.path().join("ca.pem"), world.emulator.ca_pem()).expect("written");
        Self {
            scene,
            world: Arc::new(world),
            tls,
            jobs: 0,
            previous: None,
            images: Vec::new(),
            files: Vec::new(),
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.world.emulator.counters()
    }

    pub(crate) fn saved(&self) -> Saved {
        Saved {
            files: self.files.clone(),
            disks: DISKS.map(|disk| self.disk(disk)).to_vec(),
        }
    }

    fn disk(&self, disk: &str) -> Vec<u8> {
        let emulator = &self.world.emulator;
        let size = emulator.disk_size(disk).expect("size");
        emulator.disk_read(disk, 0, size).expect("bytes")
    }

    fn azure(&self) -> Azure {
        let emulator = &self.world.emulator;
        let base = if self.tls {
            emulator.https_url()
        } else {
            emulator.http_url()
        };
        let config = AzureConfig {
            ca_file: Some(self.world.folder.path().join("ca.pem")),
            concurrency: 2,
            ..World::config(base)
        };
        Azure::new(config, self.world.cancel.clone()).expect("a client")
    }

    fn limits() -> Limits {
        Limits {
            memory: 8 * MIB,
            concurrency: 2,
            chunk: 64 * KIB,
        }
    }

    /// The scene under `faults`: the ending, or what is wrong with it.
    pub(crate) fn play(&mut self, faults: Vec<Fault>, saved: &Saved) -> Result<Ending, String> {
        let never_ends = faults
            .iter()
            .any(|fault| matches!(fault.action, Action::NeverEnding));
        for fault in faults {
            self.world.emulator.fault(fault);
        }
        let before = self.things();
        let outcome = self.act(saved);
        let said = self.said();
        let ending = self.judge(outcome, &said, &before)?;
        // What is left is what the next job finds.
        self.world.emulator.clear_faults();
        let secret = Change::SetSecret {
            client_id: DEFAULT_CLIENT_ID.into(),
            secret: DEFAULT_CLIENT_SECRET.into(),
        };
        self.world.emulator.change(&secret).expect("a secret");
        let before = self.things();
        let again = self.encore(saved);
        let said = self.said();
        match self.judge(again, &said, &before) {
            // What is still being done cannot be taken away.
            Ok(Ending::Succeeded) if said.is_empty() || never_ends => {}
            Ok(Ending::Succeeded) => return Err(format!("the next job says {said:?}")),
            Ok(Ending::Failed(why)) => return Err(format!("the next job fails: {why}")),
            Err(wrong) => return Err(format!("after the next job: {wrong}")),
        }
        let unmodelled = self.world.emulator.unmodelled();
        if !unmodelled.is_empty() {
            return Err(format!("not modelled: {unmodelled:?}"));
        }
        Ok(ending)
    }

    pub(crate) fn act(&mut self, saved: &Saved) -> Result<(), String> {
        match self.scene {
            Scene::Restore => self.restore("copy", saved),
            Scene::Backup | Scene::ByBlob => {
                self.back_up()?;
                self.guest_works();
                self.back_up()
            }
        }
    }

    /// The next job after the scene.
    fn encore(&mut self, saved: &Saved) -> Result<(), String> {
        match self.scene {
            Scene::Restore if self.world.state().vm("copy").is_none() => {
                self.restore("copy", saved)
            }
            Scene::Restore => self.restore("again", saved),
            Scene::Backup | Scene::ByBlob => {
                self.guest_works();
                self.back_up()
            }
        }
    }

    fn guest_works(&self) {
        let emulator = &self.world.emulator;
        let jobs = u64::from(self.jobs);
        for at in [MIB + jobs * 513, 10 * MIB + 100, 15 * MIB + jobs * 70_000] {
            emulator
                .guest_write(DISKS[0], at, &[7; 700])
                .expect("written");
        }
        for piece in 0..7 {
            emulator
                .guest_write(DISKS[1], piece * 2 * MIB + jobs, b"other")
                .expect("written");
        }
        emulator
            .guest_discard(DISKS[1], 64 * KIB, 4 * KIB)
            .expect("discarded");
    }

    /// A run, Full if there is none before it; its bytes must be those of the disks.
    fn back_up(&mut self) -> Result<(), String> {
        self.jobs += 1;
        let run = Run {
            level: if self.previous.is_none() {
                Level::Full
            } else {
                Level::Incremental
            },
            previous: self.previous.clone(),
            ..run(self.jobs)
        };
        let job = run.job.clone();
        let account = self.world.emulator.connection_string(ACCOUNT);
        let options = Options {
            abort_on_error: true,
            limits: Self::limits(),
            transfer: match self.scene {
                Scene::ByBlob => {
                    Transfer::Blob(ConnectionString::parse(&account).expect("a connection string"))
                }
                Scene::Backup | Scene::Restore => Transfer::Direct,
            },
            ..self.world.options()
        };
        let azure = self.azure();
        let notices = self.world.notices.clone();
        let files = hasten(&self.world, async move {
            let mut backup = Backup::begin(azure, run, options, notices)
                .await
                .map_err(told)?;
            let read = async {
                let mut files = Vec::new();
                while let Some(vm) = backup.next_vm().await? {
                    files.extend(read_vm(vm).await?);
                }
                Ok(files)
            };
            match read.await {
                Ok(files) => backup.finish(Outcome::Good).await.map(|()| files),
                Err(error) => {
                    // As the plugin does, which has told the reason by then.
                    backup.finish(Outcome::Bad).await.ok();
                    Err(error)
                }
            }
            .map_err(told)
        })?;
        self.check_images(&files)?;
        self.previous = Some(job);
        self.files.extend(files);
        Ok(())
    }

    /// Applies what came to the images so far, as a restore would.
    fn check_images(&mut self, files: &[SavedFile]) -> Result<(), String> {
        let document: Document = serde_json::from_slice(&files[1].blocks[0].1).expect("a document");
        let older = std::mem::take(&mut self.images);
        for (number, (record, file)) in document.images.iter().zip(&files[2..]).enumerate() {
            let mut image = match record.content {
                ImageContent::Full => Vec::new(),
                ImageContent::Delta { .. } => older[number].clone(),
            };
            let index = |at: u64| usize::try_from(at).expect("small");
            image.resize(index(record.size_bytes), 0);
            for range in record.content.cleared() {
                image[index(range.start())..index(range.end())].fill(0);
            }
            for (offset, bytes) in &file.blocks {
                image[index(*offset)..][..bytes.len()].copy_from_slice(bytes);
            }
            if image != self.disk(DISKS[number]) {
                return Err(wrong(&format!("other bytes of {}", DISKS[number])));
            }
            self.images.push(image);
        }
        Ok(())
    }

    fn restore(&mut self, name: &str, saved: &Saved) -> Result<(), String> {
        let azure = self.azure();
        let world = Arc::clone(&self.world);
        let options = restore::Options {
            limits: Self::limits(),
            ..world.restore_options(name)
        };
        hasten(&self.world, async move {
            let mut restore = Restore::new(azure, options, world.notices.clone());
            match receive(&mut restore, &saved.files).await {
                Ok(()) => restore.complete().await,
                Err(error) => {
                    restore.abandon().await;
                    Err(error)
                }
            }
            .map_err(told)
        })?;
        let state = self.world.state();
        let vm = state
            .vm(name)
            .ok_or_else(|| wrong("the machine is not there"))?;
        let disks = [&vm.os_disk.name, &vm.data_disks[&3].name];
        for (disk, bytes) in disks.into_iter().zip(&saved.disks) {
            if self.disk(disk) != *bytes {
                return Err(wrong(&format!("other bytes on {disk}")));
            }
        }
        Ok(())
    }

    /// What was said that counts as an error.
    fn said(&self) -> Vec<String> {
        self.world
            .take_notices()
            .remove(&Severity::Error)
            .unwrap_or_default()
    }

    /// Names of everything that exists, but for tracked snapshots and open ones among them.
    fn things(&self) -> BTreeSet<String> {
        let state = self.world.state();
        let tracked = tracked(&self.world.folder.path().join("state"));
        let mut things = BTreeSet::new();
        things.extend(state.virtual_machines.iter().map(|vm| vm.name.clone()));
        things.extend(state.disks.iter().map(|disk| disk.name.clone()));
        things.extend(state.network_interfaces.iter().map(|nic| nic.name.clone()));
        things.extend(state.blobs(ACCOUNT).iter().map(|blob| blob.name.clone()));
        let snapshots = state.snapshots.iter().map(|snapshot| &snapshot.name);
        things.extend(snapshots.filter(|name| !tracked.contains(*name)).cloned());
        let grants = state
            .grants
            .iter()
            .map(|grant| format!("access to {}", grant.resource));
        things.extend(grants);
        things
    }

    fn judge(
        &self,
        outcome: Result<(), String>,
        said: &[String],
        before: &BTreeSet<String>,
    ) -> Result<Ending, String> {
        let mut told = said.to_vec();
        let ending = match outcome {
            Ok(()) => Ending::Succeeded,
            Err(text) if text.starts_with(WRONG) => return Err(text),
            Err(text) => {
                told.push(text.clone());
                Ending::Failed(text)
            }
        };
        for text in &told {
            check_text(text)?;
        }
        let mut made = Vec::new();
        if ending == Ending::Succeeded && self.scene == Scene::Restore {
            let state = self.world.state();
            for vm in state
                .virtual_machines
                .iter()
                .filter(|vm| !before.contains(&vm.name))
            {
                made.push(vm.name.clone());
                made.push(vm.os_disk.name.clone());
                made.extend(vm.data_disks.values().map(|disk| disk.name.clone()));
                let nics = vm.network_interfaces.iter();
                made.extend(nics.filter_map(|id| Some(id.rsplit('/').next()?.to_owned())));
            }
        }
        for thing in self.things().difference(before) {
            let name = thing.rsplit('/').next().unwrap_or(thing);
            // Of what was left and named before, an operation that went on may have opened it meanwhile.
            if self.scene == Scene::Restore && before.contains(name) {
                continue;
            }
            if !made.contains(thing) && !told.iter().any(|text| text.contains(name)) {
                return Err(format!(
                    "{thing} is left and nobody says so: {told:?}; there was {before:?}"
                ));
            }
        }
        if self.world.staging_dir().exists() {
            return Err("local images are left".into());
        }
        // Beside the one that ends the job only what could not be given back, and what was saved in another way.
        for text in said {
            let known = [
                "delete ",
                "revoke ",
                "remove ",
                "abort ",
                "saved as a full image",
            ];
            if !known.iter().any(|known| text.contains(known)) {
                return Err(format!("a second error: {text}; {ending:?}"));
            }
        }
        Ok(ending)
    }
}

/// What the secret is changed to.
pub(crate) const OTHER_SECRET: &str = "rotated~secret+of/the=job";

const WRONG: &str = "WRONG: ";

fn wrong(what: &str) -> String {
    format!("{WRONG}{what}")
}

fn told<E: std::error::Error>(error: E) -> String {
    with_causes(&error)
}

/// One line that names something and betrays nothing.
fn check_text(text: &str) -> Result<(), String> {
    for secret in [DEFAULT_CLIENT_SECRET, DEFAULT_STORAGE_KEY, "sig=", "eyJ"] {
        if text.contains(secret) {
            return Err(format!("a secret is told: {text}"));
        }
    }
    let names = [
        MACHINE,
        "ledger-",
        "copy",
        "again",
        DEFAULT_CLIENT_ID,
        DEFAULT_SUBSCRIPTION,
        GROUP,
        ACCOUNT,
    ];
    if !names.iter().any(|name| text.contains(name)) {
        return Err(format!("nothing is named: {text}"));
    }
    if text.contains('\n') {
        return Err(format!("more than a line: {text}"));
    }
    Ok(())
}

/// Names of the snapshots in the tracker file.
fn tracked(state: &Path) -> BTreeSet<String> {
    let Ok(text) = fs::read_to_string(state.join("tracker.json")) else {
        return BTreeSet::new();
    };
    let ends = text.split("/snapshots/").skip(1);
    ends.filter_map(|rest| rest.split('"').next().map(str::to_owned))
        .collect()
}
