//! What is saved of the extensions of a virtual machine: which there are, and not what they were told or said.
//!
//! A read of one machine brings the settings of each extension along: addresses with access signatures of scripts, commands,
//! whatever its author took for public ("Virtual machine extensions and features for Linux"). In the instance view stands
//! what it wrote on its way. A restore makes no extensions, so nothing of this is needed, and a catalog is no place for it.

use serde_json::Value;

/// Members of an extension resource that stay.
const OF_RESOURCE: [&str; 5] = ["name", "id", "type", "location", "properties"];
/// Its properties that stay.
const OF_PROPERTIES: [&str; 6] = [
    "publisher",
    "type",
    "typeHandlerVersion",
    "autoUpgradeMinorVersion",
    "enableAutomaticUpgrade",
    "provisioningState",
];
/// Members of an extension in the instance view, and of its handler, that stay.
const OF_VIEW: [&str; 3] = ["name", "type", "typeHandlerVersion"];

/// Leaves of the extensions of `virtual_machine`, as it was read with its instance view, what they are.
pub(super) fn reduce(virtual_machine: &mut Value) {
    for extension in elements(virtual_machine, "/resources") {
        keep(extension, &OF_RESOURCE);
        if let Some(properties) = extension.get_mut("properties") {
            keep(properties, &OF_PROPERTIES);
        }
    }
    for pointer in [
        "/properties/instanceView/extensions",
        "/properties/instanceView/vmAgent/extensionHandlers",
    ] {
        for extension in elements(virtual_machine, pointer) {
            keep(extension, &OF_VIEW);
        }
    }
}

fn elements<'a>(value: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    let array = value.pointer_mut(pointer).and_then(Value::as_array_mut);
    array.into_iter().flatten()
}

fn keep(value: &mut Value, members: &[&str]) {
    match value.as_object_mut() {
        Some(object) => object.retain(|name, _| members.contains(&name.as_str())),
        None => *value = Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_an_extension_was_told_or_said_is_saved() {
        let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/v/extensions/script";
        let secret = "https://a.blob.core.windows.net/s/run.sh?sv=1&sig=hunter2";
        let mut vm = json!({
            "name": "v",
            "properties": {
                "osProfile": {"computerName": "v"},
                "instanceView": {
                    "osName": "debian",
                    "vmAgent": {
                        "vmAgentVersion": "2",
                        "extensionHandlers": [{"type": "t", "typeHandlerVersion": "2.1", "status": {"message": secret}}],
                    },
                    "extensions": [{"name": "script", "type": "t", "typeHandlerVersion": "2.1", "substatuses": [{"message": secret}]}],
                },
            },
            "resources": [
                {
                    "id": id, "name": "script", "type": "Microsoft.Compute/virtualMachines/extensions", "location": "westeurope",
                    "tags": {"x": secret},
                    "properties": {
                        "publisher": "Microsoft.Azure.Extensions", "type": "CustomScript", "typeHandlerVersion": "2.1",
                        "settings": {"fileUris": [secret], "commandToExecute": "run hunter2"},
                        "instanceView": {"statuses": [{"message": secret}]},
                        "protectedSettingsFromKeyVault": {"secretUrl": secret},
                    },
                },
                {"id": id},
                secret,
            ],
        });
        reduce(&mut vm);
        let expected = json!({
            "name": "v",
            "properties": {
                "osProfile": {"computerName": "v"},
                "instanceView": {
                    "osName": "debian",
                    "vmAgent": {"vmAgentVersion": "2", "extensionHandlers": [{"type": "t", "typeHandlerVersion": "2.1"}]},
                    "extensions": [{"name": "script", "type": "t", "typeHandlerVersion": "2.1"}],
                },
            },
            "resources": [
                {
                    "id": id, "name": "script", "type": "Microsoft.Compute/virtualMachines/extensions", "location": "westeurope",
                    "properties": {"publisher": "Microsoft.Azure.Extensions", "type": "CustomScript", "typeHandlerVersion": "2.1"},
                },
                {"id": id},
                null,
            ],
        });
        assert_eq!(vm, expected);
        reduce(&mut json!({"resources": {}, "properties": null}));
    }
}
