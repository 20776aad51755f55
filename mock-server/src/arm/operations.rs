//! Long-running operations on the wire: the first answer's headers, and polling by both URLs.
use super::{Call, error::ArmError, volumes::limits};
use crate::{
    clock,
    message::Response,
    state::operation::{Effect, Operation, Outcome},
};
use serde_json::{Map, Value, json};

/// Which URLs the first answer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polling {
    /// `Azure-AsyncOperation` only: VM and network PUT.
    AsyncOperation,
    /// `Azure-AsyncOperation` and `Location`: everything else.
    Both,
}

/// Which provider runs the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    Disks,
    Machines,
    Network,
}

impl Call<'_> {
    /// Begins an operation and adds its polling headers to the first answer.
    pub(super) fn start(
        &mut self,
        provider: Provider,
        location: &str,
        key: &str,
        effect: Effect,
        polling: Polling,
        answer: Response,
    ) -> Response {
        let (namespace, collection) = match provider {
            Provider::Disks => ("Microsoft.Compute", "DiskOperations"),
            Provider::Machines => ("Microsoft.Compute", "operations"),
            Provider::Network => ("Microsoft.Network", "operations"),
        };
        let collection = format!("{namespace}/locations/{location}/{collection}");
        let id = self
            .world
            .begin_operation(self.operation, collection, key, effect, self.fault);
        if let Some(result) = self.result_at_once(provider, &id) {
            return result.header("x-ms-request-id", id);
        }
        let policy = &self.world.settings.operations;
        let retry_after = policy.retry_after;
        let urls = PollingUrls::new(self, &id, policy.signature_len);
        let mut answer = answer
            .header("x-ms-request-id", id)
            .header("azure-asyncoperation", urls.operation);
        if polling == Polling::Both {
            answer = answer.header("location", urls.result);
        }
        if let Some(seconds) = retry_after {
            answer = answer.header("retry-after", seconds.to_string());
        }
        answer
    }

    /// The first answer of an operation that has ended well already, where it need not be polled.
    fn result_at_once(&self, provider: Provider, id: &str) -> Option<Response> {
        if !self.world.settings.operations.results_at_once || provider != Provider::Disks {
            return None;
        }
        let (_, outcome) = self.world.operations.get(id)?.ended.as_ref()?;
        match outcome {
            Outcome::Done => Some(Response::empty(200)),
            Outcome::Resource(resource) => Some(Response::json(200, resource)),
            Outcome::Access(path) => Some(Response::json(200, &access(self, path))),
            Outcome::Failed { .. } => None,
        }
    }
}

/// Where in the compute provider an operation is kept (as recorded in West US).
const PARTITION: &str = "42128af7-4c72-4222-9761-fb0d8e6cebdc";

struct PollingUrls {
    operation: String,
    result: String,
}

impl PollingUrls {
    fn new(call: &Call<'_>, id: &str, signature_len: usize) -> Self {
        let collection = call
            .world
            .operations
            .get(id)
            .map(|operation| operation.collection.clone())
            .unwrap_or_default();
        let subscription = call.capture("sub");
        let version = call.request.query("api-version").unwrap_or_default();
        let base = &call.request.base;
        // The service signs these URLs; clients must return them unchanged and not cut them.
        let signature = call.world.polling_signature(id);
        let stamp = call.world.now.as_nanos() / 100;
        let filler = crate::pattern::mix(call.world.now.as_secs()).to_string();
        let certificate: String = filler.chars().cycle().take(signature_len).collect();
        let signature = format!("t={stamp}&c=MII{certificate}&s={signature}&h={id}");
        let network = collection.starts_with("Microsoft.Network");
        let partition = match network {
            true => String::new(),
            false => format!("p={PARTITION}&"),
        };
        let url = |collection: &str, monitor: &str| {
            format!(
                "{base}/subscriptions/{subscription}/providers/{collection}/{id}?{partition}{monitor}api-version={version}&{signature}"
            )
        };
        let result = if network {
            url(&collection.replace("/operations", "/operationResults"), "")
        } else {
            url(&collection, "monitor=true&")
        };
        Self {
            operation: url(&collection, ""),
            result,
        }
    }
}

