//! What the generator does not understand it refuses, with the place.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// A document that the generator accepts.
fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Things", "description": "Things.", "version": "2020-01-01",
            "x-origin": "nowhere", "x-checked": "2020-01-01", "x-target": "arm"
        },
        "paths": {
            "/things/{name}": {
                "put": {
                    "operationId": "Things_Make",
                    "summary": "Makes a thing.",
                    "parameters": [{ "name": "name", "in": "path", "required": true, "schema": { "type": "string" } }],
                    "requestBody": {
                        "required": true,
                        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Thing" } } }
                    },
                    "responses": { "201": { "description": "Made." } }
                }
            }
        },
        "components": {
            "schemas": {
                "Thing": {
                    "type": "object", "description": "A thing.", "required": ["size"],
                    "properties": { "size": { "type": "integer", "format": "int64", "description": "Size." } }
                }
            }
        }
    })
}

/// Generates from the document with `change` at `pointer`, which must exist; the whole text of the error.
fn generate(name: &str, pointer: &str, change: Value) -> Result<String, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    let mut document = document();
    *document.pointer_mut(pointer).unwrap() = change;
    fs::write(folder.join("things.json"), document.to_string()).unwrap();
    match arm_specs::generate(&folder) {
        Ok(files) => Ok(files.into_iter().map(|file| file.content).collect()),
        Err(error) => Err(format!("{error:#}")),
    }
}

#[test]
fn the_document_itself_is_accepted() {
    let output = generate("accepted", "/info/version", json!("2021-01-01")).unwrap();
    assert!(output.contains("pub fn things_make("));
    assert!(output.contains("/// Size. Required.\n"));
    assert!(output.contains("pub size: Option<i64>,"));
    assert!(output.contains(r#"things: "2021-01-01".to_owned()"#));
}

#[test]
fn what_is_not_understood_is_refused() {
    let property = "/components/schemas/Thing/properties/size";
    let operation = "/paths/~1things~1{name}/put";
    for (name, pointer, change, expected) in [
        (
            "openapi",
            "/openapi".to_owned(),
            json!("2.0"),
            "OpenAPI 2.0",
        ),
        (
            "keyword",
            property.to_owned(),
            json!({ "oneOf": [] }),
            "unknown field `oneOf`",
        ),
        (
            "format",
            format!("{property}/format"),
            json!("int16"),
            "int16",
        ),
        (
            "text",
            format!("{property}/description"),
            Value::Null,
            "generate things: Thing: size: no description",
        ),
        (
            "required",
            "/components/schemas/Thing/required".to_owned(),
            json!(["weight"]),
            "generate things: Thing: weight is required, but no member",
        ),
        (
            "path",
            format!("{operation}/parameters"),
            json!([]),
            "Things_Make: path parameter name is not declared",
        ),
        (
            "reference",
            format!("{operation}/requestBody/content/application~1json/schema/$ref"),
            json!("#/components/schemas/Nothing"),
            "reference #/components/schemas/Nothing leads nowhere",
        ),
        (
            "status",
            format!("{operation}/responses"),
            json!({ "default": { "description": "" } }),
            "a status",
        ),
    ] {
        let error = generate(name, &pointer, change).unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
    }
}
