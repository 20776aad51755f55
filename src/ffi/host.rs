//! Calls from here into the host.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use super::abi::{GetBaculaValue, JobMessage, bFuncs, bRC_OK, bpContext};
use super::interface::Interface;
use crate::plugin::host::{Host, IntVariable, MessageClass, TextVariable};

/// The host's functions and the interface version they belong to.
#[derive(Debug)]
pub(super) struct HostTable {
    pub(super) interface: &'static Interface,
    get_value: GetBaculaValue,
    job_message: JobMessage,
}

/// Set by `loadPlugin`, before any other call.
static HOST: OnceLock<HostTable> = OnceLock::new();

impl HostTable {
    /// `None` if a function is missing.
    pub(super) fn new(interface: &'static Interface, funcs: &bFuncs) -> Option<Self> {
        Some(Self {
            interface,
            get_value: funcs.getBaculaValue?,
            job_message: funcs.JobMessage?,
        })
    }

    /// Makes this the host of the process. A second load finds the first one's table: the same daemon, so the same
    /// functions; `false` if it is not.
    pub(super) fn install(self) -> bool {
        let version = self.interface.version;
        HOST.get_or_init(|| self).interface.version == version
    }

    /// The host of the process.
    pub(super) fn get() -> Option<&'static Self> {
        HOST.get()
    }
}

/// The host during one call. Not `Send`, and gone with the call.
pub(super) struct HostCall {
    table: &'static HostTable,
    ctx: *mut bpContext,
}

impl HostCall {
    /// The host behind `ctx`.
    ///
    /// # Safety
    ///
    /// `ctx` is the host's live context of the present call, on the thread of that call, and the result does not
    /// outlive the call.
    pub(super) unsafe fn new(table: &'static HostTable, ctx: *mut bpContext) -> Self {
        Self { table, ctx }
    }
}

impl Host for HostCall {
    fn message(&self, class: MessageClass, text: &str) {
        const FILE: &CStr = c"azure-vm-fd";
        const FORMAT: &CStr = c"%s";
        let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
        // SAFETY: the host's function and context, a constant format with one string, C strings that outlive the call.
        unsafe {
            (self.table.job_message)(
                self.ctx,
                FILE.as_ptr(),
                0,
                self.table.interface.message_type(class),
                0,
                FORMAT.as_ptr(),
                text.as_ptr(),
            );
        }
    }

    fn int(&self, variable: IntVariable) -> Option<i32> {
        let mut value: c_int = 0;
        // SAFETY: the host's function and context; the variable is an `int` by its number.
        let code = unsafe {
            (self.table.get_value)(
                self.ctx,
                self.table.interface.int_variable(variable),
                (&raw mut value).cast::<c_void>(),
            )
        };
        (code == bRC_OK).then_some(value)
    }

    fn text(&self, variable: TextVariable) -> Option<String> {
        let mut value: *const c_char = ptr::null();
        // The return code says nothing here: some versions store the text and return an error.
        // SAFETY: the host's function and context; the variable is a `char *` by its number.
        unsafe {
            (self.table.get_value)(
                self.ctx,
                self.table.interface.text_variable(variable),
                (&raw mut value).cast::<c_void>(),
            );
        }
        if value.is_null() {
            return None;
        }
        // SAFETY: not null; a C string of the host's, copied before the call ends.
        let text = unsafe { CStr::from_ptr(value) };
        Some(text.to_str().ok()?.to_owned()).filter(|text| !text.is_empty())
    }
}
