//! Fuzz targets of what services answer, and of the connection string.

#![allow(clippy::missing_panics_doc, reason = "a panic is the finding")]

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::arm::{Subject, own_address};
use super::connection_string::ConnectionString;
use super::error_body::ErrorBody;
use super::exchange::Answer;
use super::generated::{
    authorization as rights, compute, disks, network, resources, subscriptions,
};
use super::page_list::PageRanges;
use super::page_list_xml::{PageListPage, Window};
use super::{ResourceId, SasUrl, snapshot};
use crate::fuzzing::SECRET;
use crate::range::ByteRange;
use crate::range_list::RangeList;

/// Longest text of a service that is passed on, in bytes.
const MOST_SAID: usize = 3000;

/// A connection string.
pub fn connection_string(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match ConnectionString::parse(text) {
        Ok(account) => {
            let endpoint = account.blob_endpoint();
            assert!(matches!(endpoint.scheme(), "http" | "https"), "{endpoint}");
            assert!(
                endpoint.has_host() && endpoint.query().is_none(),
                "{endpoint}"
            );
            assert!(endpoint.password().is_none() && endpoint.fragment().is_none());
        }
        Err(problem) => {
            let problem = problem.to_string();
            let what = problem
                .strip_prefix("connection string: ")
                .expect("its name");
            assert!(!what.is_empty() && what.len() < 120, "{problem}");
        }
    }
    // Nothing tells a secret, whatever stands before it and wherever it got.
    for text in [
        format!("{text};AccountKey={SECRET}"),
        format!("{text};SharedAccessSignature=sv=1&sig={SECRET}"),
        format!("{text};{SECRET}"),
        format!("{text};{SECRET}x"),
        format!("{SECRET};{text}"),
    ] {
        let told = match ConnectionString::parse(&text) {
            Ok(account) => format!("{account} {account:?}"),
            Err(problem) => format!("{problem} {problem:?}"),
        };
        // Without the end, where the `=` separates.
        assert!(!told.contains(SECRET.trim_end_matches('=')), "{told}");
    }
}

/// One answer of "Get Page Ranges": how to cut it into frames, a line end, the XML.
pub fn page_list(data: &[u8]) {
    const LENGTH: u64 = 1 << 40;
    let (head, body) = match data.iter().position(|&byte| byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (&b""[..], data),
    };
    let body = Bytes::copy_from_slice(body);
    let cut = head.first().map_or(1000, |&byte| usize::from(byte).max(1));
    let part = match head.get(1) {
        Some(b'p') => ByteRange::new(1 << 20, 1 << 30),
        _ => None,
    };
    let frames: Vec<Bytes> = (0..body.len())
        .step_by(cut)
        .map(|at| body.slice(at..(at + cut).min(body.len())))
        .collect();
    let whole = read_page_list(std::slice::from_ref(&body), part);
    assert_eq!(
        read_page_list(&frames, part),
        whole,
        "frames of {cut} bytes"
    );
    let (page, ranges) = match whole {
        Ok(read) => read,
        Err(reason) => {
            assert!(!reason.is_empty() && reason.len() < MOST_SAID, "{reason}");
            return;
        }
    };
    let window = part.or(ByteRange::new(0, LENGTH)).expect("a range");
    let mut listed: Vec<(ByteRange, &str)> = Vec::new();
    for (list, name) in [
        (&ranges.written, "PageRange"),
        (&ranges.cleared, "ClearRange"),
    ] {
        assert!(
            list.memory() <= 4096 + 3 * body.len(),
            "{} bytes",
            list.memory()
        );
        listed.extend(list.iter().map(|range| (range, name)));
    }
    listed.sort_by_key(|(range, _)| range.start());
    let mut text = String::from("<PageList>");
    let mut position = window.start();
    for (range, name) in listed {
        assert!(range.start() >= position, "kinds have {range} in common");
        assert!(range.end() <= window.end() && range.is_aligned(512));
        position = range.end();
        write!(
            text,
            "<{name}><Start>{}</Start><End>{}</End></{name}>",
            range.start(),
            range.end() - 1
        )
        .expect("text");
    }
    text.push_str("</PageList>");
    assert_eq!(page.end, (position > window.start()).then_some(position));
    let (again, same) = read_page_list(&[text.into()], part).expect("what was read can be read");
    assert_eq!(same, ranges);
    assert_eq!((again.end, again.marker), (page.end, None));
}

