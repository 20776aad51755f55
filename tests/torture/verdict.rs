//! What must be true of a job whatever went wrong on the way.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use azure_vm_fd::notice::Severity;
use mock_server::{DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_SUBSCRIPTION};

use crate::scene::{ACCOUNT, COPIES, MACHINE, OTHER_SECRET, Scene};
use crate::support::{GROUP, World};

/// How a scene with faults ended, if it ended as it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Succeeded,
    /// With this message.
    Failed(String),
}

/// Names of everything that exists, but for tracked snapshots and the machines that were restored well with their parts;
/// what is open, those among them; folders of restores.
#[derive(Clone, Debug, Default)]
pub(crate) struct Things(BTreeSet<String>);

impl Things {
    pub(crate) fn of(world: &World, restored: &[&str]) -> Self {
        let state = world.state();
        let tracked = tracked(&world.folder.path().join("state"));
        let mut things = BTreeSet::new();
        things.extend(state.virtual_machines.iter().map(|vm| vm.name.clone()));
        things.extend(state.disks.iter().map(|disk| disk.name.clone()));
        things.extend(state.network_interfaces.iter().map(|nic| nic.name.clone()));
        things.extend(state.blobs(ACCOUNT).iter().map(|blob| blob.name.clone()));
        let snapshots = state.snapshots.iter().map(|snapshot| &snapshot.name);
        things.extend(snapshots.filter(|name| !tracked.contains(*name)).cloned());
        for vm in restored.iter().filter_map(|name| state.vm(name)) {
            things.remove(&vm.name);
            things.remove(&vm.os_disk.name);
            for disk in vm.data_disks.values() {
                things.remove(&disk.name);
            }
            for nic in &vm.network_interfaces {
                things.remove(last(nic));
            }
        }
        let grants = state
            .grants
            .iter()
            .map(|grant| format!("access to {}", grant.resource));
        things.extend(grants);
        let folders = files(&world.folder.path().join("restore"));
        things.extend(folders.map(|path| format!("local file {}", path.display())));
        Self(things)
    }

    fn beyond<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a String> {
        self.0.difference(&other.0)
    }
}

/// The judge of a scene and the jobs after it.
pub(crate) struct Verdict {
    world: Arc<World>,
    scene: Scene,
    /// What there was before all.
    start: Things,
    /// What the last job said that counts as an error.
    pub(crate) errors: Vec<String>,
    /// Warnings of all jobs.
    warnings: Vec<String>,
}

