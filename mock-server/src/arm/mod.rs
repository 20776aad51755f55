//! Azure Resource Manager: which request is which operation, and everything that applies to all of them.
pub(crate) mod body;
pub(crate) mod error;
mod network;
mod operations;
mod resources;
mod virtual_machines;
mod volumes;

use self::{body::Body, error::ArmError};
use crate::{
    faults::Action,
    message::{Request, Response},
    state::{
        Group, World,
        resource_id::{Kind, ResourceId},
    },
    token::{self, Caller},
};
use http::Method;
use serde_json::{Value, json};

/// One operation of Resource Manager.
pub(crate) struct Route {
    method: Method,
    /// Segments; those in braces match anything, the others match in any case.
    path: &'static str,
    /// Name as in the SDKs' operation ids.
    pub(crate) name: &'static str,
    /// Action that a role must allow.
    action: &'static str,
    /// Query parameters besides `api-version`.
    query: &'static [&'static str],
    handler: Handler,
}

type Handler = fn(&mut Call<'_>) -> Result<Response, ArmError>;

/// A request on its way through a handler.
pub(crate) struct Call<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) request: &'a Request,
    pub(crate) caller: &'a Caller,
    pub(crate) operation: &'static str,
    pub(crate) fault: Option<&'a Action>,
    captures: Vec<(&'static str, String)>,
}

const fn route(
    method: Method,
    path: &'static str,
    name: &'static str,
    action: &'static str,
    query: &'static [&'static str],
    handler: Handler,
) -> Route {
    Route {
        method,
        path,
        name,
        action,
        query,
        handler,
    }
}

const fn get(
    path: &'static str,
    name: &'static str,
    action: &'static str,
    handler: Handler,
) -> Route {
    route(Method::GET, path, name, action, &[], handler)
}

const fn list(
    path: &'static str,
    name: &'static str,
    action: &'static str,
    handler: Handler,
) -> Route {
    route(Method::GET, path, name, action, &["$skiptoken"], handler)
}

macro_rules! under {
    (S $rest:literal) => {
        concat!("subscriptions/{sub}/", $rest)
    };
    (G $rest:literal) => {
        concat!(
            "subscriptions/{sub}/resourceGroups/{group}/providers/",
            $rest
        )
    };
}

