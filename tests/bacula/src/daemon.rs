//! One Bacula daemon as a child process: found, started in the foreground, watched, stopped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A series of Bacula. Each is unpacked below `target/` by `make deps`, with the libraries of its release of Debian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// 9.6 of Debian 12: plugin interface 14.
    #[default]
    V9_6,
    /// 15.0 of Debian 13: plugin interface 23.
    V15_0,
}

/// Makes a test for each generation of each `fn(Generation) -> Result<()>`: `bacula_9_6::name`, `bacula_15_0::name`.
#[macro_export]
macro_rules! on_both_generations {
    ($($name:ident),+ $(,)?) => {
        mod bacula_9_6 {
            $(#[test] fn $name() -> anyhow::Result<()> { super::$name($crate::Generation::V9_6) })+
        }
        mod bacula_15_0 {
            $(#[test] fn $name() -> anyhow::Result<()> { super::$name($crate::Generation::V15_0) })+
        }
    };
}

/// Where the plugin looks for its configuration file if nobody names one.
pub const USUAL_CONFIGURATION: &str = "/opt/bacula/etc/azure-vm.conf";

/// How long a daemon may take to listen. Measured: 0.3 s; the rest is for a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long a daemon may take to end after SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Bacula's programs of one generation.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    generation: Generation,
    prefix: PathBuf,
}

impl Programs {
    /// # Errors
    ///
    /// They are not there.
    pub(crate) fn find(generation: Generation) -> Result<Self> {
        let series = match generation {
            Generation::V9_6 => "9.6",
            Generation::V15_0 => "15.0",
        };
        let prefix = workspace().join("target").join(format!("bacula-{series}"));
        ensure!(
            prefix.join("complete").is_file(),
            "find Bacula {series}: it is not unpacked; run `make deps`"
        );
        Ok(Self { generation, prefix })
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// Path of one of the programs. They find their libraries by themselves.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.prefix.join("usr/sbin").join(name)
    }

    /// The catalog's schema for SQLite.
    #[must_use]
    pub(crate) fn schema(&self) -> PathBuf {
        self.prefix
            .join("usr/share/dbconfig-common/data/bacula-director-sqlite3/install/sqlite3")
    }
}

/// The root of the source tree.
#[must_use]
pub fn workspace() -> &'static Path {
    // Two levels up from this package; both exist, or it could not have been compiled.
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// What a daemon finds around itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// Further environment variables.
    pub(crate) environment: Vec<(String, String)>,
    /// What it finds at [`USUAL_CONFIGURATION`], and it alone.
    pub(crate) usual_configuration: Option<PathBuf>,
}

impl Surroundings {
    /// A command that runs `program` in them, without a process of its own.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]);
        if let Some(file) = &self.usual_configuration {
            // In a mount namespace of its own everything below /opt is hidden.
            let script = format!(
                "mount -t tmpfs tmpfs /opt && install -D -m 600 \"$1\" {USUAL_CONFIGURATION} && shift && exec \"$@\""
            );
            command
                .args(["unshare", "--mount", "--", "sh", "-c", &script, "sh"])
                .arg(file);
        }
        command
            .arg(program)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A running daemon; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: &'static str,
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Daemon {
    /// Starts `name -fc config` and waits until it listens on `port` itself.
    ///
    /// The daemon is told to end when the calling *thread* ends (`PR_SET_PDEATHSIG`), so that a killed test leaves
    /// nothing running: call this on the thread that keeps the daemon.
    ///
    /// # Errors
    ///
    /// It cannot be started, ends at once, or does not listen in time; with the end of its output.
    pub(crate) fn start(
        programs: &Programs,
        name: &'static str,
        config: &Path,
        port: u16,
        log: PathBuf,
        surroundings: &Surroundings,
    ) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let child = surroundings
            .command(&programs.path(name))
            // Together, as service files write it.
            .arg("-fc")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let mut daemon = Self {
            name,
            child,
            port,
            log,
        };
        daemon.wait_until_listening(port)?;
        Ok(daemon)
    }

    /// Process id.
    #[must_use]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    #[must_use]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn wait_until_listening(&mut self, port: u16) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "start {}: it ended with {status}\n{}",
                    self.name,
                    self.output()
                );
            }
            if owns_listener(self.pid(), port)? {
                return Ok(());
            }
            ensure!(
                started.elapsed() < START_LIMIT,
                "start {}: not listening on port {port} after {START_LIMIT:?}\n{}",
                self.name,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    ///
    /// It cannot be signalled.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it, if need be by force.
    ///
    /// # Errors
    ///
    /// It cannot be signalled.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(pid, Signal::SIGTERM)?;
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            if started.elapsed() > STOP_LIMIT {
                return self.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A daemon that has gone already is stopped enough.
        self.stop().ok();
    }
}

/// Whether process `pid` itself listens on the loopback `port`: an open port alone could be somebody else's.
fn owns_listener(pid: u32, port: u16) -> Result<bool> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp")?;
    let Some(inode) = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let matches = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
        matches.then(|| fields.get(9).copied())?
    }) else {
        return Ok(false);
    };
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Ok(false);
    };
    Ok(descriptors
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == socket)))
}

/// Resident memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident now, in bytes.
    pub resident: u64,
    /// Highest resident since the start or the last reset, in bytes.
    pub peak: u64,
}

/// Reads `VmRSS` and `VmHWM` of a process (proc(5)).
///
/// # Errors
///
/// The process has gone.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim_start_matches(':').split_whitespace().next())
            .with_context(|| format!("read {name} of process {pid}"))?
            .parse()?;
        Ok(kib * 1024)
    };
    Ok(Memory {
        resident: field("VmRSS")?,
        peak: field("VmHWM")?,
    })
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// Resident memory in bytes.
    pub resident: u64,
    /// Threads.
    pub threads: usize,
    /// Open descriptors.
    pub descriptors: usize,
    /// Those of them that are sockets.
    pub sockets: usize,
}

/// Looks at a process from outside (proc(5)).
///
/// # Errors
///
/// The process has gone.
pub(crate) fn in_use(pid: u32) -> Result<Use> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?;
    // One may be closed while it is looked at.
    let open: Vec<_> = open
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect();
    let is_socket = |path: &&PathBuf| path.to_string_lossy().starts_with("socket:");
    Ok(Use {
        resident: memory(pid)?.resident,
        threads: fs::read_dir(format!("/proc/{pid}/task"))?.count(),
        descriptors: open.len(),
        sockets: open.iter().filter(is_socket).count(),
    })
}

/// Sets the peak of a process back to what is resident now (`clear_refs`, value 5: proc(5)).
///
/// # Errors
///
/// The process has gone, or it is not ours.
pub(crate) fn reset_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
        .with_context(|| format!("reset the peak memory of process {pid}"))
}

/// The CPU time that a process has used, with all its threads, those that have ended too (proc(5)).
///
/// # Errors
///
/// The process has gone.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    /// Milliseconds of a tick (`USER_HZ`), the same on all architectures that Bacula is packaged for.
    const TICK: u64 = 10;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in brackets, which may hold anything; user and system time are the 14th and 15th.
    let (_, fields) = stat
        .rsplit_once(')')
        .with_context(|| format!("read the times of process {pid}"))?;
    let mut ticks = 0;
    for field in fields.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<u64>()?;
    }
    Ok(Duration::from_millis(ticks * TICK))
}
