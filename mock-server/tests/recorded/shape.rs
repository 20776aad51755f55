//! Two answers side by side: what the emulator's lacks, adds, or has in another form. Values count only where they are words of
//! the service, and there only their spelling.
use crate::{
    common::Answer,
    recording::{Exchange, target},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Headers that are not compared.
const IGNORED: [(&str, &str); 3] = [
    ("date", "the time"),
    ("content-length", "bodies have other lengths"),
    (
        "x-ms-routing-request-id",
        "names the data centre and the time; present in one recording only",
    ),
];

/// Headers that a client acts on. Others were left out of the recordings where they have no meaning, so only these can be told to be
/// too many.
const ACTED_ON: [&str; 4] = [
    "location",
    "azure-asyncoperation",
    "retry-after",
    "x-ms-failure-cause",
];

/// The differences of an answer to the recorded one.
pub(crate) fn differences(recorded: &Exchange, ours: &Answer) -> Vec<String> {
    let mut out = Vec::new();
    if recorded.status != ours.status.as_u16() {
        out.push(format!(
            "status {} instead of {}",
            ours.status.as_u16(),
            recorded.status
        ));
    }
    headers(recorded, ours, &mut out);
    match (recorded.body.is_empty(), ours.body.is_empty()) {
        (true, true) => {}
        (true, false) => out.push("adds a body".to_owned()),
        (false, true) => out.push("lacks the body".to_owned()),
        (false, false) => values(&recorded.json(), &ours.json(), "", &mut out),
    }
    out
}

fn headers(recorded: &Exchange, ours: &Answer, out: &mut Vec<String>) {
    let names: BTreeSet<String> = recorded.headers().map(|(name, _)| name).collect();
    for name in &names {
        if IGNORED.iter().any(|(ignored, _)| ignored == name) {
            continue;
        }
        let theirs: Vec<_> = recorded
            .headers()
            .filter(|(other, _)| other == name)
            .map(|(_, value)| header_shape(name, value))
            .collect();
        let own: Vec<_> = ours
            .headers
            .get_all(name)
            .iter()
            .map(|value| header_shape(name, value.to_str().unwrap()))
            .collect();
        if own.is_empty() {
            out.push(format!("lacks header {name}"));
        } else if own != theirs {
            out.push(format!(
                "has header {name} {} instead of {}",
                own.join(" and "),
                theirs.join(" and ")
            ));
        }
    }
    for name in ACTED_ON {
        if !names.contains(name) && ours.headers.contains_key(name) {
            out.push(format!("adds header {name}"));
        }
    }
}

/// What of a header's value is the same each time.
fn header_shape(name: &str, value: &str) -> String {
    match name {
        "location" | "azure-asyncoperation" => {
            let (path, query) = target(value).split_once('?').unwrap();
            let segments: Vec<_> = path
                .split('/')
                .map(|part| if is_guid(part) { "*" } else { part })
                .collect();
            let names: BTreeSet<_> = query
                .split('&')
                .filter_map(|pair| pair.split('=').next())
                .collect();
            let names: Vec<_> = names.into_iter().collect();
            format!("{}?{}", segments.join("/"), names.join("&"))
        }
        // `policy;left`
        "x-ms-ratelimit-remaining-resource" => value
            .split(',')
            .map(|policy| policy.split(';').next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join(","),
        "retry-after" => "seconds".to_owned(),
        "content-type" | "x-ms-failure-cause" => value.to_owned(),
        _ => match value.parse::<u64>() {
            Ok(_) => "number".to_owned(),
            Err(_) => class(value),
        },
    }
}

fn values(recorded: &Value, ours: &Value, path: &str, out: &mut Vec<String>) {
    match (recorded, ours) {
        (Value::Object(theirs), Value::Object(own)) => {
            for (name, value) in theirs {
                let path = format!("{path}/{name}");
                match own.get(name) {
                    Some(other) => values(value, other, &path, out),
                    None => match own.keys().find(|key| key.eq_ignore_ascii_case(name)) {
                        Some(key) => out.push(format!("spells {path} as {key}")),
                        None => out.push(format!("lacks {path}")),
                    },
                }
            }
            for name in own.keys() {
                if !theirs.keys().any(|key| key.eq_ignore_ascii_case(name)) {
                    out.push(format!("adds {path}/{name}"));
                }
            }
        }
        (Value::Array(theirs), Value::Array(own)) => {
            if theirs.len() != own.len() {
                out.push(format!(
                    "has {} elements instead of {} at {path}",
                    own.len(),
                    theirs.len()
                ));
            }
            for (value, other) in by_id(theirs).into_iter().zip(by_id(own)) {
                values(value, other, &format!("{path}/*"), out);
            }
        }
        (Value::String(theirs), Value::String(own)) => {
            let (wanted, found) = (class(theirs), class(own));
            if wanted != found {
                out.push(format!("has {found} instead of {wanted} at {path}"));
            } else if theirs != own && theirs.eq_ignore_ascii_case(own) {
                out.push(format!("has another case at {path}"));
            }
        }
        _ if kind(recorded) == kind(ours) => {}
        _ => out.push(format!(
            "has {} instead of {} at {path}",
            kind(ours),
            kind(recorded)
        )),
    }
}

/// Lists of resources have no order that means something.
fn by_id(list: &[Value]) -> Vec<&Value> {
    let mut sorted: Vec<_> = list.iter().collect();
    sorted.sort_by_key(|value| {
        let id = value.get("id").and_then(Value::as_str);
        id.map(str::to_ascii_lowercase)
    });
    sorted
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What a text is made like.
fn class(text: &str) -> String {
    let pattern: String = text
        .chars()
        .take(20)
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    if pattern.starts_with("0000-00-00T00:00:00") {
        "a time".to_owned()
    } else if is_guid(text) {
        "a GUID".to_owned()
    } else if text.starts_with("W/\"") {
        "an etag".to_owned()
    } else if text.starts_with("/subscriptions/") {
        "an id".to_owned()
    } else if let Some((_, query)) = text.split_once('?').filter(|_| text.starts_with("http")) {
        let names: Vec<_> = query
            .split('&')
            .filter_map(|pair| pair.split('=').next())
            .collect();
        format!("an address with {}", names.join("&"))
    } else {
        "a text".to_owned()
    }
}

fn is_guid(text: &str) -> bool {
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

#[test]
fn differences_of_values_are_seen() {
    use serde_json::json;
    let recorded = json!({
        "same": 1, "gone": 2, "Cased": 3, "kind": 0.0, "word": "Succeeded", "time": "2019-11-28T15:27:15.07+08:00",
        "list": [{ "id": "b", "x": 1 }, { "id": "a" }], "sas": "https://h/p?sv=1&sig=2",
    });
    let ours = json!({
        "same": 7, "more": 2, "cased": 3, "kind": 0, "word": "succeeded", "time": "yesterday",
        "list": [{ "id": "A" }, { "id": "b" }, {}], "sas": "https://g/q?sig=1&sv=2",
    });
    let mut out = Vec::new();
    values(&recorded, &ours, "", &mut out);
    out.sort();
    assert_eq!(
        out,
        [
            "adds /more",
            "has 3 elements instead of 2 at /list",
            "has a text instead of a time at /time",
            "has an address with sig&sv instead of an address with sv&sig at /sas",
            "has an integer instead of a fraction at /kind",
            "has another case at /word",
            "lacks /gone",
            "lacks /list/*/id",
            "lacks /list/*/x",
            "spells /Cased as cased",
        ]
    );
}
