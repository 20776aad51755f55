//! Managed disks and snapshots on the wire.
use super::{
    Call,
    error::ArmError,
    operations::{Polling, Provider},
    with_body,
};
use crate::{
    message::Response,
    state::{grant::Access, operation::Effect, resource_id::Kind, volume::Form},
};
use serde_json::Value;

const CREATE_DISK: &str = "CreateUpdateDisks";
const CREATE_SNAPSHOT: &str = "HighCostSnapshotCreateHydrate";
const HYDRATE_DISK: &str = "HighCostDiskHydrate";

pub(super) fn list_disks(call: &mut Call<'_>) -> Result<Response, ArmError> {
    list(call, Kind::Disk)
}

pub(super) fn list_snapshots(call: &mut Call<'_>) -> Result<Response, ArmError> {
    list(call, Kind::Snapshot)
}

fn list(call: &mut Call<'_>, kind: Kind) -> Result<Response, ArmError> {
    call.check_list_scope()?;
    let volumes = call.world.volumes.values();
    let listed = volumes.filter(|volume| volume.id.kind == kind && call.lists(&volume.id));
    call.page(
        listed
            .map(|volume| call.world.show_volume(volume, Form::Full))
            .collect(),
    )
}

pub(super) fn get_disk(call: &mut Call<'_>) -> Result<Response, ArmError> {
    get(call, Kind::Disk)
}

pub(super) fn get_snapshot(call: &mut Call<'_>) -> Result<Response, ArmError> {
    get(call, Kind::Snapshot)
}

fn get(call: &mut Call<'_>, kind: Kind) -> Result<Response, ArmError> {
    let id = call.id(kind)?;
    let key = id.key();
    call.world.poll_resource(&key);
    let Some(volume) = call.world.volumes.get(&key) else {
        return Err(call.not_found(&id));
    };
    let shown = call.world.show_volume(volume, Form::Full);
    call.world.advance_copy(&key);
    Ok(limits(Response::json(200, &shown), "LowCostGet"))
}

pub(super) fn put_disk(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let id = call.id(Kind::Disk)?;
    let key = id.key();
    let shown = with_body(call, |world, body| world.put_disk(id, body))?;
    Ok(changed(call, &key, &shown, CREATE_DISK))
}

pub(super) fn put_snapshot(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let id = call.id(Kind::Snapshot)?;
    let key = id.key();
    let shown = with_body(call, |world, body| world.put_snapshot(id, body))?;
    Ok(changed(call, &key, &shown, CREATE_SNAPSHOT))
}

pub(super) fn patch_disk(call: &mut Call<'_>) -> Result<Response, ArmError> {
    patch(call, Kind::Disk)
}

pub(super) fn patch_snapshot(call: &mut Call<'_>) -> Result<Response, ArmError> {
    patch(call, Kind::Snapshot)
}

fn patch(call: &mut Call<'_>, kind: Kind) -> Result<Response, ArmError> {
    let id = call.id(kind)?;
    let key = id.key();
    if !call.world.volumes.contains_key(&key) {
        return Err(call.not_found(&id));
    }
    let shown = with_body(call, |world, body| world.patch_volume(&key, body))?;
    Ok(changed(call, &key, &shown, CREATE_DISK))
}

fn changed(call: &mut Call<'_>, key: &str, shown: &Value, policy: &str) -> Response {
    let location = location_of(call, key);
    let answer = limits(Response::json(202, shown), policy);
    call.start(
        Provider::Disks,
        &location,
        key,
        Effect::VolumeReady,
        Polling::Both,
        answer,
    )
}

pub(super) fn delete_disk(call: &mut Call<'_>) -> Result<Response, ArmError> {
    delete(call, Kind::Disk)
}

pub(super) fn delete_snapshot(call: &mut Call<'_>) -> Result<Response, ArmError> {
    delete(call, Kind::Snapshot)
}

