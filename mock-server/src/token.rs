//! The token endpoint of Entra ID, and what Resource Manager makes of its tokens.
use crate::{
    arm::error::ArmError,
    clock,
    message::{Request, Response, percent_decode},
    metadata,
    state::{World, grant::sign},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Audiences of Resource Manager in all clouds, with and without the slash at their end.
const ARM_AUDIENCES: [&str; 6] = [
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://management.usgovcloudapi.net",
    "https://management.core.usgovcloudapi.net",
    "https://management.core.chinacloudapi.cn",
    "https://management.sovcloud-api.fr",
];

/// Who a valid token speaks for.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) tenant: String,
    pub(crate) client_id: String,
    /// Subscriptions it may see; `None`: all of its tenant.
    pub(crate) subscriptions: Option<Vec<String>>,
    pub(crate) denied_actions: Vec<String>,
}

/// The operation that a request to an authority asks for.
pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    let segments: Vec<String> = request
        .segments
        .iter()
        .map(|segment| segment.to_ascii_lowercase())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (request.method.as_str(), &segments[..]) {
        ("POST", [_, "oauth2", "v2.0", "token"]) => Some("Token"),
        ("GET", [_, "v2.0", ".well-known", "openid-configuration"]) => Some("OpenIdConfiguration"),
        ("GET", ["metadata", "endpoints"]) => Some("CloudMetadata"),
        _ => None,
    }
}

pub(crate) fn respond(world: &World, request: &Request, operation: &str) -> Response {
    let tenant = request
        .segments
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    let answer = match operation {
        "Token" => issue(world, request, tenant),
        "CloudMetadata" => Ok(metadata::endpoints(request)),
        _ => discover(world, request, tenant),
    };
    answer
        .unwrap_or_else(|refusal| refusal.into_response(world))
        .header("cache-control", "no-store, no-cache")
}

/// An error of Entra ID.
struct Refusal {
    status: u16,
    error: &'static str,
    number: u32,
    message: String,
}

impl Refusal {
    fn new(status: u16, error: &'static str, number: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            error,
            number,
            message: message.into(),
        }
    }

    fn into_response(self, world: &World) -> Response {
        let (trace, correlation) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        let time = clock::entra(world.now);
        let body = json!({
            "error": self.error,
            "error_description": format!(
                "AADSTS{}: {} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}",
                self.number, self.message
            ),
            "error_codes": [self.number],
            "timestamp": time,
            "trace_id": trace.to_string(),
            "correlation_id": correlation.to_string(),
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.number),
        });
        Response::json(self.status, &body)
    }
}

fn find_tenant<'a>(world: &'a World, id: &str) -> Result<&'a crate::scenario::Tenant, Refusal> {
    if uuid::Uuid::parse_str(id).is_err() && !id.contains('.') {
        return Err(Refusal::new(
            400,
            "invalid_request",
            900_023,
            format!(
                "Specified tenant identifier '{id}' is neither a valid DNS name, nor a valid external domain."
            ),
        ));
    }
    world.tenants.iter().find(|tenant| tenant.id.eq_ignore_ascii_case(id)).ok_or_else(|| {
        Refusal::new(
            400,
            "invalid_request",
            90_002,
            format!("Tenant '{id}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."),
        )
    })
}

fn issue(world: &World, request: &Request, tenant: &str) -> Result<Response, Refusal> {
    let tenant = find_tenant(world, tenant)?;
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&request.body)
        .into_owned()
        .collect();
    let field = |name: &str| {
        form.iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    let missing = |name: &str| {
        Refusal::new(
            400,
            "invalid_request",
            900_144,
            format!("The request body must contain the following parameter: '{name}'."),
        )
    };
    match field("grant_type")
        .ok_or_else(|| missing("grant_type"))?
        .as_str()
    {
        "client_credentials" => {}
        other => {
            return Err(Refusal::new(
                400,
                "unsupported_grant_type",
                70_003,
                format!("The app requested an unsupported grant type '{other}'."),
            ));
        }
    }
    let basic = basic_credentials(request);
    let client_id = field("client_id")
        .or_else(|| basic.as_ref().map(|(id, _)| id.clone()))
        .ok_or_else(|| missing("client_id"))?;
    let secret = field("client_secret")
        .or_else(|| basic.map(|(_, secret)| secret))
        .ok_or_else(|| {
            Refusal::new(
                401,
                "invalid_client",
                7_000_218,
                "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
            )
        })?;
    let scope = field("scope").ok_or_else(|| missing("scope"))?;
    let principal = tenant
        .principals
        .iter()
        .find(|principal| principal.client_id.eq_ignore_ascii_case(&client_id))
        .ok_or_else(|| {
            Refusal::new(
                400,
                "unauthorized_client",
                700_016,
                format!("Application with identifier '{client_id}' was not found in the directory '{}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.", tenant.id),
            )
        })?;
    if principal.client_secret != secret {
        return Err(Refusal::new(
            401,
            "invalid_client",
            7_000_215,
            format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client_id}'."
            ),
        ));
    }
    let Some(audience) = scope.strip_suffix("/.default") else {
        return Err(Refusal::new(
            400,
            "invalid_scope",
            1_002_012,
            format!(
                "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
            ),
        ));
    };
    if !is_arm_audience(audience, &request.base) {
        return Err(Refusal::new(
            400,
            "invalid_resource",
            500_011,
            format!(
                "The resource principal named {audience} was not found in the tenant named {}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.",
                tenant.id
            ),
        ));
    }
    let seconds = world.settings.token_lifetime.as_secs();
    let claims = json!({
        "aud": audience,
        "iss": format!("https://sts.windows.net/{}/", tenant.id),
        "iat": world.now.as_secs(),
        "nbf": world.now.as_secs(),
        "exp": world.now.as_secs() + seconds,
        "appid": principal.client_id,
        "appidacr": "1",
        "idtyp": "app",
        "tid": tenant.id,
        "uti": uuid::Uuid::new_v4().simple().to_string(),
        "ver": "1.0",
    });
    let body = json!({
        "token_type": "Bearer",
        "expires_in": seconds,
        "ext_expires_in": seconds,
        "access_token": encode(&world.key, &claims),
    });
    Ok(Response::json(200, &body))
}

