//! Operations: a constant each, and the function that builds its request.

use anyhow::{Context, Result, bail, ensure};
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};

use crate::document::{BodyKind, Document, Location, Operation, Parameter, Shape, Target};
use crate::names::{camel, doc, shouty, snake};

/// The operations of a document.
///
/// # Errors
///
/// What the generator does not know, with the operation.
pub fn generate(document: &Document) -> Result<TokenStream> {
    document
        .operations()
        .map(|(path, method, operation)| {
            generate_one(document, path, method, operation).with_context(|| operation.id.clone())
        })
        .collect()
}

fn generate_one(
    document: &Document,
    path: &str,
    method: &str,
    operation: &Operation,
) -> Result<TokenStream> {
    let id = &operation.id;
    let constant = shouty(id);
    let function = snake(id);
    let long_running = operation.long_running;
    let mut success = Vec::new();
    let mut model = None;
    for (status, response) in &operation.responses {
        success.push(proc_macro2::Literal::u16_unsuffixed(
            status.parse().context("a status")?,
        ));
        model = model.or(document.response(response)?.model()?);
    }
    let mut parameters = Vec::new();
    for parameter in &operation.parameters {
        parameters.push(document.parameter(parameter)?);
    }

    let mut function_parameters = Vec::new();
    let mut notes = Vec::new();
    for parameter in &parameters {
        if value(document, parameter)?.is_none() {
            let name = variable(parameter);
            let kind = rust_type(parameter)?;
            function_parameters.push(quote!(#name: #kind));
            if let Some(description) = &parameter.description {
                notes.push(doc(&format!("- `{name}`: {description}")));
            }
        }
    }
    let (address, address_type, builder, path_steps) = match document.content.info.target {
        Target::Arm => (
            quote!(endpoint),
            quote!(&Url),
            quote!(arm),
            path_steps(path, &parameters)?,
        ),
        Target::Blob => (quote!(blob), quote!(&Uri), quote!(blob), TokenStream::new()),
    };
    let other_steps = parameters
        .iter()
        .map(|parameter| step(document, parameter))
        .collect::<Result<TokenStream>>()?;
    let body_step = match operation
        .body
        .as_ref()
        .map(|body| body.kind())
        .transpose()?
    {
        None => TokenStream::new(),
        Some(BodyKind::Json(name)) => {
            let model = camel(name);
            function_parameters.push(quote!(body: &#model));
            quote!(.json(body))
        }
        Some(BodyKind::Bytes) => {
            function_parameters.push(quote!(body: Payload));
            quote!(.bytes(body))
        }
    };

    let method = match method {
        "get" | "head" | "put" | "post" | "patch" | "delete" => {
            format_ident!("{}", method.to_uppercase())
        }
        other => bail!("method {other}"),
    };
    let constant_doc = doc(&format!("`{id}`: see [`{function}`]."));
    let summary = doc(&operation.summary);
    let answer = model.map(|name| {
        let text = doc(&format!("Answers [`{}`].", camel(name)));
        quote!(#[doc = ""] #[doc = #text])
    });
    let notes = (!notes.is_empty()).then(|| quote!(#[doc = ""] #(#[doc = #notes])*));
    Ok(quote! {
        #[doc = #constant_doc]
        pub const #constant: Operation = Operation {
            id: #id,
            success: &[#(#success),*],
            long_running: #long_running,
        };

        #[doc = #summary]
        #answer
        #notes
        #[doc = ""]
        #[doc = " # Errors"]
        #[doc = ""]
        #[doc = " A parameter that cannot stand where it belongs."]
        pub fn #function(
            #address: #address_type,
            versions: &ApiVersions,
            #(#function_parameters),*
        ) -> Result<Call, BuildError> {
            CallBuilder::#builder(&#constant, Method::#method, #address)
                #path_steps
                #other_steps
                #body_step
                .build()
        }
    })
}

/// The steps that write the path.
fn path_steps(path: &str, parameters: &[&Parameter]) -> Result<TokenStream> {
    let mut steps = TokenStream::new();
    let mut rest = path;
    while let Some((literal, tail)) = rest.split_once('{') {
        let (name, tail) = tail.split_once('}').context("an open brace in the path")?;
        ensure!(
            parameters
                .iter()
                .any(|p| p.location == Location::Path && p.name == name),
            "path parameter {name} is not declared"
        );
        let variable = snake(name);
        steps.extend(quote!(.path(#literal).segment(#name, #variable)));
        rest = tail;
    }
    if !rest.is_empty() {
        steps.extend(quote!(.path(#rest)));
    }
    Ok(steps)
}

/// The step that writes a parameter of the query or the headers.
fn step(document: &Document, parameter: &Parameter) -> Result<TokenStream> {
    let name = match parameter.location {
        Location::Path => return Ok(TokenStream::new()),
        Location::Query => parameter.name.clone(),
        Location::Header => parameter.name.to_lowercase(),
    };
    let fixed = value(document, parameter)?;
    let variable = variable(parameter);
    let method = match (
        parameter.location,
        parameter.schema.shape()?,
        parameter.secret,
    ) {
        (Location::Header, Shape::ByteRange, false) => format_ident!("range_header"),
        (Location::Header, Shape::Uri, true) => format_ident!("secret_header"),
        (Location::Header, Shape::Text | Shape::Enum(_) | Shape::Integer { .. }, false) => {
            format_ident!("header")
        }
        (Location::Query, Shape::Text | Shape::Enum(_) | Shape::Integer { .. }, false) => {
            format_ident!("query")
        }
        (location, shape, _) => bail!("parameter {name} in {location:?} of type {shape:?}"),
    };
    let optional = fixed.is_none() && !parameter.required;
    Ok(match fixed {
        Some(fixed) => quote!(.#method(#name, Some(#fixed))),
        None if optional => quote!(.#method(#name, #variable)),
        None => quote!(.#method(#name, Some(#variable))),
    })
}

/// The value of a parameter that the caller does not give: an API version or a constant.
fn value(document: &Document, parameter: &Parameter) -> Result<Option<TokenStream>> {
    if matches!(parameter.name.as_str(), "api-version" | "x-ms-version") {
        let module = format_ident!("{}", document.module);
        return Ok(Some(quote!(versions.#module.as_str())));
    }
    let Shape::Enum(values) = parameter.schema.shape()? else {
        return Ok(None);
    };
    let ([only], true) = (values, parameter.required) else {
        bail!("parameter {} is a choice", parameter.name);
    };
    Ok(Some(quote!(#only)))
}

/// The name of a function's parameter: `x-ms-range` gives `range`.
fn variable(parameter: &Parameter) -> Ident {
    snake(parameter.name.trim_start_matches("x-ms-"))
}

/// The type of a function's parameter.
fn rust_type(parameter: &Parameter) -> Result<TokenStream> {
    let kind = match parameter.schema.shape()? {
        Shape::Text => quote!(&str),
        Shape::Uri => quote!(&Uri),
        Shape::ByteRange => quote!(ByteRange),
        Shape::Integer {
            bits,
            signed: false,
        } => {
            let ident = format_ident!("u{bits}");
            quote!(#ident)
        }
        other => bail!("parameter {} of type {other:?}", parameter.name),
    };
    Ok(if parameter.required {
        kind
    } else {
        quote!(Option<#kind>)
    })
}
