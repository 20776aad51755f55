//! The C interface of the File Daemon, and the only `unsafe` code of this crate.
//!
//! ```text
//! loadPlugin ── chooses ──> interface (what 14, 21, 22 and 23 lay out differently)
//! entry      ── guards every call, makes safe views ──> packet, host
//!            ── calls ──> plugin::PluginContext
//! ```
//!
//! Leaves to others: everything a job means. Keeps these promises: no panic crosses into the host, a packet is touched
//! only after its size and end marks were found right for the version, nothing of the host's is kept beyond the call,
//! and of a context only shared references are made, because another thread may be cancelling it at the same time.

mod abi;
mod entry;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod host;
mod interface;
mod packet;
mod panic_point;

#[cfg(not(panic = "unwind"))]
compile_error!("a panic must not end the File Daemon: build with panic = \"unwind\"");

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
compile_error!("the packet layouts are measured on x86_64 Linux with glibc only");

use std::ffi::{CStr, CString, c_void};
use std::io::Write as _;

use self::abi::{bFuncs, bInfo, bRC, bRC_Error, bRC_OK, pInfo};
use self::host::HostTable;
use self::interface::{Interface, Tables};

/// `loadPlugin`: chooses the interface version and hands out our tables, which stay valid until the process ends.
///
/// Starts nothing: a plugin that the host refuses is unloaded at once.
///
/// # Safety
///
/// Called by the host with its two tables, which outlive the plugin, and two places for ours.
#[unsafe(export_name = "loadPlugin")]
unsafe extern "C" fn load_plugin(
    info: *const bInfo,
    funcs: *const bFuncs,
    our_info: *mut *const pInfo,
    our_funcs: *mut *const c_void,
) -> bRC {
    if info.is_null() || funcs.is_null() || our_info.is_null() || our_funcs.is_null() {
        return refuse("the host passed no tables");
    }
    // SAFETY: not null; the host passes its own description, whose first two members never changed.
    let info = unsafe { &*info };
    let Some(interface) = Interface::of_version(info.version) else {
        return refuse(&unknown_version(info.version));
    };
    // SAFETY: not null; size and version come first in every version's table.
    let size = unsafe { (*funcs).size };
    if size < interface.host_funcs_size {
        return refuse(&format!(
            "the host's function table has {size} bytes, plugin interface {} has {}",
            interface.version, interface.host_funcs_size
        ));
    }
    // SAFETY: not null, and long enough for the functions that all versions share.
    let Some(table) = HostTable::new(interface, unsafe { &*funcs }) else {
        return refuse("the host's function table is incomplete");
    };
    if !table.install() {
        return refuse("it is already loaded by a host of another version");
    }
    let Tables { info, funcs } = (interface.tables)();
    // SAFETY: not null; the host's own variable.
    unsafe { our_info.write(info) };
    // SAFETY: as above.
    unsafe { our_funcs.write(funcs.cast()) };
    bRC_OK
}

/// `unloadPlugin`: nothing to do, and nothing that could block: the host calls this from its signal handler while jobs
/// still run, and the library stays mapped (`-z nodelete`).
#[unsafe(export_name = "unloadPlugin")]
extern "C" fn unload_plugin() -> bRC {
    bRC_OK
}

fn unknown_version(version: u32) -> String {
    format!(
        "the File Daemon speaks plugin interface {version}; known are 14 (Bacula 9.6), 21 (11), 22 (13) and 23 (15)"
    )
}

/// Refuses to be loaded, with a line that says so.
///
/// The host's own message functions are no way to say it: which table they stand in is just what is not known. Standard
/// error reaches the administrator of a daemon in the foreground (as under systemd), syslog the one of any other.
fn refuse(reason: &str) -> bRC {
    let line = format!("azure-vm: not loaded: {reason}");
    // A closed standard error is no reason to fail differently.
    drop(writeln!(std::io::stderr(), "{line}"));
    let text = CString::new(line).unwrap_or_default();
    const FORMAT: &CStr = c"%s";
    // SAFETY: a constant format with one string, both C strings that outlive the call.
    unsafe {
        libc::syslog(
            libc::LOG_DAEMON | libc::LOG_ERR,
            FORMAT.as_ptr(),
            text.as_ptr(),
        );
    }
    bRC_Error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_names_the_version_and_the_known_ones() {
        let text = unknown_version(99);
        for number in ["99", "14", "21", "22", "23"] {
            assert!(text.contains(number), "{text}");
        }
    }
}
