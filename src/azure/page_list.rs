//! The list of a page blob's ranges: which hold data, or changed ("Get Page Ranges").
//!
//! An answer has 10 000 ranges at most, and most lists are one answer. What is left after it is cut into slices that are
//! listed side by side, as many as answers are to be expected, and so is what is left of a slice.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use super::Error;
use super::arm::Subject;
use super::page_blob::PageBlob;
use super::page_list_slice::Slice;
use crate::range::ByteRange;
use crate::range_list::{Disordered, RangeList};

/// Requests under way for all lists of a job beyond the first of each. An answer has a MiB.
const UNDER_WAY: usize = 8;

/// Bytes of memory that the ranges of a list may take; ten million of them take 64 MiB at most.
const MOST_MEMORY: usize = 512 << 20;

/// What the requests of a job's lists must have before they are sent.
#[derive(Clone, Debug)]
pub(super) struct ListSlots(Arc<Semaphore>);

impl Default for ListSlots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(UNDER_WAY)))
    }
}

/// A whole list. The kinds have no range in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRanges {
    /// What holds data (`<PageRange>`).
    pub written: RangeList,
    /// What reads as zeros since the base of a difference (`<ClearRange>`).
    pub cleared: RangeList,
}

impl PageRanges {
    fn memory(&self) -> usize {
        self.written.memory() + self.cleared.memory()
    }

    fn append(&mut self, next: Self) -> Result<(), Disordered> {
        self.written.append(next.written)?;
        self.cleared.append(next.cleared)
    }
}

/// A page list that is to be read.
#[derive(Debug)]
pub struct PageList {
    first: Slice,
    /// How its first answer was, if it was fetched.
    begun: Option<Result<(), Error>>,
}

impl PageList {
    pub(super) fn new(blob: PageBlob, base: Option<PageBlob>, part: Option<ByteRange>) -> Self {
        Self {
            first: Slice::new(blob, base, part),
            begun: None,
        }
    }

    /// Fetches the first answer while `other` is awaited. How that went, [`collect`](Self::collect) tells; an error of
    /// `other` ends both.
    ///
    /// # Errors
    ///
    /// That of `other`.
    pub async fn beside<T, E>(
        mut self,
        other: impl Future<Output = Result<T, E>>,
    ) -> Result<(T, Self), E> {
        let begin = Box::pin(async {
            self.begun = Some(self.first.next_page().await);
            Ok(())
        });
        let (output, ()) = tokio::try_join!(other, begin)?;
        Ok((output, self))
    }

    /// The whole list.
    ///
    /// # Errors
    ///
    /// The service's refusal, or a list that cannot be trusted; for a difference, [`ErrorKind::DiffUnavailable`](super::ErrorKind::DiffUnavailable).
    pub async fn collect(self) -> Result<PageRanges, Error> {
        let Self { mut first, begun } = self;
        match begun {
            Some(begun) => begun?,
            None => first.next_page().await?,
        }
        let blob = first.blob().clone();
        let mut listed = Vec::new();
        let mut waiting = VecDeque::from(first.rest(&mut listed));
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < UNDER_WAY
                && let Some(mut slice) = waiting.pop_front()
            {
                let ListSlots(slots) = blob.list_slots();
                under_way.push(async move {
                    let _slot = slots.acquire().await;
                    slice.next_page().await.map(|()| slice)
                });
            }
            match under_way.next().await {
                Some(slice) => waiting.extend(slice?.rest(&mut listed)),
                None => break,
            }
            let memory: usize = listed.iter().map(|(_, ranges)| ranges.memory()).sum();
            if memory > MOST_MEMORY {
                return Err(
                    Subject::new("list page ranges of", &blob).invalid("the list does not end")
                );
            }
        }
        listed.sort_by_key(|(start, _)| *start);
        let mut listed = listed.into_iter().map(|(_, ranges)| ranges);
        let mut all = listed.next().unwrap_or_default();
        listed
            .try_for_each(|ranges| all.append(ranges))
            .map_err(|error| {
                Subject::new("list page ranges of", &blob).invalid(error.to_string())
            })?;
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;

    use http::Request;
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::super::blob_credential::BlobCredential;
    use super::super::page_list_slice::LIST_PAGE;
    use super::super::retry::RetryPolicy;
    use super::super::testing::{Outcome, Script, answer};
    use super::super::{Defect, ErrorKind, SasUrl};
    use super::*;
    use crate::payload::Payload;

    const GIB: u64 = 1 << 30;

    fn blob(script: &Arc<Script>, name: &str) -> PageBlob {
        let sas = format!("https://md-1.blob.example/c/{name}?sig=s");
        let credential = BlobCredential::Fixed(SasUrl::parse(&sas).expect("a SAS"));
        PageBlob::new(script.sender(RetryPolicy::JOB), Arc::default(), credential)
    }

