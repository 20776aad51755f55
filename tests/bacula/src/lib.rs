//! Real Bacula daemons for tests: a private Director, Storage Daemon and File Daemon that load the plugin, and guest
//! disks with real content to save.

mod console;
mod daemon;
mod guest_disk;
mod plugin;
mod sandbox;
mod tool;

pub use console::{JobReport, RestoreRequest};
pub use daemon::{BACULA_VERSION, Memory, workspace};
pub use guest_disk::{GIB, GuestDisk, KIB, MIB, check_file_system, compare_images, fill_pattern};
pub use plugin::plugin;
pub use sandbox::{JobDefinition, Sandbox, SandboxConfig, can_mount};
