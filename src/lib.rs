//! Backs up Microsoft Azure virtual machines through Bacula.

pub mod azure;
pub mod backup;
pub mod catalog;
pub mod config;
pub mod debug_log;
pub mod document;
#[allow(
    unsafe_code,
    reason = "the C interface of the File Daemon is unsafe by nature; nothing else is"
)]
mod ffi;
mod json;
pub mod notice;
pub mod pipeline;
pub mod plugin;
pub mod quantity;
pub mod range;
pub mod restore;
pub mod secret;
pub mod vhd;
