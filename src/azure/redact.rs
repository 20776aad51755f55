//! Texts of others, made fit for logs and messages.
//!
//! Services and proxies quote requests in their error texts. A quoted URL may carry a SAS or the signature of a polling
//! address in its query, so no query survives; nor does what looks like a token or a key.

use crate::secret::mask;

/// Longest text of a service that is passed on, in characters; the host's message buffer holds 2000 bytes.
const MAX_CHARS: usize = 600;

/// One line, bounded, without control characters, without the query of any URL and without a `sig=` value.
pub(super) fn clean(text: &str) -> String {
    let text = mask(text.as_bytes());
    let text = String::from_utf8_lossy(&text);
    let mut out = String::with_capacity(text.len().min(MAX_CHARS));
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&without_query(word));
    }
    if out.chars().count() > MAX_CHARS {
        out = out.chars().take(MAX_CHARS).collect();
        out.push('…');
    }
    out
}

/// The word up to the query of its URL, or up to the signature in it; the rest of the word is not worth a leak.
fn without_query(word: &str) -> String {
    let query = word
        .find("://")
        .and_then(|scheme| Some(scheme + word[scheme..].find('?')?));
    let lower = word.to_ascii_lowercase();
    match query.or_else(|| lower.find("sig=")) {
        Some(position) => format!("{}…", &word[..position]),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_query_and_no_signature_survives() {
        let text = "The request to GET\r\n'https://host/path?api-version=1&t=secret' failed; \
                    sv=2018-03-28&SIG=abc%3D is used up";
        assert_eq!(
            clean(text),
            "The request to GET 'https://host/path… failed; sv=2018-03-28&… is used up"
        );
    }

    #[test]
    fn no_token_and_no_key_survives() {
        assert_eq!(
            clean(
                "header Authorization: Bearer eyJ0.eyJ1.x-_ was refused; Authorization: SharedKey acc:q+w/e=, \
                 body client_secret=p~x&scope=y, {\"access_token\": \"eyJ2\"}, AccountKey=abc=;"
            ),
            "header Authorization: Bearer *** was refused; Authorization: SharedKey acc:*** body client_secret=***&scope=y, \
             {\"access_token\": \"***\"}, AccountKey=***;"
        );
    }

    #[test]
    fn a_question_in_plain_text_stays() {
        assert_eq!(clean(" Did you\tmean it?  Yes."), "Did you mean it? Yes.");
    }

    #[test]
    fn long_texts_end() {
        let text = clean(&"ä".repeat(5000));
        assert_eq!(text.chars().count(), MAX_CHARS + 1);
        assert!(text.ends_with('…'));
    }
}
