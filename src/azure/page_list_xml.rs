//! One answer of "Get Page Ranges", as XML that is read element by element.
//!
//! Both kinds of range come mixed in address order. A list that cannot be trusted is an error: a lost range would be lost
//! data.

use std::io::{self, Read};

use bytes::Bytes;

use super::page_blob::PAGE;
use super::page_list::PageRanges;
use super::xml;
use crate::range::ByteRange;

/// What an answer says besides its ranges.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PageListPage {
    /// End of the last range; `None` if there was none.
    pub(super) end: Option<u64>,
    /// Where the next page begins; `None` on the last one.
    pub(super) marker: Option<String>,
}

impl PageListPage {
    /// Reads the frames of one answer; its ranges are added to `ranges`. They must begin at or behind `from`, where the
    /// page before ended, and overlap with `window`, which was asked for and to which they are cut: whether the service
    /// does that is not documented.
    pub(super) fn parse(
        frames: &[Bytes],
        from: u64,
        window: Window,
        ranges: &mut PageRanges,
    ) -> Result<Self, String> {
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
                        let range = window.checked(first, last, position)?;
                        position = range.end();
                        page.end = Some(position);
                        match *kind {
                            "PageRange" => &mut ranges.written,
                            _ => &mut ranges.cleared,
                        }
                        .push(range)
                        .map_err(|error| error.to_string())?;
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
}

/// The part of a blob that is listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Length of the blob.
    pub(super) length: u64,
    /// What was asked for, if not the whole blob.
    pub(super) part: Option<ByteRange>,
}

impl Window {
    fn checked(self, first: u64, last: u64, position: u64) -> Result<ByteRange, String> {
        let described = format!("range {first}-{last} of the page list");
        let listed = ByteRange::from_inclusive(first, last)
            .ok_or_else(|| format!("{described} ends before it begins"))?;
        if !listed.is_aligned(PAGE) {
            return Err(format!("{described} is not aligned to {PAGE} bytes"));
        }
        if listed.end() > self.length {
            return Err(format!(
                "{described} goes beyond the end of the blob at {}",
                self.length
            ));
        }
        let range = match self.part {
            None => listed,
            Some(part) => listed.intersection(part).ok_or_else(|| {
                format!("{described} lies outside of {part}, which was asked for")
            })?,
        };
        if range.start() < position {
            return Err(format!(
                "{described} begins before {position}, where the range before it ended"
            ));
        }
        Ok(range)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_not_a_number| "an offset of the page list is not a number".to_owned())
}

/// The frames of a body, read one after the other without being put together. Each read fills its buffer, so that where the
/// body was cut changes nothing: a byte order mark is seen as one.
struct Frames<'a> {
    rest: &'a [Bytes],
    position: usize,
}

impl Read for Frames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some((frame, rest)) = self.rest.split_first() {
            let remaining = &frame[self.position..];
            let count = remaining.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&remaining[..count]);
            filled += count;
            if count < remaining.len() {
                self.position += count;
                break;
            }
            (self.rest, self.position) = (rest, 0);
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::range_list::RangeList;

    const LENGTH: u64 = 1 << 40;

    fn parse_frames(
        frames: &[Bytes],
        part: Option<ByteRange>,
    ) -> Result<(PageListPage, PageRanges), String> {
        let mut ranges = PageRanges::default();
        let window = Window {
            length: LENGTH,
            part,
        };
        let from = part.map_or(0, ByteRange::start);
        let page = PageListPage::parse(frames, from, window, &mut ranges)?;
        Ok((page, ranges))
    }

    fn parse(text: &str) -> Result<(PageListPage, PageRanges), String> {
        parse_frames(&[Bytes::copy_from_slice(text.as_bytes())], None)
    }

    fn pairs(ranges: &RangeList) -> Vec<(u64, u64)> {
        ranges.iter().map(|r| (r.start(), r.end())).collect()
    }

    #[test]
    fn both_kinds_come_in_address_order() {
        let (page, ranges) = parse(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>\
             <PageRange><Start>0</Start><End>511</End></PageRange>\
             <ClearRange><Start>512</Start><End>1023</End></ClearRange>\
             <PageRange><Start>1024</Start><End>1535</End></PageRange>\
             <PageRange><Start>1536</Start><End>2047</End></PageRange>\
             <NextMarker>2!a&amp;b</NextMarker></PageList>",
        )
        .expect("a page");
        assert_eq!(pairs(&ranges.written), [(0, 512), (1024, 2048)]);
        assert_eq!(pairs(&ranges.cleared), [(512, 1024)]);
        assert_eq!(page.end, Some(2048));
        assert_eq!(page.marker.as_deref(), Some("2!a&b"));
    }

    #[test]
    fn an_empty_list_is_a_list_and_anything_else_is_not() {
        for text in ["<PageList/>", "<PageList><NextMarker/></PageList>"] {
            assert_eq!(parse(text), Ok(Default::default()));
        }
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

    #[test]
    fn a_part_is_what_was_asked_for() {
        let part = ByteRange::new(1024, 4096);
        let list = |first: u64, last: u64| {
            let text = format!(
                "<PageList><PageRange><Start>{first}</Start><End>{last}</End></PageRange></PageList>"
            );
            parse_frames(&[text.into()], part).map(|(_, ranges)| pairs(&ranges.written))
        };
        assert_eq!(list(0, 1535), Ok(vec![(1024, 1536)]));
        assert_eq!(list(2048, 8191), Ok(vec![(2048, 4096)]));
        for (first, last) in [(0, 1023), (4096, 4607)] {
            let error = list(first, last).expect_err("refused");
            assert!(error.contains("outside of 1024..4096"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn frames_may_be_cut_anywhere(
            cuts in proptest::collection::vec(1_usize..40, 0..40),
            head in prop_oneof![Just(&b""[..]), Just(&b"\xef\xbb\xbf"[..]), Just(&b"\xef\xbb\xbf no UTF-8: \xff"[..])],
        ) {
            let text: String = (0_u64..20)
                .map(|i| format!("<PageRange><Start>{}</Start><End>{}</End></PageRange>", i * 1024, i * 1024 + 511))
                .collect();
            let text = Bytes::from([head, format!("<PageList>{text}</PageList>").as_bytes()].concat());
            let mut rest = text.clone();
            let mut frames = Vec::new();
            for cut in cuts {
                frames.push(rest.split_to(cut.min(rest.len())));
            }
            frames.push(rest);
            prop_assert_eq!(
                parse_frames(&frames, None),
                parse_frames(&[text], None)
            );
        }
    }
}
