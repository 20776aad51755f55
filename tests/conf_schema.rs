//! `docs/conf.schema.json` and `docs/digests.schema.json` describe what the crate writes: every member, and nothing that is not there.
//!
//! The checker below knows the keywords that the schema uses, refuses any other, and is stricter than JSON Schema in one
//! point: a member that is not described is an error, except where `additionalProperties` says `true`.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::fs;
use std::path::Path;

use azure_vm_fd::digests::{self, ALGORITHM, Digests, ImageDigests, ImageHasher, segment_bytes};
use azure_vm_fd::document::{Document, FORMAT, ImageContent, ImageRecord, Slot};
use azure_vm_fd::pipeline::ZeroBlocks;
use azure_vm_fd::range::ByteRange;
use regex::Regex;
use serde_json::{Value, json};

fn schema() -> Value {
    read("docs/conf.schema.json")
}

fn read(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A document with an image of every kind.
fn document() -> Document {
    let image = |file: &str, slot, content| ImageRecord {
        file: file.into(),
        slot,
        disk_unique_id: "04edf645-da44-41ee-9920-b0677ec17605".into(),
        size_bytes: 35_184_372_088_832,
        sector_size: 512,
        data_bytes: 1 << 30,
        content,
        snapshot: "snapshot-1".into(),
        snapshot_time: "2026-11-23T09:00:00.1234567+00:00".into(),
        disk: json!({"name": "disk", "properties": {"new": [null, {}]}}),
    };
    Document {
        format: FORMAT,
        creator: "azure-vm-fd 0.1.0".into(),
        job: "Nightly.2026-11-23_01.05.00_03".into(),
        level: "Incremental".into(),
        epoch: 1_795_395_900,
        vm_uuid: "98f6aa47-7ef0-4a36-90bc-d8957c9f0033".into(),
        vm_name: "web".into(),
        virtual_machine: json!({"name": "web", "new": true}),
        network_interfaces: vec![json!({"name": "nic"})],
        images: vec![
            image("1795395900_osdisk", Slot::Os, ImageContent::Full),
            image(
                "1795395900_5",
                Slot::Data(5),
                ImageContent::Delta {
                    base_epoch: 1_795_300_000,
                    base_job: "Nightly.2026-11-22_01.05.00_03".into(),
                    cleared: [(0, 512), (4096, 1 << 40)]
                        .into_iter()
                        .filter_map(|(start, end)| ByteRange::new(start, end))
                        .collect(),
                },
            ),
        ],
    }
}

/// What is wrong with `value`, with the place.
fn check(root: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let fail = |what: String| Err(format!("{place}: {what}"));
    let keywords = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(keywords) => keywords,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return fail(format!("not allowed: {value}"));
        }
    };
    for (keyword, given) in keywords {
        let length = value
            .as_str()
            .map(str::len)
            .or(value.as_array().map(Vec::len));
        let holds = match keyword.as_str() {
            "$schema"
            | "$id"
            | "$defs"
            | "title"
            | "description"
            | "required"
            | "additionalProperties"
            | "prefixItems" => true,
            "$ref" => {
                let target = root
                    .pointer(given.as_str().unwrap().strip_prefix('#').unwrap())
                    .unwrap();
                return check(root, target, value, place);
            }
            "const" => value == given,
            "type" => match given.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_u64() || value.is_i64(),
                other => panic!("type {other}"),
            },
            "minimum" => value.as_i64() >= given.as_i64(),
            "maximum" => value.as_i64() <= given.as_i64(),
            "minLength" | "minItems" => {
                length >= given.as_u64().map(|n| usize::try_from(n).unwrap())
            }
            "pattern" => Regex::new(given.as_str().unwrap())
                .unwrap()
                .is_match(value.as_str().unwrap_or("")),
            "oneOf" => {
                let matches = |one: &&Value| check(root, one, value, place).is_ok();
                given.as_array().unwrap().iter().filter(matches).count() == 1
            }
            "items" => {
                let prefix = schema["prefixItems"]
                    .as_array()
                    .map_or(&[][..], Vec::as_slice);
                for (index, item) in value.as_array().unwrap_or(&Vec::new()).iter().enumerate() {
                    check(
                        root,
                        prefix.get(index).unwrap_or(given),
                        item,
                        &format!("{place}/{index}"),
                    )?;
                }
                true
            }
            "properties" => {
                for (name, member) in given.as_object().unwrap() {
                    assert!(
                        member["description"].is_string(),
                        "{place}/{name} is not described"
                    );
                    if let Some(value) = value.get(name) {
                        check(root, member, value, &format!("{place}/{name}"))?;
                    }
                }
                true
            }
            other => panic!("keyword {other}"),
        };
        if !holds {
            return fail(format!("{value} is not {keyword} {given}"));
        }
    }
    for name in keywords
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if value.get(name.as_str().unwrap()).is_none() {
            return fail(format!("{name} is missing"));
        }
    }
    let closed = schema["type"] == "object" && schema["additionalProperties"] != true;
    if let (Value::Object(members), true) = (value, closed) {
        for name in members.keys() {
            if schema["properties"].get(name).is_none() {
                return fail(format!("{name} is not described"));
            }
        }
    }
    Ok(())
}