/// `GET` of a polling URL, by `Azure-AsyncOperation` or, with `monitor=true`, by `Location`.
pub(super) fn poll(call: &mut Call<'_>) -> Result<Response, ArmError> {
    let monitor = call
        .request
        .query("monitor")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    look(call, monitor)
}

/// `GET` of a network operation's result.
pub(super) fn result(call: &mut Call<'_>) -> Result<Response, ArmError> {
    look(call, true)
}

fn look(call: &mut Call<'_>, by_location: bool) -> Result<Response, ArmError> {
    let id = call.capture("id").to_ascii_lowercase();
    let signature = call.world.polling_signature(&id);
    let signed =
        call.request.query("s") == Some(&*signature) && call.request.query("h") == Some(&*id);
    let expected_len = call.world.settings.operations.signature_len + "MII".len();
    let whole = call
        .request
        .query("c")
        .is_some_and(|certificate| certificate.len() == expected_len);
    if !signed || !whole {
        return Err(ArmError::new(
            403,
            "AsyncOperationSignatureInvalid",
            "The polling URL was changed: its signature does not match.",
        ));
    }
    call.world.poll_operation(&id);
    let Some(operation) = call.world.operations.get(&id) else {
        return Err(ArmError::new(
            404,
            "NotFound",
            format!("The operation '{id}' was not found."),
        ));
    };
    let retry_after = call.world.settings.operations.retry_after;
    let with_delay = |response: Response| match retry_after {
        Some(seconds) => response.header("retry-after", seconds.to_string()),
        None => response,
    };
    let compute = operation.collection.starts_with("Microsoft.Compute");
    let response = if by_location {
        result_of(call, operation, with_delay)?
    } else {
        let response = Response::json(200, &status(call, &id, operation));
        match operation.ended {
            None => with_delay(response),
            Some(_) => response,
        }
    };
    Ok(match compute {
        true => limits(response, "GetOperation"),
        false => response,
    })
}

/// The answer at `Location`: the result, once there is one.
fn result_of(
    call: &Call<'_>,
    operation: &Operation,
    with_delay: impl Fn(Response) -> Response,
) -> Result<Response, ArmError> {
    match &operation.ended {
        None => {
            let url = format!("{}{}", call.request.base, call.request.target);
            Ok(with_delay(Response::empty(202).header("location", url)))
        }
        Some((_, Outcome::Done)) => Ok(Response::empty(200)),
        Some((_, Outcome::Failed { code, message })) => {
            Err(ArmError::new(409, code, message.clone()))
        }
        Some((_, Outcome::Resource(resource))) => Ok(Response::json(200, resource)),
        Some((_, Outcome::Access(path))) => Ok(Response::json(200, &access(call, path))),
    }
}

/// The body of an `Azure-AsyncOperation` answer.
fn status(call: &Call<'_>, id: &str, operation: &Operation) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    let network = operation.collection.starts_with("Microsoft.Network");
    if !network {
        put("startTime", json!(clock::iso(operation.started)));
    }
    match &operation.ended {
        None => put("status", json!("InProgress")),
        Some((ended, outcome)) => {
            if !network {
                put("endTime", json!(clock::iso(*ended)));
            }
            match outcome {
                Outcome::Done => put("status", json!("Succeeded")),
                Outcome::Resource(resource) => {
                    put("status", json!("Succeeded"));
                    put("properties", json!({ "output": resource }));
                }
                Outcome::Access(path) => {
                    put("status", json!("Succeeded"));
                    put("properties", json!({ "output": access(call, path) }));
                }
                Outcome::Failed { code, message } => {
                    put("status", json!("Failed"));
                    put("error", json!({ "code": code, "message": message }));
                }
            }
        }
    }
    if !network {
        put("name", json!(id));
    }
    Value::Object(out)
}

fn access(call: &Call<'_>, path: &str) -> Value {
    let url = call
        .world
        .grants
        .get(path)
        .map(|grant| grant.url(&call.request.base));
    json!({ "accessSAS": url })
}
