//! What differs between the interface versions: packet layouts, numbers of variables and message types, our tables.
//!
//! One [`Interface`] per version, chosen once by `loadPlugin`. Everything else in [`ffi`](super) reads it and never
//! asks for the version itself.

use std::ffi::{CStr, c_char};
use std::mem::{offset_of, size_of};

use super::abi::{
    CommonFuncs, FD_PLUGIN_MAGIC, pFuncs_14, pFuncs_21, pFuncs_22, pFuncs_23, pInfo,
    restore_object, restore_pkt_14, restore_pkt_21, restore_pkt_tail, save_pkt_14, save_pkt_21,
    save_pkt_22,
};
use super::entry;
use crate::plugin::host::{IntVariable, MessageClass, TextVariable};

/// Places in a save packet, in bytes from its beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SaveLayout {
    pub(super) size: usize,
    pub(super) fname: usize,
    pub(super) link: usize,
    pub(super) statp: usize,
    pub(super) type_: usize,
    pub(super) flags: usize,
    pub(super) portable: usize,
    pub(super) object_name: usize,
    pub(super) object: usize,
    pub(super) object_len: usize,
    pub(super) index: usize,
    pub(super) pkt_end: usize,
}

/// Places in a restore packet, in bytes from its beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RestoreLayout {
    pub(super) size: usize,
    pub(super) data_stream: usize,
    pub(super) type_: usize,
    pub(super) statp: usize,
    pub(super) ofname: usize,
    pub(super) where_: usize,
    pub(super) create_status: usize,
    pub(super) pkt_end: usize,
}

/// One version of the plugin interface.
#[derive(Debug)]
pub(super) struct Interface {
    /// `bInfo.version`, which the host wants to see again in our tables.
    pub(super) version: u32,
    /// What `loadPlugin` hands out.
    pub(super) tables: fn() -> Tables,
    /// Least size of the host's function table, in bytes.
    pub(super) host_funcs_size: u32,
    pub(super) save: SaveLayout,
    pub(super) restore: RestoreLayout,
    /// Message types were renumbered in 22.
    fatal_message: i32,
    /// `bVarWhere`.
    where_variable: i32,
    /// `bVarPrevJobName`.
    prev_job_name_variable: i32,
}

macro_rules! save_layout {
    ($packet:ty) => {
        SaveLayout {
            size: size_of::<$packet>(),
            fname: offset_of!($packet, fname),
            link: offset_of!($packet, link),
            statp: offset_of!($packet, statp),
            type_: offset_of!($packet, type_),
            flags: offset_of!($packet, flags),
            portable: offset_of!($packet, portable),
            object_name: offset_of!($packet, object) + offset_of!(restore_object, object_name),
            object: offset_of!($packet, object) + offset_of!(restore_object, object),
            object_len: offset_of!($packet, object) + offset_of!(restore_object, object_len),
            index: offset_of!($packet, object) + offset_of!(restore_object, index),
            pkt_end: offset_of!($packet, pkt_end),
        }
    };
}

macro_rules! restore_layout {
    ($packet:ty) => {
        RestoreLayout {
            size: size_of::<$packet>(),
            data_stream: offset_of!($packet, data_stream),
            type_: offset_of!($packet, type_),
            statp: offset_of!($packet, tail) + offset_of!(restore_pkt_tail, statp),
            ofname: offset_of!($packet, tail) + offset_of!(restore_pkt_tail, ofname),
            where_: offset_of!($packet, tail) + offset_of!(restore_pkt_tail, where_),
            create_status: offset_of!($packet, tail) + offset_of!(restore_pkt_tail, create_status),
            pkt_end: offset_of!($packet, tail) + offset_of!(restore_pkt_tail, pkt_end),
        }
    };
}

static V14: Interface = Interface {
    version: 14,
    tables: || Tables {
        info: &INFO_14,
        funcs: (&raw const FUNCS_14).cast(),
    },
    host_funcs_size: 144,
    save: save_layout!(save_pkt_14),
    restore: restore_layout!(restore_pkt_14),
    fatal_message: 3,
    where_variable: 14,
    prev_job_name_variable: 20,
};

