//! Subscriptions, resource groups and what a caller may do.
use super::{Call, error::ArmError, with_body};
use crate::{
    message::Response,
    scenario::Subscription,
    state::{Group, group_key},
};
use serde_json::{Value, json};

fn show_subscription(subscription: &Subscription) -> Value {
    json!({
        "id": format!("/subscriptions/{}", subscription.id),
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": subscription.id,
        "tenantId": subscription.tenant_id,
        "displayName": subscription.display_name,
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
    })
}

pub(super) fn list_subscriptions(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let visible = call
        .world
        .subscriptions
        .iter()
        .filter(|known| call.sees(&known.id));
    call.page(visible.map(show_subscription).collect())
}

pub(super) fn get_subscription(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let id = call.capture("sub");
    let known = call
        .world
        .subscriptions
        .iter()
        .find(|known| known.id.eq_ignore_ascii_case(id));
    match known {
        Some(subscription) => Ok(Response::json(200, &show_subscription(subscription))),
        None => Err(ArmError::gateway(
            404,
            "SubscriptionNotFound",
            format!("The subscription '{id}' could not be found."),
        )),
    }
}

fn show_group(group: &Group) -> Value {
    json!({
        "id": group.id(),
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        "tags": group.tags,
        "properties": { "provisioningState": "Succeeded" },
    })
}

pub(super) fn list_groups(call: &mut Call<'_>) -> Result<Response, ArmError> {
    if call.request.query("$top").is_some() {
        return Err(ArmError::unmodelled("$top of ResourceGroups_List"));
    }
    let subscription = call.capture("sub");
    let groups = call
        .world
        .groups
        .values()
        .filter(|group| group.subscription.eq_ignore_ascii_case(subscription));
    call.page(groups.map(show_group).collect())
}

pub(super) fn get_group(call: &mut Call<'_>) -> Result<Response, ArmError> {
    Ok(Response::json(200, &show_group(call.group()?)))
}

pub(super) fn put_group(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let (subscription, name) = (
        call.capture("sub").to_owned(),
        call.capture("group").to_owned(),
    );
    let valid = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '(' | ')');
    if name.len() > 90 || !name.chars().all(valid) || name.ends_with('.') {
        return Err(ArmError::gateway(
            400,
            "InvalidResourceGroup",
            format!(
                "The provided resource group name '{name}' has these invalid characters or is too long."
            ),
        ));
    }
    with_body(call, |world, body| {
        let (location, tags) = (body.location()?, body.tags()?);
        let key = group_key(&subscription, &name);
        let status = match world.groups.get_mut(&key) {
            Some(group) if group.location != location => {
                return Err(ArmError::gateway(
                    409,
                    "InvalidResourceGroupLocation",
                    format!(
                        "Invalid resource group location '{location}'. The Resource group already exists in location '{}'.",
                        group.location
                    ),
                ));
            }
            Some(group) => {
                group.tags = tags;
                200
            }
            None => {
                let group = Group {
                    subscription,
                    name,
                    location,
                    tags,
                };
                world.groups.insert(key.clone(), group);
                201
            }
        };
        Ok(Response::json(status, &show_group(&world.groups[&key])))
    })
}

/// What the caller may do: everything but the actions denied to it.
pub(super) fn permissions(call: &mut Call<'_>) -> Result<Response, ArmError> {
    call.check_list_scope()?;
    let body = json!({ "value": [{
        "actions": ["*"],
        "notActions": call.caller.denied_actions,
        "dataActions": [],
        "notDataActions": [],
    }]});
    Ok(Response::json(200, &body))
}