    /// First byte, end, and whether it was written.
    type Listed = (u64, u64, bool);

    /// A service with `ranges`, which it cuts at the ends of what is asked for or not, and `most` in an answer.
    fn serve(
        request: &Request<Payload>,
        ranges: &[Listed],
        length: u64,
        (most, cuts): (usize, bool),
    ) -> Outcome {
        let header = |name| {
            request
                .headers()
                .get(name)
                .map(|value| value.to_str().expect("text"))
        };
        let (start, end) = header("x-ms-range").map_or((0, length), |text| {
            let (first, last) = text[6..].split_once('-').expect("a range");
            (
                first.parse().expect("a number"),
                last.parse::<u64>().expect("a number") + 1,
            )
        });
        let uri = request.uri().to_string();
        let from = uri.split_once("marker=").map_or(start, |(_, text)| {
            text.split('&')
                .next()
                .expect("a part")
                .parse()
                .expect("a number")
        });
        let mut body = String::from("<PageList>");
        let mut within = ranges
            .iter()
            .filter(|(first, last, _)| *last > from && *first < end);
        for &(first, last, written) in within.by_ref().take(most) {
            let (first, last) = match cuts {
                true => (first.max(start), last.min(end)),
                false => (first, last),
            };
            let name = if written { "PageRange" } else { "ClearRange" };
            write!(
                body,
                "<{name}><Start>{first}</Start><End>{}</End></{name}>",
                last - 1
            )
            .expect("text");
        }
        if let Some((first, ..)) = within.next() {
            write!(body, "<NextMarker>{first}</NextMarker>").expect("text");
        }
        body.push_str("</PageList>");
        let length = length.to_string();
        answer(200, &[("x-ms-blob-content-length", &length)], body)
    }

    fn list_of(ranges: &[Listed], kind: bool) -> RangeList {
        let of_kind = ranges.iter().filter(|(.., written)| *written == kind);
        RangeList::of(of_kind.filter_map(|&(start, end, _)| ByteRange::new(start, end)))
            .expect("ascending")
    }

    /// Lists, checks the outcome; how many requests it took, and how many one after the other.
    async fn listed(ranges: Vec<Listed>, length: u64, terms: (usize, bool)) -> (usize, u64) {
        let served = ranges.clone();
        let script = Script::new(move |request, _| serve(request, &served, length, terms));
        let began = Instant::now();
        let found = blob(&script, "a")
            .page_list()
            .collect()
            .await
            .expect("listed");
        assert_eq!(found.written, list_of(&ranges, true));
        assert_eq!(found.cleared, list_of(&ranges, false));
        let trips = began.elapsed().as_millis() / 10;
        (script.seen().len(), u64::try_from(trips).expect("few"))
    }

    fn even(count: u64, length: u64) -> Vec<Listed> {
        let stride = length / count / 512 * 512;
        (0..count)
            .map(|number| (number * stride, number * stride + 4096, true))
            .collect()
    }

    const SERVICE: (usize, bool) = (LIST_PAGE as usize, true);

