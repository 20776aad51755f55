//! Page lists: which ranges of a page blob hold data, or changed ("Get Page Ranges").
//!
//! The list comes in pages, as XML that is read element by element, and both kinds of range come mixed in address
//! order. A list that cannot be trusted is an error: a lost range would be lost data.

use std::io::{self, Read};

use bytes::Bytes;

use super::page_blob::{PAGE, PageRange, PageRangeKind};
use super::xml;
use crate::range::ByteRange;

/// One page of a list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PageListPage {
    /// Ascending, disjoint, aligned; neighbours of one kind are joined.
    pub(super) ranges: Vec<PageRange>,
    /// Where the next page begins; `None` on the last one.
    pub(super) marker: Option<String>,
}

impl PageListPage {
    /// Reads the frames of one answer. Ranges must lie between `from`, where the page before ended, and `length`, the
    /// end of the blob.
    pub(super) fn parse(frames: &[Bytes], from: u64, length: u64) -> Result<Self, String> {
        let mut page = Self::default();
        let mut position = from;
        let (mut first, mut last) = (None, None);
        let mut root_seen = false;
        xml::walk(
            io::BufReader::new(Frames {
                rest: frames,
                position: 0,
            }),
            |path, text| {
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                match names.as_slice() {
                    ["PageList", "PageRange" | "ClearRange", "Start"] => {
                        first = Some(number(text)?);
                    }
                    ["PageList", "PageRange" | "ClearRange", "End"] => {
                        last = Some(number(text)?);
                    }
                    ["PageList", kind @ ("PageRange" | "ClearRange")] => {
                        let (Some(first), Some(last)) = (first.take(), last.take()) else {
                            return Err(format!(
                                "a {kind} of the page list has no Start or no End"
                            ));
                        };
                        let kind = match *kind {
                            "PageRange" => PageRangeKind::Written,
                            _ => PageRangeKind::Cleared,
                        };
                        let range = checked(first, last, position, length)?;
                        position = range.end();
                        page.push(PageRange { range, kind });
                    }
                    ["PageList", "NextMarker"] => {
                        page.marker = Some(text.to_owned()).filter(|marker| !marker.is_empty());
                    }
                    ["PageList"] => root_seen = true,
                    // Members that later versions may add.
                    _ => {}
                }
                Ok(())
            },
        )?;
        if root_seen {
            Ok(page)
        } else {
            Err("the answer is not a page list".into())
        }
    }

    fn push(&mut self, next: PageRange) {
        push_joined(&mut self.ranges, next);
    }
}

/// Appends a range; joins it to the last one if it is its neighbour and of its kind.
pub(super) fn push_joined(ranges: &mut Vec<PageRange>, next: PageRange) {
    if let Some(last) = ranges.last_mut()
        && last.kind == next.kind
        && last.range.end() == next.range.start()
        && let Some(joined) = ByteRange::new(last.range.start(), next.range.end())
    {
        last.range = joined;
    } else {
        ranges.push(next);
    }
}

fn checked(first: u64, last: u64, position: u64, length: u64) -> Result<ByteRange, String> {
    let described = format!("range {first}-{last} of the page list");
    let range = ByteRange::from_inclusive(first, last)
        .ok_or_else(|| format!("{described} ends before it begins"))?;
    if !range.is_aligned(PAGE) {
        return Err(format!("{described} is not aligned to {PAGE} bytes"));
    }
    if range.start() < position {
        return Err(format!(
            "{described} begins before {position}, where the range before it ended"
        ));
    }
    if range.end() > length {
        return Err(format!(
            "{described} goes beyond the end of the blob at {length}"
        ));
    }
    Ok(range)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_not_a_number| "an offset of the page list is not a number".to_owned())
}

/// The frames of a body, read one after the other without being put together.
struct Frames<'a> {
    rest: &'a [Bytes],
    position: usize,
}

impl Read for Frames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((frame, rest)) = self.rest.split_first() {
            let remaining = &frame[self.position..];
            if remaining.is_empty() {
                (self.rest, self.position) = (rest, 0);
                continue;
            }
            let count = remaining.len().min(buffer.len());
            buffer[..count].copy_from_slice(&remaining[..count]);
            self.position += count;
            return Ok(count);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: u64 = 1 << 40;

    fn parse(text: &str) -> Result<PageListPage, String> {
        PageListPage::parse(&[Bytes::copy_from_slice(text.as_bytes())], 0, LENGTH)
    }

    fn written(start: u64, end: u64) -> PageRange {
        PageRange {
            range: ByteRange::new(start, end).expect("not empty"),
            kind: PageRangeKind::Written,
        }
    }

    fn cleared(start: u64, end: u64) -> PageRange {
        PageRange {
            kind: PageRangeKind::Cleared,
            ..written(start, end)
        }
    }

    #[test]
    fn both_kinds_come_in_address_order() {
        let page = parse(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>\
             <PageRange><Start>0</Start><End>511</End></PageRange>\
             <ClearRange><Start>512</Start><End>1023</End></ClearRange>\
             <PageRange><Start>1024</Start><End>1535</End></PageRange>\
             <PageRange><Start>1536</Start><End>2047</End></PageRange>\
             <NextMarker>2!a&amp;b</NextMarker></PageList>",
        );
        assert_eq!(
            page,
            Ok(PageListPage {
                ranges: vec![written(0, 512), cleared(512, 1024), written(1024, 2048)],
                marker: Some("2!a&b".into()),
            })
        );
    }

    #[test]
    fn an_empty_list_is_a_list_and_anything_else_is_not() {
        assert_eq!(parse("<PageList/>"), Ok(PageListPage::default()));
        assert_eq!(
            parse("<PageList><NextMarker/></PageList>"),
            Ok(PageListPage::default())
        );
        for text in [
            "",
            "<Error><Code>X</Code></Error>",
            "<PageList>",
            "<PageList><PageRange><Start>0</Start></PageRange></PageList>",
            "<PageList><PageRange><Start>0</Start><End>x</End></PageRange></PageList>",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_that_cannot_be_are_refused() {
        let list = |ranges: &[(u64, u64)]| {
            let body: String = ranges
                .iter()
                .map(|(a, b)| format!("<PageRange><Start>{a}</Start><End>{b}</End></PageRange>"))
                .collect();
            parse(&format!("<PageList>{body}</PageList>"))
        };
        assert!(list(&[(0, 511), (512, 1023)]).is_ok());
        for (ranges, reason) in [
            (vec![(1024, 511)], "ends before"),
            (vec![(0, 510)], "not aligned"),
            (vec![(1, 512)], "not aligned"),
            (vec![(512, 1023), (0, 511)], "begins before"),
            (vec![(0, 1023), (512, 1535)], "begins before"),
            (vec![(LENGTH, LENGTH + 511)], "beyond the end"),
        ] {
            let error = list(&ranges).expect_err("refused");
            assert!(error.contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn frames_may_be_cut_anywhere(cuts in proptest::collection::vec(1_usize..40, 0..40)) {
            let text: String = (0_u64..20)
                .map(|i| format!("<PageRange><Start>{}</Start><End>{}</End></PageRange>", i * 1024, i * 1024 + 511))
                .collect();
            let text = Bytes::from(format!("<PageList>{text}</PageList>"));
            let mut rest = text.clone();
            let mut frames = Vec::new();
            for cut in cuts {
                frames.push(rest.split_to(cut.min(rest.len())));
            }
            frames.push(rest);
            prop_assert_eq!(
                PageListPage::parse(&frames, 0, LENGTH),
                PageListPage::parse(&[text], 0, LENGTH)
            );
        }
    }
}
