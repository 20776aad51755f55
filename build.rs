//! Link options of the plugin.

fn main() {
    // The File Daemon may unload a plugin while job threads still run (SIGTERM): the code must stay mapped.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
