//! Who may: Shared Key ("Authorize with Shared Key", the form since 2015-02-21), account SAS ("Create an account SAS") and
//! service SAS ("Create a service SAS", the forms since 2018-11-09).
use super::Target;
use crate::{
    blob::page::Refusal,
    clock,
    message::Request,
    state::{World, grant::sign},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Clocks may differ by this much.
const MAX_SKEW: Duration = Duration::from_secs(15 * 60);
/// First version of a signature without an older form of its text.
const OLDEST_SAS: &str = "2018-11-09";
/// First version with an encryption scope in the text.
const SCOPED_SAS: &str = "2020-12-06";

/// The standard headers of the text that is signed, in their order.
const SIGNED_HEADERS: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// The fields of an account SAS in the order in which they are signed.
const ACCOUNT_FIELDS: [&str; 8] = ["sp", "ss", "srt", "st", "se", "sip", "spr", "sv"];

/// An account SAS for all that is modelled: its query, and its signature. `expires` is a time in the form
/// `2099-01-01T00:00:00Z`.
pub(crate) fn account_query(account: &str, key: &[u8], expires: &str) -> (String, String) {
    let fields = [
        ("sv", "2022-11-02"),
        ("ss", "b"),
        ("srt", "co"),
        ("sp", "rwdlc"),
        ("se", expires),
    ];
    let field = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| *name == wanted);
        found.map_or("", |(_, value)| value)
    };
    let signature = STANDARD.encode(sign(key, account_text(account, field, true).as_bytes()));
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(fields).append_pair("sig", &signature);
    (query.finish(), signature)
}

/// What is signed of an account SAS.
fn account_text<'a>(account: &str, field: impl Fn(&str) -> &'a str, scoped: bool) -> String {
    let mut text = format!("{account}\n");
    for name in ACCOUNT_FIELDS {
        text.push_str(field(name));
        text.push('\n');
    }
    if scoped {
        text.push('\n');
    }
    text
}

/// That the request is allowed.
pub(super) fn admit(
    world: &World,
    request: &Request,
    target: &Target,
    operation: &str,
) -> Result<(), Refusal> {
    let keys = &target.account(world)?.keys;
    match (request.header("authorization"), request.query("sig")) {
        (Some(_), Some(_)) => Err(Refusal::unauthenticated()),
        (None, Some(signature)) if world.ended_signatures.contains(signature) => {
            Err(Refusal::unauthenticated())
        }
        (Some(value), None) => shared_key(request, target, keys, value, world.skew),
        (None, Some(signature)) => {
            let fields = Fields(request);
            if request.query("ss").is_some() {
                account_sas(world, &fields, target, keys, signature, operation)
            } else {
                service_sas(world, &fields, target, keys, signature, operation)
            }
        }
        (None, None) => Err(Refusal::new(
            401,
            "NoAuthenticationInformation",
            "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.",
        )),
    }
}

fn matches(keys: &[Vec<u8>], text: &str, signature: &str) -> bool {
    let Ok(signature) = STANDARD.decode(signature) else {
        return false;
    };
    keys.iter()
        .any(|key| sign(key, text.as_bytes()) == signature)
}

fn shared_key(
    request: &Request,
    target: &Target,
    keys: &[Vec<u8>],
    value: &str,
    skew: i64,
) -> Result<(), Refusal> {
    let Some((account, signature)) = value
        .strip_prefix("SharedKey ")
        .and_then(|rest| rest.split_once(':'))
    else {
        return Err(Refusal::unauthenticated());
    };
    let date = request
        .header("x-ms-date")
        .or_else(|| request.header("date"));
    let fresh = date.and_then(clock::parse_http_date).is_some_and(|date| {
        // The real time: the emulator's own may have been moved ahead, which signs nothing differently.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
            .saturating_add_signed(skew);
        now.abs_diff(date.as_secs()) <= MAX_SKEW.as_secs()
    });
    let text = string_to_sign(request, &target.account);
    if account != target.account || !fresh || !matches(keys, &text, signature) {
        return Err(Refusal::unauthenticated());
    }
    Ok(())
}

