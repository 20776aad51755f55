//! The snapshots of all disks of a VM: made at the same time, checked, opened for reading, given back.

use std::time::Duration;

use futures_util::future::{self, join_all};
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};

use super::Error;
use super::export::Disk;
use super::held::Held;
use super::tags::{SnapshotTags, as_unsaved, is_unsaved};
use crate::azure::{AccessGrant, Azure, ErrorKind, PageBlob, ResourceId};
use crate::json;
use crate::notice::{Notices, some_of, with_causes};

/// How long access is asked for at a time. The access layer renews it before it runs out, so this bounds only how long
/// access stays open after a crash. Azure allows 60 days.
pub(super) const ACCESS_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// Snapshots that are deleted, or marked, at the same time. Each holds a connection: a run may have thousands, and the
/// daemon has other jobs.
const AT_ONCE: usize = 16;

/// The snapshot of one disk, with access to its bytes.
#[derive(Debug)]
pub(super) struct OpenSnapshot {
    pub(super) disk: Disk,
    pub(super) id: ResourceId,
    /// `properties.timeCreated` as Azure wrote it.
    pub(super) created: String,
    /// Its bytes, as long as access is held.
    pub(super) blob: PageBlob,
    pub(super) held: Held,
}

/// What a run wants of one disk.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) disk: Disk,
    pub(super) id: ResourceId,
    pub(super) tags: SnapshotTags,
}

impl Wanted {
    /// The snapshot lives in the resource group of its disk: whoever may read the disk there may see it.
    pub(super) fn new(azure: &Azure, disk: &Disk, tags: SnapshotTags) -> Self {
        Self {
            disk: disk.clone(),
            id: ResourceId::new(
                azure.subscription_id(),
                disk.id.resource_group(),
                "Microsoft.Compute/snapshots",
                &tags.snapshot_name(),
            ),
            tags,
        }
    }

    fn body(&self) -> Value {
        let disk = &self.disk.resource;
        let mut properties = Map::new();
        properties.insert(
            "creationData".into(),
            json!({ "createOption": "Copy", "sourceResourceId": self.disk.id.as_str() }),
        );
        properties.insert("incremental".into(), true.into());
        // A disk that is reachable through private endpoints only gets no snapshot that is reachable otherwise. A disk
        // closed to everybody (DenyAll) can be saved through its snapshot alone, whose policy is its own.
        if json::text(disk, "/properties/networkAccessPolicy") == Some("AllowPrivate") {
            for member in ["networkAccessPolicy", "diskAccessId", "publicNetworkAccess"] {
                if let Some(value) = disk.pointer(&format!("/properties/{member}")) {
                    properties.insert(member.into(), value.clone());
                }
            }
        }
        let mut body = json!({ "tags": self.tags.to_json(), "properties": properties });
        for member in ["location", "extendedLocation"] {
            if let Some(value) = disk.get(member) {
                body[member] = value.clone();
            }
        }
        body
    }

    /// Checks that the snapshot holds what was wanted; its creation time.
    fn check(&self, snapshot: &Value) -> Result<String, Error> {
        let refuse = |reason: String| {
            Err(Error::Unsavable {
                what: format!("snapshot {} of {}", self.id.name(), self.disk.label()),
                reason,
            })
        };
        let source = json::text(snapshot, "/properties/creationData/sourceUniqueId");
        if source.is_none_or(|source| !source.eq_ignore_ascii_case(&self.disk.unique_id)) {
            return refuse(format!(
                "it was taken of the disk with unique id {}, not of {}: the disk was exchanged meanwhile",
                source.unwrap_or("(none)"),
                self.disk.unique_id
            ));
        }
        if !json::is_true(snapshot, "/properties/incremental") {
            return refuse("Azure did not make it incremental".into());
        }
        let size = json::integer(snapshot, "/properties/diskSizeBytes");
        if size != Some(self.disk.size) {
            return refuse(format!(
                "it has {} bytes, the disk had {}: the disk was resized meanwhile; run the job again",
                size.map_or_else(|| "unknown".to_owned(), |size| size.to_string()),
                self.disk.size
            ));
        }
        if json::text(snapshot, "/properties/networkAccessPolicy") == Some("DenyAll") {
            return refuse(
                "its network access policy is DenyAll, so its bytes cannot be read; a policy of the subscription must \
                 set this: exempt snapshots that carry our tags"
                    .into(),
            );
        }
        Ok(json::text(snapshot, "/properties/timeCreated")
            .unwrap_or_default()
            .to_owned())
    }
}

/// Why snapshots were not taken.
#[derive(Debug)]
pub(super) struct NotTaken {
    pub(super) error: Error,
    /// Those that Azure has refused to make, and that are therefore not there. Who may not make one may not be able to look
    /// for it either.
    pub(super) refused: Vec<ResourceId>,
}

impl From<Error> for NotTaken {
    fn from(error: Error) -> Self {
        Self {
            error,
            refused: Vec::new(),
        }
    }
}

