//! C declarations of the plugin interface, under their C names.
//!
//! Facts only: sizes, offsets and numbers of interface 14 (Bacula 9.6), 21 (11.0), 22 (13.0) and 23 (15.0) on Linux
//! for `x86_64`. The packets that a version lays out in its own way have one struct per layout; the compile-time checks at
//! the end and the tests in [`interface`](super::interface) compare them with the numbers that were measured on the daemons.
//! Pointers in packets belong to the side that filled them in, and neither side frees memory of the other.

#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    reason = "C names stay verbatim in this module"
)]

use std::ffi::{c_char, c_int, c_void};
use std::mem::{offset_of, size_of};

/// What a plugin function returns. Not a Rust enum: the host's values are checked, never trusted.
pub(super) type bRC = c_int;
pub(super) const bRC_OK: bRC = 0;
pub(super) const bRC_Stop: bRC = 1;
pub(super) const bRC_Error: bRC = 2;
pub(super) const bRC_More: bRC = 3;
pub(super) const bRC_Seen: bRC = 5;

// `create_status` of a restore packet.
pub(super) const CF_SKIP: i32 = 1;
pub(super) const CF_ERROR: i32 = 2;
pub(super) const CF_EXTRACT: i32 = 3;

// `func` of an I/O packet.
pub(super) const IO_OPEN: i32 = 1;
pub(super) const IO_READ: i32 = 2;
pub(super) const IO_WRITE: i32 = 3;
pub(super) const IO_CLOSE: i32 = 4;
pub(super) const IO_SEEK: i32 = 5;

// `type` of a save packet or restore object.
pub(super) const FT_REG: i32 = 3;
pub(super) const FT_PLUGIN_CONFIG: i32 = 27;
pub(super) const FT_PLUGIN_CONFIG_FILLED: i32 = 28;

/// `flags` of a save packet: the data comes as blocks that each carry their offset.
pub(super) const FO_OFFSETS: u64 = 1 << 30;

// `eventType` of an event.
pub(super) const bEventJobStart: u32 = 1;
pub(super) const bEventJobEnd: u32 = 2;
pub(super) const bEventEndBackupJob: u32 = 4;
pub(super) const bEventStartRestoreJob: u32 = 5;
pub(super) const bEventEndRestoreJob: u32 = 6;
pub(super) const bEventBackupCommand: u32 = 9;
pub(super) const bEventRestoreCommand: u32 = 10;
pub(super) const bEventEstimateCommand: u32 = 11;
pub(super) const bEventLevel: u32 = 12;
pub(super) const bEventSince: u32 = 13;
pub(super) const bEventCancelCommand: u32 = 14;
pub(super) const bEventRestoreObject: u32 = 18;
pub(super) const bEventPluginCommand: u32 = 20;

/// Magic text that the host looks for.
pub(super) const FD_PLUGIN_MAGIC: &std::ffi::CStr = c"*FDPluginData*";

/// The host's own description; the host's memory.
#[repr(C)]
pub(super) struct bInfo {
    pub(super) size: u32,
    pub(super) version: u32,
}

/// One job, or one console command. Made by the host; only `pContext` is ours.
#[repr(C)]
pub(super) struct bpContext {
    pub(super) bContext: *mut c_void,
    pub(super) pContext: *mut c_void,
}

/// An event; the host's memory, lent for the call.
#[repr(C)]
pub(super) struct bEvent {
    pub(super) eventType: u32,
}

pub(super) type GetBaculaValue = unsafe extern "C" fn(*mut bpContext, c_int, *mut c_void) -> bRC;
pub(super) type JobMessage = unsafe extern "C" fn(
    *mut bpContext,
    *const c_char,
    c_int,
    c_int,
    i64,
    *const c_char,
    ...
) -> bRC;
/// A host function that is never called from here.
pub(super) type Unused = Option<unsafe extern "C" fn()>;

/// The part of the host's function table that all versions share and that is used here.
#[repr(C)]
pub(super) struct bFuncs {
    pub(super) size: u32,
    pub(super) version: u32,
    pub(super) registerBaculaEvents: Unused,
    pub(super) getBaculaValue: Option<GetBaculaValue>,
    pub(super) setBaculaValue: Unused,
    pub(super) JobMessage: Option<JobMessage>,
    pub(super) DebugMessage: Unused,
}

