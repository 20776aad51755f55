//! Azure as the tests need it: the emulator with one VM, and what a job has to be told to reach it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mock_server::{
    Config, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_SUBSCRIPTION, DEFAULT_TENANT, Disk,
    Emulator, MIB, OperationPolicy, Scenario, Vm,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Disks of the VM, OS disk first.
pub(crate) const DISKS: [&str; 3] = ["web-01-os", "web-01-data", "web-01-empty"];
pub(crate) const OS_DISK_SIZE: u64 = 64 * MIB;

/// A cloud and the working directory of a File Daemon.
pub(crate) struct Cloud {
    pub(crate) emulator: Emulator,
    pub(crate) dir: TempDir,
    _runtime: Runtime,
    /// One job at a time, so that its threads can be counted.
    _alone: MutexGuard<'static, ()>,
}

impl Cloud {
    /// One VM, `web-01`, with disks on LUNs 0 and 5.
    pub(crate) fn start() -> Self {
        let os = Disk::new(DISKS[0], OS_DISK_SIZE)
            .pattern(1, 0, MIB)
            .pattern(2, 40 * MIB + 512, 3 * MIB);
        let data = Disk::new(DISKS[1], 32 * MIB).pattern(3, 5 * MIB, MIB + 1024);
        let empty = Disk::new(DISKS[2], 24 * MIB);
        let vm = Vm::new("rg1", "web-01", os)
            .data_disk(0, data)
            .data_disk(5, empty);
        Self::with(Scenario::new().vm(vm))
    }

    /// What the scenario describes.
    pub(crate) fn with(scenario: Scenario) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = Runtime::new().expect("runtime");
        let config = Config {
            scenario,
            // Many jobs: the client's waits between polls would add up.
            operations: OperationPolicy {
                results_at_once: true,
                ..OperationPolicy::default()
            },
            ..Config::default()
        };
        let emulator = runtime.block_on(Emulator::start(config)).expect("emulator");
        let dir = tempfile::tempdir().expect("folder");
        let url = emulator.http_url();
        let text = format!(
            "[emulator]\ntenant_id = {DEFAULT_TENANT}\nsubscription_id = {DEFAULT_SUBSCRIPTION}\n\
             application_id = {DEFAULT_CLIENT_ID}\napplication_secret = {DEFAULT_CLIENT_SECRET}\n\
             arm_endpoint = {url}\nauthority = {url}\nallow_http = yes\n"
        );
        let file = dir.path().join("azure-vm.conf");
        std::fs::write(&file, text).expect("configuration file");
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("mode");
        Self {
            emulator,
            dir,
            _runtime: runtime,
            _alone: alone,
        }
    }

    pub(crate) fn working_dir(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// A Plugin line.
    pub(crate) fn command(&self, parameters: &str) -> String {
        let config = self.dir.path().join("azure-vm.conf");
        format!("azure-vm: config={} {parameters}", config.display())
    }

    /// Nothing is open, running or left behind, but for snapshots of good runs.
    pub(crate) fn assert_clean(&self, snapshots: usize) {
        self.assert_idle();
        self.assert_snapshots(snapshots);
    }

    /// The same of what there is in Azure, while the job is still there.
    pub(crate) fn assert_given_back(&self, snapshots: usize) {
        self.assert_closed();
        self.assert_snapshots(snapshots);
    }

    fn assert_snapshots(&self, count: usize) {
        let found = self.emulator.state().snapshots;
        assert_eq!(found.len(), count, "{found:?}");
    }

    fn assert_closed(&self) {
        let state = self.emulator.state();
        assert!(state.grants.is_empty(), "{:?}", state.grants);
        assert!(state.running_operations.is_empty());
    }

    /// Nothing is open, running or left behind locally.
    pub(crate) fn assert_idle(&self) {
        self.assert_closed();
        assert_eq!(self.emulator.unmodelled(), Vec::<String>::new());
        let staging = self.working_dir().join("azure-vm/restore");
        let left = std::fs::read_dir(staging).map_or(0, Iterator::count);
        assert_eq!(left, 0, "local images");
        // The system may list a thread for a moment after it was joined.
        let gone = (0..100).any(|_| {
            let gone = threads() == 0;
            if !gone {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            gone
        });
        assert!(gone, "{} threads of the plugin", threads());
    }
}

/// Threads of the plugin in this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .expect("threads")
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim() == "azure-vm")
        .count()
}