fn check_document(value: &Value) -> Result<(), String> {
    let schema = schema();
    check(&schema, &schema, value, "")
}

#[test]
fn what_is_written_satisfies_the_schema() {
    check_document(&serde_json::to_value(document()).unwrap()).unwrap();
}

#[test]
fn every_member_is_required() {
    let written = serde_json::to_value(document()).unwrap();
    for parent in [
        "",
        "/images/0",
        "/images/1/slot",
        "/images/1/content",
        "/images/1/content/delta",
    ] {
        for name in written.pointer(parent).unwrap().as_object().unwrap().keys() {
            let mut short = written.clone();
            short
                .pointer_mut(parent)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(name);
            check_document(&short).expect_err(name);
            serde_json::from_value::<Document>(short).expect_err(name);
        }
    }
}

#[test]
fn wrong_values_are_refused() {
    let written = serde_json::to_value(document()).unwrap();
    for (pointer, wrong) in [
        ("/format", json!(2)),
        ("/epoch", json!("1795395900")),
        ("/epoch", json!(-1)),
        ("/vmUuid", json!("98F6AA47-7ef0-4a36-90bc-d8957c9f0033")),
        ("/vmName", json!("")),
        ("/virtualMachine", json!([])),
        ("/networkInterfaces", json!({})),
        ("/images/0/file", json!("osdisk")),
        ("/images/0/slot", json!("data")),
        ("/images/1/slot/data", json!(4_294_967_296_u64)),
        ("/images/0/content", json!("delta")),
        ("/level", json!("full")),
        ("/images/1/content/delta/cleared", json!([[0, 512]])),
        ("/images/1/content/delta/cleared", json!("0-512")),
        (
            "/images/1/content/delta/cleared",
            json!("0..512,4096..8192"),
        ),
    ] {
        let mut changed = written.clone();
        *changed.pointer_mut(pointer).unwrap() = wrong;
        check_document(&changed).expect_err(pointer);
    }
}

#[test]
fn digests_satisfy_their_schema() {
    let size_bytes = 35_184_372_088_832;
    let mut hasher = ImageHasher::new(size_bytes);
    hasher.update(0, &[1; 4096]);
    hasher.update(size_bytes - 512, &[2; 512]);
    let digests = Digests {
        format: digests::FORMAT,
        creator: "azure-vm-fd 0.1.0".into(),
        job: "Nightly.2026-11-23_01.05.00_03".into(),
        epoch: 1_795_395_900,
        vm_uuid: "98f6aa47-7ef0-4a36-90bc-d8957c9f0033".into(),
        algorithm: ALGORITHM.into(),
        conf_sha256: "0".repeat(64),
        images: vec![ImageDigests {
            file: "1795395900_osdisk".into(),
            size_bytes,
            segment_bytes: segment_bytes(size_bytes),
            segments: hasher.segments(ZeroBlocks::Skip),
        }],
    };
    let schema = read("docs/digests.schema.json");
    let written: Value = serde_json::from_slice(&digests.to_bytes().unwrap()).unwrap();
    check(&schema, &schema, &written, "").unwrap();
    assert_eq!(
        written["images"][0]["segments"].as_array().unwrap().len(),
        2
    );
    for parent in ["", "/images/0"] {
        for name in written.pointer(parent).unwrap().as_object().unwrap().keys() {
            let mut short = written.clone();
            let members = short.pointer_mut(parent).unwrap();
            members.as_object_mut().unwrap().remove(name);
            check(&schema, &schema, &short, "").expect_err(name);
        }
    }
}