/// Our description; our memory, valid until the process ends. The texts are constants.
#[repr(C)]
pub(super) struct pInfo {
    pub(super) size: u32,
    pub(super) version: u32,
    pub(super) plugin_magic: *const c_char,
    pub(super) plugin_license: *const c_char,
    pub(super) plugin_author: *const c_char,
    pub(super) plugin_date: *const c_char,
    pub(super) plugin_version: *const c_char,
    pub(super) plugin_description: *const c_char,
}

// SAFETY: the pointers are to constant C strings that are never written.
unsafe impl Sync for pInfo {}

pub(super) type ContextFn = unsafe extern "C" fn(*mut bpContext) -> bRC;
pub(super) type ValueFn = unsafe extern "C" fn(*mut bpContext, c_int, *mut c_void) -> bRC;
pub(super) type EventFn = unsafe extern "C" fn(*mut bpContext, *mut bEvent, *mut c_void) -> bRC;
/// A function over a packet whose layout depends on the version.
pub(super) type PacketFn = unsafe extern "C" fn(*mut bpContext, *mut c_void) -> bRC;
pub(super) type TextFn = unsafe extern "C" fn(*mut bpContext, *const c_char) -> bRC;
pub(super) type IoFn = unsafe extern "C" fn(*mut bpContext, *mut io_pkt) -> bRC;
pub(super) type QueryFn = unsafe extern "C" fn(*mut bpContext, *mut query_pkt) -> bRC;

/// The functions that every version has, at the same places.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct CommonFuncs {
    pub(super) size: u32,
    pub(super) version: u32,
    pub(super) newPlugin: ContextFn,
    pub(super) freePlugin: ContextFn,
    pub(super) getPluginValue: ValueFn,
    pub(super) setPluginValue: ValueFn,
    pub(super) handlePluginEvent: EventFn,
    pub(super) startBackupFile: PacketFn,
    pub(super) endBackupFile: ContextFn,
    pub(super) startRestoreFile: TextFn,
    pub(super) endRestoreFile: ContextFn,
    pub(super) pluginIO: IoFn,
    pub(super) createFile: PacketFn,
    pub(super) setFileAttributes: PacketFn,
    pub(super) checkFile: TextFn,
    pub(super) handleXACLdata: Option<PacketFn>,
}

/// Our function table, interface 14.
#[repr(C)]
pub(super) struct pFuncs_14 {
    pub(super) common: CommonFuncs,
    pub(super) checkStream: Option<PacketFn>,
}

/// Our function table, interface 21.
#[repr(C)]
pub(super) struct pFuncs_21 {
    pub(super) common: CommonFuncs,
    pub(super) restoreFileList: Option<PacketFn>,
    pub(super) checkStream: Option<PacketFn>,
    pub(super) queryParameter: Option<QueryFn>,
}

/// Our function table, interface 22.
#[repr(C)]
pub(super) struct pFuncs_22 {
    pub(super) up_to_21: pFuncs_21,
    pub(super) metadataRestore: Option<PacketFn>,
}

/// Our function table, interface 23.
#[repr(C)]
pub(super) struct pFuncs_23 {
    pub(super) up_to_22: pFuncs_22,
    pub(super) startVerifyFile: Option<PacketFn>,
    pub(super) endVerifyFile: Option<PacketFn>,
}

/// The restore object inside a save packet, as far as all versions agree.
#[repr(C)]
pub(super) struct restore_object {
    pub(super) object_name: *const c_char,
    pub(super) object: *const c_char,
    pub(super) object_len: i32,
    pub(super) index: i32,
}

/// `save_pkt`, interface 14.
#[repr(C)]
pub(super) struct save_pkt_14 {
    pub(super) pkt_size: i32,
    pub(super) fname: *const c_char,
    pub(super) link: *const c_char,
    pub(super) statp: libc::stat,
    pub(super) type_: i32,
    pub(super) flags: u64,
    pub(super) no_read: u8,
    pub(super) portable: u8,
    pub(super) accurate_found: u8,
    pub(super) cmd: *const c_char,
    pub(super) delta_seq: u32,
    pub(super) object: restore_object,
    pub(super) LinkFI: i32,
    pub(super) pkt_end: i32,
}

