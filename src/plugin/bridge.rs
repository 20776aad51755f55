//! From the host's thread into the asynchronous core: the only place that blocks.
//!
//! The host calls on one thread per job and expects an answer; the core is asynchronous. A [`Bridge`] holds the job's
//! runtime: made by the first call that needs it, gone with the job. No thread of it ever runs a signal handler of the
//! host, and every wait ends when the job is cancelled.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::Dispatch;
use tracing::dispatcher::{DefaultGuard, set_default};

/// Enough for TLS beside the job's own thread; all else is waiting.
const WORKERS: usize = 2;

/// How long a wait keeps the job's thread from doing anything else, such as sending messages.
const MEANWHILE: Duration = Duration::from_secs(1);

/// Bounds each half of the end of a job, also after a cancel: recording; giving back and deleting. All other waits end at once then, and
/// requests have shorter deadlines.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(900);

/// How long the end of the runtime may wait for a name look-up that hangs.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

thread_local! {
    /// Keeps the job's debug file the default of a runtime thread until the thread ends.
    static DEBUG_LOG: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// A job's runtime.
#[derive(Debug)]
pub(super) struct Bridge {
    /// `None` only while dropping.
    runtime: Option<Runtime>,
    handle: Handle,
    cancel: CancellationToken,
}

impl Bridge {
    /// Starts the threads; what is traced on them and by what they wait for goes to `debug_log`.
    ///
    /// # Errors
    ///
    /// The system gives no threads.
    pub(super) fn start(
        cancel: CancellationToken,
        debug_log: Option<Dispatch>,
    ) -> io::Result<Self> {
        let _blocked = SignalsBlocked::new();
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("azure-vm")
            .enable_all()
            .on_thread_start(move || {
                // Threads inherit the mask of their creator, which has it blocked, too; this says it once more.
                block_signals();
                let guard = debug_log.as_ref().map(set_default);
                DEBUG_LOG.with(|slot| *slot.borrow_mut() = guard);
            })
            .on_thread_stop(|| DEBUG_LOG.with(|slot| drop(slot.borrow_mut().take())))
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            cancel,
        })
    }

    /// For what is dropped outside of a wait and has to start something then.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits for `work`; `None` as soon as the job is cancelled, `work` is dropped then.
    pub(super) fn race<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.block_on(async {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => None,
                result = work => Some(result),
            }
        })
    }

    /// Waits for `work` that holds something: when the job is cancelled it has a while to end by itself. `None` if it
    /// did not. Every now and then `meanwhile` runs on the caller's thread, outside of the runtime.
    pub(super) fn run<T>(
        &self,
        work: impl Future<Output = T>,
        mut meanwhile: impl FnMut(),
    ) -> Option<T> {
        let mut work = pin!(work);
        while !self.cancel.is_cancelled() {
            let result = self.block_on(async {
                tokio::select! {
                    biased;
                    result = &mut work => Some(result),
                    () = self.cancel.cancelled() => None,
                    () = tokio::time::sleep(MEANWHILE) => None,
                }
            });
            if result.is_some() {
                return result;
            }
            meanwhile();
        }
        self.block_on(async { tokio::time::timeout(CLEAN_UP_LIMIT, work).await.ok() })
    }

    /// Waits for `work` that gives back what the job held, cancelled or not; `None` if it takes too long.
    pub(super) fn clean_up<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.block_on(async { tokio::time::timeout(CLEAN_UP_LIMIT, work).await.ok() })
    }

    fn block_on<T>(&self, work: impl Future<Output = Option<T>>) -> Option<T> {
        let runtime = self.runtime.as_ref()?;
        // A thread that is started from here must not see the host's signals, not even before its first line.
        let _blocked = SignalsBlocked::new();
        runtime.block_on(work)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(SHUTDOWN_LIMIT);
        }
    }
}

fn block_signals() {
    // Fails only for an invalid argument, which this is not.
    let blocked = SigSet::all().thread_block();
    debug_assert!(blocked.is_ok());
}

/// The present thread with all signals blocked, until dropped.
struct SignalsBlocked(Option<SigSet>);

impl SignalsBlocked {
    fn new() -> Self {
        Self(SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let restored = before.thread_set_mask();
            debug_assert!(restored.is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn cancel_ends_a_race_and_leaves_a_clean_up_alone() {
        let cancel = CancellationToken::new();
        let bridge = Bridge::start(cancel.clone(), None).expect("threads");
        assert_eq!(bridge.race(async { 1 }), Some(1));
        cancel.cancel();
        assert_eq!(bridge.race(std::future::pending::<()>()), None);
        let inner = cancel.clone();
        let unwinding = async move {
            inner.cancelled().await;
            tokio::task::yield_now().await;
            "given back"
        };
        let unwound = bridge.run(unwinding, || panic!("nothing to wait for"));
        assert_eq!(unwound, Some("given back"));
        assert_eq!(bridge.clean_up(async { 2 }), Some(2));
    }

    #[test]
    fn threads_have_all_signals_blocked_and_the_caller_keeps_its_own() {
        let before = SigSet::thread_get_mask().expect("mask");
        let bridge = Bridge::start(CancellationToken::new(), None).expect("threads");
        let (sender, receiver) = mpsc::channel();
        let blocked = |sender: mpsc::Sender<bool>| {
            move || {
                let mask = SigSet::thread_get_mask().expect("mask");
                let all = [Signal::SIGTERM, Signal::SIGUSR2, Signal::SIGINT];
                sender
                    .send(all.into_iter().all(|signal| mask.contains(signal)))
                    .expect("receiver lives");
            }
        };
        let worker = blocked(sender.clone());
        let blocking = blocked(sender);
        bridge.clean_up(async move {
            tokio::spawn(async move { worker() }).await.expect("ran");
            tokio::task::spawn_blocking(blocking).await.expect("ran");
        });
        assert_eq!(receiver.iter().take(2).collect::<Vec<_>>(), [true, true]);
        drop(bridge);
        assert_eq!(SigSet::thread_get_mask().expect("mask"), before);
    }
}
