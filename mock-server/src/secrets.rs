//! What a client must keep to itself: which secrets exist, and in what part of its requests they came.
use crate::{
    message::{Body, Request, Response, percent_decode},
    state::World,
    sync::lock,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeSet, sync::Mutex};

/// Longest body that is searched; larger ones are pages of a disk.
const LARGEST_TEXT: usize = 64 * 1024;

/// Kinds of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretKind {
    /// Of an application.
    ClientSecret,
    /// Of a storage account, base64.
    AccountKey,
    /// Access to Resource Manager.
    Token,
    /// Of a SAS, base64.
    Signature,
    /// Of the SAS of a storage account, base64.
    AccountSignature,
    /// Of a polling URL, base64 as in URLs.
    PollingSignature,
}

/// Where a secret came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sighting {
    /// What was asked for, as the counters name it.
    pub operation: String,
    /// What came.
    pub kind: SecretKind,
    /// `path`, `query <name>`, `header <name>` or `body`.
    pub place: String,
}

/// Tokens are kept, and requests searched, once somebody watches.
#[derive(Debug, Default)]
pub(crate) struct Watch(Mutex<Option<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// Tokens, and signatures of storage accounts.
    issued: Vec<(SecretKind, String)>,
    sightings: BTreeSet<Sighting>,
}

impl Watch {
    pub(crate) fn begin(&self) {
        lock(&self.0).get_or_insert_default();
    }

    /// Every secret that exists or existed since the watch began.
    pub(crate) fn secrets(&self, world: &World) -> Vec<(SecretKind, String)> {
        let seen = lock(&self.0);
        let issued = seen.iter().flat_map(|seen| &seen.issued);
        all(issued, world)
    }

    pub(crate) fn sightings(&self) -> Vec<Sighting> {
        let seen = lock(&self.0);
        let sightings = seen.iter().flat_map(|seen| &seen.sightings);
        sightings.cloned().collect()
    }

    /// Looks for secrets in a request.
    pub(crate) fn look(&self, world: &World, operation: &str, request: &Request) {
        let mut seen = lock(&self.0);
        let Some(seen) = seen.as_mut() else { return };
        let parts = parts(request).into_iter().map(|(place, text)| {
            let decoded = percent_decode(&text);
            (place, text, decoded)
        });
        let parts: Vec<_> = parts.collect();
        for (kind, secret) in all(seen.issued.iter(), world) {
            for (place, text, decoded) in &parts {
                if text.contains(&secret) || decoded.contains(&secret) {
                    seen.sightings.insert(Sighting {
                        operation: operation.to_owned(),
                        kind,
                        place: place.clone(),
                    });
                }
            }
        }
    }

    /// Keeps the token of an answer of the token endpoint.
    pub(crate) fn note(&self, response: &Response) {
        let mut seen = lock(&self.0);
        if let (Some(seen), Body::Bytes(body)) = (seen.as_mut(), &response.body)
            && let Ok(answer) = serde_json::from_slice::<Value>(body)
            && let Some(token) = answer["access_token"].as_str()
        {
            seen.issued.push((SecretKind::Token, token.to_owned()));
        }
    }

    /// Keeps the signature of a storage account.
    pub(crate) fn note_signature(&self, signature: String) {
        if let Some(seen) = lock(&self.0).as_mut() {
            seen.issued.push((SecretKind::AccountSignature, signature));
        }
    }
}

fn all<'a>(
    issued: impl Iterator<Item = &'a (SecretKind, String)>,
    world: &World,
) -> Vec<(SecretKind, String)> {
    let principals = world.tenants.iter().flat_map(|tenant| &tenant.principals);
    let clients = principals.map(|p| (SecretKind::ClientSecret, p.client_secret.clone()));
    let keys = world.accounts.values().flat_map(|account| &account.keys);
    let keys = keys.map(|key| (SecretKind::AccountKey, STANDARD.encode(key)));
    let grants = world.grants.values();
    let signatures = grants.map(|grant| (SecretKind::Signature, grant.signature.clone()));
    let operations = world.operations.keys();
    let polls = operations.map(|id| (SecretKind::PollingSignature, world.polling_signature(id)));
    clients
        .chain(keys)
        .chain(issued.cloned())
        .chain(signatures)
        .chain(polls)
        .collect()
}

/// The parts of a request with their names.
fn parts(request: &Request) -> Vec<(String, String)> {
    let mut parts = vec![("path".to_owned(), request.path.clone())];
    let query = request.query.iter();
    parts.extend(query.map(|(name, value)| (format!("query {name}"), value.clone())));
    parts.extend(request.headers.iter().map(|(name, value)| {
        let text = String::from_utf8_lossy(value.as_bytes());
        (format!("header {name}"), text.into_owned())
    }));
    if request.body.len() <= LARGEST_TEXT {
        let text = String::from_utf8_lossy(&request.body);
        parts.push(("body".to_owned(), text.into_owned()));
    }
    parts
}
