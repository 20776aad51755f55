//! The subset of OpenAPI 3.1 that the documents in `specs` are written in.
//!
//! A key outside the subset is an error, so that nothing written in a document is silently left out of the output.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// A map in the order of the document.
pub type Ordered<T> = Vec<(String, T)>;

/// One document and the module that it becomes.
#[derive(Debug)]
pub struct Document {
    /// Name of the file without its extension.
    pub module: String,
    /// What is in it.
    pub content: OpenApi,
}

/// A whole document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenApi {
    /// Must be 3.1.0.
    openapi: String,
    /// What the document is about.
    pub info: Info,
    /// Operations by path.
    #[serde(default, with = "ordered")]
    pub paths: Ordered<PathItem>,
    /// The same where one path has several operations of a method, told apart behind a `?`.
    #[serde(default, rename = "x-ms-paths", with = "ordered")]
    pub query_paths: Ordered<PathItem>,
    /// What is referred to.
    #[serde(default)]
    pub components: Components,
}

/// Heading of a document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {
    /// Short name.
    #[serde(rename = "title")]
    _title: String,
    /// One sentence.
    pub description: String,
    /// API version.
    pub version: String,
    /// The published document that this one was compared with.
    #[serde(rename = "x-origin")]
    pub origin: String,
    /// When.
    #[serde(rename = "x-checked")]
    pub checked: String,
    /// What the functions are given as address.
    #[serde(rename = "x-target")]
    pub target: Target,
}

/// What a request is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Azure Resource Manager: an endpoint, and the path of the document.
    Arm,
    /// A blob: its complete address with a SAS, and nothing of the path of the document.
    Blob,
}

/// The operations of one path, by method.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct PathItem {
    /// In the order of the document.
    #[serde(with = "ordered")]
    pub operations: Ordered<Operation>,
}

/// An operation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// `Group_Verb`.
    #[serde(rename = "operationId")]
    pub id: String,
    /// One sentence.
    pub summary: String,
    /// In the order of the function's parameters.
    #[serde(default)]
    pub parameters: Vec<OrRef<Parameter>>,
    /// What is sent.
    #[serde(rename = "requestBody")]
    pub body: Option<Body>,
    /// Accepted answers by status.
    #[serde(with = "ordered")]
    pub responses: Ordered<OrRef<Response>>,
    /// Whether the answer may be the beginning of a long-running operation.
    #[serde(default, rename = "x-ms-long-running-operation")]
    pub long_running: bool,
}

/// A parameter of the path, the query or the headers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Name on the wire.
    pub name: String,
    /// Where it goes.
    #[serde(rename = "in")]
    pub location: Location,
    /// Whether it must be given.
    #[serde(default)]
    pub required: bool,
    /// One sentence.
    #[serde(default)]
    pub description: Option<String>,
    /// Type; a single value of an enumeration makes it a constant.
    pub schema: Schema,
    /// Whether it must not be printed.
    #[serde(default, rename = "x-ms-secret")]
    pub secret: bool,
}

/// Where a parameter goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Location {
    /// A whole segment of the path.
    Path,
    /// The query.
    Query,
    /// A header.
    Header,
}

/// What is sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    /// Must be true.
    required: bool,
    /// One media type.
    #[serde(with = "ordered")]
    content: Ordered<Media>,
}

/// An accepted answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// One sentence.
    #[serde(rename = "description")]
    _description: String,
    /// One media type, or none.
    #[serde(default, with = "ordered")]
    content: Ordered<Media>,
}

/// What a body is made of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Media {
    schema: Option<Schema>,
}

/// What is referred to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Components {
    #[serde(default, with = "ordered")]
    parameters: Ordered<Parameter>,
    #[serde(default, with = "ordered")]
    responses: Ordered<Response>,
    /// Models and enumerations.
    #[serde(default, with = "ordered")]
    pub schemas: Ordered<Schema>,
}

/// Something, or where it is.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum OrRef<T> {
    /// Where it is.
    Ref(Reference),
    /// It.
    Here(T),
}

