//! A clock that stands still while the service has something to answer, and runs fast while nothing is under way: what
//! Azure asks to wait for is waited for, and takes no time. For tests with a paused clock.

use std::future::Future;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::advance;

use crate::service::Service;

/// Far below every time limit of the client, so that a request that was sent but has not arrived yet comes to no harm.
pub(crate) const STEP: Duration = Duration::from_secs(1);

/// The result of `work`.
pub(crate) async fn run<T>(service: &Service, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            () = real_millisecond() => {
                if service.is_idle() {
                    advance(STEP).await;
                }
            }
        }
    }
}

/// Of the world's time: sockets are served meanwhile. The runtime does not advance a paused clock by itself as long as a
/// blocking task runs.
async fn real_millisecond() {
    spawn_blocking(|| thread::sleep(Duration::from_millis(1)))
        .await
        .unwrap();
}
