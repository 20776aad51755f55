//! What a service says when it refuses: one reading of all its error bodies.
//!
//! Recorded forms: nested `{"error":{…}}`, flat `{"code","message"}` (compute throttling, DNS), capitalised
//! `{"Code","Message"}`, the token endpoint's `{"error":"…","error_description":"…"}`, storage's XML, JSON inside a
//! message text, empty bodies, and the HTML of proxies.

use http::HeaderMap;
use serde_json::{Map, Value};

use super::redact::clean;
use super::xml;

/// Each is compared with the text so far, and there is room for few.
const MOST_DETAILS: usize = 20;

/// Code and text of a refusal; either may be missing. The text is fit for logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    /// E.g. `ResourceNotFound`.
    pub(super) code: Option<String>,
    /// Text for people, details included.
    pub(super) message: Option<String>,
}

impl ErrorBody {
    /// Reads an error answer. The storage service repeats its code in `x-ms-error-code`, which is all that is left of
    /// it in the answer to a HEAD.
    pub(super) fn parse(headers: &HeaderMap, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let text = text.trim_start_matches('\u{feff}').trim();
        let mut parsed = if text.starts_with('{') {
            serde_json::from_str::<Value>(text)
                .ok()
                .and_then(|value| Self::from_json(&value))
                .unwrap_or_else(|| Self::from_text(text))
        } else if text.starts_with('<') {
            Self::from_xml(text).unwrap_or_else(|| Self::from_html(text))
        } else {
            Self::from_text(text)
        };
        if let Some(code) = headers.get("x-ms-error-code").and_then(|v| v.to_str().ok()) {
            parsed.code = Some(clean(code));
        }
        parsed
    }

    /// Reads any of the JSON forms; `None` if it is none of them.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        match field(object, "error") {
            Some(Value::Object(_)) => field(object, "error").and_then(Self::from_json),
            Some(Value::String(error)) => Some(Self {
                code: Some(clean(error)),
                message: text_field(object, "error_description").map(clean),
            }),
            _ => Self::from_members(object),
        }
    }

    fn from_members(object: &Map<String, Value>) -> Option<Self> {
        let code = text_field(object, "code").map(clean);
        let message = text_field(object, "message");
        if code.is_none() && message.is_none() {
            return None;
        }
        let mut text = message.map(readable).unwrap_or_default();
        let details = field(object, "details").and_then(Value::as_array);
        let details = details.into_iter().flatten().take(MOST_DETAILS);
        for detail in details.filter_map(Value::as_object) {
            let part = detail_text(detail);
            if !part.is_empty() && !text.contains(&part) {
                if !text.is_empty() {
                    text.push_str("; ");
                }
                text.push_str(&part);
            }
        }
        Some(Self {
            code,
            message: (!text.is_empty()).then(|| clean(&text)),
        })
    }

    fn from_xml(text: &str) -> Option<Self> {
        let mut parsed = Self::default();
        xml::walk(text.as_bytes(), |path, text| {
            match path {
                [root, leaf] if root == "Error" && leaf == "Code" => {
                    parsed.code = Some(clean(text));
                }
                // "…\nRequestId:…\nTime:…" follows the sentence; the request id is in a header as well.
                [root, leaf] if root == "Error" && leaf == "Message" => {
                    parsed.message = clean(text).split(" RequestId:").next().map(str::to_owned);
                }
                _ => {}
            }
            Ok(())
        })
        .ok()?;
        (parsed.code.is_some() || parsed.message.is_some()).then_some(parsed)
    }

    /// A page of some proxy: its title is the only part made for people.
    fn from_html(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        let title = lower.find("<title>").and_then(|start| {
            let start = start + "<title>".len();
            let end = start + lower[start..].find("</title>")?;
            Some(clean(&text[start..end]))
        });
        Self {
            code: None,
            message: Some(match title.filter(|title| !title.is_empty()) {
                Some(title) => format!("an HTML page titled \"{title}\""),
                None => "an HTML page".to_owned(),
            }),
        }
    }

    fn from_text(text: &str) -> Self {
        Self {
            code: None,
            message: (!text.is_empty()).then(|| clean(text)),
        }
    }
}

