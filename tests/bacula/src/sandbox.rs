//! A private Bacula: Director with SQLite catalog, Storage Daemon and File Daemon in a temporary directory.
//!
//! Own directories, own passwords, own loopback ports; nothing of a system instance is read, written or talked to.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::daemon::{self, Daemon, Generation, Memory, Programs, Surroundings, Use};

/// Names in the generated configuration.
pub(crate) const CLIENT: &str = "bench-fd";
pub(crate) const RESTORE_JOB: &str = "restore";
const DIRECTOR: &str = "bench-dir";
const STORAGE: &str = "bench-sd";
const DEVICE: &str = "disk";
const SECOND_DEVICE: &str = "second";

/// A backup job and what it saves.
#[derive(Clone, Debug)]
pub struct JobDefinition {
    /// Name of the job; its `FileSet` is called the same.
    pub name: String,
    /// What stands in the `FileSet`'s Options, such as `signature = MD5`.
    pub options: String,
    /// The `File = …` or `Plugin = …` line.
    pub include: String,
    /// Further directives of the Job resource, such as `Accurate = yes`.
    pub directives: String,
}

impl JobDefinition {
    /// A job with one Plugin line, MD5 signatures and no compression.
    #[must_use]
    pub fn plugin(name: &str, command: &str) -> Self {
        let quoted = command.replace('\\', "\\\\").replace('"', "\\\"");
        Self {
            name: name.into(),
            options: "signature = MD5".into(),
            include: format!("Plugin = \"{quoted}\""),
            directives: String::new(),
        }
    }

    /// A job that saves ordinary files.
    #[must_use]
    pub fn files(name: &str, path: &Path) -> Self {
        Self {
            name: name.into(),
            options: "signature = MD5".into(),
            include: format!("File = \"{}\"", path.display()),
            directives: String::new(),
        }
    }

    /// The same job with further directives of the Job resource.
    #[must_use]
    pub fn with(mut self, directives: &str) -> Self {
        self.directives = directives.into();
        self
    }
}

/// How a sandbox is set up.
#[derive(Clone, Debug, Default)]
pub struct SandboxConfig {
    /// Which daemons.
    pub generation: Generation,
    /// Backup jobs.
    pub jobs: Vec<JobDefinition>,
    /// Shared object to load as `azure-vm-fd.so`; none: a File Daemon without plugins.
    pub plugin: Option<PathBuf>,
    /// Further directives of the `FileDaemon` resource.
    pub file_daemon: String,
    /// Further directives of both `Device` resources, such as `Block Checksum = no`.
    pub device: String,
    /// Further environment variables of the File Daemon.
    pub environment: Vec<(String, String)>,
    /// Further resources of the Director. `JobDefs = common` gives a Job what all jobs here have; the pools are `pool`
    /// and `copies`, which is where the jobs of `pool` are copied or migrated to.
    pub director: String,
    /// What the File Daemon, and nobody else, finds where the plugin looks for its configuration file (needs root).
    pub usual_configuration: Option<PathBuf>,
    /// Size in MiB of a RAM file system for the File Daemon's working directory (needs root).
    pub ram_working_directory: Option<u32>,
}

/// A running private Bacula; stopped and removed when dropped.
///
/// While a test panics, or after [`Sandbox::keep`], its directory stays for inspection.
#[derive(Debug)]
pub struct Sandbox {
    pub(crate) programs: Programs,
    // Daemons stand before the mount and the directory, since fields are dropped in this order.
    _director: Daemon,
    storage: Option<Daemon>,
    file_daemon: Daemon,
    _mount: Option<Mount>,
    directory: Option<TempDir>,
    root: PathBuf,
    surroundings: Surroundings,
}