fn discover(world: &World, request: &Request, tenant: &str) -> Result<Response, Refusal> {
    let id = &find_tenant(world, tenant)?.id;
    let base = &request.base;
    let body = json!({
        "token_endpoint": format!("{base}/{id}/oauth2/v2.0/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "jwks_uri": format!("{base}/{id}/discovery/v2.0/keys"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": format!("{base}/{id}/v2.0"),
        "authorization_endpoint": format!("{base}/{id}/oauth2/v2.0/authorize"),
        "device_authorization_endpoint": format!("{base}/{id}/oauth2/v2.0/devicecode"),
        "tenant_region_scope": "EU",
        "cloud_instance_name": "microsoftonline.com",
    });
    Ok(Response::json(200, &body))
}

/// HTTP Basic, whose parts are form-encoded (RFC 6749, section 2.3.1).
fn basic_credentials(request: &Request) -> Option<(String, String)> {
    let encoded = request.header("authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decode = |part: &str| percent_decode(&part.replace('+', " "));
    Some((decode(id), decode(secret)))
}

fn is_arm_audience(audience: &str, base: &str) -> bool {
    let audience = audience.trim_end_matches('/');
    let own = audience.eq_ignore_ascii_case(base);
    own || ARM_AUDIENCES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(audience))
}

fn encode(key: &[u8], claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!(
        "{}.{}",
        part(&json!({ "typ": "JWT", "alg": "HS256" })),
        part(claims)
    );
    let signature = URL_SAFE_NO_PAD.encode(sign(key, text.as_bytes()));
    format!("{text}.{signature}")
}

/// The token that a request came with has run out.
pub(crate) fn expire(world: &mut World, request: &Request) {
    if let Some(token) = bearer(request) {
        world.expired_tokens.insert(token.to_owned());
    }
}

/// The principal that a request came from has another secret.
pub(crate) fn rotate_secret(world: &mut World, request: &Request, to: &str) {
    if let Ok(caller) = authenticate(world, request) {
        world.set_secret(&caller.client_id, to);
    }
}

fn bearer(request: &Request) -> Option<&str> {
    request.header("authorization")?.strip_prefix("Bearer ")
}

/// Who sends this request to Resource Manager.
pub(crate) fn authenticate(world: &World, request: &Request) -> Result<Caller, ArmError> {
    let tenant = world
        .tenants
        .first()
        .map(|tenant| tenant.id.as_str())
        .unwrap_or_default();
    let authority = format!("{}/{tenant}", request.base);
    let refuse = |code: &str, message: String| {
        let challenge = format!(
            "Bearer authorization_uri=\"{authority}\", error=\"invalid_token\", error_description=\"{message}\""
        );
        ArmError::gateway(401, code, message).header("www-authenticate", challenge)
    };
    let Some(header) = request.header("authorization") else {
        return Err(refuse(
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.".to_owned(),
        ));
    };
    let Some(token) = header.strip_prefix("Bearer ") else {
        return Err(refuse(
            "AuthenticationFailedInvalidHeader",
            "Authentication failed. The 'Authorization' header is provided in an invalid format."
                .to_owned(),
        ));
    };
    let invalid = || {
        refuse(
            "InvalidAuthenticationToken",
            "The access token is invalid.".to_owned(),
        )
    };
    let (text, signature) = token.rsplit_once('.').ok_or_else(invalid)?;
    if URL_SAFE_NO_PAD.encode(sign(&world.key, text.as_bytes())) != signature {
        return Err(invalid());
    }
    let claims = text
        .split_once('.')
        .and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Value = claims
        .and_then(|claims| serde_json::from_slice(&claims).ok())
        .ok_or_else(invalid)?;
    let claim = |name: &str| {
        claims
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let expiry = Duration::from_secs(claims.get("exp").and_then(Value::as_u64).unwrap_or(0));
    if expiry <= world.now || world.expired_tokens.contains(token) {
        return Err(refuse(
            "ExpiredAuthenticationToken",
            format!(
                "The access token expiry UTC time '{}' is earlier than current UTC time '{}'.",
                clock::entra(expiry),
                clock::entra(world.now)
            ),
        ));
    }
    let (tenant, client_id) = (claim("tid"), claim("appid"));
    let principal = world
        .tenants
        .iter()
        .filter(|known| known.id == tenant)
        .flat_map(|known| &known.principals)
        .find(|known| known.client_id == client_id)
        .ok_or_else(invalid)?;
    Ok(Caller {
        tenant,
        client_id,
        subscriptions: principal.subscriptions.clone(),
        denied_actions: principal.denied_actions.clone(),
    })
}
