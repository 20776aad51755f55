//! Models: structures, open enumerations, and the lists of members that a request must not carry.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::document::{BodyKind, Document, Ordered, Schema, Shape};
use crate::names::{camel, doc, is_camel_case, shouty, snake};

/// The models of a document.
///
/// # Errors
///
/// What the generator does not know, with the model.
pub fn generate(document: &Document) -> Result<TokenStream> {
    let bodies = bodies(document)?;
    document
        .content
        .components
        .schemas
        .iter()
        .map(|(name, schema)| {
            let context = || name.clone();
            let description = schema.description.as_deref().with_context(context)?;
            let model = match schema.shape().with_context(context)? {
                Shape::Object(members) => {
                    structure(name, description, members, &schema.required).with_context(context)?
                }
                Shape::Enum(values) => {
                    ensure!(
                        schema.required.is_empty(),
                        "{name}: values, none of them required"
                    );
                    enumeration(name, description, values)
                }
                other => bail!("{name}: a model of type {other:?}"),
            };
            let read_only = if bodies.contains(name.as_str()) {
                read_only(document, name).with_context(context)?
            } else {
                TokenStream::new()
            };
            Ok(quote!(#model #read_only))
        })
        .collect()
}

/// The models that requests carry.
fn bodies(document: &Document) -> Result<BTreeSet<&str>> {
    let mut names = BTreeSet::new();
    for (_, _, operation) in document.operations() {
        if let Some(BodyKind::Json(name)) = operation
            .body
            .as_ref()
            .map(|body| body.kind())
            .transpose()?
        {
            names.insert(name);
        }
    }
    Ok(names)
}

/// A structure. Every member is optional, required ones too, since the service leaves out what it likes; members without a
/// name here are kept. A structure with a secret is an answer only: it cannot be written, and drops what it does not know, so that a
/// secret of a later version cannot be printed.
fn structure(
    name: &str,
    description: &str,
    members: &Ordered<Schema>,
    required: &[String],
) -> Result<TokenStream> {
    for wire in required {
        ensure!(
            members.iter().any(|(member, _)| member == wire),
            "{wire} is required, but no member"
        );
    }
    let mut fields = Vec::new();
    let mut has_secret = false;
    for (wire, schema) in members {
        has_secret |= matches!(schema.shape()?, Shape::Secret);
        let required = required.contains(wire);
        fields.push(field(wire, schema, required).with_context(|| wire.clone())?);
    }
    let ident = camel(name);
    let description = doc(description);
    let (derives, extra) = if has_secret {
        (
            quote!(Clone, Debug, Default, Deserialize),
            TokenStream::new(),
        )
    } else {
        (
            quote!(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize),
            quote! {
                /// Members that are not named here, as they came.
                #[serde(flatten)]
                pub extra: Map<String, Value>,
            },
        )
    };
    Ok(quote! {
        #[doc = #description]
        #[derive(#derives)]
        #[serde(rename_all = "camelCase")]
        pub struct #ident {
            #(#fields)*
            #extra
        }
    })
}

fn field(wire: &str, schema: &Schema, required: bool) -> Result<TokenStream> {
    let shape = schema.shape()?;
    let ident = snake(wire);
    let kind = rust_type(&shape)?;
    let mut text = match (&schema.description, &shape) {
        (Some(text), _) => text.clone(),
        (None, Shape::Named(name)) => format!("See [`{}`].", camel(name)),
        (None, _) => bail!("no description"),
    };
    for (note, applies) in [(" Required.", required), (" Read-only.", schema.read_only)] {
        if applies {
            text.push_str(note);
        }
    }
    let text = doc(&text);
    let rename = (!is_camel_case(wire)).then(|| quote!(rename = #wire,));
    let skip =
        (!matches!(shape, Shape::Secret)).then(|| quote!(skip_serializing_if = "Option::is_none"));
    let attribute = (rename.is_some() || skip.is_some()).then(|| quote!(#[serde(#rename #skip)]));
    Ok(quote! {
        #[doc = #text]
        #attribute
        pub #ident: Option<#kind>,
    })
}

fn rust_type(shape: &Shape<'_>) -> Result<TokenStream> {
    Ok(match shape {
        Shape::Named(name) => {
            let ident = camel(name);
            quote!(#ident)
        }
        Shape::Map(schema) => {
            let value = rust_type(&schema.shape()?)?;
            quote!(BTreeMap<String, #value>)
        }
        Shape::Array(schema) => {
            let item = rust_type(&schema.shape()?)?;
            quote!(Vec<#item>)
        }
        Shape::Text => quote!(String),
        Shape::Secret => quote!(Secret),
        Shape::Bool => quote!(bool),
        Shape::Integer { bits, signed } => {
            let ident = format_ident!("{}{bits}", if *signed { "i" } else { "u" });
            quote!(#ident)
        }
        Shape::Number => quote!(Number),
        Shape::Any => quote!(Value),
        Shape::Object(_) | Shape::Enum(_) | Shape::Uri | Shape::ByteRange => {
            bail!("a member of type {shape:?} needs a model of its own")
        }
    })
}

/// An enumeration that keeps values it does not know.
fn enumeration(name: &str, description: &str, values: &[String]) -> TokenStream {
    let ident = camel(name);
    let description = doc(description);
    let variants: Vec<_> = values.iter().map(|value| camel(value)).collect();
    let docs: Vec<_> = values
        .iter()
        .map(|value| doc(&format!("`{value}`")))
        .collect();
    quote! {
        #[doc = #description]
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum #ident {
            #(#[doc = #docs] #variants,)*
            /// A value that is not named here, as it came.
            Other(String),
        }

        impl #ident {
            /// The value on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    #(Self::#variants => #values,)*
                    Self::Other(value) => value,
                }
            }
        }

        impl From<String> for #ident {
            fn from(value: String) -> Self {
                match value.as_str() {
                    #(#values => Self::#variants,)*
                    _ => Self::Other(value),
                }
            }
        }

        impl From<#ident> for String {
            fn from(value: #ident) -> Self {
                value.as_str().to_owned()
            }
        }
    }
}

/// The list of members of a request's model that only the service sets, if there are any.
fn read_only(document: &Document, name: &str) -> Result<TokenStream> {
    let mut paths = Vec::new();
    collect_read_only(document, document.schema(name)?, "", &mut paths)?;
    if paths.is_empty() {
        return Ok(TokenStream::new());
    }
    let constant = format_ident!("{}_READ_ONLY", shouty(name));
    let text = doc(&format!(
        "What only the service sets in a [`{}`]; for [`read_only::remove`](crate::azure::read_only::remove).",
        camel(name)
    ));
    Ok(quote! {
        #[doc = #text]
        pub const #constant: &[&str] = &[#(#paths),*];
    })
}

fn collect_read_only(
    document: &Document,
    schema: &Schema,
    path: &str,
    paths: &mut Vec<String>,
) -> Result<()> {
    match schema.shape()? {
        Shape::Named(name) => collect_read_only(document, document.schema(name)?, path, paths)?,
        Shape::Object(members) => {
            for (wire, member) in members {
                let path = format!("{path}/{wire}");
                if member.read_only {
                    paths.push(path);
                } else {
                    collect_read_only(document, member, &path, paths)?;
                }
            }
        }
        Shape::Map(item) | Shape::Array(item) => {
            collect_read_only(document, item, &format!("{path}/*"), paths)?;
        }
        Shape::Enum(_)
        | Shape::Text
        | Shape::Secret
        | Shape::Uri
        | Shape::ByteRange
        | Shape::Bool
        | Shape::Integer { .. }
        | Shape::Number
        | Shape::Any => {}
    }
    Ok(())
}