/// Everything that is modelled.
#[rustfmt::skip]
static ROUTES: &[Route] = &[
    list("subscriptions", "Subscriptions_List", "Microsoft.Resources/subscriptions/read", resources::list_subscriptions),
    get("subscriptions/{sub}", "Subscriptions_Get", "Microsoft.Resources/subscriptions/read", resources::get_subscription),
    route(Method::GET, under!(S "resourceGroups"), "ResourceGroups_List", "Microsoft.Resources/subscriptions/resourceGroups/read", &["$skiptoken", "$top"], resources::list_groups),
    get(under!(S "resourceGroups/{group}"), "ResourceGroups_Get", "Microsoft.Resources/subscriptions/resourceGroups/read", resources::get_group),
    route(Method::PUT, under!(S "resourceGroups/{group}"), "ResourceGroups_CreateOrUpdate", "Microsoft.Resources/subscriptions/resourceGroups/write", &[], resources::put_group),
    get(under!(S "providers/Microsoft.Authorization/permissions"), "Permissions_ListForSubscription", "Microsoft.Authorization/permissions/read", resources::permissions),
    get(under!(G "Microsoft.Authorization/permissions"), "Permissions_ListForResourceGroup", "Microsoft.Authorization/permissions/read", resources::permissions),

    route(Method::GET, under!(S "providers/Microsoft.Compute/virtualMachines"), "VirtualMachines_ListAll", "Microsoft.Compute/virtualMachines/read", &["$skiptoken", "$expand", "statusOnly"], virtual_machines::list),
    route(Method::GET, under!(G "Microsoft.Compute/virtualMachines"), "VirtualMachines_List", "Microsoft.Compute/virtualMachines/read", &["$skiptoken", "$expand"], virtual_machines::list),
    route(Method::GET, under!(G "Microsoft.Compute/virtualMachines/{name}"), "VirtualMachines_Get", "Microsoft.Compute/virtualMachines/read", &["$expand"], virtual_machines::get),
    get(under!(G "Microsoft.Compute/virtualMachines/{name}/instanceView"), "VirtualMachines_InstanceView", "Microsoft.Compute/virtualMachines/instanceView/read", virtual_machines::instance_view),
    route(Method::PUT, under!(G "Microsoft.Compute/virtualMachines/{name}"), "VirtualMachines_CreateOrUpdate", "Microsoft.Compute/virtualMachines/write", &[], virtual_machines::put),
    route(Method::DELETE, under!(G "Microsoft.Compute/virtualMachines/{name}"), "VirtualMachines_Delete", "Microsoft.Compute/virtualMachines/delete", &["forceDeletion"], virtual_machines::delete),
    route(Method::POST, under!(G "Microsoft.Compute/virtualMachines/{name}/start"), "VirtualMachines_Start", "Microsoft.Compute/virtualMachines/start/action", &[], virtual_machines::start),
    route(Method::POST, under!(G "Microsoft.Compute/virtualMachines/{name}/deallocate"), "VirtualMachines_Deallocate", "Microsoft.Compute/virtualMachines/deallocate/action", &["hibernate"], virtual_machines::deallocate),
    route(Method::POST, under!(G "Microsoft.Compute/virtualMachines/{name}/powerOff"), "VirtualMachines_PowerOff", "Microsoft.Compute/virtualMachines/powerOff/action", &["skipShutdown"], virtual_machines::power_off),

    list(under!(S "providers/Microsoft.Compute/disks"), "Disks_List", "Microsoft.Compute/disks/read", volumes::list_disks),
    list(under!(G "Microsoft.Compute/disks"), "Disks_ListByResourceGroup", "Microsoft.Compute/disks/read", volumes::list_disks),
    get(under!(G "Microsoft.Compute/disks/{name}"), "Disks_Get", "Microsoft.Compute/disks/read", volumes::get_disk),
    route(Method::PUT, under!(G "Microsoft.Compute/disks/{name}"), "Disks_CreateOrUpdate", "Microsoft.Compute/disks/write", &[], volumes::put_disk),
    route(Method::PATCH, under!(G "Microsoft.Compute/disks/{name}"), "Disks_Update", "Microsoft.Compute/disks/write", &[], volumes::patch_disk),
    route(Method::DELETE, under!(G "Microsoft.Compute/disks/{name}"), "Disks_Delete", "Microsoft.Compute/disks/delete", &[], volumes::delete_disk),
    route(Method::POST, under!(G "Microsoft.Compute/disks/{name}/beginGetAccess"), "Disks_GrantAccess", "Microsoft.Compute/disks/beginGetAccess/action", &[], volumes::grant_disk),
    route(Method::POST, under!(G "Microsoft.Compute/disks/{name}/endGetAccess"), "Disks_RevokeAccess", "Microsoft.Compute/disks/endGetAccess/action", &[], volumes::revoke_disk),

    list(under!(S "providers/Microsoft.Compute/snapshots"), "Snapshots_List", "Microsoft.Compute/snapshots/read", volumes::list_snapshots),
    list(under!(G "Microsoft.Compute/snapshots"), "Snapshots_ListByResourceGroup", "Microsoft.Compute/snapshots/read", volumes::list_snapshots),
    get(under!(G "Microsoft.Compute/snapshots/{name}"), "Snapshots_Get", "Microsoft.Compute/snapshots/read", volumes::get_snapshot),
    route(Method::PUT, under!(G "Microsoft.Compute/snapshots/{name}"), "Snapshots_CreateOrUpdate", "Microsoft.Compute/snapshots/write", &[], volumes::put_snapshot),
    route(Method::PATCH, under!(G "Microsoft.Compute/snapshots/{name}"), "Snapshots_Update", "Microsoft.Compute/snapshots/write", &[], volumes::patch_snapshot),
    route(Method::DELETE, under!(G "Microsoft.Compute/snapshots/{name}"), "Snapshots_Delete", "Microsoft.Compute/snapshots/delete", &[], volumes::delete_snapshot),
    route(Method::POST, under!(G "Microsoft.Compute/snapshots/{name}/beginGetAccess"), "Snapshots_GrantAccess", "Microsoft.Compute/snapshots/beginGetAccess/action", &[], volumes::grant_snapshot),
    route(Method::POST, under!(G "Microsoft.Compute/snapshots/{name}/endGetAccess"), "Snapshots_RevokeAccess", "Microsoft.Compute/snapshots/endGetAccess/action", &[], volumes::revoke_snapshot),

    list(under!(S "providers/Microsoft.Network/networkInterfaces"), "NetworkInterfaces_ListAll", "Microsoft.Network/networkInterfaces/read", network::list_nics),
    list(under!(G "Microsoft.Network/networkInterfaces"), "NetworkInterfaces_List", "Microsoft.Network/networkInterfaces/read", network::list_nics),
    get(under!(G "Microsoft.Network/networkInterfaces/{name}"), "NetworkInterfaces_Get", "Microsoft.Network/networkInterfaces/read", network::get_nic),
    route(Method::PUT, under!(G "Microsoft.Network/networkInterfaces/{name}"), "NetworkInterfaces_CreateOrUpdate", "Microsoft.Network/networkInterfaces/write", &[], network::put_nic),
    route(Method::DELETE, under!(G "Microsoft.Network/networkInterfaces/{name}"), "NetworkInterfaces_Delete", "Microsoft.Network/networkInterfaces/delete", &[], network::delete_nic),
    get(under!(G "Microsoft.Network/publicIPAddresses/{name}"), "PublicIPAddresses_Get", "Microsoft.Network/publicIPAddresses/read", network::get_public_ip),
    route(Method::PUT, under!(G "Microsoft.Network/publicIPAddresses/{name}"), "PublicIPAddresses_CreateOrUpdate", "Microsoft.Network/publicIPAddresses/write", &[], network::put_public_ip),
    route(Method::DELETE, under!(G "Microsoft.Network/publicIPAddresses/{name}"), "PublicIPAddresses_Delete", "Microsoft.Network/publicIPAddresses/delete", &[], network::delete_public_ip),
    get(under!(G "Microsoft.Network/virtualNetworks/{name}"), "VirtualNetworks_Get", "Microsoft.Network/virtualNetworks/read", network::get_network),
    get(under!(G "Microsoft.Network/virtualNetworks/{name}/subnets/{subnet}"), "Subnets_Get", "Microsoft.Network/virtualNetworks/subnets/read", network::get_subnet),
    get(under!(G "Microsoft.Network/networkSecurityGroups/{name}"), "NetworkSecurityGroups_Get", "Microsoft.Network/networkSecurityGroups/read", network::get_security_group),

    route(Method::GET, under!(S "providers/Microsoft.Compute/locations/{location}/DiskOperations/{id}"), "DiskOperations_Get", "Microsoft.Compute/locations/diskOperations/read", &["p", "monitor", "t", "c", "s", "h"], operations::poll),
    route(Method::GET, under!(S "providers/Microsoft.Compute/locations/{location}/operations/{id}"), "ComputeOperations_Get", "Microsoft.Compute/locations/operations/read", &["p", "monitor", "t", "c", "s", "h"], operations::poll),
    route(Method::GET, under!(S "providers/Microsoft.Network/locations/{location}/operations/{id}"), "NetworkOperations_Get", "Microsoft.Network/locations/operations/read", &["t", "c", "s", "h"], operations::poll),
    route(Method::GET, under!(S "providers/Microsoft.Network/locations/{location}/operationResults/{id}"), "NetworkOperations_GetResult", "Microsoft.Network/locations/operationResults/read", &["t", "c", "s", "h"], operations::result),
];

