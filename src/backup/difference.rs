//! What changed in a disk since its base, or why that cannot be told.
//!
//! Everything that is known beforehand is checked before Azure is asked: a base of another disk, an unfinished one, a
//! newer one. That is in the list of all snapshots, which each run reads when it begins, and none of it can change.
//! Whatever the reason, the caller saves this one disk in full.

use std::collections::{HashMap, HashSet};

use std::fmt;

use futures_util::future::join;
use serde_json::Value;

use super::Error;
use super::chain::{Base, Chain, RunRecord};
use super::export::Disk;
use super::exported::{Changes, ExportedImage};
use super::run::Context;
use super::snapshot_set::{self, OpenSnapshot};
use crate::azure::snapshot::unreadable;
use crate::azure::{AccessGrant, ResourceId};
use crate::json;
use crate::notice::with_causes;
use crate::quantity::ByteSize;

/// Azure computes no difference between snapshots if the disk was resized across this size in between ("Create an
/// incremental snapshot for managed disks": 4 TB, by which it means TiB). On which side a disk of exactly this size
/// stands is not documented, so it is taken to stand on the other side of both its neighbours.
const LINE: u64 = 4 << 40;

/// Why there is no difference.
#[derive(Debug)]
pub(super) enum NoDifference {
    Cancelled,
    /// Continues a sentence after "because".
    Because(String),
}

/// What matters of a snapshot that may become a base.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// `properties.uniqueId` of the disk that it was taken of.
    source: Option<String>,
    /// Why it is no base, whatever the disk.
    unfit: Option<String>,
    /// `properties.timeCreated` as Azure wrote it.
    created: String,
    /// Bytes of the disk.
    size: Option<u64>,
}

/// [`Facts`] of the recorded snapshots of a job, by their ids in small letters.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownBases(HashMap<String, Facts>);

impl KnownBases {
    /// Of `chain`, as far as they are `listed`.
    pub(super) fn new(chain: &Chain, listed: &[Value]) -> Self {
        let recorded: HashSet<_> = chain
            .runs
            .iter()
            .flat_map(RunRecord::snapshots)
            .map(|snapshot| snapshot.id.to_ascii_lowercase())
            .collect();
        let facts = listed.iter().filter_map(|snapshot| {
            let id = json::text(snapshot, "/id")?.to_ascii_lowercase();
            recorded.contains(&id).then(|| (id, Facts::of(snapshot)))
        });
        Self(facts.collect())
    }

    fn get(&self, id: &ResourceId) -> Option<&Facts> {
        self.0.get(&id.as_str().to_ascii_lowercase())
    }
}

impl Facts {
    fn of(snapshot: &Value) -> Self {
        let text = |pointer| json::text(snapshot, pointer).map(str::to_owned);
        let unfit = if !json::is_true(snapshot, "/properties/incremental") {
            Some("is not an incremental one".into())
        } else if let Some(state) = unreadable(snapshot) {
            Some(format!("is not complete: {state}"))
        } else if json::text(snapshot, "/properties/networkAccessPolicy") == Some("DenyAll") {
            Some("has the network access policy DenyAll, so it cannot be opened".into())
        } else {
            None
        };
        Self {
            source: text("/properties/creationData/sourceUniqueId"),
            unfit,
            created: text("/properties/timeCreated").unwrap_or_default(),
            size: json::integer(snapshot, "/properties/diskSizeBytes"),
        }
    }
}

impl NoDifference {
    fn of(base: &Base, reason: impl fmt::Display) -> Self {
        Self::Because(format!(
            "snapshot {} of job {}, on which it builds, {reason}",
            base.snapshot.name(),
            base.job
        ))
    }
}

