//! `GET /metadata/endpoints`: what `az cloud register --endpoint-resource-manager` asks before anybody has logged in.
//!
//! The members are those that the command line of Azure reads (azure-cli-core, `_arm_to_cli_mapper`), for
//! `api-version=2022-09-01`, which answers with one object; older versions answer with a list.
use crate::message::{Request, Response};
use serde_json::json;

/// Everything that the emulator plays is found below the address that the question came by.
pub(crate) fn endpoints(request: &Request) -> Response {
    let base = &request.base;
    let host = base
        .split_once("://")
        .map_or(base.as_str(), |(_, host)| host);
    let description = json!({
        "name": "AzureEmulator",
        "portal": base,
        "authentication": {
            "loginEndpoint": base,
            "audiences": [base],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "graph": base,
        "graphAudience": base,
        "microsoftGraphResourceId": base,
        "media": base,
        "batch": base,
        "gallery": base,
        "sqlManagement": base,
        "vmImageAliasDoc": base,
        "resourceManager": base,
        "activeDirectoryDataLake": base,
        "suffixes": { "storage": host },
    });
    if request.query("api-version") < Some("2022-09-01") {
        return Response::json(200, &json!([description]));
    }
    Response::json(200, &description)
}
