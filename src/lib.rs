//! Backs up Microsoft Azure virtual machines through Bacula.
//!
//! One library with two faces: as `azure-vm-fd.so` the Bacula File Daemon loads it, and `azure-vm` is a command line on
//! the same core. Dependencies point downward only:
//!
//! ```text
//! ffi  ->  plugin  ->  { backup, restore }  ->  { pipeline, azure }      config below plugin
//!          azure-vm (command line)  --^
//! ```
//!
//! [`backup`] and [`restore`] know nothing of Bacula, [`pipeline`] knows neither Bacula nor Azure, and what is `unsafe` is
//! in `ffi`. The words are those of the fields: Azure's for Azure, Bacula's for Bacula.
//!
//! # A backup, from the range request to the host's buffer
//!
//! The host's calls enter at `ffi`, which makes safe views of its packets and hands them to `plugin::PluginContext`. The
//! plugin command becomes [`config::Settings`]; nothing is sent before it is valid. [`backup::Backup::begin`] clears what
//! dead predecessors left, lists the VMs and keeps those that [`config::Selection`] chooses.
//!
//! [`backup::Backup::next_vm`] prepares a VM: it reads the VM, its interfaces and disks, takes the snapshots of all disks at
//! the same time, waits until each is readable, and obtains an [`azure::AccessGrant`] for each. A
//! [`backup::ExportedImage`] proves that what is behind the grant is a fixed VHD of the right size, and plans what to read.
//! Now the [`document::Document`] is complete, and [`backup::VmBackup`] hands out the entries under their [`catalog`] names.
//!
//! A byte of a disk then takes six steps:
//!
//! 1. A [`pipeline::ReadPlan`] holds its range, because Azure lists it as allocated.
//! 2. The [`pipeline::ReadQueue`] cuts ranges into chunks and requests as many of them as pay off.
//! 3. [`azure::PageBlob::read_into`] fetches the chunk, whose bytes take their room in memory as they arrive; the one retry loop is
//!    there, and a body that is short, long or displaced is an error.
//! 4. The [`pipeline::ChunkReader`] hands finished chunks over in disk order.
//! 5. The [`pipeline::ImageReader`] copies them into blocks that never span a gap and leaves zeros out, but for the
//!    image's last block.
//! 6. [`backup::DiskImage::read_block`] fills the host's buffer; the block's offset goes with it. Its room is free
//!    again.
//!
//! [`backup::DiskImage::finish`] checks that the image is complete, and gives access back. [`backup::Backup::finish`]
//! records the snapshots of a good run, or removes those of a bad one.
//!
//! # A restore, from the host's buffer to a running VM
//!
//! Each file that comes is announced to [`restore::Restore::begin_entry`], which tells by its name what it is and refuses
//! what does not belong. Blocks go to [`restore::Restore::write`], which puts them at their offset in a sparse local file.
//! As soon as the document is there, [`restore::Restore::end_entry`] checks that the VM can be built, that its name is free
//! and that there is room.
//!
//! Nothing exists in Azure before [`restore::Restore::complete`], which runs at the end of a good job only. It builds an
//! upload disk per image and opens it; a [`pipeline::PageWriter`] sends what is not zero, several requests at a time, and
//! behind a barrier the footer of [`vhd`]. When access is given back the disk can be attached. Network interfaces follow,
//! then the VM. If a step fails, what was made is deleted again, newest first; local files go in every outcome.
//!
//! # What holds everywhere
//!
//! - Nothing here prints. What a person should read goes to [`notice::Notices`], which the driver of the job drains.
//! - Every wait ends when the job's `CancellationToken` is tripped. What must be given back then is given back by a client
//!   of its own ([`azure::Azure::for_cleanup`]).
//! - Offsets are absolute on the disk, ranges are half-open ([`range::ByteRange`]); wire forms are converted at the edge.
//! - A [`secret::Secret`] and an [`azure::SasUrl`] cannot be printed.

pub mod azure;
pub mod backup;
pub mod catalog;
pub mod config;
pub mod debug_log;
pub mod digests;
pub mod document;
#[allow(
    unsafe_code,
    reason = "the C interface of the File Daemon is unsafe by nature; nothing else is"
)]
mod ffi;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod intake;
pub mod inventory;
mod json;
pub mod notice;
pub mod payload;
pub mod pipeline;
pub mod plugin;
pub mod private_folder;
mod process_group;
pub mod quantity;
pub mod query;
pub mod range;
pub mod range_list;
pub mod restore;
pub mod secret;
pub mod vhd;
