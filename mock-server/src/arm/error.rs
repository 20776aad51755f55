//! Resource Manager's errors.
use crate::message::Response;
use serde_json::{Map, Value, json};

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct ArmError {
    status: u16,
    code: String,
    message: String,
    target: Option<&'static str>,
    /// Set for errors of Resource Manager itself rather than of a provider.
    gateway: bool,
    headers: Vec<(&'static str, String)>,
    /// The emulator does not know what Azure would do.
    pub(crate) unmodelled: bool,
}

impl ArmError {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            target: None,
            gateway: false,
            headers: Vec::new(),
            unmodelled: false,
        }
    }

    /// 400 `InvalidParameter` with its target.
    pub(crate) fn invalid(target: &'static str, message: impl Into<String>) -> Self {
        Self {
            target: Some(target),
            ..Self::new(400, "InvalidParameter", message)
        }
    }

    /// 409 `OperationNotAllowed`.
    pub(crate) fn not_allowed(message: impl Into<String>) -> Self {
        Self::new(409, "OperationNotAllowed", message)
    }

    /// An error that the front end of Resource Manager answers before any provider sees the request.
    pub(crate) fn gateway(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            gateway: true,
            ..Self::new(status, code, message)
        }
    }

    /// 501: something Azure would accept and the emulator does not model.
    pub(crate) fn unmodelled(message: impl Into<String>) -> Self {
        Self {
            unmodelled: true,
            ..Self::new(501, "EmulatorDoesNotModel", message)
        }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn into_response(self) -> Response {
        let mut error = Map::new();
        error.insert("code".to_owned(), json!(self.code));
        error.insert("message".to_owned(), json!(self.message));
        if let Some(target) = self.target {
            error.insert("target".to_owned(), json!(target));
        }
        let body = Value::Object(Map::from_iter([("error".to_owned(), Value::Object(error))]));
        let mut response = Response::json(self.status, &body);
        response.headers.extend(self.headers);
        if self.gateway {
            response = response.header("x-ms-failure-cause", "gateway");
        }
        response
    }
}

/// What throttling by the compute provider looks like: documented sample "Troubleshooting API throttling errors".
pub(crate) fn throttled(policy: &str, start: &str, end: &str) -> Response {
    let limits = json!({
        "operationGroup": policy, "startTime": start, "endTime": end,
        "allowedRequestCount": 800, "measuredRequestCount": 1238,
    });
    let body = json!({
        "code": "OperationNotAllowed",
        "message": "The server rejected the request because too many requests have been received for this subscription.",
        "details": [{
            "code": "TooManyRequests", "target": policy, "message": limits.to_string(),
        }],
    });
    let left = |policy: &str, left: u32| format!("Microsoft.Compute/{policy};{left}");
    let short = policy.replace("30Min", "3Min");
    Response::json(429, &body)
        .header("x-ms-ratelimit-remaining-resource", left(&short, 46))
        .header("x-ms-ratelimit-remaining-resource", left(policy, 0))
}