    #[tokio::test(start_paused = true)]
    async fn long_lists_are_read_in_slices_and_short_ones_at_once() {
        assert_eq!(listed(even(10_000, GIB), GIB, SERVICE).await, (1, 1));
        // Too little is left to be cut.
        assert_eq!(listed(even(15_000, GIB), GIB, SERVICE).await, (2, 2));
        // One after the other it would be ten.
        assert_eq!(
            listed(even(100_000, 4096 * GIB), 4096 * GIB, SERVICE).await,
            (14, 3)
        );
        // All at the beginning of an empty disk.
        let front = even(100_000, 16 * GIB);
        let (requests, trips) = listed(front, 4096 * GIB, SERVICE).await;
        assert!(
            requests <= 50 && trips <= 7,
            "{requests} requests, {trips} trips"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_lists_of_a_job_share_what_is_under_way() {
        let script = Script::new(|request, _| serve(request, &even(40_000, GIB), GIB, SERVICE));
        let slots = ListSlots::default();
        let list = |name| blob(&script, name).with_list_slots(&slots).page_list();
        let (one, other) = tokio::join!(list("a").collect(), list("b").collect());
        assert_eq!(one.expect("listed"), other.expect("listed"));
        let mut begun = BTreeMap::new();
        for request in script.seen() {
            *begun.entry(request.at).or_insert(0) += 1;
        }
        assert_eq!(begun.into_values().collect::<Vec<_>>(), [2, 8, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn every_slice_of_a_difference_is_one_of_a_difference() {
        let ranges = even(50_000, GIB);
        let script = Script::new(move |request, _| {
            let base = request.headers().get("x-ms-previous-snapshot-url");
            assert_eq!(
                base.map(|value| value.as_bytes()),
                Some(&b"https://md-1.blob.example/c/b?sig=s"[..])
            );
            serve(request, &ranges, GIB, SERVICE)
        });
        let (target, base) = (blob(&script, "a"), blob(&script, "b"));
        let found = target
            .page_list_diff(&base)
            .collect()
            .await
            .expect("listed");
        assert_eq!(found.written.len(), 50_000);
        assert!(script.seen().len() > 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slice_that_cannot_be_trusted_fails_the_list() {
        let ranges = even(100_000, 64 * GIB);
        for (what, status, kind) in [
            ("refused", 403, ErrorKind::Forbidden),
            ("of another part", 200, ErrorKind::InvalidAnswer),
            ("of another length", 200, ErrorKind::InvalidAnswer),
        ] {
            let ranges = ranges.clone();
            let script = Script::new(move |request, index| match (index, what) {
                (5, "of another part") => {
                    // As one that does not heed the header.
                    let mut request = request.clone();
                    request.headers_mut().remove("x-ms-range");
                    serve(&request, &ranges, 64 * GIB, SERVICE)
                }
                (5, "of another length") => serve(request, &ranges, 64 * GIB + 512, SERVICE),
                (5, _) => answer(status, &[], ""),
                _ => serve(request, &ranges, 64 * GIB, SERVICE),
            });
            let list = blob(&script, "a").page_list();
            let error = list.collect().await.expect_err(what);
            assert_eq!(error.kind(), kind, "{what}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_comes_beside_something_else() {
        let script = Script::new(|request, _| serve(request, &even(10, GIB), GIB, SERVICE));
        let began = Instant::now();
        let other = async {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            Ok::<_, Defect>(7)
        };
        let (other, list) = blob(&script, "a")
            .page_list()
            .beside(other)
            .await
            .expect("7");
        assert_eq!(other, 7);
        assert_eq!(list.collect().await.expect("listed").written.len(), 10);
        assert_eq!((began.elapsed().as_millis(), script.seen().len()), (10, 1));

        // Its failure is told when the list is wanted, and not before.
        let refusing = Script::new(|_, _| answer(403, &[], ""));
        let (_, list) = blob(&refusing, "a")
            .page_list()
            .beside(async { Ok::<_, Defect>(()) })
            .await
            .expect("the other one is good");
        assert_eq!(
            list.collect().await.expect_err("refused").kind(),
            ErrorKind::Forbidden
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_goes_round_in_circles_is_refused() {
        let script = Script::new(|_, index| {
            let marker = if index % 2 == 0 { "a" } else { "b" };
            answer(
                200,
                &[("x-ms-blob-content-length", "1024")],
                format!("<PageList><NextMarker>{marker}</NextMarker></PageList>"),
            )
        });
        let list = blob(&script, "a").page_list();
        let error = list.collect().await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidAnswer);
        assert!(
            error.to_string().contains("does not come to its end"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_marker_that_is_not_heeded_is_noticed() {
        let few = even(15, GIB);
        let script = Script::new(move |request, _| {
            // The first answer, over and over.
            let uri = request.uri().to_string();
            let (place, _) = uri.split_once("&marker=").unwrap_or((&uri, ""));
            let mut other = request.clone();
            *other.uri_mut() = place.parse().expect("a URI");
            serve(&other, &few, GIB, (10, true))
        });
        let list = blob(&script, "a").page_list();
        let error = list.collect().await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidAnswer, "{error}");
        assert!(script.seen().len() < 4, "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn empty_pages_in_between_are_followed() {
        let script = Script::new(|request, index| {
            // The length is asked for where a list does not tell it.
            if request.method() == http::Method::HEAD {
                return answer(200, &[("content-length", "1024")], "");
            }
            let page = match index {
                0..=500 => format!("<PageList><NextMarker>{index}</NextMarker></PageList>"),
                _ => "<PageList><PageRange><Start>0</Start><End>511</End></PageRange></PageList>"
                    .into(),
            };
            assert_eq!(request.uri().to_string().contains("marker="), index > 0);
            answer(200, &[], page)
        });
        let ranges = blob(&script, "a").page_ranges().await.expect("listed");
        assert_eq!(ranges.written.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Also where ranges go over the borders of slices, and the service does not cut them there.
        #[test]
        fn slices_are_the_list(
            pieces in prop::collection::vec((0..40_000_u64, 1..40_000_u64, any::<bool>()), 1..400),
            most in 1..60_usize,
            cuts in any::<bool>(),
        ) {
            let mut position = 0;
            let ranges: Vec<Listed> = pieces
                .into_iter()
                .map(|(gap, len, written)| {
                    let start = position + gap * 512;
                    position = start + len * 512;
                    (start, position, written)
                })
                .collect();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime");
            runtime.block_on(listed(ranges, position + 512, (most, cuts)));
        }
    }
}
