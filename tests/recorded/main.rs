//! The client against recorded answers of Azure, served byte for byte (`tests/recordings`): it must come to the right
//! result. The emulator answers the recorded requests in `mock-server/tests/recorded`.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod access;
mod clock;
mod disks;
mod errors;
mod machines;
mod operations;
mod recording;
mod round_trip;
mod service;