fn string_to_sign(request: &Request, account: &str) -> String {
    let mut text = format!("{}\n", request.method);
    for name in SIGNED_HEADERS {
        let value = request.header(name).unwrap_or_default();
        let left_out = match name {
            "content-length" => value == "0",
            "date" => request.headers.contains_key("x-ms-date"),
            _ => false,
        };
        text.push_str(if left_out { "" } else { value });
        text.push('\n');
    }
    let mut headers: BTreeMap<(String, &str), Vec<&str>> = BTreeMap::new();
    for (name, value) in &request.headers {
        if name.as_str().starts_with("x-ms-") {
            let value = value.to_str().unwrap_or_default().trim();
            let place = collated(name.as_str());
            headers
                .entry((place, name.as_str()))
                .or_default()
                .push(value);
        }
    }
    for ((_, name), values) in headers {
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    text.push_str(&format!("/{account}{}", request.path));
    let mut parameters: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, value) in &request.query {
        let name = name.to_ascii_lowercase();
        parameters.entry(name).or_default().push(value);
    }
    for (name, mut values) in parameters {
        values.sort_unstable();
        text.push_str(&format!("\n{name}:{}", values.join(",")));
    }
    text
}

/// Headers are sorted by words: hyphens are skipped, and an underscore comes first (as the SDKs' signers do it).
fn collated(name: &str) -> String {
    name.chars()
        .filter(|&letter| letter != '-')
        .map(|letter| if letter == '_' { ' ' } else { letter })
        .collect()
}

/// The fields of a signature, as texts.
struct Fields<'a>(&'a Request);

impl Fields<'_> {
    fn get(&self, name: &str) -> &str {
        self.0.query(name).unwrap_or_default()
    }

    /// Version, times and protocol, which both kinds have.
    fn check(&self, world: &World) -> Result<(), Refusal> {
        if self.get("sv") < OLDEST_SAS {
            return Err(Refusal::unmodelled(format!(
                "signatures of version {}",
                self.get("sv")
            )));
        }
        if !self.get("sip").is_empty() || !self.get("ses").is_empty() {
            return Err(Refusal::unmodelled("sip or ses in a signature"));
        }
        let expires = clock::parse_iso(self.get("se"));
        let starts = match self.get("st") {
            "" => Some(Duration::ZERO),
            text => clock::parse_iso(text),
        };
        let valid = expires.is_some_and(|expires| world.now < expires)
            && starts.is_some_and(|starts| starts <= world.now);
        let protocol = match self.get("spr") {
            "" | "https,http" => true,
            "https" => self.0.base.starts_with("https:"),
            _ => false,
        };
        if valid && protocol {
            Ok(())
        } else {
            Err(Refusal::unauthenticated())
        }
    }

    fn scoped(&self) -> bool {
        self.get("sv") >= SCOPED_SAS
    }
}

fn account_sas(
    world: &World,
    fields: &Fields<'_>,
    target: &Target,
    keys: &[Vec<u8>],
    signature: &str,
    operation: &str,
) -> Result<(), Refusal> {
    fields.check(world)?;
    let text = account_text(&target.account, |name| fields.get(name), fields.scoped());
    if !matches(keys, &text, signature) {
        return Err(Refusal::unauthenticated());
    }
    if !fields.get("ss").contains('b') {
        return Err(mismatch("AuthorizationServiceMismatch", "service"));
    }
    let kind = if target.blob.is_empty() { 'c' } else { 'o' };
    if !fields.get("srt").contains(kind) {
        return Err(mismatch(
            "AuthorizationResourceTypeMismatch",
            "resource type",
        ));
    }
    permitted(world, target, operation, fields.get("sp"))
}