/// `save_pkt`, interface 21.
#[repr(C)]
pub(super) struct save_pkt_21 {
    pub(super) pkt_size: i32,
    pub(super) fname: *const c_char,
    pub(super) snap_fname: *const c_char,
    pub(super) plugin_mode: i32,
    pub(super) link: *const c_char,
    pub(super) statp: libc::stat,
    pub(super) type_: i32,
    pub(super) flags: u64,
    pub(super) no_read: u8,
    pub(super) portable: u8,
    pub(super) accurate_found: u8,
    pub(super) do_dedup: u8,
    pub(super) cmd: *const c_char,
    pub(super) delta_seq: u32,
    pub(super) object: restore_object,
    pub(super) LinkFI: i32,
    pub(super) pkt_end: i32,
}

/// `plugin_object` inside a save packet, interface 22 and 23.
#[repr(C)]
pub(super) struct plugin_object {
    pub(super) texts: [*const c_char; 7],
    pub(super) object_size: u64,
    pub(super) status: i32,
    pub(super) count: u32,
}

/// `save_pkt`, interface 22 and 23 (which only fills a byte of padding, `stat_update`).
#[repr(C)]
pub(super) struct save_pkt_22 {
    pub(super) pkt_size: i32,
    pub(super) fname: *const c_char,
    pub(super) snap_fname: *const c_char,
    pub(super) plugin_mode: i32,
    pub(super) link: *const c_char,
    pub(super) statp: libc::stat,
    pub(super) type_: i32,
    pub(super) flags: u64,
    pub(super) no_read: u8,
    pub(super) portable: u8,
    pub(super) accurate_found: u8,
    pub(super) do_dedup: u8,
    pub(super) stat_update: u8,
    pub(super) cmd: *const c_char,
    pub(super) object: restore_object,
    pub(super) object_compression: i32,
    pub(super) plugin_obj: plugin_object,
    pub(super) plug_meta: *const c_void,
    pub(super) delta_seq: u32,
    pub(super) LinkFI: i32,
    pub(super) pkt_end: i32,
}

/// `restore_pkt`, interface 14.
#[repr(C)]
pub(super) struct restore_pkt_14 {
    pub(super) pkt_size: i32,
    pub(super) stream: i32,
    pub(super) data_stream: i32,
    pub(super) type_: i32,
    pub(super) file_index: i32,
    pub(super) LinkFI: i32,
    pub(super) uid: u32,
    pub(super) tail: restore_pkt_tail,
}

/// `restore_pkt`, interface 21 to 23.
#[repr(C)]
pub(super) struct restore_pkt_21 {
    pub(super) pkt_size: i32,
    pub(super) plugin_mode: i32,
    pub(super) stream: i32,
    pub(super) data_stream: i32,
    pub(super) type_: i32,
    pub(super) file_index: i32,
    pub(super) LinkFI: i32,
    pub(super) uid: u32,
    pub(super) tail: restore_pkt_tail,
}

/// What all restore packets have, at the same place.
#[repr(C)]
pub(super) struct restore_pkt_tail {
    pub(super) statp: libc::stat,
    pub(super) attrEx: *const c_char,
    pub(super) ofname: *const c_char,
    pub(super) olname: *const c_char,
    pub(super) where_: *const c_char,
    pub(super) RegexWhere: *const c_char,
    pub(super) replace: i32,
    pub(super) create_status: i32,
    pub(super) delta_seq: u32,
    pub(super) pkt_end: i32,
}

/// `io_pkt`, all versions. Fields that do not belong to `func` hold garbage.
#[repr(C)]
pub(super) struct io_pkt {
    pub(super) pkt_size: i32,
    pub(super) func: i32,
    pub(super) count: i32,
    pub(super) flags: i32,
    pub(super) mode: u32,
    /// Host's buffer of `count` bytes, lent for the call.
    pub(super) buf: *mut u8,
    pub(super) fname: *const c_char,
    pub(super) status: i32,
    pub(super) io_errno: i32,
    pub(super) lerror: i32,
    pub(super) whence: i32,
    pub(super) offset: i64,
    pub(super) win32: u8,
    pub(super) pkt_end: i32,
}

/// `restore_object_pkt`, all versions.
#[repr(C)]
pub(super) struct restore_object_pkt {
    pub(super) pkt_size: i32,
    pub(super) object_name: *const c_char,
    pub(super) object: *const u8,
    pub(super) plugin_name: *const c_char,
    pub(super) object_type: i32,
    pub(super) object_len: i32,
    pub(super) object_full_len: i32,
    pub(super) object_index: i32,
    pub(super) object_compression: i32,
    pub(super) stream: i32,
    pub(super) JobId: u32,
    pub(super) pkt_end: i32,
}

