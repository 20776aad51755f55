//! Network resources on the wire.
use super::{
    Call,
    error::ArmError,
    operations::{Polling, Provider},
    with_body,
};
use crate::{
    message::Response,
    state::{World, operation::Effect, resource_id::Kind},
};
use serde_json::{Value, json};

pub(super) fn list_nics(call: &mut Call<'_>) -> Result<Response, ArmError> {
    call.check_list_scope()?;
    let nics = call
        .world
        .network
        .nics
        .values()
        .filter(|nic| call.lists(&nic.id));
    call.page(nics.map(|nic| call.world.show_nic(nic)).collect())
}

pub(super) fn get_nic(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let id = call.id(Kind::NetworkInterface)?;
    match call.world.network.nics.get(&id.key()) {
        Some(nic) => Ok(Response::json(200, &call.world.show_nic(nic))),
        None => Err(call.not_found(&id)),
    }
}

pub(super) fn put_nic(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let id = call.id(Kind::NetworkInterface)?;
    let key = id.key();
    let (shown, is_new) = with_body(call, |world, body| world.put_nic(id, body))?;
    Ok(changed(call, &key, &shown, is_new))
}

pub(super) fn delete_nic(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let key = call.id(Kind::NetworkInterface)?.key();
    let location = call
        .world
        .network
        .nics
        .get(&key)
        .map(|nic| nic.location.clone());
    if !call.world.delete_nic(&key)? {
        return Ok(Response::empty(204));
    }
    Ok(deleted(call, &key, &location.unwrap_or_default()))
}

pub(super) fn get_public_ip(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let id = call.id(Kind::PublicIpAddress)?;
    match call.world.network.public_ips.get(&id.key()) {
        Some(ip) => Ok(Response::json(200, &call.world.show_public_ip(ip))),
        None => Err(call.not_found(&id)),
    }
}

pub(super) fn put_public_ip(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let id = call.id(Kind::PublicIpAddress)?;
    let key = id.key();
    let (shown, is_new) = with_body(call, |world, body| world.put_public_ip(id, body))?;
    Ok(changed(call, &key, &shown, is_new))
}

pub(super) fn delete_public_ip(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let key = call.id(Kind::PublicIpAddress)?.key();
    let location = call
        .world
        .network
        .public_ips
        .get(&key)
        .map(|ip| ip.location.clone());
    if !call.world.delete_public_ip(&key)? {
        return Ok(Response::empty(204));
    }
    Ok(deleted(call, &key, &location.unwrap_or_default()))
}

fn changed(call: &mut Call<'_>, key: &str, shown: &Value, is_new: bool) -> Response {
    let location = shown
        .get("location")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let answer = Response::json(if is_new { 201 } else { 200 }, shown);
    call.start(
        Provider::Network,
        &location,
        key,
        Effect::Nothing,
        Polling::AsyncOperation,
        answer,
    )
}

fn deleted(call: &mut Call<'_>, key: &str, location: &str) -> Response {
    let answer = Response::empty(202);
    call.start(
        Provider::Network,
        location,
        key,
        Effect::Nothing,
        Polling::Both,
        answer,
    )
}

pub(super) fn get_network(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let id = call.id(Kind::VirtualNetwork)?;
    match call.world.network.networks.get(&id.key()) {
        Some(network) => Ok(Response::json(200, &call.world.show_network(network))),
        None => Err(call.not_found(&id)),
    }
}

pub(super) fn get_subnet(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let network = call.id(Kind::VirtualNetwork)?;
    if !call.world.network.networks.contains_key(&network.key()) {
        return Err(call.not_found(&network));
    }
    let id = format!("{network}/subnets/{}", call.capture("subnet"));
    match call.world.network.subnets.get(&id.to_ascii_lowercase()) {
        Some(subnet) => Ok(Response::json(200, &World::show_subnet(subnet))),
        None => Err(ArmError::new(
            404,
            "NotFound",
            format!("Resource {id} not found."),
        )),
    }
}

pub(super) fn get_security_group(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let id = call.id(Kind::NetworkSecurityGroup)?;
    match call.world.network.security_groups.get(&id.key()) {
        Some(group) => Ok(Response::json(
            200,
            &json!({
                "name": group.id.name,
                "id": group.id.to_string(),
                "type": id.kind.resource_type(),
                "location": group.location,
                "properties": { "provisioningState": "Succeeded", "securityRules": [] },
            }),
        )),
        None => Err(call.not_found(&id)),
    }
}
