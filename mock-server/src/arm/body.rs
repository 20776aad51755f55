//! Reading request bodies: members by dotted path, wrong types refused with their name.
use super::error::ArmError;
use serde_json::{Map, Value};

/// A JSON object that a client sent.
#[derive(Debug)]
pub(crate) struct Body<'a>(&'a Map<String, Value>);

impl<'a> Body<'a> {
    pub(crate) fn new(value: &'a Value) -> Result<Self, ArmError> {
        value.as_object().map(Self).ok_or_else(|| {
            ArmError::gateway(
                400,
                "InvalidRequestContent",
                "The request content was invalid and could not be deserialized: it is not a JSON object.",
            )
        })
    }

    fn find(&self, path: &str) -> Option<&'a Value> {
        let mut parts = path.split('.');
        let mut value = self.0.get(parts.next()?)?;
        for part in parts {
            value = value.get(part)?;
        }
        (!value.is_null()).then_some(value)
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    pub(crate) fn value(&self, path: &str) -> Option<&'a Value> {
        self.find(path)
    }

    pub(crate) fn text(&self, path: &'static str) -> Result<&'a str, ArmError> {
        self.optional_text(path)?.ok_or_else(|| missing(path))
    }

    pub(crate) fn optional_text(&self, path: &'static str) -> Result<Option<&'a str>, ArmError> {
        self.find(path)
            .map(|value| value.as_str().ok_or_else(|| wrong(path, "a string")))
            .transpose()
    }

    pub(crate) fn number(&self, path: &'static str) -> Result<Option<u64>, ArmError> {
        self.find(path)
            .map(|value| value.as_u64().ok_or_else(|| wrong(path, "a whole number")))
            .transpose()
    }

    pub(crate) fn flag(&self, path: &'static str) -> Result<Option<bool>, ArmError> {
        self.find(path)
            .map(|value| value.as_bool().ok_or_else(|| wrong(path, "a boolean")))
            .transpose()
    }

    pub(crate) fn object(&self, path: &'static str) -> Result<&'a Map<String, Value>, ArmError> {
        let value = self.find(path).ok_or_else(|| missing(path))?;
        value.as_object().ok_or_else(|| wrong(path, "an object"))
    }

    pub(crate) fn array(&self, path: &'static str) -> Result<&'a [Value], ArmError> {
        match self.find(path) {
            None => Ok(&[]),
            Some(Value::Array(values)) => Ok(values),
            Some(_) => Err(wrong(path, "an array")),
        }
    }

    /// `location`, in the service's canonical form: `West Europe` is `westeurope`.
    pub(crate) fn location(&self) -> Result<String, ArmError> {
        let location = self.optional_text("location")?.ok_or_else(|| {
            ArmError::gateway(
                400,
                "LocationRequired",
                "The location property is required for this definition.",
            )
        })?;
        Ok(location.replace(' ', "").to_ascii_lowercase())
    }

    pub(crate) fn tags(&self) -> Result<Map<String, Value>, ArmError> {
        if !self.has("tags") {
            return Ok(Map::new());
        }
        let tags = self.object("tags")?;
        let invalid = |why: String| Err(ArmError::gateway(400, "InvalidTagNameOrValue", why));
        if tags.len() > 50 {
            return invalid(format!("{} tags are more than the allowed 50.", tags.len()));
        }
        for (name, value) in tags {
            let Some(value) = value.as_str() else {
                return Err(wrong("tags", "an object of strings"));
            };
            if name.len() > 512 || name.contains(['<', '>', '%', '&', '\\', '?', '/']) {
                return invalid(format!(
                    "The tag name '{name}' is too long or has reserved characters."
                ));
            }
            if value.len() > 256 {
                return invalid(format!(
                    "The value of tag '{name}' has more than 256 characters."
                ));
            }
        }
        Ok(tags.clone())
    }

    pub(crate) fn zones(&self) -> Result<Vec<String>, ArmError> {
        self.array("zones")?
            .iter()
            .map(|zone| {
                zone.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| wrong("zones", "an array of strings"))
            })
            .collect()
    }
}

fn missing(path: &'static str) -> ArmError {
    ArmError::invalid(
        path,
        format!("Required parameter '{path}' is missing (null)."),
    )
}

fn wrong(path: &'static str, wanted: &str) -> ArmError {
    ArmError::invalid(
        path,
        format!("The value of parameter '{path}' is invalid: it is not {wanted}."),
    )
}