fn service_sas(
    world: &World,
    fields: &Fields<'_>,
    target: &Target,
    keys: &[Vec<u8>],
    signature: &str,
    operation: &str,
) -> Result<(), Refusal> {
    fields.check(world)?;
    let container = format!("/blob/{}/{}", target.account, target.container);
    let resource = match fields.get("sr") {
        "b" => format!("{container}/{}", target.blob),
        "c" => container,
        other => return Err(Refusal::unmodelled(format!("signatures for sr={other}"))),
    };
    let mut text = String::new();
    for part in [
        fields.get("sp"),
        fields.get("st"),
        fields.get("se"),
        &resource,
        "",
        "",
        fields.get("spr"),
        fields.get("sv"),
        fields.get("sr"),
        "",
    ] {
        text.push_str(part);
        text.push('\n');
    }
    if fields.scoped() {
        text.push('\n');
    }
    let headers = ["rscc", "rscd", "rsce", "rscl", "rsct"].map(|name| fields.get(name));
    text.push_str(&headers.join("\n"));
    if !matches(keys, &text, signature) {
        return Err(Refusal::unauthenticated());
    }
    // It opens what is in a container, and the list of it, but not the container itself.
    if target.blob.is_empty() && (operation != "Container_ListBlobs" || fields.get("sr") != "c") {
        return Err(mismatch("AuthorizationFailure", "kind of signature"));
    }
    permitted(world, target, operation, fields.get("sp"))
}

fn permitted(
    world: &World,
    target: &Target,
    operation: &str,
    permissions: &str,
) -> Result<(), Refusal> {
    let sufficient = match operation {
        "Container_Create" => "cw",
        "Container_ListBlobs" => "l",
        "Container_Delete" | "StorageBlob_Delete" => "d",
        // What exists is overwritten, which is more than creating.
        "StorageBlob_Create" | "StorageBlob_StartCopy" if target.blob(world).is_err() => "cw",
        "StorageBlob_Create" | "StorageBlob_StartCopy" => "w",
        "StorageBlob_PutPage" | "StorageBlob_ClearPages" | "StorageBlob_AbortCopy" => "w",
        _ => "r",
    };
    if permissions.chars().any(|given| sufficient.contains(given)) {
        Ok(())
    } else {
        Err(mismatch("AuthorizationPermissionMismatch", "permission"))
    }
}

fn mismatch(code: &'static str, what: &str) -> Refusal {
    Refusal::new(
        403,
        code,
        format!("This request is not authorized to perform this operation using this {what}."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    /// The published key of the storage emulator.
    const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    fn text(method: Method, target: &str, headers: &[(&'static str, &'static str)]) -> String {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        let base = "http://127.0.0.1:10000".to_owned();
        let request = Request::new(method, base, target, headers, Bytes::new());
        string_to_sign(&request, "devstoreaccount1")
    }

    /// The signatures were computed with Python's hmac module over texts written by hand.
    #[test]
    fn signatures_of_known_requests() {
        let keys = [STANDARD.decode(KEY).unwrap()];
        let date = ("x-ms-date", "Mon, 23 Nov 2026 09:10:11 GMT");
        let version = ("x-ms-version", "2021-12-02");
        let list = text(
            Method::GET,
            "/devstoreaccount1/disks/os%20disk?marker=a%20b&comp=pagelist&maxresults=10000",
            &[version, date],
        );
        assert!(matches(
            &keys,
            &list,
            "KHn0V4PckHUk75gYsEemUnPqYna+XTcHZQJWYzXkqfY="
        ));
        let write = text(
            Method::PUT,
            "/devstoreaccount1/disks/b?comp=page",
            &[
                version,
                ("x-ms-range", "bytes=0-511"),
                ("x-ms-page-write", "update"),
                ("content-type", "application/octet-stream"),
                ("content-length", "512"),
                date,
            ],
        );
        assert!(matches(
            &keys,
            &write,
            "/6/axHeLuB31+/koWQBIMKKrDveOYnjhIdLhKrIqa0c="
        ));
        assert!(!matches(&keys, &write, "no base64"));
    }

    #[test]
    fn metadata_is_sorted_by_words() {
        let text = text(
            Method::PUT,
            "/a/b/c",
            &[
                ("x-ms-meta-a1", "2"),
                ("x-ms-meta-a_b", "1"),
                ("x-ms-meta-ab", "3"),
            ],
        );
        let expected = "x-ms-meta-a_b:1\nx-ms-meta-a1:2\nx-ms-meta-ab:3\n";
        assert!(text.contains(expected), "{text}");
    }
}
