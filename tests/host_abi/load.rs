//! Loading and being refused.

use std::ffi::{CStr, c_char, c_int};

use crate::host;
use crate::library::{self, Plugin};
use crate::numbers::ALL;

fn try_load(name: &str, version: u32, funcs_size: u32) -> c_int {
    let load = library::load(name);
    let mut funcs = host::functions(&ALL[3]).to_vec();
    funcs[0] = u64::from(funcs_size) | u64::from(version) << 32;
    let (mut info, mut table) = (std::ptr::null(), std::ptr::null());
    // SAFETY: tables as a daemon passes them.
    unsafe {
        load(
            [8, version].as_ptr(),
            funcs.leak().as_ptr().cast(),
            &raw mut info,
            &raw mut table,
        )
    }
}

#[test]
fn one_object_serves_every_version() {
    for numbers in &ALL {
        let plugin = Plugin::of(numbers);
        // SAFETY: the two tables begin with size and version.
        let (info, funcs) = unsafe {
            (
                plugin.info.cast::<[u32; 2]>().read(),
                plugin.funcs.cast::<[u32; 2]>().read(),
            )
        };
        assert_eq!(info, [56, numbers.version]);
        assert_eq!(funcs, [numbers.plugin_funcs_size, numbers.version]);
        let text = |offset: usize| {
            // SAFETY: texts of the plugin's description.
            unsafe {
                CStr::from_ptr(plugin.info.add(offset).cast::<*const c_char>().read())
                    .to_str()
                    .expect("UTF-8")
            }
        };
        assert_eq!(text(8), "*FDPluginData*");
        assert_eq!(text(16), "AGPLv3");
        assert_eq!(text(40), env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn other_versions_and_short_tables_are_refused() {
    assert_eq!(try_load("a-fd.so", 20, 168), host::RC_ERROR);
    assert_eq!(try_load("b-fd.so", 24, 168), host::RC_ERROR);
    assert_eq!(try_load("c-fd.so", 23, 160), host::RC_ERROR);
    assert_eq!(try_load("d-fd.so", 23, 168), host::RC_OK);
}

#[test]
fn a_host_without_tables_is_refused() {
    let load = library::load("e-fd.so");
    // SAFETY: null is checked.
    let code = unsafe {
        load(
            std::ptr::null(),
            std::ptr::null(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    assert_eq!(code, host::RC_ERROR);
}