impl Verdict {
    pub(crate) fn new(world: &Arc<World>, scene: Scene) -> Self {
        Self {
            world: Arc::clone(world),
            scene,
            start: Things::of(world, &[]),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// How a job ended before which and after which there were these things, or what is wrong with it.
    pub(crate) fn judge(
        &mut self,
        outcome: Result<(), String>,
        before: &Things,
        after: &Things,
    ) -> Result<Ending, String> {
        let mut notices = self.world.take_notices();
        self.errors = notices.remove(&Severity::Error).unwrap_or_default();
        let mut told = self.errors.clone();
        let ending = match outcome {
            Ok(()) => Ending::Succeeded,
            Err(text) if text.starts_with(WRONG) => return Err(text),
            Err(text) => {
                told.push(text.clone());
                Ending::Failed(text)
            }
        };
        for text in &told {
            names_something(text)?;
        }
        self.betrays_nothing(told.iter().chain(notices.values().flatten()))?;
        let warnings = notices.remove(&Severity::Warning);
        self.warnings.extend(warnings.unwrap_or_default());
        for thing in after.beyond(before) {
            let name = last(thing);
            // Of what was left and named before, an operation that went on may have opened it meanwhile.
            if self.scene.is_restore() && before.0.contains(name) {
                continue;
            }
            // The mark in a local folder names to the next job what this one has named.
            if name == "in-use" && !told.is_empty() {
                continue;
            }
            if !told.iter().any(|text| is_named(name, text)) {
                return Err(format!(
                    "{thing} is left and nobody says so: {told:?}; there was {before:?}"
                ));
            }
        }
        // Beside the one that ends the job only what could not be given back, and what was saved in another way.
        for text in &self.errors {
            let known = [
                "delete ",
                "revoke ",
                "remove ",
                "abort ",
                "saved as a full image",
            ];
            if !known.iter().any(|known| text.contains(known)) {
                return Err(format!("a second error: {text}; {ending:?}"));
            }
        }
        Ok(ending)
    }

    /// After the last job nothing is left but a machine that a failed restore had asked for, and could not remove: it may
    /// be somebody's by now, so a warning names it and its parts.
    pub(crate) fn end(&self, things: &Things) -> Result<(), String> {
        for thing in things.beyond(&self.start) {
            let name = last(thing);
            let is_told = self
                .warnings
                .iter()
                .any(|text| text.contains("when it made virtual machine") && is_named(name, text));
            if !is_told {
                return Err(format!(
                    "{thing} is still left after the next job; warnings: {:?}",
                    self.warnings
                ));
            }
        }
        Ok(())
    }

    /// No message and no file of ours holds a secret.
    fn betrays_nothing<'a>(&self, texts: impl Iterator<Item = &'a String>) -> Result<(), String> {
        let secrets = self.world.emulator.secrets();
        let mut secrets: BTreeSet<_> = secrets.into_iter().map(|(_, secret)| secret).collect();
        secrets.extend([DEFAULT_CLIENT_SECRET, OTHER_SECRET].map(str::to_owned));
        let encoded = secrets.iter().map(|secret| {
            let encoded = url::form_urlencoded::byte_serialize(secret.as_bytes());
            encoded.collect::<String>()
        });
        let encoded: Vec<_> = encoded.collect();
        secrets.extend(encoded);
        secrets.extend(["sig=", "eyJ"].map(str::to_owned));
        let found = |text: &str| secrets.iter().any(|secret| text.contains(secret.as_str()));
        for text in texts {
            if found(text) {
                return Err(format!("a secret is told: {text}"));
            }
            if text.contains('\n') {
                return Err(format!("more than a line: {text}"));
            }
        }
        for path in files(&self.world.folder.path().join("state")) {
            let text = fs::read(&path).unwrap_or_default();
            if found(&String::from_utf8_lossy(&text)) {
                return Err(format!("a secret is in {}", path.display()));
            }
        }
        Ok(())
    }
}

const WRONG: &str = "WRONG: ";

/// The outcome of a job that did what it must never do.
pub(crate) fn wrong(what: &str) -> String {
    format!("{WRONG}{what}")
}

fn names_something(text: &str) -> Result<(), String> {
    let names = [
        MACHINE,
        DEFAULT_CLIENT_ID,
        DEFAULT_SUBSCRIPTION,
        GROUP,
        ACCOUNT,
    ];
    let mut names = names.iter().chain(&COPIES);
    // Names of parts begin with that of their machine, or with this.
    let is_part = |word: &str| {
        let mut wholes = ["ledger"].iter().chain(&COPIES);
        wholes.any(|whole| {
            word.strip_prefix(*whole)
                .is_some_and(|rest| rest.starts_with('-'))
        })
    };
    if !names.any(|name| is_named(name, text)) && !words(text).any(is_part) {
        return Err(format!("nothing is named: {text}"));
    }
    Ok(())
}

/// Whether `text` has all words of `name`, one after the other: a disk whose name begins with that of its machine does not name the
/// machine.
fn is_named(name: &str, text: &str) -> bool {
    let name: Vec<_> = words(name).collect();
    let text: Vec<_> = words(text).collect();
    text.windows(name.len()).any(|part| part == name)
}

/// What may be a name in Azure.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '-')
        .filter(|word| !word.is_empty())
}

#[test]
fn a_name_within_another_word_is_not_named() {
    let part = "remove disk ledger02-os-1a2b of the failed restore: gone";
    assert!(is_named("ledger02-os-1a2b", part));
    assert!(is_named("1_osdisk.raw", "write /x/1_osdisk.raw: full"));
    for name in ["ledger02", "os", "ledger02-os", "1_osdisk.raw"] {
        assert!(!is_named(name, part), "{name}");
    }
    assert_eq!(names_something(part), Ok(()));
    assert!(names_something("look for ledger05-os").is_err());
}

/// Last part of an id or path.
fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// All files below a folder.
fn files(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> + use<> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.into_iter()
}

/// Names of the snapshots in the tracker file.
fn tracked(state: &Path) -> BTreeSet<String> {
    let Ok(text) = fs::read_to_string(state.join("tracker.json")) else {
        return BTreeSet::new();
    };
    let ends = text.split("/snapshots/").skip(1);
    ends.filter_map(|rest| rest.split('"').next().map(str::to_owned))
        .collect()
}