/// Where something is: `#/components/<kind>/<name>`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    #[serde(rename = "$ref")]
    path: String,
}

/// A type.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    format: Option<String>,
    minimum: Option<i64>,
    items: Option<Box<Schema>>,
    #[serde(rename = "additionalProperties")]
    additional: Option<Box<Schema>>,
    #[serde(default, with = "ordered")]
    properties: Ordered<Schema>,
    /// Members that a request must carry.
    #[serde(default)]
    pub required: Vec<String>,
    #[serde(rename = "enum")]
    values: Option<Vec<String>>,
    /// One sentence.
    pub description: Option<String>,
    /// Whether the service computes the member, so that a request must not carry it.
    #[serde(default, rename = "readOnly")]
    pub read_only: bool,
    /// Whether it must not be printed.
    #[serde(default, rename = "x-ms-secret")]
    secret: bool,
}

/// What a [`Schema`] says.
#[derive(Debug)]
pub enum Shape<'a> {
    /// A named type of the document.
    Named(&'a str),
    /// An object with these members, and any other.
    Object(&'a Ordered<Schema>),
    /// An object whose members are all of this type.
    Map(&'a Schema),
    /// An array.
    Array(&'a Schema),
    /// A string with known values, and any other.
    Enum(&'a [String]),
    /// A string.
    Text,
    /// A string that must not be printed.
    Secret,
    /// An address.
    Uri,
    /// A half-open range of bytes.
    ByteRange,
    /// A boolean.
    Bool,
    /// An integer of so many bits.
    Integer {
        /// 32 or 64.
        bits: u8,
        /// Whether it can be negative.
        signed: bool,
    },
    /// Any number, kept as it is.
    Number,
    /// Anything.
    Any,
}

impl Schema {
    /// What it says.
    ///
    /// # Errors
    ///
    /// A combination that the generator does not know.
    pub fn shape(&self) -> Result<Shape<'_>> {
        if let Some(path) = &self.reference {
            return Ok(Shape::Named(target(path, "schemas")?));
        }
        Ok(match (self.kind.as_deref(), self.format.as_deref()) {
            (None, None) => Shape::Any,
            (Some("boolean"), None) => Shape::Bool,
            (Some("number"), None) => Shape::Number,
            (Some("integer"), Some(format @ ("int32" | "int64"))) => Shape::Integer {
                bits: if format == "int32" { 32 } else { 64 },
                signed: match self.minimum {
                    None => true,
                    Some(0) => false,
                    Some(other) => bail!("minimum {other}"),
                },
            },
            (Some("string"), None) if self.secret => Shape::Secret,
            (Some("string"), None) => self.values.as_deref().map_or(Shape::Text, Shape::Enum),
            (Some("string"), Some("uri")) => Shape::Uri,
            (Some("string"), Some("byte-range")) => Shape::ByteRange,
            (Some("array"), None) => {
                Shape::Array(self.items.as_deref().context("array without items")?)
            }
            (Some("object"), None) => match &self.additional {
                Some(schema) => Shape::Map(schema),
                None => Shape::Object(&self.properties),
            },
            (kind, format) => bail!("unknown type {kind:?} with format {format:?}"),
        })
    }
}

/// What a request carries.
#[derive(Debug)]
pub enum BodyKind<'a> {
    /// JSON of the named model.
    Json(&'a str),
    /// Bytes as they are.
    Bytes,
}

impl Body {
    /// What it carries.
    ///
    /// # Errors
    ///
    /// A media type that the generator does not know.
    pub fn kind(&self) -> Result<BodyKind<'_>> {
        ensure!(self.required, "an optional body");
        let [(media_type, media)] = self.content.as_slice() else {
            bail!("a body needs one media type");
        };
        match (media_type.as_str(), &media.schema) {
            ("application/json", Some(schema)) => match schema.shape()? {
                Shape::Named(name) => Ok(BodyKind::Json(name)),
                other => bail!("a body of type {other:?}"),
            },
            ("application/octet-stream", None) => Ok(BodyKind::Bytes),
            (other, _) => bail!("a body of media type {other}"),
        }
    }
}

impl Response {
    /// The named model that it carries, if any.
    ///
    /// # Errors
    ///
    /// A type without a name.
    pub fn model(&self) -> Result<Option<&str>> {
        let Some((_, media)) = self.content.first() else {
            return Ok(None);
        };
        let schema = media
            .schema
            .as_ref()
            .context("an answer without a schema")?;
        match schema.shape()? {
            Shape::Named(name) => Ok(Some(name)),
            other => bail!("an answer of type {other:?}"),
        }
    }
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// Unreadable, or outside the subset.
    pub fn read(path: &Path) -> Result<Self> {
        let context = || format!("read {}", path.display());
        let text = std::fs::read_to_string(path).with_context(context)?;
        let value: Value = serde_json::from_str(&text).with_context(context)?;
        check_references(&value, &value).with_context(context)?;
        let content = OpenApi::deserialize(value).with_context(context)?;
        ensure!(
            content.openapi == "3.1.0",
            "{}: OpenAPI {}",
            path.display(),
            content.openapi
        );
        let module = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .with_context(context)?;
        Ok(Self {
            module: module.to_owned(),
            content,
        })
    }

    /// All operations as (path, method, operation), in the order of the document.
    pub fn operations(&self) -> impl Iterator<Item = (&str, &str, &Operation)> {
        let paths = self.content.paths.iter().chain(&self.content.query_paths);
        paths.flat_map(|(path, item)| {
            item.operations
                .iter()
                .map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
    }

    /// The parameter, wherever it is written.
    ///
    /// # Errors
    ///
    /// A reference to nothing.
    pub fn parameter<'a>(&'a self, parameter: &'a OrRef<Parameter>) -> Result<&'a Parameter> {
        resolve(parameter, "parameters", &self.content.components.parameters)
    }

    /// The answer, wherever it is written.
    ///
    /// # Errors
    ///
    /// A reference to nothing.
    pub fn response<'a>(&'a self, response: &'a OrRef<Response>) -> Result<&'a Response> {
        resolve(response, "responses", &self.content.components.responses)
    }

    /// The named type.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn schema(&self, name: &str) -> Result<&Schema> {
        find(&self.content.components.schemas, name)
    }
}

fn resolve<'a, T>(item: &'a OrRef<T>, kind: &str, all: &'a Ordered<T>) -> Result<&'a T> {
    match item {
        OrRef::Here(item) => Ok(item),
        OrRef::Ref(reference) => find(all, target(&reference.path, kind)?),
    }
}

fn find<'a, T>(all: &'a Ordered<T>, name: &str) -> Result<&'a T> {
    all.iter()
        .find_map(|(key, item)| (key == name).then_some(item))
        .with_context(|| format!("reference to {name}, which does not exist"))
}

/// That every `$ref` in `value` leads to something in `document`.
fn check_references(document: &Value, value: &Value) -> Result<()> {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(path)) = members.get("$ref") {
                let target = path
                    .strip_prefix('#')
                    .and_then(|pointer| document.pointer(pointer));
                ensure!(target.is_some(), "reference {path} leads nowhere");
            }
            members
                .values()
                .try_for_each(|member| check_references(document, member))
        }
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_references(document, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn target<'a>(path: &'a str, kind: &str) -> Result<&'a str> {
    path.strip_prefix("#/components/")
        .and_then(|rest| rest.strip_prefix(kind)?.strip_prefix('/'))
        .with_context(|| format!("reference {path} does not lead to {kind}"))
}

/// Maps in the order of the document.
mod ordered {
    use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};
    use serde_json::Map;

    use super::{Ordered, Value};

    pub(super) fn deserialize<'de, D, T>(deserializer: D) -> Result<Ordered<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: DeserializeOwned,
    {
        Map::<String, Value>::deserialize(deserializer)?
            .into_iter()
            .map(|(key, value)| match serde_json::from_value(value) {
                Ok(item) => Ok((key, item)),
                Err(error) => Err(D::Error::custom(format_args!("{key}: {error}"))),
            })
            .collect()
    }
}
