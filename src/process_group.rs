//! Programs that are asked for what they print: without input, and with a bound on the output. Limits of time are their caller's.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// How often a program that has closed its output is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// How often one that was killed is.
const LOOKS: u32 = 100;

/// A program and whatever it started, in a process group of its own; killed when dropped.
pub(crate) struct ProcessGroup(Child);

impl ProcessGroup {
    /// Starts the program.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }

    /// The first `max_bytes` of what it prints; waits for these, or for the end of the output.
    pub(crate) async fn output(&mut self, max_bytes: u64) -> io::Result<Vec<u8>> {
        let stdout = self.0.stdout.take().map(OwnedFd::from);
        let stdout = stdout.ok_or_else(|| io::Error::other("no output"))?;
        let mut bytes = Vec::new();
        let stdout = pipe::Receiver::from_owned_fd(stdout)?;
        stdout.take(max_bytes).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    /// Waits for the end of the program; an error if that is not a good one.
    ///
    /// Its process stays as a zombie until this value is dropped, so that the number stays this group's. No handler of signals is
    /// needed, which are the host's.
    pub(crate) async fn success(&self) -> io::Result<()> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            match waitid(Id::Pid(self.id()?), flags)? {
                WaitStatus::Exited(_, 0) => return Ok(()),
                WaitStatus::Exited(_, code) => {
                    return Err(io::Error::other(format!("exit status {code}")));
                }
                WaitStatus::Signaled(_, signal, _) => {
                    return Err(io::Error::other(format!("ended by {signal}")));
                }
                WaitStatus::StillAlive
                | WaitStatus::Stopped(..)
                | WaitStatus::Continued(..)
                | WaitStatus::PtraceEvent(..)
                | WaitStatus::PtraceSyscall(..) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn id(&self) -> io::Result<Pid> {
        let id = i32::try_from(self.0.id()).map_err(io::Error::other)?;
        Ok(Pid::from_raw(id))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // Not waited for yet, so the number is still this group's. Fails only if all of it is gone.
        if let Ok(id) = self.id() {
            killpg(id, Signal::SIGKILL).ok();
        }
        // What was killed is gone in no time. Only what may not be killed, or hangs in the kernel, is left behind, as a zombie in the end.
        for _ in 0..LOOKS {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn start(script: &str) -> ProcessGroup {
        ProcessGroup::start(Command::new("/bin/sh").args(["-c", script])).expect("sh")
    }

    #[tokio::test]
    async fn how_a_program_ends_is_told() {
        for (script, ends) in [
            ("echo x", "Ok(())"),
            ("exit 3", "Err(\"exit status 3\")"),
            ("kill -9 $$", "Err(\"ended by SIGKILL\")"),
        ] {
            let end = start(script).success().await;
            let end = end.map_err(|error| error.to_string());
            assert_eq!(format!("{end:?}"), ends, "{script}");
        }
    }

    #[tokio::test]
    async fn a_program_without_output_that_does_not_end_is_waited_for_and_killed() {
        let mut group = start("exec >&-; sleep 1000");
        assert_eq!(group.output(10).await.expect("an end"), b"");
        let waited = timeout(20 * LOOK, group.success()).await;
        assert!(waited.is_err(), "{waited:?}");
        let process = format!("/proc/{}", group.0.id());
        drop(group);
        assert!(!std::path::Path::new(&process).exists());
    }
}