/// The image of `snapshot`, which `opening` opens meanwhile, and its changes since `base`; names at most `most_cleared`
/// cleared ranges. Access to the base is held for the time of the listing only: Azure allows few per disk.
///
/// # Errors
///
/// Those of `opening`.
pub(super) async fn list(
    context: &Context,
    snapshot: &OpenSnapshot,
    opening: impl Future<Output = Result<ExportedImage, Error>>,
    base: &Base,
    most_cleared: usize,
) -> Result<(ExportedImage, Result<Changes, NoDifference>), Error> {
    let (image, opened) = join(opening, Box::pin(open(context, snapshot, base))).await;
    let (grant, size) = match opened {
        Ok(opened) => opened,
        Err(none) => return image.map(|image| (image, Err(none))),
    };
    let listed = async {
        let image = image?;
        let what = format!("snapshot {}", base.snapshot.name());
        let base_image = ExportedImage::of_base(grant.page_blob(), what, size);
        let changes = Box::pin(image.changes_since(&base_image, most_cleared)).await;
        let changes = changes.map_err(|error| {
            if error.is_cancelled() {
                NoDifference::Cancelled
            } else {
                NoDifference::of(
                    base,
                    format!("cannot be compared with it: {}", with_causes(&error)),
                )
            }
        });
        Ok((image, changes))
    }
    .await;
    snapshot_set::revoke(grant, &base.snapshot, &context.notices).await;
    listed
}

/// Checks and opens the base; its size in bytes.
async fn open(
    context: &Context,
    snapshot: &OpenSnapshot,
    base: &Base,
) -> Result<(AccessGrant, u64), NoDifference> {
    let refused = |what: &str, error: &crate::azure::Error| {
        if error.is_cancelled() {
            NoDifference::Cancelled
        } else if error.is_not_found() {
            NoDifference::of(base, "is gone")
        } else {
            NoDifference::of(base, format!("cannot be {what}: {}", with_causes(error)))
        }
    };
    let read;
    let facts = match context.bases.get(&base.snapshot) {
        Some(listed) => listed,
        None => {
            let snapshot = context.azure.snapshot(&base.snapshot).await;
            read = Facts::of(&snapshot.map_err(|error| refused("read", &error))?);
            &read
        }
    };
    let size = check(facts, &snapshot.disk, &snapshot.created)
        .map_err(|reason| NoDifference::of(base, reason))?;
    let duration = snapshot_set::ACCESS_DURATION;
    let grant = snapshot_set::open(&context.azure, &base.snapshot, duration, &context.notices)
        .await
        .map_err(|error| refused("opened", &error))?;
    Ok((grant, size))
}

/// Whether the snapshot `base` can be the base of one of `disk` that was `created` then; its size in bytes.
fn check(base: &Facts, disk: &Disk, created: &str) -> Result<u64, String> {
    let source = base.source.as_deref();
    if source.is_none_or(|source| !source.eq_ignore_ascii_case(&disk.unique_id)) {
        return Err(format!(
            "was taken of another disk, with unique id {} instead of {}",
            source.unwrap_or("(none)"),
            disk.unique_id
        ));
    }
    if let Some(unfit) = &base.unfit {
        return Err(unfit.clone());
    }
    if is_older(&base.created, created) == Some(false) {
        return Err(format!(
            "is not older than the present one: {} and {created}",
            base.created
        ));
    }
    let Some(size) = base.size else {
        return Err("has no properties.diskSizeBytes".into());
    };
    if size > disk.size {
        return Err(format!(
            "is larger than the disk: {size} and {} bytes",
            disk.size
        ));
    }
    if size < disk.size && (size..=disk.size).contains(&LINE) {
        return Err(format!(
            "is from before the disk grew over 4 TiB, from {} to {}: Azure computes no difference across that size",
            ByteSize(size),
            ByteSize(disk.size)
        ));
    }
    Ok(size)
}