impl Sandbox {
    /// Writes the configuration, creates the catalog and starts the three daemons.
    ///
    /// # Errors
    ///
    /// A program is missing, or a daemon does not come up; with its output.
    pub fn start(config: &SandboxConfig) -> Result<Self> {
        let programs = Programs::find(config.generation)?;
        let directory = tempfile::Builder::new().prefix("bacula-bench-").tempdir()?;
        let root = directory.path().to_path_buf();
        for name in ["dir", "sd", "fd", "volumes", "plugins", "restored", "log"] {
            fs::create_dir(root.join(name))?;
        }
        let mount = config
            .ram_working_directory
            .map(|mib| Mount::tmpfs(&root.join("fd"), mib))
            .transpose()?;
        if let Some(plugin) = &config.plugin {
            // A copy, because the File Daemon takes regular files only.
            let target = root.join("plugins/azure-vm-fd.so");
            fs::copy(plugin, target).with_context(|| format!("copy {}", plugin.display()))?;
        }
        create_catalog(&programs.schema(), &root.join("dir/bacula.db"))?;
        let ports = free_ports()?;
        write_configuration(&root, config, ports)?;

        let surroundings = Surroundings {
            environment: config.environment.clone(),
            usual_configuration: config.usual_configuration.clone(),
        };
        let usual = Surroundings::default();
        let start = |name, file: &str, port, surroundings: &Surroundings| {
            let log = root.join("log").join(format!("{name}.out"));
            Daemon::start(&programs, name, &root.join(file), port, log, surroundings)
        };
        let storage = start("bacula-sd", "bacula-sd.conf", ports.storage, &usual)?;
        let file_daemon = start(
            "bacula-fd",
            "bacula-fd.conf",
            ports.file_daemon,
            &surroundings,
        )?;
        let director = start("bacula-dir", "bacula-dir.conf", ports.director, &usual)?;
        Ok(Self {
            programs,
            _director: director,
            storage: Some(storage),
            file_daemon,
            _mount: mount,
            directory: Some(directory),
            root,
            surroundings,
        })
    }

    /// Leaves the directory behind when the sandbox goes, and says where it is.
    pub fn keep(&mut self) -> &Path {
        if let Some(directory) = self.directory.take() {
            drop(directory.keep());
        }
        &self.root
    }

    /// The sandbox's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The File Daemon's working directory.
    #[must_use]
    pub fn file_daemon_directory(&self) -> PathBuf {
        self.root.join("fd")
    }

    /// The folder that holds the volumes.
    #[must_use]
    pub fn volume_directory(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Process id of the File Daemon.
    #[must_use]
    pub fn file_daemon_pid(&self) -> u32 {
        self.file_daemon.pid()
    }

    /// Puts a File Daemon of another generation in the place of the running one, with an empty working directory.
    ///
    /// # Errors
    ///
    /// It does not come up; with its output.
    pub fn replace_file_daemon(&mut self, generation: Generation) -> Result<()> {
        self.file_daemon.stop()?;
        let directory = self.file_daemon_directory();
        fs::remove_dir_all(&directory)?;
        fs::create_dir(&directory)?;
        self.start_file_daemon(generation)
    }

    /// Kills the File Daemon, and starts it again as it was.
    ///
    /// # Errors
    ///
    /// It does not come up; with its output.
    pub fn crash_file_daemon(&mut self) -> Result<()> {
        self.file_daemon.kill()?;
        self.start_file_daemon(self.programs.generation())
    }

    /// Kills the Storage Daemon, and starts it again as it was.
    ///
    /// # Errors
    ///
    /// It does not come up; with its output.
    pub fn crash_storage_daemon(&mut self) -> Result<()> {
        let mut storage = self.storage.take().context("it was stopped")?;
        storage.kill()?;
        self.storage = Some(Daemon::start(
            &self.programs,
            "bacula-sd",
            &self.root.join("bacula-sd.conf"),
            storage.port(),
            self.root.join("log/bacula-sd-2.out"),
            &Surroundings::default(),
        )?);
        Ok(())
    }

    fn start_file_daemon(&mut self, generation: Generation) -> Result<()> {
        self.file_daemon = Daemon::start(
            &Programs::find(generation)?,
            "bacula-fd",
            &self.root.join("bacula-fd.conf"),
            self.file_daemon.port(),
            self.root.join("log/bacula-fd-2.out"),
            &self.surroundings,
        )?;
        Ok(())
    }

    /// Resident memory of the File Daemon.
    ///
    /// # Errors
    ///
    /// It has gone.
    pub fn file_daemon_memory(&self) -> Result<Memory> {
        daemon::memory(self.file_daemon.pid())
    }

    /// What the File Daemon holds.
    ///
    /// # Errors
    ///
    /// It has gone.
    pub fn file_daemon_use(&self) -> Result<Use> {
        daemon::in_use(self.file_daemon.pid())
    }

    /// CPU time that the File Daemon has used since its start.
    ///
    /// # Errors
    ///
    /// It has gone.
    pub fn file_daemon_cpu(&self) -> Result<Duration> {
        daemon::cpu(self.file_daemon.pid())
    }

    /// Starts a new measurement of the File Daemon's peak memory.
    ///
    /// # Errors
    ///
    /// It has gone.
    pub fn reset_file_daemon_peak(&self) -> Result<()> {
        daemon::reset_peak(self.file_daemon.pid())
    }

    /// Extracts one file from a volume with `bextract`, without any plugin, below `target`; returns where it is.
    ///
    /// The Storage Daemon is stopped first: `bextract` opens its device.
    ///
    /// # Errors
    ///
    /// `bextract` fails, or the file does not appear.
    pub fn bextract(&mut self, volume: &str, file: &str, target: &Path) -> Result<PathBuf> {
        drop(self.storage.take());
        let list = self.root.join("bextract.list");
        fs::write(&list, format!("{file}\n"))?;
        let output = Command::new(self.programs.path("bextract"))
            .arg("-c")
            .arg(self.root.join("bacula-sd.conf"))
            .arg("-i")
            .arg(&list)
            .args(["-V", volume, DEVICE])
            .arg(target)
            .stdin(Stdio::null())
            .output()
            .context("run bextract")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "extract {file} from volume {volume}: bextract ended with {}\n{text}",
            output.status
        );
        let extracted = target.join(file.trim_start_matches('/'));
        ensure!(
            extracted.is_file(),
            "extract {file} from volume {volume}: no such file came out\n{text}"
        );
        Ok(extracted)
    }
}

