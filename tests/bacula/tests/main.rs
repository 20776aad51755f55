//! Jobs on real Bacula daemons of both generations, against the emulator.
#![allow(clippy::print_stdout, reason = "tests show what they did and measured")]

mod chains;
mod changes;
mod configuration;
mod contract;
mod damage;
mod disks;
mod encryption;
mod faults;
mod features;
mod levels;
mod memory;
mod messages;
mod parameters;
mod queries;
mod raw_image;
mod restores;
mod rights;
mod round_trip;
mod sandbox;
mod secrets;
mod selection;
mod snapshots;
mod source_tree;
mod threads;
mod torture;
mod transfer_blob;