/// Whether the first of two ISO 8601 times is before the second; `None` if they have different offsets, which Azure is
/// not known to do for snapshots of one region. It has the last word anyway.
fn is_older(first: &str, second: &str) -> Option<bool> {
    let split = |time: &str| {
        let at = time.find('T')?;
        let offset = at + time[at..].find(['Z', '+', '-'])?;
        Some((time[..offset].to_owned(), time[offset..].to_owned()))
    };
    let ((first, first_offset), (second, second_offset)) = (split(first)?, split(second)?);
    // Without the offset, text order is time order, whatever the number of fraction digits.
    (first_offset == second_offset).then(|| first < second)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::Slot;

    const NOW: &str = "2026-11-23T10:00:00.0000001+00:00";
    const TIB: u64 = 1 << 40;

    fn disk(size: u64) -> Disk {
        Disk {
            id: ResourceId::new("s", "g", "Microsoft.Compute/disks", "d"),
            slot: Slot::Data(3),
            unique_id: "aaaa".into(),
            size,
            sector_size: 512,
            resource: Value::Null,
        }
    }

    fn base(size: u64) -> Value {
        json!({ "properties": {
            "incremental": true, "provisioningState": "Succeeded", "diskSizeBytes": size,
            "timeCreated": "2026-11-23T10:00:00+00:00", "networkAccessPolicy": "AllowAll",
            "creationData": { "sourceUniqueId": "AAAA" },
        } })
    }

    #[test]
    fn what_cannot_be_a_base_is_refused_before_azure_is_asked() {
        assert_eq!(check(&Facts::of(&base(TIB)), &disk(TIB), NOW), Ok(TIB));
        for (member, value, reason) in [
            (
                "creationData",
                json!({ "sourceUniqueId": "bbbb" }),
                "another disk",
            ),
            ("creationData", json!({}), "another disk"),
            ("incremental", json!(false), "not an incremental"),
            ("provisioningState", json!("Failed"), "not complete"),
            ("completionPercent", json!(99.0), "copied to 99 %"),
            ("networkAccessPolicy", json!("DenyAll"), "DenyAll"),
            ("timeCreated", json!(NOW), "not older"),
            (
                "timeCreated",
                json!("2026-11-23T10:00:01+00:00"),
                "not older",
            ),
            ("diskSizeBytes", Value::Null, "diskSizeBytes"),
            ("diskSizeBytes", json!(TIB + 512), "larger than the disk"),
        ] {
            let mut base = base(TIB);
            base["properties"][member] = value;
            let refusal = check(&Facts::of(&base), &disk(TIB), NOW).unwrap_err();
            assert!(refusal.contains(reason), "{refusal}");
        }
    }

    #[test]
    fn a_disk_may_grow_but_not_over_4_tib() {
        for (from, to, allowed) in [
            (TIB, 2 * TIB, true),
            (4 * TIB, 4 * TIB, true),
            (4 * TIB + 512, 8 * TIB, true),
            (TIB, 4 * TIB, false),
            (4 * TIB, 5 * TIB, false),
            (4 * TIB - 512, 4 * TIB + 512, false),
        ] {
            let checked = check(&Facts::of(&base(from)), &disk(to), NOW);
            assert_eq!(checked.is_ok(), allowed, "{from} to {to}: {checked:?}");
        }
    }

    #[test]
    fn times_of_one_offset_compare() {
        for (first, second, older) in [
            (
                "2026-11-23T09:00:00.1234567+00:00",
                "2026-11-23T09:00:00.123457+00:00",
                Some(true),
            ),
            ("2026-11-23T09:00:00Z", "2026-11-23T09:00:00.1Z", Some(true)),
            (
                "2026-11-23T09:00:00-07:00",
                "2026-11-22T09:00:00-07:00",
                Some(false),
            ),
            (
                "2026-11-23T09:00:00-07:00",
                "2026-11-23T09:00:00+00:00",
                None,
            ),
            ("", "2026-11-23T09:00:00+00:00", None),
        ] {
            assert_eq!(is_older(first, second), older, "{first} {second}");
        }
    }
}