impl Drop for Sandbox {
    #[allow(
        clippy::print_stderr,
        reason = "whoever reads a failed test wants to know where the logs are"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the sandbox stays in {}", self.keep().display());
        }
    }
}

/// A RAM file system, unmounted when dropped.
#[derive(Debug)]
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(path: &Path, mib: u32) -> Result<Self> {
        let output = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={mib}m,mode=0700"),
                "tmpfs",
            ])
            .arg(path)
            .output()?;
        ensure!(
            output.status.success(),
            "mount a file system of {mib} MiB: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(Self(path.to_path_buf()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a daemon that had to be killed may still be going.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// Whether this process may mount file systems.
#[must_use]
pub fn can_mount() -> bool {
    tempfile::tempdir()
        .map_err(anyhow::Error::from)
        .and_then(|directory| Mount::tmpfs(directory.path(), 1))
        .is_ok()
}

fn create_catalog(schema: &Path, database: &Path) -> Result<()> {
    let status = Command::new("sqlite3")
        .arg(database)
        .stdin(File::open(schema)?)
        .stdout(Stdio::null())
        .status()
        .context("run sqlite3")?;
    ensure!(
        status.success(),
        "create the catalog: sqlite3 ended with {status}"
    );
    Ok(())
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    director: u16,
    storage: u16,
    file_daemon: u16,
}

/// Three free ports below Linux's range for outgoing connections (from 32768 on), so that no connection takes one
/// between the choice and the daemon's start. The sandboxes of a process take turns, so none takes one of another whose daemon is yet
/// to start, or starts again; those of several processes begin at different places.
fn free_ports() -> Result<Ports> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static TURN: OnceLock<AtomicU32> = OnceLock::new();
    let begin = u16::from_le_bytes(random()?).into();
    let turn = TURN.get_or_init(|| AtomicU32::new(begin));
    let mut free = (0..COUNT)
        .map(|_| FIRST + turn.fetch_add(1, Relaxed) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    let mut next = || free.next().context("find a free loopback port");
    Ok(Ports {
        director: next()?,
        storage: next()?,
        file_daemon: next()?,
    })
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn password() -> Result<String> {
    Ok(format!("{:032x}", u128::from_le_bytes(random()?)))
}

fn write_configuration(root: &Path, config: &SandboxConfig, ports: Ports) -> Result<()> {
    let (console, file_daemon, storage) = (password()?, password()?, password()?);
    fs::write(root.join("query.sql"), "")?;
    fs::write(
        root.join("bacula-dir.conf"),
        director_configuration(root, config, ports, [&console, &file_daemon, &storage]),
    )?;
    fs::write(
        root.join("bconsole.conf"),
        format!(
            "Director {{ Name = {DIRECTOR}; DIRport = {}; address = 127.0.0.1; Password = \"{console}\" }}\n",
            ports.director
        ),
    )?;
    fs::write(
        root.join("bacula-sd.conf"),
        format!(
            "Storage {{ Name = {STORAGE}; SDPort = {port}; SDAddress = 127.0.0.1
  WorkingDirectory = \"{root}/sd\"; Pid Directory = \"{root}/sd\"; Maximum Concurrent Jobs = 10 }}
Director {{ Name = {DIRECTOR}; Password = \"{storage}\" }}
Device {{ Name = {DEVICE}; Media Type = File; {device} }}
Device {{ Name = {SECOND_DEVICE}; Media Type = Second; {device} }}
Messages {{ Name = std; director = {DIRECTOR} = all }}
",
            port = ports.storage,
            root = root.display(),
            device = format_args!(
                "Archive Device = \"{}/volumes\"; Device Type = File; LabelMedia = yes; Random Access = yes
  AutomaticMount = yes; RemovableMedia = no; AlwaysOpen = no; {}",
                root.display(),
                config.device
            ),
        ),
    )?;
    let plugins = config
        .plugin
        .as_ref()
        .map(|_| format!("Plugin Directory = \"{}/plugins\"", root.display()))
        .unwrap_or_default();
    fs::write(
        root.join("bacula-fd.conf"),
        format!(
            "FileDaemon {{ Name = {CLIENT}; FDPort = {port}; FDAddress = 127.0.0.1
  WorkingDirectory = \"{root}/fd\"; Pid Directory = \"{root}/log\"; Maximum Concurrent Jobs = 10
  {plugins}
  {more}
}}
Director {{ Name = {DIRECTOR}; Password = \"{file_daemon}\" }}
Messages {{ Name = std; director = {DIRECTOR} = all, !skipped, !restored }}
",
            port = ports.file_daemon,
            root = root.display(),
            more = config.file_daemon,
        ),
    )?;
    Ok(())
}

fn director_configuration(
    root: &Path,
    config: &SandboxConfig,
    ports: Ports,
    [console, file_daemon, storage]: [&str; 3],
) -> String {
    let root = root.display();
    let [first, second] = [DEVICE, SECOND_DEVICE].map(|device| {
        format!(
            "Address = 127.0.0.1; SDPort = {}; Password = \"{storage}\"; Device = {device}
  Maximum Concurrent Jobs = 10",
            ports.storage
        )
    });
    let pool = "Pool Type = Backup; Maximum Volume Jobs = 1; AutoPrune = no; Recycle = no";
    let mut text = format!(
        "Director {{ Name = {DIRECTOR}; DIRport = {director_port}; DirAddress = 127.0.0.1
  QueryFile = \"{root}/query.sql\"; WorkingDirectory = \"{root}/dir\"; PidDirectory = \"{root}/dir\"
  Maximum Concurrent Jobs = 10; Password = \"{console}\"; Messages = std }}
Catalog {{ Name = catalog; dbname = \"bacula\"; dbuser = \"\"; dbpassword = \"\" }}
Client {{ Name = {CLIENT}; Address = 127.0.0.1; FDPort = {file_daemon_port}; Catalog = catalog
  Password = \"{file_daemon}\"; AutoPrune = no; Maximum Concurrent Jobs = 10 }}
Storage {{ Name = {STORAGE}; Media Type = File; {first} }}
Storage {{ Name = second; Media Type = Second; {second} }}
Pool {{ Name = pool; Storage = {STORAGE}; Next Pool = copies; Label Format = \"volume-\"; {pool} }}
Pool {{ Name = copies; Storage = second; Label Format = \"second-\"; {pool} }}
Messages {{ Name = std; console = all, !skipped, !saved; append = \"{root}/log/messages\" = all; catalog = all }}
FileSet {{ Name = nothing; Include {{ Options {{ signature = MD5 }} }} }}
JobDefs {{ Name = common; Client = {CLIENT}; Pool = pool; Messages = std; Maximum Concurrent Jobs = 10 }}
Job {{ Name = {RESTORE_JOB}; Type = Restore; FileSet = nothing; Where = \"{root}/restored\"; JobDefs = common }}
{more}
",
        director_port = ports.director,
        file_daemon_port = ports.file_daemon,
        more = config.director,
    );
    for JobDefinition {
        name,
        options,
        include,
        directives,
    } in &config.jobs
    {
        text += &format!(
            "FileSet {{ Name = \"{name}\"; Ignore FileSet Changes = yes
  Include {{ Options {{ {options} }}
    {include}
  }} }}
Job {{ Name = \"{name}\"; Type = Backup; Level = Full; FileSet = \"{name}\"; JobDefs = common
  {directives}
}}
"
        );
    }
    text
}
