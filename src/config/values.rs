//! What the text of each parameter means, and its bounds. An error says what is wrong with the value; the caller adds
//! the parameter's name.

use url::Url;

use super::NamePattern;
use crate::azure::Endpoints;
use crate::azure::endpoints::is_loopback;

const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// The service takes at most this much in one Put Page, and a failed chunk is fetched again whole.
const LARGEST_CHUNK: u64 = 4 * MIB;
/// Enough for some to arrive while others wait to be consumed. How many are under way is another matter.
const CHUNKS: u64 = 8;
/// Below this, requests cost more than they bring.
const SMALLEST_CHUNK: u64 = 256 * KIB;
/// Enough for one chunk of the largest size.
const LEAST_MEMORY: u64 = LARGEST_CHUNK;
/// What one budget can count; far beyond what more concurrency could use.
const MOST_MEMORY: u64 = 4 * GIB;
const MOST_CONCURRENCY: usize = 64;

/// Requests such that [`CHUNKS`] complete ones fit into `memory` bytes, if they do not become too small by that.
pub(super) fn chunk(memory: u64) -> u64 {
    let fair = memory / CHUNKS;
    (fair - fair % SMALLEST_CHUNK).clamp(SMALLEST_CHUNK, LARGEST_CHUNK)
}

pub(super) fn zero_or_one(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        other => Err(format!("{other} is neither 0 nor 1")),
    }
}

pub(super) fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "1" => Ok(true),
        "no" | "0" => Ok(false),
        _ => Err(format!("{text} is neither yes nor no")),
    }
}

pub(super) fn debug_level(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [digit @ b'0'..=b'9'] => Ok(digit - b'0'),
        _ => Err(format!("{text} is not a number from 0 to 9")),
    }
}

/// Whether to go through a blob.
pub(super) fn transfer(text: &str) -> Result<bool, String> {
    match text {
        "direct" => Ok(false),
        "blob" => Ok(true),
        other => Err(format!("{other} is unknown: possible are direct and blob")),
    }
}

pub(super) fn concurrency(text: &str) -> Result<usize, String> {
    digits(text)
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| (1..=MOST_CONCURRENCY).contains(number))
        .ok_or_else(|| format!("{text} is not a number from 1 to {MOST_CONCURRENCY}"))
}

/// Bytes, with an optional K, M or G for powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], KIB),
        Some((at, 'm' | 'M')) => (&text[..at], MIB),
        Some((at, 'g' | 'G')) => (&text[..at], GIB),
        Some(_) | None => (text, 1),
    };
    let Some(bytes) = digits(number).and_then(|number| number.checked_mul(unit)) else {
        return Err(format!("{text} is not a size such as 64M"));
    };
    if (LEAST_MEMORY..=MOST_MEMORY).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!(
            "{text} is not from {}M to {}G",
            LEAST_MEMORY / MIB,
            MOST_MEMORY / GIB
        ))
    }
}

/// A decimal number without a sign.
fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

pub(super) fn pattern(text: &str) -> Result<NamePattern, String> {
    NamePattern::new(text).map_err(|error| error.to_string())
}

pub(super) fn cloud(text: &str) -> Result<Endpoints, String> {
    Endpoints::of_cloud(text).ok_or_else(|| {
        let names: Vec<_> = Endpoints::cloud_names().collect();
        format!("{text} is unknown: possible are {}", names.join(", "))
    })
}

/// An address that paths can be joined to. Plain HTTP carries secrets in the clear, so it must not leave this host.
pub(super) fn endpoint(text: &str, allow_http: bool) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !bare {
        return Err("the URL must consist of scheme, host, port and path".to_owned());
    }
    match url.scheme() {
        "https" => {}
        "http" if !url.host_str().is_some_and(is_loopback) => {
            return Err(format!(
                "{url} would send secrets in the clear: use https (http is for an emulator on this host)"
            ));
        }
        "http" if !allow_http => {
            return Err(format!("{url} needs allow_http=yes, since it is not https"));
        }
        "http" => {}
        _ => return Err(format!("{url} is neither https nor http")),
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// The rule for resource names of virtual machines ("Naming rules and restrictions for Azure resources",
/// Microsoft.Compute): 1 to 64 characters, letters, digits, `-`, `.` and `_`; not `_` first, not `.` or `-` last.
pub(super) fn vm_name(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    let valid = text.chars().count() <= 64
        && text.chars().all(inner)
        && text.starts_with(char::is_alphanumeric)
        && !text.ends_with(['-', '.']);
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text} is not a name that Azure accepts for a virtual machine: 1 to 64 letters, digits, -, . and _, a letter or digit first, neither - nor . last"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_chunks_find_room() {
        for (memory, want) in [
            (32 * MIB, 4 * MIB),
            (16 * MIB, 2 * MIB),
            (4 * MIB, 512 * KIB),
            (4 * GIB, 4 * MIB),
            (20 * MIB, 2560 * KIB),
        ] {
            assert_eq!(chunk(memory), want);
        }
    }
}