/// `query_pkt`, interface 21 to 23.
#[repr(C)]
pub(super) struct query_pkt {
    pub(super) pkt_size: i32,
    pub(super) parameter: *const c_char,
    pub(super) command: *const c_char,
    pub(super) api_opts: *const c_char,
    /// Our memory, kept until the next call or freePlugin.
    pub(super) result: *const c_char,
    pub(super) pkt_end: i32,
}

// The declarations above against the sizes that the daemons report.
const _: () = {
    assert!(size_of::<libc::stat>() == 144);
    assert!(size_of::<bInfo>() == 8);
    assert!(size_of::<bpContext>() == 16);
    assert!(size_of::<bEvent>() == 4);
    assert!(size_of::<pInfo>() == 56);
    assert!(offset_of!(bFuncs, getBaculaValue) == 16);
    assert!(offset_of!(bFuncs, JobMessage) == 32);
    assert!(offset_of!(bFuncs, DebugMessage) == 40);
    assert!(size_of::<pFuncs_14>() == 128);
    assert!(size_of::<pFuncs_21>() == 144);
    assert!(size_of::<pFuncs_22>() == 152);
    assert!(size_of::<pFuncs_23>() == 168);
    assert!(size_of::<save_pkt_14>() == 240);
    assert!(size_of::<save_pkt_21>() == 256);
    assert!(size_of::<save_pkt_22>() == 344);
    assert!(size_of::<plugin_object>() == 72);
    assert!(size_of::<restore_pkt_14>() == 232);
    assert!(size_of::<restore_pkt_21>() == 232);
    assert!(size_of::<io_pkt>() == 72);
    assert!(size_of::<restore_object_pkt>() == 64);
    assert!(size_of::<query_pkt>() == 48);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_packets_lie_as_measured() {
        assert_eq!(offset_of!(io_pkt, buf), 24);
        assert_eq!(offset_of!(io_pkt, fname), 32);
        assert_eq!(offset_of!(io_pkt, status), 40);
        assert_eq!(offset_of!(io_pkt, io_errno), 44);
        assert_eq!(offset_of!(io_pkt, whence), 52);
        assert_eq!(offset_of!(io_pkt, offset), 56);
        assert_eq!(offset_of!(io_pkt, win32), 64);
        assert_eq!(offset_of!(io_pkt, pkt_end), 68);
        assert_eq!(offset_of!(restore_object_pkt, object), 16);
        assert_eq!(offset_of!(restore_object_pkt, plugin_name), 24);
        assert_eq!(offset_of!(restore_object_pkt, object_type), 32);
        assert_eq!(offset_of!(restore_object_pkt, JobId), 56);
        assert_eq!(offset_of!(restore_object_pkt, pkt_end), 60);
        assert_eq!(offset_of!(query_pkt, parameter), 8);
        assert_eq!(offset_of!(query_pkt, result), 32);
        assert_eq!(offset_of!(query_pkt, pkt_end), 40);
        assert_eq!(offset_of!(pInfo, plugin_magic), 8);
        assert_eq!(offset_of!(pInfo, plugin_license), 16);
        assert_eq!(offset_of!(pInfo, plugin_version), 40);
    }

    #[test]
    fn function_tables_lie_as_measured() {
        assert_eq!(offset_of!(CommonFuncs, newPlugin), 8);
        assert_eq!(offset_of!(CommonFuncs, handlePluginEvent), 40);
        assert_eq!(offset_of!(CommonFuncs, startBackupFile), 48);
        assert_eq!(offset_of!(CommonFuncs, startRestoreFile), 64);
        assert_eq!(offset_of!(CommonFuncs, pluginIO), 80);
        assert_eq!(offset_of!(CommonFuncs, createFile), 88);
        assert_eq!(offset_of!(CommonFuncs, checkFile), 104);
        assert_eq!(offset_of!(CommonFuncs, handleXACLdata), 112);
        assert_eq!(offset_of!(pFuncs_14, checkStream), 120);
        assert_eq!(offset_of!(pFuncs_21, restoreFileList), 120);
        assert_eq!(offset_of!(pFuncs_21, checkStream), 128);
        assert_eq!(offset_of!(pFuncs_21, queryParameter), 136);
        assert_eq!(offset_of!(pFuncs_22, metadataRestore), 144);
        assert_eq!(offset_of!(pFuncs_23, startVerifyFile), 152);
        assert_eq!(offset_of!(pFuncs_23, endVerifyFile), 160);
    }
}