fn read_page_list(
    frames: &[Bytes],
    part: Option<ByteRange>,
) -> Result<(PageListPage, PageRanges), String> {
    let mut ranges = PageRanges {
        written: RangeList::new(),
        cleared: RangeList::new(),
    };
    let window = Window {
        length: 1 << 40,
        part,
    };
    let from = part.map_or(0, ByteRange::start);
    let page = PageListPage::parse(frames, from, window, &mut ranges)?;
    Ok((page, ranges))
}

/// An answer of Resource Manager, or of whoever stands in its place: every model, every hand-written reader.
pub fn arm_answer(data: &[u8]) {
    let resource = "r";
    let subject = Subject::new("read resource", &resource);
    let answer = Answer {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: vec![Bytes::copy_from_slice(data)],
    };
    let refusal = ErrorBody::parse(&answer.headers, data);
    for text in [&refusal.code, &refusal.message].into_iter().flatten() {
        assert!(text.len() < MOST_SAID, "{} bytes", text.len());
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    let value = match subject.json(&answer) {
        Ok(value) => value,
        Err(error) => {
            assert!(error.to_string().len() < MOST_SAID);
            return;
        }
    };
    models(&value);
    crate::backup::fuzzing::listed_vm(&value);
    if let Some(reason) = snapshot::unreadable(&value) {
        assert!(reason.len() < MOST_SAID, "{} bytes", reason.len());
        assert!(!reason.contains(char::is_control), "{reason:?}");
    }
    strings(&value, &mut |text| {
        addresses(subject, text);
    });
}

fn strings(value: &Value, look: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => look(text),
        Value::Array(values) => values.iter().for_each(|value| strings(value, look)),
        Value::Object(members) => members.values().for_each(|value| strings(value, look)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text in the place of an id, of an address that is followed with the token, and of a SAS.
fn addresses(subject: Subject<'_>, text: &str) {
    if let Some(id) = ResourceId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert!(!id.name().is_empty() && !id.name().contains('/'));
        assert!(!text.split('/').any(|part| matches!(part, "." | "..")));
    }
    let endpoint = Url::parse("https://management.azure.com/").expect("an address");
    match own_address(&endpoint, subject, text) {
        Ok(address) => {
            // By the rules of browsers, too.
            let found = Url::parse(&address.to_string()).expect("an address");
            assert_eq!(found.origin(), endpoint.origin(), "{text:?}");
        }
        Err(error) => assert!(error.to_string().len() < MOST_SAID + text.len()),
    }
    if let Ok(sas) = SasUrl::parse(text) {
        let shown = format!("{sas:?}");
        assert!(!shown.contains("sig="), "{shown}");
    }
}

fn models(value: &Value) {
    model::<rights::PermissionGetResult>(value);
    model::<rights::Permission>(value);
    model::<compute::VirtualMachineListResult>(value);
    model::<compute::VirtualMachine>(value);
    model::<disks::DiskList>(value);
    model::<disks::Disk>(value);
    model::<disks::SnapshotList>(value);
    model::<disks::Snapshot>(value);
    if let Ok(access) = serde_json::from_value::<disks::AccessUri>(value.clone()) {
        let shown = format!("{access:?}");
        assert!(shown.len() < 200, "{shown}");
    }
    model::<network::NetworkInterfaceListResult>(value);
    model::<network::NetworkInterface>(value);
    model::<network::PublicIpAddress>(value);
    model::<resources::ResourceGroupListResult>(value);
    model::<resources::ResourceGroup>(value);
    model::<subscriptions::Subscription>(value);
}

/// What fits a model is written again with every member that it had; `null` is as good as none.
fn model<T: DeserializeOwned + Serialize>(value: &Value) {
    let Ok(model) = serde_json::from_value::<T>(value.clone()) else {
        return;
    };
    let written = serde_json::to_value(&model).expect("a model can be written");
    kept(value, &written);
}

fn kept(given: &Value, written: &Value) {
    match (given, written) {
        (Value::Object(given), Value::Object(written)) => {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                kept(value, written.get(name).unwrap_or(&Value::Null));
            }
        }
        (Value::Array(given), Value::Array(written)) => {
            assert_eq!(given.len(), written.len());
            given
                .iter()
                .zip(written)
                .for_each(|(one, other)| kept(one, other));
        }
        (Value::Number(given), Value::Number(written)) => {
            assert_eq!(given.as_f64(), written.as_f64());
        }
        _ => assert_eq!(given, written),
    }
}