static V21: Interface = Interface {
    version: 21,
    tables: || Tables {
        info: &INFO_21,
        funcs: (&raw const FUNCS_21).cast(),
    },
    host_funcs_size: 144,
    save: save_layout!(save_pkt_21),
    restore: restore_layout!(restore_pkt_21),
    fatal_message: 3,
    where_variable: 14,
    prev_job_name_variable: 19,
};

static V22: Interface = Interface {
    version: 22,
    tables: || Tables {
        info: &INFO_22,
        funcs: (&raw const FUNCS_22).cast(),
    },
    host_funcs_size: 152,
    save: save_layout!(save_pkt_22),
    restore: restore_layout!(restore_pkt_21),
    fatal_message: 4,
    where_variable: 15,
    prev_job_name_variable: 20,
};

static V23: Interface = Interface {
    version: 23,
    tables: || Tables {
        info: &INFO_23,
        funcs: (&raw const FUNCS_23).cast(),
    },
    host_funcs_size: 168,
    save: save_layout!(save_pkt_22),
    restore: restore_layout!(restore_pkt_21),
    fatal_message: 4,
    where_variable: 15,
    prev_job_name_variable: 20,
};

/// Our two tables for one version, as the host takes them.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    pub(super) info: &'static pInfo,
    /// Points to a `pFuncs_*` of the version.
    pub(super) funcs: *const CommonFuncs,
}

impl Interface {
    /// The interface that a host speaks; `None` if it is not known here.
    pub(super) fn of_version(version: u32) -> Option<&'static Self> {
        [&V14, &V21, &V22, &V23]
            .into_iter()
            .find(|interface| interface.version == version)
    }

    /// The number of a message type: the classes follow each other from fatal on.
    pub(super) fn message_type(&self, class: MessageClass) -> i32 {
        self.fatal_message
            + match class {
                MessageClass::Fatal => 0,
                MessageClass::Error => 1,
                MessageClass::Warning => 2,
                MessageClass::Info => 3,
            }
    }

    /// The number of a variable that is an `int`.
    pub(super) fn int_variable(&self, variable: IntVariable) -> i32 {
        match variable {
            IntVariable::JobId => 1,
            IntVariable::JobStatus => 7,
        }
    }

    /// The number of a variable that is a `char *`.
    pub(super) fn text_variable(&self, variable: TextVariable) -> i32 {
        match variable {
            TextVariable::FdName => 2,
            TextVariable::JobName => 6,
            TextVariable::WorkingDir => 13,
            TextVariable::Where => self.where_variable,
            TextVariable::PrevJobName => self.prev_job_name_variable,
        }
    }
}

const fn info(version: u32) -> pInfo {
    pInfo {
        #[expect(clippy::cast_possible_truncation, reason = "56")]
        size: size_of::<pInfo>() as u32,
        version,
        plugin_magic: FD_PLUGIN_MAGIC.as_ptr(),
        // The host refuses any other text than this one and "Bacula AGPLv3".
        plugin_license: c"AGPLv3".as_ptr(),
        plugin_author: c"azure-vm-fd project".as_ptr(),
        plugin_date: c"2026".as_ptr(),
        plugin_version: PLUGIN_VERSION,
        plugin_description: c"Backs up Microsoft Azure virtual machines".as_ptr(),
    }
}

const PLUGIN_VERSION: *const c_char =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text.as_ptr(),
        Err(_) => panic!("a version has no NUL in it"),
    };

static INFO_14: pInfo = info(14);
static INFO_21: pInfo = info(21);
static INFO_22: pInfo = info(22);
static INFO_23: pInfo = info(23);

const fn common(version: u32, size: usize) -> CommonFuncs {
    CommonFuncs {
        #[expect(clippy::cast_possible_truncation, reason = "at most 168")]
        size: size as u32,
        version,
        newPlugin: entry::new_plugin,
        freePlugin: entry::free_plugin,
        getPluginValue: entry::plugin_value,
        setPluginValue: entry::plugin_value,
        handlePluginEvent: entry::handle_plugin_event,
        startBackupFile: entry::start_backup_file,
        endBackupFile: entry::end_backup_file,
        startRestoreFile: entry::start_restore_file,
        endRestoreFile: entry::end_restore_file,
        pluginIO: entry::plugin_io,
        createFile: entry::create_file,
        setFileAttributes: entry::set_file_attributes,
        checkFile: entry::check_file,
        handleXACLdata: None,
    }
}

