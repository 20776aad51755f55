//! The storage service's XML: small documents of nested elements without attributes of interest.

use std::fmt;
use std::io::BufRead;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

use crate::notice::brief;

/// Deepest nesting accepted; the documents in question have three levels.
const MAX_DEPTH: usize = 16;

/// Reads one document and calls `on_end` at the end of each element with the path of element names from the root, and
/// the element's own text. The first error, of the document or of `on_end`, ends it.
pub(super) fn walk(
    input: impl BufRead,
    mut on_end: impl FnMut(&[String], &str) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = Reader::from_reader(input);
    let mut buffer = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut complete = false;
    loop {
        buffer.clear();
        let event = reader
            .read_event_into(&mut buffer)
            .map_err(|error| broken(&error))?;
        match event {
            Event::Start(start) => {
                if complete || path.len() == MAX_DEPTH {
                    return Err("not the XML that was expected".into());
                }
                path.push(start.local_name().as_ref().to_owned());
                text.clear();
            }
            Event::Empty(empty) => {
                path.push(empty.local_name().as_ref().to_owned());
                on_end(&path, "")?;
                path.pop();
                complete = path.is_empty();
            }
            Event::End(_) => {
                on_end(&path, text.trim())?;
                text.clear();
                path.pop();
                complete = path.is_empty();
            }
            Event::Text(part) => text.push_str(&part.xml10_content()),
            Event::CData(part) => text.push_str(&part.xml10_content()),
            Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                Ok(Some(character)) => text.push(character),
                Ok(None) => text.push_str(
                    resolve_predefined_entity(&reference).ok_or("an undefined entity in XML")?,
                ),
                Err(error) => return Err(broken(&error)),
            },
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            Event::Eof if complete => return Ok(()),
            Event::Eof => return Err("the XML ends early".into()),
        }
    }
}

/// The parser's errors quote the document.
fn broken(error: &dyn fmt::Display) -> String {
    brief(format!("broken XML: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(document: &str) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        walk(document.as_bytes(), |path, text| {
            found.push(format!("{}={text}", path.join("/")));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn text_is_put_together_from_its_pieces() {
        assert_eq!(
            leaves("<?xml version=\"1.0\"?><a><b> 1&amp;2&#x41; </b><c/></a>\n"),
            Ok(vec!["a/b=1&2A".into(), "a/c=".into(), "a=".into()])
        );
    }

    #[test]
    fn documents_that_end_early_or_do_not_match_are_refused() {
        for document in [
            "",
            "<a><b>1</b>",
            "<a><b>1</a>",
            "<a/><b/>x<c>",
            "<a>&nbsp;</a>",
        ] {
            assert!(leaves(document).is_err(), "{document}");
        }
    }

    #[test]
    fn errors_do_not_repeat_the_document() {
        let name = "n".repeat(100_000);
        let error = leaves(&format!("<a><{name}></b></a>")).expect_err("refused");
        assert!(error.len() < 1100, "{} bytes", error.len());
    }

    #[test]
    fn the_callers_error_ends_it() {
        let result = walk("<a><b/></a>".as_bytes(), |_, _| Err("enough".into()));
        assert_eq!(result, Err("enough".into()));
    }
}
