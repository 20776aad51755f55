//! A panic on command, for tests of what surrounds the calls. Only in builds with debug assertions: not in what is installed.

use crate::plugin::host::Host;

/// Panics if `panic` in our folder of the working directory asks for that: entry point, number of the job, and how many of its
/// calls of the entry point still pass. Once.
#[cfg(debug_assertions)]
pub(super) fn reached(entry: &str, host: &dyn Host) {
    use std::fs::OpenOptions;
    use std::io::{Read as _, Write as _};
    use std::path::Path;

    use crate::plugin::host::{IntVariable, TextVariable};
    use crate::private_folder::PrivateFolder;

    let Some(dir) = host.text(TextVariable::WorkingDir) else {
        return;
    };
    let Ok(folder) = PrivateFolder::open(&Path::new(&dir).join("azure-vm")) else {
        return;
    };
    let place = folder.file("panic");
    let Ok(mut file) = place.open(OpenOptions::new().read(true)) else {
        return;
    };
    let mut text = String::new();
    if file.read_to_string(&mut text).is_err() {
        return;
    }
    let words: Vec<_> = text.split_whitespace().collect();
    let [wanted, job, passes] = words[..] else {
        return;
    };
    let number = host.int(IntVariable::JobId).unwrap_or_default().to_string();
    if (wanted, job) != (entry, &*number) {
        return;
    }
    match passes.parse::<u32>() {
        Ok(passes @ 1..) => {
            let rest = format!("{wanted} {job} {}", passes - 1);
            drop(
                place
                    .open(OpenOptions::new().write(true).truncate(true))
                    .and_then(|mut file| file.write_all(rest.as_bytes())),
            );
        }
        Ok(0) | Err(_) => {
            drop(place.remove());
            panic!("asked for in {entry}");
        }
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(super) fn reached(_entry: &str, _host: &dyn Host) {}
