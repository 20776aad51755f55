//! `check`: whether login, rights and endpoints are good, and what is missing. Reads only, but for a storage account that
//! backups would go through: there a blob is made and deleted.

use std::collections::BTreeSet;

use azure_vm_fd::azure::authorization::Rights;
use azure_vm_fd::azure::connection_string::ConnectionString;
use azure_vm_fd::azure::page_blob::PAGE;
use azure_vm_fd::azure::{Azure, Error, ErrorKind, ResourceId};
use azure_vm_fd::backup::STAGING_CONTAINER;
use azure_vm_fd::config::Transfer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::args::{Pairs, Parameters};
use crate::failure::{Failure, Status, azure_status};
use crate::output::{Output, Report};

/// The roles that the documentation tells administrators to create: what is tested is what they were told.
const BACKUP_ROLE: &str = include_str!("../../../docs/role-backup.json");
const RESTORE_ROLE: &str = include_str!("../../../docs/role-restore.json");

/// The JSON document.
#[derive(Default, Serialize)]
struct Checks {
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    name: String,
    result: Verdict,
    /// Whether a backup needs it.
    needed: bool,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Missing,
    /// It could not be tested; the detail says why.
    Unknown,
}

/// A role definition, as `az role definition create` takes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Role {
    actions: Vec<String>,
}

pub(crate) async fn run(
    parameters: &Parameters,
    cancel: CancellationToken,
    output: &mut Output,
) -> Result<Report, Failure> {
    let settings = parameters.settings(Pairs::new(), output)?;
    let azure = Azure::new(settings.azure, cancel)?;
    let mut checks = Checks::default();
    let result = checks.run(&azure, &settings.transfer).await;
    for check in &checks.checks {
        check.print(output);
    }
    let status = match result {
        Ok(()) if checks.is_anything_missing() => Status::Refused,
        Ok(()) => Status::Ok,
        Err(error) if error.is_cancelled() => return Err(Failure::cancelled()),
        Err(error) => azure_status(error.kind()),
    };
    Report::new(status, &checks)
}

impl Checks {
    /// Tests one thing after the other; stops at a failure that the following ones would only repeat.
    async fn run(&mut self, azure: &Azure, transfer: &Transfer) -> Result<(), Error> {
        let login = azure.login().await;
        self.add("login", login.map(|()| "a token was issued".to_owned()))?;
        let subscription = azure.subscription().await;
        self.add("subscription", subscription.map(|found| describe(&found)))?;

        let vms = azure.virtual_machines().await;
        let groups = vms.as_deref().map(resource_groups).unwrap_or_default();
        self.add_list("list virtual machines", vms)?;
        self.add_list("list disks", azure.disks().await)?;
        self.add_list("list snapshots", azure.snapshots().await)?;

        if groups.is_empty() {
            self.push(
                "rights",
                Verdict::Unknown,
                true,
                "no virtual machine is visible, so there is no resource group to ask about"
                    .to_owned(),
            );
        }
        for group in &groups {
            self.add_rights(group, azure.rights(group).await)?;
        }
        if let Transfer::Blob(account) = transfer {
            let tried = try_account(azure, account).await;
            self.add("storage account", tried)?;
        }
        self.push(
            "data endpoint",
            Verdict::Unknown,
            true,
            "the host that serves a snapshot has a name only while access is open; it is HTTPS to *.blob.storage.azure.net or *.blob.<storage suffix>".to_owned(),
        );
        Ok(())
    }

