//! Offsets, sizes and numbers of each interface version, as measured on the daemons.

/// What a host of one version needs to know.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) version: u32,
    pub(crate) host_funcs_size: u32,
    pub(crate) plugin_funcs_size: u32,
    pub(crate) save: Save,
    pub(crate) restore: Restore,
    /// Fatal, error, warning, info.
    pub(crate) message_types: [i32; 4],
    pub(crate) where_: i32,
    /// Unique name of the run before.
    pub(crate) previous: i32,
}

impl Numbers {
    /// Size of the buffer for images: 9.6 keeps 8 bytes of its own for the offset.
    pub(crate) fn buffer(&self) -> usize {
        if self.version == 14 { 65528 } else { 65536 }
    }
}

/// `save_pkt`.
#[derive(Debug)]
pub(crate) struct Save {
    pub(crate) size: usize,
    pub(crate) fname: usize,
    pub(crate) statp: usize,
    pub(crate) type_: usize,
    pub(crate) flags: usize,
    pub(crate) portable: usize,
    pub(crate) object_name: usize,
    pub(crate) object: usize,
    pub(crate) object_len: usize,
    pub(crate) index: usize,
    pub(crate) end: usize,
}

/// `restore_pkt`.
#[derive(Debug)]
pub(crate) struct Restore {
    pub(crate) stream: usize,
    pub(crate) data_stream: usize,
    pub(crate) type_: usize,
}

pub(crate) const RESTORE_SIZE: usize = 232;
pub(crate) const RESTORE_STATP: usize = 32;
pub(crate) const RESTORE_OFNAME: usize = 184;
pub(crate) const RESTORE_WHERE: usize = 200;
pub(crate) const RESTORE_CREATE_STATUS: usize = 220;
pub(crate) const RESTORE_END: usize = 228;

/// `st_size` and `st_mode` in a `struct stat`.
pub(crate) const STAT_MODE: usize = 24;
pub(crate) const STAT_SIZE: usize = 48;

pub(crate) const IO_SIZE: usize = 72;
pub(crate) const IO_FUNC: usize = 4;
pub(crate) const IO_COUNT: usize = 8;
pub(crate) const IO_FLAGS: usize = 12;
pub(crate) const IO_BUF: usize = 24;
pub(crate) const IO_STATUS: usize = 40;
pub(crate) const IO_ERRNO: usize = 44;
pub(crate) const IO_WHENCE: usize = 52;
pub(crate) const IO_OFFSET: usize = 56;
pub(crate) const IO_END: usize = 68;

/// Byte offsets in the plugin's function table, the same in all versions.
pub(crate) mod funcs {
    pub(crate) const NEW_PLUGIN: usize = 8;
    pub(crate) const FREE_PLUGIN: usize = 16;
    pub(crate) const EVENT: usize = 40;
    pub(crate) const START_BACKUP_FILE: usize = 48;
    pub(crate) const END_BACKUP_FILE: usize = 56;
    pub(crate) const START_RESTORE_FILE: usize = 64;
    pub(crate) const END_RESTORE_FILE: usize = 72;
    pub(crate) const IO: usize = 80;
    pub(crate) const CREATE_FILE: usize = 88;
    pub(crate) const SET_ATTRIBUTES: usize = 96;
    pub(crate) const CHECK_FILE: usize = 104;
    /// Interface 21 and later.
    pub(crate) const QUERY: usize = 136;
}

const SAVE_22: Save = Save {
    size: 344,
    fname: 8,
    statp: 40,
    type_: 184,
    flags: 192,
    portable: 201,
    object_name: 216,
    object: 224,
    object_len: 232,
    index: 236,
    end: 336,
};

const RESTORE_21: Restore = Restore {
    stream: 8,
    data_stream: 12,
    type_: 16,
};

pub(crate) static ALL: [Numbers; 4] = [
    Numbers {
        version: 14,
        host_funcs_size: 144,
        plugin_funcs_size: 128,
        save: Save {
            size: 240,
            fname: 8,
            statp: 24,
            type_: 168,
            flags: 176,
            portable: 185,
            object_name: 208,
            object: 216,
            object_len: 224,
            index: 228,
            end: 236,
        },
        restore: Restore {
            stream: 4,
            data_stream: 8,
            type_: 12,
        },
        message_types: [3, 4, 5, 6],
        where_: 14,
        previous: 20,
    },
    Numbers {
        version: 21,
        host_funcs_size: 144,
        plugin_funcs_size: 144,
        save: Save {
            size: 256,
            fname: 8,
            statp: 40,
            type_: 184,
            flags: 192,
            portable: 201,
            object_name: 224,
            object: 232,
            object_len: 240,
            index: 244,
            end: 252,
        },
        restore: RESTORE_21,
        message_types: [3, 4, 5, 6],
        where_: 14,
        previous: 19,
    },
    Numbers {
        version: 22,
        host_funcs_size: 152,
        plugin_funcs_size: 152,
        save: SAVE_22,
        restore: RESTORE_21,
        message_types: [4, 5, 6, 7],
        where_: 15,
        previous: 20,
    },
    Numbers {
        version: 23,
        host_funcs_size: 168,
        plugin_funcs_size: 168,
        save: SAVE_22,
        restore: RESTORE_21,
        message_types: [4, 5, 6, 7],
        where_: 15,
        previous: 20,
    },
];

pub(crate) const FATAL: usize = 0;
pub(crate) const ERROR: usize = 1;

pub(crate) static V14: &Numbers = &ALL[0];