/// `target: message (code)` of one detail, as far as present and not JSON itself.
fn detail_text(detail: &Map<String, Value>) -> String {
    let message = text_field(detail, "message").map(readable);
    let label = text_field(detail, "target").or_else(|| text_field(detail, "code"));
    match (label, message.filter(|message| !message.is_empty())) {
        (_, Some(message)) => message,
        (Some(label), None) => label.to_owned(),
        (None, None) => String::new(),
    }
}

/// The message, or the message of the JSON document that stands in its place; empty if that has none.
fn readable(message: &str) -> String {
    match serde_json::from_str::<Value>(message) {
        Ok(value @ Value::Object(_)) => ErrorBody::from_json(&value)
            .and_then(|inner| inner.message)
            .unwrap_or_default(),
        _ => message.to_owned(),
    }
}

/// A member by its name in any case.
fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn text_field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    field(object, name)?
        .as_str()
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parse(body: &str) -> (Option<String>, Option<String>) {
        let parsed = ErrorBody::parse(&HeaderMap::new(), body.as_bytes());
        (parsed.code, parsed.message)
    }

    fn both(code: &str, message: &str) -> (Option<String>, Option<String>) {
        (Some(code.to_owned()), Some(message.to_owned()))
    }

    #[test]
    fn nested_flat_and_capitalised_json() {
        assert_eq!(
            parse(
                "{\r\n  \"error\": {\"code\": \"ResourceNotFound\", \"message\": \"Not here.\"}}"
            ),
            both("ResourceNotFound", "Not here.")
        );
        assert_eq!(
            parse(r#"{"code": "PreconditionFailed", "message": "Modified."}"#),
            both("PreconditionFailed", "Modified.")
        );
        assert_eq!(
            parse(
                r#"{"Code":"429","Message":"Locked.","Target":null,"Details":[{"Message":"Locked."},{"Code":"429"}]}"#
            ),
            both("429", "Locked.; 429")
        );
    }

    #[test]
    fn details_and_json_in_messages_become_text() {
        assert_eq!(
            parse(
                r#"{"code": "OperationNotAllowed", "message": "Too many requests.", "details":
                   [{"code": "TooManyRequests", "target": "HighCostGet30Min",
                     "message": "{\"operationGroup\":\"HighCostGet30Min\",\"allowedRequestCount\":800}"}]}"#
            ),
            both(
                "OperationNotAllowed",
                "Too many requests.; HighCostGet30Min"
            )
        );
        assert_eq!(
            parse(
                r#"{"error":{"code":"A","message":"{\"error\":{\"code\":\"B\",\"message\":\"inner\"}}"}}"#
            ),
            both("A", "inner")
        );
    }

    #[test]
    fn the_token_endpoints_form() {
        assert_eq!(
            parse(
                r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid.\r\nTrace ID: x"}"#
            ),
            both("invalid_client", "AADSTS7000215: Invalid. Trace ID: x")
        );
    }

    #[test]
    fn storage_xml_with_its_byte_order_mark() {
        let body = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>ServerBusy</Code>\
                    <Message>The server is busy.\nRequestId:1\nTime:2</Message></Error>";
        assert_eq!(parse(body), both("ServerBusy", "The server is busy."));
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-error-code", HeaderValue::from_static("BlobNotFound"));
        assert_eq!(
            ErrorBody::parse(&headers, b"").code.as_deref(),
            Some("BlobNotFound")
        );
    }

    #[test]
    fn pages_of_proxies_and_nothing_at_all() {
        assert_eq!(
            parse("<html><head><title>502 Bad Gateway</title></head></html>").1,
            Some("an HTML page titled \"502 Bad Gateway\"".to_owned())
        );
        assert_eq!(
            parse("<!DOCTYPE html><p>no").1,
            Some("an HTML page".to_owned())
        );
        assert_eq!(parse(""), (None, None));
        assert_eq!(
            parse("{\"unrelated\": 1}").1,
            Some("{\"unrelated\": 1}".to_owned())
        );
        assert_eq!(parse("{broken").1, Some("{broken".to_owned()));
    }
}