    /// A refusal is a finding; anything else that went wrong ends the check.
    fn add(&mut self, name: &str, result: Result<String, Error>) -> Result<(), Error> {
        match result {
            Ok(detail) => self.push(name, Verdict::Ok, true, detail),
            Err(error) if error.is_cancelled() => return Err(error),
            Err(error) => {
                self.push(name, Verdict::Missing, true, error.to_string());
                if error.kind() != ErrorKind::Forbidden {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn add_list(&mut self, name: &str, result: Result<Vec<Value>, Error>) -> Result<(), Error> {
        self.add(name, result.map(|list| format!("{} found", list.len())))
    }

    fn add_rights(&mut self, group: &str, rights: Result<Rights, Error>) -> Result<(), Error> {
        let purposes = [
            ("backup", BACKUP_ROLE, true),
            ("restore", RESTORE_ROLE, false),
        ];
        for (purpose, role, needed) in purposes {
            let name = format!("rights for {purpose} in resource group {group}");
            let (verdict, detail) = match &rights {
                Ok(rights) => missing(rights, role),
                Err(error) if error.is_cancelled() => return Err(error.clone()),
                Err(error) => (Verdict::Unknown, error.to_string()),
            };
            self.push(&name, verdict, needed, detail);
        }
        Ok(())
    }

    fn push(&mut self, name: &str, result: Verdict, needed: bool, detail: String) {
        self.checks.push(Check {
            name: name.to_owned(),
            result,
            needed,
            detail,
        });
    }

    fn is_anything_missing(&self) -> bool {
        self.checks
            .iter()
            .any(|check| check.needed && check.result == Verdict::Missing)
    }
}

impl Check {
    fn print(&self, output: &mut Output) {
        let verdict = match (self.result, self.needed) {
            (Verdict::Ok, _) => "ok",
            (Verdict::Missing, true) => "MISSING",
            (Verdict::Missing, false) => "missing",
            (Verdict::Unknown, _) => "unknown",
        };
        output.line(format!("{verdict:8} {}: {}", self.name, self.detail));
    }
}

/// Writes, reads and deletes a blob where a backup would.
async fn try_account(azure: &Azure, account: &ConnectionString) -> Result<String, Error> {
    let container = azure.container(account, STAGING_CONTAINER)?;
    container.ensure().await?;
    let blob = container.blob(&format!("check-{}", Uuid::new_v4().simple()))?;
    let tried = async {
        blob.create(PAGE).await?;
        blob.page_ranges().await
    }
    .await;
    let deleted = blob.discard().await;
    tried?;
    deleted?;
    Ok(format!("{container} can be written, read and cleaned"))
}

/// Compares rights with a role of the documentation.
fn missing(rights: &Rights, role: &str) -> (Verdict, String) {
    let role: Role = match serde_json::from_str(role) {
        Ok(role) => role,
        Err(error) => {
            return (
                Verdict::Unknown,
                format!("the list of actions is damaged: {error}"),
            );
        }
    };
    let missing: Vec<_> = role
        .actions
        .iter()
        .filter(|action| !rights.allow(action))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        (
            Verdict::Ok,
            format!("all {} actions are allowed", role.actions.len()),
        )
    } else {
        (Verdict::Missing, missing.join(", "))
    }
}

/// Where VMs and their disks are, each group once, in the spelling seen first.
fn resource_groups(vms: &[Value]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    vms.iter()
        .flat_map(|vm| {
            let profile = &vm["properties"]["storageProfile"];
            let data = profile["dataDisks"].as_array().into_iter().flatten();
            [&vm["id"], &profile["osDisk"]["managedDisk"]["id"]]
                .into_iter()
                .chain(data.map(|disk| &disk["managedDisk"]["id"]))
        })
        .filter_map(|id| ResourceId::parse(id.as_str()?))
        .map(|id| id.resource_group().to_owned())
        .filter(|group| seen.insert(group.to_ascii_lowercase()))
        .collect()
}

fn describe(subscription: &Value) -> String {
    let member = |name: &str| subscription[name].as_str().unwrap_or("?").to_owned();
    format!("{} ({})", member("displayName"), member("state"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_role_definitions() {
        for role in [BACKUP_ROLE, RESTORE_ROLE] {
            let role: Role = serde_json::from_str(role).unwrap();
            assert!(role.actions.len() > 10);
            let sorted = role.actions.is_sorted();
            assert!(sorted, "{:?}", role.actions);
        }
    }

    #[test]
    fn the_readme_shows_the_backup_role() {
        let readme = include_str!("../../../README.md");
        let role: Role = serde_json::from_str(BACKUP_ROLE).unwrap();
        for action in role.actions {
            assert!(readme.contains(&format!("\"{action}\"")), "{action}");
        }
    }

    #[test]
    fn groups_of_vms_and_disks_count_once() {
        let id = |group: &str, kind: &str| {
            format!("/subscriptions/s/resourceGroups/{group}/providers/Microsoft.Compute/{kind}/x")
        };
        let vm = serde_json::json!({
            "id": id("A", "virtualMachines"),
            "properties": { "storageProfile": {
                "osDisk": { "managedDisk": { "id": id("a", "disks") } },
                "dataDisks": [{ "lun": 0, "managedDisk": { "id": id("B", "disks") } }, { "lun": 1 }],
            } },
        });
        assert_eq!(resource_groups(&[vm]), ["A", "B"]);
    }
}