/// Every action that a caller may be denied.
pub(crate) fn actions() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(|route| route.action)
}

/// The route of a request and what its path holds.
pub(crate) fn find(request: &Request) -> Option<(&'static Route, Vec<(&'static str, String)>)> {
    ROUTES.iter().find_map(|route| {
        (route.method == request.method)
            .then(|| route.captures(&request.segments))
            .flatten()
            .map(|captures| (route, captures))
    })
}

impl Route {
    fn captures(&self, segments: &[String]) -> Option<Vec<(&'static str, String)>> {
        let mut captures = Vec::new();
        let mut given = segments.iter();
        for part in self.path.split('/') {
            let segment = given.next()?;
            match part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'))
            {
                Some(name) => captures.push((name, segment.clone())),
                None if part.eq_ignore_ascii_case(segment) => {}
                None => return None,
            }
        }
        given.next().is_none().then_some(captures)
    }

    pub(crate) fn respond(
        &self,
        world: &mut World,
        request: &Request,
        captures: Vec<(&'static str, String)>,
        fault: Option<&Action>,
    ) -> Result<Response, ArmError> {
        let caller = token::authenticate(world, request)?;
        self.check_query(request)?;
        let mut call = Call {
            world,
            request,
            caller: &caller,
            operation: self.name,
            fault,
            captures,
        };
        call.authorize(self.action)?;
        (self.handler)(&mut call)
    }

    fn check_query(&self, request: &Request) -> Result<(), ArmError> {
        let Some(version) = request.query("api-version") else {
            return Err(ArmError::gateway(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            ));
        };
        if !is_version(version) {
            return Err(ArmError::gateway(
                400,
                "InvalidApiVersionParameter",
                format!(
                    "The api-version '{version}' is invalid. The supported versions are '2026-04-01,2026-03-02,2025-04-01,2025-01-02,2024-11-01,2023-11-01,2022-12-01'."
                ),
            ));
        }
        for (name, _) in &request.query {
            let known = self
                .query
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name));
            if !known && !name.eq_ignore_ascii_case("api-version") {
                return Err(ArmError::unmodelled(format!(
                    "query parameter {name} of {}",
                    self.name
                )));
            }
        }
        Ok(())
    }
}

