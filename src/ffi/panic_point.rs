//! A panic on command, for tests of what surrounds the calls. Only in builds with debug assertions: not in what is installed.

use crate::plugin::host::Host;

/// Panics if `panic` in our folder of the working directory asks for that: entry point, number of the job, and how many of its
/// calls of the entry point still pass. Once.
#[cfg(debug_assertions)]
pub(super) fn reached(entry: &str, host: &dyn Host) {
    use crate::plugin::host::{IntVariable, TextVariable};

    let Some(dir) = host.text(TextVariable::WorkingDir) else {
        return;
    };
    let path = std::path::Path::new(&dir).join("azure-vm/panic");
    let Ok(text) = std::fs::read_to_string(&path) else {
        return;
    };
    let words: Vec<_> = text.split_whitespace().collect();
    let [wanted, job, passes] = words[..] else {
        return;
    };
    let number = host.int(IntVariable::JobId).unwrap_or_default().to_string();
    if (wanted, job) != (entry, &*number) {
        return;
    }
    match passes.parse::<u32>() {
        Ok(passes @ 1..) => drop(std::fs::write(
            &path,
            format!("{wanted} {job} {}", passes - 1),
        )),
        Ok(0) | Err(_) => {
            drop(std::fs::remove_file(&path));
            panic!("asked for in {entry}");
        }
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(super) fn reached(_entry: &str, _host: &dyn Host) {}