/// Takes and opens all snapshots, each step for all disks at the same time; `access` is how long access is asked for at a
/// time.
///
/// # Errors
///
/// The first failure; access to all is then given back, and the caller deletes what was made.
pub(super) async fn take(
    azure: &Azure,
    wanted: Vec<Wanted>,
    access: Duration,
    notices: &Notices,
) -> Result<Vec<OpenSnapshot>, NotTaken> {
    // `join_all` also after a failure: no request must be under way when the clean-up begins.
    let created = join_all(wanted.iter().map(|wanted| async move {
        let failed = |source: crate::azure::Error| {
            let is_refused = source.kind() == ErrorKind::Forbidden && !source.is_repeated();
            let (snapshot, disk) = (wanted.id.name(), wanted.disk.label());
            NotTaken {
                refused: is_refused.then(|| wanted.id.clone()).into_iter().collect(),
                error: Error::azure(format!("take snapshot {snapshot} of {disk}"), source),
            }
        };
        let snapshot = azure
            .create_snapshot(&wanted.id, &wanted.body())
            .await
            .map_err(failed)?;
        Ok(wanted.check(&snapshot)?)
    }))
    .await;
    let created = all_or_why(created)?;

    let granted = join_all(wanted.iter().map(|wanted| async move {
        let opened = open(azure, &wanted.id, access, notices).await;
        opened.map_err(|source| {
            Error::azure(
                format!(
                    "open snapshot {} of {}",
                    wanted.id.name(),
                    wanted.disk.label()
                ),
                source,
            )
        })
    }))
    .await;
    let mut open = Vec::new();
    let mut failure = None;
    for ((wanted, created), granted) in wanted.into_iter().zip(created).zip(granted) {
        match granted {
            Ok(grant) => open.push(OpenSnapshot {
                disk: wanted.disk,
                id: wanted.id,
                created,
                blob: grant.page_blob(),
                held: Held::new(grant),
            }),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let Some(failure) = failure else {
        return Ok(open);
    };
    join_all(open.into_iter().map(|snapshot| async move {
        snapshot.held.give_back(&snapshot.id, notices).await;
    }))
    .await;
    Err(failure.into())
}

/// All, or the first failure with what was refused by any.
fn all_or_why<T>(results: Vec<Result<T, NotTaken>>) -> Result<Vec<T>, NotTaken> {
    let mut all = Vec::new();
    let mut why: Option<NotTaken> = None;
    for result in results {
        match (result, &mut why) {
            (Ok(one), _) => all.push(one),
            (Err(first), None) => why = Some(first),
            (Err(further), Some(why)) => why.refused.extend(further.refused),
        }
    }
    why.map_or(Ok(all), Err)
}

/// Opens a snapshot for reading that was just made, or was closed when this run began, as soon as it is its turn.
pub(super) async fn open(
    azure: &Azure,
    id: &ResourceId,
    access: Duration,
    notices: &Notices,
) -> Result<AccessGrant, crate::azure::Error> {
    let waiting = |busy: &crate::azure::Error| {
        notices.info(format!(
            "waits up to 5 minutes for access to snapshot {}: {}",
            id.name(),
            with_causes(busy)
        ));
    };
    azure.grant_in_turn(id, access, waiting).await
}

/// Gives access back; a failure is an error notice, since access that stays open blocks other work on the disk.
pub(super) async fn revoke(grant: AccessGrant, id: &ResourceId, notices: &Notices) {
    if let Err(error) = grant.revoke().await {
        notices.error(format!(
            "revoke access to snapshot {} in resource group {}: {}",
            id.name(),
            id.resource_group(),
            with_causes(&error)
        ));
    }
}

/// Deletes snapshots, also open ones. What cannot be deleted is an error notice, unless the job was cancelled; these are returned.
pub(super) async fn delete(
    azure: &Azure,
    ids: &[ResourceId],
    notices: &Notices,
) -> Vec<ResourceId> {
    let deletions: Vec<_> = ids.iter().map(|id| async move {
        match delete_one(azure, id).await {
            Ok(()) => None,
            Err(error) if error.is_not_found() => None,
            Err(error) if error.is_cancelled() => Some(id.clone()),
            Err(error) => {
                notices.error(format!(
                    "delete snapshot {} in resource group {}: {}; a later run of this job tries again",
                    id.name(),
                    id.resource_group(),
                    with_causes(&error)
                ));
                Some(id.clone())
            }
        }
    })
    .collect();
    stream::iter(deletions)
        .buffer_unordered(AT_ONCE)
        .filter_map(future::ready)
        .collect()
        .await
}

/// Marks snapshots that could not be deleted as ones whose images are in no backup, so that no run, whatever it has lost, takes
/// them for bases. A lock against deletion allows this. What cannot be marked is an error notice.
///
/// # Errors
///
/// Cancelled, or not all could be marked.
pub(super) async fn mark_unsaved(
    azure: &Azure,
    ids: &[ResourceId],
    notices: &Notices,
) -> Result<(), Error> {
    let marks: Vec<_> = ids
        .iter()
        .map(|id| async move { (id, mark_one_unsaved(azure, id).await) })
        .collect();
    let mut marked = stream::iter(marks).buffer_unordered(AT_ONCE);
    let mut unmarked = Vec::new();
    while let Some((id, marked)) = marked.next().await {
        match marked {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_cancelled() => return Err(Error::Cancelled),
            Err(error) => {
                unmarked.push(id.name().to_owned());
                notices.error(format!(
                    "mark snapshot {} in resource group {} as not saved: {}",
                    id.name(),
                    id.resource_group(),
                    with_causes(&error)
                ));
            }
        }
    }
    if unmarked.is_empty() {
        return Ok(());
    }
    Err(Error::Unmarked {
        snapshots: some_of(unmarked.into_iter()),
    })
}

/// What others have written into its tags stays.
async fn mark_one_unsaved(azure: &Azure, id: &ResourceId) -> Result<(), crate::azure::Error> {
    let snapshot = azure.snapshot(id).await?;
    if is_unsaved(&snapshot) {
        return Ok(());
    }
    azure.update_snapshot_tags(id, as_unsaved(&snapshot)).await
}

/// Nearly all are closed; one that is open is refused, and closed then. Closing may be refused for a snapshot that is not
/// whole, so only the deletion counts.
pub(super) async fn delete_one(azure: &Azure, id: &ResourceId) -> Result<(), crate::azure::Error> {
    let refused = match azure.delete_snapshot(id).await {
        Err(error) if may_be_open(&error) => error,
        other => return other,
    };
    tracing::debug!("close snapshot {} to delete it: {refused}", id.name());
    if let Err(error) = azure.revoke(id).await {
        tracing::debug!("close snapshot {} before its deletion: {error}", id.name());
    }
    azure.delete_snapshot(id).await
}

/// With which code Azure refuses to delete what is open is not documented.
fn may_be_open(refusal: &crate::azure::Error) -> bool {
    matches!(
        refusal.kind(),
        ErrorKind::Conflict | ErrorKind::Refused | ErrorKind::OperationFailed
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::tags::tests::tags;
    use crate::document::Slot;

    fn wanted(properties: Value) -> Wanted {
        let id = |kind: &str, name: &str| ResourceId::new("s", "g", kind, name);
        let disk = Disk {
            id: id("Microsoft.Compute/disks", "data-01"),
            slot: Slot::Data(3),
            unique_id: "aaaa".into(),
            size: 1 << 30,
            sector_size: 512,
            resource: json!({ "location": "westeurope", "properties": properties }),
        };
        let tags = tags();
        Wanted {
            id: id("Microsoft.Compute/snapshots", &tags.snapshot_name()),
            disk,
            tags,
        }
    }

    #[test]
    fn the_request_asks_for_an_incremental_snapshot_and_leaves_the_sku_to_azure() {
        let wanted = wanted(json!({ "networkAccessPolicy": "DenyAll" }));
        assert_eq!(
            wanted.body(),
            json!({
                "location": "westeurope",
                "tags": wanted.tags.to_json(),
                "properties": {
                    "incremental": true,
                    "creationData": {
                        "createOption": "Copy",
                        "sourceResourceId": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/data-01",
                    },
                },
            })
        );
    }

    #[test]
    fn a_private_disk_gets_a_private_snapshot() {
        let wanted =
            wanted(json!({ "networkAccessPolicy": "AllowPrivate", "diskAccessId": "/access" }));
        let body = wanted.body();
        assert_eq!(body["properties"]["networkAccessPolicy"], "AllowPrivate");
        assert_eq!(body["properties"]["diskAccessId"], "/access");
    }

    #[test]
    fn a_snapshot_of_something_else_is_refused() {
        let good = json!({ "properties": {
            "incremental": true, "diskSizeBytes": 1 << 30, "timeCreated": "2026-11-23T09:00:00.0000000+00:00",
            "creationData": { "sourceUniqueId": "AAAA" },
        } });
        let wanted = wanted(json!({}));
        assert_eq!(
            wanted.check(&good).unwrap(),
            "2026-11-23T09:00:00.0000000+00:00"
        );
        for (pointer, value, reason) in [
            (
                "/properties/creationData/sourceUniqueId",
                json!("bbbb"),
                "exchanged",
            ),
            ("/properties/incremental", json!(false), "incremental"),
            ("/properties/diskSizeBytes", json!(2u64 << 30), "resized"),
        ] {
            let mut other = good.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            let error = wanted.check(&other).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let mut closed = good;
        closed["properties"]["networkAccessPolicy"] = "DenyAll".into();
        assert!(
            wanted
                .check(&closed)
                .unwrap_err()
                .to_string()
                .contains("DenyAll")
        );
    }
}
