//! How far a list that comes in pages is followed.

use std::collections::HashSet;

use super::exchange::Answer;

/// Pages of a list; no subscription and no container of ours fills so many.
const MOST: usize = 10_000;

/// Bytes of all pages together; ten thousand virtual machines have about 40 MB.
const MOST_BYTES: u64 = 512 << 20;

/// The pages of a list so far.
#[derive(Debug, Default)]
pub(super) struct Pages {
    seen: HashSet<String>,
    bytes: u64,
}

impl Pages {
    /// Notes that `answer` was a page, and that `next`, a link or a marker, leads to the one after it.
    ///
    /// # Errors
    ///
    /// What is wrong with a list that need not end.
    pub(super) fn go_on(&mut self, answer: &Answer, next: &str) -> Result<(), &'static str> {
        self.bytes += answer.len();
        if !self.seen.insert(next.to_owned()) {
            return Err("the pages of the list go round in a circle");
        }
        if self.seen.len() == MOST || self.bytes > MOST_BYTES {
            return Err("the list does not end");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn page(bytes: usize) -> Answer {
        Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: vec![Bytes::from(vec![b' '; bytes])],
        }
    }

    #[test]
    fn pages_that_come_again_or_are_too_many_or_too_large_are_no_list() {
        let mut pages = Pages::default();
        for (next, expected) in [("a", true), ("b", true), ("a", false)] {
            assert_eq!(pages.go_on(&page(0), next).is_ok(), expected, "{next}");
        }
        let mut pages = Pages::default();
        let last = (1..).find(|n| pages.go_on(&page(0), &n.to_string()).is_err());
        assert_eq!(last, Some(MOST));
        // The same memory each time.
        let large = page(64 << 20);
        let mut pages = Pages::default();
        let last = (1..).find(|n| pages.go_on(&large, &n.to_string()).is_err());
        assert_eq!(last, Some(9));
    }
}
