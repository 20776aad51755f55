//! A machine, its backup and its restore, also after another one that was killed. What must be true afterwards is left to
//! `verdict`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use std::{io, mem};

use azure_vm_fd::azure::connection_string::ConnectionString;
use azure_vm_fd::azure::{Azure, AzureConfig, Resolve};
use azure_vm_fd::backup::{Backup, Level, Options, Outcome, Run};
use azure_vm_fd::config::Transfer;
use azure_vm_fd::document::{Document, ImageContent};
use azure_vm_fd::notice::with_causes;
use azure_vm_fd::pipeline::Limits;
use azure_vm_fd::restore::{self, Restore};
use futures_util::future::BoxFuture;
use mock_server::{
    Action, Change, Config, Counters, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Disk, Emulator,
    Fault, KIB, MIB, NetworkInterface, OperationPolicy, Scenario, Vm,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::hours::hasten;
use crate::support::{GROUP, SavedFile, World, read_vm, receive, run, scenario};
use crate::verdict::{Ending, Things, Verdict, wrong};

/// How far clocks are apart.
pub(crate) const AHEAD: Duration = Duration::from_secs(1200);

pub(crate) const ACCOUNT: &str = "ledgerstage";
pub(crate) const MACHINE: &str = "ledger01";
/// Names of restored machines, in the order in which they are tried. No message has one of them for another reason.
pub(crate) const COPIES: [&str; 3] = ["ledger02", "ledger03", "ledger04"];
const START_COPY: &str = "StorageBlob_StartCopy";
/// What a cancelled job says.
const CANCELLED: &str = "cancelled";
const DISKS: [&str; 2] = ["ledger-os", "ledger-data"];

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scene {
    /// Full and Incremental, read from the snapshots.
    Backup,
    /// The same by way of a blob.
    ByBlob,
    /// A Full by way of blobs that is cancelled while the snapshots are being copied.
    Cancelled,
    /// Both runs into a new machine, whose disks are read back.
    Restore,
    /// An Incremental by way of a blob, after another one that was killed when a snapshot was being copied.
    BackupAfterDeath,
    /// A restore after two that were killed: when disks were uploaded, and when an interface was made.
    RestoreAfterDeath,
}

impl Scene {
    pub(crate) const ALL: [Self; 6] = [
        Self::Backup,
        Self::ByBlob,
        Self::Cancelled,
        Self::Restore,
        Self::BackupAfterDeath,
        Self::RestoreAfterDeath,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::ByBlob => "blob",
            Self::Cancelled => "cancelled",
            Self::Restore => "restore",
            Self::BackupAfterDeath => "dead backup",
            Self::RestoreAfterDeath => "dead restore",
        }
    }

    /// It is about what is cleared before its job begins.
    pub(crate) fn is_after_death(self) -> bool {
        matches!(self, Self::BackupAfterDeath | Self::RestoreAfterDeath)
    }

    pub(crate) fn is_restore(self) -> bool {
        matches!(self, Self::Restore | Self::RestoreAfterDeath)
    }
}

/// How a try reaches Azure, and what opens its storage account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Without TLS; the account by its key.
    Plain,
    /// Over TLS; the account by its key.
    Tls,
    /// Without TLS; the account by a signature.
    Signed,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Tls, Self::Signed];
}

/// How a try ended, and how often each of its faults fired.
#[derive(Clone, Debug)]
pub(crate) struct Played {
    ending: Ending,
    fired: Vec<u64>,
}

impl Played {
    pub(crate) fn has_succeeded(&self) -> bool {
        self.ending == Ending::Succeeded
    }

    /// Whether anything went wrong at all.
    pub(crate) fn has_fired(&self) -> bool {
        self.fired.iter().any(|&fired| fired > 0)
    }
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
    way: Way,
    /// Of the next job that is cancelled.
    cancel: CancellationToken,
    jobs: u32,
    /// Unique name of the last good run.
    previous: Option<String>,
    images: Vec<Vec<u8>>,
    files: Vec<SavedFile>,
    /// Names of the machines that were restored well.
    restored: Vec<&'static str>,
}

