//! Writes `src/azure/generated` from the OpenAPI documents in `specs`.
//!
//! [`document`] reads the subset of OpenAPI 3.1 that the documents use and refuses the rest, [`operations`] and
//! [`models`] turn it into Rust, [`names`] holds the one rule for names. The output builds requests and decodes answers;
//! what it stands on by hand is `azure::call`, `azure::read_only` and `secret::Secret`.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "every such arm refuses what the generator does not know"
)]

pub mod document;
pub mod models;
pub mod names;
pub mod operations;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::document::Document;
use crate::names::doc;

/// One output file.
#[derive(Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Name in the output folder.
    pub name: String,
    /// Whole content.
    pub content: String,
}

/// Generates all files from the documents in the folder `specs`, in order of their names.
///
/// # Errors
///
/// A document that cannot be read, or that uses what the generator does not know; with the place.
pub fn generate(specs: &Path) -> Result<Vec<GeneratedFile>> {
    let mut paths = Vec::new();
    for entry in specs
        .read_dir()
        .with_context(|| format!("list {}", specs.display()))?
    {
        paths.push(entry?.path());
    }
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    paths.sort();

    let mut documents = Vec::new();
    for path in &paths {
        documents.push(Document::read(path)?);
    }
    let mut files = Vec::new();
    for document in &documents {
        let content = module(document).with_context(|| format!("generate {}", document.module))?;
        let source = format!("specs/{}.json", document.module);
        files.push(render(&document.module, &source, content)?);
    }
    files.push(render("mod", "specs/*.json", index(&documents))?);
    Ok(files)
}

/// The module of one document: what it is, its operations, its models.
fn module(document: &Document) -> Result<TokenStream> {
    let info = &document.content.info;
    let summary = doc(&info.description);
    let origin = doc(&format!(
        "From {}; API version {}, checked {}.",
        info.origin, info.version, info.checked
    ));
    let operations = operations::generate(document)?;
    let models = models::generate(document)?;
    let imports = imports(&quote!(#operations #models));
    Ok(quote! {
        #![doc = #summary]
        #![doc = ""]
        #![doc = #origin]
        #imports
        #operations
        #models
    })
}

/// The imports that `code` needs, since an unused one is a warning.
fn imports(code: &TokenStream) -> TokenStream {
    let words: BTreeSet<String> = words(code.clone());
    let group = |prefix: TokenStream, names: &[&str]| {
        let used: Vec<_> = names
            .iter()
            .filter(|name| words.contains(**name))
            .map(|name| format_ident!("{name}"))
            .collect();
        (!used.is_empty()).then(|| quote!(use #prefix::{#(#used),*};))
    };
    [
        group(quote!(std::collections), &["BTreeMap"]),
        group(quote!(http), &["Method", "Uri"]),
        group(quote!(serde), &["Deserialize", "Serialize"]),
        group(quote!(serde_json), &["Map", "Number", "Value"]),
        group(quote!(url), &["Url"]),
        group(quote!(super), &["ApiVersions"]),
        group(
            quote!(crate::azure::call),
            &["BuildError", "Call", "CallBuilder", "Operation"],
        ),
        group(quote!(crate::payload), &["Payload"]),
        group(quote!(crate::range), &["ByteRange"]),
        group(quote!(crate::secret), &["Secret"]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// All identifiers in `code`.
fn words(code: TokenStream) -> BTreeSet<String> {
    code.into_iter()
        .flat_map(|token| match token {
            proc_macro2::TokenTree::Group(group) => words(group.stream()),
            proc_macro2::TokenTree::Ident(ident) => [ident.to_string()].into(),
            proc_macro2::TokenTree::Punct(_) | proc_macro2::TokenTree::Literal(_) => {
                BTreeSet::new()
            }
        })
        .collect()
}

/// The module list and the table of API versions.
fn index(documents: &[Document]) -> TokenStream {
    let names: Vec<_> = documents
        .iter()
        .map(|d| format_ident!("{}", d.module))
        .collect();
    let versions: Vec<_> = documents
        .iter()
        .map(|d| d.content.info.version.as_str())
        .collect();
    let docs: Vec<_> = documents
        .iter()
        .map(|d| {
            doc(&format!(
                "Of [`{}`]: {}",
                d.module,
                lower_first(&d.content.info.description)
            ))
        })
        .collect();
    quote! {
        #![doc = " Requests and answers of Azure's REST interfaces, one module per document."]
        #![doc = ""]
        #![doc = " Each operation is a constant and a function that builds its request: no client, clock, retry or credentials."]
        #![doc = " Members and values that the documents do not name survive a round trip through the models."]

        #(pub mod #names;)*

        /// The API version that each area is asked for; the defaults are those of the documents.
        ///
        /// A version may be replaced where a cloud does not know the default yet.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct ApiVersions {
            #(#[doc = #docs] pub #names: String,)*
        }

        impl Default for ApiVersions {
            fn default() -> Self {
                Self { #(#names: #versions.to_owned(),)* }
            }
        }
    }
}

/// `Virtual machines.` as `virtual machines.`
fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

/// Formats one file under its heading, with a blank line before each item.
fn render(name: &str, source: &str, content: TokenStream) -> Result<GeneratedFile> {
    let file: syn::File =
        syn::parse2(content).with_context(|| format!("parse the generated {name}"))?;
    let format = |attrs, items| {
        prettyplease::unparse(&syn::File {
            shebang: None,
            attrs,
            items,
            frontmatter: None,
        })
    };
    let mut content =
        format!("// Generated by arm-specs from arm-specs/{source}; do not edit.\n\n");
    content += &format(file.attrs, Vec::new());
    let is_line = |item: &syn::Item| matches!(item, syn::Item::Use(_) | syn::Item::Mod(_));
    let mut after_line = false;
    for item in file.items {
        if !(after_line && is_line(&item)) {
            content.push('\n');
        }
        after_line = is_line(&item);
        content += &format(Vec::new(), vec![item]);
    }
    Ok(GeneratedFile {
        name: format!("{name}.rs"),
        content,
    })
}
