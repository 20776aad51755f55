//! A File Daemon of our own: it loads the shared object as the real one does, and drives its C table in Bacula's order
//! and in orders that must not happen, for every version of the interface.
//!
//! The numbers in [`numbers`] are written down a second time, from what the daemons report, and share nothing with the
//! plugin's own declarations.

#![allow(
    unsafe_code,
    clippy::multiple_unsafe_ops_per_block,
    clippy::cast_sign_loss,
    reason = "a host of a C interface; the plugin's own unsafe code is what is tested here"
)]

mod chain;
mod cloud;
mod director;
mod disorder;
mod host;
mod integrity;
mod jobs;
mod library;
#[path = "../support/life.rs"]
mod life;
mod links;
mod load;
mod messages;
mod numbers;
mod panics;
mod queries;
mod round_trip;
mod symbols;