const fn funcs_21(version: u32, size: usize) -> pFuncs_21 {
    pFuncs_21 {
        common: common(version, size),
        restoreFileList: None,
        checkStream: None,
        queryParameter: Some(entry::query_parameter),
    }
}

const fn funcs_22(version: u32, size: usize) -> pFuncs_22 {
    pFuncs_22 {
        up_to_21: funcs_21(version, size),
        metadataRestore: None,
    }
}

static FUNCS_14: pFuncs_14 = pFuncs_14 {
    common: common(14, size_of::<pFuncs_14>()),
    checkStream: None,
};
static FUNCS_21: pFuncs_21 = funcs_21(21, size_of::<pFuncs_21>());
static FUNCS_22: pFuncs_22 = funcs_22(22, size_of::<pFuncs_22>());
static FUNCS_23: pFuncs_23 = pFuncs_23 {
    up_to_22: funcs_22(23, size_of::<pFuncs_23>()),
    startVerifyFile: None,
    endVerifyFile: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: u32) -> &'static Interface {
        Interface::of_version(version).expect("known")
    }

    /// The numbers as measured on the daemons, against the structs.
    #[test]
    fn save_packets_lie_as_measured() {
        let measured = |rows: [usize; 12]| {
            let [
                size,
                fname,
                link,
                statp,
                type_,
                flags,
                portable,
                object_name,
                object,
                object_len,
                index,
                pkt_end,
            ] = rows;
            SaveLayout {
                size,
                fname,
                link,
                statp,
                type_,
                flags,
                portable,
                object_name,
                object,
                object_len,
                index,
                pkt_end,
            }
        };
        let v14 = measured([240, 8, 16, 24, 168, 176, 185, 208, 216, 224, 228, 236]);
        let v21 = measured([256, 8, 32, 40, 184, 192, 201, 224, 232, 240, 244, 252]);
        let v22 = measured([344, 8, 32, 40, 184, 192, 201, 216, 224, 232, 236, 336]);
        assert_eq!(of(14).save, v14);
        assert_eq!(of(21).save, v21);
        assert_eq!(of(22).save, v22);
        assert_eq!(of(23).save, v22);
    }

    #[test]
    fn restore_packets_lie_as_measured() {
        let measured = |data_stream, type_| RestoreLayout {
            size: 232,
            data_stream,
            type_,
            statp: 32,
            ofname: 184,
            where_: 200,
            create_status: 220,
            pkt_end: 228,
        };
        assert_eq!(of(14).restore, measured(8, 12));
        for version in [21, 22, 23] {
            assert_eq!(of(version).restore, measured(12, 16));
        }
    }

    #[test]
    fn numbers_follow_the_version() {
        let types = |version| {
            [
                MessageClass::Fatal,
                MessageClass::Error,
                MessageClass::Warning,
                MessageClass::Info,
            ]
            .map(|class| of(version).message_type(class))
        };
        assert_eq!(types(14), [3, 4, 5, 6]);
        assert_eq!(types(21), [3, 4, 5, 6]);
        assert_eq!(types(22), [4, 5, 6, 7]);
        assert_eq!(types(23), [4, 5, 6, 7]);
        let texts = |version| {
            [TextVariable::Where, TextVariable::PrevJobName]
                .map(|variable| of(version).text_variable(variable))
        };
        assert_eq!(texts(14), [14, 20]);
        assert_eq!(texts(21), [14, 19]);
        assert_eq!(texts(22), [15, 20]);
        assert_eq!(texts(23), [15, 20]);
    }

    #[test]
    fn other_versions_are_unknown() {
        for version in [0, 1, 13, 15, 20, 24, u32::MAX] {
            assert!(Interface::of_version(version).is_none(), "{version}");
        }
    }

    #[test]
    fn tables_carry_version_and_size() {
        for (version, size) in [(14, 128), (21, 144), (22, 152), (23, 168)] {
            let Tables { info, funcs } = (of(version).tables)();
            // SAFETY: points to a static table that begins with `CommonFuncs`.
            let funcs = unsafe { &*funcs };
            assert_eq!((info.version, info.size), (version, 56));
            assert_eq!((funcs.version, funcs.size), (version, size));
        }
    }
}