/// The emulator is all that has a name. It ends with its try, also if jobs were killed.
#[derive(Debug)]
struct Names(Weak<World>);

impl Resolve for Names {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let world = self.0.upgrade();
        let found = world.map(|world| world.emulator.look_up(name));
        Box::pin(async {
            let found = found.ok_or(io::ErrorKind::HostUnreachable)?;
            Ok(vec![SocketAddr::new(found?, 0)])
        })
    }
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
    pub(crate) fn new(scene: Scene, way: Way) -> Self {
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
        world.emulator.watch_secrets();
        Self {
            scene,
            world: Arc::new(world),
            way,
            cancel: CancellationToken::new(),
            jobs: 0,
            previous: None,
            images: Vec::new(),
            files: Vec::new(),
            restored: Vec::new(),
        }
    }

    /// Counts since they were taken before.
    pub(crate) fn take_counters(&self) -> Counters {
        let counters = self.world.emulator.counters();
        self.world.emulator.reset_counters();
        counters
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

    /// Where all of Azure is, with the name that the emulator has instead of its address.
    fn base(&self) -> String {
        let emulator = &self.world.emulator;
        match self.way {
            Way::Tls => emulator.https_url().to_owned(),
            Way::Plain | Way::Signed => emulator.http_url().replace("//127.0.0.1:", "//localhost:"),
        }
    }

    fn account(&self) -> ConnectionString {
        let emulator = &self.world.emulator;
        let text = match self.way {
            Way::Plain | Way::Tls => emulator.connection_string(ACCOUNT),
            Way::Signed => {
                // Each job has another one: what was withdrawn does not open again.
                let expires = format!("2099-01-01T00:{:02}:00Z", self.jobs);
                emulator.signed_connection_string(ACCOUNT, &expires)
            }
        };
        let text = text.replace(emulator.http_url(), &self.base());
        ConnectionString::parse(&text).expect("a connection string")
    }

    fn azure(&self) -> Azure {
        let config = AzureConfig {
            ca_file: Some(self.world.folder.path().join("ca.pem")),
            concurrency: 2,
            ..World::config(&self.base())
        };
        let names = Arc::new(Names(Arc::downgrade(&self.world)));
        Azure::resolving(config, self.cancel.clone(), names).expect("a client")
    }

    fn limits() -> Limits {
        Limits {
            memory: 8 * MIB,
            concurrency: 2,
            chunk: 64 * KIB,
        }
    }

    /// The scene under `faults`, or what is wrong with its ending.
    pub(crate) fn play(&mut self, faults: Vec<Fault>, saved: &Saved) -> Result<Played, String> {
        // What begins while the service's clock is ahead ends when the clock has come as far.
        let lasts = faults.iter().any(|fault| {
            matches!(
                fault.action,
                Action::NeverEnding | Action::SkewClock { seconds: 1.. }
            )
        }) || self.scene == Scene::Cancelled;
        let mut verdict = Verdict::new(&self.world, self.scene);
        self.prepare(saved);
        let standing = self.world.emulator.faults().len();
        for fault in faults {
            self.world.emulator.fault(fault);
        }
        let before = self.things();
        let outcome = self.act(saved);
        let faults = self.world.emulator.faults();
        let played = Played {
            ending: verdict.judge(outcome, &before, &self.things())?,
            fired: faults[standing..].iter().map(|of| of.fired).collect(),
        };
        if self.scene != Scene::Cancelled && !played.has_succeeded() && !played.has_fired() {
            return Err(format!("it fails of itself: {:?}", played.ending));
        }
        // What is left is what the next job finds.
        self.world.emulator.clear_faults();
        let secret = Change::SetSecret {
            client_id: DEFAULT_CLIENT_ID.into(),
            secret: DEFAULT_CLIENT_SECRET.into(),
        };
        self.world.emulator.change(&secret).expect("a secret");
        // What is still being done cannot be taken away, but does not stand in the way.
        if lasts {
            self.next_job(&mut verdict, saved, true)?;
            self.world.emulator.release_operations();
            self.world.emulator.advance_clock(AHEAD);
        }
        self.next_job(&mut verdict, saved, false)?;
        verdict.end(&self.things())?;
        let unmodelled = self.world.emulator.unmodelled();
        if !unmodelled.is_empty() {
            return Err(format!("not modelled: {unmodelled:?}"));
        }
        Ok(played)
    }

    /// A job without a fault: it must work, and say nothing unless it may.
    fn next_job(
        &mut self,
        verdict: &mut Verdict,
        saved: &Saved,
        may_complain: bool,
    ) -> Result<(), String> {
        let before = self.things();
        let again = self.act_again(saved);
        match verdict.judge(again, &before, &self.things()) {
            Ok(Ending::Succeeded) if may_complain || verdict.errors.is_empty() => Ok(()),
            Ok(Ending::Succeeded) => Err(format!("the next job says {:?}", verdict.errors)),
            Ok(Ending::Failed(why)) => Err(format!("the next job fails: {why}")),
            Err(wrong) => Err(format!("after the next job: {wrong}")),
        }
    }

    /// What there is before the scene: what killed jobs have left, and a run that ended well before them.
    pub(crate) fn prepare(&mut self, saved: &Saved) {
        match self.scene {
            Scene::Backup | Scene::ByBlob | Scene::Restore => {}
            Scene::Cancelled => {
                let endless = Fault::new(START_COPY, Action::NeverEnding);
                self.world.emulator.fault(endless);
            }
            Scene::BackupAfterDeath => {
                assert_eq!(self.back_up(), Ok(()));
                self.guest_works();
                let (_, job) = self.backup();
                self.kill(Fault::new(START_COPY, Action::NeverEnding), job);
            }
            Scene::RestoreAfterDeath => {
                let busy = Fault::new("Blob_PutPage", Action::status(503));
                let job = self.restoration(COPIES[0], saved);
                self.kill(busy, job);
                let (folders, aside) = (self.place("restore"), self.place("aside"));
                fs::rename(&folders, &aside).expect("moved");
                let lost = Fault::new("NetworkInterfaces_CreateOrUpdate", Action::LostAnswer);
                let job = self.restoration(COPIES[0], saved);
                self.kill(lost, job);
                for folder in fs::read_dir(&aside).expect("a folder").flatten() {
                    let back = folders.join(folder.file_name());
                    fs::rename(folder.path(), back).expect("moved");
                }
                fs::remove_dir(aside).expect("empty");
            }
        }
        self.world.take_notices();
        self.world.emulator.reset_counters();
    }

    pub(crate) fn act(&mut self, saved: &Saved) -> Result<(), String> {
        match self.scene {
            Scene::Restore | Scene::RestoreAfterDeath => self.restore(saved),
            Scene::Backup | Scene::ByBlob => {
                self.back_up()?;
                self.guest_works();
                self.back_up()
            }
            Scene::Cancelled => self.cancel(),
            Scene::BackupAfterDeath => self.back_up(),
        }
    }

    /// The next job after the scene.
    pub(crate) fn act_again(&mut self, saved: &Saved) -> Result<(), String> {
        if self.scene.is_restore() {
            return self.restore(saved);
        }
        self.guest_works();
        self.back_up()
    }

    /// A run that is cancelled in the midst of its copies.
    fn cancel(&mut self) -> Result<(), String> {
        let (_, job) = self.backup();
        let cancel = mem::take(&mut self.cancel);
        let world = Arc::clone(&self.world);
        let outcome = hasten(&self.world, async move {
            let mut job = Box::pin(job);
            tokio::select! {
                outcome = &mut job => return outcome,
                () = is_asked_for(&world, START_COPY) => cancel.cancel(),
            }
            job.await
        });
        match outcome {
            Err(text) if text == CANCELLED => Err(format!("the job of {MACHINE} was {text}")),
            other => Err(wrong(&format!("it was cancelled and ends with {other:?}"))),
        }
    }

    /// Ends a job as a killed process does, in the midst of waiting for what `held` keeps from it: nothing of it comes to
    /// an end, and its folders are as they were, but nobody holds a lock.
    fn kill<T>(&mut self, held: Fault, job: impl Future<Output = T> + 'static) {
        let emulator = &self.world.emulator;
        emulator.reset_counters();
        let operation = held.operation.clone();
        emulator.fault(held);
        let world = Arc::clone(&self.world);
        hasten(&self.world, async move {
            let mut job = Box::pin(job);
            tokio::select! {
                _ = &mut job => panic!("it was not held at {operation}"),
                () = is_asked_for(&world, &operation) => {}
            }
            for place in ["state", "restore"].map(|name| world.folder.path().join(name)) {
                if place.exists() {
                    let living = place.with_extension("living");
                    fs::rename(&place, &living).expect("moved");
                    copy(&living, &place);
                    fs::remove_dir_all(living).expect("removed");
                }
            }
            mem::forget(job);
        });
        self.world.emulator.clear_faults();
    }

    fn place(&self, name: &str) -> std::path::PathBuf {
        self.world.folder.path().join(name)
    }

    fn things(&self) -> Things {
        Things::of(&self.world, &self.restored)
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
        let (name, job) = self.backup();
        let files = hasten(&self.world, job)?;
        self.check_images(&files)?;
        self.previous = Some(name);
        self.files.extend(files);
        Ok(())
    }

    /// The name of the next run, and its work.
    fn backup(
        &mut self,
    ) -> (
        String,
        impl Future<Output = Result<Vec<SavedFile>, String>> + use<>,
    ) {
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
        let name = run.job.clone();
        let options = Options {
            abort_on_error: true,
            limits: Self::limits(),
            transfer: match self.scene {
                Scene::ByBlob | Scene::Cancelled | Scene::BackupAfterDeath => {
                    Transfer::Blob(self.account())
                }
                Scene::Backup | Scene::Restore | Scene::RestoreAfterDeath => Transfer::Direct,
            },
            ..self.world.options()
        };
        let azure = self.azure();
        let notices = self.world.notices.clone();
        let job = async move {
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
        };
        (name, job)
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

    /// Under a name that is free, whose disks must hold the bytes of those that were saved.
    fn restore(&mut self, saved: &Saved) -> Result<(), String> {
        let state = self.world.state();
        let is_free = |name: &&&str| state.vm(name).is_none();
        let name = COPIES.iter().find(is_free).expect("a name is free");
        let job = self.restoration(name, saved);
        hasten(&self.world, job)?;
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
        self.restored.push(name);
        Ok(())
    }

    fn restoration(
        &mut self,
        name: &str,
        saved: &Saved,
    ) -> impl Future<Output = Result<(), String>> + use<> {
        self.jobs += 1;
        let azure = self.azure();
        let notices = self.world.notices.clone();
        let options = restore::Options {
            limits: Self::limits(),
            staging_name: self.jobs.to_string(),
            verify: self.scene == Scene::Restore,
            ..self.world.restore_options(name)
        };
        let files = saved.files.clone();
        async move {
            let mut restore = Restore::new(azure, options, notices);
            match receive(&mut restore, &files).await {
                Ok(()) => restore.complete().await,
                Err(error) => {
                    restore.abandon().await;
                    Err(error)
                }
            }
            .map(|_| ())
            .map_err(told)
        }
    }
}

/// Waits until `operation` was asked for, and for what is asked for soon after it.
async fn is_asked_for(world: &World, operation: &str) {
    while world.emulator.counters().requests(operation) == 0 {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(20)).await;
}

/// What the secret is changed to.
pub(crate) const OTHER_SECRET: &str = "rotated~secret+of/the=job";

fn told<E: std::error::Error>(error: E) -> String {
    with_causes(&error)
}

/// A folder and all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    let mode = fs::metadata(from).expect("there").permissions();
    fs::set_permissions(to, mode).expect("set");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}
