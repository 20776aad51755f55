//! The shared object under test.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::numbers::{ALL, Numbers};

pub(crate) type LoadPlugin = unsafe extern "C" fn(
    *const u32,
    *const c_void,
    *mut *const c_void,
    *mut *const c_void,
) -> c_int;

/// What cargo built together with this test.
pub(crate) fn path() -> PathBuf {
    let test = std::env::current_exe().expect("path of this test");
    test.with_file_name("libazure_vm_fd.so")
}

/// Loads a copy: under a name of its own the library has statics of its own, as in another daemon. The copy stays, for tools that
/// want to name its functions.
pub(crate) fn load(name: &str) -> LoadPlugin {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let copy = tempfile::NamedTempFile::new_in(folder).expect("a file");
    std::fs::copy(path(), &copy).expect("copy the library");
    let file = folder.join(name);
    // Whatever has this name may be in use.
    copy.persist(&file).expect("name the copy");
    let handle = open(&file);
    // SAFETY: a live handle and a C string.
    let symbol = unsafe { libc::dlsym(handle, c"loadPlugin".as_ptr()) };
    assert!(!symbol.is_null(), "loadPlugin is exported");
    // SAFETY: the function of that name has this type.
    unsafe { std::mem::transmute::<*mut c_void, LoadPlugin>(symbol) }
}

/// Never closed: the library says of itself that it stays.
fn open(file: &Path) -> *mut c_void {
    let name = CString::new(file.to_str().expect("a plain name")).expect("no NUL");
    // SAFETY: a C string; the library has no constructors.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: after a failure this is a C string.
        let text = unsafe { std::ffi::CStr::from_ptr(libc::dlerror().cast::<c_char>()) };
        panic!("dlopen {}: {text:?}", file.display());
    }
    handle
}

/// The function table that one version's host got, loaded once per process.
pub(crate) struct Plugin {
    pub(crate) numbers: &'static Numbers,
    pub(crate) info: *const u8,
    pub(crate) funcs: *const u8,
}

// SAFETY: both tables are constants of a library that stays.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

impl Plugin {
    /// For a version out of [`ALL`].
    pub(crate) fn of(numbers: &'static Numbers) -> &'static Self {
        static LOADED: [OnceLock<Plugin>; 4] = [const { OnceLock::new() }; 4];
        let index = ALL
            .iter()
            .position(|candidate| candidate.version == numbers.version)
            .expect("one of ALL");
        LOADED[index].get_or_init(|| {
            let load = load(&format!("azure-vm-{}-fd.so", numbers.version));
            let mut info = std::ptr::null();
            let mut funcs = std::ptr::null();
            let binfo = [8, numbers.version];
            let bfuncs = crate::host::functions(numbers);
            // SAFETY: tables as a daemon passes them; they are never freed.
            let code = unsafe {
                load(
                    binfo.as_ptr(),
                    bfuncs.as_ptr().cast(),
                    &raw mut info,
                    &raw mut funcs,
                )
            };
            assert_eq!(code, 0, "loadPlugin of interface {}", numbers.version);
            Self {
                numbers,
                info: info.cast(),
                funcs: funcs.cast(),
            }
        })
    }

    /// The function at `offset` of the table.
    pub(crate) fn func(&self, offset: usize) -> *const c_void {
        // SAFETY: the table is longer than any offset in `numbers`.
        let func = unsafe { self.funcs.add(offset).cast::<*const c_void>().read() };
        assert!(!func.is_null(), "function at {offset}");
        func
    }
}
