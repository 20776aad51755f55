//! The body of an answer, as it arrives.
//!
//! A frame is a slice of the read buffer that it came in, and keeps the whole of it: where it fills most of it, it is kept as it
//! is; smaller ones are put together.

use bytes::{Bytes, BytesMut};

/// Upper bound of one read from a connection. It also bounds the head of an answer: two signed polling URLs of more
/// than 4 KB each come in one head ("Track asynchronous Azure operations"), so this leaves ample room.
pub(super) const READ_BUFFER: usize = 128 * 1024;
/// The frames of one body.
pub(super) struct Frames {
    done: Vec<Bytes>,
    /// Behind `done`; at most [`READ_BUFFER`] bytes.
    tail: BytesMut,
    /// Bytes in both.
    pub(super) len: u64,
    /// Bytes of the whole body, if it was announced.
    announced: Option<u64>,
}

impl Frames {
    /// Of a frame that is kept, at most so much of its read buffer is wasted: a quarter.
    const KEPT: usize = READ_BUFFER / 4 * 3;

    pub(super) fn new(announced: Option<u64>) -> Self {
        Self {
            done: Vec::new(),
            tail: BytesMut::new(),
            len: 0,
            announced,
        }
    }

    /// Bytes of memory that [`push`](Self::push) will take for this frame beyond what is taken already.
    pub(super) fn cost(&self, frame: &Bytes) -> u64 {
        if frame.len() >= Self::KEPT {
            READ_BUFFER as u64
        } else if frame.len() <= self.room() {
            0
        } else {
            self.next_tail() as u64
        }
    }

    pub(super) fn push(&mut self, mut frame: Bytes) {
        if frame.len() >= Self::KEPT {
            self.len += frame.len() as u64;
            self.seal();
            self.done.push(frame);
            return;
        }
        while !frame.is_empty() {
            if self.room() == 0 {
                let next = self.next_tail();
                self.seal();
                self.tail.reserve(next);
            }
            let now = frame.split_to(self.room().min(frame.len()));
            self.tail.extend_from_slice(&now);
            self.len += now.len() as u64;
        }
    }

    fn room(&self) -> usize {
        self.tail.capacity() - self.tail.len()
    }

    /// As much as is still to come, but no more than a read buffer.
    fn next_tail(&self) -> usize {
        let rest = self.announced.map_or(u64::MAX, |announced| {
            announced.saturating_sub(self.len).max(1)
        });
        usize::try_from(rest).unwrap_or(usize::MAX).min(READ_BUFFER)
    }

    fn seal(&mut self) {
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() {
            self.done.push(tail.freeze());
        }
    }

    pub(super) fn finish(mut self) -> Vec<Bytes> {
        self.seal();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8, len: usize) -> Bytes {
        Bytes::from(vec![byte; len])
    }

    /// All frames put together, the memory that they took, and their own account of it.
    fn put_together(lens: &[usize], announced: bool) -> (Vec<Bytes>, u64) {
        let len = lens.iter().sum::<usize>() as u64;
        let mut frames = Frames::new(announced.then_some(len));
        let mut cost = 0;
        for (number, &len) in (1..).zip(lens) {
            let frame = frame(number, len);
            cost += frames.cost(&frame);
            frames.push(frame);
        }
        assert_eq!(frames.len, len);
        (frames.finish(), cost)
    }

    #[test]
    fn small_frames_are_put_together_and_large_ones_are_kept() {
        const KEPT: usize = Frames::KEPT;
        for lens in [
            vec![],
            vec![1, 1, 1],
            vec![KEPT - 1; 5],
            vec![READ_BUFFER],
            vec![10, KEPT, 20, 30, READ_BUFFER, 1],
        ] {
            let (frames, cost) = put_together(&lens, true);
            let all: Vec<_> = (1..)
                .zip(&lens)
                .flat_map(|(n, &len)| frame(n, len))
                .collect();
            assert_eq!(frames.concat(), all);
            let fits = |frame: &Bytes| (1..=READ_BUFFER).contains(&frame.len());
            assert!(frames.iter().all(fits));
            // Two neighbours of which each is small would have been put together.
            let is_small = |frame: &Bytes| frame.len() < READ_BUFFER / 2;
            assert!(!frames.windows(2).any(|pair| pair.iter().all(is_small)));
            assert!(cost >= all.len() as u64, "{cost}");
            assert!(cost <= (frames.len() * READ_BUFFER) as u64, "{cost}");
        }
        let kept = frame(7, KEPT);
        let mut frames = Frames::new(None);
        frames.push(kept.clone());
        assert_eq!(frames.finish()[0].as_ptr(), kept.as_ptr());
    }

    #[test]
    fn a_small_body_takes_no_more_than_its_length() {
        assert_eq!(put_together(&[512], true).1, 512);
        assert_eq!(put_together(&[512, 3584], true).1, 4096);
        assert_eq!(put_together(&[512], false).1, READ_BUFFER as u64);
    }
}
