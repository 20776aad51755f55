//! Reading members of JSON documents whose shape somebody else decides.

use serde_json::Value;

/// The string at a JSON pointer such as `/properties/vmId`; `None` if it is absent, empty or not a string.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// The non-negative integer at a JSON pointer.
pub(crate) fn integer(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

/// Whether the value at a JSON pointer is `true`. Azure writes some switches as strings.
pub(crate) fn is_true(value: &Value, pointer: &str) -> bool {
    match value.pointer(pointer) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        Some(Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_)) | None => false,
    }
}

/// The elements of the array at a JSON pointer; none if it is absent.
pub(crate) fn elements<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
