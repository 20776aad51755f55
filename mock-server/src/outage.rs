//! Times in which nobody gets through: connections that are refused, or that meet a stranger's certificate, and names that
//! lead nowhere.
use crate::{clock::Instant, sync::lock};
use std::{sync::Mutex, time::Duration};
use tokio::sync::watch;

/// What is the matter with the way to the service.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    until: Mutex<Until>,
    listening: Mutex<usize>,
    /// Changes when all connections are to be reset.
    pub(crate) cut: watch::Sender<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Until {
    refused: Instant,
    distrusted: Instant,
    unknown: Instant,
}

impl Outage {
    pub(crate) fn refuse(&self, now: Instant, seconds: u32) {
        lock(&self.until).refused = now + Duration::from_secs(seconds.into());
    }

    pub(crate) fn distrust(&self, now: Instant, seconds: u32) {
        lock(&self.until).distrusted = now + Duration::from_secs(seconds.into());
    }

    pub(crate) fn forget_names(&self, now: Instant, seconds: u32) {
        lock(&self.until).unknown = now + Duration::from_secs(seconds.into());
    }

    /// All is well again.
    pub(crate) fn end(&self) {
        *lock(&self.until) = Until::default();
    }

    pub(crate) fn is_refused(&self, now: Instant) -> bool {
        now < lock(&self.until).refused
    }

    pub(crate) fn is_distrusted(&self, now: Instant) -> bool {
        now < lock(&self.until).distrusted
    }

    pub(crate) fn is_unknown(&self, now: Instant) -> bool {
        now < lock(&self.until).unknown
    }

    /// Whether new connections fare badly, in one way or another.
    pub(crate) fn is_on(&self, now: Instant) -> bool {
        self.is_refused(now) || self.is_distrusted(now) || self.is_unknown(now)
    }

    pub(crate) fn listener_opened(&self) {
        *lock(&self.listening) += 1;
    }

    pub(crate) fn listener_closed(&self) {
        *lock(&self.listening) -= 1;
    }

    /// Whether nobody listens.
    pub(crate) fn is_closed(&self) -> bool {
        *lock(&self.listening) == 0
    }
}
