//! Virtual machines on the wire.
use super::{
    Call,
    error::ArmError,
    operations::{Polling, Provider},
    volumes::limits,
    with_body,
};
use crate::{
    message::Response,
    scenario::PowerState,
    state::{operation::Effect, resource_id::Kind},
};

pub(super) fn list(call: &mut Call<'_>) -> Result<Response, ArmError> {
    call.check_list_scope()?;
    if call
        .request
        .query("statusOnly")
        .is_some_and(|value| value != "false")
    {
        return Err(ArmError::unmodelled(
            "statusOnly of VirtualMachines_ListAll",
        ));
    }
    let expand = expands(call)?;
    let vms = call.world.vms.values().filter(|vm| call.lists(&vm.id));
    let response = call.page(vms.map(|vm| call.world.show_vm(vm, expand)).collect())?;
    Ok(limits(response, "HighCostGet"))
}

/// Whether `$expand=instanceView` was asked for.
fn expands(call: &Call<'_>) -> Result<bool, ArmError> {
    match call.request.query("$expand") {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("instanceView") => Ok(true),
        Some(other) => Err(ArmError::unmodelled(format!("$expand={other} of a VM"))),
    }
}

pub(super) fn get(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let expand = expands(call)?;
    let id = call.id(Kind::VirtualMachine)?;
    let key = id.key();
    call.world.poll_resource(&key);
    let Some(vm) = call.world.vms.get(&key) else {
        return Err(call.not_found(&id));
    };
    Ok(limits(
        Response::json(200, &call.world.show_vm(vm, expand)),
        "LowCostGet",
    ))
}

pub(super) fn instance_view(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let id = call.id(Kind::VirtualMachine)?;
    let Some(vm) = call.world.vms.get(&id.key()) else {
        return Err(call.not_found(&id));
    };
    Ok(limits(
        Response::json(200, &call.world.instance_view(vm)),
        "LowCostGet",
    ))
}

pub(super) fn put(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let id = call.id(Kind::VirtualMachine)?;
    let key = id.key();
    let exists = call.world.vms.contains_key(&key);
    let none_match = call.request.header("if-none-match");
    if exists && none_match == Some("*") {
        return Err(ArmError::new(
            412,
            "PreconditionFailed",
            format!("The virtual machine '{}' exists already.", id.name),
        ));
    }
    if call.request.header("if-match").is_some() || none_match.is_some_and(|value| value != "*") {
        return Err(ArmError::unmodelled("If-Match with an etag on a VM"));
    }
    let (shown, is_new) = with_body(call, |world, body| world.put_vm(id, body))?;
    let location = location_of(call, &key);
    let answer = limits(
        Response::json(if is_new { 201 } else { 200 }, &shown),
        "PutVM",
    );
    let polling = Polling::AsyncOperation;
    Ok(call.start(
        Provider::Machines,
        &location,
        &key,
        Effect::VmReady,
        polling,
        answer,
    ))
}

pub(super) fn delete(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let key = call.id(Kind::VirtualMachine)?.key();
    if !call.world.vms.contains_key(&key) {
        return Ok(Response::empty(204));
    }
    let location = location_of(call, &key);
    let answer = limits(Response::empty(202), "DeleteVM");
    Ok(call.start(
        Provider::Machines,
        &location,
        &key,
        Effect::VmDelete,
        Polling::Both,
        answer,
    ))
}

pub(super) fn start(call: &mut Call<'_>) -> Result<Response, ArmError> {
    power(call, PowerState::Running)
}

pub(super) fn deallocate(call: &mut Call<'_>) -> Result<Response, ArmError> {
    if call
        .request
        .query("hibernate")
        .is_some_and(|value| value != "false")
    {
        return Err(ArmError::unmodelled(
            "hibernate of VirtualMachines_Deallocate",
        ));
    }
    power(call, PowerState::Deallocated)
}

pub(super) fn power_off(call: &mut Call<'_>) -> Result<Response, ArmError> {
    power(call, PowerState::Stopped)
}

fn power(call: &mut Call<'_>, state: PowerState) -> Result<Response, ArmError> {
    let id = call.id(Kind::VirtualMachine)?;
    let key = id.key();
    let Some(vm) = call.world.vms.get_mut(&key) else {
        return Err(call.not_found(&id));
    };
    vm.provisioning = "Updating";
    let location = vm.location.clone();
    let answer = limits(Response::empty(202), "UpdateVM");
    let effect = Effect::VmPower(state);
    Ok(call.start(
        Provider::Machines,
        &location,
        &key,
        effect,
        Polling::Both,
        answer,
    ))
}

fn location_of(call: &Call<'_>, key: &str) -> String {
    call.world
        .vms
        .get(key)
        .map(|vm| vm.location.clone())
        .unwrap_or_default()
}
