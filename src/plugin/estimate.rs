//! An estimate: the files that a backup would make, by listing alone.

use std::time::SystemTime;

use super::backup::run;
use super::error::Error;
use super::host::{Host, SaveFile};
use super::session::Session;
use crate::backup::{Backup, PlannedEntry};
use crate::config::Settings;

/// The files still to be listed, in reverse.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    rest: Vec<PlannedEntry>,
}

/// The command without what `.ls` appends to it: ` listing=` and the path that was asked for, which may have blanks.
pub(super) fn strip_listing(command: &str) -> &str {
    command
        .rsplit_once(" listing=/")
        .map_or(command, |(command, _path)| command)
}

impl Estimate {
    /// Asks Azure what a run of `settings` would save.
    pub(super) fn begin(
        session: &mut Session,
        host: &dyn Host,
        level: char,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let run = run(host, level, false)?;
        let notices = session.notices.clone();
        // As for a tracker that cannot be read: the tags of the snapshots tell the same.
        let state = match session.find_state_folder(host) {
            Err(error @ Error::StateFolder { .. }) => {
                notices.warning(error.chain());
                None
            }
            found => found?,
        };
        let azure = session.connect(settings)?;
        let plan = session
            .bridge()?
            .race(Backup::plan(
                &azure,
                &run,
                &settings.selection,
                state.as_ref(),
                &notices,
            ))
            .ok_or(Error::Cancelled)??;
        if level != 'F' {
            notices.info(
                "the sizes are those of the whole disks; a job of this level sends what has changed, and how much that is \
                 only its snapshots tell",
            );
        }
        let mut rest = Vec::new();
        for vm in plan {
            if level != 'F' && vm.refusal.is_none() {
                let disks = vm.disks.iter();
                let disks: Vec<_> = disks
                    .map(|disk| format!("{}: {}", disk.name, disk.reason))
                    .collect();
                notices.info(format!("virtual machine {}: {}", vm.name, disks.join("; ")));
            }
            if let Some(refusal) = vm.refusal {
                notices.warning(format!("save virtual machine {}: {refusal}", vm.name));
            }
            rest.extend(vm.entries);
        }
        rest.reverse();
        Ok(Self { rest })
    }

    /// The next file; `None` if there is none.
    pub(super) fn start_file(&mut self) -> Option<SaveFile> {
        let PlannedEntry { path, size } = self.rest.pop()?;
        Some(SaveFile::File {
            path,
            size,
            modified: SystemTime::now(),
            offsets: false,
        })
    }

    /// Whether another file follows.
    pub(super) fn has_more(&self) -> bool {
        !self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listing_parameter_goes() {
        assert_eq!(strip_listing("azure-vm: vm=a listing=/"), "azure-vm: vm=a");
        assert_eq!(
            strip_listing("azure-vm: vm=a listing=/@azure-vm/a b"),
            "azure-vm: vm=a"
        );
        assert_eq!(strip_listing("azure-vm: vm=a"), "azure-vm: vm=a");
    }
}
