//! A request's payload as the body that hyper sends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

use crate::payload::Payload;

/// The payload from `position` on.
pub(super) struct OutgoingBody {
    payload: Payload,
    position: u64,
    fetching: Option<BoxFuture<'static, io::Result<Bytes>>>,
    taken: Arc<Notify>,
}

/// The bytes to be sent are not to be had, which no other attempt changes.
#[derive(Debug, thiserror::Error)]
#[error("read what is to be sent: {0}")]
pub(super) struct Unreadable(io::Error);

impl OutgoingBody {
    /// All of `payload`; each piece that the connection takes is told by `taken`.
    pub(super) fn new(payload: Payload, taken: Arc<Notify>) -> Self {
        Self {
            payload,
            position: 0,
            fetching: None,
            taken,
        }
    }
}

impl Body for OutgoingBody {
    type Data = Bytes;
    type Error = Unreadable;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unreadable>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let Self {
            payload,
            position,
            fetching,
            taken,
        } = &mut *self;
        let fetch = fetching.get_or_insert_with(|| Box::pin(payload.clone().fetch(*position)));
        let fetched = ready!(fetch.poll_unpin(cx));
        *fetching = None;
        let frame = fetched.map_err(Unreadable).map(|bytes| {
            *position += bytes.len() as u64;
            taken.notify_one();
            Frame::data(bytes)
        });
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.position == self.payload.total()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.payload.total() - self.position)
    }
}