fn delete(call: &mut Call<'_>, kind: Kind) -> Result<Response, ArmError> {
    let key = call.id(kind)?.key();
    if !call.world.volumes.contains_key(&key) {
        return Ok(Response::empty(204));
    }
    call.world.check_delete(&key)?;
    let location = location_of(call, &key);
    let answer = limits(Response::empty(202), "DeleteDisks");
    Ok(call.start(
        Provider::Disks,
        &location,
        &key,
        Effect::VolumeDelete,
        Polling::Both,
        answer,
    ))
}

pub(super) fn grant_disk(call: &mut Call<'_>) -> Result<Response, ArmError> {
    grant(call, Kind::Disk)
}

pub(super) fn grant_snapshot(call: &mut Call<'_>) -> Result<Response, ArmError> {
    grant(call, Kind::Snapshot)
}

fn grant(call: &mut Call<'_>, kind: Kind) -> Result<Response, ArmError> {
    let id = call.id(kind)?;
    let key = id.key();
    if !call.world.volumes.contains_key(&key) {
        return Err(call.not_found(&id));
    }
    let (access, seconds) = with_body(call, |_, body| {
        let access = match body.text("access")? {
            "Read" => Access::Read,
            "Write" => Access::Write,
            other => {
                return Err(ArmError::invalid(
                    "access",
                    format!("The value '{other}' of parameter access is invalid."),
                ));
            }
        };
        let seconds = body.number("durationInSeconds")?.ok_or_else(|| {
            ArmError::invalid(
                "durationInSeconds",
                "Required parameter 'durationInSeconds' is missing (null).",
            )
        })?;
        if body.flag("getSecureVMGuestStateSAS")?.unwrap_or(false) {
            return Err(ArmError::unmodelled("getSecureVMGuestStateSAS"));
        }
        match body.optional_text("fileFormat")? {
            None | Some("VHD") => {}
            Some(other) => return Err(ArmError::unmodelled(format!("fileFormat {other}"))),
        }
        Ok((access, seconds))
    })?;
    let sector = call.world.volumes[&key]
        .creation
        .get("logicalSectorSize")
        .and_then(Value::as_u64);
    if sector == Some(4096) {
        return Err(ArmError::unmodelled(
            "access to a disk with logicalSectorSize 4096",
        ));
    }
    call.world.check_grant(&key, access, seconds)?;
    let location = location_of(call, &key);
    let answer = limits(Response::empty(202), hydrate(kind));
    let effect = Effect::Grant { access, seconds };
    Ok(call.start(
        Provider::Disks,
        &location,
        &key,
        effect,
        Polling::Both,
        answer,
    ))
}

pub(super) fn revoke_disk(call: &mut Call<'_>) -> Result<Response, ArmError> {
    revoke(call, Kind::Disk)
}

pub(super) fn revoke_snapshot(call: &mut Call<'_>) -> Result<Response, ArmError> {
    revoke(call, Kind::Snapshot)
}

fn revoke(call: &mut Call<'_>, kind: Kind) -> Result<Response, ArmError> {
    let id = call.id(kind)?;
    let key = id.key();
    if !call.world.volumes.contains_key(&key) {
        return Err(call.not_found(&id));
    }
    let location = location_of(call, &key);
    let answer = limits(Response::empty(202), hydrate(kind));
    Ok(call.start(
        Provider::Disks,
        &location,
        &key,
        Effect::Revoke,
        Polling::Both,
        answer,
    ))
}

fn hydrate(kind: Kind) -> &'static str {
    if kind == Kind::Snapshot {
        CREATE_SNAPSHOT
    } else {
        HYDRATE_DISK
    }
}

fn location_of(call: &Call<'_>, key: &str) -> String {
    call.world
        .volumes
        .get(key)
        .map(|volume| volume.location.clone())
        .unwrap_or_default()
}

/// What the compute provider says about the caller's remaining requests.
pub(super) fn limits(response: Response, policy: &str) -> Response {
    response.header(
        "x-ms-ratelimit-remaining-resource",
        format!("Microsoft.Compute/{policy}3Min;999,Microsoft.Compute/{policy}30Min;7999"),
    )
}
