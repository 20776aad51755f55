//! Real Bacula daemons for tests: a private Director, Storage Daemon and File Daemon that load the plugin, guest disks
//! with real content to save, and the emulator in place of Azure.

mod bench;
mod cloud;
mod compare;
mod console;
mod daemon;
mod guest_disk;
mod ledger;
mod moment;
mod plugin;
mod sandbox;
mod tool;
mod trial;

pub use bench::{Bench, JOB, RESTORED};
pub use cloud::Cloud;
pub use compare::{CloudDisk, Image, compare};
pub use console::{JobReport, RestoreRequest};
pub use daemon::{Generation, Memory, USUAL_CONFIGURATION, Use, workspace};
pub use guest_disk::{GuestDisk, check_file_system, check_vhd_footer, compare_images};
pub use ledger::{Finding, Ledger, VmShape, compare_vms, leftovers, mebibytes};
pub use moment::{HANG, Moment, number};
pub use plugin::plugin;
pub use sandbox::{JobDefinition, Sandbox, SandboxConfig, can_mount};
pub use trial::{Listing, Trial, try_all};