/// Whether a text looks like a version that a service of these years knows.
fn is_version(text: &str) -> bool {
    let date = text.strip_suffix("-preview").unwrap_or(text);
    let parts: Vec<Option<u32>> = date.split('-').map(|part| part.parse().ok()).collect();
    matches!(parts[..], [Some(2016..=2027), Some(1..=12), Some(1..=31)]) && date.len() == 10
}

impl Call<'_> {
    /// What the path says for `{name}`.
    pub(crate) fn capture(&self, name: &str) -> &str {
        self.captures
            .iter()
            .find(|(known, _)| *known == name)
            .map_or("", |(_, value)| value.as_str())
    }

    fn authorize(&self, action: &str) -> Result<(), ArmError> {
        let subscription = self.capture("sub");
        let denied = self
            .caller
            .denied_actions
            .iter()
            .any(|denied| denied.eq_ignore_ascii_case(action));
        let known = subscription.is_empty() || self.sees(subscription);
        if !known
            && !self
                .world
                .subscriptions
                .iter()
                .any(|s| s.id.eq_ignore_ascii_case(subscription))
        {
            return Err(ArmError::gateway(
                404,
                "SubscriptionNotFound",
                format!("The subscription '{subscription}' could not be found."),
            ));
        }
        if denied || !known {
            let client = &self.caller.client_id;
            return Err(ArmError::gateway(
                403,
                "AuthorizationFailed",
                format!(
                    "The client '{client}' with object id '{client}' does not have authorization to perform action '{action}' over scope '{}' or the scope is invalid. If access was recently granted, please refresh your credentials.",
                    self.request.path
                ),
            ));
        }
        Ok(())
    }

    /// Whether the caller may see a subscription.
    fn sees(&self, subscription: &str) -> bool {
        let listed = self
            .caller
            .subscriptions
            .as_ref()
            .is_none_or(|all| all.iter().any(|id| id.eq_ignore_ascii_case(subscription)));
        listed
            && self.world.subscriptions.iter().any(|known| {
                known.id.eq_ignore_ascii_case(subscription)
                    && known
                        .tenant_id
                        .as_ref()
                        .is_none_or(|tenant| tenant.eq_ignore_ascii_case(&self.caller.tenant))
            })
    }

    /// The resource group of the path, which must exist.
    pub(crate) fn group(&self) -> Result<&Group, ArmError> {
        let name = self.capture("group");
        self.world.group(self.capture("sub"), name).ok_or_else(|| {
            ArmError::gateway(
                404,
                "ResourceGroupNotFound",
                format!("Resource group '{name}' could not be found."),
            )
        })
    }

    /// The id of the path, in an existing resource group.
    pub(crate) fn id(&self, kind: Kind) -> Result<ResourceId, ArmError> {
        let group = self.group()?;
        Ok(ResourceId::new(
            self.capture("sub"),
            &group.name,
            kind,
            self.capture("name"),
        ))
    }

    pub(crate) fn not_found(&self, id: &ResourceId) -> ArmError {
        ArmError::gateway(
            404,
            "ResourceNotFound",
            format!(
                "The Resource '{}/{}' under resource group '{}' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
                id.kind.resource_type(),
                id.name,
                id.group
            ),
        )
    }

    /// The JSON body.
    pub(crate) fn json(&self) -> Result<Value, ArmError> {
        serde_json::from_slice(&self.request.body).map_err(|error| {
            ArmError::gateway(
                400,
                "InvalidRequestContent",
                format!(
                    "The request content was invalid and could not be deserialized: '{error}'."
                ),
            )
        })
    }

    /// One page of a list, by ids; `items` are all of them. A page begins behind the last item of the one before, whose
    /// id is the skip token (as in the example of "Disks - List"): what comes and goes meanwhile hides nothing else.
    pub(crate) fn page(&self, mut items: Vec<Value>) -> Result<Response, ArmError> {
        let size = self.world.settings.arm_page_size;
        let id = |item: &Value| item["id"].as_str().unwrap_or_default().to_ascii_lowercase();
        items.sort_by_cached_key(id);
        let start = match self.request.query("$skiptoken") {
            None => 0,
            Some(token) => {
                let last = token.strip_prefix("emulator-").ok_or_else(|| {
                    ArmError::new(400, "InvalidSkipToken", "The skip token is not valid.")
                })?;
                items.partition_point(|item| id(item).as_str() <= last)
            }
        };
        let more = items.len() > start + size;
        let page: Vec<Value> = items.into_iter().skip(start).take(size).collect();
        let mut body = json!({ "value": &page });
        if more {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            for (name, value) in &self.request.query {
                if !name.eq_ignore_ascii_case("$skiptoken") {
                    query.append_pair(name, value);
                }
            }
            let last = page.last().map(id).unwrap_or_default();
            query.append_pair("$skiptoken", &format!("emulator-{last}"));
            let next = format!(
                "{}{}?{}",
                self.request.base,
                self.request.path,
                query.finish()
            );
            body["nextLink"] = json!(next);
        }
        Ok(Response::json(200, &body))
    }

    /// Whether a resource is in the listed subscription and, if the path names one, resource group.
    pub(crate) fn lists(&self, id: &ResourceId) -> bool {
        let group = self.capture("group");
        id.subscription.eq_ignore_ascii_case(self.capture("sub"))
            && (group.is_empty() || id.group.eq_ignore_ascii_case(group))
    }

    /// For lists in a resource group: that it exists.
    pub(crate) fn check_list_scope(&self) -> Result<(), ArmError> {
        if self.capture("group").is_empty() {
            Ok(())
        } else {
            self.group().map(|_| ())
        }
    }
}

/// Parses the body and hands it on with the world.
pub(crate) fn with_body<T>(
    call: &mut Call<'_>,
    handler: impl FnOnce(&mut World, &Body<'_>) -> Result<T, ArmError>,
) -> Result<T, ArmError> {
    let value = call.json()?;
    handler(call.world, &Body::new(&value)?)
}
