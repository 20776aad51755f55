//! `snapshots`: what jobs keep in Azure, by the tags of the snapshots. Reads only.

use std::time::{Duration, SystemTime};

use azure_vm_fd::azure::Azure;
use azure_vm_fd::backup::{KnownSnapshot, OwnSnapshot, own_snapshots};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{Pairs, Parameters, SnapshotArgs};
use crate::failure::{Failure, Status};
use crate::output::{Output, Report, human};

/// The JSON document.
#[derive(Serialize)]
struct Snapshots {
    snapshots: Vec<Snapshot>,
}

/// One of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Snapshot {
    name: String,
    resource_group: String,
    /// By its name at that time.
    vm: String,
    vm_uuid: String,
    disk: String,
    job: String,
    run: String,
    client: String,
    level: String,
    age_seconds: u64,
    /// Of the disk; Azure does not tell what is billed.
    size_bytes: u64,
    in_use: bool,
}

pub(crate) async fn run(
    parameters: &Parameters,
    selection: &SnapshotArgs,
    cancel: CancellationToken,
    output: &mut Output,
) -> Result<Report, Failure> {
    let settings = parameters.settings(Pairs::new(), output)?;
    let azure = Azure::new(settings.azure, cancel)?;
    let snapshots: Vec<_> = select(&azure, selection)
        .await?
        .iter()
        .map(Snapshot::new)
        .collect();
    for snapshot in &snapshots {
        output.line(snapshot.text());
    }
    Report::new(Status::Ok, &Snapshots { snapshots })
}

/// The snapshots of ours that `selection` means, oldest run first.
pub(crate) async fn select(
    azure: &Azure,
    selection: &SnapshotArgs,
) -> Result<Vec<OwnSnapshot>, Failure> {
    let mut own = own_snapshots(azure).await?;
    own.retain(|snapshot| selection.selects(snapshot));
    Ok(own)
}

impl SnapshotArgs {
    fn selects(&self, snapshot: &OwnSnapshot) -> bool {
        let snapshot = &snapshot.known;
        let is = |wanted: &Option<String>, names: &[&str]| {
            wanted
                .as_deref()
                .is_none_or(|wanted| names.iter().any(|name| matches(wanted, name)))
        };
        is(&self.job, &[&snapshot.chain, &snapshot.job])
            && is(&self.client, &[&snapshot.client])
            && self.older_than.is_none_or(|limit| age(snapshot) > limit)
    }
}

/// A `*` at the end stands for anything.
fn matches(wanted: &str, name: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == wanted,
    }
}

impl Snapshot {
    pub(crate) fn new(OwnSnapshot { known, is_open }: &OwnSnapshot) -> Self {
        Self {
            name: known.id.name().to_owned(),
            resource_group: known.id.resource_group().to_owned(),
            vm: known.vm_name.clone(),
            vm_uuid: known.vm.clone(),
            disk: known.disk_name.clone(),
            job: known.chain.clone(),
            run: known.job.clone(),
            client: known.client.clone(),
            level: known.level.to_string(),
            age_seconds: age(known).as_secs(),
            size_bytes: known.size,
            in_use: *is_open,
        }
    }

    /// One line for people.
    pub(crate) fn text(&self) -> String {
        format!(
            "{}  {}  {}  {}  {}  {}  {} old  {}{}",
            self.name,
            self.resource_group,
            self.vm,
            self.disk,
            human(self.size_bytes),
            self.level,
            human_age(self.age_seconds),
            self.run,
            if self.in_use { "  in use" } else { "" }
        )
    }
}

/// Since the run that made it began.
fn age(snapshot: &KnownSnapshot) -> Duration {
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(snapshot.started);
    started.elapsed().unwrap_or_default()
}

fn human_age(seconds: u64) -> String {
    match seconds / 3600 {
        0 => format!("{} min", seconds / 60),
        hours @ 1..48 => format!("{hours} h"),
        hours => format!("{} d", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_meant_as_a_whole_unless_it_ends_in_an_asterisk() {
        assert!(matches("web", "web") && !matches("web", "web.old"));
        assert!(matches("azure-vm.*", "azure-vm.0f") && !matches("azure-vm.*", "azure-vmware"));
        assert!(matches("*", "anything") && !matches("w*b", "web"));
    }

    #[test]
    fn ages_are_short() {
        assert_eq!(human_age(59), "0 min");
        assert_eq!(human_age(47 * 3600), "47 h");
        assert_eq!(human_age(49 * 3600), "2 d");
    }
}
